"""An attack by losses finds who trained a model where their losses are smaller, and nobody where they are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hilum
from hilum.errors import UsageError
from hilum.evaluation import membership


def figures(losses, trained) -> dict[str, tuple[float, float, float]]:
    people = [f"p{n}" for n in range(len(losses))]
    rows = membership.membership_rows(losses, trained, people, seed=0)
    return {row.metric: (row.estimate.value, row.estimate.low, row.estimate.high) for row in rows}


def test_losses_that_are_all_smaller_tell_everybody_and_equal_ones_nobody():
    trained = np.repeat([True, False], 200)
    assert figures(np.where(trained, 0.1, 0.2), trained)["membership_auc"][0] == 1.0
    assert figures(np.where(trained, 0.1, 0.2), trained)["membership_tpr"][0] == 1.0
    assert figures(np.full(400, 0.1), trained)["membership_auc"][0] == 0.5
    assert figures(np.full(400, 0.1), trained)["membership_tpr"][0] == 0.0


def test_one_false_alarm_in_a_hundred_is_allowed_and_a_second_is_not():
    """Of 100 others one has the smallest loss, one the sixth: 4 of 10 who trained lie before the second."""
    losses = np.array([1, 2, 3, 4, *range(20, 26), 0, 5, *range(30, 128)], dtype=float)
    trained = np.repeat([True, False], [10, 100])
    assert figures(losses, trained)["membership_tpr"][0] == pytest.approx(0.4)


def test_the_interval_holds_the_share_of_pairs_of_two_normal_losses():
    """AUC of losses one deviation apart: Phi(1 / sqrt 2) = .760."""
    rng = np.random.default_rng(0)
    trained = np.repeat([True, False], 400)
    value, low, high = figures(rng.normal(size=800) - trained, trained)["membership_auc"]
    assert low < 0.760 < high
    assert value == pytest.approx(0.760, abs=0.04)


def test_a_run_is_attacked_on_its_own_training_and_test_cases(classified):
    result = hilum.evaluate(classified.out, classified.data, membership=True, device="cpu", threads=1)
    rows = {row.metric: row.estimate for row in result.rows}
    assert 0.0 <= rows["membership_auc"].value <= 1.0
    parts = pd.read_csv(classified.out / "split.csv")["split"].value_counts()
    assert rows["membership_auc"].n == rows["membership_tpr"].n == parts["train"] + parts["test"]
    assert "AUC of the attack by losses" in repr(result)


def test_cases_that_trained_are_not_attacked_against_themselves(classified):
    with pytest.raises(UsageError, match="training and test cases"):
        hilum.evaluate(classified.out, classified.data, membership=True, split="train", device="cpu")
