"""Boxes of labelled images in unlabelled ones, and the reverse, as the mean teacher's network sees them.

Bai et al., "Bidirectional Copy-Paste", CVPR 2023, arXiv:2305.00673
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch
from isocenter.objectives.objective import Outputs, Seen, Step

if TYPE_CHECKING:
    from torch import Tensor

# Side of the box, as a share of the image's: the paper's.
SIDE = 2 / 3


@dataclass(frozen=True, eq=False)
class Pasted:
    """A batch of unlabelled images, of which some have a part of a labelled image.

    seen:    the images
    known:   (batch, *spatial) whether a voxel is of a labelled image; of the whole batch
    partner: (batch,) the place of the labelled image in its batch; of the whole batch
    """

    seen: Seen
    known: Tensor
    partner: Tensor

    @classmethod
    def of(cls, step: Step, seen: Seen, share: float) -> Pasted:
        """Give so large a share of the samples its part, drawn by chance: half of them a box, half all but a box."""
        images, labelled = seen.images, step.labelled
        count, axes = len(images), images.ndim - 2
        chosen, outer = torch.rand(count) < share, torch.rand(count) < 0.5
        inside = boxes(count, images.shape[2:])
        from_partner = ((inside != outer.reshape(-1, *[1] * axes)) & chosen.reshape(-1, *[1] * axes)).to(images.device)
        others = step.whole(labelled.images)
        of_all_ranks = step.whole(from_partner.to(images.dtype)) > 0
        partner = torch.arange(len(of_all_ranks), device=images.device) % len(others)
        pasted = torch.where(from_partner[:, None], step.own(others[partner]), images)
        # An image that is mostly of another patient has the covariates of that patient.
        mostly = (chosen & outer).to(images.device)[:, None]
        context = [
            torch.where(mostly, step.own(step.whole(theirs)[partner]), ours)
            for theirs, ours in zip(labelled.context, seen.context, strict=True)
        ]
        return cls(replace(seen, images=pasted, context=tuple(context)), of_all_ranks, partner)

    def judged(self, step: Step, outputs: Outputs) -> Tensor:
        """The task's loss over the voxels of labelled images, times the share of the samples that have any.

        outputs: of the whole batch. Elsewhere stand the outputs of the labelled images themselves, without a gradient,
        so that any loss of the task can be taken, and nothing has to be known of its targets.
        """
        rows = self.known.flatten(1).any(dim=1).nonzero()[:, 0]
        if not len(rows):
            return torch.stack([output.sum() for output in outputs.values()]).sum() * 0
        places, pasted = self.partner[rows], self.known[rows][:, None]
        mixed = {
            name: torch.where(pasted, output[rows], step.outputs[name][places].detach())
            for name, output in outputs.items()
        }
        return len(rows) / len(self.known) * step.judge(mixed, of_samples(step.labelled.targets, places))


def boxes(count: int, spatial: Sequence[int]) -> Tensor:
    """(count, *spatial) voxels of a box at a place that is drawn for each sample."""
    inside = torch.zeros(count, *spatial, dtype=torch.bool)
    sides = [max(1, round(SIDE * size)) for size in spatial]
    for place_inside in inside:
        starts = [int(torch.randint(size - side + 1, ())) for size, side in zip(spatial, sides, strict=True)]
        place_inside[tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))] = True
    return inside


def of_samples(targets: Any, places: Tensor) -> Any:
    """The targets of these samples of a batch; of several parts those of each."""
    return {name: one[places] for name, one in targets.items()} if isinstance(targets, Mapping) else targets[places]
