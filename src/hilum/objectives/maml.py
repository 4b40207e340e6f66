"""MAML: weights from which a few steps on the supports of an episode answer its queries.

Finn et al., "Model-agnostic meta-learning", ICML 2017, arXiv:1703.03400
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from hilum.lazy import torch
from hilum.objectives import episodes
from hilum.objectives.episodes import EpisodeObjective
from hilum.objectives.objective_terms import Needs, ObjectiveStep, SeenBatch

if TYPE_CHECKING:
    from torch import Tensor

Weights = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Maml(EpisodeObjective):
    """The task's loss of the queries, by weights that steps on the supports have changed.

    steps: on the supports of an episode
    rate:  of these steps
    order: 1: their gradient counts as a constant (first-order MAML), 2: it is differentiated too, for twice the memory
    What a run keeps are its features; its last layer is made of their means, as that of `prototypical` is.
    """

    steps: Annotated[int, Ge(1)] = 1
    rate: Annotated[float, Gt(0)] = 0.1
    order: Literal[1, 2] = 1

    needs: ClassVar[Needs] = Needs(features=True, prototypes=True, adapted=True)
    source: ClassVar[str] = "arXiv:1703.03400"

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The loss of the queries; of no query 0."""
        seen = step.labelled
        classes = seen.targets.flatten()
        supports, is_query = episodes.part_episode(
            classes, torch.tensor(step.patients, device=classes.device), self.shots
        )
        halves = [cut_batch(seen, one) for one in (torch.cat(supports), torch.nonzero(is_query).flatten())]
        on_supports, on_queries = (
            lambda weights, half=half: step.judge(step.weighted(weights, half), half.targets) for half in halves
        )
        return adapted_loss(
            on_supports, on_queries, step.weights, steps=self.steps, rate=self.rate, is_exact=self.order == 2
        ) * bool(is_query.any())


def adapted_loss(
    on_supports: Callable[[Weights], Tensor],
    on_queries: Callable[[Weights], Tensor],
    weights: Weights,
    *,
    steps: int,
    rate: float,
    is_exact: bool,
) -> Tensor:
    """The loss on queries of weights that steps of gradient descent on supports have changed.

    is_exact: whether its gradient goes through those of the steps; else these are constants
    """
    moved = dict(weights)
    for _ in range(steps):
        loss = on_supports(moved)
        slopes = torch.autograd.grad(loss, [*moved.values()], create_graph=is_exact, allow_unused=True)
        moved = {
            name: one if slope is None else one - rate * slope
            for (name, one), slope in zip(moved.items(), slopes, strict=True)
        }
    return on_queries(moved)


def cut_batch(seen: SeenBatch, places: Tensor) -> SeenBatch:
    """These samples of a batch."""
    return replace(
        seen,
        images=seen.images[places],
        targets=seen.targets[places],
        context=tuple(one[places] for one in seen.context),
    )
