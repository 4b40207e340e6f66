"""Values and names of labels, wherever a person or a data set states them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.errors import DatasetError, UsageError
from hilum.layouts import dataset_table
from hilum.layouts.cases import class_labels
from hilum.values import Label


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1=liver,1=spleen", "the value 1 is both 'liver' and 'spleen'"),
        ("1=liver,2=liver", "'liver' is both the value 1 and 2"),
        ("1.5=liver", "'1.5=liver' is not a label"),
        ("-1=liver", "'-1=liver' is not a label"),
        ("5000000000=liver", "'liver' has the value 5000000000, and a label map holds 0 to 4294967295"),
    ],
)
def test_labels_of_a_flag_that_cannot_be_are_refused_by_name(text, says):
    with pytest.raises(UsageError, match=says):
        class_labels.parse_labels(text)


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"background": 0, "liver": 1, "spleen": 1}, "the value 1 is both 'liver' and 'spleen'"),
        ({"0": "background", "1": "liver", "2": "liver"}, "'liver' is both the value 1 and 2"),
        ({"liver": 1.5}, "the label 'liver' is 1.5, not one whole number"),
        ({"liver": True}, "the label 'liver' is True, not one whole number"),
        ({"liver": -1}, "'liver' has the value -1, and a label map holds"),
        ({"liver": 2**40}, "'liver' has the value 1099511627776, and a label map holds 0 to 4294967295"),
    ],
)
def test_labels_of_dataset_json_that_cannot_be_are_refused_by_name(described, says):
    with pytest.raises(DatasetError, match=f"dataset.json: {says}"):
        class_labels.labels_in_dataset_json(described, "dataset.json")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([(1, "liver"), (1, "spleen")], "the value 1 is both 'liver' and 'spleen'"),
        ([(1.5, "liver")], "'liver' is 1.5, not one whole number"),
        ([(-1, "liver")], "'liver' has the value -1"),
    ],
)
def test_labels_of_dataset_toml_that_cannot_be_are_refused_by_name(labels, says):
    stated = {"classes": {"mask": [{"value": value, "name": name} for value, name in labels]}}
    with pytest.raises(DatasetError, match=rf"dataset\.toml: holds what is no label \({says}"):
        dataset_table.stated_classes(stated, Path("dataset.csv"))


def test_numbers_that_are_whole_are_values_however_they_are_written():
    described = {"liver": 1.0, "spleen": "2", "atlas": 614454277}
    assert class_labels.labels_in_dataset_json(described, "dataset.json") == (
        Label(1, "liver"),
        Label(2, "spleen"),
        Label(614454277, "atlas"),
    )


def test_two_regions_that_one_value_marks_are_refused():
    with pytest.raises(UsageError, match="by its first value, the value 1 is both 'whole' and 'core'"):
        class_labels.parse_regions("1+2=whole,1+3=core")
