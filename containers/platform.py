"""What the packages in `requirements.txt` are pinned for, and so every image of ours."""

ARCHITECTURE = "amd64"
"""Processor, as OCI names it (`config.md`)."""

OPERATING_SYSTEM = "linux"
"""Operating system, as OCI names it."""

PYTHON_VERSION = "3.11"
