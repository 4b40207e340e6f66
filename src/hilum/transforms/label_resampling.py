"""Resampling of labels, and of network outputs on demand.

Sums are made only where neighbours disagree: the largest class of outputs needs no resampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.transforms import resampling
from hilum.transforms.resampling import Taps

# Summed at a time, to stay in the cache: one number for each (voxel, old neighbour), or one for each class of these.
SUMMED = 2**16
SCORES_SUMMED = 2**20
# Votes are counted in whole parts of this: products over three axes are exact in float64, and so are ties.
PARTS = 2**16
# Going down, a label's share is that of the new voxel alone: a kernel that reaches into the next ones, as intensities
# need it, would take away what is one new voxel thin. Down to half the size it is plain linear interpolation.
OWN_VOXEL = 0.5
# A table of votes is as long as the labels' span; beyond this they are numbered first.
WIDEST_SPAN = 2**9

# (voxels, neighbours) places of old voxels, and the weight of each, to (voxels,) what wins.
Decide = Callable[[NDArray[np.intp], NDArray[np.float64]], NDArray[Any]]
# (new, count) weights of an axis to those that are multiplied with the other axes'.
Weigh = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def resample_labels(labels: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """(*spatial) whole numbers to (*shape): at each voxel the label with the largest share; of equals the highest."""
    if tuple(shape) == labels.shape:
        return labels
    lowest = int(labels.min())
    span = int(labels.max()) - lowest + 1
    steps = [label_taps(old, new) for old, new in zip(labels.shape, shape, strict=True)]
    chosen = np.empty(shape, dtype=labels.dtype)
    for rows, step, near in resampling.split_into_slabs(steps[0], math.prod(shape[1:])):
        part: NDArray[Any] = labels[near] if lowest == 0 else labels[near].astype(np.int64) - lowest
        part = part.astype(np.min_scalar_type(span))  # one value is left over, for voxels whose neighbours differ
        won = _decide(part, [step, *steps[1:]], _by_votes(part.ravel(), span), _in_parts, SUMMED)
        chosen[rows] = won if lowest == 0 else won.astype(np.int64) + lowest
    return chosen


def label_taps(old: int, new: int) -> Taps:
    """The taps of one axis along which labels are brought from `old` voxels to `new` ones."""
    return resampling.axis_taps(old, new, widening=OWN_VOXEL)


def vote_on_slab(labels: NDArray[np.unsignedinteger[Any]], steps: Sequence[Taps]) -> NDArray[np.integer]:
    """The same for a part: an axis of `labels` (*spatial) for each of the steps, which `label_taps` made."""
    span = int(labels.max()) + 1
    part = labels.astype(np.min_scalar_type(span))  # one value is left over, for voxels whose neighbours differ
    return _decide(part, steps, _by_votes(part.ravel(), span), _in_parts, SUMMED)


def resample_largest(scores: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.integer]:
    """(classes, *spatial) scores to (*shape): the number of the class whose resampled score is the largest.

    The same as `resample(scores, shape).argmax(axis=0)`, but for what rounding makes of equals.
    """
    steps = [resampling.axis_taps(old, new) for old, new in zip(scores.shape[1:], shape, strict=True)]
    chosen = np.empty(shape, dtype=np.min_scalar_type(len(scores)))
    for rows, step, near in resampling.split_into_slabs(steps[0], math.prod(shape[1:])):
        chosen[rows] = largest_on_slab(scores[:, near], [step, *steps[1:]])
    return chosen


def largest_on_slab(scores: NDArray[np.float32], steps: Sequence[Taps]) -> NDArray[np.integer]:
    """The same for one slab: an axis of `scores` (classes, *spatial) for each of the steps, no weight below 0."""
    kind = np.result_type(*(step.weight for step in steps))
    return _decide(
        argmax_of_classes(scores), steps, _by_scores(scores, kind), _as_they_are, SCORES_SUMMED // len(scores)
    )


def argmax_of_classes(scores: NDArray[Any]) -> NDArray[np.integer]:
    """(classes, *spatial) to (*spatial), of equals the first; several times quicker than NumPy's along a first axis."""
    most = np.array(scores[0])
    winner = np.zeros(most.shape, dtype=np.min_scalar_type(len(scores)))
    higher = np.empty(most.shape, dtype=bool)
    for number, score in enumerate(scores[1:], start=1):
        np.greater(score, most, out=higher)
        np.copyto(most, score, where=higher)
        np.copyto(winner, winner.dtype.type(number), where=higher)
    return winner


def _decide(
    labels: NDArray[np.integer], steps: Sequence[Taps], decide: Decide, weigh: Weigh, pairs: int
) -> NDArray[np.integer]:
    """(*new) labels: the one that all neighbours share, else what `decide` says.

    pairs: of a voxel and a neighbour, at most so many at a time
    """
    mixed = np.iinfo(labels.dtype).max
    agreed = _agree(labels, steps, mixed)
    flat = agreed.reshape(-1)
    where = np.flatnonzero(flat == mixed)
    count = max(1, pairs // math.prod(step.index.shape[1] for step in steps))
    for start in range(0, len(where), count):
        chosen = where[start : start + count]
        flat[chosen] = decide(*_neighbours(np.unravel_index(chosen, agreed.shape), labels.shape, steps, weigh))
    return agreed


def _agree(labels: NDArray[np.integer], steps: Sequence[Taps], mixed: int) -> NDArray[np.integer]:
    """The label that all old voxels of a new one share, `mixed` where they differ; an axis at a time."""
    # The axis that shrinks most goes first: every later one has less to do.
    for axis in sorted(range(len(steps)), key=lambda axis: len(steps[axis].index) / labels.shape[axis]):
        first, *others = steps[axis].index.T
        shared = labels.take(first, axis)
        for index in others:
            np.copyto(shared, mixed, where=shared != labels.take(index, axis))
        labels = shared
    return np.ascontiguousarray(labels)


def _neighbours(
    voxels: Sequence[NDArray[np.intp]], shape: tuple[int, ...], steps: Sequence[Taps], weigh: Weigh
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(voxels, neighbours) places in the flattened old grid, and their weights."""
    positions = np.zeros((len(voxels[0]), 1), np.intp)
    weight = np.ones((len(voxels[0]), 1))
    for voxel, size, step in zip(voxels, shape, steps, strict=True):
        index = step.index[voxel]
        parts = weigh(step.weight)[voxel]
        positions = (positions[:, :, None] * size + index[:, None]).reshape(len(voxel), -1)
        weight = (weight[:, :, None] * parts[:, None]).reshape(len(voxel), -1)
    return positions, weight


def _in_parts(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Weights as whole numbers that sum to `PARTS` a row."""
    parts = np.rint(weight.astype(np.float64) * PARTS)
    parts[np.arange(len(parts)), parts.argmax(axis=1)] += PARTS - parts.sum(axis=1)
    return parts


def _as_they_are(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    return weight.astype(np.float64)


def _by_votes(labels: NDArray[Any], count: int) -> Decide:
    """Each neighbour votes for its label with its weight."""

    def decide(index: NDArray[np.intp], weight: NDArray[np.float64]) -> NDArray[Any]:
        """The labels with the most votes."""
        ballots = labels[index].astype(np.intp)
        values = None
        if count > WIDEST_SPAN:
            values, ballots = np.unique(ballots, return_inverse=True)
        length = count if values is None else len(values)
        ballot = ballots.reshape(index.shape) + np.arange(len(index))[:, None] * length
        votes = np.bincount(ballot.ravel(), weight.ravel(), len(index) * length)
        # Of equal shares the highest label's: what is half a structure stays one, as nnU-Net has it.
        winner = length - 1 - votes.reshape(-1, length)[:, ::-1].argmax(axis=1)
        return cast("NDArray[Any]", winner if values is None else values[winner])

    return decide


def _by_scores(scores: NDArray[np.float32], kind: np.dtype[Any]) -> Decide:
    """The classes' scores are summed over the neighbours, in numbers of this kind."""
    # A neighbour's scores lie together: it is them that are fetched from all over the slab.
    rows = np.ascontiguousarray(scores.reshape(len(scores), -1).T)

    def decide(index: NDArray[np.intp], weight: NDArray[np.float64]) -> NDArray[Any]:
        """The classes with the highest sums of scores."""
        sums = np.matmul(weight.astype(kind)[:, None], rows[index])
        return cast("NDArray[Any]", sums[:, 0].astype(scores.dtype, copy=False).argmax(axis=1))

    return decide


@dataclass(frozen=True, eq=False)
class StretchedOutputs:
    """(classes, *spatial) outputs that are resampled only when NumPy asks for them; a part or another view is one too.

    scores: on the old grid
    steps:  of each of its spatial axes onto the new one; None where the axis stays
    order:  in which these axes are resampled, so that the smaller arrays come first
    then:   what becomes of each number afterwards, growing with it: the largest stays the largest; None: nothing
    Weights in double precision are summed in it.
    """

    scores: NDArray[np.float32]
    steps: tuple[Taps | None, ...]
    order: tuple[int, ...]
    then: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(classes, *spatial) on the new grid."""
        sizes = zip(self.scores.shape[1:], self.steps, strict=True)
        return (len(self.scores), *(size if step is None else len(step.index) for size, step in sizes))

    @property
    def ndim(self) -> int:
        """Axes, the classes among them."""
        return self.scores.ndim

    def __getitem__(self, key: tuple[slice, ...]) -> StretchedOutputs:
        """A part: slices of the new grid, all classes, as `[:, rows, ...]`."""
        classes, *parts = key
        if classes != slice(None):
            raise IndexError("outputs are taken apart by place alone")
        parts += [slice(None)] * (len(self.steps) - len(parts))
        steps = tuple(None if step is None else step.part(part) for step, part in zip(self.steps, parts, strict=True))
        full_parts = [part if step is None else slice(None) for step, part in zip(self.steps, parts, strict=True)]
        return replace(self, scores=self.scores[(slice(None), *full_parts)], steps=steps)

    def transpose(self, *axes: Any) -> StretchedOutputs:
        """The same with its spatial axes in another order, in NumPy's notation."""
        first, *others = axes[0] if len(axes) == 1 else axes
        if first != 0:
            raise ValueError("the classes stay in front")
        moved = [axis - 1 for axis in others]
        order = tuple(moved.index(axis) for axis in self.order)
        steps = tuple(self.steps[axis] for axis in moved)
        return replace(self, scores=self.scores.transpose(0, *others), steps=steps, order=order)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        kind = np.result_type(self.scores, *(step.weight for step in self.steps if step is not None))
        array: NDArray[Any] = self.scores.astype(kind, copy=False)
        for axis in self.order:
            if (step := self.steps[axis]) is not None:
                array = np.asarray(resampling.resample_axis(array, axis + 1, step))
        array = array.astype(self.scores.dtype, copy=False)
        if self.then is not None:
            array = self.then(array)
        return array.astype(dtype or array.dtype, copy=bool(copy))

    def largest(self) -> NDArray[np.integer]:
        """(*spatial) which class has the largest output."""
        if any(step is not None and (step.weight < 0).any() for step in self.steps):
            return argmax_of_classes(
                np.asarray(self)
            )  # a mean with negative weights can lie above all that it is a mean of
        sizes = zip(self.scores.shape[1:], self.steps, strict=True)
        return largest_on_slab(self.scores, [_staying(size) if step is None else step for size, step in sizes])


def winning_classes(outputs: Any) -> NDArray[np.integer]:
    """(classes, *spatial) outputs, resampled or yet to be, to (*spatial): the number of the largest, else the first."""
    return outputs.largest() if isinstance(outputs, StretchedOutputs) else argmax_of_classes(np.asarray(outputs))


def axes_by_growth(sizes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Axes of (old, new) sizes: those that shrink most come first."""
    return tuple(sorted(range(len(sizes)), key=lambda axis: sizes[axis][1] / sizes[axis][0]))


def _staying(size: int) -> Taps:
    return Taps(np.arange(size)[:, None], np.ones((size, 1), np.float32))
