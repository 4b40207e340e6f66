"""A change that goes on: a package in shadow answers jobs that are done; figures of it and of both arms of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, or_, select, update

from hilum.evaluation import mask_overlap
from hilum.files import file_formats
from hilum.monitoring import confidence_sequences, performance_figures
from hilum.monitoring.case_stream import CaseStream
from hilum.monitoring.performance_figures import AUDITED, RATES, REPORTED
from hilum.service.configuration import BoundSection
from hilum.service.monitoring import monitored_cases
from hilum.service.monitoring.monitored_cases import CALLED, INCLUSION, PROBABILITY, STANDING
from hilum.service.records import deployments
from hilum.service.records.actor import NODE
from hilum.service.records.deployments import ARM, SHADOW
from hilum.service.records.job_queue import Job, JobOutcome
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import APPROVALS, DEPLOYMENTS, FINDING_ROWS, JOBS, SHADOW_ANSWERS, STUDIES
from hilum.values import ANSWERED, Estimate

NEW, OLD, DIFFERENCE = "new", "old", "difference"
SHOWN_S = 30 * 86400.0  # after its end, in which figures of a change are shown


@dataclass(frozen=True)
class ChangeFigure:
    """A figure of a change. metric: as in `measure_differences`, or a rate; arm: of a split, empty of a shadow

    source: of a rate, audited (sampled at random and read blind) or reported
    """

    metric: str
    arm: str
    estimate: Estimate
    source: str = ""

    def as_row(self) -> dict[str, Any]:
        """Row for the API and tables; what is not known is None."""
        ends = {name: getattr(self.estimate, name) for name in ("value", "low", "high")}
        known = {name: end if end is not None and np.isfinite(end) else None for name, end in ends.items()}
        return {"metric": self.metric, "arm": self.arm, "source": self.source, "cases": self.estimate.n, **known}


def figures_of_change(connection: Connection, change: Row[Any]) -> list[ChangeFigure]:
    """The figures of a shadow or a split, of each patient the first case; none of a live package, or before it began.

    Each interval holds at every look, on its own.
    """
    if change.began is None or change.mode not in (SHADOW, ARM):
        return []
    return _of_shadow(connection, change) if change.mode == SHADOW else list(_of_arms(connection, change))


def change_rows(connection: Connection, *where: ColumnElement[bool]) -> list[dict[str, Any]]:
    """Changes with their approvals and figures, oldest first, as plain values; times are s since 1970.

    Of what ended more than 30 days ago the figures are left out: all its cases would be read for each look.
    """
    long_ago = float(connection.execute(DatabaseClock().select()).scalar_one()) - SHOWN_S
    found = connection.execute(select(DEPLOYMENTS).where(*where).order_by(DEPLOYMENTS.c.n)).all()
    given_approvals = connection.execute(select(APPROVALS).order_by(APPROVALS.c.at)).all()
    columns = ("n", "model", "mode", "share", "until", "asked_at", "began", "ended", "because")
    return [
        {
            **{name: row._mapping[name] for name in columns},
            **{"package": row.manifest, "state": deployments.deployment_state(row), "check": row.check_hash},
            "approvals": [
                {"account": one.account, "role": one.role, "at": one.at} for one in given_approvals if one.n == row.n
            ],
            "figures": [
                one.as_row()
                for one in (figures_of_change(connection, row) if row.ended is None or row.ended > long_ago else ())
            ],
        }
        for row in found
    ]


def end_harmful(database: Database, bounds: Sequence[BoundSection]) -> list[str]:
    """End splits whose new arm lies below a bound of harm; why, in words.

    A rate from reported labels ends one as an audited one does: to end it is the safe side.
    """
    ended = list[str]()
    with database.read() as connection:
        arms = connection.execute(select(DEPLOYMENTS).where(DEPLOYMENTS.c.mode == ARM, deployments.is_in_force())).all()
        found = {arm.n: figures_of_change(connection, arm) for arm in arms if bounds}
    for n, figures in found.items():
        crossed = [
            f"the {one.source} {bound.metric} of {bound.label} in the new arm is at most {one.estimate.high:.3f}; "
            f"the bound is {bound.at_least:g}"
            for bound in bounds
            for one in figures
            if (one.metric, one.arm) == (f"{bound.metric}_{bound.label}", NEW)
            and one.estimate.high is not None
            and one.estimate.high < bound.at_least
        ]
        if crossed:
            with database.write() as connection:
                deployments.end_change(connection, n, NODE, crossed[0])
            ended.append(crossed[0])
    return ended


def _of_shadow(connection: Connection, change: Row[Any]) -> list[ChangeFigure]:
    joined = SHADOW_ANSWERS.join(JOBS, JOBS.c.job == SHADOW_ANSWERS.c.job).join(
        STUDIES, STUDIES.c.study == JOBS.c.study
    )
    query = select(SHADOW_ANSWERS.c.differences, STUDIES.c.patient, JOBS.c.study).select_from(joined)
    query = query.where(SHADOW_ANSWERS.c.n == change.n, SHADOW_ANSWERS.c.done_at.is_not(None))
    values, counted = defaultdict[str, list[float]](list), set[tuple[str, str]]()
    for row in connection.execute(query.order_by(SHADOW_ANSWERS.c.done_at)):
        for metric, value in (row.differences or {}).items():
            key = (metric, row.patient or row.study)
            if key not in counted:
                counted.add(key)
                values[metric].append(value)
    return [
        ChangeFigure(
            metric, "", confidence_sequences.followed_mean(own, least=0.0 if metric.startswith(SHARES) else -1.0)
        )
        for metric, own in sorted(values.items())
    ]


def _of_arms(connection: Connection, change: Row[Any]) -> Iterator[ChangeFigure]:
    """Shares, probabilities and rates of both arms; the old arm is every other patient of the model meanwhile."""
    until = min((one for one in (change.ended, change.until) if one is not None), default=None)
    table = monitored_cases.monitored_jobs(connection, change.began, until)
    table = table[table["model"] == change.model]
    if not len(table):
        return
    stream = monitored_cases.stream_of(table, "UTC")
    is_new = np.asarray(stream.text("version") == change.hash)
    # A study that began before the split keeps the old package, also of a patient of the new arm.
    is_old = ~is_new & np.array([not deployments.is_of_arm(one, change) for one in stream.patients])
    arms = {NEW: stream.only(is_new), OLD: stream.only(is_old)}
    columns = {"abstained": {name: (one.text("abstained") != "").astype(float) for name, one in arms.items()}}
    for finding in stream.findings:
        columns[f"{CALLED}{finding}"] = {name: one.calls(finding) for name, one in arms.items()}
        columns[f"{PROBABILITY}{finding}"] = {
            name: one.numbers(f"{PROBABILITY}{finding}") for name, one in arms.items()
        }
    for metric, values in columns.items():
        own = {name: values[name][_first(arms[name], np.isfinite(values[name]))] for name in values}
        if not any(map(len, own.values())):
            continue
        for name, kept in own.items():
            yield ChangeFigure(metric, name, confidence_sequences.followed_mean(kept))
        yield ChangeFigure(metric, DIFFERENCE, confidence_sequences.followed_difference(own[NEW], own[OLD]))
    for name, arm in arms.items():
        for finding in stream.findings:
            yield from _rates(arm, name, finding)


def _rates(stream: CaseStream, arm: str, finding: str) -> Iterator[ChangeFigure]:
    """The rates of an arm where labels came, in the order in which they did."""
    calls, truths, chance = stream.calls(finding), stream.outcomes(finding), stream.numbers(INCLUSION)
    is_known = np.isfinite(calls) & np.isfinite(truths)
    for source, is_own in ((AUDITED, is_known & (chance > 0)), (REPORTED, is_known & ~np.isfinite(chance))):
        chosen = _first(stream, is_own, stream.text("reference_at"))
        weights = 1 / chance[chosen] if source == AUDITED else np.ones(len(chosen))
        for metric in RATES if len(chosen) else ():
            over, hits = performance_figures.parts_of_rate(metric, calls[chosen], truths[chosen])
            yield ChangeFigure(
                f"{metric}_{finding}", arm, confidence_sequences.followed_ratio(hits, over, weights), source
            )


def _first(stream: CaseStream, chosen: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """(patients,) places of the first case of each patient among those that are kept, in the order given."""
    places = np.flatnonzero(chosen)
    if order is not None:
        places = places[np.argsort(order[places], kind="stable")]
    _, first = np.unique(stream.patients[places], return_index=True)
    return places[np.sort(first)]


OUTCOME, DICE = "outcome", "dice_"
# Metrics that lie between 0 and 1; others are differences, new less old, between -1 and 1.
SHARES = (OUTCOME, CALLED, DICE)


@dataclass(frozen=True)
class ShadowJob:
    """A job that is done, to be answered once more. n: of the deployment; labels: {name: value} of its label map"""

    n: int
    job: Job
    outcome: str
    labels: Mapping[str, int]


def claim_shadow_job(database: Database, without: Sequence[str], again_s: float) -> ShadowJob | None:
    """The next job that a package in shadow has not answered, now claimed by this worker; None where there is none.

    without: models that other workers answer; again_s: after which a claim is another worker's
    """
    query = select(DEPLOYMENTS).where(
        DEPLOYMENTS.c.mode == SHADOW, deployments.is_in_force(), DEPLOYMENTS.c.model.not_in(without)
    )
    with database.read() as connection:  # a transaction that writes would keep others waiting, mostly for nothing
        shadows = connection.execute(query.order_by(DEPLOYMENTS.c.n)).all()
        if all(connection.execute(_next_job(one, again_s)).first() is None for one in shadows):
            return None
    with database.write() as connection:
        for shadow in shadows:
            row = connection.execute(_next_job(shadow, again_s)).first()
            if row is not None:
                mine = and_(SHADOW_ANSWERS.c.n == shadow.n, SHADOW_ANSWERS.c.job == row.job)
                connection.execute(delete(SHADOW_ANSWERS).where(mine))
                connection.execute(insert(SHADOW_ANSWERS).values(n=shadow.n, job=row.job, claimed_at=DatabaseClock()))
                return ShadowJob(shadow.n, Job.of_row(row, model_hash=shadow.hash), row.outcome, shadow.facts["labels"])
    return None


def note_differences(
    database: Database, shadowed: ShadowJob, values: Mapping[str, float] | None, reason: str = ""
) -> None:
    """Keep the differences of one answer, or the reason why there are none."""
    mine = and_(SHADOW_ANSWERS.c.n == shadowed.n, SHADOW_ANSWERS.c.job == shadowed.job.job)
    columns = {"done_at": DatabaseClock(), "differences": values, "reason": reason or None}
    database.do(update(SHADOW_ANSWERS).where(mine).values(columns))


def measure_differences(
    database: Database, shadowed: ShadowJob, outcome: JobOutcome, masks: tuple[Path, Path]
) -> dict[str, float]:
    """Differences of the new answer to a job from the one that was sent. masks: the label maps, the one sent first

    outcome:         1 where one has an answer and the other abstains, is refused or fails
    called_<label>:  1 where one calls a finding and the other does not
    dice_<label>:    of the two masks
    All else is new less old: of probabilities, and of numbers as a share of the larger.
    """
    is_answered = [one == ANSWERED for one in (shadowed.outcome, outcome.outcome)]
    values = {OUTCOME: float(is_answered[0] != is_answered[1])}
    if not all(is_answered):
        return values
    with database.read() as connection:
        rows = (
            connection.execute(select(FINDING_ROWS.c.row).where(FINDING_ROWS.c.job == shadowed.job.job)).scalars().all()
        )
    old, new = monitored_cases.columns_of_answer(rows), monitored_cases.columns_of_answer(list(outcome.findings))
    for name in dict.fromkeys([*old, *new]):
        first, second = (float(cast("float", one.get(name, 0))) for one in (old, new))
        if name.startswith(CALLED):
            values[name] = float(first != second)
        elif name.startswith(PROBABILITY):
            values[name] = second - first
        else:
            largest = max(abs(first), abs(second))
            values[name] = float(np.clip((second - first) / largest, -1, 1)) if largest else 0.0
    return {**values, **_overlaps(*masks, shadowed.labels)}


def _overlaps(old: Path, new: Path, labels: Mapping[str, int]) -> dict[str, float]:
    """{dice_<label>: Dice} of two label maps on one grid; a structure that neither has is left out."""
    if not (labels and old.is_file() and new.is_file()):
        return {}
    first, second = (np.asarray(file_formats.read(one).data)[0] for one in (old, new))
    if first.shape != second.shape:
        return {}
    both = mask_overlap.overlap_by_label(second, first, list(labels.values()))
    return {f"{DICE}{name}": both[value].dice for name, value in labels.items() if np.isfinite(both[value].dice)}


def _next_job(shadow: Row[Any], again_s: float) -> Any:
    """The oldest job that was done since the shadow began, by another package, and that it has not answered."""
    mine = and_(SHADOW_ANSWERS.c.job == JOBS.c.job, SHADOW_ANSWERS.c.n == shadow.n)
    is_left = and_(SHADOW_ANSWERS.c.done_at.is_(None), SHADOW_ANSWERS.c.claimed_at < DatabaseClock() - again_s)
    since = and_(JOBS.c.done_at >= shadow.began, JOBS.c.state.in_(STANDING), JOBS.c.outcome.is_not(None))
    of_other = and_(JOBS.c.model == shadow.model, JOBS.c.model_hash != shadow.hash)
    joined = JOBS.outerjoin(SHADOW_ANSWERS, mine)
    open_jobs = select(JOBS).select_from(joined).where(since, of_other)
    return open_jobs.where(or_(SHADOW_ANSWERS.c.job.is_(None), is_left)).order_by(JOBS.c.done_at).limit(1)
