"""A linear model of covariates without images, as a measure for what images add.

It is fitted by the task's own loss, so that it is a logistic regression where classes are asked for, a Cox model where
times are, and a linear one where numbers are, each with a ridge penalty, or of many entries with an elastic net (Zou
and Hastie 2005, doi:10.1111/j.1467-9868.2005.00503.x), minimised by proximal gradients with momentum (Beck and Teboulle
2009, doi:10.1137/080716542): columns that are correlated share a weight, and most have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hilum.lazy import torch
from hilum.planning.rules.covariate_rules import MANY_ENTRIES
from hilum.runtime import Context
from hilum.tasks import Task, fitting, properties
from hilum.tasks.fitting import PredictedCases
from hilum.values import Case, Floats, Geometry, Prediction, Split

if TYPE_CHECKING:
    from torch import Tensor

# Of half the squared weights, beside a loss that adds up over the cases (Cox's: over the events): as scikit-learn
# penalises by default.
RIDGE = 1.0
STEPS = 200
# It has no image, and so no grid.
NOWHERE = Geometry.of_pixels((1, 1))
# The mean cost of cases whose numbers of rows are given, of (cases, outputs) that stand for them.
Cost = Callable[["Tensor", Sequence[int]], "Tensor"]
# Of the penalty the share of the sum of the weights; the rest is half their squares.
ABSOLUTE_SHARE = 0.5
# Strengths that are tried, from where no column has a weight down to this share of it.
STRENGTHS = 8
WEAKEST = 0.03
INNER_FOLDS = 5
# Of each fit, at most; it ends where a step moves the weights by less than this share of their length.
ITERATIONS = 300
STANDING_STILL = 1e-4


@dataclass(frozen=True, eq=False)
class CovariateModel:
    """weights: {head: (1 + entries, size of the head)}, the intercepts first; how: they were fitted, in words"""

    task: Task
    context: Context
    weights: Mapping[str, Floats]
    how: str = "a ridge penalty"

    def predict(self, subject: Case) -> Prediction:
        """Predict from the case's covariates; no image is read."""
        covariates = np.concatenate([[1.0], self.context.vector(subject.covariates)[0]])
        return self.task.decode([((), {name: covariates @ one for name, one in self.weights.items()})], NOWHERE)


def fit_covariate_model(
    task: Task, context: Context, train: Sequence[Case], val: Sequence[Case]
) -> CovariateModel | None:
    """Fitted to the training cases, then tuned as a network is; None where the task asks for more than a vector.

    Cases are taken as they come: the task's settings have to be those of natural sampling.
    """
    if not len(context) or not all(head.is_vector for head in task.heads.values()):
        return None
    with torch.random.fork_rng(devices=()):  # a loss may draw numbers; the training's own draws go on unchanged
        model = _fit_parts(task, context, train)
    if model is None:
        return None
    parts: Mapping[Split, Sequence[Case]] = {"train": train, "val": val}
    part = fitting.deciding_part(task, parts)
    if part is None:
        return model
    deciding = PredictedCases([model.predict(case) for case in parts[part]], parts[part])
    tuned, _ = fitting.fit_task(task, deciding, origin="unseen" if val else "training")
    return replace(model, task=tuned)


def _fit_parts(task: Task, context: Context, train: Sequence[Case]) -> CovariateModel | None:
    """The parts of a task that is made of tasks each by the cases that have its references; None where it has none."""
    models = dict[str, CovariateModel]()
    for name, part in properties.leaf_tasks(task).items():
        cases = [case for case in train if part.needs <= set(case.references)]
        if not cases:
            return None
        models[name] = (_sparse if len(context) >= MANY_ENTRIES else _ridge)(part, context, cases)
    if "" in models:
        return models[""]
    weights = {
        properties.full_head_name(name, key): own for name, one in models.items() for key, own in one.weights.items()
    }
    return CovariateModel(task, context, weights, "; ".join(f"{name}: {one.how}" for name, one in models.items()))


def _columns_and_targets(
    task: Task, context: Context, train: Sequence[Case]
) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
    """(cases, entries) covariates, (cases, ...) targets, and the size of each head."""
    covariates = torch.tensor(np.stack([context.vector(case.covariates)[0] for case in train]), dtype=torch.float64)
    target = torch.from_numpy(np.stack([np.asarray(task.target(case).data) for case in train]))
    return covariates, target, {name: head.count for name, head in task.heads.items()}


def _ridge(task: Task, context: Context, train: Sequence[Case]) -> CovariateModel:
    covariates, target, sizes = _columns_and_targets(task, context, train)
    weights = {name: torch.zeros(1 + len(context), size, dtype=torch.float64) for name, size in sizes.items()}
    moved = [one.requires_grad_() for one in weights.values()]
    optimiser = torch.optim.LBFGS(moved, max_iter=STEPS, line_search_fn="strong_wolfe")
    compared = task.compared_cases(train)
    terms = len(train) if compared is None else compared

    def cost() -> torch.Tensor:
        """The penalised loss, with its gradient."""
        optimiser.zero_grad()
        loss = task.loss({name: covariates @ one[1:] + one[0] for name, one in weights.items()}, target) * terms
        penalised = loss + RIDGE / 2 * torch.stack([one[1:].square().sum() for one in moved]).sum()
        penalised.backward()
        return penalised

    optimiser.step(cost)
    return CovariateModel(task, context, {name: one.detach().numpy() for name, one in weights.items()})


def _sparse(task: Task, context: Context, train: Sequence[Case]) -> CovariateModel:
    covariates, target, sizes = _columns_and_targets(task, context, train)
    ends = np.cumsum(list(sizes.values()))

    def cost(answers: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The loss of these rows."""
        heads = dict(zip(sizes, answers.split(list(sizes.values()), dim=1), strict=True))
        return task.loss(heads, target[list(rows)])

    net = fit_sparse(covariates, int(ends[-1]), cost, [case.patient for case in train], seed=0)
    weights = dict(zip(sizes, np.split(net.weights, ends[:-1], axis=1), strict=True))
    how = (
        f"an elastic net of strength {net.strength:.3g}, chosen by {INNER_FOLDS} folds of the training cases: "
        f"{net.used} of {len(context)} entries have a weight"
    )
    return CovariateModel(task, context, weights, how)


@dataclass(frozen=True)
class SparseFit:
    """weights: (1 + entries, outputs), the intercepts first; strength: of the penalty; used: entries with a weight"""

    weights: Floats
    strength: float
    used: int


def fit_sparse(columns: Tensor, outputs: int, cost: Cost, patients: Sequence[str], *, seed: int) -> SparseFit:
    """The weights whose strength of penalty predicts held-out patients of these cases best.

    columns: (cases, entries)
    """
    every = list(range(len(columns)))
    start = sparse_weights(columns, outputs, cost, every, np.inf)
    strengths = strongest_penalty(columns, cost, every, start) * np.geomspace(1, WEAKEST, STRENGTHS)
    costs = np.zeros(STRENGTHS)
    for held_out in patient_folds(patients, seed):
        others = [n for n in every if n not in held_out]
        weights = start
        for index, strength in enumerate(strengths):
            weights = sparse_weights(columns, outputs, cost, others, float(strength), weights)
            costs[index] += float(cost(_answers(columns[list(held_out)], weights), list(held_out))) * len(held_out)
    costs[~np.isfinite(costs)] = np.inf  # a fold without any event, say
    best = int(np.argmin(costs))
    weights = start
    for strength in strengths[: best + 1]:
        weights = sparse_weights(columns, outputs, cost, every, float(strength), weights)
    used = int((weights[1:] != 0).any(dim=1).sum())
    return SparseFit(weights.numpy(), float(strengths[best]), used)


def patient_folds(patients: Sequence[str], seed: int) -> list[frozenset[int]]:
    """Rows of cases that are held out in turn, all of a patient in one fold."""
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[n]: place % INNER_FOLDS for place, n in enumerate(order)}
    rows = (frozenset(n for n, one in enumerate(patients) if fold[one] == k) for k in range(INNER_FOLDS))
    return [one for one in rows if one]


def strongest_penalty(columns: Tensor, cost: Cost, rows: Sequence[int], start: Tensor) -> float:
    """The weakest penalty under which no column has a weight, beside these intercepts."""
    _, slope = _slope(columns[list(rows)], cost, rows, start)
    return float(slope[1:].abs().max()) / ABSOLUTE_SHARE


def sparse_weights(
    columns: Tensor, outputs: int, cost: Cost, rows: Sequence[int], strength: float, start: Tensor | None = None
) -> Tensor:
    """(1 + entries, outputs): the weights of least cost and penalty.

    strength: of the penalty; inf for intercepts only
    start:    where to start, such as the weights of a stronger penalty
    """
    chosen = columns[list(rows)]
    now = torch.zeros(1 + columns.shape[1], outputs, dtype=columns.dtype) if start is None else start
    ahead = now
    momentum = 1.0
    step = 1.0
    for _ in range(ITERATIONS):
        value, slope = _slope(chosen, cost, rows, ahead)
        while True:
            after = _shrunk(ahead - step * slope, step, strength)
            moved = after - ahead
            bound = value + float((slope * moved).sum()) + float(moved.square().sum()) / (2 * step)
            if float(cost(_answers(chosen, after), rows)) <= bound + 1e-12 or step < 1e-12:
                break
            step /= 2
        if float(((ahead - after) * (after - now)).sum()) > 0:  # momentum leads astray: restart it
            momentum = 1.0
        later = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / later * (after - now)
        still = float((after - now).norm()) <= STANDING_STILL * max(float(after.norm()), 1e-3)
        now = after
        momentum = later
        if still:
            break
    return now


def _shrunk(weights: Tensor, step: float, strength: float) -> Tensor:
    """The coefficients that the penalty leaves; intercepts are free."""
    if not np.isfinite(strength):
        return torch.cat([weights[:1], torch.zeros_like(weights[1:])])
    lasso = step * strength * ABSOLUTE_SHARE
    ridge = step * strength * (1 - ABSOLUTE_SHARE)
    rest = weights[1:]
    return torch.cat([weights[:1], rest.sign() * (rest.abs() - lasso).clamp_min(0) / (1 + ridge)])


def _slope(inputs: Tensor, cost: Cost, rows: Sequence[int], weights: Tensor) -> tuple[float, Tensor]:
    """The cost at these weights, and by how much it rises with each."""
    moved = weights.detach().clone().requires_grad_()
    value = cost(_answers(inputs, moved), rows)
    [slope] = torch.autograd.grad(value, [moved])
    return float(value.detach()), slope


def _answers(inputs: Tensor, weights: Tensor) -> Tensor:
    return inputs @ weights[1:] + weights[0]
