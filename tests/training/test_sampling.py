"""Cases sampled by what they cost: hard ones come oftener, and a run that was stopped samples the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hilum
import trained
from hilum.errors import PlanError
from hilum.training.data.batch_loading import AHEAD
from hilum.training.data.case_sampling import PRESSURE, LastLosses, Sampling
from hilum.training.step import batch_loss

CASES, BATCH = 20, 4


def sampling(costs: LastLosses, seed: int = 3) -> Sampling:
    return Sampling("by_loss", seed, [np.zeros(())] * costs.cases, costs)


def cases_of(made: Sampling, step: int, batch: int = BATCH) -> list[int]:
    return [made(step * batch + n)[0] for n in range(batch)]


def cost(case: int) -> float:
    """The higher the number, the harder the case."""
    return 1.0 + case


def test_the_hardest_case_comes_ten_times_as_often_as_the_easiest_and_none_is_forgotten():
    costs = LastLosses(CASES, BATCH, AHEAD)
    made, seen = sampling(costs), Counter()
    for step in range(5 * 200):
        cases = cases_of(made, step)
        if step >= 2 * CASES // BATCH:
            seen.update(cases)
        costs.add(step, cases, [cost(case) for case in cases])
    often = [seen[case] for case in range(CASES)]
    assert often[-1] / often[0] == pytest.approx(PRESSURE, rel=0.3)
    assert min(often) > 0
    assert np.corrcoef(np.log(often), np.arange(CASES))[0, 1] > 0.97


def test_before_anything_is_known_every_case_comes_once():
    made = sampling(LastLosses(CASES, BATCH, AHEAD))
    first = [made(number)[0] for number in range(CASES)]
    assert sorted(first) == list(range(CASES))
    assert max(Counter(made(number)[0] for number in range(CASES, 2 * CASES)).values()) <= 3


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 40), st.integers(0, 5))
def test_what_is_sampled_depends_neither_on_how_far_ahead_it_was_sampled_nor_on_a_stop(count, batch, stop, seed):
    def trained_on(ahead: int, stop: int | None) -> list[list[int]]:
        costs = LastLosses(count, batch, AHEAD)
        made, waiting, found = sampling(costs, seed), [], []
        for step in range(45):
            while len(waiting) < ahead + 1:
                waiting.append(cases_of(made, step + len(waiting), batch))
            cases = waiting.pop(0)
            costs.add(step, cases, [cost(case) + step % 3 for case in cases])
            found.append(cases)
            if step == stop:  # a run that goes on has what was recorded, and nothing made ahead
                costs, waiting = LastLosses(count, batch, AHEAD, [tuple(one) for one in costs.known]), []
                made = sampling(costs, seed)
        assert len(costs.known) <= 3 * count + (AHEAD + 2) * batch
        return found

    assert trained_on(AHEAD, None) == trained_on(0, None) == trained_on(AHEAD, stop)


def test_a_loss_that_is_no_number_says_nothing_of_its_case():
    costs = LastLosses(2, 1, 0)
    costs.add(0, [0], [float("nan")])
    costs.add(0, [1], [1.0])
    assert costs.known == [(0, 1, 1.0)]


def test_each_sample_is_judged_alone():
    predicted, truth = torch.tensor([[1.0], [4.0], [2.0]]), torch.tensor([[1.0], [1.0], [0.0]])
    found = batch_loss.losses_by_sample(
        lambda outputs, targets: (outputs["x"] - targets).abs().mean(), {"x": predicted}, truth
    )
    assert found == [0.0, 3.0, 2.0]


def test_classes_are_not_sampled_by_loss_because_nobody_would_know_their_shares(tmp_path):
    with pytest.raises(PlanError, match=r"task\.loss=hardest"):
        hilum.plan(
            trained.pictures(tmp_path / "data"), device="cpu", threads=1, assignments={"training.sampling": "by_loss"}
        )
