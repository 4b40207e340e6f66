"""`monitor`: whether a model in use still sees what it saw, and how well it does, from a table of its cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import DatasetError, counted
from isocenter.files import write_table
from isocenter.keywords import named_keywords
from isocenter.lazy import pandas as pd
from isocenter.monitoring import (
    FEWEST,
    Alert,
    Bound,
    Drift,
    Performance,
    Stream,
    alert_table,
    alerts,
    drift_table,
    drifts,
    performance_table,
    performances,
)
from isocenter.reading import refuse_taken, result_folder
from isocenter.report import InNotebook, Link, Page, Paragraph, Section, Table, render
from isocenter.runtime import write_json

DRIFT, PERFORMANCE, ALERTS, RECORD, REPORT = (
    "drift.csv",
    "performance.csv",
    "alerts.csv",
    "monitor.json",
    "report.html",
)
RUN_LENGTH, BASELINE = 10000.0, 300
# Sources of figures in the order in which they can be trusted.
SOURCES = ("audited", "reported", "estimated")


@dataclass(frozen=True, eq=False)
class Monitored(InNotebook):
    """Watches, figures and alerts of a model in use, and where the files lie."""

    drifts: Sequence[Drift]
    figures: Sequence[Performance]
    alerts: Sequence[Alert]
    notes: Sequence[str]
    facts: dict[str, Any]
    out: Path | None = None

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if self.alerts:
            named = [f"{one.severity}: {one.watch}{f' ({one.scope})' if one.scope else ''}" for one in self.alerts]
            return f"{counted(len(self.alerts), 'alert')}: {'; '.join(named)}"
        return f"no alert in {counted(self.facts['cases'], 'case')}"

    @property
    def table(self) -> pd.DataFrame:
        """The alerts."""
        return alert_table(self.alerts)

    def as_record(self) -> dict[str, Any]:
        """The record that `monitor.json` holds."""
        return {
            "schema": "isocenter.monitor",
            "version": 1,
            **self.facts,
            "verdict": self.verdict,
            "notes": list(self.notes),
            "alerts": [vars(one) for one in self.alerts],
            "out": None if self.out is None else str(self.out),
        }

    def __repr__(self) -> str:
        lines = [self.verdict, *(f"alert {one.alert}: {one.because}" for one in self.alerts if one.because)]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@named_keywords()
def monitor(
    table: str | Path | pd.DataFrame,
    *,
    reference: str | Path | pd.DataFrame | None = None,
    since: str | None = None,
    until: str | None = None,
    by: str | None = None,
    run_length: float = RUN_LENGTH,
    bounds: Sequence[tuple[str, str, float]] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Monitored:
    """Watch the cases of a model in use for change, and state its performance with and without labels.

    table:      a row a case, in any order: `at` (ISO time), `case`, `patient`, the columns of `predictions.csv`,
                `measure_<name>`, `covariate_<name>`, `reference` where known, `inclusion` (the chance with which it was
                drawn to be read blind; blank: reported)
    reference:  the baseline, with the same columns; None: the first 300 cases of the table
    since, until: ISO dates; the cases from the one on and before the other
    by:         attributes to whose levels a change is traced, such as "station,software,sex,age:40:60"
    run_length: cases between false alarms, for all watches together: without a change an alarm within m cases has at
                most the chance m / run_length
    bounds:     (metric, label, least value) of audited figures
    out:        a folder for drift.csv, performance.csv, alerts.csv, monitor.json and report.html
    Raises DatasetError for a table that cannot be watched, UsageError for an `out` that is taken.
    """
    if out is not None:
        refuse_taken(Path(out), overwrite, (RECORD, REPORT))
    stream, baseline, notes = _opened(table, reference)
    stream = stream.between(since, until)
    if not stream.was_ordered:
        notes.append("the rows were not in the order of time; they were sorted by `at`")
    if stream.has("version") and len(versions := sorted(set(stream.text("version")))) > 1:
        # What is known of one version says nothing of another.
        last = stream.text("version")[-1]
        stream = stream.only(np.asarray(stream.text("version") == last))
        notes.append(f"{counted(len(versions), 'version')} of the model: only cases of {last}, the last, are watched")
    found = drifts(baseline, stream, by, run_length)
    if not found:
        raise DatasetError("has no column that can be watched", stream.where, "Give probabilities, values or measures")
    figures_made = performances(stream, by, found)
    rung = alerts(found, figures_made, [Bound(*one) for one in bounds])
    facts = {
        "cases": len(stream),
        "from": stream.at[0].isoformat(timespec="seconds"),
        "to": stream.at[-1].isoformat(timespec="seconds"),
        "labels": int(np.any([np.isfinite(stream.outcomes(one)) for one in stream.findings], axis=0).sum()),
        "reference_cases": len(baseline),
        "run_length": run_length,
        "by": by,
    }
    monitored = Monitored(found, figures_made, rung, notes, facts, None if out is None else Path(out))
    if out is not None:
        with result_folder(Path(out), overwrite, (RECORD, REPORT)) as folder:
            write_table(drift_table(found), folder / DRIFT)
            write_table(performance_table(figures_made), folder / PERFORMANCE)
            write_table(alert_table(rung), folder / ALERTS)
            record = monitored.as_record()
            write_json(folder / RECORD, record.pop("schema"), record)
            (folder / REPORT).write_text(render(_page(monitored, stream)), encoding="utf-8")
    return monitored


def _opened(
    table: str | Path | pd.DataFrame, reference: str | Path | pd.DataFrame | None
) -> tuple[Stream, Stream, list[str]]:
    """(cases to watch, baseline, notes)."""
    stream = Stream.of(table)
    if reference is not None:
        baseline, notes = Stream.of(reference, needs_time=False), list[str]()
    else:
        first = np.arange(len(stream)) < min(BASELINE, len(stream) // 2)
        baseline, stream = stream.only(first), stream.only(~first)
        notes = [f"no --reference: the first {counted(len(baseline), 'case')} of the table are the baseline"]
    if len(baseline) < FEWEST:
        problem = f"the baseline has {counted(len(baseline), 'case')}"
        raise DatasetError(problem, baseline.where, f"Give {FEWEST} at least, better 300")
    return stream, baseline, notes


def _page(monitored: Monitored, stream: Stream) -> Page:
    """The report: the verdict, alerts, watches, performance by source."""
    rows = [
        [one.alert, _minute(one.at), one.severity, one.watch, one.scope, _minute(one.since), one.because, one.action]
        for one in monitored.alerts
    ]
    columns = ["alert", "at", "severity", "watch", "where", "since", "because", "what to do"]
    alarm_rate = monitored.facts["run_length"]
    watched = [
        [
            row.watch,
            row.kind,
            row.scope,
            row.cases,
            round(row.log_evidence, 2),
            round(row.limit, 2),
            _minute(row.alarm_at),
        ]
        for row in monitored.drifts
        if not row.scope or row.alarm_at
    ]
    measured = [
        [f"{row.since} to {row.until}", row.scope, row.metric, row.label, row.estimate, row.source]
        for row in sorted(monitored.figures, key=lambda one: SOURCES.index(one.source))
        if np.isfinite(row.estimate.value)
    ]
    blank = Paragraph("No watch has rung, and no audited figure is below a bound.")
    sections = [
        Section("Alerts", [Table(columns, rows)] if rows else [blank], [Link(ALERTS, ALERTS)]),
        Section(
            "Watches",
            [
                Paragraph(
                    "Without a change the chance of an alarm of any watch within m cases is at most "
                    f"m / {alarm_rate:g}. A level is named where it carries the evidence."
                ),
                Table(["watch", "kind", "where", "cases", "log evidence", "limit", "alarm"], watched),
            ],
            [Link(DRIFT, DRIFT)],
        ),
        Section(
            "Performance",
            [
                Paragraph(
                    "Audited: drawn at random and read blind. Reported: labels that came otherwise, from readers who "
                    "may have seen the answer. Estimated: from the model's own probabilities, which cannot see that "
                    "images have come to mean something else."
                ),
                Table(["days", "where", "metric", "label", "value", "source"], measured),
            ],
            [Link(PERFORMANCE, PERFORMANCE)],
        ),
    ]
    return Page(
        "Monitoring", sections=sections, facts=monitored.facts, notes=monitored.notes, verdict=monitored.verdict
    )


def _minute(at: str) -> str:
    """A time as a reader wants it, in UTC."""
    return at[:16].replace("T", " ")
