"""The folders that the layouts state as their examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from cohorts import volume
from hilum.layouts import layout
from written_dicom import write_slice


def write_example(root: Path, name: str) -> Path:
    """The example of the layout of this name."""
    for file, held in layout.load_layout(name).example.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(held, str):
            path.write_text(held)
        else:
            write_values(path, np.array(held))
    return root


def write_values(path: Path, values: np.ndarray[Any, Any]) -> None:
    """An image of one value or of bands of several, or a clip, a volume or an archive with a frame of each."""
    match "".join(path.suffixes):
        case ".png":
            PIL.Image.fromarray(bands((20, 30), values).astype(np.uint8)).save(path)
        case ".nii.gz":
            frames = [bands((4, 5, 6), own) for own in (values if values.ndim > 1 else [values])]
            volume(path, np.stack(frames, axis=-1).astype(np.int16) if values.ndim > 1 else frames[0].astype(np.int16))
        case ".dcm":
            write_slice(path, bands((4, 5), values).astype(np.int16), position=(0.0, 0.0, float(values)))
        case ".avi":
            clip = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (30, 20))
            for value in values:
                clip.write(np.full((20, 30, 3), value, np.uint8))
            clip.release()
        case ".npz":
            labels = np.repeat(values, 2)
            arrays = {
                "images": np.arange(len(labels) * 784).reshape(-1, 28, 28).astype(np.uint8),
                "labels": labels[:, None],
            }
            np.savez(path, **{f"{part}_{what}": array for part in ("train", "test") for what, array in arrays.items()})
        case other:
            raise ValueError(f"{other} has no example")


def bands(shape: tuple[int, ...], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array of one value, or with as thick a band of each along the first axis."""
    each = np.repeat(np.atleast_1d(values), -(-shape[0] // values.size))[: shape[0]]
    return np.broadcast_to(each.reshape(-1, *[1] * (len(shape) - 1)), shape)
