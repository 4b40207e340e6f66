"""Charts of measured numbers: predicted against reference, and differences over the size."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from isocenter.errors import UsageError
from isocenter.report.figures.drawing import Canvas, Ink, chart, plain
from isocenter.report.figures.figure import Figure
from isocenter.report.words import number, value_text
from isocenter.values import Estimate, Floats

SIZE = (4.4, 4.0)
# From so many cases on bars of all of them would hide the points.
MOST_BARS = 150


def agreement(
    reference: ArrayLike,
    predicted: ArrayLike,
    title: str,
    *,
    unit: str = "",
    errors: ArrayLike | None = None,
    caption: str = "",
) -> Figure:
    """Predicted against reference, one point a case, with the line on which both are equal.

    errors: (cases,) half the height of each error bar
    Raises UsageError where there is no case.
    """
    true, predictions = _paired(reference, predicted, title)
    bars = None if errors is None or len(true) > MOST_BARS else np.asarray(errors, dtype=float)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A point a case, and the line of equality."""
        axes = canvas.subplots()
        ends = [float(min(true.min(), predictions.min())), float(max(true.max(), predictions.max()))]
        axes.plot(ends, ends, color=ink.faint, linewidth=1, linestyle="dashed")
        if bars is not None:
            axes.errorbar(true, predictions, bars, fmt="none", ecolor=ink.series[0], elinewidth=0.8, alpha=0.4)
        _points(axes, true, predictions, ink)
        axes.set(xlabel=f"reference{_of(unit)}", ylabel=f"predicted{_of(unit)}")
        axes.set_aspect("equal", adjustable="datalim")
        plain(axes, ink)

    words = caption or "Dashed: predicted and reference are equal."
    if bars is not None:
        words += " Bars: the network's own error, 1.96 standard deviations."
    distance = number(float(np.abs(predictions - true).mean()))
    alt = f"Predicted against reference{_of(unit)}, {len(true)} points, mean distance {distance}"
    return chart(draw, title=title, caption=words, alt=alt, size=SIZE)


def bland_altman(
    reference: ArrayLike,
    predicted: ArrayLike,
    title: str,
    *,
    bias: Estimate,
    limits: tuple[Estimate, Estimate],
    unit: str = "",
) -> Figure:
    """Predicted minus reference over the mean of both, with bias, limits of agreement and their intervals.

    limits: the lower and the upper one
    Raises UsageError where there is no case.
    Bland and Altman, Lancet 1986, doi:10.1016/S0140-6736(86)90837-8
    """
    true, predictions = _paired(reference, predicted, title)
    lines = (limits[1], bias, limits[0])

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A point a case, and three lines with bands."""
        axes = canvas.subplots()
        axes.axhline(0, color=ink.faint, linewidth=1, linestyle="dashed")
        for estimate, colour in zip(lines, (ink.series[1], ink.series[0], ink.series[1]), strict=True):
            _line(axes, estimate, colour, ink)
        _points(axes, (true + predictions) / 2, predictions - true, ink)
        axes.set(xlabel=f"mean of predicted and reference{_of(unit)}", ylabel=f"predicted minus reference{_of(unit)}")
        axes.locator_params(axis="x", nbins=5)  # numbers of voxels are long
        plain(axes, ink)

    spoken = zip(("upper limit", "bias", "lower limit"), lines, strict=True)
    alt = f"Bland-Altman plot of {len(true)} cases: {', '.join(f'{name} {value_text(one)}' for name, one in spoken)}"
    caption = "Lines: bias and limits of agreement, between which 95 % of the differences lie if they are normal."
    if any(one.low is not None for one in lines):
        caption += f" Bands: their {100 * bias.level:.0f} % intervals."
    return chart(draw, title=title, caption=caption, alt=alt, size=SIZE)


def _line(axes: Axes, estimate: Estimate, colour: str, ink: Ink) -> None:
    """A line across with its interval as a band, and its value beside the axes, where it hides no point.

    Nothing of what is undefined.
    """
    if not np.isfinite(estimate.value):
        return
    if estimate.low is not None and estimate.high is not None:
        axes.axhspan(estimate.low, estimate.high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(estimate.value, color=colour, linewidth=1.4)
    axes.annotate(
        number(estimate.value),
        (1, estimate.value),
        (3, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left",
        va="center",
        fontsize=8.5,
        color=ink.text,
    )


def _points(axes: Axes, across: Floats, up: Floats, ink: Ink) -> None:
    axes.scatter(across, up, s=16, color=ink.series[0], alpha=0.65, edgecolors="none")


def _paired(reference: ArrayLike, predicted: ArrayLike, title: str) -> tuple[Floats, Floats]:
    true, predictions = np.asarray(reference, dtype=float), np.asarray(predicted, dtype=float)
    if true.shape != predictions.shape or not true.size:
        problem = f"{predictions.size} predictions for {true.size} references"
        raise UsageError(problem, title, "Give one of each for every case, and at least one case")
    return true, predictions


def _of(unit: str) -> str:
    return f" ({unit})" if unit else ""
