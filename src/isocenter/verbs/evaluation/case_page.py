"""The slice viewer of a scored case: its image, and on top what its references and its prediction mark."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isocenter.quality import kinds_of
from isocenter.report import overlay, viewer
from isocenter.tasks import Task
from isocenter.values import BoundingBoxes, Case, Image, Prediction


def page_of(case: Case, prediction: Prediction, task: Task) -> str:
    """The slice viewer of a case with its references and its prediction on top.

    Of several tasks that mark voxels each has its own label map; those after the first one have their names.
    """
    overlays = [*_references(case, prediction, task), *_predictions(prediction)]
    return viewer(next(iter(case.images.values())), overlays, case.id)


def _references(case: Case, prediction: Prediction, task: Task) -> Iterator[Image]:
    further = {part for part, _, _ in prediction.label_maps}
    for kind in kinds_of(case.references):
        placed = kind.words.drawn(case.references[kind.name])
        if placed is None or _is_field(placed):
            continue
        part = next((name for name, own in task.decoding.parts.items() if kind.name in own.needs), "")
        labels = prediction.parts.get(part, prediction).labels
        named = f"reference, {part}" if part in further - {""} else "reference"
        yield overlay(placed, prediction.geometry, labels, named)


def _predictions(prediction: Prediction) -> Iterator[Image]:
    for part, data, labels in prediction.label_maps:
        named = f"prediction, {part}" if part else "prediction"
        yield Image(np.asarray(data)[None], prediction.geometry, channels=(named,), labels=labels)
    if prediction.called is not None:
        boxed = next((one for one in prediction.parts.values() if one.boxes is not None), prediction)
        yield overlay(prediction.called, prediction.geometry, boxed.labels, "prediction")


def _is_field(placed: Image | BoundingBoxes) -> bool:
    """Whether it holds a number for every voxel, and no labels."""
    if not isinstance(placed, Image) or placed.dtype.kind != "f":
        return False
    return not np.array_equal(placed.data, np.rint(placed.data))
