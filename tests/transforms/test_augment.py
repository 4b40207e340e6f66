from __future__ import annotations

import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import TypeAdapter, ValidationError

from hilum.errors import PlanError
from hilum.transforms import augment, random_draws
from hilum.transforms.augment import ACCIDENTS, INTENSITY, KINDS, MOST_VOXELS, SPATIAL, Augmentation
from known_generators import smooth
from matrices import thinned

OFF = Augmentation(rotation=0, scale=0, contrast=0, brightness=0, gamma=0, noise=0)
# Every sample is changed in every way that is switched on.
ALWAYS = replace(OFF, probability=1, accidents=1)
MOVING = replace(ALWAYS, rotation=30, scale=0.3, shift=0.1, elastic=0.02)
STRENGTHS = {
    "rotation": 20.0,
    "scale": 0.2,
    "shear": 0.2,
    "shift": 0.1,
    "elastic": 0.02,
    "contrast": 0.3,
    "brightness": 0.3,
    "gamma": 0.5,
    "noise": 0.2,
    "blur": 1.0,
    "low_resolution": 1.0,
    "sharpen": 1.0,
    "equalise": 0.8,
    "bias_field": 0.3,
    "motion": 3.0,
    "ghosting": 0.8,
    "spikes": 0.5,
    "dose_noise": 0.3,
    "metal": 1.0,
    "cutout": 0.5,
    "style": 0.8,
    "speckle": 0.3,
    "colour": 0.5,
    "stain": 0.2,
}
EVERYTHING = Augmentation(**STRENGTHS, flips=(0, 1), probability=0.5, accidents=0.5)  # type: ignore[arg-type]
shapes = st.sampled_from([(9, 12), (6, 8, 7)])
seeds = st.integers(0, 200)
few = settings(max_examples=12)


def steps(shape: tuple[int, ...]) -> list[float]:
    return [1.0 + 0.2 * axis for axis in range(len(shape))]


def test_every_kind_of_change_has_a_strength_and_every_strength_is_tried_here():
    named = {field.name for field in fields(Augmentation)}
    assert set(KINDS) <= named
    assert set(ACCIDENTS) <= set(INTENSITY)
    assert set(STRENGTHS) == {*SPATIAL, *INTENSITY} - {"flips", "quarter_turns"}


def test_places_are_computed_in_all_of_float32_whatever_a_network_is_allowed(monkeypatch):
    """TensorFloat-32 has ten bits, by which a place at the edge of 1024 pixels is off by up to a quarter of one."""
    seen, made = [], torch.nn.functional.affine_grid

    def watched(*args, **named):
        seen.append(torch.get_float32_matmul_precision())
        return made(*args, **named)

    monkeypatch.setattr(torch.nn.functional, "affine_grid", watched)
    torch.set_float32_matmul_precision("high")
    try:
        MOVING(torch.randn(2, 1, 9, 12), None, [random_draws.sample_generator(0, 0, n) for n in range(2)], [1.0, 1.0])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["highest"]


@given(shapes, seeds)
def test_with_everything_off_image_and_label_stay_what_they_are_to_the_bit(shape, seed):
    image, labels = smooth(shape, seed, 2), torch.arange(math.prod(shape)).reshape(1, *shape)
    for off in (ALWAYS, replace(EVERYTHING, probability=0, accidents=0, flips=())):
        same, still, crossed = off(image, labels, [random_draws.sample_generator(seed, 0, 0)], steps(shape))
        assert_array_equal(same, image)
        assert_array_equal(still, labels)
        assert not crossed.any()


@pytest.mark.parametrize("shape", thinned(1, [(9, 12), (6, 8, 7)], one_value=True))
@pytest.mark.parametrize("name", STRENGTHS)
def test_each_kind_changes_the_image_and_leaves_shape_type_and_source_alone(name, shape):
    image, labels = smooth(shape, 3, channels=3, batch=2), torch.ones(2, *shape, dtype=torch.uint8)
    before, one = image.clone(), replace(ALWAYS, **{name: STRENGTHS[name]})
    changed, moved, _ = one(image, labels, [random_draws.sample_generator(5, 0, n) for n in range(2)], steps(shape))
    assert changed.shape == image.shape
    assert changed.dtype == image.dtype
    assert changed.isfinite().all()
    for n in range(2):
        assert abs(changed[n] - image[n]).max() > 1e-3
    assert_array_equal(image, before)
    assert labels.all()
    assert moved.dtype == labels.dtype
    if name in INTENSITY:
        assert_array_equal(moved, labels)


@pytest.mark.parametrize("shape", thinned(1, [(9, 12), (6, 8, 7)], one_value=True))
@pytest.mark.parametrize(
    "name", [*(one for one in STRENGTHS if one not in ("colour", "stain")), "flips", "mixup", "cutmix"]
)
def test_a_channel_that_is_not_there_stays_so_and_changes_no_other(name, shape):
    """A frame after the end of a clip is such a channel, and all of it is NaN."""
    strength = {"flips": (0, 1), "mixup": 1.0, "cutmix": 1.0} | STRENGTHS
    image, one = smooth(shape, 3, channels=3, batch=2), replace(ALWAYS, **{name: strength[name]})
    gone = image.clone()
    gone[:, 1] = math.nan
    found = []
    for given_image in (image, gone):
        generators = [random_draws.sample_generator(5, 0, n) for n in range(2)]
        changed, _, _ = one(given_image, None, generators, steps(shape))
        found.append(one.mix(changed, generators)[0])
    assert found[1][:, 1].isnan().all()
    assert_array_equal(found[1][:, [0, 2]], found[0][:, [0, 2]])


@few
@given(shapes, seeds, st.integers(0, 3))
def test_a_sample_is_changed_alike_alone_and_in_any_batch(shape, seed, place):
    images = smooth(shape, seed, channels=2, batch=4)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (4, *shape)))
    batch, moved, _ = EVERYTHING(
        images, labels, [random_draws.sample_generator(seed, 0, n) for n in range(4)], steps(shape)
    )
    one = slice(place, place + 1)
    single, single_moved, _ = EVERYTHING(
        images[one], labels[one], [random_draws.sample_generator(seed, 0, place)], steps(shape)
    )
    assert_allclose(batch[one], single, atol=1e-5)  # sharpening and equalising magnify rounding
    assert_array_equal(moved[one], single_moved)


@few
@given(shapes, seeds)
def test_the_same_generator_gives_the_same_bits_and_another_gives_another_image(shape, seed):
    image = smooth(shape, seed)
    always = replace(EVERYTHING, probability=1, accidents=1)
    first, again, other = (
        always(image, None, [random_draws.sample_generator(seed, e, 0)], steps(shape))[0] for e in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert abs(first - other).max() > 1e-3


@given(st.sampled_from(sorted(STRENGTHS)), st.sampled_from(sorted(STRENGTHS)), seeds)
@settings(max_examples=25)
def test_the_strength_of_one_kind_does_not_change_what_another_samples(one, other, seed):
    """Seen in the noise of a flat image, and in where a label lands: neither depends on what else is done."""
    flat, labels = torch.zeros(1, 1, 9, 12), torch.arange(108).reshape(1, 9, 12)

    def run(**strengths: float) -> tuple[torch.Tensor, torch.Tensor]:
        image, moved, _ = replace(OFF, probability=0.6, accidents=0.6, noise=0.5, rotation=20, **strengths)(
            flat, labels, [random_draws.sample_generator(seed, 0, 0)], (1.0, 1.0)
        )
        return image, moved

    # A flat image shows contrast, gamma, ... of nothing, so that the noise alone is left, up to brightness.
    quiet = {name: STRENGTHS[name] for name in ("contrast", "gamma", "blur", "motion", "ghosting", "bias_field")}
    assert_allclose(run()[0], run(**{name: s for name, s in quiet.items() if name in (one, other)})[0], atol=1e-5)
    intensity = {name: STRENGTHS[name] for name in (one, other) if name in INTENSITY and name != "noise"}
    assert_array_equal(run()[1], run(**intensity)[1])


def test_half_of_many_samples_are_flipped_and_the_share_of_changed_ones_is_the_probability():
    image = torch.arange(6.0).reshape(1, 1, 2, 3).expand(400, -1, -1, -1)
    every = [random_draws.sample_generator(0, 0, n) for n in range(400)]
    flipped, *_ = replace(OFF, flips=(1,))(image, None, every, (1, 1))
    assert 160 < (flipped[:, 0, 0, 0] > 1).sum() < 240
    for name, share in (("rotation", 0.3), ("gamma", 0.3), ("motion", 0.1)):
        every = [random_draws.sample_generator(0, 1, n) for n in range(400)]
        changed, *_ = replace(OFF, **{name: STRENGTHS[name]}, probability=0.3)(image, None, every, (1, 1))
        befallen = ((changed != image).flatten(1).any(dim=1)).float().mean()
        assert share - 0.07 < befallen < share + 0.07


@pytest.mark.parametrize("shape", [(7, 10), (5, 6, 8)])
def test_a_flip_is_that_of_the_array_and_twice_the_same_flip_is_none(shape):
    image, labels = smooth(shape, batch=8), torch.arange(8 * math.prod(shape)).reshape(8, *shape)
    for axis in range(len(shape)):
        flipping, every = replace(OFF, flips=(axis,), left_right=axis), range(8)
        once, moved, crossed = flipping(
            image, labels, [random_draws.sample_generator(1, 0, n) for n in every], steps(shape)
        )
        assert 0 < crossed.sum() < 8
        for n in every:
            assert_array_equal(once[n], image[n].flip(axis + 1) if crossed[n] else image[n])
            assert_array_equal(moved[n], labels[n].flip(axis) if crossed[n] else labels[n])
        twice, back, _ = flipping(once, moved, [random_draws.sample_generator(1, 0, n) for n in every], steps(shape))
        assert_array_equal(twice, image)
        assert_array_equal(back, labels)


def test_paired_labels_change_places_where_left_and_right_do_and_nowhere_else():
    """Left half is 1, right half 2, a middle 3, and 255 is left out of the loss: anatomy stays on its side."""
    labels = torch.ones(16, 6, 8, dtype=torch.uint8)
    labels[:, 3:] = 2
    labels[:, 2:4, 4] = 3
    labels[:, 0, 0] = 255
    flipping = replace(OFF, flips=(0, 1), left_right=0)
    every = [random_draws.sample_generator(4, 0, n) for n in range(16)]
    _, moved, crossed = flipping(torch.zeros(16, 1, 6, 8), labels, every, (1, 1), mirrored=(0, 2, 1, 3))
    assert 2 < crossed.sum() < 14
    plain = moved.clone()
    plain[:, 0, [0, -1]], plain[:, -1, [0, -1]] = 1, 2  # the corners hold what is left out, and its mirror images
    assert (plain[:, :3][plain[:, :3] != 3] == 1).all()
    assert (plain[:, 3:][plain[:, 3:] != 3] == 2).all()
    assert ((moved == 3).sum(dim=(1, 2)) == 2).all()
    assert ((moved == 255).sum(dim=(1, 2)) == 1).all()


def test_a_flip_along_another_axis_leaves_left_and_right_alone():
    labels = torch.ones(8, 6, 8, dtype=torch.long)
    flipping = replace(OFF, flips=(1,), left_right=0)
    _, moved, crossed = flipping(
        torch.zeros(8, 1, 6, 8),
        labels,
        [random_draws.sample_generator(0, 0, n) for n in range(8)],
        (1, 1),
        mirrored=None,
    )
    assert not crossed.any()
    assert_array_equal(moved, labels)


def test_a_flip_that_would_put_a_label_on_the_wrong_side_is_refused():
    image, one = torch.zeros(1, 1, 6, 8), [random_draws.sample_generator(0, 0, 0)]
    with pytest.raises(PlanError, match=r"augmentation.flips: left and right.*Leave out axis 0"):
        replace(OFF, flips=(0,), left_right=0)(image, None, one, (1, 1), mirrored=None)
    for mirrored in (None, (0, 2, 1)):
        with pytest.raises(PlanError, match="not known which axis"):
            replace(OFF, flips=(1,))(image, None, one, (1, 1), mirrored=mirrored)
    replace(OFF, flips=(1,))(image, None, one, (1, 1), mirrored=(0, 1, 2))


def test_an_axis_that_the_image_does_not_have_is_refused():
    with pytest.raises(PlanError, match=r"augmentation.flips: there is no axis 2 in 2 dimensions"):
        replace(OFF, flips=(0, 2)).check((), 2)
    with pytest.raises(PlanError, match=r"augmentation.left_right: there is no axis 3 in 3"):
        replace(OFF, left_right=3).check((), 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", 1.0), ("noise", -0.1), ("ghosting", 1.5), ("probability", 2), ("flips", [-1]), ("blur", math.inf)],
)
def test_an_impossible_strength_is_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        TypeAdapter(Augmentation).validate_python({**asdict(OFF), name: value})


def test_quarter_turns_take_every_sample_to_one_of_four_places_and_the_label_with_it():
    image = smooth((8, 8), batch=40)
    labels = (image[:, 0] * 1000).long()
    turned, moved, _ = replace(OFF, quarter_turns=True)(
        image, labels, [random_draws.sample_generator(0, 0, n) for n in range(40)], (1, 1)
    )
    seen = set()
    for n in range(40):
        [k] = [k for k in range(4) if torch.equal(turned[n], image[n].rot90(k, (1, 2)))]
        assert_array_equal(moved[n], labels[n].rot90(k, (0, 1)))
        seen.add(k)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(("shape", "spacing"), [((8, 6), (1, 1)), ((8, 8), (1, 2)), ((8, 6, 4), (1, 1, 1))])
def test_a_plane_that_is_no_square_makes_half_turns_only(shape, spacing):
    image = smooth(shape, batch=20)
    turned, *_ = replace(OFF, quarter_turns=True)(
        image, None, [random_draws.sample_generator(0, 0, n) for n in range(20)], spacing
    )
    half = [torch.equal(turned[n], image[n].rot90(2, (1, 2))) for n in range(20)]
    assert 3 < sum(half) < 17
    assert all(h or torch.equal(turned[n], image[n]) for n, h in enumerate(half))


@given(seeds, st.floats(5, 60))
@settings(max_examples=20)
def test_a_rotation_of_a_picture_changes_no_distance(seed, degrees):
    index = np.stack(np.meshgrid(np.arange(12), np.arange(15), indexing="ij"))
    spacing = np.array([2.0, 0.8])
    places = ((index - np.array([5.5, 7]).reshape(2, 1, 1)) * spacing.reshape(2, 1, 1)).astype(np.float32)
    turning = replace(ALWAYS, rotation=degrees)
    read, *_ = turning(
        torch.from_numpy(places)[None], None, [random_draws.sample_generator(seed, 0, 0)], spacing.tolist()
    )
    middle = (slice(5, 7), slice(6, 9))
    old, new = read[0].numpy()[:, *middle].reshape(2, -1), places[:, *middle].reshape(2, -1)
    assert_allclose(np.linalg.norm(old, axis=0), np.linalg.norm(new, axis=0), atol=1e-3)
    # The sine of the angle is what the other axis takes over; it is no larger than was asked for.
    assert abs((old[0] * new[1] - old[1] * new[0]) / (new**2).sum(axis=0)).max() <= np.sin(np.deg2rad(degrees)) + 1e-3


@given(seeds)
@settings(max_examples=20)
def test_a_rotation_of_an_anisotropic_volume_keeps_distances_in_mm(seed):
    """Reading coordinates instead of intensities: the map from new to old places is a rotation in mm."""
    shape, spacing = (8, 10, 12), np.array([1.4, 1.0, 0.5])
    places = _places(shape, spacing)
    read, *_ = replace(ALWAYS, rotation=20)(
        torch.from_numpy(places)[None], None, [random_draws.sample_generator(seed, 0, 0)], spacing.tolist()
    )
    middle = (slice(3, 5), slice(4, 6), slice(5, 7))
    old, new = read[0].numpy()[:, *middle].reshape(3, -1), places[:, *middle].reshape(3, -1)
    matrix = np.linalg.lstsq(new.T, old.T, rcond=None)[0].T
    assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-3)
    assert np.linalg.det(matrix) > 0.99
    assert abs(matrix[:2, 2]).max() > 0  # it leads out of the plane
    assert_allclose(matrix @ new, old, atol=1e-3)


@given(seeds, st.integers(0, 2))
@settings(max_examples=15)
def test_slices_far_apart_are_never_read_between(seed, axis):
    shape, spacing = (8, 10, 12), np.ones(3)
    spacing[axis] = 5.0
    places = _places(shape, spacing)
    read, *_ = MOVING(
        torch.from_numpy(places)[None], None, [random_draws.sample_generator(seed, 0, 0)], spacing.tolist()
    )
    assert_allclose(read[0, axis], places[axis], atol=1e-4)
    assert abs(read[0].numpy() - places).max() > 0.1


def test_a_patient_who_moves_while_thick_slices_are_taken_turns_in_mm():
    """2 degrees lead 0.5 mm across slices of 5 mm at the edge of the field, and not four slices on."""
    one_slice = torch.zeros(8, 1, 64, 64, 8)
    one_slice[..., 4] = 1
    sampled = [random_draws.sample_generator(seed, 0, 0) for seed in range(8)]
    moved, *_ = replace(ALWAYS, motion=2.0)(one_slice, None, sampled, (0.5, 0.5, 5.0))
    of_slices = moved.mean(dim=(0, 1, 2, 3))
    assert of_slices[4] > 0.95
    assert of_slices[[2, 6]].max() < 0.05


def _places(shape: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    """(3, *shape) mm from the centre."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    middle = (np.array(shape).reshape(-1, 1, 1, 1) - 1) / 2
    return ((index - middle) * spacing.reshape(-1, 1, 1, 1)).astype(np.float32)


@given(st.sampled_from([((24, 20), (1.0, 1.5)), ((12, 16, 14), (2.0, 1.0, 1.5))]), seeds)
@settings(max_examples=20)
def test_a_structure_stays_under_its_label(grid, seed):
    shape, spacing = grid
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    middle = np.array([size * 0.45 for size in shape]).reshape(-1, *[1] * len(shape))
    radius = np.array(shape).reshape(middle.shape) / 4
    blob = (np.sqrt((((index - middle) / radius) ** 2).sum(axis=0)) < 1).astype(np.float32)
    image = torch.from_numpy(blob)[None, None]
    everything = replace(MOVING, flips=tuple(range(len(shape))), quarter_turns=True)
    moved, labels, _ = everything(
        image, torch.from_numpy(blob)[None].long(), [random_draws.sample_generator(seed, 0, 0)], spacing
    )
    under = labels[0].bool()
    assert under.any()
    # A label has what is half or more its own, which for one structure is what the moved image says.
    assert moved[0, 0][under].min() > 0.5 - 1e-3
    assert moved[0, 0][~under].max() < 0.5 + 1e-3


@given(shapes, seeds)
@settings(max_examples=15)
def test_an_organ_that_the_edge_of_a_patch_cuts_goes_on_beyond_it_in_image_and_label_alike(shape, seed):
    """Half of the patch is organ: nowhere does the image show it under the label of the background."""
    organ = torch.zeros(1, *shape)
    organ[:, : shape[0] // 2] = 1
    moved, labels, _ = MOVING(organ[None], organ.long(), [random_draws.sample_generator(seed, 0, 0)], steps(shape))
    under = labels[0].bool()
    assert (moved[0, 0][under] > 0.5 - 1e-3).all()
    assert (moved[0, 0][~under] < 0.5 + 1e-3).all()


@given(shapes, seeds)
@settings(max_examples=15)
def test_a_moved_label_is_one_of_those_that_were_there(shape, seed):
    labels = torch.from_numpy(np.random.default_rng(seed).choice([3, 7, 200], size=(1, *shape)).astype(np.uint8))
    _, moved, _ = MOVING(smooth(shape), labels, [random_draws.sample_generator(seed, 0, 0)], steps(shape))
    assert moved.dtype == labels.dtype
    assert set(moved.unique().tolist()) <= {3, 7, 200}


def test_nothing_is_mixed_unless_it_is_asked_for_or_with_nobody():
    image = smooth((8, 8), batch=3)
    for mixing, images in ((OFF, image), (replace(OFF, mixup=1.0), image[:1])):
        same, partner, share = mixing.mix(images, [random_draws.sample_generator(0, 0, n) for n in range(len(images))])
        assert same is images
        assert partner is None
        assert share == 1


@given(seeds, st.sampled_from([(8, 9), (6, 5, 7)]))
@settings(max_examples=20)
def test_shares_of_a_mixture_sum_to_one_and_the_same_generators_mix_alike(seed, shape):
    """Images that are 1 in their own channel and 0 elsewhere show how much of each is in the mixture."""
    images = torch.eye(4).reshape(4, 4, *[1] * len(shape)).expand(4, 4, *shape)
    mixing = replace(OFF, mixup=0.4, cutmix=1.0)
    mixed, partner, share = mixing.mix(images, [random_draws.sample_generator(seed, 0, n) for n in range(4)])
    held = mixed.flatten(2).mean(dim=2)
    assert_allclose(held.sum(dim=1), 1, atol=1e-5)
    expected = share * torch.eye(4) + (1 - share) * torch.eye(4)[partner]
    assert_allclose(held, expected, atol=1e-5)
    again, whom, alike = mixing.mix(images, [random_draws.sample_generator(seed, 0, n) for n in range(4)])
    assert_array_equal(again, mixed)
    assert_array_equal(whom, partner)
    assert alike == share


def square(side: int = 21) -> torch.Tensor:
    numbers = torch.zeros(side, side, dtype=torch.uint8)
    numbers[8:13, 8:13] = 1
    numbers[8:13, 13:16] = 2
    return numbers


def test_a_structure_grows_by_as_many_voxels_along_each_axis():
    mask = torch.zeros(9, 9, 9, dtype=torch.bool)
    mask[4, 4, 4] = True
    assert torch.nonzero(augment.grow_mask(mask, 2)).min(dim=0).values.tolist() == [2, 2, 2]
    assert int(augment.grow_mask(mask, 2).sum()) == 5**3


def test_labels_grow_shrink_and_are_forgotten_and_none_takes_another_ones_place():
    numbers, mistakes = square(), set()
    for seed in range(60):
        made = augment.mismark_labels(numbers, 1.0, np.random.default_rng(seed))
        assert set(made.unique().tolist()) <= {0, 1, 2}
        assert not ((made > 0) & (numbers > 0) & (made != numbers)).any()
        for number in (1, 2):
            before, after = int((numbers == number).sum()), int((made == number).sum())
            mistakes.add(
                "gone" if after == 0 else "larger" if after > before else "smaller" if after < before else "same"
            )
        reach = augment.grow_mask(numbers > 0, MOST_VOXELS)
        assert not ((made > 0) & ~reach).any()
    assert {"gone", "larger", "smaller"} <= mistakes


def test_as_many_are_mistaken_as_was_asked_for():
    numbers = square()
    each = [random_draws.sample_generator(0, 0, n) for n in range(400)]
    made = Augmentation(marks=0.4).mistaken(numbers.expand(400, -1, -1), each)
    share = float((made != numbers).flatten(1).any(dim=1).float().mean())
    chance = 1 - (1 - (0.4 + 0.1 - 0.04)) ** 2  # of either label: changed in size, or forgotten
    assert abs(share - chance) < 0.08


def test_without_a_chance_everything_stays():
    numbers = square()[None]
    assert Augmentation().mistaken(numbers, [random_draws.sample_generator(0, 0, 0)]) is numbers
