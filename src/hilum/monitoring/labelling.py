"""Labels: which to give next, which may be wrong, and whether they are worse for one group of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import label_errors
from hilum.evaluation.significance import testing, weakness
from hilum.evaluation.significance.weakness import WeakGroup
from hilum.lazy import sklearn_cluster
from hilum.values import Floats

RANDOM = "random"
UNCERTAINTY = "uncertainty"
TYPICAL = "typical"
METHODS = (RANDOM, UNCERTAINTY, TYPICAL)
# Clusters at the most, and neighbours by which a case is typical: Hacohen et al., arXiv:2202.02794.
MOST_CLUSTERS = 500
NEIGHBOURS = 20
# Labels that a class must have, so that something is known of it.
FEWEST_LABELLED = 5


@dataclass(frozen=True)
class NextCase:
    """A case to label. case: its place among all; score: by which it was chosen, NaN of one that was sampled"""

    case: int
    score: float
    because: str


def next_cases(
    count: int,
    method: str,
    is_labelled: ArrayLike,
    *,
    is_open: ArrayLike | None = None,
    uncertainty: ArrayLike | None = None,
    features: ArrayLike | None = None,
    seed: int = 0,
) -> list[NextCase]:
    """The cases to label next, the first one first; fewer where there are not so many.

    is_labelled: (cases,) those that have a label
    is_open:     (cases,) those that may be chosen; by default all without a label
    uncertainty: (cases,) total uncertainty of the answer; NaN where it is not known, and the case is not chosen by it
    features:    (cases, features) what the network saw; a row of NaN likewise
    random draws; uncertainty takes the most uncertain; typical forms clusters of the features of all cases, and takes
    the most typical case of each cluster that no labelled case is in, the largest first (arXiv:2202.02794).
    Raises UsageError for another method, and where what it needs is known of no case.
    """
    labelled = np.asarray(is_labelled, dtype=bool)
    candidates = ~labelled if is_open is None else np.asarray(is_open, dtype=bool) & ~labelled
    if method == RANDOM:
        shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(candidates))
        return [NextCase(int(case), float("nan"), "sampled at random") for case in shuffled[:count]]
    if method == UNCERTAINTY:
        cases = _eligible_cases(candidates, uncertainty, method, "an uncertainty")
        total = np.asarray(uncertainty, dtype=np.float64)
        order = cases[np.argsort(-total[cases], kind="stable")]
        return [NextCase(int(case), float(total[case]), "its answer is the least certain") for case in order[:count]]
    if method == TYPICAL:
        cases = _eligible_cases(candidates, features, method, "features of a gate")
        return _typical(count, np.asarray(features, dtype=np.float64), labelled, cases, seed)
    raise UsageError(f"there is no method {method!r}", "--method", f"Choose one of {', '.join(METHODS)}")


def _eligible_cases(
    candidates: NDArray[np.bool_], measured: ArrayLike | None, method: str, what: str
) -> NDArray[np.intp]:
    """The cases that may be chosen and of which something is known."""
    if measured is None:
        numbers = np.full(len(candidates), np.nan)
    else:
        numbers = np.asarray(measured, dtype=np.float64).reshape(len(candidates), -1).sum(axis=1)
    cases = np.flatnonzero(candidates & np.isfinite(numbers))
    if candidates.any() and not len(cases):
        raise UsageError(f"{method} needs {what}, and no case has it", "--method", "Choose random")
    return cases


def _typical(
    count: int, features: Floats, labelled: NDArray[np.bool_], candidates: NDArray[np.intp], seed: int
) -> list[NextCase]:
    """The most typical case of each cluster, those first that no labelled case is in, then by their size."""
    cases = np.flatnonzero(np.isfinite(features).all(axis=1))
    rows = features[cases]
    spread = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    different = len(np.unique(rows, axis=0)) if rows.shape[1] else 1
    clusters = min(int(labelled[cases].sum()) + count, MOST_CLUSTERS, different)
    if clusters < 2:
        member = np.zeros(len(cases), dtype=int)
    else:
        member = sklearn_cluster.KMeans(clusters, n_init=1, random_state=seed).fit_predict(rows)
    is_candidate = np.isin(cases, candidates)
    left = {number: _by_typicality(rows, np.flatnonzero(member == number), is_candidate) for number in range(clusters)}
    sizes = np.bincount(member, minlength=clusters)
    covered = np.bincount(member[labelled[cases]], minlength=clusters)
    taken = np.zeros(clusters, dtype=int)
    chosen = list[NextCase]()
    while len(chosen) < count and any(left.values()):
        number = min((one for one in left if left[one]), key=lambda one: (covered[one] + taken[one], -sizes[one], one))
        row, score = left[number].pop(0)
        words = f"{covered[number]} of them labelled" if covered[number] else "none of them labelled"
        rank = "the most typical" if not taken[number] else "typical"
        chosen.append(
            NextCase(
                int(cases[row]), score, f"{rank} of {errors.count_phrase(int(sizes[number]), 'like case')}, {words}"
            )
        )
        taken[number] += 1
    return chosen


def _by_typicality(rows: Floats, members: NDArray[np.intp], is_candidate: NDArray[np.bool_]) -> list[tuple[int, float]]:
    """(case, typicality) of a cluster's candidates, the most typical first: one by the mean distance to neighbours."""
    cases = [int(one) for one in members if is_candidate[one]]
    scores = list[float]()
    for case in cases:
        distances = np.sort(np.linalg.norm(rows[members] - rows[case], axis=1))[1 : NEIGHBOURS + 1]
        scores.append(1 / (1e-12 + float(distances.mean())) if len(distances) else 0.0)
    return sorted(zip(cases, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True)
class DoubtedLabel:
    """A label that may be wrong. case: its place among all; reference, probable: index of a class"""

    case: int
    reference: int
    probable: int
    probability_reference: float
    probability_probable: float


def doubted_labels(probabilities: ArrayLike, labels: Sequence[int]) -> list[DoubtedLabel]:
    """The labels that are probably wrong, the surest first, by `probable_label_errors`.

    probabilities: (cases, classes) of a model that these cases did not train
    labels:        (cases,) index of a class; -1 where there is none
    A class with few labels is neither doubted nor proposed.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    labelled = np.asarray(labels, dtype=int)
    labelled = np.where(np.isfinite(chances).all(axis=1), labelled, -1)
    counts = np.bincount(labelled[labelled >= 0], minlength=chances.shape[1])
    judged = np.flatnonzero((labelled >= 0) & (counts[labelled] >= FEWEST_LABELLED))
    if len(set(labelled[judged].tolist())) < 2:
        return []
    guessed = label_errors.probable_label_errors(chances[judged], labelled[judged])
    doubted = [
        DoubtedLabel(
            int(case),
            int(labelled[case]),
            int(other),
            float(chances[case, labelled[case]]),
            float(chances[case, other]),
        )
        for case, other in zip(judged, guessed, strict=True)
        if other >= 0
    ]
    return sorted(doubted, key=lambda one: one.probability_reference - one.probability_probable)


def groups_with_worse_labels(
    flags: Mapping[str, Mapping[int, bool]],
    patients: Sequence[str],
    attributes: Mapping[str, Sequence[Any]],
    *,
    seed: int = 0,
) -> list[tuple[str, WeakGroup]]:
    """(kind, group) of each group of people: whether answers are corrected, or labels doubted, more often in it.

    flags:      {kind: {case: whether it was corrected, or doubted}} of the cases of which that is known
    patients:   (cases,) whose case it is
    attributes: {name: (cases,) values}, as `weak_groups` takes them
    Holm's correction covers the groups of all kinds.
    """
    tested = list[tuple[str, WeakGroup]]()
    for kind, flag in flags.items():
        cases = sorted(flag)
        levels = {name: [values[case] for case in cases] for name, values in attributes.items()}
        if cases:
            groups = weakness.weak_groups(
                [float(flag[case]) for case in cases], [patients[case] for case in cases], levels, seed=seed
            )
            tested += [(kind, one) for one in groups]
    adjusted = testing.holm([one.p for _, one in tested])
    return [(kind, replace(one, p_adjusted=float(p))) for (kind, one), p in zip(tested, adjusted, strict=True)]
