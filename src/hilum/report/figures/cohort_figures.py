"""Charts of a data set: the flow of its cases as boxes, how many of each class, how bright each image.

The flow shows what was found, what was left out, and the parts that remain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.report.display import Ink
from hilum.report.figures import drawing
from hilum.report.figures.drawing import Canvas
from hilum.report.page_blocks import Figure

HEIGHT, GAP = 0.55, 0.4  # of a box and between boxes, in inches


def flow_of_cases(steps: Sequence[tuple[str, str]], parts: Sequence[str], title: str, *, caption: str = "") -> Figure:
    """Boxes from top to bottom, what leaves at each to its right, and the parts side by side at the foot.

    steps: (text of the box, text of what leaves after it, or nothing)
    parts: texts of the last boxes
    """
    rows = len(steps) + bool(parts)
    width, height = 7.0, rows * HEIGHT + (rows - 1) * GAP + 0.2

    def draw(canvas: Canvas, ink: Ink) -> None:
        axes = canvas.subplots()
        axes.set_xlim(0, width)
        axes.set_ylim(-height, 0.1)
        axes.set_axis_off()
        centre, wide = width * 0.36, 3.2
        for index, (text, leaving) in enumerate(steps):
            top = -index * (HEIGHT + GAP)
            _box(axes, ink, centre, top, wide, text)
            below = top - HEIGHT - GAP
            if index + 1 < len(steps):
                _arrow(axes, ink, (centre, top - HEIGHT), (centre, below))
            if leaving:
                middle = top - HEIGHT - GAP / 2
                _box(axes, ink, width - 1.25, middle + HEIGHT / 2, 2.4, leaving)
                _arrow(axes, ink, (centre, middle), (width - 2.45, middle))
        last = -(len(steps) - 1) * (HEIGHT + GAP) - HEIGHT
        share = width / max(len(parts), 1)
        for index, text in enumerate(parts):
            middle = share * (index + 0.5)
            _box(axes, ink, middle, last - GAP, share - 0.2, text)
            _arrow(axes, ink, (centre, last), (middle, last - GAP))

    sentences = [f"{text}; {leaving}" if leaving else text for text, leaving in steps]
    alt = ". ".join([*sentences, ", ".join(parts)])
    return replace(
        drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=(width, height), is_file=True), wide=True
    )


def _box(axes: Axes, ink: Ink, centre: float, top: float, width: float, text: str) -> None:
    corner = (centre - width / 2, top - HEIGHT)
    axes.add_patch(Rectangle(corner, width, HEIGHT, facecolor=ink.paper, edgecolor=ink.faint, linewidth=1.0, zorder=2))
    axes.text(
        centre, top - HEIGHT / 2, text, ha="center", va="center", size=8.5, color=ink.text, parse_math=False, zorder=3
    )


def _arrow(axes: Axes, ink: Ink, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=ink.faint, shrinkA=0, shrinkB=0)
    )


MOST_BARS = 30
MOST_LINES = 200  # more lines are one grey area


def class_balance(counts: Mapping[str, Mapping[str, int]], title: str, *, caption: str = "") -> Figure:
    """Numbers of cases, one bar a class, in pieces for the parts of a split.

    counts: {class: {part: cases}}; of many classes the commonest are drawn
    Raises UsageError where there is no class.
    """
    if not counts:
        raise UsageError("no class to show", title, "Give at least one")
    totals = {name: sum(parts.values()) for name, parts in counts.items()}
    shown = sorted(counts, key=lambda name: -totals[name])[:MOST_BARS] if len(counts) > MOST_BARS else list(counts)
    parts = list(dict.fromkeys(part for name in shown for part in counts[name]))

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A bar a class, in pieces for the parts of the split."""
        axes = canvas.subplots()
        start = np.zeros(len(shown))
        for index, part in enumerate(parts):
            sizes = np.array([counts[name].get(part, 0) for name in shown], dtype=float)
            colour = ink.series[index % len(ink.series)]
            axes.barh(range(len(shown)), sizes, 0.6, left=start, color=colour, alpha=0.65, label=part)
            start += sizes
        for row, name in enumerate(shown):
            axes.annotate(
                str(totals[name]), (start[row], row), (4, 0), textcoords="offset points", va="center", size=8.5,
                color=ink.text,
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), drawing.shorten_all(shown), parse_math=False)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel("cases")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.12)
        drawing.plain_axes(axes, ink, rows=True)
        if len(parts) > 1:
            drawing.draw_legend(axes, ink)

    if len(shown) < len(counts):
        caption = f"{caption} The {len(shown)} commonest of {len(counts)}.".strip()
    alt = "; ".join(f"{name}: {totals[name]} cases" for name in shown)
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=(4.4, 0.8 + 0.34 * len(shown)))


def intensity_profiles(
    lines: Sequence[ArrayLike],
    edges: ArrayLike,
    title: str,
    *,
    axis: str,
    caption: str = "",
    marked: Sequence[int] = (),
) -> Figure:
    """Histograms of many cases over one another, and the middle one of them.

    lines:  (cases, bins) share of each case in each bin; edges: (bins + 1,)
    marked: places of lines that stand out
    """
    shares, borders = np.asarray(lines, dtype=float), np.asarray(edges, dtype=float)
    middles = (borders[1:] + borders[:-1]) / 2
    step = max(1, len(shares) // MOST_LINES)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A thin line a case, and the median."""
        panel = canvas.subplots()
        thin = [np.column_stack([middles, line]) for line in shares[::step]]
        panel.add_collection(LineCollection(thin, colors=ink.series[0], alpha=0.15, linewidths=0.7))
        for position in marked:
            panel.plot(middles, shares[position], color=ink.series[1], alpha=0.8, linewidth=0.9)
        panel.plot(middles, np.median(shares, axis=0), color=ink.series[0], linewidth=2)
        panel.set_ylim(0, 1.15 * float(np.quantile(shares, 0.995)) or 1)
        panel.set_xlabel(axis)
        panel.set_ylabel("share of the image")
        drawing.plain_axes(panel, ink)

    peak = float(middles[int(np.median(shares, axis=0).argmax())])
    alt = f"Histograms of {len(shares)} images over {axis}; most of the middle one lies at {peak:.2g}"
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt)
