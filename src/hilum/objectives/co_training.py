"""Co-training: two networks of different first weights teach each other on unlabelled images.

Chen et al., "Cross Pseudo Supervision", CVPR 2021, arXiv:2106.01226; with channels of their own Blum and Mitchell, COLT
1998, doi:10.1145/279943.279962
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.objectives import fixmatch, objective_terms
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep, Outputs, SeenBatch
from hilum.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class CoTraining(Objective):
    """The cross-entropy of each network with the other's answers on unlabelled images, and the second's own task.

    views: channels that the first and that the second network see of unlabelled images, numbered from 0, and the second
           of labelled ones too; the others are 0. Empty: both see all
    """

    views: tuple[tuple[int, ...], ...] = ()

    needs: ClassVar[Needs] = Needs(unlabelled=True, partner=True)

    def refusal(self, task: Task) -> str:
        """Refusal: it takes the likeliest classes or findings as answers; views are those of two networks."""
        if self.views and (len(self.views) != 2 or not all(self.views)):
            return "co_training.views names the channels of two networks, as [[0], [1]]"
        return objective_terms.without_probabilities(task)

    def parts(self, network: Module, features: int) -> Module:
        """The second network: a copy whose layers begin with weights of their own."""
        second = copy.deepcopy(network).requires_grad_(True).train()
        for layer in second.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
        return second

    def loss(self, step: ObjectiveStep) -> Tensor:
        """Loss that both learn of each other, and that the second learns of references."""
        mine, theirs = self.views or (None, None)
        labelled = step.labelled
        unlabelled = step.unlabelled[0]
        first = step.run(limit_channels(unlabelled, mine))
        second = step.through(step.parts, limit_channels(unlabelled, theirs))
        taught = step.through(step.parts, limit_channels(labelled, theirs))
        loss = step.judge(taught, labelled.targets)
        if labelled.partner is not None:
            mixed = step.judge(taught, labelled.targets[labelled.partner])
            loss = labelled.share * loss + (1 - labelled.share) * mixed
        return loss + cross_teaching_loss(step.task, first, second) + cross_teaching_loss(step.task, second, first)


def cross_teaching_loss(task: Task, outputs: Outputs, answers: Outputs) -> Tensor:
    """The cross-entropy of outputs with the likeliest of another network's answers; the mean over heads."""
    costs = [
        fixmatch.confident_cross_entropy(part, head, answers[name].detach(), outputs[name], threshold=0.0)
        for name, part, head in objective_terms.task_heads(task)
    ]
    return torch.stack(costs).mean()


def limit_channels(seen: SeenBatch, channels: Sequence[int] | None) -> SeenBatch:
    """A batch of which all other channels are 0, as those are that a case lacks; None: as it is.

    Raises PlanError for a channel that images do not have.
    """
    if channels is None:
        return seen
    count = seen.images.shape[1]
    if not set(channels) <= set(range(count)):
        problem = f"a network shall see channels {list(channels)}, and images have {count}, numbered from 0"
        raise PlanError(problem, "co_training.views", "Name channels that images have")
    mask = torch.zeros(count, dtype=seen.images.dtype, device=seen.images.device)
    mask[list(channels)] = 1
    return replace(seen, images=seen.images * mask.reshape(1, -1, *[1] * (seen.images.ndim - 2)))
