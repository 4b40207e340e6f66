from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprints import facts, several
from hilum.planning.rules import grid_rules
from hilum.planning.rules.grid_rules import LARGER_WINDOW, PATCH_VOXELS, WHOLE_SIDE, GridNeeds
from hilum.values import Fingerprint

sizes = st.tuples(*[st.integers(4, 300)] * 3)
# What the size of a network of convolutions names.
CONVOLVES = {"strides": [[1, 1], [2, 2]]}
spacings = st.tuples(*[st.floats(0.3, 8)] * 3)


def grid_of(found, device, room=1.0, **needs):
    return grid_rules.suggest_grid(found, GridNeeds(**needs), device, room=room)


@given(st.lists(st.tuples(sizes, spacings), min_size=1, max_size=6), st.sampled_from(["cpu", "cuda:0"]))
@settings(max_examples=40)
def test_a_patch_holds_whole_steps_of_the_strides_and_little_more_than_the_device_goes_through(found, device):
    print_of = Fingerprint(tuple(facts(shape, steps, name=str(n)) for n, (shape, steps) in enumerate(found)))
    grid = grid_of(print_of, dense=True, device=device)
    assert not np.any(np.asarray(grid.patch) % np.prod(grid.strides, axis=0))
    multiple = np.prod(grid.strides, axis=0)
    limit = PATCH_VOXELS[3]["cpu" if device == "cpu" else "gpu"]
    assert np.prod(np.asarray(grid.patch) - multiple) <= limit
    assert (np.asarray(grid.patch) < np.median(grid.extent, axis=0) + multiple).all()
    window, convolved = (
        np.asarray(grid_rules.training_window(grid, CONVOLVES).value),
        np.asarray(grid_rules.training_window(grid, {}).value),
    )
    assert not np.any(window % multiple)
    assert (window >= convolved).all()
    assert window.prod() <= LARGER_WINDOW * grid.voxels
    assert (window < np.maximum(np.percentile(grid.extent, 95, axis=0) + multiple, np.asarray(grid.patch) + 1)).all()


@pytest.mark.parametrize(
    ("shape", "patch", "window"),
    [
        ((960, 999), (256, 256), [384, 384]),
        ((960, 300), (256, 256), [384, 304]),
        ((160, 160, 24), (80, 80, 24), [112, 112, 24]),
        ((128, 128, 128), (48, 48, 48), [48, 48, 56]),
        ((128, 128, 128), (64, 64, 64), [80, 80, 80]),
    ],
)
def test_a_convolving_network_predicts_in_larger_windows_than_it_learns_from(shape, patch, window):
    grid = grid_of(several(3, shape=shape, steps=(1.0,) * len(shape)), dense=True, device="cpu")
    grid = replace(grid, patch=patch, strides=[[2, 2, 2][: len(shape)]] * 3 + [[2, 2, 1][: len(shape)]])
    assert grid_rules.training_window(grid, CONVOLVES).value == window
    assert grid_rules.training_window(grid, {**CONVOLVES, "image": list(patch)}).value == list(patch)
    assert grid_rules.training_window(grid, {"heads": 3}).value == list(patch)


def test_the_spacing_is_the_median_where_voxels_are_nearly_cubes():
    found = Fingerprint(tuple(facts((40, 40, 40), (1.0, 1.0, z), name=str(z)) for z in (1.0, 2.0, 2.5)))
    assert grid_of(found, dense=True, device="cpu").spacing.value == [1.0, 1.0, 2.0]


def test_along_thick_slices_the_spacing_is_the_tenth_percentile_as_in_nnunet():
    thickness = (3.0, 5.0, 5.0, 5.0, 8.0)
    found = Fingerprint(tuple(facts((256, 256, 20), (0.8, 0.8, z), name=str(z)) for z in thickness))
    spacing = grid_of(found, dense=True, device="cpu").spacing
    assert spacing.value == pytest.approx([0.8, 0.8, np.percentile(thickness, 10)], abs=1e-4)
    assert "10th percentile, 3.8 instead of 5 mm" in spacing.because


def test_the_spacing_never_becomes_finer_than_that_of_the_other_axes():
    thickness = (0.1, 0.1, 6.0, 6.0, 6.0, 6.0)
    found = Fingerprint(tuple(facts((256, 256, 20), (0.8, 0.8, z), name=str(n)) for n, z in enumerate(thickness)))
    assert grid_of(found, dense=True, device="cpu").spacing.value[2] == 0.8


def test_many_thick_slices_keep_their_median():
    found = several(3, shape=(64, 64, 60), steps=(0.5, 0.5, 2.0))
    assert grid_of(found, dense=True, device="cpu").spacing.value == [0.5, 0.5, 2.0]


@pytest.mark.parametrize(
    ("spacing", "axis"), [((1, 1, 3.1), 2), ((3.1, 1, 1), 0), ((1, 1, 3), None), ((1, 9), None), (None, None)]
)
def test_slices_are_thick_from_three_times_the_others_on(spacing, axis):
    assert grid_rules.thick_axis(spacing) == axis


def test_along_thick_slices_a_unet_halves_later():
    grid = grid_of(several(2, shape=(256, 256, 24), steps=(1.0, 1.0, 4.0)), dense=True, device="cpu")
    assert grid.strides[1:3] == [[2, 2, 1], [2, 2, 1]]
    assert grid.strides[3][2] == 2


def test_where_sizes_in_mm_are_unknown_images_keep_their_grid():
    grid = grid_of(several(3, shape=(100, 90), physical=False), dense=True, device="cpu")
    assert grid.spacing.value is None
    assert grid.thick is None


def test_pictures_of_28_pixels_are_looked_at_as_they_are():
    grid = grid_of(several(3, shape=(28, 28), physical=False), dense=False, device="cpu")
    assert grid.shape.value == [28, 28]
    assert grid.patch == (28, 28)
    assert grid_rules.training_window(grid, CONVOLVES).value == [28, 28]


def test_less_room_gives_a_smaller_patch():
    found = several(2, shape=(128, 128, 128))
    whole, less = (grid_of(found, dense=True, device="cpu", room=room) for room in (1.0, 0.3))
    assert less.voxels < 0.5 * whole.voxels
    assert max(grid_of(found, dense=False, device="cpu", room=0.3).patch) < 40


def test_whole_images_that_keep_their_scale_have_one_spacing_at_which_the_largest_fit():
    cases = [facts((40, 60, 30), (1.0, 1.0, 1.0), name="a"), facts((20, 20, 20), (2.0, 2.0, 2.0), name="b")]
    grid = grid_of(Fingerprint(tuple(cases)), dense=False, device="cpu", scaled=True)
    assert grid.whole
    assert grid.shape.value is None
    assert grid.spacing.value == [1.5, 1.5, 1.5]  # the median; 60 mm and a tenth then take 44 voxels
    assert grid.patch == (28, 44, 32)  # the first axis is 40 mm long in both: nothing speaks for more
    assert grid_rules.training_window(grid, CONVOLVES).value == [28, 44, 32]
    large = grid_of(several(20, shape=(200, 100, 100)), dense=False, device="cpu", scaled=True)
    assert large.spacing.value == pytest.approx([200 / 48] * 3, abs=1e-4)
    assert large.patch == (48, 24, 24)


@given(st.lists(st.tuples(sizes, spacings), min_size=1, max_size=6), st.sampled_from(["cpu", "cuda:0"]))
@settings(max_examples=40)
def test_where_sizes_may_be_asked_for_every_training_image_is_seen_whole(found, device):
    print_of = Fingerprint(tuple(facts(shape, steps, name=str(n)) for n, (shape, steps) in enumerate(found)))
    grid = grid_of(print_of, dense=False, device=device, scaled=True)
    assert (np.rint(grid.extent) <= np.asarray(grid.patch)).all()
    assert max(grid.patch) <= WHOLE_SIDE[3]["cpu" if device == "cpu" else "gpu"] + 4


@pytest.mark.parametrize("needs", [{"dense": True}, {"dense": False, "scaled": True}])
def test_patches_and_strides_follow_a_spacing_that_was_set_by_hand(needs):
    found = several(20, shape=(40, 40, 20), steps=(1.0, 1.0, 2.0))
    own, coarse = (
        grid_rules.suggest_grid(found, GridNeeds(**needs), "cpu", spacing=asked) for asked in (None, [2.0, 2.0, 2.0])
    )
    assert coarse.spacing.value == [2.0, 2.0, 2.0]
    assert (coarse.extent == [20, 20, 20]).all()
    assert coarse.patch == (20, 20, 20) != own.patch
    assert coarse.strides[1] == [2, 2, 2] != own.strides[1]


@pytest.mark.parametrize("asked", [[2.0, 2.0], None])
def test_a_spacing_of_other_axes_is_left_to_what_refuses_it(asked):
    found = several(20, shape=(40, 40, 20))
    assert grid_rules.suggest_grid(found, GridNeeds(dense=True), "cpu", spacing=asked).patch == (40, 40, 20)


def test_one_odd_case_makes_all_others_coarse_and_is_named():
    odd = facts((40, 400, 40), (1.0, 1.0, 1.0), name="odd")
    cases = (*several(40, shape=(40, 40, 40)).cases, odd)
    spacing = grid_of(Fingerprint(cases), dense=False, device="cpu", scaled=True).spacing
    assert spacing.value == pytest.approx([400 * 1.1 / 48] * 3, abs=1e-4)
    assert "one case is up to 400 mm long, the others at most 40" in spacing.because


def test_sizes_that_are_lost_are_told():
    cases = [facts((40, 60), physical=False, name="a"), facts((30, 30), physical=False, name="b")]
    shape = grid_of(Fingerprint(tuple(cases)), dense=False, device="cpu", scaled=True).shape
    assert "in voxels they are lost where images differ in shape" in shape.because


def test_pictures_without_a_size_in_mm_come_to_one_shape_all_the_same():
    grid = grid_of(several(3, shape=(28, 28), physical=False), dense=False, device="cpu", scaled=True)
    assert (grid.shape.value, grid.spacing.value) == ([28, 28], None)


def test_an_answer_for_every_voxel_and_one_for_the_whole_image_share_whole_images_as_fine_as_patches():
    grid = grid_of(several(3, shape=(560, 480), physical=False), dense=True, whole=True, device="cpu")
    assert grid.whole and grid.dense
    assert grid.patch == tuple(grid.shape.value) == (256, 224)
    assert all(size % 16 == 0 for size in grid.patch)  # a U-Net halves them four times
    small = grid_of(several(3, shape=(24, 24), physical=False), dense=True, whole=True, device="cpu")
    assert small.patch == (24, 24)


def test_whole_images_of_known_size_that_every_voxel_of_is_asked_for_keep_their_scale():
    cases = several(3, shape=(40, 44, 40), steps=(1.0, 1.0, 1.0))
    grid = grid_of(cases, dense=True, whole=True, device="cpu")
    assert grid.shape.value is None
    assert grid.spacing.value == [1.0, 1.0, 1.0]
    assert grid.patch == (40, 44, 40)


@pytest.mark.parametrize("scaled", [False, True])
def test_whole_images_of_thick_slices_are_halved_along_them_later(scaled):
    """Of 1 x 1 x 4 mm: after two halvings of the others voxels are cubes. Without mm all axes are halved alike."""
    cases = several(3, shape=(64, 64, 16), steps=(1.0, 1.0, 4.0))
    grid = grid_of(cases, dense=False, scaled=scaled, device="cuda:0")
    assert grid.strides[:4] == [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2]]
    unknown = several(3, shape=(64, 64, 16), steps=(1.0, 1.0, 4.0), physical=False)
    assert grid_of(unknown, dense=False, scaled=scaled, device="cuda:0").strides[1] == [2, 2, 2]


@pytest.mark.parametrize("steps", [(8e-6, 8e-6, 5e-5), (4e-6, 4e-6, 4e-5), (4e-9, 4e-9, 4e-8)])
def test_thick_sections_under_an_electron_microscope_keep_their_spacing(steps):
    grid = grid_of(several(3, shape=(1250, 1250, 125), steps=steps), dense=True, device="cpu")
    assert grid.spacing.value == pytest.approx(steps)
    assert min(grid.patch) >= 16


def heads(count: int) -> Fingerprint:
    """Heads in much air, as in BraTS."""
    cases = several(count, shape=(240, 240, 155)).cases
    return Fingerprint(tuple(replace(one, content_shape=(140, 172, 139)) for one in cases))


def test_where_the_air_around_is_cut_away_patches_are_cut_from_what_is_left():
    needs = GridNeeds(dense=True)
    grid, uncut = (grid_rules.suggest_grid(heads(4), needs, "cuda:0", cropped=cropped) for cropped in (None, False))
    assert grid.cropped and not uncut.cropped
    assert np.median(grid.extent, axis=0).tolist() == [140, 172, 139]
    assert np.median(uncut.extent, axis=0).tolist() == [240, 240, 155]
    assert grid.voxels / grid.extent[0].prod() > 0.5
    assert not grid_rules.suggest_grid(several(4), needs, "cuda:0").cropped


def test_a_single_slice_is_cut_down_in_its_plane():
    found = Fingerprint((replace(facts((200, 180, 1)), content_shape=(90, 80, 1)),))
    assert grid_of(found, dense=True, device="cpu").extent.tolist() == [[90, 80]]
