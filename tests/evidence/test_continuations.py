"""Which key signs which part of a log, when container follows upon container."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence import bundle, dsse, statements
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.continuations import (
    ContinuationFormError,
    OpenContinuation,
    is_superseded,
    key_for_size,
    open_continuation,
)
from auditkit.evidence.keys import SigningKey
from schemas import (
    ContinuationRequest,
    Environment,
    SessionContinuation,
    SessionGrant,
    SplitSizes,
)
from tests.evidence.contained import contained_run

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DIGEST = "ab" * 32
SESSION = "20260301-abcdef"
AUDITOR = SigningKey.generate()
GRANT = SessionGrant(
    session_id=SESSION,
    session_number=1,
    origin=f"audit.example.org/sessions/{SESSION}",
    request_digest=DIGEST,
    order_digest=DIGEST,
    nonce=DIGEST,
    split=SplitSizes(told=1, silent=0, told_only=0, external=0, calibration=0),
    session_key="00" * 32,
    valid_from=NOW,
    valid_until=NOW + timedelta(hours=1),
)
REQUEST = ContinuationRequest(
    session_id=SESSION,
    grant_digest=DIGEST,
    container=contained_run(2),
    session_key="01" * 32,
    environment=Environment(
        python="3", torch="2", torchvision="0", timm="1", auditkit="0", platform="Linux",
        cpu_capability="AVX2", threads=1, device="cpu",
    ),
    requested_at=NOW,
)  # fmt: skip


def answer(number: int, log_size: int) -> SessionContinuation:
    return SessionContinuation(
        session_id=SESSION,
        number=number,
        request_digest=DIGEST,
        grant_digest=DIGEST,
        log_size=log_size,
        session_key=f"{number:064x}",
        granted_at=NOW,
    )


def stored(predicate: str = statements.CONTINUATION_PREDICATE) -> bundle.Continuation:
    granted = answer(1, 7)
    subjects = statements.subject("continuation", f"{SESSION}/1", granted)
    envelope = dsse.sign(statements.make(predicate, granted, subjects), [AUDITOR])
    return bundle.Continuation(to_bytes(REQUEST), envelope.to_bytes())


def test_a_continuation_is_read_and_named_by_its_payload() -> None:
    found = open_continuation(stored())
    assert (found.request, found.answer) == (REQUEST, answer(1, 7))
    assert found.request_digest == sha256_hex(to_bytes(REQUEST))
    assert found.digest == sha256_hex(found.envelope.payload)


@pytest.mark.parametrize(
    "damaged",
    [
        replace(stored(), request=b""),
        replace(stored(), request=stored().request + b"\n"),
        replace(stored(), envelope=b"{}"),
        replace(stored(), envelope=stored().envelope + b" "),
        stored(statements.GRANT_PREDICATE),
    ],
    ids=["no request", "white space", "no envelope", "white space in it", "a grant"],
)
def test_anything_but_its_exact_form_is_refused(damaged: bundle.Continuation) -> None:
    with pytest.raises(ContinuationFormError):
        open_continuation(damaged)


def test_each_key_signs_from_beyond_where_it_was_granted() -> None:
    answers = [answer(1, 0), answer(2, 7), answer(3, 7), answer(4, 20)]
    keys = {size: int(key_for_size(GRANT, answers, size), 16) for size in (1, 7, 8, 20, 21, 99)}
    assert keys == {1: 1, 7: 1, 8: 3, 20: 3, 21: 4, 99: 4}
    assert key_for_size(GRANT, answers[1:], 7) == GRANT.session_key


@given(st.lists(st.integers(0, 20), max_size=8).map(sorted), st.integers(1, 25))
def test_a_superseded_key_never_signs(sizes: list[int], size: int) -> None:
    answers = [answer(number, found) for number, found in enumerate(sizes, start=1)]
    opened = [
        OpenContinuation(REQUEST, DIGEST, found, open_continuation(stored()).envelope)
        for found in answers
    ]
    in_force = {
        found.answer.session_key
        for position, found in enumerate(opened)
        if not is_superseded(opened, position)
    }
    assert key_for_size(GRANT, answers, size) in in_force | {GRANT.session_key}
    assert len(in_force) == len(set(sizes))
