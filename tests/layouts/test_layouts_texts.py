"""Texts of cases: a column of a table, of which nothing that is written or printed repeats a word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image as Picture

import hilum
from hilum.errors import DatasetError, UsageError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions

WORD = "zauberberg"
OPTIONS = DatasetOptions(column={"image": "file", "text": "report", "patient": "patient"})


@pytest.fixture
def table(tmp_path):
    """Eight pictures with reports; the second report names its patient."""
    rows = []
    for n in range(8):
        pixels = np.random.default_rng(n).integers(0, 255, (32, 32)).astype(np.uint8)
        Picture.fromarray(pixels).save(tmp_path / f"{n}.png")
        seen = "Seen: PT001." if n == 1 else ""
        rows.append({"file": f"{n}.png", "patient": f"PT{n:03d}", "report": f"A {WORD}, size {n}. {seen}".strip()})
    pd.DataFrame(rows).to_csv(tmp_path / "reports.csv", index=False)
    return tmp_path / "reports.csv"


def test_a_column_of_texts_is_a_reference_that_prints_no_word(table):
    dataset = dataset_layouts.read_dataset(table, OPTIONS)
    texts = dataset.cases[1].references["text"]
    assert texts.texts == (f"A {WORD}, size 1. Seen: PT001.",)
    assert texts.sentences == (f"A {WORD}, size 1.", "Seen: PT001.")
    assert WORD not in repr(dataset)
    assert not dataset.cases[1].covariates


def test_check_warns_of_a_named_patient_and_repeats_no_word(table, tmp_path, capsys):
    found = hilum.check(table, column="image=file,text=report,patient=patient", out=tmp_path / "out")
    [named] = [one for one in found.problems if "name or number" in one.what]
    assert (named.what, named.cases) == ("1 of 8 texts hold the name or number of their patient", ("1",))
    lines = (tmp_path / "out" / "dataset.csv").read_text().splitlines()
    assert lines[2].endswith("../reports.csv#text=2/report")
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir()) + repr(found) + capsys.readouterr().out
    assert WORD not in written


def test_the_table_of_a_data_set_leads_to_its_texts_and_refuses_where_they_are_gone(table, tmp_path):
    hilum.check(table, column="image=file,text=report,patient=patient", out=tmp_path / "out")
    again = dataset_layouts.read_dataset(tmp_path / "out" / "dataset.csv", DatasetOptions())
    first = dataset_layouts.read_dataset(table, OPTIONS)
    assert [case.references["text"] for case in again] == [case.references["text"] for case in first]
    pd.read_csv(table)[:3].to_csv(table, index=False)
    with pytest.raises(DatasetError, match=r"reports\.csv: has no text at 4/report"):
        dataset_layouts.read_dataset(tmp_path / "out" / "dataset.csv", DatasetOptions())


def test_several_rows_of_one_image_are_several_reports_of_a_case(table):
    rows = pd.read_csv(table)
    more = rows[:1].assign(report="A second look.")
    pd.concat([rows, more]).to_csv(table, index=False)
    dataset = dataset_layouts.read_dataset(table, OPTIONS)
    assert len(dataset) == 8
    assert dataset.cases[0].references["text"].texts == (f"A {WORD}, size 0.", "A second look.")
    assert dataset.table.rows[0].references["text"].key == "1+9/report"


def test_a_header_knows_whom_a_text_names(table, tmp_path, data):
    path = next(path for path in sorted((data / "dicom").rglob("*.dcm")) if "PixelData" in pydicom.dcmread(path))
    header = pydicom.dcmread(path)
    header.PatientName = "Mustermann^Erika"
    header.save_as(tmp_path / "one.dcm")
    frame = pd.DataFrame({"file": ["one.dcm"] * 2, "report": ["Normal.", "Frau Mustermann hustet."]})
    for n, is_named in ((0, False), (1, True)):
        frame[n : n + 1].to_csv(table, index=False)
        options = DatasetOptions(column={"image": "file", "text": "report"})
        assert dataset_layouts.read_dataset(table, options).cases[0].references["text"].names_patient == is_named


def test_a_column_that_is_not_there_is_refused(table):
    with pytest.raises(UsageError, match="has no column findings"):
        dataset_layouts.read_dataset(table, DatasetOptions(column={"image": "file", "text": "findings"}))
