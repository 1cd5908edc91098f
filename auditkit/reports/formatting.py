"""Numbers and times as people read them."""

from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal

from schemas import RateEstimate

NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
LEAST_WRITTEN_OUT = Decimal("1e-7")
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def integer(value: int) -> str:
    """Return an integer with thousands separators: `12,500`."""
    return f"{value:,}"


def decimal(value: float | None) -> str:
    """Return a number with three significant digits, without an exponent where it is readable."""
    if value is None:
        return ABSENT
    return f"{value:.3g}".replace("-", MINUS)


def percent(value: float | None) -> str:
    """Return a fraction as a percentage, with more digits where it comes close to 0 or 1."""
    if value is None:
        return ABSENT
    return f"{_hundredfold(value, _decimals(value))}{NO_BREAK_SPACE}%"


def nominal_percent(value: float) -> str:
    """Return a chosen rate exactly: `0.1 %`, never rounded."""
    return f"{100 * value:.10g}{NO_BREAK_SPACE}%"


def interval(rate: RateEstimate) -> str:
    """Return the exact interval of a rate: `[96.4, 97.7]`, in percent."""
    decimals = _decimals(rate.value)
    return f"[{_hundredfold(rate.low, decimals)}, {_hundredfold(rate.high, decimals)}]"


def p_value(value: float) -> str:
    """Return a p-value with two significant digits, never rounded down.

    Without an exponent, as long as the zeros can be counted: `0.0013`, and `2.3 × 10⁻⁵⁶`.
    """
    exact = Decimal(repr(value))
    if exact >= 1:
        return "1"
    quantum = Decimal(1).scaleb(exact.adjusted() - 1)
    # A ratio such as 1/1000 may lie one unit in the last place above itself: not a rounding up.
    rounded = (exact * Decimal("0.999999999")).quantize(quantum, rounding=ROUND_CEILING)
    if rounded >= LEAST_WRITTEN_OUT:
        return f"{rounded.normalize():f}"
    exponent = rounded.adjusted()
    power = str(exponent).translate(SUPERSCRIPT)
    return f"{rounded.scaleb(-exponent).normalize():f} × 10{power}"


def day(value: datetime) -> str:
    """Return a date in UTC: `21 November 2026`."""
    utc = value.astimezone(UTC)
    return f"{utc.day}{NO_BREAK_SPACE}{_MONTHS[utc.month - 1]} {utc.year}"


def moment(value: datetime) -> str:
    """Return a point in time in UTC: `21 November 2026, 14:05 UTC`."""
    return f"{day(value)}, {value.astimezone(UTC):%H:%M}{NO_BREAK_SPACE}UTC"


def unix_moment(seconds: float) -> str:
    """Return a Unix time in seconds as `moment` does, or say that no calendar holds it."""
    try:
        return moment(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return "a time outside the calendar"


def duration(seconds: float) -> str:
    """Return a time span in hours, minutes and seconds: `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f}{NO_BREAK_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    units = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n}{NO_BREAK_SPACE}{unit}" for n, unit in units if n)


def count_of(number: int, singular: str, plural: str | None = None) -> str:
    """Return `1 check` or `3 checks`."""
    noun = singular if number == 1 else (plural or f"{singular}s")
    return f"{integer(number)} {noun}"


def _decimals(value: float) -> int:
    return 1 if 0.01 <= value <= 0.99 else 2


def _hundredfold(value: float, decimals: int) -> str:
    if value in (0.0, 1.0):
        return f"{100 * value:.0f}"
    return f"{100 * value:.{decimals}f}"


_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
