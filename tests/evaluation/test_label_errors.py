from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from hilum.evaluation import label_errors
from hilum.lazy import optimize


def of_two(rng: np.random.Generator, apart: float, cases: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by the law of two classes so many standard deviations apart, and their classes."""
    truth = rng.integers(2, size=cases)
    odds = apart * (rng.normal(size=cases) + apart * truth) - apart**2 / 2
    return np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1), truth


def test_planted_label_errors_are_found_and_few_others():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=600)
    logits = rng.normal(0, 1, (600, 3)) + 6 * np.eye(3)[truth]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels, wrong = truth.copy(), rng.random(600) < 0.08
    labels[wrong] = (labels[wrong] + 1) % 3
    found = label_errors.probable_label_errors(chances, labels)
    assert (found[wrong] == truth[wrong]).mean() > 0.85
    assert (found[~wrong] >= 0).mean() < 0.03


def test_a_model_that_is_too_sure_of_itself_names_no_more():
    chances, truth = of_two(np.random.default_rng(1), 1.5)
    sure = chances**4 / (chances**4).sum(axis=1, keepdims=True)
    assert (
        (label_errors.probable_label_errors(chances, truth) >= 0).sum()
        == (label_errors.probable_label_errors(sure, truth) >= 0).sum()
        == 0
    )


def test_findings_that_were_missed_are_found_though_none_was_called_present_wrongly():
    rng = np.random.default_rng(2)
    chances, truth = of_two(rng, 4.5, cases=1000)
    labels = np.where(rng.random(1000) < 0.1, 0, truth)
    missed = labels != truth
    found = label_errors.probable_label_errors(chances, labels)
    assert (found[missed] == 1).mean() > 0.7
    assert (found[~missed] >= 0).sum() <= 0.2 * (found >= 0).sum()


def test_the_share_of_false_ones_that_is_allowed_decides_how_many_are_named():
    rng = np.random.default_rng(3)
    chances, truth = of_two(rng, 3.0)
    labels = np.where(rng.random(400) < 0.05, 1 - truth, truth)
    few, more = (label_errors.probable_label_errors(chances, labels, false=false) >= 0 for false in (0.05, 0.3))
    assert few.sum() < more.sum() and not (few & ~more).any()


def test_a_class_that_nobody_is_labelled_as_is_never_suspected_nor_are_cases_that_are_probably_of_it():
    chances = np.array([[0.98, 0.02, 0.0], [0.02, 0.98, 0.0]] * 100 + [[0.0, 0.01, 0.99]])
    labels = [0, 1] * 100 + [0]
    assert (label_errors.probable_label_errors(chances, labels) == -1).all()
    chances[-1] = [0.0, 1.0, 0.0]
    assert np.flatnonzero(label_errors.probable_label_errors(chances, labels) + 1).tolist() == [200]


def test_the_share_of_wrong_labels_is_found_with_an_interval_that_holds_it():
    rng = np.random.default_rng(6)
    chances, truth = of_two(rng, 3.5, cases=800)
    people = [f"p{n}" for n in range(800)]
    for share in (0.0, 0.06):
        labels = np.where(rng.random(800) < share, 1 - truth, truth)
        found = label_errors.wrong_share(chances, labels, people, seed=0)
        assert found.low <= (labels != truth).mean() <= found.high
        assert abs(found.value - share) < 0.02 and found.patients == 800


def test_the_most_doubtful_labels_are_the_wrong_ones():
    rng = np.random.default_rng(5)
    chances, truth = of_two(rng, 4.0)
    wrong = rng.random(400) < 0.05
    doubts = label_errors.label_doubts(chances, np.where(wrong, 1 - truth, truth))
    assert wrong[np.argsort(-doubts)[:40]].sum() >= 0.9 * wrong.sum()


@pytest.mark.parametrize("labels", [[], [0, 0, 0]])
def test_labels_of_one_class_show_nothing(labels):
    assert label_errors.probable_label_errors(np.full((len(labels), 2), 0.5), labels).tolist() == [-1] * len(labels)


def test_the_slope_of_the_fit_is_that_of_its_loss(monkeypatch):
    rng = np.random.default_rng(0)
    tried = []

    def looked(loss, start, **_):
        at = np.array([0.3, -0.5, 0.2, 0.1, 0.05, 0.2])
        tried.append(check_grad(lambda one: loss(one)[0], lambda one: loss(one)[1], at))
        return optimize.OptimizeResult(fun=0.0, x=start)

    monkeypatch.setattr(label_errors, "optimize", type("Looking", (), {"minimize": staticmethod(looked)}))
    label_errors._fit_numbers(np.log(rng.dirichlet(np.ones(3), 50)), rng.integers(3, size=50), np.zeros(6), 0.4)
    assert tried[0] < 1e-4
