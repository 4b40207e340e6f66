"""Outputs of the members of an ensemble for prepared cases, with their targets, so that a loss can judge them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.runtime import Inference, Network, slide, with_covariates
from isocenter.tasks import Task
from isocenter.training.data import Prepared, kind_of_all, stacked_arrays
from isocenter.training.members.weights import MemberOutputs
from isocenter.training.step import supervised, terms_of
from isocenter.values import Array, Region

if TYPE_CHECKING:
    from torch import Tensor

# Numbers of one member's outputs that are held: shares are fitted to them again and again.
MOST_NUMBERS = 2**21
# Voxels a side below which a window shows too little of shapes.
LEAST_SIDE = 16


def member_outputs(
    members: Sequence[Network], task: Task, inference: Inference, cases: Sequence[Prepared], patients: Sequence[str]
) -> MemberOutputs:
    """Each member's outputs for the same window of each case, where its structures are; for whole images of all."""
    size = window_size(task, inference, cases)
    kind = kind_of_all([case.kind for case in cases])
    outputs: list[list[Mapping[str, Array]]] = [[] for _ in members]
    targets = []
    for case in (one.in_memory for one in cases):
        image, target = case.cut(placed(case, size))
        targets.append(target)
        for of_member, member in zip(outputs, members, strict=True):
            of_member.append(outputs_of(with_covariates(member, case.context), image, task, inference))
    spatial = size or cases[0].shape
    alike = kind.alike(targets, kind.blank([case.target for case in cases], spatial))
    extent = np.mean([case.steps for case in cases], axis=0) * spatial
    judge = partial(judged, task, partial(kind.coarse, spatial=spatial), extent.tolist())
    return MemberOutputs([stacked_arrays(each) for each in outputs], stacked_arrays(alike), patients, task, judge)


def judged(
    task: Task, coarse: Callable[..., Any], extent: Sequence[float], outputs: Mapping[str, Tensor], targets: Any
) -> Tensor:
    """The task's loss of cases as they come; terms that are learnt with the weights have their first values."""
    return supervised(task, task.teaching.natural(outputs), targets, coarse, dict(terms_of(task, "cpu")), extent)


def window_size(task: Task, inference: Inference, cases: Sequence[Prepared]) -> tuple[int, ...] | None:
    """Voxels an axis of the window of each case: its window, or less of it where cases are many.

    None for whole images, where no head has numbers for every voxel.
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
    outputs: dict[str, Array] = {}
    overlap, batch = inference.overlap, inference.batch
    for region, arrays in slide(
        network, image, inference.patch, overlap=overlap, batch=batch, merge=task.decoding.merge
    ):
        for head, array in arrays.items():
            if not region:
                outputs[head] = np.asarray(array)
                continue
            whole = outputs.setdefault(head, np.zeros((len(array), *image.shape[1:]), dtype=np.float32))
            whole[(slice(None), *region)] = array
    return outputs
