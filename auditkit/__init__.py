"""auditkit: know which data a model was trained on, with evidence that anyone can check."""

from importlib.metadata import version

__version__ = version("auditkit")
