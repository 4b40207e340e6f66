"""FixMatch: what the network is sure of in an unlabelled image, it shall say of a strongly changed view too.

Sohn et al., NeurIPS 2020, arXiv:2001.07685
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Lt

from hilum.lazy import torch
from hilum.objectives import objective_terms
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep
from hilum.tasks import Task
from hilum.values import Dataset, Decision, Fingerprint, Head

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv:2001.07685"
# The paper's for all but ImageNet; Yang et al., "UniMatch", arXiv:2208.09910, keep it for voxels.
THRESHOLD = 0.95


@dataclass(frozen=True)
class FixMatch(Objective):
    """The cross-entropy of a strong view with the answer that the network gives to the weak one, where it is sure.

    threshold: probability from which an answer counts: of an image, of a finding in it, or of a voxel
    """

    threshold: Annotated[float, Ge(0), Lt(1)] = THRESHOLD

    needs: ClassVar[Needs] = Needs(unlabelled=True, views=0, strong=True)

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The paper's threshold; the weight needs no rise, because a network that has learnt little is not sure."""
        return {
            "threshold": Decision(THRESHOLD, "the paper's: of what it is less sure, the network does not learn", PAPER),
            "ramp": Decision(0.0, "the threshold itself lets in more answers as the network learns", PAPER),
        }

    def refusal(self, task: Task) -> str:
        """Refusal: it needs a probability to be sure by."""
        return objective_terms.without_probabilities(task)

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The cost of what counts, divided by all images, findings or voxels; the mean over heads."""
        assert step.weak is not None and step.strong is not None  # noqa: S101 - its needs say so
        with torch.no_grad():
            answers = step.run(step.weak)
        outputs = step.run(step.strong)
        costs = [
            confident_cross_entropy(part, head, answers[name], outputs[name], self.threshold)
            for name, part, head in objective_terms.task_heads(step.task)
        ]
        return torch.stack(costs).mean()


def confident_cross_entropy(task: Task, head: Head, answers: Tensor, outputs: Tensor, threshold: float) -> Tensor:
    """The cross-entropy with the likeliest answers, where their probability reaches the threshold; elsewhere 0.

    answers, outputs: (batch, channels, ...) logits of the weak and of the strong view
    A finding counts where it is surely there, and where it is surely not.
    """
    functional = torch.nn.functional
    if objective_terms.is_exclusive(task, head):
        sure, likeliest = answers.softmax(dim=1).max(dim=1)
        costs = functional.cross_entropy(outputs, likeliest, reduction="none")
    else:
        present = answers.sigmoid()
        sure = torch.maximum(present, 1 - present)
        likeliest = (present > 0.5).to(outputs.dtype)
        costs = functional.binary_cross_entropy_with_logits(outputs, likeliest, reduction="none")
    return (costs * (sure >= threshold)).mean()
