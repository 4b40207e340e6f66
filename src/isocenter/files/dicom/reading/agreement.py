"""What all frames of one series must share, and which of them lie at one place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from operator import eq
from typing import Any

import numpy as np

from isocenter.errors import GeometryError
from isocenter.files.dicom.frame import Frame
from isocenter.files.dicom.geometry import Plane, depths
from isocenter.values import DIRECTION_TOLERANCE

SAME_PLACE = 0.01  # of the pixel spacing: what is nearer lies at the same depth
SAME_FIELD = 0.1  # of the pixel spacing: repeats of one place may be written this far apart

Key = Callable[[Frame], Hashable]


def refuse_copies(frames: Sequence[Frame], where: str) -> None:
    """The same object in two files: which one is meant cannot be known."""
    owner: dict[str, Frame] = {}
    for frame in frames:
        first = owner.setdefault(frame.uid, frame) if frame.uid else frame
        if first.path != frame.path:
            raise GeometryError(
                f"{first.path.name} and {frame.path.name} are the same image: SOPInstanceUID (0008,0018) is equal",
                where,
                "Remove one of the two",
            )


def refuse_uneven(frames: Sequence[Frame], places: list[int], where: str) -> None:
    """Each place must have equally many frames: else one is doubled or another missing."""
    counts = Counter(places)
    if len(set(counts.values())) == 1:
        return
    usual = Counter(counts.values()).most_common(1)[0][0]
    odd = next(place for place in sorted(counts) if counts[place] != usual)
    names = [frame.name for frame, place in zip(frames, places, strict=True) if place == odd]
    raise GeometryError(
        f"slices are doubled or missing: most positions (ImagePositionPatient (0020,0032)) have {usual} frame"
        f"{'s' if usual > 1 else ''}, one has {counts[odd]} ({', '.join(names[:4])})",
        where,
        "Remove the doubled slices or get the missing ones",
    )


def refuse_mixture(frames: Sequence[Frame], where: str) -> None:
    """One series is one grid: the same orientation, spacing, size and frame of reference everywhere."""
    for what, tag, key, alike in SHARED:
        odd = next((frame for frame in frames if not alike(key(frames[0]), key(frame))), None)
        if odd is not None:
            kinds: list[Any] = []
            for frame in frames:
                if not any(alike(kind, key(frame)) for kind in kinds):
                    kinds.append(key(frame))
            raise GeometryError(
                f"has {len(kinds)} {what} in one series ({tag}), as in {frames[0].name} and {odd.name}",
                where,
                "Read the slices of each apart: put them into folders of their own"
                if len({frame.path for frame in frames}) > 1
                else "Export the frames of each as a series of their own",
            )


def _near(tolerance: float, relative: float) -> Callable[[Any, Any], bool]:
    return lambda one, other: bool(np.allclose(one, other, atol=tolerance, rtol=relative))


# (what, attribute, how a frame tells it, when two are the same)
SHARED: tuple[tuple[str, str, Callable[[Frame], Any], Callable[[Any, Any], bool]], ...] = (
    (
        "orientations",
        "ImageOrientationPatient (0020,0037)",
        lambda frame: located(frame).orientation,
        _near(DIRECTION_TOLERANCE, 0),
    ),
    ("pixel spacings", "PixelSpacing (0028,0030)", lambda frame: located(frame).spacing, _near(0, 1e-3)),
    ("sizes", "Rows and Columns (0028,0010)", lambda frame: frame.shape, eq),
    ("frames of reference", "FrameOfReferenceUID (0020,0052)", lambda frame: frame.frame_of_reference, eq),
)


def refuse_neighbours(frames: Sequence[Frame], places: list[int], where: str) -> None:
    """Frames of one place must lie on each other: fields of view beside each other are no repeats."""
    first: dict[int, Frame] = {}
    for frame, place in zip(frames, places, strict=True):
        other = first.setdefault(place, frame)
        apart = np.subtract(located(frame).position, located(other).position)
        if np.linalg.norm(apart) > SAME_FIELD * min(located(frame).spacing):
            raise GeometryError(
                f"{other.name} and {frame.name} lie at one depth but {np.linalg.norm(apart):.3g} mm beside each other "
                "(ImagePositionPatient (0020,0032))",
                where,
                "Read the slices of each field of view apart: put them into folders of their own",
            )


def places_of(frames: Sequence[Frame]) -> list[int]:
    """Which place along the normal each frame has, from 0; what lies closer than 1 % of a pixel shares one."""
    planes = [located(frame) for frame in frames]
    depth = depths(planes)
    order = np.argsort(depth, kind="stable")
    apart = np.diff(depth[order]) > SAME_PLACE * min(planes[0].spacing)
    places = np.empty(len(frames), dtype=int)
    places[order] = np.concatenate([[0], np.cumsum(apart)])
    return [int(place) for place in places]


def located(frame: Frame) -> Plane:
    """The frame's plane, which volumes take for granted."""
    if frame.plane is None:
        raise GeometryError("does not say where it lies", str(frame.path), "Export the series again")
    return frame.plane


def by(frames: Sequence[Frame], key: Key) -> dict[Any, list[Frame]]:
    """Frames in groups with the same key, both in the order in which they come."""
    found: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        found[key(frame)].append(frame)
    return dict(found)
