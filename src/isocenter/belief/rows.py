"""Rows of cases, and what they find of answers: a calibration, thresholds of calls, sets and covering results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from isocenter.values import Decision, Prediction

if TYPE_CHECKING:
    from isocenter.belief.covering import AddedResults


@dataclass(frozen=True, eq=False)
class Rows:
    """Cases as their task gives them: what a network states of them, and what is true.

    outputs:    (cases, ...) before calibration, as the kind of answer has them
    truth:      (cases, ...) what is true of them
    patients:   (cases,) whose they are
    covariates: of each case
    folds:      (cases,) the number of the fold that has not seen the case; empty where one model stated all
    """

    outputs: Any
    truth: Any
    patients: np.ndarray
    covariates: Sequence[Mapping[str, Any]] = ()
    folds: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def __len__(self) -> int:
        return len(self.patients)

    def of_folds(self, folds: Sequence[int]) -> Rows:
        """The same of outputs by these folds."""
        return replace(self, folds=np.asarray(folds, dtype=int))


class Answers(Protocol):
    """The kind of a task's answers, with what was found of them so far; each method returns what is found anew."""

    @property
    def added(self) -> AddedResults | None:
        """The results that a prediction gets where a person asks for them; None where there are none."""
        return None

    @property
    def by_covariates(self) -> Callable[[Prediction, Mapping[str, Any]], Prediction] | None:
        """A result and covariates to the result with the patient's own sets and thresholds; None without such."""
        return None

    def calibrated(self, rows: Rows) -> dict[str, Decision]:
        """The calibration and the thresholds of calls that these cases find, of those that are open."""
        return {}

    def sets(self, rows: Rows, *, exact: bool) -> dict[str, Decision]:
        """Thresholds of sets, intervals or covering results; exact: these cases have decided nothing else."""

    def sets_of_folds(self, rows: Rows) -> dict[str, Decision]:
        """The scores of each fold, by which sets and intervals of the mean of folds go; after `sets`."""
        return {}
