"""What the page of `studio` asks at once, answered by a warm process: plans, thumbnails, views."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

import isocenter
from isocenter.doors import plan_controls, warm_process
from isocenter.files import file_formats
from isocenter.files.format_options import ReadOptions
from isocenter.lazy import pil_image

SIDE = 96  # pixels of a thumbnail


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


def _view(values: Mapping[str, Any]) -> dict[str, str]:
    return {"html": isocenter.view(values["image"], values.get("mask")).html}


if __name__ == "__main__":
    warm_process.answer_lines({"plan": _plan, "thumbnail": _thumbnail, "view": _view})
