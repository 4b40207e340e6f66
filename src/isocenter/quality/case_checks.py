"""What can be said about one case without the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from isocenter.quality.boxes import odd_boxes
from isocenter.quality.event_checks import unusable_event
from isocenter.quality.instances import odd_instances, unusable_instances
from isocenter.quality.mask_facts import Structure
from isocenter.quality.thumbnail import Look
from isocenter.values import GRID_TOLERANCE, Array, Case, Image, Problem

# Two letters in a row occur by chance in a few of a hundred radiographs and smears, three in none.
FEWEST_LETTERS = 3


def unusable(case: Case, image: Image, valid: Array, references: Mapping[str, Any]) -> Iterator[Problem]:
    """Why the case cannot be used at all."""
    for name, known in zip(image.channels, valid, strict=True):
        if not known.any():
            yield Problem(
                "error", f"channel {name!r} holds no measurement", (case.id,), "nothing to learn", "Leave it out"
            )
    if "event" in references:
        yield from unusable_event(case.id, references["event"])
    yield from unusable_instances(case.id, references)
    if image.frames is not None and image.times is None:
        yield Problem(
            "error",
            f"has {image.frames} frames on a fourth axis, and nothing says what they are",
            (case.id,),
            "moments are looked at otherwise than channels",
            "Declare them as channels (dataset.json, modality), or write their times into the header",
        )
    for kind, mask in references.items():
        if isinstance(mask, Image) and mask.frames != image.frames:
            yield Problem(
                "error",
                f"{kind} has {mask.frames or 'no'} frames, the image {image.frames or 'none'}",
                (case.id,),
                "which frame a mask belongs to is not known",
                "Draw a mask for every frame, or declare frames as channels (dataset.json, modality)",
            )
        if isinstance(mask, Image) and not mask.geometry.equals(image.geometry):
            yield Problem(
                "error",
                f"{kind} ({mask.geometry!r}) and image ({image.geometry!r}) lie on different grids, "
                f"more than {GRID_TOLERANCE} mm apart",
                (case.id,),
                "a label would be learnt in the wrong place",
                "Resample one onto the other, or leave the case out",
            )


def odd(
    case: Case,
    image: Image,
    valid: Array,
    references: Mapping[str, Any],
    structures: Mapping[int, Structure],
    seen: Look,
) -> Iterator[Problem]:
    """What is odd about a case that can be used."""
    for name, channel, known in zip(image.channels, image.data, valid, strict=True):
        yield from _channel(case.id, name, channel, known)
    for kind, mask in references.items():
        if isinstance(mask, Image) and not mask.data.any():
            yield Problem(
                "note", f"{kind} is empty", (case.id,), "it teaches only what is not there", "Check that this is meant"
            )
    yield from odd_boxes(case.id, references)
    yield from odd_instances(case.id, references)
    if any(structure.specks for structure in structures.values()):
        yield Problem(
            "note",
            "mask holds specks: pieces of a few voxels apart from the rest of their structure",
            (case.id,),
            "a slip of the pen is learnt, and decides distances",
            "Look at them, and remove those that are not meant",
        )
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
    broken = int(np.count_nonzero(~np.isfinite(channel))) if channel.dtype.kind == "f" else 0
    if broken:
        yield Problem(
            "warning",
            f"channel {name!r} has {broken} voxels that are not finite",
            (case,),
            "they are left out of every statistic",
            "Look at how the file was made",
        )
