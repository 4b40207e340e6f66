"""The facts about a picture that a TIFF states in a description by OME or by ImageJ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StatedFacts:
    """The facts of a description about one image; empty without one.

    sizes:            mm between voxels along X, Y and Z, where they are stated
    names:            of the channels
    increment:        s between frames
    is_volume:        whether we wrote it and it has three axes: of one plane, a header of other programs does not tell
    slope, intercept: value = slope * stored + intercept
    notes:            what is stated and was not read, or changed the values, in words
    """

    sizes: Mapping[str, float]
    names: tuple[str, ...] = ()
    increment: float | None = None
    is_volume: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()
