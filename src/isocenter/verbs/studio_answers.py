"""What the page of `studio` asks at once, answered by a warm process: plans, thumbnails, views."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import isocenter
from isocenter.doors import plan_controls, warm_process
from isocenter.errors import UsageError
from isocenter.files import file_formats, result_images
from isocenter.files.format_options import ReadOptions
from isocenter.lazy import pil_image
from isocenter.report import display
from isocenter.service.reading import label_strokes, sliced_volumes
from isocenter.service.reading.label_strokes import Stroke
from isocenter.service.reading.sliced_volumes import SlicedVolume, VolumeCache
from isocenter.values import Image, Label

SIDE = 96  # pixels of a thumbnail
_volumes = VolumeCache(2e9)


def _plan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"decisions": plan_controls.decision_records(isocenter.plan(**values))}


def _thumbnail(values: Mapping[str, Any]) -> dict[str, str]:
    """The middle slice of an image as PNG, between its lowest and highest hundredth."""
    image = file_formats.read_image(values["path"], ReadOptions())
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


def _labels(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The labels of a map that lies on the grid of its image, and in which none overlap."""
    volume, drawn = _volume(values["image"]), _volume(values["image"], values["mask"])
    if drawn.shape != volume.shape or drawn.image.shape[0] > 1:
        raise UsageError("is no label map on the grid of its image", values["mask"], "View it without the tools")
    labels = _labels_of(drawn.image)
    colours = display.label_colours(labels)
    return [{"label": one.value, "name": one.name, "colour": colours[one.value]} for one in labels]


def _labels_of(mask: Image) -> list[Label]:
    """The labels of a map but background; those without a name are called by their value."""
    named = {one.value: one for one in mask.labels}
    unnamed = {int(value): Label(int(value), f"label {value}") for value in np.unique(mask.data)}
    return [one for value, one in sorted((unnamed | named).items()) if value]


def _grid(values: Mapping[str, Any]) -> dict[str, Any]:
    return sliced_volumes.grid_shape(_volume(values["image"]), 1).model_dump(by_alias=True)


def _range(values: Mapping[str, Any]) -> dict[str, Any]:
    return sliced_volumes.range_shape(_volume(values["image"]), values["channel"]).model_dump()


def _slice(values: Mapping[str, Any]) -> dict[str, Any]:
    place = {one: values[one] for one in ("number", "frame", "channel")}
    cut = _volume(values["image"], values["mask"]).slice(values["plane"], **place)
    pixels = base64.b64encode(np.ascontiguousarray(cut.pixels).tobytes()).decode()
    return {"pixels": pixels, "headers": sliced_volumes.slice_headers(cut)}


def _draw(values: Mapping[str, Any]) -> None:
    """Write a label map with what a person has drawn on it."""
    volume, mask = _volume(values["image"]), _volume(values["image"], values["mask"]).image
    labels, strokes = _labels_of(mask), [Stroke.from_record(one["stroke"], one) for one in values["strokes"]]
    for one in strokes:
        label_strokes.check_stroke(one, volume.shape, labels)
    drawn, out = label_strokes.draw_strokes(mask.data[0], strokes), Path(values["out"])
    out.parent.mkdir()
    result_images.write_label_map(drawn, labels, volume.image, out, algorithm="corrected by hand")


ANSWERS = {"plan": _plan, "thumbnail": _thumbnail, "grid": _grid, "range": _range, "labels": _labels, "slice": _slice}

if __name__ == "__main__":
    warm_process.answer_lines({**ANSWERS, "draw": _draw})
