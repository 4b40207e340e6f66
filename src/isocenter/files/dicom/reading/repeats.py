"""Frames at one position, sorted into volumes: by labels that each position has alike, else by rank.

A volume must not hold the frames of several b-values, phases or times, so a rank counts only where nothing that the
files state contradicts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations, pairwise
from operator import eq
from typing import Any

from isocenter.errors import GeometryError
from isocenter.files.dicom.geometry import (
    ACQUISITION,
    B_VALUE,
    DIRECTION,
    ECHO,
    REFERENCE_TIME,
    TEMPORAL,
    TRIGGER,
    Frame,
)

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
Key = Callable[[Frame], Any]


def repeats_of(groups: Groups, where: str) -> tuple[Repeats, str, tuple[str, ...]]:
    """([repeat][position], the label that distinguishes repeats, notes) of equally many frames at each position.

    Raises GeometryError where nothing distinguishes them, or where what does contradicts itself.
    """
    if len(groups[0]) == 1:
        return [[group[0] for group in groups]], "", ()
    apart = _distinguishing_labels(groups)
    if apart:
        volumes, how, against = _in_order(groups, _label_key(apart)), " and ".join(apart), ""
    else:
        volumes, how, against = _ranked(groups, where)
    if apart or how in (RANK, ACQUIRED):
        volumes.sort(key=lambda slices: _in_time(slices, apart))
    return volumes, how, (f"{len(volumes)} volumes distinguished by {how}{against}",)


def rank_of(label: str) -> str:
    """By what volumes are distinguished where the values of a label differ from position to position."""
    return f"rank of the {label}"


def _ranked(groups: Groups, where: str) -> tuple[Repeats, str, str]:
    """(volumes of the frames that have one rank at each position, by what, what contradicts it)."""
    keys = {name: _value_of(name) for name in (*DECISIVE, *WITNESSES)}
    orders = {name: _in_order(groups, key) for name, key in keys.items() if _ranks(groups, key)}
    if not orders:
        names = ", ".join(frame.name for frame in groups[0][:3])
        raise GeometryError(
            f"nothing distinguishes the frames at one position ({names}): neither time, diffusion, echo nor "
            "InstanceNumber (0020,0013)",
            where,
            APART,
        )
    at_once = ACQUIRED in orders and _distinguish(groups, keys[ACQUIRED])
    decisive = (name for name in DECISIVE if name in orders and _is_graded(orders[name], name))
    name = next(decisive, None) or (ACQUIRED if at_once else _agreed(orders, where))
    volumes = orders[name]
    _refuse_mixed(volumes, name, where)
    if INSTANCE in orders and _partition(volumes) == _partition(orders[INSTANCE]):
        return orders[INSTANCE], RANK, ""
    how = ACQUIRED if name == ACQUIRED and at_once else rank_of(name)
    return volumes, how, ", against the instance numbers" if INSTANCE in orders else ""


def _agreed(orders: dict[str, Repeats], where: str) -> str:
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
        for slices, stated in zip(volumes, values, strict=True) if label in NOMINAL or are_alike is eq else ():
            odd = next((n for n, value in enumerate(stated) if not are_alike(stated[0], value)), None)
            if odd is not None:
                raise GeometryError(
                    f"by the {rank_of(name)} {slices[0].name} and {slices[odd].name} would belong to one volume, but "
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
        return lambda frame: frame.order
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
    """Which frames belong to one volume, whatever the order of the volumes."""
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
    order = min(frame.order for frame in slices)
    return (*(float(v) for v in counted if isinstance(v, float)), min(times, default=0.0), *order)
