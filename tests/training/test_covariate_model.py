"""Linear models of covariates alone, beside which a network with images is judged."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from isocenter.runtime import Context
from isocenter.tasks import Task, build
from isocenter.training import fit_covariate_model
from isocenter.values import Case

CONTEXT = Context.of({"marker": {"median": 0.0, "mean": 0.0, "deviation": 1.0, "missing": 0.0}})


def cohort(count: int = 200) -> list[Case]:
    """People of whom a tenth is ill, the more of them the higher their marker."""
    rng = np.random.default_rng(0)
    markers = rng.normal(size=count)
    ill = rng.random(count) < 1 / (1 + np.exp(2.6 - markers))
    return [
        Case(f"c{n}", f"p{n}", {}, {"class": "ill" if one else "well"}, {"marker": marker})
        for n, (marker, one) in enumerate(zip(markers.tolist(), ill, strict=True))
    ]


def task_of(cases: list[Case], sampling: str) -> Task:
    classes = [case.references["class"] for case in cases]
    counts = {name: classes.count(name) for name in ("well", "ill")}
    settings = {"name": "classification", "classes": ["well", "ill"], "smoothing": 0.0, "counts": counts}
    shift = build(settings).under(sampling)["task.prior_shift"].value
    return build({**settings, "prior_shift": shift})


@pytest.mark.parametrize("sampling", ["natural", "balanced", "square_root"])
def test_its_probabilities_are_those_of_a_logistic_regression_however_a_networks_cases_are_drawn(sampling):
    cases = cohort()
    made = fit_covariate_model(task_of(cases, sampling), CONTEXT, cases, (), sampling=sampling)
    ours = np.array([made.predict(case).probabilities["ill"] for case in cases])
    markers = np.array([[case.covariates["marker"]] for case in cases])
    ill = np.array([case.references["class"] == "ill" for case in cases])
    # Two outputs, whose halved difference is one weight: the penalty is half of scikit-learn's.
    theirs = LogisticRegression(C=2.0, tol=1e-8).fit(markers, ill).predict_proba(markers)[:, 1]
    assert 0.05 < ill.mean() < 0.15
    assert ours.mean() == pytest.approx(ill.mean(), abs=1e-3)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
