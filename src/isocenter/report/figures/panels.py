"""One figure as it changes in steps, a small panel for each thing that changes it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.ticker import MaxNLocator

from isocenter.report.figures.drawing import Canvas, Ink, chart, plain, short
from isocenter.report.figures.figure import Figure
from isocenter.values import Estimate

ACROSS = 3


def courses(
    steps: Mapping[str, Mapping[int, Estimate]], title: str, *, axes: tuple[str, str], base: float, caption: str
) -> Figure:
    """A panel a name, with the estimate of each step on its interval, and a dashed line at `base`.

    steps: {name: {step: estimate}}
    axes:  what is across and what is up
    """
    columns = min(ACROSS, len(steps))
    rows = math.ceil(len(steps) / columns)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A panel a name."""
        panels = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
        for panel, (name, own) in zip(panels, steps.items(), strict=False):
            panel.axhline(base, color=ink.faint, linewidth=1, linestyle="dashed")
            panel.plot(list(own), [one.value for one in own.values()], "o-", color=ink.series[0], markersize=3.5)
            for step, estimate in own.items():
                if estimate.low is not None and estimate.high is not None:
                    panel.plot(
                        [step, step], [estimate.low, estimate.high], color=ink.series[0], linewidth=1.2, alpha=0.6
                    )
            panel.set_title(short(name), fontsize=9, color=ink.text, parse_math=False)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            plain(panel, ink)
        for panel in panels[len(steps) :]:
            panel.set_axis_off()
        canvas.supxlabel(axes[0], fontsize=9, color=ink.text)
        canvas.supylabel(axes[1], fontsize=9, color=ink.text)

    ends = [f"{name}: {list(own.values())[-1].value:.3g} at the last step" for name, own in steps.items()]
    alt = f"{axes[1]} over {axes[0]}, {base:.3g} before. {'; '.join(ends)}"
    return chart(draw, title=title, caption=caption, alt=alt, size=(0.95 + 1.15 * columns, 0.8 + 1.05 * rows))
