"""Averages of mirrored views of a window, and of several networks; outputs that are no numbers are refused.

From NaN and infinity no answer follows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import GeometryError, OutputError, PlanError
from hilum.runtime.preprocessing.protocol import GridTrace
from hilum.runtime.windows import fixed_views
from hilum.runtime.windows.fixed_views import FixedView, FixedViews
from hilum.runtime.windows.slide import BagNetwork, Network
from hilum.tasks import properties
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import BETWEEN, EACH, WITHIN
from hilum.transforms import orient
from hilum.values import Array

if TYPE_CHECKING:
    from hilum.runtime.uncertainty.disagreement import Disagreement
    from hilum.tasks import Task


REMEDY = "Predict in float32 (--backend torch, --device cpu); if that changes nothing, the network has no answer here"


@dataclass(frozen=True)
class FiniteNetwork:
    """A network whose outputs must be finite numbers; OutputError for others.

    where: the case whose windows the network sees
    """

    network: Network
    where: str

    def __call__(self, batch: Array) -> Mapping[str, Array]:
        try:
            outputs = self.network(batch)
            check_finite(outputs, self.where)
        except OutputError as error:  # of a member, which does not know the case
            raise error.stating(where=self.where) from error
        return outputs


def check_finite(outputs: Mapping[str, Array], where: str = "network") -> None:
    """OutputError for outputs of windows, {head: (batch, ...)}, of which one value or more is not finite.

    Names with a colon are no heads: features, and what a model adds about its uncertainty.
    """
    for head, output in outputs.items():
        if ":" not in head and not is_finite(output):
            finite = np.isfinite(output)
            values = f"{finite.size - np.count_nonzero(finite)} of the {finite.size} values of {head!r}"
            kinds = "NaN" if np.isnan(output).any() else "infinite"
            raise OutputError(f"the network's outputs are not finite numbers ({values}: {kinds})", where, REMEDY)


def is_finite(output: Array) -> bool:
    """Whether all values are finite; their sum tells in one pass, unless finite values add up to more than float32."""
    with np.errstate(all="ignore"):
        total = np.sum(output, dtype=np.float32)
    return bool(np.isfinite(total)) or bool(np.isfinite(output).all())


# Several networks' outputs for one batch, and perhaps their shares, to one, in the space that a task decodes:
# `Task.average`.
Average = Callable[..., Mapping[str, Array]]

NO_MIRROR = "Predict with --no-mirror"
# Axes of a picture.
PICTURE = 2
# Under this name a network may give pooled features beside its heads, (batch, features), and under the other one the
# attention of each tile of a bag, (batch, tiles).
POOLED, ATTENTION = ":pooled", ":attention"


@dataclass(frozen=True)
class AveragedNetwork:
    """Several networks as one: the mean of what they say of each window.

    shares: how much each of them counts, together 1; None where all count alike
    differ: states the uncertainty between them beside the mean; None where nobody asks
    each:   heads of which what each of them says stays beside the mean
    """

    members: tuple[Network, ...]
    average: Average
    shares: tuple[float, ...] | None = None
    differ: Disagreement | None = None
    each: Collection[str] = ()

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array]:
        return self._mean([member(batch, *context) for member in self.members])

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, of each network."""
        return tuple(one for member in self.members for one in cast("BagNetwork", member).encoded(tiles))

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The mean of what each network says of a bag by its own features, and of the attention of each tile."""
        pairs = zip(self.members, features, strict=True)
        outputs = [cast("BagNetwork", member).pooled([own], places) for member, own in pairs]
        attention = np.average([one[ATTENTION] for one in outputs], axis=0, weights=self.shares)
        return {**self._mean(outputs), ATTENTION: attention}

    def _mean(self, outputs: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
        for output in outputs:  # a mean of probabilities hides an infinite logit
            check_finite(output)
        mean = self.average(outputs) if self.shares is None else self.average(outputs, self.shares)
        further = {} if self.differ is None else self.differ(outputs, self.shares)
        further |= {f"{head}{EACH}": np.concatenate([one[head] for one in outputs], axis=1) for head in self.each}
        # The features of several networks have no mean: those of the first stand for all.
        return {**mean, **further, **({POOLED: outputs[0][POOLED]} if POOLED in outputs[0] else {})}


def member_networks(network: Network) -> tuple[Network, ...]:
    """The networks whose outputs are averaged, or the only one."""
    return network.members if isinstance(network, AveragedNetwork) else (network,)


@dataclass(frozen=True)
class MirroredNetwork:
    """A network that sees each window as it is and mirrored, and means what it says of them all.

    axes:     of the window; every combination of them is one view
    crossing: the axis that runs between left and right; None where none of the window's does
    sides:    {head: for each output channel the one that it becomes when left and right change sides}
    offsets:  {head: how many of its last channels are a vector}, which points the other way in a mirror
    marked:   for each number of the last channel, labels that were marked before, the one that it becomes then; None
              where that channel is one of the image
    differ:   states the uncertainty between the views; None where nobody asks
    plain:    whether the outputs are those of the window as it is, and mirrors only say how uncertain these are
    views:    further views, each turned, scaled and of another gamma
    labelled: whether the last channel holds labels that were marked before
    """

    network: Network
    average: Average
    axes: tuple[int, ...]
    crossing: int | None
    sides: Mapping[str, tuple[int, ...] | None]
    offsets: Mapping[str, int] = field(default_factory=dict)
    marked: tuple[int, ...] | None = None
    differ: Disagreement | None = None
    plain: bool = False
    views: tuple[FixedView, ...] = ()
    labelled: bool = False

    def __call__(self, batch: NDArray[np.float32]) -> Mapping[str, Array]:
        mirrors = chain.from_iterable(combinations(self.axes, n) for n in range(len(self.axes) + 1))
        outputs = [self._view_outputs(batch, mirror) for mirror in mirrors]
        for view in self.views:
            changed = self.network(view.change(batch, labelled=self.labelled))
            back = {name: view.undo(one, outputs[0][name]) for name, one in changed.items() if one.ndim == batch.ndim}
            outputs.append({**changed, **back})
        mean = outputs[0] if self.plain else self.average(outputs)
        further = {
            name: averages.mean_output([one[name] for one in outputs])
            for name in outputs[0]
            if name.endswith((WITHIN, BETWEEN))
        }
        further |= {
            name: self._outputs_of_each(name, outputs) for name in outputs[0] if name.endswith(EACH) and not self.plain
        }
        return {**mean, **further, **({} if self.differ is None else self.differ(outputs))}

    def _outputs_of_each(self, name: str, outputs: Sequence[Mapping[str, Array]]) -> Array:
        """The outputs of each of several networks in the mean of all views."""
        head, arrays = name.removesuffix(EACH), [np.asarray(one[name]) for one in outputs]
        count = outputs[0][head].shape[1]
        uncertainties = [
            self.average([{**one, head: part[:, at : at + count]} for one, part in zip(outputs, arrays, strict=True)])[
                head
            ]
            for at in range(0, arrays[0].shape[1], count)
        ]
        return np.concatenate(uncertainties, axis=1)

    def _view_outputs(self, batch: NDArray[np.float32], view: tuple[int, ...]) -> dict[str, Array]:
        """The network's outputs of one view, brought back to the window as it is."""
        along = tuple(axis + 2 for axis in view)
        turned = np.flip(batch, along)
        if self.marked is not None and self.crossing in view:
            changed = np.array(self.marked, dtype=batch.dtype)[turned[:, -1:].astype(np.intp)]
            turned = np.concatenate([turned[:, :-1], changed], axis=1)
        outputs = self.network(np.ascontiguousarray(turned))
        dense = {name: np.flip(one, along) if one.ndim == batch.ndim else one for name, one in outputs.items()}
        for name, count in self.offsets.items():
            signs = np.ones(dense[name].shape[1], dtype=dense[name].dtype)
            signs[[len(signs) - count + axis for axis in view]] = -1
            dense[name] = dense[name] * signs.reshape(-1, *[1] * (batch.ndim - 2))
        if self.crossing not in view:
            return dense
        # What the mirror shows on the left lies on the right.
        return {name: one[:, self._changed_channels(name, one.shape[1])] for name, one in dense.items()}

    def _changed_channels(self, name: str, count: int) -> list[int]:
        """The channel that each becomes when left and right change sides, for one network after the other."""
        sides = list(self.sides.get(name.removesuffix(EACH)) or range(count))
        return [start + one for start in range(0, count, len(sides)) for one in sides]


def flipped_axes(
    task: Task, ndim: int, planned: Sequence[int], left_right: int | None, mirror: bool | None = None
) -> tuple[int, ...]:
    """The axes along which windows are also seen mirrored.

    planned: by the plan, and followed unless a person says otherwise
    mirror:  True mirrors also where nothing was planned, across left and right; False never does
    Raises PlanError where what would be seen is not true to anatomy.
    """
    if mirror is False or not (planned or mirror):
        return ()
    if not planned and ndim == PICTURE and properties.picks_a_side(task):
        problem = "the classes are sides, and a picture in the mirror would be of the other one without being it"
        raise PlanError(problem, "--mirror", NO_MIRROR)
    axes = tuple(planned) or (() if left_right is None else (left_right,))
    if not axes:
        problem = "the model does not know which axis runs from left to right, so it cannot mirror"
        raise PlanError(problem, "--mirror", "Predict without it, or set inference.left_right in the plan")
    orient.check_flips("inference", axes, left_right, mirrored=task.channels_when_mirrored, ndim=ndim, remedy=NO_MIRROR)
    return axes


def mirror_views(
    network: Network,
    task: Task,
    axes: tuple[int, ...],
    trace: GridTrace,
    left_right: int | None,
    *,
    labelled: bool = False,
    differ: Disagreement | None = None,
    plain: bool = False,
    views: FixedViews,
) -> Network:
    """The network with views mirrored along these axes and further views, for the image that the trace is of.

    left_right: the axis of the network's grid that the model was planned for
    labelled:   whether the last channel holds numbers of the task's labels
    differ, plain: as in `MirroredNetwork`
    Raises GeometryError for an image with which that would not be true to anatomy.
    """
    fixed_views.refuse_views(task, views.count)
    if not (axes or views.count):
        return network
    crossing, sides = _crossing_axis(trace, left_right), task.channels_when_mirrored
    if crossing in axes and sides is None:
        raise GeometryError(
            "mirroring crosses from left to right, and a label names a side and has no counterpart on the other",
            "mirroring",
            NO_MIRROR,
        )
    offsets = {name: head.offsets for name, head in task.heads.items() if head.offsets}
    numbers = sides if labelled and orient.names_sides(sides) else None
    scaled = not any(head.holds_numbers for head in task.heads.values())  # a size may be the answer
    further = views.of_grid(trace.voxel_steps, scaled=scaled) if views.count else ()
    channels = properties.mirrored_channels(task)
    return MirroredNetwork(
        network, task.average, axes, crossing, channels, offsets, numbers, differ, plain, further, labelled
    )


def _crossing_axis(trace: GridTrace, left_right: int | None) -> int | None:
    """The axis of the network's grid that runs from left to right in this image; None where none does.

    An image that states its sides knows; of a picture the model's own word is taken.
    """
    source = trace.source
    if source.ndim < 3:
        return left_right
    if not source.oriented:  # no label names a side: `run_pipeline` refuses the others
        return None
    # The canonical order begins with the axis from left to right, unless that is the one of the single slice.
    return None if trace.squeezed is not None and trace.squeezed == source.to_canonical[0][0] else 0
