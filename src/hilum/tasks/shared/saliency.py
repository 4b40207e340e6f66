"""The scalar that an explanation explains: what a target's name stands for among a network's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hilum import errors
from hilum.errors import UsageError
from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FLAG = "--target"


def place_of_target(target: str, names: Sequence[str]) -> int:
    """The place of a target among those that there are; UsageError for any other."""
    if target not in names:
        raise UsageError(f"there is no target {target!r}", FLAG, f"Choose auto or one of {errors.list_phrase(names)}")
    return list(names).index(target)


def target_logit(logits: Tensor, names: Sequence[str], target: str | None) -> Tensor:
    """(batch,) the logit of a target, without one the largest; logits: (batch, names)"""
    return logits.amax(dim=-1) if target is None else logits[:, place_of_target(target, names)]


def mean_marked_logit(logits: Tensor, rest: Tensor) -> Tensor:
    """(batch,) mean logit of the voxels that have more of it than of the rest; of none, the logit that comes nearest.

    logits, rest: (batch, *spatial)
    """
    flat = logits.flatten(1)
    ahead = (logits - rest).flatten(1)
    nearest = torch.nn.functional.one_hot(ahead.argmax(dim=1), flat.shape[1]).bool()
    marked = torch.where((ahead > 0).any(dim=1, keepdim=True), ahead > 0, nearest).to(flat.dtype)
    return (flat * marked).sum(dim=1) / marked.sum(dim=1)


def structure_logit(logits: Tensor, names: Sequence[str], target: str | None, *, exclusive: bool) -> Tensor:
    """(batch,) mean logit of what is marked as the target, without one as any structure.

    logits:    (batch, channels, *spatial), of exclusive labels with the background first
    exclusive: whether the largest logit wins; else each that is above 0 does
    """
    index = None if target is None else place_of_target(target, names)
    first = 1 if exclusive else 0
    logit = logits[:, first:].amax(dim=1) if index is None else logits[:, first + index]
    if not exclusive:
        return mean_marked_logit(logit, torch.zeros_like(logit))
    others = [n for n in range(logits.shape[1]) if n != (0 if index is None else first + index)]
    rest = logits[:, 0] if index is None else logits[:, others].amax(dim=1)
    return mean_marked_logit(logit, rest)


def peak_logit(logits: Tensor, rank: int) -> Tensor:
    """(batch,) the logit of the peak of this rank, counted from 1; of fewer peaks the last one's.

    logits: (batch, classes, *spatial); a peak is no lower than its neighbours of the same class
    """
    pool = {1: torch.nn.functional.max_pool1d, 2: torch.nn.functional.max_pool2d, 3: torch.nn.functional.max_pool3d}
    around = pool[logits.ndim - 2](logits, 3, stride=1, padding=1)
    peaks = logits.where(logits == around, logits.new_tensor(-torch.inf)).flatten(1)
    best = peaks.topk(min(rank, peaks.shape[1]), dim=1).values
    voxels = torch.isfinite(best).sum(dim=1, keepdim=True) - 1
    return best.gather(1, voxels)[:, 0]
