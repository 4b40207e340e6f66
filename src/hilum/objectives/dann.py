"""Domain-adversarial training: the features of the network shall not tell from which place an image comes.

Ganin and others, J Mach Learn Res 2016, arXiv:1505.07818. Groups of people are treated by the same adversary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Le

from hilum.lazy import torch
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep
from hilum.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

PAPER = "arXiv:1505.07818"
# At this share of training the factor of the reversed gradient in the paper, 2 / (1 + exp(-10 p)) - 1, reaches .96.
RAMP = 0.4


def fresh_adversary(classes: int, features: int) -> Module:
    """(classes, features and 1) weights of a linear classifier that knows nothing yet."""
    return torch.nn.ParameterDict({"weights": torch.zeros(classes, features + 1)})


def adversarial_loss(parts: Any, pooled: Tensor, classes: Tensor) -> Tensor:
    """The adversary's cross-entropy, with the gradient reversed on its way into the network.

    pooled:  (images, features)
    classes: (images,) which the adversary tells apart
    """
    if not len(classes):  # of no image of the batch the place is known
        return 0 * pooled.sum()
    weights = parts["weights"]
    reversed_features = 2 * pooled.detach() - pooled
    logits = reversed_features @ weights[:, :-1].T + weights[:, -1]
    return torch.nn.functional.cross_entropy(logits, classes)


@dataclass(frozen=True)
class Dann(Objective):
    """The loss in telling places by the network's features; the network is taught the reverse."""

    ramp: Annotated[float, Ge(0), Le(1)] = RAMP

    needs: ClassVar[Needs] = Needs(features=True, places=True)

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The rise of the weight in the paper."""
        because = "features that tell little yet mislead the adversary: the weight rises about as fast as in the paper"
        return {"ramp": Decision(RAMP, because, PAPER)}

    def parts(self, network: Module, features: int) -> Module:
        """The adversary, for one place until they are counted."""
        return fresh_adversary(1, features)

    def count_places(self, parts: Any, count: int) -> None:
        """An output for each place."""
        parts["weights"] = torch.zeros(count, parts["weights"].shape[1])

    def loss(self, step: ObjectiveStep) -> Tensor:
        """Cross-entropy of the places of labelled and unlabelled images."""
        return adversarial_loss(step.parts, *step.features_by_place)
