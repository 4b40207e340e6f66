"""Masks that overlap, leave voxels out or were contoured by several people, all the way to a package."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import DatasetError, PlanError
from hilum.planning import plan_changes
from hilum.tasks import task_catalogue
from hilum.values import Decision
from packages import bundle_checked_and_run, no_export

FLAT = {"network.size": {"width": 4, "widest": 8, "strides": [[1, 1], [2, 2]]}}
REGIONS = "1+2=ball,2=core,3=ignore"


def nested(root: Path) -> Path:
    """nnU-Net raw: a ball with a core in it, of which nobody looked at one side."""
    trained.two_channels(root)
    described = json.loads((root / "dataset.json").read_text())
    described["labels"] = {"background": 0, "ball": [1, 2], "core": [2], "ignore": 3}
    described["regions_class_order"] = [1, 2]
    (root / "dataset.json").write_text(json.dumps(described))
    for path in (root / "labelsTr").iterdir():
        image = nibabel.load(path)
        mask = np.asarray(image.dataobj).astype(np.uint8)
        mask[:4] = 3
        nibabel.Nifti1Image(mask, image.affine).to_filename(path)
    return root


def discs(root: Path, count: int = 12, readers: int = 0, scribbled: bool = False) -> Path:
    """Pictures of a disc; contoured by several, each with their own size, or by a line through it and one beside."""
    for n in range(count):
        rng = np.random.default_rng(n)
        away = np.hypot(*(np.indices((24, 24)) - rng.uniform(9, 14, size=(2, 1, 1))))
        pixels = (60 + 150 * (away < 6) + rng.normal(0, 6, away.shape)).clip(0, 255).astype(np.uint8)
        masks = {f"reader{r}": (away < 5 + r).astype(np.uint8) for r in range(readers)}
        if scribbled:
            masks = {"": np.zeros((24, 24), np.uint8)}
            masks[""][0], masks[""][12] = 1, 1 + (away[12] < 6)
        for reader, mask in masks.items():
            (root / "labels" / reader).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(mask).save(root / "labels" / reader / f"disc{n:02}.png")
        (root / "images").mkdir(exist_ok=True)
        PIL.Image.fromarray(pixels).save(root / "images" / f"disc{n:02}.png")
    return root


def run_on(data: Path, out: Path, **given) -> pd.DataFrame:
    """The summary of a short training, a row a figure."""
    size = {} if (data / "dataset.json").exists() else FLAT
    trained.segmenting(data, out, **{"labels": None, **given, "assignments": {**size, **given.get("assignments", {})}})
    return pd.DataFrame(json.loads((out / "evaluation" / "summary.json").read_text())["rows"])


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory):
    """A data set of regions with voxels to ignore, the run on it, and its summary; tests only read them."""
    root = tmp_path_factory.mktemp("overlapping")
    rows = run_on(nested(root / "data"), root / "run")
    return root / "data", root / "run", rows


@pytest.mark.whole
def test_regions_are_planned_and_each_is_scored_on_what_is_known(overlapping):
    data, run, rows = overlapping
    plan = hilum.plan(data, device="cpu", threads=1).plan
    assert plan["task.regions"] == {"ball": [1, 2], "core": [2]}
    assert plan["task.ignore"] == 3
    assert [label["name"] for label in plan["task.labels"]] == ["ball (rest)", "core"]
    assert set(rows["label"]) == {"all", "ball", "core"}
    assert rows["method"].str.contains("on the 75 % of the images that is known").all()
    table = pd.read_csv(run / "evaluation" / "cases.csv")
    assert (table["voxels_known"] == 12 * 16 * 16).all()


@pytest.mark.whole
def test_a_check_says_how_much_is_known(overlapping):
    found = hilum.check(overlapping[0], threads=1)
    assert found.passed
    assert found.facts["annotated"].startswith("75 % of the voxels")


@pytest.mark.whole
def test_predictions_measure_each_region_and_write_one_label_map(overlapping, tmp_path):
    data, run, _ = overlapping
    hilum.predict(run, data / "imagesTr", out=tmp_path / "out", device="cpu", save_probabilities=True)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    mask = np.asarray(nibabel.load(tmp_path / "out" / "case00.nii.gz").dataobj)
    voxel = abs(np.linalg.det(trained.OBLIQUE[:3, :3])) / 1000
    assert set(np.unique(mask)) <= {0, 1, 2}
    for name, values in (("ball", (1, 2)), ("core", (2,))):
        assert table[f"{name}_ml"][0] == pytest.approx(np.isin(mask, values).sum() * voxel, rel=1e-4, abs=1e-6)
    named = next((tmp_path / "out").glob("case00_prob*.labels.csv")).read_text()
    assert "ball" in named
    assert "rest" not in named


@pytest.mark.whole
def test_a_package_says_the_same_without_hilum(overlapping, tmp_path):
    data, run, _ = overlapping
    with no_export():
        packaged = hilum.package(run, out=tmp_path / "nested", backends=()).out
    done = bundle_checked_and_run(packaged, data / "imagesTr", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "results" / "predictions.csv").set_index("case")
    ours = hilum.predict(run, data / "imagesTr", device="cpu").table.set_index("case")
    for name in ("ball_ml", "core_ml"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=0.01)
    described = json.loads((packaged / "configs" / "metadata.json").read_text())["network_data_format"]
    assert described["outputs"]["pred"]["channel_def"] == {"0": "ball", "1": "core"}


@pytest.mark.whole
def test_regions_can_be_declared_by_hand(overlapping):
    data = overlapping[0]
    plan = hilum.plan(data, device="cpu", threads=1, labels=REGIONS).plan
    assert plan["task.regions"] == {"ball": [1, 2], "core": [2]}
    by_hand = {"task.regions": {"whole": [1, 2], "inner": [2]}}
    labels = "1=shell,2=core,3=ignore"
    plan = hilum.plan(data, device="cpu", threads=1, labels=labels, assignments=by_hand).plan
    task = task_catalogue.build_task({key: one.value for key, one in plan.sections["task"].items()})
    assert task.names == tuple(task.tolerance) == ("whole", "inner")


@pytest.mark.whole
def test_scribbles_are_taught_where_they_are(tmp_path):
    data = discs(tmp_path / "data", scribbled=True)
    labels = "0=ignore,1=background,2=disc"
    assert hilum.check(data, labels=labels, threads=1).facts["annotated"].startswith("8.33 %")
    rows = run_on(data, tmp_path / "run", labels=labels)
    plan = hilum.plan(data, device="cpu", threads=1, labels=labels).plan
    assert (plan["task.ignore"], plan["task.background"], plan["task.sparse"]) == (0, 1, "voxels")
    assert plan["training.foreground"] == 1.0
    assert rows["method"].str.contains("on the 8.33 % of the images").all()
    assert not rows["metric"].str.contains("hd95").any()


def test_where_the_share_of_readers_is_to_be_learnt_the_plan_takes_a_loss_that_can(tmp_path):
    plan = hilum.plan(discs(tmp_path / "data", readers=3), device="cpu", threads=1).plan
    planned = plan.with_decision("task.loss", Decision("dice+ce+boundary", "the disc is thin"))
    soft = plan_changes.with_settings(planned, {"task.readers": "soft"}).decision("task.loss")
    assert soft.value == "dice+ce"
    assert soft.because.startswith("dice+ce+boundary cannot learn the share of readers")
    assert plan_changes.with_settings(planned, {"task.readers": "staple"})["task.loss"] == "dice+ce+boundary"
    with pytest.raises(PlanError, match="cannot learn the share of readers"):
        plan_changes.with_settings(planned, {"task.readers": "soft", "task.loss": "dice+ce+boundary"})


@pytest.mark.whole
def test_readers_are_told_apart_and_their_agreement_stands_beside_the_models(tmp_path):
    data = discs(tmp_path / "data", readers=3)
    rows = run_on(data, tmp_path / "run", assignments={"task.readers": "soft", "task.loss": "dice+ce"})
    plan = hilum.plan(data, device="cpu", threads=1).plan
    assert plan["task.readers"] == "majority"
    assert plan["task.observers"] == ["reader0", "reader1", "reader2"]
    found = {row["metric"]: row["value"] for _, row in rows[rows["label"] == "all"].iterrows()}
    names = plan["task.observers"]
    expected = []
    for case in pd.read_csv(tmp_path / "run" / "evaluation" / "cases.csv")["case"]:
        masks = [np.asarray(PIL.Image.open(data / "labels" / name / f"{case}.png")) for name in names]
        sizes = [mask.sum() for mask in masks]  # each lies in the next
        expected.append(np.mean([2 * sizes[a] / (sizes[a] + sizes[b]) for a, b in ((0, 1), (0, 2), (1, 2))]))
    assert found["dice_between_readers"] == pytest.approx(np.mean(expected))
    assert {"dice_to_readers", "dice_to_reader0", "dice_of_reader2_to_others"} <= set(found)
    assert "Readers and model" in (tmp_path / "run" / "report.html").read_text()


# Cases that know some structures only


def merged(root: Path) -> Path:
    """Balls of two sites, of which one contoured the shells and the other the cores."""
    trained.blobs(root)
    rows = ["case,known"]
    for n, path in enumerate(sorted((root / "labels").iterdir())):
        image, own = nibabel.load(path), 1 + n % 2
        labels = np.asarray(image.dataobj)
        nibabel.Nifti1Image(np.where(labels == own, labels, 0).astype(np.uint8), image.affine).to_filename(path)
        rows.append(f"{path.name.partition('.')[0]},{('shell', 'core')[n % 2]}")
    (root / "known.csv").write_text("\n".join(rows))
    return root


@pytest.mark.whole
def test_what_each_site_contoured_is_learnt_and_scored_where_it_contoured_it(tmp_path):
    data, out = merged(tmp_path / "data"), tmp_path / "run"
    assert hilum.check(data, labels=trained.LABELS).facts["structures known"] == "shell in 6, core in 6 of 12 cases"
    trained.segmenting(data, out, assignments=trained.TWO_STEPS)
    assert "structures are known so: shell in " in (out / "plan.yaml").read_text()
    scores = pd.read_csv(out / "evaluation" / "cases.csv")
    known = dict(line.split(",") for line in (data / "known.csv").read_text().splitlines())
    assert [known[name] for name in scores["case"]] == scores["label"].tolist()
    page = (out / "report.html").read_text()
    assert "Cases that know it" in page
    assert "Some cases know some structures only" in page
    again = hilum.evaluate(out, data, labels=trained.LABELS)
    assert again.scored.table["label"].tolist() == scores["label"].tolist()
    assert any(note.startswith("A structure is scored only where it was contoured") for note in again.notes)


def test_a_mask_that_holds_what_is_said_to_be_unknown_ends_a_training_before_it_begins(tmp_path):
    data = merged(tmp_path / "data")
    image = nibabel.load(data / "labels" / "case03.nii.gz")
    nibabel.Nifti1Image(np.ones(image.shape, np.uint8), image.affine).to_filename(data / "labels" / "case03.nii.gz")
    with pytest.raises(DatasetError, match="masks hold voxels of shell, which is said to be unknown there: case03"):
        hilum.train(data, labels=trained.LABELS, minutes=0.2, out=tmp_path / "run")
    rows = (data / "known.csv").read_text().splitlines()
    (data / "known.csv").write_text("\n".join([rows[0], *(f"{row.partition(',')[0]},shell" for row in rows[1:])]))
    assert "no case knows core" in str(hilum.check(data, labels=trained.LABELS))
