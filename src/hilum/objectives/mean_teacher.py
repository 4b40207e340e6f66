"""Mean teacher: on unlabelled images, also with pasted boxes, the network agrees with the mean of its own weights.

Tarvainen and Valpola, NeurIPS 2017, arXiv:1703.01780; with pasted boxes Bai et al., CVPR 2023, arXiv:2305.00673
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Le

from hilum.lazy import torch
from hilum.objectives import objective_terms
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep, Outputs, SeenBatch
from hilum.tasks import Task
from hilum.transforms import pasting
from hilum.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor


PAPER = "arXiv:1703.01780"
COPY_PASTE = "arXiv:2305.00673"
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
            "paste": Decision(0.0, f"{few}bench/findings/few-labels.md", COPY_PASTE),
        }

    def refusal(self, task: Task) -> str:
        """Refusal: it compares probabilities of classes or findings; what is pasted needs an answer for each voxel."""
        vectors = [name for name, _, head in objective_terms.task_heads(task) if not head.is_dense]
        if self.paste and vectors:
            return f"boxes are pasted for answers of voxels (mean_teacher.paste), and {', '.join(vectors)} has none"
        return objective_terms.without_probabilities(task)

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The squared difference, summed over classes or findings, as the mean over places and heads."""
        unlabelled, varied = step.unlabelled[:2]
        if not self.paste:
            return torch.stack(
                [each.mean() for each in probability_distance(step.task, step.run(unlabelled), step.teacher(varied))]
            ).mean()
        pasted = PastedBatch.from_batch(step, unlabelled, self.paste)
        outputs = step.run(pasted.seen)
        unknown = (~pasted.known).float()
        costs = [
            (each * unknown).sum() / unknown.sum()
            for each in probability_distance(step.task, outputs, step.teacher(varied))
        ]
        learnt = {name: outputs[name] for name, _, _ in objective_terms.task_heads(step.task)}
        return torch.stack(costs).mean() + pasted.judge(step, learnt)


def probability_distance(task: Task, student: Outputs, teacher: Outputs) -> list[Tensor]:
    """(batch, ...) the squared difference of probabilities, summed over classes or findings, of each head."""
    return [
        (
            objective_terms.head_probabilities(part, head, student[name])
            - objective_terms.head_probabilities(part, head, teacher[name])
        )
        .square()
        .sum(dim=1)
        for name, part, head in objective_terms.task_heads(task)
    ]


# Boxes of labelled images in unlabelled ones, and the reverse, as the mean teacher's network sees them.
#
# Bai et al., "Bidirectional Copy-Paste", CVPR 2023, arXiv:2305.00673


@dataclass(frozen=True, eq=False)
class PastedBatch:
    """A batch of unlabelled images, of which some have a part of a labelled image.

    seen:    the images
    known:   (batch, *spatial) whether a voxel is of a labelled image; of the whole batch
    partner: (batch,) the place of the labelled image in its batch; of the whole batch
    """

    seen: SeenBatch
    known: Tensor
    partner: Tensor

    @classmethod
    def from_batch(cls, step: ObjectiveStep, seen: SeenBatch, share: float) -> PastedBatch:
        """Give so large a share of the samples its random part: half of them a box, half all but a box."""
        images = seen.images
        labelled = step.labelled
        count = len(images)
        axes = images.ndim - 2
        chosen = torch.rand(count) < share
        outer = torch.rand(count) < 0.5
        inside = pasting.sample_boxes(count, images.shape[2:])
        from_partner = ((inside != outer.reshape(-1, *[1] * axes)) & chosen.reshape(-1, *[1] * axes)).to(images.device)
        others = step.whole(labelled.images)
        of_all_ranks = step.whole(from_partner.to(images.dtype)) > 0
        partner = torch.arange(len(of_all_ranks), device=images.device) % len(others)
        pasted = pasting.paste_voxels(images, step.own(others[partner]), from_partner)
        # An image that is mostly of another patient has the covariates of that patient.
        mostly = (chosen & outer).to(images.device)[:, None]
        context = [
            torch.where(mostly, step.own(step.whole(theirs)[partner]), ours)
            for theirs, ours in zip(labelled.context, seen.context, strict=True)
        ]
        return cls(replace(seen, images=pasted, context=tuple(context)), of_all_ranks, partner)

    def judge(self, step: ObjectiveStep, outputs: Outputs) -> Tensor:
        """The task's loss over the voxels of labelled images, times the share of the samples that have any.

        outputs: of the whole batch. Elsewhere stand the outputs of the labelled images themselves, without a gradient,
        so that any loss of the task can be taken, and nothing has to be known of its targets.
        """
        rows = self.known.flatten(1).any(dim=1).nonzero()[:, 0]
        if not len(rows):
            return torch.stack([output.sum() for output in outputs.values()]).sum() * 0
        places = self.partner[rows]
        pasted = self.known[rows][:, None]
        mixed = {
            name: torch.where(pasted, output[rows], step.outputs[name][places].detach())
            for name, output in outputs.items()
        }
        return len(rows) / len(self.known) * step.judge(mixed, select_samples(step.labelled.targets, places))


def select_samples(targets: Any, places: Tensor) -> Any:
    """The targets of these samples of a batch; of several parts those of each."""
    return {name: one[places] for name, one in targets.items()} if isinstance(targets, Mapping) else targets[places]
