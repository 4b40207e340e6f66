from __future__ import annotations

from pathlib import Path

import pytest

from cohorts import paired, picture, table, volume
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import table_join
from hilum.layouts.layout import DatasetOptions
from hilum.quality import dataset_examination
from hilum.values import Dataset, Problem


def numbered(root: Path, names: list[str]) -> Path:
    """A picture and a mask for each of these names."""
    for n, name in enumerate(names):
        picture(root / "images" / f"{name}.png", n)
        picture(root / "labels" / f"{name}.png", 255 * (n % 2))
    return root


def patients(dataset: Dataset) -> list[str]:
    return [case.patient for case in dataset]


def said(dataset: Dataset, word: str = "clinical.csv") -> Problem:
    """The one problem that names the table."""
    [problem] = [one for one in dataset.problems if word in one.what]
    return problem


@pytest.mark.parametrize(
    "stated",
    [
        ["1", "2", "3", "4"],
        ["1.0", "2.0", "3.0", "4.0"],
        ["01", "02", "03", "04"],
        ["S001", "S002", "S003", "S004"],
        ["S_1", "s-2", "3", "4"],
    ],
)
def test_numbers_of_a_table_that_are_written_otherwise_are_the_cases_numbers(tmp_path, stated):
    numbered(tmp_path, ["0001", "0002", "0003", "0004"])
    rows = [f"{name},P{n // 2},{40 + n}" for n, name in enumerate(stated)]
    table(tmp_path / "clinical.csv", "id,patient,age", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert patients(dataset) == ["P0", "P0", "P1", "P1"]
    assert dataset.patients_known
    assert [case.covariates["age"] for case in dataset] == [40, 41, 42, 43]
    problem = said(dataset)
    assert problem.severity == "note"
    assert "is 0001" in problem.what


def test_a_table_of_bare_numbers_names_cases_that_are_a_word_and_a_number(tmp_path):
    numbered(tmp_path, ["S007", "S008", "S011"])
    table(tmp_path / "clinical.csv", "id,patient,age", ["7,1,50", "8,1,51", "11,2,52"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert patients(dataset) == ["1", "1", "2"]
    assert "7 is S007, 8 is S008, 11 is S011" in said(dataset).what


def test_a_table_of_patients_without_zeros_names_whose_several_images_are(tmp_path):
    numbered(tmp_path, ["0001_pre", "0001_post", "0002_pre", "0002_post"])
    table(tmp_path / "clinical.csv", "patient,age", ["1,50", "2,60"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(patients(dataset)) == ["0001", "0001", "0002", "0002"]
    assert {case.patient: case.covariates["age"] for case in dataset} == {"0001": 50, "0002": 60}
    assert "1 is 0001, 2 is 0002" in said(dataset).what


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        (["1", "01"], ["001", "2"]),  # two rows of one number
        (["1", "2"], ["1", "01"]),  # two cases of one number
        (["1", "2"], ["A1", "B2"]),  # two words, which may be sites
        (["S1", "S2"], ["P1", "P2"]),
        (["1", "2", "3"], ["S1", "S2"]),  # more rows than cases: of a word and a number each needs its partner
        (["1"], ["0001", "0002"]),
        (["3.1", "3.2"], ["3.10", "3.20"]),
        ([], ["1"]),
    ],
)
def test_names_that_may_mean_two_things_are_not_taken_for_the_same(stated, wanted):
    assert table_join.match_same_names(stated, wanted) == {}


def test_further_rows_are_of_no_case_here(tmp_path):
    assert table_join.match_same_names(["1", "2", "3"], ["001", "003"]) == {"001": "1", "003": "3"}
    assert table_join.match_same_names(["sub-1_ses-2", "sub-1_ses-10"], ["sub-01_ses-10"]) == {
        "sub-01_ses-10": "sub-1_ses-10"
    }
    assert table_join.match_same_beginnings(["7", "8"], [["S007_02", "S007"], ["S008_7", "S008"]]) == ["S007", "S008"]


def test_a_table_that_says_whose_other_cases_are_stops_the_split_and_the_way_on_is_named(tmp_path):
    numbered(tmp_path, ["anna", "bert", "carl", "dora"])
    table(tmp_path / "clinical.csv", "id,patient", ["1,1", "2,1", "3,2", "4,2"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    problem = said(dataset)
    assert problem.what == (
        "column id of clinical.csv names none of 4 cases: it names 1, 2, 3 and 1 more, and the cases are anna, bert, "
        "carl and 1 more"
    )
    assert "--patient ('.+': each its own)" in problem.remedy
    assert dataset_examination.examine(dataset).fatal == (problem,)
    own = dataset_layouts.read_dataset(tmp_path, DatasetOptions(patient=".+"))
    assert len(set(patients(own))) == 4
    assert said(own).severity == "warning"
    assert said(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))).severity == "note"


def test_a_table_of_patients_that_lacks_some_cases_is_named_with_both_sides(tmp_path):
    numbered(tmp_path, ["0001", "0002", "0003", "0004"])
    table(tmp_path / "clinical.csv", "id,patient,age", ["1,1,40", "2,1,41", "3,2,42"])
    problem = said(dataset_layouts.read_dataset(tmp_path))
    assert problem.severity == "error"
    assert "it names 1, 2, 3, and the cases are 0001, 0002, 0003 and 1 more" in problem.what
    table(tmp_path / "clinical.csv", "id,patient,age", ["0001,1,40", "0002,1,41", "0003,2,42"])
    problem = said(dataset_layouts.read_dataset(tmp_path))
    assert "clinical.csv has no row for 1 of 4 cases: it names 0001, 0002, 0003, and the cases are 0004" in problem.what


def test_a_table_without_patients_that_names_no_case_is_a_note_with_both_sides(tmp_path):
    paired(tmp_path)
    table(tmp_path / "clinical.csv", "id,age", ["a,1", "b,2", "c,3", "d,4"])
    problem = said(dataset_layouts.read_dataset(tmp_path))
    assert problem.severity == "note"
    assert "it names a, b, c and 1 more, and the cases are x0, x1, x2 and 1 more" in problem.what


def test_patients_are_looked_for_in_a_further_table_where_the_first_names_none(tmp_path):
    numbered(tmp_path, ["0001", "0002", "0003", "0004"])
    table(tmp_path / "ages.csv", "id,age", ["0001,1", "0002,2", "0003,3", "0004,4"])
    table(tmp_path / "clinical.csv", "id,patient", ["1,A", "2,A", "3,B", "4,B"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert patients(dataset) == ["A", "A", "B", "B"]
    assert [case.covariates["age"] for case in dataset] == [1, 2, 3, 4]
    table(tmp_path / "clinical.csv", "id,patient", ["x,A", "y,A"])
    assert said(dataset_layouts.read_dataset(tmp_path)).severity == "error"


def test_readings_over_time_are_those_of_the_number_and_a_table_of_others_is_named(tmp_path):
    numbered(tmp_path, ["0001", "0002", "0003", "0004"])
    rows = [f"{n},{t},{n}{t}" for n in (1, 2, 3, 4) for t in (0, 5)]
    table(tmp_path / "vitals.csv", "id,time,pulse", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.cases[1].covariates["pulse"].values == (20.0, 25.0)
    assert "1 is 0001, 2 is 0002, 3 is 0003" in said(dataset, "vitals.csv").what
    table(tmp_path / "vitals.csv", "id,time,pulse", [f"{name},{t},1" for name in "abcd" for t in (0, 5)])
    problem = said(dataset_layouts.read_dataset(tmp_path), "vitals.csv")
    assert "it names a, b, c and 1 more, and the cases are 0001, 0002, 0003 and 1 more" in problem.what


def test_a_table_of_patients_next_to_a_table_of_labels_is_read_or_stops_the_split(tmp_path):
    for n in range(4):
        picture(tmp_path / f"{n + 1:03d}.png", n)
    table(tmp_path / "labels.csv", "image,label", [f"{n + 1:03d}.png,{'ab'[n % 2]}" for n in range(4)])
    table(tmp_path / "clinical.csv", "id,patient", [f"{n + 1},{n // 2}" for n in range(4)])
    assert patients(dataset_layouts.read_dataset(tmp_path)) == ["0", "0", "1", "1"]
    table(tmp_path / "clinical.csv", "id,patient", ["a,1", "b,1"])
    assert "error" in {one.severity for one in dataset_layouts.read_dataset(tmp_path).problems}


def test_the_table_that_lost_its_zeros_says_who_is_who(tmp_path):
    for n in range(8):
        volume(tmp_path / f"{n + 1:04d}" / "ct.nii.gz")
        volume(tmp_path / f"{n + 1:04d}" / "seg.nii.gz")
    table(tmp_path / "clinical.csv", "id,patient,age", (f"{n + 1},{n // 2},{40 + n // 2}" for n in range(8)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert patients(dataset) == [str(n // 2) for n in range(8)]
    assert said(dataset).what.startswith("clinical.csv writes names otherwise")
