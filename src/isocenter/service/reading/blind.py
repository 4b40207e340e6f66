"""Blind reads: drawn results that are hidden from people until one of them has read the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update

from isocenter.service.monitoring.outcomes import BLIND, Questions, write_outcomes
from isocenter.service.reading.judged import TAKEN_BACK
from isocenter.service.records.actor import MACHINE, READERS, Actor
from isocenter.service.records.audit import record
from isocenter.service.records.deployments import facts_by_version
from isocenter.service.records.tables import answers, audit, blind, instances, jobs, series, studies
from isocenter.service.routing.facts import ModelFacts

# What the audit states of a study that was opened with its answers hidden; else it was opened with them.
BLIND_VIEW, VIEW, BLIND_EXPORT, EXPORT = "view blind", "view", "export blind", "export"


@dataclass(frozen=True)
class BlindRead:
    """A study to be read while its answers are hidden.

    row: of the draw, with the study's key `study`, its `uid` and `attributes`
    """

    job: str
    row: Row[Any]
    questions: Questions


def blind_reads(
    connection: Connection, models: Mapping[str, ModelFacts], who: Actor, study: str | None = None
) -> list[BlindRead]:
    """The reads that wait for a person, in an order that says nothing of the answers. study: its key, None for all

    Whoever has opened the study with its answers can no longer read it blind, nor who did so before there were any: a
    page that stays open shows them. Machines, and people who read no studies, are asked for nothing.
    """
    if who.role not in READERS or who.account.startswith(MACHINE):
        return []
    about = (audit.c.object == jobs.c.study) | audit.c.object.like(jobs.c.job + "/%")
    opened = (audit.c.actor == who.account, audit.c.action.in_((VIEW, EXPORT)), about)
    has_seen = select(audit.c.event).where(*opened).exists()
    both = blind.join(jobs, blind.c.job == jobs.c.job).join(studies, jobs.c.study == studies.c.study)
    columns = (blind, jobs.c.model, jobs.c.model_hash, jobs.c.study, studies.c.uid, studies.c.attributes)
    query = select(*columns).select_from(both)
    query = query.where(blind.c.state == "waiting", jobs.c.state.not_in(TAKEN_BACK), ~has_seen)
    if study is not None:
        query = query.where(jobs.c.study == study)
    rows = connection.execute(query.order_by(blind.c.week, blind.c.job)).all()
    facts = facts_by_version(connection, models)
    asked = [(row, facts(row.model, row.model_hash)) for row in rows]
    # Of a model that the node no longer has nobody knows what to ask.
    reads = [BlindRead(row.job, row, Questions.of(known)) for row, known in asked if known is not None]
    return [one for one in reads if one.questions.labels]


def keep_read(connection: Connection, read: BlindRead, values: Mapping[str, float], who: Actor) -> bool:
    """Keep what a person says of a study; False where somebody was faster."""
    mine = (blind.c.job == read.job, blind.c.state == "waiting")
    if connection.execute(update(blind).where(*mine).values(state="read")).rowcount != 1:
        return False
    write_outcomes(connection, read.job, values, BLIND, account=who.account, inclusion=read.row.inclusion)
    record(connection, "blind read", read.job, actor=who, study=read.row.study, detail={"values": dict(values)})
    return True


def own_series(connection: Connection, study: str) -> set[str]:
    """Keys of the series of which every object is an answer of this node that was sent back."""
    made = select(answers.c.sop_instance_uid).where(answers.c.sop_instance_uid.is_not(None))
    mine = (instances.c.study == study, instances.c.uid.not_in(made))
    others = set(connection.execute(select(instances.c.series).where(*mine).distinct()).scalars())
    every = connection.execute(select(series.c.series).where(series.c.study == study)).scalars()
    return set(every) - others
