"""A linear model of covariates for each kind of answer, beside which a network with images is judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hilum.runtime import Context
from hilum.tasks import task_catalogue
from hilum.training import covariate_fitting
from hilum.values import Case

torch.set_num_threads(1)

CLASSES = {"classes": ["benign", "malignant"], "smoothing": 0.0}
SIZES = {"targets": ["size"], "mean": {"size": 10.0}, "deviation": {"size": 2.0}, "units": {"size": "mm"}}
AGE = Context.from_settings({"age": {"median": 0.0, "mean": 0.0, "deviation": 1.0, "missing": 0.0}})


def people(count: int = 60) -> list[Case]:
    """Their age makes class and size; of every fifth the size is not known, of every seventh other one the class."""
    random, made = np.random.default_rng(0), []
    for n in range(count):
        age = float(random.normal())
        known = {"class": CLASSES["classes"][int(age + random.normal() > 0)], "value": {"size": 10 + age}}
        known.pop("value" if n % 5 == 0 else "class" if n % 7 == 0 else "", None)
        made.append(Case(f"c{n}", f"p{n}", {}, known, {"age": age}))
    return made


def test_each_part_of_several_tasks_is_fitted_to_the_cases_that_have_its_references():
    parts = {"classification": CLASSES, "regression": SIZES}
    settings = {f"{part}.{name}": one for part, own in parts.items() for name, one in own.items()}
    both, cases = task_catalogue.build_task({"name": "classification+regression", **settings}), people()
    made = covariate_fitting.fit_covariate_model(both, AGE, cases[:40], cases[40:])
    for part, own in parts.items():
        alone = task_catalogue.build_task({"name": part, **own})
        known = [one for one in cases if alone.needs <= set(one.references)]
        train, val = ([one for one in some if one in known] for some in (cases[:40], cases[40:]))
        single = covariate_fitting.fit_covariate_model(alone, AGE, train, val)
        theirs, ours = single.predict(cases[0]), made.predict(cases[0]).parts[part]
        assert (ours.probabilities, ours.values) == (theirs.probabilities, theirs.values)
    table = made.task.score([made.predict(one) for one in cases], cases)
    assert table["label"].str.partition(":")[0].value_counts().to_dict() == {"regression": 48, "classification": 53}


def test_a_part_without_any_reference_leaves_nothing_to_fit():
    settings = {f"classification.{name}": one for name, one in CLASSES.items()}
    settings |= {f"regression.{name}": one for name, one in SIZES.items()}
    both = task_catalogue.build_task({"name": "classification+regression", **settings})
    assert (
        covariate_fitting.fit_covariate_model(both, AGE, [one for one in people() if "value" not in one.references], [])
        is None
    )


def test_a_task_with_an_answer_for_every_voxel_has_no_model_of_covariates():
    mask = task_catalogue.build_task(
        {"name": "segmentation", "labels": [{"value": 1, "name": "a"}], "loss": "ce", "tolerance": 2.0}
    )
    assert covariate_fitting.fit_covariate_model(mask, AGE, people(), []) is None


def ill_or_well(count: int = 200) -> list[Case]:
    """People of whom a tenth is ill, the more of them the higher their age."""
    rng = np.random.default_rng(0)
    ages = rng.normal(size=count)
    ill = rng.random(count) < 1 / (1 + np.exp(2.6 - ages))
    return [
        Case(f"c{n}", f"p{n}", {}, {"class": "malignant" if one else "benign"}, {"age": age})
        for n, (age, one) in enumerate(zip(ages.tolist(), ill, strict=True))
    ]


def test_its_probabilities_are_those_of_a_logistic_regression():
    cases = ill_or_well()
    made = covariate_fitting.fit_covariate_model(
        task_catalogue.build_task({"name": "classification", **CLASSES}), AGE, cases, ()
    )
    ours = np.array([made.predict(case).probabilities["malignant"] for case in cases])
    ages = np.array([[case.covariates["age"]] for case in cases])
    ill = np.array([case.references["class"] == "malignant" for case in cases])
    # Two outputs, whose halved difference is one weight: the penalty is half of scikit-learn's.
    theirs = LogisticRegression(C=2.0, tol=1e-8).fit(ages, ill).predict_proba(ages)[:, 1]
    assert 0.05 < ill.mean() < 0.15
    assert ours.mean() == pytest.approx(ill.mean(), abs=1e-3)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_cases_that_leave_before_the_first_event_change_no_weight_of_cox():
    random, settings = np.random.default_rng(0), {"horizons": [5.0], "scale": 10.0, "edges": [5.0], "followed": 20.0}
    settings["censoring"] = {"time": [1.0], "share": [0.5]}
    cox = task_catalogue.build_task({"name": "survival", "model": "cox", **settings})
    times = [*((n + 1.0, n % 2 == 0) for n in range(20)), *[(0.5, False)] * 100]
    ages = random.normal(size=len(times))
    cases = [Case(f"c{n}", f"p{n}", {}, {"event": one}, {"age": ages[n]}) for n, one in enumerate(times)]
    few, many = (
        covariate_fitting.fit_covariate_model(cox, AGE, some, []).weights["event"] for some in (cases[:20], cases)
    )
    assert many[1:] == pytest.approx(few[1:], abs=1e-4)
