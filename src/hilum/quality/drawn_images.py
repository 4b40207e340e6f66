"""Drawn images in a data set: beside real ones they train alone and are never tested.

A set of nothing else is a simulated one: it is divided as any other, and all that is stated of it says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import synthetic_marks
from hilum.values import Dataset, Problem

WHY = "they show no patient, and figures on them say nothing about patients"
REMEDY = "Leave them out of every part but train"


def is_simulated(dataset: Dataset) -> bool:
    """Whether every case is marked as drawn, so that no figure says anything about patients."""
    return len(dataset) > 0 and len(synthetic_marks.marked_cases(dataset)) == len(dataset)


def drawn_image_problems(dataset: Dataset) -> Iterator[Problem]:
    """A warning of a simulated data set; of another a note on its drawn images, and an error for those it tests."""
    drawn = synthetic_marks.marked_cases(dataset)
    if drawn and len(drawn) == len(dataset):
        yield Problem.warning("every image is synthetic, marked as such: a simulated data set", drawn, WHY)
        return
    if drawn:
        yield Problem.note(f"{errors.count_phrase(len(drawn), 'drawn image')}, marked as such", drawn, WHY)
    if held_out := tuple(case for case in drawn if dataset.splits.get(case, "train") != "train"):
        counted = errors.count_phrase(len(held_out), "drawn image is", "drawn images are")
        yield Problem.error(f"{counted} outside the training part", held_out, WHY, REMEDY)


def training_drawn_images(dataset: Dataset) -> frozenset[str]:
    """The drawn images beside real ones, which all train; DatasetError where the set has one in another part."""
    for problem in drawn_image_problems(dataset):
        if problem.severity == "error":
            raise DatasetError(problem.what, str(dataset.root or dataset.name), REMEDY)
    drawn = frozenset(synthetic_marks.marked_cases(dataset))
    return frozenset() if len(drawn) == len(dataset) else drawn


def refuse_drawn_images(dataset: Dataset, cases: Collection[str]) -> None:
    """DatasetError where one of the cases that are to be scored is a drawn image."""
    if drawn := set(synthetic_marks.marked_cases(dataset)) & set(cases):
        counted = errors.count_phrase(len(drawn), "case is a drawn image", "cases are drawn images")
        raise DatasetError(f"{counted}: {WHY}", str(dataset.root or dataset.name), "Score images of patients")
