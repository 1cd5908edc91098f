"""The versions of the trust root as the server hands them out and registers them."""

from auditor_server.context import Auditor
from auditor_server.registry import register


def register_trust_roots(auditor: Auditor) -> None:
    """Register every version of the trust root, so that all see the same ones.

    Raises:
        TrustRootError: the home's versions do not follow from each other.

    """
    for version in auditor.home.history().versions:
        register(auditor, "trust-root", version.digest)


def registered_trust_roots(auditor: Auditor) -> tuple[bytes, ...]:
    """Return all versions of the trust root as they were signed, oldest first, and registered."""
    register_trust_roots(auditor)
    return auditor.home.trust_roots()
