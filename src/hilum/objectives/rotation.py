"""Rotation: quarter turns of images are told apart.

Gidaris, Singh and Komodakis, ICLR 2018, arXiv:1803.07728
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from hilum.lazy import torch
from hilum.objectives import objective_terms
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

TURNS = 4


@dataclass(frozen=True)
class Rotation(Objective):
    """The cross-entropy of the quarter turns, in the plane of the first two axes, that each image has got."""

    needs: ClassVar[Needs] = Needs(labels=False, features=True, upright=True)

    def parts(self, network: Module, features: int) -> Module:
        """The layers that name the turn."""
        return objective_terms.projection_layers(features, TURNS)

    def losses(self, step: ObjectiveStep) -> Tensor:
        """Losses of each image in one of its turns; the turns of a batch are as often as any other."""
        images = step.labelled.images
        turns = (torch.randperm(len(images)) + int(torch.randint(TURNS, ()))) % TURNS
        turned_images = replace(step.labelled, images=quarter_turns(images, turns))
        logits = objective_terms.project_features(step.parts, step.embedding_network(turned_images))
        truth = step.whole(turns.to(logits.device))
        return torch.nn.functional.cross_entropy(logits, truth, reduction="none")


def quarter_turns(images: Tensor, turns: Tensor) -> Tensor:
    """Each image after so many quarter turns; of a plane that is no square its middle, in the size of the whole.

    images: (batch, channels, *spatial) of two axes or more
    """
    spatial = images.shape[2:]
    side = min(spatial[:2])
    for axis in (2, 3):
        images = images.narrow(axis, (images.shape[axis] - side) // 2, side)
    images_turned = torch.stack([torch.rot90(one, int(n), (1, 2)) for one, n in zip(images, turns, strict=True)])
    if images_turned.shape[2:] == spatial:
        return images_turned
    mode = "bilinear" if len(spatial) == 2 else "trilinear"
    sized: Tensor = torch.nn.functional.interpolate(images_turned.float(), size=spatial, mode=mode, align_corners=False)
    return sized.to(images.dtype)
