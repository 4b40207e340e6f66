"""Charts of numbers: training, scores with intervals, distributions, courses, groups, predicted against reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import Metrics
from hilum.lazy import pandas as pd
from hilum.report import wording
from hilum.report.display import Ink
from hilum.report.figures import drawing
from hilum.report.figures.drawing import CROWDED, Canvas
from hilum.report.page_blocks import Figure
from hilum.values import Estimate, Floats, Row

# Columns of a run of folds begin with it.
FOLD = "fold "
OWN_COLUMNS = ("step", "seconds", "loss", "learning_rate", "gradient_norm", "rank")
# Columns of the selecting metric: of validation cases, and of some training cases; and how losses of objectives begin.
VALIDATION, TRAINING, OBJECTIVE = "validation", "training_metric", "loss_"
# Small panels below the others.
SMALL = {"rank": "effective\nrank", "gradient_norm": "gradient\nnorm", "learning_rate": "learning\nrate"}
FEW_VALUES = 30  # of fewer a histogram shows its bins rather than the values
MOST_OUTLINES = 5  # as many as there are colours; more hide one another
SMOOTH_SHARE = 50  # the smooth line looks over a fiftieth of the run: fast changes stay, noise goes
ACROSS = 3
UNDEFINED = "not defined in this group"
# Of thousands of groups a drawing would be larger than any picture can be.
MOST_GROUPS = 60


def training_curves(log: pd.DataFrame, title: str = "Training") -> Figure:
    """Loss, validation metrics, norm of the gradient and learning rate over the steps.

    log: a row a record: step, seconds, loss, learning_rate, gradient_norm, losses of objectives, metrics, blank (NaN)
         where not measured
    Raises UsageError where there is no step or no loss.
    """
    if not {"step", "loss"} <= set(log.columns) or log.empty:
        raise UsageError("the log has no step and loss", title, "Give the log that training wrote")
    losses, groups = _measured_columns(log)
    small = {name: words for name, words in SMALL.items() if name in log.columns and bool(log[name].notna().any())}
    heights = [3.0] + [2.2] * len(groups) + [1.2] * len(small)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """Panels over the steps: loss, validation metrics, norm of the gradient, learning rate."""
        panels = list(canvas.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        _loss(panels[0], log, losses, ink)
        for axes, names in zip(panels[1:], groups, strict=False):
            _validation(axes, log, names, ink)
        for axes, (name, words) in zip(panels[1 + len(groups) :], small.items(), strict=True):
            rows_known = log.dropna(subset=[name])
            axes.plot(rows_known["step"], rows_known[name], color=ink.faint, linewidth=1.4)
            axes.set_ylabel(words)
            axes.set_ylim(bottom=0)
        for axes in panels:
            drawing.plain_axes(axes, ink)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[-1].set_xlabel(_time_axis(log))

    last = log.dropna(subset=["loss"])["loss"]
    ends = " to ".join(wording.number_text(float(last.iloc[n])) for n in (0, -1))
    alt = f"Loss from {ends} over {len(last)} records"
    caption = "Loss of the training batches (thin: as recorded, thick: running mean)"
    shown = "the validation cases" + " and on some training cases" * any(TRAINING in name for name in log.columns)
    caption += f", and what was measured on {shown}." if groups else "."
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=(4.4, 0.7 + 0.62 * sum(heights)))


def label_scores(rows: Sequence[Row], title: str, *, metrics: Metrics) -> Figure:
    """The value of each row as a dot on its interval, one line a label, over the range of what is shown.

    rows: of one metric. A dashed line marks 0 where it lies within that range.
    Raises UsageError without a row.
    """
    if not rows:
        raise UsageError("no score to show", title, "Give at least one row")

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A bar a row, with its interval."""
        axes = canvas.subplots()
        for index, row in enumerate(rows):
            _dot(axes, index, row.estimate, ink)
        axes.set_yticks(range(len(rows)), drawing.shorten_all([row.label for row in rows]), parse_math=False)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        low, high = axes.get_xlim()
        if low < 0 < high:
            axes.axvline(0, color=ink.faint, linewidth=1, linestyle="dashed")
        unit = rows[0].estimate.unit
        axes.set_xlabel(f"{metrics.metric_named(rows[0].metric).words}{f' ({unit})' if unit else ''}")
        drawing.plain_axes(axes, ink, rows=True)

    alt = "; ".join(
        f"{wording.row_name(row, metrics)} {wording.value_text(row.estimate)} ({wording.interval_text(row.estimate)})"
        for row in rows
    )
    level = f"{100 * rows[0].estimate.level:.0f} % interval"
    caption = f"Dot: value. Line: {level}, absent where none can be given."
    height = 0.42 if len(rows) <= CROWDED else 0.24
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=(4.4, 0.8 + height * len(rows)))


def histogram_chart(
    groups: Mapping[str, ArrayLike], title: str, *, axis: str, caption: str = "", bins: int = 24
) -> Figure:
    """Histogram with one outline a group; with few values, or many groups, each value is a dot.

    axis: what is counted, with its unit
    """
    values = {name: _finite(given) for name, given in groups.items()}
    if len(values) > MOST_OUTLINES or max((given.size for given in values.values()), default=0) < FEW_VALUES:
        return _dots(values, title, axis, caption)
    every = np.concatenate([*values.values(), np.empty(0)])
    edges = np.histogram_bin_edges(every if every.size else np.array([0.0, 1.0]), bins=bins).tolist()

    def draw(canvas: Canvas, ink: Ink) -> None:
        """An outline a group."""
        axes = canvas.subplots()
        for colour, (name, numbers) in zip(drawing.cycle_colours(ink, len(values)), values.items(), strict=True):
            axes.hist(numbers, edges, histtype="stepfilled", color=colour, alpha=0.25 if len(values) > 1 else 0.55)
            axes.hist(numbers, edges, histtype="step", color=colour, linewidth=1.5, label=drawing.short_name(name))
        axes.set_xlabel(axis)
        axes.set_ylabel("count")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        drawing.plain_axes(axes, ink)
        if len(values) > 1:
            drawing.draw_legend(axes, ink)

    spreads = [f"{name}: {_spread_words(given)}" for name, given in values.items()]
    return drawing.draw_chart(draw, title=title, caption=caption, alt=f"Histogram of {axis}. {'; '.join(spreads)}")


def _dots(values: Mapping[str, Floats], title: str, axis: str, caption: str) -> Figure:
    """Every value as a dot, a line a group, and its median as a stroke."""

    def draw(canvas: Canvas, ink: Ink) -> None:
        axes = canvas.subplots()
        for index, (colour, numbers) in enumerate(
            zip(drawing.cycle_colours(ink, len(values)), values.values(), strict=True)
        ):
            # Dots at one place are drawn one above the other, in an order that never changes.
            lifts = np.linspace(-0.22, 0.22, numbers.size) if numbers.size > 1 else np.zeros(numbers.size)
            size, alpha = (5, 0.7) if numbers.size < FEW_VALUES else (3, 0.4)
            axes.plot(numbers, index + lifts, "o", color=colour, markersize=size, alpha=alpha, markeredgewidth=0)
            if numbers.size:
                axes.plot([np.median(numbers)] * 2, [index - 0.32, index + 0.32], color=colour, linewidth=2)
        axes.set_yticks(range(len(values)), drawing.shorten_all(list(values)), parse_math=False)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlabel(axis)
        drawing.plain_axes(axes, ink, rows=True)
        axes.margins(x=0.08)

    spreads = [f"{name}: {_spread_words(given)}" for name, given in values.items()]
    text = f"{caption} Dot: one value. Stroke: median.".strip()
    size = (4.4, 1.0 + (0.55 if len(values) <= CROWDED else 0.3) * max(1, len(values)))
    return drawing.draw_chart(draw, title=title, caption=text, alt=f"Dots of {axis}. {'; '.join(spreads)}", size=size)


def scatter(
    x: ArrayLike, y: ArrayLike, title: str, *, axes: tuple[str, str], caption: str = "", identity: bool = False
) -> Figure:
    """One point a case. axes: what is across and what is up, with units; identity: draw where both are equal."""
    across, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    is_finite = np.isfinite(across) & np.isfinite(up)
    across, up = across[is_finite], up[is_finite]

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A point a case."""
        panel = canvas.subplots()
        panel.scatter(across, up, s=16, color=ink.series[0], alpha=0.65, edgecolors="none")
        panel.set_xlabel(axes[0])
        panel.set_ylabel(axes[1])
        drawing.plain_axes(panel, ink)
        if identity and across.size:
            ends = [min(across.min(), up.min()), max(across.max(), up.max())]
            panel.plot(ends, ends, color=ink.faint, linewidth=1, linestyle="dashed")
            panel.set_aspect("equal", adjustable="datalim")

    alt = f"Scatter of {axes[1]} against {axes[0]}, {across.size} points"
    if across.size > 2 and across.std() > 0 and up.std() > 0:
        alt += f", correlation {np.corrcoef(across, up)[0, 1]:.2f}"
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=(4.4, 3.6))


def cost_against_score(rows: Sequence[tuple[str, float, Estimate]], title: str, *, axes: tuple[str, str]) -> Figure:
    """A named dot for each way to compute something: its cost across, its score with the interval up.

    axes: what is across and what is up, with units
    Raises UsageError without a row.
    """
    if not rows:
        raise UsageError("nothing to show", title, "Give at least one row")

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A dot on its interval, with its name."""
        panel = canvas.subplots()
        for number, (name, cost, score) in enumerate(sorted(rows, key=lambda row: row[1])):
            if score.low is not None and score.high is not None:
                panel.vlines(cost, score.low, score.high, color=ink.series[0], linewidth=1.6)
            panel.plot([cost], [score.value], "o", markersize=6, color=ink.series[0])
            panel.annotate(
                name,
                (cost, score.value),
                xytext=(6, (4, -12)[number % 2]),  # dots side by side would write over one another
                textcoords="offset points",
                color=ink.text,
                fontsize="small",
            )
        panel.set_xlabel(axes[0])
        panel.set_ylabel(axes[1])
        panel.set_xlim(left=0)
        panel.margins(x=0.25)
        drawing.plain_axes(panel, ink)

    alt = "; ".join(f"{name} {wording.number_text(cost)}, {wording.value_text(score)}" for name, cost, score in rows)
    caption = f"Across: {axes[0]}. Up: {axes[1]}, with its 95 % interval."
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=(4.4, 3.4))


def _measured_columns(log: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The columns that training adds to its own: further losses, and metrics, those of one panel together.

    Numbers from 0 to 1 share a panel, and so does one metric of several cases or trainings, whatever its range.
    """
    names = [str(name) for name in log.columns if name not in OWN_COLUMNS and log[name].notna().any()]
    losses = [name for name in names if name.endswith("loss") or name.startswith(OBJECTIVE)]
    metrics = [name for name in names if name not in losses]
    if metrics and all(name.startswith(FOLD) for name in metrics):
        of_training = [name for name in metrics if name.endswith(TRAINING)]
        return losses, [group for group in ([n for n in metrics if n not in of_training], of_training) if group]
    of_one = [name for name in metrics if name in (VALIDATION, TRAINING)]
    shares = [name for name in metrics if log[name].min() >= 0 and log[name].max() <= 1]
    if not set(of_one) <= set(shares):
        shares = [name for name in shares if name not in of_one]
    else:
        of_one = []
    others = [[name] for name in metrics if name not in (*shares, *of_one)]
    return losses, [group for group in (shares, of_one, *others) if group]


def _loss(axes: Axes, log: pd.DataFrame, others: Sequence[str], ink: Ink) -> None:
    rows_known = log.dropna(subset=["loss"])
    smooth = rows_known["loss"].rolling(max(1, len(rows_known) // SMOOTH_SHARE), min_periods=1, center=True).mean()
    axes.plot(rows_known["step"], rows_known["loss"], color=ink.series[0], alpha=0.3, linewidth=0.8)
    axes.plot(rows_known["step"], smooth, color=ink.series[0], linewidth=1.8, label="mean" if others else "loss")
    axes.set_ylabel("loss")
    for colour, name in zip(drawing.cycle_colours(ink, 1 + len(others))[1:], others, strict=True):
        rows_known = log.dropna(subset=[name])
        axes.plot(rows_known["step"], rows_known[name], color=colour, linewidth=1.6, label=drawing.short_name(name))
    if others:
        drawing.draw_legend(axes, ink)


def _validation(axes: Axes, log: pd.DataFrame, metrics: Sequence[str], ink: Ink) -> None:
    for colour, name in zip(drawing.cycle_colours(ink, len(metrics)), metrics, strict=True):
        rows_known = log.dropna(subset=[name])
        axes.plot(
            rows_known["step"],
            rows_known[name],
            color=colour,
            linewidth=1.6,
            marker="o",
            markersize=3,
            label=drawing.short_name(name.replace(TRAINING, "training cases")),
        )
    axes.set_ylabel("metric" if len(metrics) > 1 else drawing.short_name(metrics[0], 16), parse_math=False)
    if len(metrics) > 1:
        drawing.draw_legend(axes, ink)


def _time_axis(log: pd.DataFrame) -> str:
    if "seconds" not in log.columns or log["seconds"].isna().all():
        return "step"
    seconds = float(log["seconds"].max())
    return (
        f"step (the last after {seconds / 60:.1f} min)" if seconds >= 90 else f"step (the last after {seconds:.0f} s)"
    )


def _dot(axes: Axes, row: int, estimate: Estimate, ink: Ink) -> None:
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [row, row], color=ink.series[0], linewidth=2)
    axes.plot(estimate.value, row, "o", markersize=4.5, color=ink.series[0])
    end = max(estimate.value, estimate.high or estimate.value)
    axes.annotate(
        wording.number_text(estimate.value, places=wording.decimal_places(estimate.value, estimate.unit)),
        (end, row),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=ink.text,
    )
    axes.margins(x=0.14)


def _finite(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=float).ravel()
    return cast("Floats", array[np.isfinite(array)])


def _spread_words(values: Floats) -> str:
    if not values.size:
        return "nothing measured"
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{values.size} values from {low:.3g} to {high:.3g}, median {middle:.3g}"


def estimate_courses(
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
        for panel, (name, series) in zip(panels, steps.items(), strict=False):
            panel.axhline(base, color=ink.faint, linewidth=1, linestyle="dashed")
            panel.plot(list(series), [one.value for one in series.values()], "o-", color=ink.series[0], markersize=3.5)
            for step, estimate in series.items():
                if estimate.low is not None and estimate.high is not None:
                    panel.plot(
                        [step, step], [estimate.low, estimate.high], color=ink.series[0], linewidth=1.2, alpha=0.6
                    )
            panel.set_title(drawing.short_name(name), fontsize=9, color=ink.text, parse_math=False)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            drawing.plain_axes(panel, ink)
        for panel in panels[len(steps) :]:
            panel.set_axis_off()
        canvas.supxlabel(axes[0], fontsize=9, color=ink.text)
        canvas.supylabel(axes[1], fontsize=9, color=ink.text)

    ends = [f"{name}: {list(own.values())[-1].value:.3g} at the last step" for name, own in steps.items()]
    alt = f"{axes[1]} over {axes[0]}, {base:.3g} before. {'; '.join(ends)}"
    return drawing.draw_chart(
        draw, title=title, caption=caption, alt=alt, size=(0.95 + 1.15 * columns, 0.8 + 1.05 * rows)
    )


def metrics_over_time(
    panels: Mapping[str, Mapping[str, Mapping[datetime, Estimate]]],
    title: str,
    *,
    bounds: Mapping[str, float],
    changes: Mapping[datetime, str],
) -> Figure:
    """A panel a metric: what each source states of it over time on its intervals, its bound, and lines at changes.

    panels: {metric: {source: {time: estimate}}}
    """

    named = list(dict.fromkeys(source for sources in panels.values() for source in sources))

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A panel a metric, below one another."""
        column = canvas.subplots(len(panels), 1, sharex=True, squeeze=False).ravel().tolist()
        colours, keys = dict(zip(named, drawing.cycle_colours(ink, len(named)), strict=True)), dict[str, Artist]()
        for panel, (name, sources) in zip(column, panels.items(), strict=True):
            for source, course in sources.items():
                values, ends = [one.value for one in course.values()], [(one.low, one.high) for one in course.values()]
                [keys[source]] = panel.plot(list(course), values, "o-", color=colours[source], markersize=3.5)
                for at, (low, high) in zip(course, ends, strict=True):
                    panel.plot([at, at], [low, high], color=colours[source], linewidth=1.2, alpha=0.6)
            if name in bounds:
                keys["bound"] = panel.axhline(bounds[name], color=ink.text, linewidth=1, linestyle="dashed")
            for at in changes:
                panel.axvline(at, color=ink.faint, linewidth=1, linestyle="dotted")
            panel.set_title(drawing.short_name(name, 40), fontsize=9, color=ink.text, parse_math=False)
            drawing.plain_axes(panel, ink)
        column[-1].xaxis.set_major_formatter(ConciseDateFormatter(column[-1].xaxis.get_major_locator()))
        canvas.legend(
            list(keys.values()), list(keys), loc="outside lower center", ncols=4, labelcolor=ink.text, frameon=False
        )

    last = [
        f"{name}, {source} {[*own.values()][-1].value:.3g}"
        for name, all_of in panels.items()
        for source, own in all_of.items()
    ]
    marks = (
        errors.list_phrase(f"{words} from {at:%Y-%m-%d %H:%M}" for at, words in changes.items())
        or "no software changed"
    )
    caption = f"Dots: months, with 95 % intervals. Dotted lines: {marks}."
    size = (4.4, 0.8 + 1.3 * len(panels))
    return drawing.draw_chart(draw, title=title, caption=caption, alt=f"Last figures: {'; '.join(last)}", size=size)


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
        lines.append((f"{drawing.short_name(group)} ({estimate.n})", estimate, judged))

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A line a group."""
        axes = canvas.subplots()
        shown = [(place, one, judged) for place, (_, one, judged) in enumerate(lines) if one is not None]
        finite = [(place, one, judged) for place, one, judged in shown if np.isfinite(one.value)]
        for row in {place for place, _, _ in shown} - {place for place, _, _ in finite}:
            axes.text(0.02, row, UNDEFINED, va="center", color=ink.faint, transform=axes.get_yaxis_transform())
        ends = [(place, one.low, one.high) for place, one, _ in finite if one.low is not None and one.high is not None]
        if ends:
            places, low, high = zip(*ends, strict=True)
            axes.hlines(places, low, high, color=ink.series[0], linewidth=1.6)
        for is_full, face in ((True, ink.series[0]), (False, ink.paper)):
            dots = [(one.value, place) for place, one, judged in finite if judged == is_full]
            if dots:
                values, places = zip(*dots, strict=True)
                axes.plot(values, places, "o", markersize=6, color=ink.series[0], markerfacecolor=face)
        axes.set_yticks(range(len(lines)), [name for name, _, _ in lines], parse_math=False)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlabel(axis)
        drawing.plain_axes(axes, ink, rows=True)
        for (_, estimate, _), tick in zip(lines, axes.get_yticklabels(), strict=True):
            tick.set_fontweight("bold" if estimate is None else "normal")

    alt = "; ".join(f"{a} {g} {wording.value_text(one)} ({wording.interval_text(one)})" for a, g, one, _ in rows)
    words = caption or "Dot: value, hollow where a group cannot be judged. Line: its interval. In brackets: cases."
    words += f" {left} more groups are not drawn." if left > 0 else ""
    height = 0.36 if len(lines) <= CROWDED else 0.24
    return drawing.draw_chart(draw, title=title, caption=words, alt=alt, size=(4.4, 0.8 + height * len(lines)))


SIZE = (4.4, 4.0)
# From so many cases on bars of all of them would hide the points.
MOST_BARS = 150


def agreement_plot(
    reference: ArrayLike,
    predicted: ArrayLike,
    title: str,
    *,
    unit: str = "",
    error_bars: ArrayLike | None = None,
    caption: str = "",
) -> Figure:
    """Predicted against reference, one point a case, with the line on which both are equal.

    error_bars: (cases,) half the height of each error bar
    Raises UsageError where there is no case.
    """
    true, predictions = _pair(reference, predicted, title)
    bars = None if error_bars is None or len(true) > MOST_BARS else np.asarray(error_bars, dtype=float)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A point a case, and the line of equality."""
        axes = canvas.subplots()
        ends = [float(min(true.min(), predictions.min())), float(max(true.max(), predictions.max()))]
        axes.plot(ends, ends, color=ink.faint, linewidth=1, linestyle="dashed")
        if bars is not None:
            axes.errorbar(true, predictions, bars, fmt="none", ecolor=ink.series[0], elinewidth=0.8, alpha=0.4)
        _points(axes, true, predictions, ink)
        axes.set(xlabel=f"reference{_unit_suffix(unit)}", ylabel=f"predicted{_unit_suffix(unit)}")
        axes.set_aspect("equal", adjustable="datalim")
        drawing.plain_axes(axes, ink)

    words = caption or "Dashed: predicted and reference are equal."
    if bars is not None:
        words += " Bars: the network's own error, 1.96 standard deviations."
    distance = wording.number_text(float(np.abs(predictions - true).mean()))
    alt = f"Predicted against reference{_unit_suffix(unit)}, {len(true)} points, mean distance {distance}"
    return drawing.draw_chart(draw, title=title, caption=words, alt=alt, size=SIZE)


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
    true, predictions = _pair(reference, predicted, title)
    lines = (limits[1], bias, limits[0])

    def draw(canvas: Canvas, ink: Ink) -> None:
        """A point a case, and three lines with bands."""
        axes = canvas.subplots()
        axes.axhline(0, color=ink.faint, linewidth=1, linestyle="dashed")
        for estimate, colour in zip(lines, (ink.series[1], ink.series[0], ink.series[1]), strict=True):
            _line(axes, estimate, colour, ink)
        _points(axes, (true + predictions) / 2, predictions - true, ink)
        axes.set(
            xlabel=f"mean of predicted and reference{_unit_suffix(unit)}",
            ylabel=f"predicted minus reference{_unit_suffix(unit)}",
        )
        axes.locator_params(axis="x", nbins=5)  # numbers of voxels are long
        drawing.plain_axes(axes, ink)

    named_lines = zip(("upper limit", "bias", "lower limit"), lines, strict=True)
    spoken = ", ".join(f"{name} {wording.value_text(one)}" for name, one in named_lines)
    alt = f"Bland-Altman plot of {len(true)} cases: {spoken}"
    caption = "Lines: bias and limits of agreement, between which 95 % of the differences lie if they are normal."
    if any(one.low is not None for one in lines):
        caption += f" Bands: their {100 * bias.level:.0f} % intervals."
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=SIZE)


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
        wording.number_text(estimate.value),
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


def _pair(reference: ArrayLike, predicted: ArrayLike, title: str) -> tuple[Floats, Floats]:
    true, predictions = np.asarray(reference, dtype=float), np.asarray(predicted, dtype=float)
    if true.shape != predictions.shape or not true.size:
        problem = f"{predictions.size} predictions for {true.size} references"
        raise UsageError(problem, title, "Give one of each for every case, and at least one case")
    return true, predictions


def _unit_suffix(unit: str) -> str:
    return f" ({unit})" if unit else ""
