from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.runtime import Preprocessing
from hilum.training.data import target_kinds
from hilum.training.data import target_kinds as kinds
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.data.target_kinds import KINDS, SampledMovement
from hilum.transforms.augment import Augmentation
from hilum.transforms.intensity import Normalisation
from hilum.values import Dense, Geometry, Image, Target, Vector
from hilum.values.prediction import Boxes, Instances, SeveralHeads

BOXES = target_kinds.target_kind(Boxes(2))


def test_every_kind_is_found_under_its_own_name():
    for head, kind in KINDS.items():
        assert target_kinds.kind_from_names(target_kinds.kind_names(kind)) is kind, head


def prepared(count: int, seed: int = 0, shape: tuple[int, ...] = (12, 12)) -> PreparedCase:
    low = np.random.default_rng(seed).uniform(0, 8, (count, 2)).astype(np.float32)
    boxes = np.concatenate([np.arange(count)[:, None] % 2, low, low + 3], axis=1).astype(np.float32)
    positions = tuple(BOXES.positions(Target(Boxes(2), boxes), boxes, shape).values())
    return PreparedCase(str(seed), np.zeros((1, *shape), np.float32), boxes, positions, (1.0, 1.0), BOXES)


def test_a_patch_takes_the_boxes_whose_centre_it_holds_and_counts_from_its_corner():
    boxes = np.array([[0, 0, 0, 2, 2], [1, 5, 5, 9, 9], [0, 6, 6, 16, 16]], np.float32)
    cut = BOXES.cut_region(boxes, (slice(4, 10), slice(4, 10)))
    assert_array_equal(cut, [[1, 1, 1, 5, 5]])
    assert_array_equal(BOXES.cut_region(boxes, ()), boxes)
    region = np.array([[-2, 0, 0, 5, 20], [-2, 0, 0, 4, 20]], np.float32)
    assert_array_equal(BOXES.cut_region(region, (slice(4, 10), slice(4, 10))), [[-2, -4, -4, 1, 16]])


@given(st.integers(0, 10**6), st.integers(1, 11), st.integers(1, 11))
def test_every_box_is_in_one_of_the_parts_that_an_image_is_cut_into(seed, first, second):
    boxes = prepared(9, seed).target
    parts = [(slice(a, b), slice(c, d)) for a, b in ((0, first), (first, 12)) for c, d in ((0, second), (second, 12))]
    found = [BOXES.cut_region(boxes, part) + np.array([0, *[p.start for p in part] * 2], np.float32) for part in parts]
    joint = np.concatenate(found)
    assert_allclose(joint[np.lexsort(joint.T)], boxes[np.lexsort(boxes.T)], atol=1e-5)


def test_positions_are_the_voxels_of_the_centres_class_by_class():
    boxes = np.array([[0, 0, 0, 2, 3], [1, 5, 5, 9, 9], [0, 9, 9, 15, 15]], np.float32)
    found = BOXES.positions(Target(Boxes(3), boxes), boxes, (12, 12))
    assert {kind: where.tolist() for kind, where in found.items()} == {1: [[1, 1], [11, 11]], 2: [[7, 7]], 3: []}
    assert found[3].shape == (0, 2)


def test_a_batch_has_as_many_rows_as_the_case_with_the_most_boxes_in_every_process():
    cases = [prepared(count, count) for count in (0, 2, 5)]
    for part in (None, range(1), range(1, 2)):
        batch = Loader(cases, (12, 12), 2, 0.5, seed=0, part=part).of_step(0)
        assert batch.targets.shape[1:] == (5, 5)
        assert batch.kind is BOXES
    whole = Loader(cases, (12, 12), 3, 0.5, seed=0).of_step(0)
    assert sorted((whole.targets[:, :, 0] >= 0).sum(axis=1).tolist()) == [0, 2, 5]


def test_patches_about_boxes_hold_them():
    case = prepared(1, 3, shape=(40, 40))
    loader = Loader([case], (8, 8), 1, 1.0, seed=0)
    assert all((loader.of_step(step).targets[0, 0, 0] >= 0) for step in range(10))


def test_boxes_for_coarser_outputs_are_smaller_by_as_much():
    boxes = torch.tensor([[[1.0, 2, 4, 6, 8], [-1, -1, -1, -1, -1]]])
    coarse = BOXES.coarse(boxes, (16, 16), (8, 4))
    assert coarse[0, 0].tolist() == [1, 1, 1, 3, 2]
    assert coarse[0, 1, 0] == -1


def test_labels_and_vectors_are_cut_and_batched_as_they_were():
    labels, vector = target_kinds.target_kind(Dense(3)), target_kinds.target_kind(Vector(2))
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert_array_equal(labels.cut_region(values, (slice(1, 3), slice(0, 2))), [[4, 5], [8, 9]])
    assert vector.cut_region(np.int64(3), (slice(1, 3), slice(0, 2))) == 3
    assert labels.alike([values], labels.blank([values], (4, 4)))[0] is values


AFFINES = st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)


@pytest.mark.parametrize("spacing", [None, (1.0, 2.0, 0.5)])
@settings(max_examples=10)
@given(order=AFFINES[0], signs=AFFINES[1], seed=st.integers(0, 1000))
def test_a_box_lies_around_the_same_voxels_on_the_networks_grid_and_its_lengths_come_back(spacing, order, signs, seed):
    """Axes in any order and direction, cropped, resampled and padded: the brightest voxels are in the box."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(order)] * np.array(signs)
    pixels = np.zeros((1, 12, 14, 16), np.float32)
    low = rng.integers(3, 6, 3)  # away from the edge, which is continued
    high = low + rng.integers(3, 5, 3)  # enough voxels not to be clipped as outliers
    pixels[(0, *(slice(a, b) for a, b in zip(low, high, strict=True)))] = 1
    image = Image(pixels, Geometry(pixels.shape[1:], affine), channels=("0",))
    preparing = Preprocessing(3, ("0",), (Normalisation("zscore"),), spacing=spacing, smallest=(20, 20, 36))
    seen, trace = preparing(image, "a")
    target = Target(Boxes(1), np.array([[0, *low, *high]], float))
    [[kind, *corners]] = BOXES.prepare(target, preparing, trace).tolist()
    assert kind == 0
    bright = np.argwhere(seen[0] > seen[0].max() * 0.99)
    assert (bright.min(axis=0) + 0.5 >= np.array(corners[:3]) - 0.51).all()
    assert (bright.max(axis=0) + 0.5 <= np.array(corners[3:]) + 0.51).all()
    lengths = np.array(corners[3:]) - np.array(corners[:3])
    assert_allclose(trace.lengths_back(lengths), high - low, rtol=1e-5)
    assert_allclose(np.abs(trace.lengths_back(lengths, signed=True)), high - low, rtol=1e-5)


def test_an_offset_points_the_same_way_in_the_patient_when_it_comes_back():
    """The first axis runs to the left: what points along the network's first axis points against the image's."""
    image = Image(np.ones((1, 8, 8, 8), np.float32), Geometry((8, 8, 8), np.diag([-2.0, 1.0, 1.0, 1.0])))
    preparing = Preprocessing(3, ("0",), (Normalisation("zscore"),), spacing=(1.0, 1.0, 1.0))
    _, trace = preparing(image, "a")
    assert_allclose(trace.lengths_back(np.array([4.0, 3.0, 2.0]), signed=True), [-2, 3, 2])


NUMBERS = np.zeros((12, 12), np.int32)
NUMBERS[2:5, 2:5], NUMBERS[2:5, 5:9] = 70_000, 3


def test_numbers_of_objects_survive_another_grid_and_a_turn():
    kind = target_kinds.target_kind(Instances())
    preprocessing = Preprocessing(2, ("0",), (Normalisation("zscore"),), shape=(24, 24))
    image = Image(np.random.default_rng(0).normal(size=(1, 12, 12)), Geometry.of_pixels((12, 12)))
    _, trace = preprocessing(image, "case")
    data = kind.prepare(Target(Instances(), NUMBERS), preprocessing, trace)
    assert data.dtype == np.int32
    assert set(np.unique(data)) == {0, 3, 70_000}
    augmentation = Augmentation(rotation=30.0, probability=1.0, flips=(0, 1))
    movement = SampledMovement([np.random.default_rng(1)], (1.0, 1.0), (0, 1))
    images, numbers = kinds.move_batch(
        kind, augmentation, torch.zeros(1, 1, 24, 24), torch.from_numpy(data)[None], movement
    )
    assert images.shape == (1, 1, 24, 24)
    assert not torch.equal(numbers[0], torch.from_numpy(data))
    assert set(numbers.unique().tolist()) == {0, 3, 70_000}
    assert set(kind.coarse(numbers, (24, 24), (12, 12)).unique().tolist()) <= {0, 3, 70_000}


def test_of_a_large_organ_only_the_positions_that_are_kept_take_memory():
    organ = np.ones((100, 100, 100), np.uint8)
    tracemalloc.start()
    [found] = target_kinds.target_kind(Dense(2)).positions(Target(Dense(2), organ), organ, organ.shape).values()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(np.unique(found, axis=0)), found.max(), found.min()) == (kinds.POSITIONS, 99, 0)
    assert most < 24 * organ.size  # three coordinates of every voxel


def test_patches_are_centred_on_objects_whatever_their_numbers():
    positions = target_kinds.target_kind(Instances()).positions(Instances(), NUMBERS, NUMBERS.shape)
    assert list(positions) == [1]
    assert (NUMBERS[tuple(positions[1].T)] > 0).all()
    assert len(positions[1]) == 21


def test_a_structure_has_one_name_in_cases_of_which_other_parts_are_known():
    """Cases with boxes alone do not make the organ of another part common."""
    organ, boxes = np.eye(12, dtype=np.uint8), np.array([[0, 2, 2, 5, 5]], np.float32)
    each = {"boxes": (Boxes(2), boxes), "mask": (Dense(2), organ)}
    cases = []
    for n, known in enumerate([("boxes",), ("boxes",), ("boxes", "mask"), ("mask",)]):
        own = {part: each[part] for part in known}
        kind = target_kinds.target_kind(SeveralHeads({part: head for part, (head, _) in own.items()}))
        data = {part: array for part, (_, array) in own.items()}
        target = Target(SeveralHeads({}), {part: Target(head, array) for part, (head, array) in own.items()})
        places = kind.positions(target, data, (12, 12))
        positions, structures = tuple(places.values()), tuple(map(str, places))
        image = np.zeros((1, 12, 12), np.float32)
        cases.append(PreparedCase(str(n), image, data, positions, (1.0, 1.0), kind, structures=structures))
    assert Loader(cases, (4, 4), 2, 1.0, 0)._rarity == {"boxes_1": 1 / 3, "mask_1": 1 / 2}
