"""What was contoured and is not in the label map is said by name: inputs of users, built anew, as `check` sees them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

import hilum
from hilum.verbs.check import Check


@pytest.fixture
def study(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The function that writes the input of a case of users, by its name."""

    def written(name: str) -> Path:
        script = data / "cases" / name / "make.py"
        if not script.is_file():
            pytest.skip(f"{script} is not there")
        monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
        runpy.run_path(str(script))
        return tmp_path / "study"

    return written


def sizes(checked: Check) -> list[dict[str, int]]:
    """{structure: voxels} of each case."""
    names = {label.value: label.name for label in checked.dataset.classes["mask"]}
    measured = [case.references["mask"] for case in checked.examination.fingerprint.cases]
    return [{names[value]: count for value, count in own.items() if value} for own in measured]


def findings(checked: Check, severity: str) -> list[str]:
    return [one.what for one in checked.problems if one.severity == severity]


def test_a_contour_that_is_traced_twice_is_the_structure_of_its_patient(study):
    checked = hilum.check(study("contour-traced-twice"))
    assert sizes(checked) == [{"body": 1200, "GTV": 420}] * 4
    assert findings(checked, "warning") == []


def test_a_contour_that_went_there_and_back_is_named_by_patient_and_structure(study):
    root = study("contour-traced-twice")
    path = root / "P3" / "rs.dcm"
    dataset = pydicom.dcmread(path)
    for contour in dataset.ROIContourSequence[1].ContourSequence:
        points = np.reshape([float(number) for number in contour.ContourData], (-1, 3))[:4]
        contour.ContourData = [f"{number:g}" for number in np.concatenate([points, points[::-1]]).ravel()]
    dataset.save_as(path)
    [lost] = [one for one in hilum.check(root).problems if one.severity == "warning"]
    assert lost.what == "GTV was contoured and has no voxel: its contours hold the centre of none"
    assert len(lost.cases) == 1
    # A structure that was not chosen is no loss.
    assert findings(hilum.check(root, labels="1=body"), "warning") == []


def test_contours_on_every_second_slice_are_said_and_interpolated_where_that_is_asked_for(study):
    root = study("contours-on-every-second-slice")
    plain = hilum.check(root)
    assert sizes(plain) == [{"GTV": 1600}] * 4
    assert findings(plain, "warning") == ["GTV is contoured on slices 2, 4, 6, 8 and not between them, on 3, 5, 7"]
    filled = hilum.check(root, fill_contours=True)
    assert sizes(filled) == [{"GTV": 2800}] * 4
    assert findings(filled, "warning") == []
    assert "mask: GTV is interpolated on 3 slices between contoured ones" in findings(filled, "note")


def test_a_fractional_segmentation_that_is_a_bit_mask_is_named(study):
    checked = hilum.check(study("fractional-bit-mask"))
    lost = [one for one in checked.problems if one.severity == "warning"]
    assert [one.what for one in lost] == [
        "tumour was contoured and has no voxel: none reaches one half: the highest value is 49 of 255"
    ]
    assert len(lost[0].cases) == 1


def test_regions_that_share_a_number_keep_their_names(study):
    checked = hilum.check(study("region-numbers-twice"))
    assert sizes(checked) == [{"GTV": 1200, "lung": 420}]
    said = "mask: several regions have the number 1: their order says whose contours are whose"
    assert said in findings(checked, "note")
