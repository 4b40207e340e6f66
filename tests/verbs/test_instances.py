"""Objects that touch go the whole way, in volumes: planned, trained, scored, predicted by windows and packaged."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from numpy.testing import assert_array_equal

import hilum
from hilum.errors import DatasetError
from hilum.evaluation import instances
from hilum.verbs.train import Run
from packages import bundle_checked_and_run, no_export
from trained import FEW_STEPS

SHAPE = (24, 24, 24)
SIZE = {"width": 8, "widest": 16, "strides": [[1, 1, 1], [2, 2, 2]]}
STEP = np.diag([-2.0, 2.0, 2.0, 1.0])


def touching_balls(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of bright balls that touch, dimmer where they do, and their numbers."""
    rng = np.random.default_rng(seed)
    numbers, light = np.zeros(shape, dtype=np.uint16), np.zeros(shape)
    centres = []
    for start in range(0, shape[0] - 11, 12):
        middle = np.array([start + 6.0, *(rng.uniform(7, size - 8) for size in shape[1:])])
        half = rng.uniform(3.0, 3.6)
        for side in (-1, 1):
            centre = middle.copy()
            centre[1] += side * half
            away = np.sqrt(sum((grid - c) ** 2 for grid, c in zip(np.indices(shape), centre, strict=True)))
            own = (away < half + 0.5) & (numbers == 0)
            numbers[own] = len(centres) + 1
            light[own] = 100 - 12 * away[own]
            centres.append(centre)
    return (light + rng.normal(20, 4, shape)).astype(np.int16), numbers


def cohort(root: Path, count: int = 8) -> Path:
    for n in range(count):
        for folder, array in zip(("images", "labels"), touching_balls(n), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(array, STEP).to_filename(root / folder / f"case{n}.nii.gz")
    return root


def run_on(data: Path, out: Path, **assignments: object) -> Run:
    chosen = {**FEW_STEPS, "network.size": SIZE, "training.patch": [16, 16, 16], "preprocessing.smallest": [16, 16, 16],
              "inference.patch": [16, 16, 16], **assignments}  # fmt: skip
    return hilum.train(data, out=out, task="instances", device="cpu", threads=1, assignments=chosen)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cohort of touching balls, and the folder of a run on it; tests only read them."""
    root = tmp_path_factory.mktemp("instances")
    run_on(cohort(root / "data"), root / "run")
    return root


def test_check_counts_the_objects_where_the_task_says_that_they_are_numbered(run, tmp_path):
    found = hilum.check(run / "data", task="instances", out=tmp_path / "check", threads=1)
    assert found.passed
    assert found.facts["objects"] == "32 in 8 cases, 4 to 4 a case"
    assert found.facts["references"] == "instances"
    assert hilum.check(run / "data", threads=1).facts["references"] == "mask"


@pytest.mark.whole
def test_objects_of_clips_are_followed_and_scored_where_their_numbers_are_tracks(run, tmp_path):
    for folder, still in zip(("images", "labels"), touching_balls(20), strict=True):
        (tmp_path / folder).mkdir()
        clip = np.stack([np.roll(still, shift, axis=1) for shift in (0, 1, 2)], axis=-1)
        nibabel.Nifti1Image(clip, STEP).to_filename(tmp_path / folder / "clip.nii.gz")
    found = hilum.evaluate(run / "run", tmp_path, threads=1)
    rows = {row.metric: row.estimate for row in found.rows}
    assert 0 <= rows["hota"].value <= 1
    assert rows["identity_switches"].value >= 0
    made = hilum.predict(run / "run", tmp_path / "images" / "clip.nii.gz", out=tmp_path / "out", abstain="off")
    objects = pd.read_csv(tmp_path / "out" / "measurements.csv")
    tracks = pd.read_csv(tmp_path / "out" / "tracks.csv")
    assert set(objects["track"]) == set(tracks["track"])
    assert tracks["frames"].sum() == len(objects)
    assert len(made.tracks) == len(tracks)


def numbered(folder, counts):
    """Pictures whose maps number so many objects each."""
    for n, count in enumerate(counts):
        numbers = np.arange(36).reshape(6, 6) + 1
        numbers = np.kron(np.where(numbers <= count, numbers, 0), np.pad(np.ones((3, 3)), 1)).astype(np.uint8)
        for part, array in (("images", numbers + n), ("labels", numbers)):
            (folder / part).mkdir(exist_ok=True)
            PIL.Image.fromarray(array.astype(np.uint8)).save(folder / part / f"{n}.png")
    return folder


def test_a_map_of_more_numbers_than_labels_that_may_be_an_atlas_names_the_task_that_counts_objects(tmp_path):
    data = numbered(tmp_path, [36] * 8)
    [fatal] = hilum.check(data, threads=1).examination.fatal
    assert "--task instances" in fatal.remedy
    with pytest.raises(DatasetError, match="number instances"):
        hilum.plan(data, threads=1, device="cpu")
    assert hilum.plan(data, task="instances", threads=1, device="cpu").plan["task.name"] == "instances"


def test_numbers_of_objects_are_known_by_their_counts_and_the_reason_stands_in_check_and_plan(tmp_path):
    data = numbered(tmp_path, [36, 8, 12, 30, 7, 22, 36, 15])
    found = hilum.check(data, threads=1)
    assert found.passed
    assert found.facts["objects"] == "166 in 8 cases, 7 to 36 a case"
    [note] = [one for one in found.problems if "numbers of single objects" in one.what]
    assert "between 7 and 36" in note.what
    assert "--task segmentation" in note.remedy
    decision = hilum.plan(data, threads=1, device="cpu").plan.decision("task.name")
    assert decision.value == "instances"
    assert "from 1 without a gap to between 7 and 36" in decision.because
    with pytest.raises(DatasetError, match="number instances"):
        hilum.plan(data, task="segmentation", threads=1, device="cpu")


def test_numbers_with_gaps_or_in_pieces_may_name_structures_and_are_not_taken_for_objects(tmp_path):
    whole = np.pad(np.ones((3, 3)), 1)
    broken = np.pad(np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1]]), 1)
    for name, piece, step in (("gaps", whole, 2), ("pieces", broken, 1)):
        folder = tmp_path / name
        folder.mkdir()
        for n, count in enumerate([36, 8, 12, 30]):
            numbers = np.arange(36).reshape(6, 6) + 1
            numbers = np.kron(np.where(numbers <= count, numbers * step, 0), piece).astype(np.uint8)
            for part, array in (("images", numbers + n), ("labels", numbers)):
                (folder / part).mkdir(exist_ok=True)
                PIL.Image.fromarray(array.astype(np.uint8)).save(folder / part / f"{n}.png")
        assert "--task instances" in hilum.check(folder, threads=1).examination.fatal[0].remedy, name


@pytest.mark.whole
def test_the_plan_and_the_figures_of_a_run_are_those_of_objects(run):
    summary = json.loads((run / "run" / "evaluation" / "summary.json").read_text())["rows"]
    assert (summary[0]["metric"], summary[0]["label"]) == ("ap50", "all")
    assert {"ap", "aji", "pq", "sq", "rq", "f1", "count_error"} <= {row["metric"] for row in summary}
    plan = (run / "run" / "plan.yaml").read_text()
    assert "prominence" in plan
    assert "mm³: half of what" in plan
    assert np.isfinite(pd.read_csv(run / "run" / "log.csv")["loss"]).all()
    assert "Numbers of objects" in (run / "run" / "report.html").read_text()
    again = hilum.evaluate(str(run / "run"), str(run / "data"), device="cpu")
    assert again.rows[0].estimate.value == pytest.approx(summary[0]["value"], abs=1e-6)


def test_every_object_of_a_large_volume_has_a_number_a_row_and_the_source_grid(run, tmp_path):
    image, _ = touching_balls(99, (36, 40, 28))
    nibabel.Nifti1Image(image, STEP).to_filename(tmp_path / "large.nii.gz")
    hilum.predict(str(run / "run"), tmp_path / "large.nii.gz", out=tmp_path / "found", device="cpu")
    written = nibabel.load(tmp_path / "found" / "large.nii.gz")
    numbers = np.asarray(written.dataobj)
    assert numbers.dtype == np.uint16
    assert numbers.shape == (36, 40, 28)
    assert_array_equal(written.affine, STEP)
    row = pd.read_csv(tmp_path / "found" / "predictions.csv").iloc[0]
    assert row["count"] == numbers.max() == len(np.unique(numbers)) - 1
    if row["count"]:
        assert row["mean_size_mm3"] == pytest.approx((numbers > 0).sum() * 8 / row["count"])
        measured = pd.read_csv(tmp_path / "found" / "measurements.csv")
        assert measured["voxels"].tolist() == np.bincount(numbers.ravel())[1:].tolist()


def test_a_map_of_the_objects_that_it_takes_to_miss_little_is_written_where_somebody_asks(run, tmp_path):
    model = hilum.load(run / "run", "cpu")
    assert model.task.certainty.covering is not None  # by the validation cases
    image, usual = run / "data" / "images" / "case0.nii.gz", tmp_path / "found" / "case0.nii.gz"
    hilum.predict(str(run / "run"), image, out=tmp_path / "found", device="cpu", covering=True)
    called, covering = (
        np.asarray(nibabel.load(path).dataobj) for path in (usual, usual.with_name("case0_covering.nii.gz"))
    )
    assert covering.max() == len(np.unique(covering)) - 1 >= called.max()
    assert (covering[called > 0] > 0).all()


@pytest.mark.whole
def test_a_package_parts_the_same_objects(run, tmp_path):
    with no_export():
        hilum.package(run / "run", out=tmp_path / "packaged", backends=())
    image = hilum.read(run / "data" / "images" / "case0.nii.gz")
    own, packaged = (hilum.load(place, "cpu").predict(image) for place in (run / "run", tmp_path / "packaged"))
    assert_array_equal(np.asarray(packaged.data), np.asarray(own.data))
    described = json.loads((tmp_path / "packaged" / "configs" / "metadata.json").read_text())
    channels = described["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(channels.values()) == ["inside an object", "distance from its border"]
    scripts = {path.name for path in (tmp_path / "packaged" / "scripts").rglob("*.py")}
    assert "decode.py" in scripts
    assert "maps.py" not in scripts
    done = bundle_checked_and_run(tmp_path / "packaged", run / "data" / "images", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "results" / "predictions.csv").set_index("case")["scores"]
    assert json.loads(theirs["case0"]) == pytest.approx([*own.confidence.scores.values()], abs=1e-4)


@pytest.mark.whole
def test_touching_balls_are_learnt_and_parted_also_where_windows_meet(tmp_path):
    steps = {"training.steps": 250, "training.validations": 1, "training.batch": 4, "training.learning_rate": 5e-3}
    made = run_on(cohort(tmp_path / "data", 16), tmp_path / "run", **steps)
    rows = {row.metric: row.estimate.value for row in made.rows}
    assert rows["ap50"] > 0.8
    image, truth = touching_balls(99, (36, 40, 28))
    nibabel.Nifti1Image(image, STEP).to_filename(tmp_path / "large.nii.gz")
    prediction = hilum.load(tmp_path / "run", "cpu").predict(tmp_path / "large.nii.gz")
    assert instances.instance_overlap(np.asarray(prediction.data), truth).ap((0.5,)) > 0.7
