"""What is to be told of cases, so that it can be asked what else tells it: classes, findings, values and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isocenter.evaluation import auroc, harrell_c, one_against_rest
from isocenter.lazy import stats
from isocenter.values import Array, CaseFacts, Floats

# More cases than this tell nothing new about a concordance of 0.7, and pairs grow with their square.
MOST_MEASURED = 400


class Outcome(Protocol):
    """An answer of each case.

    strata: (cases,) among which answers are dealt into folds
    """

    @property
    def strata(self) -> Array: ...

    def __len__(self) -> int: ...

    def truth(self, order: Array) -> Floats:
        """(cases, columns) numbers that a regression is to say, each case with the answer of that in its place."""

    def reached(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """How well (cases, columns) scores tell the answers in this order: 0.5 is chance, 1 is all."""


@dataclass(frozen=True, eq=False)
class Called:
    """One of several classes; label: (cases,) its index. Told by the AUC, with several one against the rest."""

    label: Array

    @property
    def strata(self) -> Array:
        return self.label

    def __len__(self) -> int:
        return len(self.label)

    def truth(self, order: Array) -> Floats:
        return np.eye(int(self.label.max()) + 1)[self.label[order]]

    def reached(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        return one_against_rest(auroc, scores, self.label[order], weights)


@dataclass(frozen=True, eq=False)
class Ordered:
    """A number, or the time to an event that not all had. Told by the share of pairs in the right order (Harrell).

    times:    (cases,) above 0
    happened: (cases,) whether the event came then; else later. Of a measured number all
    """

    times: Floats
    happened: Array

    @classmethod
    def of_values(cls, values: Sequence[float]) -> Ordered:
        """By their ranks: a value far outside counts like any other."""
        return cls(np.asarray(stats.rankdata(values)), np.ones(len(values), dtype=bool))

    @property
    def strata(self) -> Array:
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
        return harrell_c(scores[:, 0], self.times[order], self.happened[order], weights)


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be told, and of which cases it is known.

    what:      in words that end before "by ... alone"
    is_called: whether it is called and not measured: what is cut from an image may be what a measure is taken of
    """

    what: str
    is_called: bool
    answers: Mapping[str, Any]

    def of(self, ids: Sequence[str]) -> Outcome:
        """The answers of these cases, side by side."""
        found = [self.answers[one] for one in ids]
        if self.is_called:
            return Called(np.unique([str(one) for one in found], return_inverse=True)[1])
        if isinstance(found[0], tuple):
            times, happened = zip(*found, strict=True)
            return Ordered(np.array(times, dtype=np.float64), np.array(happened, dtype=bool))
        return Ordered.of_values(found)


def questions(facts: Sequence[CaseFacts]) -> Iterator[Question]:
    """All that the references of these cases say of an image as a whole."""
    known = {kind: [one for one in facts if kind in one.references] for kind in ("class", "findings", "value", "event")}
    if classes := known["class"]:
        yield Question("the classes can be told apart", True, {one.id: one.references["class"] for one in classes})
    for kind, named, is_called in (("findings", "finding {}", True), ("value", "{}", False)):
        for name in dict.fromkeys(name for one in known[kind] for name in one.references[kind]):
            answers = {one.id: one.references[kind][name] for one in known[kind] if name in one.references[kind]}
            yield Question(f"{named.format(name)} can be told", is_called, answers)
    if events := known["event"]:
        answers = {one.id: (float(time), bool(had)) for one in events for time, had in [one.references["event"]]}
        yield Question("times to the event can be told", False, answers)
