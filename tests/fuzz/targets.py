"""What is fuzzed: one function from bytes for each reader of other parties' bytes.

A target may raise `EvidenceError` and nothing else. Where a reader has an inverse or a truth that
the test knows, the target checks that too, with an assertion.
"""

import gzip
import io
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditkit.evidence import (
    archive,
    bundle,
    canonical,
    dsse,
    keys,
    merkle,
    notes,
    proofs,
    record_lines,
    statements,
    witnessing,
)
from auditkit.evidence.errors import EvidenceError
from schemas import AuditOrder
from tests.fuzz.mutators import mutate_json
from tests.schemas.example_documents import EXAMPLES

VECTORS = Path(__file__).parents[1] / "evidence" / "vectors"
ORIGIN = "auditor.example/sessions/s1"
WITNESS = "witness.example/w1"
TIME = 1_700_000_000
LEAVES = [merkle.leaf_hash(b"record %d" % number) for number in range(24)]
ROOTS = [merkle.root(LEAVES[:size]) for size in range(len(LEAVES) + 1)]


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        run: reads one input; raises only `EvidenceError`, or `AssertionError` when a truth that
            is known of the reader does not hold.
        seeds: inputs to begin with.
        mutate: changes an input but keeps it well-formed, beside libFuzzer's own changes.
    """

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    mutate: Callable[[bytes, Random], bytes] | None = None

    def __call__(self, data: bytes) -> None:
        """Read one input; typed errors are what a reader is for.

        Raises:
            Exception: anything else is a finding.
        """
        with suppress(EvidenceError):
            self.run(data)


def _vectors(name: str) -> dict[str, object]:
    data = (VECTORS / name).read_bytes()
    return json.loads(gzip.decompress(data) if name.endswith(".gz") else data)


def _signing_key(letter: bytes) -> keys.SigningKey:
    return keys.SigningKey(Ed25519PrivateKey.from_private_bytes(letter * 32))


LOG = _signing_key(b"l")
COSIGNER = _signing_key(b"w")
LOG_KEY = notes.VerifierKey.ed25519(ORIGIN, LOG.public)
WITNESS_KEY = notes.VerifierKey.cosignature(WITNESS, COSIGNER.public)


def _head(size: int, extensions: tuple[str, ...] = ()) -> notes.Note:
    return notes.sign(
        notes.Checkpoint(ORIGIN, size, ROOTS[size], extensions).to_text(), ORIGIN, LOG
    )


HEADS = [_head(0), _head(5), _head(24, ("extension", "more"))]
COSIGNED = [notes.cosign(head, WITNESS, COSIGNER, TIME).to_bytes() for head in HEADS]
SIGNED_TEXTS = {head.text for head in HEADS}


def read_note(data: bytes) -> None:
    assert notes.parse(data).to_bytes() == data, "a note has one spelling"


def read_checkpoint(data: bytes) -> None:
    assert notes.parse_checkpoint(data).to_text().encode() == data, "so has a checkpoint"


def verify_cosignatures(data: bytes) -> None:
    verified = notes.verify(data, (LOG_KEY, WITNESS_KEY))
    assert verified.text in SIGNED_TEXTS, "nobody signed anything else"
    if (found := verified.signed_by(WITNESS_KEY)) is not None:
        assert found.timestamp == TIME, "nor at another time"


def read_verifier_key(data: bytes) -> None:
    text = data.decode("utf-8", errors="replace")
    assert notes.VerifierKey.parse(text).encode() == text, "a verifier key has one spelling"


def read_public_key(data: bytes) -> None:
    key, signature, message = data[:32], data[32:96], data[96:]
    keys.PublicKey(key).verify(signature, message)


def verify_log_proof(data: bytes) -> None:
    proof = proofs.parse(data)
    assert proof.to_bytes() == data, "a proof has one spelling"
    entry = proofs.verify(proof, LEAVES[3], ORIGIN, [LOG_KEY], proofs.Quorum((WITNESS_KEY,), 1))
    assert entry.index == 3, "the leaf is in the log once"


def _log_proofs() -> Iterable[bytes]:
    for index, size in [(3, 5), (3, 24), (0, 5)]:
        hashes = tuple(merkle.inclusion_proof(LEAVES, index, size))
        note = COSIGNED[1] if size == 5 else COSIGNED[2]
        yield proofs.LogProof(index, hashes, note).to_bytes()
        yield proofs.LogProof(index, hashes, note, b"extra").to_bytes()


def _hashes(data: bytes) -> list[bytes]:
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def verify_inclusion(data: bytes) -> None:
    """One byte each for index and size, the leaf's hash, then the proof."""
    index, size = data[:1], data[1:2]
    position, leaves = int.from_bytes(index, "big"), int.from_bytes(size, "big")
    leaf, proof = data[2:34], _hashes(data[34:])
    root = ROOTS[min(leaves, len(LEAVES))]
    merkle.verify_inclusion(position, leaves, leaf, proof, root)
    if leaves <= len(LEAVES):
        assert leaf == LEAVES[position], "only what is in the tree is proven"
        assert proof == merkle.inclusion_proof(LEAVES, position, leaves)


def _inclusions() -> Iterable[bytes]:
    for index, size in [(0, 1), (0, 2), (3, 7), (6, 7), (23, 24), (15, 16)]:
        proof = b"".join(merkle.inclusion_proof(LEAVES, index, size))
        yield bytes([index, size]) + LEAVES[index] + proof


def verify_consistency(data: bytes) -> None:
    """One byte for each size, then the proof; the roots are true ones."""
    old_size, new_size = int.from_bytes(data[:1], "big"), int.from_bytes(data[1:2], "big")
    proof = _hashes(data[2:])
    last = len(LEAVES)
    merkle.verify_consistency(
        old_size, new_size, proof, ROOTS[min(old_size, last)], ROOTS[min(new_size, last)]
    )
    if new_size <= last:
        assert proof == merkle.consistency_proof(LEAVES, old_size, new_size)


def _consistencies() -> Iterable[bytes]:
    for old_size, new_size in [(0, 0), (0, 5), (1, 2), (3, 7), (6, 8), (8, 24), (23, 24), (24, 24)]:
        proof = b"".join(merkle.consistency_proof(LEAVES, old_size, new_size))
        yield bytes([old_size, new_size]) + proof


def read_frontier(data: bytes) -> None:
    frontier = merkle.Frontier.from_bytes(data)
    assert frontier.to_bytes() == data, "a frontier has one spelling"
    assert len(frontier.root()) == merkle.HASH_BYTES


def _frontiers() -> Iterable[bytes]:
    for size in (0, 1, 7, 24):
        frontier = merkle.Frontier()
        frontier.extend(LEAVES[:size])
        yield frontier.to_bytes()


ORDER = statements.make(
    statements.ORDER_PREDICATE,
    AuditOrder.from_bytes(canonical.to_bytes(EXAMPLES["AuditOrder"])),
    {"order/o1": "ab" * 32},
)
ENVELOPE = dsse.sign(ORDER, [LOG, COSIGNER]).to_bytes()
PAYLOADS = {ORDER}


def verify_envelope(data: bytes) -> None:
    envelope = dsse.Envelope.from_bytes(data)
    assert dsse.Envelope.from_bytes(envelope.to_bytes()) == envelope
    trusted = {LOG.public.keyid: LOG.public, COSIGNER.public.keyid: COSIGNER.public}
    payload = dsse.verify(envelope, trusted, threshold=2)
    assert payload in PAYLOADS, "nobody signed anything else"


def _envelopes() -> Iterable[bytes]:
    yield ENVELOPE
    for case in _vectors("dsse.json")["vectors"]:
        yield json.dumps(case["envelope"]).encode()


def read_statement(data: bytes) -> None:
    order = statements.parse(data, statements.ORDER_PREDICATE, AuditOrder)
    assert AuditOrder.from_bytes(canonical.to_bytes(order)) == order


def read_json(data: bytes) -> None:
    form = canonical.to_bytes(canonical.parse(data))
    assert canonical.to_bytes(canonical.parse(form)) == form, "the canonical form is its own"


def _documents() -> Iterable[bytes]:
    for case in _vectors("jcs.json"):
        yield case["input"].encode()
    for case in _vectors("rfc8785.json")["documents"]:
        yield case["input"].encode()
    numbers = (VECTORS / "es6_numbers.txt").read_text().split()[:300]
    yield b"[" + b",".join(line.split(",")[1].encode() for line in numbers) + b"]"
    yield from (canonical.to_bytes(example) for example in EXAMPLES.values())


def read_record(data: bytes) -> None:
    record = record_lines.parse_line(data, 0)
    assert canonical.to_bytes(record) == data, "a record has one spelling"


def _records() -> Iterable[bytes]:
    for name, example in EXAMPLES.items():
        if name.endswith("Record"):
            yield canonical.to_bytes(example)


BUNDLE = bundle.Bundle(
    order=ENVELOPE,
    request=b'{"developer":"d"}',
    grant=ENVELOPE,
    records=(b'{"sequence":0}', b'{"sequence":1}'),
    checkpoints=tuple(COSIGNED),
    pool_leaves=bytes(64),
    test_leaves=bytes(32),
    weights=b"w" * 40,
    description=b'{"classes":2}',
    scores=b"s" * 8,
    verdicts=(ENVELOPE,),
)


def read_bundle(data: bytes) -> None:
    found = bundle.read_bundle(data)
    assert bundle.write_bundle(found) == data, "a bundle has one form"


def _bundles() -> Iterable[bytes]:
    small = bundle.Bundle(b"{}", b"{}", b"{}", (b"{}",), (), bytes(32), b"")
    yield bundle.write_bundle(small)
    yield bundle.write_bundle(BUNDLE)


NAMES = (
    *bundle.MEMBER_LIMITS,
    "verdicts/000000.dsse.json",
    "verdicts/000001.dsse.json",
    "trust/001.dsse.json",
    "replays/001.draw.dsse.json",
    "replays/001.result.dsse.json",
    "../escape",
    "",
)


def read_bundle_members(data: bytes) -> None:
    """Well-formed archives of arbitrary members: a byte for the name, a byte for the length."""
    members: dict[str, bytes] = {}
    rest = data
    while len(rest) >= 2:
        name, length = NAMES[rest[0] % len(NAMES)], rest[1]
        members[name], rest = rest[2 : 2 + length], rest[2 + length :]
    file = io.BytesIO()
    archive.write(members, file)
    read_bundle(file.getvalue())


def _bundle_members() -> Iterable[bytes]:
    contents = [b"{}"] * 3 + [b"{}\n", b'"note\\n"\n', bytes(32), bytes(32)]
    yield b"".join(bytes([n, len(text)]) + text for n, text in enumerate(contents))
    yield b"".join(bytes([n, 2]) + b"{}" for n in range(len(NAMES) - 2))


def read_witness_request(data: bytes) -> None:
    request = witnessing.AddCheckpoint.from_bytes(data)
    assert request.to_bytes() == data, "a request has one spelling"
    witnessing.check_signed(request, [LOG_KEY])
    witnessing.check_extends(request, witnessing.LogState(5, ROOTS[5], TIME))
    assert request.note.text in SIGNED_TEXTS, "nobody signed anything else"


def _witness_requests() -> Iterable[bytes]:
    yield witnessing.AddCheckpoint.of(
        5, merkle.consistency_proof(LEAVES, 5, 24), HEADS[2]
    ).to_bytes()
    yield witnessing.AddCheckpoint.of(5, [], HEADS[1]).to_bytes()
    for case in _vectors("witness.json")["requests"]:
        yield case["body"].encode()


def _note_seeds() -> Iterable[bytes]:
    yield from COSIGNED
    yield from (case["note"].encode() for case in _vectors("notes_go.json")["notes"])


def _key_seeds() -> Iterable[bytes]:
    for case in _vectors("ed25519.json"):
        yield bytes.fromhex(case["public"] + case["signature"] + case["message"])
    for case in _vectors("ed25519_cctv.json.gz")[::20]:
        yield bytes.fromhex(case["key"] + case["sig"]) + case["msg"].encode()


def _verifier_keys() -> Iterable[bytes]:
    yield from (key.encode().encode() for key in (LOG_KEY, WITNESS_KEY))
    known = _vectors("notes_go.json")["verifier_keys"]
    yield from (text.encode() for text in known["good"] + known["bad"])


TARGETS: dict[str, Target] = {
    "note": Target(read_note, tuple(_note_seeds())),
    "checkpoint": Target(read_checkpoint, tuple(text.encode() for text in SIGNED_TEXTS)),
    "cosignature": Target(verify_cosignatures, tuple(COSIGNED)),
    "verifier_key": Target(read_verifier_key, tuple(_verifier_keys())),
    "public_key": Target(read_public_key, tuple(_key_seeds())),
    "log_proof": Target(verify_log_proof, tuple(_log_proofs())),
    "inclusion": Target(verify_inclusion, tuple(_inclusions())),
    "consistency": Target(verify_consistency, tuple(_consistencies())),
    "frontier": Target(read_frontier, tuple(_frontiers())),
    "envelope": Target(verify_envelope, tuple(_envelopes()), mutate_json),
    "statement": Target(read_statement, (ORDER,), mutate_json),
    "canonical_json": Target(read_json, tuple(_documents()), mutate_json),
    "record": Target(read_record, tuple(_records()), mutate_json),
    "bundle": Target(read_bundle, tuple(_bundles())),
    "bundle_members": Target(read_bundle_members, tuple(_bundle_members())),
    "witness_request": Target(read_witness_request, tuple(_witness_requests())),
}
