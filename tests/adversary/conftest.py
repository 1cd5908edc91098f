"""The honest sessions that the attacks start from."""

import pytest
from attacks import continued
from forge import Evidence, Plot, stage


@pytest.fixture(scope="session")
def honest() -> Evidence:
    return stage(Plot())


@pytest.fixture(scope="session")
def contained() -> Evidence:
    """A session in a container that went on in a second one."""
    return stage(continued())
