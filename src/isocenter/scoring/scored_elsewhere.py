"""Scoring by other processes, fold after fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from isocenter.errors import MemoryShortageError, ResourceError, WorkerLostError
from isocenter.prediction import There
from isocenter.scoring.answered import Fold
from isocenter.scoring.scores import Measured, Outcomes, measured
from isocenter.values import Case


def measured_there(
    places: Mapping[int | None, There], folds: Mapping[str, Fold]
) -> Callable[[Sequence[Case]], Outcomes]:
    """Measure by other processes, fold after fold.

    places: {fold: the processes that have its model}, None for that of all
    Raises ResourceError where a worker has not what it needs, which the next case would lack too.
    """
    return partial(_measured_there, places, folds)


def _measured_there(places: Mapping[int | None, There], folds: Mapping[str, Fold], cases: Sequence[Case]) -> Outcomes:
    for number, there in places.items():
        of_fold = {case: fold for case, fold in folds.items() if fold.number == number}
        own = [n for n, case in enumerate(cases) if number is None or case.id in of_fold]
        by_worker = partial(_measured_by, there, next(iter(of_fold.values()), None))
        for place, outcome in there.spread(by_worker, [cases[n] for n in own]):
            if isinstance(outcome, ResourceError) and not isinstance(outcome, MemoryShortageError | WorkerLostError):
                raise outcome
            yield own[place], outcome


def _measured_by(there: There, fold: Fold | None, case: Case) -> Measured:
    """Measure a case in the other process; its prediction is large, and made once more where it is shown."""
    model = there.model if fold is None else fold.scoring(there.model)
    return measured(model, fold, case)._replace(prediction=None)
