"""Objects with classes go the whole way: checked, planned, trained, scored, predicted and packaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from numpy.testing import assert_array_equal

import hilum
from packages import bundle_checked_and_run, no_export
from trained import FEW_STEPS

CLASSES = ("disc", "square")
SIZE = {"width": 8, "widest": 16, "strides": [[1, 1], [2, 2], [2, 2]]}


def cohort(root: Path, count: int = 8) -> Path:
    """Bright discs and dim squares that do not touch, with their numbers and a table of their classes."""
    rows, grid = ["case,object,label"], np.indices((32, 32))
    for n in range(count):
        random = np.random.default_rng(n)
        picture, numbers = random.normal(40, 4, (32, 32)), np.zeros((32, 32), np.uint8)
        for number, place in enumerate(((8, 8), (8, 24), (24, 8), (24, 24)), start=1):
            kind = int(random.integers(2))
            away = np.abs(grid - np.reshape(place, (2, 1, 1)))
            own = (away.max(axis=0) < 5) if kind else np.hypot(*away) < 5.5
            numbers[own], picture[own] = number, picture[own] + (80 if kind else 160)
            rows.append(f"c{n},{number},{CLASSES[kind]}")
        for folder, array in (("images", picture), ("labels", numbers)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(root / folder / f"c{n}.png")
    (root / "objects.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cohort and a run on it, which tests only read."""
    root = tmp_path_factory.mktemp("classes")
    chosen = {
        **FEW_STEPS,
        "network.size": SIZE,
        "training.patch": [32, 32],
        "training.steps": 30,
        "training.learning_rate": 5e-3,
    }
    hilum.train(cohort(root / "data"), out=root / "run", device="cpu", threads=1, assignments=chosen)
    return root


def test_a_run_states_figures_by_class_and_which_class_was_taken_for_which(run):
    rows = json.loads((run / "run" / "evaluation" / "summary.json").read_text())["rows"]
    assert {row["label"] for row in rows if row["metric"] == "pq"} == {"all", *CLASSES}
    confusion = pd.read_csv(run / "run" / "evaluation" / "confusion.csv")
    assert confusion.columns.tolist() == ["reference", "predicted", "objects"]
    assert len(confusion) == len(CLASSES) ** 2
    assert "Classes of matched objects" in (run / "run" / "report.html").read_text()
    again = hilum.evaluate(str(run / "run"), str(run / "data"), device="cpu")
    assert {row.metric for row in again.rows} >= {"class_accuracy", "f1_any_class", "loa_lower"}


def test_predictions_have_a_row_an_object_whose_number_is_that_in_the_map(run, tmp_path):
    hilum.predict(
        str(run / "run"), run / "data" / "images" / "c0.png", out=tmp_path / "found", device="cpu", overlay=True
    )
    table = pd.read_csv(tmp_path / "found" / "predictions.csv")
    numbers = np.asarray(PIL.Image.open(tmp_path / "found" / "c0.png"))
    found = np.setdiff1d(numbers, 0).tolist()
    assert table["object"].dropna().tolist() == found
    if found:
        assert set(table["label"]) <= {*CLASSES}
        chances = table[[f"probability_{name}" for name in CLASSES]]
        assert chances.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    stated = (tmp_path / "found" / "findings.json").read_text()
    assert all(f"number of {name}" in stated for name in CLASSES)


@pytest.mark.whole
def test_a_package_gives_the_same_objects_the_same_classes(run, tmp_path):
    with no_export():
        hilum.package(run / "run", out=tmp_path / "packaged", backends=())
    image = hilum.read(run / "data" / "images" / "c0.png")
    own, packaged = (hilum.load(place, "cpu").predict(image) for place in (run / "run", tmp_path / "packaged"))
    assert_array_equal(np.asarray(packaged.data), np.asarray(own.data))
    assert packaged.objects.probabilities == pytest.approx(own.objects.probabilities)
    done = bundle_checked_and_run(tmp_path / "packaged", run / "data" / "images", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "results" / "predictions.csv")
    assert theirs[theirs["case"] == "c0"]["object"].dropna().tolist() == list(range(1, len(own.labels) + 1))
