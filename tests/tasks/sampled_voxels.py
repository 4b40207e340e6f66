"""Images whose labels are sampled by probabilities that are known, and what tuning makes of a task on them."""

from __future__ import annotations

import numpy as np

from hilum.belief import certainties
from hilum.tasks import fitting
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Case, Geometry, Image, Label

GRID = Geometry((48, 48), np.eye(3))
WHOLE = (slice(0, 48), slice(0, 48))
TASK = Segmentation((Label(2, "organ"), Label(5, "lesion")))
REGIONS = Segmentation(TASK.classes, "dice+ce", regions={"organ": (2, 5), "lesion": (5,)})


def true_outputs(seed: int, channels: int = 3) -> np.ndarray:
    """(channels, 48, 48) log probabilities that are right, with two structures beside each other."""
    rows, columns = np.indices(GRID.shape) - 24.0
    shift = np.random.default_rng(seed).normal(scale=1.5, size=2)
    far = [np.hypot(rows - shift[0], columns - shift[1] + side) for side in (6.0, -8.0)]
    odds = np.stack([np.zeros(GRID.shape), *((radius - one) / 1.5 for radius, one in zip((9, 6), far, strict=True))])
    return odds.clip(-12, 12)[3 - channels :]


def sample_labels(outputs: np.ndarray, seed: int) -> np.ndarray:
    """The truth of an image whose labels are sampled by these probabilities."""
    random = np.random.default_rng(seed).random(GRID.shape)
    return np.array([0, 2, 5], np.uint8)[(random > certainties.softmax(outputs).cumsum(axis=0)).sum(axis=0)]


def case(mask: np.ndarray, seed: int) -> Case:
    image = Image(np.zeros((1, *GRID.shape), np.float32), GRID)
    return Case(str(seed), str(seed), {"image": image}, {"mask": Image(mask[None], GRID)})


def tuned(task: Segmentation, cases: int, factor: float, shift: float = 0.0):
    """The task tuned on outputs that are the right ones times a factor; of the organ shifted too."""
    made, references = [], []
    for seed in range(cases):
        right = true_outputs(seed)
        if task.exclusive:
            mask = sample_labels(right, seed)
        else:
            # One draw for both, so that the lesion lies within the organ.
            right = np.stack([right[1], np.minimum(right[2], right[1])])
            chance = np.random.default_rng(seed).random(GRID.shape)
            organ, lesion = np.log(chance / (1 - chance)) < right
            mask = np.select([lesion, organ], [5, 2]).astype(np.uint8)
        outputs = factor * right
        outputs[-2] += shift
        made.append(task.decode([(WHOLE, {"mask": outputs.astype(np.float32)})], GRID))
        references.append(case(mask, seed))
    return *fitting.with_fitted_calibration(task, PredictedCases(made, references)), made, references
