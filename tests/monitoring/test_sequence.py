"""Confidence sequences: intervals that hold at every look."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special

from hilum.errors import UsageError
from hilum.monitoring import confidence_sequences


@pytest.mark.parametrize(("total", "variance"), [(0.0, 0.0), (1.0, 2.0), (20.0, 30.0), (-3.0, 4.0)])
def test_the_mixture_is_the_mean_of_bets_under_a_gamma_density_that_is_cut_off(total, variance):
    """By quadrature of Howard et al., arXiv:1810.08240, proposition 9."""
    rho = confidence_sequences._rho()
    scale = rho**rho / (special.gamma(rho) * special.gammainc(rho, rho))

    def bet(x: float) -> float:
        return scale * (1 - x) ** (rho - 1) * np.exp(-rho * (1 - x) + x * total + (np.log1p(-x) + x) * variance)

    assert confidence_sequences.log_mixture(np.array(total), np.array(variance)) == pytest.approx(
        np.log(integrate.quad(bet, 0, 1)[0])
    )


@pytest.mark.parametrize(("rate", "cases"), [(0.5, 200), (0.03, 300)])
def test_the_mean_leaves_the_sequence_at_any_look_in_at_most_one_stream_of_twenty(rate, cases):
    """Of 100 streams at most 5 are expected to; the chance of more than 11 is .004."""
    random, left = np.random.default_rng(7), 0
    for _ in range(100):
        low, high = confidence_sequences.confidence_sequence((random.random(cases) < rate).astype(float))
        left += bool((low > rate).any() or (high < rate).any())
    assert left <= 11


def test_the_sequence_narrows_and_a_range_of_another_place_and_length_gives_the_same():
    low, high = confidence_sequences.confidence_sequence(np.zeros(1000))
    assert high[99] == pytest.approx(0.055, abs=0.001) and (low == 0).all()
    values = np.random.default_rng(1).random(50)
    low, high = confidence_sequences.confidence_sequence(values)
    moved = confidence_sequences.confidence_sequence(4 * values - 2, least=-2, most=2)
    assert np.allclose([4 * low - 2, 4 * high - 2], moved)


def test_the_difference_of_two_arms_is_certain_only_once_both_have_cases():
    random = np.random.default_rng(3)
    new, old = (random.random(1500) < 0.7).astype(float), (random.random(1500) < 0.5).astype(float)
    found = confidence_sequences.followed_difference(new, old)
    assert found.low is not None and 0 < found.low < found.value < found.high
    assert (
        confidence_sequences.followed_difference(new, []).low is None and confidence_sequences.followed_mean([]).n == 0
    )


@pytest.mark.parametrize("values", [[0.5, 1.5], [np.nan], [[0.5]]])
def test_values_outside_the_range_are_refused(values):
    with pytest.raises(UsageError, match="not all within 0 and 1"):
        confidence_sequences.confidence_sequence(values)
