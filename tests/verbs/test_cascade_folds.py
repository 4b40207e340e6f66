"""A cascade in every fold: no stage of the fold that scores a case has seen it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hilum
import trained
from hilum.errors import UsageError
from hilum.runs import run_folder
from hilum.runtime import model_files, record_files
from hilum.runtime.model_files import BEFORE
from packages import CONFIG, without_hilum

SMALL = {
    "preprocessing.cascade": 2.0,
    "training.steps": 2,
    "training.validations": 1,
    "training.patch": [8, 8, 8],
    "inference.patch": [16, 16, 16],
    "augmentation.flips": [],
    "guard.gate": False,
}


@dataclass(frozen=True)
class Crossed:
    """A run of two folds with a cascade in each, and its data."""

    data: Path
    out: Path

    @property
    def tested(self) -> dict[int, set[str]]:
        """{fold: its test cases}."""
        split = pd.read_csv(self.out / "split.csv", dtype=str)
        own = split[split["split"] == "test"]
        return {int(fold): set(table["case"]) for fold, table in own.groupby("fold")}


def train(data: Path, out: Path, **flags):
    return trained.segmenting(data, out, assignments=SMALL, deterministic=True, folds=2, **flags)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    root = tmp_path_factory.mktemp("crossed")
    train(trained.blobs(root / "data", 8), root / "run")
    return Crossed(root / "data", root / "run")


@pytest.mark.whole
def test_every_case_is_scored_by_the_whole_cascade_of_its_own_fold(crossed, tmp_path):
    scored = pd.read_csv(crossed.out / "evaluation" / "cases.csv")
    cases = {path.name.removesuffix(".nii.gz"): path for path in (crossed.data / "images").iterdir()}
    assert set(scored["case"]) == set(cases)
    hilum.evaluate(crossed.out, crossed.data, labels=trained.LABELS, device="cpu", out=tmp_path / "again")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again" / "cases.csv"), scored)
    for fold in crossed.tested:
        model = model_files.load(crossed.out, "cpu", fold=fold)
        own = record_files.read_tensors(crossed.out / f"fold_{fold}" / "checkpoints" / "best" / "weights.safetensors")
        assert all((model.networks.run.module.state_dict()[name].numpy() == own[name]).all() for name in own)
        assert len(model.first.networks.members) == 2


@pytest.mark.whole
def test_the_mean_of_folds_averages_the_second_stages_on_what_all_first_ones_mark(crossed):
    model, folds = (
        model_files.load(crossed.out, "cpu"),
        [model_files.load(crossed.out, "cpu", fold=fold) for fold in (0, 1)],
    )
    assert (len(model.networks.members), len(model.first.networks.members)) == (2, 4)
    image = crossed.data / "images" / "case00.nii.gz"
    batch = np.random.default_rng(0).normal(size=(1, 1, 16, 16, 16)).astype(np.float32)
    each = [network(batch)["mask"] for one in folds for network in one.first.networks.members]
    softmax = [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in each]
    mean = model.first.networks.run(batch)["mask"]
    assert_allclose(np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True), np.mean(softmax, axis=0), atol=1e-5)
    assert np.asarray(model.predict(image).data).any()


@pytest.mark.whole
def test_a_package_of_folds_says_the_same_and_keeps_each_fold_apart(tmp_path):
    """Of CT each fold has a window of its own, which its networks of both stages keep."""
    data = trained.blobs(tmp_path / "data", 8)
    for path in (data / "images").iterdir():  # Hounsfield units, with air around
        image = nibabel.load(path)
        nibabel.Nifti1Image(np.asarray(image.dataobj) * 4 - 900, image.affine).to_filename(path)
    run = train(data, tmp_path / "run", modality="CT").out
    first, second = (model_files.load(run, "cpu", fold=fold).first.preprocessing.normalisation for fold in (0, 1))
    assert first != second
    made = hilum.package(run, out=tmp_path / "package", backends=("onnx",))
    assert made.networks == 6
    assert all(trial.passed for trial in made.certificate.trials), made.certificate.lines
    image = data / "images" / "case00.nii.gz"
    for fold in (None, 0, 1):
        ours, packaged = (model_files.load(place, "cpu", fold=fold) for place in (run, made.out))
        assert len(packaged.first.networks.members) == len(ours.first.networks.members)
        for stage, own in ((packaged.first, ours.first), (packaged, ours)):
            labels = np.asarray(own.predict(image).data)
            # Of a window of its own a fold keeps all but values at its bounds, which it clips before it resamples.
            assert (np.asarray(stage.predict(image).data) == labels).mean() > (0.999 if fold is None else 0.98)
    (tmp_path / "images").mkdir()
    shutil.copy(image, tmp_path / "images")
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", tmp_path / "images")
    done = without_hilum(made.out, *words, "--output_dir", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    labels = np.asarray(model_files.load(run, "cpu").predict(image).data)
    assert labels.any()
    assert (hilum.read(tmp_path / "results" / "case00.nii.gz").data[0] == labels).mean() > 0.999


@pytest.mark.whole
def test_a_run_that_was_killed_in_the_first_stage_of_its_second_fold_ends_as_if_it_had_not_been(crossed, tmp_path):
    seen, resumed = [], []

    def dies(moment):
        seen.append(moment.step)
        if len(seen) == 4 * 2 + 1:  # in the fifth training of six
            raise RuntimeError("the machine went down")

    with trained.watching(dies), pytest.raises(RuntimeError, match="went down"):
        train(crossed.data, tmp_path / "run")
    with trained.watching(lambda moment: resumed.append(moment.step)):
        hilum.train(resume=tmp_path / "run")
    assert resumed == [1, 2, 1, 2]
    before, after = (
        json.loads((run / "evaluation" / "summary.json").read_text(encoding="utf-8"))
        for run in (crossed.out, tmp_path / "run")
    )
    assert before == after


@pytest.mark.whole
def test_the_time_that_went_into_first_stages_counts_when_a_run_is_resumed(crossed, tmp_path):
    run = Path(shutil.copytree(crossed.out, tmp_path / "run"))
    (tmp_path / "data").symlink_to(crossed.data)
    (run / "report.html").unlink()
    state = run / "fold_1" / BEFORE / "fold_0" / "checkpoints" / "last" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "seconds": 777.0}))
    assert run_folder.resume_run(run, 0.0).clock.spent == 777.0


@pytest.mark.whole
def test_folds_of_a_cascade_are_no_members_of_an_ensemble(crossed, tmp_path):
    with pytest.raises(UsageError, match="is a cascade"):
        hilum.ensemble([crossed.out, tmp_path], out=tmp_path / "ensemble")
