"""The false-positive rate is what it says it is, and a broken one is found out."""

import numpy as np
import pytest
from scipy.stats import binomtest

from auditkit.mint.calibration import p_values
from auditkit.mint.errors import (
    CalibrationTooSmallError,
    EmptyCohortError,
    FalsePositiveRateError,
    PValueError,
)
from auditkit.mint.false_positives import false_positive_table
from auditkit.mint.metrics import rate


def test_the_table_counts_and_judges_every_kind_at_every_rate() -> None:
    kinds = {"fresh": np.arange(1, 1001) / 1000, "noise": np.full(1000, 0.005)}
    rows = false_positive_table(kinds, (0.01, 0.001))
    assert [(row.kind, row.false_positive_rate) for row in rows] == [
        ("fresh", 0.01),
        ("fresh", 0.001),
        ("noise", 0.01),
        ("noise", 0.001),
    ]
    assert [row.flagged for row in rows] == [rate(n, 1000) for n in (10, 1, 1000, 0)]
    assert [row.compatible for row in rows] == [True, True, False, True]
    assert rows[0].p_value == binomtest(10, 1000, 0.01, alternative="greater").pvalue


def test_true_rates_are_rarely_refuted_and_doubled_ones_are() -> None:
    generator = np.random.default_rng(0)
    honest = [generator.uniform(size=20_000) for _ in range(50)]
    rows = [false_positive_table({"honest": p}, (0.01, 0.001))[0] for p in honest]
    assert all(row.compatible for row in rows)
    doubled = false_positive_table({"doubled": honest[0] / 2.0}, (0.01, 0.001))
    assert not any(row.compatible for row in doubled)


def test_one_unlucky_calibration_is_not_taken_for_a_broken_rate() -> None:
    """|C| = 999: the rate at 0.1 % hangs on the largest calibration score alone."""
    generator = np.random.default_rng(1)
    naive, exact = [], []
    for _ in range(200):
        p = {"fresh": p_values(generator.normal(size=5_000), generator.normal(size=999))}
        naive.append(false_positive_table(p, (0.001,))[0].compatible)
        exact.append(false_positive_table(p, (0.001,), calibration_size=999)[0].p_value)
    assert np.mean(naive) < 0.95  # strangers do share C
    # The exact test's own p-values are super-uniform.
    for level in (0.001, 0.01, 0.1):
        below = int((np.array(exact) <= level).sum())
        assert binomtest(below, 200, level, alternative="greater").pvalue > 1e-5


def test_drift_is_found_although_the_calibration_is_shared() -> None:
    generator = np.random.default_rng(2)
    calibration = generator.normal(size=4_999)
    p = {"shifted": p_values(generator.normal(1.0, size=20_000), calibration)}
    assert not any(row.compatible for row in false_positive_table(p, (0.01, 0.001), 4_999))


def test_no_flag_is_always_compatible() -> None:
    for size in (None, 999):
        [row] = false_positive_table({"fresh": np.ones(10)}, (0.001,), size)
        assert (row.flagged.successes, row.p_value) == (0, 1.0)


def test_nonsense_is_refused() -> None:
    fresh = {"fresh": [0.5]}
    with pytest.raises(CalibrationTooSmallError, match="at least 999"):
        false_positive_table(fresh, (0.001,), calibration_size=998)
    with pytest.raises(FalsePositiveRateError):
        false_positive_table(fresh, (0.0,))
    with pytest.raises(EmptyCohortError):
        false_positive_table({}, (0.01,))
    with pytest.raises(EmptyCohortError, match="'none'"):
        false_positive_table({"none": []}, (0.01,))
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(PValueError, match="'fresh'"):
            false_positive_table({"fresh": [wrong]}, (0.01,))
