"""Settings that all tests share."""

from hypothesis import settings

# The same examples in every run: a failure is found again, and slow machines change nothing.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")

# Real images, built once for all tests that need them.
pytest_plugins = ["tests.containers.images"]
