"""Maps that number objects: numbers that wrapped, objects in pieces, overlaps, and maps that number nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from hilum import errors
from hilum.lazy import ndimage
from hilum.quality import image_descriptors
from hilum.transforms import label_maps
from hilum.values import (
    Array,
    CaseReference,
    Cohort,
    Fingerprint,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
    slabs,
)
from hilum.values.reference_kind import ReferenceMeasures

KIND = "instances"
# The largest number of 8 bits: the object after it becomes 0, which is background, and the next one 1 again.
WRAPPED = 255
# So many numbers in pieces far apart are no slip of the pen, where the largest is just the one at which 8 bits end.
FEWEST_TORN = 2
# A piece counts from this share of its number's voxels on.
SPECK = 0.1
# Of a class, an object of less than this share of the median size is small.
SMALL = 0.1
# One object that leaves no more than this of the image is rather the field of view.
FULL = 0.999


def _measure(reference: CaseReference) -> ReferenceMeasures:
    data = reference.value.data
    return ReferenceMeasures(
        slabs.label_voxels(data),
        image_descriptors.structure_intensities(reference),
        components=pieces_of(data[0]),
        kinds={label.value: label.kind for label in reference.value.labels if label.kind is not None},
    )


def _amounts(summary: Any) -> Mapping[str, int]:
    return {"objects": len(set(summary) - {0})}


def _count(fingerprint: Fingerprint) -> Mapping[str, int]:
    numbers = fingerprint.summaries(KIND).values()
    return {"cases": len(numbers), "objects": sum(len(set(own) - {0}) for own in numbers)}


def _unusable(reference: CaseReference) -> Iterator[Problem]:
    """Numbers that went through 8 bits: two objects have one number."""
    numbers = _numbers(reference)
    if numbers is None or int(numbers.max(initial=0)) != WRAPPED:
        return
    torn = torn_objects(numbers)
    if len(torn) >= FEWEST_TORN:
        yield Problem.error(
            f"instances: the largest number is {WRAPPED}, and {len(torn)} numbers are in pieces far apart: the numbers "
            "seem to have wrapped in 8 bits",
            (reference.case,),
            "different objects would be learnt as one",
            "Write the numbers anew with 16 bits",
        )


def _case_problems(reference: CaseReference, _: ReferenceMeasures) -> Iterator[Problem]:
    """Problems of the objects of a case that can be used."""
    numbers = _numbers(reference)
    if numbers is None:
        return
    case = (reference.case,)
    for note in reference.value.notes:
        yield Problem.warning(
            f"instances: {note}", case, "the model learns these borders", "Correct the masks", "objects"
        )
    torn = torn_objects(numbers)
    if torn:
        torn_numbers = errors.count_phrase(len(torn), "number is", "numbers are")
        which = f"{torn_numbers} in pieces far apart ({errors.list_phrase(torn)})"
        yield Problem.warning(
            f"instances: {which}",
            case,
            "they may be different objects, and would be scored as one",
            "Look at them, and give each object a number of its own",
            kind="objects",
        )
    values, counts = np.unique(numbers, return_counts=True)
    if counts[values != 0].max(initial=0) > FULL * numbers.size:
        yield Problem.warning(
            "instances: one object fills the whole image",
            case,
            "there is no border to learn",
            "Look at how the map was written: 0 is the background",
            kind="objects",
        )


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    """Maps without any object in all cases that would train, and maps in which all objects have one number."""
    training = [case for case in cohort.training.cases if KIND in case.references]
    if not training:
        return
    most = max(sum(number != 0 for number in case.references[KIND]) for case in training)
    if most == 0:
        yield Problem.error(
            f"no map of objects of the cases that train has one: all {len(training)} are background",
            (),
            "there is nothing to find",
            "Look at how the maps were written, or give those that hold the objects",
        )
    elif most == 1 and len(training) > 1 and _in_pieces(training):
        yield Problem.error(
            "every map of objects holds one number, in several pieces: it names a structure and counts no objects",
            (),
            "all objects of an image would be one",
            "Give each object a number of its own, or choose --task segmentation",
        )
    seen = {kind for case in training for kind in case.kinds.values()}
    if missing := [one.name for one in cohort.dataset.classes.get(KIND, ()) if one.name not in seen and seen]:
        yield Problem.warning(
            f"no object of the cases that train is of the class {errors.list_phrase(missing)}",
            (),
            "it cannot be learnt",
            "Leave the class out of --labels, or give cases that have such objects",
        )


def torn_objects(numbers: Array) -> list[int]:
    """The numbers whose voxels lie in pieces that are farther apart than either is long."""
    return [number for number, inside in _objects(numbers) if _far_apart(inside)]


def pieces_of(numbers: Array) -> Mapping[int, int]:
    """{number: connected pieces}, corners touching."""
    connected = np.ones((3,) * numbers.ndim)
    return {number: int(ndimage.label(inside, connected)[1]) for number, inside in _objects(numbers)}


def _objects(numbers: Array) -> Iterator[tuple[int, Array]]:
    """Each number with its truths, no larger than the object; the numbers themselves may be as large as they like."""
    for number, box in label_maps.boxes_of_labels(numbers).items():
        yield number, numbers[box] == number


def _far_apart(inside: Array) -> bool:
    pieces, count = ndimage.label(inside, np.ones((3,) * inside.ndim))
    if count < 2:
        return False
    sizes = np.bincount(pieces.ravel())[1:]
    largest = np.argsort(-sizes, kind="stable")[:2]
    if sizes[largest[1]] < SPECK * sizes.sum():
        return False
    boxes = ndimage.find_objects(pieces)
    largest_boxes = [boxes[place] for place in largest]
    gap = max(max(a.start, b.start) - min(a.stop, b.stop) for a, b in zip(*largest_boxes, strict=True))
    longest = max(part.stop - part.start for box in largest_boxes for part in box)
    return cast(bool, gap > longest)


def _in_pieces(cases: Sequence[Any]) -> bool:
    """Whether most of the maps hold several pieces."""
    return cast(bool, sum(max(case.components.values(), default=0) > 1 for case in cases) > len(cases) / 2)


def _numbers(reference: CaseReference) -> Array | None:
    """(*spatial) numbers of objects; None where they cannot be counted."""
    data = reference.value.data
    return np.asarray(data[0]) if np.issubdtype(data.dtype, np.integer) else None


def _lines(cohort: Cohort) -> Mapping[str, str]:
    objects = [len(set(numbers) - {0}) for numbers in cohort.summaries(KIND).values()]
    if not objects:
        return {}
    cases = errors.count_phrase(len(objects), "case")
    lines = {"objects": f"{sum(objects)} in {cases}, {min(objects)} to {max(objects)} a case"}
    classes = ", ".join(f"{name} {_count_with_small(own)}" for name, own in _sizes_by_class(cohort).items())
    return lines | ({"objects by class": classes} if classes else {})


def _sizes_by_class(cohort: Cohort) -> Mapping[str, list[int]]:
    """{class: voxels of each of its objects}, in the order of the classes."""
    sizes: dict[str, list[int]] = {label.name: [] for label in cohort.dataset.classes.get(KIND, ())}
    for case in cohort.fingerprint.cases:
        for number, kind in case.kinds.items():
            if voxels := case.references.get(KIND, {}).get(number):
                sizes.setdefault(kind, []).append(voxels)
    return sizes if len(sizes) > 1 else {}


def _count_with_small(sizes: Sequence[int]) -> str:
    """The number of objects, and how many of them are small beside the others."""
    small = sum(size < SMALL * float(np.median(sizes)) for size in sizes)
    return f"{len(sizes)} ({small} of less than a tenth of their median size)" if small else str(len(sizes))


INSTANCES = ReferenceKind(
    KIND,
    ReferenceFacts(_measure, amounts=_amounts, counted=_count),
    ReferenceChecks(_unusable, _case_problems, _cohort_problems),
    words=ReferenceWords(lines=_lines),
)
