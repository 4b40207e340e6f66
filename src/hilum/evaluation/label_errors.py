"""Labels that are probably wrong, by probabilities of models that have not seen the case, and how many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hilum.evaluation.significance import testing
from hilum.lazy import optimize, special
from hilum.values import Array, Estimate, Floats

# Of the labels that are named, the share that is right, at most.
FALSE = 0.1
# How often right labels alone look as if some were wrong.
BY_CHANCE = 0.01
# How far the logarithm of a temperature is expected from 0 (one standard deviation), and a shift of a class.
FACTOR = 1.0
SHIFT = 2.0
# The logarithm of a temperature beyond which nothing changes but rounding.
LARGEST_FACTOR = 8.0
# Shares of wrong labels from which a fit starts, and the largest that it may find.
STARTS = (0.02, 0.08)
MOST = 0.4
LEAST = 1e-12
# Of the interval of the share that is wrong: each is a fit.
DRAWS = 100


def probable_label_errors(probabilities: ArrayLike, labels: ArrayLike, *, false: float = FALSE) -> Array:
    """(cases,) the class that a case probably is, where its label is probably wrong; -1 elsewhere.

    probabilities: (cases, classes) of models that have not seen the case
    labels:        (cases,) index of the class that it is labelled as
    false:         share of the named labels that are right, on average and at most
    A label is named where its calibrated probability is so low that of as many right labels few would have one as low
    (Benjamini and Hochberg, J R Stat Soc B 1995). A model that is sure of a wrong answer about right labels more often
    than a logistic curve has it cannot be told from wrong labels.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    stated_labels = np.asarray(labels, dtype=int)
    classes, index = np.unique(stated_labels, return_inverse=True)
    named = np.full(len(stated_labels), -1)
    if len(classes) < 2:
        return named
    right = _if_right(_logs(chances, classes), index)
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


def label_doubts(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """(cases,) how doubtful each label is, 0 to 1: one less its calibrated probability; 0 with labels of one class.

    Arguments as in `probable_label_errors`. Calibration as there: where some labels are wrong, an ordinary one would
    be flattened by these.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    stated_labels = np.asarray(labels, dtype=int)
    classes, index = np.unique(stated_labels, return_inverse=True)
    if len(classes) < 2:
        return np.zeros(len(stated_labels))
    right = _if_right(_logs(chances, classes), index)
    return np.asarray(1 - right[np.arange(len(index)), index])


def wrong_share(probabilities: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, seed: int) -> Estimate:
    """The share of labels that is expected to be wrong, with a 95 % percentile interval that resamples patients.

    Arguments as in `probable_label_errors`; patients: (cases,) whose case it is
    Labels of one class show nothing: then it is 0, without an interval.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    stated_labels = np.asarray(labels, dtype=int)
    classes, index = np.unique(stated_labels, return_inverse=True)
    people, owners = np.unique(np.asarray(patients), return_inverse=True)
    if len(classes) < 2:
        return Estimate(0.0, n=len(index), patients=len(people), method="none: labels of one class")
    logs = _logs(chances, classes)
    _, plain = _fit_numbers(logs, index, np.zeros(2 * len(classes)), most=0.0)
    _, noisy = _fit_noisy(logs, index, plain)
    by_person = np.argsort(owners, kind="stable")
    cases_of_people = np.split(by_person, np.cumsum(np.bincount(owners))[:-1])
    generator = np.random.default_rng(seed)
    shares = list[float]()
    for _ in range(DRAWS):
        drawn = np.concatenate([cases_of_people[n] for n in generator.integers(len(people), size=len(people))])
        _, refitted = _fit_numbers(logs[drawn], index[drawn], noisy, MOST)
        shares.append(_share_of(logs[drawn], refitted))
    low, high = np.quantile(shares, [0.025, 0.975]).tolist()
    method = f"fit of shares of wrong labels, patient bootstrap of {DRAWS} draws"
    return Estimate(_share_of(logs, noisy), low, high, n=len(index), patients=len(people), method=method)


def _share_of(logs: Floats, numbers: Floats) -> float:
    """The share of wrong labels by fitted numbers: those of each class, as often as cases are of it."""
    classes = logs.shape[1]
    return float((_calibrate(logs, numbers[:classes]) @ numbers[classes:]).mean())


def _logs(chances: Floats, classes: Array) -> Floats:
    """(cases, classes) logarithms of the probabilities of the classes that there are labels of."""
    return np.asarray(np.log(chances[:, classes].clip(LEAST)))


def _if_right(logs: Floats, index: Array) -> Floats:
    """(cases, classes) calibrated probabilities of the right label, from (cases, classes) logarithms.

    Shares of wrong labels are fitted beside temperature and shifts where the labels show that there are any: they would
    else flatten the calibration by which they are found.
    """
    classes = logs.shape[1]
    without, plain = _fit_numbers(logs, index, np.zeros(2 * classes), most=0.0)
    noisy, best = _fit_noisy(logs, index, plain)
    # At the edge of what shares may be about half of them are free.
    least = special.chdtri((classes + 1) / 2, BY_CHANCE)
    return _calibrate(logs, (best if 2 * (without - noisy) > least else plain)[:classes])


def _fit_noisy(logs: Floats, index: Array, plain: Floats) -> tuple[float, Floats]:
    """The least loss and its numbers with shares of wrong labels; plain: numbers without any."""
    classes = logs.shape[1]
    starts = [np.append(plain[:classes], [share] * classes) for share in STARTS]
    return min((_fit_numbers(logs, index, start, MOST) for start in starts), key=lambda pair: pair[0])


def _calibrate(logs: Floats, numbers: Floats) -> Floats:
    """Probabilities calibrated by the logarithm of a factor, and a shift of each class but the last."""
    return np.asarray(special.softmax(np.exp(numbers[0]) * logs + np.append(numbers[1:], 0.0), axis=1))


def _fit_numbers(logs: Floats, index: Array, start: Floats, most: float) -> tuple[float, Floats]:
    """The least loss and its numbers: those of `_calibrate`, and of each class the share that is labelled wrongly.

    most: such a share
    """
    rows = np.arange(len(index))
    classes = logs.shape[1]
    spread = np.array([FACTOR, *[SHIFT] * (classes - 1)])

    def loss(numbers: Floats) -> tuple[float, Floats]:
        """Minus the log likelihood, a wrong label being any other class, with what speaks against large changes."""
        chances = _calibrate(logs, numbers[:classes])
        shares = numbers[classes:]
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

    bounds = [(-LARGEST_FACTOR, LARGEST_FACTOR), *[(None, None)] * (classes - 1), *[(0.0, most)] * classes]
    fitted = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return float(fitted.fun), np.asarray(fitted.x)
