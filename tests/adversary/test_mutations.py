"""One changed byte anywhere in a bundle, with every checksum repaired, and the evidence is void."""

import io
import random
from collections.abc import Iterator

import pytest
from forge import Evidence

from auditkit.evidence import archive
from auditkit.evidence.bundle import read_bundle, write_bundle
from auditkit.evidence.errors import BundleError
from schemas import AssuranceLevel, VerificationReport

SEED = 20260301
RANDOM_PLACES = 20  # per member, beside its first and its last byte
MEMBERS = (
    "order.dsse.json",
    "request.json",
    "grant.dsse.json",
    "records.jsonl",
    "checkpoints.jsonl",
    "pool.leaves",
    "test.leaves",
    "model/weights.safetensors",
    "model/description.json",
    "model/scores.safetensors",
    "verdicts/000000.dsse.json",
    "verdicts/000001.dsse.json",
)
CONTAINED_MEMBERS = (
    "request.json",
    "continuations/001.request.json",
    "continuations/001.dsse.json",
)
LARGEST_MEMBER = 1_000_000


def members_of(evidence: Evidence) -> dict[str, bytes]:
    file = io.BytesIO(write_bundle(evidence.bundle))
    return dict(archive.read(file, lambda _name: LARGEST_MEMBER))


def verified_with(evidence: Evidence, name: str, data: bytes) -> VerificationReport | BundleError:
    """Write the archive anew around one changed member, read it and verify it."""
    file = io.BytesIO()
    archive.write({**members_of(evidence), name: data}, file)
    try:
        bundle = read_bundle(file.getvalue())
    except BundleError as error:
        return error
    return Evidence(bundle, evidence.trust_root).report()


def is_hint(data: bytes, place: int) -> bool:
    """Does the byte belong to a key identifier of a DSSE envelope?

    That is the one thing in a bundle that may be changed: an unauthenticated hint, which decides no
    more than which trusted key is tried first (DSSE, section Protocol).
    """
    label = data.find(b'"keyid":"')
    return label >= 0 and label + len(b'"keyid":"') <= place < data.find(b'"', label + 9)


def places(data: bytes, generator: random.Random) -> Iterator[int]:
    yield 0
    yield len(data) - 1
    yield from (generator.randrange(len(data)) for _ in range(RANDOM_PLACES))


def test_all_members_are_attacked(honest: Evidence, contained: Evidence) -> None:
    assert set(members_of(honest)) == set(MEMBERS)
    assert set(members_of(contained)) == {*MEMBERS, *CONTAINED_MEMBERS}


EVERY_MEMBER = [
    *(("honest", name) for name in MEMBERS),
    *(("contained", name) for name in CONTAINED_MEMBERS),
]
each_member = pytest.mark.parametrize(
    ("session", "name"), EVERY_MEMBER, ids=[" ".join(pair) for pair in EVERY_MEMBER]
)


@pytest.fixture
def evidence(request: pytest.FixtureRequest, session: str) -> Evidence:
    return request.getfixturevalue(session)


@each_member
def test_no_byte_can_be_flipped(evidence: Evidence, name: str) -> None:
    generator = random.Random(f"{SEED} {name}")
    data = members_of(evidence)[name]
    for place in places(data, generator):
        if is_hint(data, place):
            continue
        flipped = bytearray(data)
        flipped[place] ^= 1 << generator.randrange(8)
        result = verified_with(evidence, name, bytes(flipped))
        if isinstance(result, VerificationReport):
            failed = [finding for finding in result.findings if finding.outcome == "failed"]
            assert failed, f"byte {place} of {name} was flipped and nothing failed"
            assert all(finding.check and finding.error for finding in failed)
            assert result.level == AssuranceLevel.L0


@each_member
def test_nothing_can_be_attached_or_cut_off(evidence: Evidence, name: str) -> None:
    data = members_of(evidence)[name]
    for changed in (data + b" ", data + b"\n", data[:-1], data[: len(data) // 2], b""):
        result = verified_with(evidence, name, changed)
        assert isinstance(result, BundleError) or not result.passed


@pytest.mark.parametrize(
    ("session", "name"), [pair for pair in EVERY_MEMBER if pair[1].endswith("dsse.json")]
)
def test_a_wrong_hint_changes_no_verdict(evidence: Evidence, name: str) -> None:
    data = members_of(evidence)[name]
    place = data.find(b'"keyid":"') + len(b'"keyid":"')
    assert is_hint(data, place)
    assert not is_hint(data, place - 1)
    assert not is_hint(data, place + 64)
    flipped = bytearray(data)
    flipped[place] ^= 1
    assert verified_with(evidence, name, bytes(flipped)) == evidence.report()
