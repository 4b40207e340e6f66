"""What tasks state for the mean of folds, each of which scored the cases that it had not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from isocenter import tasks
from isocenter.evaluation import class_scores, cross_interval, cross_sets
from isocenter.tasks import EACH
from isocenter.values import Case, Geometry, Prediction

GRID = Geometry((4, 4), np.eye(3))
CLASSES, FOLDS, KNOWN, NEW = ["a", "b", "c"], 3, 150, 400
KINDS = {
    "classes": {"name": "classification", "classes": CLASSES, "smoothing": 0.0},
    "grades": {"name": "classification", "classes": CLASSES, "smoothing": 0.0, "order": "cumulative"},
    "findings": {"name": "findings", "findings": CLASSES},
    **{
        noise: {"name": "regression", "targets": ["x"], "mean": {"x": 10.0}, "deviation": {"x": 2.0}, "noise": noise}
        for noise in ("none", "gaussian", "quantiles")
    },
}


def decoded(task, outputs: np.ndarray, each: np.ndarray | None = None) -> list[Prediction]:
    """outputs: (cases, channels); each: (folds, cases, channels)"""
    (head,) = task.heads
    arrays = [{head: one} for one in outputs]
    if each is not None:
        arrays = [{**one, f"{head}{EACH}": own.ravel()} for one, own in zip(arrays, each.swapaxes(0, 1), strict=True)]
    return [task.decoding.decode([((), one)], GRID) for one in arrays]


def drawn(kind: str, seed: int = 0) -> tuple[np.ndarray, list[Case]]:
    """(folds, cases, channels) outputs of networks that err each in its own way, and the cases with their truth."""
    random, task = np.random.default_rng(seed), tasks.build(KINDS[kind])
    (head,), (need,) = task.heads.values(), task.needs
    signal = random.normal(0, 1.5, (KNOWN + NEW, head.count))
    if kind in ("classes", "grades"):
        likely = task.decoding.probabilities({"class": signal.T})["class"].T
        numbers = (random.random((KNOWN + NEW, 1)) > np.cumsum(likely, axis=1)[:, :-1]).sum(axis=1)
        truths = [CLASSES[number] for number in numbers]
    elif kind == "findings":
        present = random.random(signal.shape) < 1 / (1 + np.exp(-signal))
        truths = [dict(zip(CLASSES, row.tolist(), strict=True)) for row in present]
    else:
        truths = [{"x": float(v)} for v in 10 + 2 * (signal[:, 0] + random.normal(size=KNOWN + NEW))]
    each = 2 * signal + random.normal(0, 0.7, (FOLDS, 1, head.count))
    return each, [Case(f"c{n}", f"p{n}", {}, {need: truth}) for n, truth in enumerate(truths)]


def crossed(kind: str, each: np.ndarray, cases: list[Case], **settings):
    """The task of the mean, and the outputs by the fold that has not seen a case."""
    task, folds = tasks.build({**KINDS[kind], **settings}), np.arange(KNOWN) % FOLDS
    predictions = decoded(task, each[folds, np.arange(KNOWN)])
    first, _ = task.scoring.assured(predictions, cases[:KNOWN], exact=False)
    return first.scoring.crossed(predictions, cases[:KNOWN], folds.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_folds_states_what_holds_at_least_two_coverages_less_one(kind):
    each, cases = drawn(kind)
    task, decisions = crossed(kind, each, cases)
    because = decisions["task.conformal"].because
    assert "mean of 3 folds" in because and "about 90 %" in because and "the 150 patients" in because
    again = tasks.build({"name": task.name, **task.settings})
    assert again == task and task.decoding.crossed == tuple(task.heads)
    stated = decoded(again, each[:, KNOWN:].mean(axis=0), each[:, KNOWN:])
    table = task.scoring.score(stated, cases[KNOWN:]).assign(split="test")
    held = [row.estimate.value for row in task.scoring.summary(table, seed=0) if row.metric == "coverage"]
    assert held and min(held) > 0.8
    alone = decoded(again, each[0, KNOWN:])
    assert [one.confidence for one in alone] != [one.confidence for one in stated]


@pytest.mark.parametrize("by", ["all", "class"])
def test_a_class_is_in_a_set_unless_too_many_cases_went_better_with_the_fold_that_had_not_seen_them(by):
    each, cases = drawn("classes", 1)
    task, _ = crossed("classes", each, cases, conformal_by=by)
    found = task.certainty.conformal
    assert set(found.crossed) == ({"all"} if by == "all" else set(CLASSES))
    likely = np.exp(each) / np.exp(each).sum(axis=2, keepdims=True)
    scores = np.stack([class_scores(one, "lac") for one in likely])
    for place, one in enumerate(decoded(task, each.mean(axis=0), each)[KNOWN:], start=KNOWN):
        expected = [
            name
            for number, name in enumerate(CLASSES)
            if cross_sets(found.steps(name, FOLDS), scores[:, place, [number]], 0.9)[0]
        ]
        assert list(one.confidence.set[""]) == expected


def test_a_class_or_a_finding_without_cases_stays_open():
    each, cases = drawn("classes", 2)
    cases = [replace(one, references={"class": "a" if one.references["class"] == "c" else "b"}) for one in cases]
    for by in ("all", "class"):
        task, _ = crossed("classes", each, cases, conformal_by=by)
        assert all("c" in one.confidence.set[""] for one in decoded(task, each.mean(axis=0), each))
    each, cases = drawn("findings", 2)
    cases = [replace(one, references={"findings": {"a": one.references["findings"]["a"]}}) for one in cases]
    task, _ = crossed("findings", each, cases)
    sets = [one.confidence.set for one in decoded(task, each.mean(axis=0), each)]
    assert {one["b"] for one in sets} == {("present", "absent")} and len({one["a"] for one in sets}) > 1


def test_an_interval_is_as_wide_as_the_errors_of_each_fold_in_its_own_error_bars():
    each, cases = drawn("gaussian", 3)
    task, _ = crossed("gaussian", each, cases, error_factor={"x": 3.0})
    (one,) = decoded(task, each.mean(axis=0)[-1:], each[:, -1:])
    said, bars = 10 + 2 * each[:, -1, 0], 2 * np.exp(0.5 * each[:, -1, 1])
    low, high = cross_interval(task.certainty.conformal.steps("x", FOLDS), said, said, bars, 0.9)
    assert (one.confidence.low["x"], one.confidence.high["x"]) == pytest.approx((low, high))


def test_sets_by_a_covariate_do_not_go_by_folds():
    each, cases = drawn("classes", 4)
    cases = [replace(one, covariates={"site": "north"}) for one in cases]
    task, decisions = crossed("classes", each, cases, conformal_by="site")
    assert not decisions and task.decoding.crossed == ()
