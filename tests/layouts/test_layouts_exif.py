"""Photographs that EXIF turns, and what was contoured on their stored or on their turned pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hilum
from hilum.errors import DatasetError, UsageError
from hilum.files.pictures import plain_picture
from hilum.files.pictures.plain_picture import SIDEWAYS
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import Dataset

ORIENTATION = 0x0112
EVERY = range(2, 9)


def scene(seed: int, shape: tuple[int, int] = (40, 56), bright: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """A bright rectangle off the middle, as a camera stores it; (grey picture, mask)."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    top, left = int(rng.integers(2, 8)), int(rng.integers(3, 12))
    mask[top : top + 12, left : left + 9] = 1
    return np.clip(rng.normal(90, 10, shape) + bright * mask, 0, 255).astype(np.uint8), mask


def put(path: Path, pixels: np.ndarray, orientation: int = 1, suffix: str = ".jpg") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    kinds = {} if orientation == 1 else {"exif": exif}
    PIL.Image.fromarray(pixels).save(path.with_suffix(suffix), **kinds, **({"quality": 95} if suffix == ".jpg" else {}))


def photographed(
    root: Path, orientation: int, *, stored: bool, count: int = 4, suffix: str = ".jpg", **made: object
) -> Path:
    """Photographs of one orientation, with masks on their stored or on their turned pixels; the first is not turned."""
    for n in range(count):
        pixels, mask = scene(n, **made)
        turn = orientation if n else 1
        put(root / "images" / f"p{n}", pixels, turn, suffix)
        contoured = mask if stored else plain_picture.apply_exif_orientation(mask[..., None], turn)[..., 0]
        put(root / "masks" / f"p{n}", 255 * np.ascontiguousarray(contoured), suffix=".png")
    return root


def contrast(dataset: Dataset) -> list[float]:
    """By how much the picture is brighter inside its mask than outside."""
    pairs = [(case.images["image"].data[0].astype(float), case.references["mask"].data[0] > 0) for case in dataset]
    return [float(pixels[mask].mean() - pixels[~mask].mean()) for pixels, mask in pairs]


def found(dataset: Dataset, severity: str) -> list[str]:
    return [one.what for one in dataset.problems if one.severity == severity]


def test_masks_on_stored_pixels_are_turned_with_their_photographs(tmp_path):
    for n in range(10):
        pixels, mask = scene(n)
        put(tmp_path / "images" / f"p{n}", pixels, orientation=3)
        put(tmp_path / "masks" / f"p{n}", 255 * mask, suffix=".png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert min(contrast(dataset)) > 40
    [warning] = found(dataset, "warning")
    assert warning.startswith("10 of 10 images are turned upright by EXIF orientation 3 (180 degrees), and their masks")
    assert "lie on the stored pixels: their outlines lie on edges" in warning
    assert max(contrast(dataset_layouts.read_dataset(tmp_path, DatasetOptions(exif="upright")))) < 40
    assert warning in [one.what for one in hilum.check(tmp_path, modality="OP").problems]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("orientation", EVERY)
def test_every_orientation_is_decided_by_what_fits(tmp_path, orientation, stored):
    dataset = dataset_layouts.read_dataset(photographed(tmp_path, orientation, stored=stored))
    assert min(contrast(dataset)) > 40
    [said] = found(dataset, "warning" if stored else "note")
    assert f"lie on the {'stored' if stored else 'turned'} pixels" in said
    assert ("the size of its image" in said) == (orientation in SIDEWAYS)
    asked = dataset_layouts.read_dataset(tmp_path, DatasetOptions(exif="stored" if stored else "upright"))
    for one, other in zip(dataset, asked, strict=True):
        assert_array_equal(one.references["mask"].data, other.references["mask"].data)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pictures_of_other_formats_state_it_too(tmp_path, suffix):
    assert min(contrast(dataset_layouts.read_dataset(photographed(tmp_path, 6, stored=True, suffix=suffix)))) > 40


def test_square_photographs_are_decided_by_their_edges(tmp_path):
    dataset = dataset_layouts.read_dataset(photographed(tmp_path, 6, stored=True, shape=(48, 48)))
    assert min(contrast(dataset)) > 40
    assert "lie on edges" in found(dataset, "warning")[0]


def test_where_neither_is_clear_it_is_asked(tmp_path):
    folder = photographed(tmp_path, 3, stored=True, bright=0)
    with pytest.raises(DatasetError, match=r"EXIF orientation 3 .*is not clear.*--exif stored or --exif upright"):
        dataset_layouts.read_dataset(folder)
    assert len(dataset_layouts.read_dataset(folder, DatasetOptions(exif="stored"))) == 4
    with pytest.raises(UsageError, match="Choose upright or stored"):
        dataset_layouts.read_dataset(folder, DatasetOptions(exif="sideways"))


def test_sizes_that_contradict_each_other_are_asked_about(tmp_path):
    photographed(tmp_path, 6, stored=True)
    pixels, mask = scene(9)
    put(tmp_path / "images" / "q", pixels, 6)
    put(tmp_path / "masks" / "q", 255 * np.ascontiguousarray(np.rot90(mask, 3)), suffix=".png")
    with pytest.raises(DatasetError, match="EXIF"):
        dataset_layouts.read_dataset(tmp_path)


def test_nothing_is_asked_where_it_makes_no_difference(tmp_path):
    for n in range(3):
        put(tmp_path / "images" / f"p{n}", scene(n)[0], 3)
        put(tmp_path / "masks" / f"p{n}", np.zeros((40, 56), np.uint8), suffix=".png")
    assert not dataset_layouts.read_dataset(tmp_path).problems


def test_a_mask_of_another_size_is_refused_with_the_word_exif(tmp_path):
    photographed(tmp_path, 6, stored=False)
    put(tmp_path / "masks" / "p3", np.zeros((20, 30), np.uint8), suffix=".png")
    [what] = [one.what for one in hilum.check(tmp_path, modality="OP").problems if one.severity == "error"]
    assert "it was turned upright by EXIF orientation 6" in what


@pytest.mark.parametrize("orientation", EVERY)
def test_boxes_are_turned_as_masks_are(tmp_path, orientation):
    lows = []
    for n in range(4):
        pixels, mask = scene(n)
        put(tmp_path / "images" / f"p{n}", pixels, orientation)
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / [56, 40, 56, 40]
        text = " ".join(f"{share:.6f}" for share in (*(edges[:2] + edges[2:]) / 2, *edges[2:] - edges[:2]))
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"p{n}.txt").write_text(f"0 {text}\n")
        turned = np.argwhere(plain_picture.apply_exif_orientation(mask[..., None], orientation)[..., 0])
        lows.append([*turned.min(axis=0), *turned.max(axis=0) + 1])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert_allclose([case.references["boxes"].corners[0] for case in dataset], lows, atol=1e-3)


def test_classes_of_turned_photographs_are_not_asked_about(tmp_path):
    for n in range(4):
        put(tmp_path / "ab"[n % 2] / f"p{n}", scene(n)[0], 3)
    assert not dataset_layouts.read_dataset(tmp_path).problems
