"""A bundle against the whole registry: does it show everything that its session has there?

A bundle proves that what it shows is registered, and not that it shows all of it. Whoever hands it
on can take the last documents out, together with their entries, and what is left verifies. So a
monitor, who reads every entry, compares the two.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from auditkit.evidence import dsse, statements
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.monitoring import NewEntry
from auditkit.evidence.record_lines import parse_line
from auditkit.evidence.registry_checks import (
    NotRegisteredError,
    RegistryExcerptError,
    entry_identity,
    registered_documents,
)
from auditkit.evidence.registry_head import RegistryError
from schemas import SealRecord, SessionGrant

MOST_NAMED = 20
"""Entries that one message names."""


class BundleIncompleteError(RegistryError):
    """The registry has entries of the bundle's session whose documents the bundle lacks."""


@dataclass(frozen=True)
class ShownSession:
    """What a bundle shows of its session.

    Attributes:
        session_id: of the session.
        documents: what tells each registered document from all others.
        checkpoint: head of the registry when the bundle was made (a C2SP note), not verified.
    """

    session_id: str
    documents: frozenset[tuple[str, str | None, str]]
    checkpoint: bytes

    @classmethod
    def of(cls, bundle: Bundle) -> "ShownSession":
        """Read a bundle. Whether its documents hold is for the verifier to say.

        Raises:
            RegistryExcerptError: the bundle does not say which registry it is of.
            EvidenceError: a document cannot be read.
        """
        if bundle.registry_checkpoint is None:
            raise RegistryExcerptError(
                "the bundle was exported without registry/checkpoint, so there is nothing to "
                "compare the registry with; export it again"
            )
        payload = dsse.Envelope.from_bytes(bundle.grant).payload
        grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
        documents = registered_documents(bundle, _seal(bundle))
        return cls(
            grant.session_id,
            frozenset(document.identity for document in documents),
            bundle.registry_checkpoint,
        )


@dataclass(frozen=True)
class Comparison:
    """A bundle that shows what its session has in the registry.

    Attributes:
        session_id: of the session.
        entries: that the session has.
        verdicts_not_shown: those among them whose verdicts the bundle lacks, and may lack.
    """

    session_id: str
    entries: int
    verdicts_not_shown: int


def compare(shown: ShownSession, size: int, entries: Iterable[NewEntry]) -> Comparison:
    """Compare a bundle with the registry.

    Only verdicts may be missing: all of them, as in a developer's bundle, and those that came
    after it was made. They say nothing of how the model was trained.

    Args:
        shown: what the bundle shows.
        size: of the registry when the bundle was made.
        entries: all that the registry has.

    Raises:
        BundleIncompleteError: the registry has more.
        NotRegisteredError: the bundle has more.
    """
    common = [new for new in entries if new.entry.session_id in (None, shown.session_id)]
    own = [new for new in common if new.entry.session_id is not None]
    missing = [new for new in own if entry_identity(new.entry) not in shown.documents]
    any_verdict = any(kind == "verdict" for kind, _, _ in shown.documents)
    left_out = [
        new for new in missing if new.entry.kind != "verdict" or (any_verdict and new.index < size)
    ]
    if left_out:
        raise BundleIncompleteError(
            f"the registry has entries of session {shown.session_id} whose documents the bundle "
            f"lacks: {_named(left_out)}. The bundle was made when the registry had {size} entries; "
            "earlier ones were left out, later ones came since. Ask the auditor for the bundle as "
            "it is now"
        )
    unknown = shown.documents - {entry_identity(new.entry) for new in common}
    if unknown:
        kind, _, digest = min(unknown, key=str)
        raise NotRegisteredError(
            f"the bundle has a {kind} with digest {digest}, and the registry has no entry for it; "
            "a document that was never registered may be shown to some and not to others"
        )
    return Comparison(shown.session_id, len(own), len(missing))


def _seal(bundle: Bundle) -> SealRecord | None:
    for index, line in deque(enumerate(bundle.records), maxlen=1):
        record = parse_line(line, index)
        if isinstance(record, SealRecord):
            return record
    return None


def _named(entries: Sequence[NewEntry]) -> str:
    names = [f"{new.index} ({new.entry.kind})" for new in entries[:MOST_NAMED]]
    if len(entries) > MOST_NAMED:
        names.append(f"and {len(entries) - MOST_NAMED} more")
    return ", ".join(names)
