"""Boxes: corrections made when they were read, empty lists, and classes of which none is annotated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from hilum import errors
from hilum.values import (
    CaseReference,
    Cohort,
    Fingerprint,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
)
from hilum.values.reference_kind import ReferenceMeasures

KIND = "boxes"
MOST_LISTED = 12  # classes in one line


def _record(summary: Any) -> Mapping[str, int]:
    """{class: boxes}"""
    return Counter(_counted_names(summary))


def _count(fingerprint: Fingerprint) -> Mapping[str, int]:
    """{class: boxes}"""
    return Counter(name for own in fingerprint.summaries(KIND).values() for name in _counted_names(own))


def _counted_names(boxes: Any) -> tuple[str, ...]:
    """The class of each box that is not to be ignored."""
    names: tuple[str, ...] = boxes.at(~boxes.ignored).names
    return names


def _case_problems(reference: CaseReference, _: ReferenceMeasures) -> Iterator[Problem]:
    """Box by box, what was left out or cut back; that there is none at all."""
    case = (reference.case,)
    for note in reference.value.notes:
        why = "the model learns the boxes as they were read, and nothing where a place is unknown"
        yield Problem.warning(f"{KIND}: {note}", case, why, "Correct the annotation", "objects")
    if not len(reference.value):
        yield Problem.note(f"{KIND} is empty", case, "it teaches only background", "Check that this is meant")


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    """Images of which none that would train has a box, and declared classes of which there is none."""
    summaries = cohort.summaries(KIND)
    ids = {case.id for case in cohort.training.cases}
    training = [boxes for case, boxes in summaries.items() if case in ids]
    names = {name for boxes in training for name in _counted_names(boxes)}
    if training and not names:
        where = "of the training part " if len(training) < len(summaries) else ""
        yield Problem.error(
            f"every list of boxes {where}is empty: all {len(training)}",
            (),
            "there is nothing to find",
            "Look at how the annotations were written, or give those that hold the boxes",
        )
        return
    declared = [label.name for label in cohort.dataset.classes.get(KIND, ())]
    missing = [name for name in declared if training and name not in names]
    if missing:
        yield Problem.warning(
            f"declared but nowhere annotated in the cases that train: {', '.join(missing)}",
            (),
            "it cannot be learnt",
            "Leave it out, or look for the boxes of it",
        )


def _lines(cohort: Cohort) -> Mapping[str, str]:
    boxes = cohort.summaries(KIND).values()
    if not boxes:
        return {}
    counts = Counter(name for own in boxes for name in _counted_names(own))
    ignored = sum(int(own.ignored.sum()) for own in boxes)
    counts_in_words = (
        errors.list_phrase((f"{name} {count}" for name, count in counts.most_common()), MOST_LISTED) or "none"
    )
    derived = f"; {cohort.dataset.derived[KIND]}" if KIND in cohort.dataset.derived else ""
    aside = f"; {errors.count_phrase(ignored, 'box is', 'boxes are')} to be ignored" if ignored else ""
    return {"boxes": f"{counts_in_words} in {errors.count_phrase(len(boxes), 'case')}{aside}{derived}"}


BOXES = ReferenceKind(
    KIND,
    ReferenceFacts(amounts=_record, recorded=_record, counted=_count),
    ReferenceChecks(odd=_case_problems, cohort=_cohort_problems),
    words=ReferenceWords(lines=_lines),
)
