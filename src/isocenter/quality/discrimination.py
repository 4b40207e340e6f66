"""Discrimination of a few numbers of each case: how well they predict an outcome, against chance.

The outcome is predicted by ridge regression, cross-validated by patient; chance is what the same prediction reaches
when patients are given each other's. Outcomes are classes, findings, values and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from isocenter.evaluation import auroc, bootstrap_statistic, harrell_c, one_against_rest
from isocenter.lazy import stats
from isocenter.quality.references import reference_kinds
from isocenter.transforms import generator
from isocenter.values import Array, CaseFacts, Estimate, Floats

FOLDS = 5
# Shuffles tell mean and deviation of chance; the tail follows from the normal law, so few are enough.
SHUFFLES, DRAWS = 200, 500
# Fewer that hold every class tell neither: where the first images of all patients are of one class, none does.
FEWEST_SHUFFLES = 20
# Numbers that are predicted at once, 128 MiB: of a hundred classes and all shuffles they would be many GiB.
AT_ONCE = 2**24
# Further out in the tail nobody knows whether the normal law still holds.
SMALLEST_P = 1e-6

# From (cases, numbers), (shuffles, cases, columns) to be predicted and (cases,) fold: (shuffles, cases, columns), each
# fold from the others.
Predict = Callable[[Floats, Floats, Array], Floats]
# More cases than this add nothing to a concordance of 0.7, and pairs grow with their square.
MOST_MEASURED = 400


def by_ridge(values: Floats, truth: Floats, fold: Array) -> Floats:
    """Ridge regression of all numbers."""
    return _predicted(_design(values), truth, fold)


def discrimination(
    values: Floats, outcome: Outcome, patient: Array, *, seed: int, predict: Predict = by_ridge
) -> tuple[Estimate, float]:
    """The figure by which these numbers predict the outcome (0.5 is chance), and p against chance.

    values:  (cases, numbers)
    patient: (cases,) index of the person
    p is 1 where patients cannot be given each other's outcome: their first images are alike.
    """
    if np.ptp(values, axis=0).max() < 1e-9:
        return Estimate(0.5, n=len(outcome), patients=len(np.unique(patient)), method="none: the same for all"), 1.0
    own, fold = np.arange(len(outcome)), _folds(outcome.strata, patient, seed)
    orders = _orders(tuple(patient.tolist()), seed)
    reached, scores = _reached(values, outcome, orders, fold, predict)
    by_chance, p = reached[1:][np.isfinite(reached[1:])], 1.0
    if len(by_chance) >= FEWEST_SHUFFLES:
        spread = max(float(by_chance.std(ddof=1)), 1e-6)
        p = float(stats.norm.sf((reached[0] - by_chance.mean()) / spread))
    estimate = bootstrap_statistic(
        lambda weights: outcome.reached(scores, own, weights),
        patient,
        strata=outcome.strata,
        seed=seed,
        draws=DRAWS,
    )
    return estimate, max(p, SMALLEST_P)


def _reached(values: Floats, outcome: Outcome, orders: Array, fold: Array, predict: Predict) -> tuple[Floats, Floats]:
    """(1 + shuffles,) how well the answers in each order are predicted; (cases, columns) predictions in the first."""
    count = max(1, AT_ONCE // outcome.truth(orders[0]).size)
    reached, first = list[Floats](), np.empty(0)
    for start in range(0, len(orders), count):
        some = orders[start : start + count]
        scores = predict(values, np.stack([outcome.truth(order) for order in some]), fold)
        reached.append(outcome.each_reached(scores, some))
        first = scores[0].copy() if start == 0 else first
    return np.concatenate(reached), first


def _design(values: Floats) -> Floats:
    """Standardised; one or a few numbers with their squares, because the middle may be the odd one out."""
    spread = values.std(axis=0)
    scaled = ((values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))[:, spread > 1e-9]
    return np.hstack([scaled, scaled**2]) if scaled.shape[1] <= 3 else scaled


def _folds(label: Array, patient: Array, seed: int) -> Array:
    """(cases,) fold; the patients of each stratum are dealt out in turn."""
    owner = label[np.unique(patient, return_index=True)[1]]
    fold = np.empty(len(owner), dtype=np.intp)
    for stratum in np.unique(owner):
        own = np.flatnonzero(owner == stratum)
        fold[generator(seed, 11, int(stratum)).permutation(own)] = np.arange(len(own)) % FOLDS
    return fold[patient]


@lru_cache(maxsize=8)  # of the same patients everything is asked that might predict
def _orders(patient: tuple[int, ...], seed: int) -> Array:
    """(1 + shuffles, cases) whose answer each case gets: first its own, then that of another patient's first image."""
    first = np.unique(patient, return_index=True)[1]
    others = [generator(seed, 12, draw).permutation(first)[list(patient)] for draw in range(SHUFFLES)]
    orders = np.stack([np.arange(len(patient)), *others])
    orders.setflags(write=False)
    return orders


def _predicted(design: Floats, truth: Floats, fold: Array) -> Floats:
    """(shuffles, cases, columns) by ridge regression from the other folds, for all shuffles in one solution."""
    flat = truth.transpose(1, 0, 2).reshape(len(design), -1)
    scores = np.empty_like(flat)
    for held in range(FOLDS):
        own, rest = fold == held, fold != held
        centre, mean = design[rest].mean(axis=0), flat[rest].mean(axis=0)
        known = design[rest] - centre
        gram = known.T @ known + np.eye(known.shape[1])  # a ridge of one case: numbers here are standardised
        weights = np.linalg.solve(gram, known.T @ (flat[rest] - mean))
        # Without the mean of the fold's training cases, which is lower where the held-out fold has more of a class.
        scores[own] = (design[own] - centre) @ weights
    return scores.reshape(len(design), *truth.shape[::2]).transpose(1, 0, 2)


class Outcome(Protocol):
    """An answer of each case, dealt into folds by strata."""

    @property
    def strata(self) -> Array:
        """(cases,) number of the stratum."""

    def __len__(self) -> int: ...

    def truth(self, order: Array) -> Floats:
        """(cases, columns) numbers for a regression; each case has the answer of the case that `order` names."""

    def reached(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """The figure by which (cases, columns) scores predict the answers in this order: 0.5 is chance, 1 perfect."""

    def each_reached(self, scores: Floats, orders: Array) -> Floats:
        """The same of (shuffles, cases, columns) scores and (shuffles, cases) orders: (shuffles,)."""


@dataclass(frozen=True, eq=False)
class Called:
    """One of several classes; label: (cases,) its index. Judged by the AUC, with several one against the rest."""

    label: Array

    @property
    def strata(self) -> Array:
        """The classes."""
        return self.label

    def __len__(self) -> int:
        return len(self.label)

    def truth(self, order: Array) -> Floats:
        """A column for each class."""
        return np.eye(int(self.label.max()) + 1)[self.label[order]]

    def reached(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """The AUC."""
        return one_against_rest(auroc, scores, self.label[order], weights)

    def each_reached(self, scores: Floats, orders: Array) -> Floats:
        """The AUC of each shuffle, by the sum of the ranks of a class (Mann and Whitney, Ann Math Stat 1947).

        NaN of a shuffle in which a class has no case, or all of them.
        """
        truths, classes = self.label[orders], scores.shape[2]
        each = []
        for label in range(classes) if classes > 2 else (1,):
            own = truths == label
            count, ranks = own.sum(axis=1), stats.rankdata(scores[:, :, label], axis=1)
            below = (ranks * own).sum(axis=1) - count * (count + 1) / 2
            pairs = (count * (own.shape[1] - count)).astype(np.float64)
            each.append(np.divide(below, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
        return np.asarray(np.mean(each, axis=0))


@dataclass(frozen=True, eq=False)
class Ordered:
    """A number, or the time to an event that not all had. Judged by the share of pairs in the right order (Harrell).

    times:    (cases,) above 0
    happened: (cases,) whether the event came then; else later. Of a measured number all
    """

    times: Floats
    happened: Array

    @property
    def strata(self) -> Array:
        """Whether the event happened."""
        return self.happened.astype(np.intp)

    def __len__(self) -> int:
        return len(self.times)

    def truth(self, order: Array) -> Floats:
        """Log-rank scores: 1 for an event less the cumulative hazard until then. Peto and Peto, J R Stat Soc A 1972"""
        risk = (self.times[:, None] <= self.times).sum(axis=1)
        each = np.where(self.happened, 1 / risk, 0.0)
        hazard = (each * (self.times <= self.times[:, None])).sum(axis=1)
        return (self.happened - hazard)[order, None]

    def reached(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """Harrell's c."""
        return harrell_c(scores[:, 0], self.times[order], self.happened[order], weights)

    def each_reached(self, scores: Floats, orders: Array) -> Floats:
        """Harrell's c of each shuffle."""
        return np.array([float(self.reached(*one)) for one in zip(scores, orders, strict=True)])


@dataclass(frozen=True, eq=False)
class Question:
    """An outcome to be predicted, and the answers of the cases in which it is known.

    what:        in words that end before "by ... alone"
    is_measured: what is cut from an image may be what a measure is taken of; what is called is text
    answers:     {case id: text, or (number, whether it is reached)}
    kind:        of reference that answers it
    """

    what: str
    is_measured: bool
    answers: Mapping[str, Any]
    kind: str = ""

    def of(self, ids: Sequence[str]) -> Outcome:
        """The outcome of these cases, in their order."""
        own = [self.answers[name] for name in ids]
        if not self.is_measured:
            return Called(np.unique(own, return_inverse=True)[1])
        numbers, reached = zip(*own, strict=True)
        # By ranks: a value far outside counts like any other.
        return Ordered(np.asarray(stats.rankdata(numbers)), np.array(reached, dtype=bool))

    def stratum(self, case: str) -> Any:
        """Its class, or whether its number is reached: a time until which nothing happened says less."""
        answer = self.answers[case]
        return answer[1] if self.is_measured else answer


def questions(facts: Sequence[CaseFacts]) -> Iterator[Question]:
    """All that the references of these cases state about an image as a whole."""
    for kind in reference_kinds():
        summaries = {case.id: case.references[kind.name] for case in facts if kind.name in case.references}
        answers = {case: kind.facts.answers(summary) for case, summary in summaries.items()}
        for name in dict.fromkeys(name for own in answers.values() for name in own):
            known = {case: own[name] for case, own in answers.items() if name in own}
            yield Question(kind.words.question.format(name=name), kind.facts.is_measured, known, kind.name)
