"""Rounds of monitoring: each minute what is new of a model is compared with its baseline, and alerts are written."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
from sqlalchemy import Connection, Row, func, select

from hilum.errors import DatasetError, IntegrityError, UsageError
from hilum.files.storage import atomic
from hilum.lazy import pandas as pd
from hilum.monitoring import alerting, drift_detection, performance_figures, site_tests
from hilum.monitoring.alerting import Alert, AuditBound, BoundState
from hilum.monitoring.case_stream import CaseStream
from hilum.monitoring.drift_detection import Drift, Miscalibration
from hilum.monitoring.performance_figures import AUDITED, Performance
from hilum.monitoring.site_tests import SiteTest
from hilum.service import _node_threads, deploying
from hilum.service.configuration import MonitorSection, NodeSettings, SafetyRule
from hilum.service.monitoring import change_comparison, monitored_cases, safety, stop_rules
from hilum.service.node_folder import MONITOR
from hilum.service.node_monitor_record import NODE_MONITOR_SCHEMA, NodeMonitorRecord, WatchedVersionRecord
from hilum.service.reading import blind_reading
from hilum.service.records import alert_records
from hilum.service.records.alert_records import CLEARED, PERFORMANCE
from hilum.service.records.record_database import Database
from hilum.service.records.tables import ALERTS, OUTCOME_ROWS
from hilum.values.table_cells import TableRow
from hilum.work_state import log

# Between two rounds, and after one that has failed (s).
ROUND_S, AGAIN_S = 60.0, 60.0
DAY_S, YEAR_DAYS = 86400.0, 365.25
COLLECTING, PROPOSED, FROZEN = "collecting", "proposed", "frozen"
# Watches begin again after so many cases: a round takes seconds, however long a node runs. The chance of a false alarm
# is that of each part, and these add up to that of all.
MOST_CASES = 3000
# An alert is cleared after so many quiet windows, each twice as long as the change took to be found, at least so long.
QUIET, SHORTEST_WINDOW = 3, 50
# Levels of an attribute from which on they are no groups.
MOST_LEVELS = 50
# Cases of which performance is stated, and how often where no outcome is new (s).
MEASURED_CASES, MEASURED_S = 20000, 3600.0


@dataclass(frozen=True, eq=False)
class VersionMonitoring:
    """Result of monitoring for one version of a model.

    baseline: "collecting", "proposed" once there are enough cases, or "frozen"
    cases:    since the watches have begun; of a baseline that is not frozen those that there are
    run_length: cases between false alarms, of all watches of this model together; 0 without a baseline
    judged:   figures since the last alert ended, which bounds are compared with
    site:     whether the baseline is like the cases that calibrated the model
    problem:  why the model cannot be watched
    bounds:   whether the judged figures keep those of its findings
    changes:  {time by the clock of the site: software that was new}
    """

    model: str
    version: str
    baseline: str
    cases: int
    run_length: float = 0.0
    drifts: Sequence[Drift] = ()
    figures: Sequence[Performance] = ()
    rung: Sequence[Alert] = ()
    judged: Sequence[Performance] = ()
    site: Sequence[SiteTest] = ()
    problem: str = ""
    bounds: Sequence[BoundState] = ()
    changes: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> WatchedVersionRecord:
        """Its part of the node's `monitor.json`."""
        own = {name: getattr(self, name) for name in ("model", "version", "baseline", "cases", "run_length", "problem")}
        drift = _plain(drift_detection.drift_table(self.drifts))
        performance = _plain(performance_figures.performance_table(self.figures))
        site = {"site_verdict": site_tests.site_verdict(self.site), "site": _plain(site_tests.site_table(self.site))}
        bounds = {"bounds": [vars(one) for one in self.bounds], "changes": dict(self.changes)}
        record = {**own, "drift": drift, "performance": performance, **site, **bounds}
        return cast("WatchedVersionRecord", record)


@dataclass(frozen=True, eq=False)
class WatchedVersion:
    """The cases of a version of a model: all, those that are compared with its baseline, and that, where there is one.

    run_length: 0 without a baseline
    site:       whether the baseline is like the cases that calibrated the model
    """

    model: str
    cases: CaseStream
    watched: CaseStream
    baseline: CaseStream | None
    run_length: float
    site: Sequence[SiteTest] = ()


@dataclass(frozen=True)
class AlertWindow:
    """A window after an alert. until: when its last case was done (s since 1970)."""

    alert: int
    is_quiet: bool
    until: float


class Rounds:
    """The one process that watches the models of a node."""

    def __init__(self, settings: NodeSettings, database: Database) -> None:
        self.settings, self.database = settings, database
        self._marks: dict[str, tuple[Any, ...]] = {}
        self._seen: dict[str, VersionMonitoring] = {}
        self._sites: dict[int, Sequence[SiteTest]] = {}
        self._measured: dict[str, tuple[float, Any, tuple[Sequence[Performance], Sequence[Performance]]]] = {}

    def watch(self, stop: threading.Event) -> None:
        """A round each minute until it is stopped."""
        _node_threads.repeat_step(self.round, stop, "the monitor", rest_s=ROUND_S, idle_s=0.0, again_s=AGAIN_S)

    def round(self) -> int:
        """Look at each version that answers and of which something is new, and return their number."""
        with self.database.write() as connection:
            blind_reading.sample_blind_reads(connection, self.settings, self.database.now())
            answering = monitored_cases.answering_versions(connection)
            for row in alert_records.standing_alerts(connection):
                if (row.model, row.model_hash) not in answering:
                    alert_records.settle_alert(connection, row.n, CLEARED, "another version of the model answers")
        for because in change_comparison.end_harmful(self.database, self.settings.bound):
            log.warning("a split has ended: %s", because)
        fresh = [self._look(model, version) for model, version in answering]
        self._seen = {version: self._seen[version] for _, version in answering if version in self._seen}
        if any(fresh):
            _write(self.settings.folder / MONITOR, self.database.now(), self._seen.values())
        return sum(fresh)

    def _look(self, model: str, version: str) -> bool:
        """Whether something was new. A model that cannot be watched keeps no other from it."""
        with self.database.read() as connection:
            baseline = monitored_cases.baseline_of(connection, version)
            today = self.database.now() // DAY_S  # a day without a case is new, too
            mark = (None if baseline is None else baseline.n, today, *_mark(connection, version))
            if self._marks.get(version) == mark:
                return False
            try:
                seen = self._compare(connection, model, version, baseline)
                windows = [] if baseline is None else list(self._windows(connection, baseline, seen))
            except (DatasetError, UsageError, IntegrityError) as error:
                log.warning("model %s is not watched: %s", model, error)
                seen, windows = VersionMonitoring(model, version, FROZEN, 0, problem=str(error)), []
            halting = self._broken_limits(connection, model, version, seen)
        with self.database.write() as connection:
            listed = [(alert, self.settings.safety) for alert in seen.rung]
            listed += [(alert, [*self.settings.safety, SafetyRule(then="halt", model=model)]) for alert in halting]
            for alert, rules in listed:
                row = alert_records.raise_alert(connection, model, version, alert)
                if row is not None:
                    log.warning("alert %s (%s) of model %s: %s", row.n, row.severity, model, row.watch)
                    safety.apply_safety_rules(connection, rules, row)
                    safety.notify_of_alert(connection, self.settings, row)
            cleared = set[int]()
            for window in windows:
                if window.alert in cleared:
                    continue
                if (
                    alert_records.note_quiet_window(
                        connection, window.alert, is_quiet=window.is_quiet, until=window.until
                    )
                    >= QUIET
                ):
                    alert_records.settle_alert(connection, window.alert, CLEARED, f"{QUIET} quiet windows in a row")
                    cleared.add(window.alert)
        self._marks[version], self._seen[version] = mark, seen
        return True

    def _broken_limits(self, connection: Connection, model: str, version: str, seen: VersionMonitoring) -> list[Alert]:
        """An alert for each rule of the settings by which a model stops, of its cases since the last alert ended."""
        section, now = self.settings.models.get(model), self.database.now()
        if section is None or not section.stop:
            return []
        since = max(now - DAY_S * max(rule.days for rule in section.stop), alert_records.last_end(connection, version))
        table = monitored_cases.monitored_jobs(connection, since, version=version)
        broken = stop_rules.broken_limits(section.stop, table, seen.bounds, now)
        at = _iso(now)
        return [Alert(0, at, "urgent", watch, "operation", "", at, "", "", why) for watch, why in broken]

    def _compare(
        self, connection: Connection, model: str, version: str, baseline: Row[Any] | None
    ) -> VersionMonitoring:
        monitor, zone = self.settings.monitor, self.settings.site.zone
        if baseline is None:
            count, *_ = monitored_cases.newest_cases_span(connection, version, monitor.baseline_cases)
            return VersionMonitoring(model, version, PROPOSED if count >= monitor.baseline_cases else COLLECTING, count)
        length = cases_between_alarms(monitor, baseline, len(self.settings.models) or 1)
        ended = alert_records.last_end(connection, version)
        gate = deploying.read_model_gate(self.settings.folder, version)
        known = monitored_cases.baseline_stream(connection, baseline, gate, zone)
        if baseline.n not in self._sites:  # a question that has one answer, whatever comes later
            self._sites[baseline.n] = site_tests.adjust_site_tests(
                monitored_cases.compare_site(connection, baseline, known, gate)
            )
        site, since = self._sites[baseline.n], _restart_time(connection, version, max(baseline.last_at, ended))
        table = monitored_cases.monitored_jobs(connection, since, version=version, gate=gate)
        if not len(table):
            return VersionMonitoring(model, version, FROZEN, 0, length, site=site)
        stream, wrong = monitored_cases.stream_of(table, zone), drift_detection.measure_miscalibration(known)
        until = pd.Timestamp(self.database.now(), unit="s", tz="UTC")
        found = drift_detection.drift_rows(
            known, stream, tracing_attributes(monitor.by, table, known.table), length, wrong, until
        )
        figures, judged = self._figures(connection, version, ended, found, wrong)
        bounds = [AuditBound(one.metric, one.label, one.at_least) for one in self.settings.bound]
        # Of a bound only the last figure counts: one cause is one alert.
        last = {(one.kind, one.watch): one for one in alerting.find_alerts(found, judged, bounds)}
        rung = list(last.values())
        own = alerting.bound_states(judged, [one for one in bounds if one.label in stream.findings])
        changes = stream.software_changes
        return VersionMonitoring(
            model, version, FROZEN, len(table), length, found, figures, rung, judged, site, "", own, changes
        )

    def _figures(
        self,
        connection: Connection,
        version: str,
        ended: float,
        found: Sequence[Drift],
        wrong: Mapping[str, Miscalibration],
    ) -> tuple[Sequence[Performance], Sequence[Performance]]:
        """Performance of all that was answered, and of what was answered since the last alert ended."""
        _, first, _ = monitored_cases.newest_cases_span(connection, version, MEASURED_CASES)
        marks = connection.execute(select(func.count(), func.max(OUTCOME_ROWS.c.at))).one()
        rings = sum(1 for row in found if row.alarm_at and row.kind == "concept")
        mark = (*marks, ended, rings)
        at, before, made = self._measured.get(version, (0.0, None, ((), ())))
        if mark == before and time.monotonic() - at < MEASURED_S:
            return made
        table = monitored_cases.monitored_jobs(connection, float(np.nextafter(first, 0.0)), version=version)
        stream = drift_detection.recalibrate_stream(monitored_cases.stream_of(table, self.settings.site.zone), wrong)
        figures = performance_figures.performance_rows(
            stream, tracing_attributes(self.settings.monitor.by, table), found
        )
        later = np.asarray(stream.at > pd.Timestamp(ended, unit="s", tz="UTC"))
        judged: Sequence[Performance] = figures if later.all() else ()
        if self.settings.bound and later.any() and not later.all():
            judged = performance_figures.performance_rows(stream.only(later), None, found)
        self._measured[version] = (time.monotonic(), mark, (figures, judged))
        return figures, judged

    def _windows(self, connection: Connection, baseline: Row[Any], seen: VersionMonitoring) -> Iterator[AlertWindow]:
        """Windows after alerts that stand which nobody has looked at: of cases, of a bound those of its figures."""
        for row in alert_records.standing_alerts(connection, seen.version):
            if row.kind == PERFORMANCE:
                yield from self._months(row, seen.judged)
                continue
            size = max(SHORTEST_WINDOW, 2 * monitored_cases.count_cases(connection, row.model_hash, row.since, row.at))
            gate = deploying.read_model_gate(self.settings.folder, row.model_hash)
            table = monitored_cases.monitored_jobs(connection, row.looked_at, version=row.model_hash, gate=gate)
            if len(table) < size:
                continue
            zone, places = self.settings.site.zone, np.arange(len(table))
            known = monitored_cases.baseline_stream(connection, baseline, gate, zone)
            stream = monitored_cases.stream_of(table, zone)
            wrong = drift_detection.measure_miscalibration(known)
            by = tracing_attributes(self.settings.monitor.by, table, known.table)
            for start in range(0, len(table) - size + 1, size):
                # Each is watched anew, against the same baseline.
                window = stream.only((places >= start) & (places < start + size))
                rows = drift_detection.drift_rows(known, window, by, seen.run_length, wrong)
                rings = any(one.alarm_at and (one.kind == row.kind or one.watch == row.watch) for one in rows)
                yield AlertWindow(row.n, not rings, window.at[-1].timestamp())

    def _months(self, row: Row[Any], figures: Sequence[Performance]) -> Iterator[AlertWindow]:
        least = {alerting.bound_name(one.metric, one.label): one.at_least for one in self.settings.bound}.get(
            row.watch, 0.0
        )
        zone = self.settings.site.zone
        today = datetime.now(ZoneInfo(zone)).date().isoformat()
        for figure in figures:
            is_own = (
                figure.source == AUDITED
                and not figure.scope
                and alerting.bound_name(figure.metric, figure.label) == row.watch
            )
            until = pd.Timestamp(figure.until, tz=zone).timestamp()
            # A month that goes on may still change.
            if is_own and figure.estimate.high is not None and figure.until <= today and until > row.looked_at:
                yield AlertWindow(row.n, figure.estimate.high >= least, until)


def watched_versions(connection: Connection, settings: NodeSettings) -> list[WatchedVersion]:
    """Results of monitoring for each version that answers."""
    versions_watched, zone = list[WatchedVersion](), settings.site.zone
    for model, version in monitored_cases.answering_versions(connection):
        row = monitored_cases.baseline_of(connection, version)
        gate = deploying.read_model_gate(settings.folder, version)
        everything = monitored_cases.stream_of(
            monitored_cases.monitored_jobs(connection, version=version, gate=gate), zone
        )
        if row is None:
            versions_watched.append(WatchedVersion(model, everything, everything, None, 0.0))
            continue
        since = max(row.last_at, alert_records.last_end(connection, version))
        later = monitored_cases.monitored_jobs(
            connection, _restart_time(connection, version, since), version=version, gate=gate
        )
        watched = monitored_cases.stream_of(later, zone) if len(later) else everything
        length = cases_between_alarms(settings.monitor, row, len(settings.models) or 1)
        reference = monitored_cases.baseline_stream(connection, row, gate, zone)
        site = monitored_cases.compare_site(connection, row, reference, gate)
        versions_watched.append(WatchedVersion(model, everything, watched, reference, length, site))
    return versions_watched


def alerts_as_rows(connection: Connection) -> list[Alert]:
    """All alerts as rows of `alerts.csv`, with their number and state."""
    return [
        Alert(
            row.n,
            _iso(row.at),
            row.severity,
            row.watch,
            row.kind,
            row.scope,
            _iso(row.since),
            row.state,
            row.action,
            row.because,
        )
        for row in connection.execute(select(ALERTS).order_by(ALERTS.c.n))
    ]


def cases_between_alarms(settings: MonitorSection, baseline: Row[Any], models: int) -> float:
    """Cases between false alarms of one of so many models, by how often cases came during its baseline."""
    days = max((baseline.last_at - baseline.first_at) / DAY_S, 1.0)
    yearly = baseline.cases / days * YEAR_DAYS
    return cast(float, max(2.0, models * yearly / settings.false_alarms_per_year))


def tracing_attributes(columns: Sequence[str], table: pd.DataFrame, baseline: pd.DataFrame | None = None) -> str | None:
    """Attributes to which a change is traced.

    baseline: the table of the baseline
    Left out are those in which all cases are alike, which would name everything; that have too many levels to be
    groups; and that the baseline does not have.
    """
    own, before = (
        {str(name).removeprefix("covariate_"): str(name) for name in one}
        for one in (table, table if baseline is None else baseline)
    )
    names = [one for one in columns if (name := one.partition(":")[0]) in own and name in before]
    levels = {one: table[own[one.partition(":")[0]]].nunique() for one in names}
    return ",".join(one for one in names if levels[one] > 1 and (":" in one or levels[one] < MOST_LEVELS)) or None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _mark(connection: Connection, version: str) -> tuple[Any, ...]:
    """Mark that changes where something is new of a version."""
    labels = connection.execute(select(func.count(), func.max(OUTCOME_ROWS.c.at))).one()
    return (
        *monitored_cases.newest_cases_span(connection, version, 1),
        monitored_cases.count_cases(connection, version),
        *labels,
        alert_records.last_end(connection, version),
    )


def _restart_time(connection: Connection, version: str, since: float) -> float:
    """When the watches of a version have begun last: after an alert, or after so many cases."""
    parts = (monitored_cases.count_cases(connection, version, since) - 1) // MOST_CASES
    return since if parts < 1 else monitored_cases.nth_time(connection, version, since, parts * MOST_CASES)


def _write(path: Path, at: float, rows_of_versions: Iterable[VersionMonitoring]) -> None:
    """Write for the web process, which may be on another machine."""
    rows = [one.record for one in rows_of_versions]
    record = NodeMonitorRecord(schema=NODE_MONITOR_SCHEMA, version=1, at=at, rows=rows)
    with atomic.write_whole(path, overwrite=True) as partial:
        partial.write_text(json.dumps(record, allow_nan=False), encoding="utf-8")


def _plain(rows: pd.DataFrame) -> list[TableRow]:
    """Rows as JSON: what is no number is not known."""
    return [
        {
            str(name): None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in row.items()
        }
        for row in rows.astype(object).to_dict("records")
    ]
