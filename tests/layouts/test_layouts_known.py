"""Structures that cases know: `known.csv` beside them, or a column of their table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cohorts import volume
from hilum.errors import DatasetError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import Dataset

NAMED = DatasetOptions(labels="1=left kidney,2=right kidney")


def cases(root: Path, count: int = 3) -> Path:
    for n in range(count):
        volume(root / "images" / f"c{n}.nii.gz", np.full((4, 5, 6), n, np.int16))
        volume(root / "labels" / f"c{n}.nii.gz", np.full((4, 5, 6), 1, np.uint8))
    return root


def stated(root: Path, *rows: str, columns: str = "case,known") -> Path:
    (cases(root) / "known.csv").write_text("\n".join([columns, *rows]))
    return root


def known(dataset: Dataset) -> list[frozenset[str] | None]:
    return [case.known for case in dataset]


def test_a_case_knows_what_the_table_says_and_one_without_a_row_knows_all(tmp_path):
    dataset = dataset_layouts.read_dataset(stated(tmp_path, "c0,left kidney", "c2,left kidney ; right kidney"), NAMED)
    assert known(dataset) == [{"left kidney"}, None, {"left kidney", "right kidney"}]
    assert [case.knows("right kidney") for case in dataset] == [False, True, True]
    assert dataset.knowing == {"left kidney": 3, "right kidney": 2}
    assert "known" not in dataset.layout
    assert not any(case.covariates for case in dataset)


def test_without_a_table_every_case_knows_everything(tmp_path):
    dataset = dataset_layouts.read_dataset(cases(tmp_path), NAMED)
    assert (known(dataset), dataset.knowing) == ([None] * 3, {})


def test_structures_without_a_name_are_called_by_their_values(tmp_path):
    assert known(dataset_layouts.read_dataset(stated(tmp_path, "c0,1", "c1,2"))) == [{"1"}, {"2"}, None]


def test_a_column_of_the_table_of_cases_says_the_same(tmp_path):
    rows = [f"images/c{n}.nii.gz,labels/c{n}.nii.gz,{40 + n},{own}" for n, own in enumerate(("left kidney", "", ""))]
    (cases(tmp_path) / "cases.csv").write_text("\n".join(["image,mask,age,known", *rows]))
    dataset = dataset_layouts.read_dataset(tmp_path / "cases.csv", NAMED)
    assert known(dataset) == [{"left kidney"}, None, None]
    assert [dict(case.covariates) for case in dataset] == [{"age": 40}, {"age": 41}, {"age": 42}]


def test_a_table_beside_the_images_says_the_same(tmp_path):
    (cases(tmp_path) / "people.csv").write_text("case,age,known\nc0,40,left kidney\nc1,41,\nc2,42,")
    assert known(dataset_layouts.read_dataset(tmp_path, NAMED)) == [{"left kidney"}, None, None]


def test_what_a_case_knows_belongs_to_its_contents(tmp_path):
    before = hashing.content_hash(dataset_layouts.read_dataset(cases(tmp_path), NAMED).cases[0])
    after = hashing.content_hash(dataset_layouts.read_dataset(stated(tmp_path, "c0,left kidney"), NAMED).cases[0])
    assert before != after


def test_an_unknown_structure_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="the case c1 knows spleen, which is no structure") as error:
        dataset_layouts.read_dataset(stated(tmp_path, "c0,left kidney", "c1,left kidney;spleen"), NAMED)
    assert str(error.value).startswith(str(tmp_path / "known.csv"))
    with pytest.raises(DatasetError, match="Name the values of masks with --labels"):
        dataset_layouts.read_dataset(stated(tmp_path, "c0,spleen"))


def test_an_unknown_case_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"names c9, which is no case of the data set\. Write a name such as c0, c1"):
        dataset_layouts.read_dataset(stated(tmp_path, "c9,left kidney"), NAMED)


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        (["c0,left kidney", "c0,right kidney"], "case,known", "two rows of the case c0"),
        (["c0,"], "case,known", "names no structure that the case c0 knows"),
        (["c0,left kidney"], "case,organ", "Give the columns case and known"),
    ],
)
def test_a_table_that_says_nothing_clear_is_refused(tmp_path, rows, columns, says):
    with pytest.raises(DatasetError, match=says):
        dataset_layouts.read_dataset(stated(tmp_path, *rows, columns=columns), NAMED)


def test_a_table_and_a_column_at_once_are_refused(tmp_path):
    (stated(tmp_path, "c0,left kidney") / "people.csv").write_text("case,known\nc0,left kidney\nc1,\nc2,")
    with pytest.raises(DatasetError, match="both state what cases know"):
        dataset_layouts.read_dataset(tmp_path, NAMED)


def test_images_to_predict_need_not_know_anything(tmp_path):
    dataset = dataset_layouts.read_dataset(stated(tmp_path, "c9,spleen") / "images", DatasetOptions(references=False))
    assert known(dataset) == [None] * 3
