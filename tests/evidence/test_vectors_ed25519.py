"""Ed25519 at its edges: Project Wycheproof, and every kind of point that CCTV knows.

Our rule is stricter than RFC 8032: public keys and points R of small order, and second encodings of
any point, are refused. Points of mixed order (a large-order point plus a small one) are no such
thing; they are accepted when the equation without cofactor holds, as OpenSSL and Go do.
"""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from auditkit.evidence.errors import EvidenceError, SignatureError, WeakKeyError
from auditkit.evidence.keys import PublicKey

FOLDER = Path(__file__).parent / "vectors"
WYCHEPROOF = json.loads(gzip.decompress((FOLDER / "ed25519_wycheproof.json.gz").read_bytes()))
CCTV = json.loads(gzip.decompress((FOLDER / "ed25519_cctv.json.gz").read_bytes()))

REFUSED = {
    "low_order_A": WeakKeyError,
    "non_canonical_A": WeakKeyError,
    "low_order_R": SignatureError,
    "non_canonical_R": SignatureError,
    "low_order_residue": SignatureError,  # the equation holds only with the cofactor
    "reencoded_k": SignatureError,  # only with another hash than RFC 8032's
}
"""What each flag of CCTV leads to; of several flags the first in this order decides."""

ACCEPTED = {"low_order_component_A", "low_order_component_R"}
"""Flags of points of mixed order."""


def verify(case, message):
    key = PublicKey(bytes.fromhex(case["key"]))
    key.verify(bytes.fromhex(case["sig"]), message)


ACCEPTABLE = {"MixedOrderPublicKey": True, "SmallOrderPublicKey": False}
"""How we decide what Wycheproof leaves open ("acceptable")."""


@pytest.mark.parametrize("case", WYCHEPROOF, ids=lambda case: f"{case['tcId']}")
def test_wycheproof(case):
    message = bytes.fromhex(case["msg"])
    good = case["result"] == "valid"
    if case["result"] == "acceptable":
        (flag,) = case["flags"]
        good = ACCEPTABLE[flag]
    if good:
        verify(case, message)
    else:
        with pytest.raises(EvidenceError):
            verify(case, message)


def test_wycheproof_is_complete():
    results = Counter(case["result"] for case in WYCHEPROOF)
    assert results == {"valid": 117, "invalid": 64, "acceptable": 29}


def expected_error(flags):
    assert set(flags) <= set(REFUSED) | ACCEPTED, "a flag that no rule is written for"
    return next((error for flag, error in REFUSED.items() if flag in flags), None)


@pytest.mark.parametrize("flags", sorted({tuple(case["flags"]) for case in CCTV}), ids="+".join)
def test_cctv(flags):
    cases = [case for case in CCTV if tuple(case["flags"]) == flags]
    error = expected_error(flags)
    for case in cases:
        message = case["msg"].encode()
        if error is None:
            verify(case, message)
        else:
            with pytest.raises(error):
                verify(case, message)


def test_of_cctv_only_points_of_mixed_order_are_accepted():
    accepted = [frozenset(case["flags"]) for case in CCTV if not expected_error(case["flags"])]
    assert Counter(accepted) == {
        frozenset(): 1,
        frozenset({"low_order_component_A"}): 7,
        frozenset({"low_order_component_A", "low_order_component_R"}): 35,
    }
    assert len(CCTV) == 914
