from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.tasks import task_catalogue
from hilum.training import member_weighting
from hilum.training.member_weighting import FEWEST_PATIENTS, PARTS, MemberOutputs

torch.set_num_threads(1)

TASK = task_catalogue.build_task({"name": "classification", "classes": ["A", "B"], "smoothing": 0.0})


def answers(
    probabilities: Sequence[np.ndarray], truth: np.ndarray, patients: Sequence[str] | None = None
) -> MemberOutputs:
    """Members that say so of class B, (cases,) each, judged by the log loss."""
    outputs = [{"class": np.log(np.stack([1 - one, one], axis=1))} for one in probabilities]
    return MemberOutputs(outputs, truth, patients or [f"p{n}" for n in range(len(truth))], TASK, judged)


def judged(outputs: Mapping[str, torch.Tensor], targets: Any) -> torch.Tensor:
    return TASK.loss(outputs, targets)


def simulated(seed: int, cases: int = 40, members: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    """One member that mostly knows, others that guess."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, cases)
    good = np.clip(np.abs(truth - rng.uniform(0.02, 0.4, cases)), 0.01, 0.99)
    return [good, *(rng.uniform(0.05, 0.95, cases) for _ in range(members - 1))], truth


@settings(max_examples=8)
@given(st.integers(1, 19))
def test_of_two_members_that_always_say_one_class_each_the_shares_are_those_of_the_classes(count):
    truth = np.array([1] * count + [0] * (20 - count))
    says_b, says_a = np.full(20, 1 - 1e-6), np.full(20, 1e-6)
    # count log w + (20 - count) log (1 - w) is largest at w = count / 20.
    assert_allclose(
        member_weighting.fit_shares(answers([says_b, says_a], truth), np.arange(20)),
        [count / 20, 1 - count / 20],
        atol=0.01,
    )


@settings(max_examples=8)
@given(st.integers(0, 50), st.integers(2, 5))
def test_weights_are_not_negative_are_one_together_and_say_why(seed, members):
    made = member_weighting.lowest_loss_weights(answers(*simulated(seed, members=members)), seed=0)
    assert min(made.shares) >= 0
    assert sum(made.shares) == pytest.approx(1)
    assert "40 validation cases in" in made.because
    if made.is_fitted:
        assert made.shares[0] == max(made.shares)
        assert made.gain is not None
        assert made.gain.low is not None
        assert made.gain.low > 0


@settings(max_examples=8)
@given(st.integers(0, 50))
def test_members_that_are_alike_count_alike_because_the_gain_is_within_chance(seed):
    (_, one, _), truth = simulated(seed)
    made = member_weighting.lowest_loss_weights(answers([one, one], truth), seed=0)
    assert made.shares == (0.5, 0.5)
    assert not made.is_fitted
    assert "gain nothing sure" in made.because


@settings(max_examples=8)
@given(st.integers(0, 30), st.integers(0, 39))
def test_no_case_has_a_say_in_the_weights_by_which_thresholds_are_tuned_on_it(seed, changed):
    """Whatever a case and what is said of it become, its own weights stay to the last bit."""
    probabilities, truth = simulated(seed)
    patients = [f"p{n // 2}" for n in range(40)]
    parts = member_weighting.deal_patients(patients, 0)
    without = np.flatnonzero(parts != parts[changed])
    before = member_weighting.fit_shares(answers(probabilities, truth, patients), without)
    for case in (changed, changed ^ 1):  # and the other case of the same patient
        truth[case] = 1 - truth[case]
        for one in probabilities:
            one[case] = 0.5
    assert member_weighting.fit_shares(answers(probabilities, truth, patients), without) == before


def test_each_case_is_tuned_on_with_the_weights_of_its_part_and_the_ensemble_has_their_mean():
    probabilities, truth = simulated(1)
    outputs = answers(probabilities, truth)
    made, parts = (
        member_weighting.lowest_loss_weights(outputs, seed=0),
        member_weighting.deal_patients(outputs.patients, 0),
    )
    assert made.is_fitted
    assert made.of_case is not None
    each = [member_weighting.fit_shares(outputs, np.flatnonzero(parts != part)) for part in range(PARTS)]
    assert [each[part] for part in parts] == list(made.of_case)
    mean = np.mean(each, axis=0)
    mean[mean < 0.01] = 0
    assert_allclose(made.shares, mean / mean.sum())


@given(st.lists(st.integers(0, 15), min_size=16, max_size=60), st.integers(0, 5))
def test_all_cases_of_a_patient_lie_in_one_part(owners, seed):
    parts = member_weighting.deal_patients([f"p{owner}" for owner in owners], seed)
    by_owner = {owner: parts[place] for place, owner in enumerate(owners)}
    assert_array_equal(parts, [by_owner[owner] for owner in owners])
    assert set(parts) <= set(range(PARTS))


def test_too_few_patients_cannot_tell_members_apart_however_many_cases_they_have():
    probabilities, truth = simulated(0)
    made = member_weighting.lowest_loss_weights(
        answers(probabilities, truth, [f"p{n % (FEWEST_PATIENTS - 1)}" for n in range(40)]), seed=0
    )
    assert made.shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert "of 9 patients cannot tell members apart" in made.because


def test_a_loss_that_says_nothing_of_a_single_case_leaves_members_equal():
    probabilities, truth = simulated(0)
    silent = replace(answers(probabilities, truth), judge=lambda outputs, targets: outputs["class"].sum() * 0)
    assert "gain nothing sure" in member_weighting.lowest_loss_weights(silent, seed=0).because
    broken = replace(silent, judge=lambda outputs, targets: outputs["class"].sum() * float("nan"))
    assert "is not a number" in member_weighting.lowest_loss_weights(broken, seed=0).because


def test_a_member_that_adds_nothing_is_left_out():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    sure = rng.uniform(0.8, 0.95, 60)
    right, wrong = np.where(truth, sure, 1 - sure), np.where(truth, 0.01, 0.99)
    assert member_weighting.lowest_loss_weights(answers([right, wrong], truth), seed=0).shares == (1.0, 0.0)


def test_where_classes_were_sampled_alike_members_are_judged_by_the_shares_that_the_cases_have():
    rng, counts = np.random.default_rng(0), {"A": 950, "B": 50}
    truth = (rng.random(600) < 0.05).astype(int)
    sharp, dull = (rng.normal(size=600) + np.where(truth, away, -away) for away in (1.0, 0.3))
    # The logarithms of how much likelier the one is than the other, of which the second is as if few were ill.
    outputs = [{"class": np.stack([np.zeros(600), one], axis=1)} for one in (2 * sharp, 0.6 * dull - 3)]
    settings = {"name": "classification", "classes": list(counts), "smoothing": 0.0, "counts": counts}
    natural = task_catalogue.build_task(settings)
    task = task_catalogue.build_task({**settings, "prior_shift": natural.under("balanced")["task.prior_shift"].value})
    people = [f"p{n}" for n in range(600)]
    by_sampling, as_they_come = (
        member_weighting.lowest_loss_weights(
            MemberOutputs(outputs, truth, people, one, partial(member_weighting.loss_of_cases, one, None, [])), seed=0
        )
        for one in (natural, task)
    )
    assert by_sampling.shares[1] > 0.5
    assert as_they_come.is_fitted
    assert as_they_come.shares[0] > 0.9
