"""The axes of a NRRD that are space, and the grid on which they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import FormatError, GeometryError
from isocenter.files.nrrd.header import Header
from isocenter.files.times import even_times
from isocenter.files.world import MM, from_lps, rows_and_columns
from isocenter.values import Geometry

# Signs that bring the named space to RAS; spaces that are not listed have no relation to the patient.
SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
COMPLEX = ("complex",)
FOUR_AXES = ("rast", "last", "lpst")  # short names of spaces with time
SPATIAL_KINDS = ("domain", "space", "", "???", "none")
SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class Layout:
    """The meaning of the file's axes.

    axes:    those that become (channels[, frames], *spatial); beyond the last where the file leaves one out
    spatial: those of them that are space, in the file's order
    """

    axes: tuple[int, ...]
    spatial: tuple[int, ...]
    times: tuple[float, ...] | None = None
    colours: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def layout_of(header: Header, path: Path) -> Layout:
    """Axes with a direction, else those of kind domain or without kind, are space.

    Of the others one may be frames (kind time or list, as of diffusion or Slicer's sequences), and one channels; the
    list of a segmentation is one of layers, and becomes channels.
    """
    sizes, kinds = header.sizes, [kind.lower() for kind in header.words("kinds")]
    spatial, frames, channels = _kinds_of_axes(header, kinds)
    if any(kinds[n] in COMPLEX for n in channels):
        raise FormatError("the voxels are complex numbers", str(path), "Save magnitude or phase by itself")
    if len(spatial) not in (2, 3) or len(frames) > 1 or len(channels) > 1:
        raise FormatError(
            f"{len(spatial)} axes of space, {len(frames)} of time and {len(channels)} others",
            str(path),
            "State the kind of each axis in the header's `kinds`, or split the file",
        )
    missing = len(sizes)  # the next axis that the file leaves out, because its length is 1
    if not channels:
        channels, missing = [missing], missing + 1
    ordered = spatial if len(spatial) == 3 else spatial[::-1]
    if len(spatial) == 2 and "space directions" in header.fields and _space_dimension(header) >= 3:
        ordered = (*spatial, missing)  # a slice in space, not a picture
    times = _times(header, frames[0], sizes[frames[0]]) if frames else None
    colours = channels[0] < len(sizes) and kinds[channels[0]] in ("rgb-color", "rgba-color")
    return Layout((*channels, *frames, *ordered), spatial, times, colours, _facts(header))


def _kinds_of_axes(header: Header, kinds: list[str]) -> tuple[tuple[int, ...], list[int], list[int]]:
    """The file's axes that are (space, frames, channels)."""
    listed = () if any(key.startswith("Segment0_") for key in header.pairs) else ("list",)
    count = len(header.sizes)
    if "space directions" in header.fields:
        directions = header.vectors("space directions")
        if len(directions) != count:
            raise header.damaged(f"{count} axes and {len(directions)} space directions")
        in_time = [v is not None and len(v) == 4 and not v[:3].any() for v in directions]
        spatial = tuple(n for n, v in enumerate(directions) if v is not None and not in_time[n])
    else:
        in_time = [False] * count
        spatial = tuple(n for n, kind in enumerate(kinds) if kind in SPATIAL_KINDS)
    others = [n for n in range(count) if n not in spatial]
    called = [text.lower() for text in header.words("labels")]
    frames = [n for n in others if in_time[n] or kinds[n] in ("time", *listed) or called[n] in ("frame", "time", "t")]
    return spatial, frames, [n for n in others if n not in frames]


def grid_of(header: Header, layout: Layout, path: Path) -> tuple[Geometry, list[str]]:
    """The grid of the spatial axes, and notes on what the header leaves open."""
    shape = [header.sizes[axis] for axis in layout.spatial]
    if "space directions" not in header.fields:
        return _by_spacings(header, layout, shape)
    signs = SPACES.get(header.get("space").lower().removesuffix("-time").removesuffix("t"))
    linear, origin, notes = _directions(header, layout)
    unit, physical = _unit(header, notes)
    if not np.isfinite(linear).all():
        return Geometry.of_pixels(_as_read(shape)), [*notes, "The header gives no voxel size: size in mm unknown."]
    oriented = signs is not None and origin is not None and len(linear) == 3
    if not oriented:
        notes.append("The header names no patient space or no origin: orientation unknown.")
    affine = np.eye(len(linear) + 1)
    affine[:-1, :-1] = linear * unit
    affine[:-1, -1] = 0.0 if origin is None else np.asarray(origin) * unit
    if signs is not None and len(linear) == 3:
        affine = np.diag([*signs, 1.0]) @ affine
    if len(shape) == 2 and len(linear) == 2:
        affine = rows_and_columns(affine)
    shape = shape + [1] * (len(linear) - len(shape))
    try:
        return Geometry(_as_read(shape), affine, physical=physical, oriented=oriented), notes
    except GeometryError as error:
        raise GeometryError(error.problem, str(path), "Check `space directions` in the header") from error


def space_fields(geometry: Geometry, channels: str | None, frames: bool, step: float | None) -> list[str]:
    """Header lines for this grid, with an axis of channels of some kind before it and one of frames behind it.

    Sides are written in LPS, as ITK and Slicer do; unknown ones as a space without a name. Frames are a list called
    time, because ITK takes an axis of kind time for a fourth one of space.
    """
    affine = from_lps(geometry.affine) if geometry.oriented else geometry.affine
    affine = rows_and_columns(affine) if geometry.is_picture else affine
    before, behind = ([channels] if channels else []), (["list"] if frames else [])
    vectors = [f"({_spelled(affine[:-1, axis])})" for axis in range(geometry.ndim)]
    directions = [*(["none"] * len(before)), *vectors, *(["none"] * len(behind))]
    unit = "mm" if geometry.physical else "unknown"
    lines = [
        "space: left-posterior-superior" if geometry.oriented else f"space dimension: {geometry.ndim}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join([*before, *['domain'] * geometry.ndim, *behind])}",
        "space units: " + " ".join([f'"{unit}"'] * geometry.ndim),
        f"space origin: ({_spelled(affine[:-1, -1])})",
    ]
    others = len(before) + geometry.ndim
    if frames:
        lines += ["labels: " + '"" ' * others + '"time"']
    if frames and step:
        lines += [f"spacings: {'nan ' * others}{step!r}", "units: " + '"" ' * others + '"s"']
    return lines


def _spelled(numbers: NDArray[np.floating]) -> str:
    return ",".join(repr(float(n)) for n in numbers)


def _directions(header: Header, layout: Layout) -> tuple[NDArray[np.float64], Any, list[str]]:
    """(columns of the linear part, origin or None, notes); a flat slice in 3D space gets its normal."""
    vectors = [v for n, v in enumerate(header.vectors("space directions")) if n in layout.spatial and v is not None]
    ndim = min(_space_dimension(header), 3)  # a fourth one is time
    if any(len(v) < ndim for v in vectors):
        raise header.damaged("space directions of unlike length")
    linear = np.stack([v[:ndim] for v in vectors], axis=1)
    notes: list[str] = []
    if linear.shape == (3, 2):
        normal = np.cross(linear[:, 0], linear[:, 1])
        linear = np.column_stack([linear, normal / np.linalg.norm(normal)])
        notes.append("A single slice: its thickness is not stated, 1 is taken as the step.")
    if linear.shape[0] != linear.shape[1]:
        raise header.damaged(f"{len(vectors)} axes in a space of {ndim} dimensions")
    origin = header.vectors("space origin")[0] if header.get("space origin") else None
    whole = origin is not None and len(origin) >= ndim and bool(np.isfinite(origin).all())
    return linear, origin[:ndim] if whole and origin is not None else None, notes


def _space_dimension(header: Header) -> int:
    if "space dimension" in header.fields:
        return header.integer("space dimension", 3)
    name = header.get("space").lower()
    if name.endswith("-time") or name in FOUR_AXES:
        return 4
    return 3 if name else 0


def _by_spacings(header: Header, layout: Layout, shape: list[int]) -> tuple[Geometry, list[str]]:
    """The grid without directions: sides are unknown, sizes are those of `spacings`."""
    notes = ["The header gives no directions: orientation unknown."]
    spacings = header.numbers("spacings") if "spacings" in header.fields else [np.nan] * len(header.sizes)
    if len(spacings) != len(header.sizes):
        raise header.damaged(f"{len(header.sizes)} axes and {len(spacings)} spacings")
    steps = np.abs([spacings[axis] for axis in layout.spatial])
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        return Geometry.of_pixels(_as_read(shape)), [*notes, "The header gives no voxel size: size in mm unknown."]
    unit, physical = _unit(header, notes, [header.words("units")[axis] for axis in layout.spatial])
    steps = steps * unit if len(shape) == 3 else steps[::-1] * unit
    return Geometry(_as_read(shape), np.diag([*steps, 1.0]), physical=physical, oriented=False), notes


def _unit(header: Header, notes: list[str], words: list[str] | None = None) -> tuple[float, bool]:
    """(mm in one unit, whether the unit is one of length)."""
    words = header.words("space units")[:3] if words is None else words
    if "space units" not in header.fields and not any(words):
        notes.append("The header states no unit; taken as mm, as all programs that write NRRD do.")
        return 1.0, True
    factors = {MM.get(word.lower()) for word in words}
    factor = factors.pop() if len(factors) == 1 else None
    if factor is None:
        notes.append(f"The header's unit {', '.join(words)} is none of length: size in mm unknown.")
    return factor or 1.0, factor is not None


def _times(header: Header, axis: int, frames: int) -> tuple[float, ...] | None:
    spacings = header.numbers("spacings") if "spacings" in header.fields else []
    unit = SECONDS.get(header.words("units")[axis].lower())
    if len(spacings) != len(header.sizes) or unit is None or not spacings[axis] > 0:
        return None
    return even_times(unit * float(spacings[axis]), frames, str(header.path))


def _facts(header: Header) -> dict[str, Any]:
    """Diffusion weighting of each frame in s/mm², and the frame (in the header's own space) of vectors."""
    facts: dict[str, Any] = {}
    if "measurement frame" in header.fields:
        frame = [v for v in header.vectors("measurement frame") if v is not None]
        facts = {"measurement_frame": tuple(tuple(v.tolist()) for v in frame), "space": header.get("space")}
    gradients = sorted(key for key in header.pairs if key.startswith("DWMRI_gradient_"))
    try:
        nominal = float(header.pairs.get("DWMRI_b-value", "nan"))
        # A gradient shorter than 1 stands for a smaller b-value, which goes with its square.
        lengths = [sum(float(n) ** 2 for n in header.pairs[key].split()) for key in gradients]
    except ValueError:
        return facts
    return facts | {"b_values": tuple(nominal * length for length in lengths)} if lengths else facts


def _as_read(shape: list[int]) -> tuple[int, ...]:
    return tuple(shape) if len(shape) == 3 else tuple(shape[::-1])
