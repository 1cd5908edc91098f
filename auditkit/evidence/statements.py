"""in-toto Statements, version 1: a predicate (order, grant, verdict and so on) about subjects."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from auditkit.evidence import canonical
from auditkit.evidence.errors import CanonicalFormError, StatementError
from schemas.base import Schema

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
ORDER_PREDICATE = "https://auditkit.dev/order/v1"
GRANT_PREDICATE = "https://auditkit.dev/grant/v1"
CONTINUATION_PREDICATE = "https://auditkit.dev/continuation/v1"
VERDICT_PREDICATE = "https://auditkit.dev/verdict/v1"
VERIFICATION_PREDICATE = "https://auditkit.dev/verification-summary/v1"
REPLAY_DRAW_PREDICATE = "https://auditkit.dev/replay-draw/v1"
REPLAY_RESULT_PREDICATE = "https://auditkit.dev/replay-result/v1"
TRUST_ROOT_PREDICATE = "https://auditkit.dev/trust-root/v1"

MAX_SUBJECTS = 1_000
"""Most subjects read in one statement; ours have one."""

UNNAMED = "_"
"""Name of a subject whose name means nothing (in-toto Statement, field `subject`)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

S = TypeVar("S", bound=Schema)


def subject(kind: str, identifier: str, predicate: Schema) -> dict[str, str]:
    """Return the subject of a statement about one document: its name and its digest.

    Args:
        kind: `order`, `grant`, `continuation`, `verdict` or `trust-root`.
        identifier: name of the document within its kind.
        predicate: the document.

    Returns:
        `{"<kind>/<identifier>": SHA-256 of the canonical predicate}`.
    """
    return {f"{kind}/{identifier}": canonical.sha256_hex(canonical.to_bytes(predicate))}


def make(predicate_type: str, predicate: Schema, subjects: Mapping[str, str]) -> bytes:
    """Return the canonical bytes of the statement, ready to be signed.

    Args:
        predicate_type: URI of what the predicate says.
        predicate: the document.
        subjects: name to SHA-256 (lower-case hexadecimal) of what it is about; at least one.

    Raises:
        StatementError: no subject, an empty name, or a digest of another form.
    """
    _check_subjects(subjects)
    return canonical.to_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": digest}}
                for name, digest in sorted(subjects.items())
            ],
            "predicateType": predicate_type,
            "predicate": predicate.as_json(),
        }
    )


def parse(payload: bytes, predicate_type: str, model: type[S]) -> S:
    """Return the predicate of a statement whose signatures have been verified.

    Fields of the statement that the specification does not know are ignored, and a missing
    predicate is an empty one, as it demands; the predicate itself must fit the model exactly.

    Raises:
        StatementError: not a statement of version 1, without subject, or with another predicate.
    """
    try:
        document = canonical.parse(payload)
    except CanonicalFormError as error:
        raise StatementError(f"not an in-toto statement: {error}") from error
    if not isinstance(document, dict) or document.get("_type") != STATEMENT_TYPE:
        raise StatementError(f"expected an in-toto statement of type {STATEMENT_TYPE}")
    if document.get("predicateType") != predicate_type:
        raise StatementError(
            f"expected a statement of {predicate_type}, found "
            f"{str(document.get('predicateType'))[:80]!r}"
        )
    _check_read_subjects(document.get("subject"))
    try:
        return model.from_bytes(canonical.to_bytes(document.get("predicate", {})))
    except ValidationError as error:
        raise StatementError(f"the predicate is not a {model.__name__}: {error}") from error


def _check_read_subjects(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Check what in-toto demands of subjects: each has a digest; a name is optional."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SUBJECTS:
        raise StatementError(f"expected a list of 1 to {MAX_SUBJECTS} subjects")
    names: set[str] = set()
    for item in value:
        name = item.get("name", UNNAMED) if isinstance(item, dict) else None
        if not isinstance(name, str) or name in names:
            raise StatementError("expected subjects as objects whose names are text and differ")
        names |= {name} - {UNNAMED}
        _check_digests(item.get("digest"))


def _check_digests(value: Any) -> None:  # noqa: ANN401 - any JSON value
    if not isinstance(value, dict) or not value:
        raise StatementError("expected at least one digest for each subject")
    for algorithm, digest in value.items():
        if not isinstance(digest, str) or not digest:
            raise StatementError(f"expected the {algorithm[:80]!r} digest of a subject as text")
    if "sha256" in value and not _SHA256.fullmatch(value["sha256"]):
        raise StatementError("expected a SHA-256 digest as 64 lower-case hexadecimal digits")


def _check_subjects(subjects: Mapping[str, str]) -> None:
    if not subjects:
        raise StatementError("a statement must be about at least one subject")
    for name, digest in subjects.items():
        if not name or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise StatementError(f"subject {name[:80]!r} has no name or no SHA-256 digest")
