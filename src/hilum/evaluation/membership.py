"""Whether the losses of a model tell who trained it: the attack by loss.

Yeom et al., CSF 2018, arXiv:1709.01604; at few false alarms, because an average hides the few who are found for sure:
Carlini et al., S&P 2022, arXiv:2112.03570.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from hilum.evaluation import classification, intervals
from hilum.evaluation.intervals import Seed
from hilum.evaluation.metric import MEMBERSHIP_AUC, MEMBERSHIP_TPR
from hilum.values import Floats, Row

FALSE_ALARMS = 0.01


def membership_rows(losses: ArrayLike, trained: ArrayLike, patients: ArrayLike, *, seed: Seed) -> list[Row]:
    """How well small losses tell images that trained from others, with intervals over patients.

    losses:  (images,) or ranks of them; trained: (images,) truths; patients: (images,) whose image it is
    """
    small = -np.asarray(losses, dtype=np.float64)
    is_member = np.asarray(trained, dtype=bool)

    def auc(weights: Floats) -> Floats:
        return classification.auroc(small, is_member, weights)

    def found(weights: Floats) -> Floats:
        return true_positives_at(small, is_member, weights)

    bootstrap = partial(intervals.bootstrap_statistic, patients=patients, strata=is_member, seed=seed)
    return [
        Row(MEMBERSHIP_AUC.name, "all", bootstrap(auc, compares=True)),
        Row(MEMBERSHIP_TPR.name, "all", bootstrap(found, exact=False)),
    ]


def true_positives_at(
    scores: Floats, positive: ArrayLike, weights: Floats, false_alarms: float = FALSE_ALARMS
) -> Floats:
    """(draws,) the share of positives above the lowest threshold that so few of the others exceed.

    scores: (images,); positive: (images,) truths; weights: (draws, images)
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # a threshold calls equal scores alike
    yes = np.cumsum(np.where(np.asarray(positive)[order], weights[:, order], 0.0), axis=-1)
    no = np.cumsum(np.where(np.asarray(positive)[order], 0.0, weights[:, order]), axis=-1)
    allowed = no[:, ends] <= false_alarms * no[:, -1:] + 1e-9
    return cast("Floats", np.where(allowed, yes[:, ends], 0.0).max(axis=-1) / yes[:, -1])
