"""The task's own loss of labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isocenter.objectives.objective import Objective, Step

if TYPE_CHECKING:
    from torch import Tensor

SUPERVISED = "supervised"


@dataclass(frozen=True)
class Supervised(Objective):
    """The task's loss; of mixed images that of both targets by their shares.

    Zhang et al., arXiv:1710.09412; Yun et al., arXiv:1905.04899
    """

    def loss(self, step: Step) -> Tensor:
        """The loss of the labelled batch."""
        seen = step.labelled
        loss = step.judge(step.outputs, seen.targets)
        if seen.partner is None:
            return loss
        return seen.share * loss + (1 - seen.share) * step.judge(step.outputs, seen.targets[seen.partner])
