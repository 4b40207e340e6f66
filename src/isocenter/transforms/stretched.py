"""Network outputs that are resampled only on demand; their largest class needs no resampling.

This file needs NumPy alone, so that a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.transforms.labels import best, largest
from isocenter.transforms.resampling import Taps, along


@dataclass(frozen=True, eq=False)
class Stretched:
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

    def __getitem__(self, key: tuple[slice, ...]) -> Stretched:
        """A part: slices of the new grid, all classes, as `[:, rows, ...]`."""
        classes, *parts = key
        if classes != slice(None):
            raise IndexError("outputs are taken apart by place alone")
        parts += [slice(None)] * (len(self.steps) - len(parts))
        steps = tuple(None if step is None else step.part(part) for step, part in zip(self.steps, parts, strict=True))
        whole = [part if step is None else slice(None) for step, part in zip(self.steps, parts, strict=True)]
        return replace(self, scores=self.scores[(slice(None), *whole)], steps=steps)

    def transpose(self, *axes: Any) -> Stretched:
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
        made: NDArray[Any] = self.scores.astype(kind, copy=False)
        for axis in self.order:
            if (step := self.steps[axis]) is not None:
                made = np.asarray(along(made, axis + 1, step))
        made = made.astype(self.scores.dtype, copy=False)
        if self.then is not None:
            made = self.then(made)
        return made.astype(dtype or made.dtype, copy=bool(copy))

    def largest(self) -> NDArray[np.integer]:
        """(*spatial) which class has the largest output."""
        if any(step is not None and (step.weight < 0).any() for step in self.steps):
            return best(np.asarray(self))  # a mean with negative weights can lie above all that it is a mean of
        sizes = zip(self.scores.shape[1:], self.steps, strict=True)
        return largest(self.scores, [_staying(size) if step is None else step for size, step in sizes])


def winners(outputs: Any) -> NDArray[np.integer]:
    """(classes, *spatial) outputs, resampled or yet to be, to (*spatial): the number of the largest, else the first."""
    return outputs.largest() if isinstance(outputs, Stretched) else best(np.asarray(outputs))


def growing(sizes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Axes of (old, new) sizes: those that shrink most come first."""
    return tuple(sorted(range(len(sizes)), key=lambda axis: sizes[axis][1] / sizes[axis][0]))


def _staying(size: int) -> Taps:
    return Taps(np.arange(size)[:, None], np.ones((size, 1), np.float32))
