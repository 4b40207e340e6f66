import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from hilum.errors import GeometryError, UsageError
from hilum.evaluation import distance, mask_overlap
from hilum.evaluation.mask_overlap import Overlap
from hilum.values import Geometry

masks = hnp.arrays(bool, (4, 5))
maps = hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 4))


def square(start: int, stop: int):
    mask = np.zeros((20, 20), dtype=bool)
    mask[start:stop, start:stop] = True
    return mask


def test_a_square_shifted_by_half_its_side_along_both_axes():
    found = mask_overlap.overlap_of_masks(square(4, 14), square(9, 19))  # 25 of 100 pixels are shared
    assert found == Overlap(25, 100, 100)
    assert (found.dice, found.iou) == (0.25, 25 / 175)
    assert (found.sensitivity, found.precision, found.is_detected) == (0.25, 0.25, 1.0)


@given(masks, masks)
def test_the_figures_are_those_of_scikit_learn(prediction, reference):
    found, truth, called = mask_overlap.overlap_of_masks(prediction, reference), reference.ravel(), prediction.ravel()
    if truth.any() or called.any():
        assert found.dice == pytest.approx(f1_score(truth, called, zero_division=0))
        assert found.iou == pytest.approx(jaccard_score(truth, called, zero_division=0))
    if truth.any():
        assert found.sensitivity == pytest.approx(recall_score(truth, called))
        assert found.precision == pytest.approx(precision_score(truth, called, zero_division=0))


@given(masks, masks)
def test_dice_and_iou_are_symmetric_and_tell_the_same(prediction, reference):
    assert mask_overlap.dice(prediction, reference) == pytest.approx(
        mask_overlap.dice(reference, prediction), nan_ok=True
    )
    shared = mask_overlap.iou(prediction, reference)
    assert mask_overlap.dice(prediction, reference) == pytest.approx(2 * shared / (1 + shared), nan_ok=True)


def test_two_empty_masks_are_not_scored():
    nothing = mask_overlap.overlap_of_masks(square(0, 0), square(0, 0))
    figures = [nothing.dice, nothing.iou, nothing.sensitivity, nothing.precision, nothing.is_detected]
    assert np.isnan(figures).all()
    assert nothing.false_positive_volume() == 0


def test_a_missed_structure_scores_zero():
    missed = mask_overlap.overlap_of_masks(square(0, 0), square(2, 5))
    assert (missed.dice, missed.iou, missed.sensitivity, missed.precision, missed.is_detected) == (0, 0, 0, 0, 0)
    assert np.isnan(missed.false_positive_volume())


def test_an_invented_structure_scores_zero_but_misses_nothing():
    invented = mask_overlap.overlap_of_masks(square(2, 5), square(0, 0))
    assert (invented.dice, invented.iou, invented.precision) == (0, 0, 0)
    assert np.isnan([invented.sensitivity, invented.is_detected]).all()
    assert invented.false_positive_volume(4.0) == 36  # 9 pixels of 4 mm2


def test_a_volume_error_is_signed_and_in_the_unit_of_the_voxel():
    found = Overlap(1000, 3000, 1000)
    assert (found.volume_error(0.002), found.volume_error()) == (4.0, 2000.0)
    assert Overlap(0, 0, 5).volume_error(2.0) == -10.0
    grids = [Geometry.of_spacing((2,) * axes, (1.0,) * axes) for axes in (3, 2)] + [Geometry.of_pixels((2, 2))]
    grids.append(Geometry((2,), np.eye(2), oriented=False, unit="s"))
    assert [mask_overlap.volume_unit(grid) for grid in grids] == ["ml", "mm²", "pixels", "s"]


@given(maps, maps)
def test_the_confusion_of_label_maps_is_that_of_scikit_learn(prediction, reference):
    labels = [3, 1]
    known = [np.where(np.isin(each, labels), each, 0).ravel() for each in (reference, prediction)]
    assert (
        mask_overlap.confusion_counts(prediction, reference, labels) == confusion_matrix(*known, labels=[0, *labels])
    ).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_label_maps_are_compared_part_by_part_for_volumes_are_large(order):
    reference = np.zeros((64, 256, 256), np.uint8, order=order)
    reference[::2], prediction = 2, np.full((64, 256, 256), 2, np.uint8, order=order)
    tracemalloc.start()
    found = mask_overlap.confusion_counts(prediction, reference, [2])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.tolist() == [[0, 32 * 256**2], [0, 32 * 256**2]]
    assert most < 16 * reference.size


@given(maps, maps)
def test_each_label_of_two_maps_is_the_overlap_of_its_masks(prediction, reference):
    for label, found in mask_overlap.overlap_by_label(prediction, reference, [1, 4, 2]).items():
        assert found == mask_overlap.overlap_of_masks(prediction == label, reference == label)


def test_values_beyond_the_labels_count_as_background_even_when_negative():
    assert mask_overlap.confusion_counts([-1, 7, 1], [0, 1, 1], [1]).tolist() == [[1, 0], [1, 1]]
    assert mask_overlap.confusion_counts([3, 0], [0, 1], []).tolist() == [[2]]


@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=3))
def test_the_sum_of_overlaps_pools_the_voxels_of_all_cases(cases):
    pooled = sum((mask_overlap.overlap_of_masks(one == 1, other == 1) for one, other in cases), Overlap(0, 0, 0))
    every = [np.stack(each) == 1 for each in zip(*cases, strict=True)]
    assert pooled == mask_overlap.overlap_of_masks(*every)


def test_masks_of_two_grids_are_refused():
    with pytest.raises(GeometryError, match="own grid"):
        mask_overlap.dice(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(GeometryError, match="own grid"):
        mask_overlap.confusion_counts(np.ones((2, 3), int), np.ones((3, 2), int), [1])


def test_labels_that_repeat_or_name_the_background_are_refused():
    for labels in ([1, 1], [0, 1]):
        with pytest.raises(UsageError, match="greater than 0"):
            mask_overlap.confusion_counts([1], [1], labels)


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple),
    seed=st.integers(0, 999),
    partly=st.booleans(),
)
def test_figures_of_a_structure_within_its_box_are_those_of_the_whole_image(shape, seed, partly):
    rng = np.random.default_rng(seed)
    known = rng.random(shape) > 0.1 if partly else None
    maps = [rng.integers(0, 4, shape).astype(np.uint8) * (rng.random(shape) > 0.6) for _ in range(2)]
    maps = [np.asfortranarray(one) if known is None else np.where(known, one, 0) for one in maps]
    structures = {"single": (1,), "joined": (2, 3), "nowhere": (7,)}
    matrix = mask_overlap.confusion_counts(*maps, [1, 2, 3, 7])
    for (name, box), places in zip(
        mask_overlap.boxes_of_structures(maps, structures).items(), ([1], [2, 3], [4]), strict=True
    ):
        masks = [np.isin(one, structures[name]) for one in maps]
        assert mask_overlap.overlap_of_places(matrix, places) == mask_overlap.overlap_of_masks(*masks)
        whole = distance.surface_distance(*masks, np.arange(1, 1 + len(shape)), known=known)
        there = None if known is None else known[box]
        boxed = distance.surface_distance(
            *(one[box] for one in masks), np.arange(1, 1 + len(shape)), known=there, extent=shape
        )
        for figure in ("hd95", "hd95_points", "assd"):
            assert_array_equal(getattr(boxed, figure), getattr(whole, figure))
        assert_array_equal(boxed.nsd(1.0), whole.nsd(1.0))
