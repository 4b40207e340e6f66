"""Charts of times to an event: Kaplan-Meier with those at risk, the curve of a case, observed against predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.report.display import Ink
from hilum.report.figures import drawing
from hilum.report.figures.drawing import Canvas
from hilum.report.page_blocks import Figure
from hilum.values import Floats

MOST_TICKS = 6


@dataclass(frozen=True, eq=False)
class SurvivalCurve:
    """A survival curve with its interval.

    times:     (steps,) rising; survival, low, high: (steps,) from each of them on, 1 before
    censored:  times at which somebody was censored
    """

    times: Floats
    survival: Floats
    low: Floats
    high: Floats
    censored: Floats

    def at(self, when: float) -> float:
        """The probability that the event has not happened by then."""
        return float(np.append(1.0, self.survival)[np.searchsorted(self.times, when, side="right")])


def time_ticks(last: float) -> list[float]:
    """Round times from 0 until the last, a few."""
    return [
        float(tick)
        for tick in MaxNLocator(MOST_TICKS, steps=[1, 2, 2.5, 3, 5, 10]).tick_values(0, last)
        if 0 <= tick <= last
    ]


def kaplan_meier_plot(
    curves: Mapping[str, SurvivalCurve],
    ticks: Sequence[float],
    counts: Mapping[str, Sequence[int]],
    title: str,
    *,
    axis: str,
    caption: str = "",
) -> Figure:
    """Survival by group, with bands, marks where somebody was censored, and under it how many are still at risk.

    ticks:  times at which those at risk are counted
    counts: {group: one number a tick}
    Raises UsageError where there is no curve or a count is missing.
    """
    if not curves or any(len(counts.get(name, ())) != len(ticks) for name in curves):
        raise UsageError("a curve without its counts, or none", title, "Give one count for each group and tick")

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A stepped curve a group, and the table of people at risk."""
        axes, below = canvas.subplots(2, 1, sharex=True, height_ratios=[6, 0.55 + 0.6 * len(curves)])
        for colour, (name, curve) in zip(drawing.cycle_colours(ink, len(curves)), curves.items(), strict=True):
            _step(axes, curve, colour, name)
        axes.set(ylabel="without the event", ylim=(-0.02, 1.02), xlim=(0, None))
        drawing.plain_axes(axes, ink)
        axes.tick_params(labelbottom=True)
        if len(curves) > 1:
            drawing.draw_legend(axes, ink)
        _table(below, ticks, counts, drawing.cycle_colours(ink, len(curves)), ink)
        below.set_xticks(list(ticks))
        below.set_xlabel(axis)
        below.xaxis.label.set(color=ink.text, fontsize=9)

    values = {name: [f"{curve.at(tick):.2f} at {tick:g}" for tick in ticks[1:]] for name, curve in curves.items()}
    summary = "; ".join(f"{name}: {', '.join(own)}" for name, own in values.items())
    text = f"{caption} Band: 95 % interval at each time; ticks on the lines: people censored.".strip()
    return drawing.draw_chart(
        draw, title=title, caption=text, alt=f"Kaplan-Meier curves. {summary}", size=(4.4, 3.6 + 0.2 * len(curves))
    )


def survival_curve(
    times: ArrayLike,
    survival: ArrayLike,
    title: str,
    *,
    axis: str,
    last: float | None = None,
    happened: bool = False,
    caption: str = "",
) -> Figure:
    """The predicted curve of a case, and how long the patient was followed.

    times, survival: (points,) of the curve; last: to the event or the last contact, where it is known
    """
    when, chance = np.asarray(times, dtype=float), np.asarray(survival, dtype=float)
    what = "event" if happened else "last contact"

    def draw(canvas: Canvas, ink: Ink) -> None:
        """The curve, and the time of the last contact."""
        axes = canvas.subplots()
        axes.plot(when, chance, color=ink.series[0], linewidth=1.8)
        if last is not None:
            axes.axvline(
                min(last, when[-1]), color=ink.series[1], linewidth=1.4, linestyle="solid" if happened else "dashed"
            )
            beyond = f"{what} at {last:.4g}"
            side = "right" if last > when[-1] / 2 else "left"
            axes.annotate(
                f" {beyond} ", (min(last, when[-1]), 0.04), ha=side, va="bottom", fontsize=8.5, color=ink.text
            )
        axes.set(xlabel=axis, ylabel="without the event", ylim=(-0.02, 1.02), xlim=(0, when[-1]))
        drawing.plain_axes(axes, ink)

    points = ", ".join(f"{chance[place]:.2f} at {when[place]:.4g}" for place in (len(when) // 2, -1))
    words_of_last = "" if last is None else f"; {what} at {last:.4g}"
    return drawing.draw_chart(
        draw, title=title, caption=caption, alt=f"Predicted survival: {points}{words_of_last}", size=(4.4, 2.6)
    )


def observed_against_predicted(points: Sequence[tuple[float, float, float, float]], title: str) -> Figure:
    """Observed against predicted frequency of the event, a point for each group of cases.

    points: (predicted, observed, low, high) in 0..1
    """

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A point a group, and the diagonal."""
        axes = canvas.subplots()
        axes.plot([0, 1], [0, 1], color=ink.faint, linewidth=1, linestyle="dashed")
        predicted, observed, low, high = np.array(points).T
        spread = np.clip([observed - low, high - observed], 0, None)
        axes.errorbar(predicted, observed, spread, fmt="o-", markersize=4, linewidth=1.4, color=ink.series[0])
        axes.set(xlabel="predicted", ylabel="observed (Kaplan-Meier)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        drawing.plain_axes(axes, ink)

    summary = "; ".join(f"predicted {one[0]:.2f}, observed {one[1]:.2f}" for one in points)
    caption = (
        "Groups of cases by predicted probability; a calibrated model lies on the dashed line. Lines: 95 % intervals."
    )
    return drawing.draw_chart(
        draw, title=title, caption=caption, alt=f"Calibration by group. {summary}", size=(4.4, 4.0)
    )


def _step(axes: Axes, curve: SurvivalCurve, colour: str, name: str) -> None:
    when = np.append(0.0, curve.times)
    survival, low, high = (np.append(1.0, one) for one in (curve.survival, curve.low, curve.high))
    axes.fill_between(when, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
    axes.step(when, survival, where="post", color=colour, linewidth=1.8, label=drawing.short_name(name))
    heights = [curve.at(one) for one in curve.censored]
    axes.plot(curve.censored, heights, "|", color=colour, markersize=6, markeredgewidth=1.0)


def _table(
    axes: Axes, ticks: Sequence[float], counts: Mapping[str, Sequence[int]], colours: Sequence[str], ink: Ink
) -> None:
    """The numbers at risk at each tick, a line a group, in its colour."""
    axes.set_facecolor("none")
    axes.set(ylim=(len(counts) - 0.4, -1.1), yticks=[])
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=ink.faint, labelsize=8.5, length=0, labelbottom=False)
    axes.text(0.0, -0.95, "at risk", transform=axes.get_yaxis_transform(), fontsize=8.5, color=ink.faint, va="top")
    for row, (colour, numbers) in enumerate(zip(colours, counts.values(), strict=True)):
        for tick, number in zip(ticks, numbers, strict=True):
            axes.text(tick, row, str(number), ha="center", va="center", fontsize=8.5, color=colour)
