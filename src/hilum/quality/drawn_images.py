"""Drawn images in a data set: they are counted, train alone, and are never tested."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import synthetic_marks
from hilum.values import Dataset, Problem

WHY = "they show no patient, and figures on them say nothing about patients"
REMEDY = "Leave them out of every part but train"


def drawn_image_problems(dataset: Dataset) -> Iterator[Problem]:
    """A note on images that are marked as drawn, and an error for those outside the training part."""
    drawn = synthetic_marks.marked_cases(dataset)
    if drawn:
        yield Problem.note(f"{errors.count_phrase(len(drawn), 'drawn image')}, marked as such", drawn, WHY)
    if held_out := tuple(case for case in drawn if dataset.splits.get(case, "train") != "train"):
        counted = errors.count_phrase(len(held_out), "drawn image is", "drawn images are")
        yield Problem.error(f"{counted} outside the training part", held_out, WHY, REMEDY)


def training_drawn_images(dataset: Dataset) -> frozenset[str]:
    """The drawn images, which all train; DatasetError where the set has one in another part."""
    for problem in drawn_image_problems(dataset):
        if problem.severity == "error":
            raise DatasetError(problem.what, str(dataset.root or dataset.name), REMEDY)
    return frozenset(synthetic_marks.marked_cases(dataset))


def refuse_drawn_images(dataset: Dataset, cases: Collection[str]) -> None:
    """DatasetError where one of the cases that are to be scored is a drawn image."""
    if drawn := set(synthetic_marks.marked_cases(dataset)) & set(cases):
        counted = errors.count_phrase(len(drawn), "case is a drawn image", "cases are drawn images")
        raise DatasetError(f"{counted}: {WHY}", str(dataset.root or dataset.name), "Score images of patients")
