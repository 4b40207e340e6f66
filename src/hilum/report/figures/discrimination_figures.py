"""Charts of class probabilities: discrimination, calibration, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.lazy import pandas as pd
from hilum.lazy import special
from hilum.report import wording
from hilum.report.display import Ink
from hilum.report.figures import drawing
from hilum.report.figures.drawing import CROWDED, Canvas
from hilum.report.page_blocks import Figure
from hilum.values import Floats

Band = tuple[Floats, Floats, Floats]
# Inches of a matrix of many classes, and classes up to which its cells have room for numbers.
LARGEST_SIDE, MOST_NUMBERED = 16.0, 48


def roc(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    title: str,
    *,
    bands: Mapping[str, Band] | None = None,
    caption: str = "",
) -> Figure:
    """Sensitivity against 1 - specificity at every threshold.

    curves: {class: (truth (cases,) as bool, score (cases,))}; a class that has only one truth is left out
    bands:  {class: (1 - specificity, lowest and highest sensitivity there)}, drawn behind its curve
    """
    curves_shown: dict[str, Floats] = {}
    for name, (truth, score) in curves.items():
        points = _roc_points(np.asarray(truth, dtype=bool), np.asarray(score, dtype=float))
        if points is not None:
            curves_shown[name] = points

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A curve a class, and the diagonal."""
        axes = canvas.subplots()
        axes.plot([0, 1], [0, 1], color=ink.faint, linewidth=1, linestyle="dashed")
        curves_of = zip(
            drawing.cycle_colours(ink, len(curves_shown)),
            drawing.shorten_all(list(curves_shown)),
            curves_shown.items(),
            strict=True,
        )
        for colour, label, (name, points) in curves_of:
            if name in (bands or {}):
                axes.fill_between(*(bands or {})[name], color=colour, alpha=0.18, linewidth=0)
            axes.plot(points[0], points[1], color=colour, linewidth=1.8, label=f"{label}  {_area(points):.3f}")
        _square(axes, "1 \N{MINUS SIGN} specificity", "sensitivity", ink)
        if curves_shown:
            drawing.draw_legend(axes, ink, "lower right")

    summary = "; ".join(f"{name}: area {_area(points):.3f}" for name, points in curves_shown.items())
    left = [name for name in curves if name not in curves_shown]
    if set(bands or {}) & set(curves_shown):
        caption = f"{caption} Band: 95 % interval at each point, patients resampled.".strip()
    caption = f"{caption} {drawing.caption_unnamed(len(curves_shown))}".strip()
    if left:
        caption = f"{caption} Left out, because all cases are alike there: {', '.join(left)}.".strip()
    return drawing.draw_chart(draw, title=title, caption=caption, alt=f"ROC curves. {summary}", size=(4.4, 4.0))


def precision_recall(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str, *, caption: str = "") -> Figure:
    """Precision against recall (sensitivity) at every threshold, and as dashes the precision of calling everybody.

    curves: as of `roc`; a class without cases is left out
    Steps and no lines between the points: Davis and Goadrich, ICML 2006, doi:10.1145/1143844.1143874
    """
    curves_shown: dict[str, tuple[Floats, float]] = {}
    for name, (truth, score) in curves.items():
        is_present = np.asarray(truth, dtype=bool)
        if is_present.any():
            curves_shown[name] = _precision_points(is_present, np.asarray(score, dtype=float)), float(is_present.mean())

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A stepped curve a class, and the line of its prevalence."""
        axes = canvas.subplots()
        lines = zip(
            drawing.cycle_colours(ink, len(curves_shown)),
            drawing.shorten_all(list(curves_shown)),
            curves_shown.values(),
            strict=True,
        )
        for colour, label, (points, share) in lines:
            axes.axhline(share, color=colour, linewidth=1, linestyle="dashed", alpha=0.7)
            area = f"{label}  {_stepped_area(points):.3f}"
            axes.step(points[0], points[1], where="pre", color=colour, linewidth=1.8, label=area)
        _square(axes, "recall (sensitivity)", "precision (PPV)", ink)
        if curves_shown:
            drawing.draw_legend(axes, ink, "lower right")

    summary = "; ".join(
        f"{name}: average precision {_stepped_area(points):.3f}" for name, (points, _) in curves_shown.items()
    )
    text = "Dashed: the precision of calling every case positive, which is the share of such cases."
    text = " ".join(filter(None, (text, caption, drawing.caption_unnamed(len(curves_shown)))))
    return drawing.draw_chart(
        draw, title=title, caption=text, alt=f"Precision-recall curves. {summary}", size=(4.4, 4.0)
    )


def risk_coverage_plot(curves: Mapping[str, tuple[Floats, Floats]], title: str, *, caption: str = "") -> Figure:
    """The mean loss among the cases that are answered, for each share of cases that are, the least doubtful first.

    curves: {order: (share that is answered, mean loss among these)}, each (cases,)
    """

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A curve an order."""
        axes = canvas.subplots()
        for colour, (name, (share, risk)) in zip(drawing.cycle_colours(ink, len(curves)), curves.items(), strict=True):
            axes.plot(share, risk, color=colour, linewidth=1.8, label=drawing.short_name(name))
        axes.set(xlabel="share of cases that is answered", ylabel="mean loss among these", xlim=(0, 1.01))
        axes.set_ylim(bottom=0)
        drawing.plain_axes(axes, ink)
        drawing.draw_legend(axes, ink, "best")

    areas = "; ".join(f"{name}: {np.mean(risk):.3f} on average" for name, (_, risk) in curves.items())
    return drawing.draw_chart(
        draw, title=title, caption=caption, alt=f"Risk against coverage. {areas}", size=(4.4, 4.0)
    )


def decision_curve_plot(
    thresholds: Floats, value: Floats, band: tuple[Floats, Floats], treat_all: Floats, title: str
) -> Figure:
    """The net benefit of calls from each threshold on, with its interval, beside treating everybody and nobody.

    thresholds, value, treat_all, and both ends of the band: (thresholds,)
    Vickers and Elkin, Med Decis Making 2006, doi:10.1177/0272989X06295361
    """
    highest = max(float(np.nanmax(np.concatenate([value, treat_all]))), 0.01)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """Three lines, and the model's band."""
        axes = canvas.subplots()
        axes.plot(thresholds, treat_all, color=ink.faint, linewidth=1.2, linestyle="dashed", label="everybody")
        axes.axhline(0, color=ink.faint, linewidth=1.2, label="nobody")
        axes.fill_between(thresholds, *band, color=ink.series[0], alpha=0.18, linewidth=0)
        axes.plot(thresholds, value, color=ink.series[0], linewidth=1.8, label="the model")
        axes.set(xlabel="probability from which on one acts", ylabel="net benefit", xlim=(0, 1))
        axes.set_ylim(-0.25 * highest, 1.1 * highest)
        drawing.plain_axes(axes, ink)
        drawing.draw_legend(axes, ink, "best")

    places = np.searchsorted(thresholds, [0.1, 0.25, 0.5]).clip(max=len(thresholds) - 1)
    words = "; ".join(f"at {thresholds[n]:.2f} {value[n]:.3f}, everybody {treat_all[n]:.3f}" for n in places)
    caption = "Band: 95 % interval at each threshold."
    return drawing.draw_chart(
        draw, title=title, caption=caption, alt=f"Decision curve. Net benefit {words}", size=(4.4, 4.0)
    )


def reliability_diagram(
    truth: ArrayLike, probability: ArrayLike, title: str, *, caption: str = "", bins: int = 10, counted: str = "cases"
) -> Figure:
    """Observed frequency for each tenth of predicted probability, with exact 95 % intervals and the counts.

    truth: (cases,) bool; probability: (cases,) in 0..1; counted: what they are of
    Clopper and Pearson, Biometrika 1934, doi:10.1093/biomet/26.4.404
    """
    points = _reliability_points(np.asarray(truth, dtype=bool), np.asarray(probability, dtype=float), bins)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """The observed frequencies above, the counts below."""
        axes, counts = canvas.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        axes.plot([0, 1], [0, 1], color=ink.faint, linewidth=1, linestyle="dashed")
        spread = [points["share"] - points["low"], points["high"] - points["share"]]
        axes.errorbar(
            points["mean"], points["share"], spread, fmt="o-", markersize=4, linewidth=1.4, color=ink.series[0]
        )
        axes.set(ylabel="observed frequency", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        counts.bar(points["middle"], points["count"], 0.9 / bins, color=ink.series[0], alpha=0.55)
        counts.set(ylabel=counted, xlabel="predicted probability")
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        drawing.plain_axes(axes, ink)
        drawing.plain_axes(counts, ink)

    summary = "; ".join(f"predicted {r.mean:.2f}, observed {r.share:.2f}" for r in points.itertuples())
    text = caption or "A calibrated model lies on the dashed line. Lines: 95 % intervals."
    text += "" if caption else f" They are exact for {counted} that are independent of one another."
    return drawing.draw_chart(draw, title=title, caption=text, alt=f"Reliability diagram. {summary}", size=(4.4, 4.2))


def confusion_plot(matrix: ArrayLike, classes: Sequence[str], title: str, *, caption: str = "") -> Figure:
    """Confusion matrix. matrix: (reference, predicted) counts of cases."""
    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes)):
        raise UsageError(
            f"{counts.shape} counts for {len(classes)} classes", title, "Give one row and column per class"
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    crowded = len(classes) > CROWDED
    side = min(LARGEST_SIDE, 1.6 + (0.3 if crowded else 0.62) * len(classes))

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A shaded cell for each pair of classes."""
        axes = canvas.subplots()
        _heat(axes, counts, shares, ink, small=crowded)
        names = drawing.shorten_all(classes, 20 if crowded else 14)
        axes.set_xticks(
            range(len(classes)), names, rotation=0 if len(classes) <= 3 else 90 if crowded else 30, parse_math=False
        )
        axes.set_yticks(range(len(classes)), names, parse_math=False)
        axes.set(xlabel="predicted", ylabel="reference")
        drawing.plain_axes(axes, ink)
        axes.grid(False)
        if crowded:
            axes.tick_params(labelsize=min(8.5, 60 * side / len(classes)))

    summary = [f"{name}: {counts[i, i]} of {counts[i].sum()} right" for i, name in enumerate(classes)]
    shade_text = "Counts of cases; shade: share" if crowded else "Counts of cases; shade and per cent: share"
    text = f"{shade_text if len(classes) <= MOST_NUMBERED else 'Shade: share'} of the row. {caption}".strip()
    figure_made = drawing.draw_chart(
        draw, title=title, caption=text, alt=f"Confusion matrix. {'; '.join(summary)}", size=(max(3.2, side), side)
    )
    return replace(figure_made, wide=crowded)


def _heat(axes: Axes, counts: Floats, shares: Floats, ink: Ink, *, small: bool) -> None:
    for row, column in np.argwhere(shares > 0):
        shade = 0.75 * shares[row, column]
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=ink.series[0], alpha=shade, linewidth=0))
    for row, column in np.ndindex(*shares.shape) if len(shares) <= MOST_NUMBERED else ():
        share = float(shares[row, column])
        if small:  # no room for per cent, and noughts would hide what is there
            count = str(counts[row, column]) if counts[row, column] else ""
            axes.text(column, row, count, ha="center", va="center", fontsize=6.5, color=ink.text)
            continue
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="bottom", fontsize=9, color=ink.text)
        axes.text(column, row, wording.share_text(share), ha="center", va="top", fontsize=7, color=ink.text)
    axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(len(counts) - 0.5, -0.5))
    axes.set_aspect("equal")


def _roc_points(truth: Floats, score: Floats) -> Floats | None:
    """(2, thresholds + 1): 1 - specificity and sensitivity; cases of equal score enter together."""
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), truth.size - 1)
    true = np.cumsum(truth[order])[last_of_tie]
    false = last_of_tie + 1 - true
    return np.array([np.append(0, false / false[-1]), np.append(0, true / true[-1])])


def _area(points: Floats) -> float:
    return float(np.trapezoid(points[1], points[0]))


def _reliability_points(truth: Floats, probability: Floats, bins: int) -> pd.DataFrame:
    places = np.minimum((probability * bins).astype(int), bins - 1)
    rows = []
    for bin_number in np.unique(places):
        inside = places == bin_number
        count, true = int(inside.sum()), int(truth[inside].sum())
        low = special.betaincinv(true, count - true + 1, 0.025) if true else 0.0
        high = special.betaincinv(true + 1, count - true, 0.975) if true < count else 1.0
        rows.append(((bin_number + 0.5) / bins, float(probability[inside].mean()), true / count, low, high, count))
    return pd.DataFrame(rows, columns=["middle", "mean", "share", "low", "high", "count"])


def _precision_points(truth: Floats, score: Floats) -> Floats:
    """(2, thresholds + 1): recall and precision from the highest score down; cases of equal score enter together.

    It begins at a recall of 0 with the first precision, which is where the area begins.
    """
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), truth.size - 1)
    true = np.cumsum(truth[order])[last_of_tie]
    recall, precision = true / true[-1], true / (last_of_tie + 1)
    return np.array([np.append(0.0, recall), np.append(precision[:1], precision)])


def _stepped_area(points: Floats) -> float:
    return float((np.diff(points[0], prepend=0.0) * points[1]).sum())


def _square(axes: Axes, across: str, up: str, ink: Ink) -> None:
    axes.set(xlabel=across, ylabel=up, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    drawing.plain_axes(axes, ink)
