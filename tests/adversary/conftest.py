"""The honest session that the attacks start from."""

import pytest
from forge import Evidence, Plot, stage


@pytest.fixture(scope="session")
def honest() -> Evidence:
    return stage(Plot())
