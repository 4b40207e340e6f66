"""Answers on their way to peers: tried again with growing pauses, aside after three days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from isocenter.service.records.audit import record
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.notices import NOTICE
from isocenter.service.records.tables import answers, deliveries, jobs

FIRST_S, LONGEST_S, GIVEN_UP_S = 1.0, 300.0, 72 * 3600.0
ASKED_S = 3600.0  # the longest pause that a peer may ask for


@dataclass(frozen=True)
class Delivery:
    """One answer to one peer, held by whoever claimed it."""

    delivery: int
    job: str
    name: str
    peer: str
    state: str
    sop_class: str
    sop_instance_uid: str
    sha256: str
    fence: int
    attempts: int


@dataclass(frozen=True, eq=False)
class Outbox:
    """The table of deliveries. lease_s: how long a claim holds without being renewed."""

    database: Database
    lease_s: float = 60

    def claim(self, peer: str, most: int = 100) -> list[Delivery]:
        """Deliveries that wait for a peer, oldest first, now held by the caller."""
        ready = and_(
            deliveries.c.peer == peer,
            deliveries.c.state == "waiting",
            deliveries.c.next_at <= Clock(),
            or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until < Clock()),
        )
        joined = deliveries.join(answers, and_(deliveries.c.job == answers.c.job, deliveries.c.name == answers.c.name))
        wanted = (deliveries, answers.c.sop_class, answers.c.sop_instance_uid, answers.c.sha256)
        due = select(*wanted).select_from(joined).where(ready).order_by(deliveries.c.delivery).limit(most)
        with self.database.write() as connection:
            rows = connection.execute(due.with_for_update(skip_locked=True, of=deliveries)).all()
            held = {"fence": deliveries.c.fence + 1, "lease_until": Clock() + self.lease_s}
            keys = [row.delivery for row in rows]
            connection.execute(update(deliveries).where(deliveries.c.delivery.in_(keys)).values(held))
        return [
            Delivery(
                row.delivery,
                row.job,
                row.name,
                row.peer,
                row.state,
                row.sop_class,
                row.sop_instance_uid,
                row.sha256,
                row.fence + 1,
                row.attempts + 1,
            )
            for row in rows
        ]

    def sent(self, delivery: Delivery, instance: str = "") -> None:
        """The peer has it. instance: the UID under which it has an object, where that is not the answer's own."""
        sent_as = instance if delivery.sop_instance_uid and instance != delivery.sop_instance_uid else None
        self._end(delivery, {"state": "sent", "sent_at": Clock(), "reason": None, "sent_as": sent_as or None})

    def failed(self, delivery: Delivery, reason: str, *, after_s: float = 0.0) -> bool:
        """Tried again later: after 1 s, 2 s, 4 s up to 5 min, for 72 h; then aside, which it says.

        after_s: the least pause, as the peer has asked for; not more than an hour
        """
        pause = min(LONGEST_S, FIRST_S * 2.0 ** min(delivery.attempts - 1, 16))
        pause = max(pause, min(after_s, ASKED_S))
        self._end(delivery, {"reason": reason, "next_at": Clock() + pause})
        old = and_(deliveries.c.delivery == delivery.delivery, deliveries.c.created_at < Clock() - GIVEN_UP_S)
        given_up = update(deliveries).where(old, deliveries.c.state == "waiting").values(state="aside")
        with self.database.write() as connection:
            is_given_up = connection.execute(given_up).rowcount == 1
        self._close(delivery.job)
        return is_given_up

    def refused(self, delivery: Delivery, reason: str) -> None:
        """The peer will never take it; a notice then goes to the next recipient at once."""
        self._end(delivery, {"state": "aside", "reason": reason})
        if delivery.name == NOTICE:
            others = (deliveries.c.job == delivery.job, deliveries.c.name == NOTICE, deliveries.c.state == "waiting")
            following = select(deliveries.c.delivery).where(*others).order_by(deliveries.c.next_at).limit(1)
            hastened = update(deliveries).where(deliveries.c.delivery == following.scalar_subquery())
            with self.database.write() as connection:
                connection.execute(hastened.where(deliveries.c.attempts == 0).values(next_at=Clock()))

    def give_up_unlisted(self, listed: Collection[str]) -> Mapping[str, int]:
        """Set aside what waits for peers that are not listed; {peer: how many answers}."""
        unlisted = and_(deliveries.c.state == "waiting", deliveries.c.peer.not_in(listed))
        with self.database.read() as connection:
            rows = connection.execute(select(deliveries.c.job, deliveries.c.peer).where(unlisted)).all()
        if not rows:
            return {}
        given_up = {"state": "aside", "reason": "the peer is no longer listed", "lease_until": None}
        with self.database.write() as connection:
            connection.execute(update(deliveries).where(unlisted).values(given_up))
        for job in {row.job for row in rows}:
            self._close(job)
        return Counter(row.peer for row in rows)

    def _end(self, delivery: Delivery, values: dict[str, Any]) -> None:
        mine = and_(deliveries.c.delivery == delivery.delivery, deliveries.c.fence == delivery.fence)
        with self.database.write() as connection:
            ended = {**values, "attempts": delivery.attempts, "lease_until": None}
            is_ended = connection.execute(update(deliveries).where(mine).values(ended)).rowcount == 1
            if is_ended and values.get("state") == "sent":
                study = connection.execute(select(jobs.c.study).where(jobs.c.job == delivery.job)).scalar()
                to = {"peer": delivery.peer}
                record(connection, "export", f"{delivery.job}/{delivery.name}", study=study, detail=to)
        self._close(delivery.job)

    def committed(self, sop_instance_uids: Collection[str], peer: str) -> None:
        """The peer has taken over the keeping of these objects."""
        with self.database.write() as connection:
            theirs = _sent_to(connection, peer, sop_instance_uids)
            connection.execute(update(deliveries).where(deliveries.c.delivery.in_(theirs)).values(state="committed"))

    def disowned(self, sop_instance_uids: Collection[str], peer: str) -> int:
        """The peer does not answer for objects that it took: they are aside until a person retries; how many are."""
        values = {"state": "aside", "reason": "the peer took it, and now reports that it does not keep it"}
        with self.database.write() as connection:
            theirs = _sent_to(connection, peer, sop_instance_uids)
            taken = (deliveries.c.delivery.in_(theirs), deliveries.c.state.in_(("sent", "committed")))
            return connection.execute(update(deliveries).where(*taken).values(values)).rowcount

    def _close(self, job: str) -> None:
        """A job all of whose answers have arrived, or never will, is done."""
        mine = (deliveries.c.job == job, deliveries.c.name != NOTICE)
        waiting = select(deliveries.c.delivery).where(*mine, deliveries.c.state == "waiting")
        over = and_(jobs.c.job == job, jobs.c.state == "sending", ~waiting.exists())
        with self.database.write() as connection:
            connection.execute(update(jobs).where(over).values(state="done"))


def _sent_to(connection: Connection, peer: str, sop_instance_uids: Collection[str]) -> Sequence[int]:
    """Deliveries to a peer of objects that it has under these UIDs."""
    joined = deliveries.join(answers, and_(deliveries.c.job == answers.c.job, deliveries.c.name == answers.c.name))
    under = or_(
        and_(deliveries.c.sent_as.is_(None), answers.c.sop_instance_uid.in_(sop_instance_uids)),
        deliveries.c.sent_as.in_(sop_instance_uids),
    )
    found = select(deliveries.c.delivery).select_from(joined).where(deliveries.c.peer == peer, under)
    return connection.execute(found).scalars().all()
