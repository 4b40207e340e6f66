"""The layout that docs/extending.md shows is recognised from names, and its rows are read again."""

from __future__ import annotations

from hilum.layouts import dataset_layouts, dataset_table
from hilum.layouts.layout import LAYOUTS
from layout_examples import write_example


def test_the_layout_of_the_documentation_reads_classes_and_patients_from_names(tmp_path, monkeypatch):
    monkeypatch.setitem(LAYOUTS, "marked_names", "additions.layout:LAYOUT")
    dataset = dataset_layouts.read_dataset(write_example(tmp_path / "data", "marked_names"))
    dataset_table.write_dataset_table(dataset, tmp_path)
    again = dataset_layouts.read_dataset(tmp_path / "dataset.csv")
    for read in (dataset, again):
        assert [case.id for case in read] == ["p0__benign", "p0__malignant", "p1__benign", "p1__malignant"]
        assert [case.patient for case in read] == ["p0", "p0", "p1", "p1"]
        assert [label.name for label in read.classes["class"]] == ["benign", "malignant"]
        assert [case.references["class"] for case in read] == ["benign", "malignant"] * 2
