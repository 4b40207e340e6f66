"""The b-value and direction of a gradient, where the standard keeps them and where the makers do."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from hilum.files.dicom.reading import private_elements


def private(group: int, creator: str, element: int, vr: str, value: object) -> Dataset:
    dataset = Dataset()
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    return dataset


@pytest.mark.parametrize(
    ("dataset", "value"),
    [
        (private(0x2001, "Philips Imaging DD 001", 0x03, "FL", 800.0), 800),
        (private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", 1000), 1000),
        (private(0x0043, "GEMS_PARM_01", 0x39, "IS", [1000, 8, 0, 0]), 1000),
        (private(0x0043, "GEMS_PARM_01", 0x39, "IS", [1000000700, 8, 0, 0]), 700),
        (private(0x0043, "SOMEBODY ELSE", 0x39, "IS", [1000]), None),
        (Dataset(), None),
    ],
)
def test_makers_keep_the_b_value_in_places_of_their_own(dataset: Dataset, value: float | None) -> None:
    assert private_elements.b_value(dataset) == value


def test_the_standard_comes_before_the_makers() -> None:
    dataset = private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", 1000)
    dataset.DiffusionBValue = 500.0
    assert private_elements.b_value(dataset) == 500


def test_a_direction_is_three_numbers_or_none() -> None:
    standard = Dataset()
    standard.DiffusionGradientOrientation = [0.0, 0.6, -0.8]
    assert private_elements.gradient_direction(standard) == (0, 0.6, -0.8)
    assert private_elements.gradient_direction(private(0x0019, "SIEMENS MR HEADER", 0x0E, "FD", [1.0, 0, 0])) == (
        1,
        0,
        0,
    )
    assert private_elements.gradient_direction(private(0x0019, "SIEMENS MR HEADER", 0x0E, "FD", [1.0, 0])) is None
    assert private_elements.gradient_direction(Dataset()) is None
