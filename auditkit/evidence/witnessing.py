"""Independent witnesses: they cosign a log's checkpoint once it extends the one before.

The messages and rules of c2sp.org/tlog-witness, without HTTP and without state: the witness's
server and the auditor's client share them. `witness_checks` says what cosignatures are worth.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from auditkit.evidence import merkle, notes
from auditkit.evidence.encoding import from_base64, to_base64
from auditkit.evidence.errors import CheckpointFormatError, EvidenceError, NoteFormatError
from auditkit.evidence.keys import SigningKey
from schemas import WitnessPolicy

SIZE_MEDIA_TYPE = "text/x.tlog.size"
"""Content-Type of the answer that names the size which the witness stands at."""

MAX_PROOF_LINES = 63
"""Most hashes of a consistency proof in one request (tlog-witness, section add-checkpoint)."""

MAX_REQUEST_BYTES = 256 * 1024
"""Largest request read: a proof of 3 kB, a checkpoint, and room for its signatures."""

MAX_ANSWER_BYTES = 64 * 1024
"""Largest answer read: a few cosignature lines, post-quantum ones included."""

_OLD_SIZE = re.compile(r"old (0|[1-9][0-9]{0,18})")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


class WitnessRequestError(EvidenceError):
    """The bytes are not an `add-checkpoint` request."""


class OldSizeError(WitnessRequestError):
    """A request goes from a larger tree to a smaller one."""


class UnknownLogError(EvidenceError):
    """The witness does not follow the log of this origin."""


class UntrustedCheckpointError(EvidenceError):
    """No key that the witness trusts for the log has signed the checkpoint."""


class StaleOldSizeError(EvidenceError):
    """A request does not start at the tree that the witness has cosigned last."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the latest cosigned checkpoint has size {size}; start from there")
        self.size = size


class SplitViewError(EvidenceError):
    """Two checkpoints of one log have the same size and different roots."""


class WitnessAnswerError(EvidenceError):
    """A witness's answer is not what the specification says."""


class WitnessPolicyError(EvidenceError):
    """The order's witnesses are not M different, independent ones, or N of them decide nothing."""


@dataclass(frozen=True)
class AddCheckpoint:
    """A request to cosign a checkpoint. Nothing of it is verified yet.

    Attributes:
        old_size: size of the checkpoint that the witness is thought to have cosigned last.
        proof: consistency proof from there, at most 63 hashes of 32 bytes.
        note: the signed checkpoint.
        checkpoint: what the note's text says.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: notes.Note
    checkpoint: notes.Checkpoint

    @classmethod
    def of(cls, old_size: int, proof: Sequence[bytes], note: notes.Note) -> "AddCheckpoint":
        """Return the request for a signed checkpoint.

        Raises:
            CheckpointFormatError: the note's text is no checkpoint.
        """
        return cls(old_size, tuple(proof), note, notes.parse_checkpoint(note.text))

    @classmethod
    def from_bytes(cls, body: bytes) -> "AddCheckpoint":
        """Read the body of an `add-checkpoint` request.

        Raises:
            WitnessRequestError: any departure from the format, or a body beyond the limits.
        """
        if len(body) > MAX_REQUEST_BYTES:
            raise WitnessRequestError(f"expected at most {MAX_REQUEST_BYTES} bytes")
        head, separator, note_bytes = body.partition(b"\n\n")
        if not separator:
            raise WitnessRequestError("expected an empty line before the checkpoint")
        try:
            old_line, *proof_lines = head.decode("ascii").split("\n")
            found = _OLD_SIZE.fullmatch(old_line)
            if found is None or int(found[1]) > merkle.MAX_TREE_SIZE:
                raise WitnessRequestError(
                    "expected `old <size>` in ASCII decimal without leading zeros, found "
                    f"{old_line[:80]!r}"
                )
            if len(proof_lines) > MAX_PROOF_LINES:
                raise WitnessRequestError(
                    f"expected at most {MAX_PROOF_LINES} lines of proof, found {len(proof_lines)}"
                )
            proof = [_hash(line) for line in proof_lines]
            return cls.of(int(found[1]), proof, notes.parse(note_bytes))
        except UnicodeDecodeError as error:
            raise WitnessRequestError("expected ASCII before the checkpoint") from error
        except (NoteFormatError, CheckpointFormatError) as error:
            raise WitnessRequestError(f"not a signed checkpoint: {error}") from error

    def to_bytes(self) -> bytes:
        """Return the body of the request.

        Raises:
            WitnessRequestError: more hashes than a request may carry.
        """
        if len(self.proof) > MAX_PROOF_LINES:
            raise WitnessRequestError(f"expected at most {MAX_PROOF_LINES} hashes of proof")
        lines = (f"old {self.old_size}", *(to_base64(item) for item in self.proof))
        head = "".join(f"{line}\n" for line in lines)
        return head.encode() + b"\n" + self.note.to_bytes()


@dataclass(frozen=True)
class LogState:
    """What a witness remembers of one log: the last tree that it has cosigned, and when.

    Attributes:
        size: number of leaves; 0 for a log that it has never cosigned.
        root: 32 bytes.
        time: of its last cosignature, in Unix seconds.
    """

    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    time: int = 0


def check_signed(request: AddCheckpoint, keys: Collection[notes.VerifierKey]) -> None:
    """Check that a key which the witness trusts for the log has signed the checkpoint.

    Args:
        request: its note may carry signatures by other keys too, which say nothing.
        keys: trusted for the checkpoint's origin; none when the witness does not follow the log.

    Raises:
        UnknownLogError: there is no such key.
        UntrustedCheckpointError: none has signed, or a signature by one of them is bad.
    """
    origin = request.checkpoint.origin
    if not keys:
        raise UnknownLogError(f"the log {origin[:200]!r} is not followed here")
    try:
        notes.verify(request.note.to_bytes(), keys)
    except EvidenceError as error:
        raise UntrustedCheckpointError(
            f"no trusted key of the log {origin[:200]!r} has signed this checkpoint: {error}"
        ) from error


def check_extends(request: AddCheckpoint, state: LogState) -> None:
    """Check that a checkpoint extends the one that the witness has cosigned last.

    Raises:
        OldSizeError: the checkpoint is smaller than the tree that the request starts from.
        StaleOldSizeError: the request starts from another tree; the error has the right size.
        SplitViewError: the same size as the one cosigned last, with another root.
        ConsistencyProofError: the proof does not verify, or there is one from size 0.
    """
    checkpoint = request.checkpoint
    if request.old_size > checkpoint.size:
        raise OldSizeError(
            f"the old size {request.old_size} exceeds the checkpoint's size {checkpoint.size}"
        )
    if request.old_size != state.size:
        raise StaleOldSizeError(state.size)
    if checkpoint.size == state.size and checkpoint.root != state.root:
        raise SplitViewError(
            f"at size {state.size} the log {checkpoint.origin[:200]!r} was cosigned with root "
            f"{state.root.hex()}; this checkpoint says {checkpoint.root.hex()}"
        )
    merkle.verify_consistency(
        state.size, checkpoint.size, request.proof, state.root, checkpoint.root
    )


def cosignature_line(note: notes.Note, name: str, key: SigningKey, time: int) -> str:
    """Return the witness's own signature line over a checkpoint, with its newline."""
    return f"{notes.cosign(note, name, key, time).signatures[-1].to_line()}\n"


@dataclass(frozen=True)
class Cosignature:
    """A witness's verified cosignature: its signature line without the newline, and its time."""

    line: str
    time: int


def read_cosignature(answer: bytes, note: notes.Note, key: notes.VerifierKey) -> Cosignature:
    """Return a witness's cosignature from its answer; lines by other keys are ignored.

    Raises:
        WitnessAnswerError: no signature lines, or none by this key.
        SignatureError: the key's signature is bad.
    """
    try:
        answered = notes.parse(f"{note.text}\n".encode() + answer)
    except NoteFormatError as error:
        raise WitnessAnswerError(f"expected signature lines from {key.name}: {error}") from error
    own = next((line for line in answered.signatures if _made_by(key, line)), None)
    if own is None or answered.text != note.text:
        raise WitnessAnswerError(f"the answer of {key.name} has no signature by {key.encode()}")
    verified = notes.verify(replace(note, signatures=(own,)).to_bytes(), [key]).signed_by(key)
    if verified is None or not verified.timestamp:
        raise WitnessAnswerError(f"the signature of {key.name} is no cosignature with a time")
    return Cosignature(own.to_line(), verified.timestamp)


def read_size(answer: bytes) -> int:
    """Return the size in a conflict's answer of type `text/x.tlog.size`.

    Raises:
        WitnessAnswerError: not an ASCII decimal without leading zeros, and a newline.
    """
    found = _SIZE.fullmatch(answer)
    if found is None or int(found[1]) > merkle.MAX_TREE_SIZE:
        raise WitnessAnswerError(f"expected a tree size and a newline, found {answer[:80]!r}")
    return int(found[1])


def with_lines(note_bytes: bytes, lines: Iterable[str]) -> bytes:
    """Return a note with further signature lines at its end; those that it has are not doubled.

    Raises:
        NoteFormatError: not a note, or lines that it cannot carry.
    """
    known = notes.parse(note_bytes).signatures
    present = {signature.to_line() for signature in known}
    added = "".join(f"{line}\n" for line in dict.fromkeys(lines) if line not in present)
    return notes.parse(note_bytes + added.encode()).to_bytes()


def open_policy(
    policy: WitnessPolicy, auditors_keys: Collection[str]
) -> tuple[notes.VerifierKey, ...]:
    """Return the keys of an order's witnesses.

    Args:
        policy: of the order.
        auditors_keys: public keys (hex) of the trust root, none of which is a witness's.

    Raises:
        VerifierKeyError: a text is not a verifier key.
        KeyFormatError, WeakKeyError: a key that must not be trusted.
        WitnessPolicyError: a key of another type than cosignature/v1, one witness twice, a key of
            the auditor's own, or a threshold that two different logs could both meet.
    """
    keys = tuple(notes.VerifierKey.parse(text) for text in policy.keys)
    for key in keys:
        if key.signature_type is not notes.SignatureType.COSIGNATURE:
            raise WitnessPolicyError(
                f"the key of witness {key.name} is not of type 0x04 (cosignature/v1); ask its "
                "operator for the key that `auditkit witness show` prints"
            )
        if key.public_key.hex in auditors_keys:
            raise WitnessPolicyError(
                f"witness {key.name} has a key of the auditor's own trust root; a witness must be "
                "somebody else"
            )
    for what, values in (
        ("name", [key.name for key in keys]),
        ("key", [key.public_key.hex for key in keys]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise WitnessPolicyError(
                f"two witnesses of the order have the {what} {twice[0]}; each counts once, so name "
                "each once"
            )
    if 2 * policy.threshold <= len(keys):
        raise WitnessPolicyError(
            f"{policy.threshold} of {len(keys)} witnesses is no majority: two different logs could "
            f"both have as many; ask for at least {len(keys) // 2 + 1}"
        )
    return keys


def _made_by(key: notes.VerifierKey, signature: notes.NoteSignature) -> bool:
    return (signature.name, signature.key_hash) == (key.name, key.key_hash)


def _hash(line: str) -> bytes:
    try:
        data = from_base64(line)
    except ValueError as error:
        raise WitnessRequestError(f"the line of proof {line[:80]!r} is {error}") from error
    if len(data) != merkle.HASH_BYTES:
        raise WitnessRequestError(
            f"expected hashes of {merkle.HASH_BYTES} bytes in the proof, found {len(data)}"
        )
    return data
