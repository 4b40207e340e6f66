"""Lesions that are simulated by formula, so that their sizes are known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.evaluation import lesions
from hilum.evaluation.lesions import Lesions
from hilum.transforms import spatial_transforms
from hilum.values import Affine, Geometry, Image, Label, SpatialTransform

GRID = Geometry((90, 80, 60), np.diag([1.0, 1.0, 1.5, 1.0]))
NAMES = (Label(1, "lesion"), Label(2, "lymph node"))
STILL = SpatialTransform((), GRID, GRID)
MIDDLE, ASIDE = (45, 40, 45), (20, 20, 45)


@cache
def places(grid) -> np.ndarray:
    """(3, *spatial) mm of each voxel."""
    return np.moveaxis(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0).astype(np.float32)


def simulated(*ellipsoids, grid=GRID) -> Image:
    """A mask of ellipsoids, each (value, centre in mm, three diameters in mm)."""
    values = np.zeros(grid.shape, np.uint8)
    for value, centre, sizes in ellipsoids:
        apart = sum(((axis - at) / (size / 2)) ** 2 for axis, at, size in zip(places(grid), centre, sizes, strict=True))
        values[apart <= 1] = value
    return Image(values[None], grid, labels=NAMES)


def measured(*ellipsoids) -> Lesions:
    return lesions.find_lesions(simulated(*ellipsoids))


def links(before: Lesions, after: Lesions, there: SpatialTransform = STILL, back: SpatialTransform = STILL):
    return [(one.before, one.after, one.state) for one in lesions.link_lesions(before, after, there, back)]


def test_an_ellipsoid_has_its_volume_and_the_diameters_of_its_largest_axial_plane():
    [one] = measured((1, MIDDLE, (30, 20, 40))).each
    assert_allclose(one.ml, np.pi / 6 * 30 * 20 * 40 / 1000, rtol=0.02)
    assert_allclose([one.size.long, one.size.short], [30, 20], atol=1.5)
    assert one.extent == one.size.long


def test_axial_planes_are_found_where_slices_are_sagittal_and_a_node_counts_by_its_short_axis():
    turned = Geometry((60, 90, 80), np.array([[0, 1.0, 0, 0], [0, 0, 1.0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]]))
    [one] = lesions.find_lesions(simulated((2, MIDDLE, (30, 20, 40)), grid=turned)).each
    assert_allclose(one.extent, 20, atol=1.5)


def test_lesions_merge_split_vanish_and_appear():
    before = measured((1, (25, 20, 45), (16, 16, 16)), (1, (45, 20, 45), (16, 16, 16)), (1, (60, 60, 45), (30, 12, 12)))
    after = measured((1, (35, 20, 45), (40, 18, 18)), (1, (52, 60, 45), (10, 10, 10)), (1, (68, 60, 45), (10, 10, 10)))
    assert links(before, after) == [((1, 2), (1,), "matched"), ((3,), (2, 3), "matched")]
    lost = links(before, measured((1, (60, 60, 45), (30, 12, 12)), (1, (80, 20, 75), (8, 8, 8))))
    assert lost == [((1,), (), "gone"), ((2,), (), "gone"), ((3,), (1,), "matched"), ((), (2,), "new")]


def test_small_lesions_that_registration_left_apart_are_one_within_five_millimetres():
    before, apart = measured((1, MIDDLE, (6, 6, 6))), {9: "matched", 14: "new"}
    for shift, state in apart.items():
        after = measured((1, (45 + shift, 40, 45), (6, 6, 6)))
        assert links(before, after)[-1][2] == state


def test_a_lesion_beyond_the_follow_up_image_is_not_gone():
    shift = np.eye(4)
    shift[2, 3] = 60
    below = SpatialTransform((Affine(shift),), GRID, GRID)
    before, after = measured((1, MIDDLE, (20, 20, 20))), measured()
    found = lesions.link_lesions(before, after, below, spatial_transforms.invert_transform(below))
    assert [one.state for one in found] == ["unseen"]
    assert lesions.recist(before, after, found).verdict == "NE"


def test_at_most_five_targets_are_chosen_and_two_of_an_organ():
    organs = np.zeros(GRID.shape, np.uint8)
    organs[:45], organs[45:] = 1, 2
    centres = [(10 + 18 * column, 15 + 25 * row, 45) for column in range(5) for row in range(2)]
    spots = [(1, place, (10.9 + n / 3, 9, 9)) for n, place in enumerate(centres)]
    assert len(lesions.choose_targets(measured(*spots))) == 5
    structures = Image(organs[None], GRID, labels=(Label(1, "liver"), Label(2, "lung")))
    held = lesions.find_lesions(simulated(*spots), structures)
    assert sorted(held.each[number - 1].organ for number in lesions.choose_targets(held)) == [
        "liver",
        "liver",
        "lung",
        "lung",
    ]


@pytest.mark.parametrize(
    ("length", "earlier", "verdict"),
    [(32, (), "SD"), (39, (), "PD"), (32, (25,), "PD"), (25, (), "SD"), (20, (), "PR"), (20, (10,), "PD")],
)
def test_the_sum_of_diameters_decides_by_recist(length, earlier, verdict):
    before, after = measured((1, MIDDLE, (30, 12, 12))), measured((1, MIDDLE, (length, 12, 12)))
    made = lesions.recist(before, after, lesions.link_lesions(before, after, STILL, STILL), earlier)
    assert made.verdict == verdict, made.because
    assert_allclose(made.figures["sum_before_mm"], 30, atol=1.5)


def test_a_normal_node_and_no_other_lesion_is_a_complete_response_and_a_new_lesion_is_progression():
    before = measured((1, ASIDE, (20, 20, 20)), (2, MIDDLE, (24, 20, 20)))
    node = (2, MIDDLE, (12, 8, 8))
    after = measured(node)
    assert lesions.recist(before, after, lesions.link_lesions(before, after, STILL, STILL)).verdict == "CR"
    worse = measured(node, (1, (70, 60, 45), (12, 12, 12)))
    made = lesions.recist(before, worse, lesions.link_lesions(before, worse, STILL, STILL))
    assert made.verdict == "PD"
    assert made.because.startswith("1 new lesion (")
    assert made.because.endswith(" 13 mm long, at 70, 60, 45 mm): any makes it progression")


LESIONS = ((1, ASIDE, (20, 20, 20)), (1, MIDDLE, (8, 8, 8)))


def speckled(*ellipsoids, specks=()) -> Lesions:
    mask = simulated(*ellipsoids)
    for number, at in enumerate(specks):
        for along in range(at[3]):
            mask.pixels[0][at[0] + along % 3, at[1] + along // 3 % 3, at[2] + along // 9] = 1 + number % 2
    return lesions.find_lesions(mask)


@pytest.mark.parametrize("voxels", [1, 3, 26])
def test_a_stray_piece_of_a_few_voxels_is_no_new_lesion_and_none_that_is_gone(voxels):
    speck = [(70, 60, 20, voxels)]
    for before, after in (
        (speckled(*LESIONS), speckled(*LESIONS, specks=speck)),
        (speckled(*LESIONS, specks=speck[: voxels < 20]), speckled(*LESIONS)),
        (speckled(), speckled(specks=speck)),
        (speckled(LESIONS[1]), speckled(LESIONS[1], specks=speck)),
    ):
        found = lesions.link_lesions(before, after, STILL, STILL)
        made = lesions.recist(before, after, found)
        assert {one.state for one in found} <= {"matched", "speck"}
        assert made.figures["new_lesions"] == 0
        assert made.verdict != "PD"
        notes = lesions.speck_notes(before, after, found)
        assert [f"{voxels} voxel" in one for one in notes] == [True] * sum(one.state == "speck" for one in found)


def test_a_small_piece_is_a_new_lesion_where_the_baseline_has_none_larger_or_it_has_27_voxels():
    tiny, before = (1, MIDDLE, (3, 3, 3)), speckled((1, MIDDLE, (3, 3, 3)))
    for after in (
        speckled(tiny, (1, (70, 60, 30), (3, 3, 3))),
        speckled(*LESIONS, specks=[(70, 60, 20, 27)]),
    ):
        assert lesions.link_lesions(before, after, STILL, STILL)[-1].state == "new"


def test_a_lesion_that_shrank_to_a_few_voxels_is_still_there():
    before, after = speckled(LESIONS[0]), speckled(specks=[(19, 19, 29, 2)])
    assert [one.state for one in lesions.link_lesions(before, after, STILL, STILL)] == ["matched"]
