"""Settings that all tests share."""

import pytest
from hypothesis import settings

# The same examples in every run: a failure is found again, and slow machines change nothing.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")

# A real browser, real images and a real PostgreSQL, made once for all tests that need them.
pytest_plugins = ["tests.browser", "tests.containers.images", "tests.postgresql"]
IMAGE_FIXTURES = {"base_archive", "trainer_archive", "private_engine"}


def pytest_itemcollected(item: pytest.Function) -> None:
    """Mark what needs the real image, so that it can run beside everything else."""
    if IMAGE_FIXTURES.intersection(item.fixturenames):
        item.add_marker("image")
