"""Answers on their way to peers: tried again with growing pauses, aside after three days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, exists, insert, literal, or_, select, update

from hilum.service.records import audit_records
from hilum.service.records.alert_records import NOTICE
from hilum.service.records.job_queue import FINDINGS, ResultFile
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import ANSWERS, DELIVERIES, JOBS, STUDIES, RowValues

FIRST_S, LONGEST_S, GIVEN_UP_S = 1.0, 300.0, 72 * 3600.0
# Deliveries beside the answers that they carry.
WITH_ANSWERS = DELIVERIES.join(ANSWERS, and_(DELIVERIES.c.job == ANSWERS.c.job, DELIVERIES.c.name == ANSWERS.c.name))
ASKED_S = 3600.0  # the longest pause that a peer may ask for
# Around the name of a peer: of one that gets DICOM objects, and of one that gets reports.
TAKEN_BACK = "hilum.report_taken_back"  # the schema of the latter
NOTE, REPORT_NOTE = ("rejection_", ".dcm"), ("rejection_", ".json")


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
class SupersededJob:
    """A superseded job of which a peer has results.

    since, reason: when it was superseded, and why
    objects: {name: the SOP Instance UID that the peer has}; "" of a record that it has as a report
    """

    job: str
    peer: str
    since: float
    reason: str
    objects: Mapping[str, str]


def note_name(peer: str, *, of_report: bool = False) -> str:
    """The answer of a superseded job by which a peer is told to reject the others, or that a report holds no more."""
    first, last = REPORT_NOTE if of_report else NOTE
    return f"{first}{peer}{last}"


def is_note(name: str) -> bool:
    """Whether an answer takes back a report."""
    return name.startswith(REPORT_NOTE[0]) and name.endswith(REPORT_NOTE[1])


@dataclass(frozen=True, eq=False)
class Outbox:
    """The table of deliveries. lease_s: how long a claim holds without being renewed."""

    database: Database
    lease_s: float = 60

    def claim(self, peer: str, most: int = 100) -> list[Delivery]:
        """Deliveries that wait for a peer, oldest first, now held by the caller."""
        ready = and_(
            DELIVERIES.c.peer == peer,
            DELIVERIES.c.state == "waiting",
            DELIVERIES.c.next_at <= DatabaseClock(),
            or_(DELIVERIES.c.lease_until.is_(None), DELIVERIES.c.lease_until < DatabaseClock()),
        )
        due = (
            select(DELIVERIES, ANSWERS.c.sop_class, ANSWERS.c.sop_instance_uid, ANSWERS.c.sha256)
            .select_from(WITH_ANSWERS)
            .where(ready)
            .order_by(DELIVERIES.c.delivery)
            .limit(most)
        )
        with self.database.write() as connection:
            rows = connection.execute(due.with_for_update(skip_locked=True, of=DELIVERIES)).all()
            held = {"fence": DELIVERIES.c.fence + 1, "lease_until": DatabaseClock() + self.lease_s}
            keys = [row.delivery for row in rows]
            connection.execute(update(DELIVERIES).where(DELIVERIES.c.delivery.in_(keys)).values(held))
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
        self._end(delivery, {"state": "sent", "sent_at": DatabaseClock(), "reason": None, "sent_as": sent_as or None})

    def note_failure(self, delivery: Delivery, reason: str, *, after_s: float = 0.0) -> bool:
        """Tried again later: after 1 s, 2 s, 4 s up to 5 min, for 72 h; then aside, which it says.

        after_s: the least pause, as the peer has asked for; not more than an hour
        """
        pause = min(LONGEST_S, FIRST_S * 2.0 ** min(delivery.attempts - 1, 16))
        pause = max(pause, min(after_s, ASKED_S))
        self._end(delivery, {"reason": reason, "next_at": DatabaseClock() + pause})
        old = and_(DELIVERIES.c.delivery == delivery.delivery, DELIVERIES.c.created_at < DatabaseClock() - GIVEN_UP_S)
        given_up = update(DELIVERIES).where(old, DELIVERIES.c.state == "waiting").values(state="aside")
        with self.database.write() as connection:
            is_given_up = connection.execute(given_up).rowcount == 1
        self._close(delivery.job)
        return is_given_up

    def note_refusal(self, delivery: Delivery, reason: str) -> None:
        """The peer will never take it; a notice then goes to the next recipient at once."""
        self._end(delivery, {"state": "aside", "reason": reason})
        if delivery.name == NOTICE:
            others = and_(
                DELIVERIES.c.job == delivery.job, DELIVERIES.c.name == NOTICE, DELIVERIES.c.state == "waiting"
            )
            following = select(DELIVERIES.c.delivery).where(others).order_by(DELIVERIES.c.next_at).limit(1)
            hastened = update(DELIVERIES).where(DELIVERIES.c.delivery == following.scalar_subquery())
            self.database.do(hastened.where(DELIVERIES.c.attempts == 0).values(next_at=DatabaseClock()))

    def give_up_unlisted(self, listed: Collection[str]) -> Mapping[str, int]:
        """Set aside what waits for peers that are not listed; {peer: how many answers}."""
        unlisted = and_(DELIVERIES.c.state == "waiting", DELIVERIES.c.peer.not_in(listed))
        rows = self.database.rows(select(DELIVERIES.c.job, DELIVERIES.c.peer).where(unlisted))
        if not rows:
            return {}
        given_up = {"state": "aside", "reason": "the peer is no longer listed", "lease_until": None}
        self.database.do(update(DELIVERIES).where(unlisted).values(given_up))
        for job in {row.job for row in rows}:
            self._close(job)
        return Counter(row.peer for row in rows)

    def _end(self, delivery: Delivery, values: RowValues) -> None:
        mine = and_(DELIVERIES.c.delivery == delivery.delivery, DELIVERIES.c.fence == delivery.fence)
        with self.database.write() as connection:
            ended = {**values, "attempts": delivery.attempts, "lease_until": None}
            is_ended = connection.execute(update(DELIVERIES).where(mine).values(ended)).rowcount == 1
            if is_ended and values.get("state") == "sent":
                study = connection.execute(select(JOBS.c.study).where(JOBS.c.job == delivery.job)).scalar()
                to = {"peer": delivery.peer}
                audit_records.record_event(
                    connection, "export", f"{delivery.job}/{delivery.name}", study=study, detail=to
                )
        self._close(delivery.job)

    def note_commitment(self, sop_instance_uids: Collection[str], peer: str) -> None:
        """The peer has taken over the keeping of these objects."""
        with self.database.write() as connection:
            theirs = _sent_to(connection, peer, sop_instance_uids)
            connection.execute(update(DELIVERIES).where(DELIVERIES.c.delivery.in_(theirs)).values(state="committed"))

    def note_disowning(self, sop_instance_uids: Collection[str], peer: str) -> int:
        """The peer does not answer for objects that it took: they wait for a person's retry; return their number."""
        values = {"state": "aside", "reason": "the peer took it, and now reports that it does not keep it"}
        with self.database.write() as connection:
            theirs = _sent_to(connection, peer, sop_instance_uids)
            taken = and_(DELIVERIES.c.delivery.in_(theirs), DELIVERIES.c.state.in_(("sent", "committed")))
            return connection.execute(update(DELIVERIES).where(taken).values(values)).rowcount

    def to_reject(self, peers: Collection[str]) -> list[SupersededJob]:
        """Superseded jobs of which peers have objects, and no note that rejects them.

        Only once the successors have gone out: no job of the study is to be computed, and nothing of it waits for the
        peer. Until then the peer keeps the older result, so that it is not without any.
        """
        joined = WITH_ANSWERS.join(JOBS, DELIVERIES.c.job == JOBS.c.job).join(STUDIES, JOBS.c.study == STUDIES.c.study)
        columns = (
            DELIVERIES.c.job,
            DELIVERIES.c.peer,
            DELIVERIES.c.name,
            DELIVERIES.c.sent_as,
            JOBS.c.done_at,
            JOBS.c.reason,
        )
        due = and_(
            DELIVERIES.c.peer.in_(peers),
            # Sent or committed; not as a list of these: SQLite would look through all deliveries that there ever were.
            DELIVERIES.c.state.not_in(("waiting", "aside")),
            or_(ANSWERS.c.sop_instance_uid.is_not(None), ANSWERS.c.kind == FINDINGS),
            JOBS.c.state == "superseded",
            STUDIES.c.state != "receiving",
            STUDIES.c.routed == STUDIES.c.revision,
            *_nothing_to_come(),
        )
        query = select(*columns, ANSWERS.c.sop_instance_uid).select_from(joined).where(due)
        rows = self.database.rows(query.order_by(DELIVERIES.c.delivery))
        found = dict[tuple[str, str], SupersededJob]()
        for row in rows:
            superseded = found.get((row.job, row.peer))
            objects = {
                **({} if superseded is None else superseded.objects),
                row.name: row.sent_as or row.sop_instance_uid or "",
            }
            found[row.job, row.peer] = SupersededJob(row.job, row.peer, row.done_at, row.reason, objects)
        return list(found.values())

    def add_note(self, superseded: SupersededJob, note: ResultFile) -> bool:
        """Have a note go to its peer; False where its job is wanted again meanwhile."""
        with self.database.write() as connection:
            still = and_(JOBS.c.job == superseded.job, JOBS.c.state == "superseded")
            if connection.execute(select(JOBS.c.job).where(still).with_for_update()).first() is None:
                return False
            connection.execute(insert(ANSWERS).values(job=superseded.job, **vars(note)))
            begun = {"state": "waiting", "next_at": DatabaseClock(), "created_at": DatabaseClock()}
            due = {"job": superseded.job, "name": note.name, "peer": superseded.peer, **begun}
            connection.execute(insert(DELIVERIES).values(due))
        return True

    def _close(self, job: str) -> None:
        """A job all of whose answers have arrived, or never will, is done."""
        mine = and_(DELIVERIES.c.job == job, DELIVERIES.c.name != NOTICE)
        waiting = select(DELIVERIES.c.delivery).where(mine, DELIVERIES.c.state == "waiting")
        over = and_(JOBS.c.job == job, JOBS.c.state == "sending", ~waiting.exists())
        self.database.do(update(JOBS).where(over).values(state="done"))


def _nothing_to_come() -> tuple[ColumnElement[bool], ...]:
    """Condition of a superseded job's delivery: its peer has no note, and has got all that it gets before that."""
    others = JOBS.alias("others")
    theirs = DELIVERIES.alias("theirs")
    notes = ANSWERS.alias("notes")
    names = [literal(first).concat(DELIVERIES.c.peer).concat(last) for first, last in (NOTE, REPORT_NOTE)]
    of_study = others.c.study == JOBS.c.study
    mine = and_(theirs.c.job == others.c.job, theirs.c.peer == DELIVERIES.c.peer)
    waits = and_(theirs.c.state == "waiting", theirs.c.name != NOTICE)
    return (
        ~exists().where(notes.c.job == JOBS.c.job, notes.c.name.in_(names)),
        ~exists().where(of_study, others.c.state.in_(("waiting", "running"))),
        ~exists().where(of_study, mine, or_(waits, theirs.c.lease_until > DatabaseClock())),
    )


def _sent_to(connection: Connection, peer: str, sop_instance_uids: Collection[str]) -> Sequence[int]:
    """Deliveries to a peer of objects that it has under these UIDs."""
    under = or_(
        and_(DELIVERIES.c.sent_as.is_(None), ANSWERS.c.sop_instance_uid.in_(sop_instance_uids)),
        DELIVERIES.c.sent_as.in_(sop_instance_uids),
    )
    found = select(DELIVERIES.c.delivery).select_from(WITH_ANSWERS)
    return connection.execute(found.where(DELIVERIES.c.peer == peer, under)).scalars().all()
