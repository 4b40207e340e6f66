"""Slides through a model: tissue, windows, memory, and the same answer as of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image as PillowImage

import simulated_slides
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.prediction import slide_results
from hilum.runtime import Model, Preprocessing, predicted_memory, proportion
from hilum.runtime.inference import Inference
from hilum.runtime.preprocessing import coarse_mask, preprocessing
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms import COLOUR
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Geometry, Image

TASK = task_catalogue.build_task(
    {"name": "segmentation", "labels": [{"value": 1, "name": "nucleus"}], "loss": "ce", "tolerance": 1.0}
)
PLACE = (400, 640)
SIZE = 1024


def darker_than_around(batch: Array) -> dict[str, Array]:
    """Looks at two neighbours, so that windows which overlap have to agree."""
    seen = batch.mean(axis=1)
    around = (np.roll(seen, 1, axis=1) + np.roll(seen, -1, axis=2)) / 2
    inside = 12 * (0.62 - 0.8 * seen - 0.2 * around)
    return {"mask": np.stack([-inside, inside], axis=1).astype(np.float32)}


def segmenting(**prepared) -> Model:
    scales = (Normalisation("range", 0, 255),) * 3
    inference = Inference((128, 128), 0.5, batch=4)
    made = Preprocessing(2, COLOUR, scales, **prepared)
    return Model(TASK, made, inference, Networks(darker_than_around, {"name": "none", "channels": 3}))


@pytest.fixture(scope="module")
def tile(data) -> Array:
    path = sorted((data / "histology" / "images").glob("*.png"))[0]
    return np.asarray(PillowImage.open(path).convert("RGB"))


def slide_with(tile: Array, path: Path, **written) -> Image:
    slide = simulated_slides.lay_tiles(SIZE, {PLACE: tile}, noise=6)
    path = simulated_slides.write_tiff(path, simulated_slides.levels_of(slide, 3), **written)
    return file_formats.read_image(path, ReadOptions())


def test_the_coarse_mask_of_a_slide_holds_the_tissue_and_neither_glass_nor_ink(tile, tmp_path):
    slide = simulated_slides.lay_tiles(SIZE, {PLACE: tile}, noise=6)
    slide[50:120, 50:400] = (40, 160, 90)  # a green pen
    slide[900:960, 50:400] = (230, 20, 30)  # a red one
    path = simulated_slides.write_tiff(tmp_path / "a.tif", simulated_slides.levels_of(slide, 3))
    slide = file_formats.read_image(path, ReadOptions())
    mask = coarse_mask.tissue_of(slide)
    assert mask is not None
    [shown] = slide_results.tissue_figures(slide, "a")
    assert f"{mask.shown:.1%} is tissue" in shown.caption
    inside = tuple(slice(start, start + size) for start, size in zip(PLACE, tile.shape, strict=False))
    assert mask.touches(inside)
    assert mask.inside[14:20, 21:29].mean() > 0.9
    assert not mask.touches((slice(40, 130), slice(40, 410)))
    assert not mask.touches((slice(890, 970), slice(40, 410)))
    assert not mask.touches((slice(0, 200), slice(0, 400)))
    [piece] = mask.pieces((SIZE, SIZE))
    assert all(out.start <= own.start and own.stop <= out.stop for own, out in zip(inside, piece, strict=True))


def test_pieces_around_tissue_share_no_pixel_and_leave_none_out():
    inside = np.random.default_rng(5).random((40, 60)) < 0.02
    mask = coarse_mask.CoarseMask(inside, (16.0, 16.0))
    covered = np.zeros((640, 950), int)
    for piece in mask.pieces((640, 950)):
        covered[piece] += 1
    assert covered.max() == 1
    assert (covered[::16, ::16][: inside.shape[0], :60][inside] == 1).all()


def test_a_picture_is_no_slide_and_has_no_tissue(tile):
    assert (
        coarse_mask.tissue_of(Image(np.moveaxis(tile, -1, 0), Geometry.of_pixels(tile.shape[:2]), channels=COLOUR))
        is None
    )


@pytest.mark.parametrize("held", [2**28, 2**16], ids=["in memory", "in parts"])
def test_a_planted_tile_is_answered_as_the_picture_alone(tile, tmp_path, monkeypatch, held):
    monkeypatch.setattr(preprocessing, "STREAMED_BYTES", held)
    model, image = segmenting(), slide_with(tile, tmp_path / "a.tif")
    alone = model.predict(Image(np.moveaxis(tile, -1, 0), Geometry.of_pixels(tile.shape[:2]), channels=COLOUR))
    prediction = model.predict(image)
    rows, columns = (slice(start + 2, start + n - 2) for start, n in zip(PLACE, tile.shape, strict=False))
    found, expected = np.asarray(prediction.data), np.asarray(alone.data)[2:-2, 2:-2]
    assert 0.05 < expected.mean() < 0.9
    assert_array_equal(found[rows, columns], expected)
    found[rows, columns] = 0
    assert not found[: PLACE[0] - 2].any()
    assert prediction.abstained is None


def test_a_model_with_a_size_of_pixels_reads_the_level_that_shows_it(tile, tmp_path, monkeypatch):
    model, image = segmenting(spacing=(0.001, 0.001)), slide_with(tile, tmp_path / "a.tif")
    whole = np.asarray(model.predict(image).data)
    monkeypatch.setattr(preprocessing, "STREAMED_BYTES", 2**16)
    data, trace = model.preprocessing.open_image(image, "a")
    assert isinstance(data, preprocessing.Streamed)
    assert data.image.geometry.shape == (512, 512)
    assert trace.source.shape == (SIZE, SIZE)
    parts = np.asarray(model.predict(image).data)
    assert parts.shape == (SIZE, SIZE)
    assert (parts == whole).mean() > 0.999


def test_a_slide_without_tissue_has_no_answer_and_says_so(tile, tmp_path):
    image = slide_with(np.full_like(tile, simulated_slides.GLASS), tmp_path / "a.tif")
    prediction = segmenting().predict(image)
    assert prediction.abstained == "no tissue is found on the slide"
    assert not np.asarray(prediction.data).any()


def test_windows_beside_tissue_are_not_seen(tile, tmp_path):
    seen = 0

    def counting(batch: Array) -> dict[str, Array]:
        nonlocal seen
        seen += len(batch)
        return darker_than_around(batch)

    image, model = slide_with(tile, tmp_path / "a.tif"), segmenting()
    model.with_run(counting).predict(image)
    among_tissue, seen = seen, 0
    segmenting(tissue="none").with_run(counting).predict(image)
    assert among_tissue < seen / 2


def test_memory_of_a_slide_follows_its_windows_and_a_slide_is_never_out_of_proportion(tile, tmp_path):
    image = slide_with(tile, tmp_path / "a.tif")
    huge = Image(image.pixels, image.geometry, levels=image.levels)
    expected = predicted_memory.expected_memory(segmenting(), huge)
    assert expected.total < 2**31
    proportion.refuse_out_of_proportion(segmenting(), image, "a")
