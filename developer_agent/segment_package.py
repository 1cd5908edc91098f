"""What the developer opens for a replay, as files that the auditor checks against the commitments.

A *segment package* opens one segment: an archive of the bundle's own form (`evidence.archive`).

| member | what it is |
|---|---|
| `segment.json` | which segment of which session, and for which draw |
| `start.safetensors`, `end.safetensors` | the two training states, as the log commits to them |
| `samples.safetensors` | pixels, labels, keys and pool indices of the samples that it shows |

A *calibration package* opens C, so that the scores can be computed again: `calibration.json` and
`samples.safetensors`. Nothing in a package is believed: the states must have the committed digests,
and every sample must be the committed leaf at a place that the nonce's schedule shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from auditkit.data.errors import PixelTypeError
from auditkit.data.manifest import KEY_BYTES, LEAF_BYTES, sample_leaf
from auditkit.evidence import archive, canonical
from auditkit.evidence.derivation import Indices, Schedule
from auditkit.evidence.errors import BundleError
from developer_agent.errors import AgentError
from schemas import ReplaySegment
from schemas.base import Name, Schema, Sha256

SEGMENT, CALIBRATION = "segment.json", "calibration.json"
START, END, SAMPLES = "start.safetensors", "end.safetensors", "samples.safetensors"
SUFFIX = ".package"
CALIBRATION_NAME = "calibration" + SUFFIX
TRACE_SUFFIX = ".trace.json"

MAX_DESCRIPTION_BYTES = 100_000
"""Largest description; it takes a few hundred bytes."""

MOST_NAMED = 5
"""Samples that a message names."""

S = TypeVar("S", bound=Schema)


class PackageError(AgentError):
    """A package is not what the log commits to, so nothing may be executed from it."""


class PackageFormatError(PackageError):
    """A file is no package, or is damaged."""


class PackageMismatchError(PackageError):
    """A package is for another session, draw or segment."""


class StartStateError(PackageError):
    """The state that a segment starts from is not the one that the log commits to."""


class EndStateError(PackageError):
    """The state that a segment ends in is not the one that the log commits to."""


class SampleMissingError(PackageError):
    """A package lacks a sample that its segment shows."""


class SampleSurplusError(PackageError):
    """A package has a sample that its segment does not show."""


class SampleOpeningError(PackageError):
    """A sample is not the one that the pool's leaves commit to."""


class SegmentDescription(Schema):
    """What a segment package opens."""

    schema_version: Literal[1] = 1
    session_id: Name
    draw_digest: Sha256 = Field(description="SHA-256 of the draw's DSSE payload")
    segment: ReplaySegment
    loop: str | None = Field(
        default=None,
        max_length=1000,
        description="the developer's own training loop, by its name in the image",
    )


class CalibrationDescription(Schema):
    """What a calibration package opens."""

    schema_version: Literal[1] = 1
    session_id: Name
    draw_digest: Sha256 = Field(description="SHA-256 of the draw's DSSE payload")


class Trace(Schema):
    """What the developer says the training state was after every step of a segment."""

    schema_version: Literal[1] = 1
    session_id: Name
    segment: ReplaySegment
    digests: tuple[Sha256, ...] = Field(description="SHA-256 of the state after each step")


@dataclass(frozen=True)
class OpenedSamples:
    """Samples of a pool with what shows that they are the committed ones, sorted by index."""

    indices: Indices
    """(N,) places in the pool."""
    images: NDArray[np.uint8]
    """(N, H, W, C) pixels."""
    labels: NDArray[np.int64]
    """(N,) classes."""
    keys: NDArray[np.uint8]
    """(N, 32) keys of the samples."""

    @classmethod
    def none(cls) -> Self:
        """Return no samples at all."""
        return cls(
            np.empty(0, dtype=np.int64),
            np.empty((0, 0, 0, 0), dtype=np.uint8),
            np.empty(0, dtype=np.int64),
            np.empty((0, KEY_BYTES), dtype=np.uint8),
        )

    def to_bytes(self) -> bytes:
        """Return the safetensors file; equal samples give equal bytes."""
        return save({name: np.ascontiguousarray(value) for name, value in vars(self).items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` returned.

        Raises:
            PackageFormatError: it is damaged, or its parts do not fit together.
        """
        try:
            found = cls(**load(data))
            count = len(found.indices)
            fits = (
                found.indices.shape == found.labels.shape == (count,)
                and found.indices.dtype == found.labels.dtype == np.int64
                and found.keys.shape == (count, KEY_BYTES)
                and found.keys.dtype == found.images.dtype == np.uint8
                and found.images.ndim == 4
                and len(found.images) == count
            )
        except (SafetensorError, TypeError, ValueError, KeyError) as error:
            raise PackageFormatError(
                f"the samples of the package cannot be read: {error}; ask for the package again"
            ) from error
        if not fits:
            raise PackageFormatError(
                "the samples of the package are not N indices, labels, keys of 32 bytes and images "
                "(N, H, W, C); ask for the package again"
            )
        return found

    def check(self, rows: Indices, leaves: bytes) -> None:
        """Check that these are exactly the samples at `rows`, and each the committed one.

        Args:
            rows: places in the pool, sorted and different.
            leaves: of the whole pool, 32 bytes each.

        Raises:
            SampleMissingError, SampleSurplusError: samples other than those at `rows`.
            SampleOpeningError: pixels, label or key are not what the leaf commits to.
        """
        missing = np.setdiff1d(rows, self.indices)
        if len(missing):
            raise SampleMissingError(
                f"{len(missing)} samples are missing that the nonce's schedule shows here, the "
                f"first at the places {_named(missing)} of the pool; without them nothing can be "
                "executed again"
            )
        if not np.array_equal(self.indices, rows):
            surplus = np.setdiff1d(self.indices, rows)
            raise SampleSurplusError(
                f"expected {len(rows)} samples in the order of their places, found "
                f"{len(self.indices)}; not shown here: {_named(surplus) or 'none, but repeated'}"
            )
        wrong = [
            int(index)
            for index, image, label, key in zip(
                self.indices, self.images, self.labels, self.keys, strict=True
            )
            if _leaf(key.tobytes(), image, int(label)) != _leaf_at(leaves, int(index))
        ]
        if wrong:
            raise SampleOpeningError(
                f"{len(wrong)} samples are not those that the session commits to, the first at the "
                f"places {_named(np.asarray(wrong))} of the pool: pixels, label or key differ"
            )

    def pick(self, rows: Indices) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels (B, H, W, C) and classes (B,) of these samples of the pool."""
        places = np.searchsorted(self.indices, rows)
        return self.images[places], self.labels[places]


@dataclass(frozen=True)
class SegmentPackage:
    """One opened segment. Nothing of it is checked yet."""

    description: SegmentDescription
    start: bytes
    end: bytes
    samples: OpenedSamples

    @cached_property
    def end_digest(self) -> str:
        """SHA-256 of the state that the segment ended in."""
        return canonical.sha256_hex(self.end)

    def write_to(self, file: BinaryIO) -> None:
        """Write the package's file.

        Raises:
            BundleSizeError: it is larger than such an archive can be.
        """
        members = {
            SEGMENT: canonical.to_bytes(self.description),
            START: self.start,
            END: self.end,
            SAMPLES: self.samples.to_bytes(),
        }
        archive.write(members, file)

    @classmethod
    def read_from(cls, file: BinaryIO) -> Self:
        """Read a package's file.

        Raises:
            PackageFormatError: it is no such package, or is damaged.
        """
        members = _members(file, (SEGMENT, START, END, SAMPLES))
        return cls(
            _description(members[SEGMENT], SegmentDescription),
            members[START],
            members[END],
            OpenedSamples.from_bytes(members[SAMPLES]),
        )

    def check(
        self, states: Mapping[int, str], rows: Indices, leaves: bytes, *, session_id: str
    ) -> None:
        """Check everything in the package against what the session commits to.

        Args:
            states: SHA-256 of the committed state after each step that has one.
            rows: places in the pool that the segment shows, sorted and different.
            leaves: of the whole pool, 32 bytes each.
            session_id: of the session.

        Raises:
            PackageMismatchError: it is for another session, or for a segment without such states.
            StartStateError, EndStateError: a state is not the committed one.
            SampleMissingError, SampleSurplusError, SampleOpeningError: see `OpenedSamples.check`.
        """
        segment = self.description.segment
        if self.description.session_id != session_id:
            raise PackageMismatchError(
                f"expected a package of session {session_id}, found one of "
                f"{self.description.session_id}"
            )
        for step, data, error in (
            (segment.first_state_step, self.start, StartStateError),
            (segment.last_state_step, self.end, EndStateError),
        ):
            expected, found = states.get(step), canonical.sha256_hex(data)
            if found != expected:
                raise error(
                    f"the state after step {step} hashes to {found}, the log commits to "
                    f"{expected or 'none after that step'}; ask for the package again"
                )
        self.samples.check(rows, leaves)


@dataclass(frozen=True)
class CalibrationPackage:
    """C, opened. Nothing of it is checked yet."""

    description: CalibrationDescription
    samples: OpenedSamples

    def write_to(self, file: BinaryIO) -> None:
        """Write the package's file.

        Raises:
            BundleSizeError: it is larger than such an archive can be.
        """
        members = {
            CALIBRATION: canonical.to_bytes(self.description),
            SAMPLES: self.samples.to_bytes(),
        }
        archive.write(members, file)

    @classmethod
    def read_from(cls, file: BinaryIO) -> Self:
        """Read a package's file.

        Raises:
            PackageFormatError: it is no such package, or is damaged.
        """
        members = _members(file, (CALIBRATION, SAMPLES))
        return cls(
            _description(members[CALIBRATION], CalibrationDescription),
            OpenedSamples.from_bytes(members[SAMPLES]),
        )

    def check(self, rows: Indices, leaves: bytes, *, session_id: str) -> None:
        """Check that these are exactly the samples of C, and each the committed one.

        Raises:
            PackageMismatchError: it is for another session.
            SampleMissingError, SampleSurplusError, SampleOpeningError: see `OpenedSamples.check`.
        """
        if self.description.session_id != session_id:
            raise PackageMismatchError(
                f"expected a package of session {session_id}, found one of "
                f"{self.description.session_id}"
            )
        self.samples.check(rows, leaves)


def shown_rows(schedule: Schedule, segment: ReplaySegment) -> Indices:
    """Return the places in the pool that the steps of a segment show, sorted and different."""
    shown = []
    for plan in schedule.steps(after=segment.first_state_step):
        if plan.step > segment.last_state_step:
            break
        shown.append(plan.rows)
    return np.unique(np.concatenate(shown)) if shown else np.empty(0, dtype=np.int64)


def with_one_swapped(package: SegmentPackage, schedule: Schedule) -> SegmentPackage:
    """Return the package with another image in the place of one, as a small forgery would have it.

    It is a sample that M trains on in the last step, where a forgery has the least effect.
    """
    last = package.description.segment.last_state_step
    plan = next(schedule.steps(after=last - 1))
    place, other = np.searchsorted(package.samples.indices, plan.rows[[0, -1]])
    images = package.samples.images.copy()
    images[place] = images[other]
    return replace(package, samples=replace(package.samples, images=images))


def segment_name(segment: ReplaySegment) -> str:
    """Return what a segment is called where it needs a file's name."""
    return f"{segment.first_state_step:08d}-{segment.last_state_step:08d}"


def package_path(folder: Path, segment: ReplaySegment) -> Path:
    """Return where the package of a segment lies in a folder of packages."""
    return folder / (segment_name(segment) + SUFFIX)


def trace_path(folder: Path, segment: ReplaySegment) -> Path:
    """Return where the trace of a segment lies in a folder of packages."""
    return folder / (segment_name(segment) + TRACE_SUFFIX)


def read_trace(data: bytes) -> Trace:
    """Read a trace.

    Raises:
        PackageFormatError: it is none.
    """
    return _description(data, Trace)


def _members(file: BinaryIO, names: tuple[str, ...]) -> dict[str, bytes]:
    def limit(name: str) -> int:
        if name not in names:
            raise PackageFormatError(f"{name[:80]!r} is no member of such a package")
        return MAX_DESCRIPTION_BYTES if name.endswith(".json") else archive.MAX_ARCHIVE_BYTES

    try:
        members = dict(archive.read(file, limit))
    except BundleError as error:
        raise PackageFormatError(f"{error}; ask for the package again") from error
    missing = [name for name in names if name not in members]
    if missing:
        raise PackageFormatError(f"the package lacks {', '.join(missing)}; ask for it again")
    return members


def _description(data: bytes, model: type[S]) -> S:
    try:
        return model.from_bytes(data)
    except ValidationError as error:
        raise PackageFormatError(
            f"the {model.__name__} of a package breaks its schema: {error.errors()[0]['msg']}; ask "
            "for the package again"
        ) from error


def read_package(path: Path) -> SegmentPackage:
    """Read the package at a path.

    Raises:
        OSError: it cannot be read.
        PackageFormatError: it is no such package, or is damaged.
    """
    with path.open("rb") as file:
        return SegmentPackage.read_from(file)


def _leaf(key: bytes, image: NDArray[np.uint8], label: int) -> bytes | None:
    try:
        return sample_leaf(key, image, label)
    except (PixelTypeError, OverflowError):  # a negative label has no eight bytes
        return None


def _leaf_at(leaves: bytes, index: int) -> bytes:
    return leaves[index * LEAF_BYTES : (index + 1) * LEAF_BYTES]


def _named(indices: Indices) -> str:
    return ", ".join(str(index) for index in indices[:MOST_NAMED])
