"""What the members of an ensemble say of prepared cases, beside their targets, so that a loss can judge it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.runtime import Inference, Network, slide, with_covariates
from isocenter.tasks import Task
from isocenter.training.data import Prepared, kind_of_all
from isocenter.training.members.weights import Answers
from isocenter.training.step import supervised, terms_of
from isocenter.values import Array, Region

if TYPE_CHECKING:
    from torch import Tensor

# Numbers of one member's outputs that are held: shares are fitted to them again and again.
MOST_NUMBERS = 2**21
# Voxels a side below which a window says too little about shapes.
LEAST_SIDE = 16


def heard(
    members: Sequence[Network], task: Task, inference: Inference, cases: Sequence[Prepared], patients: Sequence[str]
) -> Answers:
    """Each member's outputs for the same window of each case, where its structures are; for whole images of all."""
    size = window_size(task, inference, cases)
    kind = kind_of_all([case.kind for case in cases])
    outputs: list[list[Mapping[str, Array]]] = [[] for _ in members]
    targets = []
    for case in (one.in_memory for one in cases):
        image, target = case.cut(placed(case, size))
        targets.append(target)
        for said, member in zip(outputs, members, strict=True):
            said.append(outputs_of(with_covariates(member, case.context), image, task, inference))
    spatial = size or cases[0].shape
    alike = kind.alike(targets, kind.blank([case.target for case in cases], spatial))
    judge = partial(judged, task, partial(kind.coarse, spatial=spatial))
    return Answers([_stacked(said) for said in outputs], _stacked(alike), patients, task, judge)


def judged(task: Task, coarse: Callable[..., Any], outputs: Mapping[str, Tensor], targets: Any) -> Tensor:
    """The task's loss; terms that training learnt beside the weights are what they began as, alike for all members."""
    return supervised(task, outputs, targets, coarse, dict(terms_of(task, "cpu")))


def window_size(task: Task, inference: Inference, cases: Sequence[Prepared]) -> tuple[int, ...] | None:
    """Voxels an axis of what is looked at of each case: its window, or less of it where cases are many.

    None for whole images, where no answer is given voxel by voxel.
    """
    channels = sum(head.count for head in task.heads.values() if head.is_dense)
    if not channels:
        return None
    size = [min(n, *(case.shape[axis] for case in cases)) for axis, n in enumerate(inference.patch)]
    while channels * math.prod(size) * len(cases) > MOST_NUMBERS and max(size) >= 2 * LEAST_SIDE:
        size[size.index(max(size))] //= 2
    return tuple(size)


def placed(case: Prepared, size: Sequence[int] | None) -> Region:
    """Where such a window lies in a case: about the middle of its structures, of the image where it has none."""
    if size is None:
        return tuple(slice(0, n) for n in case.shape)
    known = [one for one in case.positions if len(one)]
    middle = np.median(np.concatenate(known), axis=0) if known else np.asarray(case.shape) / 2
    room = np.asarray(case.shape) - np.asarray(size)
    start = np.clip((middle - np.asarray(size) / 2).astype(int), 0, room)
    return tuple(slice(int(s), int(s) + n) for s, n in zip(start, size, strict=True))


def outputs_of(network: Network, image: Array, task: Task, inference: Inference) -> dict[str, Array]:
    """{head: (channels, *spatial) or (channels,)} of (channels, *spatial), its windows joined."""
    found: dict[str, Array] = {}
    overlap, batch = inference.overlap, inference.batch
    for region, arrays in slide(network, image, inference.patch, overlap=overlap, batch=batch, merge=task.merge):
        for head, array in arrays.items():
            if not region:
                found[head] = np.asarray(array)
                continue
            whole = found.setdefault(head, np.zeros((len(array), *image.shape[1:]), dtype=np.float32))
            whole[(slice(None), *region)] = array
    return found


def _stacked(arrays: Sequence[Any]) -> Any:
    """A batch of them, by name where each is several."""
    if isinstance(arrays[0], Mapping):
        return {name: _stacked([one[name] for one in arrays]) for name in arrays[0]}
    return np.stack(arrays)
