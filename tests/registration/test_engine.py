"""Registration of small pairs whose motion is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hilum
import real_data
from hilum.errors import GeometryError, UsageError
from hilum.registration import _pyramid, engine, harm_checks, linear, similarity_measures
from hilum.registration.engine import RegistrationSettings
from hilum.registration.linear import FirstGuess
from hilum.transforms import spatial_transforms
from hilum.values import Geometry, Image, SpatialTransform
from simulated_pairs import blobs, oblique, pair_of, smooth_field, turn_and_shift

FIXED = Geometry((24, 22, 20), np.array([[1.0, 0, 0, -12], [0, 1, 0, -11], [0, 0, 1.2, -12], [0, 0, 0, 1]]))
RIGID = RegistrationSettings("rigid")
SELDOM = "patients seldom lie so, look at the pictures"


def inner_points(grid: Geometry) -> np.ndarray:
    index = np.random.default_rng(0).uniform(0.2, 0.8, size=(200, grid.ndim)) * (np.array(grid.shape) - 1)
    return grid.to_world(index)


def mean_error(made: SpatialTransform, true: SpatialTransform, grid: Geometry) -> float:
    points = inner_points(grid)
    return float(
        np.linalg.norm(
            spatial_transforms.carry_points(made, points) - spatial_transforms.carry_points(true, points), axis=1
        ).mean()
    )


@pytest.fixture(scope="module")
def turned() -> tuple[Image, Image, SpatialTransform]:
    """An image, the same on an oblique left-handed grid after a rigid motion, and the motion."""
    other = oblique((26, 28, 22))
    middle = other.corners.mean(axis=0) - FIXED.corners.mean(axis=0)
    motion = SpatialTransform(
        (turn_and_shift((9, -6, 12), tuple(middle + np.array([2.0, -1.5, 1.0])), FIXED),), FIXED, other
    )
    return *pair_of(motion), motion


def test_a_rigid_motion_onto_an_oblique_flipped_grid_is_found_within_a_third_of_a_millimetre(turned):
    fixed, moving, motion = turned
    made = engine.register_images(fixed, moving, RIGID)
    assert mean_error(made.transform, motion, FIXED) < 0.3
    matrix = made.transform.matrix
    assert matrix is not None
    assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-5)
    assert made.after > made.before


def test_a_motion_is_settled_on_the_images_own_voxels_unless_self_similarity_speaks_against_it(turned, monkeypatch):
    fixed, moving, motion = turned
    pair = _pyramid.prepare_pair(fixed, moving, None, one_scale=True)
    true = motion.matrix
    assert true is not None
    turn, level = true[:3, :3], pair.level(2.0)
    shift = true[:3, 3] - pair.moving_centre + turn @ pair.fixed_centre
    off = FirstGuess("", turn, shift + 0.8)

    def error_of(guess: FirstGuess) -> float:
        return mean_error(SpatialTransform((guess.affine(pair),), FIXED, moving.geometry), motion, FIXED)

    settled = engine._settle(pair, level, off, "lncc", RIGID)
    assert error_of(off) > 1 and error_of(settled) < 0.1
    monkeypatch.setattr(harm_checks, "loss_at", lambda *_: 1.0)
    assert engine._settle(pair, level, off, "lncc", RIGID) is off


@pytest.mark.parametrize("name", ["mi", "mse"])
def test_voxels_that_are_sampled_are_the_same_each_time_and_tell_what_all_tell(turned, name):
    level = _pyramid.prepare_pair(turned[0], turned[1], None, one_scale=True).level(1.0)
    guess = FirstGuess("", turn_and_shift((5, 3, 8), (0.5, 1, 0), FIXED).matrix[:3, :3], np.array([1.0, 0.5, 0]))
    levels = [level, *(level.sample_voxels(count) for count in (10**6, 4000, 4000))]
    every, shuffled, some, again = (
        harm_checks.loss_at(one, guess, similarity_measures.SIMILARITIES[name]) for one in levels
    )
    assert shuffled == pytest.approx(every, rel=1e-4)
    assert every != some == again
    assert some == pytest.approx(every, rel=0.05)


@pytest.fixture(scope="module")
def bent():
    """A pair that a smooth field takes apart, and its registration."""
    true = SpatialTransform((smooth_field(FIXED, 1.8),), FIXED, FIXED)
    fixed, moving = pair_of(true)
    return fixed, moving, true, engine.register_images(fixed, moving, RegistrationSettings(initial="world"))


def test_a_smooth_warp_is_found_within_half_a_voxel_and_its_inverse_leads_back(bent):
    _, _, true, made = bent
    assert mean_error(made.transform, true, FIXED) < 0.5
    assert (
        mean_error(
            spatial_transforms.compose_transforms(made.transform, made.inverse),
            SpatialTransform((), FIXED, FIXED),
            FIXED,
        )
        < 0.05
    )


PICTURE = Geometry.of_pixels((24, 30))


@pytest.fixture(scope="module")
def pictures() -> tuple[Image, Image]:
    return pair_of(SpatialTransform((smooth_field(PICTURE, 1.0),), PICTURE, PICTURE))


def test_the_same_pair_gives_the_same_bits_and_pixels_are_said_to_be_pixels(pictures):
    first, again = (engine.register_images(*pictures) for _ in range(2))
    assert first.transform.parts[0].vectors.tobytes() == again.transform.parts[0].vectors.tobytes()
    assert any("x the column and y the row" in note for note in first.notes)
    assert first.after > first.before


def test_modalities_choose_the_similarity(pictures):
    fixed, moving = pictures
    for first, second, name in (("CT", "CT", "mse"), ("MR", "MR", "lncc"), ("MR", "US", "mi")):
        made = engine.register_images(replace(fixed, modality=first), replace(moving, modality=second), RIGID)
        assert made.similarity == name
        assert made.decisions["similarity"].because


def test_mind_does_not_change_where_intensities_are_turned_around(turned):
    import torch

    image = torch.as_tensor(turned[0].data[None])
    assert torch.allclose(
        similarity_measures.mind_descriptor(image), similarity_measures.mind_descriptor(255 - image), atol=1e-4
    )
    assert similarity_measures.mind_descriptor(image).shape[1] == 12
    assert similarity_measures.mind_descriptor(image[:, :, 0]).shape[1] == 4


def test_box_means_are_those_of_the_voxels_within_the_image():
    import torch

    row = torch.tensor([1.0, 2, 3, 4]).reshape(1, 1, 1, 4)
    assert similarity_measures.box_means(row, 1).flatten().tolist() == pytest.approx([1.5, 2, 3, 3.5])


@pytest.mark.parametrize("degrees", [10, 60])
def test_a_turn_that_patients_seldom_make_is_a_finding(degrees):
    motion = SpatialTransform((turn_and_shift((0, 0, degrees), tuple(np.zeros(3)), FIXED),), FIXED, FIXED)
    fixed, moving = pair_of(motion)
    made = engine.register_images(fixed, moving, RegistrationSettings("rigid", initial="centres"))
    assert mean_error(made.transform, motion, FIXED) < 0.5
    found = [note for note in made.notes if "was turned by" in note]
    assert found == [f"the moving image was turned by {degrees} degrees: {SELDOM}" for _ in range(degrees > 45)]


def test_a_mirrored_image_is_a_finding_and_is_not_mirrored():
    fixed = blobs(PICTURE)
    mirrored = fixed.with_pixels(fixed.data[:, ::-1].copy())
    made = engine.register_images(fixed, mirrored, RIGID)
    assert any("the first axis exchanged" in note for note in made.notes)
    assert np.linalg.det(made.transform.matrix) > 0


@pytest.mark.parametrize("quarters", [1, 3])
def test_a_picture_that_is_mirrored_and_turned_is_a_finding_too(quarters):
    fixed = blobs(PICTURE)
    pixels = np.rot90(fixed.data[:, ::-1], quarters, axes=(1, 2)).copy()
    turned = replace(fixed, pixels=pixels, geometry=Geometry.of_pixels(pixels.shape[1:]))
    made = engine.register_images(fixed, turned, RIGID)
    assert any("mirrored and turned" in note for note in made.notes)
    assert np.linalg.det(made.transform.matrix) > 0


def shifted(grid: Geometry, x: float, frame: str | None) -> Geometry:
    affine = grid.affine.copy()
    affine[0, 3] += x
    return replace(grid, affine=affine, frame_of_reference=frame)


@pytest.mark.parametrize(
    ("moving", "settings", "words"),
    [
        (blobs(shifted(FIXED, 500, "1.2.3")), RIGID, "do not overlap in the frame"),
        (blobs(shifted(FIXED, 500, None)), RegistrationSettings("rigid", initial="world"), "do not overlap"),
        (blobs(shifted(FIXED, 0, "1.2.4")), RIGID, "different frames of reference"),
        (blobs(Geometry.of_pixels((9, 9))), RIGID, "3 axes and 2 axes"),
        (blobs(Geometry.of_pixels((9, 9, 9))), RIGID, "known of the fixed image only"),
    ],
)
def test_images_that_cannot_lie_on_one_another_are_refused(moving, settings, words):
    fixed = blobs(replace(FIXED, frame_of_reference="1.2.3"))
    with pytest.raises(GeometryError, match=words):
        engine.register_images(fixed, moving, settings)


def masked(turned, *box, settings=RIGID, moving=None):
    fixed, other, _ = turned
    mask = np.zeros(FIXED.shape, bool)
    mask[box] = True
    return engine.register_images(fixed, moving or other, settings, mask)


def test_a_mask_that_holds_too_little_is_refused_with_what_it_leaves(turned):
    with pytest.raises(UsageError, match="the mask of the fixed image is empty"):
        masked(turned, np.s_[0:0])
    with pytest.raises(UsageError, match=r"leaves 64 voxels of 1 x 1 x 1.2 mm to compare, and 125 are needed"):
        masked(turned, np.s_[8:12], np.s_[8:12], np.s_[8:12])


def test_a_mask_that_the_moving_image_does_not_reach_in_the_world_is_refused(turned):
    fixed = turned[0]
    half = replace(fixed, pixels=fixed.data[:, 14:], geometry=FIXED.crop((slice(14, 24), slice(0, 22), slice(0, 20))))
    with pytest.raises(GeometryError, match=r"the moving one reaches 0% of the mask.*--initial centres"):
        masked(turned, np.s_[0:8], moving=half)


def test_few_compared_voxels_are_a_finding():
    image = blobs(FIXED)
    mask = np.zeros(FIXED.shape, bool)
    mask[8:15, 8:15, 8:15] = True
    notes = engine.register_images(image, image, RIGID, mask).notes
    assert any("only 294 voxels" in note or "only 343 voxels" in note for note in notes), notes


@pytest.mark.whole  # frames of a series show it in a shorter way
def test_two_noisy_images_of_a_scene_that_never_moved_are_found_still():
    rng, image = np.random.default_rng(0), blobs(FIXED)
    noise = 0.01 * np.ptp(image.data)
    pair = (image.with_pixels(image.data + rng.normal(0, noise, image.shape).astype(np.float32)) for _ in range(2))
    assert mean_error(engine.register_images(*pair, RIGID).transform, SpatialTransform((), FIXED, FIXED), FIXED) < 0.1


def test_noise_that_is_laid_on_noise_is_a_finding():
    rng = np.random.default_rng(0)
    grid = Geometry((16, 16, 16), np.eye(4))
    one, other = (Image(rng.normal(size=(1, 16, 16, 16)).astype(np.float32), grid, "MR") for _ in range(2))
    made = engine.register_images(one, other, RIGID)
    assert made.applied is False and any("no better than shuffled ones" in note for note in made.notes)
    assert np.array_equal(made.transform.matrix, made.first_guess.matrix)


@pytest.mark.parametrize(
    ("moving", "applied"),
    [
        ("hippocampus/images/hippocampus_008.nii.gz", True),
        pytest.param("registration/prostate_mr_us/case000012_moving_image.nii.gz", False, marks=pytest.mark.corpus),
    ],
)
def test_within_one_contrast_another_person_is_laid_on_and_another_organ_is_left(moving, applied):
    images = [hilum.read(real_data.find(one)) for one in ("hippocampus/images/hippocampus_019.nii.gz", moving)]
    images = [Image(one.data[:1].astype(np.float32), Geometry(one.geometry.shape, np.eye(4)), "MR") for one in images]
    made = engine.register_images(*images, RIGID)
    assert (made.similarity, made.applied) == ("lncc", applied)
    assert any("no more alike than shuffled ones" in note for note in made.notes) is not applied


def test_of_images_without_a_modality_the_measure_is_kept_by_which_both_agree(turned):
    """Where local correlation went wrong information and self-similarity say so, and else it stays."""
    fixed, moving, motion = (replace(one, modality="unknown") if isinstance(one, Image) else one for one in turned)
    made = engine.register_images(fixed, moving, RIGID)
    assert (made.similarity, made.notes) == ("lncc", ())
    pair = _pyramid.prepare_pair(fixed, moving, None, one_scale=False)
    levels = [pair.level(spacing) for spacing in _pyramid.level_spacings(pair.fixed_grid, engine.LEVELS, 2**14)]
    guesses = list(linear.first_guesses(pair, ["centres"]))
    off = engine._LinearFit(replace(guesses[0], shift=guesses[0].shift + 9))
    fit, doubt = engine._by_either_measure(off, pair, levels, guesses, RIGID, "here")
    found = SpatialTransform((fit.found.affine(pair),), fixed.geometry, moving.geometry)
    assert mean_error(found, motion, FIXED) < 0.5
    assert "mi is kept, by which and by self-similarity they are more alike" in doubt


def test_a_rigid_motion_is_found_where_bright_is_dark_in_the_other_image(turned):
    fixed, moving, motion = turned
    inverted = moving.with_pixels(float(moving.data.max()) - moving.data)
    made = engine.register_images(fixed, inverted, RIGID)
    assert (made.similarity, made.applied) == ("mi", True)
    assert "not bright in the other" in made.decisions["similarity"].because
    assert mean_error(made.transform, motion, FIXED) < 0.5
    assert made.after > made.before


@pytest.mark.whole  # the rule itself is tested with the checks of harm
def test_across_contrasts_no_turn_is_applied_that_patients_do_not_make():
    motion = SpatialTransform((turn_and_shift((0, 0, 60), (0.0, 0, 0), FIXED),), FIXED, FIXED)
    fixed, moving = pair_of(motion)
    inverted = replace(moving.with_pixels(float(moving.data.max()) - moving.data), modality="PT")
    made = engine.register_images(fixed, inverted, RegistrationSettings("rigid", initial="centres"))
    assert made.applied is False
    assert made.notes == ("the moving image would be turned by 60 degrees, more than 45: nothing was moved",)
    assert np.array_equal(made.transform.matrix, made.first_guess.matrix)


def test_an_image_of_another_modality_that_lay_right_stays_where_it_is():
    image, rng = blobs(FIXED), np.random.default_rng(1)
    other = image.with_pixels(
        (np.sqrt(1 + image.data.max() - image.data) + rng.normal(0, 0.05, image.shape)).astype("f4")
    )
    made = engine.register_images(image, replace(other, modality="PT"), RIGID)
    assert mean_error(made.transform, SpatialTransform((), FIXED, FIXED), FIXED) < 0.2
    assert not any("nothing was moved" in note for note in made.notes)


@pytest.mark.parametrize("name", ["mi", "nmi"])
def test_mutual_information_is_that_of_a_joint_histogram_and_falls_where_images_move_apart(name):
    import torch
    from sklearn.metrics import mutual_info_score

    rng = torch.Generator().manual_seed(0)
    image = torch.rand((1, 1, 40, 40, 40), generator=rng)
    like = (1 - image + 0.1 * torch.rand(image.shape, generator=rng)) / 1.1
    weight = torch.ones_like(image)

    def figure_of(other) -> float:
        loss = similarity_measures.SIMILARITIES[name](image, other, weight)
        return similarity_measures.figure_of_loss(name, float(loss))

    unlike = torch.rand(image.shape, generator=rng)
    assert figure_of(like) > figure_of(torch.roll(like, 1, 2)) - 1e-6 >= figure_of(unlike) - 1e-2
    if name == "mi":
        bins = [np.digitize(one.numpy().ravel(), np.linspace(0, 1, 30)) for one in (image, like)]
        assert figure_of(like) == pytest.approx(mutual_info_score(*bins), rel=0.15)
        assert abs(figure_of(unlike)) < 0.02


@pytest.mark.parametrize("is_slab_fixed", [True, pytest.param(False, marks=pytest.mark.whole)])
def test_a_slab_whose_header_states_no_common_place_is_found_along_the_body(is_slab_fixed):
    whole = blobs(Geometry((24, 24, 40), np.diag([1.0, 1, 1, 1])))
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = (0, 0, 14)  # slices 26 to 39 of the whole lie at 14 to 27
    slab = replace(whole, pixels=whole.data[..., 26:], geometry=Geometry((24, 24, 14), affine))
    pair, shift = ((slab, whole), 12) if is_slab_fixed else ((whole, slab), -12)
    made = engine.register_images(*pair, RIGID).transform
    points = inner_points(slab.geometry) + np.array([0, 0, 0 if is_slab_fixed else 12])
    assert np.linalg.norm(spatial_transforms.carry_points(made, points) - points - [0, 0, shift], axis=1).mean() < 0.3


def test_a_constant_image_is_refused():
    fixed = blobs(FIXED)
    with pytest.raises(UsageError, match="moving image is constant"):
        engine.register_images(fixed, fixed.with_pixels(np.ones_like(fixed.data)), RIGID)
