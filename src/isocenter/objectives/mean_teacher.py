"""Mean teacher: on unlabelled images the network agrees with the mean of its own weights.

Tarvainen and Valpola, NeurIPS 2017, arXiv:1703.01780
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from isocenter.lazy import torch
from isocenter.objectives.objective import Needs, Objective, Step
from isocenter.objectives.probabilities import heads_of, probable, without_probabilities
from isocenter.tasks import Task
from isocenter.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv:1703.01780"
# The weight rises over 40,000 of 150,000 steps in the authors' code for CIFAR-10, github.com/CuriousAI/mean-teacher.
RAMP = 0.27


@dataclass(frozen=True)
class MeanTeacher(Objective):
    """The mean squared difference of the probabilities of network and teacher on unlabelled images.

    Both see the same image with other intensities; only the network learns.
    """

    ramp: Annotated[float, Ge(0), Le(1)] = RAMP

    needs: ClassVar[Needs] = Needs(unlabelled=True, views=2, teacher=True)

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The rise of the weight in the authors' code."""
        because = "a teacher that has learnt little yet is no guide: the weight rises as in the authors' code"
        return {"ramp": Decision(RAMP, because, PAPER)}

    def refusal(self, task: Task) -> str:
        """It compares probabilities of classes or findings."""
        return without_probabilities(task)

    def loss(self, step: Step) -> Tensor:
        """The squared difference, summed over classes or findings, as the mean over places and heads."""
        seen, varied = step.unlabelled[:2]
        student, teacher = step.run(seen), step.teacher(varied)
        apart = [
            (probable(part, head, student[name]) - probable(part, head, teacher[name])).square().sum(dim=1).mean()
            for name, part, head in heads_of(step.task)
        ]
        return torch.stack(apart).mean()
