"""Proofs to carry around: an entry is in a log, and enough witnesses have seen that log.

The text format of c2sp.org/tlog-proof (v1), verified offline against keys that the reader already
trusts. Everything in a proof is unauthenticated until `verify` has returned.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from auditkit.evidence import merkle, notes
from auditkit.evidence.encoding import from_base64, to_base64
from auditkit.evidence.errors import EvidenceError, UnsignedNoteError
from auditkit.evidence.keys import PublicKey

HEADER = "c2sp.org/tlog-proof@v1"
"""First line of every proof."""

MAX_HASHES = 63
"""Longest inclusion proof: no tree of 2^63 - 1 leaves or fewer needs more hashes."""

MAX_PROOF_BYTES = 2_000_000
"""Largest proof read: the largest note, 63 hashes, and room for extra data."""

_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


class TlogProofFormatError(EvidenceError):
    """Bytes are not a C2SP tlog-proof."""


class TlogProofOriginError(EvidenceError):
    """A proof is about another log than the one asked for."""


class LogSignatureError(EvidenceError):
    """No trusted key of the log has signed the checkpoint of a proof."""


class QuorumError(EvidenceError):
    """Fewer different witnesses have cosigned a checkpoint than its reader demands."""


@dataclass(frozen=True)
class LogProof:
    """What a proof file says. Nothing of it may be believed before `verify`.

    Attributes:
        index: position of the entry in the log, from 0.
        hashes: inclusion proof (RFC 6962, section 2.1.1), 32 bytes each, nearest sibling first.
        note: the signed checkpoint, byte for byte as the log and its witnesses signed it.
        extra: opaque data that came along, never authenticated; None when there is none.

    Raises:
        TlogProofFormatError: a field that the format cannot carry.
        NoteFormatError, CheckpointFormatError: the note is not a signed checkpoint.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index < merkle.MAX_TREE_SIZE:
            raise TlogProofFormatError(f"expected an index below 2^63 - 1, found {self.index}")
        if len(self.hashes) > MAX_HASHES:
            raise TlogProofFormatError(
                f"expected at most {MAX_HASHES} hashes of proof, found {len(self.hashes)}"
            )
        for item in self.hashes:
            if len(item) != merkle.HASH_BYTES:
                raise TlogProofFormatError(
                    f"expected hashes of {merkle.HASH_BYTES} bytes, found {len(item)}"
                )
        notes.parse_checkpoint(notes.parse(self.note).text)

    @property
    def checkpoint(self) -> notes.Checkpoint:
        """What the note's text says."""
        return notes.parse_checkpoint(notes.parse(self.note).text)

    def to_bytes(self) -> bytes:
        """Return the proof file, by convention named `*.tlog-proof`."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {to_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(to_base64(item) for item in self.hashes)
        return "".join(f"{line}\n" for line in lines).encode("ascii") + b"\n" + self.note


@dataclass(frozen=True)
class Quorum:
    """Whose cosignatures are demanded: those of `threshold` different ones of `witnesses`.

    A public key counts once, under however many names.

    Raises:
        QuorumError: a key of another type than cosignature/v1, or fewer different keys than the
            threshold.
    """

    witnesses: tuple[notes.VerifierKey, ...]
    threshold: int

    def __post_init__(self) -> None:
        for key in self.witnesses:
            if key.signature_type is not notes.SignatureType.COSIGNATURE:
                raise QuorumError(
                    f"the key of witness {key.name} is not of type 0x04 (cosignature/v1); ask its "
                    "operator for the right one"
                )
        different = len({key.public_key for key in self.witnesses})
        if not 0 <= self.threshold <= different:
            raise QuorumError(
                f"expected a threshold from 0 to {different}, the number of different witnesses, "
                f"found {self.threshold}"
            )


NO_WITNESSES = Quorum((), 0)
"""For logs that nobody but their operator vouches for."""


@dataclass(frozen=True)
class ProvenEntry:
    """An entry that is in a log, as far as the log's keys and its witnesses can be trusted.

    Attributes:
        index: position of the entry.
        checkpoint: the tree that it is in.
        cosignatures: of the demanded witnesses, one for each key, with its time in Unix seconds.
    """

    index: int
    checkpoint: notes.Checkpoint
    cosignatures: tuple[notes.VerifiedSignature, ...]


def parse(data: bytes) -> LogProof:
    """Read a proof file. Nothing is verified.

    Raises:
        TlogProofFormatError: any departure from the format, or a proof beyond the size limits.
        NoteFormatError, CheckpointFormatError: what follows the proof is no signed checkpoint.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise TlogProofFormatError(f"expected at most {MAX_PROOF_BYTES} bytes, found {len(data)}")
    head, separator, note = data.partition(b"\n\n")
    if not separator:
        raise TlogProofFormatError("expected an empty line between the proof and its checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise TlogProofFormatError("expected ASCII before the checkpoint") from error
    if lines[0] != HEADER:
        raise TlogProofFormatError(f"expected the first line {HEADER!r}, found {lines[0][:80]!r}")
    rest = lines[1:]
    extra = None
    if rest and rest[0].startswith("extra "):
        extra = _decoded(rest.pop(0).removeprefix("extra "), "extra data")
    found = _INDEX.fullmatch(rest[0]) if rest else None
    if found is None:
        raise TlogProofFormatError(
            "expected `index <number>` in ASCII decimal without leading zeros, found "
            f"{''.join(rest[:1])[:80]!r}"
        )
    hashes = tuple(_decoded(line, "line of proof") for line in rest[1:])
    return LogProof(int(found[1]), hashes, note, extra)


def verify(
    proof: LogProof,
    leaf_hash: bytes,
    origin: str,
    log_keys: Collection[notes.VerifierKey],
    quorum: Quorum = NO_WITNESSES,
) -> ProvenEntry:
    """Verify that an entry is in the log and that enough witnesses have cosigned the checkpoint.

    Args:
        proof: what came with the entry.
        leaf_hash: of the entry (`merkle.leaf_hash` of its exact bytes), computed by the caller.
        origin: of the log that the entry must be in.
        log_keys: keys of the log; one of them must have signed.
        quorum: the witnesses, and how many of them must have cosigned.

    Raises:
        TlogProofOriginError: a checkpoint of another log.
        SignatureError: a signature by a known key is bad.
        CosignatureTimeError: a cosignature's time is beyond 2^63 - 1.
        AmbiguousKeyError: two different known keys share name and key hash.
        LogSignatureError: no key of the log has signed.
        QuorumError: too few witnesses have cosigned.
        TreeIndexError: the index is not inside the checkpoint's tree.
        HashLengthError: the leaf hash is not 32 bytes long.
        InclusionProofError: the entry is not proven to be at its index.
    """
    checkpoint = proof.checkpoint
    if checkpoint.origin != origin:
        raise TlogProofOriginError(
            f"expected a proof from the log {origin!r}, found one from {checkpoint.origin[:200]!r}"
        )
    signatures = _signatures(proof.note, {*log_keys, *quorum.witnesses})
    if not any(found.key in log_keys for found in signatures):
        raise LogSignatureError(
            f"none of the {len(log_keys)} trusted keys of the log {origin!r} has signed the "
            "checkpoint; check the log's key, or ask for a proof from the log itself"
        )
    cosignatures = _one_for_each_witness(signatures, quorum)
    if len(cosignatures) < quorum.threshold:
        raise QuorumError(
            f"{len(cosignatures)} of the {len(quorum.witnesses)} trusted witnesses have cosigned "
            f"the checkpoint, {quorum.threshold} are demanded; ask for a proof with more of them"
        )
    merkle.verify_inclusion(proof.index, checkpoint.size, leaf_hash, proof.hashes, checkpoint.root)
    return ProvenEntry(proof.index, checkpoint, cosignatures)


def _signatures(
    note: bytes, keys: Collection[notes.VerifierKey]
) -> tuple[notes.VerifiedSignature, ...]:
    try:
        return notes.verify(note, keys).signatures
    except UnsignedNoteError:
        return ()


def _one_for_each_witness(
    signatures: Iterable[notes.VerifiedSignature], quorum: Quorum
) -> tuple[notes.VerifiedSignature, ...]:
    found: dict[PublicKey, notes.VerifiedSignature] = {}
    for signature in signatures:
        if signature.key in quorum.witnesses:
            found.setdefault(signature.key.public_key, signature)
    return tuple(found.values())


def _decoded(text: str, what: str) -> bytes:
    try:
        return from_base64(text)
    except ValueError as error:
        raise TlogProofFormatError(f"the {what} {text[:80]!r} is {error}") from error
