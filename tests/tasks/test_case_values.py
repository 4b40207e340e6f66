"""What a figure is said to be made of makes it: the tests of two models are of the figures that are stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hilum.evaluation import classification
from hilum.tasks.classification.question import Classification
from hilum.tasks.findings.question import Findings
from hilum.tasks.regression.question import Regression
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Label

CASES = 60
RANDOM = np.random.default_rng(0)


def rows(**columns):
    ids = [f"c{n}" for n in range(CASES)]
    given = {"case": ids, "patient": [f"p{n // 2}" for n in range(CASES)], "split": "test", "label": "all", **columns}
    return pd.DataFrame(given)


def classes(*names: str):
    chances = RANDOM.dirichlet(np.ones(len(names)), CASES)
    truth = RANDOM.integers(len(names), size=CASES)
    given = {f"probability_{name}": chances[:, n] for n, name in enumerate(names)}
    task = Classification(names)
    figures = {
        "brier": ((chances - np.eye(len(names))[truth]) ** 2).sum(axis=1) / (1 + (len(names) == 2)),
        "rps": RANDOM.random(CASES),
    }
    named = {"reference": np.array(names)[truth], "predicted": np.array(names)[chances.argmax(axis=1)]}
    return task, rows(**named, **given, **figures)


def findings():
    task = Findings(("nodule", "hernia"))
    chance, truth = RANDOM.random(2 * CASES), RANDOM.random(2 * CASES) < 0.4
    words = np.array(["absent", "present"])
    table = pd.concat([rows(), rows()], ignore_index=True).assign(
        label=["nodule"] * CASES + ["hernia"] * CASES, probability=chance, brier=(chance - truth) ** 2,
        reference=words[truth.astype(int)], predicted=words[(chance >= 0.5).astype(int)],
    )  # fmt: skip
    return task, table.drop(index=range(5))


def values():
    units, spread = {"volume": "ml", "age": "years"}, {"volume": 0.5, "age": 10.0}
    task = Regression(tuple(units), units, spread, spread)
    reference, difference = RANDOM.normal(size=2 * CASES), RANDOM.normal(size=2 * CASES)
    label = ["volume"] * CASES + ["age"] * CASES
    table = pd.concat([rows(), rows()], ignore_index=True).assign(
        label=label, reference=reference, predicted=reference + difference, difference=difference,
        standardised_difference=np.abs(difference) / [spread[name] for name in label],
    )  # fmt: skip
    return task, table.drop(index=range(5))


def masks():
    task = Segmentation((Label(1, "shell"), Label(2, "core")))
    counts = RANDOM.integers(0, 9, (2 * CASES, 3))
    dice = np.where(RANDOM.random(2 * CASES) < 0.1, np.nan, RANDOM.random(2 * CASES))
    table = pd.concat([rows(), rows()], ignore_index=True).assign(
        label=["shell"] * CASES + ["core"] * CASES, dice=dice, detected=(dice > 0.3).astype(float),
        volume_predicted=RANDOM.random(2 * CASES), volume_reference=RANDOM.random(2 * CASES),
        **dict(zip(("voxels_both", "voxels_predicted", "voxels_reference"), counts.T, strict=True)),
    )  # fmt: skip
    return task, table


MADE = {
    "two classes": lambda: classes("benign", "malignant"),
    "three classes": lambda: classes("a", "b", "c"),
    "findings": findings,
    "values": values,
    "masks": masks,
}
# {kind: figures that must be among those tested}
TESTED = {
    "two classes": {("auroc", "all"), ("auroc", "malignant"), ("accuracy", "all"), ("sensitivity", "malignant")},
    "three classes": {("auroc", "b"), ("accuracy", "all"), ("brier", "all")},
    "findings": {("auroc", "nodule"), ("specificity", "hernia"), ("brier", "nodule")},
    "values": {("mae", "volume"), ("mae", "all")},
    "masks": {("dice", "all"), ("dice", "core"), ("detected", "shell")},
}


@pytest.mark.parametrize("kind", MADE)
def test_what_a_figure_is_said_to_be_made_of_makes_it(kind):
    task, table = MADE[kind]()
    stated = {(row.metric, row.label): row.estimate.value for row in task.summary(table, seed=0)}
    seen = set()
    for one in task.case_values(table):
        if (one.metric, one.label) in stated:
            own = one.values.mean() if one.positive is None else float(classification.auroc(one.values, one.positive))
            assert own == pytest.approx(stated[one.metric, one.label]), (one.metric, one.label)
            seen.add((one.metric, one.label))
    assert seen >= TESTED[kind]


@pytest.mark.parametrize(
    ("kind", "metric", "worst"),
    [
        ("two classes", "brier", 1.0),
        ("three classes", "brier", 2.0),  # all probability in one of two wrong classes: (1 - 0)^2 + (0 - 1)^2
        ("three classes", "rps", 1.0),
        ("findings", "brier", 1.0),
        ("masks", "dice", 0.0),
        ("masks", "volume_predicted", None),
        ("values", "mae", None),
    ],
)
def test_the_worst_value_of_a_case_is_that_of_its_metric(kind, metric, worst):
    task, table = MADE[kind]()
    assert {one.worst for one in task.case_values(table) if one.metric == metric} == {worst}
