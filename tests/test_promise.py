"""A kind of problem that nobody here has heard of takes one new file and one line in an index, and goes every way.

Its file is `toys/azimuth.py`, a package of somebody else's; the line is the entry point that is written below.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.planning import plan_file
from hilum.tasks import task, task_catalogue
from packages import bundle_checked_and_run, installed

TOY = Path(__file__).parent / "toys" / "azimuth.py"
POINTS = "[hilum.tasks]\nazimuth = azimuth:Azimuth\n"
COLUMN = {"value:angle": "angle"}
CHOSEN = {"column": COLUMN, "task": "azimuth", "device": "cpu", "threads": 1}


@dataclass(frozen=True)
class Promised:
    """Images and their angles, the run on them, and the package of the run."""

    data: Path
    run: Path
    package: Path

    @property
    def image(self) -> Path:
        return self.data.parent / "pictures" / "slope03.png"


def slopes(root: Path, count: int = 24) -> Path:
    """Pictures that grow bright in some direction, which a table tells in degrees from down to right."""
    (root / "pictures").mkdir(parents=True)
    rows = ["image,patient,angle"]
    for n in range(count):
        rng = np.random.default_rng(n)
        angle = float(rng.uniform(0, 360))
        down, across = (np.indices((20, 20)) - 9.5) / 9.5
        bright = 120 + 60 * (np.cos(np.deg2rad(angle)) * down + np.sin(np.deg2rad(angle)) * across)
        pixels = (bright + rng.normal(0, 5, bright.shape)).clip(0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(root / "pictures" / f"slope{n:02}.png")
        rows.append(f"pictures/slope{n:02}.png,p{n},{angle:.2f}")
    (root / "cases.csv").write_text("\n".join(rows))
    return root / "cases.csv"


@pytest.fixture(scope="module")
def promised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promised]:
    """The toy installed, trained and packaged; tests only read what it left."""
    root = tmp_path_factory.mktemp("promise")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed(root / "site", TOY, POINTS)))
        importlib.invalidate_caches()
        data = slopes(root / "data")
        some = {"training.steps": 40, "training.validations": 2, "training.batch": 4}
        sized = {**some, "network.size": trained.SMALL_RESNET}
        hilum.train(data, out=root / "run", assignments=sized, **CHOSEN)
        hilum.package(root / "run", out=root / "packaged", backends=())
        yield Promised(data, root / "run", root / "packaged")
    sys.modules.pop("azimuth", None)


def test_no_file_of_ours_has_heard_of_it():
    ours = Path(hilum.__file__).parent
    assert not [path for path in ours.rglob("*.py") if "azimuth" in path.read_text().lower()]


def test_it_is_in_the_index_and_derives_from_the_base_class_alone(promised):
    assert "azimuth" in task_catalogue.task_names()
    assert task_catalogue.task_class("azimuth").__bases__ == (task.Task,)


def test_it_must_be_asked_for_where_another_kind_takes_the_same_reference(promised):
    with pytest.raises(hilum.errors.DatasetError, match="Choose --task azimuth or regression"):
        hilum.plan(promised.data, column=COLUMN, device="cpu", threads=1)


def test_its_data_are_checked(promised, tmp_path):
    found = hilum.check(promised.data, column=COLUMN, out=tmp_path / "check", threads=1)
    assert found.passed
    assert "angle" in found.facts["values"]


def test_it_is_planned_with_its_own_reasons_and_a_mistake_in_them_is_refused(promised, tmp_path):
    made = hilum.plan(promised.data, out=tmp_path / "plan.yaml", **CHOSEN)
    plan = made.plan
    assert "task.angle = angle: " in made.explained
    assert "task.offset = 0: angles count from the first axis" in made.explained
    assert (plan["task.name"], plan["task.angle"], plan["augmentation.rotation"]) == ("azimuth", "angle", 0.0)
    assert plan["inference.flips"] == []
    assert plan.decision("evaluation.primary").because == "it is in degrees"
    assert plan_file.read_plan(tmp_path / "plan.yaml").sections == plan.sections
    with pytest.raises(hilum.errors.PlanError, match="impossible settings of azimuth"):
        hilum.plan(promised.data, assignments={"task.offset": "north"}, **CHOSEN)
    with pytest.raises(hilum.errors.PlanError, match="angular_error"):
        hilum.plan(promised.data, assignments={"evaluation.primary": "dice"}, **CHOSEN)


def test_it_learns_and_is_reported_with_an_interval(promised):
    [row] = json.loads((promised.run / "evaluation" / "summary.json").read_text())["rows"]
    assert (row["metric"], row["unit"]) == ("angular_error", "degrees")
    assert row["low"] <= row["value"] <= row["high"] < 60  # who guesses is wrong by 90 on average
    page = (promised.run / "report.html").read_text()
    assert "Error of the angle was named primary before training, with its zero of the circle;" in page
    assert "A turned image points elsewhere" in page
    assert "Best and worst cases" in page  # there are two


def test_it_is_evaluated_and_predicted(promised, cli, tmp_path):
    done = cli("evaluate", promised.run, promised.data, "--out", tmp_path / "scored", "--device", "cpu")
    assert done.code == 0, done.err
    assert "Error of the angle " in done.out
    done = cli("predict", promised.run, promised.data.parent / "pictures", "--out", tmp_path / "out", "--device", "cpu")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table.columns) == ["case", "image", "degrees_angle", "gate_p", "abstained"]
    assert table["degrees_angle"].between(0, 360).all()


@pytest.mark.whole
def test_folds_are_the_mean_of_points_and_not_of_degrees(promised, tmp_path):
    few = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET}
    hilum.train(promised.data, out=tmp_path / "run", folds=2, assignments=few, **CHOSEN)
    assert 0 <= hilum.load(tmp_path / "run", "cpu").predict(promised.image).values["angle"] < 360


def test_its_package_says_the_same_with_onnx(promised):
    ours = hilum.load(promised.run, "cpu").predict(promised.image).values["angle"]
    theirs = hilum.load(promised.package, "cpu", backend="onnx").predict(promised.image).values["angle"]
    assert theirs == pytest.approx(ours, abs=1e-2)
    assert (promised.package / "scripts" / "azimuth.py").is_file()


@pytest.mark.whole
def test_its_package_runs_under_monai_without_hilum(promised, tmp_path):
    done = bundle_checked_and_run(promised.package, promised.data.parent / "pictures", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "results" / "predictions.csv").set_index("case")["degrees_angle"]
    ours = hilum.predict(promised.run, promised.data.parent / "pictures", device="cpu").table
    np.testing.assert_allclose(theirs, ours.set_index("case")["degrees_angle"], atol=1e-2)
