"""Real tools that our images are compared with: skipped where they are missing, required in CI."""

import os
import shutil
import subprocess

import docker
import pytest
import requests
from docker.errors import DockerException

CONTINUOUS_INTEGRATION = "CI"


def require_engine() -> docker.DockerClient:
    """Connect to the container engine."""
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except (DockerException, requests.RequestException, OSError) as error:
        _missing(f"no container engine: {error}")
    return client


def require_program(name: str) -> str:
    """Return the path of a program."""
    found = shutil.which(name)
    if found is None:
        _missing(f"no {name}")
    return found


def output_of(*command: str) -> str:
    """Run a program and return what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _missing(reason: str) -> None:
    if os.environ.get(CONTINUOUS_INTEGRATION):
        pytest.fail(f"{reason}; continuous integration must have it")
    pytest.skip(reason)
