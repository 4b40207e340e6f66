"""The node as performer of workitems: it claims them, and says in them what became of their jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from isocenter.errors import FormatError
from isocenter.files.dicom import read_identity
from isocenter.lazy import pydicom
from isocenter.service.records.jobs import FAILED, NOTHING, OPEN, RESULT, SETTLED
from isocenter.service.records.tables import answers
from isocenter.service.records.workitems import CANCELED, COMPLETED, Workitems, now_text, ordered_jobs
from isocenter.service.routing.urgency import DICOM_PRIORITIES
from isocenter.service.settings import PRIORITIES, Settings

UNANSWERED = frozenset(OPEN) - {"sending"}  # what is being sent is answered
LONGEST = 1024  # of a short text, PS3.5 6.2
EQUIPMENT_FAILED, UNSPECIFIED = ("110501", "Equipment failure"), ("110513", "Discontinued for unspecified reason")


@dataclass(frozen=True, eq=False)
class Performer:
    """One look at the workitems after the other, in the keeper's process."""

    settings: Settings
    workitems: Workitems

    def round(self) -> int:
        """Claim what can be begun, and write progress and outcome of what is; how many were claimed or ended."""
        count = sum(self.workitems.start(row) for row in self.workitems.startable())
        return count + sum(self._performed(row) for row in self.workitems.started())

    def _performed(self, row: Row[Any]) -> bool:
        """Whether a workitem has ended."""
        if not row.is_routed or row.study_state == "receiving":
            return False
        with self.workitems.database.read() as connection:
            jobs = ordered_jobs(connection, row)
            files = connection.execute(select(answers).where(answers.c.job.in_([one.job for one in jobs]))).all()
        dataset = pydicom.Dataset.from_json(row.dataset)
        ended = [job for job in jobs if job.state not in UNANSWERED]
        if len(ended) < len(jobs) or (not jobs and row.study_state not in SETTLED):
            return self._progressed(row, dataset, 100 * len(ended) // max(1, len(jobs)))
        is_done = any(job.outcome in (RESULT, NOTHING) and job.state in ("sending", "done") for job in jobs)
        ranks = [job.urgency for job in jobs if job.urgency is not None]
        if ranks:
            dataset.ScheduledProcedureStepPriority = DICOM_PRIORITIES[PRIORITIES[min(ranks)]]
        words = "; ".join(dict.fromkeys(filter(None, [one.because or one.reason for one in jobs])))
        words = (words or (row.reason if not jobs else "") or ("done" if is_done else "no series is taken"))[:LONGEST]
        progress = _progress(100 if is_done else 0, words)
        if not is_done:
            progress.ProcedureStepCancellationDateTime, progress.ReasonForCancellation = now_text(), words
            is_fault = any(job.outcome == FAILED or job.state == "aside" for job in jobs)
            code = EQUIPMENT_FAILED if is_fault else UNSPECIFIED
            progress.ProcedureStepDiscontinuationReasonCodeSequence = [_code(*code, "DCM")]
        dataset.ProcedureStepProgressInformationSequence = [progress]
        if jobs:
            outputs = list(self._outputs(row, files))
            performed = self._performed_procedure(dataset, jobs, words, outputs)
            dataset.UnifiedProcedureStepPerformedProcedureSequence = [performed]
        return self.workitems.perform(row, dataset, COMPLETED if is_done else CANCELED)

    def _progressed(self, row: Row[Any], dataset: pydicom.Dataset, percent: int) -> bool:
        """Note how far the jobs are, where that has changed; False, because there is more to do."""
        known = dataset.get("ProcedureStepProgressInformationSequence") or []
        if not known or known[0].get("ProcedureStepProgress") != percent:
            dataset.ProcedureStepProgressInformationSequence = [_progress(percent, "the jobs of the rule are at work")]
            self.workitems.perform(row, dataset)
        return False

    def _performed_procedure(
        self, dataset: pydicom.Dataset, jobs: Sequence[Row[Any]], words: str, outputs: Sequence[pydicom.Dataset]
    ) -> pydicom.Dataset:
        """Who did what, when, and what came of it, PS3.3 C.30.3."""
        performed = pydicom.Dataset()
        station = _code(self.settings.dicom.ae_title, self.settings.node.name, "99ISOCENTER")
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
                identity = read_identity(self.settings.folder / "results" / file.job / file.name)
            except (FormatError, OSError):  # somebody has removed it: there is nothing to retrieve
                continue
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = file.sop_class, file.sop_instance_uid
            by_series[identity.series].append(item)
        for series, items in by_series.items():
            output, place = pydicom.Dataset(), pydicom.Dataset()
            output.TypeOfInstances = "DICOM"
            output.StudyInstanceUID, output.SeriesInstanceUID = row.study_uid, series
            output.ReferencedSOPSequence = items
            place.RetrieveURL = f"{self.settings.http.reached}/dicomweb/studies/{row.study_uid}/series/{series}"
            output.WADORSRetrievalSequence = [place]
            yield output


def _progress(percent: int, words: str) -> pydicom.Dataset:
    progress = pydicom.Dataset()
    progress.ProcedureStepProgress, progress.ProcedureStepProgressDescription = percent, words
    return progress


def _code(value: str, meaning: str, scheme: str) -> pydicom.Dataset:
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y%m%d%H%M%S%z")
