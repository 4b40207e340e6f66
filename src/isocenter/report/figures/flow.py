"""The flow of cases as boxes: what was found, what was left out, and the parts that remain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

from isocenter.report.figures.drawing import Canvas, Ink, chart
from isocenter.report.figures.figure import Figure

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
        for place, (text, leaving) in enumerate(steps):
            top = -place * (HEIGHT + GAP)
            _box(axes, ink, centre, top, wide, text)
            below = top - HEIGHT - GAP
            if place + 1 < len(steps):
                _arrow(axes, ink, (centre, top - HEIGHT), (centre, below))
            if leaving:
                middle = top - HEIGHT - GAP / 2
                _box(axes, ink, width - 1.25, middle + HEIGHT / 2, 2.4, leaving)
                _arrow(axes, ink, (centre, middle), (width - 2.45, middle))
        last = -(len(steps) - 1) * (HEIGHT + GAP) - HEIGHT
        share = width / max(len(parts), 1)
        for place, text in enumerate(parts):
            middle = share * (place + 0.5)
            _box(axes, ink, middle, last - GAP, share - 0.2, text)
            _arrow(axes, ink, (centre, last), (middle, last - GAP))

    sentences = [f"{text}; {leaving}" if leaving else text for text, leaving in steps]
    alt = ". ".join([*sentences, ", ".join(parts)])
    return replace(chart(draw, title=title, caption=caption, alt=alt, size=(width, height)), wide=True)


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
