"""Masks: label maps that name structures, and the pieces, thickness and length of each structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hilum import errors
from hilum.lazy import ndimage
from hilum.quality import image_descriptors
from hilum.quality._image_checks import READ_SO
from hilum.report import Figure
from hilum.report.figures import charts
from hilum.transforms import label_maps
from hilum.values import (
    Array,
    Case,
    CaseReference,
    Cohort,
    Fingerprint,
    Geometry,
    Label,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
    grid_geometry,
    grouping,
    slabs,
)
from hilum.values.grid_geometry import MM3_PER_ML
from hilum.values.reference_kind import ReferenceMeasures, ReferenceStrata
from hilum.values.voxel_images import WITHOUT_VOXELS

# The end of what is said of masks that a kind of problem with masks of structures cannot learn from.
NUMBER_OBJECTS = "seem to number instances and not to name structures"
UNKNOWN_HERE = "no case knows"
KIND = "mask"
# A label map with more values than this, undeclared, numbers instances.
MOST_LABELS = 32
# Of maps that surely number objects: images that hold any, the share of images whose numbers have no gap and of numbers
# in one piece, and by how much the fullest image exceeds the emptiest. Atlases have gaps, or as many labels everywhere.
FEWEST_MAPS, SURE, SPREAD = 4, 0.9, 2
MOST_LISTED = 12  # values in one line
# By how much an outline's filled area exceeds its own: walls, as of the heart, are thicker.
FLAT, FILLED = 2, 8
MOST_SHOWN = 5  # structures in one chart
VOLUME = 3  # axes
PASSED_OVER = 2  # steps from slice to slice over one empty slice
# Share of the cases that lack a structure from which on its absence is no fault of single masks.
OFTEN_ABSENT = 0.1
# Axis, contoured slices, empty slices between them.
Apart = tuple[int, tuple[int, ...], tuple[int, ...]]


def _measure(reference: CaseReference) -> ReferenceMeasures:
    found = measure_structures(image_descriptors.structure_labels(reference.value))
    return ReferenceMeasures(
        slabs.label_voxels(reference.value.data),
        image_descriptors.structure_intensities(reference),
        thickness={value: structure.thickness for value, structure in found.items()},
        elongation={value: structure.elongation for value, structure in found.items()},
        components={value: len(structure.pieces) for value, structure in found.items()},
        places=_places(found, reference.value.geometry),
        specks=any(structure.specks for structure in found.values()),
        apart={value: structure.apart for value, structure in found.items() if structure.apart is not None},
    )


def _places(found: Mapping[int, Structure], geometry: Geometry) -> Mapping[int, tuple[float, float]]:
    """{value: (low, high)} in shares of the axis from left to right, as it runs in canonical order."""
    if geometry.ndim < FLAT or not (geometry.oriented or geometry.is_picture):
        return {}
    axes, flips = geometry.to_canonical
    side = 1 if geometry.is_picture else 0
    size = geometry.shape[axes[side]]
    shares = {value: [edge / size for edge in one.ends[axes[side]]] for value, one in found.items()}
    return {value: (1 - high, 1 - low) if flips[side] else (low, high) for value, (low, high) in shares.items()}


def _amounts(summary: Any) -> Mapping[str, int]:
    """{label value: voxels} but for background"""
    return {str(value): count for value, count in summary.items() if value != 0}


def _count(fingerprint: Fingerprint) -> Mapping[str, int]:
    """{label value: voxels}"""
    return {str(value): count for value, count in fingerprint.voxels(KIND).items()}


def _case_problems(reference: CaseReference, measures: ReferenceMeasures) -> Iterator[Problem]:
    yield from _read_so(reference)
    yield from _contoured_apart(reference, measures)
    if measures.specks:
        yield Problem.note(
            "mask holds specks: pieces of a few voxels apart from the rest of their structure",
            (reference.case,),
            "the network learns slips of the pen, and they dominate surface distances",
            "Check them, and remove those that are not intended",
        )
    pixels = image_descriptors.structure_labels(reference.value)
    if np.squeeze(pixels).ndim == FLAT and any(is_outline(pixels == value) for value in measures.components):
        yield Problem.warning(
            "mask seems to hold an outline, a thin closed line, and not the structure inside",
            (reference.case,),
            "the network learns the line, and volumes and overlaps are those of the line",
            "Fill each outline if the structure is meant, and keep the filled mask",
            kind="outline",
        )


def _read_so(reference: CaseReference) -> Iterator[Problem]:
    """Contoured structures without a voxel, by name, and what else the reader notes about the mask alone."""
    case = (reference.case,)
    for name, why in reference.value.facts.get(WITHOUT_VOXELS, {}).items():
        yield Problem.warning(
            f"{name} was contoured and has no voxel: {why}",
            case,
            "the case teaches that it is not there",
            "Correct the contours, or leave the case out",
            kind="no-voxel",
        )
    for note in reference.value.notes:
        if note not in reference.image.notes:
            yield Problem.note(f"{KIND}: {note.rstrip('.')}", case, READ_SO, "See that it is right")


def _contoured_apart(reference: CaseReference, measures: ReferenceMeasures) -> Iterator[Problem]:
    """Structures with empty slices between contoured ones, unless the set marks what nobody contoured."""
    labels = {label.value: label for label in reference.value.labels}
    if any(label.is_ignored for label in labels.values()):
        return
    for value, (axis, slices, empty) in measures.apart.items():
        name = labels[value].name if value in labels else f"the value {value}"
        along = "" if axis == reference.value.geometry.ndim - 1 else f" along axis {axis + 1}"
        yield Problem.warning(
            f"{name} is contoured on slices {errors.list_phrase(slices, MOST_LISTED)}{along} and not between them, on "
            f"{errors.list_phrase(empty, MOST_LISTED)}",
            (reference.case,),
            "the slices between are background, in training and in every measure",
            "Contour them, or interpolate contours of a structure set with --fill-contours, or train on the contoured "
            "slices only with --set task.sparse=slices",
            kind="gaps",
        )


def is_outline(inside: Array) -> bool:
    """Whether flat pieces are lines around what they show: each has a hole, and is thin beside what it encloses."""
    section = np.squeeze(inside)
    if section.ndim != FLAT or not section.any():
        return False
    [box] = ndimage.find_objects(section.astype(np.uint8))
    section = section[box]
    if section.size < FILLED * np.count_nonzero(section):
        return False  # nothing within the box can be so much larger, and to fill large pictures takes a second
    filled = ndimage.binary_fill_holes(section)
    if np.count_nonzero(filled) < FILLED * np.count_nonzero(section):
        return False
    _, holes = ndimage.label(filled & ~section)
    _, pieces = ndimage.label(section, structure=np.ones((3, 3)))
    return bool(holes == pieces)


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    yield from _labels(cohort)
    yield from _background(cohort)
    yield from _absent_structures(cohort)
    yield from _unknown_structures(cohort)


def numbered_objects(cohort: Cohort) -> str:
    """Why undeclared label maps surely number single objects and name no structures; empty where that is not sure.

    Names stand for the same in every image: their numbers have gaps where one is absent, or their count is the same.
    """
    counts = [sorted(set(own) - {0}) for own in cohort.summaries(KIND).values()]
    filled_maps = [own for own in counts if own]
    declared = {label.value for label in cohort.dataset.classes.get(KIND, ())} - {0}
    if declared or len(filled_maps) < FEWEST_MAPS or max(map(len, filled_maps)) < MOST_LABELS:
        return ""
    pieces = [one for case in cohort.fingerprint.cases if KIND in case.references for one in case.components.values()]
    share_in_one_piece = sum(one == 1 for one in pieces) / max(1, len(pieces))
    unbroken = sum(own == list(range(1, len(own) + 1)) for own in filled_maps) / len(filled_maps)
    sizes = [len(own) for own in filled_maps]
    if min(share_in_one_piece, unbroken) < SURE or max(sizes) < SPREAD * min(sizes):
        return ""
    return (
        f"numbers run from 1 without a gap to between {min(sizes)} and {max(sizes)} from image to image, and "
        f"{100 * share_in_one_piece:.3g} % of them are one piece each"
    )


def _labels(cohort: Cohort) -> Iterator[Problem]:
    """Values that no label names, and so many that they number objects."""
    declared = {label.value for label in cohort.dataset.classes.get(KIND, ())} | {0}
    masks = cohort.summaries(KIND)
    strange = {case: set(voxels) - declared for case, voxels in masks.items() if set(voxels) - declared}
    if len(declared) > 1 and strange:
        yield Problem.error(
            f"masks hold values without a label: {errors.list_phrase(sorted(set().union(*strange.values())))}",
            tuple(strange),
            "their meaning is not known",
            "Declare them with --labels VALUE=NAME,VALUE=NAME, or correct the masks",
        )
    values = sorted(set(cohort.fingerprint.voxels()) - {0})
    count = len(cohort.fingerprint.voxels())
    # A single one is the structure that the set is about.
    if len(declared) == 1 < len(values) and count <= MOST_LABELS:
        yield Problem.warning(
            f"nobody named the mask values {errors.list_phrase(values)}",
            (),
            "results and reports call the structures by these numbers",
            "Name them with --labels VALUE=NAME,VALUE=NAME",
        )
    if len(declared) == 1 and count > MOST_LABELS:
        yield Problem.error(
            f"masks hold {count} different values, so they {NUMBER_OBJECTS}",
            (),
            "a class would be learnt for every number",
            "Choose --task instances, for boxes --task detection --labels each=NAME, or give masks with one value for "
            "each structure, such as 1 for every nucleus",
        )


def _background(cohort: Cohort) -> Iterator[Problem]:
    """Masks in which nothing is contoured, in all the cases that would train."""
    masks = cohort.summaries(KIND)
    training = [set(case.references[KIND]) for case in cohort.training.cases if KIND in case.references]
    if training and all(values <= {0} for values in training):
        where = "of the training part " if len(training) < len(masks) else ""
        yield Problem.error(
            f"every mask {where}is empty: all {len(training)} are background",
            (),
            "there is no structure to learn",
            "Look at how the masks were written, or give those that hold the structures",
        )
        return
    declared = {label.value: label.name for label in cohort.dataset.classes.get(KIND, ()) if label.value != 0}
    declared = {value: name for value, name in declared.items() if not Label(value, name).is_ignored}
    missing = [name for value, name in declared.items() if training and not any(value in own for own in training)]
    if missing:
        yield Problem.warning(
            f"declared but nowhere contoured in the cases that train: {errors.list_phrase(missing)}",
            (),
            "it cannot be learnt",
            "Leave it out with --labels, or look for the masks that hold it",
        )


def _absent_structures(cohort: Cohort) -> Iterator[Problem]:
    """Cases without a structure that others have: a warning where nearly all have it, else a note with their share."""
    masks, structures = cohort.summaries(KIND), _structure_values(cohort)
    if unknown := sorted(cohort.dataset.lesions - {*structures}):
        yield Problem.error(
            f"--lesions names {errors.list_phrase(unknown)}, and masks show "
            f"{errors.list_phrase(structures, MOST_LISTED) or 'no structure'}",
            (),
            "nobody can say which cases may lack it",
            "Name a structure of the masks, or leave the flag out",
        )
    missed = dict[str, list[str]]()  # {case: structures that it lacks and nearly all others hold}
    held = dict[str, str]()
    for name, values in structures.items():
        knowing = [case.id for case in cohort.dataset if case.id in masks and case.knows(name)]
        lacking = [case for case in knowing if not values & set(masks[case])]
        lacking = [case for case in lacking if not _is_partly_ignored(cohort, case)]
        if not lacking or len(lacking) == len(knowing):
            continue
        share = len(lacking) / len(knowing)
        is_expected = name in cohort.dataset.lesions
        if share < OFTEN_ABSENT and not is_expected:
            held[name] = f"{_named(name)} in {len(knowing) - len(lacking)} of {len(knowing)} cases"
            for case in lacking:
                missed.setdefault(case, []).append(name)
            continue
        stated = ", as --lesions says" if is_expected else ""
        yield Problem.note(
            f"{_named(name)} is absent in {len(lacking)} of {len(knowing)} masks ({100 * share:.2g} %){stated}",
            tuple(lacking),
            "they teach that it can be absent",
            "" if is_expected else "Check that this is meant; --lesions NAME says so",
        )
    alike = grouping.by_key(((set(masks[case]) <= {0}, tuple(names)), case) for case, names in missed.items())
    for (is_empty, names), cases in alike.items():
        lack = "mask is empty" if is_empty else f"mask lacks {errors.list_phrase(map(_named, names))}"
        yield Problem.warning(
            f"{lack}, and others hold {errors.list_phrase(held[name] for name in names)}",
            tuple(cases),
            "the case teaches only background" if is_empty else "the case teaches that it is not there",
            "Give the mask, or leave the case out; --lesions NAME says that cases without the structure exist",
            kind="empty-mask" if is_empty else "missing-structure",
        )


def _structure_values(cohort: Cohort) -> dict[str, set[int]]:
    """{structure: values that mark it}: regions, else declared labels, else the values that masks hold."""
    if cohort.dataset.regions:
        return {name: set(values) for name, values in cohort.dataset.regions.items()}
    declared = [one for one in cohort.dataset.classes.get(KIND, ()) if one.value]
    if declared:
        return {one.name: {one.value} for one in declared if not (one.is_ignored or one.is_background)}
    values = set(cohort.fingerprint.voxels()) - {0}
    return {str(value): {value} for value in sorted(values)} if len(values) <= MOST_LABELS else {}


def _is_partly_ignored(cohort: Cohort, case: str) -> bool:
    """Whether a mask leaves open what lies in some of its voxels."""
    ignored = {label.value for label in cohort.dataset.classes.get(KIND, ()) if label.is_ignored}
    return bool(ignored & set(cohort.summaries(KIND)[case]))


def _named(structure: str) -> str:
    """A structure in a sentence; nobody named one that is called by its value."""
    return f"the value {structure}" if structure.isdigit() else structure


def _strata(cases: Sequence[Case]) -> Mapping[str, Sequence[str]]:
    """Strata by what a case knows, where some know some structures only: each part should know all of them."""
    partial = {case.id: case.known for case in cases if KIND in case.references and case.known is not None}
    return {case: [", ".join(sorted(known))] for case, known in partial.items()}


def _unknown_structures(cohort: Cohort) -> Iterator[Problem]:
    """Voxels of structures that are unknown in their case, and structures that no case knows."""
    masks, regions = cohort.summaries(KIND), cohort.dataset.regions
    labels = [one for one in cohort.dataset.classes.get(KIND, ()) if not (one.is_ignored or one.is_background)]
    # Of regions the first value marks it.
    marked = {values[0]: name for name, values in regions.items()} or {one.value: one.name for one in labels}
    held = dict[str, list[str]]()
    for case in cohort.dataset.cases:
        for value in set(masks.get(case.id, ())) - {0} if case.known is not None else ():
            name = marked.get(value) if marked else str(value)
            if name is not None and not case.knows(name):
                held.setdefault(name, []).append(case.id)
    for name, cases in held.items():
        yield Problem.error(
            f"masks hold voxels of {name}, which is said to be unknown there",
            tuple(cases),
            "nobody can say whether it was contoured",
            "Correct what these cases know, or remove the voxels",
        )
    if nowhere := [name for name, count in cohort.dataset.knowing.items() if not count]:
        yield Problem.error(
            f"{UNKNOWN_HERE} {errors.list_phrase(nowhere)}",
            (),
            "it cannot be learnt",
            "Leave it out with --labels, or give cases in which it was contoured",
        )


def _lines(cohort: Cohort) -> Mapping[str, str]:
    dataset, voxels = cohort.dataset, cohort.fingerprint.voxels()
    lines = {"readers": ", ".join(dataset.readers)} if dataset.readers else {}
    if not voxels:
        return lines
    labels, unit = dataset.classes.get(KIND, ()), grid_geometry.pixels_or_voxels(cohort.fingerprint.axes)
    ignored = [label.value for label in labels if label.is_ignored]
    if ignored:
        share = 1 - sum(voxels.get(value, 0) for value in ignored) / sum(voxels.values())
        lines["annotated"] = f"{100 * share:.3g} % of the {unit}; the others are to be ignored"
    if knowing := dataset.knowing:
        with_masks = sum(KIND in case.references for case in dataset)
        of_each = errors.list_phrase((f"{name} in {count}" for name, count in knowing.items()), MOST_LISTED)
        lines["structures known"] = f"{of_each} of {with_masks} cases"
    names = {label.value: label.name for label in labels}
    counts = (f"{names.get(value, value)}: {count} {unit}" for value, count in voxels.items() if value != 0)
    return lines | {"mask values": errors.list_phrase(counts, MOST_LISTED)}


def _charts(cohort: Cohort) -> Iterator[Figure]:
    """Size of each structure in each case that has it."""
    cases = [case for case in cohort.fingerprint.cases if KIND in case.references]
    in_ml = all(case.voxel_volume is not None and len(case.shape) == 3 for case in cases)
    names = {label.value: label.name for label in cohort.dataset.classes.get(KIND, ())}
    values = [value for value in cohort.fingerprint.voxels() if value != 0]
    groups = {
        str(names.get(value, value)): [
            case.references[KIND][value] * ((case.voxel_volume or 0.0) / MM3_PER_ML if in_ml else 1)
            for case in cases
            if case.references[KIND].get(value)
        ]
        for value in values[:MOST_SHOWN]
    }
    if groups:
        unit = "ml" if in_ml else grid_geometry.pixels_or_voxels(cohort.fingerprint.axes)
        caption = f"The first {MOST_SHOWN} of {len(values)} structures." if len(values) > MOST_SHOWN else ""
        yield charts.histogram_chart(groups, "Size of the structures", axis=f"{unit} in a case", caption=caption)


@dataclass(frozen=True)
class Structure:
    """One label of one mask.

    runs:   voxels, the mean run along each axis, the shortest first; a box a x b x c has its sides
    pieces: voxels of each connected piece, corners touching
    ends:   along each axis the voxel at which nine in ten of its voxels begin, and that before which they end
    apart:  the axis, contoured slices and empty slices between of a volume that was not contoured throughout, else None
    """

    runs: tuple[float, ...]
    pieces: tuple[int, ...]
    ends: tuple[tuple[int, int], ...] = ()
    apart: Apart | None = None

    @property
    def thickness(self) -> float:
        """Voxels: the shortest of the mean runs."""
        return self.runs[0]

    @property
    def elongation(self) -> float:
        """The length of a piece in its own widths, were it a straight rod of that cross-section.

        A rod is short along all axes but one: what is flat, such as a ball in thick slices, is no rod. Of a series,
        which has no cross-section, 1.
        """
        if len(self.runs) < 2:
            return 1.0
        *across, _ = self.runs
        return float(np.mean(self.pieces) / (np.prod(across) * across[-1]))

    @property
    def specks(self) -> int:
        """Pieces that are tiny beside the largest."""
        return int(np.count_nonzero(label_maps.is_speck(np.array(self.pieces))))


def measure_structures(labels: Array) -> Mapping[int, Structure]:
    """{value: structure} of a (*spatial) map of whole numbers, without background."""
    boxes = label_maps.boxes_of_labels(labels)
    if min(boxes, default=0) < 0:
        return {}
    return {value: _structure(labels[box] == value, [part.start for part in box]) for value, box in boxes.items()}


def _structure(inside: Array, corner: Sequence[int]) -> Structure:
    """inside: (*spatial) truths, no larger than the structure; corner: where they begin in the map."""
    pieces, _ = ndimage.label(inside, structure=np.ones((3,) * inside.ndim))
    sizes = [size for number, size in slabs.label_voxels(pieces).items() if number]
    ends = tuple(_ends(inside, axis, start) for axis, start in enumerate(corner))
    return Structure(_mean_runs(inside), tuple(sizes), ends, _slices_apart(inside, corner))


def _ends(inside: Array, axis: int, start: int) -> tuple[int, int]:
    """The voxels along an axis between which nine in ten of the structure's lie."""
    along = np.cumsum(np.moveaxis(inside, axis, 0).sum(axis=tuple(range(1, inside.ndim))))
    low, high = np.searchsorted(along, along[-1] * np.array([0.05, 0.95]), side="left").tolist()
    return start + low, start + high + 1


def _slices_apart(inside: Array, corner: Sequence[int]) -> Apart | None:
    """(Axis, contoured slices, empty slices between) of a volume whose slices were passed over; None where none were.

    Slices before and after show the same, and one was passed over, or as many gaps are there as not. Pieces of a
    structure lie elsewhere, or farther apart.
    """
    for axis in reversed(range(inside.ndim)) if inside.ndim == VOLUME else ():
        slices = np.moveaxis(inside, axis, 0)
        numbers = np.flatnonzero(slices.any(axis=(1, 2))).tolist()
        wide = [(a, b) for a, b in pairwise(numbers) if b - a > 1]
        gaps = [(a, b) for a, b in wide if _show_the_same(slices[a], slices[b])]
        is_sampled = 2 * len(gaps) >= len(numbers) - 1
        empty = [n + corner[axis] for a, b in gaps if is_sampled or b - a == PASSED_OVER for n in range(a + 1, b)]
        if empty:
            return axis, tuple(n + corner[axis] for n in numbers), tuple(empty)
    return None


def _show_the_same(first: Array, second: Array) -> bool:
    """Whether half of the smaller of two slices of a structure lies in the other."""
    return bool(2 * np.count_nonzero(first & second) >= min(np.count_nonzero(first), np.count_nonzero(second)))


def _mean_runs(inside: Array) -> tuple[float, ...]:
    """Voxels by runs, along each axis (Crofton: a structure that is thin along an axis has many), rising."""
    total = np.count_nonzero(inside)
    runs = [
        np.count_nonzero(np.moveaxis(inside, axis, 0)[0]) + np.count_nonzero(_starts(inside, axis))
        for axis in range(inside.ndim)
    ]
    return tuple(sorted(float(total / one) for one in runs))


def _starts(inside: Array, axis: int) -> Array:
    """The voxels at which a run begins along an axis, but for those at the edge."""
    moved = np.moveaxis(inside, axis, 0)
    return np.asarray(moved[1:] > moved[:-1])


MASK = ReferenceKind(
    KIND,
    ReferenceFacts(_measure, amounts=_amounts, counted=_count),
    ReferenceChecks(odd=_case_problems, cohort=_cohort_problems),
    ReferenceStrata(_strata, rank=3),
    words=ReferenceWords(lines=_lines, charts=_charts),
)
