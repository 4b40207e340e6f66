"""The certificate of a trained run: with which images it is made, and what is chosen by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import hilum
from hilum.errors import UsageError
from hilum.planning import plan_file
from hilum.runs import run_folder
from hilum.runtime.package import backend_certificate


def test_the_certificate_is_made_with_the_validation_cases_and_names_none(packaged):
    found = packaged.certificate
    assert found.images == "1 of 1 validation case"
    assert {one.backend: one.passed for one in found.trials} == {"torch": True, "onnx": True}
    assert found.trial("onnx", "cpu").difference.voxels == 16**3
    assert set(found.trial("torch", "cpu").difference.dice) <= {"shell", "core"}
    assert backend_certificate.read_certificate(packaged.out) == found
    assert "onnx on cpu: accepted" in repr(packaged)
    text = (packaged.out / "hilum" / "certificate.json").read_text()
    assert "case" not in text.replace("validation case", "")


def test_predict_takes_the_fastest_backend_of_a_package_and_says_which(segmented, packaged, tmp_path, caplog):
    image = segmented.data / "images" / "case01.nii.gz"
    with caplog.at_level("INFO", "hilum"):
        hilum.predict(packaged.out, image, out=tmp_path / "out", device="cpu")
    fastest = min(packaged.certificate.trials, key=lambda one: one.cost(10)).backend
    assert f"computing on cpu with {fastest}: the fastest certified one" in caplog.text
    record = json.loads((tmp_path / "out" / "summary.json").read_text())["model"]["computing"]
    assert record["value"] == f"cpu with {fastest}"


def test_where_the_data_are_gone_or_changed_no_image_is_taken(segmented, tmp_path):
    run = Path(shutil.copytree(segmented.out, tmp_path / "run"))  # from here the data are not where they were
    plan = plan_file.read_plan(run / "plan.yaml")
    assert run_folder.validation_images(run, plan).description == "the run's data could not be read again"
    data = Path(shutil.copytree(segmented.data, tmp_path / "data"))
    found = run_folder.validation_images(run, plan)
    assert (found.description, [image.geometry.shape for image in found]) == ("1 of 1 validation case", [(16, 16, 16)])
    for mask in (data / "labels").iterdir():
        if mask.name != "case00.nii.gz":
            shutil.copy(data / "labels" / "case00.nii.gz", mask)
    [changed] = {path.name: path for path in (data / "images").glob("case00*")}.values()
    changed.write_bytes((data / "images" / "case01.nii.gz").read_bytes())
    found = run_folder.validation_images(run, plan)
    assert (found.description, list(found)) == ("the run's validation cases are not what they were", [])


def test_a_backend_that_nobody_knows_is_refused_before_anything_is_written(segmented, tmp_path):
    with pytest.raises(UsageError, match="no backend 'abacus'"):
        hilum.package(segmented.out, out=tmp_path / "out", backends=("abacus",))
    assert not list(tmp_path.iterdir())
