"""What all frames of one series must share, and which of them lie at one place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from isocenter.errors import GeometryError
from isocenter.files.dicom_frame import Frame
from isocenter.files.dicom_geometry import Plane, depths, share_orientation, share_spacing

SAME_PLACE = 0.01  # of the pixel spacing: what is nearer lies at the same depth

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
    planes = [located(frame) for frame in frames]
    checks = (
        ("orientations", "ImageOrientationPatient (0020,0037)", share_orientation(planes), _orientation),
        ("pixel spacings", "PixelSpacing (0028,0030)", share_spacing(planes), lambda f: located(f).spacing),
        ("sizes", "Rows and Columns (0028,0010)", len({f.shape for f in frames}) == 1, lambda f: f.shape),
        (
            "frames of reference",
            "FrameOfReferenceUID (0020,0052)",
            len({f.frame_of_reference for f in frames}) == 1,
            lambda f: f.frame_of_reference,
        ),
    )
    for what, tag, alike, key in checks:
        if not alike:
            groups = by(frames, key)
            first, second = (part[0].name for part in list(groups.values())[:2])
            raise GeometryError(
                f"has {len(groups)} {what} in one series ({tag}), as in {first} and {second}",
                where,
                "Read the slices of each apart: put them into folders of their own",
            )


def _orientation(frame: Frame) -> tuple[float, ...]:
    return tuple(round(x, 2) for x in located(frame).orientation)


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
    if frame.plane is None:
        raise GeometryError("does not say where it lies", str(frame.path), "Export the series again")
    return frame.plane


def by(frames: Sequence[Frame], key: Key) -> dict[Any, list[Frame]]:
    found: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        found[key(frame)].append(frame)
    return dict(found)
