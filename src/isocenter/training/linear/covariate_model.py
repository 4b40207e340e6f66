"""A linear model of covariates without images, as a measure for what images add.

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
from isocenter.tasks import Evidence, Task, deciding_part, fitted, head_of
from isocenter.training.linear.elastic_net import INNER_FOLDS, sparse
from isocenter.values import Case, Floats, Geometry, Prediction, Split

# Of half the squared weights, beside a loss that adds up over the cases (Cox's: over the events): as scikit-learn
# penalises by default.
RIDGE = 1.0
STEPS = 200
# It has no image, and so no grid.
NOWHERE = Geometry.of_pixels((1, 1))


@dataclass(frozen=True, eq=False)
class CovariateModel:
    """weights: {head: (1 + entries, size of the head)}, the intercepts first; how: they were fitted, in words"""

    task: Task
    context: Context
    weights: Mapping[str, Floats]
    how: str = "a ridge penalty"

    def predict(self, subject: Case) -> Prediction:
        """From the case's covariates; no image is read."""
        covariates = np.concatenate([[1.0], self.context.vector(subject.covariates)[0]])
        return self.task.decoding.decode(
            [((), {name: covariates @ one for name, one in self.weights.items()})], NOWHERE
        )


def fit_covariate_model(
    task: Task, context: Context, train: Sequence[Case], val: Sequence[Case]
) -> CovariateModel | None:
    """Fitted to the training cases, then tuned as a network is; None where the task asks for more than a vector.

    Cases are taken as they come: the task's settings have to be those of natural sampling.
    """
    if not len(context) or not all(head.is_vector for head in task.heads.values()):
        return None
    with torch.random.fork_rng(devices=()):  # a loss may draw; the training's own draws go on unchanged
        model = _fitted(task, context, train)
    if model is None:
        return None
    parts: Mapping[Split, Sequence[Case]] = {"train": train, "val": val}
    part = deciding_part(task, parts)
    if part is None:
        return model
    deciding = Evidence([model.predict(case) for case in parts[part]], parts[part])
    tuned, _ = fitted(task, deciding, origin="unseen" if val else "training")
    return replace(model, task=tuned)


def _fitted(task: Task, context: Context, train: Sequence[Case]) -> CovariateModel | None:
    """The parts of a task that is made of tasks each by the cases that have its references; None where it has none."""
    known = [case for case in train if task.decoding.parts or task.needs <= set(case.references)]
    if not known:
        return None
    if not task.decoding.parts:
        return (_sparse if len(context) >= MANY_ENTRIES else _ridge)(task, context, known)
    each = {name: _fitted(part, context, known) for name, part in task.decoding.parts.items()}
    made = {name: one for name, one in each.items() if one is not None}
    if len(made) < len(each):
        return None
    weights = {head_of(name, key): own for name, one in made.items() for key, own in one.weights.items()}
    return CovariateModel(task, context, weights, "; ".join(f"{name}: {one.how}" for name, one in made.items()))


def _given(task: Task, context: Context, train: Sequence[Case]) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
    """(cases, entries) covariates, (cases, ...) targets, and the size of each head."""
    covariates = torch.tensor(np.stack([context.vector(case.covariates)[0] for case in train]), dtype=torch.float64)
    target = torch.from_numpy(np.stack([np.asarray(task.target(case).data) for case in train]))
    return covariates, target, {name: head.count for name, head in task.heads.items()}


def _ridge(task: Task, context: Context, train: Sequence[Case]) -> CovariateModel:
    covariates, target, sizes = _given(task, context, train)
    weights = {name: torch.zeros(1 + len(context), size, dtype=torch.float64) for name, size in sizes.items()}
    moved = [one.requires_grad_() for one in weights.values()]
    optimiser = torch.optim.LBFGS(moved, max_iter=STEPS, line_search_fn="strong_wolfe")
    terms = task.teaching.averaged_over(train)

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
    covariates, target, sizes = _given(task, context, train)
    ends = np.cumsum(list(sizes.values()))

    def cost(answers: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The loss of these rows."""
        heads = dict(zip(sizes, answers.split(list(sizes.values()), dim=1), strict=True))
        return task.loss(heads, target[list(rows)])

    net = sparse(covariates, int(ends[-1]), cost, [case.patient for case in train], seed=0)
    weights = dict(zip(sizes, np.split(net.weights, ends[:-1], axis=1), strict=True))
    how = (
        f"an elastic net of strength {net.strength:.3g}, chosen by {INNER_FOLDS} folds of the training cases: "
        f"{net.used} of {len(context)} entries have a weight"
    )
    return CovariateModel(task, context, weights, how)
