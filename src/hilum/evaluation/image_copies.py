"""Synthetic images beside the training images: how near they are, and whether the model knows who trained it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.evaluation import _weighting, classification, intervals
from hilum.evaluation.intervals import Seed
from hilum.values import Estimate, Floats

# An image is nearer to a training image than this share of images that did not train: it may be a copy.
COPY_SHARE = 0.01
# Of fewer images a network learns each by heart.
FEWEST = 20
# Images that are compared at once.
CHUNK = 256


def copy_risk(images: int) -> str:
    """What is to be feared where so few images of a kind train; nothing of enough."""
    if images >= FEWEST:
        return ""
    counted = errors.count_phrase(images, "image")
    return f"{counted} of a kind are few, below {FEWEST}: synthetic ones may be copies of them"


def nearest_distances(images: ArrayLike, trained: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    """(images,) root of the mean squared difference from the nearest training image, and (images,) its place.

    images, trained: (n, numbers) pixels or features
    """
    asked, known = (np.asarray(one, dtype=np.float64).reshape(len(np.asarray(one)), -1) for one in (images, trained))
    squares = (known**2).sum(axis=1)
    distances = list[NDArray[np.float64]]()
    places = list[NDArray[np.intp]]()
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


@dataclass(frozen=True, eq=False)
class KnownImages:
    """Training images as numbers, and the distance from the nearest below which another image counts as a copy.

    trained: (images, numbers), divided by scale
    scale:   (numbers,), or 1
    """

    trained: Floats
    scale: Floats
    threshold: float

    @classmethod
    def from_images(cls, trained: ArrayLike, unseen: ArrayLike, *, is_scaled: bool = False) -> KnownImages:
        """These training images, and the threshold by images that did not train.

        is_scaled: whether each number counts in deviations of the training images, so that no feature outweighs others
        """
        known, others = (
            np.asarray(one, dtype=np.float64).reshape(len(np.asarray(one)), -1) for one in (trained, unseen)
        )
        spread = known.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0) if is_scaled else np.ones(())
        return cls(known / scale, scale, copy_threshold(nearest_distances(others / scale, known / scale)[0]))

    def nearest(self, image: ArrayLike) -> tuple[float, int]:
        """The distance of an image, (numbers) of any shape, from the nearest training image, and its place."""
        (distance,), (place,) = nearest_distances(np.asarray(image, float).reshape(1, -1) / self.scale, self.trained)
        return float(distance), int(place)


def membership_auroc(
    trained: ArrayLike, unseen: ArrayLike, patients: Sequence[str], groups: Sequence[str] | None = None, *, seed: Seed
) -> Estimate:
    """How often the model's loss is lower on a training image than on one that did not train: 0.5 tells nothing.

    trained, unseen: (images,) losses; patients: of all of them, in this order
    groups: the class of each, within which alone images are compared: where training images are of another mix of
            classes than others, and losses of one class are lower, the mix would pass for membership
    Yeom et al., CSF 2018, arXiv:1709.01604
    """
    losses = np.concatenate([np.asarray(trained, dtype=np.float64), np.asarray(unseen, dtype=np.float64)])
    member = np.arange(len(losses)) < len(np.asarray(trained))
    names = np.zeros(len(losses)) if groups is None else np.asarray(groups)
    alike = [one for name in np.unique(names) if len(set(member[one := names == name].tolist())) == 2]
    if not alike:
        return Estimate(math.nan, n=len(losses), patients=len(set(patients)), method="none: no class has both")
    strata = np.unique(np.stack([names.astype(str), member.astype(str)]), axis=1, return_inverse=True)[1].ravel()

    def statistic(weights: Floats) -> Floats:
        """The share of pairs of one class that are in order, under each weighting."""
        pairs = [weights[:, one & member].sum(axis=1) * weights[:, one & ~member].sum(axis=1) for one in alike]
        shares = [classification.auroc(-losses[one], member[one], weights[:, one]) for one in alike]
        ordered = [np.where(count > 0, count * share, 0) for count, share in zip(pairs, shares, strict=True)]
        return np.asarray(_weighting.ratio_or_nan(np.sum(ordered, axis=0), np.sum(pairs, axis=0)))

    return intervals.bootstrap_statistic(statistic, patients, strata=strata, seed=seed, compares=True)
