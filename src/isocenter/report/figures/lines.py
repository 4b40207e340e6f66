"""A series as lines over its axis, one panel a channel, with bars where something is marked on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from isocenter.report.display import colours, foreground, unit_of
from isocenter.report.figures.drawing import Canvas, Ink, chart, cycle, plain, short
from isocenter.report.figures.figure import Figure
from isocenter.values import Array, Geometry, Image, Label

# More panels than these nobody reads, and a screen has no more points across.
MOST_PANELS, MOST_POINTS = 12, 2000
# What a row of bars is called, its label values, and what they mean.
Marks = tuple[str, ArrayLike, Sequence[Label]]


def traces(image: Image, marks: Sequence[Marks], title: str, *, caption: str = "") -> Figure:
    """(channels, samples) as lines; under each the marks as bars, one row below the other.

    marks: what each row of bars is called, its label values (samples,) or (1, samples), and what they mean
    """
    data = image.data[:MOST_PANELS]
    left = len(image.data) - len(data)
    sentences = [caption, f"Bars: {' above '.join(name for name, _, _ in marks)}." if marks else ""]
    sentences += [_key(marks), f"{left} more channels are not shown." if left else ""]

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A panel a channel, with the labels as bars."""
        panels = np.atleast_1d(canvas.subplots(len(data), 1, sharex=True))
        for axes, name, values in zip(panels, image.channels, data, strict=False):
            plain(axes, ink)
            put_trace(axes, image.geometry, values, cycle(ink, 1)[0])
            axes.set_ylabel(short(name, 14))
            for row, (_, marked, labels) in enumerate(reversed(marks)):
                _bars(axes, image.geometry, np.ravel(marked), labels, row)
        panels[-1].set_xlabel(unit_of(image.geometry))

    what = f"Series of {len(image.data)} channels over {image.geometry.shape[0]} samples"
    words_of_marks = f", with {' and '.join(name for name, _, _ in marks)}" if marks else ""
    size = (7.2, 1.0 + 1.3 * len(data))
    return chart(draw, title=title, caption=" ".join(filter(None, sentences)), alt=what + words_of_marks, size=size)


def put_trace(axes: Axes, grid: Geometry, values: Array, colour: str, width: float = 0.9) -> None:
    """(samples,) as a line; of more samples than a screen has points, the lowest and highest of each."""
    places = grid.to_world(np.arange(grid.shape[0])[:, None])[:, 0]
    every = -(-len(values) // MOST_POINTS)
    if every > 1:
        starts = np.arange(0, len(values), every)
        low, high = (bound.reduceat(values, starts) for bound in (np.fmin, np.fmax))
        places, values = np.repeat(places[starts], 2), np.stack([low, high], axis=1).ravel()
    axes.plot(places, values, color=colour, linewidth=width)


def _bars(axes: Axes, grid: Geometry, marked: Array, labels: Sequence[Label], row: int) -> None:
    """Along the bottom of a panel, in a row of those that lie one above the other; row: from the bottom"""
    named, step = colours(labels), grid.steps[0]
    begins = np.flatnonzero(np.diff(marked, prepend=marked[:1] - 1.0)).tolist()
    for start, stop in zip(begins, [*begins[1:], len(marked)], strict=True):
        colour = named.get(int(marked[start]))
        if colour is not None:
            first, last = sorted(grid.to_world([[start], [stop - 1]])[:, 0].tolist())
            shade = tuple(part / 255 for part in colour)
            axes.axvspan(first - step / 2, last + step / 2, 0.06 * row, 0.06 * row + 0.05, color=shade)


def _key(marks: Sequence[Marks]) -> str:
    names = dict.fromkeys(label.name for _, _, labels in marks for label in foreground(labels))
    return f"Marked: {', '.join(names)}." if names else ""
