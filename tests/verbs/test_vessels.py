"""Vessels all the way: taught by their centrelines, measured by them, and packaged; and losses that do not suit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import PlanError
from packages import no_export

SMALL = {"width": 4, "widest": 8, "strides": [[1, 1], [2, 2]]}
READING = {"labels": "1=vessel", "device": "cpu", "threads": 1}


def vessels(root: Path, count: int = 12) -> Path:
    """Pictures of a bright ring with a line through it, both three pixels wide, and their masks."""
    for n in range(count):
        rng = np.random.default_rng(n)
        grid = np.indices((64, 64)) - rng.uniform(28, 36, (2, 1, 1))
        ring = np.abs(np.hypot(*grid) - rng.uniform(20, 24))
        mask = (np.minimum(ring, np.abs(grid[n % 2])) < 1.5).astype(np.uint8)
        pixels = (60 + 120 * mask + rng.normal(0, 10, mask.shape)).clip(0, 255).astype(np.uint8)
        for folder, array in (("images", pixels), ("labels", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array).save(root / folder / f"p{n:02}.png")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of vessels; tests only read them."""
    return vessels(tmp_path_factory.mktemp("vessels") / "data")


@pytest.fixture(scope="module")
def net(pictures, tmp_path_factory):
    """These pictures and the folder of the run on them; tests only read them."""
    run = tmp_path_factory.mktemp("net") / "run"
    settings = {**trained.FEW_STEPS, "network.size": SMALL}
    hilum.train(pictures, out=run, assignments=settings, **READING)
    return pictures, run


def test_the_plan_follows_centrelines_and_says_why(pictures):
    plan = hilum.plan(pictures, **READING)
    assert plan.plan["task.loss"] == "dice+ce+cldice"
    assert plan.plan["task.centrelines"] == ["vessel"]
    assert "times as long" in plan.explained


@pytest.mark.whole
def test_a_run_states_centreline_figures_and_how_volumes_agree(net):
    rows = json.loads((net[1] / "evaluation" / "summary.json").read_text())["rows"]
    stated = {(row["metric"], row["label"]): row for row in rows}
    for metric in ("cldice", "centreline_recall", "centreline_precision", "components_error", "loops_error"):
        assert stated[metric, "vessel"]["value"] is not None
    assert stated["volume_loa_lower_pixels", "vessel"]["value"] <= stated["volume_bias_pixels", "vessel"]["value"]
    table = pd.read_csv(net[1] / "evaluation" / "cases.csv")
    assert table["cldice"].between(0, 1).all()
    page = (net[1] / "report.html").read_text()
    assert "Area of vessel" in page


@pytest.mark.whole
def test_a_package_predicts_as_the_run_does_and_measures(net, tmp_path):
    data, run = net
    with no_export():
        hilum.package(run, out=tmp_path / "package", backends=())
    made = [hilum.predict(model, data / "images" / "p00.png") for model in (run, tmp_path / "package")]
    voxels = [one.measurements["voxels"].tolist() for one in made]
    assert voxels[0] == voxels[1]
    assert hilum.load(tmp_path / "package").task.centrelines == ("vessel",)


def test_distances_that_patches_would_cut_are_refused_and_of_whole_images_taken(pictures):
    cut = {"task.loss": "dice+ce+hausdorff", "training.patch": [32, 32]}
    with pytest.raises(PlanError, match="a patch's border would cut them off"):
        hilum.plan(pictures, assignments=cut, **READING)
    whole = {"task.loss": "dice+ce+hausdorff", "training.patch": [64, 64]}
    assert hilum.plan(pictures, assignments=whole, **READING).plan["task.loss"] == "dice+ce+hausdorff"


def test_a_blob_has_no_centreline_to_be_taught_by(tmp_path):
    data = trained.blobs(tmp_path / "data", 6)
    with pytest.raises(PlanError, match="no label is long and thin"):
        hilum.plan(data, labels=trained.LABELS, device="cpu", assignments={"task.loss": "dice+ce+cldice"})


@pytest.mark.parametrize(
    "wishes",
    [
        {"task.loss": "logit_adjusted"},
        {"task.loss": "hardest", "training.sampling": "undersampled"},
    ],
)
@pytest.mark.whole
def test_classes_are_taught_by_the_loss_and_the_sampling_that_were_asked_for(tmp_path, wishes):
    data = trained.pictures(tmp_path / "data", 24)
    run = trained.classifying(data, tmp_path / "run", assignments=wishes)
    plan = (run.out / "plan.yaml").read_text()
    assert all(str(value) in plan for value in wishes.values())
    balanced = wishes["task.loss"] == "logit_adjusted" or "training.sampling" in wishes
    assert (hilum.load(run.out, "cpu").task.prior_shift is not None) == balanced


def test_a_loss_that_balances_is_refused_beside_a_sampling_that_does(tmp_path):
    data = trained.pictures(tmp_path / "data", 24)
    wishes = {"task.loss": "logit_adjusted", "training.sampling": "balanced"}
    with pytest.raises(PlanError, match="balanced sampling would do it twice"):
        hilum.plan(data, device="cpu", assignments=wishes)
