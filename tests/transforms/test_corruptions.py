from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import DatasetError, UsageError
from hilum.transforms import corruptions
from hilum.transforms.corruptions import CORRUPTIONS
from hilum.values import Geometry, Image
from matrices import thinned


def scan(shape=(48, 48, 6), spacing=(1.0, 1.0, 4.0), dtype=np.int16, channels=1) -> Image:
    """A bright ball in a body in noise."""
    rng = np.random.default_rng(0)
    grid = Geometry.of_spacing(shape, spacing) if spacing else Geometry.of_pixels(shape)
    away = np.sqrt(sum((g - n / 2) ** 2 for g, n in zip(np.indices(shape), shape, strict=True)))
    body = 30 + 60 * (away < shape[0] / 2.5) + 80 * (away < shape[0] / 6)
    pixels = body + rng.normal(0, 4, (channels, *shape))
    return Image(pixels.clip(0, 255).astype(dtype), grid, modality="CT")


def worse(image: Image, name: str, severity: int, **given) -> Image:
    return corruptions.corrupt_image(image, name, severity, **{"seed": 0, "case": "p1", **given})


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(
    ("shape", "spacing", "dtype", "channels"),
    thinned(
        1, [((64,), None, np.float32, 2), ((48, 40), None, np.uint8, 3), ((48, 48, 6), (1.0, 1.0, 4.0), np.int16, 1)]
    ),
)
def test_each_corruption_changes_more_the_higher_its_severity_and_keeps_grid_type_and_source(
    name, shape, spacing, dtype, channels
):
    if len(shape) < CORRUPTIONS[name].fewest:
        return
    image = scan(shape, spacing, dtype, channels)
    before = image.data.copy()
    made = [worse(image, name, severity) for severity in range(1, 6)]
    apart = [float(np.abs(one.data.astype(float) - before).mean()) for one in made]
    # Positions of a patient who moved interfere: more motion need not change every image more.
    assert name == "motion" or apart == sorted(apart)
    assert 0 < apart[0] < apart[-1]
    assert all((one.dtype, one.shape, one.geometry) == (image.dtype, image.shape, image.geometry) for one in made)
    np.testing.assert_array_equal(image.data, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_follows_from_seed_and_case_alone(name):
    image = scan()
    first, again = (worse(image, name, 3).data for _ in range(2))
    np.testing.assert_array_equal(first, again)
    if name not in ("blur", "jpeg"):  # nothing is random
        others = [worse(image, name, 3, case="p2").data, worse(image, name, 3, seed=1).data]
        differing = sum(not np.array_equal(first, one) for one in others)
        assert differing if name in ("gamma", "contrast", "low_resolution") else differing == 2


def test_noise_has_the_stated_share_of_the_range_of_the_image():
    image = scan(dtype=np.float32)
    width = float(np.subtract(*np.quantile(image.data, [0.99, 0.01])))
    added = worse(image, "noise", 3).data - image.data
    assert added.std() == pytest.approx(0.08 * width, rel=0.03)


def test_a_low_dose_adds_what_its_variance_has_more_than_a_full_one_in_hu():
    even = Image(np.full((1, 64, 64, 4), 40.0, dtype=np.float32), Geometry.of_spacing((64, 64, 4), (1, 1, 1)))
    pixels = even.data.copy()
    pixels[:, ::32] = -1000  # gives the image its range
    image = even.with_pixels(pixels)
    added = (worse(image, "dose", 2).data - pixels)[:, 8:24]
    assert added.std() == pytest.approx(12 * np.sqrt(4 - 1), rel=0.15)


def magnitudes(level: float, shape=(64, 64, 16)) -> Image:
    """An even signal beside air without any; its 99th percentile is the signal."""
    pixels = np.full((1, *shape), level, dtype=np.float32)
    pixels[:, :16] = 0
    return Image(pixels, Geometry.of_spacing(shape, (1, 1, 1)), modality="MR")


def test_rician_noise_is_rayleighs_in_air_and_raises_a_signal_by_what_its_second_moment_says():
    damaged = corruptions.damage_image(magnitudes(200), "rician", 0.1, seed=0, case="p1").data[0]
    air, signal = damaged[:16], damaged[16:]
    sigma = 0.1 * 200
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.02)
    assert (signal.astype(float) ** 2).mean() == pytest.approx(200**2 + 2 * sigma**2, rel=0.003)
    assert damaged.min() >= 0


def test_poisson_noise_has_the_variance_of_its_photons_and_none_where_there_are_none():
    damaged = corruptions.damage_image(magnitudes(500), "poisson", 40, seed=0, case="p1").data[0]
    assert damaged[16:].mean() == pytest.approx(500, rel=0.01)
    assert damaged[16:].std() == pytest.approx(500 / np.sqrt(40), rel=0.02)
    assert (damaged[:16] == 0).all()
    photons = damaged[16:] / (500 / 40)
    np.testing.assert_allclose(photons, np.rint(photons), atol=1e-3)


def test_a_sampled_damage_lies_within_its_limits_and_does_the_same_to_a_clean_image_that_has_changed():
    limits = {"blur": [0.5, 2.0], "rician": [0.05, 0.1]}
    damage, again, other = (corruptions.sample_damage(limits, seed=0, case=case) for case in ("a", "a", "b"))
    assert damage == again != other
    assert all(least <= damage.strengths[name] <= most for name, (least, most) in limits.items())
    clean = magnitudes(200)
    marked = clean.with_pixels(clean.data + 0)
    marked.data[0, 40:44, 20:24, 8] += 50
    first, second = damage(clean), damage(marked, clean)
    assert first.facts["remake"] == damage
    np.testing.assert_array_equal(first.data, damage(clean).data)
    apart = second.data - first.data
    assert 1 < np.abs(apart).max() < 50
    np.testing.assert_allclose(apart[0, :20], 0, atol=1e-3)


def test_damage_that_cannot_be_is_refused_with_its_limits():
    for name, strength in (("poisson", 0), ("dose", 2), ("noise", -0.1), ("noise", float("nan")), ("jpeg", 0)):
        with pytest.raises(UsageError, match=rf"{name} of {strength:g}[\s\S]*Give from"):
            corruptions.damage_image(scan(), name, strength, seed=0, case="p1")
    hounsfield = magnitudes(500).with_pixels(magnitudes(500).data - 1000)
    assert corruptions.falls_below_zero(hounsfield)
    for name in ("rician", "poisson"):
        with pytest.raises(DatasetError, match="below zero"):
            corruptions.damage_image(hounsfield, name, CORRUPTIONS[name].strengths[0], seed=0, case="p1")


def test_blur_is_as_wide_in_mm_along_every_axis():
    point = np.zeros((1, 61, 61, 21), dtype=np.float32)
    point[0, 30, 30, 10] = 1000
    spread = worse(Image(point, Geometry.of_spacing((61, 61, 21), (0.5, 1.0, 2.0))), "blur", 5).data[0]
    for axis, (step, middle) in enumerate(zip((0.5, 1.0, 2.0), (30, 30, 10), strict=True)):
        line = spread.sum(axis=tuple(other for other in range(3) if other != axis))
        mm = (np.arange(len(line)) - middle) * step
        assert np.sqrt((line * mm**2).sum() / line.sum()) == pytest.approx(3.0, rel=0.03)


def test_what_is_no_measurement_stays():
    image = scan(dtype=np.float32)
    pixels = image.data.copy()
    pixels[0, :8] = -2000
    padded = Image(pixels, image.geometry, padding=(-2000, -2000))
    for name in CORRUPTIONS:
        assert (worse(padded, name, 5).data[0, :8] == -2000).all()


def test_an_even_image_can_be_made_worse_too():
    flat = Image(np.full((1, 24, 24), 7, dtype=np.uint8), Geometry.of_pixels((24, 24)))
    assert all(np.isfinite(worse(flat, name, 5).data).all() for name in CORRUPTIONS)


def test_a_corruption_is_known_by_its_name_however_its_words_are_joined_and_no_other_is():
    assert [corruptions.corruption_key(name) for name in ("bias field", "JPEG", "low-resolution")] == [
        "bias_field",
        "jpeg",
        "low_resolution",
    ]
    with pytest.raises(UsageError, match="noise, blur, motion"):
        corruptions.corruption_key("fog")
