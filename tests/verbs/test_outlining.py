"""Objects outlined one by one go the whole way, by a family that owns its loss and sees targets in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import PIL.Image
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hilum
from hilum.errors import PlanError
from trained import FEW_STEPS

SIDE = 48
SIZE = {"inside": 8, "hidden": 16, "outline": [8], "anchor": 8.0, "proposals": 40, "objects": 12, "samples": 16}
SIZE["surest"] = 0.05  # after a few steps nothing is sure, and something is to be predicted
ASKED = {
    **FEW_STEPS,
    "network.name": "mask_rcnn",
    "network.size": SIZE,
    "training.batch": 2,
    "training.patch": [SIDE, SIDE],
    "inference.patch": [SIDE, SIDE],
    "preprocessing.smallest": [SIDE, SIDE],
}


def smear(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A picture of bright discs, of which some touch, and their numbers."""
    rng, grid = np.random.default_rng(seed), np.indices((side, side))
    numbers = np.zeros((side, side), dtype=np.uint8)
    for number in range(1, 4 * (side // SIDE) ** 2 + 1):
        away = np.hypot(*(one - c for one, c in zip(grid, rng.uniform(6, side - 6, 2), strict=True)))
        numbers[(away < rng.uniform(5, 8)) & (numbers == 0)] = number
    return (60 + 120 * (numbers > 0) + rng.normal(0, 8, numbers.shape)).clip(0, 255).astype(np.uint8), numbers


def cohort(root: Path, count: int = 8) -> Path:
    for n in range(count):
        for folder, array in zip(("images", "labels"), smear(n), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array).save(root / folder / f"smear{n}.png")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cohort of smears, and the folder of a run on it; tests only read them."""
    root = tmp_path_factory.mktemp("outlining")
    data = cohort(root / "data")
    hilum.train(data, out=root / "run", task="instances", device="cpu", threads=1, assignments=ASKED)
    return root


@pytest.mark.whole
def test_a_run_is_scored_by_its_objects_and_can_be_scored_again(run):
    summary = json.loads((run / "run" / "evaluation" / "summary.json").read_text())["rows"]
    assert (summary[0]["metric"], summary[0]["label"]) == ("ap50", "all")
    losses = pd.read_csv(run / "run" / "log.csv")["loss"]
    assert len(losses) > 0
    assert np.isfinite(losses).all()
    again = hilum.evaluate(str(run / "run"), str(run / "data"), device="cpu")
    assert again.rows[0].estimate.value == pytest.approx(summary[0]["value"], abs=1e-6)


@pytest.mark.whole
def test_a_picture_larger_than_a_window_has_a_number_for_each_object(run, tmp_path):
    PIL.Image.fromarray(smear(99, 2 * SIDE)[0]).save(tmp_path / "large.png")
    hilum.predict(str(run / "run"), tmp_path / "large.png", out=tmp_path / "found", device="cpu")
    numbers = np.asarray(PIL.Image.open(tmp_path / "found" / "large.png"))
    assert numbers.shape == (2 * SIDE, 2 * SIDE)
    assert pd.read_csv(tmp_path / "found" / "predictions.csv")["count"][0] == len(np.unique(numbers[numbers > 0]))


@pytest.mark.whole  # the export of Mask R-CNN takes 15 s
def test_a_package_outlines_the_same_objects_and_its_network_is_in_onnx(run, tmp_path):
    made = hilum.package(run / "run", out=tmp_path / "packaged", backends=())
    assert made.onnx["exported"], made.onnx
    session = onnxruntime.InferenceSession(tmp_path / "packaged/models/model.onnx", providers=["CPUExecutionProvider"])
    seen = np.stack([smear(n)[0][None] for n in (0, 1)]).astype(np.float32) / 60 - 1.5
    expected = hilum.load(run / "run", "cpu").networks.run(seen)["instances"]
    assert np.ptp(expected[:, 0]) > 0  # something is predicted
    for count in (2, 1):
        outputs, *_ = session.run(None, {"image": seen[:count]})  # then what its gate looks at
        assert_allclose(outputs, expected[:count], atol=1e-3)
    image = hilum.read(run / "data" / "images" / "smear0.png")
    own, packaged = (hilum.load(place, "cpu").predict(image) for place in (run / "run", tmp_path / "packaged"))
    assert_array_equal(np.asarray(packaged.data), np.asarray(own.data))
    scripts = {path.name for path in (tmp_path / "packaged" / "scripts").rglob("*.py")}
    assert {"mask_rcnn.py", "decode.py"} <= scripts
    needed = json.loads((tmp_path / "packaged" / "configs" / "metadata.json").read_text())["required_packages_version"]
    assert "torchvision" in needed


@pytest.mark.whole
def test_a_plan_finds_the_size_of_the_network_by_that_of_the_objects(run):
    made = hilum.plan(
        run / "data", task="instances", threads=1, device="cpu", assignments={"network.name": "mask_rcnn"}
    )
    size = made.plan["network.size"]
    assert size["enlarge"] == 1
    assert size["anchor"] == pytest.approx(made.plan["task.reach"], abs=0.1)
    assert made.plan["training.memory"] > 0


@pytest.mark.whole
def test_a_plan_of_another_task_refuses_it(run):
    with pytest.raises(PlanError, match="segments instances only"):
        hilum.plan(run / "data", threads=1, device="cpu", assignments={"network.name": "mask_rcnn"})
