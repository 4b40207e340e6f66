"""Boxes: what was odd about them as they were read, and whether there are any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isocenter.values import BoundingBoxes, Dataset, Fingerprint, Problem


def odd_boxes(case: str, references: Mapping[str, Any]) -> Iterator[Problem]:
    """Box by box, what was left out or cut back; that there is none at all."""
    for kind, boxes in references.items():
        if not isinstance(boxes, BoundingBoxes):
            continue
        for note in boxes.notes:
            yield Problem(
                "warning", f"{kind}: {note}", (case,), "what was meant is not learnt so", "Correct the annotation"
            )
        if not len(boxes):
            yield Problem(
                "note", f"{kind} is empty", (case,), "it teaches only what is not there", "Check that this is meant"
            )


def no_boxes(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Images of which none that would train has a box, and declared classes of which there is none."""
    drawn = {
        case.id: case.references["boxes"]
        for case in fingerprint.cases
        if isinstance(case.references.get("boxes"), BoundingBoxes)
    }
    training = [boxes for case, boxes in drawn.items() if dataset.splits.get(case, "train") == "train"]
    names = {name for boxes in training for name in boxes.names}
    if training and not names:
        where = "of the training part " if len(training) < len(drawn) else ""
        yield Problem(
            "error",
            f"every list of boxes {where}is empty: all {len(training)}",
            (),
            "there is nothing to find",
            "Look at how the annotations were written, or give those that hold the boxes",
        )
        return
    declared = [label.name for label in dataset.classes.get("boxes", ())]
    missing = [name for name in declared if training and name not in names]
    if missing:
        yield Problem(
            "warning",
            f"declared but nowhere drawn in the cases that train: {', '.join(missing)}",
            (),
            "it cannot be learnt",
            "Leave it out, or look for the boxes of it",
        )
