"""Linear models on thousands of columns: an elastic net by a task's own loss, its strength chosen by training cases.

Zou and Hastie 2005, doi:10.1111/j.1467-9868.2005.00503.x; minimised by proximal gradients with momentum, Beck and
Teboulle 2009, doi:10.1137/080716542. Columns that are correlated share a weight, and most have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import torch
from isocenter.values import Floats

if TYPE_CHECKING:
    from torch import Tensor

# The mean cost of cases whose numbers of rows are given, of (cases, outputs) that stand for them.
Cost = Callable[["Tensor", Sequence[int]], "Tensor"]
# Of the penalty the share of the sum of the weights; the rest is half their squares.
SHARE = 0.5
# Strengths that are tried, from where no column has a weight down to this share of it.
STRENGTHS, WEAKEST = 8, 0.03
INNER_FOLDS = 5
# Of each fit, at most; it ends where a step moves the weights by less than this share of their length.
ITERATIONS, STILL = 300, 1e-4


@dataclass(frozen=True)
class Sparse:
    """weights: (1 + entries, outputs), the intercepts first; strength: of the penalty; used: entries with a weight"""

    weights: Floats
    strength: float
    used: int


def sparse(columns: Tensor, outputs: int, cost: Cost, patients: Sequence[str], *, seed: int) -> Sparse:
    """The weights whose strength of penalty predicts held-out patients of these cases best.

    columns: (cases, entries)
    """
    every = list(range(len(columns)))
    start = fitted(columns, outputs, cost, every, np.inf)
    strengths = strongest(columns, cost, every, start) * np.geomspace(1, WEAKEST, STRENGTHS)
    costs = np.zeros(STRENGTHS)
    for held_out in inner_folds(patients, seed):
        others = [n for n in every if n not in held_out]
        weights = start
        for place, strength in enumerate(strengths):
            weights = fitted(columns, outputs, cost, others, float(strength), weights)
            costs[place] += float(cost(_answers(columns[list(held_out)], weights), list(held_out))) * len(held_out)
    costs[~np.isfinite(costs)] = np.inf  # a fold without any event, say
    best, weights = int(np.argmin(costs)), start
    for strength in strengths[: best + 1]:
        weights = fitted(columns, outputs, cost, every, float(strength), weights)
    used = int((weights[1:] != 0).any(dim=1).sum())
    return Sparse(weights.numpy(), float(strengths[best]), used)


def inner_folds(patients: Sequence[str], seed: int) -> list[frozenset[int]]:
    """Rows of cases that are held out in turn, all of a patient in one fold."""
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[n]: place % INNER_FOLDS for place, n in enumerate(order)}
    rows = (frozenset(n for n, one in enumerate(patients) if fold[one] == k) for k in range(INNER_FOLDS))
    return [one for one in rows if one]


def strongest(columns: Tensor, cost: Cost, rows: Sequence[int], start: Tensor) -> float:
    """The weakest penalty under which no column has a weight, beside these intercepts."""
    _, slope = _slope(columns[list(rows)], cost, rows, start)
    return float(slope[1:].abs().max()) / SHARE


def fitted(
    columns: Tensor, outputs: int, cost: Cost, rows: Sequence[int], strength: float, start: Tensor | None = None
) -> Tensor:
    """(1 + entries, outputs): the weights of least cost and penalty.

    strength: of the penalty; inf for intercepts only
    start:    where to start, such as the weights of a stronger penalty
    """
    seen = columns[list(rows)]
    now = torch.zeros(1 + columns.shape[1], outputs, dtype=columns.dtype) if start is None else start
    ahead, momentum, step = now, 1.0, 1.0
    for _ in range(ITERATIONS):
        value, slope = _slope(seen, cost, rows, ahead)
        while True:
            after = _shrunk(ahead - step * slope, step, strength)
            moved = after - ahead
            bound = value + float((slope * moved).sum()) + float(moved.square().sum()) / (2 * step)
            if float(cost(_answers(seen, after), rows)) <= bound + 1e-12 or step < 1e-12:
                break
            step /= 2
        if float(((ahead - after) * (after - now)).sum()) > 0:  # momentum leads astray: restart it
            momentum = 1.0
        later = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / later * (after - now)
        still = float((after - now).norm()) <= STILL * max(float(after.norm()), 1e-3)
        now, momentum = after, later
        if still:
            break
    return now


def _shrunk(weights: Tensor, step: float, strength: float) -> Tensor:
    """What the penalty leaves of them; intercepts are free."""
    if not np.isfinite(strength):
        return torch.cat([weights[:1], torch.zeros_like(weights[1:])])
    lasso, ridge = step * strength * SHARE, step * strength * (1 - SHARE)
    rest = weights[1:]
    return torch.cat([weights[:1], rest.sign() * (rest.abs() - lasso).clamp_min(0) / (1 + ridge)])


def _slope(seen: Tensor, cost: Cost, rows: Sequence[int], weights: Tensor) -> tuple[float, Tensor]:
    """The cost at these weights, and by how much it rises with each."""
    moved = weights.detach().clone().requires_grad_()
    value = cost(_answers(seen, moved), rows)
    [slope] = torch.autograd.grad(value, [moved])
    return float(value.detach()), slope


def _answers(seen: Tensor, weights: Tensor) -> Tensor:
    return seen @ weights[1:] + weights[0]
