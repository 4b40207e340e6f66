"""L2-SP: weights are pulled towards those that training began from, in place of zero; or a round over sites (FedProx).

Li, Grandvalet and Davoine, ICML 2018, arXiv:1802.01483; Li et al., MLSys 2020, arXiv:1812.06127
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Lt

from hilum.lazy import torch
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep
from hilum.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv:1802.01483"
# As in the authors' own code, github.com/holyseven/TransferLearningClassification (run_classification/train.sh).
ALPHA = 0.1
BETA = 0.01
MEASURED = "with it and transfer.layer_decay=0.8 volumes lost .03 of Dice (bench/findings/few-labels.md)"
Strength = Annotated[float, Ge(0), Lt(math.inf)]


@dataclass(frozen=True)
class L2SP(Objective):
    """alpha / 2 |w - w_start|^2 over the weights that were taken over, beta / 2 |w|^2 over the others.

    Only weights of more than one axis count, as in the decay of weights that it replaces.
    towards: the weights of before training, or of sites that train together those that they had in common last
    """

    alpha: Strength = ALPHA
    beta: Strength = BETA
    towards: Literal["start", "round"] = "start"

    needs: ClassVar[Needs] = Needs(labels=False, start=True)

    @property
    def follows_rounds(self) -> bool:
        """Whether weights are pulled towards those that sites had in common last."""
        return self.towards == "round"

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The strengths of the authors' code, and no other decay."""
        because = "l2_sp pulls weights towards their start, in place of zero"
        return {
            "alpha": Decision(ALPHA, f"as in the authors' code, for pictures of dogs; {MEASURED}", PAPER),
            "beta": Decision(BETA, "weights that start anew are pulled towards zero, as in the authors' code", PAPER),
            "training.weight_decay": Decision(0.0, because, PAPER),
        }

    def loss(self, step: ObjectiveStep) -> Tensor:
        """Half the squared distances, each by its strength."""
        weights = {name: weight for name, weight in step.weights.items() if weight.ndim > 1}
        starts = {name: step.start[name] for name in weights.keys() & step.start.keys()}
        moved = [self.alpha / 2 * (weights[name] - start).square().sum() for name, start in sorted(starts.items())]
        others = [self.beta / 2 * weight.square().sum() for name, weight in weights.items() if name not in starts]
        return torch.stack([*moved, *others]).sum()
