"""Clips with a mask for every frame as a case a frame, and what is refused of clips."""

from __future__ import annotations

import pytest
from numpy.testing import assert_array_equal

import simulated_in_time
from hilum.errors import GeometryError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions


def test_each_frame_is_a_case_of_the_clip_s_patient(tmp_path):
    voxels, mask = simulated_in_time.heartbeat(0, 0.5, 4)
    simulated_in_time.cine(tmp_path / "images" / "patient00.nii.gz", voxels)
    simulated_in_time.cine(tmp_path / "labels" / "patient00.nii.gz", mask)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == [f"patient00_frame{n:03}" for n in range(4)]
    assert len({case.patient for case in dataset}) == 1
    assert len({case.key for case in dataset}) == 4
    third = dataset.cases[2]
    assert third.images["image"].frames is None
    assert_array_equal(third.images["image"].data[0], voxels[..., 2])
    assert_array_equal(third.references["mask"].data[0], mask[..., 2])


def test_a_mask_of_fewer_frames_is_refused_when_it_is_read(tmp_path):
    voxels, mask = simulated_in_time.heartbeat(0, 0.5, 4)
    simulated_in_time.cine(tmp_path / "images" / "patient00.nii.gz", voxels)
    simulated_in_time.cine(tmp_path / "labels" / "patient00.nii.gz", mask[..., :3])
    with pytest.raises(GeometryError, match="3 frames"):
        _ = dataset_layouts.read_dataset(tmp_path).cases[0].references["mask"]


def test_for_prediction_a_clip_stays_whole(tmp_path):
    voxels, _ = simulated_in_time.heartbeat(0, 0.5, 4)
    simulated_in_time.cine(tmp_path / "patient00.nii.gz", voxels)
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert case.images["image"].frames == 4


@pytest.mark.parametrize(("contoured", "is_warned"), [((0, 2), True), ((0, 1, 2), False)])
def test_clips_of_which_most_frames_were_not_contoured_are_warned_of(tmp_path, contoured, is_warned):
    """As in M&Ms: end-diastole and end-systole have masks, and the frames between them empty ones."""
    voxels, mask = simulated_in_time.heartbeat(0, 0.5, 5)
    mask[..., [n for n in range(5) if n not in contoured]] = 0
    simulated_in_time.cine(tmp_path / "images" / "patient00.nii.gz", voxels)
    simulated_in_time.cine(tmp_path / "labels" / "patient00.nii.gz", mask)
    problems = [problem.what for problem in dataset_layouts.read_dataset(tmp_path).problems]
    assert problems == (["3 of 5 frames of 1 clip have an empty mask"] if is_warned else [])
