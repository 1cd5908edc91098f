"""Print the installed packages that a distribution does not need: what only tests and tools use.

pip uninstall --yes $(python deploy/unneeded.py 'auditkit[s3]')
"""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(wanted: Requirement, seen: set[str]) -> Iterator[str]:
    """Yield the names of a distribution and of everything that it needs here, extras included."""
    name = canonicalize_name(wanted.name)
    for key in (name, *(f"{name}[{extra}]" for extra in wanted.extras)):
        if key in seen:
            continue
        seen.add(key)
        yield name
        extra = key.removeprefix(name).strip("[]")
        try:
            listed = requires(name) or []
        except PackageNotFoundError:
            continue  # for another platform
        for line in listed:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                yield from needed(requirement, seen)


def unneeded(wanted: str) -> list[str]:
    """Return the names of the installed packages that a distribution does not need."""
    kept = {*needed(Requirement(wanted), set()), "pip"}
    installed = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    return sorted(installed - kept)


if __name__ == "__main__":
    sys.stdout.write("\n".join(unneeded(sys.argv[1])) + "\n")
