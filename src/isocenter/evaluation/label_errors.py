"""Labels that are probably wrong, by confident learning on probabilities of models that have not seen the case."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isocenter.values import Array, Floats


def probable_label_errors(probabilities: ArrayLike, labels: ArrayLike) -> Array:
    """(cases,) the class that a case probably is, where that is another than its label; -1 elsewhere.

    probabilities: (cases, classes) of models that have not seen the case
    labels:        (cases,) index of the class that it is labelled as
    A class is probable from that probability on which cases labelled so have on average. A case that is probably of no
    class, or of its own first, is no error. Northcutt, Jiang and Chuang, J Artif Intell Res 2021,
    doi:10.1613/jair.1.12125
    """
    chances, given = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=int)
    usual = _usual(chances, given)
    sure = np.where(chances >= usual - 1e-9, chances, -np.inf)
    likeliest = sure.argmax(axis=1)
    is_error = np.isfinite(sure.max(axis=1)) & (likeliest != given)
    # A tie of two classes says nothing against the label.
    is_error &= chances[np.arange(len(given)), given] < chances[np.arange(len(given)), likeliest]
    return np.where(is_error, likeliest, -1)


def _usual(chances: Floats, given: Array) -> Floats:
    """(classes,) mean probability of each class among the cases labelled so; nothing reaches that of one without."""
    means = np.full(chances.shape[1], np.inf)
    for index in np.unique(given):
        means[index] = chances[given == index, index].mean()
    return means
