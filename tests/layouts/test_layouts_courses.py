from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from hilum.errors import DatasetError
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import table_join
from hilum.layouts.layout import DatasetOptions
from hilum.values.covariate_values import Course

VITALS = "patient,time (min),pulse,ward\nP0,0,80,A\nP0,1,90,B\nP1,0,70,A\n,5,60,A\n"


def pictures(folder: Path, count: int = 4) -> Path:
    """A folder of two classes, of which two pictures each are of a patient."""
    for n in range(count):
        place = folder / ("ill" if n % 2 else "well")
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((8, 8), 10 * n, np.uint8)).save(place / f"x{n}.png")
    return folder


def test_a_table_of_times_beside_the_images_gives_what_was_read_of_each_patient(tmp_path):
    pictures(tmp_path)
    rows = "\n".join(f"x{n}.png,P{n // 2},{40 + n}" for n in range(4))
    (tmp_path / "patients.csv").write_text(f"filename,patient_id,age\n{rows}\n")
    (tmp_path / "vitals.csv").write_text(VITALS)
    dataset = dataset_layouts.read_dataset(tmp_path)
    covariates = {case.id: case.covariates for case in dataset}
    assert covariates["x0"] == {"age": 40, "pulse": Course((0.0, 60.0), (80.0, 90.0), "s"), "ward": "B"}
    assert covariates["x2"] == {"age": 42, "pulse": Course((0.0,), (70.0,), "s"), "ward": "A"}
    assert dataset.layout.endswith("covariates from patients.csv; courses from vitals.csv")
    assert not dataset.problems


def test_of_whom_the_table_has_no_row_nothing_was_read(tmp_path):
    pictures(tmp_path)
    (tmp_path / "vitals.csv").write_text("image,time,pulse\nx1.png,0,80\nx1.png,1,90\n")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: case.covariates["pulse"] for case in dataset} == {
        "x0": None, "x1": Course((0.0, 1.0), (80.0, 90.0)), "x2": None, "x3": None,
    }  # fmt: skip


def test_a_table_that_names_the_images_has_another_beside_it(tmp_path):
    pictures(tmp_path / "scans")
    rows = [f"scans/{'ill' if n % 2 else 'well'}/x{n}.png,{'ill' if n % 2 else 'well'},P{n // 2}" for n in range(4)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,label,patient", *rows]))
    (tmp_path / "vitals.csv").write_text(VITALS)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == ["P0", "P0", "P1", "P1"]
    assert dataset.cases[1].covariates["pulse"].values == (80.0, 90.0)


@pytest.mark.parametrize(
    "text",
    [
        "patient,time,event\nP0,10,1\nP0,12,0\nP1,9,1\n",  # times to an event
        "image,xmin,time\nx0.png,1,2\nx0.png,2,3\n",  # boxes
        "patient,time,scan\nP0,1,ill/x1.png\nP0,2,ill/x3.png\n",  # a list of images
        "patient,time,pulse\nP0,1,80\nP1,1,90\n",  # a row of each
    ],
)
def test_other_tables_with_times_are_no_courses(text, tmp_path):
    pictures(tmp_path)
    (tmp_path / "other.csv").write_text(text)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders"))
    assert not any(isinstance(one, Course) for case in dataset for one in case.covariates.values())


def test_a_row_whose_time_is_none_is_refused(tmp_path):
    pictures(tmp_path)
    (tmp_path / "vitals.csv").write_text("case,time,pulse\nx1,0,80\nx1,later,90\n")
    with pytest.raises(DatasetError, match=r"vitals\.csv: 'later' is not a time, in column time"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_table_for_a_prediction_may_have_a_row_for_each_time(tmp_path):
    table = tmp_path / "vitals.csv"
    table.write_text(VITALS)
    found = table_join.covariates_of_cases(table, [("a", "P0"), ("b", "P9")])[0]
    assert found[0]["pulse"] == Course((0.0, 60.0), (80.0, 90.0), "s")
    assert found[1] == {"pulse": None, "ward": None}
