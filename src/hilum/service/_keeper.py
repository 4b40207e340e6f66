"""The keeper: writes rows for what came in, finds complete studies, has the rules look at them.

It is the performer of workitems too: it claims them, and says in them what became of their jobs.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Row, select

from hilum.errors import FormatError, ResourceError
from hilum.files.dicom import object_identity, rejection, stated_patients, tags
from hilum.files.dicom.rejection import KEY_OBJECTS
from hilum.files.storage import hashing
from hilum.lazy import pydicom
from hilum.service._retention import Retention
from hilum.service.configuration import PRIORITIES, NodeSettings, RoutingRule
from hilum.service.model_facts import DICOM_PRIORITIES, ModelFacts
from hilum.service.objects import journal, object_store
from hilum.service.objects.journal import Happened, JournalLine, Received
from hilum.service.records import audit_records, deployments, workitem_records
from hilum.service.records.job_queue import GONE, OPEN, SETTLED, Jobs, StatedInputs, WantedJob
from hilum.service.records.record_database import Database, RecordError
from hilum.service.records.study_index import Arrival, StudyIndex
from hilum.service.records.tables import ANSWERS
from hilum.service.records.workitem_records import CANCELED, COMPLETED, Workitems
from hilum.service.routing import prior_studies, routing_facts, routing_rules
from hilum.service.routing.routing_facts import HeaderAttributes, SeriesFacts
from hilum.values import ANSWERED, PlainValue
from hilum.values.case_outcome import FAILED
from hilum.work_state import log

# Between two rounds (s), and between two looks for writers that are gone; objects that become rows in one transaction.
ROUND_S, SWEEP_S, AT_ONCE = 0.1, 10.0, 200
# Of one round, so that it ends within seconds whatever comes in: bytes of a journal (some 700 objects), and studies.
JOURNAL_BYTES, STUDIES = 1 << 18, 100


class Keeper:
    """The one process that turns objects into studies, and studies into jobs.

    others: takes lines of journals that are no objects, such as requests for commitment
    """

    def __init__(
        self,
        settings: NodeSettings,
        database: Database,
        rules: Sequence[RoutingRule],
        models: Mapping[str, ModelFacts],
        others: Callable[[JournalLine], None] = lambda line: None,
    ) -> None:
        self.settings, self.rules, self.models, self.others = settings, rules, models, others
        self.index, self.jobs = StudyIndex(database), Jobs(database)
        self.performer = Performer(settings, Workitems(database, rules))
        self.retention = Retention(settings, database)
        self._read: dict[str, int] = {}
        self._unheard: list[JournalLine] = []
        self._swept, self._is_behind = 0.0, False

    def keep(
        self, stop: threading.Event, beat: Callable[[], None] = lambda: None, hold: Callable[[], None] = lambda: None
    ) -> None:
        """Rounds until it is stopped; first come files that no row knows, as a crash leaves them.

        hold: makes sure that there is no other keeper; beat: says that a round is done
        """
        has_looked = False
        while not stop.is_set():
            try:
                hold()
                if not has_looked:
                    self.find()
                    has_looked = True
                self.round()
                beat()
            except ResourceError as error:
                log.warning("keeper: %s", error.problem)
                stop.wait(1.0)
            stop.wait(ROUND_S)

    def round(self) -> None:
        """Take a portion of what came in, what is complete, what is to be routed, and what is done."""
        self.absorb()
        if not self._is_behind:  # else the rest of a study may stand in a journal
            for study, revision in self.index.overdue(self.settings.study.complete_after_s, STUDIES):
                self.complete(study, revision)
        self.performer.round()
        for row in self.index.to_route(STUDIES):
            self.route(row)
        self.retention.round()
        for done in self.index.settle():
            words = "; ".join(word for word in (done.outcome, done.reason) if word)
            log.info("study %s is %s: %s", done.study, done.state, words)

    def find(self) -> int:
        """Write rows for files without one, and return their number."""
        is_known = lru_cache(maxsize=64)(self.index.known_paths)
        lost = object_store.files_without_row(self.settings.folder, lambda path: path in is_known(path.split("/")[2]))
        return self._add(list(lost))

    def absorb(self) -> int:
        """Write rows for the next lines of the journals, which are then dropped; return the number of new objects."""
        inbox = self.settings.folder / "inbox"
        lines, now = journal.read_journals(inbox, self._read, JOURNAL_BYTES)
        fresh = self._add([line for line in lines if isinstance(line, Received) and not line.is_aside])
        if happened := [line for line in lines if isinstance(line, Happened)]:
            audit_records.record_lines(self.index.database, happened)
        self._unheard += [line for line in lines if not isinstance(line, Received | Happened)]
        self._unheard += [line for line in lines if isinstance(line, Received) and line.is_aside]
        self._is_behind = any(now[name] - self._read.get(name, 0) >= JOURNAL_BYTES for name in now)
        self._read = now
        while self._unheard and not self._is_behind:  # what they speak of has its rows
            line = self._unheard[0]
            if isinstance(line, Received) and (self.settings.folder / line.path).exists():  # else it went meanwhile
                self.index.contest(object_store.uid_key(line.study), line.path)
            elif not isinstance(line, Received):
                self.others(line)
            del self._unheard[0]
        if not self._is_behind and time.monotonic() - self._swept > SWEEP_S:
            self._swept = time.monotonic()
            if journal.forget_journals(inbox, self._read):
                self.find()
            with self.index.database.write() as connection:
                deployments.end_at_date(connection)
        return fresh

    def _add(self, objects: Sequence[Received]) -> int:
        fresh = 0
        objects = [one for one in objects if (self.settings.folder / one.path).exists()]  # else somebody removed it
        for start in range(0, len(objects), AT_ONCE):
            arrivals = [self._arrival(one) for one in objects[start : start + AT_ONCE]]
            try:
                fresh += self.index.add(arrivals)
            except RecordError:  # one of them must not keep the others out
                fresh += sum(self._add_row(arrival) for arrival in arrivals)
        return fresh

    def _add_row(self, arrival: Arrival) -> int:
        """A row for one object; 0 where it is known, or cannot be recorded: its file stays, and is found again."""
        try:
            return self.index.add([arrival])
        except RecordError as error:
            log.error("the object in %s has no row: %s", arrival.path, error.problem)
            return 0

    def _arrival(self, received: Received) -> Arrival:
        arrival = Arrival(
            object_store.uid_key(received.study),
            object_store.uid_key(received.series),
            object_store.uid_key(received.instance),
            received.study,
            received.series,
            received.instance,
            received.sop_class,
            received.syntax,
            received.path,
            received.bytes,
            hashing.file_hash(self.settings.folder / received.path),
            received.peer,
            received.way,
            received.at,
        )
        if received.sop_class != KEY_OBJECTS:
            return arrival
        try:
            note = rejection.read_rejection(self.settings.folder / received.path)
        except FormatError as error:
            log.warning("study %s: a key object selection cannot be read: %s", arrival.study, error.problem)
            return arrival
        if note is None:
            return arrival
        log.info("study %s: a note rejects %d objects: %s", arrival.study, len(note.instances), note.reason)
        return replace(arrival, rejects=note.instances, reason=note.reason)

    def complete(self, study: str, revision: int) -> bool:
        """Read the headers of a study that has come to rest, and mark it as complete."""
        facts, columns = list[SeriesFacts](), dict[str, dict[str, PlainValue]]()
        for row in self.index.series_of(study):  # of a study whose objects came again those that did
            objects = self.index.objects_of(study, row.series)
            try:
                with routing_facts.link_series_folder([self.settings.folder / each.path for each in objects]) as folder:
                    known = routing_facts.read_series_facts(row.series, row.uid, folder)
            except Exception as error:  # one study that no reader foresaw must not stop all others
                log.warning("series %s: %s", row.series, type(error).__name__)
                known = SeriesFacts(
                    row.series, row.uid, row.instances, problem=f"cannot be read: {type(error).__name__}"
                )
            digests = [each.sha256 for each in objects]
            facts.append(known)
            columns[row.series] = {**known.columns, "inputs_hash": routing_rules.series_hash(digests)}
        people = stated_patients.mixed_people(routing_facts.stated_patient(one.attributes) for one in facts)
        if people:
            problem = f"the study holds series of {len(people)} patients ({', '.join(people)})"
            facts = [replace(one, problem=problem) for one in facts]
            columns = {one.series: {**columns[one.series], "problem": problem} for one in facts}
        # The first may be damaged.
        attributes: HeaderAttributes = next((one.attributes for one in facts if one.attributes), {})
        patient = hashing.make_pseudonym(routing_facts.stated_patient(attributes).identity(self.index.uid_of(study)))
        try:
            return self.index.complete(study, revision, attributes, columns, patient, people)
        except RecordError as error:  # its series are refused, and all other studies are complete
            log.error("study %s: %s", study, error.problem)
            bare = {key: {"problem": error.problem, "inputs_hash": row["inputs_hash"]} for key, row in columns.items()}
            return self.index.complete(study, revision, {}, bare, patient)

    def route(self, study: Row[Any]) -> int:
        """Have the rules look at a study, and return the number of new jobs."""
        with self.jobs.database.read() as connection:
            models = deployments.models_of(connection, self.models, study)
        rows = self.index.series_of(study.study)
        series = [SeriesFacts.of_row(row) for row in rows]
        contents = {row.series: row.inputs_hash for row in rows}
        answers, results = routing_rules.study_answers(self.jobs.database, study.study, self.rules, models, contents)
        orders = workitem_records.orders_of(self.jobs.database, study.study)
        ordered = {one.rule for one in orders}
        rules = [rule for rule in self.rules if not rule.only_ordered or rule.name in ordered]
        routing = routing_rules.study_routing(rules, models, series, answers)
        labels = {rule.name: models[rule.model].labels for rule in self.rules}
        jobs_wanted, fresh = list[WantedJob](), 0
        with self.jobs.database.write() as connection:
            for rule, inputs in routing.jobs:
                places = [one.priority for one in orders if one.holds(rule.name, inputs.values())]
                if rule.only_ordered and not places:
                    continue
                inside = routing_rules.box_inside(rule, list(inputs.values()), results, labels)
                model = models[rule.model]
                prior = prior_studies.choose_prior(connection, rule, study, inputs, (rule.model, model.hash))
                others = {"inside": inside, "prior": prior}
                others = {name: answer for name, answer in others.items() if answer is not None}
                inputs_stated = cast("StatedInputs", {"series": dict(inputs), **others})
                digest = routing_rules.inputs_hash(inputs_stated, contents)
                jobs_wanted.append(WantedJob(rule.name, model.hash, digest, {**inputs_stated, "hash": digest}))
                columns = {
                    "revision": study.revision,
                    "model": rule.model,
                    "model_version": model.version,
                    "gate": "" if model.is_gated else model.gate,
                    "priority": min([PRIORITIES.index(rule.priority), *places]),
                    "after_s": seconds_until(rule.hours, datetime.now()),
                }
                fresh += self.jobs.add(connection, study=study.study, **vars(jobs_wanted[-1]), **columns)
            self.index.note_routing(connection, study.study, study.revision, jobs_wanted, routing.untaken)
        return fresh


def seconds_until(hours: str, now: datetime) -> float:
    """The time until a time of day lies within hours such as 19:00-07:00 (s); 0 where it does."""
    first, last = (int(one[:2]) * 60 + int(one[3:]) for one in hours.split("-"))
    minute = now.hour * 60 + now.minute
    inside = first <= minute < last if first < last else minute >= first or minute < last
    if inside or first == last:
        return 0.0
    opening = now.replace(hour=first // 60 % 24, minute=first % 60, second=0, microsecond=0)
    opening += timedelta(days=1 if opening <= now else 0)
    return (opening - now).total_seconds()


UNANSWERED = frozenset(OPEN) - {"sending"}  # what is being sent is answered
LONGEST = 1024  # of a short text, PS3.5 6.2
EQUIPMENT_FAILED, UNSPECIFIED = ("110501", "Equipment failure"), ("110513", "Discontinued for unspecified reason")


@dataclass(frozen=True, eq=False)
class Performer:
    """One look at the workitems after the other, in the keeper's process."""

    settings: NodeSettings
    workitems: Workitems

    def round(self) -> int:
        """Claim what can be begun, and write progress and outcome of what is; return the number claimed or ended."""
        count = sum(self.workitems.start(row) for row in self.workitems.startable())
        return count + sum(self._perform(row) for row in self.workitems.in_progress())

    def _perform(self, row: Row[Any]) -> bool:
        """Whether a workitem has ended."""
        if not row.is_routed or row.study_state == "receiving":
            return False
        with self.workitems.database.read() as connection:
            jobs = workitem_records.ordered_jobs(connection, row)
            files = connection.execute(select(ANSWERS).where(ANSWERS.c.job.in_([one.job for one in jobs]))).all()
        dataset = pydicom.Dataset.from_json(row.dataset)
        ended = [job for job in jobs if job.state not in UNANSWERED]
        if len(ended) < len(jobs) or (not jobs and row.study_state not in (*SETTLED, *GONE)):
            return self._note_progress(row, dataset, 100 * len(ended) // max(1, len(jobs)))
        is_done = any(job.outcome == ANSWERED and job.state in ("sending", "done") for job in jobs)
        ranks = [job.urgency for job in jobs if job.urgency is not None]
        if ranks:
            dataset.ScheduledProcedureStepPriority = DICOM_PRIORITIES[PRIORITIES[min(ranks)]]
        words = "; ".join(dict.fromkeys(filter(None, [one.because or one.reason for one in jobs])))
        words = (words or (row.reason if not jobs else "") or ("done" if is_done else "no series is taken"))[:LONGEST]
        progress = _progress(100 if is_done else 0, words)
        if not is_done:
            progress.ProcedureStepCancellationDateTime = workitem_records.now_text()
            progress.ReasonForCancellation = words
            is_fault = any(job.outcome == FAILED or job.state == "aside" for job in jobs)
            code = EQUIPMENT_FAILED if is_fault else UNSPECIFIED
            progress.ProcedureStepDiscontinuationReasonCodeSequence = [tags.code_item("DCM", *code)]
        dataset.ProcedureStepProgressInformationSequence = [progress]
        if jobs:
            outputs = list(self._outputs(row, files))
            performed = self._performed_procedure(dataset, jobs, words, outputs)
            dataset.UnifiedProcedureStepPerformedProcedureSequence = [performed]
        return self.workitems.perform(row, dataset, COMPLETED if is_done else CANCELED)

    def _note_progress(self, row: Row[Any], dataset: pydicom.Dataset, percent: int) -> bool:
        """Note how far the jobs are, where that has changed; False, because there is more to do."""
        progress = dataset.get("ProcedureStepProgressInformationSequence") or []
        if not progress or progress[0].get("ProcedureStepProgress") != percent:
            dataset.ProcedureStepProgressInformationSequence = [_progress(percent, "the jobs of the rule are at work")]
            self.workitems.perform(row, dataset)
        return False

    def _performed_procedure(
        self, dataset: pydicom.Dataset, jobs: Sequence[Row[Any]], words: str, outputs: Sequence[pydicom.Dataset]
    ) -> pydicom.Dataset:
        """Who did what, when, and what came of it, PS3.3 C.30.3."""
        performed = pydicom.Dataset()
        station = tags.code_item("99HILUM", self.settings.dicom.ae_title, self.settings.node.name)
        performed.PerformedStationNameCodeSequence = [station]
        began = min(job.started_at or job.created_at for job in jobs)
        performed.PerformedProcedureStepStartDateTime = _time(began)
        performed.PerformedProcedureStepEndDateTime = _time(max(job.done_at or began for job in jobs))
        performed.PerformedWorkitemCodeSequence = dataset.ScheduledWorkitemCodeSequence
        performed.CommentsOnThePerformedProcedureStep = words
        performed.OutputInformationSequence = list(outputs)
        return performed

    def _outputs(self, row: Row[Any], files: Sequence[Row[Any]]) -> Iterator[pydicom.Dataset]:
        """References to the DICOM objects of the results, a series each, with where they are retrieved."""
        by_series = defaultdict[str, list[pydicom.Dataset]](list)
        for file in files:
            if file.sop_instance_uid is None:
                continue
            try:
                identity = object_identity.read_identity(self.settings.folder / "results" / file.job / file.name)
            except (FormatError, OSError):  # somebody has removed it: there is nothing to retrieve
                continue
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = file.sop_class, file.sop_instance_uid
            by_series[identity.series].append(item)
        for series, items in by_series.items():
            output, location = pydicom.Dataset(), pydicom.Dataset()
            output.TypeOfInstances = "DICOM"
            output.StudyInstanceUID, output.SeriesInstanceUID = row.study_uid, series
            output.ReferencedSOPSequence = items
            location.RetrieveURL = (
                f"{self.settings.http.public_address}/dicomweb/studies/{row.study_uid}/series/{series}"
            )
            output.WADORSRetrievalSequence = [location]
            yield output


def _progress(percent: int, words: str) -> pydicom.Dataset:
    progress = pydicom.Dataset()
    progress.ProcedureStepProgress, progress.ProcedureStepProgressDescription = percent, words
    return progress


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y%m%d%H%M%S%z")
