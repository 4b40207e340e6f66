"""Motion between frames that is known."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

import hilum
from hilum.errors import UsageError
from hilum.transforms import spatial_transforms
from hilum.values import Geometry, Image, Label, SpatialTransform
from simulated_pairs import blobs, turn_and_shift

GRID = Geometry((24, 22, 20), np.array([[1.0, 0, 0, -12], [0, 1, 0, -11], [0, 0, 1.2, -12], [0, 0, 0, 1]]))
MOTIONS = [((0, 0, 0), (0, 0, 0)), ((2, -1, 3), (0.8, -0.5, 0.3)), ((-3, 2, 1), (-1.0, 0.6, 0.2))]  # about z, y, x


def test_simulated_motion_is_found_within_a_tenth_of_a_millimetre_and_of_a_degree(tmp_path):
    scene = blobs(GRID.pad((12, 11, 10), (12, 11, 10)))
    moved = [
        spatial_transforms.carry_image(
            scene,
            spatial_transforms.invert_transform(SpatialTransform((turn_and_shift(turn, shift, GRID),))),
            GRID,
            "cubic",
        ).data
        for turn, shift in MOTIONS
    ]
    series = Image(np.stack(moved, axis=1), GRID, times=(0.0, 2.0, 4.0))
    made = hilum.register_frames(series, out=tmp_path / "out")
    shifts = made.table[["x_mm", "y_mm", "z_mm"]].to_numpy()
    turns = made.table[["z_deg", "y_deg", "x_deg"]].to_numpy()
    assert np.abs(shifts - [shift for _, shift in MOTIONS]).mean() < 0.1
    assert np.abs(turns - [turn for turn, _ in MOTIONS]).mean() < 0.1
    assert made.corrected.shape == series.shape
    assert hilum.read(tmp_path / "out" / "corrected.nii.gz").frames == 3


def test_labels_of_one_frame_follow_the_motion_and_their_union_holds_all_of_them(tmp_path):
    scene = blobs(GRID.pad((12, 11, 10), (12, 11, 10)))
    shifts = [(0, 0, 0), (3, 0, 0)]
    there = [SpatialTransform((turn_and_shift((0, 0, 0), shift, GRID),)) for shift in shifts]
    series = Image(
        np.stack(
            [
                spatial_transforms.carry_image(scene, spatial_transforms.invert_transform(one), GRID, "cubic").data
                for one in there
            ],
            axis=1,
        ),
        GRID,
    )
    contoured = np.zeros(GRID.shape, np.uint8)
    contoured[12:18, 8:14, 8:12] = 1
    labels = series.frame(0).with_label_map(contoured, (Label(1, "tumour"),))
    made = hilum.register_frames(series, labels=labels, labels_frame=2, out=tmp_path / "out")
    first, second = made.labels.data[0]
    assert (second == contoured).all()
    assert (first == np.roll(contoured, -3, axis=0)).mean() > 0.99
    assert (made.union.data[0] == (first | second)).all()
    assert hilum.read(tmp_path / "out" / "labels.nii.gz").frames == 2
    assert hilum.read(tmp_path / "out" / "union.nii.gz").shape == (1, *GRID.shape)
    with pytest.raises(UsageError, match="no frame 3 of 2"):
        hilum.register_frames(series, labels=labels, labels_frame=3)


def test_smooth_frames_that_never_moved_are_found_still_although_they_are_noisy():
    rng = np.random.default_rng(0)
    scene = blobs(GRID).data
    frames = [scene + rng.normal(0, 0.01 * np.ptp(scene), scene.shape) for _ in range(3)]
    made = hilum.register_frames(Image(np.stack(frames, axis=1).astype(np.float32), GRID))
    assert made.table["displacement_mm"].max() < 0.1
    assert made.table[["x_deg", "y_deg", "z_deg"]].abs().to_numpy().max() < 0.3


def _bolus(number: int) -> np.ndarray:
    """A scene of tissues each of which brightens at a time of its own."""
    rng, points = np.random.default_rng(0), GRID.to_world(np.moveaxis(np.indices(GRID.shape), 0, -1))
    scene = np.zeros(GRID.shape)
    for arrival in rng.uniform(0, 4, 14):
        middle, size = rng.uniform(-8, 8, 3), rng.uniform(2, 4)
        level = 0.4 + np.exp(-((number - arrival) ** 2))
        scene += level * np.exp(-((points - middle) ** 2).sum(axis=-1) / (2 * size**2))
    return scene + rng.normal(0, 0.01, scene.shape)


def test_frames_whose_contrast_changes_are_found_still_and_an_empty_one_carries_no_other_along(tmp_path):
    frames = [_bolus(number) for number in range(6)]
    frames[3], frames[4] = np.zeros(GRID.shape), frames[4].copy()
    frames[4][:, :, :3] = 0.0
    made = hilum.register_frames(Image(np.stack(frames)[None].astype(np.float32), GRID, "MR"), out=tmp_path / "out")
    assert list(made.table["note"]) == ["", "", "", "empty", "cut: 3 planes hold one value", ""]
    assert made.table["displacement_mm"].max() < 0.1
    assert made.table[["x_deg", "y_deg", "z_deg"]].abs().to_numpy().max() < 0.3
    assert (made.table["displacement_mm"][3:5] == 0).all()
    assert made.notes[0] == "frame 4 (empty), 5 (cut): kept as it is, and no other was laid by it"
    written = pd.read_csv(tmp_path / "out" / "motion.csv", keep_default_na=False)
    assert list(written["note"]) == list(made.table["note"])


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["b-values", "bolus"])
def test_frames_of_a_head_that_lies_still_while_its_contrast_changes_are_left_there(corpus, kind):
    path = corpus / "registration" / "brain_labelmaps_synthseg" / "seg_02.nii.gz"
    labels = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)[60:-60:2, 60:-60:2, 100:-100:2]
    grid, rng, values = Geometry(labels.shape, np.diag([2.0, 2, 2, 1])), np.random.default_rng(0), np.unique(labels)
    first, decay, arrival = (rng.uniform(*ends, len(values)) for ends in ((0.3, 1.0), (0.2, 1.5), (0.0, 4.0)))
    frames = []
    for number in range(6):
        levels = first * np.exp(-decay * number / 2)
        if kind == "bolus":
            levels = 0.6 * first + 0.5 * decay * np.exp(-((number - arrival) ** 2) / 2)
        scene = ndimage.gaussian_filter(np.where(values, levels, 0)[np.searchsorted(values, labels)], 0.7)
        frames.append(scene + rng.normal(0, 0.01, labels.shape))
    frames[3] = np.zeros(labels.shape)
    made = hilum.register_frames(Image(np.stack(frames)[None].astype(np.float32), grid, "MR"))
    assert made.table["displacement_mm"].max() < 0.1
    assert list(made.table["note"]) == ["", "", "", "empty", "", ""]


def test_an_edge_that_a_motion_leaves_without_contents_does_not_hold_a_frame_back():
    grid, rng = Geometry((28, 28, 26), np.eye(4)), np.random.default_rng(0)
    scene = blobs(grid)
    true = SpatialTransform((turn_and_shift((2.0, 0, 0), (1.6, -1.2, 0.8), grid),), grid, grid)
    moved = spatial_transforms.carry_image(scene, spatial_transforms.invert_transform(true), grid, "cubic").data
    frames = np.stack([scene.data, np.nan_to_num(moved)], axis=1)
    noisy = frames + rng.normal(0, 0.01 * np.ptp(scene.data), frames.shape)
    made = hilum.register_frames(Image(noisy.astype(np.float32), grid, "MR"))
    points = grid.to_world(rng.uniform(5, 20, (100, 3)))
    ends = (spatial_transforms.carry_points(one, points) for one in (made.transforms[1], true))
    assert np.linalg.norm(np.subtract(*ends), axis=1).mean() < 0.1


def test_a_series_whose_frames_show_nothing_is_refused():
    empty = Image(np.zeros((1, 2, 8, 8, 8), np.float32), Geometry((8, 8, 8), np.eye(4)))
    with pytest.raises(UsageError, match="no frame shows anything"):
        hilum.register_frames(empty)


def test_a_clip_without_a_size_says_pixels():
    rng = np.random.default_rng(0)
    clip = Image(rng.normal(size=(1, 2, 24, 24)).astype(np.float32), Geometry.of_pixels((24, 24)))
    made = hilum.register_frames(clip)
    assert repr(made).count(" pixels ") == 2
    assert " mm" not in repr(made)
    assert "displacement_pixels" in made.table
    assert not [name for name in made.table if name.endswith("_mm")]


def test_a_single_image_has_no_motion():
    with pytest.raises(UsageError, match="one frame only"):
        hilum.register_frames(blobs(GRID))
