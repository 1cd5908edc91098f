"""Data that nobody declared: single samples say little, a set says it, strangers stay quiet."""

import numpy as np
import pytest

from auditkit.mint.errors import (
    CalibrationTooSmallError,
    DuplicateSampleError,
    EmptyCohortError,
    SetShapeError,
    SetTooLargeError,
    TooFewDrawsError,
)
from auditkit.mint.power import (
    disjoint_sets,
    false_alarm_table,
    power_curve,
    resampled_sets,
)
from auditkit.mint.undeclared import undeclared_test

GENERATOR = np.random.default_rng(0)
# Negated losses: what M trained on is a little easier for it (AUC about 0.71).
CALIBRATION = -GENERATOR.gamma(2.0, 1.0, size=2_000)
STRANGERS = -GENERATOR.gamma(2.0, 1.0, size=3_000)
SILENT = -GENERATOR.gamma(2.0, 0.55, size=400)
DIGESTS = [index.to_bytes(32, "big") for index in range(1_000)]


def test_an_owner_s_fifty_samples_raise_the_alarm() -> None:
    found = undeclared_test(SILENT[:50], CALIBRATION, 0.001, 0, identities=DIGESTS[:50])
    assert (found.samples, found.calibration_size, found.alarm) == (50, 2_000, True)
    assert found.p_value <= 0.001
    assert 0.6 < found.mean_rank < 0.85


def test_fifty_strangers_do_not() -> None:
    found = undeclared_test(STRANGERS[:50], CALIBRATION, 0.001, 0, identities=DIGESTS[:50])
    assert not found.alarm
    assert 0.35 < found.mean_rank < 0.65


def test_one_easy_picture_brought_fifty_times_is_refused() -> None:
    easy = np.full(50, STRANGERS.max())
    with pytest.raises(DuplicateSampleError):
        undeclared_test(easy, CALIBRATION, 0.001, 0, identities=DIGESTS[:1] * 50)


def test_power_grows_with_the_set() -> None:
    points = power_curve(SILENT, CALIBRATION, seed=0, repetitions=300)
    assert [point.size for point in points] == [1, 10, 50, 100]
    power = [point.resampled.value for point in points]
    assert power == sorted(power)
    assert power[0] < 0.1
    assert power[2] > 0.95
    assert power[3] == 1.0
    assert [point.resampled.trials for point in points] == [300] * 4
    assert [point.disjoint.trials for point in points] == [400, 40, 8, 4]
    for point in points:
        assert point.disjoint.low <= point.resampled.value <= point.disjoint.high


def test_power_is_the_test_s_own() -> None:
    settings = {"seed": 3, "draws": 499}
    [point] = power_curve(
        SILENT, CALIBRATION, sizes=(10,), repetitions=40, false_alarm_rate=0.01, **settings
    )
    alarms = sum(
        undeclared_test(suspects, CALIBRATION, 0.01, identities=DIGESTS[:10], **settings).alarm
        for suspects in resampled_sets(SILENT, 10, 40, seed=3)
    )
    assert 0 < point.resampled.successes == alarms < 40


def test_ties_do_not_hide_or_invent_members() -> None:
    rounded = [np.round(scores) for scores in (SILENT, CALIBRATION, STRANGERS)]
    [point] = power_curve(rounded[0], rounded[1], seed=0, sizes=(50,), repetitions=50)
    assert point.resampled.value > 0.9
    [row] = false_alarm_table({"test": rounded[2]}, rounded[1], seed=0, sizes=(10,))
    assert row.compatible


@pytest.mark.parametrize("false_alarm_rate", [0.001, 0.05])
def test_false_alarms_keep_their_rate_on_disjoint_strangers(false_alarm_rate: float) -> None:
    told_only = STRANGERS[:500]  # M never trained on them, whatever T was told
    rows = false_alarm_table(
        {"test": STRANGERS[500:], "told only": told_only},
        CALIBRATION,
        seed=1,
        sizes=(1, 10, 50),
        false_alarm_rate=false_alarm_rate,
    )
    assert [(row.kind, row.flagged.trials) for row in rows] == [
        ("test, n = 1", 2_500),
        ("told only, n = 1", 500),
        ("test, n = 10", 250),
        ("told only, n = 10", 50),
        ("test, n = 50", 50),
        ("told only, n = 50", 10),
    ]
    assert all(row.compatible for row in rows)


def test_trained_samples_passed_off_as_strangers_are_found_out() -> None:
    [row] = false_alarm_table({"silent": SILENT}, CALIBRATION, seed=0, sizes=(10,))
    assert not row.compatible


def test_disjoint_sets_use_no_sample_twice() -> None:
    sets = disjoint_sets(np.arange(23.0), 5, seed=0)
    assert sets.shape == (4, 5)
    assert len(np.unique(sets)) == 20
    drawn = resampled_sets(np.arange(23.0), 5, 7, seed=0)
    assert all(len(np.unique(row)) == 5 for row in drawn)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(
        SetTooLargeError, match="at least 500 samples for sets of that size, found 400"
    ):
        power_curve(SILENT, CALIBRATION, seed=0, sizes=(500,))
    with pytest.raises(SetShapeError):
        power_curve(SILENT, CALIBRATION, seed=0, sizes=(0,))
    with pytest.raises(SetShapeError):
        power_curve(SILENT, CALIBRATION, seed=0, sizes=(2,), repetitions=0)
    with pytest.raises(TooFewDrawsError, match="at least 999 draws, found 99"):
        power_curve(SILENT, CALIBRATION, seed=0, draws=99)
    for measure in (
        lambda: power_curve(SILENT, CALIBRATION[:998], seed=0),
        lambda: false_alarm_table({"test": STRANGERS}, CALIBRATION[:998], seed=0),
        lambda: undeclared_test(SILENT[:50], CALIBRATION[:998], 0.001, 0, identities=DIGESTS[:50]),
    ):
        with pytest.raises(CalibrationTooSmallError, match="at least 999"):
            measure()
    with pytest.raises(EmptyCohortError):
        undeclared_test([], CALIBRATION, 0.001, 0, identities=[])
