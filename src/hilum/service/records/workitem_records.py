"""Orders of jobs as Unified Procedure Steps: created, claimed, changed and ended by the rules of PS3.4 CC.2."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, select, update

from hilum.lazy import pydicom
from hilum.service.configuration import PRIORITIES, RoutingRule
from hilum.service.dimse_statuses import DUPLICATE, UPS_PUSH, WorkitemError
from hilum.service.objects import object_store
from hilum.service.records import audit_records, job_queue
from hilum.service.records.actor import NODE, Actor
from hilum.service.records.job_queue import GONE
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import JOBS, STUDIES, WORKITEMS, RowValues

SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = STATES = ("SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED")
FINAL = (COMPLETED, CANCELED)
# Statuses of DIMSE, PS3.4 CC.2
INVALID_VALUE, MISSING, MISSING_VALUE = 0x0106, 0x0120, 0x0121
ALREADY_CANCELED, ALREADY_COMPLETED = 0xB304, 0xB306
NO_LONGER_UPDATED, WRONG_TRANSACTION, ALREADY_CLAIMED, ONLY_CREATED = 0xC300, 0xC301, 0xC302, 0xC303
NOT_FINAL, NO_SUCH_WORKITEM, NOT_SCHEDULED, NOT_CLAIMED, WAS_COMPLETED = 0xC304, 0xC307, 0xC309, 0xC310, 0xC311
PERFORMER_AWAY = 0xC312
# What a workitem needs to have a value of, and what alone to be there, when it is created: PS3.4 CC.2.5.3.
VALUED = (
    "ProcedureStepState",
    "ScheduledProcedureStepPriority",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
    "ScheduledWorkitemCodeSequence",
    "InputInformationSequence",
)
# What its performer has to have stated before it is completed, PS3.4 CC.2.5.1.1
PERFORMED = (
    "PerformedStationNameCodeSequence",
    "PerformedProcedureStepStartDateTime",
    "PerformedWorkitemCodeSequence",
    "PerformedProcedureStepEndDateTime",
)
UNCHANGED = ("SOPClassUID", "SOPInstanceUID", "TransactionUID", "ProcedureStepState")
# Of each Scheduled Procedure Step Priority the place in our queue.
QUEUED = {"HIGH": PRIORITIES.index("urgent"), "MEDIUM": PRIORITIES.index("routine"), "LOW": 3}


@dataclass(frozen=True, eq=False)
class Workitems:
    """The table of workitems. rules: of the node, which alone can be ordered."""

    database: Database
    rules: Sequence[RoutingRule]

    def create(self, dataset: pydicom.Dataset, uid: str = "", *, who: Actor = NODE) -> str:
        """A new workitem; its UID. Raises WorkitemError for one that PS3.4 CC.2.5 or the node refuses."""
        uid = uid or str(dataset.get("SOPInstanceUID") or "") or f"2.25.{uuid.uuid4().int}"
        for keyword in VALUED:
            if not dataset.get(keyword):
                status = MISSING_VALUE if keyword in dataset else MISSING
                raise WorkitemError(status, f"has no {keyword}", uid, "State it")
        if dataset.ProcedureStepState != SCHEDULED or dataset.get("TransactionUID"):
            raise WorkitemError(NOT_SCHEDULED, "begins as SCHEDULED, without a Transaction UID", uid, "Claim it later")
        if not re.fullmatch(r"[0-9.]{1,64}", uid):
            raise WorkitemError(INVALID_VALUE, "has a UID that is none", uid, "Give digits and dots")
        row = {**self._order_columns(dataset, uid), "state": SCHEDULED, "dataset": _storable(dataset, uid)}
        with self.database.write() as connection:
            if connection.execute(select(WORKITEMS.c.workitem).where(WORKITEMS.c.workitem == uid)).first():
                raise WorkitemError(DUPLICATE, "is there already", uid)
            connection.execute(insert(WORKITEMS).values(workitem=uid, created_at=DatabaseClock(), **row))
            audit_records.record_event(
                connection, "workitem created", uid, actor=who, study=row["study"], detail={"rule": row["rule"]}
            )
        return uid

    def _order_columns(self, dataset: pydicom.Dataset, uid: str) -> RowValues:
        """The columns of what it orders: a rule on a study, and on which series of it."""
        rule = str(dataset.ScheduledWorkitemCodeSequence[0].get("CodeMeaning") or "")
        if rule not in (names := [one.name for one in self.rules]):
            problem = f"the CodeMeaning of its Scheduled Workitem Code is {rule!r}, which is no rule of the node"
            raise WorkitemError(INVALID_VALUE, problem, uid, f"Name one of {', '.join(names)}")
        inputs = dataset.InputInformationSequence
        of_studies = {str(one.get("StudyInstanceUID") or "") for one in inputs} - {""}
        if len(of_studies) != 1:
            problem = f"its Input Information names {len(of_studies)} studies"
            raise WorkitemError(INVALID_VALUE, problem, uid, "Name one study, and its series if not all are meant")
        priority = str(dataset.ScheduledProcedureStepPriority)
        if priority not in QUEUED:
            raise WorkitemError(INVALID_VALUE, f"its priority is {priority}", uid, f"Give one of {', '.join(QUEUED)}")
        return {
            "rule": rule,
            "study": object_store.uid_key(of_studies.pop()),
            "series": sorted(
                {object_store.uid_key(str(one.SeriesInstanceUID)) for one in inputs if one.get("SeriesInstanceUID")}
            ),
            "priority": QUEUED[priority],
            "start_at": _seconds(dataset, uid),
        }

    def get(self, uid: str) -> pydicom.Dataset:
        """A workitem, without its Transaction UID. Raises WorkitemError where there is none."""
        with self.database.read() as connection:
            return workitem_dataset(_row(connection, uid))

    def study_of(self, uid: str) -> str:
        """The key of the study of a workitem. Raises WorkitemError where there is none."""
        with self.database.read() as connection:
            return str(_row(connection, uid).study)

    def all(self, *, who: Actor = NODE, hidden: Collection[str] = ()) -> Iterator[pydicom.Dataset]:
        """Every workitem, oldest first, but those of studies with hidden keys; `who` asks for some of them."""
        shown_ones = select(WORKITEMS).where(WORKITEMS.c.study.not_in(hidden))
        with self.database.write() as connection:
            rows = connection.execute(shown_ones.order_by(WORKITEMS.c.created_at, WORKITEMS.c.workitem)).all()
            audit_records.record_event(connection, "query", "workitems", actor=who)
        return map(workitem_dataset, rows)

    def update(self, uid: str, changes: pydicom.Dataset, transaction: str = "", *, who: Actor = NODE) -> None:
        """Change attributes: anybody's before it is claimed, then its performer's alone. Raises WorkitemError."""
        with self.database.write() as connection:
            row = _row(connection, uid)
            if row.state in FINAL:
                raise WorkitemError(NO_LONGER_UPDATED, f"is {row.state}, and changes no more", uid)
            _check_transaction(row, transaction or str(changes.get("TransactionUID") or ""))
            dataset = pydicom.Dataset.from_json(row.dataset)
            for change in changes:
                if change.keyword not in UNCHANGED:
                    dataset[change.tag] = change
            columns = self._order_columns(dataset, uid) if row.state == SCHEDULED else {}
            _write(connection, uid, dataset=_storable(dataset, uid), **columns)
            _record(connection, "workitem changed", row, who)

    def change_state(self, uid: str, state: str, transaction: str, *, who: Actor = NODE) -> None:
        """Claim a workitem, or end it as its performer. Raises WorkitemError, also where it is in this state."""
        with self.database.write() as connection:
            row = _row(connection, uid)
            if state not in STATES[1:]:
                raise WorkitemError(ONLY_CREATED, f"cannot become {state or 'a state that is not named'}", uid)
            if not transaction:
                raise WorkitemError(WRONG_TRANSACTION, "the Transaction UID is missing", uid, "Send it")
            if row.state in FINAL:
                raise _ended_error(row, state)
            if state == IN_PROGRESS:
                if row.state == IN_PROGRESS:
                    raise WorkitemError(ALREADY_CLAIMED, "is claimed by another performer", uid, "Leave it")
                _write(connection, uid, state=state, transaction_uid=transaction)
            else:
                if row.state == SCHEDULED:
                    raise WorkitemError(NOT_CLAIMED, "is not IN PROGRESS yet", uid, "Claim it first")
                _check_transaction(row, transaction)
                if state == COMPLETED and not _is_performed(pydicom.Dataset.from_json(row.dataset)):
                    problem = f"its Performed Procedure Sequence lacks one of {', '.join(PERFORMED)}"
                    raise WorkitemError(NOT_FINAL, problem, uid, "Update it first")
                _write(connection, uid, state=state, done_at=DatabaseClock())
            _record(connection, f"workitem {state.lower()}", row, who)

    def request_cancel(self, uid: str, reason: str = "", *, who: Actor = NODE) -> None:
        """Cancel a workitem that nobody has claimed but the node. Raises WorkitemError."""
        with self.database.write() as connection:
            row = _row(connection, uid)
            if row.state == CANCELED:
                raise _ended_error(row, CANCELED)
            if row.state == COMPLETED:
                raise WorkitemError(WAS_COMPLETED, "is COMPLETED", uid)
            if row.state == IN_PROGRESS and not row.is_ours:
                problem = "its performer is not the node, which has no way to reach it"
                raise WorkitemError(PERFORMER_AWAY, problem, uid, "Ask the performer")
            dataset = pydicom.Dataset.from_json(row.dataset)
            progress = pydicom.Dataset()
            progress.ProcedureStepCancellationDateTime = now_text()
            progress.ReasonForCancellation = reason or "cancellation was requested"
            dataset.ProcedureStepProgressInformationSequence = [progress]
            _write(connection, uid, state=CANCELED, dataset=_storable(dataset, uid), done_at=DatabaseClock())
            _record(connection, "workitem canceled", row, who)
            self._cancel_jobs(connection, row, who)

    def _cancel_jobs(self, connection: Connection, row: Row[Any], who: Actor) -> None:
        """End the open jobs that nothing but this workitem wanted."""
        rule = next((one for one in self.rules if one.name == row.rule), None)
        alike = and_(WORKITEMS.c.study == row.study, WORKITEMS.c.rule == row.rule)
        still = select(WORKITEMS.c.workitem).where(alike, WORKITEMS.c.state.in_((SCHEDULED, IN_PROGRESS)))
        if rule is None or not rule.only_ordered or connection.execute(still).first() is not None:
            return
        for job in ordered_jobs(connection, row):
            job_queue.close_job(connection, job.job, "cancelled", "its order was cancelled", who)

    def startable(self) -> Sequence[Row[Any]]:
        """Workitems that nobody has claimed, whose study is complete and whose time has come."""
        joined = WORKITEMS.join(STUDIES, WORKITEMS.c.study == STUDIES.c.study)
        query = (
            select(WORKITEMS)
            .select_from(joined)
            .where(
                WORKITEMS.c.state == SCHEDULED,
                WORKITEMS.c.start_at <= DatabaseClock(),
                STUDIES.c.state.not_in(("receiving", *GONE)),  # which wait for their objects
            )
        )
        rows = self.database.rows(query.order_by(WORKITEMS.c.created_at))
        return [row for row in rows if workitem_dataset(row).InputReadinessState == "READY"]

    def start(self, row: Row[Any]) -> bool:
        """Claim a workitem as the node, and have the rules look at its study; False where another was first."""
        with self.database.write() as connection:
            free = and_(WORKITEMS.c.workitem == row.workitem, WORKITEMS.c.state == SCHEDULED)
            claimed = {"state": IN_PROGRESS, "is_ours": True, "transaction_uid": f"2.25.{uuid.uuid4().int}"}
            if connection.execute(update(WORKITEMS).where(free).values(claimed)).rowcount == 0:
                return False
            for job in ordered_jobs(connection, row):
                if job.state in ("cancelled", "aside"):  # it is wanted again
                    again = {
                        "state": "waiting",
                        "attempts": 0,
                        "reason": None,
                        "outcome": None,
                        "not_before": DatabaseClock(),
                    }
                    connection.execute(update(JOBS).where(JOBS.c.job == job.job).values(again))
                elif job.state == "waiting" and row.priority < job.priority:
                    connection.execute(update(JOBS).where(JOBS.c.job == job.job).values(priority=row.priority))
            here = STUDIES.c.study == row.study
            job_queue.unsettle_studies(connection, here)
            connection.execute(update(STUDIES).where(here, STUDIES.c.state == "complete").values(routed=0))
            _record(connection, "workitem in progress", row)
        return True

    def in_progress(self) -> Sequence[Row[Any]]:
        """Workitems that the node works on, with the state of their study."""
        joined = WORKITEMS.outerjoin(STUDIES, WORKITEMS.c.study == STUDIES.c.study)
        state = STUDIES.c.state.label("study_state")
        is_routed = STUDIES.c.routed == STUDIES.c.revision
        query = select(
            WORKITEMS, state, STUDIES.c.uid.label("study_uid"), STUDIES.c.reason, is_routed.label("is_routed")
        ).select_from(joined)
        ours = query.where(WORKITEMS.c.state == IN_PROGRESS, WORKITEMS.c.is_ours.is_(True))
        return self.database.rows(ours.order_by(WORKITEMS.c.created_at))

    def perform(self, row: Row[Any], dataset: pydicom.Dataset, state: str = IN_PROGRESS) -> bool:
        """Write what the node has done of a workitem; False where it was cancelled meanwhile."""
        mine = and_(WORKITEMS.c.workitem == row.workitem, WORKITEMS.c.state == IN_PROGRESS)
        values: RowValues = {"state": state, "dataset": _storable(dataset, row.workitem)}
        values |= {"done_at": DatabaseClock()} if state in FINAL else {}
        with self.database.write() as connection:
            if connection.execute(update(WORKITEMS).where(mine).values(values)).rowcount == 0:
                return False
            if state in FINAL:
                _record(connection, f"workitem {state.lower()}", row)
        return True


@dataclass(frozen=True)
class WorkitemOrder:
    """The wish of a workitem: a rule, on the series with these keys or on all, at a place in the queue."""

    rule: str
    series: frozenset[str]
    priority: int

    def holds(self, rule: str, series: Iterable[str]) -> bool:
        """Whether it wants the job of a rule on series."""
        return rule == self.rule and (not self.series or self.series.issuperset(series))


def orders_of(database: Database, study: str) -> list[WorkitemOrder]:
    """The orders of a study that the node has claimed, and that are not cancelled."""
    mine = and_(
        WORKITEMS.c.study == study, WORKITEMS.c.state.in_((IN_PROGRESS, COMPLETED)), WORKITEMS.c.is_ours.is_(True)
    )
    with database.read() as connection:
        rows = connection.execute(select(WORKITEMS.c.rule, WORKITEMS.c.series, WORKITEMS.c.priority).where(mine))
        return [WorkitemOrder(row.rule, frozenset(row.series), row.priority) for row in rows]


def ordered_jobs(connection: Connection, row: Row[Any]) -> list[Row[Any]]:
    """The jobs that do what a workitem orders: of its rule on its study, and on the series that it names."""
    mine = and_(JOBS.c.study == row.study, JOBS.c.rule == row.rule, JOBS.c.state != "superseded")
    every = connection.execute(select(JOBS).where(mine).order_by(JOBS.c.created_at, JOBS.c.job)).all()
    order = WorkitemOrder(row.rule, frozenset(row.series), row.priority)
    return [job for job in every if order.holds(job.rule, job.inputs["series"].values())]


def now_text() -> str:
    """The time as DICOM writes it, DT."""
    return datetime.now().astimezone().strftime("%Y%m%d%H%M%S%z")


def _row(connection: Connection, uid: str) -> Row[Any]:
    row = connection.execute(select(WORKITEMS).where(WORKITEMS.c.workitem == uid).with_for_update()).first()
    if row is None:
        raise WorkitemError(NO_SUCH_WORKITEM, "there is no such workitem", uid, "Search for it")
    return row


def _record(connection: Connection, action: str, row: Row[Any], who: Actor = NODE) -> None:
    audit_records.record_event(connection, action, row.workitem, actor=who, study=row.study, detail={"rule": row.rule})


def _write(connection: Connection, uid: str, **values: Any) -> None:
    connection.execute(update(WORKITEMS).where(WORKITEMS.c.workitem == uid).values(values))


def _ended_error(row: Row[Any], state: str) -> WorkitemError:
    """Refuse to change what has ended; that it is as wanted already is a warning."""
    warned = {CANCELED: ALREADY_CANCELED, COMPLETED: ALREADY_COMPLETED}
    status = warned[row.state] if row.state == state else NO_LONGER_UPDATED
    return WorkitemError(status, f"is already in the state {row.state}", row.workitem, "Leave it")


def _check_transaction(row: Row[Any], transaction: str) -> None:
    if row.state == IN_PROGRESS and transaction != row.transaction_uid:
        problem = "the Transaction UID is incorrect" if transaction else "the Transaction UID is missing"
        raise WorkitemError(WRONG_TRANSACTION, problem, row.workitem, "Only its performer may change it")


def _is_performed(dataset: pydicom.Dataset) -> bool:
    performed = dataset.get("UnifiedProcedureStepPerformedProcedureSequence") or []
    return bool(performed) and all(performed[0].get(keyword) for keyword in PERFORMED)


def _seconds(dataset: pydicom.Dataset, uid: str) -> float:
    """When it is to start (s since 1970); a time without an offset is that of this machine."""
    text = str(dataset.ScheduledProcedureStepStartDateTime)
    try:
        return float(pydicom.valuerep.DT(text).timestamp())
    except (ValueError, OverflowError) as error:
        problem = f"its ScheduledProcedureStepStartDateTime {text!r} is no time"
        raise WorkitemError(INVALID_VALUE, problem, uid, "Write YYYYMMDDHHMMSS") from error


def _storable(dataset: pydicom.Dataset, uid: str) -> RowValues:
    """The data set as the records keep it. Raises WorkitemError for values that DICOM JSON does not take."""
    dataset_kept = pydicom.Dataset(dataset)
    dataset_kept.SOPClassUID, dataset_kept.SOPInstanceUID = UPS_PUSH, uid
    dataset_kept.ScheduledProcedureStepModificationDateTime = now_text()
    # Columns of their own; and JSON is in UTF-8.
    for keyword in ("TransactionUID", "ProcedureStepState", "SpecificCharacterSet"):
        if keyword in dataset_kept:
            del dataset_kept[keyword]
    try:
        return dict(dataset_kept.to_json_dict())
    except Exception as error:  # the library raises what it likes for what came from outside
        raise WorkitemError(INVALID_VALUE, f"has a value that cannot be kept ({type(error).__name__})", uid) from error


def workitem_dataset(row: Row[Any]) -> pydicom.Dataset:
    """The data set of a workitem in its state, without its Transaction UID, which is its performer's secret."""
    dataset = pydicom.Dataset.from_json(row.dataset)
    dataset.SpecificCharacterSet, dataset.ProcedureStepState = "ISO_IR 192", row.state
    return dataset
