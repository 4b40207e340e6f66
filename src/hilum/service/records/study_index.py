"""Studies as they come in: rows of received objects, completeness, what is left to route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, insert, select, update

from hilum.service.records import audit_records, job_queue, searching
from hilum.service.records.actor import NODE, Actor
from hilum.service.records.job_queue import GONE, OPEN, WantedJob
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import CORRECTIONS, DELIVERIES, INSTANCES, JOBS, REJECTIONS, SERIES_ROWS, STUDIES
from hilum.values.case_outcome import REFUSED
from hilum.values.plain_values import PlainValue


@dataclass(frozen=True)
class Arrival:
    """One object as the records hold it; study, series and instance are keys, the hashes of their UIDs.

    at: when it came (s since 1970)
    rejects, reason: of a rejection note the SOP Instance UIDs that it names, and its title
    """

    study: str
    series: str
    instance: str
    study_uid: str
    series_uid: str
    uid: str
    sop_class: str
    syntax: str
    path: str
    bytes: int
    sha256: str
    peer: str
    way: str
    at: float = 0.0
    rejects: frozenset[str] = frozenset()
    reason: str = ""


@dataclass(frozen=True)
class StudyOutcome:
    """Outcome of a study: done, or aside where somebody has to look at it. study: its key."""

    study: str
    state: str
    outcome: str | None
    reason: str | None


@dataclass(frozen=True, eq=False)
class StudyIndex:
    """The tables of studies, series and instances; one process, the keeper, writes them."""

    database: Database

    def add(self, arrivals: Sequence[Arrival]) -> int:
        """Rows for what came in; what is known changes nothing. A study that was complete has a further revision."""
        fresh = 0
        with self.database.write() as connection:
            for study in dict.fromkeys(one.study for one in arrivals):
                mine = [one for one in arrivals if one.study == study]
                paths_known = set(
                    connection.execute(
                        select(INSTANCES.c.series, INSTANCES.c.instance).where(
                            INSTANCES.c.study == study, INSTANCES.c.instance.in_([one.instance for one in mine])
                        )
                    ).tuples()
                )
                new = {(one.series, one.instance): one for one in mine if (one.series, one.instance) not in paths_known}
                if new:
                    self._grow(connection, list(new.values()))
                    fresh += len(new)
                if known := {one.uid: one.at for one in mine if (one.series, one.instance) in paths_known}:
                    _note_resent(connection, study, known)
        return fresh

    def _grow(self, connection: Connection, new: Sequence[Arrival]) -> None:
        first, clock = new[0], DatabaseClock()
        here = STUDIES.c.study == first.study
        state = connection.execute(select(STUDIES.c.state).where(here)).scalar()
        if state is None:
            new_study = {"study": first.study, "uid": first.study_uid, "state": "receiving"}
            connection.execute(insert(STUDIES).values({**new_study, "received_at": clock, "last_at": clock}))
        elif state == "receiving":
            connection.execute(update(STUDIES).where(here).values(last_at=clock))
        elif state in GONE:
            _take_again(connection, first.study)
        else:
            _reopen(connection, first.study, "study grew")
        connection.execute(update(STUDIES).where(here).values(instances=STUDIES.c.instances + len(new)))
        for pair in dict.fromkeys((arrival.series, arrival.series_uid) for arrival in new):
            this = and_(SERIES_ROWS.c.study == first.study, SERIES_ROWS.c.series == pair[0])
            count = sum(arrival.series == pair[0] for arrival in new)
            if connection.execute(select(SERIES_ROWS.c.series).where(this)).first() is None:
                connection.execute(
                    insert(SERIES_ROWS).values(study=first.study, series=pair[0], uid=pair[1], instances=count)
                )
            else:
                connection.execute(update(SERIES_ROWS).where(this).values(instances=SERIES_ROWS.c.instances + count))
        left = ("study_uid", "series_uid", "at", "rejects", "reason")
        rows = [{name: value for name, value in vars(one).items() if name not in left} for one in new]
        connection.execute(insert(INSTANCES).values(received_at=clock), rows)
        for note in new:
            if note.rejects:
                _reject(connection, note)

    def replace(
        self, path: str, *, syntax: str, bytes: int, sha256: str, exchange: Callable[[], None], who: Actor = NODE
    ) -> bool:
        """Another object has the place of one that is kept: its study has a further revision; False without a row.

        exchange: called within the transaction: exchanges the files
        """
        values = {"syntax": syntax, "bytes": bytes, "sha256": sha256}
        with self.database.write() as connection:
            study = connection.execute(select(INSTANCES.c.study).where(INSTANCES.c.path == path)).scalar()
            if study is None:
                return False
            connection.execute(update(INSTANCES).where(INSTANCES.c.path == path).values(values))
            connection.execute(update(STUDIES).where(STUDIES.c.study == study).values(contested=None))
            _reopen(connection, study, "object replaced", who)
            exchange()
        return True

    def uid_of(self, study: str) -> str:
        """The StudyInstanceUID of a study."""
        with self.database.read() as connection:
            return str(connection.execute(select(STUDIES.c.uid).where(STUDIES.c.study == study)).scalar_one())

    def known_paths(self, study: str) -> set[str]:
        """Paths of the objects of a study that have a row."""
        with self.database.read() as connection:
            return set(connection.execute(select(INSTANCES.c.path).where(INSTANCES.c.study == study)).scalars())

    def has_row(self, study: str, path: str) -> bool:
        """Whether the object of a study at this path has a row."""
        this = and_(INSTANCES.c.study == study, INSTANCES.c.path == path)
        return self.database.first(select(INSTANCES.c.path).where(this).limit(1)) is not None

    def overdue(self, after_s: float, most: int) -> Sequence[Row[str, int]]:
        """Studies (study, revision) whose last object came so long ago, those that wait longest first."""
        quiet = and_(STUDIES.c.state == "receiving", STUDIES.c.last_at <= DatabaseClock() - after_s)
        longest = select(STUDIES.c.study, STUDIES.c.revision).where(quiet).order_by(STUDIES.c.last_at).limit(most)
        return self.database.rows(longest)

    def row_of(self, study: str) -> Row[Any] | None:
        """The row of a study; None where the node has none."""
        return self.database.first(select(STUDIES).where(STUDIES.c.study == study))

    def series_of(self, study: str) -> Sequence[Row[Any]]:
        """The rows of a study's series that have objects, rejected ones too, by UID."""
        inside = INSTANCES.c.study == SERIES_ROWS.c.study, INSTANCES.c.series == SERIES_ROWS.c.series
        mine = and_(SERIES_ROWS.c.study == study, exists().where(*inside))
        return self.database.rows(select(SERIES_ROWS).where(mine).order_by(SERIES_ROWS.c.uid))

    def objects_of(self, study: str, of_series: str) -> Sequence[Row[Any]]:
        """The rows of a series' objects that no note rejects, by UID."""
        rejected = select(REJECTIONS.c.uid).where(REJECTIONS.c.study == study)
        within = and_(INSTANCES.c.study == study, INSTANCES.c.series == of_series, INSTANCES.c.uid.not_in(rejected))
        return self.database.rows(select(INSTANCES).where(within).order_by(INSTANCES.c.uid))

    def complete(
        self,
        study: str,
        revision: int,
        attributes: Mapping[str, PlainValue],
        facts: Mapping[str, Mapping[str, PlainValue]],
        patient: str | None = None,
        people: Sequence[str] = (),
    ) -> bool:
        """Mark a study as complete, with the facts of its series; False where it has grown meanwhile.

        patient: pseudonym; people: the patients whom its series name, where these are several
        """
        this = and_(STUDIES.c.study == study, STUDIES.c.revision == revision, STUDIES.c.state == "receiving")
        values = {"state": "complete", "complete_at": DatabaseClock(), "attributes": dict(attributes), "routed": 0}
        values |= searching.searched_columns(attributes) | ({} if patient is None else {"patient": patient})
        values |= {"people": list(people)}
        with self.database.write() as connection:
            if connection.execute(update(STUDIES).where(this).values(values)).rowcount == 0:
                return False
            for key, columns in facts.items():
                here = and_(SERIES_ROWS.c.study == study, SERIES_ROWS.c.series == key)
                connection.execute(update(SERIES_ROWS).where(here).values(dict(columns)))
            audit_records.record_event(connection, "study received", study, study=study, detail={"revision": revision})
        return True

    def hurry(self, study: str, *, who: Actor = NODE) -> bool:
        """Count a study as complete at once; False where it is none that is being received."""
        this = and_(STUDIES.c.study == study, STUDIES.c.state == "receiving")
        with self.database.write() as connection:
            if connection.execute(update(STUDIES).where(this).values(last_at=0.0)).rowcount == 0:
                return False
            audit_records.record_event(connection, "study hurried", study, actor=who, study=study)
        return True

    def reroute(self, study: str, *, who: Actor = NODE) -> bool:
        """Have a complete study looked at by the rules again; what lies aside or came again of it counts as seen."""
        this = STUDIES.c.study == study
        with self.database.write() as connection:
            job_queue.unsettle_studies(connection, this)
            connection.execute(
                update(REJECTIONS).where(REJECTIONS.c.study == study).values(is_sent_again=False, since=DatabaseClock())
            )
            anew = update(STUDIES).where(this, STUDIES.c.state == "complete").values(routed=0, contested=None)
            if connection.execute(anew).rowcount == 0:
                return False
            audit_records.record_event(connection, "study rerouted", study, actor=who, study=study)
        return True

    def lift(self, study: str, *, who: Actor = NODE) -> bool:
        """Take images of a study for good that a note rejects and that came again; False where there are none."""
        again = and_(REJECTIONS.c.study == study, REJECTIONS.c.is_sent_again.is_(True))
        with self.database.write() as connection:
            if connection.execute(delete(REJECTIONS).where(again)).rowcount == 0:
                return False
            _reopen(connection, study, "rejection lifted", who)
        return True

    def contest(self, study: str, path: str) -> bool:
        """Note that an object with the UID of one of a study lies aside; False where that, or no study, is known."""
        with self.database.write() as connection:
            this = STUDIES.c.study == study
            asides = connection.execute(select(STUDIES.c.asides).where(this)).scalar()
            if asides is None or path in asides:
                return False
            noted = {"contested": path, "asides": [*asides, path], "routed": 0}
            connection.execute(update(STUDIES).where(this).values(noted))
            job_queue.unsettle_studies(connection, this)
            audit_records.record_event(connection, "object aside", study, study=study, detail={"path": path})
        return True

    def to_route(self, most: int) -> Sequence[Row[Any]]:
        """Complete studies that the rules have not seen as they are, those that are complete longest first."""
        # Not as a list of the other states: SQLite would look through all studies by their index.
        at_work = STUDIES.c.state.not_in(("receiving", *GONE))
        fresh = and_(at_work, STUDIES.c.routed < STUDIES.c.revision)
        return self.database.rows(select(STUDIES).where(fresh).order_by(STUDIES.c.complete_at).limit(most))

    def note_routing(
        self,
        connection: Connection,
        study: str,
        revision: int,
        jobs_wanted: Sequence[WantedJob],
        untaken: str | None = None,
    ) -> None:
        """Note that the rules have seen a study; jobs that they no longer want are superseded.

        jobs_wanted:  every job that belongs to the study as it is
        untaken: why there are none
        """
        columns = (JOBS.c.job, JOBS.c.rule, JOBS.c.model_hash, JOBS.c.inputs_hash, JOBS.c.inputs)
        mine = and_(JOBS.c.study == study, JOBS.c.state.not_in(("superseded", "cancelled")))
        for row in connection.execute(select(*columns).where(mine)).all():
            job_made = WantedJob(row.rule, row.model_hash, row.inputs_hash, row.inputs)
            if (reason := job_queue.superseded_because(job_made, jobs_wanted)) is not None:
                job_queue.close_job(connection, row.job, "superseded", reason)
        seen = {"routed": revision, "state": "complete", "outcome": None, "reason": untaken}
        connection.execute(update(STUDIES).where(STUDIES.c.study == study).values(seen))

    def settle(self) -> list[StudyOutcome]:
        """Studies with no job left to do are done, or aside where somebody has to look; those that became so."""
        busy = select(JOBS.c.job).where(JOBS.c.study == STUDIES.c.study, JOBS.c.state.in_(OPEN))
        over = and_(STUDIES.c.state == "complete", STUDIES.c.routed == STUDIES.c.revision, ~busy.exists())
        with self.database.read() as connection:
            settled = [_study_outcome(connection, row) for row in connection.execute(select(STUDIES).where(over)).all()]
        if not settled:
            return []
        with self.database.write() as connection:
            return [one for one in settled if _is_settled(connection, one, over)]


def withheld_because(connection: Connection, study: str) -> Sequence[str]:
    """Why notes reject images of a study that came again, and that no model gets; empty where none does."""
    again = and_(REJECTIONS.c.study == study, REJECTIONS.c.is_sent_again.is_(True))
    return connection.execute(select(REJECTIONS.c.reason).where(again).distinct()).scalars().all()


def _is_settled(connection: Connection, settled: StudyOutcome, over: ColumnElement[bool]) -> bool:
    """Note what a study came to; False where it has something left to do again since it was looked at."""
    values = {"state": settled.state, "outcome": settled.outcome, "reason": settled.reason}
    if connection.execute(update(STUDIES).where(STUDIES.c.study == settled.study, over).values(values)).rowcount == 0:
        return False
    columns = {"outcome": settled.outcome, "reason": settled.reason}
    audit_records.record_event(connection, f"study {settled.state}", settled.study, study=settled.study, detail=columns)
    return True


def _study_outcome(connection: Connection, study: Row[Any]) -> StudyOutcome:
    """The outcome of a study: the best of what its jobs did, and whether somebody has to look at it."""
    mine = select(JOBS).where(JOBS.c.study == study.study, JOBS.c.state != "superseded").order_by(JOBS.c.created_at)
    of_study = connection.execute(mine).all()
    answered = [row for row in of_study if row.state != "cancelled"]
    best = job_queue.best_job(answered)
    aside = [f"a job is aside: {row.reason}" for row in of_study if row.state == "aside"]
    if study.contested is not None:
        folder_of_object = study.contested.rpartition("/")[0]
        aside.append(f"another object with the same UID lies in {folder_of_object}: release it, or reroute the study")
    if study.people:
        number = len(study.people)
        aside.append(f"its series are of {number} patients, whom `people` names: correct them where they come from")
    if notes := withheld_because(connection, study.study):
        words = "images came again that a note rejects, and the note stands"
        aside.append(f"{words} ({', '.join(notes)}): an administrator lifts it, POST /api/studies/{study.uid}/lift")
    outcome, because = None, None  # every job is aside
    if best is not None:
        outcome, because = best.outcome, best.reason
    elif not answered:
        outcome, because = REFUSED, "its jobs are cancelled" if of_study else study.reason
    reason = "; ".join([*aside, *([because] if because else [])])
    return StudyOutcome(study.study, "aside" if aside else "done", outcome, reason or None)


def _note_resent(connection: Connection, study: str, at: Mapping[str, float]) -> None:
    """Note that objects came again which a note rejects: it stands, for whoever sends a study again may not know it.

    at: {UID: when}; a journal that is read again after a restart states what came before the note
    """
    here = and_(REJECTIONS.c.study == study, REJECTIONS.c.uid.in_(at))
    rows = connection.execute(select(REJECTIONS.c.uid, REJECTIONS.c.since).where(here)).all()
    again = [row.uid for row in rows if at[row.uid] > row.since]
    if again:
        connection.execute(update(REJECTIONS).where(here, REJECTIONS.c.uid.in_(again)).values(is_sent_again=True))
        job_queue.unsettle_studies(connection, STUDIES.c.study == study)
        audit_records.record_event(connection, "rejected object came again", study, study=study)


def _reject(connection: Connection, note: Arrival) -> None:
    """Take back the jobs that have seen an object which a note rejects, at once: nothing more of them is sent."""
    named = [{"study": note.study, "note": note.uid, "uid": uid, "reason": note.reason} for uid in sorted(note.rejects)]
    connection.execute(insert(REJECTIONS).values(since=DatabaseClock()), named)
    uids = select(REJECTIONS.c.uid).where(REJECTIONS.c.study == note.study, REJECTIONS.c.note == note.uid)
    here = and_(INSTANCES.c.study == note.study, INSTANCES.c.uid.in_(uids))
    of_these = set(connection.execute(select(INSTANCES.c.series).where(here)).scalars())
    mine = and_(JOBS.c.study == note.study, JOBS.c.state.not_in(("superseded", "cancelled")))
    because = f"images of it were rejected: {note.reason}"
    judged = set(connection.execute(select(INSTANCES.c.instance).where(here)).scalars())
    for row in connection.execute(select(JOBS.c.job, JOBS.c.inputs).where(mine)).all():
        if not of_these.isdisjoint(row.inputs["series"].values()):
            job_queue.close_job(connection, row.job, "superseded", because)
            judged.add(row.job)
    # What people made of these, or of a segmentation that is rejected itself, is not sent any more either.
    owners = select(CORRECTIONS.c.correction).where(CORRECTIONS.c.judged.in_(judged))
    is_waiting = and_(DELIVERIES.c.job.in_(owners), DELIVERIES.c.state == "waiting")
    connection.execute(update(DELIVERIES).where(is_waiting).values(state="aside", reason=because))


def forget_objects(connection: Connection, study: str) -> None:
    """Delete the rows of a study's objects; what its series were stays known."""
    connection.execute(delete(INSTANCES).where(INSTANCES.c.study == study))
    connection.execute(update(SERIES_ROWS).where(SERIES_ROWS.c.study == study).values(instances=0))
    mine = update(STUDIES).where(STUDIES.c.study == study)
    connection.execute(mine.values(instances=0, asides=[], contested=None))


def _take_again(connection: Connection, study: str) -> None:
    """Objects of a study come again that retention has deleted; results that went with them are made anew."""
    forget_objects(connection, study)
    mine = STUDIES.c.study == study
    if connection.execute(select(STUDIES.c.results_gone_at).where(mine)).scalar() is not None:
        anew = update(JOBS).where(JOBS.c.study == study, JOBS.c.state == "done")
        reason = "its results were deleted, and the images came again"
        connection.execute(anew.values(state="superseded", reason=reason))
    connection.execute(update(STUDIES).where(mine).values(objects_gone_at=None, results_gone_at=None))
    _reopen(connection, study, "study came again")


def _reopen(connection: Connection, study: str, action: str, who: Actor = NODE) -> None:
    """A study that was complete has changed."""
    later = {"state": "receiving", "revision": STUDIES.c.revision + 1, "last_at": DatabaseClock(), "routed": 0}
    later |= {"outcome": None, "reason": None}
    connection.execute(update(STUDIES).where(STUDIES.c.study == study).values(later))
    audit_records.record_event(connection, action, study, actor=who, study=study)
