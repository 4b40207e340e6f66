"""The DICOM objects of a result: which kinds are written, and what stops none of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage

import real_data
from hilum.errors import FormatError, UsageError
from hilum.files import file_formats
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.prediction import answers as prediction_answers
from hilum.prediction import result_files
from hilum.prediction.answers import WantedFiles
from hilum.values import Case, Geometry, Image, Label
from written_dicom import write_slice


def result_on(source: Path) -> Result:
    for n in range(3):
        write_slice(source / f"{n}.dcm", np.zeros((8, 9), "i2"), position=(0.0, 0.0, float(n)))
    image = file_formats.read(source)
    mask = np.zeros(image.geometry.shape, np.uint8)
    mask[2:4, 2:5, 1] = 1
    return Result(image, "test", [("", mask, [Label(1, "spot")])])


def test_an_answer_that_cannot_be_written_never_stops_the_others_and_is_named(tmp_path: Path):
    (tmp_path / "series").mkdir()
    wanted = WantedFiles(answers=("sr", "labelmap", "seg"))
    files, lacking = prediction_answers.write_answers(
        result_on(tmp_path / "series"), wanted.answers, tmp_path / "case", wanted
    )
    assert [path.name for path in files] == ["case_labelmap.dcm", "case.dcm"]
    assert [one.what for one in lacking] == ["no DICOM report: the result has not a finding"]


def test_where_dicom_alone_is_asked_for_and_none_can_be_written_the_case_fails(tmp_path: Path):
    image = Image(np.zeros((1, 4, 4)), Geometry((4, 4), np.eye(3)), modality="CT", channels=("CT",))
    result = Result(image, "test", [("", np.ones((4, 4), np.uint8), [Label(1, "spot")])])
    wanted = WantedFiles("dcm", answers=("seg", "rtstruct"))
    with pytest.raises(FormatError, match="needs a DICOM series"):
        prediction_answers.write_answers(result, wanted.answers, tmp_path / "case", wanted)


@pytest.mark.parametrize(("format", "answers", "match"), [("auto", ("foo",), "foo"), ("png", ("seg",), "png")])
def test_unknown_kinds_and_formats_without_dicom_are_refused(format: str, answers: tuple[str, ...], match: str):
    with pytest.raises(UsageError, match=match):
        WantedFiles(format, answers=answers)


def three_volumes(folder: Path) -> Path:
    """A simulated MR of three slices at three times."""
    folder.mkdir()
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 500, (9, 12, 12)).astype(np.uint16)):
        time, depth = divmod(n, 3)
        tags = {"TemporalPositionIdentifier": time + 1, "InstanceNumber": n + 1}
        write_slice(folder / f"{n}.dcm", pixels, position=(0, 0, 2 * depth), sop_class=MRImageStorage, **tags)
    return folder


@pytest.mark.parametrize("series", ["simulated", *real_data.parameters("dicom/series", ["mr_ge_epi_interleaved_3vol"])])
def test_of_a_series_of_several_volumes_each_in_which_something_is_marked_has_a_seg_on_its_own_images(series, tmp_path):
    folder = real_data.find(f"dicom/series/{series}")
    if series == "simulated":
        folder = three_volumes(tmp_path / "series")
    [series] = file_formats.read_volumes(folder).values()
    mask = np.zeros((series.frames, *series.geometry.shape), np.uint8)
    mask[0, 2:9, 3:8, 1] = mask[2, 2:6, 3:8, 1] = 1
    result, wanted = Result(series, "test", [("", mask, [Label(1, "spot")])]), WantedFiles(answers=("seg", "stl"))
    files, lacking = prediction_answers.write_answers(result, wanted.answers, tmp_path / "case", wanted)
    assert [path.name for path in files] == ["case_volume_1.dcm", "case_volume_3.dcm"]
    assert [one.what for one in lacking] == [
        "no DICOM surface: the series holds 3 volumes, and an object of this kind belongs to one"
    ]
    for path, number in zip(files, (0, 2), strict=True):
        made = pydicom.dcmread(path)
        [image] = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
        source = pydicom.dcmread(series.source.header["volumes"][number][1][0], stop_before_pixels=True)
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert made.pixel_array.sum() == mask[number].sum()


def test_no_case_has_the_name_of_an_object_of_another_case():
    names = ("a", "a_stl", "a_stl_2", "a_total_PM_2", "a_volume_2")
    cases = [Case(name, name, {}) for name in names]
    own = ["a", "a_stl_", "a_stl_2_", "a_total_PM_2_", "a_volume_2_"]
    assert [case.id for case in result_files.with_unique_names(cases, ["total"])] == own


def test_that_no_structure_has_a_surface_is_said(tmp_path: Path):
    (tmp_path / "series").mkdir()
    result, wanted = result_on(tmp_path / "series"), WantedFiles("dcm", answers=("stl",))
    files, lacking = prediction_answers.write_answers(result, wanted.answers, tmp_path / "case", wanted)
    assert [path.name for path in files] == ["case_stl.dcm"]
    empty = replace(result, label_maps=[("", np.zeros_like(result.label_maps[0][1]), result.label_maps[0][2])])
    files, lacking = prediction_answers.write_answers(empty, wanted.answers, tmp_path / "empty", wanted)
    assert (files, [one.what for one in lacking]) == ([], ["no DICOM surface: no structure has a voxel"])


def test_the_page_of_a_result_is_burned_in_with_the_date_of_the_study(tmp_path: Path):
    (tmp_path / "series").mkdir()
    result = result_on(tmp_path / "series")
    page = result_files.draw_result_page(replace(result, limits=["only a part was looked at"]), "For research use only")
    assert page.text == "For research use only"
    assert page.heads[0] == "Result of test"
    assert "study of" in page.heads[1] or "without a date" in page.heads[1]
    assert page.notes == ["Only a part was looked at."]
    wanted = WantedFiles(answers=("sc", "pdf"))
    files, lacking = prediction_answers.write_answers(
        replace(result, page=lambda: page), wanted.answers, tmp_path / "case", wanted
    )
    assert ([path.name for path in files], lacking) == (["case_sc.dcm", "case_pdf.dcm"], [])
    assert pydicom.dcmread(files[0]).pixel_array.tolist() == page.pixels().tolist()
