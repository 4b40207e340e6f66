"""What is pointed at as channels of a network's input, in nnInteractive's order (arXiv:2503.08373).

Channels are arrays of NumPy in predictions, and tensors on any device in training.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.values import Array

# The mask that an earlier answer marked; a box, points and strokes inside, each followed by its counterpart outside.
PREVIOUS = 0
BOX = 1
POINT = 3
STROKE = 5
COUNT = 7
# Voxels of the network's grid from the centre of a point, and of a stroke, to where nothing is left of it.
POINT_RADIUS = 4
STROKE_RADIUS = 1


def render_box(channels: Any, low: Array, high: Array) -> None:
    """Fill the inside of a box, from edge to edge.

    channels: (7, *spatial) which are changed
    """
    starts = np.maximum(np.floor(low), 0).astype(int)
    ends = np.maximum(np.ceil(high), 0).astype(int)
    channels[(BOX, *map(slice, starts.tolist(), ends.tolist()))] = 1


def render_points(
    channels: Any, points: Array, inside: Array, *, first: int = POINT, radius: int = POINT_RADIUS
) -> None:
    """Render balls that fade from 1 at each point to nothing beyond the radius.

    points: (n, axes) indices; what lies beyond the channels is left out
    first:  the channel of points inside
    """
    centres = np.rint(np.asarray(points)).astype(int)
    size = np.array(channels.shape[1:])
    for away in reversed(range(radius + 1)):  # what is nearer overwrites what is further away
        places = centres[:, None] + _ball(away, centres.shape[1])
        within = ((places >= 0) & (places < size)).all(axis=-1)
        for channel, side in ((first, True), (first + 1, False)):
            shown = places[within & (np.asarray(inside) == side)[:, None]]
            channels[(channel, *shown.T)] = 1 - away / (radius + 1)


def render_strokes(channels: Any, voxels: Array, inside: Array) -> None:
    """Render the voxels of strokes, (n, axes), a little thicker."""
    render_points(channels, voxels, inside, first=STROKE, radius=STROKE_RADIUS)


@cache
def _ball(radius: int, axes: int) -> NDArray[np.intp]:
    """(n, axes) steps to the voxels within a radius."""
    steps = np.indices((2 * radius + 1,) * axes).reshape(axes, -1).T - radius
    return np.asarray(steps[(steps**2).sum(axis=1) <= radius**2], dtype=np.intp)
