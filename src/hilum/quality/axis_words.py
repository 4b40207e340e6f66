"""Words for the axes of an image in canonical order: rows and columns of a picture, right, front and up of a volume."""

from __future__ import annotations

MIRRORED = {2: ("top to bottom", "left to right"), 3: ("left to right", "front to back", "top to bottom")}
DIRECTIONS = {
    2: (("further up", "further down"), ("to the left", "to the right")),
    3: (("to the left", "to the right"), ("further back", "further to the front"), ("further down", "further up")),
}


def mirror_words(axes: int, *, oriented: bool) -> tuple[str, ...]:
    """Per axis how what is mirrored along it is turned, as in "left to right".

    oriented: of a volume, whether left and right are known; a picture has its own
    """
    if axes in MIRRORED and _is_named(axes, oriented):
        return MIRRORED[axes]
    return tuple(f"along axis {axis + 1}" for axis in range(axes))


def direction_words(axes: int, *, oriented: bool) -> tuple[tuple[str, str], ...]:
    """Per axis the words for a move to lower and to higher indices; arguments as of `mirror_words`."""
    if axes in DIRECTIONS and _is_named(axes, oriented):
        return DIRECTIONS[axes]
    return tuple((f"down axis {axis + 1}", f"up axis {axis + 1}") for axis in range(axes))


def _is_named(axes: int, oriented: bool) -> bool:
    return axes == 2 or oriented
