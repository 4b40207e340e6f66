"""Figures of groups, one line a group with its interval: a forest plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.errors import UsageError
from isocenter.report.figures.drawing import CROWDED, Canvas, Ink, chart, plain, short
from isocenter.report.figures.figure import Figure
from isocenter.report.words import interval_text, value_text
from isocenter.values import Estimate

UNDEFINED = "not defined in this group"
# Of thousands of groups a drawing would be larger than any picture can be.
MOST_GROUPS = 60


def forest(rows: Sequence[tuple[str, str, Estimate, bool]], title: str, *, axis: str, caption: str = "") -> Figure:
    """A dot on its interval for each group, the groups of an attribute under its name.

    rows: (attribute, group, figure, whether it can be judged: else its dot is hollow); a figure that is not defined
          has its line too, which says so; the first `MOST_GROUPS` are drawn
    Raises UsageError without a row.
    """
    if not rows:
        raise UsageError("no group to show", title, "Give at least one row")
    left, rows = len(rows) - MOST_GROUPS, rows[:MOST_GROUPS]
    lines: list[tuple[str, Estimate | None, bool]] = []
    for n, (attribute, group, estimate, judged) in enumerate(rows):
        if n == 0 or rows[n - 1][0] != attribute:
            lines.append((attribute, None, True))
        lines.append((f"{short(group)} ({estimate.n})", estimate, judged))

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A line a group."""
        axes = canvas.subplots()
        shown = [(place, one, judged) for place, (_, one, judged) in enumerate(lines) if one is not None]
        known = [(place, one, judged) for place, one, judged in shown if np.isfinite(one.value)]
        for place in {place for place, _, _ in shown} - {place for place, _, _ in known}:
            axes.text(0.02, place, UNDEFINED, va="center", color=ink.faint, transform=axes.get_yaxis_transform())
        ends = [(place, one.low, one.high) for place, one, _ in known if one.low is not None and one.high is not None]
        if ends:
            places, low, high = zip(*ends, strict=True)
            axes.hlines(places, low, high, color=ink.series[0], linewidth=1.6)
        for is_full, face in ((True, ink.series[0]), (False, ink.paper)):
            dots = [(one.value, place) for place, one, judged in known if judged == is_full]
            if dots:
                values, places = zip(*dots, strict=True)
                axes.plot(values, places, "o", markersize=6, color=ink.series[0], markerfacecolor=face)
        axes.set_yticks(range(len(lines)), [name for name, _, _ in lines], parse_math=False)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlabel(axis)
        plain(axes, ink)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=ink.text)
        for (_, estimate, _), tick in zip(lines, axes.get_yticklabels(), strict=True):
            tick.set_fontweight("bold" if estimate is None else "normal")

    alt = "; ".join(f"{a} {g} {value_text(one)} ({interval_text(one)})" for a, g, one, _ in rows)
    words = caption or "Dot: value, hollow where a group cannot be judged. Line: its interval. In brackets: cases."
    words += f" {left} more groups are not drawn." if left > 0 else ""
    each = 0.36 if len(lines) <= CROWDED else 0.24
    return chart(draw, title=title, caption=words, alt=alt, size=(4.4, 0.8 + each * len(lines)))
