"""Pictures and scans in noise, and networks of a few operations, for the inputs that users reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image

from small_onnx import network

LPS = np.array([[-1.0, 0, 0, 12], [0, -1, 0, 13], [0, 0, 2, -20], [0, 0, 0, 1]])
SHAPE = (24, 26, 20)
Array = np.ndarray[Any, Any]


def noisy_picture(seed: int, bright: int = 60) -> tuple[Array, Array, tuple[int, int, int, int]]:
    """A bright rectangle on noise: (48, 64) image and mask, and the box as x0, y0, x1, y1."""
    generator = np.random.default_rng(seed)
    image = generator.normal(90, 12, (48, 64))
    mask = np.zeros(image.shape, np.uint8)
    y = int(generator.integers(12, 36))
    x = int(generator.integers(14, 50))
    mask[y - 6 : y + 6, x - 8 : x + 8] = 1
    image[mask > 0] += bright
    return np.clip(image, 0, 255).astype(np.uint8), mask, (x - 8, y - 6, x + 8, y + 6)


def write_picture(path: Path, pixels: Array, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path, **how)


def noisy_scan(seed: int) -> tuple[Array, Array]:
    """Two bright balls in noise, the first at the patient's left where the file is LPS: image and mask."""
    generator = np.random.default_rng(seed)
    image = generator.normal(100, 8, SHAPE)
    mask = np.zeros(SHAPE, np.uint8)
    grid = np.indices(SHAPE)
    for value, x in ((1, 17), (2, 6)):
        centre = (x + generator.integers(-1, 2), 13 + generator.integers(-2, 3), 10)
        squared_distance = sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True))
        mask[squared_distance < 16] = value
        image[squared_distance < 16] += 80
    return image.astype(np.int16), mask


def write_scan(path: Path, voxels: Array, affine: Array = LPS, codes: tuple[int, int] = (1, 1)) -> None:
    """A NIfTI file in mm, whose sform and qform have these codes."""
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


def sided_network(folder: Path) -> Path:
    """A network that calls what is above 140 the kidney of the side of SHAPE on which it lies."""
    # Networks get their images in RAS+: the first half along x is the patient's left.
    sides = np.zeros((1, 3, *SHAPE), np.float32)
    sides[0, 1, 12:] = -1e4
    sides[0, 2, :12] = -1e4
    weights = {
        "w": np.reshape([0.0, 1.0, 1.0], (3, 1, 1, 1, 1)),
        "b": np.reshape([0.0, -140.0, -140.0], (3, 1, 1, 1)),
        "s": sides,
    }
    return network(
        folder,
        [("Conv", "x w", "c"), ("Add", "c b", "y"), ("Add", "y s", "o")],
        weights,
        labels={"background": 0, "left_kidney": 1, "right_kidney": 2},
        outputs="classes",
        patch=list(SHAPE),
        spacing=[1, 1, 2],
    )
