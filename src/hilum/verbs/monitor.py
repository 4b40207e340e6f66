"""`monitor`: whether a model in use still sees what it saw, and how well it does, from a table of its cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np

from hilum import errors, keywords
from hilum.errors import DatasetError, UsageError
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.monitoring import alerting, case_stream, drift_detection, performance_figures, site_tests
from hilum.monitoring.alerting import Alert, AuditBound, BoundState
from hilum.monitoring.case_stream import CaseStream
from hilum.monitoring.drift_detection import Drift, Miscalibration
from hilum.monitoring.e_detectors import FEWEST
from hilum.monitoring.monitoring_record import MONITORED_SCHEMA, MonitoringRecord, SiteTestRow, StreamFacts
from hilum.monitoring.performance_figures import RATES, Performance
from hilum.monitoring.site_tests import SiteTest
from hilum.options.node import MonitorOptions
from hilum.reading import verb_results
from hilum.report import Block, InNotebook, Paragraph, ReportPage, Section, Table, page_blocks
from hilum.report.figures import charts
from hilum.report.page_blocks import Link
from hilum.runtime import record_files
from hilum.service import monitoring_rounds, node_folder
from hilum.service.records import record_database
from hilum.values import Estimate, PlainValue, record_schema
from hilum.verbs import serve

DRIFT = "drift.csv"
PERFORMANCE = "performance.csv"
SITE = "site.csv"
ALERTS = "alerts.csv"
RECORD = "monitor.json"
REPORT = "report.html"
RUN_LENGTH, BASELINE = 10000.0, 300
SITE_COLUMNS = ["compared with", "what", "test", "distance", "p (Holm)", "patients here", "patients there", "left out"]
# States of alerts of a node that stand no more.
ENDED = ("closed", "cleared")
# Sources of figures in the order in which they can be trusted.
SOURCES = ("audited", "reported", "estimated")
# Figures that are drawn over time: those with a bound, then these of each finding.
DRAWN_OF_FINDINGS, MOST_PANELS = "auroc", 6


@dataclass(frozen=True, eq=False)
class MonitoringResult(InNotebook):
    """Watches, figures and alerts of a model in use, and where the files lie."""

    drifts: Sequence[Drift]
    figures: Sequence[Performance]
    alerts: Sequence[Alert]
    notes: Sequence[str]
    facts: StreamFacts
    site: Sequence[SiteTest] = ()
    out: Path | None = None
    bounds: Sequence[BoundState] = ()
    earlier: Sequence[Performance] = ()

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        return "; ".join([self._of_alerts, *alerting.reported_bounds_words(self.bounds)])

    @property
    def _of_alerts(self) -> str:
        if standing := [one for one in self.alerts if one.state not in ENDED]:
            named = [f"{one.severity}: {one.watch}{f' ({one.scope})' if one.scope else ''}" for one in standing]
            return f"{errors.count_phrase(len(standing), 'alert')}: {'; '.join(named)}"
        return f"no alert in {errors.count_phrase(self.facts['cases'], 'case')}"

    @property
    def site_verdict(self) -> str:
        """Whether the site is what the model was made on, which says nothing of a change; empty if nobody knows."""
        return site_tests.site_verdict(self.site)

    @property
    def table(self) -> pd.DataFrame:
        """The alerts."""
        return alerting.alert_table(self.alerts)

    def as_record(self) -> MonitoringRecord:
        """The record that `monitor.json` holds."""
        return {
            "schema": MONITORED_SCHEMA,
            "version": 1,
            **self.facts,
            "verdict": self.verdict,
            "site_verdict": self.site_verdict,
            "site": [_site_row(one) for one in self.site],
            "notes": list(self.notes),
            "bounds": record_schema.plain(self.bounds),
            "alerts": record_schema.plain(self.alerts),
            "out": None if self.out is None else str(self.out),
        }

    def __repr__(self) -> str:
        lines = [
            self.verdict,
            *([self.site_verdict] if self.site else []),
            *(f"alert {one.alert}: {one.because}" for one in self.alerts if one.because),
        ]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@dataclass(frozen=True, eq=False)
class _Watched:
    """The cases of one model. watched: those compared with the baseline; baseline: None where there is none yet

    model: of a node with several, before the names of its rows
    wrong: how its probabilities are off at the site
    site:  tests of whether the site is what the model was made on
    bounds: of its audited figures
    course: the cases of this and of earlier versions; None where there are no earlier ones
    """

    cases: CaseStream
    watched: CaseStream
    baseline: CaseStream | None
    run_length: float
    by: str | None
    model: str = ""
    wrong: Mapping[str, Miscalibration] = field(default_factory=dict)
    site: Sequence[SiteTest] = ()
    bounds: Sequence[AuditBound] = ()
    course: CaseStream | None = None

    def with_model_name(self, words: str) -> str:
        """What it says, after the model's name where a node has several."""
        return f"{self.model}: {words}" if self.model else words


@keywords.takes(MonitorOptions)
def monitor(options: MonitorOptions) -> MonitoringResult:
    """Watch the cases of a model in use for change, and state its performance with and without labels.

    table:      a row a case, in any order: `at` (ISO time), `case`, `patient`, the columns of `predictions.csv`,
                `measure_<name>`, `covariate_<name>`, `reference` where known, `inclusion` (the chance with which it was
                sampled to be read blind; blank: reported). Or the folder of a node, whose models are compared with the
                baselines that were frozen, and whose alerts are listed as they stand
    reference:  cases with the same columns: the baseline of a table, by default its first 300 cases; and what the site
                is compared with, a table's first 300 cases, a node's baseline
    run_length: cases between false alarms, for all watches together: without a change an alarm within m cases has at
                most the chance m / run_length; by default 10,000, of a node what its settings come to
    out:        a folder for drift.csv, performance.csv, site.csv, alerts.csv, monitor.json and report.html
    Raises DatasetError for a table that cannot be watched, UsageError for an `out` that is taken.
    """
    if options.out is not None:
        verb_results.refuse_taken(Path(options.out), options.overwrite, (RECORD, REPORT))
    node = Path(options.table) if isinstance(options.table, str | Path) and Path(options.table).is_dir() else None
    if node is not None and options.bounds:
        raise UsageError("a node has bounds of its own", str(node), "Leave out --bound: its settings have them")
    versions, notes, alerts = _of_table(options) if node is None else _of_node(node, options)
    bounds = [_bound(one, versions[0].cases.findings) for one in (AuditBound(*own) for own in options.bounds)]
    found, figures_made, states = list[Drift](), list[Performance](), list[BoundState]()
    for one in versions:
        rows = _drifts(one)
        found += rows
        own = performance_figures.performance_rows(one.cases, one.by, rows)
        figures_made += [replace(row, label=one.with_model_name(row.label)) for row in own]
        states += [
            replace(row, bound=one.with_model_name(row.bound))
            for row in alerting.bound_states(own, one.bounds or bounds)
        ]
    earlier = [row for one in versions if one.course is not None for row in _earlier(one.course)]
    if node is None:
        alerts = alerting.find_alerts(found, figures_made, bounds)
    facts: StreamFacts = {
        "cases": sum(len(one.watched) for one in versions),
        "from": min(one.watched.at[0] for one in versions).isoformat(timespec="seconds"),
        "to": max(one.watched.at[-1] for one in versions).isoformat(timespec="seconds"),
        "labels": sum(_labels(one.cases) for one in versions),
        "reference_cases": sum(len(one.baseline) for one in versions if one.baseline is not None),
        "run_length": min(one.run_length for one in versions),
        "by": versions[0].by,
        "changes": {at: words for one in versions for at, words in (one.course or one.cases).software_changes.items()},
    }
    site = [_name_test(one, row) for one in versions for row in one.site]
    out = None if options.out is None else Path(options.out)
    monitored = MonitoringResult(found, figures_made, alerts, notes, facts, site, out, states, earlier)
    if out is not None:
        with verb_results.result_folder(out, options.overwrite, (RECORD, REPORT)) as folder:
            csv_text.write_table(drift_detection.drift_table(found), folder / DRIFT)
            csv_text.write_table(performance_figures.performance_table(figures_made), folder / PERFORMANCE)
            csv_text.write_table(site_tests.site_table(site), folder / SITE)
            csv_text.write_table(alerting.alert_table(alerts), folder / ALERTS)
            record_files.write_json(folder / RECORD, MONITORED_SCHEMA, monitored.as_record())
            (folder / REPORT).write_text(page_blocks.render_page(_page(monitored)), encoding="utf-8")
    return monitored


def _of_table(options: MonitorOptions) -> tuple[list[_Watched], list[str], list[Alert]]:
    """(the cases of a table, notes, no alert yet)."""
    stream, site = CaseStream.from_table(options.table), list[SiteTest]()
    notes = list(stream.notes)
    if options.reference is not None:
        baseline = CaseStream.from_table(options.reference, needs_time=False)
        notes += [f"baseline, {one}" for one in baseline.notes]
    else:
        first = np.arange(len(stream)) < min(BASELINE, len(stream) // 2)
        baseline, stream = stream.only(first), stream.only(~first)
        notes.append(
            f"no --reference: the first {errors.count_phrase(len(baseline), 'case')} of the table are the baseline"
        )
    if len(baseline) < FEWEST:
        problem = f"the baseline has {errors.count_phrase(len(baseline), 'case')}"
        raise DatasetError(problem, baseline.where, f"Give {FEWEST} at least, better 300")
    everything, stream = stream, stream.between(options.since, options.until)
    course = stream
    if not stream.was_ordered:
        notes.append("the rows were not in the order of time; they were sorted by `at`")
    if stream.has("version") and len(versions := sorted(set(stream.text("version")))) > 1:
        # What is known of one version says nothing of another.
        last = stream.text("version")[-1]
        everything, stream = (one.only(np.asarray(one.text("version") == last)) for one in (everything, stream))
        notes.append(
            f"{errors.count_phrase(len(versions), 'version')} of the model: only cases of {last}, the last, are watched"
        )
    notes += case_stream.watch_notes(baseline, stream)
    if options.reference is not None:
        site = site_tests.adjust_site_tests(
            site_tests.tests_of_table(baseline, everything.only(np.arange(len(everything)) < BASELINE))
        )
    length = options.run_length or RUN_LENGTH
    watched = _Watched(stream, stream, baseline, length, options.by, site=site, course=course)
    return [watched], notes, []


def _bound(bound: AuditBound, findings: Sequence[str]) -> AuditBound:
    """The bound, if an audit of these findings may be below it. Raises UsageError for another."""
    if bound.metric not in RATES or bound.label not in findings:
        known = errors.list_phrase(findings) or "nothing: the table has no probability_<finding>"
        raise UsageError(
            f"there is no {bound.metric} of {bound.label!r}",
            "--bound",
            f"Choose one of {errors.list_phrase(RATES)}, of {known}",
        )
    if not 0 <= bound.at_least <= 1:
        raise UsageError(f"no {bound.metric} is {bound.at_least:g}", "--bound", "Give a value from 0 to 1")
    return bound


def _of_node(folder: Path, options: MonitorOptions) -> tuple[list[_Watched], list[str], list[Alert]]:
    """(the cases of each model of a node since its baseline, notes, its alerts as they stand)."""
    serve.refuse_missing_extra("monitor")
    models, notes, days = list[_Watched](), list[str](), (options.since, options.until)
    with closing(record_database.node_database(folder)) as database, database.read() as connection:
        settings = node_folder.node_settings(folder)
        versions = monitoring_rounds.watched_versions(connection, settings)
        alerts = monitoring_rounds.alerts_as_rows(connection)
    for version in versions:
        if version.baseline is None:
            notes.append(f"{version.model} has no baseline yet: freeze one on the page /monitor of the node")
        else:
            notes += [f"{version.model}: {one}" for one in case_stream.watch_notes(version.baseline, version.watched)]
        baseline = None if version.baseline is None else version.baseline.table
        levels = options.by or monitoring_rounds.tracing_attributes(
            settings.monitor.by, version.watched.table, baseline
        )
        model = version.model if len(versions) > 1 else ""
        length = options.run_length or version.run_length or RUN_LENGTH
        wrong = {} if version.baseline is None else drift_detection.measure_miscalibration(version.baseline)
        cases, of_table = drift_detection.recalibrate_stream(version.cases, wrong).between(*days), list[SiteTest]()
        if version.baseline is not None and options.reference is not None:
            reference = CaseStream.from_table(options.reference, needs_time=False)
            of_table = site_tests.tests_of_table(reference, version.baseline)
        site = site_tests.adjust_site_tests([*version.site, *of_table])
        watched = version.watched.between(*days)
        bounds = [
            AuditBound(one.metric, one.label, one.at_least) for one in settings.bound if one.label in cases.findings
        ]
        models.append(_Watched(cases, watched, version.baseline, length, levels, model, wrong, site, bounds))
    if not models:
        raise DatasetError("no model has answered a case yet", str(folder), "Send studies to the node")
    return models, notes, alerts


def _drifts(version: _Watched) -> list[Drift]:
    if version.baseline is None:
        return []
    found = drift_detection.drift_rows(version.baseline, version.watched, version.by, version.run_length, version.wrong)
    if not found:
        problem, remedy = "has no column that can be watched", "Give probabilities, values or measures"
        raise DatasetError(problem, version.watched.where, remedy)
    return [replace(row, watch=version.with_model_name(row.watch)) for row in found]


def _earlier(course: CaseStream) -> list[Performance]:
    """The figures of each version but the last."""
    named = course.text("version")
    versions = (course.only(np.asarray(named == one)) for one in dict.fromkeys(named.tolist()) if one != named[-1])
    return [row for stream in versions for row in performance_figures.performance_rows(stream, None, [])]


def _name_test(version: _Watched, row: SiteTest) -> SiteTest:
    return replace(row, against=f"{row.against} ({version.model})") if version.model else row


def _site_row(test: SiteTest) -> SiteTestRow:
    """A row as JSON: what is no number is not known."""
    known = {name: None if isinstance(one, float) and np.isnan(one) else one for name, one in vars(test).items()}
    return cast("SiteTestRow", known)


def _labels(stream: CaseStream) -> int:
    """Number of cases with an outcome."""
    known = [np.isfinite(stream.outcomes(one)) for one in stream.findings]
    return int(np.any(known, axis=0).sum()) if known else 0


def _page(monitored: MonitoringResult) -> ReportPage:
    """The report: the verdict, alerts, watches, the site, performance by source."""
    sections = [_alerts_shown(monitored), _bounds_shown(monitored), _watches_shown(monitored), _site_shown(monitored)]
    sections += [_figures_shown(monitored)]
    return ReportPage(
        "Monitoring",
        sections=[one for one in sections if one.blocks],
        facts=cast("Mapping[str, PlainValue]", monitored.facts),
        notes=monitored.notes,
        verdict=monitored.verdict,
    )


def _alerts_shown(monitored: MonitoringResult) -> Section:
    columns = ["alert", "at", "severity", "watch", "where", "since", "because", "what to do"]
    rows = [
        [row.alert, _minute(row.at), row.severity, row.watch, row.scope, _minute(row.since), row.because, row.action]
        for row in monitored.alerts
    ]
    blank = Paragraph("No watch has rung, and no audited figure is below a bound.")
    return Section("Alerts", [Table(columns, rows)] if rows else [blank], [Link(ALERTS, ALERTS)])


def _bounds_shown(monitored: MonitoringResult) -> Section:
    rows = [[one.bound, one.at_least, one.state, one.because, one.reported] for one in monitored.bounds]
    table = Table(["bound", "at least", "audited", "because", "reported, not audited, and below"], rows)
    return Section("Bounds", [table] if rows else [], [Link(RECORD, RECORD)])


def _over_time(monitored: MonitoringResult) -> list[Block]:
    """The figures of all cases over time that have a bound, and then the areas; none of a single window."""
    bounds = {one.bound: one.at_least for one in monitored.bounds}
    panels: dict[str, dict[str, dict[datetime, Estimate]]] = {name: {} for name in bounds}
    for row in (*monitored.earlier, *monitored.figures):
        name = (
            row.label.replace(": ", f": {row.metric} of ", 1) if ": " in row.label else f"{row.metric} of {row.label}"
        )
        if not row.scope and np.isfinite(row.estimate.value) and (name in bounds or row.metric == DRAWN_OF_FINDINGS):
            since, until = map(datetime.fromisoformat, (row.since, row.until))
            panels.setdefault(name, {}).setdefault(row.source, {})[since + (until - since) / 2] = row.estimate
    panels_over_time = {
        name: sources for name, sources in panels.items() if any(len(own) > 1 for own in sources.values())
    }
    first, changes = dict(list(panels_over_time.items())[:MOST_PANELS]), monitored.facts["changes"]
    marks = {datetime.fromisoformat(at): words for at, words in sorted(changes.items())}
    return [charts.metrics_over_time(first, "Figures over time", bounds=bounds, changes=marks)] if first else []


def _watches_shown(monitored: MonitoringResult) -> Section:
    columns = ["watch", "kind", "where", "cases", "log evidence", "limit", "alarm"]
    rows = [
        [row.watch, row.kind, row.scope, row.cases, round(row.log_evidence, 2), round(row.limit, 2), at]
        for row in monitored.drifts
        if (at := _minute(row.alarm_at)) or not row.scope
    ]
    rate = Paragraph(
        "Without a change the chance of an alarm of any watch within m cases is at most "
        f"m / {monitored.facts['run_length']:g}. A level is named where it carries the evidence."
    )
    return Section("Watches", [rate, Table(columns, rows)], [Link(DRIFT, DRIFT)])


def _site_shown(monitored: MonitoringResult) -> Section:
    rows = [
        [row.against, row.of, row.test, _round(row.distance), _round(row.p), row.patients, row.known, row.left_out]
        for row in monitored.site
    ]
    meaning = Paragraph(
        "Asked once, of one case of each patient of the baseline. Whether the site has changed since is what the "
        "watches say."
    )
    verdict = Paragraph(f"{monitored.site_verdict or 'Not known: give --reference'}.")
    tests = [Table(SITE_COLUMNS, rows)] if rows else []
    return Section("Is this site what the model was made on?", [verdict, meaning, *tests], [Link(SITE, SITE)])


def _figures_shown(monitored: MonitoringResult) -> Section:
    rows = [
        [f"{row.since} to {row.until}", row.scope, row.metric, row.label, row.estimate, row.source]
        for row in sorted(monitored.figures, key=lambda row: SOURCES.index(row.source))
        if np.isfinite(row.estimate.value)
    ]
    sources = Paragraph(
        "Audited: sampled at random and read blind. Reported: labels that came otherwise, from readers who may know "
        "the answer. Estimated: from the model's own probabilities, which cannot see that images have come to mean "
        "something else."
    )
    table = Table(["days", "where", "metric", "label", "value", "source"], rows)
    return Section("Performance", [sources, *_over_time(monitored), table], [Link(PERFORMANCE, PERFORMANCE)])


def _round(number: float) -> float | str:
    return f"{number:.3g}" if np.isfinite(number) else ""


def _minute(at: str) -> str:
    """A time as a reader wants it, in UTC."""
    return at[:16].replace("T", " ")
