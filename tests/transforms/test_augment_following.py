"""Boxes follow their images: what is said of a box and what is done to the voxels in it agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.transforms.augment import Augmentation
from hilum.transforms.augment_following import Corners
from known_generators import generators

STILL = Augmentation(rotation=0, scale=0, contrast=0, brightness=0, gamma=0, noise=0, probability=1)


def rectangle(shape: tuple[int, ...], box: list[float]) -> torch.Tensor:
    """(1, 1, *shape) ones in the voxels of a box with whole edges."""
    image = torch.zeros(1, 1, *shape)
    ndim = len(shape)
    inside = tuple(slice(int(low), int(high)) for low, high in zip(box[:ndim], box[ndim:], strict=True))
    image[(0, 0, *inside)] = 1
    return image


def around(image: torch.Tensor, level: float = 0.5) -> np.ndarray:
    """The edges of the smallest box around all that is brighter."""
    where = np.argwhere(image[0, 0].numpy() > level)
    return np.concatenate([where.min(axis=0), where.max(axis=0) + 1])


def disc(shape: tuple[int, ...], box: list[float]) -> torch.Tensor:
    """The ellipse that fills a box, by the share of each voxel that is inside, nearly."""
    ndim = len(shape)
    low, high = np.array(box[:ndim]), np.array(box[ndim:])
    fine = [np.linspace(0.5 / 4, size - 0.5 / 4, 4 * size) for size in shape]
    places = np.stack(np.meshgrid(*fine, indexing="ij"), axis=-1)
    inside = ((((places - (low + high) / 2) / ((high - low) / 2)) ** 2).sum(axis=-1) <= 1).astype(np.float32)
    coarse = inside.reshape(*(side for size in shape for side in (size, 4))).mean(axis=tuple(range(1, 2 * ndim, 2)))
    return torch.from_numpy(coarse)[None, None]


def moved(augmentation: Augmentation, image: torch.Tensor, box: list[float], seed: int, steps=None):
    shape = tuple(image.shape[2:])
    corners = Corners(torch.tensor([[[0.0, *box]]]), shape)
    changed, followed, _ = augmentation.augment_with_target(
        image, corners, generators(seed), steps or (1.0,) * len(shape)
    )
    return changed, followed.boxes[0, 0].numpy()


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_a_mirrored_and_quarter_turned_box_is_the_box_around_its_voxels(seed):
    rng = np.random.default_rng(seed)
    shape = ((12, 12), (12, 10), (9, 9, 7))[seed % 3]
    low = rng.integers(0, 4, len(shape))
    box = [*low.tolist(), *(low + rng.integers(1, 4, len(shape))).tolist()]
    chosen = Augmentation(**{**STILL.__dict__, "flips": tuple(range(len(shape))), "quarter_turns": True})
    image, found = moved(chosen, rectangle(shape, box), box, seed)
    assert_allclose(found[1:], around(image))


@pytest.mark.parametrize("shape", [(40, 40), (32, 44), (24, 24, 24)])
@pytest.mark.parametrize("seed", range(2))
def test_a_warped_box_is_that_around_the_ellipse_in_it(shape, seed):
    chosen = Augmentation(**{**STILL.__dict__, "rotation": 40.0, "scale": 0.2, "shift": 0.05})
    low = [size // 4 for size in shape]
    box = [float(one) for one in low] + [float(one + 8 + 3 * n) for n, one in enumerate(low)]
    image, found = moved(chosen, disc(shape, box), box, seed)
    assert_allclose(found[1:], around(image, 0.4), atol=1.5)


def test_a_turn_is_one_in_mm_where_voxels_are_no_squares():
    chosen = Augmentation(**{**STILL.__dict__, "rotation": 60.0})
    box = [10.0, 15.0, 20.0, 25.0]
    image, found = moved(chosen, disc((30, 40), box), box, 1, steps=(2.0, 1.0))
    assert_allclose(found[1:], around(image, 0.4), atol=1.5)


@pytest.mark.parametrize("seed", range(2))
def test_a_bent_box_goes_where_its_middle_goes(seed):
    chosen = Augmentation(**{**STILL.__dict__, "elastic": 0.04, "rotation": 20.0})
    box = [14.0, 18.0, 19.0, 23.0]
    image, found = moved(chosen, disc((40, 40), box), box, seed)
    weight = image[0, 0].numpy()
    middle = [(np.indices(weight.shape)[axis] * weight).sum() / weight.sum() + 0.5 for axis in range(2)]
    assert_allclose((found[1:3] + found[3:]) / 2, middle, atol=0.5)


def test_what_leaves_the_image_with_its_centre_is_no_box_any_more():
    chosen = Augmentation(**{**STILL.__dict__, "shift": 1.0})
    boxes = Corners(torch.tensor([[[0.0, 0, 0, 2, 2], [1.0, 8, 8, 10, 10], [-1.0, 3, 3, 4, 4]]]), (10, 10))
    for seed in range(8):
        _, followed, _ = chosen.augment_with_target(torch.zeros(1, 1, 10, 10), boxes, generators(seed), (1.0, 1.0))
        for kind, *corners in followed.boxes[0].tolist():
            centre = (np.array(corners[:2]) + np.array(corners[2:])) / 2
            assert kind == -1 or ((centre >= 0) & (centre < 10)).all()
        assert followed.boxes[0, 2, 0] == -1


def test_a_region_to_be_ignored_stays_one_where_only_its_centre_leaves_the_image():
    chosen = Augmentation(**{**STILL.__dict__, "shift": 1.0})
    boxes = Corners(torch.tensor([[[-2.0, 0, 0, 10, 10]]]), (10, 10))
    for seed in range(4):
        _, followed, _ = chosen.augment_with_target(torch.zeros(1, 1, 10, 10), boxes, generators(seed), (1.0, 1.0))
        kind, *corners = followed.boxes[0, 0].tolist()
        assert kind == -2 and np.subtract(corners[2:], corners[:2]) == pytest.approx([10, 10])


def test_classes_that_name_a_side_change_where_left_and_right_do():
    chosen = Augmentation(**{**STILL.__dict__, "flips": (1,), "left_right": 1})
    boxes = torch.tensor([[[0.0, 1, 1, 2, 2], [1.0, 3, 3, 4, 4], [-1.0, 3, 3, 4, 4]]])
    seen = set()
    for seed in range(6):
        _, followed, crossed = chosen.augment_with_target(
            torch.zeros(1, 1, 8, 8), Corners(boxes, (8, 8)), generators(seed), (1.0, 1.0), mirrored=(1, 0)
        )
        expected = [1, 0, -1] if bool(crossed[0]) else [0, 1, -1]
        assert followed.boxes[0, :, 0].tolist() == expected
        seen.add(bool(crossed[0]))
    assert seen == {True, False}


def test_images_are_moved_alike_whatever_follows_them():
    chosen = Augmentation(**{**STILL.__dict__, "rotation": 30.0, "flips": (0, 1)})
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with_boxes, _ = moved(chosen, image, [2.0, 2, 5, 5], 3)
    with_labels, _, _ = chosen(image, torch.zeros(1, 16, 16, dtype=torch.uint8), generators(3), (1.0, 1.0))
    assert torch.equal(with_boxes, with_labels)
