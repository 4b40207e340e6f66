"""What the page of `studio` asks at once, answered by a warm process: plans, thumbnails, views."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

import hilum
from hilum.doors import plan_controls, warm_process
from hilum.doors.warm_process import Answers
from hilum.errors import UsageError
from hilum.files import file_formats, result_images
from hilum.files.format_options import ReadOptions
from hilum.lazy import pil_image
from hilum.report import display
from hilum.service.reading import label_strokes, sliced_volumes
from hilum.service.reading.label_strokes import Stroke, StrokeDraft
from hilum.service.reading.sliced_volumes import SlicedVolume, VolumeCache
from hilum.values import Image, Label

SIDE = 96  # pixels of a thumbnail
_volumes = VolumeCache(2e9)


def _plan(**values: Any) -> dict[str, list[dict[str, JsonValue]]]:
    return {"decisions": plan_controls.decision_records(hilum.plan(**values))}


def _thumbnail(path: str) -> dict[str, str]:
    """The middle slice of an image as PNG, between its lowest and highest hundredth."""
    image = file_formats.read_image(path, ReadOptions())
    pixels = np.asarray(image.data[0], dtype=np.float32)
    while pixels.ndim > 2:
        pixels = pixels[..., pixels.shape[-1] // 2]
    low, high = np.percentile(pixels[np.isfinite(pixels)], [1, 99])
    grey = np.nan_to_num(np.clip((pixels - low) / max(float(high - low), 1e-6), 0, 1) * 255).astype(np.uint8)
    picture, written = pil_image.fromarray(grey.T[::-1]), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(written, "png")
    return {"png": base64.b64encode(written.getvalue()).decode()}


def _volume(image: str, mask: str = "") -> SlicedVolume:
    """An image, or a label map in the order of its axes, as a page looks at its slices."""
    path = Path(mask or image)
    return _volumes.load((str(path), path.stat().st_mtime_ns), lambda: [_read(image, mask)])[0]


def _read(image: str, mask: str) -> Image:
    if not mask:
        return file_formats.read_image(image, ReadOptions())
    return file_formats.read(mask).on_axes_of(_volume(image).image.geometry)


def _labels(image: str, mask: str) -> list[dict[str, str | int | tuple[int, ...]]]:
    """The labels of a map that lies on the grid of its image, and in which none overlap."""
    volume, mask_volume = _volume(image), _volume(image, mask)
    if mask_volume.shape != volume.shape or mask_volume.image.shape[0] > 1:
        raise UsageError("is no label map on the grid of its image", mask, "View it without the tools")
    labels = _labels_of(mask_volume.image)
    colours = display.label_colours(labels)
    return [{"label": one.value, "name": one.name, "colour": colours[one.value]} for one in labels]


def _labels_of(mask: Image) -> list[Label]:
    """The labels of a map but background; those without a name are called by their value."""
    named = {one.value: one for one in mask.labels}
    unnamed = {int(value): Label(int(value), f"label {value}") for value in np.unique(mask.data)}
    return [one for value, one in sorted((unnamed | named).items()) if value]


def _grid(image: str) -> dict[str, JsonValue]:
    return sliced_volumes.grid_shape(_volume(image), 1).model_dump(by_alias=True)


def _range(image: str, channel: int) -> dict[str, JsonValue]:
    return sliced_volumes.range_shape(_volume(image), channel).model_dump()


def _slice(image: str, mask: str, plane: str, number: int, frame: int, channel: int) -> dict[str, str | dict[str, str]]:
    cut = _volume(image, mask).slice(plane, number=number, frame=frame, channel=channel)
    pixels = base64.b64encode(np.ascontiguousarray(cut.pixels).tobytes()).decode()
    return {"pixels": pixels, "headers": sliced_volumes.slice_headers(cut)}


def _correct(image: str, mask: str, strokes: Sequence[StrokeDraft], out: str) -> None:
    """Write a label map with the strokes of a person on it."""
    volume, label_map = _volume(image), _volume(image, mask).image
    labels, made = _labels_of(label_map), [Stroke.from_record(one["stroke"], one) for one in strokes]
    for one in made:
        label_strokes.check_stroke(one, volume.shape, labels)
    corrected = label_strokes.apply_strokes(label_map.data[0], made)
    Path(out).parent.mkdir()
    result_images.write_label_map(corrected, labels, volume.image, Path(out), algorithm="corrected by hand")


ANSWERS: Answers = {
    "plan": _plan,
    "thumbnail": _thumbnail,
    "grid": _grid,
    "range": _range,
    "labels": _labels,
    "slice": _slice,
    "correct": _correct,
}

if __name__ == "__main__":
    warm_process.answer_lines(ANSWERS)
