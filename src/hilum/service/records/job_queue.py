"""The queue of jobs: wanted by rules, claimed under leases, written only by whoever holds the claim."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, insert, or_, select, tuple_, update
from typing_extensions import TypedDict

from hilum.service.model_facts import Urgency
from hilum.service.records import alert_records, audit_records
from hilum.service.records.actor import NODE, Actor
from hilum.service.records.alert_records import NOTICE, Notice
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import ANSWERS, DELIVERIES, FINDING_ROWS, JOBS, MEASURES, STUDIES, RowValues
from hilum.values import ANSWERED
from hilum.values.case_outcome import ABSTAINED, FAILED, REFUSED, OutcomeName
from hilum.values.finding_records import FindingRow


class InsideBox(TypedDict):
    """Where alone a job predicts: around a value of the answer of an earlier job."""

    job: str
    label: str
    value: int
    margin_mm: float


class StatedInputs(TypedDict, total=False):
    """The inputs of a job: {role: key of a series}, and other answers that it rests on.

    hash: of the bytes of its series, and of these answers; prior: the earlier study that it is compared with
    """

    series: dict[str, str]
    inside: InsideBox
    prior: dict[str, str]
    hash: str


class CovariateEntry(TypedDict, total=False):
    """A covariate of a job, and where its value comes from."""

    value: bool | int | float | str | None
    source: str
    unit: str
    at: str


@dataclass(frozen=True)
class WantedJob:
    """A job that the rules want of a study.

    inputs: as those of `Job`
    """

    rule: str
    model_hash: str
    inputs_hash: str
    inputs: StatedInputs


def superseded_because(job: WantedJob, jobs_wanted: Sequence[WantedJob]) -> str | None:
    """Why a job that was wanted no longer belongs to its study; None where it does."""
    of_rule = [one for one in jobs_wanted if one.rule == job.rule]
    of_model = [one for one in of_rule if one.model_hash == job.model_hash]
    if any(one.inputs_hash == job.inputs_hash for one in of_model):
        return None
    if not of_rule:
        return "its rule is gone, waits for an answer, or takes no series of the study now"
    if not of_model:
        return "its rule has another model now"
    of_series = [one for one in of_model if one.inputs["series"] == job.inputs["series"]]
    if not of_series:
        return "its rule takes other series now"
    if all(one.inputs.get("inside") != job.inputs.get("inside") for one in of_series):
        return "its rule looks within another answer, label or margin now"
    if all(one.inputs.get("prior") != job.inputs.get("prior") for one in of_series):
        return "an earlier study of the patient has come since"
    return "the study has grown, and its inputs have changed"


# States of a job on which somebody still works.
OPEN = ("waiting", "running", "sending")
# States of a study with nothing left to do.
SETTLED = ("done", "aside")
# Of a study whose objects retention deletes, or has deleted.
GOING = "going"
GONE = (GOING, "gone")
# Of a job that is done again.
ANEW = {"state": "waiting", "attempts": 0, "reason": None, "outcome": None, "is_empty": False}
# A study has the first of these, (outcome, whether it is empty), that one of its jobs has.
OUTCOMES = ((ANSWERED, False), (FAILED, False), (ABSTAINED, False), (REFUSED, False), (ANSWERED, True))
# The kind of an answer of a superseded job that tells a peer to reject the others.
REJECTION = "rejection"
# That of the record of findings.
FINDINGS = "findings"


@dataclass(frozen=True)
class Job:
    """One model on the inputs of one rule. fence: of the claim; every write of a result names it.

    inputs: "series": {role: series}, keys of the study's series; "inside": where alone is predicted, if not everywhere,
            as `box_inside` gives it; "prior": the job whose answer on an earlier study it is compared with; "hash": of
            the bytes of the series, of "inside" and of "prior"
    stamp:  time that results bear (s since 1970): that of the job's making, so that made again they are the same
    version: its number among the jobs of its rule on the same series, which its results bear
    model_version: that of the model, as results state it
    """

    job: str
    study: str
    rule: str
    model: str
    model_hash: str
    inputs: StatedInputs
    fence: int
    attempts: int
    stamp: float
    version: int = 1
    model_version: str = ""

    @classmethod
    def of_row(cls, row: Row[Any], **changes: Any) -> Job:
        """A row of the table; changes: what is otherwise."""
        columns = {one.name: row._mapping[one.name] for one in fields(cls) if one.name != "stamp"}
        return cls(**{**columns, "stamp": row.created_at, **changes})


@dataclass(frozen=True)
class ResultFile:
    """One file of a result."""

    name: str
    kind: str
    bytes: int
    sha256: str
    sop_class: str | None = None
    sop_instance_uid: str | None = None


@dataclass(frozen=True)
class JobMeasures:
    """Measures of a job for monitoring: those of its image, the gate's distances, and features (float16)."""

    measures: Mapping[str, float] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)
    features: bytes | None = None


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job: an answer, or a stated reason why there is none.

    is_empty:   whether it is an answer that there is nothing
    send:       peers that get the DICOM objects
    report_to:  peers that get the record of findings as a report
    covariates: {name: {"value", "source"}} of those that the image or a server states
    urgency:    what its findings make of the study
    notice:     of that, for people who are to know
    measured:   None where no model was asked, so that the job says nothing of one
    """

    outcome: OutcomeName
    reason: str = ""
    answers: Sequence[ResultFile] = ()
    findings: Sequence[FindingRow] = ()
    send: Sequence[str] = ()
    report_to: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    gate_p: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    covariates: Mapping[str, CovariateEntry] = field(default_factory=dict)
    urgency: Urgency | None = None
    notice: Notice | None = None
    measured: JobMeasures | None = JobMeasures()
    is_empty: bool = False

    @property
    def finds_something(self) -> bool:
        """Whether it is an answer, and not that there is nothing."""
        return self.outcome == ANSWERED and not self.is_empty

    @property
    def names(self) -> set[str]:
        """The words by which `tell` of a rule names it."""
        return {self.outcome, *(["found"] if self.finds_something else [])}


def job_key(study: str, rule: str, model_hash: str, inputs_hash: str, *again: str) -> str:
    """The key of a job: nothing else has its study, rule, model and inputs.

    again: its version, where the results of an earlier job on the same were rejected
    """
    return hashlib.sha256("\0".join((study, rule, model_hash, inputs_hash, *again)).encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Jobs:
    """The table of jobs, claimed one at a time.

    lease_s:  a claim that is not renewed for so long is another worker's
    attempts: a job that was claimed so often without an end goes aside
    """

    database: Database
    lease_s: float = 60
    attempts: int = 3

    def add(self, connection: Connection, *, study: str, inputs_hash: str, after_s: float = 0, **columns: Any) -> bool:
        """A new job in the queue, to be begun after a while; False where it is there, whatever became of it.

        But a job that was superseded is wanted again: it is done anew, and its answers are the same. Where a peer was
        told to reject these, it is another job, because what was rejected must not come back under the same UIDs.
        """
        clock, rule, model_hash = DatabaseClock(), columns["rule"], columns["model_hash"]
        of_rule = select(JOBS).where(JOBS.c.study == study, JOBS.c.rule == rule).order_by(JOBS.c.version)
        of_rule_rows = connection.execute(of_rule).all()
        alike = [one for one in of_rule_rows if (one.model_hash, one.inputs_hash) == (model_hash, inputs_hash)]
        if alike and alike[-1].state != "superseded":
            return False
        if alike and not _is_rejected(connection, alike[-1].job):
            again = {**ANEW, "not_before": clock + after_s, **columns}
            connection.execute(update(JOBS).where(JOBS.c.job == alike[-1].job).values(again))
            return True
        version = 1 + sum(one.inputs["series"] == columns["inputs"]["series"] for one in of_rule_rows)
        stated = {"state": "waiting", "not_before": clock + after_s, "created_at": clock, "version": version}
        stated["job"] = job_key(study, rule, model_hash, inputs_hash, *([str(version)] if alike else []))
        connection.execute(insert(JOBS).values(study=study, inputs_hash=inputs_hash, **{**stated, **columns}))
        return True

    def claim(self, worker: str, without: Sequence[str] = ()) -> Job | None:
        """The most urgent job that nobody holds, now held by `worker`; None where there is none.

        without: models that it leaves to other workers
        """
        free = or_(
            and_(JOBS.c.state == "waiting", JOBS.c.not_before <= DatabaseClock()),
            and_(JOBS.c.state == "running", JOBS.c.lease_until < DatabaseClock()),
        )
        conditions = and_(free, JOBS.c.model.not_in(without))
        with self.database.write() as connection:
            next_job = select(JOBS).where(conditions).order_by(JOBS.c.priority, JOBS.c.created_at, JOBS.c.job).limit(1)
            while True:
                row = connection.execute(next_job.with_for_update(skip_locked=True)).first()
                if row is None:
                    return None
                if row.attempts < self.attempts:
                    break
                self._aside(connection, row)
            held = {
                "state": "running",
                "fence": JOBS.c.fence + 1,
                "attempts": JOBS.c.attempts + 1,
                "worker": worker,
                "lease_until": DatabaseClock() + self.lease_s,
                "started_at": DatabaseClock(),
            }
            connection.execute(update(JOBS).where(JOBS.c.job == row.job).values(held))
        return Job.of_row(row, fence=row.fence + 1, attempts=row.attempts + 1)

    def _aside(self, connection: Connection, row: Row[Any]) -> None:
        """A job that was begun as often as is allowed, and never ended."""
        reason = row.reason or f"the worker died {row.attempts} times while it worked on this"
        values = {
            "state": "aside",
            "reason": reason,
            "done_at": DatabaseClock(),
            "lease_until": None,
            "fence": row.fence + 1,
        }
        connection.execute(update(JOBS).where(JOBS.c.job == row.job).values(values))
        audit_records.record_event(connection, "job aside", row.job, study=row.study, detail={"reason": reason})

    def replaced_by(self, job: Job) -> Mapping[str, str]:
        """{name: latest earlier job} of reports of the same rule on the same series, which those of a job replace."""
        joined = JOBS.join(ANSWERS, JOBS.c.job == ANSWERS.c.job)
        earlier = and_(JOBS.c.study == job.study, JOBS.c.rule == job.rule, JOBS.c.created_at < job.stamp)
        query = select(JOBS.c.job, JOBS.c.inputs, ANSWERS.c.name).select_from(joined)
        query = query.where(earlier, ANSWERS.c.kind == "sr").order_by(JOBS.c.created_at, JOBS.c.job)
        rows = self.database.rows(query)
        return {row.name: row.job for row in rows if row.inputs["series"] == job.inputs["series"]}

    def renew(self, job: Job) -> bool:
        """Hold the claim for another lease; False where it is no longer held."""
        with self.database.write() as connection:
            values = {"lease_until": DatabaseClock() + self.lease_s}
            return connection.execute(update(JOBS).where(*_is_held(job)).values(values)).rowcount == 1

    def give_back(self, job: Job, reason: str = "", *, counts: bool = True, after_s: float = 0) -> bool:
        """End the claim without a result: another claim follows, after a pause. counts: as one of the attempts."""
        with self.database.write() as connection:
            values: RowValues = {"state": "waiting", "lease_until": None, "not_before": DatabaseClock() + after_s}
            values |= {} if counts else {"attempts": JOBS.c.attempts - 1}
            values |= {"reason": reason} if reason else {}
            return connection.execute(update(JOBS).where(*_is_held(job)).values(values)).rowcount == 1

    def release(self, worker: str) -> int:
        """The number of jobs that a worker held that is known to be dead; they wait again."""
        with self.database.write() as connection:
            mine = and_(JOBS.c.worker == worker, JOBS.c.state == "running")
            values = {"state": "waiting", "lease_until": None, "not_before": DatabaseClock()}
            return connection.execute(update(JOBS).where(mine).values(values)).rowcount

    def finish(
        self,
        job: Job,
        outcome: JobOutcome,
        publish: Any = None,
        others: Callable[[Connection], ColumnElement[bool] | None] = lambda connection: None,
    ) -> bool:
        """Record what a job came to, all of it or none; False where the claim is no longer held.

        publish: called within the transaction, once the claim is sure: gives the files their final names
        others: studies that the rules look at again too
        """
        with self.database.write() as connection:
            if connection.execute(select(JOBS.c.job).where(*_is_held(job)).with_for_update()).first() is None:
                return False
            if publish is not None:
                publish()
            # Of an outcome that marks nothing only the report says so: an empty mask does not.
            is_result, send = outcome.finds_something, sorted(set(outcome.send))
            objects = [one for one in outcome.answers if one.sop_instance_uid is not None]
            sent = [one.name for one in objects if is_result or one.kind == "sr"]
            due = {(name, peer): 0.0 for name in sent for peer in send}
            records = [one.name for one in outcome.answers if one.kind == FINDINGS]
            due |= {(name, peer): 0.0 for name in records for peer in outcome.report_to}
            if outcome.notice is not None:
                due |= {
                    (NOTICE, to): after
                    for to, after in alert_records.record_notice(connection, job.job, outcome.notice).items()
                }
            is_sending = self._write_answers(connection, job, outcome, due)
            values = {
                "state": "sending" if is_sending else "done",
                "outcome": outcome.outcome,
                "is_empty": outcome.is_empty,
                "reason": outcome.reason or None,
                "seconds": dict(outcome.seconds),
                "gate_p": outcome.gate_p,
                "versions": dict(outcome.versions),
                "covariates": {name: dict(one) for name, one in outcome.covariates.items()},
                "urgency": outcome.urgency and outcome.urgency.rank,
                "because": outcome.urgency and outcome.urgency.because,
                "lease_until": None,
                "done_at": DatabaseClock(),
            }
            connection.execute(update(JOBS).where(JOBS.c.job == job.job).values(values))
            connection.execute(delete(MEASURES).where(MEASURES.c.job == job.job))
            if outcome.measured is not None:
                connection.execute(insert(MEASURES).values(job=job.job, **vars(outcome.measured)))
            # Rules that wait for this one are looked at again.
            again, more = STUDIES.c.study == job.study, others(connection)
            again = again if more is None else or_(again, more)
            connection.execute(update(STUDIES).where(again).values(routed=0))
            detail = {"rule": job.rule, "model": job.model, "outcome": outcome.outcome, "reason": outcome.reason}
            audit_records.record_event(connection, "prediction", job.job, study=job.study, detail=detail)
        return True

    def _write_answers(
        self, connection: Connection, job: Job, outcome: JobOutcome, sent: Mapping[tuple[str, str], float]
    ) -> bool:
        """Files and findings in place of those of an earlier run, if any; whether any is still to be delivered.

        sent: {(name, peer): s from now on after which it is}
        What a peer has is not sent again, what was given up is.
        """
        query = select(DELIVERIES.c.name).where(DELIVERIES.c.job == job.job)
        connection.execute(delete(FINDING_ROWS).where(FINDING_ROWS.c.job == job.job))
        connection.execute(delete(ANSWERS).where(ANSWERS.c.job == job.job, ANSWERS.c.name.not_in(query)))
        names_there = set(connection.execute(select(ANSWERS.c.name).where(ANSWERS.c.job == job.job)).scalars())
        for answer in outcome.answers:
            columns = {**vars(answer), "job": job.job}
            if answer.name in names_there:
                connection.execute(
                    update(ANSWERS).where(ANSWERS.c.job == job.job, ANSWERS.c.name == answer.name).values(columns)
                )
            else:
                connection.execute(insert(ANSWERS).values(columns))
        for number, row in enumerate(outcome.findings):
            columns = {"job": job.job, "number": number, "concept": str(row["concept"]), "row": dict(row)}
            connection.execute(insert(FINDING_ROWS).values(columns))
        known = select(DELIVERIES.c.name, DELIVERIES.c.peer).where(DELIVERIES.c.job == job.job)
        fresh = sent.keys() - {(row.name, row.peer) for row in connection.execute(known)}
        begun = {"state": "waiting", "next_at": DatabaseClock(), "created_at": DatabaseClock()}
        for name, peer in sorted(fresh):
            due = {**begun, "next_at": DatabaseClock() + sent[name, peer]}
            connection.execute(insert(DELIVERIES).values({"job": job.job, "name": name, "peer": peer, **due}))
        mine = DELIVERIES.c.job == job.job
        given_up = and_(
            mine, DELIVERIES.c.state == "aside", tuple_(DELIVERIES.c.name, DELIVERIES.c.peer).in_(list(sent))
        )
        connection.execute(update(DELIVERIES).where(given_up).values({**begun, "attempts": 0, "reason": None}))
        # A notice waits for people, and its job does not.
        still = select(DELIVERIES.c.job).where(mine, DELIVERIES.c.state == "waiting", DELIVERIES.c.name != NOTICE)
        return connection.execute(still).first() is not None

    def cancel(self, job: str, *, because: str = "asked for", who: Actor = NODE) -> bool:
        """End an open job; whoever works on it can write nothing more."""
        with self.database.write() as connection:
            return close_job(connection, job, "cancelled", because, who)

    def retry(self, job: str, *, who: Actor = NODE) -> bool:
        """A job that ended, or went aside, waits again with all its attempts."""
        with self.database.write() as connection:
            gone = select(STUDIES.c.study).where(STUDIES.c.state.in_(GONE))
            ended = and_(JOBS.c.state.not_in((*OPEN, "superseded")), JOBS.c.study.not_in(gone))
            values = {**ANEW, "not_before": DatabaseClock()}
            again = update(JOBS).where(JOBS.c.job == job, ended).values(values).returning(JOBS.c.study)
            study = connection.execute(again).scalar()
            if study is not None:
                unsettle_studies(connection, STUDIES.c.study == study)
                audit_records.record_event(connection, "job retried", job, actor=who, study=study)
            return study is not None


def close_job(connection: Connection, job: str, state: str, reason: str, who: Actor = NODE) -> bool:
    """Take a job out of the queue, or mark it, so that no claim on it holds any more; False where none is to be closed.

    Any job can be superseded, only an open one cancelled.
    """
    fenced = case((JOBS.c.state == "running", JOBS.c.fence + 1), else_=JOBS.c.fence)
    values = {"state": state, "reason": reason, "fence": fenced, "lease_until": None, "done_at": DatabaseClock()}
    closable = [JOBS.c.job == job] if state == "superseded" else [JOBS.c.job == job, JOBS.c.state.in_(OPEN)]
    study = connection.execute(update(JOBS).where(*closable).values(values).returning(JOBS.c.study)).scalar()
    if study is None:
        return False
    is_waiting = and_(DELIVERIES.c.job == job, DELIVERIES.c.state == "waiting")
    connection.execute(update(DELIVERIES).where(is_waiting).values(state="aside", reason=f"its job is {state}"))
    audit_records.record_event(connection, f"job {state}", job, actor=who, study=study, detail={"reason": reason})
    return True


def _is_rejected(connection: Connection, job: str) -> bool:
    """Whether a peer was told to reject the results of a job."""
    notes = select(ANSWERS.c.name).where(ANSWERS.c.job == job, ANSWERS.c.kind == REJECTION)
    return connection.execute(notes).first() is not None


def best_job(rows: Iterable[Row[*tuple[Any, ...]]]) -> Row[*tuple[Any, ...]] | None:
    """The job of a study whose outcome is the study's; None where none has ended."""
    ended = [row for row in rows if row.outcome is not None]
    return min(ended, key=lambda row: OUTCOMES.index((row.outcome, row.is_empty)), default=None)


def _is_held(job: Job) -> tuple[Any, ...]:
    return JOBS.c.job == job.job, JOBS.c.fence == job.fence, JOBS.c.state == "running"


def unsettle_studies(connection: Connection, *which: ColumnElement[bool]) -> int:
    """Reopen studies that were done or aside and have something left to do; return their number."""
    open_again = {"state": "complete", "outcome": None, "reason": None}
    settled = STUDIES.c.state.in_(SETTLED)
    return connection.execute(update(STUDIES).where(settled, *which).values(open_again)).rowcount
