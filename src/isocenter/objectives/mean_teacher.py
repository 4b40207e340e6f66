"""Mean teacher: on unlabelled images the network agrees with the mean of its own weights.

Tarvainen and Valpola, NeurIPS 2017, arXiv:1703.01780; with pasted boxes Bai et al., CVPR 2023, arXiv:2305.00673
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from isocenter.lazy import torch
from isocenter.objectives.objective import Needs, Objective, Outputs, Step
from isocenter.objectives.pasting import Pasted
from isocenter.objectives.probabilities import heads_of, probable, without_probabilities
from isocenter.tasks import Task
from isocenter.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

PAPER, COPY_PASTE = "arXiv:1703.01780", "arXiv:2305.00673"
Share = Annotated[float, Ge(0), Le(1)]
# The weight rises over 40,000 of 150,000 steps in the authors' code for CIFAR-10, github.com/CuriousAI/mean-teacher.
RAMP = 0.27


@dataclass(frozen=True)
class MeanTeacher(Objective):
    """The mean squared difference of the probabilities of network and teacher on unlabelled images.

    Both see the same image with other intensities; only the network learns.
    paste: share of the unlabelled images in which the network sees a box of a labelled one, or which it sees as a box
           in a labelled one; over the voxels of labelled images the task's loss is added
    """

    ramp: Share = RAMP
    paste: Share = 0.0

    needs: ClassVar[Needs] = Needs(unlabelled=True, views=2, teacher=True)

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The rise of the weight in the authors' code, and no pasted boxes."""
        few = "pasted boxes gained .007 of Dice with 5 labelled volumes, and were measured nowhere else: "
        because = "a teacher that has learnt little yet is no guide: the weight rises as in the authors' code"
        return {
            "ramp": Decision(RAMP, because, PAPER),
            "paste": Decision(0.0, f"{few}docs/benchmarks/few-labels.md", COPY_PASTE),
        }

    def refusal(self, task: Task) -> str:
        """Refusal: it compares probabilities of classes or findings; what is pasted needs an answer for each voxel."""
        vectors = [name for name, _, head in heads_of(task) if not head.is_dense]
        if self.paste and vectors:
            return f"boxes are pasted for answers of voxels (mean_teacher.paste), and {', '.join(vectors)} has none"
        return without_probabilities(task)

    def loss(self, step: Step) -> Tensor:
        """The squared difference, summed over classes or findings, as the mean over places and heads."""
        seen, varied = step.unlabelled[:2]
        if not self.paste:
            return torch.stack([each.mean() for each in apart(step.task, step.run(seen), step.teacher(varied))]).mean()
        pasted = Pasted.of(step, seen, self.paste)
        outputs = step.run(pasted.seen)
        unknown = (~pasted.known).float()
        costs = [(each * unknown).sum() / unknown.sum() for each in apart(step.task, outputs, step.teacher(varied))]
        learnt = {name: outputs[name] for name, _, _ in heads_of(step.task)}
        return torch.stack(costs).mean() + pasted.judged(step, learnt)


def apart(task: Task, student: Outputs, teacher: Outputs) -> list[Tensor]:
    """(batch, ...) the squared difference of probabilities, summed over classes or findings, of each head."""
    return [
        (probable(part, head, student[name]) - probable(part, head, teacher[name])).square().sum(dim=1)
        for name, part, head in heads_of(task)
    ]
