"""What covariates tell without any image: a linear model on them alone, as a measure for what images add.

It is fitted by the task's own loss, so that it is a logistic regression where classes are asked for, a Cox model where
times are, and a linear one where numbers are, each with a ridge penalty, or of many entries with an elastic net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isocenter.lazy import torch
from isocenter.planning import MANY_ENTRIES
from isocenter.runtime import Context
from isocenter.tasks import Task, tuned_on
from isocenter.training.linear.elastic_net import INNER_FOLDS, sparse
from isocenter.values import Case, Floats, Geometry, Prediction

# Of half the squared weights, beside a loss that adds up over the cases: as scikit-learn penalises by default.
RIDGE = 1.0
STEPS = 200
# It has no image, and so no grid.
NOWHERE = Geometry.of_pixels((1, 1))


@dataclass(frozen=True, eq=False)
class Alone:
    """weights: {head: (1 + entries, size of the head)}, the intercepts first; how: they were found, in words"""

    task: Task
    context: Context
    weights: Mapping[str, Floats]
    how: str = "a ridge penalty"

    def predict(self, subject: Case) -> Prediction:
        """From the case's covariates; no image is read."""
        told = np.concatenate([[1.0], self.context.vector(subject.covariates)[0]])
        return self.task.decode([((), {name: told @ one for name, one in self.weights.items()})], NOWHERE)


def covariates_alone(task: Task, context: Context, train: Sequence[Case], val: Sequence[Case]) -> Alone | None:
    """Fitted to the training cases, then tuned as a network is; None where the task asks for more than a vector."""
    if not len(context) or not all(head.is_vector for head in task.heads.values()):
        return None
    with torch.random.fork_rng(devices=()):  # a loss may draw; the training's own draws go on as if nothing had been
        found = (_sparse if len(context) >= MANY_ENTRIES else _ridge)(task, context, train)
    tuning = train if tuned_on(task) == "train" else val
    if not tuning:
        return found
    tuned, _ = task.tuned([found.predict(case) for case in tuning], tuning)
    return replace(found, task=tuned)


def _given(task: Task, context: Context, train: Sequence[Case]) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
    """(cases, entries) what is told, (cases, ...) what is true, and the size of each head."""
    told = torch.tensor(np.stack([context.vector(case.covariates)[0] for case in train]), dtype=torch.float64)
    target = torch.from_numpy(np.stack([np.asarray(task.target(case).data) for case in train]))
    return told, target, {name: head.count for name, head in task.heads.items()}


def _ridge(task: Task, context: Context, train: Sequence[Case]) -> Alone:
    told, target, sizes = _given(task, context, train)
    weights = {name: torch.zeros(1 + len(context), size, dtype=torch.float64) for name, size in sizes.items()}
    moved = [one.requires_grad_() for one in weights.values()]
    optimiser = torch.optim.LBFGS(moved, max_iter=STEPS, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        loss = task.loss({name: told @ one[1:] + one[0] for name, one in weights.items()}, target) * len(train)
        found = loss + RIDGE / 2 * torch.stack([one[1:].square().sum() for one in moved]).sum()
        found.backward()
        return found

    optimiser.step(cost)
    return Alone(task, context, {name: one.detach().numpy() for name, one in weights.items()})


def _sparse(task: Task, context: Context, train: Sequence[Case]) -> Alone:
    told, target, sizes = _given(task, context, train)
    ends = np.cumsum(list(sizes.values()))

    def cost(answers: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        heads = dict(zip(sizes, answers.split(list(sizes.values()), dim=1), strict=True))
        return task.loss(heads, target[list(rows)])

    found = sparse(told, int(ends[-1]), cost, [case.patient for case in train], seed=0)
    weights = dict(zip(sizes, np.split(found.weights, ends[:-1], axis=1), strict=True))
    how = (
        f"an elastic net of strength {found.strength:.3g}, chosen by {INNER_FOLDS} folds of the training cases: "
        f"{found.used} of {len(context)} entries have a weight"
    )
    return Alone(task, context, weights, how)
