"""Cells of a table that list several findings, or say that nobody knows the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

import hilum
from cohorts import classed, picture, table
from hilum.errors import DatasetError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import Dataset
from matrices import thinned
from situations import noisy_picture, write_picture


def listing(root: Path, cells: Sequence[str], column: str = "findings") -> Dataset:
    """A table of pictures whose cells list findings, quoted as spreadsheets do."""
    for n in range(len(cells)):
        picture(root / f"i{n}.png", n)
    rows = [f'i{n}.png,"{cell}"' for n, cell in enumerate(cells)]
    return dataset_layouts.read_dataset(
        table(root / "t.csv", "image,listed", rows), DatasetOptions(column={column: "listed"})
    )


def counts(dataset: Dataset) -> dict[str, int]:
    """{finding: cases that have it}."""
    present = (case.references["findings"] for case in dataset if "findings" in case.references)
    return dict(Counter(name for own in present for name, is_there in own.items() if is_there))


def labelled(root: Path, rows: Sequence[str], columns: str = "image,label,split", **given: object) -> Dataset:
    for row in rows:
        picture(root / row.partition(",")[0], len(row))
    return dataset_layouts.read_dataset(table(root / "t.csv", columns, rows), DatasetOptions(**given))


def classes(dataset: Dataset) -> list[str]:
    """The classes of the cases; one without is left out of the data set."""
    return [case.references["class"] for case in dataset]


@pytest.mark.parametrize("sign", thinned(1, [",", ";"]))
def test_findings_in_one_cell_are_several_findings(tmp_path, sign):
    listing(tmp_path, 10 * ["edema", f"edema{sign}effusion", "none", "effusion"])
    result = hilum.check(tmp_path / "t.csv", column="findings=listed", modality="DX")
    assert counts(result.dataset) == {"edema": 20, "effusion": 20}
    what = f"findings in column listed are separated by {sign}: 10 of 40 cells list several"
    assert what in [problem.what for problem in result.problems]


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["a|b", "a;c", "No Finding", "b"], {"a": 2, "b": 2, "c": 1}),
        (["a; b", "c ;d", ""], {"a": 1, "b": 1, "c": 1, "d": 1}),
        (["a,b", "b,c", "c, a", "none"], {"a": 2, "b": 2, "c": 2}),  # none stands alone, each comes again
        (["mass;opacity, lung", "opacity, lung"], {"mass": 1, "opacity, lung": 2}),
        (["effusion, pleural", "edema", "edema", "edema"], {"effusion, pleural": 1, "edema": 3}),
        (["['a, b', 'c']", "['c']"], {"a, b": 1, "c": 2}),
        (["a,b,rare", "a", "b", "a,b", "b,a", "a,b"], {"a": 5, "b": 5, "rare": 1}),
    ],
)
def test_commas_part_findings_where_the_parts_are_known_and_belong_to_a_name_elsewhere(tmp_path, cells, found):
    assert counts(listing(tmp_path, cells)) == found


def test_commas_that_may_be_either_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"pericardial, pleural stand in no other cell.*Write \| or ;"):
        listing(tmp_path, ["effusion, pleural", "effusion, pericardial", "edema"])


def test_a_class_that_is_made_of_two_others_is_a_warning(tmp_path):
    dataset = listing(tmp_path, ["edema", "effusion", "edema,effusion", "edema"], "label")
    [problem] = [one for one in hilum.check(dataset).problems if "made of the names" in one.what]
    assert problem.severity == "warning"
    assert problem.cases == ("i2",)
    assert "--column findings=COLUMN" in problem.remedy


def test_the_placeholder_of_a_test_part_is_no_class(tmp_path):
    rows = []
    for n in range(24):
        write_picture(tmp_path / f"i{n}.png", noisy_picture(n, 60 * (n % 2))[0])
        rows.append(f"i{n}.png,-1,test" if n % 6 > 3 else f"i{n}.png,{n % 2},train")
    path = table(tmp_path / "table.csv", "image,label,split", rows)
    dataset = dataset_layouts.read_dataset(path)
    assert Counter(classes(dataset)) == {"0": 8, "1": 8}
    assert [label.name for label in dataset.classes["class"]] == ["0", "1"]
    assert "-1 is read as not labelled: 8 images in column label" in [one.what for one in dataset.problems]
    plan = hilum.plan(path, modality="OP")
    assert plan.plan["task.classes"] == ["0", "1"]
    assert {*plan.parts} == {case.id for case in dataset}


@pytest.mark.parametrize("word", ["-1", "?", "unlabelled", "Unknown", "hidden", "-100"])
def test_the_only_word_of_a_test_part_is_no_class(tmp_path, word):
    rows = [*(f"a{n}.png,{n % 2},train" for n in range(4)), *(f"b{n}.png,{word},test" for n in range(2))]
    assert classes(labelled(tmp_path, rows)) == ["0", "1", "0", "1"]


def test_minus_one_beside_0_and_1_is_no_class_in_a_table_without_parts(tmp_path):
    dataset = labelled(tmp_path, ["a.png,0", "b.png,1", "c.png,-1", "d.png,NA"], "image,label")
    assert classes(dataset) == ["0", "1"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["a.png,-1", "b.png,1"], ["-1", "1"]),  # worse and better
        (["a.png,benign", "b.png,-1", "c.png,malignant"], ["benign", "-1", "malignant"]),
        (["a.png,?", "b.png,cyst", "c.png,?"], ["cyst"]),
        (["a.png,?", "b.png,?"], ["?", "?"]),
    ],
)
def test_a_word_is_a_class_where_nothing_says_that_it_is_none(tmp_path, rows, expected):
    assert classes(labelled(tmp_path, rows, "image,label")) == expected


def test_a_vague_word_is_a_class_where_it_is_declared_or_the_row_states_something_else(tmp_path):
    rows = ["a.png,0", "b.png,1", "c.png,unknown"]
    declared = labelled(tmp_path, rows, "image,label", labels="0=0,1=1,2=unknown")
    assert classes(declared) == ["0", "1", "unknown"]
    measured = labelled(tmp_path, [f"{row},2.5" for row in rows], "image,label,size", column={"value": "size"})
    assert classes(measured) == ["0", "1", "unknown"]


def test_test_images_of_a_class_that_trains_keep_it(tmp_path):
    rows = ["a.png,0,train", "b.png,1,train", "c.png,1,test", "d.png,1,test"]
    assert classes(labelled(tmp_path, rows)) == ["0", "1", "1", "1"]


def test_a_folder_of_unlabelled_images_is_no_class(tmp_path):
    classed(tmp_path)
    picture(tmp_path / "unknown" / "unknown0.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert Counter(classes(dataset)) == {"benign": 3, "malignant": 3}
    assert "unknown is read as not labelled: 1 image in this folder" in [one.what for one in dataset.problems]
