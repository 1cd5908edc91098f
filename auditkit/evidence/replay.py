"""Replay: which stretches of a training are executed again, and what that can find out.

A training is cut into segments by the states that its log commits to: each segment goes from one
committed state to the next, so it can be executed again by whoever is given its first state and its
samples, and the end of one is the start of the next. After the seal the auditor draws segments with
fresh randomness, and always takes the last one. This module is that draw, as a pure function that
anybody can repeat, and the probability that a forgery escapes it.

Taking the largest weight moves too follows Jia et al., "Proof-of-Learning: Definitions and
Practice" (IEEE S&P 2021), section V; drawing at random is what gives a probability.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Literal

from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.derivation import permutation
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.notes import Checkpoint
from schemas import (
    AnyRecord,
    DetectionProbability,
    DrawRequest,
    EscapeProbability,
    ReplayDraw,
    ReplaySegment,
    ResumeRecord,
    SealRecord,
    StateRecord,
)
from schemas.replay import ReplayGrade

DRAW_LABEL = "replay/segments"
"""Label of HKDF (see `derivation`) under which a draw's seed gives the order of all segments."""

LONGEST_TOLERATED_SEGMENT = 5
"""Steps. Over longer segments honest noise grows to the size of a forgery (docs, decision 20)."""


REPORTED_SHARES = (0.01, 0.1)
"""Shares of forged segments for which a detection probability is told."""

REPORTED_STEP_INTERVAL = 200
"""And one in so many steps, spread evenly, as a forger does who hides one sample in a batch."""


class StateChainError(EvidenceError):
    """The committed states do not lead, each from the one before, from step 0 to the seal."""


class SegmentTooLongError(EvidenceError):
    """A training has segments over which a replay by tolerance would tell nothing."""


class LogNotSealedError(EvidenceError):
    """A log has not ended, so what is drawn now could still be prepared for."""


@dataclass(frozen=True, slots=True)
class CommittedState:
    """What the log says of one saved state that the final model descends from."""

    step: int
    state_digest: str
    weights_digest: str
    moved: float | None


class StateChain:
    """Collects the committed states of a log, record by record.

    What a resumed run threw away is not part of the chain: no later state descends from it.
    """

    def __init__(self) -> None:
        self._states: list[CommittedState] = []

    def observe(self, record: AnyRecord) -> None:
        """Take in the next record."""
        if isinstance(record, ResumeRecord):
            while self._states and self._states[-1].step > record.step:
                self._states.pop()
        elif isinstance(record, StateRecord):
            self._states.append(
                CommittedState(
                    record.step, record.state_digest, record.weights_digest, record.moved
                )
            )

    @property
    def states(self) -> tuple[CommittedState, ...]:
        """All states of the chain, first to last.

        Raises:
            StateChainError: a state does not come after the one before it.
        """
        for before, after in pairwise(self._states):
            if after.step <= before.step:
                raise StateChainError(
                    f"a state of step {after.step} follows one of step {before.step}; a state "
                    "follows from an earlier one"
                )
        return tuple(self._states)


@dataclass(frozen=True)
class SealedLog:
    """What a replay rests on: the committed states of a finished log, and its end.

    Attributes:
        session_id: of the log.
        states: from the initial state to the sealed one.
        seal_digest: SHA-256 of the line of the seal record.
        weights_digest: of the sealed weights.
        scores_digest: of the sealed scores.
        size: records in the log.
        root: Merkle root of the log, hexadecimal.
        cosigned_at: when the auditor cosigned the sealed log, in Unix seconds, rounded down.
    """

    session_id: str
    states: tuple[CommittedState, ...]
    seal_digest: str
    weights_digest: str
    scores_digest: str
    size: int
    root: str
    cosigned_at: int

    @cached_property
    def segments(self) -> tuple[ReplaySegment, ...]:
        """All segments of the training, in its order."""
        return segments_between(self.states)


class SealedLogReader:
    """Reads a log once, record by record, for what a replay rests on."""

    def __init__(self) -> None:
        self._chain = StateChain()
        self._seal: SealRecord | None = None
        self._seal_digest = ""

    def observe(self, line: bytes, record: AnyRecord) -> None:
        """Take in the next record and the line that it stands in."""
        self._chain.observe(record)
        if isinstance(record, SealRecord):
            self._seal, self._seal_digest = record, sha256_hex(line)

    def finish(self, session_id: str, checkpoint: Checkpoint, cosigned_at: int) -> SealedLog:
        """Return the whole.

        Args:
            session_id: of the log.
            checkpoint: the last one, over all records.
            cosigned_at: when the auditor cosigned it, in Unix seconds.

        Raises:
            LogNotSealedError: the log has no seal.
            StateChainError: its states do not lead from step 0 to the sealed weights.
        """
        if self._seal is None:
            raise LogNotSealedError(
                f"the log of session {session_id} has no seal; segments can be drawn when the "
                "training has ended"
            )
        states = self._chain.states
        if len(states) < 2 or states[0].step != 0:
            raise StateChainError(
                f"the log of session {session_id} commits to {len(states)} states, expected the "
                "initial one of step 0 and at least one more; nothing can be executed again"
            )
        # Where the auditor held T, states are of M alone, and the seal says what M is.
        sealed = self._seal.audited_weights_digest or self._seal.weights_digest
        if states[-1].weights_digest != sealed:
            raise StateChainError(
                f"the last state has weights {states[-1].weights_digest}, sealed were {sealed}: no "
                "segment leads to the sealed model"
            )
        return SealedLog(
            session_id=session_id,
            states=states,
            seal_digest=self._seal_digest,
            weights_digest=self._seal.weights_digest,
            scores_digest=self._seal.scores_digest,
            size=checkpoint.size,
            root=checkpoint.root.hex(),
            cosigned_at=cosigned_at,
        )


def committed_states(records: Iterable[AnyRecord]) -> tuple[CommittedState, ...]:
    """Return the states that the final model of a log descends from, first to last.

    Raises:
        StateChainError: a state does not come after the one before it.
    """
    chain = StateChain()
    for record in records:
        chain.observe(record)
    return chain.states


def segments_between(states: Sequence[CommittedState]) -> tuple[ReplaySegment, ...]:
    """Return the segments that a chain of states makes: one fewer than there are states."""
    return tuple(
        ReplaySegment(first_state_step=first.step, last_state_step=last.step)
        for first, last in pairwise(states)
    )


def segments_of(records: Iterable[AnyRecord]) -> tuple[ReplaySegment, ...]:
    """Return the segments of a log, in the order of the training.

    Raises:
        StateChainError: a state does not come after the one before it.
    """
    return segments_between(committed_states(records))


def moves_between(states: Sequence[CommittedState]) -> tuple[float | None, ...]:
    """Return how far the weights moved in each segment, by the developer's own account."""
    return tuple(state.moved for state in states[1:])


def draw(
    seed: bytes,
    segments: Sequence[ReplaySegment],
    moves: Sequence[float | None],
    uniform: int,
    largest: int,
) -> tuple[ReplaySegment, ...]:
    """Draw the segments to execute again.

    First `uniform` different ones, each set of that size with the same probability: the first of
    the permutation that the seed gives (HKDF-SHA256 with the label `DRAW_LABEL`, then the stable
    order of one 64-bit word per segment, as `derivation.permutation` does). Then the last segment
    of the training, unless it is among them: nothing else shows that the sealed weights are those
    that the training led to. Then the `largest` segments, of those not yet drawn, over which the
    weights moved furthest, the furthest first and of equal ones the earlier first; segments of
    unknown move come in no such list.

    Args:
        seed: 32 fresh random bytes.
        segments: all of a training's, at least one.
        moves: L2 distance of the weights over each segment; None where the log does not say.
        uniform: how many to draw at random; all if there are fewer.
        largest: how many more to take by their move.

    Returns:
        The uniform ones in the order of the draw, then the last one, then the ones with the largest
        moves; none twice.
    """
    at_random = permutation(seed, DRAW_LABEL, len(segments))[:uniform].tolist()
    drawn = dict.fromkeys([*at_random, len(segments) - 1])
    rest = [
        (-move, index)
        for index, move in enumerate(moves)
        if move is not None and index not in drawn
    ]
    by_move = [index for _, index in sorted(rest)[:largest]]
    return tuple(segments[index] for index in (*drawn, *by_move))


def make_draw(
    log: SealedLog, asked: DrawRequest, *, seed: bytes, draw_id: str, number: int, now: datetime
) -> ReplayDraw:
    """Return the draw that a seed gives, ready to be signed.

    Args:
        log: of the session.
        asked: how many segments.
        seed: 32 random bytes that nobody knew before the log was sealed.
        draw_id: name of the draw.
        number: of the draw within its session, from 1.
        now: time of the draw.

    Raises:
        SegmentTooLongError: a segment has more steps than `asked` allows.
    """
    check_length(log.segments, asked.most_steps)
    return ReplayDraw(
        draw_id=draw_id,
        number=number,
        session_id=log.session_id,
        seal_digest=log.seal_digest,
        log_size=log.size,
        log_root=log.root,
        seed=seed.hex(),
        uniform=asked.uniform,
        largest=asked.largest,
        most_steps=asked.most_steps,
        segments=draw(seed, log.segments, moves_between(log.states), asked.uniform, asked.largest),
        drawn_at=now,
    )


def check_length(segments: Iterable[ReplaySegment], most_steps: int | None) -> None:
    """Refuse to draw from a training with segments that are too long for what is intended.

    Args:
        segments: all of a training's.
        most_steps: None: any length, since the replay is to be exact.

    Raises:
        SegmentTooLongError: a segment has more steps.
    """
    longest = max((segment.steps for segment in segments), default=0)
    if most_steps is not None and longest > most_steps:
        raise SegmentTooLongError(
            f"expected segments of at most {most_steps} steps, found one of {longest}; order a "
            "smaller `state_interval_steps`, or replay exactly, on the machine class of the "
            "training"
        )


def escape_probability(segments_total: int, drawn: int, forged: int) -> float:
    """Return the probability that none of the forged segments is among those drawn uniformly.

    Hypergeometric, exact: C(n - k, c) / C(n, c), correctly rounded.

    Args:
        segments_total: n, segments in the training.
        drawn: c, different segments drawn; all if there are fewer.
        forged: k, segments with a forgery in them.
    """
    drawn, forged = min(drawn, segments_total), min(forged, segments_total)
    return math.comb(segments_total - forged, drawn) / math.comb(segments_total, drawn)


def least_forged(segments_total: int, forged_fraction: float) -> int:
    """Return the fewest whole segments that make up at least this share of all."""
    return math.ceil(Fraction(str(forged_fraction)) * segments_total)


def detection_probability(segments_total: int, drawn: int, forged_fraction: float) -> float:
    """Return the probability that a uniform draw hits a forgery of a share of the segments.

    Exact for the fewest whole segments that make up the share. At least 1 - (1 - f)^c.

    Args:
        segments_total: segments in the training.
        drawn: different segments drawn uniformly.
        forged_fraction: share of the segments that have a forgery in them, from 0 to 1.
    """
    forged = least_forged(segments_total, forged_fraction)
    return 1.0 - escape_probability(segments_total, drawn, forged)


def segments_hit(segments: Iterable[ReplaySegment], one_in: int) -> int:
    """Return how many segments have a forged step if every `one_in`-th step is forged.

    Spread evenly is what a forger must do who wants the same share of foreign data throughout; who
    puts all forged steps side by side hits as few segments as that share of all.
    """
    return sum(
        segment.last_state_step // one_in > segment.first_state_step // one_in
        for segment in segments
    )


def detection(
    segments: Sequence[ReplaySegment], draws: Sequence[ReplayDraw], grade: ReplayGrade
) -> DetectionProbability:
    """Return how probable it is that forgeries of several extents lie in no drawn segment.

    Only what was drawn at random counts. Draws are independent, so their probabilities multiply.
    The forgeries are such as leave the last segment alone: one that touches it never escapes.

    Args:
        segments: all of the training's.
        draws: every draw whose segments were executed again.
        grade: of the replay.
    """
    counts = [min(found.uniform, len(segments)) for found in draws]
    extents: list[tuple[float, Literal["segments", "steps"], int]] = [
        (share, "segments", least_forged(len(segments), share)) for share in REPORTED_SHARES
    ]
    extents.append(
        (1 / REPORTED_STEP_INTERVAL, "steps", segments_hit(segments, REPORTED_STEP_INTERVAL))
    )
    return DetectionProbability(
        grade=grade,
        segments=len(segments),
        uniform=sum(counts),
        executed=len({segment for found in draws for segment in found.segments}),
        escapes=tuple(
            EscapeProbability(
                extent=extent,
                of=of,
                forged_segments=forged,
                escape=math.prod(
                    escape_probability(len(segments), count, forged) for count in counts
                ),
                bound=(1.0 - forged / len(segments)) ** sum(counts),
            )
            for extent, of, forged in extents
        ),
    )
