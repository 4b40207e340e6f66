"""Synthetic images in a data set: beside real ones they train alone and are never tested.

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
    """Whether every case is marked as synthetic, so that no figure says anything about patients."""
    return len(dataset) > 0 and len(synthetic_marks.marked_cases(dataset)) == len(dataset)


def synthetic_image_problems(dataset: Dataset) -> Iterator[Problem]:
    """A warning of a simulated data set; of another a note on its synthetic images, and an error for those it tests."""
    synthetic = synthetic_marks.marked_cases(dataset)
    if synthetic and len(synthetic) == len(dataset):
        yield Problem.warning("every image is synthetic, marked as such: a simulated data set", synthetic, WHY)
        return
    if synthetic:
        yield Problem.note(f"{errors.count_phrase(len(synthetic), 'synthetic image')}, marked as such", synthetic, WHY)
    if held_out := tuple(case for case in synthetic if dataset.splits.get(case, "train") != "train"):
        counted = errors.count_phrase(len(held_out), "synthetic image is", "synthetic images are")
        yield Problem.error(f"{counted} outside the training part", held_out, WHY, REMEDY)


def synthetic_training_images(dataset: Dataset) -> frozenset[str]:
    """The synthetic images beside real ones, which all train; DatasetError where the set has one in another part."""
    for problem in synthetic_image_problems(dataset):
        if problem.severity == "error":
            raise DatasetError(problem.what, str(dataset.root or dataset.name), REMEDY)
    synthetic = frozenset(synthetic_marks.marked_cases(dataset))
    return frozenset() if len(synthetic) == len(dataset) else synthetic


def refuse_synthetic_images(dataset: Dataset, cases: Collection[str]) -> None:
    """DatasetError where one of the cases that are to be scored is a synthetic image."""
    if synthetic := set(synthetic_marks.marked_cases(dataset)) & set(cases):
        counted = errors.count_phrase(len(synthetic), "case is a synthetic image", "cases are synthetic images")
        raise DatasetError(f"{counted}: {WHY}", str(dataset.root or dataset.name), "Score images of patients")
