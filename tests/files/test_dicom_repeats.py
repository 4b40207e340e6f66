"""Frames at one position become volumes, of which none holds the frames of two b-values, phases or times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import MRImageStorage

from hilum.errors import GeometryError
from hilum.files import file_formats
from written_dicom import write_slice

PLACES, REPEATS = 3, 3
Tags = Callable[[int, int], dict[str, Any]]


def write_repeats(folder: Path, tags: Tags) -> Path:
    """A slice of each repeat at each place, whose voxels are 10 times the repeat plus the place."""
    for place in range(PLACES):
        for repeat in range(REPEATS):
            pixels = np.full((2, 2), 10 * repeat + place, np.uint16)
            write_slice(
                folder / f"{place}{repeat}.dcm", pixels, position=(0, 0, 3 * place), SliceThickness=3,
                sop_class=MRImageStorage, **tags(place, repeat),
            )  # fmt: skip
    return folder


def turned_in_the_middle(place: int, repeat: int) -> int:
    """Instance numbers that grow with the repeat, at the middle place against it."""
    return 1 + place * REPEATS + (REPEATS - 1 - repeat if place == 1 else repeat)


def b_values_of(*deviating: float) -> Tags:
    """b-values of 0, 500 and 1000, at the middle place others."""
    return lambda place, repeat: {
        "DiffusionBValue": deviating[repeat] if place == 1 else 500.0 * repeat,
        "InstanceNumber": turned_in_the_middle(place, repeat),
    }


def test_b_values_count_more_than_instance_numbers_where_they_differ_a_little_from_slice_to_slice(tmp_path: Path):
    image = file_formats.read(write_repeats(tmp_path, b_values_of(0.0, 505.0, 1000.0)))
    assert image.data[0, :, 0, 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert "3 volumes distinguished by rank of the b-value, against the instance numbers" in image.notes
    assert "b_values" not in image.facts  # the second volume has two


def test_b_values_of_which_one_is_missing_at_a_position_are_refused(tmp_path: Path):
    with pytest.raises(
        GeometryError, match=r"0\d.dcm and 1\d.dcm would belong to one volume, but their b-values differ"
    ):
        file_formats.read(write_repeats(tmp_path, b_values_of(0.0, 1000.0, 1500.0)))


def test_instance_numbers_that_would_mix_b_values_with_several_directions_are_refused(tmp_path: Path):
    def tags(place: int, repeat: int) -> dict[str, Any]:
        return {"DiffusionBValue": 1000.0 * (repeat > 0), "InstanceNumber": turned_in_the_middle(place, repeat)}

    with pytest.raises(GeometryError, match=r"by the rank of the instance number .* but their b-values differ"):
        file_formats.read(write_repeats(tmp_path, tags))


def cine(place: int, repeat: int) -> dict[str, Any]:
    """Phases of heart beats that last longer from slice to slice."""
    return {"TriggerTime": repeat * (300.0 + 10 * place)}


def test_phases_of_a_cine_are_those_of_the_trigger_whose_times_differ_from_slice_to_slice(tmp_path: Path):
    image = file_formats.read(write_repeats(tmp_path, cine))
    assert image.data[0, :, 0, 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert "3 volumes distinguished by rank of the trigger time" in image.notes


def test_triggers_against_instance_numbers_are_refused_as_nobody_knows_which_are_right(tmp_path: Path):
    with pytest.raises(GeometryError, match="trigger time and instance number sort the frames at one position into"):
        file_formats.read(
            write_repeats(tmp_path, lambda p, r: cine(p, r) | {"InstanceNumber": turned_in_the_middle(p, r)})
        )


@pytest.mark.parametrize("by_trigger", [True, False])
def test_of_trigger_times_and_numbers_two_that_agree_are_right(tmp_path: Path, by_trigger: bool):
    def tags(place: int, repeat: int) -> dict[str, Any]:
        instance = turned_in_the_middle(place, repeat) if by_trigger else place * REPEATS + repeat
        trigger = 300 + 10 * place + (repeat if by_trigger or place != 1 else -repeat)  # else jitter, as in perfusion
        return {"InstanceNumber": instance, "TriggerTime": trigger, "AcquisitionTime": f"1000{10 * repeat + place:02d}"}

    image = file_formats.read(write_repeats(tmp_path, tags))
    assert image.data[0, :, 0, 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert image.times == (0, 10, 20)


@pytest.mark.parametrize(
    ("instance", "note"),
    [
        (lambda place, repeat: place, "acquisition time"),
        (turned_in_the_middle, "acquisition time, against the instance numbers"),
    ],
)
def test_times_that_are_the_same_at_each_position_distinguish_volumes(tmp_path: Path, instance: Any, note: str):
    image = file_formats.read(
        write_repeats(tmp_path, lambda p, r: {"AcquisitionTime": f"1000{10 * r:02d}", "InstanceNumber": instance(p, r)})
    )
    assert image.data[0, :, 0, 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert f"3 volumes distinguished by {note}" in image.notes
    assert image.times == (0, 10, 20)


def write_stack(folder: Path, tags: Callable[[int], dict[str, Any]], count: int = 6) -> Path:
    """Slices 2 mm apart, whose voxels are their number."""
    for n in range(count):
        stated = {"InstanceNumber": n + 1, "SliceThickness": 2, "sop_class": MRImageStorage} | tags(n)
        write_slice(folder / f"{n}.dcm", np.full((2, 2), n, np.uint16), position=(0, 0, 2 * n), **stated)
    return folder


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (lambda n: {"EchoTime": 5 + 45 * (n % 2)}, {"MR_echo_5": [0, 2, 4], "MR_echo_50": [1, 3, 5]}),
        (lambda n: {"DiffusionBValue": 800.0 * (n % 2)}, {"MR_b_0": [0, 2, 4], "MR_b_800": [1, 3, 5]}),
        (
            lambda n: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[n % 2]]},
            {"MR_magnitude": [0, 2, 4], "MR_phase": [1, 3, 5]},
        ),
        (
            lambda n: {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER" if n == 5 else "AXIAL"]},
            {"MR_other": [0, 1, 2, 3, 4], "MR_localizer": [5]},
        ),
        (
            lambda n: {"ImageType": ["DERIVED", "SECONDARY", "MIP"] if n == 5 else ["ORIGINAL", "PRIMARY", "AXIAL"]},
            {"MR_other": [0, 1, 2, 3, 4], "MR_mip": [5]},
        ),
    ],
)
def test_slices_of_several_kinds_along_one_stack_are_volumes_of_their_own(
    tmp_path: Path, tags: Any, names: dict[str, list[int]]
):
    volumes = file_formats.read_volumes(write_stack(tmp_path, tags))
    assert {name: image.data[0, 0, 0].tolist() for name, image in volumes.items()} == names


def test_a_slice_of_another_kind_between_others_is_refused(tmp_path: Path):
    with pytest.raises(GeometryError, match=r"slices of 2 kinds lie in one stack, as 0.dcm \(echo_5\), 3.dcm"):
        file_formats.read(write_stack(tmp_path, lambda n: {"EchoTime": 50 if n == 3 else 5}))


def test_echo_times_that_differ_by_rounding_and_a_derived_slice_of_the_same_kind_are_one_volume(tmp_path: Path):
    def tags(n: int) -> dict[str, Any]:
        kind = "DERIVED" if n == 2 else "ORIGINAL"  # by a tool that blackened what was burned in
        return {"EchoTime": 92 + 0.1 * (n % 2), "ImageType": [kind, "PRIMARY", "AXIAL"]}

    image = file_formats.read(write_stack(tmp_path, tags))
    assert image.data[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert image.notes == ("1 slice is DERIVED (ImageType (0008,0008)), the others are not",)


@pytest.mark.parametrize(("number", "noted"), [(lambda n: n % 2, True), (lambda n: n // 3, False), (int, False)])
def test_acquisitions_that_take_turns_along_a_stack_are_noted_and_steps_of_a_table_are_not(
    tmp_path: Path, number: Callable[[int], int], noted: bool
):
    image = file_formats.read(write_stack(tmp_path, lambda n: {"AcquisitionNumber": number(n)}))
    assert image.data[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert any("2 acquisitions (AcquisitionNumber (0020,0012)) take turns" in note for note in image.notes) == noted
