from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import GeometryError
from hilum.transforms import COLOUR, channel_stack
from hilum.transforms.channel_stack import GREY
from hilum.values import Deferred, Geometry, Image

GRID = Geometry((2, 3, 4), np.eye(4))


def filled(value: float, grid: Geometry = GRID, **more: object) -> Image:
    return Image(np.full((1, *grid.shape), value, np.float32), grid, **more)  # type: ignore[arg-type]


def colours(*values: int) -> Image:
    pixels = np.array(values, np.uint8).reshape(len(values), 1, 1)
    names = ("R", "G", "B", "A") if len(values) > 2 else ("L", "A")
    return Image(pixels, Geometry.of_pixels((1, 1)), channels=names[: len(values)])


def test_images_of_one_case_become_channels_in_the_order_given():
    both = channel_stack.stack_images({"T2": filled(2), "T1": filled(1)}, "case")
    assert both.channels == ("T2", "T1")
    assert both.geometry.equals(GRID)
    assert_array_equal(both.data[:, 0, 0, 0], [2, 1])


def test_an_image_with_channels_of_its_own_says_whose_they_are():
    two = Image(np.zeros((2, 2, 3, 4)), GRID, channels=("fat", "water"))
    assert channel_stack.stack_images({"dixon": two, "T1": filled(1)}, "case").channels == (
        "dixon:fat",
        "dixon:water",
        "T1",
    )


def test_each_image_keeps_the_window_and_the_unit_of_its_own_file():
    ct = filled(0, facts={"window": (40, 400, "LINEAR"), "unit": "HU", "site": "a"})
    pet = filled(1, facts={"window": (5, 10, "LINEAR_EXACT"), "unit": "SUVbw", "site": "a"})
    both = channel_stack.stack_images({"CT": ct, "PT": pet, "T1": filled(1, facts={"site": "a"})}, "case")
    assert [both.facts_of(channel) for channel in range(3)] == [ct.facts, pet.facts, {"site": "a"}]
    assert both.facts["site"] == "a" and "unit" not in both.facts and "window" not in both.facts
    again = channel_stack.stack_images({"first": replace(both, channels=("CT", "PT", "T1")), "T2": filled(2)}, "case")
    assert again.channels[1] == "first:PT" and again.facts_of(1)["unit"] == "SUVbw"
    assert both.with_image_name("first").facts_of(1)["unit"] == "SUVbw"


def test_one_image_alone_stays_as_it_is():
    single = filled(1, channels=("FLAIR",))
    assert channel_stack.stack_images({"image": single}, "case") is single


def test_images_on_different_grids_are_refused_by_name():
    with pytest.raises(GeometryError, match=r"patient 3.*'T2' lies on another grid"):
        channel_stack.stack_images(
            {"T1": filled(1), "T2": filled(2, Geometry((2, 3, 4), np.diag([1, 1, 2, 1])))}, "patient 3"
        )


def test_padding_of_one_image_is_no_padding_of_another():
    scan = filled(-2000, padding=(-2000, -2000))
    other = filled(-2000)
    for images in ({"CT": scan, "PT": other}, {"PT": other, "CT": scan}):
        both = channel_stack.stack_images(images, "case")
        valid = dict(zip(both.channels, both.valid, strict=True))
        assert not valid["CT"].any()
        assert valid["PT"].all()


def test_a_colour_picture_as_grey_is_its_luma():
    grey = channel_stack.match_colours(colours(255, 0, 100), ("0",))
    assert grey.channels == ("0",)
    assert_allclose(grey.data.ravel(), 0.299 * 255 + 0.114 * 100, rtol=1e-5)
    assert_allclose(channel_stack.match_colours(colours(80, 80, 80), ("0",)).data, 80, rtol=1e-5)


def test_a_grey_picture_as_colour_has_three_equal_channels():
    grey = Image(np.array([[[7]]], np.uint8), Geometry.of_pixels((1, 1)))
    assert channel_stack.match_colours(grey, COLOUR).channels == COLOUR
    assert channel_stack.match_colours(grey, COLOUR).data.ravel().tolist() == [7, 7, 7]


def test_how_see_through_a_pixel_is_does_not_count():
    assert channel_stack.match_colours(colours(1, 2, 3, 128), COLOUR).data.ravel().tolist() == [1, 2, 3]
    assert_allclose(channel_stack.match_colours(colours(80, 80, 80, 0), ("0",)).data, 80, rtol=1e-5)


def test_an_image_that_is_no_picture_stays_as_it_is():
    scan = Image(np.zeros((2, 2, 3, 4)), GRID, channels=("T1", "T2"))
    assert channel_stack.match_colours(scan, COLOUR) is scan


def test_a_clip_in_colours_is_made_grey_frame_by_frame():
    clip = Image(np.arange(6.0).reshape(3, 2, 1, 1), Geometry.of_pixels((1, 1)), channels=COLOUR)
    grey = channel_stack.match_colours(clip, ("0",))
    assert grey.shape == (1, 2, 1, 1)
    for number in range(2):
        assert_allclose(grey.frame(number).data, channel_stack.match_colours(clip.frame(number), ("0",)).data)


def test_a_grey_picture_with_alpha_is_grey():
    picture = Image(np.array([7, 255], np.uint8).reshape(2, 1, 1), Geometry.of_pixels((1, 1)), channels=("0", "A"))
    assert channel_stack.match_colours(picture, GREY).data.ravel().tolist() == [7]
    assert channel_stack.match_colours(picture, COLOUR).data.ravel().tolist() == [7, 7, 7]


def test_an_image_whose_last_channel_is_only_called_a_keeps_it():
    both = Image(np.zeros((2, 2, 3, 4)), GRID, channels=("T1", "A"))
    assert channel_stack.match_colours(both, ("T1",)) is both


def test_large_images_of_a_case_are_joined_when_a_part_of_them_is_read(monkeypatch):
    first, second = (
        np.random.default_rng(n).integers(0, 99, (1, 4, 5, 6)).astype(kind) for n, kind in ((0, "i2"), (1, "f4"))
    )
    geometry = Geometry((4, 5, 6), np.eye(4))
    images = {"T1": Image(first, geometry), "T2": Image(second, geometry)}
    held = channel_stack.stack_images(images, "case")
    monkeypatch.setattr(channel_stack, "JOINED_BYTES", 0)
    joined = channel_stack.stack_images(images, "case")
    assert isinstance(held.pixels, np.ndarray)
    assert isinstance(joined.pixels, Deferred)
    assert (joined.channels, joined.dtype, joined.shape) == (held.channels, held.dtype, held.shape)
    assert_array_equal(joined.data, held.data)
    read = joined.reader()
    for part in (np.s_[0:2, 1:3, :, 2:4], np.s_[1:2, :, 0:5, 3:6]):
        assert_array_equal(read(part), held.data[part])
        assert_array_equal(joined.pixels[part], held.data[part])


def test_the_channels_are_those_that_any_case_has():
    assert channel_stack.all_channels([("T2",), ("T1", "T2"), ("FLAIR",)]) == ["T1", "T2", "FLAIR"]
    assert channel_stack.all_channels([("0001",), ("0", "1", "2")]) == ["0", "1", "2"]


def test_a_channel_is_placed_by_its_name_or_by_four_digits_and_an_unnamed_one_nowhere():
    assert channel_stack.channel_places(("FLAIR", "T1"), ("T1", "T2", "FLAIR")) == (2, 0)
    assert channel_stack.channel_places(("0001",), ("T1", "T2")) == (1,)
    assert channel_stack.channel_places(("0",), ("0", "1")) is None
    assert channel_stack.channel_places(("T1", "0000"), ("T1", "T2")) is None
    assert channel_stack.channel_places(("PET",), ("T1", "T2")) is None


def test_the_channels_of_one_image_are_told_by_its_name():
    assert channel_stack.images_of_channels(("dixon:fat", "dixon:water", "T1")) == (0, 0, 1)
