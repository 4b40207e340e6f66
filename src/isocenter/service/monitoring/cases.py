"""Answered cases of a node as the table that `isocenter monitor` reads: one row a job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from isocenter.lazy import pandas as pd
from isocenter.service.records.jobs import NOTHING, RESULT
from isocenter.service.records.tables import baselines, findings, jobs, measures, outcomes, series, studies

# States of a job whose answer stands; of others it was replaced, or never given.
STANDING = ("sending", "done")
ANSWERED = (RESULT, NOTHING)
# Of findings that exclude each other, and beginnings of columns, as tables of cases have them.
CLASS = "class"
PROBABILITY, CALLED, REFERENCE, INCLUSION = "probability_", "called_", "reference", "inclusion"
# Letters of a station's hash, by which a person tells it from others.
STATION = 8
# Columns that every table has, though all of their cells may be blank: `by` may name them.
SCANNER = ("station", "software", "protocol", "kernel", "manufacturer", "scanner")
ALWAYS = (
    *("at", "case", "patient", "version", "model", "rule", "abstained", "seconds"),
    *SCANNER,
    *("covariate_sex", "covariate_age"),
)


def cases(
    connection: Connection, since: float | None = None, until: float | None = None, version: str | None = None
) -> pd.DataFrame:
    """Jobs that have reached their model, in the order in which they were done.

    since, until: s since 1970; those done after the one and not after the other
    version:      hash of a model
    Columns are those of `isocenter monitor TABLE`. Of each label the blind read counts before what was reported; a late
    one belongs to the day of its job.
    """
    chosen = _chosen(since, until, version)
    joined = jobs.join(measures, measures.c.job == jobs.c.job).join(studies, studies.c.study == jobs.c.study)
    wanted = select(jobs, measures.c.measures, measures.c.distances, studies.c.patient)
    rows = connection.execute(wanted.select_from(joined).where(*chosen).order_by(jobs.c.done_at, jobs.c.job)).all()
    keys = select(jobs.c.job).select_from(jobs.join(measures, measures.c.job == jobs.c.job)).where(*chosen)
    found = defaultdict[str, list[Mapping[str, Any]]](list)
    for one in connection.execute(select(findings.c.job, findings.c.row).where(findings.c.job.in_(keys))):
        found[one.job].append(one.row)
    labelled = defaultdict[str, list[Row[Any]]](list)
    for one in connection.execute(select(outcomes).where(outcomes.c.job.in_(keys)).order_by(outcomes.c.at)):
        labelled[one.job].append(one)
    of_studies = select(jobs.c.study).select_from(jobs.join(measures, measures.c.job == jobs.c.job)).where(*chosen)
    scanners = {
        (one.study, one.series): one for one in connection.execute(select(series).where(series.c.study.in_(of_studies)))
    }
    made = [
        {
            **_of_job(row),
            **_of_scanner(scanners.get((row.study, next(iter(row.inputs["series"].values()), "")))),
            **_of_answer(found[row.job]),
            **_of_labels(labelled[row.job]),
        }
        for row in rows
    ]
    others = sorted({name for one in made for name in one} - {*ALWAYS})
    return pd.DataFrame(made, columns=[*ALWAYS, *others])


def baseline_of(connection: Connection, version: str) -> Row[Any] | None:
    """The row of the baseline that counts for a model; None where none was frozen."""
    wanted = select(baselines).where(baselines.c.model_hash == version).order_by(baselines.c.n.desc())
    return connection.execute(wanted.limit(1)).first()


def versions(connection: Connection) -> dict[str, str]:
    """{model: hash of the version that has answered last} of a node."""
    done = jobs.join(measures, measures.c.job == jobs.c.job)
    last = select(jobs.c.model, jobs.c.model_hash, func.max(jobs.c.done_at)).select_from(done).where(*_chosen())
    rows = connection.execute(last.group_by(jobs.c.model, jobs.c.model_hash)).all()
    return {model: version for model, version, _ in sorted(rows, key=lambda row: float(row[2]))}


def newest(connection: Connection, version: str, most: int, since: float | None = None) -> tuple[int, float, float]:
    """How many cases of a model there are, at most so many, and when the first and the last of the newest was done."""
    done = jobs.join(measures, measures.c.job == jobs.c.job)
    chosen = _chosen(since, version=version)
    at = select(jobs.c.done_at).select_from(done).where(*chosen).order_by(jobs.c.done_at.desc()).limit(most)
    times = list(connection.execute(at).scalars())
    return (len(times), float(times[-1]), float(times[0])) if times else (0, 0.0, 0.0)


def _chosen(
    since: float | None = None, until: float | None = None, version: str | None = None
) -> list[ColumnElement[bool]]:
    chosen = [jobs.c.outcome.is_not(None), jobs.c.state.in_(STANDING)]
    chosen += [] if since is None else [jobs.c.done_at > since]
    chosen += [] if until is None else [jobs.c.done_at <= until]
    return chosen + ([] if version is None else [jobs.c.model_hash == version])


def _of_job(row: Row[Any]) -> dict[str, Any]:
    """What the records state of a job, its image, its patient and its covariates."""
    stated = {f"covariate_{name}": one["value"] for name, one in (row.covariates or {}).items()}
    return {
        "at": datetime.fromtimestamp(row.done_at, UTC).isoformat(),
        "case": row.job,
        "patient": row.patient,
        "version": row.model_hash,
        "model": row.model,
        "rule": row.rule,
        "abstained": None if row.outcome in ANSWERED else row.reason or row.outcome,
        # To load a model takes longer than all else, and is done once.
        "seconds": sum(value for name, value in (row.seconds or {}).items() if name != "load") or None,
        **stated,
        **{f"measure_{name}": value for name, value in row.measures.items()},
        **{f"measure_distance_{name}": value for name, value in row.distances.items()},
    }


def _of_scanner(row: Row[Any] | None) -> dict[str, Any]:
    """Of the first series of a job; a station has no name here."""
    if row is None:
        return {}
    names = {"software": "software", "protocol": "protocol", "kernel": "kernel", "manufacturer": "manufacturer"}
    made = {name: getattr(row, column) for name, column in {**names, "scanner": "model"}.items()}
    return {**made, "station": row.station and row.station[:STATION]}


def _of_answer(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns as in `predictions.csv`; of what several images, frames or boxes state that which is most likely."""
    made = dict[str, Any]()
    for row in rows:
        name, group, value, p = row["concept"], row.get("group"), row.get("value"), row.get("probability")
        if group not in (None, "", CLASS, name):  # a measurement of a structure, beside its size
            continue
        if p is not None:
            made[f"{PROBABILITY}{name}"] = max(p, made.get(f"{PROBABILITY}{name}", p))
        called = value if isinstance(value, bool) else row.get("called")
        if called is not None:
            made[f"{CALLED}{name}"] = max(int(called), made.get(f"{CALLED}{name}", 0))
        elif isinstance(value, int | float):
            made[f"{name}_ml" if row.get("unit") == "ml" else f"value_{name}"] = value
    return made


def _of_labels(rows: Sequence[Row[Any]]) -> dict[str, Any]:
    """`reference_<label>`, `reference_at` and `inclusion`: of blind reads, else as reported last."""
    drawn = [row for row in rows if row.inclusion is not None]
    counted = drawn or rows
    if not counted:
        return {}
    at = datetime.fromtimestamp(max(row.at for row in counted), UTC).isoformat()
    made = {f"{REFERENCE}_{row.label}": row.value for row in counted}
    return {**made, "reference_at": at, INCLUSION: drawn[-1].inclusion if drawn else None}
