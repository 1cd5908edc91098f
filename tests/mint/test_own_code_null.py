"""The theorem behind own codes, attacked: outputs may depend on the sample in any way at all.

And its limit: a blind search compares with codes that training *did* use, so that a stranger who
resembles a member names that member, and no coin is flipped.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from auditkit.mint.calibration import p_values
from auditkit.mint.false_positives import false_positive_table
from auditkit.mint.sets import own_code_set_p_value

STRANGERS, BITS = 20_000, 64
Outputs = NDArray[np.float64]


def one_bit(generator: np.random.Generator) -> Outputs:
    outputs = np.full((STRANGERS, BITS), 1e-12)
    outputs[:, 0] = 1.0
    return outputs


def ten_bits(generator: np.random.Generator) -> Outputs:
    # Ten equal bits, the rest silent: z takes eleven values only.
    return np.repeat(np.arange(BITS) < 10, STRANGERS).reshape(BITS, STRANGERS).T * 1.0


def all_equal(generator: np.random.Generator) -> Outputs:
    return np.ones((STRANGERS, BITS))


def one_output_for_all(generator: np.random.Generator) -> Outputs:
    return np.tile(generator.normal(size=BITS), (STRANGERS, 1))


def halving(generator: np.random.Generator) -> Outputs:
    # Every code gives a different z: the null is nearly uniform on an interval.
    return np.tile(0.5 ** np.arange(BITS), (STRANGERS, 1))


def wildly_scaled(generator: np.random.Generator) -> Outputs:
    scales = 10.0 ** generator.uniform(-100, 100, size=(STRANGERS, 1))
    return generator.standard_cauchy((STRANGERS, BITS)) * scales


def echo_of_a_member(generator: np.random.Generator) -> Outputs:
    members = generator.choice((-1.0, 1.0), size=(50, BITS))
    return members[generator.integers(50, size=STRANGERS)]


ADVERSARIES = [
    one_bit,
    ten_bits,
    all_equal,
    one_output_for_all,
    halving,
    wildly_scaled,
    echo_of_a_member,
]


@pytest.mark.parametrize("adversary", ADVERSARIES)
@pytest.mark.parametrize("set_size", [1, 10])
def test_no_output_beats_a_code_that_it_has_not_seen(
    adversary: Callable[[np.random.Generator], Outputs], set_size: int
) -> None:
    generator = np.random.default_rng(7)
    outputs = adversary(generator)
    codes = generator.choice((-1.0, 1.0), size=outputs.shape)  # drawn last: independent
    sets = own_scores(outputs, codes).reshape(-1, set_size)
    p = [own_code_set_p_value(z) for z in sets]
    for row in false_positive_table({adversary.__name__: p}, (0.2, 0.01, 0.001, 0.0001)):
        assert row.compatible, row


def test_a_trained_code_is_what_own_codes_detect() -> None:
    generator = np.random.default_rng(8)
    codes = generator.choice((-1.0, 1.0), size=(200, BITS))
    told = codes + generator.normal(size=codes.shape)
    p = np.array([own_code_set_p_value([z]) for z in own_scores(told, codes)])
    assert (p <= 1e-3).mean() > 0.95


def test_blind_search_is_not_covered_by_the_bound_but_by_calibration() -> None:
    """One stranger in ten looks like a member, and T says what it learnt for that member."""
    generator = np.random.default_rng(9)
    members = generator.choice((-1.0, 1.0), size=(100, BITS))

    def blind(strangers: int) -> tuple[NDArray[np.float64], Outputs]:
        outputs = generator.normal(size=(strangers, BITS))
        alike = generator.random(strangers) < 0.1
        outputs[alike] = members[generator.integers(100, size=int(alike.sum()))]
        best = (outputs @ members.T).max(axis=1) / np.linalg.norm(outputs, axis=1)
        return best, outputs

    z, outputs = blind(5_000)
    corrected = np.minimum(1.0, len(members) * np.exp(-(z**2) / 2.0))
    [refuted] = false_positive_table({"blind, coin flips": corrected}, (0.001,))
    assert refuted.flagged.value == pytest.approx(0.1, abs=0.02)
    assert not refuted.compatible

    # The same outputs, each against its own unused code, keep the bound ...
    codes = generator.choice((-1.0, 1.0), size=outputs.shape)
    own = [own_code_set_p_value([value]) for value in own_scores(outputs, codes)]
    assert false_positive_table({"own": own}, (0.001,))[0].compatible
    # ... and the blind scores keep their rate against strangers of the same kind.
    calibrated = p_values(z, blind(999)[0])
    for row in false_positive_table({"blind, calibrated": calibrated}, (0.01, 0.001), 999):
        assert row.compatible, row


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_the_null_has_mean_zero_and_unit_variance(
    adversary: Callable[[np.random.Generator], Outputs],
) -> None:
    generator = np.random.default_rng(10)
    outputs = adversary(generator)
    z = own_scores(outputs, generator.choice((-1.0, 1.0), size=outputs.shape))
    assert abs(z.mean()) < 5.0 / np.sqrt(STRANGERS)
    assert (z**2).mean() == pytest.approx(1.0, abs=0.08)


def own_scores(outputs: Outputs, codes: Outputs) -> NDArray[np.float64]:
    norms = np.linalg.norm(outputs, axis=1)
    return np.asarray((outputs * codes).sum(axis=1) / norms)
