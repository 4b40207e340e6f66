"""Labels that are probably wrong, by probabilities of models that have not seen the case."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hilum.evaluation.significance import testing
from hilum.lazy import optimize, special
from hilum.values import Array, Floats

# Of the labels that are named, the share that is right, at most.
FALSE = 0.1
# How often right labels alone look as if some were wrong.
BY_CHANCE = 0.01
# How far the logarithm of a temperature is expected from 0 (one standard deviation), and a shift of a class.
FACTOR, SHIFT = 1.0, 2.0
# Shares of wrong labels from which a fit starts, and the largest that it may find.
STARTS, MOST = (0.02, 0.08), 0.4
LEAST = 1e-12


def probable_label_errors(probabilities: ArrayLike, labels: ArrayLike, *, false: float = FALSE) -> Array:
    """(cases,) the class that a case probably is, where its label is probably wrong; -1 elsewhere.

    probabilities: (cases, classes) of models that have not seen the case
    labels:        (cases,) index of the class that it is labelled as
    false:         share of the named labels that are right, on average and at most
    A label is named where its calibrated probability is so low that of as many right labels few would have one as low
    (Benjamini and Hochberg, J R Stat Soc B 1995). A model that is sure of a wrong answer about right labels more often
    than a logistic curve has it cannot be told from wrong labels.
    """
    chances, stated_labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=int)
    classes, index = np.unique(stated_labels, return_inverse=True)
    named = np.full(len(stated_labels), -1)
    if len(classes) < 2:
        return named
    right = _if_right(np.log(chances[:, classes].clip(LEAST)), index)
    chance_of_label = right[np.arange(len(index)), index]
    # Were all labels right, so many on average would have a probability as low: the sum of all that are as low.
    every = np.sort(right, axis=None)
    expected = np.cumsum(every)[np.searchsorted(every, chance_of_label, side="right") - 1]
    odd = testing.benjamini_hochberg((expected / len(index)).clip(0, 1)) <= false
    likeliest = classes[right.argmax(axis=1)]
    # Of a case that is probably of a class without labels nothing is known.
    odd &= (likeliest != stated_labels) & np.isin(chances.argmax(axis=1), classes)
    named[odd] = likeliest[odd]
    return named


def _if_right(logs: Floats, index: Array) -> Floats:
    """(cases, classes) calibrated probabilities of the right label, from (cases, classes) logarithms.

    Shares of wrong labels are fitted beside temperature and shifts where the labels show that there are any: they would
    else flatten the calibration by which they are found.
    """
    classes = logs.shape[1]
    without, plain = _fit_numbers(logs, index, np.zeros(2 * classes), most=0.0)
    starts = [np.append(plain[:classes], [share] * classes) for share in STARTS]
    noisy, best = min((_fit_numbers(logs, index, start, MOST) for start in starts), key=lambda pair: pair[0])
    # At the edge of what shares may be about half of them are free.
    least = special.chdtri((classes + 1) / 2, BY_CHANCE)
    return _calibrate(logs, (best if 2 * (without - noisy) > least else plain)[:classes])


def _calibrate(logs: Floats, numbers: Floats) -> Floats:
    """Probabilities calibrated by the logarithm of a factor, and a shift of each class but the last."""
    return np.asarray(special.softmax(np.exp(numbers[0]) * logs + np.append(numbers[1:], 0.0), axis=1))


def _fit_numbers(logs: Floats, index: Array, start: Floats, most: float) -> tuple[float, Floats]:
    """The least loss and its numbers: those of `_calibrate`, and of each class the share that is labelled wrongly.

    most: such a share
    """
    rows, classes = np.arange(len(index)), logs.shape[1]
    spread = np.array([FACTOR, *[SHIFT] * (classes - 1)])

    def loss(numbers: Floats) -> tuple[float, Floats]:
        """Minus the log likelihood, a wrong label being any other class, with what speaks against large changes."""
        chances, shares = _calibrate(logs, numbers[:classes]), numbers[classes:]
        to_others = chances * shares / (classes - 1)
        stays = chances[rows, index] * (1 - shares[index]) - to_others[rows, index]
        chance_of_label = (stays + to_others.sum(axis=1)).clip(1e-300)
        # By each log chance; of the logits what all of them take is less.
        pull = to_others / chance_of_label[:, None]
        pull[rows, index] += stays / chance_of_label
        pull -= chances
        by_share = chances / chance_of_label[:, None] / (classes - 1)
        by_share[rows, index] = -chances[rows, index] / chance_of_label
        against = numbers[:classes] / spread
        uphill = against / spread - [np.exp(numbers[0]) * (pull * logs).sum(), *pull.sum(axis=0)[:-1]]
        cost = 0.5 * against @ against - np.log(chance_of_label).sum()
        return float(cost), np.append(uphill, -by_share.sum(axis=0))

    bounds = [(None, None)] * classes + [(0.0, most)] * classes
    fitted = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return float(fitted.fun), np.asarray(fitted.x)
