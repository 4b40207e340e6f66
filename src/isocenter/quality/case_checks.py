"""Findings on a single case: whether it can be used, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isocenter.quality.thumbnail import Look
from isocenter.values import GRID_TOLERANCE, Array, Case, CaseReference, Image, Problem

# Two letters in a row occur by chance in a few of a hundred radiographs and smears, three in none.
FEWEST_LETTERS = 3


def no_measurement(case: Case, image: Image, valid: Array) -> Iterator[Problem]:
    """Channels without any measurement."""
    for name, known in zip(image.channels, valid, strict=True):
        if not known.any():
            yield Problem(
                "error", f"channel {name!r} holds no measurement", (case.id,), "nothing to learn", "Leave it out"
            )


def on_other_grids(case: Case, image: Image, masks: Sequence[CaseReference]) -> Iterator[Problem]:
    """Frames of an unknown meaning, and masks with other frames or on another grid than the image."""
    if image.frames is not None and image.times is None:
        yield Problem(
            "error",
            f"has {image.frames} frames on a fourth axis, and nothing says what they are",
            (case.id,),
            "moments are looked at otherwise than channels",
            "Declare them as channels (dataset.json, modality), or write their times into the header",
        )
    for reference in masks:
        kind, mask = reference.name, reference.value
        if mask.frames != image.frames:
            yield Problem(
                "error",
                f"{kind} has {mask.frames or 'no'} frames, the image {image.frames or 'none'}",
                (case.id,),
                "which frame a mask belongs to is not known",
                "Draw a mask for every frame, or declare frames as channels (dataset.json, modality)",
            )
        if not mask.geometry.equals(image.geometry):
            yield Problem(
                "error",
                f"{kind} ({mask.geometry!r}) and image ({image.geometry!r}) lie on different grids, "
                f"more than {GRID_TOLERANCE} mm apart",
                (case.id,),
                "a label would be learnt in the wrong place",
                "Resample one onto the other, or leave the case out",
            )


def odd_image(case: Case, image: Image, valid: Array, masks: Sequence[CaseReference]) -> Iterator[Problem]:
    """Constant channels, voxels that are not finite and empty masks."""
    for name, channel, known in zip(image.channels, image.data, valid, strict=True):
        yield from _channel(case.id, name, channel, known)
    for reference in masks:
        if not reference.value.data.any():
            yield Problem(
                "note",
                f"{reference.name} is empty",
                (case.id,),
                "it teaches only what is not there",
                "Check that this is meant",
            )


def letters(case: Case, seen: Look) -> Iterator[Problem]:
    """Letters burned into the picture."""
    if any(measures["letters"] >= FEWEST_LETTERS for measures in seen.quality):
        yield Problem(
            "warning",
            f"letters seem to be burned into the picture (a line of {FEWEST_LETTERS} or more)",
            (case.id,),
            "they may name a person, or tell the class",
            "Look at them; cut them away or blacken them",
        )


def _channel(case: str, name: str, channel: Array, known: Array) -> Iterator[Problem]:
    if channel[known].min() == channel[known].max():
        yield Problem(
            "warning", f"channel {name!r} is constant", (case,), "it shows nothing", "Look at it, or leave it out"
        )
    broken = int(np.count_nonzero(~np.isfinite(channel))) if np.issubdtype(channel.dtype, np.floating) else 0
    if broken:
        yield Problem(
            "warning",
            f"channel {name!r} has {broken} voxels that are not finite",
            (case,),
            "they are left out of every statistic",
            "Look at how the file was made",
        )
