"""What evaluation of the wrong data gets: one clear error, an exit code, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

import trained
from matrices import thinned


def refused(stated, code: int, *words: object) -> None:
    """One line at the end with these words in it, and no traceback."""
    assert stated.code == code, stated.err
    assert "Traceback" not in stated.err
    for word in words:
        assert str(word) in stated.last, stated.last
    assert stated.last.endswith(".")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to write into, which is where the command runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_data_of_another_kind_than_the_models_are_refused_by_what_they_lack(cli, here, segmented, classified):
    done = cli("evaluate", segmented.out, classified.data, "--device", "cpu")
    refused(done, 1, classified.data, "no references of the kind mask", "Give data labelled for segmentation")
    done = cli("evaluate", classified.out, segmented.data, "--device", "cpu")
    refused(done, 1, segmented.data, "no references of the kind class", "Give data labelled for classification")
    assert not list(here.iterdir())


def test_volumes_are_no_pictures_for_a_model_of_pictures(cli, here, tmp_path, classified):
    for n, name in enumerate(("bright", "dark") * 3):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        volume = np.random.default_rng(n).normal(100, 10, (8, 8, 8)).astype(np.int16)
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "data" / name / f"{n}.nii.gz")
    done = cli("evaluate", classified.out, tmp_path / "data", "--device", "cpu")
    refused(done, 1, "no case could be scored", "the model works in 2 dimensions")
    assert not list(here.iterdir())


def test_classes_of_which_the_model_knows_none_are_named(cli, here, tmp_path, classified):
    data = trained.pictures(tmp_path / "data", 4, classes=("cat", "dog"))
    done = cli("evaluate", classified.out, data, "--device", "cpu")
    refused(done, 1, "no case could be scored", "is none of bright, dark")
    assert not list(here.iterdir())


def test_data_that_all_trained_the_model_are_no_test(cli, here, tmp_path, segmented):
    table = pd.read_csv(segmented.out / "split.csv", dtype=str)
    for n, name in enumerate(sorted(table["case"][table["split"] == "train"])[:2]):
        for folder in ("images", "labels"):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(segmented.data / folder / f"{name}.nii.gz", tmp_path / "data" / folder / f"new{n}.nii.gz")
    words = ["evaluate", segmented.out, tmp_path / "data", "--labels", trained.LABELS, "--device", "cpu"]
    refused(cli(*words), 2, tmp_path / "data", "holds only 2 cases that trained this model", "--split all")
    assert not list(here.iterdir())


def test_a_damaged_record_of_the_data_is_named(cli, here, tmp_path, segmented):
    run = shutil.copytree(segmented.out, tmp_path / "run")
    (run / "data.json").write_text('{"schema": "hilum.data"', encoding="utf-8")
    done = cli("evaluate", run, segmented.data, "--device", "cpu")
    refused(done, 1, run / "data.json", "Get the folder again")
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    thinned(
        1,
        [
            ("task.tolerance=-1", "-1.0 for"),
            ("task.loss=mse", "there is no loss 'mse'"),
            ("task.weights={lung: 2}", "there is no label 'lung'"),
            ("task.postprocessing={shell: {largest: maybe}}", "not a post-processing rule"),
        ],
    ),
)
def test_an_impossible_setting_of_the_task_is_refused_by_name(cli, here, segmented, setting, message):
    words = ["plan", segmented.data, "--labels", trained.LABELS, "--device", "cpu", "--set", setting]
    refused(cli(*words), 2, "task", message)
    assert not list(here.iterdir())
