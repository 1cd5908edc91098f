"""What other implementations of RFC 6962 accept and refuse, we accept and refuse."""

import base64
import json
from pathlib import Path

import pytest

from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.merkle import verify_consistency, verify_inclusion

VECTORS = json.loads((Path(__file__).parent / "vectors" / "merkle_probes.json").read_text())


def hashes(case, *names):
    return [base64.b64decode(case[name]) for name in names]


def proof_of(case):
    return [base64.b64decode(item) for item in case["proof"]]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: case["name"])
def test_inclusion_proofs_are_judged_as_published(case):
    leaf, root = hashes(case, "leafHash", "root")
    arguments = (case["leafIdx"], case["treeSize"], leaf, proof_of(case), root)
    if case["wantErr"]:
        with pytest.raises(EvidenceError):
            verify_inclusion(*arguments)
    else:
        verify_inclusion(*arguments)


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: case["name"])
def test_consistency_proofs_are_judged_as_published(case):
    old_root, new_root = hashes(case, "root1", "root2")
    arguments = (case["size1"], case["size2"], proof_of(case), old_root, new_root)
    if case["wantErr"]:
        with pytest.raises(EvidenceError):
            verify_consistency(*arguments)
    else:
        verify_consistency(*arguments)


def test_good_and_bad_proofs_are_among_them():
    for kind, good in (("inclusion", 6), ("consistency", 7)):
        assert len(VECTORS[kind]) == 98
        assert sum(not case["wantErr"] for case in VECTORS[kind]) == good
