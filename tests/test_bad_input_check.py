"""What data that are unfit to learn from get: a finding with its remedy, exit code 1, and a page that says so."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import trained
from cohorts import picture
from conftest import CommandResult
from matrices import thinned


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to write into, which is where the command runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def forbidden(stated: CommandResult, *words: object) -> None:
    """Exit code 1 and one line at the end with these words in it."""
    assert stated.code == 1, stated.err
    assert "Traceback" not in stated.err
    for word in words:
        assert str(word) in stated.last, stated.last


def written(folder: Path) -> dict:
    """The record of a check that found something: it is written though the exit code is 1."""
    assert (folder / "check.html").is_file()
    record = json.loads((folder / "check.json").read_text())
    assert not record["passed"]
    return record


def test_labels_outside_the_declared_set_are_named_with_their_cases(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 4)
    strange = data / "labels" / "case01.nii.gz"
    array = np.asarray(nibabel.load(strange).dataobj).copy()
    array[0, 0, 0] = 9
    nibabel.Nifti1Image(array, trained.OBLIQUE).to_filename(strange)
    forbidden(cli("check", data, "--labels", trained.LABELS), "without a label: 9", "--labels")
    [error] = [row for row in written(here / "check-data")["rows"] if row["severity"] == "error"]
    assert error["cases"] == ["case01"]
    forbidden(cli("train", data, "--labels", trained.LABELS), "without a label: 9")
    assert not (here / "train-data").exists()


def test_one_class_only_is_refused_by_check_too(cli, here, tmp_path):
    (tmp_path / "data").mkdir()
    rows = "".join(f"{n}.png,benign\n" for n in range(6))
    (tmp_path / "data" / "table.csv").write_text("image,class\n" + rows)
    for n in range(6):
        picture(tmp_path / "data" / f"{n}.png", n)
    forbidden(cli("check", tmp_path / "data" / "table.csv"), "one class, benign", "two classes")
    assert written(here / "check-table")


def test_a_training_set_that_is_all_background_is_refused_by_check_too(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 4)
    for path in (data / "labels").iterdir():
        nibabel.Nifti1Image(np.zeros((16, 16, 16), np.uint8), trained.OBLIQUE).to_filename(path)
    forbidden(cli("check", data, "--labels", "1=blob"), "every mask is empty")
    assert written(here / "check-data")


@pytest.mark.parametrize("verb", thinned(1, ["check", "plan", "train"]))
def test_a_split_with_one_patient_on_both_sides_is_refused(cli, here, tmp_path, verb):
    data = trained.pictures(tmp_path / "data", 24)
    names = sorted(path.relative_to(data) for path in data.rglob("*.png"))
    parts = ["train", "train", "test"] * 8
    rows = [f"{name},{name.parent},{n // 2},{parts[n]}" for n, name in enumerate(names)]
    (data / "table.csv").write_text("\n".join(["image,class,patient,split", *rows]))
    done = cli(verb, data / "table.csv")
    forbidden(done, "in more than one part of the set's own split", "Correct the split")
    if verb == "check":
        assert written(here / "check-table")
    else:
        assert not list(here.iterdir())


def test_two_readings_of_one_layout_are_listed_with_the_flag_that_picks(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 3)
    (data / "table.csv").write_text("image,class\nimages/case00.nii.gz,a\nimages/case01.nii.gz,b\n")
    forbidden(cli("check", data), data, "--layout")
    assert {path.name for path in (here / "check-data").iterdir()} == {"check.json", "dataset.csv", "dataset.toml"}


def test_an_impossible_age_and_a_blank_are_findings_that_forbid_nothing(cli, here, tmp_path):
    data = trained.pictures(tmp_path / "data", 12)
    names = sorted(path.relative_to(data) for path in data.rglob("*.png"))
    rows = [f"{name},{name.parent},{n},{-5 if n == 3 else 40},{'M' if n else ''}" for n, name in enumerate(names)]
    (data / "table.csv").write_text("\n".join(["image,class,patient,age,sex", *rows]))
    done = cli("check", data / "table.csv", "--json")
    assert done.code == 0, done.err
    found = {row["what"]: row for row in json.loads(done.out)["rows"]}
    assert any("age" in what and "-5" in what for what in found)
    assert any("gaps" in what for what in found)
