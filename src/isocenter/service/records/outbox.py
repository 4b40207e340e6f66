"""Answers on their way to peers: tried again with growing pauses, aside after three days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, insert, literal, or_, select, update

from isocenter.service.records.alerts import NOTICE
from isocenter.service.records.audit import record
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.jobs import Answer
from isocenter.service.records.tables import answers, deliveries, jobs, studies

FIRST_S, LONGEST_S, GIVEN_UP_S = 1.0, 300.0, 72 * 3600.0
ASKED_S = 3600.0  # the longest pause that a peer may ask for
NOTE = ("rejection_", ".dcm")  # around the name of a peer


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


@dataclass(frozen=True)
class Superseded:
    """A superseded job of which a peer has results.

    since, reason: when it was superseded, and why
    objects: {name: the SOP Instance UID that the peer has}
    """

    job: str
    peer: str
    since: float
    reason: str
    objects: Mapping[str, str]


def note_name(peer: str) -> str:
    """The answer of a superseded job by which a peer is told to reject the others."""
    return f"{NOTE[0]}{peer}{NOTE[1]}"


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
        due = (
            select(deliveries, answers.c.sop_class, answers.c.sop_instance_uid, answers.c.sha256)
            .select_from(joined)
            .where(ready)
            .order_by(deliveries.c.delivery)
            .limit(most)
        )
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
            others = and_(
                deliveries.c.job == delivery.job, deliveries.c.name == NOTICE, deliveries.c.state == "waiting"
            )
            following = select(deliveries.c.delivery).where(others).order_by(deliveries.c.next_at).limit(1)
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
            taken = and_(deliveries.c.delivery.in_(theirs), deliveries.c.state.in_(("sent", "committed")))
            return connection.execute(update(deliveries).where(taken).values(values)).rowcount

    def to_reject(self, peers: Collection[str]) -> list[Superseded]:
        """Superseded jobs of which peers have objects, and no note that rejects them.

        Only once the successors have gone out: no job of the study is to be computed, and nothing of it waits for the
        peer. Until then the peer keeps the older result, so that it is not without any.
        """
        joined = deliveries.join(answers, and_(deliveries.c.job == answers.c.job, deliveries.c.name == answers.c.name))
        joined = joined.join(jobs, deliveries.c.job == jobs.c.job).join(studies, jobs.c.study == studies.c.study)
        columns = (
            deliveries.c.job,
            deliveries.c.peer,
            deliveries.c.name,
            deliveries.c.sent_as,
            jobs.c.done_at,
            jobs.c.reason,
        )
        due = and_(
            deliveries.c.peer.in_(peers),
            # Sent or committed; not as a list of these: SQLite would look through all deliveries that there ever were.
            deliveries.c.state.not_in(("waiting", "aside")),
            answers.c.sop_instance_uid.is_not(None),
            jobs.c.state == "superseded",
            studies.c.state != "receiving",
            studies.c.routed == studies.c.revision,
            *_nothing_to_come(),
        )
        query = select(*columns, answers.c.sop_instance_uid).select_from(joined).where(due)
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(deliveries.c.delivery)).all()
        found = dict[tuple[str, str], Superseded]()
        for row in rows:
            superseded = found.get((row.job, row.peer))
            objects = {
                **({} if superseded is None else superseded.objects),
                row.name: row.sent_as or row.sop_instance_uid,
            }
            found[row.job, row.peer] = Superseded(row.job, row.peer, row.done_at, row.reason, objects)
        return list(found.values())

    def add_note(self, superseded: Superseded, note: Answer) -> bool:
        """Have a note go to its peer; False where its job is wanted again meanwhile."""
        with self.database.write() as connection:
            still = and_(jobs.c.job == superseded.job, jobs.c.state == "superseded")
            if connection.execute(select(jobs.c.job).where(still).with_for_update()).first() is None:
                return False
            connection.execute(insert(answers).values(job=superseded.job, **vars(note)))
            begun = {"state": "waiting", "next_at": Clock(), "created_at": Clock()}
            due = {"job": superseded.job, "name": note.name, "peer": superseded.peer, **begun}
            connection.execute(insert(deliveries).values(due))
        return True

    def _close(self, job: str) -> None:
        """A job all of whose answers have arrived, or never will, is done."""
        mine = and_(deliveries.c.job == job, deliveries.c.name != NOTICE)
        waiting = select(deliveries.c.delivery).where(mine, deliveries.c.state == "waiting")
        over = and_(jobs.c.job == job, jobs.c.state == "sending", ~waiting.exists())
        with self.database.write() as connection:
            connection.execute(update(jobs).where(over).values(state="done"))


def _nothing_to_come() -> tuple[ColumnElement[bool], ...]:
    """Condition of a superseded job's delivery: its peer has no note, and has got all that it gets before that."""
    others, theirs, notes = jobs.alias("others"), deliveries.alias("theirs"), answers.alias("notes")
    name = literal(NOTE[0]).concat(deliveries.c.peer).concat(NOTE[1])
    of_study = others.c.study == jobs.c.study
    mine = and_(theirs.c.job == others.c.job, theirs.c.peer == deliveries.c.peer)
    waits = and_(theirs.c.state == "waiting", theirs.c.name != NOTICE)
    return (
        ~exists().where(notes.c.job == jobs.c.job, notes.c.name == name),
        ~exists().where(of_study, others.c.state.in_(("waiting", "running"))),
        ~exists().where(of_study, mine, or_(waits, theirs.c.lease_until > Clock())),
    )


def _sent_to(connection: Connection, peer: str, sop_instance_uids: Collection[str]) -> Sequence[int]:
    """Deliveries to a peer of objects that it has under these UIDs."""
    joined = deliveries.join(answers, and_(deliveries.c.job == answers.c.job, deliveries.c.name == answers.c.name))
    under = or_(
        and_(deliveries.c.sent_as.is_(None), answers.c.sop_instance_uid.in_(sop_instance_uids)),
        deliveries.c.sent_as.in_(sop_instance_uids),
    )
    found = select(deliveries.c.delivery).select_from(joined).where(deliveries.c.peer == peer, under)
    return connection.execute(found).scalars().all()
