"""Fixed views of a window: turned, scaled and of another gamma; what the network says of them is brought back.

Like mirrored views they show what training has shown, and the mean of several errs less: Wang et al., Neurocomputing
2019, doi:10.1016/j.neucom.2019.01.103. NumPy and SciPy only: a packaged model carries a copy of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.errors import PlanError
from hilum.lazy import ndimage
from hilum.tasks import properties
from hilum.transforms import augment_spatial
from hilum.values import Array, Floats

if TYPE_CHECKING:
    from hilum.tasks import Task

# Views are scaled by at most this share.
SCALE = 0.1
# A sequence that fills five dimensions evenly: powers of the inverse root of x^6 = x + 1.
EVENLY = 1.1347241384015194 ** -np.arange(1.0, 6.0)


@dataclass(frozen=True, eq=False)
class FixedView:
    """One changed view of windows.

    matrix: (axes, axes) from a voxel's place about the centre of the view to its place in the window
    gamma:  exponent on each channel's own range
    """

    matrix: Floats
    gamma: float

    def change(self, batch: NDArray[np.float32], *, labelled: bool) -> NDArray[np.float32]:
        """(batch, channels, *spatial) windows as this view has them; labelled: the last channel is one of labels."""
        images, axes = batch[:, : batch.shape[1] - labelled], tuple(range(2, batch.ndim))
        low = images.min(axis=axes, keepdims=True)
        width = np.maximum(images.max(axis=axes, keepdims=True) - low, 1e-6)
        changed = _moved(((images - low) / width).clip(0, 1) ** self.gamma * width + low, self.matrix)
        labels = _moved(batch[:, images.shape[1] :], self.matrix, order=0)
        return np.concatenate([changed, labels], axis=1, dtype=np.float32)

    def undo(self, output: Array, plain: Array) -> Array:
        """(batch, channels, *spatial) outputs where the window has its voxels; plain ones where the view has none."""
        back = _moved(np.asarray(output), np.linalg.inv(self.matrix), mode="constant")
        return np.where(np.isnan(back), plain, back)


def _moved(
    arrays: Array, matrix: Floats, order: Literal[0, 1] = 1, mode: Literal["nearest", "constant"] = "nearest"
) -> Array:
    """(batch, channels, *spatial) read at other places; of the mode "constant" there is NaN beyond the edge."""
    centre, moved = (np.array(arrays.shape[2:]) - 1) / 2, np.empty_like(arrays)
    offset = centre - matrix @ centre
    for place in np.ndindex(arrays.shape[:2]):
        ndimage.affine_transform(
            arrays[place], matrix, offset, output=moved[place], order=order, mode=mode, cval=np.nan
        )
    return moved


@dataclass(frozen=True)
class FixedViews:
    """How many views a network sees beside a window and its mirror images: pairs of a change and its opposite.

    turn:  degrees, at most, about each axis; slices that lie far apart are turned in their planes
    gamma: the exponent reaches 1 + gamma and its inverse
    """

    count: int = 0
    turn: float = 0.0
    gamma: float = 0.0

    def of_grid(self, steps: Floats, *, scaled: bool) -> tuple[FixedView, ...]:
        """The views of windows of a grid.

        steps:  length of a voxel per axis; scaled: whether views may have another size
        """
        still, views = augment_spatial.thick_axes(np.asarray(steps, np.float64)), list[FixedView]()
        in_planes = ~augment_spatial.out_of_plane_turns(still)
        for number in range(self.count):
            amounts = (2 * ((0.5 + (number // 2 + 1) * EVENLY) % 1) - 1) * (-1) ** number
            turn = augment_spatial.rotation_matrix(np.deg2rad(self.turn) * amounts[:3] * in_planes, len(steps))
            matrix = turn @ np.diag(np.where(still, 1, 1 + SCALE * scaled * amounts[3]))
            views.append(FixedView(matrix * steps / steps[:, None], float((1 + self.gamma) ** amounts[4])))
        return tuple(views)


def refuse_views(task: Task, count: int) -> None:
    """PlanError for views of what is no answer for the whole image and no mask, or where an answer has a side."""
    heads, sided = task.heads.values(), properties.sided_labels(task)
    plain = all(head.is_vector or (properties.states_voxels(head) and not head.turns) for head in heads)
    if count and (sided or task.takes_prompts or not plain):
        why = f"{sided[0]!r} has a side" if sided else f"a {task.name} answers otherwise than for images or by masks"
        raise PlanError(f"views are turned and scaled, and {why}", "inference.views", "Set inference.views=0")
