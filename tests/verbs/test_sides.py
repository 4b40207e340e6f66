"""Volumes whose left and right nobody knows, where labels tell left from right."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import hilum
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.prediction import case_prediction, predictors
from hilum.prediction.case_prediction import CaseRequest
from hilum.values import Case
from situations import SHAPE, noisy_scan, sided_network, write_scan

SIDED, PLAIN = "1=left_kidney,2=right_kidney", "1=kidney,2=tumour"


@pytest.fixture
def sided(tmp_path) -> Path:
    """A network that calls what lies in the patient's left the left kidney, and one volume with and without sides."""
    sided_network(tmp_path / "model")
    voxels = np.full(SHAPE, 100, np.int16)
    # Stored as LPS: the first one is the left kidney.
    voxels[16:19, 12:15, 8:12] = 200
    voxels[5:8, 9:12, 8:12] = 200
    for name, code in (("stated", 1), ("unstated", 0)):
        write_scan(tmp_path / "scans" / f"{name}.nii", voxels, np.diag([-1.0, -1.0, 2.0, 1.0]), (code, code))
    return tmp_path


def labelled(folder: Path, codes: list[int], suffix: str = ".nii.gz") -> Path:
    """Small cases, with these codes of sform and qform, or in a format without orientation."""
    for n, code in enumerate(codes):
        image = np.random.default_rng(n).normal(100, 8, (12, 12, 8)).astype(np.int16)
        mask = np.zeros(image.shape, np.uint8)
        mask[2:4, 4:8, 3:6], mask[8:10, 4:8, 3:6] = 1, 2
        for name, voxels in (("images", image + np.int16(80) * (mask > 0)), ("labels", mask)):
            path = folder / name / f"p{n}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".npy":
                np.save(path, voxels)
                continue
            if suffix == ".nrrd":  # spacings in place of directions
                kind, sizes = {"int16": "short", "uint8": "uchar"}[str(voxels.dtype)], "12 12 8"
                fields = f"type: {kind}\ndimension: 3\nsizes: {sizes}\nspacings: 1 1 2\nencoding: raw\nendian: little"
                path.write_bytes(f"NRRD0004\n{fields}\n\n".encode() + voxels.tobytes(order="F"))
                continue
            header = nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]))
            header.header.set_xyzt_units("mm")
            header.set_sform(header.affine, code)
            header.set_qform(header.affine, code)
            header.to_filename(path)
    return folder


def test_a_volume_without_sides_is_refused_where_labels_name_them_and_the_others_go_on(sided):
    result = hilum.predict(sided / "model" / "network.onnx", sided / "scans", device="cpu")
    assert list(result.predictions) == ["stated"]
    [problem] = result.failures
    assert problem.cases == ("unstated",)
    assert "left_kidney, right_kidney" in problem.what
    assert "--orientation RAS" in problem.remedy


def test_a_stated_orientation_gives_the_result_of_the_file_that_states_it(sided, tmp_path):
    out = tmp_path / "result"
    model = sided / "model" / "network.onnx"
    result = hilum.predict(model, sided / "scans", out=out, device="cpu", orientation="LPS")
    stated, unstated = (hilum.read(out / f"{name}.nii.gz") for name in ("stated", "unstated"))
    assert_array_equal(unstated.data, stated.data)
    assert (stated.data[0, 17, 13, 9], stated.data[0, 6, 10, 9]) == (1, 2)  # the first lies at the patient's left
    assert unstated.geometry.orientation == "LPS"
    [warning] = result.problems
    assert warning.cases == ("unstated",)
    assert "its axes grow to LPS, as --orientation states" in warning.what
    assert '"orientation": "LPS"' in (out / "summary.json").read_text()


def test_an_image_in_memory_and_an_array_without_sides_are_refused_and_stated_alike(sided, tmp_path):
    """Neighbours: the same voxels as a NumPy array, and read by Python; another direction exchanges left and right."""
    model = hilum.load(sided / "model" / "network.onnx", "cpu")
    image = hilum.read(sided / "scans" / "unstated.nii")
    with pytest.raises(GeometryError, match="left and right are not known"):
        model.predict(image)
    turned = model.predict(image.along("RPS")).data
    assert (turned[17, 13, 9], turned[6, 10, 9]) == (2, 1)
    [seen] = hilum.predict(model, image, orientation="LPS").predictions.values()
    assert (seen.data[17, 13, 9], seen.data[6, 10, 9]) == (1, 2)


def test_a_node_refuses_such_a_series_by_its_header(sided):
    model = hilum.load(sided / "model" / "network.onnx", "cpu")
    case = Case("answer", "p", {"image": hilum.read(sided / "scans" / "unstated.nii")})
    with pytest.raises(GeometryError, match="labels tell them apart"):  # which the node reports as refused
        case_prediction.compute_case(model, case, predictors.image_of_case(case), CaseRequest())


def test_an_evaluation_names_the_cases_without_sides_and_scores_the_others(sided, tmp_path):
    cases = labelled(tmp_path / "set", [1, 0, 1])
    model = sided / "model" / "network.onnx"
    result = hilum.evaluate(model, cases, labels=SIDED, device="cpu")
    assert [problem.cases for problem in result.failures] == [("p1",)]
    assert set(result.scored.table["case"]) == {"p0", "p2"}
    whole = hilum.evaluate(model, cases, labels=SIDED, device="cpu", orientation="LPS")
    assert set(whole.scored.table["case"]) == {"p0", "p1", "p2"}


def test_check_names_the_cases_of_a_set_of_which_half_state_no_sides(tmp_path):
    for n in range(10):
        image, mask = noisy_scan(n)
        codes = (n % 2, n % 2)
        write_scan(tmp_path / "images" / f"p{n:02d}.nii.gz", image, codes=codes)
        write_scan(tmp_path / "labels" / f"p{n:02d}.nii.gz", mask, codes=codes)
    result = hilum.check(tmp_path, labels=SIDED, modality="CT")
    [problem] = [one for one in result.problems if one.severity == "error"]
    assert problem.cases == ("p00", "p02", "p04", "p06", "p08")
    assert not result.passed
    assert "--orientation RAS" in problem.remedy
    with pytest.raises(DatasetError, match=r"of 5 of 10 cases, and labels .*: p00, p02, p04, p06, p08"):
        hilum.plan(tmp_path, labels=SIDED, modality="CT")


def test_a_stated_orientation_passes_the_check_as_a_note_and_stays_in_the_plan(tmp_path):
    cases = labelled(tmp_path, [0, 1, 0, 1])
    result = hilum.check(cases, labels=SIDED, modality="CT", orientation="LPS")
    assert result.passed
    [note] = [one for one in result.problems if "as --orientation states" in one.what]
    assert (note.severity, note.cases) == ("note", ("p0", "p2"))
    assert all(case.oriented for case in result.examination.fingerprint.cases)


@pytest.mark.parametrize("suffix", [".nii.gz", ".npy", ".nrrd"])
def test_without_a_side_among_the_labels_such_volumes_are_read_as_ever(tmp_path, suffix):
    cases = labelled(tmp_path, [0, 0, 0], suffix)
    assert hilum.check(cases, labels=PLAIN, modality="CT").passed
    assert not hilum.check(cases, labels="1=Niere links,2=Niere rechts", modality="CT").passed
    assert hilum.check(cases, labels=SIDED, modality="CT", orientation="RAS").passed


@pytest.mark.parametrize("letters", ["LLS", "RA", "XYZ", "RASS", "las"])
def test_letters_that_are_no_orientation_are_refused_before_anything_is_read(tmp_path, letters):
    with pytest.raises(UsageError, match="is no orientation"):
        hilum.check(tmp_path / "nowhere", orientation=letters)
    with pytest.raises(UsageError, match="is no orientation"):
        hilum.read(tmp_path / "nowhere.nii", orientation=letters)


def test_convert_writes_the_stated_orientation_into_the_file(tmp_path):
    source = labelled(tmp_path, [0]) / "images" / "p0.nii.gz"
    hilum.convert(source, tmp_path / "stated.nii.gz", orientation="PIR")
    assert "".join(nibabel.aff2axcodes(nibabel.load(tmp_path / "stated.nii.gz").affine)) == "PIR"
    assert_array_equal(hilum.read(tmp_path / "stated.nii.gz").data, hilum.read(source).data)
