"""Settings that all tests share."""

import pytest
from hypothesis import settings

# The same examples in every run: a failure is found again, and slow machines change nothing.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")

# Real images, built once for all tests that need them.
pytest_plugins = ["tests.containers.images"]
IMAGE_FIXTURES = {"base_archive", "trainer_archive", "private_engine"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Keep together, in one process, the tests that share what takes long to make."""
    for item in items:
        needs_image = IMAGE_FIXTURES.intersection(item.fixturenames)
        item.add_marker(pytest.mark.xdist_group("image" if needs_image else str(item.path)))
