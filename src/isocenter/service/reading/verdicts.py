"""Verdicts of people on results: accepted, corrected or rejected, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, func, insert, select

from isocenter.service.monitoring.outcomes import VERDICT, stated_values, write_outcomes
from isocenter.service.reading.judged import Judged
from isocenter.service.records import audit
from isocenter.service.records.actor import Actor
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.tables import feedback, outcomes

Said = Literal["accept", "correct", "reject"]


@dataclass(frozen=True)
class Verdict:
    """Verdict of a person on a result. seconds: that they looked at it"""

    verdict: Said
    reason: str = ""
    text: str = ""
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The table of verdicts."""

    database: Database

    def add(self, judged: Judged, verdict: Verdict, actor: Actor) -> None:
        """Keep a verdict on a result as it stands, with its findings as they were made."""
        newest = judged.corrections[-1].key if judged.corrections else None
        row = {
            "judged": judged.key,
            "instance": judged.instance or None,
            "study": judged.study,
            "account": actor.account,
            "before": [dict(one) for one in judged.rows],
            "after": [dict(one) for one in judged.standing],
            "correction": newest,
            **vars(verdict),
        }
        detail = {"verdict": verdict.verdict, "reason": verdict.reason, "revision": judged.revision}
        with self.database.write() as connection:
            connection.execute(insert(feedback).values(at=Clock(), **row))
            if judged.seg is None:
                _write_outcomes(connection, judged, verdict, actor)
            audit.record(connection, "verdict", judged.key, actor=actor, study=judged.study, detail=detail)

    def last(self, keys: Sequence[str]) -> Mapping[str, Row[*tuple[Any, ...]]]:
        """{key of a result: the verdict that was given last}."""
        newest = select(func.max(feedback.c.feedback)).where(feedback.c.judged.in_(keys)).group_by(feedback.c.judged)
        with self.database.read() as connection:
            rows = connection.execute(select(feedback).where(feedback.c.feedback.in_(newest))).all()
        return {row.judged: row for row in rows}


def _write_outcomes(connection: Connection, judged: Judged, verdict: Verdict, actor: Actor) -> None:
    """Keep what a verdict says of the study, in place of the last one; who rejects does not say what is right."""
    connection.execute(delete(outcomes).where(outcomes.c.job == judged.key, outcomes.c.source == VERDICT))
    if verdict.verdict != "reject":
        write_outcomes(connection, judged.key, stated_values(judged.standing), VERDICT, account=actor.account)
