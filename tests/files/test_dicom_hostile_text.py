"""Text in DICOM headers that was damaged, or written to harm: read as what it is, cut or refused, and never obeyed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

import hilum
from hilum import errors
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom import object_identity
from hilum.files.dicom import tags as dicom_tags
from hilum.files.dicom.reading import series_survey
from hilum.files.dicom.tags import LONGEST_TEXT
from hilum.files.storage import csv_text
from written_dicom import write_slice

HTML = "<script>alert(1)</script>"
STEERING = "T1\x1b]0;owned\x07\x1b[2J"
NO_NUMBERS = (
    "1+1", "2*3", "__import__('os').system('id')", "$(id)", "one", "1_000", "0x10", "1,5", "1e", "--1", "nan",
    "\u0661\u0662",
    "1" * 10_000, "0." + "1" * 9_998, "1" + " " * 10_000 + "1",
)  # fmt: skip


def slices(folder: Path, raw: dict[str, bytes] | None = None, vr: str | None = None, **tags: Any) -> Path:
    """A series of two slices; raw: the bytes of attributes, whatever their VR allows."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(2):
        path = write_slice(folder / f"{n}.dcm", np.full((4, 4), n, np.uint16), position=(0, 0, n), **tags)
        if raw:
            dataset = pydicom.dcmread(path)
            for keyword, value in raw.items():
                tag = Tag(keyword)
                kind = vr or pydicom.datadict.dictionary_VR(tag)
                dataset._dict[tag] = RawDataElement(tag, kind, len(value), value, 0, False, True)
            dataset.save_as(path)
    return folder


@pytest.mark.parametrize("written", NO_NUMBERS, ids=lambda text: text[:12])
@pytest.mark.parametrize("vr", ["DS", "UT"])
def test_text_that_is_no_number_is_refused_by_its_attribute_and_never_repeated(written: str, vr: str) -> None:
    dataset, value = pydicom.Dataset(), written.encode()
    tag = Tag("SliceThickness")
    dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    with pytest.raises(FormatError, match=r"SliceThickness \(0018,0050\): ") as refusal:
        dicom_tags.numbers(dataset, "SliceThickness", "here")
    assert written not in refusal.value.problem


@pytest.mark.parametrize(("written", "number"), [(" -1.50 ", -1.5), ("1e-3", 0.001), ("+.5", 0.5), ("3.\0", 3.0)])
def test_numbers_as_scanners_write_them_are_numbers_in_any_kind_of_text(written: str, number: float) -> None:
    for vr in ("DS", "UT", "LT", "ST", "LO"):
        dataset, value, tag = pydicom.Dataset(), f"{written}\\{written}".encode(), Tag("PixelSpacing")
        dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
        assert dicom_tags.numbers(dataset, "PixelSpacing", "here", 2) == (number, number)


def test_the_last_digit_is_that_of_the_text() -> None:
    dataset = pydicom.Dataset()
    dataset.ImagePositionPatient = ["-10", "12.50", "1.25e1"]
    assert dicom_tags.last_digits(dataset, "ImagePositionPatient") == pytest.approx((1, 0.01, 0.1))


@pytest.mark.parametrize(
    ("keyword", "written"),
    [("PixelSpacing", b"1_0\\1 "), ("RescaleSlope", b"1+1 "), ("ImagePositionPatient", b"0\\0\\" + b"1" * 10_000)],
)
def test_a_series_with_an_expression_for_a_number_is_refused_by_its_attribute(tmp_path, keyword, written) -> None:
    with pytest.raises(hilum.HilumError, match=keyword):
        hilum.read(slices(tmp_path / "odd", {keyword: written}))


def test_a_damaged_number_that_only_orders_counts_as_absent(tmp_path) -> None:
    folder = slices(tmp_path / "odd", {"InstanceNumber": b"1+1 ", "SeriesNumber": b"9" * 10_000})
    assert hilum.read(folder).shape == (1, 4, 4, 2)
    assert [one.number for one in series_survey.list_series(folder)] == [None]


def test_words_of_a_list_are_parted_in_any_kind_of_text(tmp_path) -> None:
    folder = slices(tmp_path / "odd", {"ImageType": b"ORIGINAL\\PRIMARY\\AXIAL "}, vr="UT")
    assert dicom_tags.words(pydicom.dcmread(folder / "0.dcm"), "ImageType") == ("ORIGINAL", "PRIMARY", "AXIAL")


def test_names_with_control_characters_reach_no_terminal_and_no_file_name(tmp_path, cli) -> None:
    folder = slices(tmp_path / "odd", SeriesDescription=STEERING, PatientName=f"Doe^{STEERING}", Manufacturer=STEERING)
    image = hilum.read(folder)
    assert "description" not in image.facts
    done = cli("check", folder, "--out", tmp_path / "check")
    assert "\x1b" not in done.out + done.err
    assert errors.printable_text(STEERING) == r"T1\x1b]0;owned\x07\x1b[2J"
    assert not [path for path in tmp_path.rglob("*") if "\x1b" in path.name]


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "1.2/../../3", "/etc/evil", "1.2\\3", "1.2 && id"])
def test_a_uid_that_is_a_path_names_no_file(tmp_path, uid) -> None:
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    folder = slices(tmp_path / "in" / "odd")
    for n, path in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(path)
        for keyword in uids:
            value = f"{uid}{n if keyword == 'SOPInstanceUID' else ''}".encode()
            dataset._dict[Tag(keyword)] = RawDataElement(Tag(keyword), "UI", len(value), value, 0, False, True)
        dataset.save_as(path)
        with pytest.raises(FormatError, match="no UID"):
            object_identity.read_identity(path)
    [name] = file_formats.read_volumes(folder)
    assert "/" not in name and hilum.read(folder).shape == (1, 4, 4, 2)
    hilum.convert(folder, tmp_path / "in" / "out.nii.gz")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_patient_name_of_64_kb_is_cut_with_a_note(tmp_path) -> None:
    long = "Doe^Jane " * 7_000
    folder = slices(tmp_path / "odd", {"PatientName": long.encode()[:65_534]}, SeriesDescription="T1 axial")
    image = hilum.read(folder)
    assert [note for note in image.notes if note.startswith("PatientName (0010,0010) is longer than 1024 characters")]
    assert "description" not in image.facts  # of such a name nobody can say what of a text is of it
    assert len(dicom_tags.text(pydicom.dcmread(folder / "0.dcm"), "PatientName")) <= LONGEST_TEXT


def test_a_description_that_has_swallowed_the_file_is_not_shown() -> None:
    dataset = pydicom.Dataset()
    dataset.PatientName = "Doe^Jane"
    dataset.add_new("SeriesDescription", "UT", "T1 " * 350_000 + "Doe Jane")
    assert (
        series_survey.anonymous_description(dataset) == ""
    )  # looked at in the square of its words it would take hours


def test_markup_and_formulas_of_a_description_stay_text_in_page_and_table(tmp_path) -> None:
    for n, description in enumerate((HTML, "=HYPERLINK(1)", "@SUM(A1)", "-2+3")):
        own = {"PatientID": f"p{n}", "SeriesInstanceUID": f"1.2.{n}", "StudyInstanceUID": f"1.{n}"}
        slices(tmp_path / "set" / str(n), SeriesDescription=description, Manufacturer=description, **own)
    found = hilum.check(tmp_path / "set", case_names="description", out=tmp_path / "check")
    assert len(found.dataset) == 4
    page = (tmp_path / "check" / "check.html").read_text()
    assert HTML not in page and "<script>alert" not in page
    makers = [case.covariates["manufacturer"] for case in found.dataset.cases]
    csv_text.write_table(pandas.DataFrame({"manufacturer": makers, "dice": -0.5}), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        (_, *rows) = csv.reader(file)
    assert {maker for maker, _ in rows} == {HTML, "'=HYPERLINK(1)", "'@SUM(A1)", "'-2+3"}
    assert {dice for _, dice in rows} == {"-0.5"}
