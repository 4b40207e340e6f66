"""Images from measurements step by step: conjugate gradients and total variation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hilum.lazy import torch
from hilum.transforms.operators.linear_operator import LinearOperator
from hilum.values import Array

if TYPE_CHECKING:
    from torch import Tensor

# Steps of the inner problem of total variation, which goes on where the step before stopped.
INNER_STEPS = 8
# Of conjugate gradients, before total variation begins.
START_STEPS = 5
# Of the search for a weight: steps of each trial, trials, the factor between the first ones, and how near is near.
TRIAL_STEPS = 40
MOST_TRIALS = 12
FACTOR = 3.0
NEARNESS = 0.01
# The share of k-space, farthest from its middle, in which noise is measured.
OUTER_SHARE = 0.1
# Of numbers of which some hold structure, the smaller ones tell the noise: a quarter of those of noise alone is below
# so much, of absolute values of a normal number, and of squares of a complex one, for a deviation (of each part) of 1.
QUARTER = 0.25
NORMAL_QUARTER = 0.3186
SQUARE_QUARTER = 2 * math.log(4 / 3)
# The least noise that is believed, of the root of the mean square: simulations have none, and no weight then.
LEAST_NOISE = 1e-3
# A fourth difference along bins: smooth profiles vanish in it, noise does not.
DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0])


def residual_ratio(operator: LinearOperator, image: Tensor, measured: Tensor) -> float:
    """The norm of what an image does not explain, over that of what was measured."""
    size = float(torch.linalg.vector_norm(measured))
    return float(torch.linalg.vector_norm(operator.forward(image) - measured)) / (size or 1.0)


def conjugate_gradients(operator: LinearOperator, measured: Tensor, *, iterations: int, weight: float = 0.0) -> Tensor:
    """The image of (*codomain) that minimises |A x - y|^2 + weight |x|^2; fewer steps leave it smoother.

    Hestenes and Stiefel, J Res Natl Bur Stand 1952, doi:10.6028/jres.049.044
    """
    right = operator.adjoint(measured)
    image = torch.zeros_like(right)
    residual = right
    direction = right
    power = _dot(right, right)
    # Below this, rounding is all that is left.
    least = power * (10 * torch.finfo(right.real.dtype).eps) ** 2
    for _ in range(iterations):
        if not power > least:
            break
        applied = operator.normal(direction) + weight * direction
        step = power / _dot(direction, applied)
        image = image + step * direction
        residual = residual - step * applied
        before = power
        power = _dot(residual, residual)
        direction = residual + power / before * direction
    return image


def total_variation(
    operator: LinearOperator, measured: Tensor, *, weight: float, iterations: int, start: Tensor | None = None
) -> Tensor:
    """The image that minimises 1/2 |A x - y|^2 + weight TV(x), real and imaginary part bound to each other.

    Rudin, Osher and Fatemi, Physica D 1992, doi:10.1016/0167-2789(92)90242-F; by the fast steps of Beck and Teboulle,
    IEEE Trans Image Process 2009, doi:10.1109/TIP.2009.2028250
    """
    right = operator.adjoint(measured)
    largest = largest_eigenvalue(operator, right)
    image = conjugate_gradients(operator, measured, iterations=START_STEPS) if start is None else start
    ahead = image
    pace = 1.0
    dual = None
    for _ in range(iterations):
        gradient = operator.normal(ahead) - right
        new, dual = _smooth(ahead - gradient / largest, weight / largest, dual)
        new_pace = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        # A step that goes uphill is followed by one without momentum. O'Donoghue and Candes, arXiv:1204.3982
        if _dot(ahead - new, new - image) > 0:
            new_pace = 1.0
            pace = 1.0
        ahead = new + (pace - 1) / new_pace * (new - image)
        image = new
        pace = new_pace
    return image


def find_weight(operator: LinearOperator, measured: Tensor, deviation: float) -> tuple[float, float]:
    """(weight, residual over that of the noise) by the discrepancy principle: both are to be equally large.

    Of an operator that misses the scanner by more than the noise this is the least weight that was tried.
    Morozov 1984, doi:10.1007/978-1-4612-5280-1
    """
    expected = deviation * math.sqrt(_measured_count(operator) * (2 if measured.is_complex() else 1))
    probe = torch.randn(operator.domain, generator=torch.Generator().manual_seed(0)).to(measured)
    gain = float(torch.linalg.vector_norm(operator.forward(probe)) / torch.linalg.vector_norm(probe))
    low = 0.0
    high = math.inf
    image = None
    weight = deviation * gain or 1e-12
    best = (0.0, math.inf)
    for _ in range(MOST_TRIALS):
        image = total_variation(operator, measured, weight=weight, iterations=TRIAL_STEPS, start=image)
        ratio = float(torch.linalg.vector_norm(operator.forward(image) - measured)) / max(expected, 1e-30)
        best = min(best, (weight, ratio), key=lambda one: abs(one[1] - 1))
        if abs(ratio - 1) < NEARNESS:
            break
        low, high = (low, weight) if ratio > 1 else (weight, high)
        weight = math.sqrt(low * high) if low and high < math.inf else weight * (FACTOR if ratio < 1 else 1 / FACTOR)
    return best


def noise_deviation(operator: LinearOperator, measured: Array) -> float:
    """The standard deviation of noise in (*codomain) data, of each part of complex ones, by what no image explains.

    Of k-space by its outer part, of rays by differences between neighbouring bins; both by the smaller ones,
    so that edges of the object do not count. Donoho and Johnstone, Biometrika 1994, doi:10.1093/biomet/81.3.425
    """
    scan = operator.acquisition
    sampled = np.ones(scan.shape, bool) if scan.mask is None else np.asarray(scan.mask, bool)
    if scan.is_ray_sum:
        sizes = np.abs(np.apply_along_axis(np.convolve, -1, measured, DIFFERENCE, mode="valid"))
        found = float(np.quantile(sizes, QUARTER)) / NORMAL_QUARTER / float(np.linalg.norm(DIFFERENCE))
        return max(found, LEAST_NOISE * float(np.sqrt(np.mean(measured**2))))
    far = np.hypot(*np.meshgrid(*(np.linspace(-1, 1, size) for size in scan.shape), indexing="ij"))
    outer = sampled & (far >= np.quantile(far[sampled], 1 - OUTER_SHARE))
    found = math.sqrt(float(np.quantile(np.abs(measured[..., outer]) ** 2, QUARTER)) / SQUARE_QUARTER)
    return max(found, LEAST_NOISE * float(np.sqrt(np.mean(np.abs(measured[..., sampled]) ** 2))))


def _measured_count(operator: LinearOperator) -> int:
    """How many numbers were measured."""
    mask = operator.acquisition.mask
    count = math.prod(operator.codomain)
    return count if mask is None else round(count * float(np.mean(mask)))


def largest_eigenvalue(operator: LinearOperator, like: Tensor, steps: int = 12) -> float:
    """Of the operator's normal, by powers, with a margin for what these few have not found."""
    vector = torch.randn(operator.domain, generator=torch.Generator().manual_seed(1)).to(like)
    size = 1.0
    for _ in range(steps):
        vector = operator.normal(vector)
        size = float(torch.linalg.vector_norm(vector))
        vector = vector / (size or 1.0)
    return 1.05 * size or 1.0


def _smooth(noisy: Tensor, weight: float, dual: Tensor | None) -> tuple[Tensor, Tensor]:
    """The image that minimises 1/2 |x - noisy|^2 + weight TV(x), and its dual field (2, rows, columns)."""
    field = torch.zeros_like(torch.stack([noisy, noisy])) if dual is None else dual
    ahead = field
    pace = 1.0
    for _ in range(INNER_STEPS):
        new = ahead + _differences(noisy / (weight or 1e-30) - _divergence(ahead)) / 8
        new = new / (new.abs() ** 2).sum(dim=0, keepdim=True).sqrt().clamp(min=1)
        new_pace = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = new + (pace - 1) / new_pace * (new - field)
        field = new
        pace = new_pace
    return noisy - weight * _divergence(field), field


def _differences(image: Tensor) -> Tensor:
    """(2, rows, columns) differences to the next pixel, 0 at the end."""
    field = torch.zeros_like(torch.stack([image, image]))
    field[0, :-1] = image[1:] - image[:-1]
    field[1, :, :-1] = image[:, 1:] - image[:, :-1]
    return field


def _divergence(field: Tensor) -> Tensor:
    """The transpose of `_differences`."""
    image = torch.zeros_like(field[0])
    image[1:] += field[0, :-1]
    image[:-1] -= field[0, :-1]
    image[:, 1:] += field[1, :, :-1]
    image[:, :-1] -= field[1, :, :-1]
    return image


def _dot(one: Tensor, other: Tensor) -> float:
    return float((one.conj() * other).sum().real)
