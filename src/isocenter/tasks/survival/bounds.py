"""A lower bound of the time of the event, by the times of cases that did not train.

Candès et al., arXiv:2103.09672: nobody's event is earlier than the last visit, so that a bound of the observed time is
one of the event's, whatever censors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from isocenter.evaluation import EVERYONE, time_scores
from isocenter.tasks.shared import Certainty, Found, assured_each, crossed_each
from isocenter.tasks.survival.scores import event_of
from isocenter.values import Case

# The name of the bound among a prediction's intervals.
TIME = "time"


def bounded(certainty: Certainty, usual: ArrayLike, cases: Sequence[Case], *, exact: bool) -> Found:
    """With the threshold of these cases. usual: (cases,) the time that each is expected to reach"""
    scores = time_scores(usual, [event_of(case)[0] for case in cases]), np.array([case.patient for case in cases])
    return assured_each(certainty, "ratio", EVERYONE, {EVERYONE: scores}, exact=exact)


def crossed_bound(certainty: Certainty, risks: ArrayLike, cases: Sequence[Case], folds: Sequence[int]) -> Found:
    """With what a bound of the mean of folds rests on.

    risks: (cases,) uncalibrated, of the fold that has not seen the case
    """
    logs = -np.asarray(risks) - np.log([event_of(case)[0] for case in cases])
    people = np.array([case.patient for case in cases])
    return crossed_each(certainty, {EVERYONE: (logs, np.asarray(folds), people)}, max(folds) + 1)


def lower_bound(certainty: Certainty, usual: float, risks: Sequence[float]) -> dict[str, float]:
    """The bound under its name, by what each of several folds says, or by the threshold; nothing before it is found.

    usual: the time that the case is expected to reach
    risks: (folds,) uncalibrated, by each of the folds whose mean the model is
    """
    if certainty.conformal is None:
        return {}
    logs = -np.array(risks, dtype=np.float64)[:, None]
    conformal = certainty.crossed_interval([EVERYONE], logs, logs, np.ones_like(logs))
    by_fold = None if conformal is None else float(np.exp(conformal[0][EVERYONE]))
    return {TIME: usual / certainty.conformal.threshold(EVERYONE) if by_fold is None else by_fold}
