"""Blind reads: results sampled at random each week, hidden from people until one of them has read the study."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, select, update

from hilum.service.configuration import NodeSettings
from hilum.service.model_facts import ModelFacts
from hilum.service.monitoring import outcomes
from hilum.service.monitoring.outcomes import BLIND, OutcomeQuestions
from hilum.service.reading.judged_results import TAKEN_BACK
from hilum.service.records import audit_records, deployments
from hilum.service.records.actor import MACHINE, READERS, Actor
from hilum.service.records.tables import (
    ACCOUNTS,
    ANSWERS,
    AUDIT,
    BLIND_READS,
    FINDING_ROWS,
    INSTANCES,
    JOBS,
    SERIES_ROWS,
    STUDIES,
)
from hilum.values import ANSWERED, grouping

# What the audit states of a study that was opened with its answers hidden; else it was opened with them.
BLIND_VIEW, VIEW, BLIND_EXPORT, EXPORT = "view blind", "view", "export blind", "export"


@dataclass(frozen=True)
class BlindRead:
    """A study to be read while its answers are hidden.

    row: of the sample, with the study's key `study`, its `uid` and `attributes`
    """

    job: str
    row: Row[Any]
    questions: OutcomeQuestions


def blind_reads(
    connection: Connection, models: Mapping[str, ModelFacts], who: Actor, study: str | None = None
) -> list[BlindRead]:
    """The reads that wait for a person, in an order that says nothing of the answers. study: its key, None for all

    Whoever has opened the study with its answers can no longer read it blind, nor who did so before there were any: a
    page that stays open shows them. Machines, and people who read no studies, are asked for nothing.
    """
    if who.role not in READERS or who.account.startswith(MACHINE):
        return []
    about = (AUDIT.c.object == JOBS.c.study) | AUDIT.c.object.like(JOBS.c.job + "/%")
    opened = and_(AUDIT.c.actor == who.account, AUDIT.c.action.in_((VIEW, EXPORT)), about)
    has_seen = select(AUDIT.c.event).where(opened).exists()
    both = BLIND_READS.join(JOBS, BLIND_READS.c.job == JOBS.c.job).join(STUDIES, JOBS.c.study == STUDIES.c.study)
    query = select(
        BLIND_READS, JOBS.c.model, JOBS.c.model_hash, JOBS.c.study, STUDIES.c.uid, STUDIES.c.attributes
    ).select_from(both)
    query = query.where(BLIND_READS.c.state == "waiting", JOBS.c.state.not_in(TAKEN_BACK), ~has_seen)
    if study is not None:
        query = query.where(JOBS.c.study == study)
    rows = connection.execute(query.order_by(BLIND_READS.c.week, BLIND_READS.c.job)).all()
    facts = deployments.facts_by_version(connection, models)
    asked = [(row, facts(row.model, row.model_hash)) for row in rows]
    # Of a model that the node no longer has nobody knows what to ask.
    reads = [BlindRead(row.job, row, OutcomeQuestions.for_model(known)) for row, known in asked if known is not None]
    return [one for one in reads if one.questions.labels]


def keep_read(connection: Connection, read: BlindRead, values: Mapping[str, float], who: Actor) -> bool:
    """Keep what a person says of a study; False where somebody was faster."""
    mine = and_(BLIND_READS.c.job == read.job, BLIND_READS.c.state == "waiting")
    if connection.execute(update(BLIND_READS).where(mine).values(state="read")).rowcount != 1:
        return False
    outcomes.write_outcomes(connection, read.job, values, BLIND, account=who.account, inclusion=read.row.inclusion)
    audit_records.record_event(
        connection, "blind read", read.job, actor=who, study=read.row.study, detail={"values": dict(values)}
    )
    return True


def own_series(connection: Connection, study: str) -> set[str]:
    """Keys of the series of which every object is an answer of this node that was sent back."""
    answers_made = select(ANSWERS.c.sop_instance_uid).where(ANSWERS.c.sop_instance_uid.is_not(None))
    mine = and_(INSTANCES.c.study == study, INSTANCES.c.uid.not_in(answers_made))
    others = set(connection.execute(select(INSTANCES.c.series).where(mine).distinct()).scalars())
    every = connection.execute(select(SERIES_ROWS.c.series).where(SERIES_ROWS.c.study == study)).scalars()
    return set(every) - others


# After which nobody reads it any more.
LONGEST_DAYS = 28
DAY_S = 86400.0


def sample_blind_reads(connection: Connection, settings: NodeSettings, now: float) -> int:
    """Sample results of the last whole week (ISO, UTC), once in each week, and count them.

    now: s since 1970
    Called results and those without a call are sampled separately, each with the same chance as all of its kind:
    the number that is sampled by the number that there is. Where one kind has too few, the other gives more. A node
    without an account of a reader samples nothing: nobody could be known not to have seen the answer.
    """
    asked = settings.monitor.audit
    if asked is None:
        return 0
    _end_late(connection, now)
    today = datetime.fromtimestamp(now, UTC)
    week = f"{today:%G-W%V}"
    if _are_sampled(connection, week) or not _has_readers(connection):
        return 0
    monday = (today - timedelta(days=today.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    called = _calls_by_job(connection, monday.timestamp() - 7 * DAY_S, monday.timestamp())
    if not called:
        return 0
    kinds = {kind: sorted(job for job, own in called.items() if own is kind) for kind in (True, False)}
    counts = _counts(asked.per_week, len(kinds[True]), len(kinds[False]))
    source = random.SystemRandom()  # which nobody can foresee
    for kind, members in kinds.items():
        for job in source.sample(members, counts[kind]):
            columns = {"inclusion": counts[kind] / len(members), "sampled_at": now, "week": week, "state": "waiting"}
            connection.execute(insert(BLIND_READS).values(job=job, **columns))
    detail = {"called": [counts[True], len(kinds[True])], "not_called": [counts[False], len(kinds[False])]}
    audit_records.record_event(connection, "blind sample", week, detail=detail)
    return sum(counts.values())


def _counts(count: int, called: int, others: int) -> dict[bool, int]:
    """Number that is sampled of each kind."""
    of_others = min(others, max(count // 2, count - called))
    return {True: min(called, count - of_others), False: of_others}


def _calls_by_job(connection: Connection, since: float, until: float) -> Mapping[str, bool]:
    """{job: whether its result calls anything} of those that ended in a time and were never sampled.

    Where a rule calls something in every study, such as one of several classes, its commonest answer is no call.
    """
    query = select(BLIND_READS.c.job)
    which = and_(
        JOBS.c.done_at >= since,
        JOBS.c.done_at < until,
        JOBS.c.state.in_(("sending", "done")),
        JOBS.c.outcome == ANSWERED,
        JOBS.c.job.not_in(query),
    )
    rules = {row.job: row.rule for row in connection.execute(select(JOBS.c.job, JOBS.c.rule).where(which))}
    joined = FINDING_ROWS.join(JOBS, FINDING_ROWS.c.job == JOBS.c.job)
    asked = select(FINDING_ROWS.c.job, FINDING_ROWS.c.row).select_from(joined).where(which)
    rows = grouping.by_key(connection.execute(asked).tuples())
    labels = {job: outcomes.called_labels(rows[job]) for job in sorted(rules)}
    answers = defaultdict[str, Counter[frozenset[str]]](Counter)
    for job, labels_called in labels.items():
        answers[rules[job]][labels_called] += 1
    usual = {
        rule: frozenset[str]() if frozenset() in counted else counted.most_common(1)[0][0]
        for rule, counted in answers.items()
    }
    return {job: labels_called != usual[rules[job]] for job, labels_called in labels.items()}


def _are_sampled(connection: Connection, week: str) -> bool:
    return connection.execute(select(BLIND_READS.c.job).where(BLIND_READS.c.week == week).limit(1)).first() is not None


def _has_readers(connection: Connection) -> bool:
    readers = select(ACCOUNTS.c.account).where(ACCOUNTS.c.role.in_(READERS), ACCOUNTS.c.ended_at.is_(None))
    return connection.execute(readers.limit(1)).first() is not None


def _end_late(connection: Connection, now: float) -> None:
    """End reads for which nobody has found time, and those whose result was taken back."""
    gone = select(JOBS.c.job).where(JOBS.c.state.in_(TAKEN_BACK))
    late = (BLIND_READS.c.sampled_at < now - LONGEST_DAYS * DAY_S) | BLIND_READS.c.job.in_(gone)
    waiting = select(BLIND_READS.c.job).where(BLIND_READS.c.state == "waiting", late)
    for job in connection.execute(waiting).scalars().all():
        connection.execute(update(BLIND_READS).where(BLIND_READS.c.job == job).values(state="ended"))
        audit_records.record_event(connection, "blind read ended", job)
