"""Drawn images beside those that trained their model: how near they are, and whether the model knows who trained it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isocenter.evaluation import classification, intervals
from isocenter.evaluation.intervals import Seed
from isocenter.values import Estimate, Floats

# An image is nearer to a training image than this share of images that did not train: it may be a copy.
COPY_SHARE = 0.01
# Images that are compared at once.
CHUNK = 256


def nearest_distances(images: ArrayLike, trained: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    """(images,) root of the mean squared difference from the nearest training image, and (images,) its place.

    images, trained: (n, numbers) pixels or features
    """
    asked, known = (np.asarray(one, dtype=np.float64).reshape(len(np.asarray(one)), -1) for one in (images, trained))
    squares = (known**2).sum(axis=1)
    distances, places = list[NDArray[np.float64]](), list[NDArray[np.intp]]()
    for start in range(0, len(asked), CHUNK):
        part = asked[start : start + CHUNK]
        nearest = (squares - 2 * part @ known.T).argmin(axis=1)
        places.append(nearest)
        # Once more as a difference: that of large squares would make a copy of a distance that is not 0.
        distances.append(np.sqrt(((part - known[nearest]) ** 2).mean(axis=1)))
    return np.concatenate(distances), np.concatenate(places)


def copy_threshold(unseen: ArrayLike) -> float:
    """The distance below which an image counts as a copy: the first percentile of that of images that did not train.

    unseen: (images,) distances of these from the nearest training image
    """
    return float(np.quantile(np.asarray(unseen, dtype=np.float64), COPY_SHARE))


def membership_auroc(trained: ArrayLike, unseen: ArrayLike, patients: Sequence[str], *, seed: Seed) -> Estimate:
    """How often the model's loss is lower on a training image than on one that did not train: 0.5 tells nothing.

    trained, unseen: (images,) losses; patients: of all of them, in this order
    Yeom et al., CSF 2018, arXiv:1709.01604
    """
    losses = np.concatenate([np.asarray(trained, dtype=np.float64), np.asarray(unseen, dtype=np.float64)])
    member = np.arange(len(losses)) < len(np.asarray(trained))

    def statistic(weights: Floats) -> Floats:
        """The AUROC under each weighting."""
        return classification.auroc(-losses, member, weights)

    return intervals.bootstrap_statistic(statistic, patients, strata=member, seed=seed, compares=True)
