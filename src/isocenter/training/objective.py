"""What a step lowers: the task's loss of one batch, augmented on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.planning import Settings
from isocenter.tasks import Task, outside
from isocenter.training.compute import Compute
from isocenter.training.kinds import Drawn, kind_for
from isocenter.training.loader import Batch
from isocenter.training.ranks import ALONE, Ranks
from isocenter.transforms import Augmentation

if TYPE_CHECKING:
    from torch import Tensor

# Between a head's name and its level: "mask@1" is half as fine as "mask".
LEVEL = "@"


def batch_loss(
    module: Any, batch: Batch, settings: Settings, device: Any, compute: Compute, ranks: Ranks = ALONE
) -> Tensor:
    """Augment a batch on the device and let the task judge what the network makes of it.

    With several ranks each gives its part of a batch, and the loss is that of the whole.
    """
    task, augmentation, kind = settings.task, settings.augmentation, batch.kind
    images, targets = (on_device(array, device) for array in (batch.images, batch.targets))
    drawn = Drawn(batch.generators, batch.steps, task.mirrored, outside(task))
    images, targets = kind.moved(augmentation, images, targets, drawn)
    partner, share = None, 1.0
    if kind.mixes:
        images, partner, share = mixed(augmentation, images, batch.generators, ranks)
    coarse = partial(kind.coarse, spatial=tuple(images.shape[2:]))
    with compute.autocast(device):
        outputs = module(compute.ordered(module, images))
    outputs = {name: ranks.whole(output.float()) for name, output in outputs.items()}
    targets = ranks.whole(targets)
    if partner is None:
        return supervised(task, outputs, targets, coarse)
    # Zhang et al., arXiv:1710.09412; Yun et al., arXiv:1905.04899
    own, other = (supervised(task, outputs, one, coarse) for one in (targets, targets[partner]))
    return share * own + (1 - share) * other


def mixed(
    augmentation: Augmentation, images: Tensor, generators: Sequence[np.random.Generator], ranks: Ranks
) -> tuple[Tensor, Tensor | None, float]:
    """As `Augmentation.mixed`, for this process's part of a batch that is mixed as a whole, by its first sample."""
    if ranks.count == 1 or not augmentation.mixes:
        return augmentation.mixed(images, generators)
    whole, partner, share = augmentation.mixed(ranks.whole(images), ranks.agreed(generators[:1]))
    return ranks.own(whole), partner, share


def on_device(array: NDArray[Any], device: Any) -> Tensor:
    """An array as a tensor on the device; from pinned memory it is copied while the processor goes on."""
    return torch.from_numpy(array).to(device, non_blocking=True)


@contextmanager
def bit_by_bit(settings: Settings) -> Iterator[None]:
    """PlanError, by the network's name, where torch has an operation only in a way that differs between two runs."""
    try:
        yield
    except RuntimeError as error:
        if not settings.training.deterministic or "deterministic" not in str(error):
            raise
        operation = str(error).split(" does not", maxsplit=1)[0]
        problem = f"{settings.network.name} on {settings.training.device} needs {operation}, which differs between runs"
        remedy = "Train without --deterministic, on the cpu, or with another --set network.name"
        raise PlanError(problem, "training.deterministic", remedy) from error


def supervised(
    task: Task, outputs: Mapping[str, Tensor], targets: Tensor, coarse: Callable[..., Tensor] | None = None
) -> Tensor:
    """The loss of the finest outputs, and of coarser ones where a network in training gives them.

    Level n weighs 2^-n, all together 1. Lee et al., arXiv:1409.5185; the weights are nnU-Net's,
    doi:10.1038/s41592-020-01008-z
    coarse: brings targets to the grid of outputs; as their shape says if not given
    """
    levels = by_level(outputs)
    weights = {level: 2.0**-level for level in levels}
    losses = [
        weights[level] / sum(weights.values()) * task.loss(heads, as_coarse(targets, heads, coarse))
        for level, heads in levels.items()
    ]
    return torch.stack(losses).sum()


def by_level(outputs: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """{level: {head: output}}; level 0 is the finest."""
    levels: dict[int, dict[str, Tensor]] = {}
    for name, output in outputs.items():
        head, _, level = name.partition(LEVEL)
        levels.setdefault(int(level or 0), {})[head] = output
    return dict(sorted(levels.items()))


def as_coarse(targets: Tensor, heads: Mapping[str, Tensor], coarse: Callable[..., Tensor] | None = None) -> Tensor:
    """Targets on the grid of the outputs; where these have none, as they are."""
    spatial = tuple(next(iter(heads.values())).shape[2:])
    if not spatial:
        return targets
    if coarse is None:
        coarse = partial(kind_for(targets.ndim - 1, len(spatial)).coarse, spatial=tuple(targets.shape[1:]))
    return coarse(targets, wanted=spatial)
