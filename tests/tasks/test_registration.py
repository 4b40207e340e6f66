"""Registration that is learnt: pairs, targets, loss, displacements in mm, and a run from files to files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from tests.trained import OBLIQUE, blob, blobs, registering, shifted_balls

import hilum
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.networks import factory
from hilum.reading import ReadingOptions, dataset_reading, image_pairs
from hilum.runtime.bundle.network import Displacing
from hilum.tasks.registration.question import Registration
from hilum.tasks.task import IMAGES
from hilum.training.data import target_kinds
from hilum.training.data.target_kinds import SampledMovement
from hilum.transforms import random_draws, spatial_transforms
from hilum.transforms.augment import Augmentation
from hilum.values import Case, Dense, Geometry, Image, Label, SpatialTransform, dataset_cases
from hilum.values.spatial_transform import ONTO, UNMOVED, Correspondence

LABELS = (Label(1, "shell"), Label(2, "core"))
TASK = Registration(classes=LABELS, refine=0)
ASKED = {"needs": {"field"}}


def _image(values: np.ndarray, affine: np.ndarray | None = None) -> Image:
    grid = Geometry(values.shape, np.eye(4) if affine is None else affine)
    return Image(values[None], grid, "MR", ("image",))


def _shifted(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both images of a batch of one, the moving one so many voxels further along the first axis, and the target."""
    image, mask = blob(0)
    images = np.stack([image, np.roll(image, step, axis=0)])[None].astype(np.float32) / 100
    pair = Correspondence(_image(mask), _image(np.roll(mask, step, axis=0)))
    case = Case("pair", "a", {"fixed": _image(image), "moving": _image(image)}, {"field": pair})
    return torch.from_numpy(images), torch.from_numpy(TASK.target(case).data)[None]


def test_the_displacement_that_undoes_a_shift_has_the_lowest_loss() -> None:
    images, target = _shifted(2)
    losses = {}
    for step in (0.0, 1.0, 2.0, 3.0):
        field = torch.zeros(1, 3, 16, 16, 16)
        field[:, 0] = step
        losses[step] = float(TASK.loss({"field": field, IMAGES: images}, target, (1.0, 1.0, 1.0)))
    assert min(losses, key=losses.__getitem__) == 2.0


def test_a_pair_whose_labels_lack_a_side_is_taught_by_its_images_alone() -> None:
    image, mask = blob(0)
    case = Case("pair", "a", {"fixed": _image(image)}, {"field": Correspondence(_image(mask))})
    target = torch.from_numpy(TASK.target(case).data)[None]
    images = torch.from_numpy(np.stack([image, image])[None].astype(np.float32) / 100)
    outputs = {"field": torch.zeros(1, 3, 16, 16, 16), IMAGES: images}
    assert float(TASK.loss(outputs, target)) == pytest.approx(float(TASK._unlike(images, outputs["field"])))
    assert TASK.quality(outputs, target)["size"].sum() == 0


def test_pairs_of_any_contrast_show_each_image_its_own_labels_and_are_taught_by_these_alone() -> None:
    images, target = _shifted(2)
    label_painting = TASK.painting
    assert label_painting is not None
    fixed, moving = (np.asarray(table)[target[0].numpy()] for table in label_painting.shown)
    mask = blob(0)[1]
    assert (fixed == mask).all() and (moving == np.roll(mask, 2, axis=0)).all()
    any_contrast = replace(TASK, images_weight=0.0)
    losses = []
    for step, seen in ((0.0, images), (2.0, images), (2.0, -images)):
        field = torch.zeros(1, 3, 16, 16, 16)
        field[:, 0] = step
        losses.append(float(any_contrast.loss({"field": field, IMAGES: seen}, target)))
    assert losses[2] == losses[1] < losses[0]
    assert Registration(classes=()).painting is None


def test_a_pair_is_mirrored_with_its_labels_which_keep_their_values() -> None:
    images, codes = _shifted(2)
    flipping = Augmentation(flips=(0,), left_right=0, probability=0.0)
    several = torch.cat([codes] * 4), [random_draws.sample_generator(0, 0, n) for n in range(4)]
    movement = SampledMovement(several[1], (1.0, 1.0, 1.0), TASK.target_sides, TASK.outside)
    made, turned = target_kinds.move_batch(
        target_kinds.target_kind(TASK.heads["field"]), flipping, torch.cat([images] * 4), several[0], movement
    )
    is_mirrored = [bool((one == images[0].flip(1)).all()) for one in made]
    assert 0 < sum(is_mirrored) < 4
    for one, was in zip(turned, is_mirrored, strict=True):
        assert (one == (codes[0].flip(0) if was else codes[0])).all()


def test_fixed_labels_of_another_grid_are_refused() -> None:
    image, mask = blob(0)
    pair = Correspondence(_image(mask, OBLIQUE), _image(mask))
    with pytest.raises(GeometryError, match="fixed labels"):
        TASK.target(Case("pair", "a", {"fixed": _image(image)}, {"field": pair}))


def test_moved_labels_count_in_the_metric_that_selects() -> None:
    images, target = _shifted(2)
    field = torch.zeros(1, 3, 16, 16, 16)
    before = TASK.selection(TASK.quality({"field": field, IMAGES: images}, target))
    field[:, 0] = 2
    after = TASK.selection(TASK.quality({"field": field, IMAGES: images}, target))
    assert before < 0.8
    assert after > 0.97


def test_displacements_in_voxels_become_mm_along_the_axes_of_the_grid() -> None:
    affine = OBLIQUE.copy()
    affine[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * [1.0, 2.0, -1.5]  # at right angles
    grid = Geometry((6, 5, 4), affine)
    voxels = np.zeros((3, 6, 5, 4), dtype=np.float32)
    voxels[1] = 2
    made = TASK.decode([((slice(0, 6), slice(0, 5), slice(0, 4)), {"field": voxels})], grid)
    assert made.transform is not None
    place = np.array([3.0, 1.0, 2.0])
    moved = grid.to_index(spatial_transforms.carry_points(made.transform, grid.to_world(place)))
    assert_allclose(moved - place, [0, 2, 0], atol=1e-4)
    assert TASK.outputs(made)["folded_percent"] == 0


def test_a_fresh_network_hardly_moves_anything_and_a_velocity_leads_all_the_way() -> None:
    size = {"width": 4, "widest": 8, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    for name in ("voxelmorph", "unet"):
        module = Displacing(factory.build(name, 2, 3, {"field": Dense(3, offsets=3)}, size), {"field": 3})
        fresh = module(torch.randn(1, 2, 16, 12, 8))["field"]
        assert fresh.shape == (1, 3, 16, 12, 8)
        assert 0 < float(fresh.detach().abs().max()) < 0.3
    with torch.no_grad():
        still = Displacing(torch.nn.Identity(), {"field": 2})
        made = still({"field": torch.full((1, 2, 9, 9), 1.5)})["field"]  # type: ignore[arg-type]
    assert_allclose(made.numpy(), 1.5, atol=1e-5)


def test_sampled_pairs_share_no_patient_between_parts(tmp_path: Path) -> None:
    dataset = dataset_reading.open_dataset(blobs(tmp_path, count=9), ReadingOptions(), settings={"pairs": 2}, **ASKED)
    owners: dict[str, set[str]] = {}
    for case in dataset:
        for person in dataset_cases.people_of_patient(case.patient):
            owners.setdefault(person, set()).add(dataset.splits[case.id])
    assert {*map(len, owners.values())} == {1}
    assert set(dataset.splits.values()) == {"train", "val", "test"}
    again = dataset_reading.open_dataset(tmp_path, ReadingOptions(), settings={"pairs": 2}, **ASKED)
    assert [case.id for case in again] == [case.id for case in dataset]


def test_a_table_of_pairs_brings_the_moving_image_onto_the_fixed_grid(tmp_path: Path) -> None:
    image, mask = blob(0)
    other = OBLIQUE.copy()
    other[:3, 3] += 50
    nibabel.Nifti1Image(image, OBLIQUE).to_filename(tmp_path / "a.nii.gz")
    nibabel.Nifti1Image(image[:14], other).to_filename(tmp_path / "b.nii.gz")
    nibabel.Nifti1Image(mask[:14], other).to_filename(tmp_path / "b_seg.nii.gz")
    (tmp_path / "p.csv").write_text("name,x,y,z\ntip,1,2,3\n")
    rows = "fixed,moving,moving_mask,fixed_points,moving_points\na.nii.gz,b.nii.gz,b_seg.nii.gz,p.csv,p.csv\n"
    (tmp_path / "pairs.csv").write_text(rows + "a.nii.gz,nowhere.nii.gz,,,\n")
    dataset = dataset_reading.open_dataset(tmp_path / "pairs.csv", ReadingOptions())
    [case] = dataset
    moving = case.images["moving"]
    assert moving.geometry.equals(case.images["fixed"].geometry)
    assert moving.facts[UNMOVED].shape == (1, 14, 16, 16)
    onto: SpatialTransform = moving.facts[ONTO]
    assert_allclose(
        spatial_transforms.carry_points(onto, case.images["fixed"].geometry.corners.mean(0)),
        onto.moving.corners.mean(0),
    )
    pair = case.references["field"]
    assert pair.fixed_labels is None
    assert pair.moving_labels.shape == (1, 14, 16, 16)
    assert_allclose(pair.fixed_points, [[1, 2, 3]])
    assert any("nowhere.nii.gz" in one for problem in dataset.problems for one in problem.cases)


def test_points_of_one_image_only_are_refused() -> None:
    with pytest.raises(DatasetError, match="same points of both"):
        Correspondence(fixed_points=np.zeros((2, 3)))


def test_a_picture_and_a_volume_are_no_pair() -> None:
    with pytest.raises(GeometryError, match="2 axes and 3 axes"):
        image_pairs.initial_transform(
            Geometry.of_spacing((4, 4), (1, 1)), Geometry.of_spacing((4, 4, 4), (1, 1, 1)), "x", one_world=True
        )
    with pytest.raises(GeometryError, match="known of the fixed image only"):
        image_pairs.initial_transform(
            Geometry.of_spacing((4, 4), (1, 1)), Geometry.of_pixels((4, 4)), "x", one_world=True
        )


def test_a_run_on_pairs_predicts_transforms_that_other_programs_read(tmp_path: Path) -> None:
    data, new = shifted_balls(tmp_path / "data", count=6), shifted_balls(tmp_path / "new", count=1)
    registering(data, tmp_path / "run")
    cases = pd.read_csv(tmp_path / "run" / "evaluation" / "cases.csv")
    means = cases.groupby("label")[["dice_before", "dice"]].mean()
    assert means.loc["shell", "dice"] > means.loc["shell", "dice_before"] + 0.1
    made = hilum.predict(tmp_path / "run", new, out=tmp_path / "out")
    assert len(made.table) == 1
    assert {"similarity_before", "similarity_after", "folded_percent", "inverse_error_mm"} <= set(made.table)
    transform = hilum.read_transform(tmp_path / "out" / "pair0_transform.h5")
    moved = nibabel.load(tmp_path / "out" / "pair0_moved.nii.gz").get_fdata()
    labels = np.asarray(nibabel.load(tmp_path / "out" / "pair0_labels.nii.gz").dataobj)
    assert moved.shape == labels.shape == (16, 16, 16)
    centre = OBLIQUE @ [8, 8, 8, 1]
    step = np.linalg.inv(OBLIQUE[:3, :3]) @ (spatial_transforms.carry_points(transform, centre[:3]) - centre[:3])
    assert 0.8 < step[1] < 2.3  # of 2 voxels, after so few steps
    assert abs(step[[0, 2]]).max() < 0.7
    with pytest.raises(UsageError, match="takes pairs"):
        hilum.predict(tmp_path / "run", blobs(tmp_path / "single", count=1) / "images")
