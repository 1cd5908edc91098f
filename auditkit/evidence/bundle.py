"""The evidence bundle: everything about one session in one file, to be verified without a network.

A ZIP archive of exactly one form (see `archive`): equal content gives equal bytes.
"""

import io
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from auditkit.evidence import archive, canonical
from auditkit.evidence.dsse import MAX_ENVELOPE_BYTES
from auditkit.evidence.errors import (
    BundleContentError,
    BundleMemberError,
    BundleSizeError,
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
REGISTRY = "registry/entries.json"
REGISTRY_CHECKPOINT = "registry/checkpoint"

LEAF_BYTES = 32
MAX_DESCRIPTION_BYTES = 1_000_000
"""Largest model description; it takes a few thousand bytes."""

MAX_REQUEST_BYTES = 16_000_000
"""Largest request; one from a container carries its image's configuration and manifest."""

MAX_LOG_BYTES = 2**36
"""Room for 150 million steps."""

MAX_RECORD_BYTES = 16_000_000
"""Longest record; that of a step takes about 400 bytes."""

MAX_CHECKPOINTS_BYTES = 2**32
"""Room for one cosigned checkpoint per second during three months."""

MAX_QUOTED_NOTE_BYTES = 2 * MAX_NOTE_BYTES
"""Longest line with a checkpoint; the newlines of a note take two bytes each."""

MAX_MODEL_BYTES = 2**31 - 1
"""Largest weights or scores."""

MAX_HELD_BYTES = 2**32
"""Most bytes of all members together that are held at once, so of all but the log."""

MAX_LEAVES_BYTES = 2**30
"""Room for 33 million samples."""

MAX_REGISTRY_BYTES = 2**28
"""Largest excerpt of the registry: an entry with its inclusion proof takes about 2,500 bytes."""

MAX_VERDICTS = 50_000
"""Most verdicts in one bundle."""

MAX_CONTINUATIONS = 999
"""Most continuations in one bundle, as of every series that is numbered in three digits."""

MEMBER_LIMITS: dict[str, int] = {
    ORDER: MAX_ENVELOPE_BYTES,
    REQUEST: MAX_REQUEST_BYTES,
    GRANT: MAX_ENVELOPE_BYTES,
    RECORDS: MAX_LOG_BYTES,
    CHECKPOINTS: MAX_CHECKPOINTS_BYTES,
    POOL_LEAVES: MAX_LEAVES_BYTES,
    TEST_LEAVES: MAX_LEAVES_BYTES,
    WEIGHTS: MAX_MODEL_BYTES,
    DESCRIPTION: MAX_DESCRIPTION_BYTES,
    SCORES: MAX_MODEL_BYTES,
    REGISTRY: MAX_REGISTRY_BYTES,
    REGISTRY_CHECKPOINT: MAX_NOTE_BYTES,
}
"""Largest size in bytes of each member that a bundle has once."""

LINE_LIMITS = {RECORDS: MAX_RECORD_BYTES, CHECKPOINTS: MAX_QUOTED_NOTE_BYTES}
"""Longest line in bytes, without its newline, of each member that consists of lines."""


@dataclass(frozen=True)
class Series:
    """Members that a bundle has any number of, in one folder, numbered without a gap.

    Attributes:
        folder: where they lie; what they are called in messages, too.
        first: number of the first one; 0 or 1.
        digits: of every number.
        most: how many there may be.
        limits: ending of each member of one number, with its largest size in bytes.
        required: endings that every number must have.
    """

    folder: str
    first: int
    digits: int
    most: int
    limits: Mapping[str, int]
    required: frozenset[str]

    def name(self, position: int, ending: str) -> str:
        """Return the name of a member; positions count from 0.

        Raises:
            BundleMemberError: there is no room for as many.
        """
        if position >= self.most:
            raise BundleMemberError(f"a bundle holds at most {self.most} {self.folder}")
        return f"{self.folder}/{self.first + position:0{self.digits}d}{ending}"

    def limit(self, name: str) -> int | None:
        """Return the largest size of a member in bytes; None: no member of this series."""
        found = re.fullmatch(rf"{self.folder}/[0-9]{{{self.digits}}}(\..+)", name)
        return self.limits.get(found[1]) if found else None

    def write(self, contents: Sequence[Mapping[str, bytes]]) -> dict[str, bytes]:
        """Return the members for contents by ending, in their order."""
        return {
            self.name(position, ending): data
            for position, parts in enumerate(contents)
            for ending, data in parts.items()
        }

    def read(self, members: Mapping[str, bytes]) -> list[dict[str, bytes]]:
        """Return the contents by ending, in their order.

        Raises:
            BundleMemberError: a number is left out, or lacks what it must have.
        """
        left = {name for name in members if name.startswith(f"{self.folder}/")}
        contents: list[dict[str, bytes]] = []
        while left:
            names = {ending: self.name(len(contents), ending) for ending in self.limits}
            found = {ending: members[name] for ending, name in names.items() if name in left}
            if not found.keys() >= self.required:
                raise BundleMemberError(
                    f"{self.folder} must be whole and numbered from "
                    f"{self.first:0{self.digits}d} without a gap"
                )
            contents.append(found)
            left -= set(names.values())
        return contents


_ENVELOPE = ".dsse.json"
_REQUEST = ".request.json"
_DRAW = ".draw.dsse.json"
_RESULT = ".result.dsse.json"


def _three_digits(folder: str, limits: Mapping[str, int], optional: str = "") -> Series:
    return Series(folder, 1, 3, MAX_CONTINUATIONS, limits, frozenset(limits.keys() - {optional}))


VERDICTS = Series(
    "verdicts", 0, 6, MAX_VERDICTS, {_ENVELOPE: MAX_ENVELOPE_BYTES}, frozenset({_ENVELOPE})
)
CONTINUATIONS = _three_digits(
    "continuations", {_REQUEST: MAX_REQUEST_BYTES, _ENVELOPE: MAX_ENVELOPE_BYTES}
)
TRUST_ROOTS = _three_digits("trust", {_ENVELOPE: MAX_ENVELOPE_BYTES})
VERIFICATIONS = _three_digits("verifications", {_ENVELOPE: MAX_ENVELOPE_BYTES})
REPLAYS = _three_digits(
    "replays", {_DRAW: MAX_ENVELOPE_BYTES, _RESULT: MAX_ENVELOPE_BYTES}, optional=_RESULT
)
ALL_SERIES = (VERDICTS, CONTINUATIONS, TRUST_ROOTS, VERIFICATIONS, REPLAYS)


class Streamed(Collection[bytes]):
    """Items that are read anew for each pass, so that they are never held all at once.

    Args:
        read: begins a pass.
    """

    def __init__(self, read: Callable[[], Iterable[bytes]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._read())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, item: object) -> bool:
        return any(item == found for found in self)


class Lines(Streamed):
    """The lines of a text, without their newlines; only a piece and a line of it are held.

    A pass raises `BundleContentError` for an empty line, one beyond the limit, or no newline at the
    end, and what the pieces raise.

    Args:
        pieces: gives the text.
        limit: largest accepted length of a line in bytes.
    """

    def __init__(self, pieces: archive.Pieces, limit: int) -> None:
        super().__init__(lambda: _split_lines(pieces(), limit))
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(piece.count(b"\n") for piece in self._pieces())


class QuotedNotes(Streamed):
    """Cosigned notes, each written as one line: a JSON string in RFC 8785 form.

    A pass raises `BundleContentError` for a line that is no such string, and what the lines raise.
    """

    def __init__(self, lines: Lines) -> None:
        super().__init__(lambda: map(_unquoted, lines))
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)


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
class Replay:
    """A draw of segments to execute again, and what came of it. Nothing of it is verified yet.

    Attributes:
        draw: DSSE envelope (JSON) of the replay draw.
        result: DSSE envelope (JSON) of the replay result; None: it is still to come.
    """

    draw: bytes
    result: bytes | None = None


@dataclass(frozen=True)
class Bundle:
    """Everything that an auditor keeps about one session. Nothing of it is verified yet.

    Attributes:
        order: DSSE envelope (JSON) of the audit order.
        request: canonical JSON of the session request.
        grant: DSSE envelope (JSON) of the session grant.
        records: the log, one canonical JSON record per item, from sequence number 0. It may be read
            from a file anew for each pass, so that a log of any length needs no memory.
        checkpoints: cosigned notes in the order in which they were cosigned; likewise.
        pool_leaves: 32 bytes per sample of the pool.
        test_leaves: 32 bytes per test sample.
        weights: safetensors of M+; None before the submission.
        description: JSON of the model description; None before the submission.
        scores: safetensors of the calibration scores; None before the submission.
        verdicts: DSSE envelopes (JSON) in the order in which they were given.
        continuations: fresh containers and their keys, in the order in which they were granted.
        trust_roots: DSSE envelopes (JSON) of every version of the auditor's trust root up to the
            one in force, in their order.
        registry: RFC 8785 JSON of the excerpt of the auditor's registry; None: there is none.
        registry_checkpoint: cosigned note over the registry that the excerpt is of.
        replays: draws and their results, in the order of drawing.
        verifications: DSSE envelopes (JSON) of signed verification summaries, in their order.
    """

    order: bytes
    request: bytes
    grant: bytes
    records: Collection[bytes]
    checkpoints: Collection[bytes]
    pool_leaves: bytes
    test_leaves: bytes
    weights: bytes | None = None
    description: bytes | None = None
    scores: bytes | None = None
    verdicts: tuple[bytes, ...] = ()
    continuations: tuple[Continuation, ...] = ()
    trust_roots: tuple[bytes, ...] = ()
    registry: bytes | None = None
    registry_checkpoint: bytes | None = None
    replays: tuple[Replay, ...] = ()
    verifications: tuple[bytes, ...] = ()

    @property
    def final_checkpoint(self) -> bytes | None:
        """The last cosigned note, found in one pass; None when there is none."""
        final = deque(self.checkpoints, maxlen=1)
        return final[0] if final else None


def write_bundle(bundle: Bundle) -> bytes:
    """Return the bytes of the bundle's file.

    Raises:
        BundleError: content that the file cannot carry; see `write_bundle_to`.
    """
    file = io.BytesIO()
    write_bundle_to(bundle, file)
    return file.getvalue()


def write_bundle_to(bundle: Bundle, file: BinaryIO) -> None:
    """Write the bundle to a seekable file that is open for writing bytes.

    Records and checkpoints are passed on as they come, so a long log needs no memory.

    Raises:
        BundleContentError: a record with a newline in it or without content, a checkpoint that is
            not UTF-8, or leaves that are not 32 bytes each.
        BundleSizeError: a member or the whole is too large.
        BundleMemberError: too many members of a series.
    """
    optional = {
        WEIGHTS: bundle.weights,
        DESCRIPTION: bundle.description,
        SCORES: bundle.scores,
        REGISTRY: bundle.registry,
        REGISTRY_CHECKPOINT: bundle.registry_checkpoint,
    }
    held = {
        ORDER: bundle.order,
        REQUEST: bundle.request,
        GRANT: bundle.grant,
        POOL_LEAVES: _checked_leaves(POOL_LEAVES, bundle.pool_leaves),
        TEST_LEAVES: _checked_leaves(TEST_LEAVES, bundle.test_leaves),
        **{name: data for name, data in optional.items() if data is not None},
        **_write_series(bundle),
    }
    for name, data in held.items():
        archive.check_member_size(name, len(data), _limit(name))
    _check_held(sum(map(len, held.values())))
    streamed: dict[str, archive.Pieces] = {
        RECORDS: lambda: _join_lines(RECORDS, bundle.records),
        CHECKPOINTS: lambda: _join_lines(CHECKPOINTS, map(_quoted, bundle.checkpoints)),
    }
    archive.write({**held, **streamed}, file)


def open_bundle(file: BinaryIO) -> Bundle:
    """Open a bundle whose records and checkpoints are read when they are asked for.

    Everything else is read at once. Nothing is unpacked and no member's name is ever used as a
    path.

    Args:
        file: seekable and open for reading bytes; it must stay open as long as the bundle is used.

    Raises:
        BundleFormatError: not an archive of the form that `write_bundle` gives it.
        BundleMemberError: a member is unknown, missing, repeated or out of order.
        BundleSizeError: the file or a member is too large.
        BundleChecksumError: a member's bytes have been changed; of records and checkpoints, this is
            raised when they have been read.
        BundleContentError: a member's content is not what its name promises; likewise.
    """
    found = archive.Archive(file, _limit)
    required = (ORDER, REQUEST, GRANT, RECORDS, CHECKPOINTS, POOL_LEAVES, TEST_LEAVES)
    missing = [name for name in required if name not in found.members]
    if missing:
        raise BundleMemberError(f"the bundle lacks {', '.join(missing)}")
    names = [name for name in found.members if name not in (RECORDS, CHECKPOINTS)]
    _check_held(sum(found.members[name].size for name in names))
    held = {name: found.read(name) for name in names}
    return Bundle(
        order=held[ORDER],
        request=held[REQUEST],
        grant=held[GRANT],
        records=Lines(lambda: found.pieces(RECORDS), LINE_LIMITS[RECORDS]),
        checkpoints=QuotedNotes(Lines(lambda: found.pieces(CHECKPOINTS), LINE_LIMITS[CHECKPOINTS])),
        pool_leaves=_checked_leaves(POOL_LEAVES, held[POOL_LEAVES]),
        test_leaves=_checked_leaves(TEST_LEAVES, held[TEST_LEAVES]),
        weights=held.get(WEIGHTS),
        description=held.get(DESCRIPTION),
        scores=held.get(SCORES),
        verdicts=_envelopes(VERDICTS, held),
        continuations=tuple(
            Continuation(parts[_REQUEST], parts[_ENVELOPE]) for parts in CONTINUATIONS.read(held)
        ),
        trust_roots=_envelopes(TRUST_ROOTS, held),
        registry=held.get(REGISTRY),
        registry_checkpoint=held.get(REGISTRY_CHECKPOINT),
        replays=tuple(Replay(parts[_DRAW], parts.get(_RESULT)) for parts in REPLAYS.read(held)),
        verifications=_envelopes(VERIFICATIONS, held),
    )


def read_bundle(source: bytes | BinaryIO) -> Bundle:
    """Read a whole bundle into memory, from its bytes or from a file; see `open_bundle`.

    Raises:
        BundleError: as `open_bundle`, and for records and checkpoints at once.
    """
    opened = open_bundle(io.BytesIO(source) if isinstance(source, bytes) else source)
    # Through an iterator: a tuple asks a collection for its length first, which is another pass.
    return replace(
        opened, records=tuple(iter(opened.records)), checkpoints=tuple(iter(opened.checkpoints))
    )


def _write_series(bundle: Bundle) -> dict[str, bytes]:
    replays = [
        {_DRAW: replay.draw} | ({} if replay.result is None else {_RESULT: replay.result})
        for replay in bundle.replays
    ]
    return {
        **VERDICTS.write([{_ENVELOPE: data} for data in bundle.verdicts]),
        **CONTINUATIONS.write(
            [{_REQUEST: found.request, _ENVELOPE: found.envelope} for found in bundle.continuations]
        ),
        **TRUST_ROOTS.write([{_ENVELOPE: data} for data in bundle.trust_roots]),
        **VERIFICATIONS.write([{_ENVELOPE: data} for data in bundle.verifications]),
        **REPLAYS.write(replays),
    }


def _envelopes(series: Series, members: Mapping[str, bytes]) -> tuple[bytes, ...]:
    return tuple(found[_ENVELOPE] for found in series.read(members))


def _limit(name: str) -> int:
    """Return the largest size of a member in bytes; names outside the bundle's are refused."""
    if name in MEMBER_LIMITS:
        return MEMBER_LIMITS[name]
    for series in ALL_SERIES:
        limit = series.limit(name)
        if limit is not None:
            return limit
    raise BundleMemberError(f"{name[:80]!r} is no member of an evidence bundle")


def _check_held(size: int) -> None:
    if size > MAX_HELD_BYTES:
        raise BundleSizeError(
            f"expected at most {MAX_HELD_BYTES} bytes beside records and checkpoints, found {size}"
        )


def _split_lines(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    rest = b""
    count = 0
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if b"" in lines:
            raise BundleContentError(f"line {count + lines.index(b'') + 1} is empty")
        if max(map(len, (*lines, rest))) > limit:
            raise BundleContentError(f"a line after line {count} has more than {limit} bytes")
        yield from lines
        count += len(lines)
    if rest:
        raise BundleContentError(f"line {count + 1} does not end in a newline")


def _join_lines(name: str, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the text of these lines in pieces.

    Raises:
        BundleContentError: a line is empty, contains a newline, or is longer than a reader accepts.
        BundleSizeError: the text is too large.
    """
    text = io.BytesIO()
    size = 0
    for number, line in enumerate(lines, start=1):
        if not line or b"\n" in line:
            raise BundleContentError(f"line {number} is empty or contains a newline")
        if len(line) > LINE_LIMITS[name]:
            raise BundleContentError(
                f"expected line {number} of {name} to have at most {LINE_LIMITS[name]} bytes, "
                f"found {len(line)}"
            )
        text.write(line)
        text.write(b"\n")
        if text.tell() >= archive.PIECE_BYTES:
            size += text.tell()
            archive.check_member_size(name, size, _limit(name))
            yield text.getvalue()
            text = io.BytesIO()
    archive.check_member_size(name, size + text.tell(), _limit(name))
    yield text.getvalue()


def _quoted(note: bytes) -> bytes:
    try:
        return canonical.to_bytes(note.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleContentError(f"a checkpoint is not UTF-8: {error}") from error


def _unquoted(line: bytes) -> bytes:
    try:
        note = canonical.parse(line, MAX_QUOTED_NOTE_BYTES)
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
