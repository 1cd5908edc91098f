"""Attacks on the custody of codes: each fails at one protection, and would succeed without it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from forge import CODE_SECRET, DEVELOPER_KEY, STRANGER_KEY, digest_of

from auditkit.data.errors import OpeningError
from auditkit.data.manifest import Manifest, Opening, verify_opening
from auditkit.data.pools import from_arrays
from auditkit.evidence import dsse
from auditkit.evidence.code_delivery import (
    CodesDeliveryError,
    CodesReceiver,
    open_request,
    seal_codes,
    sign_request,
)
from auditkit.evidence.errors import ThresholdError
from auditkit.evidence.membership_codes import CodeSecretError, check_secret, secret_commitment
from schemas import CodesRequest

SESSION, OTHER_SESSION = "20260301-abcdef", "20260228-fedcba"
COMMITMENT = secret_commitment(CODE_SECRET)
OTHER_SECRET = bytes.fromhex(digest_of("another secret"))
CODES = b"the codes of all members" * 100
POOL = from_arrays(
    np.random.default_rng(1).integers(0, 256, (9, 4, 4, 1), dtype=np.uint8),
    np.arange(9) % 3,
    ("a", "b", "c"),
)
MANIFEST = Manifest(POOL, CODE_SECRET)
COPY = POOL.images[4] ^ np.uint8(1)


def test_a_relay_that_keeps_what_passes_reads_no_code() -> None:
    agent, relay = CodesReceiver(), CodesReceiver()
    passing = seal_codes(CODES, agent.public_key, SESSION, COMMITMENT)
    assert b"members" not in passing
    with pytest.raises(CodesDeliveryError):
        relay.open(passing, SESSION, COMMITMENT)
    assert agent.open(passing, SESSION, COMMITMENT) == CODES


def test_a_relay_that_puts_its_own_key_into_the_request_breaks_the_signature() -> None:
    relay = CodesReceiver()
    honest = CodesRequest(session_id=SESSION, ephemeral_key=CodesReceiver().public_key)
    signed = dsse.Envelope.from_bytes(sign_request(honest, DEVELOPER_KEY))
    payload = signed.payload.replace(honest.ephemeral_key.encode(), relay.public_key.encode())
    with pytest.raises(ThresholdError):
        open_request(replace(signed, payload=payload), DEVELOPER_KEY.public)
    assert open_request(signed, DEVELOPER_KEY.public) == honest


def test_a_key_that_is_not_the_session_s_asks_in_vain() -> None:
    request = CodesRequest(session_id=SESSION, ephemeral_key=CodesReceiver().public_key)
    foreign = dsse.Envelope.from_bytes(sign_request(request, STRANGER_KEY))
    with pytest.raises(ThresholdError):
        open_request(foreign, DEVELOPER_KEY.public)
    assert open_request(foreign, STRANGER_KEY.public) == request


@pytest.mark.parametrize(
    ("session", "secret"),
    [(OTHER_SESSION, CODE_SECRET), (SESSION, OTHER_SECRET)],
    ids=["another session's", "from a secret exchanged after the grant"],
)
def test_codes_that_are_not_the_granted_ones_are_not_taken(session: str, secret: bytes) -> None:
    agent = CodesReceiver()
    sealed = seal_codes(CODES, agent.public_key, session, secret_commitment(secret))
    with pytest.raises(CodesDeliveryError):
        agent.open(sealed, SESSION, COMMITMENT)
    assert agent.open(sealed, session, secret_commitment(secret)) == CODES


def test_an_exchanged_secret_is_not_the_committed_one() -> None:
    with pytest.raises(CodeSecretError):
        check_secret(OTHER_SECRET, COMMITMENT)
    check_secret(CODE_SECRET, COMMITMENT)


@pytest.mark.parametrize(
    "forge",
    [
        lambda opening: replace(opening, index=5),
        lambda opening: replace(opening, label=2),
        lambda opening: replace(opening, key=MANIFEST.open(5).key),
        lambda opening: replace(opening, proof=MANIFEST.open(5).proof),
        lambda opening: replace(opening, proof=opening.proof[:-1]),
    ],
    ids=["another place", "another label", "another key", "another proof", "a shorter proof"],
)
def test_a_forged_opening_opens_nothing(forge: Callable[[Opening], Opening]) -> None:
    honest = MANIFEST.open(4)
    with pytest.raises(OpeningError):
        verify_opening(forge(honest), POOL.images[4], MANIFEST.commitment)
    with pytest.raises(OpeningError):
        verify_opening(honest, COPY, MANIFEST.commitment)
    verify_opening(honest, POOL.images[4], MANIFEST.commitment)
