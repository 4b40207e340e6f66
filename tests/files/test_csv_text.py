"""Tables as CSV: what a spreadsheet would compute comes as text, and every cell comes back as it was."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hilum.errors import DatasetError
from hilum.evaluation import case_tables
from hilum.files import label_table
from hilum.files.storage import csv_text
from hilum.layouts import dataset_layouts
from hilum.values import Label

SOURCE = Path(__file__).resolve().parents[2] / "src/hilum"
FORMULAS = ('=HYPERLINK("http://a/?"&A1,"b")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-1", "-", "=")
# No control characters but these: pandas takes NUL for the end of a cell.
texts = st.text(st.sampled_from("=+-@'\t\r\n\",; aA01.e") | st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)


@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=4), header=st.tuples(texts, texts))
def test_every_cell_comes_back_unchanged_and_no_text_is_a_formula(rows, header, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    names = [f"first {header[0]}", f"{header[1]} second"]  # names that differ: pandas numbers equal ones
    csv_text.write_table(pandas.DataFrame(rows, columns=names), path)
    again = csv_text.read_text_table(path)
    assert [tuple(row) for row in again.itertuples(index=False)] == rows
    assert list(again.columns) == names
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert len(cells) == 2 * (len(rows) + 1)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not is_number(cell)]


@given(values=st.lists(st.floats() | st.integers(-(2**53), 2**53) | st.none(), min_size=1, max_size=5))
def test_numbers_stay_numbers(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    csv_text.write_table(pandas.DataFrame({"name": "a", "value": pandas.Series(values, dtype="float64")}), path)
    again = pandas.read_csv(path, float_precision="round_trip")["value"].astype("float64")
    pandas.testing.assert_series_equal(again, pandas.Series(values, dtype="float64", name="value"), check_exact=True)


@pytest.mark.parametrize("text", ["-0.5", "+3", "-1e-05", "-.5", "-inf"])
def test_a_number_in_words_is_left_alone(text, tmp_path):
    csv_text.write_table(pandas.DataFrame({"value": [text]}), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == f"value\n{text}\n"


def test_a_table_of_cases_keeps_names_that_look_like_formulas(tmp_path):
    rows = [
        {"case": f"{number}", "patient": text, "split": "test", "label": "all", "dice": -0.5, "unit": text}
        for number, text in enumerate(FORMULAS)
    ]
    table = case_tables.case_table(rows)
    csv_text.write_table(table, tmp_path / "cases.csv")
    pandas.testing.assert_frame_equal(case_tables.read_cases(tmp_path / "cases.csv"), table, check_dtype=False)


def test_names_of_labels_come_back(tmp_path):
    labels = (Label(1, "=cmd"), Label(2, "-2+3"), Label(3, "'@x"))
    label_table.write_labels(labels, tmp_path / "mask.labels.csv")
    assert "\n1,'=cmd,,,\n" in (tmp_path / "mask.labels.csv").read_text()
    assert label_table.read_labels(tmp_path / "mask.labels.csv") == labels


def test_a_table_of_a_user_is_read_as_it_is_written(tmp_path):
    for number in range(4):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    kinds = ["'=a", "=a", "-b", "'-b"]
    lines = [f"{number}.png,{kind}" for number, kind in enumerate(kinds)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,class", *lines]))
    classes = [case.references["class"] for case in dataset_layouts.read_dataset(tmp_path / "cases.csv")]
    assert classes == ["=a", "=a", "-b", "-b"]


@pytest.mark.parametrize("separator", [";", "|"])
def test_the_line_by_which_excel_knows_the_separator_is_no_row(tmp_path, separator):
    (tmp_path / "given.csv").write_text(f"sep={separator}\ncase{separator}age\na,b{separator}3\n", encoding="utf-8-sig")
    assert csv_text.read_given_table(tmp_path / "given.csv").to_dict("records") == [{"case": "a,b", "age": "3"}]


def test_a_title_above_a_table_of_semicolons_with_decimal_commas_is_what_the_remedy_removes(tmp_path):
    (tmp_path / "table.csv").write_text("Export of May\nimage;class;age\na.png;benign;40,5\nb.png;malignant;50,5\n")
    with pytest.raises(DatasetError, match="has 2 columns in line 3, and the first line names one") as refused:
        csv_text.read_given_table(tmp_path / "table.csv")
    assert "a title does not stand above it" in refused.value.remedy


@pytest.mark.parametrize("title", ["Study 12", "Study 12,,", '"",,'])
def test_a_title_above_a_table_is_no_name_of_a_column(tmp_path, title):
    (tmp_path / "table.csv").write_text(f"{title}\nimage,class,age\na.png,benign,40\nb.png,malignant,50\n")
    with pytest.raises(DatasetError, match=r"the (first line|header) names") as refused:
        csv_text.read_given_table(tmp_path / "table.csv")
    assert "title" in refused.value.remedy


def test_tables_are_written_in_one_place():
    texts = {path.relative_to(SOURCE): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    others = {path for path, text in texts.items() if re.search(r"csv\.writer|DictWriter|to_csv", text)}
    assert not others


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell == cell.strip()
