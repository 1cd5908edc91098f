"""Signed notes, checkpoints and cosignatures of the C2SP specifications.

c2sp.org/signed-note (v1), c2sp.org/tlog-checkpoint (v1) and the Ed25519 part of
c2sp.org/tlog-cosignature (v1). A note is text followed by an empty line and signature lines.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from auditkit.evidence.encoding import from_base64, to_base64
from auditkit.evidence.errors import (
    AmbiguousKeyError,
    CheckpointFormatError,
    CosignatureTimeError,
    NoteFormatError,
    SignatureError,
    UnsignedNoteError,
    VerifierKeyError,
)
from auditkit.evidence.keys import PublicKey, SigningKey
from auditkit.evidence.merkle import HASH_BYTES, MAX_TREE_SIZE

MAX_NOTE_BYTES = 1_000_000
"""Largest note read; a cosigned checkpoint takes about 400 bytes."""

MAX_SIGNATURES = 100
"""Most signature lines read in a note; the specification asks for at least 16."""

MAX_KEY_NAME_BYTES = 1_000
"""Longest key name."""

MAX_VERIFIER_KEY_CHARACTERS = 2_000
"""Longest text read as a verifier key: the name, 8 digits and 44 characters of base64."""

MAX_TIMESTAMP = 2**63 - 1
"""Largest cosignature time in seconds (tlog-cosignature, section Format)."""

KEY_HASH_BYTES = 4
TIMESTAMP_BYTES = 8

SIGNATURE_PREFIX = "— "
"""Em dash and space open every signature line."""

COSIGNATURE_HEADER = "cosignature/v1"
"""First line of a cosigned message: no checkpoint can begin like it and go on with `time`."""

_TREE_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_HASH = re.compile(r"[0-9a-f]{8}")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log: `size` leaves have the Merkle root `root` (32 bytes).

    Raises:
        CheckpointFormatError: a field that a checkpoint cannot carry.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line or _CONTROL_CHARACTERS.search(line):
                raise CheckpointFormatError(
                    f"expected a line of text without control characters, found {line[:80]!r}"
                )
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise CheckpointFormatError(f"expected a tree size up to 2^63 - 1, found {self.size}")
        if len(self.root) != HASH_BYTES:
            raise CheckpointFormatError(
                f"expected a root of {HASH_BYTES} bytes, found {len(self.root)}"
            )

    def to_text(self) -> str:
        """Return the note text: origin, size, root and extensions, one line each."""
        lines = (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: bytes | str) -> Checkpoint:
    """Read a checkpoint from the text of a note, without its signatures.

    Raises:
        CheckpointFormatError: fewer than three lines, an empty line, no final newline, a size that
            is not plain ASCII decimal, or a root that is not canonical base64 of 32 bytes.
    """
    body = _decode(text) if isinstance(text, bytes) else text
    if len(body) > MAX_NOTE_BYTES:
        raise CheckpointFormatError(f"expected at most {MAX_NOTE_BYTES} characters")
    lines = body.split("\n")
    if len(lines) < 4 or lines.pop() != "":
        raise CheckpointFormatError(
            "expected at least three lines (origin, size, root), each ending in a newline"
        )
    origin, size, root, *extensions = lines
    if not _TREE_SIZE.fullmatch(size):
        raise CheckpointFormatError(
            f"expected a tree size in ASCII decimal without leading zeros, found {size[:80]!r}"
        )
    try:
        root_bytes = from_base64(root)
    except ValueError as error:
        raise CheckpointFormatError(f"the root {root[:80]!r} is {error}") from error
    return Checkpoint(origin, int(size), root_bytes, tuple(extensions))


class SignatureType(IntEnum):
    """Signature type identifier bytes (signed-note, section Signature types)."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True)
class NoteSignature:
    """One signature line: key name, key hash (4 bytes) and the bytes that the key type defines.

    Raises:
        NoteFormatError: a name or bytes that a signature line cannot carry.
    """

    name: str
    key_hash: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise NoteFormatError(f"{self.name[:80]!r} cannot be the name of a key")
        if len(self.key_hash) != KEY_HASH_BYTES or not self.signature:
            raise NoteFormatError(
                f"expected a key hash of {KEY_HASH_BYTES} bytes and a signature after it"
            )

    def to_line(self) -> str:
        """Return the signature line without its newline."""
        return f"{SIGNATURE_PREFIX}{self.name} {to_base64(self.key_hash + self.signature)}"


@dataclass(frozen=True)
class Note:
    """Text and its signature lines. Nothing of it may be believed before `verify`.

    Raises:
        NoteFormatError: text without final newline, control characters, or no or too many
            signatures.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise NoteFormatError("the text of a note must end in a newline")
        if _CONTROL_CHARACTERS.search(self.text):
            raise NoteFormatError("a note must not contain control characters other than newline")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise NoteFormatError(
                f"expected 1 to {MAX_SIGNATURES} signatures, found {len(self.signatures)}"
            )
        if len(self.to_bytes()) > MAX_NOTE_BYTES:
            raise NoteFormatError(f"expected a note of at most {MAX_NOTE_BYTES} bytes")

    def to_bytes(self) -> bytes:
        """Return the note as it is sent and stored: text, an empty line, signature lines."""
        lines = "".join(f"{signature.to_line()}\n" for signature in self.signatures)
        try:
            return f"{self.text}\n{lines}".encode()
        except UnicodeEncodeError as error:
            raise NoteFormatError(f"a note must be valid Unicode: {error}") from error


def parse(note_bytes: bytes) -> Note:
    """Read a signed note (signed-note, section Format). Nothing is verified.

    The text ends at the last empty line, since it may contain empty lines itself.

    Raises:
        NoteFormatError: any departure from the format, or a note beyond the size limits.
    """
    if len(note_bytes) > MAX_NOTE_BYTES:
        raise NoteFormatError(f"expected at most {MAX_NOTE_BYTES} bytes, found {len(note_bytes)}")
    try:
        whole = note_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteFormatError(f"a note must be UTF-8: {error}") from error
    text, separator, signature_block = whole.rpartition("\n\n")
    if not separator:
        raise NoteFormatError("expected an empty line between the text and its signatures")
    *lines, rest = signature_block.split("\n")
    if rest:
        raise NoteFormatError("the last signature line must end in a newline")
    if len(lines) > MAX_SIGNATURES:
        raise NoteFormatError(f"expected at most {MAX_SIGNATURES} signatures, found {len(lines)}")
    return Note(f"{text}\n", tuple(_parse_signature_line(line) for line in lines))


@dataclass(frozen=True)
class VerifierKey:
    """A public key under a name and for one type of signature.

    Raises:
        VerifierKeyError: a name that a key cannot have.
    """

    name: str
    signature_type: SignatureType
    public_key: PublicKey

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise VerifierKeyError(
                "expected a key name without spaces, plus signs or control characters, "
                f"found {self.name[:80]!r}"
            )

    @classmethod
    def ed25519(cls, name: str, public_key: PublicKey) -> "VerifierKey":
        """Return the verifier of plain Ed25519 note signatures (type 0x01)."""
        return cls(name, SignatureType.ED25519, public_key)

    @classmethod
    def cosignature(cls, name: str, public_key: PublicKey) -> "VerifierKey":
        """Return the verifier of timestamped cosignature/v1 signatures (type 0x04)."""
        return cls(name, SignatureType.COSIGNATURE, public_key)

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Read the encoding `name+hash+base64(type || key)`.

        Raises:
            VerifierKeyError: another form, an unsupported type, or a hash of another key.
            KeyFormatError: the bytes are not an Ed25519 point.
            WeakKeyError: a key that must not be trusted.
        """
        if len(text) > MAX_VERIFIER_KEY_CHARACTERS:
            raise VerifierKeyError(f"expected at most {MAX_VERIFIER_KEY_CHARACTERS} characters")
        parts = text.split("+", 2)
        if len(parts) != 3 or not _KEY_HASH.fullmatch(parts[1]):
            raise VerifierKeyError(f"expected name+hash+key, found {text[:80]!r}")
        name, key_hash, encoded = parts
        try:
            material = from_base64(encoded)
        except ValueError as error:
            raise VerifierKeyError(f"the key of {name[:80]!r} is {error}") from error
        if not material or material[0] not in set(SignatureType):
            raise VerifierKeyError("expected a key of signature type 0x01 or 0x04")
        key = cls(name, SignatureType(material[0]), PublicKey(material[1:]))
        if key.key_hash.hex() != key_hash:
            raise VerifierKeyError(
                f"the hash {key_hash} belongs to another key; expected {key.key_hash.hex()}"
            )
        return key

    def encode(self) -> str:
        """Return `name+hash+base64(type || key)`, the form in which keys are handed over."""
        material = bytes([self.signature_type]) + self.public_key.raw
        return f"{self.name}+{self.key_hash.hex()}+{to_base64(material)}"

    @property
    def key_hash(self) -> bytes:
        """SHA-256(name || 0x0A || type || key)[:4], which names the key in signature lines."""
        identity = self.name.encode() + b"\n" + bytes([self.signature_type]) + self.public_key.raw
        return hashlib.sha256(identity).digest()[:KEY_HASH_BYTES]


class VerifiedSignature(NamedTuple):
    """A known key that has signed, and its time in seconds when it is a cosignature."""

    key: VerifierKey
    timestamp: int | None


@dataclass(frozen=True)
class VerifiedNote:
    """Text that known keys have signed; each key counts once."""

    text: str
    signatures: tuple[VerifiedSignature, ...]

    def signed_by(self, key: VerifierKey) -> VerifiedSignature | None:
        """Return the signature of this key, or None when it has not signed."""
        return next((found for found in self.signatures if found.key == key), None)


def sign(text: str, name: str, key: SigningKey) -> Note:
    """Return a note with one plain Ed25519 signature over the text.

    Raises:
        VerifierKeyError: a name that a key cannot have.
        NoteFormatError: text that a note cannot carry.
    """
    verifier_key = VerifierKey.ed25519(name, key.public)
    signature = key.sign(_encode(text))
    return Note(text, (NoteSignature(name, verifier_key.key_hash, signature),))


def cosign(note: Note, name: str, key: SigningKey, timestamp: int) -> Note:
    """Return the note with a cosignature/v1 line added.

    By cosigning, the key's owner states that this is the largest consistent tree of the log that it
    has seen as of `timestamp` (seconds); checking that comes first and is the caller's duty.

    Raises:
        VerifierKeyError: a name that a key cannot have.
        CheckpointFormatError: the note's text is not a checkpoint.
        CosignatureTimeError: a time outside 0 to 2^63 - 1.
        NoteFormatError: the note has no room for another signature.
    """
    verifier_key = VerifierKey.cosignature(name, key.public)
    parse_checkpoint(note.text)
    signature = key.sign(_cosigned_message(note.text, timestamp))
    stamped = timestamp.to_bytes(TIMESTAMP_BYTES, "big") + signature
    line = NoteSignature(name, verifier_key.key_hash, stamped)
    return replace(note, signatures=(*note.signatures, line))


def verify(note_bytes: bytes, verifier_keys: Iterable[VerifierKey]) -> VerifiedNote:
    """Verify every signature by a known key and return the text that it vouches for.

    Signatures by unknown keys are ignored, even when they share the name or the hash (not both) of
    a known key. A key that has signed twice counts once; of several cosignatures the earliest time
    stands, since all of them have been verified.

    Raises:
        NoteFormatError: the bytes are not a signed note.
        AmbiguousKeyError: two different known keys share name and key hash.
        SignatureError: a signature by a known key is bad.
        CheckpointFormatError: a cosigned text is not a checkpoint.
        CosignatureTimeError: a cosignature's time is beyond 2^63 - 1.
        UnsignedNoteError: no known key has signed.
    """
    known = _index(verifier_keys)
    note = parse(note_bytes)
    timestamps: dict[VerifierKey, int | None] = {}
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_hash))
        if key is None:
            continue
        timestamp = _verify_signature(note.text, key, signature.signature)
        earlier = timestamps.setdefault(key, timestamp)
        if earlier is not None and timestamp is not None:
            timestamps[key] = min(earlier, timestamp)
    if not timestamps:
        raise UnsignedNoteError(
            f"none of the {len(known)} known keys has signed this note; check the trusted keys"
        )
    return VerifiedNote(
        note.text, tuple(VerifiedSignature(key, time) for key, time in timestamps.items())
    )


def _verify_signature(text: str, key: VerifierKey, signature: bytes) -> int | None:
    """Verify one signature by a known key; return the time when it is a cosignature."""
    timestamp: int | None = None
    message = _encode(text)
    if key.signature_type is SignatureType.COSIGNATURE:
        parse_checkpoint(text)
        stamp, signature = signature[:TIMESTAMP_BYTES], signature[TIMESTAMP_BYTES:]
        timestamp = int.from_bytes(stamp, "big")
        message = _cosigned_message(text, timestamp)
    try:
        key.public_key.verify(signature, message)
    except SignatureError as error:
        raise SignatureError(f"bad signature by the known key {key.name}: {error}") from error
    return timestamp


def _cosigned_message(text: str, timestamp: int) -> bytes:
    if not 0 <= timestamp <= MAX_TIMESTAMP:
        raise CosignatureTimeError(f"expected a time from 0 to 2^63 - 1, found {timestamp}")
    return _encode(f"{COSIGNATURE_HEADER}\ntime {timestamp}\n{text}")


def _index(verifier_keys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in verifier_keys:
        other = known.setdefault((key.name, key.key_hash), key)
        if other != key:
            raise AmbiguousKeyError(
                f"two known keys are named {key.name}+{key.key_hash.hex()}; remove one of them"
            )
    return known


def _parse_signature_line(line: str) -> NoteSignature:
    name, separator, encoded = line.removeprefix(SIGNATURE_PREFIX).partition(" ")
    if not line.startswith(SIGNATURE_PREFIX) or not separator:
        raise NoteFormatError(f"expected '{SIGNATURE_PREFIX}name base64', found {line[:80]!r}")
    try:
        data = from_base64(encoded)
    except ValueError as error:
        raise NoteFormatError(f"the signature of {name[:80]!r} is {error}") from error
    return NoteSignature(name, data[:KEY_HASH_BYTES], data[KEY_HASH_BYTES:])


def _is_key_name(name: str) -> bool:
    if not name or "+" in name or _CONTROL_CHARACTERS.search(name):
        return False
    if any(character.isspace() for character in name):
        return False
    try:
        return len(name.encode()) <= MAX_KEY_NAME_BYTES
    except UnicodeEncodeError:
        return False


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise NoteFormatError(f"a note must be valid Unicode: {error}") from error


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointFormatError(f"a checkpoint must be UTF-8: {error}") from error
