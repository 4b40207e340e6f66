"""Boxes where they are asked for and label maps are there: made of them when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from isocenter.errors import DatasetError
from isocenter.transforms import OBJECTS, PIECES, boxes_of_objects, boxes_of_pieces
from isocenter.values import BoundingBoxes, Case, Dataset, Image, Label, LazyMapping

BOXES, MASK, OBJECT_MAPS = "boxes", "mask", "instances"
# As --labels says that each number of a label map is one object: each=nucleus.
EACH = "each="


def each_object(labels: str | None) -> str | None:
    """The class of which each number of a label map is one; None where numbers name structures."""
    return labels.removeprefix(EACH).strip() or None if labels is not None and labels.startswith(EACH) else None


def with_boxes(dataset: Dataset, name: str) -> Dataset:
    """The data set with boxes made of its label maps, which stay beside them; as it is where boxes were drawn.

    name: of the class, where the maps number objects
    """
    if BOXES in dataset.kinds or not dataset.kinds & {MASK, OBJECT_MAPS}:
        return dataset
    objects = OBJECT_MAPS in dataset.kinds
    kind, rule = (OBJECT_MAPS, OBJECTS) if objects else (MASK, PIECES)
    labels = (Label(1, name),) if objects else _boxed(dataset.classes.get(MASK, ()))
    structures = dataset.regions or {label.name: (label.value,) for label in labels}
    declared = (Label(n, one) for n, one in enumerate(structures)) if dataset.regions else labels
    cases = [
        replace(case, references=_with_boxes(case.references, partial(_boxes, case, kind, name, structures)))
        if kind in case.references
        else case
        for case in dataset
    ]
    classes = {**dataset.classes, BOXES: tuple(declared)} if labels or dataset.regions else dataset.classes
    return replace(dataset, cases=tuple(cases), classes=classes, derived={**dataset.derived, BOXES: rule})


def _with_boxes(references: Mapping[str, Any], boxes: partial[BoundingBoxes]) -> LazyMapping[Any]:
    return LazyMapping({**{kind: partial(references.__getitem__, kind) for kind in references}, BOXES: boxes})


def _boxes(case: Case, kind: str, name: str, structures: Mapping[str, Sequence[int]]) -> BoundingBoxes:
    """Of one case, from its label map.

    Raises DatasetError where parts of the map were not drawn: nobody knows what there is to be values in them.
    """
    drawn: Image = case.references[kind]
    if kind == OBJECT_MAPS:
        return boxes_of_objects(drawn, name, case.id)
    ignored = [label.value for label in drawn.labels if label.is_ignored]
    values = {int(value) for value in np.unique(drawn.data)} - {0}
    if values & set(ignored):
        problem = "its mask holds voxels to be ignored, and boxes need an image that was annotated as a whole"
        raise DatasetError(problem, case.id, "Give masks that are drawn everywhere, or choose --task segmentation")
    named = {label.value: label.name for label in _boxed(drawn.labels)}
    return boxes_of_pieces(drawn, structures or {named.get(one, str(one)): (one,) for one in sorted(values)}, case.id)


def _boxed(labels: Sequence[Label]) -> tuple[Label, ...]:
    """Those that name something that may have a box."""
    return tuple(label for label in labels if label.value and not label.is_ignored and not label.is_background)
