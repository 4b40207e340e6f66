"""A package in shadow answers jobs that are done; only how its answer differs from the one that was sent is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Row, and_, delete, insert, or_, select, update

from isocenter.evaluation import overlaps
from isocenter.files import read
from isocenter.service.monitoring.cases import ANSWERED, STANDING, columns_of_answer
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.deployments import SHADOW, is_in_force
from isocenter.service.records.jobs import Job, Outcome
from isocenter.service.records.tables import deployments, findings, jobs, shadow_answers

OUTCOME, CALLED, DICE, PROBABILITY = "outcome", "called_", "dice_", "probability_"
# Metrics that lie between 0 and 1; others are differences, new less old, between -1 and 1.
SHARES = (OUTCOME, CALLED, DICE)


@dataclass(frozen=True)
class Shadowed:
    """A job that is done, to be answered once more. n: of the deployment; labels: {name: value} of its label map"""

    n: int
    job: Job
    outcome: str
    labels: Mapping[str, int]


def claimed(database: Database, without: Sequence[str], again_s: float) -> Shadowed | None:
    """The next job that a package in shadow has not answered, now claimed by this worker; None where there is none.

    without: models that other workers answer; again_s: after which a claim is another worker's
    """
    query = select(deployments).where(deployments.c.mode == SHADOW, is_in_force(), deployments.c.model.not_in(without))
    with database.read() as connection:  # a transaction that writes would keep others waiting, mostly for nothing
        shadows = connection.execute(query.order_by(deployments.c.n)).all()
        if all(connection.execute(_next_job(one, again_s)).first() is None for one in shadows):
            return None
    with database.write() as connection:
        for shadow in shadows:
            row = connection.execute(_next_job(shadow, again_s)).first()
            if row is not None:
                mine = and_(shadow_answers.c.n == shadow.n, shadow_answers.c.job == row.job)
                connection.execute(delete(shadow_answers).where(mine))
                connection.execute(insert(shadow_answers).values(n=shadow.n, job=row.job, claimed_at=Clock()))
                return Shadowed(shadow.n, Job.of_row(row, model_hash=shadow.hash), row.outcome, shadow.facts["labels"])
    return None


def note(database: Database, shadowed: Shadowed, values: Mapping[str, float] | None, reason: str = "") -> None:
    """Keep the differences of one answer, or the reason why there are none."""
    mine = and_(shadow_answers.c.n == shadowed.n, shadow_answers.c.job == shadowed.job.job)
    columns = {"done_at": Clock(), "differences": values, "reason": reason or None}
    with database.write() as connection:
        connection.execute(update(shadow_answers).where(mine).values(columns))


def differences(database: Database, shadowed: Shadowed, outcome: Outcome, masks: tuple[Path, Path]) -> dict[str, float]:
    """Differences of the new answer to a job from the one that was sent. masks: the label maps, the one sent first

    outcome:         1 where one has an answer and the other abstains, is refused or fails
    called_<label>:  1 where one calls a finding and the other does not
    dice_<label>:    of the two masks
    All else is new less old: of probabilities, and of numbers as a share of the larger.
    """
    is_answered = [one in ANSWERED for one in (shadowed.outcome, outcome.outcome)]
    values = {OUTCOME: float(is_answered[0] != is_answered[1])}
    if not all(is_answered):
        return values
    with database.read() as connection:
        rows = connection.execute(select(findings.c.row).where(findings.c.job == shadowed.job.job)).scalars().all()
    old, new = columns_of_answer(rows), columns_of_answer(list(outcome.findings))
    for name in dict.fromkeys([*old, *new]):
        first, second = float(old.get(name, 0)), float(new.get(name, 0))
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
    first, second = (np.asarray(read(one).data)[0] for one in (old, new))
    if first.shape != second.shape:
        return {}
    both = overlaps(second, first, list(labels.values()))
    return {f"{DICE}{name}": both[value].dice for name, value in labels.items() if np.isfinite(both[value].dice)}


def _next_job(shadow: Row[Any], again_s: float) -> Any:
    """The oldest job that was done since the shadow began, by another package, and that it has not answered."""
    mine = and_(shadow_answers.c.job == jobs.c.job, shadow_answers.c.n == shadow.n)
    is_left = and_(shadow_answers.c.done_at.is_(None), shadow_answers.c.claimed_at < Clock() - again_s)
    since = and_(jobs.c.done_at >= shadow.began, jobs.c.state.in_(STANDING), jobs.c.outcome.is_not(None))
    of_other = and_(jobs.c.model == shadow.model, jobs.c.model_hash != shadow.hash)
    joined = jobs.outerjoin(shadow_answers, mine)
    open_jobs = select(jobs).select_from(joined).where(since, of_other)
    return open_jobs.where(or_(shadow_answers.c.job.is_(None), is_left)).order_by(jobs.c.done_at).limit(1)
