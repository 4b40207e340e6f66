"""Stains: the dyes of a picture, normalised as the published program does it, and changed in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image as PillowImage

import real_data
from hilum.runtime import Preprocessing
from hilum.transforms import COLOUR, _augment_style, stains
from hilum.transforms.intensity import Normalisation
from hilum.transforms.stains import StainMatrix
from hilum.values import Deferred, Geometry, Image


@pytest.fixture(scope="module", params=real_data.FOLDERS)
def colours(request):
    """Three real pictures of stained tissue."""
    paths = sorted((request.param / "histology" / "images").glob("*.png"))[:3]
    return [np.moveaxis(np.asarray(PillowImage.open(path).convert("RGB")), -1, 0) for path in paths]


def test_normalised_stains_are_those_of_torchstain(colours):
    torchstain = pytest.importorskip("torchstain")
    theirs = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    for picture in colours:
        expected, *_ = theirs.normalize(np.moveaxis(picture, 0, -1), stains=False)
        found = StainMatrix.of_colours(picture).normalise(picture)
        difference = np.abs(np.moveaxis(found, 0, -1).astype(int) - expected.astype(int))
        assert difference.max() <= 1


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.corpus)])
def dyes_and_amounts(request):
    """The (3, 2) dyes of a picture of 256 x 320 pixels, and how much of each is in each pixel.

    The real pictures that are shipped are pale: with less dye they are glass.
    """
    if request.param == "simulated":
        draw = np.random.default_rng(0)
        return stains.REFERENCE, draw.gamma(2, 0.25, size=(2, 256 * 320))
    path = sorted((real_data.CORPUS / "histology" / "images").glob("*.png"))[0]
    colours = np.moveaxis(np.asarray(PillowImage.open(path).convert("RGB")), -1, 0)
    dyes = StainMatrix.of_colours(colours).dyes
    return dyes, np.linalg.lstsq(dyes, stains.optical_density(colours.reshape(3, -1).T).T, rcond=None)[0]


def test_pictures_dyed_otherwise_come_to_the_same_colours(dyes_and_amounts):
    dyes, amounts = dyes_and_amounts
    before, after = [], []
    for factor in (1.0, 0.7):
        dyed = stains.WHITE * np.exp(-dyes @ (amounts * factor))
        picture = np.clip(dyed, 0, 255).astype(np.uint8).reshape(3, 256, 320)
        before.append(picture.mean(axis=(1, 2)))
        after.append(StainMatrix.of_colours(picture).normalise(picture).mean(axis=(1, 2)))
    assert np.abs(np.subtract(*after)).max() < 0.2 * np.abs(np.subtract(*before)).max()


def test_glass_has_no_dye_and_stays(colours):
    glass = np.full((3, 40, 40), 243, np.uint8)
    assert StainMatrix.of_colours(glass) is None
    image = Image(glass, Geometry.of_pixels((40, 40)), channels=COLOUR)
    assert stains.normalise_stain(image) is image


def test_a_picture_that_is_read_in_parts_is_normalised_as_a_whole(colours):
    picture = colours[1]
    whole = Image(picture, Geometry.of_pixels(picture.shape[1:]), channels=COLOUR)
    deferred = Deferred(picture.shape, picture.dtype, picture.copy, picture.__getitem__)
    parts = stains.normalise_stain(whole.with_pixels(deferred))
    assert_array_equal(parts.pixels[0:3, 20:90, 5:60], stains.normalise_stain(whole).data[:, 20:90, 5:60])


def test_preprocessing_normalises_the_stain_before_all_else(colours):
    scales = (Normalisation("range", 0, 255),) * 3
    image = Image(colours[0], Geometry.of_pixels(colours[0].shape[1:]), channels=COLOUR)
    plain, dyed = (Preprocessing(2, COLOUR, scales, stain=one)(image, "a")[0] for one in ("none", "macenko"))
    assert_allclose(dyed, StainMatrix.of_colours(colours[0]).normalise(colours[0]) / 255, atol=1e-6)
    assert np.abs(dyed - plain).max() > 0.05


def test_changed_dyes_keep_glass_white_where_nothing_is_added_and_colours_within_8_bits(colours):
    scales = [Normalisation("range", 0, 255, 0.6, 0.2).scale(0.0)] * 3
    images = torch.from_numpy(np.stack([scales[0].apply(one) for one in colours[:2]]))
    same = _augment_style.stain(images, 0.0, [np.random.default_rng(n) for n in range(2)], scales)
    assert_allclose(same, images, atol=2e-4)
    changed = _augment_style.stain(images, 0.2, [np.random.default_rng(n) for n in range(2)], scales)
    raw = scales[0].undo(changed.numpy())
    assert raw.min() >= -0.01
    assert raw.max() <= 255.01
    assert float((changed - images).abs().mean()) > 0.05
