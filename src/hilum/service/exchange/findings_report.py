"""Report of a job: its findings, and the facts of patient, study and model around them."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import and_, select

from hilum import errors
from hilum.errors import FormatError, HilumError
from hilum.files.storage import structured_text
from hilum.lazy import pydicom
from hilum.service.configuration import PRIORITIES, NodeSettings
from hilum.service.records.job_queue import FINDINGS
from hilum.service.records.record_database import Database
from hilum.service.records.tables import ANSWERS, JOBS, SERIES_ROWS, STUDIES
from hilum.values import ANSWERED, PlainValue
from hilum.values.finding_records import FindingRow, FindingsFile

# How the table of answers calls a record of findings.
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
# Segmentations and label maps, PS3.4 B.5.
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
# Identifiers of a report derive from those of its job in this namespace, so that a repeat has the same.
NAMESPACE = uuid.UUID("6f5b4d0e-2f0a-5c1e-9d37-1d5a3c3b65e1")


@dataclass(frozen=True)
class SegmentReference:
    """A segment of an object: the object's UIDs, and the segment's number in it."""

    series: str
    instance: str
    sop_class: str
    number: int


@dataclass(frozen=True)
class FindingsReport:
    """A job's record of findings (`findings.json`) with the facts that a report states around it.

    record:   as `Findings.record` writes it
    study, series: UIDs of the images
    priority: that which a rule on findings gives, else that of the job in the queue
    stamp:    when the job was made (s since 1970), so that a report made again is the same
    patient:  attributes of the patient and the study by their DICOM keywords, as headers state them
    patient_system: the address that a FHIR server has for its PatientIDs; "" for none
    segments: {concept: segment} of the label map
    card:     the address of the model card; "" for none
    pdf:      the report as a page, where one was asked for
    taken_back: why the report holds no more; "" while it does
    """

    job: str
    record: FindingsFile
    model_hash: str
    study: str
    stamp: float
    series: tuple[str, ...] = ()
    patient: Mapping[str, PlainValue] = field(default_factory=dict)
    patient_system: str = ""
    node: str = ""
    text: str = ""
    priority: str = "routine"
    segments: Mapping[str, SegmentReference] = field(default_factory=dict)
    card: str = ""
    pdf: bytes | None = None
    taken_back: str = ""

    @property
    def rows(self) -> Sequence[FindingRow]:
        """The findings."""
        return self.record["rows"]

    @property
    def issue_time(self) -> datetime:
        """The time of the job."""
        return datetime.fromtimestamp(self.stamp, UTC)

    @property
    def conclusion(self) -> str:
        """The outcome in words; of a result only what is lacking."""
        outcome, reason = self.record["outcome"], self.record["reason"]
        answer = "Not detected" if self.record["is_empty"] else ""
        words = answer if self.has_answer else f"No answer: {outcome}"
        taken_back = f"Taken back: {self.taken_back}" if self.taken_back else ""
        return ". ".join(one for one in (taken_back, words, reason, self.text) if one)

    @property
    def has_answer(self) -> bool:
        """Whether the model has answered, and if only that there is nothing."""
        return self.record["outcome"] == ANSWERED

    def structure_of(self, row: FindingRow) -> tuple[int | None, str] | None:
        """The structure that a finding measures: the place of its own finding, from 0, and its name; else None.

        The place is None where only measurements of the structure are stated.
        """
        group = row.get("group") or ""
        names = (group, group.rpartition(": ")[2])  # of several tasks the part stands in front
        if row.get("label") is None or not group or row["concept"] in names:
            return None
        keys = ("group", "label", "frame", "case")
        alike = (n for n, one in enumerate(self.rows) if all(one.get(key) == row.get(key) for key in keys))
        return next((n for n in alike if self.rows[n]["concept"] in names), None), group

    def facts(self, keyword: str) -> list[str]:
        """The values of an attribute of the patient or the study; none where it is not stated."""
        value = self.patient.get(keyword)
        values = value if isinstance(value, list | tuple) else [value]
        return [text for one in values if one is not None and (text := str(one).strip())]

    def fact(self, keyword: str) -> str:
        """An attribute with one value, of which a backslash is a part; "" where it is not stated."""
        return "\\".join(self.facts(keyword))

    def key(self, part: str) -> uuid.UUID:
        """The identifier of a part of this report, the same whenever it is made."""
        return uuid.uuid5(NAMESPACE, f"{self.job} {part}")


def finite_or_none(value: Any) -> float | int | None:
    """A finite number; None for anything else, a truth value too."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def report_of_job(settings: NodeSettings, database: Database, job: str) -> FindingsReport:
    """The report of a job that has a record of findings. Raises FormatError where it has none."""
    with database.read() as connection:
        row = connection.execute(select(JOBS).where(JOBS.c.job == job)).first()
        if row is None:
            raise FormatError("there is no such job", job, "See /api/jobs")
        study = connection.execute(select(STUDIES).where(STUDIES.c.study == row.study)).one()
        files = connection.execute(select(ANSWERS).where(ANSWERS.c.job == job)).all()
        keys = row.inputs["series"].values()
        mine = and_(SERIES_ROWS.c.study == row.study, SERIES_ROWS.c.series.in_(keys))
        of_job = connection.execute(
            select(SERIES_ROWS.c.uid, SERIES_ROWS.c.attributes).where(mine).order_by(SERIES_ROWS.c.uid)
        ).all()
    folder, record = settings.folder / "results" / job, next((one for one in files if one.kind == FINDINGS), None)
    if record is None:
        raise FormatError("the job has no record of findings", job, "See its outcome and its reason")
    model_settings = settings.models.get(row.model)
    named, pdf = list[tuple[str, SegmentReference]](), None
    for file in files:
        if file.sop_class in SEGMENTATIONS:
            named += _segments(folder / file.name)
        elif file.sop_class == ENCAPSULATED_PDF:
            pdf = _page(folder / file.name)
    return FindingsReport(
        job=job,
        record=_record(folder / record.name),
        model_hash=row.model_hash,
        study=study.uid,
        stamp=row.created_at,
        series=tuple(one.uid for one in of_job),
        # A study may hold another patient's series by now.
        patient=next((one.attributes for one in of_job if one.attributes), study.attributes or {}),
        patient_system=settings.fhir.patient_system if settings.fhir is not None else "",
        node=settings.node.name,
        text=settings.node.text,
        priority=PRIORITIES[row.priority if row.urgency is None else row.urgency],
        segments=_without_doubles(named),
        card=(model_settings.card or "") if model_settings is not None else "",
        pdf=pdf,
    )


def _record(path: Path) -> FindingsFile:
    """The record of findings of a job."""
    with errors.foreign_errors(partial(_unreadable, path)):
        record: FindingsFile = structured_text.parse_json(path.read_text(encoding="utf-8"))
        return record


def _without_doubles(named: Sequence[tuple[str, SegmentReference]]) -> dict[str, SegmentReference]:
    """{name: segment}, without names that two segments of one class have, as those of several volumes do."""
    times = Counter((name, one.sop_class) for name, one in named)
    return {name: one for name, one in named if all(times[name, kind] <= 1 for kind in SEGMENTATIONS)}


def _segments(path: Path) -> list[tuple[str, SegmentReference]]:
    """(name, segment) of each segment of a segmentation."""
    header = _read_dataset(path, stop_before_pixels=True)
    uids = (str(header.SeriesInstanceUID), str(header.SOPInstanceUID), str(header.SOPClassUID))
    names = [str(one.SegmentLabel) for one in header.SegmentSequence]
    segments = [SegmentReference(*uids, int(one.SegmentNumber)) for one in header.SegmentSequence]
    return list(zip(names, segments, strict=True))


def _page(path: Path) -> bytes:
    """The PDF of an object, without the zero that makes its length even."""
    header = _read_dataset(path)
    data = bytes(header.EncapsulatedDocument)
    return data[: int(header.get("EncapsulatedDocumentLength") or len(data))]


def _read_dataset(path: Path, **how: Any) -> pydicom.Dataset:
    """The data set of an object."""
    with errors.foreign_errors(partial(_unreadable, path)):
        return pydicom.dcmread(path, **how)


def _unreadable(path: Path, error: Exception) -> HilumError:
    return FormatError(f"cannot be read: {type(error).__name__}", str(path), "Do its job again")
