"""Tables beside DICOM: rows of slices, series, studies and patients, by whatever names DICOM gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cohorts import table, volume
from hilum.errors import DatasetError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import PSEUDONYMS, DatasetOptions
from written_dicom import write_slice

PEOPLE, SLICES = 4, 3


def archive(root: Path) -> Path:
    """Study, series and object each called by its UID, and files without suffix: one series of each patient."""
    for person in range(PEOPLE):
        folder = root / f"1.2.3.{person}" / f"1.2.3.{person}.1"
        folder.mkdir(parents=True)
        for n in range(SLICES):
            write_slice(
                folder / f"1.2.3.{person}.1.{n}",
                np.full((8, 8), 10 * person + n, np.uint16),
                position=(0, 0, 5.0 * n),
                SliceThickness=5,
                PatientID=f"MILLER-{person}",
                AccessionNumber=f"A{person}",
                StudyInstanceUID=f"1.2.3.{person}",
                SeriesInstanceUID=f"1.2.3.{person}.1",
                SOPInstanceUID=f"1.2.3.{person}.1.{n}",
                InstanceNumber=n + 1,
            )
    return root


def rows(of_slices: bool = True) -> list[str]:
    """Study, series, object, whether the slice shows it, whether any of the series does."""
    return [
        f"1.2.3.{person},1.2.3.{person}.1,1.2.3.{person}.1.{n},{int(n == 1 and person % 2)},{person % 2}"
        for person in range(PEOPLE)
        for n in range(SLICES)
        if of_slices or not n
    ]


HEADER = "study,series,object,slice_label,series_label"


def test_a_row_of_a_file_of_a_series_is_that_of_the_slice_whose_patient_is_the_series_own(tmp_path):
    table(archive(tmp_path) / "t.csv", HEADER, rows())
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "slice_label"}))
    assert len(dataset) == PEOPLE * SLICES
    assert [case.references["class"] for case in dataset] == [str(int(n in (4, 10))) for n in range(12)]
    assert {case.images["image"].geometry.shape for case in dataset} == {(8, 8, 1)}
    assert [case.images["image"].data.flat[0] for case in dataset.cases[:6]] == [0, 1, 2, 10, 11, 12]
    assert [len({case.patient for case in dataset.cases[n : n + 3]}) for n in range(0, 12, 3)] == [1, 1, 1, 1]
    assert len({case.patient for case in dataset}) == PEOPLE
    [note] = [problem for problem in dataset.problems if "single slice" in problem.what]
    assert note.what.startswith("12 rows name a single slice")
    assert "MILLER" not in f"{dataset.problems} {[case.id for case in dataset]}"


@pytest.mark.parametrize("column", ["series", "study"])
def test_rows_of_a_series_are_its_case_once_if_they_agree_and_what_differs_beside_is_not_known(tmp_path, column):
    table(archive(tmp_path) / "t.csv", HEADER, rows())
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "series_label", "image": column}))
    assert [case.references["class"] for case in dataset] == ["0", "1", "0", "1"]
    assert [len(case.files) for case in dataset] == [SLICES] * PEOPLE
    assert [case.covariates["slice_label"] for case in dataset] == [0, None, 0, None]
    assert len({case.patient for case in dataset}) == PEOPLE and dataset.patients_known
    with pytest.raises(DatasetError, match="state a different class"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "slice_label", "image": column}))


@pytest.mark.parametrize("name", ["1.2.3.{}", "1.2.3.{}.1", "A{}", "MILLER-{}"])
def test_a_study_or_series_is_named_by_its_uid_accession_number_or_patient_wherever_its_files_lie(tmp_path, name):
    archive(tmp_path / "made")
    for n, path in enumerate(sorted(path for path in (tmp_path / "made").rglob("*") if path.is_file())):
        path.rename(tmp_path / f"IM{n:04}")
    table(tmp_path / "t.csv", "who,label", [f"{name.format(n)},{'ill' if n else 'well'}" for n in range(PEOPLE)])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(case.references["class"] for case in dataset) == ["ill", "ill", "ill", "well"]
    [well] = [case for case in dataset if case.references["class"] == "well"]
    assert np.unique(well.images["image"].data).tolist() == [0, 1, 2]


def test_a_uid_that_no_file_has_is_not_taken_for_another_that_begins_alike(tmp_path):
    for person in range(2):
        own = {"StudyInstanceUID": f"1.2.{person}", "SeriesInstanceUID": f"1.2.{person}.1"}
        write_slice(tmp_path / f"9.8.{person}.7", np.ones((8, 8), np.uint16), PatientID=str(person), **own)
    table(tmp_path / "t.csv", "image,label", ["9.8.0.7,ill", "9.8.1.7,well", "9.8.1.9,ill"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.references["class"] for case in dataset] == ["ill", "well"]
    assert any("1 row names files that are not there" in problem.what for problem in dataset.problems)


def test_a_number_of_one_patient_and_of_another_ones_study_is_refused(tmp_path):
    for person in (1, 2):
        own = {"StudyInstanceUID": f"1.2.{person}", "SeriesInstanceUID": f"1.2.{person}.1"}
        numbers = {"PatientID": f"77{person}", "AccessionNumber": f"77{3 - person}"}
        write_slice(tmp_path / f"IM{person}", np.ones((8, 8), np.uint16), **own, **numbers)
    table(tmp_path / "t.csv", "number,label", ["771,ill", "772,well"])
    with pytest.raises(DatasetError, match="the PatientID of one person") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "771" not in str(refused.value)


def test_images_of_a_table_outside_its_folder_are_those_of_their_paths(tmp_path):
    archive(tmp_path / "far")
    archive(tmp_path / "near")
    paths = [(tmp_path / "far" / f"1.2.3.{n}" / f"1.2.3.{n}.1").resolve() for n in range(PEOPLE)]
    table(tmp_path / "near" / "t.csv", "image,label", [f"{path},{n % 2}" for n, path in enumerate(paths)])
    dataset = dataset_layouts.read_dataset(tmp_path / "near" / "t.csv")
    assert [{file.parent for file in case.files} for case in dataset] == [{path} for path in paths]


@pytest.mark.parametrize("word", ["ANONYMOUS", "Anon", "De-identified", "unknown", ""])
def test_studies_that_state_anybody_are_no_single_patient_and_a_warning_says_that_nobody_is_known(tmp_path, word):
    for n in range(3):
        own = {"StudyInstanceUID": f"1.2.{n}", "SeriesInstanceUID": f"1.2.{n}.1", "PatientID": word}
        write_slice(tmp_path / f"{n}.dcm", np.ones((8, 8), np.uint16), **own, PatientName=f"{word}^")
    table(tmp_path / "t.csv", "image,label", [f"{n}.dcm,{n % 2}" for n in range(3)])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len({case.patient for case in dataset}) == 3
    [problem] = [problem for problem in dataset.problems if "state no patient" in problem.what]
    assert (problem.severity, problem.what[:9]) == ("warning", "3 studies")


@pytest.mark.parametrize("are_apart", [False, True])
def test_names_of_files_say_whose_radiographs_are_where_no_header_does_but_not_numbers_that_begin_anew(
    tmp_path, are_apart
):
    names = [f"2067{n}908_6c613a14b80a8{n // 2:03d}_MG_{'LR'[n % 2]}_CC_ANON.dcm" for n in range(6)]
    if are_apart:
        names = [f"study{n}/IM-0001-0001.dcm" for n in range(6)]
    for n, name in enumerate(names):
        uid = f"1.2.{n}"
        own = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "SOPInstanceUID": f"{uid}.1.1"}
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_slice(tmp_path / name, np.ones((8, 8), np.uint16), **own, PatientID="removed", PatientName="removed")
    rows = [f"removed;{n if are_apart else 1};{name.partition('_')[0]};{n % 3}" for n, name in enumerate(names)]
    table(tmp_path / "clips.csv", "Patient ID;View;File Name;Bi-Rads", rows)
    if not are_apart:
        with pytest.raises(DatasetError, match="--column label=Bi-Rads") as refused:
            dataset_layouts.read_dataset(tmp_path)
        assert "names none" not in str(refused.value)
        dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "Bi-Rads"}))
    else:
        dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    people = [case.patient for case in dataset]
    assert len(set(people)) == (6 if are_apart else 3)
    assert are_apart or people[::2] == people[1::2]
    assert not any("6c613a14b80a8" in person for person in people)


def scanned(root: Path, folder: str, patient: str, number: int, **tags: str) -> None:
    """A series of two slices, whose values are its number."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    uid = f"1.2.{number}"
    own = {"PatientID": patient, "StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", **tags}
    for n in range(2):
        place = {"position": (0, 0, 5.0 * n), "InstanceNumber": n + 1}
        write_slice(root / folder / f"{number}_{n}.dcm", np.full((8, 8), number, np.uint16), **place, **own)


@pytest.mark.parametrize("named_by", ["folder", "path"])
def test_patients_that_a_table_states_go_before_those_of_headers_and_stay_hidden(tmp_path, named_by):
    """As in CBIS-DDSM, or after an anonymisation by visits: each image has another PatientID."""
    for n in range(6):
        scanned(tmp_path, f"scan{n}", f"VISIT-{n}", n)
    cells = [f"scan{n}" if named_by == "folder" else f"elsewhere/scan{n}" for n in range(6)]
    table(tmp_path / "t.csv", "scan,patient_id,label", [f"{cells[n]},MILLER-{n // 2},{n // 2 % 2}" for n in range(6)])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [int(case.images["image"].data.flat[0]) for case in dataset] == list(range(6))
    people = [case.patient for case in dataset]
    assert len(set(people)) == 3 and people[::2] == people[1::2]
    assert "column patient_id" in dataset.patients and PSEUDONYMS in dataset.patients
    assert "MILLER" not in f"{people} {dataset.patients} {dataset.problems} {[case.id for case in dataset]}"


def test_a_column_of_patients_that_were_removed_leaves_those_of_headers(tmp_path):
    for n in range(4):
        scanned(tmp_path, f"scan{n}", f"P{n // 2}", n)
    table(tmp_path / "t.csv", "scan,patient,label", [f"scan{n},removed,{n % 2}" for n in range(4)])
    assert len({case.patient for case in dataset_layouts.read_dataset(tmp_path)}) == 2


def test_paths_to_dicom_beside_no_table_have_the_patients_of_their_headers(tmp_path):
    for n in range(6):
        scanned(tmp_path / "archive", f"scan{n}", f"MILLER-{n // 2}", n)
    (tmp_path / "tables").mkdir()
    rows = [f"{(tmp_path / 'archive' / f'scan{n}').resolve()},{n // 2 % 2}" for n in range(6)]
    table(tmp_path / "tables" / "t.csv", "image,label", rows)
    dataset = dataset_layouts.read_dataset(tmp_path / "tables" / "t.csv")
    assert [case.patient for case in dataset][::2] == [case.patient for case in dataset][1::2]
    assert len({case.patient for case in dataset}) == 3 and dataset.patients_known
    assert "MILLER" not in f"{[case.patient for case in dataset]} {dataset.patients}"


def test_a_word_that_names_one_persons_series_and_another_person_is_refused(tmp_path):
    """Folders of series have numbers, and so have patients: series 5 of patient 2 is not that of patient 5."""
    for patient in range(1, 7):
        for series in (1, 2, 5) if patient == 2 else (1, 2):
            scanned(tmp_path, f"subject{patient}/{series}", str(patient), 10 * patient + series)
    table(tmp_path / "t.csv", "PatientID,label", [f"{n},{'ill' if n == 5 else 'well'}" for n in range(1, 7)])
    with pytest.raises(DatasetError, match="the name of one person's file or folder, and the number of another"):
        dataset_layouts.read_dataset(tmp_path)


def test_an_accession_number_that_two_hospitals_gave_names_neither_study(tmp_path):
    for n in range(4):
        scanned(tmp_path, f"scan{n}", f"P{n}", n, AccessionNumber=f"A{max(n, 1)}")
    table(tmp_path / "t.csv", "number,label", ["A1,ill", "A2,well", "A3,well"])
    with pytest.raises(DatasetError, match="of studies of several patients"):
        dataset_layouts.read_dataset(tmp_path)


def test_rows_of_series_that_are_not_here_are_not_those_of_others(tmp_path):
    """Slices of two series have equal names, and the longer one has names that no other has."""
    archive(tmp_path)
    for path in sorted(path for path in tmp_path.rglob("1.2*") if path.is_file()):
        path.rename(path.with_name(f"{path.name.rpartition('.')[2]}.dcm"))
    series = tmp_path / "1.2.3.0" / "1.2.3.0.1"
    write_slice(series / "7.dcm", np.zeros((8, 8), np.uint16), PatientID="MILLER-0", StudyInstanceUID="1.2.3.0",
                SeriesInstanceUID="1.2.3.0.1", position=(0, 0, 15), InstanceNumber=9)  # fmt: skip
    rows = [f"1.2.3.{n}/1.2.3.{n}.1/{slice_}.dcm,0" for n in range(4) for slice_ in range(SLICES)]
    table(tmp_path / "t.csv", "image,label", [*rows, "1.2.3.9/1.2.3.9.1/7.dcm,1"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.references["class"] for case in dataset} == {"0"} and len(dataset) == PEOPLE * SLICES
    assert any("1 row names files that are not there" in problem.what for problem in dataset.problems)


def test_label_maps_beside_dicom_are_not_the_images_of_a_table(tmp_path):
    """As in RSNA's set of the cervical spine: segmentations are called by the series, as the rows are."""
    archive(tmp_path / "images")
    for person in range(PEOPLE):
        volume(tmp_path / "segmentations" / f"1.2.3.{person}.nii", np.ones((8, 8, SLICES), np.uint8))
    table(tmp_path / "t.csv", "StudyInstanceUID,label", [f"1.2.3.{person},{person % 2}" for person in range(PEOPLE)])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [int(case.images["image"].data.max()) for case in dataset] == [2, 12, 22, 32]


def test_rows_of_a_finding_each_are_findings_of_their_image(tmp_path):
    """As in RSNA's set of intracranial haemorrhage, beside a sample of what to submit."""
    for n in range(6):
        scanned(tmp_path / "stage_2_train", "all", f"MILLER-{n // 2}", n)
    names = [f"{n}_{slice_}" for n in range(6) for slice_ in range(2)]
    kinds = ("epidural", "subdural", "any")
    rows = [f"{name}_{kind},{int(kind != 'epidural' and n % 2)}" for n, name in enumerate(names) for kind in kinds]
    table(tmp_path / "stage_2_train.csv", "ID,Label", rows)
    table(tmp_path / "stage_2_sample_submission.csv", "ID,Label", ["q_any,0.5"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"findings"} and len(dataset) == len(names)
    assert [case.references["findings"] for case in dataset.cases[:2]] == [
        dict.fromkeys(kinds, False), {"epidural": False, "subdural": True, "any": True},
    ]  # fmt: skip
    assert len({case.patient for case in dataset}) == 3
