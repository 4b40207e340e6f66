"""What `check` finds in slides."""

from __future__ import annotations

from pathlib import Path

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


def slide_of(folder: Path) -> np.ndarray:
    """Glass with up to six real tiles on it."""
    paths = sorted((folder / "histology" / "images").glob("*.png"))[:6]
    tiles = [np.asarray(PillowImage.open(path).convert("RGB")) for path in paths]
    places = {(300 + 256 * (n // 3), 200 + 320 * (n % 3)): tile for n, tile in enumerate(tiles)}
    return simulated_slides.lay_tiles(SIZE, places, noise=4)


@pytest.fixture(scope="module")
def tissue(data):
    return slide_of(data)


def problems_of(pixels, folder, **written):
    path = simulated_slides.write_tiff(folder / "a.tif", simulated_slides.levels_of(pixels, 3), **written)
    image = file_formats.read_image(path, ReadOptions())
    return [one.what for one in dataset_examination.slide_problems(Case("a", "a", {"image": image}), image)]


def test_a_slide_in_focus_with_tissue_and_the_size_of_its_pixels_has_no_problem(tissue, tmp_path):
    assert problems_of(tissue, tmp_path) == []


def test_a_blurred_slide_of_real_tissue_is_found(corpus, tmp_path):
    blurred = ndimage.gaussian_filter(slide_of(corpus), (2, 2, 0))
    [what] = problems_of(blurred, tmp_path)
    assert "out of focus" in what


def test_a_blurred_slide_of_strong_contrast_is_found_and_a_sharp_one_is_not(tmp_path):
    """Simulated tissue: strongly stained grain, beside which what rounding adds is nothing."""
    grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(512, 768)), 1)
    stained = np.stack([150 + 300 * grain, 60 + 250 * grain, 140 + 300 * grain], axis=-1).clip(0, 255).astype(np.uint8)
    slide = simulated_slides.lay_tiles(SIZE, {(300, 200): stained}, noise=4)
    (tmp_path / "sharp").mkdir()
    assert problems_of(slide, tmp_path / "sharp") == []
    [what] = problems_of(ndimage.gaussian_filter(slide, (2, 2, 0)), tmp_path)
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
