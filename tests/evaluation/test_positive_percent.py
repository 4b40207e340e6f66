"""The percent of positive cells, and its interval from blocks of tissue."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.evaluation import positive_percent
from hilum.evaluation.positive_percent import PositiveScore

SCORE = PositiveScore(("positive",), ("positive", "negative"))


def cells(rate, count, seed, *, spread=0.0):
    """Cells on 8 x 8 mm; the rate differs from block to block."""
    generator = np.random.default_rng(seed)
    places = generator.uniform(0, 8, (count, 2))
    of_block = np.clip(rate + spread * generator.standard_normal((8, 8)), 0, 1)
    chances = of_block[tuple(places.astype(int).T)]
    return places, ["positive" if one else "negative" for one in generator.random(count) < chances]


def test_the_percent_is_positive_cells_over_those_among_which_they_count():
    places = np.random.default_rng(0).uniform(0, 4, (200, 2))
    names = ["positive"] * 50 + ["negative"] * 150
    made = positive_percent.estimate_percent(places, names, SCORE)
    assert made.value == 25
    assert made.low < 25 < made.high
    assert made.n == 200


def test_a_combined_score_counts_cells_that_are_not_among_and_ends_at_100():
    combined = PositiveScore(("tumour +", "immune +"), ("tumour +", "tumour -"))
    names = ["tumour +"] * 60 + ["tumour -"] * 60 + ["immune +"] * 30
    places = np.random.default_rng(1).uniform(0, 4, (150, 2))
    assert positive_percent.estimate_percent(places, names, combined).value == 75
    many = [*names, *["immune +"] * 500]
    places = np.random.default_rng(1).uniform(0, 4, (650, 2))
    assert positive_percent.estimate_percent(places, many, combined).value == 100


def test_fewer_than_100_cells_have_no_score_and_the_reason_is_stated():
    made = positive_percent.estimate_percent(np.zeros((99, 2)), ["negative"] * 99, SCORE)
    assert np.isnan(made.value)
    assert "99 cells" in made.method


def test_one_block_has_a_score_and_no_interval():
    made = positive_percent.estimate_percent(np.full((120, 2), 0.5), ["positive"] * 30 + ["negative"] * 90, SCORE)
    assert (made.value, made.low) == (25, None)


@pytest.mark.parametrize("spread", [0.0, 0.1], ids=["alike", "unlike"])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(spread):
    held = []
    for seed in range(60):
        places, names = cells(0.4, 1500, seed, spread=spread)
        made = positive_percent.estimate_percent(places, names, SCORE, seed=seed)
        held.append(made.low <= 40 <= made.high)
        assert abs(made.value - 40) < 8
    assert 0.85 <= np.mean(held) <= 1


@pytest.mark.parametrize("stated", ["positive", {"positive": ["a"]}, {"positive": [], "among": ["a"]}])
def test_a_score_that_is_half_stated_is_refused(stated):
    with pytest.raises(ValueError, match="class"):
        positive_percent.read_score(stated)
