"""The draw of segments: anybody can repeat it, nobody can steer it, and its strength is exact."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import combinations, pairwise

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.notes import Checkpoint
from auditkit.evidence.replay import (
    LogNotSealedError,
    SealedLogReader,
    SegmentTooLongError,
    StateChainError,
    committed_states,
    detection,
    detection_probability,
    draw,
    escape_probability,
    least_forged,
    make_draw,
    moves_between,
    segments_hit,
    segments_of,
)
from schemas import (
    DrawRequest,
    Environment,
    Record,
    ReplaySegment,
    ResumeRecord,
    SealRecord,
    StateRecord,
    parse_record,
)
from schemas.replay import MOST_DRAWN_SEGMENTS

SEED = bytes(range(32))
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
ENVIRONMENT = Environment(
    python="3.11.7",
    torch="2.10.0",
    torchvision="0.25.0",
    timm="1.0.15",
    auditkit="0.1.0",
    platform="Linux x86_64",
    cpu_capability="AVX2",
    threads=1,
    device="cpu",
)


def digest_of(what: object) -> str:
    return sha256_hex(repr(what).encode())


def state(step: int, moved: float | None = None, attempt: int = 0) -> StateRecord:
    return StateRecord(
        sequence=0,
        time_ms=0,
        step=step,
        state_digest=digest_of(("state", step, attempt)),
        weights_digest=digest_of(("weights", step, attempt)),
        moved=moved,
    )


def resume(step: int) -> ResumeRecord:
    return ResumeRecord(
        sequence=0,
        time_ms=0,
        step=step,
        state_digest=digest_of(("state", step, 0)),
        discarded_steps=1,
        environment=ENVIRONMENT,
    )


def seal(weights: StateRecord) -> SealRecord:
    return SealRecord(
        sequence=0,
        time_ms=0,
        step=weights.step,
        weights_digest=weights.weights_digest,
        description_digest=digest_of("description"),
        scores_digest=digest_of("scores"),
    )


def segments(count: int, steps: int = 10) -> tuple[ReplaySegment, ...]:
    return tuple(
        ReplaySegment(first_state_step=start * steps, last_state_step=(start + 1) * steps)
        for start in range(count)
    )


def read(records: Sequence[Record]) -> SealedLogReader:
    reader = SealedLogReader()
    for record in records:
        line = to_bytes(record)
        reader.observe(line, parse_record(line))
    return reader


KNOWN_DRAW = [120, 0, 70, 190, 60, 130]
CHECKPOINT = Checkpoint("audit.example.org/sessions/s", 9, bytes(32))


# -- segments ----------------------------------------------------------------------------------


def test_segments_run_from_state_to_state() -> None:
    found = segments_of([state(0), state(10), state(20), state(25)])
    assert [(one.first_state_step, one.last_state_step) for one in found] == [
        (0, 10),
        (10, 20),
        (20, 25),
    ]
    assert all(one.last_state_step == next_.first_state_step for one, next_ in pairwise(found))


def test_what_a_resumed_run_threw_away_is_no_segment() -> None:
    """Two crashes; the states that were made anew are the ones that count."""
    records = [
        *(state(0), state(10, 1.0), state(20, 2.0), resume(10)),
        *(state(20, 2.5, 1), state(30, 3.0, 1), resume(20), state(30, 3.5, 2)),
    ]
    states = committed_states(records)
    assert [one.step for one in states] == [0, 10, 20, 30]
    assert moves_between(states) == (1.0, 2.5, 3.5)
    assert states[2].state_digest == digest_of(("state", 20, 1))


def test_a_state_that_does_not_follow_from_an_earlier_one_breaks_the_chain() -> None:
    with pytest.raises(StateChainError, match="step 10 follows one of step 10"):
        segments_of([state(0), state(10), state(10, attempt=1)])


def test_a_sealed_log_is_read_as_it_stands() -> None:
    records = [state(0), state(10), state(20), seal(state(20))]
    log = read(records).finish("s", CHECKPOINT, 1_000)
    assert len(log.segments) == 2
    assert log.seal_digest == sha256_hex(to_bytes(records[-1]))
    assert (log.size, log.root, log.cosigned_at) == (9, "00" * 32, 1_000)


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([state(0), state(10)], LogNotSealedError),
        ([seal(state(0))], StateChainError),
        ([state(0), seal(state(0))], StateChainError),
        ([state(5), state(10), seal(state(10))], StateChainError),
        ([state(0), state(10), seal(state(20))], StateChainError),
        ([state(0), state(20), state(10), seal(state(10))], StateChainError),
    ],
    ids=["no seal", "no states", "one state", "no initial state", "other weights", "backwards"],
)
def test_a_log_that_leads_nowhere_carries_no_replay(
    records: list[Record], error: type[Exception]
) -> None:
    with pytest.raises(error):
        read(records).finish("s", CHECKPOINT, 1_000)


# -- the draw ----------------------------------------------------------------------------------


def by_the_book(seed: bytes, count: int) -> list[int]:
    """The order of all segments, written from `docs/protocol.md` and the two RFCs alone."""
    hkdf = HKDF(SHA256(), 32, salt=None, info=b"auditkit/v1/replay/segments")
    stream = Cipher(ChaCha20(hkdf.derive(seed), bytes(16)), mode=None).encryptor()
    data = stream.update(bytes(8 * count))
    words = [int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(count)]
    return sorted(range(count), key=lambda index: (words[index], index))


def test_the_draw_can_be_repeated_from_the_document() -> None:
    all_ = segments(50)
    indices = by_the_book(SEED, 50)[:7]
    assert 49 not in indices
    assert draw(SEED, all_, [None] * 50, 7, 0) == tuple(all_[i] for i in (*indices, 49))


def test_the_draw_stays_what_it_is() -> None:
    """A known answer: old draws must be found again by every later version."""
    moves = [float(index % 7) for index in range(20)]
    found = draw(SEED, segments(20), moves, 3, 2)
    assert [one.first_state_step for one in found] == KNOWN_DRAW


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(0, 50),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_a_draw_never_takes_a_segment_twice(
    seed: bytes, count: int, uniform: int, largest: int, data: st.DataObject
) -> None:
    move = st.none() | st.floats(0.0, 1e6)
    moves = data.draw(st.lists(move, min_size=count, max_size=count))
    all_ = segments(count)
    found = draw(seed, all_, moves, uniform, largest)
    assert len(set(found)) == len(found)
    assert set(found) <= set(all_)
    assert all_[-1] in found
    known = dict(zip(all_, moves, strict=True))
    at_random, added = found[:uniform], found[uniform:]
    assert len(at_random) == min(uniform, count)
    always = () if all_[-1] in at_random else all_[-1:]
    assert added[: len(always)] == always
    by_move = added[len(always) :]
    left = [known[one] for one in all_ if one not in (*at_random, *always)]
    measured = [move for move in left if move is not None]
    assert [known[one] for one in by_move] == sorted(measured, reverse=True)[:largest]


def test_of_equal_moves_the_earlier_segment_is_taken() -> None:
    all_ = segments(4)
    found = draw(SEED, all_, [2.0, 2.0, 2.0, 2.0], 1, 1)
    rest = [one for one in all_ if one not in found[:-1]]
    assert found[-1] == rest[0]


def test_every_pair_of_segments_is_drawn_equally_often() -> None:
    """1,500 draws of two out of six: a chi-square of 14 degrees of freedom, at p = 0.001."""
    draws = 1_500
    all_ = segments(6)
    pairs = Counter(
        frozenset(draw(digest.to_bytes(32, "big"), all_, [None] * 6, 2, 0)[:2])
        for digest in range(draws)
    )
    expected = draws / math.comb(6, 2)
    chi_square = sum(
        (pairs[frozenset(pair)] - expected) ** 2 / expected for pair in combinations(all_, 2)
    )
    assert chi_square < 36.1


def test_a_replay_by_tolerance_is_not_drawn_over_long_segments() -> None:
    log = read([state(0), state(5), state(12), seal(state(12))]).finish("s", CHECKPOINT, 0)
    asked = DrawRequest(uniform=1, most_steps=5)
    with pytest.raises(SegmentTooLongError, match="found one of 7"):
        make_draw(log, asked, seed=SEED, draw_id="d", number=1, now=NOW)
    drawn = make_draw(
        log, DrawRequest(uniform=9, most_steps=7), seed=SEED, draw_id="d", number=1, now=NOW
    )
    assert len(drawn.segments) == 2  # all that there are
    assert drawn.seed == SEED.hex()


@pytest.mark.parametrize(
    "asked",
    [{"uniform": 0}, {"uniform": -1}, {"uniform": MOST_DRAWN_SEGMENTS + 1}, {"largest": 2}],
)
def test_a_draw_has_something_at_random(asked: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        DrawRequest.model_validate(asked)


def test_a_segment_has_steps() -> None:
    with pytest.raises(ValidationError):
        ReplaySegment(first_state_step=5, last_state_step=5)


# -- detection ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "drawn", "forged"), [(6, 2, 1), (7, 3, 2), (5, 5, 1), (4, 2, 3)])
def test_the_escape_probability_counts_the_draws_that_miss(
    total: int, drawn: int, forged: int
) -> None:
    draws = list(combinations(range(total), drawn))
    missing = sum(min(chosen) >= forged for chosen in draws)
    assert escape_probability(total, drawn, forged) == missing / len(draws)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.floats(0.0, 1.0))
@settings(max_examples=200, deadline=None)
def test_drawing_without_replacement_finds_at_least_what_the_simple_bound_says(
    total: int, drawn: int, share: float
) -> None:
    found = detection_probability(total, drawn, share)
    assert 0.0 <= found <= 1.0
    assert found >= 1.0 - (1.0 - share) ** min(drawn, total) - 1e-12


def test_nothing_forged_is_never_found_and_everything_always() -> None:
    assert detection_probability(100, 10, 0.0) == 0.0
    assert detection_probability(100, 1, 1.0) == 1.0
    assert detection_probability(100, 100, 0.01) == 1.0
    assert escape_probability(1_000_000, 1_000, 10_000) == pytest.approx(0.99**1_000, rel=0.01)


@pytest.mark.parametrize(("total", "share", "least"), [(100, 0.07, 7), (6, 0.01, 1), (9, 1.0, 9)])
def test_a_share_is_made_up_by_the_fewest_whole_segments(
    total: int, share: float, least: int
) -> None:
    assert least_forged(total, share) == least


@pytest.mark.parametrize("steps", [1, 7, 50, 200, 350])
def test_forged_steps_hit_the_segments_that_they_lie_in(steps: int) -> None:
    all_ = segments(40, steps)
    forged = range(200, 40 * steps + 1, 200)
    hit = {
        next(s for s in all_ if s.first_state_step < step <= s.last_state_step) for step in forged
    }
    assert segments_hit(all_, 200) == len(hit)


def test_simulated_draws_find_a_forgery_as_often_as_predicted() -> None:
    """One step in 200 forged, states every 20 steps: one segment in ten, and 50 draws of ten.

    The forger counts from the first step, so that the last segment is left alone.
    """
    draws, uniform = 50, 10
    all_ = segments(100, 20)
    forged = {one for one in all_ if one.first_state_step % 200 == 0}
    assert len(forged) == segments_hit(all_, 200) == 10
    predicted = 1.0 - escape_probability(len(all_), uniform, len(forged))
    found = sum(
        bool(forged & set(draw(digest.to_bytes(32, "big"), all_, [None] * 100, uniform, 0)))
        for digest in range(draws)
    )
    spread = math.sqrt(draws * predicted * (1 - predicted))
    assert abs(found - draws * predicted) < 3 * spread


def test_detection_counts_only_what_was_drawn_at_random() -> None:
    log = read([*map(state, range(0, 110, 10)), seal(state(100))]).finish("s", CHECKPOINT, 0)
    drawn = make_draw(
        log, DrawRequest(uniform=3, largest=5), seed=SEED, draw_id="d", number=1, now=NOW
    )
    found = detection(log.segments, [drawn, drawn], "strong")
    assert (found.segments, found.uniform, found.executed) == (10, 6, 4)
    tenth = found.escapes[1]
    assert (tenth.extent, tenth.of, tenth.forged_segments) == (0.1, "segments", 1)
    assert tenth.escape == pytest.approx(0.7**2)
    assert tenth.bound == pytest.approx(0.9**6)
    steps = found.escapes[2]
    assert (steps.extent, steps.of, steps.forged_segments) == (0.005, "steps", 0)
    assert steps.escape == 1.0


# -- records of older agents -------------------------------------------------------------------


def test_a_state_record_without_a_move_keeps_its_old_form() -> None:
    line = to_bytes(state(0))
    assert b"moved" not in line
    assert to_bytes(parse_record(line)) == line
    moved = to_bytes(state(1, 0.25))
    assert b'"moved":0.25' in moved
    assert to_bytes(parse_record(moved)) == moved


@pytest.mark.parametrize("moved", [-1.0, float("nan"), float("inf")])
def test_a_move_is_a_distance(moved: float) -> None:
    with pytest.raises(ValidationError):
        state(1, moved)
