"""The layout that docs/extending.md shows is recognised from names, and its rows are read again."""

from __future__ import annotations

from cohorts import picture
from isocenter.layouts import dataset_layouts, dataset_table
from isocenter.layouts.layout import LAYOUTS


def test_the_layout_of_the_documentation_reads_classes_and_patients_from_names(tmp_path, monkeypatch):
    monkeypatch.setitem(LAYOUTS, "marked_names", "additions.layout:LAYOUT")
    names = [f"p{patient}__{named}" for patient in range(2) for named in ("benign", "malignant")]
    for name in names:
        picture(tmp_path / "data" / f"{name}.png")
    dataset = dataset_layouts.read_dataset(tmp_path / "data")
    dataset_table.write_dataset_table(dataset, tmp_path)
    again = dataset_layouts.read_dataset(tmp_path / "dataset.csv")
    for read in (dataset, again):
        assert [case.id for case in read] == names
        assert [case.patient for case in read] == ["p0", "p0", "p1", "p1"]
        assert [label.name for label in read.classes["class"]] == ["benign", "malignant"]
        assert [case.references["class"] for case in read] == ["benign", "malignant"] * 2
