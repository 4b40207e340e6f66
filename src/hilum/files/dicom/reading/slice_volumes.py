"""Volumes of the frames of one series: order, gaps, and the labels that distinguish frames at one position.

A volume must not hold the frames of several b-values, phases or times. So frames at one position are sorted by labels
that each position has alike, and by rank only where nothing that the files state contradicts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from operator import eq
from typing import Any, cast

import numpy as np

from hilum import errors
from hilum.errors import GeometryError
from hilum.files.dicom import slice_geometry
from hilum.files.dicom.reading import lacking_values
from hilum.files.dicom.reading.file_frames import KINDS
from hilum.files.dicom.slice_geometry import (
    ACQUISITION,
    B_VALUE,
    DIRECTION,
    ECHO,
    REFERENCE_TIME,
    TEMPORAL,
    TRIGGER,
    Frame,
    Label,
    Plane,
    Stack,
)
from hilum.files.format_options import ReadOptions
from hilum.values import Floats, grouping
from hilum.values.grid_geometry import DIRECTION_TOLERANCE

NO_TIME = ("", ECHO, f"rank of the {ECHO}")  # labels that are none of time
NO_SLICES = ("localizer", "projection image")  # values of Image Type of what only looks like a further slice
SAME_LABEL = 0.01  # of an echo time or b-value: by as much may the slices of a volume differ
NO_THICKNESS = 1.0  # mm; only a unit to write an affine with, see `_one_slice`

SAME_PLACE = 0.01  # of the pixel spacing: what is nearer lies at the same depth
SAME_FIELD = 0.1  # of the pixel spacing: repeats of one place may be written this far apart

Key = Callable[[Frame], Any]
MOST_LABELS = 3  # at once; nobody varies time, echo and two of diffusion in one series
INSTANCE, ACQUIRED = "instance number", "acquisition time"
RANK = f"rank of the {INSTANCE}"
NOMINAL = (B_VALUE, ECHO)  # chosen before the scan: they hold for a whole volume
SAME_NOMINAL = 0.1  # of the largest: by as much may they differ within a volume
# The first of these that ranks the frames of each position decides. The witnesses only decide where most of them agree:
# a trigger is jitter in perfusion, times are those of a slice in cine, numbers may be an archive's.
DECISIVE, WITNESSES = (*NOMINAL, TEMPORAL, REFERENCE_TIME), (TRIGGER, ACQUIRED, INSTANCE)
APART = "Put the files of each volume into a folder of their own"
# [position][frame], and [volume][position].
Groups = Sequence[Sequence[Frame]]
Repeats = list[list[Frame]]


@dataclass(frozen=True, eq=False)
class SliceVolume:
    """Slices on one regular grid.

    frames:  [channel][repeat][slice]; None where a slice is missing
    kinds:   one a channel; empty for a channel whose kind is of no importance
    affine:  (4, 4) of (column, row, slice) to RAS+ mm
    apart:   the label that distinguishes the repeats, empty where there is only one
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
        """The slices for which there is no frame."""
        return tuple(n for n, frame in enumerate(self.frames[0][0]) if frame is None)

    @property
    def repeats(self) -> list[Frame]:
        """The first frame of each repeat of the first channel."""
        return [next(frame for frame in slices if frame is not None) for slices in self.frames[0]]

    def values_by_repeat(self, label: str) -> tuple[Label | None, ...]:
        """The value of a label in each repeat of the first channel; none where the slices of a repeat disagree.

        A slice that does not state it has that of the others.
        """
        repeats = [
            {value for frame in slices if frame is not None and (value := frame.labels.get(label)) is not None}
            for slices in self.frames[0]
        ]
        return tuple(next(iter(values), None) for values in repeats) if all(len(v) <= 1 for v in repeats) else ()

    def times(self) -> tuple[float, ...] | None:
        """s from the first repeat, None where it is not known or does not distinguish the repeats."""
        if self.apart in NO_TIME:
            return None
        if self.apart == TRIGGER:
            times = [float(cast("float", frame.labels[TRIGGER])) / 1000 for frame in self.repeats]
        else:
            slice_times = [[f.time for f in slices if f is not None] for slices in self.frames[0]]
            if any(time is None for slices in slice_times for time in slices):
                return None
            times = [min(time for time in slices if time is not None) for slices in slice_times]
        growing = all(later > earlier for earlier, later in pairwise(times))
        return tuple(round(time - times[0], 6) for time in times) if growing else None


def group_into_volumes(frames: Sequence[Frame], where: str, options: ReadOptions) -> list[SliceVolume]:
    """All volumes of one series whose frames have a position.

    Different stacks that an object declares are volumes of their own. At one position there may be several frames:
    kinds (magnitude, phase) that cover the same grid equally often are channels, other kinds volumes of their own;
    within a kind, `_repeats_of` says what distinguishes repeats.
    Raises GeometryError for frames that make no regular grid, or that nothing distinguishes.
    """
    stacks = group_by_key(frames, lambda frame: frame.stack)
    if len(stacks) > 1:
        apart = [(name, volume) for name, part in stacks.items() for volume in _of_stack(part, where, options)]
        return [replace(volume, suffix=f"{volume.suffix}_stack_{name}") for name, volume in apart]
    files = group_by_key(frames, lambda frame: frame.path)
    if len(files) > 1 and all(len(part) > 1 and part[0].tile is None for part in files.values()):
        return _of_objects(list(files.values()), frames, where, options)
    return _of_stack(frames, where, options)


def _of_objects(
    objects: list[list[Frame]], frames: Sequence[Frame], where: str, options: ReadOptions
) -> list[SliceVolume]:
    """Multi-frame objects of one series: one volume where they fit on one grid, else a volume each."""
    try:
        return _of_stack(frames, where, options)
    except GeometryError:
        parts = [_of_stack(part, str(part[0].path), options) for part in objects]
        return [volume for volumes in parts for volume in volumes]


def _of_stack(frames: Sequence[Frame], where: str, options: ReadOptions) -> list[SliceVolume]:
    _refuse_mixture(frames, where)
    places = _places_of(frames)
    counts = Counter(places)
    _refuse_neighbours(frames, places, where)
    if max(counts.values()) == 1:
        return _along(frames, where, options)
    kinds = group_by_key(frames, lambda frame: frame.kind)
    covers = {kind: Counter(places[n] for n, f in enumerate(frames) if f.kind == kind) for kind in kinds}
    even = all(len(set(cover.values())) == 1 for cover in covers.values())
    if len(kinds) == 1 or not even or not _overlap(list(covers.values())):
        _refuse_uneven(frames, places, where)
        return [_volume({"": list(frames)}, where, options)]
    if len({frozenset(cover.items()) for cover in covers.values()}) == 1:
        volume = _volume(kinds, where, options)
        return [replace(volume, notes=(*volume.notes, "kinds of image on one grid are channels"))]
    return [
        replace(_volume({kind: part}, where, options), suffix=f"_{kind or 'other'}") for kind, part in kinds.items()
    ]


def _along(frames: Sequence[Frame], where: str, options: ReadOptions) -> list[SliceVolume]:
    """The volume of frames that each have a position of their own; one of each kind where several lie in one stack.

    Raises GeometryError where the frames of each kind make no grid.
    """
    parts = _kinds_along(frames)
    if len(parts) == 1:
        volume = _volume({"": list(frames)}, where, options)
        return [replace(volume, notes=(*volume.notes, *_notes_along(frames)))]
    try:
        return [replace(_volume({"": part}, where, options), suffix=f"_{suffix}") for suffix, part in parts.items()]
    except GeometryError as error:
        examples = ", ".join(f"{part[0].name} ({suffix})" for suffix, part in list(parts.items())[:3])
        raise GeometryError(
            f"slices of {len(parts)} kinds lie in one stack, as {examples}, and those of one kind make no volume: "
            f"{error.problem}",
            where,
            "Put the slices of each kind into a folder of their own",
        ) from error


def _kinds_along(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Frames that cannot be slices of one volume, apart: by what they show, echo time and b-value. PS3.3 C.7.6.1.1.2"""
    ordinary = {frame.kind for frame in frames if not frame.is_derived}
    names = [_name_shown(frame, ordinary) for frame in frames]
    words: list[list[str]] = [[name or "other"] if len(set(names)) > 1 else [] for name in names]
    for label, word in ((ECHO, "echo"), (B_VALUE, "b")):
        numbers = [value for frame in frames if isinstance(value := frame.labels.get(label), float)]
        alike = _near(0, SAME_LABEL)
        kinds = list[float]()
        for value in numbers:
            kinds += [] if any(alike(kind, value) for kind in kinds) else [value]
        if len(numbers) == len(frames) and len(kinds) > 1:
            for words_of_frame, value in zip(words, numbers, strict=True):
                words_of_frame.append(f"{word}_{next(kind for kind in kinds if alike(kind, value)):g}")
    parts = grouping.by_key(
        ("_".join(words_of_frame), frame) for words_of_frame, frame in zip(words, frames, strict=True)
    )
    return dict(parts)


def _name_shown(frame: Frame, ordinary: set[str]) -> str:
    """A word for what a frame shows, empty for an ordinary slice; ordinary: what slices show that are not derived."""
    is_other = frame.kind in KINDS or any(word in frame.kind.split("\\") for word in NO_SLICES)
    return frame.kind if is_other or (frame.is_derived and ordinary and frame.kind not in ordinary) else ""


def _notes_along(frames: Sequence[Frame]) -> tuple[str, ...]:
    """The notes of slices that differ in what need not matter: packages of MR and steps of a table are acquisitions."""
    notes = list[str]()
    derived = sum(frame.is_derived for frame in frames)
    if 0 < derived < len(frames):
        derived_slices = errors.count_phrase(derived, "slice is", "slices are")
        notes.append(f"{derived_slices} DERIVED (ImageType (0008,0008)), the others are not")
    depth = slice_geometry.plane_depths([plane_of_frame(frame) for frame in frames])
    turns = [frames[n].labels.get(ACQUISITION) for n in np.argsort(depth)]
    blocks, acquisitions = 1 + sum(one != other for one, other in pairwise(turns)), len(set(turns))
    if blocks > acquisitions:
        notes.append(
            f"slices of {acquisitions} acquisitions (AcquisitionNumber (0020,0012)) take turns: they are packages of "
            "one volume, or several volumes"
        )
    return tuple(notes)


def _overlap(covers: list[Counter[int]]) -> bool:
    """Whether kinds share positions: only then do they distinguish frames."""
    return any(set(a) & set(b) for n, a in enumerate(covers) for b in covers[n + 1 :])


def _volume(kinds: dict[str, list[Frame]], where: str, options: ReadOptions) -> SliceVolume:
    """One volume of frames that cover each position equally often in each kind."""
    names = sorted(kinds, key=_kind_order)
    grids: list[list[list[Frame]]] = []
    apart: str = ""
    notes: tuple[str, ...] = ()
    for name in names:
        slices, apart, notes = _repeats_of(_positions(kinds[name]), where)
        grids.append(slices)
    planes = [plane_of_frame(frame) for frame in grids[0][0]]
    if len(planes) == 1:
        step, about_depth = _one_slice(grids[0][0][0])
        stack = Stack(step, (0,))
    else:
        names_of_slices = [frame.name for frame in grids[0][0]]
        stack = slice_geometry.stack_planes(planes, names_of_slices, where, fill_missing=options.fill_missing)
        about_depth = stack.notes
    if stack.missing:
        about_depth = (*about_depth, f"{len(stack.missing)} missing slices are filled with padding")
    filled = tuple(tuple(_fill_gaps(slices, stack) for slices in repeats) for repeats in grids)
    affine = slice_geometry.affine_of_slices(planes[0], stack.step)
    return SliceVolume(filled, affine, tuple(names), apart, notes=(*notes, *about_depth, *_lacking_notes(grids)))


def _lacking_notes(grids: Sequence[Repeats]) -> Iterator[str]:
    """Notes on slices that do not state a label, or their time, where others of their volume do."""
    slices = sum(len(volume) for volumes in grids for volume in volumes)
    for label in (TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION, B_VALUE, DIRECTION, ECHO, ACQUIRED):
        value = _value_of(label)
        lacking = [
            frame.name
            for volumes in grids
            for volume in volumes
            for frame in lacking_values.split_lacking((one, value(one) is not None) for one in volume)
        ]
        if lacking:
            yield lacking_values.lacking_phrase(lacking, slices, f"the {label}")


def _fill_gaps(slices: list[Frame], stack: Stack) -> tuple[Frame | None, ...]:
    slice_at = dict(zip(stack.indices, slices, strict=True))
    return tuple(slice_at.get(n) for n in range(stack.indices[-1] + 1))


def _kind_order(kind: str) -> tuple[int, str]:
    usual = ("magnitude", "phase", "real", "imaginary", "field map")
    return (usual.index(kind) if kind in usual else len(usual), kind)


def _one_slice(frame: Frame) -> tuple[Floats, tuple[str, ...]]:
    """The step of a single slice, along the normal, as long as the stated thickness."""
    plane = plane_of_frame(frame)
    if frame.thickness is None:
        return plane.normal * NO_THICKNESS, (
            "the one slice has no SliceThickness (0018,0050); 1 mm in the affine stands for an unknown thickness",
        )
    size, keyword = frame.thickness
    return plane.normal * abs(size), (f"one slice: its thickness is {keyword}, {abs(size):g} mm",)


def _positions(frames: list[Frame]) -> list[list[Frame]]:
    """Frames by position, in order of depth."""
    places = _places_of(frames)
    groups: list[list[Frame]] = [[] for _ in range(max(places) + 1)]
    for position, frame in zip(places, frames, strict=True):
        groups[position].append(frame)
    return groups


def _refuse_uneven(frames: Sequence[Frame], places: list[int], where: str) -> None:
    """Refuse places with unequal numbers of frames: one is doubled or another missing."""
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


def _refuse_mixture(frames: Sequence[Frame], where: str) -> None:
    """Refuse frames of several orientations, spacings, sizes or frames of reference: one series is one grid."""
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
    # Most are equal, which NumPy takes long to say.
    return lambda first, second: first == second or bool(np.allclose(first, second, atol=tolerance, rtol=relative))


# (what, attribute, a frame's own, when two are the same)
SHARED: tuple[tuple[str, str, Callable[[Frame], Any], Callable[[Any, Any], bool]], ...] = (
    (
        "orientations",
        "ImageOrientationPatient (0020,0037)",
        lambda frame: plane_of_frame(frame).orientation,
        _near(DIRECTION_TOLERANCE, 0),
    ),
    ("pixel spacings", "PixelSpacing (0028,0030)", lambda frame: plane_of_frame(frame).spacing, _near(0, 1e-3)),
    ("sizes", "Rows and Columns (0028,0010)", lambda frame: frame.shape, eq),
    ("frames of reference", "FrameOfReferenceUID (0020,0052)", lambda frame: frame.frame_of_reference, eq),
)


def _refuse_neighbours(frames: Sequence[Frame], places: list[int], where: str) -> None:
    """Refuse frames of one depth that do not lie on each other: neighbouring fields of view are no repeats."""
    first: dict[int, Frame] = {}
    for frame, position in zip(frames, places, strict=True):
        other = first.setdefault(position, frame)
        apart = np.subtract(plane_of_frame(frame).position, plane_of_frame(other).position)
        if np.linalg.norm(apart) > SAME_FIELD * min(plane_of_frame(frame).spacing):
            raise GeometryError(
                f"{other.name} and {frame.name} lie at one depth but {np.linalg.norm(apart):.3g} mm from each other "
                "(ImagePositionPatient (0020,0032))",
                where,
                "Read the slices of each field of view apart: put them into folders of their own",
            )


def _places_of(frames: Sequence[Frame]) -> list[int]:
    """The place of each frame along the normal, from 0; frames closer than 1 % of a pixel share one."""
    planes = [plane_of_frame(frame) for frame in frames]
    depth = slice_geometry.plane_depths(planes)
    order = np.argsort(depth, kind="stable")
    apart = np.diff(depth[order]) > SAME_PLACE * min(planes[0].spacing)
    places = np.empty(len(frames), dtype=int)
    places[order] = np.concatenate([[0], np.cumsum(apart)])
    return [int(place) for place in places]


def plane_of_frame(frame: Frame) -> Plane:
    """The frame's plane. Raises GeometryError where it states none."""
    if frame.plane is None:
        raise GeometryError("does not state where it lies", str(frame.path), "Export the series again")
    return frame.plane


def group_by_key(frames: Sequence[Frame], key: Key) -> dict[Any, list[Frame]]:
    """Frames in groups with the same key, both in the order in which they come."""
    groups = grouping.by_key((key(frame), frame) for frame in frames)
    return dict(groups)


def _repeats_of(groups: Groups, where: str) -> tuple[Repeats, str, tuple[str, ...]]:
    """([repeat][position], the label that distinguishes repeats, notes) of equally many frames at each position.

    Raises GeometryError where nothing distinguishes them, or where what does contradicts itself.
    """
    if len(groups[0]) == 1:
        return [[group[0] for group in groups]], "", ()
    apart = _distinguishing_labels(groups)
    if apart:
        volumes, how, against = _in_order(groups, _label_key(apart)), " and ".join(apart), ""
    else:
        volumes, how, against = _rank(groups, where)
    if apart or how in (RANK, ACQUIRED):
        volumes.sort(key=lambda slices: _in_time(slices, apart))
    return volumes, how, (f"{len(volumes)} volumes distinguished by {how}{against}",)


def _rank_of(label: str) -> str:
    """The words for volumes that are distinguished by rank, as a label's values differ from position to position."""
    return f"rank of the {label}"


def _rank(groups: Groups, where: str) -> tuple[Repeats, str, str]:
    """(volumes of the frames that have one rank at each position, by what, what contradicts it)."""
    keys = {name: _value_of(name) for name in (*DECISIVE, *WITNESSES)}
    orders = {name: _in_order(groups, key) for name, key in keys.items() if _ranks(groups, key)}
    if not orders:
        names = ", ".join(frame.name for frame in groups[0][:3])
        every = [frame for group in groups for frame in group]
        unnumbered = lacking_values.split_lacking((frame.name, frame.is_numbered) for frame in every)
        of_one = f", which {errors.list_phrase(unnumbered, 3)} does not state" if unnumbered else ""
        raise GeometryError(
            f"nothing distinguishes the frames at one position ({names}): neither time, diffusion, echo nor "
            f"InstanceNumber (0020,0013){of_one}",
            where,
            APART,
        )
    at_once = ACQUIRED in orders and _distinguish(groups, keys[ACQUIRED])
    decisive = (name for name in DECISIVE if name in orders and _is_graded(orders[name], name))
    name = next(decisive, None) or (ACQUIRED if at_once else _agree_on_order(orders, where))
    volumes = orders[name]
    _refuse_mixed(volumes, name, where)
    if INSTANCE in orders and _partition(volumes) == _partition(orders[INSTANCE]):
        return orders[INSTANCE], RANK, ""
    how = ACQUIRED if name == ACQUIRED and at_once else _rank_of(name)
    return volumes, how, ", against the instance numbers" if INSTANCE in orders else ""


def _agree_on_order(orders: dict[str, Repeats], where: str) -> str:
    """The order that most of trigger time, acquisition time and instance number lead to.

    Raises GeometryError where each leads to another.
    """
    names = [name for name in WITNESSES if name in orders] or list(orders)
    partitions = {name: _partition(orders[name]) for name in names}
    votes = Counter(partitions.values())
    name = max(partitions, key=lambda name: votes[partitions[name]])
    if votes[partitions[name]] == 1 < len(partitions):
        first, other = list(partitions)[:2]
        odd = next(slices for slices in orders[first] if tuple(map(id, slices)) not in partitions[other])
        raise GeometryError(
            f"{first} and {other} sort the frames at one position into different volumes, such as that of "
            f"{odd[0].name}",
            where,
            APART,
        )
    return name


def _refuse_mixed(volumes: Repeats, name: str, where: str) -> None:
    """Refuse volumes of several b-values or echo times, or of labels that are the same set at each position."""
    for label in (*NOMINAL, DIRECTION, TEMPORAL):
        values = [[frame.labels.get(label) for frame in slices] for slices in volumes]
        sets = [Counter(position) for position in zip(*values, strict=True)]
        are_alike = eq if all(one == sets[0] for one in sets) else _are_near
        for slices, values_of_volume in (
            zip(volumes, values, strict=True) if label in NOMINAL or are_alike is eq else ()
        ):
            odd = next(
                (n for n, value in enumerate(values_of_volume) if not are_alike(values_of_volume[0], value)), None
            )
            if odd is not None:
                raise GeometryError(
                    f"by the {_rank_of(name)} {slices[0].name} and {slices[odd].name} would belong to one volume, but "
                    f"their {label}s differ",
                    where,
                    APART,
                )


def _are_near(first: Any, other: Any) -> bool:
    """Whether two nominal values may be those of one volume; one that is not stated may be any."""
    return first is None or other is None or abs(first - other) <= SAME_NOMINAL * max(first, other)


def _is_graded(volumes: Repeats, label: str) -> bool:
    """Whether each volume has larger values than the one before; only of nominal labels this is needed."""
    key = _value_of(label)
    values = [[key(frame) for frame in slices] for slices in volumes] if label in NOMINAL else []
    return all(max(earlier) < min(later) for earlier, later in pairwise(values))


def _value_of(name: str) -> Key:
    """The number by which a frame ranks at its position, None where it is not stated."""
    if name == INSTANCE:
        return lambda frame: frame.order if frame.is_numbered else None
    return lambda frame: frame.time if name == ACQUIRED else frame.labels.get(name)


def _ranks(groups: Groups, key: Key) -> bool:
    """Whether all frames at each position have different values."""
    return all(
        None not in (values := {key(frame) for frame in group}) and len(values) == len(group) for group in groups
    )


def _in_order(groups: Groups, key: Key) -> Repeats:
    """The volumes of the frames that have one rank at each position."""
    ordered = [sorted(group, key=key) for group in groups]
    return [[group[n] for group in ordered] for n in range(len(ordered[0]))]


def _partition(volumes: Repeats) -> frozenset[Hashable]:
    """The frames of each volume, whatever the order of the volumes."""
    return frozenset(tuple(map(id, slices)) for slices in volumes)


def _distinguishing_labels(groups: Groups) -> tuple[str, ...]:
    """The fewest labels of which each position has the same set of different values; empty if there are none.

    Labels that are the same everywhere distinguish nothing and are left out.
    """
    names = list(dict.fromkeys(name for frame in groups[0] for name in frame.labels))
    usual = (TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION, B_VALUE, DIRECTION, ECHO)
    names.sort(key=lambda name: usual.index(name) if name in usual else len(usual))
    varying = [name for name in names if len({frame.labels.get(name) for group in groups for frame in group}) > 1]
    choices = (names for count in range(1, MOST_LABELS + 1) for names in combinations(varying, count))
    return next((names for names in choices if _distinguish(groups, _label_key(names))), ())


def _distinguish(groups: Groups, key: Key) -> bool:
    sets = [frozenset(key(frame) for frame in group) for group in groups]
    return len(sets[0]) == len(groups[0]) and all(values == sets[0] for values in sets)


def _label_key(names: tuple[str, ...]) -> Key:
    """Labels as something to compare; a missing one (the direction of b = 0) is a value too."""

    def key(frame: Frame) -> tuple[str, ...]:
        """The frame's values of these labels."""
        return tuple(repr(frame.labels.get(name)) for name in names)

    return key


def _in_time(slices: list[Frame], apart: tuple[str, ...]) -> tuple[float, ...]:
    """Frames follow what counts time, then acquisition, then instances."""
    counted = [slices[0].labels.get(n) for n in apart if n in (TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION, ECHO)]
    times = [frame.time for frame in slices if frame.time is not None]
    order = min((frame.order for frame in slices if frame.is_numbered), default=slices[0].order)
    return (*(float(v) for v in counted if isinstance(v, float)), min(times, default=0.0), *order)
