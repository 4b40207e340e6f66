"""`study before-after`: what changed in a series of events at a moment, by segmented regression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from hilum import errors, keywords
from hilum.errors import DatasetError, UsageError
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.options.records import StudyBeforeAfterOptions
from hilum.reading import verb_results
from hilum.report import Figure, InNotebook, ReportPage, Section, Table, page_blocks, wording
from hilum.report.figures import drawing
from hilum.runtime import record_files
from hilum.studies import before_after
from hilum.studies.before_after import SegmentedFit
from hilum.values import Floats, table_cells
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.values.table_cells import TableRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from hilum.report.display import Ink

RECORD, PAGE = "before_after.json", "report.html"
# Months differ by a tenth in length; a point that is left out doubles a gap.
MOST_UNEVEN = 1.5


class BeforeAfterRecord(RecordHead):
    """An interrupted time series: so many points, the first after the change, and the change of level and slope."""

    points: int
    at: str
    before: int
    autocorrelation: float
    rows: list[TableRow]
    source: str


SCHEMA = RecordSchema("hilum.before_after", BeforeAfterRecord)


@dataclass(frozen=True, eq=False)
class BeforeAfterResult(InNotebook):
    """What changed. times: as in the table; values: (points,); after: the first point after the change, from 0"""

    times: tuple[str, ...]
    values: Floats
    after: int
    fit: SegmentedFit
    out: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """Rows of term, value, low, high and p."""
        return pd.DataFrame(self.fit.table)

    def as_record(self) -> BeforeAfterRecord:
        """The record for `--json`, and before_after.json."""
        facts = {"at": self.times[self.after], "before": self.after, "autocorrelation": self.fit.correlation}
        own = {"points": len(self.values), "rows": self.fit.table, "source": before_after.SOURCE}
        return SCHEMA.record_of(self, **facts, **own)

    def __repr__(self) -> str:
        lines = [
            f"{row['term']}: {row['value']:.4g} (95 % interval {row['low']:.4g} to {row['high']:.4g}; "
            f"p {wording.p_text(cast('float', row['p']))})"
            for row in self.fit.table
        ]
        last = f"autocorrelation {self.fit.correlation:.2f}; {self.after} points before {self.times[self.after]}"
        ends = [] if self.out is None else [str(self.out / PAGE)]
        return "\n".join([*lines, f"{last}, {len(self.values) - self.after} from then on", *ends])


@keywords.takes(StudyBeforeAfterOptions)
def study_before_after(options: StudyBeforeAfterOptions) -> BeforeAfterResult:
    """Level and slope before a change and their change at it, with intervals, by segmented regression.

    at:  the first time after the change, as it stands in the table
    out: a folder for before_after.json and report.html; nothing is written without it
    Errors are a first-order autoregression; doi:10.1093/ije/dyw098.
    Raises DatasetError for a table without these columns, points that are missing or uneven, and too few of them.
    """
    source, out = Path(options.data), None if options.out is None else Path(options.out)
    verb_results.refuse_missing(source)
    if out is not None:
        verb_results.refuse_taken(out, options.overwrite, (RECORD, PAGE))
    times, values = _read_series(csv_text.read_given_table(source), options, str(source))
    if options.at not in times:
        remedy = f"Give one of its times, such as {times[len(times) // 2]}"
        raise UsageError(f"{options.at!r} is no time of {source.name}", "--at", remedy)
    after = times.index(options.at)
    fit = before_after.fit_segments(values, after, season=options.season)
    result = BeforeAfterResult(times, values, after, fit, out)
    if out is not None:
        with verb_results.result_folder(out, options.overwrite, (RECORD, PAGE)) as folder:
            record_files.write_json(folder / RECORD, SCHEMA, result.as_record())
            (folder / PAGE).write_text(page_blocks.render_page(_page(result, options.value)), encoding="utf-8")
    return result


def _read_series(table: pd.DataFrame, options: StudyBeforeAfterOptions, where: str) -> tuple[tuple[str, ...], Floats]:
    """(times, values) in the order of time."""
    for name in (options.time, options.value):
        if name not in table:
            columns = errors.list_phrase(table.columns)
            raise DatasetError(f"has no column {name!r}", where, f"Give --time and --value; it has {columns}")
    column = csv_text.text_column(table, options.value, where)
    values = table_cells.numbers_in(column, strictly=True).values
    for index in np.flatnonzero(~np.isfinite(values))[:1].tolist():
        problem = f"{column.name} {column.cells[index]!r} in {column.place(index)} is no number"
        raise DatasetError(problem, where, "Give each point its value; a series without one has no autocorrelation")
    moments = _moments(csv_text.text_column(table, options.time, where), where)
    order = np.argsort(moments, kind="stable")
    times, gaps = tuple(table[options.time].iloc[order]), np.diff(moments[order])
    if gaps.size and gaps.min() <= 0:
        twice = times[int(np.argmin(gaps))]
        raise DatasetError(f"{twice} stands twice", where, "Give one row a point in time")
    if gaps.size and gaps.max() > MOST_UNEVEN * np.median(gaps):
        before = int(np.argmax(gaps))
        problem = f"nothing stands between {times[before]} and {times[before + 1]}, a longer gap than others"
        raise DatasetError(problem, where, "Give points at equal distances, 0 where nothing happened")
    return times, values[order]


def _moments(column: table_cells.TextColumn, where: str) -> Floats:
    """Times as numbers: of days, or whole numbers as they are."""
    if all(cell.lstrip("-").isdigit() for cell in column.cells):
        return np.array([float(cell) for cell in column.cells])
    cells = [f"{cell}-01" if len(cell) == 7 and cell[4] == "-" else cell for cell in column.cells]
    found = table_cells.times_in(table_cells.TextColumn(column.name, cells, where, first_line=column.first_line))
    for index, why in list(found.odd.items())[:1]:
        problem = f"{column.name} {column.cells[index]!r} in {column.place(index)} {why}"
        raise DatasetError(problem, where, "Give days as 2026-03-01, months as 2026-03, or whole numbers")
    return found.at.astype("datetime64[h]").astype(float)


def _page(result: BeforeAfterResult, name: str) -> ReportPage:
    rows = [
        [
            row["term"],
            f"{row['value']:.4g}",
            f"{row['low']:.4g} to {row['high']:.4g}",
            wording.p_text(cast("float", row["p"])),
        ]
        for row in result.fit.table
    ]
    level = result.fit.table[2]
    verdict = (
        f"At {result.times[result.after]} the level of {name} changed by {level['value']:.3g} "
        f"({level['low']:.3g} to {level['high']:.3g})."
    )
    return ReportPage(
        f"{name} before and after {result.times[result.after]}",
        verdict=verdict,
        lead="Segmented regression of a series; what else changed at that time cannot be told apart from it.",
        sections=[
            Section("The series", [_figure(result, name)]),
            Section("Figures", [Table(("term", "value", "95 % interval", "p"), rows)]),
        ],
        facts={
            "points": str(len(result.values)),
            "autocorrelation": f"{result.fit.correlation:.2f}",
            "method": before_after.SOURCE,
        },
    )


def _figure(result: BeforeAfterResult, name: str) -> Figure:
    points = np.arange(len(result.values))

    def draw(canvas: Canvas, ink: Ink) -> None:
        """Points, the fit, and how it would have gone on."""
        axes, after = canvas.subplots(), result.after
        axes.plot(points, result.values, "o", color=ink.series[0], markersize=3.5, alpha=0.6)
        for part in (points[:after], points[after:]):
            axes.plot(part, result.fit.fitted[part], color=ink.series[0], linewidth=1.8)
        axes.plot(points[after:], result.fit.unchanged[after:], color=ink.faint, linestyle="dashed", linewidth=1.4)
        axes.axvline(after - 0.5, color=ink.faint, linewidth=1)
        shown = points[:: max(1, len(points) // 6)]
        axes.set_xticks(shown, [result.times[point] for point in shown], parse_math=False)
        axes.set_ylabel(drawing.short_name(name), parse_math=False)
        drawing.plain_axes(axes, ink)

    caption = "Each point as measured, the fitted lines, and dashed how the line before would have gone on."
    alt = f"{len(points)} values of {name}, with lines before and after {result.times[result.after]}"
    return drawing.draw_chart(draw, title="Before and after", caption=caption, alt=alt, size=(6.4, 3.2))
