"""A run that sees images at low resolution first, through every verb."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

import forked
import hilum
import trained
from hilum.errors import UsageError
from hilum.runs import training_jobs
from hilum.runtime import model_files, record_files
from hilum.runtime.model_files import BEFORE
from packages import CONFIG, without_hilum

SMALL = {
    "preprocessing.cascade": 2.0,
    "training.steps": 4,
    "training.validations": 1,
    "training.patch": [8, 8, 8],
    "inference.patch": [8, 8, 8],
}


@dataclass(frozen=True)
class Cascade:
    """fits: {what: ids of the cases that trained it}, told while it was trained"""

    data: Path
    out: Path
    fits: dict[str, set[str]]


def train(data: Path, out: Path, **flags):
    return trained.segmenting(data, out, assignments=SMALL, deterministic=True, **flags)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    root, fits, fit_job = tmp_path_factory.mktemp("cascade"), {}, training_jobs.fit_job

    def recorded(job, *given, **options):
        fits[job.out.name] = {case.id for case in job.train}
        return fit_job(job, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_jobs, "fit_job", recorded)
        train(trained.blobs(root / "data"), root / "run")
    return Cascade(root / "data", root / "run", fits)


@pytest.mark.whole
def test_both_stages_are_one_model_which_is_scored_as_it_predicts(cascade, tmp_path):
    model = model_files.load(cascade.out, "cpu")
    assert model.first is not None
    assert len(model.first.networks.members) == 2
    assert model.networks.architecture["channels"] == 2
    again = hilum.evaluate(cascade.out, cascade.data, labels=trained.LABELS, device="cpu", out=tmp_path / "again")
    found, recorded = (pd.read_csv(folder / "cases.csv") for folder in (tmp_path / "again", cascade.out / "evaluation"))
    pd.testing.assert_frame_equal(found, recorded)
    assert again.which == "the test cases of the run's own data"


@pytest.mark.whole
def test_no_network_marks_a_case_that_trained_it_and_none_has_seen_cases_that_select_or_test(cascade):
    split = pd.read_csv(cascade.out / "split.csv", dtype=str).set_index("case")["split"]
    training = set(split.index[split == "train"])
    first, second = cascade.fits["fold_0"], cascade.fits["fold_1"]
    assert first | second == training
    assert not first & second
    # What was marked in a training case is what the network of the others says of it.
    other = model_files.load(cascade.out / BEFORE, "cpu", fold=1)
    name = min(first)
    file = f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.b2nd"
    marked = blosc2.open(str(cascade.out / BEFORE / "marked" / file))[:]
    assert_array_equal(marked, np.asarray(other.predict(cascade.data / "images" / f"{name}.nii.gz").data))


@pytest.mark.whole
def test_the_second_network_has_a_channel_for_each_label_beside_the_image(cascade):
    model = model_files.load(cascade.out, "cpu")
    [entering, *_] = [one for one in model.networks.run.module.modules() if isinstance(one, torch.nn.Conv3d)]
    assert entering.in_channels == 1 + len(model.task.labels)


@pytest.mark.whole
def test_the_first_stages_plan_lies_beside_it_with_its_reasons(cascade):
    text = (cascade.out / BEFORE / "plan.yaml").read_text()
    assert "the first network of a cascade sees images at low resolution" in text
    model = model_files.load(cascade.out / BEFORE, "cpu")
    assert model.preprocessing.reduction == 2.0
    assert model.preprocessing.cascade is None


@pytest.mark.whole
def test_a_run_that_was_killed_between_its_stages_or_within_the_first_ends_as_if_it_had_not_been(cascade, tmp_path):
    run = Path(shutil.copytree(cascade.out, tmp_path / "run"))
    (tmp_path / "data").symlink_to(cascade.data)
    for left in ("checkpoints", "evaluation", "tensorboard", f"{BEFORE}/marked", f"{BEFORE}/fold_1"):
        shutil.rmtree(run / left)
    for left in ("report.html", "log.csv"):
        (run / left).unlink()
    hilum.train(resume=run)
    for part in ("checkpoints/last", f"{BEFORE}/fold_1/checkpoints/last"):
        whole, resumed = (record_files.read_tensors(one / part / "weights.safetensors") for one in (cascade.out, run))
        assert all((whole[name] == resumed[name]).all() for name in whole)


@pytest.mark.whole
def test_a_second_stage_without_its_first_is_refused(cascade, tmp_path):
    single = Path(shutil.copytree(cascade.out / "checkpoints" / "last", tmp_path / "alone"))
    with pytest.raises(UsageError, match="second stage of a cascade"):
        model_files.load(single, "cpu")


@pytest.mark.whole
def test_a_package_holds_both_networks_and_says_the_same_with_onnx_and_without_hilum(cascade, tmp_path):
    out = tmp_path / "package"
    with forked.trials():
        made = hilum.package(cascade.out, out=out, backends=("onnx",))
    assert made.networks == 3
    assert all(trial.passed for trial in made.certificate.trials), made.certificate.lines
    images = tmp_path / "images"
    images.mkdir()
    for name in ("case00", "case01"):
        shutil.copy(cascade.data / "images" / f"{name}.nii.gz", images)
    ours = hilum.predict(cascade.out, images, device="cpu")
    by_onnx = hilum.predict(out, images, device="cpu", backend="onnx")
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", images)
    done = without_hilum(out, *words, "--output_dir", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    for case, prediction in ours.predictions.items():
        labels = np.asarray(prediction.data)
        assert labels.any()
        assert (np.asarray(by_onnx.predictions[case].data) == labels).mean() > 0.999
        assert_array_equal(hilum.read(tmp_path / "results" / f"{case}.nii.gz").data[0], labels)
    record = record_files.read_json(out / "hilum" / "model.json", "hilum.model")
    assert record["network"]["marked"] == 2
