"""The evidence bundle: everything about one session in one file, to be verified without a network.

A ZIP archive of exactly one form (see `archive`): equal content gives equal bytes.
"""

import io
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, overload

from auditkit.evidence import archive, canonical
from auditkit.evidence.dsse import MAX_ENVELOPE_BYTES
from auditkit.evidence.errors import (
    BundleContentError,
    BundleMemberError,
    CanonicalFormError,
)
from auditkit.evidence.notes import MAX_NOTE_BYTES

ORDER = "order.dsse.json"
REQUEST = "request.json"
GRANT = "grant.dsse.json"
RECORDS = "records.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
POOL_LEAVES = "pool.leaves"
TEST_LEAVES = "test.leaves"
WEIGHTS = "model/weights.safetensors"
DESCRIPTION = "model/description.json"
SCORES = "model/scores.safetensors"

LEAF_BYTES = 32
MAX_DESCRIPTION_BYTES = 1_000_000
"""Largest model description; it takes a few thousand bytes."""

MAX_REQUEST_BYTES = 16_000_000
"""Largest request; one from a container carries its image's configuration and manifest."""

MAX_CHECKPOINTS_BYTES = 2**30
"""Room for one cosigned checkpoint per second during a month."""

MAX_LEAVES_BYTES = 2**30
"""Room for 33 million samples."""

MAX_VERDICTS = 50_000
"""Most verdicts in one bundle."""

MAX_CONTINUATIONS = 999
"""Most continuations in one bundle: as many as have a number of three digits."""

MEMBER_LIMITS: dict[str, int] = {
    ORDER: MAX_ENVELOPE_BYTES,
    REQUEST: MAX_REQUEST_BYTES,
    GRANT: MAX_ENVELOPE_BYTES,
    RECORDS: archive.MAX_ARCHIVE_BYTES,
    CHECKPOINTS: MAX_CHECKPOINTS_BYTES,
    POOL_LEAVES: MAX_LEAVES_BYTES,
    TEST_LEAVES: MAX_LEAVES_BYTES,
    WEIGHTS: archive.MAX_ARCHIVE_BYTES,
    DESCRIPTION: MAX_DESCRIPTION_BYTES,
    SCORES: archive.MAX_ARCHIVE_BYTES,
}
"""Largest size in bytes of each member that a bundle has once."""

_VERDICTS = "verdicts/"
_CONTINUATIONS = "continuations/"
_NUMBERED_LIMITS = (
    (re.compile(r"continuations/[0-9]{3}\.request\.json"), MAX_REQUEST_BYTES),
    (re.compile(r"continuations/[0-9]{3}\.dsse\.json"), MAX_ENVELOPE_BYTES),
    (re.compile(r"verdicts/[0-9]{6}\.dsse\.json"), MAX_ENVELOPE_BYTES),
)


class Lines(Sequence[bytes]):
    """The lines of one text, without their newlines, cut out of it only when they are asked for.

    A log of a million records thus costs its own bytes and eight more per record.

    Raises:
        BundleContentError: an empty line, or no newline at the end.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._ends = array("Q")
        start = 0
        while start < len(text):
            end = text.find(b"\n", start)
            if end <= start:
                raise BundleContentError(
                    f"line {len(self._ends) + 1} is empty or does not end in a newline"
                )
            self._ends.append(end)
            start = end + 1

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = self._ends[position - 1] + 1 if position else 0
        return self._text[start : self._ends[position]]

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self._ends:
            yield self._text[start:end]
            start = end + 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to lists and tuples, which hash differently


@dataclass(frozen=True)
class Continuation:
    """How a session went on in a fresh container. Nothing of it is verified yet.

    Attributes:
        request: canonical JSON of the continuation request.
        envelope: DSSE envelope (JSON) of the session continuation.
    """

    request: bytes
    envelope: bytes


@dataclass(frozen=True)
class Bundle:
    """Everything that an auditor keeps about one session. Nothing of it is verified yet.

    Attributes:
        order: DSSE envelope (JSON) of the audit order.
        request: canonical JSON of the session request.
        grant: DSSE envelope (JSON) of the session grant.
        records: the log, one canonical JSON record per item, from sequence number 0.
        checkpoints: cosigned notes in the order in which they were cosigned.
        pool_leaves: 32 bytes per sample of the pool.
        test_leaves: 32 bytes per test sample.
        weights: safetensors of M+; None before the submission.
        description: JSON of the model description; None before the submission.
        scores: safetensors of the calibration scores; None before the submission.
        verdicts: DSSE envelopes (JSON) in the order in which they were given.
        continuations: fresh containers and their keys, in the order in which they were granted.
    """

    order: bytes
    request: bytes
    grant: bytes
    records: Sequence[bytes]
    checkpoints: tuple[bytes, ...]
    pool_leaves: bytes
    test_leaves: bytes
    weights: bytes | None = None
    description: bytes | None = None
    scores: bytes | None = None
    verdicts: tuple[bytes, ...] = ()
    continuations: tuple[Continuation, ...] = ()


def write_bundle(bundle: Bundle) -> bytes:
    """Return the bytes of the bundle's file.

    Raises:
        BundleError: content that the file cannot carry; see `write_bundle_to`.
    """
    file = io.BytesIO()
    write_bundle_to(bundle, file)
    return file.getvalue()


def write_bundle_to(bundle: Bundle, file: BinaryIO) -> None:
    """Write the bundle to a file that is open for writing bytes.

    Raises:
        BundleContentError: a record with a newline in it or without content, a checkpoint that is
            not UTF-8, or leaves that are not 32 bytes each.
        BundleSizeError: a member or the whole is too large.
        BundleMemberError: too many verdicts or continuations.
    """
    members = {
        ORDER: bundle.order,
        REQUEST: bundle.request,
        GRANT: bundle.grant,
        RECORDS: _join_lines(bundle.records),
        CHECKPOINTS: _join_lines(_quoted(note) for note in bundle.checkpoints),
        POOL_LEAVES: _checked_leaves(POOL_LEAVES, bundle.pool_leaves),
        TEST_LEAVES: _checked_leaves(TEST_LEAVES, bundle.test_leaves),
    }
    optional = {WEIGHTS: bundle.weights, DESCRIPTION: bundle.description, SCORES: bundle.scores}
    members.update({name: data for name, data in optional.items() if data is not None})
    members.update({_verdict_name(i): data for i, data in enumerate(bundle.verdicts)})
    for number, continuation in enumerate(bundle.continuations, start=1):
        request_name, envelope_name = _continuation_names(number)
        members[request_name] = continuation.request
        members[envelope_name] = continuation.envelope
    for name, data in members.items():
        archive.check_member_size(name, len(data), _limit(name))
    archive.write(members, file)


def read_bundle(source: bytes | BinaryIO) -> Bundle:
    """Read a bundle from its bytes, or from a seekable file that is open for reading bytes.

    Nothing is unpacked and no member's name is ever used as a path.

    Raises:
        BundleFormatError: not an archive of the form that `write_bundle` gives it.
        BundleMemberError: a member is unknown, missing, repeated or out of order.
        BundleSizeError: the file or a member is too large.
        BundleChecksumError: a member's bytes have been changed.
        BundleContentError: a member's content is not what its name promises.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    members = dict(archive.read(file, _limit))
    required = (ORDER, REQUEST, GRANT, RECORDS, CHECKPOINTS, POOL_LEAVES, TEST_LEAVES)
    missing = [name for name in required if name not in members]
    if missing:
        raise BundleMemberError(f"the bundle lacks {', '.join(missing)}")
    verdicts = [name for name in members if name.startswith(_VERDICTS)]
    if verdicts != [_verdict_name(position) for position in range(len(verdicts))]:
        raise BundleMemberError("verdicts must be numbered from 000000 without a gap")
    return Bundle(
        order=members[ORDER],
        request=members[REQUEST],
        grant=members[GRANT],
        records=Lines(members[RECORDS]),
        checkpoints=tuple(_unquoted(line) for line in Lines(members[CHECKPOINTS])),
        pool_leaves=_checked_leaves(POOL_LEAVES, members[POOL_LEAVES]),
        test_leaves=_checked_leaves(TEST_LEAVES, members[TEST_LEAVES]),
        weights=members.get(WEIGHTS),
        description=members.get(DESCRIPTION),
        scores=members.get(SCORES),
        verdicts=tuple(members[name] for name in verdicts),
        continuations=_continuations(members),
    )


def _continuations(members: dict[str, bytes]) -> tuple[Continuation, ...]:
    found = {name for name in members if name.startswith(_CONTINUATIONS)}
    names = [_continuation_names(number) for number in range(1, len(found) // 2 + 1)]
    if found != {name for pair in names for name in pair}:
        raise BundleMemberError(
            "continuations must be numbered from 001 without a gap, each with its request and its "
            "signed answer"
        )
    return tuple(Continuation(members[request], members[envelope]) for request, envelope in names)


def _limit(name: str) -> int:
    """Return the largest size of a member in bytes; names outside the bundle's are refused."""
    if name in MEMBER_LIMITS:
        return MEMBER_LIMITS[name]
    for numbered, limit in _NUMBERED_LIMITS:
        if numbered.fullmatch(name):
            return limit
    raise BundleMemberError(f"{name[:80]!r} is no member of an evidence bundle")


def _verdict_name(position: int) -> str:
    if position >= MAX_VERDICTS:
        raise BundleMemberError(f"a bundle holds at most {MAX_VERDICTS} verdicts")
    return f"{_VERDICTS}{position:06d}.dsse.json"


def _continuation_names(number: int) -> tuple[str, str]:
    """Return where a continuation's request and its signed answer lie; numbers start at 1."""
    if number > MAX_CONTINUATIONS:
        raise BundleMemberError(f"a bundle holds at most {MAX_CONTINUATIONS} continuations")
    stem = f"{_CONTINUATIONS}{number:03d}"
    return f"{stem}.request.json", f"{stem}.dsse.json"


def _join_lines(lines: Iterable[bytes]) -> bytes:
    text = io.BytesIO()
    for number, line in enumerate(lines, start=1):
        if not line or b"\n" in line:
            raise BundleContentError(f"line {number} is empty or contains a newline")
        text.write(line)
        text.write(b"\n")
    return text.getvalue()


def _quoted(note: bytes) -> bytes:
    try:
        return canonical.to_bytes(note.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleContentError(f"a checkpoint is not UTF-8: {error}") from error


def _unquoted(line: bytes) -> bytes:
    try:
        note = canonical.parse(line, 2 * MAX_NOTE_BYTES)
    except CanonicalFormError as error:
        raise BundleContentError(f"a checkpoint is not a JSON string: {error}") from error
    # The one spelling of a string that `write_bundle` uses keeps equal bundles equal in bytes.
    if not isinstance(note, str) or canonical.to_bytes(note) != line:
        raise BundleContentError("a checkpoint is not a JSON string in its canonical form")
    return note.encode()


def _checked_leaves(name: str, data: bytes) -> bytes:
    if len(data) % LEAF_BYTES:
        raise BundleContentError(
            f"expected {name} to have {LEAF_BYTES} bytes per sample, found {len(data)} bytes"
        )
    return data
