"""Centre: an objective of somebody else, who knows torch and the page on contributing, and no file of ours.

Outputs of unlabelled images keep near the mean of those that the teacher gave to the images of the last steps, seen
through a scale that is learnt. What no objective of ours has: a part that learns beside the network, and a queue.
One file; its line is the entry point that `tests/test_promise_objective.py` writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor, nn

from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep
from hilum.values import Decision


class Recent(nn.Module):
    """A scale that is learnt, and the teacher's mean outputs of the last steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1))
        self.register_buffer("queue", torch.zeros(steps))


@dataclass(frozen=True)
class Centre(Objective):
    """The squared distance of outputs from the mean of the queue.

    steps: whose outputs are kept
    """

    steps: Annotated[int, Gt(0)] = 3

    needs: ClassVar[Needs] = Needs(unlabelled=True, teacher=True)

    @classmethod
    def settings_for(cls, dataset, fingerprint):
        return {"weight": Decision(0.5, f"half of it is enough for {len(fingerprint)} cases")}

    def refusal(self, task):
        return "" if all(head.is_vector for head in task.heads.values()) else "it centres vectors"

    def parts(self, network, features):
        return Recent(self.steps)

    def loss(self, step: ObjectiveStep) -> Tensor:
        [seen] = step.unlabelled
        means = [outputs.mean() for outputs in step.run(seen).values()]
        return (step.parts.scale * torch.stack(means).mean() - step.parts.queue.mean()).square().sum()

    def after(self, step: ObjectiveStep) -> None:
        [seen] = step.unlabelled
        newest = torch.stack([outputs.mean() for outputs in step.teacher(seen).values()]).mean()
        step.parts.queue.copy_(torch.cat([step.parts.queue[1:], newest[None]]))
