"""Covariates that are no covariates: constant ones, and proxies of the label.

A column that predicts the label almost perfectly by itself was written by somebody who knew it (the ward of the sick, a
date of death, a code of the diagnosis), and a model that gets it learns nothing from images.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hilum import errors
from hilum.lazy import stats
from hilum.quality import references
from hilum.values import Case, Dataset, Fingerprint, Floats, Problem, References, covariate_values
from hilum.values.covariate_values import Course

# From this on a column is the label: few symptoms and no age come near it.
PROXY = 0.98
# From this on the presence of something says why it was taken; by chance 20 cases come to 0.7.
PREDICTIVE_GAP = 0.8
# Of fewer patients, or patients of a class, chance makes as much, however many images there are of each.
FEWEST, FEWEST_OF_CLASS = 20, 5
# A column that few cases have is judged by those, if they are at least this share.
KNOWN = 0.5


def proxy_problems(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Findings on covariates that predict the label by themselves, on images or covariates whose absence does, and on
    covariates that are the same in all cases.
    """
    columns = list(dict.fromkeys(name for case in dataset for name in case.covariates))
    facts = {one.id: one.references for one in fingerprint.cases}
    cases = [case for case in dataset if case.id in facts]
    case_references, patients = [facts[case.id] for case in cases], [case.patient for case in cases]
    constant = []
    for name in columns:
        values = [case.covariates.get(name) for case in cases]
        if is_constant(values):
            constant += (
                [name] if not all(map(covariate_values.is_missing, values)) else []
            )  # a column of nothing is all gap
        elif (score := label_association(values, case_references, patients)) >= PROXY:
            yield Problem.warning(
                f"covariate {name} predicts the label by itself (score {score:.3f} of 1): it may be its proxy",
                (),
                "a model that gets it learns nothing from images, and fails where nobody knows the label yet",
                "Leave it out, unless it is known before the image is read",
            )
    gaps = _gaps(cases, columns)
    for name, has in gaps.items():
        if (score := label_association(list(has), case_references, patients, with_places=False)) >= PREDICTIVE_GAP:
            yield Problem.warning(
                f"whether a case has {name} predicts the label (score {score:.3f} of 1; {sum(has):.0f} of {len(has)} "
                "have it)",
                (),
                "a model learns who was sent for the examination, not what it shows, and fails "
                "where other patients are sent",
                "Leave it out, or use only cases with the same examinations",
            )
    if constant and len(cases) > 1:
        yield Problem.note(
            f"{errors.list_phrase(constant)}: covariates that are the same in all cases",
            (),
            "they tell nothing about a patient",
            "Leave them out",
        )


def _gaps(cases: Sequence[Case], columns: Sequence[str]) -> dict[str, list[float]]:
    """{image or covariate: 1 for each case that has it, else 0}, of those that some cases lack and others have."""
    images = dict.fromkeys(name for case in cases for name in case.images)
    has = {f"image {name}": [float(name in case.images) for case in cases] for name in images}
    has |= {
        name: [float(not covariate_values.is_missing(case.covariates.get(name))) for case in cases] for name in columns
    }
    return {name: one for name, one in has.items() if len(set(one)) > 1}


def is_constant(values: list[Any]) -> bool:
    """Whether all have the same, none missing; or nobody has any."""
    return len({None if covariate_values.is_missing(one) else covariate_values.level_in(one) for one in values}) <= 1


def label_association(
    values: list[Any], case_references: list[References], patients: list[str], *, with_places: bool = True
) -> float:
    """The figure by which one covariate predicts the label by itself: 0.5 is chance, 1 perfect; the best of its kinds.

    Of classes and findings the area under the curve (one against the rest, their mean), or of categories the share of
    each class, their mean, that other patients of their level predict; of values, times, and numbers of boxes, objects
    or voxels of a structure the concordance of pairs.
    A course is judged by its mean and its end, and by how long and how often it was measured: nobody measures the dead.
    with_places: whether boxes, objects and masks are labels too; of a hundred structures chance predicts one with 0.8
    """
    if any(covariate_values.number_in(one) is None for one in values if isinstance(one, Course)):
        return max(
            label_association(list(each), case_references, patients, with_places=with_places)
            for each in zip(*map(_of_course, values), strict=True)
        )
    scores = [0.0]
    for truth in itertools.chain(_truths(case_references), _amounts(case_references) if with_places else ()):
        both_known = [
            n for n, one in enumerate(values) if not covariate_values.is_missing(one) and truth[n] is not None
        ]
        if len(both_known) < KNOWN * len(values) or len({patients[n] for n in both_known}) < FEWEST:
            continue
        values_known, true = [values[n] for n in both_known], [truth[n] for n in both_known]
        classes = isinstance(true[0], str)
        if classes:  # what a rare class says of a column is chance, and hides nothing that the others say
            people = {(one, patients[n]) for n, one in zip(both_known, true, strict=True)}
            counts = Counter(one for one, _ in people)
            common = [n for n, one in enumerate(true) if counts[one] >= FEWEST_OF_CLASS]
            both_known, values_known, true = ([one[n] for n in common] for one in (both_known, values_known, true))
            if len({patients[n] for n in both_known}) < FEWEST or len(set(true)) < 2:
                continue
        numbers = [covariate_values.number_in(one) for one in values_known]
        if None not in numbers:
            known_numbers = np.array(numbers, dtype=float)
            area = _area(known_numbers, true) if classes else _concordance(known_numbers, np.array(true, dtype=float))
            scores.append(area)
        if classes:
            levels = [covariate_values.level_in(one) for one in values_known]
            scores.append(_by_level(levels, true, [patients[n] for n in both_known]))
    return max(scores)


def _of_course(value: Any) -> tuple[float | None, ...]:
    if not isinstance(value, Course):
        return (None,) * 4
    return (float(np.mean(value.values)), value.values[-1], value.times[-1], float(len(value.times)))


def _truths(case_references: list[References]) -> Iterator[list[Any]]:
    """(cases,) answers, once for each kind of reference and name: text of classes, numbers of values and times.

    Of times also whether the event happened.
    """
    for kind in references.reference_kinds():
        answers = [kind.facts.answers(one[kind.name]) if kind.name in one else {} for one in case_references]
        for name in dict.fromkeys(name for own in answers for name in own):
            columns = [own.get(name) for own in answers]
            if kind.facts.is_measured:
                yield [None if one is None else str(one[1]) for one in columns]
                yield [one[0] if one is not None and one[1] else None for one in columns]
            else:
                yield columns


def _amounts(case_references: list[References]) -> Iterator[list[Any]]:
    """(cases,) of boxes, objects and masks whether there are any of a name, as text, and how many, as numbers."""
    for kind in references.reference_kinds():
        amounts_of = [kind.facts.amounts(one[kind.name]) if kind.name in one else None for one in case_references]
        for name in dict.fromkeys(name for own in amounts_of if own is not None for name in own):
            amounts = [None if own is None else float(own.get(name, 0)) for own in amounts_of]
            yield [None if amount is None else str(amount > 0) for amount in amounts]
            # Where nearly all cases have the same amount, chance finds a column that tells the few others.
            if sum(count for _, count in Counter(amounts).most_common()[1:]) >= FEWEST_OF_CLASS:
                yield amounts


def _area(values: Floats, classes: list[Any]) -> float:
    """Mean over the classes of the area under the curve of a number, in either direction."""
    _, owner = np.unique(classes, return_inverse=True)
    counts = np.bincount(owner)
    ranks = stats.rankdata(values)
    above = [
        (ranks[owner == n].sum() - count * (count + 1) / 2) / (count * (len(values) - count))
        for n, count in enumerate(counts)
    ]
    return float(np.mean([max(one, 1 - one) for one in above]))


def _by_level(levels: list[str], classes: list[Any], patients: list[str]) -> float:
    """Share of each class, of cases whose level other patients have too, that most of these others have; their mean.

    So that a rare class, which no level makes the most likely, is not predicted by calling everybody well.
    """
    names, owner = np.unique(classes, return_inverse=True)
    _, level = np.unique(levels, return_inverse=True)
    _, person_in_level = np.unique(
        [f"{one} {person}" for one, person in zip(level, patients, strict=True)], return_inverse=True
    )
    of_level, of_patient = (np.zeros((one.max() + 1, len(names))) for one in (level, person_in_level))
    np.add.at(of_level, (level, owner), 1)
    np.add.at(of_patient, (person_in_level, owner), 1)
    others = of_level[level] - of_patient[person_in_level]  # images of one patient are alike in level and class
    judged = others.sum(axis=1) > 0
    if judged.sum() < max(FEWEST, KNOWN * len(owner)):
        return 0.0
    right, of_class = (others.argmax(axis=1) == owner)[judged], owner[judged]
    return float(np.mean([right[of_class == n].mean() for n in np.unique(of_class)]))


def _concordance(values: Floats, true: Floats) -> float:
    """Share of pairs of cases that a number puts into the right order, in either direction; by Kendall's tau-b."""
    if np.ptp(values) == 0 or np.ptp(true) == 0:
        return 0.0
    return float((1 + abs(stats.kendalltau(values, true).statistic)) / 2)
