"""What `check` finds in slides."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage
from scipy import ndimage

import simulated_slides
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.quality import dataset_examination
from hilum.values import Case

SIZE = 1536


@pytest.fixture(scope="module")
def tissue(data):
    paths = sorted((data / "histology" / "images").glob("*.png"))[:6]
    tiles = [np.asarray(PillowImage.open(path).convert("RGB")) for path in paths]
    places = {(300 + 256 * (n // 3), 200 + 320 * (n % 3)): tile for n, tile in enumerate(tiles)}
    return simulated_slides.lay_tiles(SIZE, places, noise=4)


def problems_of(pixels, folder, **written):
    path = simulated_slides.write_tiff(folder / "a.tif", simulated_slides.levels_of(pixels, 3), **written)
    image = file_formats.read_image(path, ReadOptions())
    return [one.what for one in dataset_examination.slide_problems(Case("a", "a", {"image": image}), image)]


def test_a_slide_in_focus_with_tissue_and_the_size_of_its_pixels_has_no_problem(tissue, tmp_path):
    assert problems_of(tissue, tmp_path) == []


def test_a_blurred_slide_is_found(tissue, tmp_path):
    blurred = ndimage.gaussian_filter(tissue, (2, 2, 0))
    [what] = problems_of(blurred, tmp_path)
    assert "out of focus" in what


def test_a_slide_without_tissue_is_found(tissue, tmp_path):
    [what] = problems_of(np.full_like(tissue, simulated_slides.GLASS), tmp_path)
    assert what == "no tissue is found on the slide"


def test_a_slide_without_the_size_of_its_pixels_is_named(tissue, tmp_path):
    [what] = problems_of(tissue, tmp_path, mm=None)
    assert "does not state the size of its pixels" in what


def test_a_slide_is_looked_at_on_a_coarse_level(tissue, tmp_path):
    path = simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(np.tile(tissue, (2, 2, 1)), 4))
    image = file_formats.read_image(path, ReadOptions())
    assert dataset_examination.looked_at(image).shape == (3, SIZE, SIZE)
    assert dataset_examination.looked_at(image.level(2)).shape == (3, SIZE // 2, SIZE // 2)
