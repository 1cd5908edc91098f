"""Numbers keep the digits that matter and never look better than they are."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.reports import formatting
from schemas import RateEstimate

PLAIN_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def plain(text: str) -> str:
    return text.replace("\xa0", " ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.971, "97.1 %"),
        (0.9978, "99.78 %"),
        (0.0012, "0.12 %"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (None, formatting.ABSENT),
    ],
)
def test_percentages_gain_digits_near_the_ends(value, text):
    assert plain(formatting.percent(value)) == text


def test_intervals_have_the_digits_of_their_rate():
    rate = RateEstimate(successes=971, trials=1000, value=0.971, low=0.9587, high=0.9805)
    assert formatting.interval(rate) == "[95.9, 98.0]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (6 / 2001, "0.003"),
        (1 / 1000, "0.001"),
        (1 / 2001, "0.0005"),
        (0.4137931, "0.42"),
        (1e-7, "0.0000001"),
        (0.999, "1"),
        (9.1e-8, "9.1 × 10⁻⁸"),
        (1.21e-56, "1.3 × 10⁻⁵⁶"),
    ],
)
def test_p_values_are_plain_decimals_while_their_zeros_can_be_counted(value, text):
    assert formatting.p_value(value) == text


@given(st.floats(1e-300, 1.0, exclude_min=True))
def test_p_values_are_never_rounded_down(value):
    shown = float(formatting.p_value(value).translate(PLAIN_DIGITS).replace(" × 10", "e"))
    assert value * (1 - 1e-8) <= shown <= value * 1.11


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (60, "1 min"), (74.2, "1 min 14 s"), (7500, "2 h 5 min")],
)
def test_durations_are_in_the_units_people_use(seconds, text):
    assert plain(formatting.duration(seconds)) == text


def test_times_are_given_in_utc():
    local = datetime(2026, 3, 2, 1, 5, tzinfo=timezone(timedelta(hours=2)))
    assert plain(formatting.moment(local)) == "1 March 2026, 23:05 UTC"
    assert formatting.unix_moment(local.timestamp()) == formatting.moment(local.astimezone(UTC))
    assert formatting.unix_moment(1e30) == "a time outside the calendar"


def test_nominal_rates_are_never_rounded():
    assert plain(formatting.nominal_percent(0.001)) == "0.1 %"
    assert plain(formatting.nominal_percent(0.0125)) == "1.25 %"
