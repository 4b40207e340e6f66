"""Tables as data sets come with: names without suffixes, the ends of paths, rows of case folders, lists of findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

import trained
from cohorts import classed, picture, table, volume
from hilum.errors import DatasetError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import dicom_cases, table_join
from hilum.layouts.layout import DatasetOptions
from hilum.values import Dataset


def classes(dataset: Dataset) -> dict[str, str]:
    return {case.id: case.references["class"] for case in dataset}


def test_rows_name_pictures_without_their_suffix(tmp_path):
    for n in range(4):
        picture(tmp_path / "train_images" / f"id{n}.png", n)
    table(tmp_path / "train.csv", "id_code,diagnosis", (f"id{n},{n % 2}" for n in range(4)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert classes(dataset) == {"id0": "0", "id1": "1", "id2": "0", "id3": "1"}
    assert [int(case.images["image"].data.max()) for case in dataset] == [0, 1, 2, 3]
    assert classes(dataset_layouts.read_dataset(tmp_path / "train.csv")) == classes(dataset)


def test_folders_into_which_a_set_was_parted_are_no_classes(tmp_path):
    for n in range(4):
        picture(tmp_path / f"HAM10000_images_part_{1 + n % 2}" / f"ISIC_{n}.png", n)
    table(
        tmp_path / "meta.csv",
        "lesion_id,image_id,dx,age",
        (f"L{n},ISIC_{n},{'nv' if n else 'mel'},5{n}" for n in range(4)),
    )
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert classes(dataset) == {"ISIC_0": "mel", "ISIC_1": "nv", "ISIC_2": "nv", "ISIC_3": "nv"}
    assert dataset.cases[1].covariates == {"lesion_id": "L1", "age": 51}
    (tmp_path / "meta.csv").unlink()
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_path_may_begin_where_the_set_once_lay(tmp_path):
    rows = []
    for n in range(4):
        picture(tmp_path / "train" / f"patient{n}" / "study1" / "view1.png", n)
        rows.append(f"Chest-v1.0/train/patient{n}/study1/view1.png,{n % 2}")
    table(tmp_path / "train.csv", "Path,label", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(int(case.images["image"].data.max()), case.references["class"]) for case in dataset] == [
        (0, "0"), (1, "1"), (2, "0"), (3, "1"),
    ]  # fmt: skip


def test_a_row_belongs_to_the_folder_of_a_case_with_all_its_images(tmp_path):
    for n in range(4):
        for value, name in enumerate(("t1", "flair")):
            volume(tmp_path / "train" / f"{n:05d}" / f"{name}.nii.gz", np.full((4, 5, 6), 10 * n + value, np.int16))
    table(tmp_path / "train_labels.csv", "BraTS21ID,MGMT_value,age", (f"{n:05d},{n % 2},4{n}" for n in range(4)))
    with pytest.raises(DatasetError, match=r"train_labels.csv has the columns BraTS21ID, MGMT_value") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "--column label=MGMT_value" in refused.value.remedy
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "MGMT_value"}))
    assert classes(dataset) == {"00000": "0", "00001": "1", "00002": "0", "00003": "1"}
    assert [int(image.data.max()) for image in dataset.cases[2].images.values()] == [21, 20]
    assert {name: image.modality for name, image in dataset.cases[2].images.items()} == {"flair": "MR", "t1": "MR"}
    assert dataset.cases[2].covariates == {"age": 42}


def test_a_column_of_subjects_names_images_and_patients(tmp_path):
    for n in range(4):
        volume(tmp_path / f"sub{n}.nii.gz")
    table(tmp_path / "labels.csv", "subject,diagnosis", (f"sub{n},{'AD' if n % 2 else 'CN'}" for n in range(4)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert classes(dataset) == {"sub0": "CN", "sub1": "AD", "sub2": "CN", "sub3": "AD"}
    assert dataset.patients_known
    assert [case.patient for case in dataset] == ["sub0", "sub1", "sub2", "sub3"]


def test_a_list_of_findings_is_known_by_the_name_that_its_column_has_in_published_tables(tmp_path):
    for n in range(3):
        picture(tmp_path / "images" / f"{n:08d}_000.png")
    rows = [f"{n:08d}_000.png,{each},{n}" for n, each in enumerate(("No Finding", "Effusion|Mass", "Mass"))]
    table(tmp_path / "Data_Entry_2017.csv", "Image Index,Finding Labels,Patient ID", rows)
    found = [case.references["findings"] for case in dataset_layouts.read_dataset(tmp_path)]
    assert found == [{"Effusion": n == 1, "Mass": n > 0} for n in range(3)]


def test_the_label_of_a_table_is_no_covariate(tmp_path):
    for n in range(4):
        picture(tmp_path / f"x{n}.png")
    table(tmp_path / "cases.csv", "image,label,age", (f"x{n}.png,{n % 2},4{n}" for n in range(4)))
    assert [case.covariates for case in dataset_layouts.read_dataset(tmp_path)] == [{"age": 40 + n} for n in range(4)]


def test_a_name_that_two_images_have_names_neither(tmp_path):
    for place in ("left", "right"):
        for n in range(3):
            picture(tmp_path / place / f"x{n}.png")
    table(tmp_path / "cases.csv", "name,label", (f"x{n},{n % 2}" for n in range(3)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.layout.startswith("a folder for each class")
    rows = (f"{place}/x{n},{n % 2}" for place in ("left", "right") for n in range(3))
    table(tmp_path / "cases.csv", "name,label", rows)
    with pytest.raises(DatasetError, match="can be read in 2 ways"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="manifest"))
    assert [case.references["class"] for case in dataset] == ["0", "1", "0"] * 2


def test_rows_without_an_image_are_said_and_left_out(tmp_path):
    for n in range(25):
        picture(tmp_path / "images" / f"x{n}.png")
    table(tmp_path / "cases.csv", "name,label", (f"x{n},{n % 2}" for n in range(30)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset) == 25
    assert "5 rows name files that are not there" in [problem.what for problem in dataset.problems]


def test_capital_letters_in_a_table_do_not_part_a_row_from_its_file_where_no_other_is_called_so(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"x{n}.png")
    table(tmp_path / "cases.csv", "image,label", (f"{'X' if n < 2 else 'x'}{n}.png,{n % 2}" for n in range(6)))
    found = dataset_layouts.read_dataset(tmp_path)
    assert [problem.what for problem in found.problems] == ["2 rows name files that are not there"]
    assert len(found) == 4 and all(case.images["image"].shape for case in found)
    picture(tmp_path / "images" / "x1.PNG")  # which of two is meant nobody knows
    assert "3 rows name files that are not there" in [
        problem.what for problem in dataset_layouts.read_dataset(tmp_path).problems
    ]


def test_a_table_that_names_other_images_says_so_and_does_not_ask_for_its_label_column(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"x{n}.png")
    table(tmp_path / "cases.csv", "image,label", (f"scan{n}.png,{n % 2}" for n in range(4)))
    with pytest.raises(DatasetError, match=r"image, label, and image names none of the images\. Write") as error:
        dataset_layouts.read_dataset(tmp_path)
    assert "label=label" not in str(error.value)


def test_where_no_row_has_its_file_the_error_states_why(tmp_path):
    picture(tmp_path / "x0.png")
    picture(tmp_path / "x0.PNG")  # which of the two is meant nobody knows
    table(tmp_path / "cases.csv", "image,label", ["X0.png,a"])
    reason = r"used: 1 row names files that are not there\. Correct the paths"
    with pytest.raises(DatasetError, match=reason):
        dataset_layouts.read_dataset(tmp_path)


def test_the_error_states_the_reason_that_left_rows_out_and_not_how_numbers_are_written(tmp_path):
    for number in range(4):
        picture(tmp_path / f"000{number}.png")
    lines = [f'{number},{"ab"[number % 2]},"4{number},5"\n' for number in range(4)]
    (tmp_path / "table.csv").write_text("image,class,age\n" + "".join(lines))
    with pytest.raises(DatasetError, match=r"used: 4 rows name files that are not there\. Correct the paths"):
        dataset_layouts.read_dataset(tmp_path / "table.csv")


def test_folders_of_classes_keep_them_beside_a_table_that_has_none(tmp_path):
    classed(tmp_path)
    names = sorted(path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.png"))
    table(tmp_path / "people.csv", "name,age", (f"{Path(name).name},{40 + n}" for n, name in enumerate(names)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.layout.startswith("a folder for each class")


@pytest.mark.whole
def test_such_a_table_trains(tmp_path):
    for n in range(12):
        picture(tmp_path / "scans" / f"id{n}.png", 200 * (n % 2) + n, shape=(32, 32))
    table(tmp_path / "train.csv", "id_code,diagnosis", (f"id{n},{'ill' if n % 2 else 'well'}" for n in range(12)))
    run = trained.classifying(tmp_path, tmp_path / "run", assignments=trained.TWO_STEPS)
    assert (run.out / "report.html").is_file()


def scanned(data: Path, place: Path, *patients: str, series: int = 1, issuer: str = "") -> Path:
    """Folders of DICOM, each of one patient, whose number an issuer gave."""
    for patient in patients:
        for number in range(series):
            own = place / f"scan_{patient}"
            own.mkdir(parents=True, exist_ok=True)
            for path in sorted((data / "dicom" / "series" / "mr_hippocampus_001").glob("*.dcm")):
                header = pydicom.dcmread(path)
                header.PatientID, header.PatientName, header.SeriesNumber = patient, "Miller", number + 1
                header.IssuerOfPatientID = issuer
                for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                    header[name].value = pydicom.uid.generate_uid(
                        entropy_srcs=[patient, issuer, str(number), header[name].value]
                    )
                header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
                header.save_as(own / f"{number}_{path.name}")
    return place


@pytest.mark.parametrize("column", ["PatientID", "folder"])
def test_rows_of_dicom_are_of_patients_or_folders_and_nobody_is_named(data, tmp_path, column):
    people = ("MILLER-7", "SMITH-8", "JONES-9")
    scanned(data, tmp_path, *people)
    cells = people if column == "PatientID" else [f"scan_{name}" for name in people]
    rows = [f"{cell},{'ill' if n == 1 else 'well'},4{n}" for n, cell in enumerate(cells)]
    table(tmp_path / "labels.csv", f"{column},diagnosis,grade", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(case.references["class"] for case in dataset) == ["ill", "well", "well"]
    assert {(case.references["class"], case.covariates["grade"]) for case in dataset} == {
        ("well", 40), ("ill", 41), ("well", 42),
    }  # fmt: skip
    assert dataset.patients_known
    told = " ".join([*(f"{case.id} {case.patient}" for case in dataset), dataset.patients, str(dataset.problems)])
    assert not any(name in told for name in people)
    assert all(case.images["image"].modality == "MR" for case in dataset)


def test_a_row_of_a_patient_is_that_of_each_series_and_missing_ones_are_counted_not_named(data, tmp_path):
    scanned(data, tmp_path, "MILLER-7", "SMITH-8", series=2)
    scanned(data, tmp_path, "BROWN-1")
    table(tmp_path / "labels.csv", "PatientID,diagnosis", ["MILLER-7,ill", "SMITH-8,well"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(case.references["class"] for case in dataset) == ["ill", "ill", "well", "well"]
    assert len({case.patient for case in dataset}) == 2
    [problem] = dataset.problems
    assert (problem.severity, problem.what) == ("warning", "1 image has no row in labels.csv")
    assert "BROWN" not in str(problem)


def test_a_table_of_patient_numbers_is_joined_to_cases_whose_patients_are_hidden(data, tmp_path):
    scanned(data, tmp_path / "scans", "MILLER-7", "007", series=2)
    cases = list(dataset_layouts.read_dataset(tmp_path / "scans", DatasetOptions(references=False)))
    whose = [(case.id, case.patient) for case in cases]
    table(tmp_path / "who.csv", "PatientID,sex", ["MILLER-7,F", "007,M", "BROWN-1,F"])
    read = table_join.covariates_of_cases(tmp_path / "who.csv", whose)[0]
    assert sorted(one["sex"] for one in read) == ["F", "F", "M", "M"]
    assert len({(patient, one["sex"]) for (_, patient), one in zip(whose, read, strict=True)}) == 2
    table(tmp_path / "vitals.csv", "PatientID,time,pulse", ["MILLER-7,0,80", "MILLER-7,60,90", "007,0,70"])
    courses = {
        patient: one["pulse"]
        for (_, patient), one in zip(
            whose, table_join.covariates_of_cases(tmp_path / "vitals.csv", whose)[0], strict=True
        )
    }
    assert sorted(one.values for one in courses.values()) == [(70.0,), (80.0, 90.0)]


def test_numbers_that_one_issuer_gave_are_known_by_the_number_alone(data, tmp_path):
    scanned(data, tmp_path / "scans", "MILLER-7", "007", issuer="north")
    cases = list(dataset_layouts.read_dataset(tmp_path / "scans", DatasetOptions(references=False)))
    whose, firsts = [(case.id, case.patient) for case in cases], [case.files[0] for case in cases]
    table(tmp_path / "who.csv", "PatientID,sex,diagnosis", ["MILLER-7,F,ill", "007,M,well"])
    assert sorted(row["sex"] for row in table_join.covariates_of_cases(tmp_path / "who.csv", whose, firsts)[0]) == [
        "F",
        "M",
    ]
    (tmp_path / "who.csv").rename(tmp_path / "scans" / "who.csv")
    labelled = dataset_layouts.read_dataset(tmp_path / "scans")
    assert {case.patient: case.references["class"] for case in labelled} == {
        case.patient: "ill" if "MILLER" in str(case.files[0]) else "well" for case in cases
    }


def test_numbers_of_two_issuers_are_refused_because_one_may_be_of_two_people(data, tmp_path):
    for issuer in ("north", "south"):
        scanned(data, tmp_path / "scans" / issuer, "MILLER-7", issuer=issuer)
    cases = list(dataset_layouts.read_dataset(tmp_path / "scans", DatasetOptions(references=False)))
    assert len({case.patient for case in cases}) == 2
    table(tmp_path / "who.csv", "PatientID,diagnosis", ["MILLER-7,ill"])
    with pytest.raises(DatasetError, match=r"2 issuers gave.*several people.*cases\.csv") as refused:
        table_join.covariates_of_cases(
            tmp_path / "who.csv", [(case.id, case.patient) for case in cases], [case.files[0] for case in cases]
        )
    assert "MILLER" not in str(refused.value)
    (tmp_path / "who.csv").rename(tmp_path / "scans" / "who.csv")
    with pytest.raises(DatasetError, match="2 issuers gave"):
        dataset_layouts.read_dataset(tmp_path / "scans")


def test_a_table_of_other_patient_numbers_is_refused_without_a_word_of_whose_they_are(data, tmp_path):
    [case] = dataset_layouts.read_dataset(
        scanned(data, tmp_path / "scans", "MILLER-7"), DatasetOptions(references=False)
    )
    table(tmp_path / "who.csv", "PatientID,sex", ["SMITH-8,F", "BROWN-1,M"])
    with pytest.raises(DatasetError, match=r"names other patients\. Give PatientIDs") as refused:
        table_join.covariates_of_cases(tmp_path / "who.csv", [(case.id, case.patient)])
    assert not any(name in str(refused.value) for name in ("MILLER", "SMITH", "BROWN"))


def test_the_headers_beside_a_table_are_read_once(data, tmp_path, monkeypatch):
    scanned(data, tmp_path, "MILLER-7", "SMITH-8")
    table(tmp_path / "labels.csv", "PatientID,diagnosis", ["MILLER-7,ill", "SMITH-8,well"])
    readings, once = list[object](), dicom_cases.read_dicom
    monkeypatch.setattr(dicom_cases, "read_dicom", lambda *given: readings.append(given) or once(*given))
    assert len(dataset_layouts.read_dataset(tmp_path).cases) == 2
    assert len(readings) == 1


def test_numbers_with_decimal_commas_are_numbers_in_a_table_of_semicolons(tmp_path):
    for n in range(3):
        picture(tmp_path / "images" / f"x{n}.png", n)
    rows = (f"x{n}.png;{n % 2};4{n},5;1,23{n};{n},{n};00{n}" for n in range(3))
    header = "\ufeffimage;label;age;volume;beside;code"
    table(tmp_path / "table.csv", header, (row.replace(f"{n},{n};", f"{n},{n} mm;") for n, row in enumerate(rows)))
    first = dataset_layouts.read_dataset(tmp_path).cases[0].covariates
    # Three digits behind each comma may also be thousands, were they not parted by semicolons.
    assert first == {"age": 40.5, "volume": 1.23, "beside": "0,0 mm", "code": "000"}


@pytest.mark.parametrize("codes", [("1_21", "12_1"), ("3.1", "3.10"), ("12E3", "120E2")])
@pytest.mark.parametrize("column", ["patient", "person"])
@pytest.mark.parametrize("beside", [False, True])
def test_codes_of_patients_that_would_be_one_number_are_two_patients(tmp_path, codes, column, beside):
    for n in range(4):
        picture(tmp_path / ("ab"[n % 2] if beside else "images") / f"x{n}.png", n)
    header = f"image,{column}" if beside else f"image,{column},label"
    table(
        tmp_path / "table.csv",
        header,
        (f"x{n}.png,{codes[n // 2]}" + ("" if beside else f",{n % 2}") for n in range(4)),
    )
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(patient=column))
    assert [case.patient for case in sorted(dataset, key=lambda case: case.id)] == [*codes[:1] * 2, *codes[1:] * 2]


def test_numbers_of_patients_with_a_gap_are_whole_whatever_pandas_makes_of_them(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"x{n}.png", n)
    rows = (f"x{n}.png,{n % 2},{('5.0', '5', '6.0', '')[n]}" for n in range(4))
    table(tmp_path / "table.csv", "image,label,patient", rows)
    assert [case.patient for case in dataset_layouts.read_dataset(tmp_path)] == ["5", "5", "6", "unknown-x3"]


@pytest.mark.parametrize("word", ["NULL", "#N/A", "<NA>", "NA", "nan"])
def test_what_spreadsheets_and_data_bases_write_for_nothing_is_nothing(tmp_path, word):
    for n in range(4):
        picture(tmp_path / "images" / f"x{n}.png", n)
    rows = (f"x{n}.png,{('a', 'b', 'a', word)[n]},{(1, word, 2, 3)[n]}" for n in range(4))
    table(tmp_path / "table.csv", "image,label,psa", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert classes(dataset) == {"x0": "a", "x1": "b", "x2": "a"}
    assert [case.covariates["psa"] for case in dataset] == [1, None, 2]


@pytest.mark.parametrize("word", ["unknown", "-", "NULL", "Anonymous"])
def test_patients_whom_nobody_knows_are_not_one_patient(tmp_path, word):
    for n in range(4):
        picture(tmp_path / "images" / f"x{n}.png", n)
    table(
        tmp_path / "table.csv",
        "image,label,patient",
        (f"x{n}.png,{n % 2},{('p1', 'p1', word, word)[n]}" for n in range(4)),
    )
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == ["p1", "p1", "unknown-x2", "unknown-x3"]
    assert "2 cases without one stand for themselves" in dataset.patients


def test_of_two_columns_of_one_name_that_differ_the_one_that_is_meant_is_to_be_named(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"x{n}.png", n)
    table(tmp_path / "table.csv", "image,label,label", (f"x{n}.png,{n % 2},{n // 2}" for n in range(4)))
    with pytest.raises(DatasetError, match=r"two columns label, which differ\. .* --column label=label\.1"):
        dataset_layouts.read_dataset(tmp_path)
    second = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "label.1"}))
    assert classes(second) == {"x0": "0", "x1": "0", "x2": "1", "x3": "1"}
    table(tmp_path / "table.csv", "image,label,label", (f"x{n}.png,{n % 2},{n % 2}" for n in range(4)))
    assert classes(dataset_layouts.read_dataset(tmp_path)) == {"x0": "0", "x1": "1", "x2": "0", "x3": "1"}


def test_a_table_of_tabs_may_have_decimal_commas_too(tmp_path):
    for n in range(3):
        picture(tmp_path / f"x{n}.png", n)
    table(tmp_path / "table.tsv", "image\tlabel\tage", (f"x{n}.png\t{n % 2}\t4{n},5" for n in range(3)))
    assert [case.covariates["age"] for case in dataset_layouts.read_dataset(tmp_path)] == [40.5, 41.5, 42.5]


def test_blanks_around_cells_and_headers_and_what_spreadsheets_leave_empty_are_nothing(tmp_path):
    for n in range(4):
        picture(tmp_path / f"x{n}.png", n)
    rows = [f"x{n}.png ;{('ill', ' ill', 'well', 'well ')[n]};5{n} ; p{n};;" for n in range(4)]
    table(tmp_path / "table.csv", "image; Diagnosis ;age ;Patient-ID;;", [*rows, ";;;;;", ";;;;;"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert classes(dataset) == {"x0": "ill", "x1": "ill", "x2": "well", "x3": "well"}
    assert [(case.patient, dict(case.covariates)) for case in dataset] == [(f"p{n}", {"age": 50 + n}) for n in range(4)]
    chosen = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "age"}))
    assert classes(chosen) == {f"x{n}": f"5{n}" for n in range(4)}


def test_headers_that_differ_only_by_blanks_stay_apart(tmp_path):
    for n in range(2):
        picture(tmp_path / f"x{n}.png", n)
    table(tmp_path / "table.csv", "image,label,age,age ", ["x0.png,a,50,1", "x1.png,b,60,2"])
    assert dataset_layouts.read_dataset(tmp_path).cases[1].covariates == {"age": 60, "age ": 2}


def test_a_table_in_another_encoding_names_itself_and_the_way_out(tmp_path):
    for n in range(3):
        picture(tmp_path / "images" / f"x{n}.png", n)
    path = tmp_path / "table.csv"
    path.write_bytes("image;label\nx0.png;Lungenentzündung\n".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"no labels; table\.csv is not written in UTF-8.*Excel"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path):
    sheet = tmp_path / "set" / "Cases.XLSX"
    picture(tmp_path / "set" / "images" / "x0.png")
    sheet.write_bytes(b"PK\3\4")
    with pytest.raises(DatasetError, match=r"Cases\.XLSX cannot be read as a table\. Save .* \(in Excel: CSV UTF-8\)"):
        dataset_layouts.read_dataset(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"only Cases\.XLSX\. Save .* \(in Excel: CSV UTF-8\)"):
        dataset_layouts.read_dataset(sheet)


@pytest.mark.parametrize("name", ["set.zip", "Set.tar.gz"])
def test_a_packed_folder_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\3\4")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DatasetError, match="Unpack"):
            dataset_layouts.read_dataset(path)


def test_columns_of_survival_are_named_in_the_remedy(tmp_path):
    picture(tmp_path / "a.png")
    path = table(tmp_path / "set.csv", "image,days,died", ["a.png,10,1"])
    with pytest.raises(DatasetError, match="no column has labels") as refused:
        dataset_layouts.read_dataset(path)
    assert "time=COLUMN,event=COLUMN" in refused.value.remedy


@pytest.mark.parametrize("folder", ["", "images"])
def test_the_row_numbers_that_pandas_writes_are_no_covariate(tmp_path, folder):
    for n in range(4):
        picture(tmp_path / folder / f"x{n}.png", n)
        if folder:
            picture(tmp_path / "masks" / f"x{n}.png", 1)
    rows = pd.DataFrame({"image": [f"x{n}.png" for n in range(4)], "age": [40, 50, 60, 70]})
    (rows if folder else rows.assign(label=[0, 1, 0, 1])).to_csv(tmp_path / "table.csv")
    assert [case.covariates for case in dataset_layouts.read_dataset(tmp_path)] == [
        {"age": age} for age in (40, 50, 60, 70)
    ]


def test_an_index_that_names_the_images_still_does(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"x{n}.png", n)
    pd.DataFrame({"label": [0, 1, 0, 1]}, index=[f"x{n}.png" for n in range(4)]).to_csv(tmp_path / "table.csv")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(case.id, case.references["class"]) for case in dataset] == [
        ("x0", "0"),
        ("x1", "1"),
        ("x2", "0"),
        ("x3", "1"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,label\na.png,0\nb.png,1,left\n", "has 3 columns in line 3 where 2 are expected.*double quotes.*','"),
        ("image;label\na.png;0\n\nb.png;1;left\n", "has 3 columns in line 4 where 2 are expected.*';'"),
        ("image,label\na.png,0,left\nb.png,1,right\n", "has 3 columns in line 2 where the header names 2"),
        ('image,label\na.png,0\n"b.png,1\n', "a double quote in line 3"),
    ],
)
def test_a_line_of_too_many_cells_is_named_with_their_number(tmp_path, text, problem):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DatasetError, match=problem) as refused:
        dataset_layouts.read_dataset(tmp_path / "table.csv")
    assert "UTF-8" not in str(refused.value)


@pytest.mark.parametrize("text", ["image,label\na.png,0,\nb.png,1,\n", "image,label\n1,a.png,0\n2,b.png,1\n"])
def test_separators_at_the_ends_of_lines_and_the_row_numbers_of_r_shift_no_column(tmp_path, text):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "table.csv").write_text(text)
    dataset = dataset_layouts.read_dataset(tmp_path / "table.csv")
    assert [(case.id, case.references["class"]) for case in dataset] == [("a", "0"), ("b", "1")]


def test_of_several_tables_next_to_the_images_the_one_with_labels_is_read_and_the_others_are_named(tmp_path):
    for n in range(6):
        picture(tmp_path / "img" / f"x{n}.png", n)
    table(tmp_path / "train.csv", "name,label", (f"x{n}.png,{n % 2}" for n in range(4)))
    table(tmp_path / "test.csv", "name", ("x4.png", "x5.png"))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert classes(dataset) == {"x0": "0", "x1": "1", "x2": "0", "x3": "1"}
    assert [one.what for one in dataset.problems] == ["test.csv next to train.csv"]
    table(tmp_path / "more.csv", "name,label", ("x4.png,0", "x5.png,1"))
    with pytest.raises(
        DatasetError,
        match=r"tables are more.csv, test.csv, train.csv. Name a column of labels that one of them alone has",
    ):
        dataset_layouts.read_dataset(tmp_path)


def test_where_something_else_holds_the_labels_a_further_table_changes_nothing(tmp_path):
    classed(tmp_path)
    table(tmp_path / "a.csv", "image,diagnosis", ("benign0.png,x", "malignant0.png,y"))
    table(tmp_path / "b.csv", "note", ("none",))
    assert set(classes(dataset_layouts.read_dataset(tmp_path)).values()) == {"benign", "malignant"}


def test_the_only_table_may_lie_in_another_folder_and_several_there_are_named(tmp_path):
    for n in range(2):
        picture(tmp_path / "img" / f"x{n}.png")
    (tmp_path / "csv").mkdir()
    table(tmp_path / "csv" / "train.csv", "name,label", ("x0.png,1", "x1.png,0"))
    assert classes(dataset_layouts.read_dataset(tmp_path)) == {"x0": "1", "x1": "0"}
    table(tmp_path / "csv" / "more.csv", "name,label", ("x0.png,1", "x1.png,1"))
    with pytest.raises(DatasetError, match=r"tables are csv/more.csv, csv/train.csv. Keep one table in this folder"):
        dataset_layouts.read_dataset(tmp_path)


@pytest.mark.parametrize("names", [("train.csv", "test.csv"), ("trainLabels.csv", "testLabels.csv")])
@pytest.mark.parametrize("folders", [("images", "images"), ("train_images", "test_images")])
def test_tables_named_by_parts_are_joined_and_each_is_its_part(tmp_path, names, folders):
    for part, (name, folder) in enumerate(zip(names, folders, strict=True)):
        for n in range(4):
            picture(tmp_path / folder / f"{part}{n}.png")
        table(tmp_path / name, "id_code,diagnosis,age", (f"{part}{n},{n % 2},5{n}" for n in range(4)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.splits == {f"{part}{n}": ("train", "test")[part] for part in (0, 1) for n in range(4)}
    assert classes(dataset) == {f"{part}{n}": str(n % 2) for part in (0, 1) for n in range(4)}
    assert [case.covariates for case in dataset] == [{"age": 50 + n} for n in range(4)] * 2
    assert not dataset.problems


def test_tables_of_parts_with_unlike_columns_are_refused(tmp_path):
    for n in range(8):
        picture(tmp_path / f"{n // 4}{n % 4}.png")
    for part, name in enumerate(("test.csv", "train.csv")):
        table(tmp_path / name, "image,label,age", (f"{part}{n}.png,{n % 2},4{n}" for n in range(4)))
    assert len(dataset_layouts.read_dataset(tmp_path)) == 8
    table(tmp_path / "train.csv", "image,label,site", (f"1{n}.png,{n % 2},4{n}" for n in range(4)))
    with pytest.raises(DatasetError, match=r"has other columns than test\.csv \(age, site\)"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_part_stated_by_a_table_and_by_its_name_is_refused(tmp_path):
    for name in ("train.csv", "test.csv"):
        table(tmp_path / name, "image,label,split", (f"{name}{n}.png,{n % 2},val" for n in range(4)))
    with pytest.raises(DatasetError, match=r"column split and the name test\.csv both state a part"):
        dataset_layouts.read_dataset(tmp_path)


def test_two_tables_of_no_part_are_refused_with_what_would_join_them(tmp_path):
    for name in ("first.csv", "second.csv"):
        table(tmp_path / name, "image,label", (f"{name}{n}.png,{n % 2}" for n in range(4)))
    with pytest.raises(DatasetError, match="holds 2 tables") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "train.csv and test.csv" in refused.value.remedy


def test_pictures_of_parts_next_to_the_only_table_with_labels_are_no_classes(tmp_path):
    """As the sets of Kaggle come: test.csv has no labels, and its pictures lie in a folder of their own."""
    for n in range(8):
        picture(tmp_path / ("train_images" if n < 4 else "test_images") / f"{n}f.png", n)
    table(tmp_path / "train.csv", "id_code,diagnosis", (f"{n}f,{n % 2}" for n in range(4)))
    table(tmp_path / "test.csv", "id_code", (f"{n}f" for n in range(4, 8)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert classes(dataset) == {"0f": "0", "1f": "1", "2f": "0", "3f": "1"}
    assert [one.what for one in dataset.problems] == ["4 images have no row in train.csv", "test.csv next to train.csv"]


def test_folders_of_classes_in_parts_keep_them_beside_tables_of_the_parts(tmp_path):
    for part in ("train", "test"):
        classed(tmp_path / part)
        table(tmp_path / f"{part}.csv", "image,label", (f"{part}/benign/benign{n}.png,benign" for n in range(2)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert set(classes(dataset).values()) == {"benign", "malignant"}
    assert set(dataset.splits.values()) == {"train", "test"}


@pytest.mark.parametrize("cells", [("1", "0"), ("1.0", "0.0")])
def test_columns_of_which_one_is_1_in_each_row_are_the_classes(tmp_path, cells):
    """As in the challenges of ISIC: ISIC_Training_GroundTruth.csv, and the pictures in a folder."""
    yes, no = cells
    for n in range(6):
        picture(tmp_path / "ISIC_Training_Input" / f"ISIC_{n:07d}.jpg", n)
    rows = (f"ISIC_{n:07d}," + ",".join(yes if n % 3 == place else no for place in range(3)) for n in range(6))
    path = table(tmp_path / "ISIC_Training_GroundTruth.csv", "image,MEL,NV,BCC", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert list(classes(dataset).values()) == ["MEL", "NV", "BCC", "MEL", "NV", "BCC"]
    assert not any(case.covariates for case in dataset)
    assert dataset.problems[0].what.startswith("the columns MEL, NV, BCC are read as classes")
    assert classes(dataset_layouts.read_dataset(path)) == classes(dataset)
    by_hand = DatasetOptions(column={"finding:melanoma": "MEL", "finding:naevus": "NV"})
    assert dataset_layouts.read_dataset(tmp_path, by_hand).kinds == {"findings"}


@pytest.mark.parametrize(
    "rows",
    [
        ("a,1,1,0", "b,0,0,1", "c,0,1,0"),  # findings, of which one image has several
        ("a,1,0,0", "b,0,0,1", "c,0,0,0"),
        ("a,1,0,0", "b,0,0,1", "c,0,,1"),
        ("a,1,0,0", "b,0,0,2", "c,0,1,0"),
    ],
)
def test_columns_of_which_not_exactly_one_is_1_are_no_classes(tmp_path, rows):
    for name in "abc":
        picture(tmp_path / "images" / f"{name}.png", ord(name))
    table(tmp_path / "labels.csv", "image,oedema,nodule,fibrosis", rows)
    with pytest.raises(DatasetError, match=r"no column has labels|no labels"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_named_label_goes_before_columns_of_which_one_is_1(tmp_path):
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png", n)
    rows = (f"{n}.png,{'ab'[n % 2]}," + ",".join(str(int(n == place)) for place in range(3)) for n in range(3))
    table(tmp_path / "labels.csv", "image,label,first,second,third", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert set(classes(dataset).values()) == {"a", "b"}
    assert list(dataset.cases[0].covariates) == ["first", "second", "third"]


def test_a_column_of_patients_names_no_cases_that_are_called_as_others_are(tmp_path):
    """Case 1 is of patient 3, and patient 1 has another age than patient 3."""
    whose = [("1", "3"), ("2", "1"), ("3", "2")]
    table(tmp_path / "who.csv", "patient,age", ["1,10", "2,20", "3,30"])
    assert [row["age"] for row in table_join.covariates_of_cases(tmp_path / "who.csv", whose)[0]] == [30, 10, 20]
    table(tmp_path / "vitals.csv", "patient,time,pulse", [f"{n},{t},{n}{t}" for n in (1, 2, 3) for t in (0, 5)])
    read = table_join.covariates_of_cases(tmp_path / "vitals.csv", whose)[0]
    assert [one["pulse"].values for one in read] == [(30.0, 35.0), (10.0, 15.0), (20.0, 25.0)]


def test_rows_of_one_name_that_differ_are_refused_by_their_lines_and_equal_ones_are_one(tmp_path):
    table(tmp_path / "who.csv", "patient,age", ["SMITH,30", "BROWN,20", "SMITH,70"])
    with pytest.raises(DatasetError, match=r"who\.csv: lines 2 and 4 have the same patient, and differ") as refused:
        table_join.covariates_of_cases(tmp_path / "who.csv", [("x", "SMITH")])
    assert "SMITH" not in refused.value.problem
    table(tmp_path / "who.csv", "patient,age", ["SMITH,30", "BROWN,20", "SMITH,30"])
    assert table_join.covariates_of_cases(tmp_path / "who.csv", [("x", "SMITH")])[0] == [{"age": 30}]
    # With a row for each image, patients whose rows differ are no answer for an image without one.
    table(tmp_path / "who.csv", "image,patient,age", ["a.png,SMITH,30", "b.png,SMITH,70"])
    assert table_join.covariates_of_cases(tmp_path / "who.csv", [("b", "SMITH")])[0] == [{"age": 70}]
    with pytest.raises(DatasetError, match="has no row for c"):
        table_join.covariates_of_cases(tmp_path / "who.csv", [("c", "SMITH")])


def test_images_of_one_name_in_two_folders_have_their_own_rows(tmp_path):
    table(tmp_path / "who.csv", "image,age", ["siteA/1.png,30", "siteB/1.png,70"])
    whose = [("siteA-1", "siteA/1"), ("siteB-1", "siteB/1")]
    assert [row["age"] for row in table_join.covariates_of_cases(tmp_path / "who.csv", whose)[0]] == [30, 70]
    with pytest.raises(DatasetError, match="has no row for 1"):
        table_join.covariates_of_cases(tmp_path / "who.csv", [("1", "1")])


def test_a_row_that_may_be_of_several_images_of_one_name_is_that_of_none(tmp_path):
    """As of `predict MODEL a/ct.nii.gz b/ct.nii.gz`."""
    table(tmp_path / "who.csv", "case,age", ["ct,30"])
    with pytest.raises(DatasetError, match="several images are called ct, and a row of this name may be of any"):
        table_join.covariates_of_cases(tmp_path / "who.csv", [("ct", "ct"), ("ct", "ct")])
    table(tmp_path / "who.csv", "patient,age", ["P1,30", "P2,70"])
    read = table_join.covariates_of_cases(tmp_path / "who.csv", [("ct", "P2"), ("ct", "P1"), ("mr", "P1")])[0]
    assert [row["age"] for row in read] == [70, 30, 30]


def test_the_same_table_read_for_another_column_is_other_data(tmp_path):
    """So that models of two columns are no ensemble, and test cases of the one are not scored by the other."""
    for n in range(4):
        picture(tmp_path / f"p{n}.png", n)
    table(tmp_path / "labels.csv", "image,first,second", [f"p{n}.png,{n % 2},{n // 2}" for n in range(4)])
    first, second = (
        hashing.dataset_hash(dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": name})))
        for name in ("first", "second")
    )
    assert first != second
    assert first == hashing.dataset_hash(
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "first", "image": "image"}))
    )


def test_a_text_list_may_name_files_with_blanks(tmp_path):
    for n in range(4):
        picture(tmp_path / "my images" / f"img {n}.png", n)
    for folder in ("my images/", ""):
        lines = "".join(f"{folder}img {n}.png {'ab'[n % 2]}\n" for n in range(4))
        (tmp_path / "train.txt").write_text(lines)
        dataset = dataset_layouts.read_dataset(tmp_path)
        assert [case.references["class"] for case in dataset] == ["a", "b", "a", "b"]


def people(root: Path, ages: list[str], separator: str = ";") -> Path:
    """Pictures and a table of them, in which numbers have decimal commas and questions are answered in several ways."""
    rows = []
    for n, age in enumerate(ages):
        picture(root / f"{n:02}.png", n)
        cells = (
            f"{n:02}.png",
            "ab"[n % 2],
            age,
            f"{n},5",
            f"{n} %",
            ("Y", "no", "yes", "N")[n % 4 % 3],
            -999 if n == 3 else n,
        )
        rows.append(separator.join(map(str, cells)))
    return table(root / "people.csv", separator.join(("image", "label", "age", "crp", "share", "smoker", "dose")), rows)


def test_a_covariate_with_odd_cells_stays_a_number_and_what_was_understood_is_stated(tmp_path):
    people(tmp_path, [*map(str, range(40, 56)), ">89", "unknown", "n/a", "-999", "045Y"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    covariates = {name: [case.covariates[name] for case in dataset] for name in dataset.cases[0].covariates}
    assert covariates["age"] == [*range(40, 56), 89, None, None, None, 45]
    assert covariates["crp"] == [n + 0.5 for n in range(21)]
    assert covariates["share"] == pytest.approx([n / 100 for n in range(21)])
    assert covariates["dose"][2:5] == [2, None, 4]
    assert set(covariates["smoker"]) == {"Y", "no"}
    [note] = [one.what for one in dataset.problems if one.what.startswith("people.csv: age")]
    assert "age: 17 numbers, 1 cell '>89' taken as the limit, 1 cell 'unknown' taken as missing" in note
    assert "crp: 21 numbers with decimal commas" in note or "share: 21 numbers with %, as hundredths" in note
    assert not any(one.severity != "note" and one.column for one in dataset.problems)


def test_a_word_among_numbers_is_named_by_its_place_and_refused_where_numbers_are_needed(tmp_path):
    people(tmp_path, [*map(str, range(40, 56)), "old", ">89"])
    [problem] = [one for one in dataset_layouts.read_dataset(tmp_path).problems if one.column]
    assert problem.what == "people.csv: age in line 18: 'old' is no number"
    assert (problem.severity, problem.column) == ("warning", "age")
    table(tmp_path / "more.csv", "case,age,remark", ["x,50,fine", "y,old,-"])
    with pytest.raises(DatasetError, match=r"more\.csv: age in line 3: 'old' is no number"):
        table_join.covariates_of_cases(tmp_path / "more.csv", [("x", "x")], (), ["Age"])
    [row], problems = table_join.covariates_of_cases(tmp_path / "more.csv", [("x", "x")])
    assert row == {"age": 50, "remark": "fine"} or row["age"] == "50"
    assert problems == []


@pytest.mark.parametrize(
    ("cells", "part"), [(["12 %", "0.13"], "'12 %' in line 2"), (["1,504", "2,311"], "1504 or 1.504")]
)
def test_numbers_that_may_mean_two_things_are_named_and_stay_words(tmp_path, cells, part):
    table(tmp_path / "who.csv", "case,share", [f'x,"{cells[0]}"', f'y,"{cells[1]}"'])
    [row, _], [problem] = table_join.covariates_of_cases(tmp_path / "who.csv", [("x", "x"), ("y", "y")])
    assert row["share"] == cells[0] and part in problem.what and problem.column == "share"


def test_grades_and_codes_of_a_table_stay_what_they_are(tmp_path):
    grades = ["1", "2", "3", "4a", "4b", "0"] * 3
    table(tmp_path / "who.csv", "case,birads,code", [f"{n},{grade},0{n % 9}" for n, grade in enumerate(grades)])
    rows, problems = table_join.covariates_of_cases(tmp_path / "who.csv", [(str(n), str(n)) for n in range(18)])
    table(tmp_path / "more.csv", "case;dose", ["x;1,504", "y;2,311"])
    assert table_join.covariates_of_cases(tmp_path / "more.csv", [("x", "x"), ("y", "y")]) == (
        [{"dose": 1.504}, {"dose": 2.311}],
        [],
    )
    assert [row["birads"] for row in rows] == grades and rows[3]["code"] == "03" and problems == []
