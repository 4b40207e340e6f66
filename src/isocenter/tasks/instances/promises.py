"""Promises on objects from cases that did not train: scores from which on few are missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isocenter.belief import COVERS_FROM, FALSE, MISSED
from isocenter.evaluation import InstanceOverlap, instance_overlap
from isocenter.tasks.instances.decode import Numbers, renumbered
from isocenter.values import Array, Floats

# The overlap from which an object is found, as in the figures that are stated of objects.
OVERLAP = 0.5
OF_OBJECTS = (
    "objects from these scores on miss at most {} % of those of a case",
    "no score is known to do so for",
)
# Numbers of all objects that there may be, and their scores.
Candidates = tuple[Numbers, Floats]


def missed_shares(pairs: Sequence[tuple[Candidates, Array]], patients: Sequence[str]) -> tuple[Floats, np.ndarray]:
    """(cases, limits) share of the objects that only candidates below each of `COVERS_FROM` find, and patients.

    pairs: of each case all objects that there may be, and the numbers of the reference
    Of cases that have an object; what nothing finds is missed at every limit.
    """
    there = [place for place, (_, reference) in enumerate(pairs) if reference.any()]
    best = [best_scores(*own, reference) for own, reference in (pairs[place] for place in there)]
    rows = [(own[:, None] < COVERS_FROM).mean(axis=0) for own in best]
    return np.reshape(rows, (-1, len(COVERS_FROM))), np.array([patients[place] for place in there])


def best_scores(numbers: Numbers, scores: Floats, reference: Array) -> Floats:
    """(references,) the highest score of an object that overlaps each so much, -1 where none does."""
    overlap = instance_overlap(numbers, reference)
    best, (predicted, true) = np.full(len(overlap.reference), -1.0), hits(overlap)
    np.maximum.at(best, true, scores[predicted])
    return best


def covering_objects(numbers: Numbers, scores: Floats, least: float) -> Numbers:
    """The objects from a score on, numbered anew."""
    kept = np.append(False, scores >= least)
    return renumbered(np.where(kept[numbers], numbers, 0))


def covering_columns(candidates: Candidates, reference: Array, least: float) -> Mapping[str, float]:
    """The share of a case's objects that those from a score on miss, and how many of these find nothing."""
    overlap = instance_overlap(covering_objects(*candidates, least), reference)
    predicted, true = hits(overlap)
    objects = len(overlap.reference)
    missed = 1 - len(np.unique(true)) / objects if objects else float("nan")
    return {MISSED: missed, FALSE: float(len(overlap.predicted) - len(np.unique(predicted)))}


def hits(overlap: InstanceOverlap) -> tuple[np.ndarray, np.ndarray]:
    """(hits,) predicted objects and the reference objects that they overlap enough, counted from 0."""
    predicted, true = overlap.pairs[overlap.iou > OVERLAP].T
    return predicted, true
