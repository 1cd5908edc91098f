"""What a calibrated false-positive rate means: for one C, and for pictures that are alike.

    python benchmarks/calibrated_rates.py

A rank in C holds its rate on average over the sets that could have been drawn as C. With one C the
share of strangers above the k-th largest of its n scores is Beta(k, n + 1 - k) (Bates et al.,
Annals of Statistics 2023). And the test of a set against C is for pictures that have no more to do
with one another than those of C have: scores of strangers are drawn here that correlate within a
set, as those of several shots of one scene may. Normal scores; nothing is trained. No time is
measured, so the machine does not matter. Printed on 2026-11-22 (numpy 2.4.6, scipy 1.17.1, seed 0):

    | samples in C | announced % | 95 % of the sets C lie from | to |
    |---|---|---|---|
    | 99 | 1 | 0.026 | 3.7 |
    | 999 | 0.1 | 0.0025 | 0.37 |
    | 5,000 | 1 | 0.74 | 1.3 |
    | 5,000 | 0.1 | 0.032 | 0.2 |

    | correlation within sets of 10 strangers | alarms %, announced 1% |
    |---|---|
    | 0 | 0.9 |
    | 0.3 | 12.9 |
    | 0.9 | 26.8 |
"""

import numpy as np
from scipy.stats import beta

from auditkit.mint.batches import BatchItem, judge
from auditkit.mint.calibration import p_values

ONE_C = ((99, 0.01), (999, 0.001), (5_000, 0.01), (5_000, 0.001))
CORRELATIONS = (0.0, 0.3, 0.9)
CALIBRATION, SET_SIZE, RATE, REPETITIONS = 4_999, 10, 0.01, 1_000


def rates_of_one_c() -> None:
    """Print where the rate behind an announced one lies, for sets C of several sizes."""
    print("| samples in C | announced % | 95 % of the sets C lie from | to |")
    print("|---|---|---|---|")
    for size, rate in ONE_C:
        rank = int(rate * (size + 1) + 1e-9)
        low, high = beta.ppf((0.025, 0.975), rank, size + 1 - rank)
        print(f"| {size:,} | {100 * rate:g} | {100 * low:.2g} | {100 * high:.2g} |")


def alarms_of_sets(correlation: float, random: np.random.Generator) -> float:
    """Return the share of sets of strangers that the test against C calls told."""
    alarms = 0
    for repetition in range(REPETITIONS):
        calibration = random.normal(size=CALIBRATION)
        common, own = random.normal(), random.normal(size=SET_SIZE)
        scores = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        items = [
            BatchItem(f"{repetition}-{place}", "calibrated", float(score), float(p_value))
            for place, (score, p_value) in enumerate(
                zip(scores, p_values(scores, calibration), strict=True)
            )
        ]
        (found,) = judge(items, calibration, RATE).sets
        alarms += found.outcome == "member"
    return alarms / REPETITIONS


def main() -> None:
    """Print both tables."""
    rates_of_one_c()
    print(f"\n| correlation within sets of {SET_SIZE} strangers | alarms %, announced {RATE:.0%} |")
    print("|---|---|")
    random = np.random.default_rng(0)
    for correlation in CORRELATIONS:
        print(f"| {correlation:g} | {100 * alarms_of_sets(correlation, random):.1f} |")


if __name__ == "__main__":
    main()
