"""Rectified flow: the network learns the straight way from noise to an image, by which images are synthesised.

Liu et al., "Flow straight and fast", ICLR 2023, arXiv:2209.03003
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Lt

from hilum.lazy import torch
from hilum.objectives.masked import IMAGE
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep
from hilum.tasks import Task
from hilum.values import Dataset, Decision, Fingerprint, Head

if TYPE_CHECKING:
    from torch import Tensor

GUIDANCE = "arXiv:2207.12598"
# (batch, channels [and labels of a mask], *spatial) images and (batch, 1 + classes) context to the velocity.
Velocity = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Flow(Objective):
    """The mean squared difference of the stated from the true way, at a level of noise that is sampled for each image.

    dropped: share of the images whose class or mask is left out, so that images without one are learnt too
    """

    dropped: Annotated[float, Ge(0), Lt(1)] = 0.1

    needs: ClassVar[Needs] = Needs(labels=False)
    head: ClassVar[str] = IMAGE
    task: ClassVar[str] = "synthesis"
    replaces_references: ClassVar[bool] = True

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The paper's share of images without a condition."""
        because = "guidance compares images of a class or mask with images of none, which are learnt so"
        return {"dropped": Decision(0.1, because, GUIDANCE)}

    def refusal(self, task: Task) -> str:
        """The network has to synthesise images."""
        has_head = IMAGE in task.heads and task.heads[IMAGE].conditions is not None
        return "" if has_head else "it makes images out of noise, which answers nothing about an image"

    def losses(self, step: ObjectiveStep) -> Tensor:
        """The difference of each image."""
        images = step.labelled.images
        level = torch.rand(len(images)).to(images.device)
        keep = torch.rand(len(images)) >= self.dropped
        noise = torch.randn(images.shape).to(images.device)
        asked = step.own(step.labelled.targets)

        def velocity(seen: Tensor, context: Tensor) -> Tensor:
            """The outputs of the network, of this process's part."""
            return step.own(step.run(replace(step.labelled, images=seen, context=(context,)))[IMAGE])

        keep = keep.to(images.device)
        return step.whole(flow_errors(velocity, step.task.heads[IMAGE], images, noise, level, asked, keep))


def flow_errors(
    velocity: Velocity, head: Head, images: Tensor, noise: Tensor, level: Tensor, asked: Tensor, keep: Tensor
) -> Tensor:
    """(batch,) mean squared differences of the stated from the true way between noise and images.

    level: (batch,) from 0, the noise, to 1, the image; keep: (batch,) whose condition the network gets
    """
    share = level.reshape(-1, *[1] * (images.ndim - 1))
    mixed = share * images + (1 - share) * noise
    stated = velocity(*with_condition(head, mixed, level, asked, keep))
    return ((stated.float() - (images - noise).float()) ** 2).flatten(1).mean(dim=1)


def with_condition(head: Head, images: Tensor, level: Tensor, asked: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The images with the labels of a mask as further channels, and the context: level, and 1 for the class asked for.

    asked: (batch,) number of the class, or (batch, *spatial) numbers of labels, 0 for the background
    keep:  (batch,) whose condition is shown; a number of a class that the head does not have shows none
    """
    classes, labels = head.conditions or (0, 0)
    context = [level[:, None].to(images.dtype)]
    if classes:
        numbers = torch.arange(classes, device=images.device)
        context.append(((asked[:, None] == numbers) & keep[:, None]).to(images.dtype))
    if labels:
        places = [1] * (images.ndim - 2)
        numbers = torch.arange(1, labels + 1, device=images.device).reshape(1, -1, *places)
        shown = (asked[:, None] == numbers) & keep.reshape(-1, 1, *places)
        images = torch.cat([images, shown.to(images.dtype)], dim=1)
    return images, torch.cat(context, dim=1)
