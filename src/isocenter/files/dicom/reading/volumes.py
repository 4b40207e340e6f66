"""Frames of one series to volumes: order, gaps, and what tells frames at one position apart. Design, section 5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

from isocenter.errors import GeometryError
from isocenter.files.dicom.frame import ACQUISITION, B_VALUE, DIRECTION, ECHO, REFERENCE_TIME, TEMPORAL, TRIGGER, Frame
from isocenter.files.dicom.geometry import Stack, affine_of, stacked
from isocenter.files.dicom.reading.agreement import (
    by,
    located,
    places_of,
    refuse_copies,
    refuse_mixture,
    refuse_neighbours,
    refuse_uneven,
)
from isocenter.files.format import ReadOptions
from isocenter.values import Floats

MOST_LABELS = 3  # together; nobody varies time, echo and two of diffusion in one series
RANK = "rank of the instance number"
NO_THICKNESS = 1.0  # mm; only a unit to write an affine with, see `_one_slice`


@dataclass(frozen=True, eq=False)
class Volume:
    """Slices on one regular grid.

    frames:  [channel][repeat][slice]; None where a slice is missing
    kinds:   one a channel; empty for a channel whose kind is of no importance
    affine:  (4, 4) of (column, row, slice) to RAS+ mm
    apart:   what tells the repeats apart, empty where there is only one
    suffix:  for the name, where one series has several volumes
    """

    frames: tuple[tuple[tuple[Frame | None, ...], ...], ...]
    affine: Floats
    kinds: tuple[str, ...] = ("",)
    apart: str = ""
    suffix: str = ""
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Frame:
        """Any frame that is there."""
        return next(frame for frame in self.frames[0][0] if frame is not None)

    @property
    def missing(self) -> tuple[int, ...]:
        return tuple(n for n, frame in enumerate(self.frames[0][0]) if frame is None)

    @property
    def repeats(self) -> list[Frame]:
        """The first frame of each repeat of the first channel."""
        return [next(frame for frame in slices if frame is not None) for slices in self.frames[0]]

    def times(self) -> tuple[float, ...] | None:
        """s from the first repeat, None where it isn't known or isn't what tells the repeats apart."""
        if self.apart in ("", ECHO):
            return None
        if self.apart == TRIGGER:
            found = [float(frame.labels[TRIGGER]) / 1000 for frame in self.repeats]  # type: ignore[arg-type]
        else:
            told = [[f.time for f in slices if f is not None] for slices in self.frames[0]]
            if any(time is None for slices in told for time in slices):
                return None
            found = [min(time for time in slices if time is not None) for slices in told]
        growing = all(later > earlier for earlier, later in pairwise(found))
        return tuple(round(time - found[0], 6) for time in found) if growing else None


def volumes_of(frames: Sequence[Frame], where: str, options: ReadOptions) -> list[Volume]:
    """All volumes of one series whose frames have a position.

    Different stacks that an object declares are volumes of their own. At one position there may be several frames:
    kinds (magnitude, phase) that cover the same grid equally often are channels, other kinds volumes of their own;
    within a kind, repeats are told apart by what the file says about time, diffusion or echo, else by the rank of
    the instance number.
    Raises GeometryError for the rest: see the design, section 5.
    """
    refuse_copies(frames, where)
    stacks = by(frames, lambda frame: frame.stack)
    if len(stacks) > 1:
        apart = [(name, volume) for name, part in stacks.items() for volume in _of_stack(part, where, options)]
        return [replace(volume, suffix=f"{volume.suffix}_stack_{name}") for name, volume in apart]
    files = by(frames, lambda frame: frame.path)
    if len(files) > 1 and all(len(part) > 1 and part[0].tile is None for part in files.values()):
        return _of_objects(list(files.values()), frames, where, options)
    return _of_stack(frames, where, options)


def _of_objects(objects: list[list[Frame]], frames: Sequence[Frame], where: str, options: ReadOptions) -> list[Volume]:
    """Multi-frame objects of one series: together where they fit on one grid, else each for itself."""
    try:
        return _of_stack(frames, where, options)
    except GeometryError:
        alone = [_of_stack(part, str(part[0].path), options) for part in objects]
        return [volume for volumes in alone for volume in volumes]


def _of_stack(frames: Sequence[Frame], where: str, options: ReadOptions) -> list[Volume]:
    refuse_mixture(frames, where)
    places = places_of(frames)
    counts = Counter(places)
    refuse_neighbours(frames, places, where)
    if max(counts.values()) == 1:
        return [_volume({"": list(frames)}, where, options)]
    kinds = by(frames, lambda frame: frame.kind)
    covers = {kind: Counter(places[n] for n, f in enumerate(frames) if f.kind == kind) for kind in kinds}
    even = all(len(set(cover.values())) == 1 for cover in covers.values())
    if len(kinds) == 1 or not even or not _overlap(list(covers.values())):
        refuse_uneven(frames, places, where)
        return [_volume({"": list(frames)}, where, options)]
    if len({frozenset(cover.items()) for cover in covers.values()}) == 1:
        volume = _volume(kinds, where, options)
        return [replace(volume, notes=(*volume.notes, "kinds of image on one grid are channels"))]
    return [
        replace(_volume({kind: part}, where, options), suffix=f"_{kind or 'other'}") for kind, part in kinds.items()
    ]


def _overlap(covers: list[Counter[int]]) -> bool:
    """Whether kinds share positions: only then do they tell frames apart."""
    return any(set(a) & set(b) for n, a in enumerate(covers) for b in covers[n + 1 :])


def _volume(kinds: dict[str, list[Frame]], where: str, options: ReadOptions) -> Volume:
    """One volume of frames that cover each position equally often in each kind."""
    names = sorted(kinds, key=_kind_order)
    grids: list[list[list[Frame]]] = []
    apart: str = ""
    notes: tuple[str, ...] = ()
    for name in names:
        slices, apart, notes = _repeats(kinds[name], where)
        grids.append(slices)
    planes = [located(frame) for frame in grids[0][0]]
    if len(planes) == 1:
        step, told = _one_slice(grids[0][0][0])
        stack = Stack(step, (0,))
    else:
        stack, told = stacked(planes, [f.name for f in grids[0][0]], where, fill_missing=options.fill_missing), ()
    if stack.missing:
        told = (*told, f"{len(stack.missing)} missing slices are filled with padding")
    filled = tuple(tuple(_filled(slices, stack) for slices in repeats) for repeats in grids)
    affine = affine_of(planes[0], stack.step)
    return Volume(filled, affine, tuple(names), apart, notes=(*notes, *told))


def _filled(slices: list[Frame], stack: Stack) -> tuple[Frame | None, ...]:
    there = dict(zip(stack.indices, slices, strict=True))
    return tuple(there.get(n) for n in range(stack.indices[-1] + 1))


def _kind_order(kind: str) -> tuple[int, str]:
    usual = ("magnitude", "phase", "real", "imaginary", "field map")
    return (usual.index(kind) if kind in usual else len(usual), kind)


def _one_slice(frame: Frame) -> tuple[Floats, tuple[str, ...]]:
    """The step of a single slice, along the normal: what the file says of its thickness."""
    plane = located(frame)
    if frame.thickness is None:
        return plane.normal * NO_THICKNESS, (
            "the one slice has no SliceThickness (0018,0050); 1 mm in the affine stands for an unknown thickness",
        )
    size, keyword = frame.thickness
    return plane.normal * abs(size), (f"one slice: its thickness is {keyword}, {abs(size):g} mm",)


def _repeats(frames: list[Frame], where: str) -> tuple[list[list[Frame]], str, tuple[str, ...]]:
    """([repeat][slice], what tells repeats apart, notes); slices in order of depth."""
    places = places_of(frames)
    groups: list[list[Frame]] = [[] for _ in range(max(places) + 1)]
    for place, frame in zip(places, frames, strict=True):
        groups[place].append(frame)
    if len(groups[0]) == 1:
        return [[group[0] for group in groups]], "", ()
    apart = _what_tells_apart(groups)
    ordered = [sorted(group, key=_label_key(apart)) for group in groups]
    if not apart:
        ordered = [_by_rank(group, where) for group in groups]
    volumes = [[group[n] for group in ordered] for n in range(len(ordered[0]))]
    volumes.sort(key=lambda slices: _in_time(slices, apart))
    how = " and ".join(apart) or RANK
    return volumes, how, (f"{len(volumes)} volumes told apart by {how}",)


def _by_rank(group: list[Frame], where: str) -> list[Frame]:
    """Frames of one place in the order of their instance numbers."""
    if len({frame.order for frame in group}) < len(group):
        names = ", ".join(frame.name for frame in group[:3])
        raise GeometryError(
            f"nothing tells apart what lies at one position ({names}): neither time, diffusion, echo nor "
            "InstanceNumber (0020,0013)",
            where,
            "Put the files of each volume into a folder of their own",
        )
    return sorted(group, key=lambda frame: frame.order)


def _what_tells_apart(groups: list[list[Frame]]) -> tuple[str, ...]:
    """The label, or labels together, of which each position has the same set of different values; empty if none.

    Labels that are the same everywhere say nothing and are left out.
    """
    names = list(dict.fromkeys(name for frame in groups[0] for name in frame.labels))
    usual = (TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION, B_VALUE, DIRECTION, ECHO)
    names.sort(key=lambda name: usual.index(name) if name in usual else len(usual))
    varying = [name for name in names if len({frame.labels.get(name) for group in groups for frame in group}) > 1]
    together = (names for count in range(1, MOST_LABELS + 1) for names in combinations(varying, count))
    return next((names for names in together if _tells(groups, names)), ())


def _tells(groups: list[list[Frame]], names: tuple[str, ...]) -> bool:
    key = _label_key(names)
    sets = [frozenset(key(frame) for frame in group) for group in groups]
    return len(sets[0]) == len(groups[0]) and all(values == sets[0] for values in sets)


def _label_key(names: tuple[str, ...]) -> Callable[[Frame], tuple[str, ...]]:
    """Labels as something to compare; a missing one (the direction of b = 0) is a value too."""

    def key(frame: Frame) -> tuple[str, ...]:
        return tuple(repr(frame.labels.get(name)) for name in names)

    return key


def _in_time(slices: list[Frame], apart: tuple[str, ...]) -> tuple[float, ...]:
    """Frames follow what counts time, then acquisition, then instances."""
    counted = [slices[0].labels.get(n) for n in apart if n in (TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION, ECHO)]
    times = [frame.time for frame in slices if frame.time is not None]
    order = min(frame.order for frame in slices)
    return (*(float(v) for v in counted if isinstance(v, float)), min(times, default=0.0), *order)
