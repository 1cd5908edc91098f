"""Derived numbers agree with brute force and with the protocol's definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from auditkit.reports import statistics

integers = st.lists(st.integers(-5, 5), min_size=1, max_size=40)


@given(members=integers, others=integers)
def test_each_point_of_the_roc_can_be_reached_by_a_threshold(members, others):
    members, others = np.asarray(members, float), np.asarray(others, float)
    false_rates, true_rates = statistics.roc_curve(members, others)
    assert false_rates[-1] == true_rates[-1] == 1.0
    assert (np.diff(true_rates) >= 0).all()
    for false_rate, true_rate in zip(false_rates, true_rates, strict=True):
        allowed = round(false_rate * len(others))
        candidates = [-math.inf, *members, *others]
        best = max(float((members > t).mean()) for t in candidates if (others > t).sum() <= allowed)
        assert true_rate == pytest.approx(best)


def test_a_roc_needs_both_sides():
    assert [len(a) for a in statistics.roc_curve(np.empty(0), np.ones(3))] == [0, 0]
    assert [len(a) for a in statistics.roc_curve(np.ones(3), np.empty(0))] == [0, 0]


def test_the_area_counts_ties_one_half():
    generator = np.random.default_rng(0)
    members, others = generator.integers(0, 6, 70), generator.integers(0, 5, 90)
    labels = np.r_[np.ones(70), np.zeros(90)]
    expected = roc_auc_score(labels, np.r_[members, others])
    assert statistics.area_under_curve(members, others) == pytest.approx(expected)
    assert statistics.area_under_curve(np.empty(0), others) is None


@given(calibration=integers, rate=st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.5, 0.99]))
def test_the_threshold_separates_exactly_the_small_p_values(calibration, rate):
    calibration = np.asarray(calibration, float)
    threshold = statistics.conformal_threshold(calibration, rate)
    for score in (-9.0, *np.unique(calibration), *(np.unique(calibration) + 0.5), 9.0):
        p_value = (1 + (calibration >= score).sum()) / (len(calibration) + 1)
        flagged = threshold is not None and score > threshold
        assert flagged == (p_value <= rate + 1e-12)


def test_predictive_value_is_bayes_rule():
    assert statistics.positive_predictive_value(0.01, 1.0, 0.01) == pytest.approx(0.5025, abs=1e-4)
    assert statistics.positive_predictive_value(0.5, 0.8, 0.0) == 1.0
    assert statistics.positive_predictive_value(0.5, 0.0, 0.0) is None


def test_bucket_means_keep_the_total_mean_of_equal_groups():
    values = np.arange(1200.0)
    means = statistics.bucket_means(values, 300)
    assert len(means) == 300
    assert means.mean() == pytest.approx(values.mean())
    np.testing.assert_array_equal(statistics.bucket_means(values[:7], 300), values[:7])
