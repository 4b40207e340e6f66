"""A linear layer whose calls are as right in every group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fairlearn.metrics import equalized_odds_difference
from fairlearn.reductions import EqualizedOdds, ExponentiatedGradient
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from hilum.training import _constrained_layer
from hilum.training._constrained_layer import KnownAnswers
from matrices import rarely


def people(count: int = 1500):
    """Two signs of a disease: one that most people have, and one that holds for a small group only."""
    random = np.random.default_rng(0)
    group, ill = (random.random(count) < 0.2).astype(np.intp), random.random(count) < 0.5
    sign = 2.0 * ill - 1
    columns = np.stack([np.where(group == 0, sign, -0.3 * sign), 0.6 * sign, group - 0.5], axis=1)
    return columns + random.normal(size=(count, 3)) * [0.8, 1.0, 0.1], ill.astype(np.intp), group


def odds(calls: np.ndarray, ill: np.ndarray, group: np.ndarray) -> float:
    return float(equalized_odds_difference(ill, calls, sensitive_features=group))


def test_what_an_answer_is_worth_is_the_slope_of_accuracy_and_prices():
    truth, groups = np.array([[0.0], [0.0], [0.0], [1.0]]), np.array([0, 0, 1, 0])
    answered = KnownAnswers.from_truth(truth, groups, classes=True)
    prices = np.array([0.3, 0.1, 0.0])  # of (0, group 0), (0, group 1), (1, group 0)
    # Each right call counts 1/4; in group 0 a right call of class 0 raises its share by 1/2, and that of all by 1/3.
    slopes = np.array([0.25 - 0.3 / 2 + 0.4 / 3, 0.25 - 0.3 / 2 + 0.4 / 3, 0.25 - 0.1 + 0.4 / 3, 0.25])
    assert_allclose(answered.worth(prices), 4 * slopes)
    apart = answered.apart(torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]))
    assert_allclose(apart, [1 / 2 - 2 / 3, 1 - 2 / 3, 0])


@pytest.mark.parametrize("classes", [rarely(True), False])
@pytest.mark.whole
def test_groups_come_as_near_as_with_the_random_classifiers_of_fairlearn_and_the_layer_is_the_same_each_time(classes):
    columns, ill, group = people()
    plain = LogisticRegression().fit(columns, ill)
    own = np.concatenate([plain.coef_, plain.intercept_[:, None]], axis=1)
    start = torch.as_tensor(np.concatenate([-own, own]) / 2 if classes else own)
    answered = KnownAnswers.from_truth(ill[:, None].astype(float), group, classes=classes)
    given = (torch.as_tensor(columns), start, answered, torch.zeros(len(start)))
    made = _constrained_layer.constrained_weights(*given)
    assert torch.equal(made, _constrained_layer.constrained_weights(*given))
    logits = np.concatenate([columns, np.ones((len(ill), 1))], axis=1) @ made.numpy().T
    calls = logits.argmax(axis=1) if classes else (logits[:, 0] > 0).astype(int)
    theirs = ExponentiatedGradient(LogisticRegression(), EqualizedOdds(), max_iter=20)
    theirs.fit(columns, ill, sensitive_features=group)
    predicted = theirs.predict(columns, random_state=0)
    before, after = (odds(one, ill, group) for one in (plain.predict(columns), calls))
    assert after < before / 5 and odds(predicted, ill, group) < before / 5
    assert (calls == ill).mean() > (predicted == ill).mean() - 0.03
