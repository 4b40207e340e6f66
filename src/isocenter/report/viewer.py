"""A slice viewer as one HTML file: the image, what is drawn on it, and the values under the cursor."""

from __future__ import annotations

from collections.abc import Sequence

from isocenter.values import Image


def viewer(image: Image, overlays: Sequence[Image], title: str) -> str:
    """The image with its overlays as one page that scrolls through slices and names the value under the cursor."""
    raise NotImplementedError
