"""Results that are drawn at random each week, to be read by people to whom the answer is hidden."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from isocenter.service.monitoring.outcomes import called_labels
from isocenter.service.reading.judged import TAKEN_BACK
from isocenter.service.records.actor import READERS
from isocenter.service.records.audit import record
from isocenter.service.records.jobs import NOTHING, RESULT
from isocenter.service.records.tables import accounts, blind, findings, jobs
from isocenter.service.settings import Settings

# After which nobody reads it any more.
LONGEST_DAYS = 28
DAY_S = 86400.0


def draw(connection: Connection, settings: Settings, now: float) -> int:
    """Draw results of the last whole week (ISO, UTC), once in each week; how many.

    now: s since 1970
    Called results and those without a call are drawn from separately, each with the same chance as all of its kind:
    the number that is drawn by the number that there is. Where one kind has too few, the other gives more. A node
    without an account of a reader draws nothing: nobody could be known not to have seen the answer.
    """
    asked = settings.monitor.audit
    if asked is None:
        return 0
    _end_late(connection, now)
    today = datetime.fromtimestamp(now, UTC)
    week = f"{today:%G-W%V}"
    if _are_drawn(connection, week) or not _has_readers(connection):
        return 0
    monday = (today - timedelta(days=today.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    called = _called(connection, monday.timestamp() - 7 * DAY_S, monday.timestamp())
    if not called:
        return 0
    kinds = {kind: sorted(job for job, own in called.items() if own is kind) for kind in (True, False)}
    counts = _counts(asked.per_week, len(kinds[True]), len(kinds[False]))
    source = random.SystemRandom()  # which nobody can foresee
    for kind, members in kinds.items():
        for job in source.sample(members, counts[kind]):
            stated = {"inclusion": counts[kind] / len(members), "drawn_at": now, "week": week, "state": "waiting"}
            connection.execute(insert(blind).values(job=job, **stated))
    detail = {"called": [counts[True], len(kinds[True])], "not_called": [counts[False], len(kinds[False])]}
    record(connection, "blind draw", week, detail=detail)
    return sum(counts.values())


def _counts(wanted: int, called: int, others: int) -> dict[bool, int]:
    """Number that is drawn of each kind."""
    of_others = min(others, max(wanted // 2, wanted - called))
    return {True: min(called, wanted - of_others), False: of_others}


def _called(connection: Connection, since: float, until: float) -> Mapping[str, bool]:
    """{job: whether its result calls anything} of those that ended in a time and were never drawn.

    Where a rule calls something in every study, such as one of several classes, its commonest answer is no call.
    """
    query = select(blind.c.job)
    ended = (jobs.c.done_at >= since, jobs.c.done_at < until, jobs.c.state.in_(("sending", "done")))
    which = (*ended, jobs.c.outcome.in_((RESULT, NOTHING)), jobs.c.job.not_in(query))
    rules = {row.job: row.rule for row in connection.execute(select(jobs.c.job, jobs.c.rule).where(*which))}
    rows = defaultdict[str, list[dict[str, object]]](list)
    joined = findings.join(jobs, findings.c.job == jobs.c.job)
    for row in connection.execute(select(findings.c.job, findings.c.row).select_from(joined).where(*which)):
        rows[row.job].append(row.row)
    labels = {job: called_labels(rows[job]) for job in sorted(rules)}
    answers = defaultdict[str, Counter[frozenset[str]]](Counter)
    for job, own in labels.items():
        answers[rules[job]][own] += 1
    usual = {
        rule: frozenset[str]() if frozenset() in counted else counted.most_common(1)[0][0]
        for rule, counted in answers.items()
    }
    return {job: own != usual[rules[job]] for job, own in labels.items()}


def _are_drawn(connection: Connection, week: str) -> bool:
    return connection.execute(select(blind.c.job).where(blind.c.week == week).limit(1)).first() is not None


def _has_readers(connection: Connection) -> bool:
    readers = select(accounts.c.account).where(accounts.c.role.in_(READERS), accounts.c.ended_at.is_(None))
    return connection.execute(readers.limit(1)).first() is not None


def _end_late(connection: Connection, now: float) -> None:
    """End reads for which nobody has found time, and those whose result was taken back."""
    gone = select(jobs.c.job).where(jobs.c.state.in_(TAKEN_BACK))
    late = (blind.c.drawn_at < now - LONGEST_DAYS * DAY_S) | blind.c.job.in_(gone)
    waiting = select(blind.c.job).where(blind.c.state == "waiting", late)
    for job in connection.execute(waiting).scalars().all():
        connection.execute(update(blind).where(blind.c.job == job).values(state="ended"))
        record(connection, "blind read ended", job)
