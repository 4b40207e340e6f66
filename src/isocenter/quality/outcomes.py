"""Outcomes to be predicted from shortcuts: classes, findings, values and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isocenter.evaluation import auroc, harrell_c, one_against_rest
from isocenter.lazy import stats
from isocenter.quality.references import reference_kinds
from isocenter.values import Array, CaseFacts, Floats

# More cases than this add nothing to a concordance of 0.7, and pairs grow with their square.
MOST_MEASURED = 400


class Outcome(Protocol):
    """An answer of each case, dealt into folds by strata."""

    @property
    def strata(self) -> Array:
        """(cases,) number of the stratum."""

    def __len__(self) -> int: ...

    def truth(self, order: Array) -> Floats:
        """(cases, columns) numbers for a regression; each case has the answer of the case that `order` names."""

    def reached(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """How well (cases, columns) scores predict the answers in this order: 0.5 is chance, 1 is perfect."""

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
    """What is to be predicted, and the answers of the cases of which it is known.

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
