"""What a process that only keeps and checks evidence must do without."""

import subprocess
import sys

import pytest

SECONDS_TO_LOAD = {"torch", "timm", "torchvision", "sklearn", "scipy.stats"}


@pytest.mark.parametrize("module", ["auditor_server.serve", "auditor_server.app", "auditkit.cli"])
def test_what_takes_seconds_is_loaded_with_the_first_model(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not SECONDS_TO_LOAD & set(loaded.stdout.decode().split())
