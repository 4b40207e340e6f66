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
from isocenter.tasks import Task, head_of, leaves
from isocenter.values import Dataset, Decision, Fingerprint, Head

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv:1703.01780"
# Of 150,000 steps the paper's weight rises over 40,000.
RAMP = 0.27
# Outputs that state probabilities.
STATED = ("classes", "labels")


@dataclass(frozen=True)
class MeanTeacher(Objective):
    """The mean squared difference of the probabilities of network and teacher on unlabelled images.

    Both see the same image with other intensities; only the network learns.
    """

    ramp: Annotated[float, Ge(0), Le(1)] = RAMP

    needs: ClassVar[Needs] = Needs(unlabelled=True, views=2, teacher=True)

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The paper's rise of the weight."""
        because = "a teacher that has learnt little yet is no guide: the weight rises as in the paper"
        return {"ramp": Decision(RAMP, because, PAPER)}

    def refusal(self, task: Task) -> str:
        """It compares probabilities of classes or findings."""
        unfit = [name or task.name for name, part in leaves(task).items() if part.uncertainty not in STATED]
        return f"it compares probabilities, and outputs of {', '.join(unfit)} state none" if unfit else ""

    def loss(self, step: Step) -> Tensor:
        """The squared difference, summed over classes or findings, as the mean over places and heads."""
        seen, varied = step.unlabelled[:2]
        student, teacher = step.run(seen), step.teacher(varied)
        apart = [
            (probable(part, head, student[name]) - probable(part, head, teacher[name])).square().sum(dim=1).mean()
            for name, part, head in heads_of(step.task)
        ]
        return torch.stack(apart).mean()


def heads_of(task: Task) -> list[tuple[str, Task, Head]]:
    """The heads of a task, or of each of its parts: name of the output, task, head."""
    parts = leaves(task).items()
    return [
        (head_of(name, key) if name else key, part, head) for name, part in parts for key, head in part.heads.items()
    ]


def probable(task: Task, head: Head, outputs: Tensor) -> Tensor:
    """(batch, channels, ...) probabilities: of grades those of each threshold, each of which is one more output."""
    grades = head.is_vector and head.count < len(task.labels)
    return outputs.softmax(dim=1) if task.uncertainty == "classes" and not grades else outputs.sigmoid()
