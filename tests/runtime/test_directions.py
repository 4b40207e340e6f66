"""Principal directions of training images: what they hold, and that they show nobody."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

from hilum.runtime.model_parts import ImageDirections


def images(count: int, shape: tuple[int, ...] = (1, 12, 12), seed: int = 0):
    """Noise, and one planted pattern of another strength in each."""
    rng = np.random.default_rng(seed)
    pattern = np.zeros(shape, dtype=np.float32)
    pattern[..., 2:6, 3:9] = 1
    strength = rng.normal(size=count)
    return [(one * pattern + rng.normal(0, 0.1, shape)).astype(np.float32) for one in strength], pattern


def people(count: int) -> list[str]:
    return [f"p{n}" for n in range(count)]


def test_the_first_direction_is_the_way_in_which_images_differ_most():
    given, pattern = images(120)
    made = ImageDirections.fit_images(given, people(120))
    first = made.axes[0] / np.linalg.norm(made.axes[0])
    assert abs((first * pattern).sum() / np.linalg.norm(pattern)) > 0.99
    assert made.spread[0] == pytest.approx(np.linalg.norm(pattern), rel=0.15)
    assert (np.diff(made.spread) <= 0).all()


@pytest.mark.parametrize(("count", "directions"), [(99, 0), (100, 10), (139, 13), (400, 16)])
def test_from_a_hundred_patients_on_there_is_at_most_one_for_ten(count, directions):
    made = ImageDirections.fit_images(images(count)[0], people(count))
    assert (0 if made is None else len(made.axes)) == directions


def test_patients_count_and_not_their_images():
    given = images(300)[0]
    assert ImageDirections.fit_images(given, [f"p{n % 60}" for n in range(300)]) is None
    assert len(ImageDirections.fit_images(given, [f"p{n % 150}" for n in range(300)]).axes) == 15


@pytest.mark.parametrize("shape", [(1, 64, 64, 64), (2, 4000)])
@pytest.mark.whole
def test_they_take_less_than_eight_megabytes_and_lie_over_the_whole_field(shape):
    rng = np.random.default_rng(1)
    level = rng.normal(size=100).astype(np.float32)
    made = ImageDirections.fit_images((np.full(shape, one, dtype=np.float32) for one in level), people(100))
    assert len(made.content) < 8 * 2**20
    wide = made.on(shape[1:])
    assert wide.shape == (len(made.axes), *shape)
    # All of these images differ by is their level: one step along is one level everywhere.
    np.testing.assert_allclose(wide[0], wide[0].flat[0], rtol=1e-4)


def test_they_are_read_as_they_were_written():
    made = ImageDirections.fit_images(images(100)[0], people(100))
    again = ImageDirections.from_record(made.settings, load(made.content))
    np.testing.assert_array_equal(again.axes, made.axes)
    assert again.settings == made.settings


def test_images_of_different_grids_have_none():
    given = [np.zeros((1, 8, 8 + n % 2), dtype=np.float32) for n in range(100)]
    assert ImageDirections.fit_images(given, people(100)) is None
