"""Lesions of two masks, matched, and the response of tumours by them: RECIST 1.1 and PERCIST 1.0."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.evaluation import biomarkers
from hilum.evaluation.biomarkers import Diameters
from hilum.lazy import csgraph, ndimage, optimize, sparse, spatial
from hilum.transforms import label_maps, spatial_transforms
from hilum.transforms.label_maps import SPECK_VOXELS
from hilum.values import Floats, Geometry, Image, Label, SpatialTransform

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

# Names of lymph nodes, whose short axis is measured; a nodule is none.
NODE = re.compile(r"lymph|\bnodes?\b", re.IGNORECASE)
LYMPH_NODE = "59441001"  # SNOMED CT
# Of the smaller of two lesions, the share that the other has to cover: less is a rim where neighbours touch.
LEAST_SHARE = 0.1
# mm between lesions that do not overlap and may be the same one: the error of a registration.
LARGEST_GAP_MM = 5.0
# Voxels of a cube of 2: in a piece of fewer no axis is resolved.
LEAST_VOXELS = 8
# Voxels around a lesion in which the structure that it lies in is looked for.
AROUND = 2

Integers = NDArray[np.int32]
LesionState = Literal["matched", "new", "gone", "unseen", "speck"]
# Numbers at baseline and at the follow-up.
LesionGroup = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Lesion:
    """One connected piece of a mask, corners touching.

    number:   its number in the map, from 1 on
    ml:       of its voxels
    size:     mm, in its axial planes
    place:    mm, its centre
    kind:     what the mask calls it; organ: the structure that it lies in; each None where unknown
    is_node:  whether it is a lymph node
    """

    number: int
    ml: float
    size: Diameters
    place: tuple[float, ...]
    kind: str | None = None
    organ: str | None = None
    is_node: bool = False

    @property
    def extent(self) -> float:
        """mm that RECIST 1.1 adds up: the short axis of a node, else the longest diameter."""
        return self.size.short if self.is_node else self.size.long


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of a mask. numbers: (*spatial) of each voxel's lesion, 0 outside"""

    numbers: Integers
    geometry: Geometry
    each: tuple[Lesion, ...]

    @property
    def voxels(self) -> NDArray[np.intp]:
        """(lesions,) number of voxels of each."""
        return np.bincount(self.numbers.ravel(), minlength=len(self.each) + 1)[1:]

    def points(self, number: int) -> Floats:
        """(voxels, 3) mm of the voxels of one."""
        return self.geometry.to_world(np.argwhere(self.numbers == number))

    @property
    def thickness(self) -> float:
        """mm between axial planes."""
        return self.geometry.steps[_axial_axis(self.geometry)]


@dataclass(frozen=True)
class LesionLink:
    """Lesions that are one in both masks: several at baseline are merged, several afterwards are split.

    before, after: their numbers; none of those before: new, none of those after: gone, or unseen where the follow-up
                   image does not reach; a piece of one of them only that is too small for a lesion: speck
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    state: LesionState


def _axial_axis(geometry: Geometry) -> int:
    """The axis of a volume across its axial planes: the one that leans most to the head; the last where unknown."""
    if not geometry.has_sides:
        return geometry.ndim - 1
    return int(np.abs(geometry.affine[2, :3] / geometry.steps).argmax())


def find_lesions(masks: Image, organs: Image | None = None) -> Lesions:
    """The connected pieces of each value of a mask of three axes, measured.

    organs: a label map of structures on the same grid
    """
    mask = masks.data[0]
    geometry = masks.geometry
    numbers = np.zeros(mask.shape, np.int32)
    kinds = list[Label]()
    named = {label.value: label for label in masks.labels}
    for value in (int(one) for one in np.unique(mask) if one):
        pieces, count = ndimage.label(mask == value, structure=np.ones((3, 3, 3)))
        numbers[pieces > 0] = pieces[pieces > 0] + len(kinds)
        kinds += [named.get(value, Label(value, str(value)))] * count
    boxes = ndimage.find_objects(numbers)
    pairs = enumerate(zip(boxes, kinds, strict=True), start=1)
    measured = [_measure(numbers, number, box, geometry, kind, organs) for number, (box, kind) in pairs]
    return Lesions(numbers, geometry, tuple(measured))


def _measure(
    numbers: Integers, number: int, box: tuple[slice, ...], geometry: Geometry, kind: Label, organs: Image | None
) -> Lesion:
    inside = numbers[box] == number
    across = _axial_axis(geometry)
    steps = np.linalg.qr(geometry.affine[:3, [axis for axis in range(3) if axis != across]])[1]
    size = Diameters(0.0, 0.0)
    for plane in np.moveaxis(inside, across, 0):
        if plane.any():
            size = biomarkers.plane_diameters(plane, steps, over=size.long) or size
    middle = np.argwhere(inside).mean(axis=0) + [part.start for part in box]
    volume = float(np.count_nonzero(inside)) * (geometry.voxel_volume or math.nan) / 1000
    organ = None if organs is None else _organ(numbers, number, box, organs)
    is_node = any(NODE.search(name) for name in (kind.name, organ or ""))
    is_node |= kind.code is not None and kind.code.value == LYMPH_NODE
    centre = tuple(geometry.to_world(middle).tolist())
    return Lesion(number, volume, size, centre, None if kind.is_bare else kind.name, organ, is_node)


def _organ(numbers: Integers, number: int, box: tuple[slice, ...], organs: Image) -> str | None:
    """The structure that most voxels in and around a lesion belong to."""
    near = tuple(slice(max(part.start - AROUND, 0), part.stop + AROUND) for part in box)
    around = ndimage.binary_dilation(numbers[near] == number, np.ones((3, 3, 3), bool), iterations=AROUND)
    values, counts = np.unique(organs.data[0][near][around], return_counts=True)
    counts[values == 0] = 0
    names = {label.value: label.name for label in organs.labels}
    return names.get(int(values[counts.argmax()])) if counts.any() else None


def link_lesions(
    before: Lesions, after: Lesions, forward: SpatialTransform, back: SpatialTransform
) -> list[LesionLink]:
    """Link lesions that are the same: those that overlap at baseline, then the nearest ones at most 5 mm apart.

    forward: from the baseline image to the follow-up; back: the way back
    """
    moved = {one.number: spatial_transforms.carry_points(back, after.points(one.number)) for one in after.each}
    groups = _overlapping(before, after, moved)
    ours_small, theirs_small = _specks(before, after)
    left = [one.number for one in before.each if all(one.number not in ours for ours, _ in groups)]
    open_ones = [one.number for one in after.each if all(one.number not in theirs for _, theirs in groups)]
    groups += _nearest({number: before.points(number) for number in left}, {n: moved[n] for n in open_ones})
    links = [LesionLink(ours, theirs, "matched") for ours, theirs in groups]
    met = {number for link in links for number in link.before}
    for number in (number for number in left if number not in met):
        places = after.geometry.to_index(spatial_transforms.carry_points(forward, before.points(number)))
        inside = ((places >= -0.5) & (places <= np.array(after.geometry.shape) - 0.5)).all(axis=1)
        state: LesionState = "speck" if number in ours_small else "gone" if inside.mean() > 0.5 else "unseen"
        links.append(LesionLink((number,), (), state))
    links.sort(key=lambda link: link.before)
    found = {number for link in links for number in link.after}
    fresh = [number for number in open_ones if number not in found]
    return [*links, *(LesionLink((), (number,), "speck" if number in theirs_small else "new") for number in fresh)]


def _specks(before: Lesions, after: Lesions) -> tuple[set[int], set[int]]:
    """The numbers of pieces that are no lesion where nothing in the other mask is the same; none is 10 mm long.

    They have fewer voxels than a cube of 2; or than a cube of 3, and less than a hundredth of the largest or, at the
    follow-up, than every lesion of the baseline. RECIST 1.1 (4.3.5): a new lesion has to be unequivocal, and one too
    small for that is followed on.
    """
    ours = {one.number for one in _tiny(before)}
    least = min((one.ml for one in before.each if one.number not in ours), default=math.inf)
    small = {one.number for one, voxels in zip(after.each, after.voxels, strict=True) if voxels < SPECK_VOXELS}
    theirs = {one.number for one in after.each if one.number in small and one.ml < least and one.size.long < TARGET_MM}
    return ours, theirs | {one.number for one in _tiny(after)}


def _tiny(lesions: Lesions) -> list[Lesion]:
    voxels = lesions.voxels
    pairs = zip(lesions.each, label_maps.is_speck(voxels) | (voxels < LEAST_VOXELS), strict=True)
    return [one for one, is_tiny in pairs if is_tiny and one.size.long < TARGET_MM]


def speck_notes(before: Lesions, after: Lesions, links: Sequence[LesionLink]) -> list[str]:
    """A note for each mask with specks: how many, and the largest of them."""
    specks = [link for link in links if link.state == "speck"]
    sides = (
        ("baseline", before, [number for link in specks for number in link.before]),
        ("follow-up", after, [number for link in specks for number in link.after]),
    )
    return [
        f"{errors.count_phrase(len(numbers), 'piece')} of the {name} "
        f"({_size_words([side.each[n - 1] for n in numbers], side)}) counted as no lesion: of fewer "
        f"than {LEAST_VOXELS} voxels, or of fewer than {SPECK_VOXELS} and smaller than the others. Look there."
        for name, side, numbers in sides
        if numbers
    ]


def _size_words(lesions: Sequence[Lesion], side: Lesions) -> str:
    """Voxels, ml, mm and place of the largest."""
    one = max(lesions, key=lambda lesion: lesion.ml)
    which = "the largest: " if len(lesions) > 1 else ""
    voxels = errors.count_phrase(int(side.voxels[one.number - 1]), "voxel")
    place = ", ".join(f"{mm:.0f}" for mm in one.place)
    return f"{which}{voxels}, {one.ml:.3g} ml, {one.size.long:.3g} mm long, at {place} mm"


def _overlapping(before: Lesions, after: Lesions, moved: Mapping[int, Floats]) -> list[LesionGroup]:
    """Lesions that cover each other, by way of others too: so those that merged or split are one group."""
    count = len(before.each)
    ml = {one.number: one.ml for one in before.each}
    top = np.array(before.geometry.shape) - 1
    edges = []
    for lesion in after.each:
        index = np.rint(before.geometry.to_index(moved[lesion.number])).astype(np.intp)
        index = index[((index >= 0) & (index <= top)).all(axis=1)]
        hits = np.bincount(before.numbers[tuple(index.T)], minlength=count + 1)
        voxel = lesion.ml / len(moved[lesion.number])
        edges += [
            (ours - 1, count + lesion.number - 1)
            for ours in (np.flatnonzero(hits[1:]) + 1).tolist()
            if hits[ours] * voxel >= LEAST_SHARE * min(lesion.ml, ml[ours])
        ]
    if not edges:
        return []
    size = count + len(after.each)
    rows, columns = np.array(edges).T
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, owner = csgraph.connected_components(graph, directed=False)
    members = [np.flatnonzero(owner == group) for group in np.unique(owner[rows])]
    return [(_numbers(one[one < count]), _numbers(one[one >= count] - count)) for one in members]


def _numbers(places: NDArray[np.intp]) -> tuple[int, ...]:
    return tuple((places + 1).tolist())


def _nearest(before: Mapping[int, Floats], moved: Mapping[int, Floats]) -> list[LesionGroup]:
    """Pairs of single lesions with the least gaps between them, by the Hungarian method."""
    trees = {number: spatial.cKDTree(points) for number, points in before.items()}
    gaps = np.array([[np.min(tree.query(points)[0]) for points in moved.values()] for tree in trees.values()])
    if not gaps.size:
        return []
    ours = list(before)
    theirs = list(moved)
    # A pair that is too far apart is as good as none.
    rows, columns = optimize.linear_sum_assignment(np.minimum(gaps, LARGEST_GAP_MM))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [((ours[row],), (theirs[column],)) for row, column in pairs if gaps[row, column] <= LARGEST_GAP_MM]


# Response of tumours to treatment, by measurement alone: RECIST 1.1 by diameters, PERCIST 1.0 by uptake.
#
# No formula sees what a reader sees: that a lesion without a target progressed unequivocally, that a new one is not a
# fracture that heals. The verdict is that of the measurements, with the rule that decided.

RECIST = "doi:10.1016/j.ejca.2008.10.026"
PERCIST = "doi:10.2967/jnumed.108.057307"
MOST_TARGETS = 5
MOST_OF_AN_ORGAN = 2
# mm: the least longest diameter of a target, the least short axis of a target node, and that of a normal node.
TARGET_MM = 10.0
TARGET_NODE_MM = 15.0
NORMAL_NODE_MM = 10.0
# mm between planes up to which these hold; beyond, a target is at least two planes long.
THIN_MM = 5.0
# Shares of the sum by which it shrinks (of that at baseline) and grows (over the nadir), and the least growth in mm.
PARTIAL = 0.3
PROGRESSION = 0.2
PROGRESSION_MM = 5.0
# PERCIST: share of SULpeak, and the least change in SUL.
UPTAKE = 0.3
UPTAKE_SUL = 0.8


@dataclass(frozen=True)
class Response:
    """A verdict and the rule that decided. figures: what it rests on"""

    verdict: str
    because: str
    source: str
    figures: Mapping[str, PlainValue] = field(default_factory=dict)

    def as_record(self) -> Mapping[str, PlainValue]:
        """The record for response.json."""
        return {"response": self.verdict, "because": self.because, "source": self.source, **self.figures}


def choose_targets(baseline: Lesions) -> tuple[int, ...]:
    """The numbers of at most five measurable lesions, the largest first, at most two of an organ where it is known."""
    least = max(TARGET_MM, 2 * baseline.thickness if baseline.thickness > THIN_MM else 0.0)
    chosen = list[int]()
    held = Counter[str]()
    for candidate in sorted(baseline.each, key=lambda lesion: -lesion.extent):
        organ = "lymph nodes" if candidate.is_node else candidate.organ
        is_measurable = candidate.extent >= (TARGET_NODE_MM if candidate.is_node else least)
        if is_measurable and len(chosen) < MOST_TARGETS and (organ is None or held[organ] < MOST_OF_AN_ORGAN):
            chosen.append(candidate.number)
            held[organ or ""] += 1
    return tuple(sorted(chosen))


def recist(baseline: Lesions, after: Lesions, links: Sequence[LesionLink], earlier: Sequence[float] = ()) -> Response:
    """RECIST 1.1 of all lesions together.

    earlier: sums (mm) of the same targets at follow-ups before this one, for the nadir
    """
    targets = choose_targets(baseline)
    ours, theirs = ({one.number: one for one in side.each} for side in (baseline, after))
    specks = {number for link in links if link.state == "speck" for number in link.before}
    others = {one.number for one in baseline.each if one.number not in {*targets, *specks} and not _is_normal(one)}
    left = _count_left(links, theirs, others, ours)
    fresh = [link.after[0] for link in links if link.state == "new" and not _is_normal(theirs[link.after[0]])]
    figures: dict[str, PlainValue] = {"targets": list(targets), "others": sorted(others), "new_lesions": len(fresh)}
    if not baseline.each:
        target = ""
        because = "no lesion was contoured at baseline"
    elif not targets:
        target = ""
        because = "no lesion at baseline is large enough for a target"
    else:
        target, because, sums = _target(targets, ours, theirs, links, earlier)
        figures |= sums
    other = "" if not others else "CR" if left == 0 else "NE" if left is None else "non-CR/non-PD"
    figures |= {"target_response": target or None, "other_response": other or None}
    if fresh:
        size = _size_words([theirs[number] for number in fresh], after)
        because = f"{errors.count_phrase(len(fresh), 'new lesion')} ({size}): any makes it progression"
        return Response("PD", because, RECIST, figures)
    if target == "CR" and other not in ("", "CR"):
        rest = "others are still there" if other != "NE" else "the follow-up image does not reach all others"
        return Response("PR" if other != "NE" else "NE", f"{because}, but {rest}", RECIST, figures)
    return Response(target or other or "NE", because, RECIST, figures)


def _is_normal(lesion: Lesion) -> bool:
    """Whether it is a node that is not enlarged."""
    return lesion.is_node and lesion.size.short < NORMAL_NODE_MM


def _count_left(
    links: Sequence[LesionLink], after: Mapping[int, Lesion], others: Collection[int], before: Mapping[int, Lesion]
) -> int | None:
    """Number of lesions that are no targets and are still there; None where one is not in the follow-up image."""
    linked = [link for link in links if set(link.before) & set(others)]
    remaining = sum(any(not _is_normal(_as_before(link, after[n], before)) for n in link.after) for link in linked)
    return None if not remaining and any(link.state == "unseen" for link in linked) else remaining


def _as_before(link: LesionLink, lesion: Lesion, before: Mapping[int, Lesion]) -> Lesion:
    """A lesion of the follow-up, a node where it was one at baseline."""
    is_node = all(before[number].is_node for number in link.before) if link.before else lesion.is_node
    return replace(lesion, is_node=is_node)


def _target(
    targets: Sequence[int],
    before: Mapping[int, Lesion],
    after: Mapping[int, Lesion],
    links: Sequence[LesionLink],
    earlier: Sequence[float],
) -> tuple[str, str, dict[str, float]]:
    """(response of the targets, the rule that decided, sums in mm)."""
    first = sum(before[number].extent for number in targets)
    nadir = min([first, *earlier])
    sums = {"sum_before_mm": round(first, 3), "nadir_mm": round(nadir, 3)}
    linked = [link for link in links if set(link.before) & set(targets)]
    if any(link.state == "unseen" for link in linked):
        return "NE", "a target lies outside the follow-up image", sums
    pieces = [_as_before(link, after[number], before) for link in linked for number in link.after]
    last = sum(one.extent for one in pieces)
    growth = last - nadir
    loss = first - last
    sums |= {"sum_after_mm": round(last, 3), "change_percent": round(-100 * loss / first, 3)}
    sums |= {"over_nadir_mm": round(growth, 3)}
    if all(_is_normal(one) for one in pieces):
        return "CR", "every target is gone, and every node below 10 mm", sums
    if nadir == 0:
        return "PD", "targets that were gone are there again", sums
    sums["over_nadir_percent"] = round(100 * growth / nadir, 3)
    if growth >= PROGRESSION_MM and growth >= PROGRESSION * nadir:
        grown = f"the sum is {100 * growth / nadir:.1f} % and {growth:.1f} mm above its nadir"
        return "PD", f"{grown}: from 20 % and 5 mm on", sums
    if loss >= PARTIAL * first:
        return "PR", f"the sum is {100 * loss / first:.1f} % below that at baseline: from 30 % on", sums
    apart = f"the sum changed by {-100 * loss / first:+.1f} % since baseline and by {growth:+.1f} mm since its nadir"
    return "SD", f"{apart}: neither 30 % less nor 20 % and 5 mm more", sums


def percist(before: float, after: float, new: int, least: float | None = None) -> Response:
    """PERCIST 1.0 of the hottest lesions.

    before, after: SULpeak; 0 where no lesion is left
    new:           lesions that were not there
    least:         SULpeak from which on a lesion can be judged: 1.5 times that of the liver and two deviations
    """
    figures = {"sul_peak_before": before, "sul_peak_after": after, "new_lesions": new, "measurable_from": least}
    change = after - before
    share = 100 * (after - before) / before
    if new:
        return Response("PMD", f"{errors.count_phrase(new, 'new lesion')}: any makes it progression", PERCIST, figures)
    if after == 0:
        return Response("CMR", "no lesion is left", PERCIST, figures)
    if least is not None and before < least:
        because = f"SULpeak of {before:.2f} is below {least:.2f}, from which on a lesion can be judged"
        return Response("NE", because, PERCIST, figures)
    words = f"SULpeak changed by {share:+.1f} % and {change:+.2f}"
    if abs(share) >= 100 * UPTAKE and abs(change) >= UPTAKE_SUL:
        return Response("PMR" if change < 0 else "PMD", f"{words}: from 30 % and 0.8 on", PERCIST, figures)
    return Response("SMD", f"{words}: less than 30 % or less than 0.8", PERCIST, figures)
