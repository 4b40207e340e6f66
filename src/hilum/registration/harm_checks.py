"""Whether a registration may be used: it agrees with another measure, and beyond what shuffled images would reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hilum.lazy import torch
from hilum.registration import linear
from hilum.registration._pyramid import NO_OVERLAP, PyramidLevel
from hilum.registration.linear import FirstGuess
from hilum.registration.similarity_measures import SIMILARITIES, Similarity
from hilum.values import Floats

if TYPE_CHECKING:
    from torch import Tensor

# Images of the same spectrum with phases at random, which agree with nothing.
SHUFFLED = 3
STEPS = 40
# mm, or pixels: further apart two measures have found two places.
AGREED = 3.0
# Of the way of a small motion, the most by which two measures may lie apart. Of frames of heads and blobs that never
# moved, and whose contrast changed, they lay .69 to 1.18 of the way apart (.1 to .4 mm).
AGREED_SHARE = 0.5
# Of the smaller image, the share that has to lie in the other. No search goes beyond LEAST_OVERLAP: of slabs of heads
# that share less it stopped there, at 25 and 26 %, 13 to 15 mm from the truth.
LEAST_SHARE = 0.3
# Times that the gain has to exceed that of shuffled images. Of simulated prostates harmful motions gained 2 and 3.4
# times as much as shuffled ones, good motions 7 times and more.
BEYOND = 4.0
# Times by which an axis may become longer or shorter: affine motions of simulated prostates that harmed did so by more.
MOST_STRETCHED = 1.5
# Of both images above this intensity (0 to 1), the correlation from which they share a contrast.
FOREGROUND = 0.1
SAME_CONTRAST = 0.2


def shuffle_moving(level: PyramidLevel, seed: int) -> PyramidLevel:
    """The level with a moving image of the same spectrum and other phases: equally smooth, and like nothing."""
    values = level.moving.values
    spectrum = torch.fft.fftn(values - values.mean())
    noise = torch.as_tensor(np.random.default_rng(seed).normal(size=tuple(values.shape)), dtype=values.dtype)
    phases = torch.fft.fftn(noise)
    made = torch.fft.ifftn(spectrum.abs() * phases / phases.abs().clamp(min=1e-12)).real + values.mean()
    return replace(level, moving=replace(level.moving, values=made.clamp(0, 1)))


@dataclass(frozen=True)
class ShuffledReach:
    """What shuffled images reach from a start. lowest: loss; gain: the most by which the loss fell"""

    lowest: float
    gain: float


def shuffled_reach(level: PyramidLevel, start: FirstGuess, measure: Similarity) -> ShuffledReach:
    """What optimisation makes of images that agree with nothing, from the same start."""
    ends = list[float]()
    gains = list[float]()
    for seed in range(SHUFFLED):
        made = shuffle_moving(level, seed)
        ends.append(linear.descend_from_guess(made, start, measure, rigid=True, steps=STEPS).loss)
        gains.append(loss_at(made, start, measure) - ends[-1])
    return ShuffledReach(min(ends), max(gains))


def lead_on_shuffled(
    level: PyramidLevel, start: FirstGuess, found: FirstGuess, measure: Similarity
) -> tuple[float, float]:
    """How much lower the loss of a motion is than shuffled images reach from the start, and by how much theirs fell.

    They begin at what was found where the images do not meet at the start.
    """
    chance = shuffled_reach(level, start if loss_at(level, start, measure) < NO_OVERLAP else found, measure)
    return chance.lowest - loss_at(level, found, measure), chance.gain


def loss_at(level: PyramidLevel, guess: FirstGuess, measure: Similarity) -> float:
    """The loss where a guess lays the moving image."""
    with torch.no_grad():
        return float(level.loss(_places(level, guess), measure))


def distance_apart(level: PyramidLevel, first: FirstGuess, second: FirstGuess) -> float:
    """Mean distance between where two guesses lay the fixed image's voxels that count, in mm or pixels."""
    apart = (_places(level, first) - _places(level, second)).norm(dim=-1)
    weight = level.fixed.weight[0, 0]
    return float((apart * weight).sum() / weight.sum().clamp(min=1e-6))


def asked_by_both(level: PyramidLevel, start: FirstGuess, found: FirstGuess, other: FirstGuess) -> bool:
    """Whether self-similarity, by which `other` was found from there, asks for a motion away from the start as well."""
    by = SIMILARITIES["mind"]
    near = distance_apart(level, found, other) < AGREED_SHARE * distance_apart(level, start, found)
    return near and loss_at(level, found, by) < loss_at(level, start, by)


def unlikely_motion(matrix: Floats) -> str:
    """What the linear part of a motion, (n, n), does that no patient does: too wide a turn or stretch; else empty."""
    if (turn := linear.rotation_degrees(matrix)) > linear.USUAL_TURN:
        return f"the moving image would be turned by {turn:.0f} degrees, more than {linear.USUAL_TURN:g}"
    stretch = np.linalg.svd(matrix, compute_uv=False)
    if stretch.max() > MOST_STRETCHED or stretch.min() < 1 / MOST_STRETCHED:
        found = f"{stretch.min():.2g} to {stretch.max():.2g} times as long"
        return f"an axis would be {found}, beyond {1 / MOST_STRETCHED:.2g} to {MOST_STRETCHED:g}"
    return ""


def share_of_smaller(level: PyramidLevel, guess: FirstGuess) -> float:
    """Share of the smaller image that lies in the other."""
    with torch.no_grad():
        _, weight = level.read_moving(_places(level, guess))
    sides = [float(side.weight.sum()) * _volume(side.grid.steps) for side in (level.fixed, level.moving)]
    return float(weight.sum()) * _volume(level.fixed.grid.steps) / max(min(sides), 1e-12)


def shares_contrast(level: PyramidLevel, guess: FirstGuess) -> bool:
    """Whether bright is bright in both where neither is background."""
    with torch.no_grad():
        moved, weight = level.read_moving(_places(level, guess))
    fixed = level.fixed.values
    inside = (weight > 0.5) & (fixed > FOREGROUND) & (moved > FOREGROUND)
    if int(inside.sum()) < 2:
        return True
    pair = np.corrcoef(fixed[inside].numpy(), moved[inside].numpy())
    return not pair[0, 1] < SAME_CONTRAST


def _volume(steps: Sequence[float] | Floats) -> float:
    return float(np.prod(steps))


def _places(level: PyramidLevel, guess: FirstGuess) -> Tensor:
    matrix = torch.as_tensor(guess.matrix.T.copy(), dtype=torch.float32)
    return level.points @ matrix + torch.as_tensor(guess.shift, dtype=torch.float32)
