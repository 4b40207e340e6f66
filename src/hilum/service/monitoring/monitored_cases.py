"""Answered cases of a node as the table that `hilum monitor` reads, and baselines frozen from them by a person.

One row is one job; later cases of a model are compared with its baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, func, insert, select

from hilum.lazy import pandas as pd
from hilum.monitoring import site_tests
from hilum.monitoring.case_stream import CaseStream
from hilum.monitoring.site_tests import SiteTest
from hilum.service.monitoring import outcomes
from hilum.service.monitoring.outcomes import ANSWERS, ReportedOutcome
from hilum.service.records import audit_records
from hilum.service.records.actor import Actor
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.tables import BASELINES, FINDING_ROWS, JOBS, MEASURES, SERIES_ROWS, STUDIES
from hilum.values import ANSWERED, Floats, grouping
from hilum.values.finding_records import FindingRow
from hilum.values.table_cells import PlainCell

if TYPE_CHECKING:
    from hilum.runtime.guard.image_gate import Guard


# States of a job whose answer stands; of others it was replaced, or never given.
STANDING = ("sending", "done")
# Beginnings of columns, as tables of cases have them.
PROBABILITY, CALLED, REFERENCE, INCLUSION = "probability_", "called_", "reference", "inclusion"
FEATURE = "feature_"
# Jobs that have reached their model.
_MEASURED = JOBS.join(MEASURES, MEASURES.c.job == JOBS.c.job)
# Within which two versions of a model count as answering side by side (s).
WEEK_S = 7 * 86400.0
# Letters of a station's hash, by which a person tells it from others.
STATION = 8
# Columns that every table has, though all of their cells may be blank: `by` may name them.
SCANNER = ("station", "software", "protocol", "kernel", "manufacturer", "scanner")
ALWAYS = (
    *("at", "case", "patient", "version", "model", "rule", "abstained", "seconds"),
    *SCANNER,
    *("covariate_sex", "covariate_age"),
)


def monitored_jobs(
    connection: Connection,
    since: float | None = None,
    until: float | None = None,
    version: str | None = None,
    gate: Guard | None = None,
) -> pd.DataFrame:
    """Jobs that have reached their model, in the order in which they were done.

    since, until: s since 1970; those done after the one and not after the other
    version:      hash of a model
    gate:         of that version: what its network has seen is given along the axes of the cases that trained it
    Columns are those of `hilum monitor TABLE`. Of each label the blind read counts before what was reported; a late
    one belongs to the day of its job.
    """
    chosen = _conditions(since, until, version)
    joined = _MEASURED.join(STUDIES, STUDIES.c.study == JOBS.c.study)
    query = select(JOBS, MEASURES.c.measures, MEASURES.c.distances, STUDIES.c.patient)
    rows = connection.execute(query.select_from(joined).where(*chosen).order_by(JOBS.c.done_at, JOBS.c.job)).all()
    keys = select(JOBS.c.job).select_from(_MEASURED).where(*chosen)
    found_rows = select(FINDING_ROWS.c.job, FINDING_ROWS.c.row).where(FINDING_ROWS.c.job.in_(keys))
    found = grouping.by_key(connection.execute(found_rows).tuples())
    labelled = outcomes.outcomes_by_job(connection)
    gated = {} if gate is None else _along(gate, job_features(connection, since, until, version))
    of_studies = select(JOBS.c.study).select_from(_MEASURED).where(*chosen)
    scanners = {
        (one.study, one.series): one
        for one in connection.execute(select(SERIES_ROWS).where(SERIES_ROWS.c.study.in_(of_studies)))
    }
    records = [
        {
            **_of_job(row),
            **_of_scanner(scanners.get((row.study, next(iter(row.inputs["series"].values()), "")))),
            **columns_of_answer(found[row.job]),
            **_of_labels(labelled.get(row.job, [])),
            **gated.get(row.job, {}),
        }
        for row in rows
    ]
    others = sorted({name for record in records for name in record} - {*ALWAYS})
    return pd.DataFrame(records, columns=[*ALWAYS, *others])


def answering_versions(connection: Connection) -> list[tuple[str, str]]:
    """(model, hash) of the versions that answer: those that did so last or within a week before, in that order."""
    last = select(JOBS.c.model, JOBS.c.model_hash, func.max(JOBS.c.done_at).label("at")).select_from(_MEASURED)
    rows = connection.execute(last.where(*_conditions()).group_by(JOBS.c.model, JOBS.c.model_hash).order_by("at")).all()
    latest = {row.model: row.at for row in rows}
    return [(row.model, row.model_hash) for row in rows if row.at > latest[row.model] - WEEK_S]


def newest_cases_span(connection: Connection, version: str, most: int) -> tuple[int, float, float]:
    """Number of cases of a version, at most so many, and when the first and last of the newest were done."""
    at = select(JOBS.c.done_at).select_from(_MEASURED).where(*_conditions(version=version))
    times = list(connection.execute(at.order_by(JOBS.c.done_at.desc()).limit(most)).scalars())
    return (len(times), float(times[-1]), float(times[0])) if times else (0, 0.0, 0.0)


def count_cases(connection: Connection, version: str, since: float | None = None, until: float | None = None) -> int:
    """Number of cases of a version that were done after one time and not after another."""
    number = select(func.count()).select_from(_MEASURED).where(*_conditions(since, until, version))
    return int(connection.execute(number).scalar_one())


def nth_time(connection: Connection, version: str, since: float, n: int) -> float:
    """When the n-th case of a version after a time was done, from 1."""
    at = select(JOBS.c.done_at).select_from(_MEASURED).where(*_conditions(since, version=version))
    return float(connection.execute(at.order_by(JOBS.c.done_at).offset(n - 1).limit(1)).scalar_one())


def _conditions(
    since: float | None = None, until: float | None = None, version: str | None = None
) -> list[ColumnElement[bool]]:
    chosen: list[ColumnElement[bool]] = [JOBS.c.outcome.is_not(None), JOBS.c.state.in_(STANDING)]
    chosen += [] if since is None else [JOBS.c.done_at > since]
    chosen += [] if until is None else [JOBS.c.done_at <= until]
    return chosen + ([] if version is None else [JOBS.c.model_hash == version])


def job_features(
    connection: Connection, since: float | None = None, until: float | None = None, version: str | None = None
) -> dict[str, Floats]:
    """{job: (features,) what its network has seen}, where that is known; of jobs as in `monitored_jobs`."""
    chosen = _conditions(since, until, version)
    query = select(MEASURES.c.job, MEASURES.c.features).select_from(_MEASURED)
    rows = connection.execute(query.where(MEASURES.c.features.is_not(None), *chosen))
    return {row.job: np.frombuffer(row.features, np.float16).astype(np.float64) for row in rows}


def _along(gate: Guard | None, features: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """{job: columns of what its network has seen}, known as in `job_features`.

    The axes are those of training cases: axes of the baseline would fit its own cases better than later ones, and the
    watch would ring without a change.
    """
    if gate is None or gate.features is None or not features:
        return {}
    along = gate.features.along(np.stack(list(features.values())))
    names = [*(f"{FEATURE}{n}" for n in range(1, along.shape[1])), f"{FEATURE}beside"]
    return {job: dict(zip(names, row, strict=True)) for job, row in zip(features, along.tolist(), strict=True)}


def _of_job(row: Row[Any]) -> dict[str, PlainCell]:
    """Records of a job, its image, its patient and its covariates."""
    stated = {f"covariate_{name}": one["value"] for name, one in (row.covariates or {}).items()}
    return {
        "at": datetime.fromtimestamp(row.done_at, UTC).isoformat(),
        "case": row.job,
        "patient": row.patient,
        "version": row.model_hash,
        "model": row.model,
        "rule": row.rule,
        "abstained": None if row.outcome == ANSWERED else row.reason or row.outcome,
        # To load a model takes longer than all else, and is done once.
        "seconds": sum(value for name, value in (row.seconds or {}).items() if name != "load") or None,
        **stated,
        **{f"measure_{name}": value for name, value in row.measures.items()},
        **{f"measure_distance_{name}": value for name, value in row.distances.items()},
    }


def _of_scanner(row: Row[Any] | None) -> dict[str, PlainCell]:
    """Scanner of the first series of a job; a station has no name here."""
    if row is None:
        return {}
    names = {"software": "software", "protocol": "protocol", "kernel": "kernel", "manufacturer": "manufacturer"}
    made = {name: getattr(row, column) for name, column in {**names, "scanner": "model"}.items()}
    return {**made, "station": row.station and row.station[:STATION]}


def columns_of_answer(rows: Sequence[FindingRow]) -> dict[str, PlainCell]:
    """Columns as in `predictions.csv`; of what several images, frames or boxes state that which is most likely."""
    made: dict[str, Any] = {}
    for row in rows:
        name, group, value, p = row["concept"], row.get("group"), row.get("value"), row.get("probability")
        if group not in (*ANSWERS, name):  # a measurement of a structure, beside its size
            continue
        if p is not None:
            made[f"{PROBABILITY}{name}"] = max(p, made.get(f"{PROBABILITY}{name}", p))
        called = value if isinstance(value, bool) else row.get("called")
        if called is not None:
            made[f"{CALLED}{name}"] = max(int(called), made.get(f"{CALLED}{name}", 0))
        elif isinstance(value, int | float):
            made[f"{name}_ml" if row.get("unit") == "ml" else f"value_{name}"] = value
    return made


def _of_labels(outcomes_of_job: Sequence[ReportedOutcome]) -> dict[str, PlainCell]:
    """`reference_<label>`, when the last of them became known, and the chance with which a blind read was sampled."""
    if not outcomes_of_job:
        return {}
    at = datetime.fromtimestamp(max(one.at for one in outcomes_of_job), UTC).isoformat()
    columns = {f"{REFERENCE}_{one.label}": one.value for one in outcomes_of_job}
    return {**columns, "reference_at": at, INCLUSION: outcomes_of_job[0].inclusion}


def baseline_of(connection: Connection, version: str) -> Row[Any] | None:
    """The row of the baseline that counts for a model; None where none was frozen."""
    query = select(BASELINES).where(BASELINES.c.model_hash == version).order_by(BASELINES.c.n.desc())
    return connection.execute(query.limit(1)).first()


def freeze_newest_cases(connection: Connection, model: str, version: str, fewest: int, who: Actor) -> bool:
    """Have the newest cases of a version be its baseline; False where there are fewer than wanted."""
    count, first, last = newest_cases_span(connection, version, fewest)
    if count < fewest:
        return False
    columns = {"model": model, "model_hash": version, "cases": count, "first_at": first, "last_at": last}
    statement = insert(BASELINES).values(**columns, frozen_at=DatabaseClock(), frozen_by=who.account)
    n = connection.execute(statement.returning(BASELINES.c.n)).scalar_one()
    audit_records.record_event(
        connection, "baseline frozen", model, actor=who, detail={"n": n, "version": version, "cases": count}
    )
    return True


def baseline_stream(connection: Connection, baseline: Row[Any], gate: Guard | None, zone: str) -> CaseStream:
    """The cases of a baseline. gate: as in `monitored_jobs`; zone: of the site."""
    table = monitored_jobs(connection, _before(baseline), baseline.last_at, baseline.model_hash, gate)
    return stream_of(table, zone)


def stream_of(table: pd.DataFrame, zone: str) -> CaseStream:
    """The stream of cases of a node: a single odd value that a system sent stops no watch. zone: of the site"""
    return CaseStream.from_table(table, zone=zone, strictly=False)


def compare_site(
    connection: Connection, baseline: Row[Any], reference: CaseStream, gate: Guard | None
) -> list[SiteTest]:
    """Whether the cases of a baseline are like those that calibrated its model; nothing where that cannot be known.

    reference: the cases of the baseline
    """
    seen = job_features(connection, _before(baseline), baseline.last_at, baseline.model_hash)
    if gate is None or not (len(gate.calibrated) and seen):
        return []
    lacking = np.full(gate.calibrated.shape[1], np.nan)
    features = np.stack([seen.get(case, lacking) for case in reference.text("case").tolist()])
    # A worker keeps features as float16: else how they were rounded would tell the groups apart.
    return site_tests.tests_of_features(gate.calibrated.astype(np.float16), features, reference.patients)


def _before(baseline: Row[Any]) -> float:
    """The time just before its first case was done (s since 1970)."""
    return float(np.nextafter(baseline.first_at, 0.0))
