"""Models that differ in grid, windows or family as one: the mean of their outputs on the image's own grid.

Each sees the image in its own way. Their outputs come back row after row, and of each model only those rows are held
that the slowest one has not reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hilum.runtime.preprocessing.protocol import GridTrace
from hilum.runtime.windows import pipeline
from hilum.runtime.windows.pipeline import OpenedImage, Receiver, WindowsDone
from hilum.values import Array, Prediction, Region, Slabs

if TYPE_CHECKING:
    from hilum.runtime.uncertainty.disagreement import Disagreement
    from hilum.runtime.windows.slide import Progress
    from hilum.tasks import Task
    from hilum.tasks.shared.averages import Shares

# Rows along an axis, and {head: (channels, *column)} their outputs.
Rows = tuple[slice, Mapping[str, Array]]


@dataclass(frozen=True, eq=False)
class MeanOfMembers:
    """The mean of several models' outputs, which one task decodes.

    shares: how much each counts, in sum 1; None where all count alike
    differ: states the uncertainty between them beside the mean; None where nobody asks
    """

    task: Task
    shares: Shares = None
    differ: Disagreement | None = None

    def __call__(self, outputs: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """{head: (channels, ...)} of each, of the same part of the image, to that of all."""
        heads = [{name: np.asarray(array, np.float32)[None] for name, array in one.items()} for one in outputs]
        mean = self.task.average_members(heads, self.shares)
        further = {} if self.differ is None else self.differ(heads, self.shares)
        return {name: np.asarray(array)[0] for name, array in {**mean, **further}.items()}


def predict_members(
    seen: Sequence[OpenedImage],
    mean: MeanOfMembers,
    *,
    progress: Progress | None = None,
    receiver: Receiver | None = None,
    region: Region | None = None,
) -> Prediction:
    """Return the result on the image's own grid; seen: the image, as each of them sees it.

    progress, receiver, region: as of `pipeline.run_pipeline`
    """
    traces = [one.trace.by_slices() if isinstance(one.trace, GridTrace) else one.trace for one in seen]
    seen = [replace(one, trace=trace).in_time(region) for one, trace in zip(seen, traces, strict=True)]
    count = sum(one.window_count(region) for one in seen)
    done = WindowsDone(progress, count, seen[0].where, seen[0].windows.at_most)
    if mean.task.member_settings:
        each = [pipeline.decode_slabs(one.slabs(region, done), one.task, [one], None, region) for one in seen]
        fused = mean.task.fuse(each, mean.shares)
        return replace(fused, notes=tuple(dict.fromkeys(note for one in each for note in one.notes)))
    return pipeline.decode_slabs(_mean_slabs(seen, mean, region, done), mean.task, seen, receiver, region)


def _mean_slabs(seen: Sequence[OpenedImage], mean: MeanOfMembers, region: Region | None, done: WindowsDone) -> Slabs:
    shape = seen[0].image.geometry.shape
    axis = next((axis for one in seen if (axis := _walked_axis(one)) is not None), len(shape) - 1)
    columns = _common_columns(seen, region or tuple(slice(0, size) for size in shape), axis)
    vectors: list[dict[str, Array]] = [{} for _ in seen]
    for column in columns:
        asked = None if region is None and len(columns) == 1 else column
        pairs = zip(seen, vectors, strict=True)
        streams = [_member_rows(one, asked, column, axis, vector, done) for one, vector in pairs]
        for rows, outputs in _rows_in_step(streams, axis):
            yield (*column[:axis], rows, *column[axis + 1 :]), mean(outputs)
    if any(vectors):
        yield (), mean(vectors)


def _common_columns(seen: Sequence[OpenedImage], region: Region, axis: int) -> list[Region]:
    """Parts of a region of the image's grid, as few as there may be, that no member has to cut further."""
    sizes = [0 if one == axis else part.stop - part.start for one, part in enumerate(region)]
    longest = int(np.argmax(sizes))
    if sizes[longest] < 2 or all(len(one.parts(region)) <= 1 for one in seen):
        return [region]
    part = region[longest]
    middle = (part.start + part.stop) // 2
    halves = [slice(part.start, middle), slice(middle, part.stop)]
    pieces = [(*region[:longest], half, *region[longest + 1 :]) for half in halves]
    return [column for piece in pieces for column in _common_columns(seen, piece, axis)]


def _walked_axis(seen: OpenedImage) -> int | None:
    """The axis of the image's grid along which outputs come row after row from its beginning; None where none is."""
    trace = seen.trace
    if not isinstance(trace, GridTrace) or len(trace.sizes) > trace.source.ndim:
        return None
    walk = trace.slice_order
    remaining = [axis for axis in range(trace.source.ndim) if axis != trace.squeezed]
    return remaining[trace.axes[walk.axis]] if trace.flips[walk.axis] == walk.backwards else None


def _member_rows(
    seen: OpenedImage, asked: Region | None, column: Region, axis: int, vector: dict[str, Array], done: WindowsDone
) -> Iterator[Rows]:
    """All rows of a column in order; background where the member sees nothing, as beside what it crops to.

    What comes in another order, as of a picture, is held until it is whole. vector: takes outputs for the whole image
    """
    heads = [name for name, head in seen.task.heads.items() if head.is_dense]
    in_order = _walked_axis(seen) == axis and len(seen.parts(asked)) <= 1

    def blank(rows: slice) -> dict[str, Array]:
        """Outputs of which nothing is known."""
        sizes = [part.stop - part.start for part in (*column[:axis], rows, *column[axis + 1 :])]
        surely = {name: np.asarray(seen.task.background_outputs[name], dtype=np.float32) for name in heads}
        return {name: np.multiply.outer(one, np.ones(sizes, np.float32)) for name, one in surely.items()}

    place, whole = column[axis].start, None if in_order or not heads else blank(column[axis])
    for region, arrays in seen.slabs(asked, done):
        if not region:
            vector |= {name: np.asarray(array) for name, array in arrays.items() if ":" not in name}  # no features
            continue
        rows = column[axis] if whole is not None else region[axis]
        if whole is None:
            yield from ((slice(row, row + 1), blank(slice(row, row + 1))) for row in range(place, rows.start))
        starts = [part.start for part in (*column[:axis], rows, *column[axis + 1 :])]
        inside = [slice(part.start - start, part.stop - start) for part, start in zip(region, starts, strict=True)]
        target = blank(rows) if whole is None else whole
        for name in heads:
            target[name][(slice(None), *inside)] = np.asarray(arrays[name])
        if whole is None:
            yield rows, target
            place = rows.stop
    if whole is not None:
        yield column[axis], whole
    elif heads:
        yield from ((slice(row, row + 1), blank(slice(row, row + 1))) for row in range(place, column[axis].stop))


def _rows_in_step(streams: Sequence[Iterator[Rows]], axis: int) -> Iterator[tuple[slice, list[Mapping[str, Array]]]]:
    """The rows that all streams have, with what each has of them; each gives as many at a time as it will."""
    held = [next(stream, None) for stream in streams]
    while current := [one for one in held if one is not None]:
        place, stop = max(rows.start for rows, _ in current), min(rows.stop for rows, _ in current)
        insides = [(*[slice(None)] * (axis + 1), slice(place - rows.start, stop - rows.start)) for rows, _ in current]
        parts = zip(current, insides, strict=True)
        yield slice(place, stop), [{name: array[inside] for name, array in one.items()} for (_, one), inside in parts]
        held = [
            next(stream, None) if one[0].stop == stop else one for stream, one in zip(streams, current, strict=True)
        ]
