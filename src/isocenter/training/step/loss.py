"""The loss of a step: the task's loss of one batch, augmented on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.planning import Settings
from isocenter.tasks import Task, leaves
from isocenter.training.data.loader import Batch
from isocenter.training.data.protected import ADVERSARY, GroupLoss
from isocenter.training.data.targets import Drawn, kind_for, moved
from isocenter.training.processes import SINGLE_PROCESS, Ranks
from isocenter.training.step.compute import Compute
from isocenter.transforms import Augmentation

if TYPE_CHECKING:
    from torch import Tensor

# What a network in training adds to the loss of each sample, (batch,), by itself: a prior of its weights, for one.
ADDED = "+"
# Between a head's name and its level: "mask@1" is half as fine as "mask".
LEVEL = "@"


@dataclass(frozen=True)
class Seen:
    """A batch as a network in training sees it.

    images:  (batch, channels, *spatial)
    context: the covariates of each image, as one tensor, or none
    partner: with which sample of the whole batch each is mixed, by 1 - share; None where none is
    """

    images: Tensor
    targets: Any
    context: tuple[Tensor, ...]
    partner: Tensor | None = None
    share: float = 1.0


def augmented(batch: Batch, settings: Settings, device: Any, ranks: Ranks = SINGLE_PROCESS) -> Seen:
    """A batch augmented on the device; with several ranks each has its part of a batch."""
    augmentation, kind = settings.augmentation, batch.kind
    images, targets = (on_device(array, device) for array in (batch.images, batch.targets))
    images, targets = moved(kind, augmentation, images, targets, _drawn(settings.task, batch), marked=batch.marked)
    if batch.there is not None:
        images = only_there(images, on_device(batch.there, device), settings.preprocessing.frames or 1)
    context = [] if batch.context is None else [on_device(batch.context, device)]
    partner, share = None, 1.0
    if kind.mixes:
        images, partner, share = mixed(augmentation, images, batch.generators, ranks)
    if partner is not None:  # a mixed sample has the covariates of both
        context = [ranks.own(share * whole + (1 - share) * whole[partner]) for whole in map(ranks.whole, context)]
    return Seen(images, targets, tuple(context), partner, share)


def only_there(images: Tensor, there: Tensor, frames: int = 1) -> Tensor:
    """The images with zeros for what is not there, whatever the augmentation has made of it.

    there: (batch, channels); each stands for its frames, and what follows them is always there
    """
    seen = there.repeat_interleave(frames, dim=1)
    rest = seen.new_ones(len(seen), images.shape[1] - seen.shape[1])
    return images * torch.cat([seen, rest], dim=1).reshape(*images.shape[:2], *[1] * (images.ndim - 2))


def batch_loss(
    module: Any,
    batch: Batch,
    settings: Settings,
    device: Any,
    compute: Compute,
    ranks: Ranks = SINGLE_PROCESS,
    terms: Mapping[str, Tensor] | None = None,
    each: Callable[[list[float]], None] | None = None,
    groups: GroupLoss | None = None,
) -> Tensor:
    """Augment a batch on the device and let the task judge what the network makes of it.

    terms: of the loss that are learnt with the weights
    each:  takes the loss of each sample, where somebody wants to know
    groups: makes the loss of those of groups of people, where training looks at them
    With several ranks each gives its part of a batch, and the loss is that of the whole.
    """
    task, seen = settings.task, augmented(batch, settings, device, ranks)
    partner, share = seen.partner, seen.share
    coarse = partial(batch.kind.coarse, spatial=tuple(seen.images.shape[2:]))
    # A second stage looks at regions that depend on the targets.
    family = networks.family_of(settings.network.name)
    truth = {"targets": seen.targets} if family.sees_targets else {}
    adversary, pooled = (terms or {}).get(ADVERSARY), None
    with compute.autocast(device):
        images = compute.ordered(module, seen.images)
        if groups is None or adversary is None:
            outputs = module(images, *seen.context, **truth)
        else:
            within = getattr(module, "module", None)  # what Fabric wraps
            features = networks.features(module, images, *seen.context, at=family.features, within=within)
            outputs, pooled = dict(features.outputs), ranks.whole(features.pooled.float())
    outputs = {name: ranks.whole(output.float()) for name, output in outputs.items()}
    added = outputs.pop(ADDED, torch.zeros(())).mean()
    if ranks.count > 1:  # they wait for gradients of all weights, those of a head that no case teaches among them
        added = added + torch.stack([(0.0 * output).nan_to_num().sum() for output in outputs.values()]).sum()
    targets = each_array(seen.targets, ranks.whole)
    extent = tuple(step * size for step, size in zip(batch.steps, seen.images.shape[2:], strict=True))
    own = {name: term for name, term in (terms or {}).items() if name != ADVERSARY}
    judge: Callable[..., Tensor] = partial(supervised, task, coarse=coarse, terms=own, extent=extent)
    if family.has_loss:  # the family is defined by it: nothing else fits its outputs
        judge = partial(module.loss, heads=task.heads)
    if each is not None:
        each(sample_by_sample(judge, outputs, targets))
    if groups is not None:
        if pooled is not None and adversary is not None:
            added = added + groups.adversary_cost(pooled, adversary, batch.cases)
        return groups(judge, outputs, targets, batch.cases) + added
    if partner is None or family.has_loss:
        return judge(outputs, targets) + added
    # Zhang et al., arXiv:1710.09412; Yun et al., arXiv:1905.04899
    return share * judge(outputs, targets) + (1 - share) * judge(outputs, targets[partner]) + added


def sample_by_sample(judge: Callable[..., Tensor], outputs: Mapping[str, Tensor], targets: Any) -> list[float]:
    """The loss of each sample of a batch; no gradient is kept."""
    count = len(next(iter(outputs.values())))

    def cost(n: int) -> Tensor:
        """The loss of one sample."""
        own = {name: one[n : n + 1] for name, one in outputs.items()}
        return judge(own, each_array(targets, lambda array: array[n : n + 1]))

    with torch.no_grad():
        return [float(one) for one in torch.stack([cost(n) for n in range(count)]).tolist()]


def mixed(
    augmentation: Augmentation, images: Tensor, generators: Sequence[np.random.Generator], ranks: Ranks
) -> tuple[Tensor, Tensor | None, float]:
    """`Augmentation.mixed` for this process's part of a batch, which is mixed as a whole by its first sample."""
    if ranks.count == 1 or not augmentation.mixes:
        return augmentation.mixed(images, generators)
    whole, partner, share = augmentation.mixed(ranks.whole(images), ranks.agreed(generators[:1]))
    return ranks.own(whole), partner, share


def _drawn(task: Task, batch: Batch) -> Drawn:
    parts = {name: _drawn(part, batch) for name, part in leaves(task).items() if name}
    return Drawn(batch.generators, batch.steps, task.target_sides, task.outside, parts)


def on_device(arrays: Any, device: Any) -> Any:
    """Arrays as tensors on the device; from pinned memory they are copied while the processor goes on.

    To a CUDA device alone: Apple's GPUs go on to read memory that is released by then, pytorch/pytorch#189690.
    """
    goes_on = torch.device(device).type == "cuda"
    return each_array(arrays, lambda array: torch.from_numpy(array).to(device, non_blocking=goes_on))


def each_array(arrays: Any, change: Callable[[Any], Any]) -> Any:
    """One array changed, or each of several in a mapping."""
    if isinstance(arrays, Mapping):
        return {name: change(one) for name, one in arrays.items()}
    return change(arrays)


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
    task: Task,
    outputs: Mapping[str, Tensor],
    targets: Any,
    coarse: Callable[..., Any] | None = None,
    terms: Mapping[str, Tensor] | None = None,
    extent: Sequence[float] = (),
) -> Tensor:
    """The loss of the finest outputs, and of coarser ones where a network in training gives them.

    Level n weighs 2^-n, divided by the sum of all. Lee et al., arXiv:1409.5185; the weights are nnU-Net's,
    doi:10.1038/s41592-020-01008-z
    coarse: brings targets to the grid of outputs; as their shape says if not given
    terms:  of the loss that are learnt with the weights
    extent: mm of the images per axis, so that each level has a spacing of its own
    """
    levels = by_level(outputs)
    weights = {level: 2.0**-level for level in levels}
    losses = [
        weights[level]
        / sum(weights.values())
        * task.loss({**heads, **(terms or {})}, as_coarse(targets, heads, coarse), _spacing(heads, extent))
        for level, heads in levels.items()
    ]
    return torch.stack(losses).sum()


def by_level(outputs: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """{level: {head: output}}; level 0 is the finest. What holds for the whole image does so at every level."""
    levels: dict[int, dict[str, Tensor]] = {}
    for name, output in outputs.items():
        head, _, level = name.partition(LEVEL)
        levels.setdefault(int(level or 0), {})[head] = output
    whole = {head: output for head, output in levels.get(0, {}).items() if output.ndim == 2}
    return {level: {**whole, **heads} for level, heads in sorted(levels.items())}


def as_coarse(targets: Any, heads: Mapping[str, Tensor], coarse: Callable[..., Any] | None = None) -> Any:
    """Targets on the grid of the outputs; where these have none, as they are."""
    spatial = _spatial(heads)
    if not spatial:
        return targets
    if coarse is None:
        coarse = partial(kind_for(targets.ndim - 1, len(spatial)).coarse, spatial=tuple(targets.shape[1:]))
    return coarse(targets, wanted=spatial)


def _spatial(heads: Mapping[str, Tensor]) -> tuple[int, ...]:
    return next((tuple(one.shape[2:]) for one in heads.values() if one.ndim > 2), ())


def _spacing(heads: Mapping[str, Tensor], extent: Sequence[float]) -> tuple[float, ...] | None:
    """mm per axis of dense outputs; None where there are none, or nobody knows."""
    return tuple(side / size for side, size in zip(extent, _spatial(heads), strict=False)) or None
