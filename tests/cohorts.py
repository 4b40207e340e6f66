"""Small data sets that tests write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image


def picture(path: Path, value: int = 7, shape: tuple[int, ...] = (4, 5)) -> Path:
    """A grey PNG of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


def volume(path: Path, array: np.ndarray | None = None) -> Path:
    """A NIfTI of 1 mm, of zeros if nothing else is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros((4, 5, 6), np.uint8) if array is None else array
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    return path


def paired(root: Path, count: int = 4) -> Path:
    """images/ beside labels/; the masks of every second image are full, the others empty."""
    for n in range(count):
        picture(root / "images" / f"x{n}.png", n)
        picture(root / "labels" / f"x{n}.png", 255 * (n % 2))
    return root


def classed(root: Path, count: int = 3) -> Path:
    """A folder for each of two classes."""
    for name in ("benign", "malignant"):
        for n in range(count):
            picture(root / name / f"{name}{n}.png", n)
    return root


def table(path: Path, columns: str, rows: Iterable[str]) -> Path:
    """A CSV of these lines."""
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path
