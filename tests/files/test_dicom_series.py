"""Series are told apart from headers only, and nobody's identity leaves them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage, SegmentationStorage

from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom.reading import series_survey
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.values import Label
from written_dicom import write_slice


def test_the_series_of_a_medium_are_found_without_looking_at_pixels(data: Path) -> None:
    found = series_survey.list_series(data / "dicom" / "series" / "dicomdir_fileset")
    assert len(found) == 13
    assert len({files.patient for files in found}) == 2  # three folders: two of them have the same PatientID
    assert {files.modality for files in found} == {"CR", "CT", "MR"}
    assert sum(len(files.paths) for files in found) == 31  # all but the DICOMDIR
    assert all(files.is_image for files in found)


def test_references_point_at_the_series_they_were_contoured_on(data: Path, tmp_path: Path) -> None:
    hippocampus = file_formats.read(data / "dicom" / "series" / "mr_hippocampus_001")
    mask = np.ones(hippocampus.geometry.shape, np.uint8)
    result = Result(hippocampus, "a test", [("", mask, [Label(1, "whole")])])
    list(ANSWERS["rtstruct"].write(result, tmp_path / "case"))
    assert hippocampus.source is not None
    for source in (
        *map(Path, hippocampus.source.paths),
        *(data / "dicom" / "series" / "ct_23x38x3_with_seg").iterdir(),
        data / "dicom" / "files" / "dcmqi_seg_23x38x3.dcm",
    ):
        shutil.copy(source, tmp_path)
    check_references(tmp_path)


def test_references_of_another_program_point_at_the_series_they_were_contoured_on(corpus: Path, tmp_path: Path) -> None:
    for source in (
        *(corpus / "dicom" / "series" / "ct_phantom_with_rtstruct").iterdir(),
        *(corpus / "dicom" / "series" / "ct_23x38x3_with_seg").iterdir(),
        corpus / "dicom" / "files" / "rtutils_rtstruct_phantom.dcm",
        corpus / "dicom" / "files" / "dcmqi_seg_23x38x3.dcm",
    ):
        shutil.copy(source, tmp_path)
    check_references(tmp_path)


def check_references(folder: Path) -> None:
    """Of two series a structure set and a segmentation lie beside them, and each leads to its own."""
    found = {files.uid: files for files in series_survey.list_series(folder)}
    contoured = [files for files in found.values() if not files.is_image]
    assert sorted(files.modality for files in contoured) == ["RTSTRUCT", "SEG"]
    for files in contoured:
        (target,) = files.references
        assert found[target].is_image
    assert len({files.patient for files in contoured}) == 2


def test_each_contoured_object_stands_by_itself_and_states_what_it_was_contoured_on(tmp_path: Path) -> None:
    for number in (2, 1):
        path = tmp_path / f"{9 - number}.dcm"
        stated = [Dataset()]
        stated[0].SeriesInstanceUID = f"1.2.{number}"
        tags = {"SOPInstanceUID": f"1.9.{3 - number}", "InstanceNumber": number, "ReferencedSeriesSequence": stated}
        write_slice(path, np.ones((2, 2), np.uint16), sop_class=SegmentationStorage, Modality="SEG", **tags)
    found = series_survey.list_series(tmp_path)
    assert [files.references for files in found] == [("1.2.1",), ("1.2.2",)]
    assert [files.name for files in found] == ["SEG_1", "SEG_2"]


def test_the_identity_of_the_patient_stays_inside(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", np.ones((2, 2), np.uint16), SeriesDescription="Doe, Jane: secret-4711")
    (files,) = series_survey.list_series(tmp_path)
    shown = repr(files).replace(str(tmp_path), "")
    assert not any(word in shown for word in ("Doe", "Jane", "4711", "secret"))


JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def described(name: str, identifier: str, description: str) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID, dataset.SeriesDescription = name, identifier, description
    dataset.Modality = "MR"
    return dataset


@pytest.mark.parametrize(
    ("name", "identifier", "description"),
    [
        ("Иванов^Иван", "4711", "ИВАНОВ T1"),
        (JAPANESE, "4711", "山田太郎 T1"),
        (JAPANESE, "4711", "頭部やまだたろう"),
        (JAPANESE, "4711", "T1 yamada"),
        ("王^东", "4711", "王东头颅平扫"),
        ("홍^길동", "4711", "T1 홍길동"),
        ("Öz^Ün", "4711", "Oz Un T1"),
        ("Oz^Un", "4711", "ÖZ T1"),
        ("Li^Wu", "4711", "Li Wu T1"),
        ("Li^Wu", "4711", "T1_LiWu"),
        ("Li Wu", "4711", "wuli T1"),
        ("Le^Minh", "4711", "Le T1"),
        ("Doe^Jane", "4711", "DoeJane_T1"),
        ("Doe^Jane", "4711", "T1 JDoe"),
        ("Doe^J", "4711", "T1doej"),
        ("Schmidt^Jo", "4711", "MRTSCHMIDT"),
        ("Doe^Jane", "47-11", "T1 47 11"),
        ("Doe^Jane", "4711", "T1 47-11"),
        ("Doe^Jane", "10 4711", "T1_ID104711"),
        ("Doe^Jane^^Prof", "4711", "T1 prof"),
    ],
)
def test_a_description_that_names_the_patient_in_any_script_or_spelling_is_left_out(
    name: str, identifier: str, description: str
) -> None:
    dataset = described(name, identifier, description)
    assert series_survey.anonymous_description(dataset) == ""
    assert series_survey.safe_name(dataset) == "MR"


@pytest.mark.parametrize(
    "description",
    ["T1 axial", "AX T2 FLAIR", "Thorax Li", "MR Becken", "CT Abdomen/Pelvis", "columna de la pelvis", "ep2d_b1000",
     "造影 T1", "t1_mprage_sag_p2_iso_1.0", "Knie re. PDw", "ДВИ голова"],
)  # fmt: skip
def test_ordinary_descriptions_of_other_patients_are_kept(description: str) -> None:
    for name in ("Beck^Anna", "Abdo^Al", "de la Cruz^Mia", "Mr John Doe", "Smith^Jo^^Dr", JAPANESE):
        for identifier in ("1", "12", "1000", "T1"):
            assert series_survey.anonymous_description(described(name, identifier, description)) == description


def test_one_person_has_one_hash_and_two_have_two() -> None:
    def person(**tags: str) -> str:
        dataset = Dataset()
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        return series_survey.pseudonym_from_header(dataset)

    assert person(PatientID="7", StudyInstanceUID="1.2") == person(PatientID="7", StudyInstanceUID="1.3")
    assert person(PatientID="7") != person(PatientID="8")
    assert person(PatientID="7", IssuerOfPatientID="here") != person(PatientID="7", IssuerOfPatientID="there")
    # Without an identifier nothing ties studies together.
    assert person(StudyInstanceUID="1.2") != person(StudyInstanceUID="1.3")


def test_a_damaged_file_is_named_and_the_others_are_found(tmp_path: Path) -> None:
    good = write_slice(tmp_path / "good.dcm", np.ones((2, 2), np.uint16))
    (tmp_path / "bad.dcm").write_bytes(good.read_bytes()[:150])
    found = series_survey.survey_folder(tmp_path)
    assert [files.paths for files in found.series] == [(good,)]
    assert [Path(error.where).name for error in found.damaged] == ["bad.dcm"]
    with pytest.raises(FormatError, match=r"bad\.dcm"):
        series_survey.list_series(tmp_path)


def test_files_of_one_series_uid_but_another_kind_are_another_series(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", np.ones((2, 2), np.uint16), sop_class=CTImageStorage)
    write_slice(tmp_path / "b.dcm", np.ones((2, 2), np.uint16), sop_class=BasicTextSRStorage, PixelData=None, Rows=None)
    assert [files.is_image for files in series_survey.list_series(tmp_path)] in ([True, False], [False, True])


def test_a_slice_of_another_patient_in_a_series_is_counted_and_nobody_is_named(tmp_path: Path) -> None:
    for number in range(4):
        person = {"PatientID": "0815", "PatientName": "Roe^Richard"} if number == 2 else {}
        write_slice(tmp_path / f"{number}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, number), **person)
    with pytest.raises(FormatError, match=r"belong to 2 patients \(3 and 1 files\)") as refusal:
        file_formats.read(tmp_path)
    assert not any(word in str(refusal.value) for word in ("4711", "0815", "Doe", "Roe"))


def test_a_file_that_states_no_patient_makes_no_second_one_of_a_series(tmp_path: Path) -> None:
    for number in range(4):
        person = {"PatientID": "", "PatientName": ""} if number == 2 else {}
        write_slice(tmp_path / f"{number}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, number), **person)
    assert file_formats.read(tmp_path).geometry.shape == (2, 2, 4)


def test_order_and_names_do_not_depend_on_file_names(tmp_path: Path) -> None:
    for folder, names in (("one", "abc"), ("two", "cab")):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            write_slice(
                tmp_path / folder / name, np.ones((2, 2), np.uint16), SeriesInstanceUID=f"1.2.{number}",
                SeriesDescription="same", SeriesNumber=number,
            )  # fmt: skip
    found = [
        [(files.uid, files.name) for files in series_survey.list_series(tmp_path / folder)] for folder in ("one", "two")
    ]
    assert found[0] == found[1] == [("1.2.0", "same_1"), ("1.2.1", "same_2"), ("1.2.2", "same_3")]


@given(st.lists(st.sampled_from(("a", "a_1", "b", "a_2")), max_size=8))
def test_unique_names_are_unique_and_keep_what_was_unique(names: list[str]) -> None:
    found = series_survey.unique_names(names)
    assert len(set(found)) == len(names)
    assert all(new == old for new, old in zip(found, names, strict=True) if names.count(old) == 1)


@given(st.text(max_size=80))
def test_a_name_is_safe_for_any_file_system(stated: str) -> None:
    dataset = Dataset()
    dataset.add_new("SeriesDescription", "LO", stated)
    name = series_survey.safe_name(dataset)
    assert name and set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
    assert not name.startswith((".", "-")) and len(name) <= 60


def test_who_was_scanned_and_by_what_are_covariates_and_no_identity_is_among_them(tmp_path: Path) -> None:
    stated = {"PatientAge": "045Y", "PatientSex": "F", "Manufacturer": "Acme", "ManufacturerModelName": "Ring 3"}
    scanner = {"KVP": "120", "ConvolutionKernel": "B30f", "MagneticFieldStrength": "1.5"}
    write_slice(tmp_path / "a.dcm", np.ones((2, 2), np.uint16), **stated, **scanner, PatientBirthDate="19800101")
    (files,) = series_survey.list_series(tmp_path)
    assert {name: value for name, value in files.covariates.items() if value is not None} == {
        "age": 45.0,
        "sex": "F",
        "manufacturer": "Acme",
        "model": "Ring 3",
        "field_strength": 1.5,
        "kv": 120.0,
        "kernel": "B30f",
    }


def test_a_header_that_says_that_nobody_knows_states_nothing(tmp_path: Path) -> None:
    unknown = {"Manufacturer": "UNKNOWN", "ManufacturerModelName": "n/a", "BodyPartExamined": "CHEST"}
    write_slice(tmp_path / "a.dcm", np.ones((2, 2), np.uint16), **unknown)
    (files,) = series_survey.list_series(tmp_path)
    assert [files.covariates[name] for name in ("manufacturer", "model", "body_part")] == [None, None, "CHEST"]
