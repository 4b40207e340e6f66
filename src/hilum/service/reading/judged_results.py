"""Subjects that people judge, and their verdicts: results of jobs, and segmentations that other products sent."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select

from hilum.errors import FormatError, HilumError
from hilum.files import file_formats
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.reading import seg_reading
from hilum.files.dicom.uids import LABEL_MAP, SEGMENTATION
from hilum.files.storage import csv_text
from hilum.service.monitoring import outcomes
from hilum.service.monitoring.outcomes import VERDICT
from hilum.service.objects import object_store
from hilum.service.records import audit_records
from hilum.service.records.actor import Actor
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import (
    ANSWERS,
    CORRECTIONS,
    FEEDBACK,
    FINDING_ROWS,
    INSTANCES,
    JOBS,
    OUTCOME_ROWS,
    REJECTIONS,
    SERIES_ROWS,
    STUDIES,
    RowValues,
)
from hilum.service.work.job_answers import NAME
from hilum.values import ANSWERED, Image, PlainValue, grouping
from hilum.values.finding_records import FindingRow

# The label map as it stands, and as it was made where somebody has corrected it.
MASK, ORIGINAL = "mask", "original"
# Formats of maps of a result on the image's grid.
MAP = re.compile(r"(?P<stem>.+?)\.(?:nii\.gz|nrrd|png|tiff)")
# States of a job in which its study no longer has its result.
TAKEN_BACK = ("superseded", "cancelled")


@dataclass(frozen=True)
class Correction:
    """A result as a person corrected it. files: names in the folder; rows: its findings"""

    key: str
    revision: int
    folder: Path
    files: tuple[str, ...]
    rows: tuple[FindingRow, ...]

    def path(self, kind: str) -> Path | None:
        """Its first file whose name ends so, where there is one."""
        return next((self.folder / name for name in self.files if name.endswith(kind)), None)


@dataclass(frozen=True)
class JudgedResult:
    """The result of a job, or a segmentation of another product.

    key:     of the job, or of the segmentation's instance
    study:   its key; study_uid: StudyInstanceUID
    series:  UIDs of the series on which it was made; its maps lie on the grid of the first
    columns: those of the job, or what the header of the segmentation states in their place
    rows:    its findings as they were made, as `findings.json` has them
    files:   names of its files in its folder
    corrections: what people made of it, oldest first
    model:   its name and its version
    seg:     path of the segmentation from elsewhere, else None
    instance: SOP Instance UID of that; of_images: those of the images that it marks
    """

    key: str
    study: str
    study_uid: str
    series: tuple[str, ...]
    columns: RowValues
    rows: tuple[FindingRow, ...] = ()
    files: tuple[str, ...] = ()
    corrections: tuple[Correction, ...] = ()
    model: tuple[str, str] = ("", "")
    folder: Path = Path()
    seg: Path | None = None
    instance: str = ""
    of_images: frozenset[str] = frozenset()

    @property
    def is_taken_back(self) -> bool:
        """Whether newer images or a person have taken its place."""
        return self.columns["state"] in TAKEN_BACK

    @property
    def is_result(self) -> bool:
        """Whether it has an answer, also one that nothing was found."""
        return bool(self.columns["outcome"] == ANSWERED)

    @property
    def revision(self) -> int:
        """Number of corrections."""
        return self.corrections[-1].revision if self.corrections else 0

    @property
    def standing(self) -> tuple[FindingRow, ...]:
        """Its findings as they stand."""
        return self.corrections[-1].rows if self.corrections else self.rows

    def case_of(self, instance: str | None) -> str:
        """The beginning of the names of the files on an image; of several images the table of the job states it.

        instance: the SOP Instance UID of one of several images; None of the only one
        """
        if instance is None:
            return NAME
        if self.seg is not None:
            return f"{NAME}_{object_store.uid_key(instance)[:8]}"
        try:
            rows = csv_text.read_given_table(self.folder / "predictions.csv")
        except (HilumError, OSError):
            return ""
        return next((row["case"] for row in rows.to_dict("records") if row.get("instance") == instance), "")

    def maps(self, instance: str | None = None) -> dict[str, Path]:
        """{name: file} of its maps on an image of its series; instance: as `case_of` takes it

        `mask` is the first label map as it stands, `original` that of the model where somebody has corrected it.
        """
        case = self.case_of(instance)
        if self.seg is None:
            maps = _maps(self.folder, self.files, case)
        else:
            maps = {MASK: self.seg} if instance is None or instance in self.of_images else {}
        stands = dict[str, Path]()
        for correction in self.corrections:
            stands |= _maps(correction.folder, correction.files, case)
        if MASK in maps and MASK in stands:
            maps[ORIGINAL] = maps[MASK]
        return {**maps, **stands}

    def read_map(self, path: Path, on: Image) -> Image:
        """A map, or the label map of a segmentation on the grid of the image that it marks."""
        return seg_reading.read_segmentation(path, on.geometry) if path == self.seg else file_formats.read(path)


def _maps(folder: Path, files: Sequence[str], case: str) -> dict[str, Path]:
    """{name: file} of the maps in a folder whose names begin as a case is called, the label map first."""
    stems = {match["stem"]: name for name in sorted(files) if (match := MAP.fullmatch(name))}
    maps = {MASK: stems[case]} if case in stems else {}
    maps |= {stem.removeprefix(f"{case}_"): name for stem, name in stems.items() if stem.startswith(f"{case}_")}
    return {name: folder / file for name, file in maps.items()} if case else {}


def find_judged(database: Database, folder: Path, key: str) -> JudgedResult | None:
    """Subject that a key names: a job, or a segmentation that came in and is no answer of ours."""
    with database.read() as connection:
        results = _of_jobs(connection, folder, JOBS.c.job == key)
        return next(iter(results or _of_others(connection, folder, INSTANCES.c.instance == key)), None)


def judged_in_study(database: Database, folder: Path, study: str) -> list[JudgedResult]:
    """All results in a study that still hold: of jobs, then of other products. study: its key"""
    with database.read() as connection:
        ours = _of_jobs(connection, folder, and_(JOBS.c.study == study, JOBS.c.state.not_in(TAKEN_BACK)))
        return [*ours, *_of_others(connection, folder, INSTANCES.c.study == study)]


def _of_jobs(connection: Connection, folder: Path, which: ColumnElement[bool]) -> list[JudgedResult]:
    both = JOBS.join(STUDIES, JOBS.c.study == STUDIES.c.study)
    query = select(JOBS, STUDIES.c.uid.label("study_uid")).select_from(both).where(which)
    rows = connection.execute(query.order_by(JOBS.c.created_at, JOBS.c.job)).all()
    keys = [row.job for row in rows]
    of_series = select(SERIES_ROWS.c.study, SERIES_ROWS.c.series, SERIES_ROWS.c.uid).where(
        SERIES_ROWS.c.study.in_({r.study for r in rows})
    )
    uids = {(row.study, row.series): row.uid for row in connection.execute(of_series)}
    findings_of, (corrected, files) = defaultdict[str, list[Any]](list), _corrections(connection, folder, keys)
    for row in connection.execute(
        select(FINDING_ROWS).where(FINDING_ROWS.c.job.in_(keys)).order_by(FINDING_ROWS.c.number)
    ):
        findings_of[row.job].append(row.row)
    return [
        JudgedResult(
            row.job,
            row.study,
            row.study_uid,
            tuple(uids.get((row.study, one), one) for _, one in sorted(row.inputs["series"].items())),
            dict(row._mapping),
            tuple(findings_of[row.job]),
            tuple(files[row.job]),
            tuple(corrected[row.job]),
            (row.model, row.model_version),
            folder / "results" / row.job,
        )
        for row in rows
    ]


def _corrections(
    connection: Connection, folder: Path, keys: Sequence[str]
) -> tuple[Mapping[str, Sequence[Correction]], Mapping[str, Sequence[str]]]:
    """({key: its corrections, oldest first}, {key: names of its files}) of what these keys name."""
    mine = select(CORRECTIONS).where(CORRECTIONS.c.judged.in_(keys)).order_by(CORRECTIONS.c.revision)
    rows = connection.execute(mine).all()
    owners = [*keys, *(row.correction for row in rows)]
    query = select(ANSWERS.c.job, ANSWERS.c.name).where(ANSWERS.c.job.in_(owners)).order_by(ANSWERS.c.name)
    files = grouping.by_key(connection.execute(query).tuples())
    corrections_of = defaultdict[str, list[Correction]](list)
    for row in rows:
        folder_of_correction, names = folder / "results" / row.correction, tuple(files[row.correction])
        corrections_of[row.judged].append(
            Correction(row.correction, row.revision, folder_of_correction, names, tuple(row.findings))
        )
    return corrections_of, files


def _of_others(connection: Connection, folder: Path, which: ColumnElement[bool]) -> list[JudgedResult]:
    """Segmentations that came in, but for those that are answers of ours and were sent back."""
    ours = select(ANSWERS.c.sop_instance_uid).where(ANSWERS.c.sop_instance_uid.is_not(None))
    note = and_(REJECTIONS.c.study == INSTANCES.c.study, REJECTIONS.c.uid == INSTANCES.c.uid)
    rejected = select(REJECTIONS.c.uid).where(note).exists()
    both = INSTANCES.join(STUDIES, INSTANCES.c.study == STUDIES.c.study)
    query = (
        select(INSTANCES, STUDIES.c.uid.label("study_uid"))
        .select_from(both)
        .where(which, INSTANCES.c.sop_class.in_((SEGMENTATION, LABEL_MAP)), INSTANCES.c.uid.not_in(ours), ~rejected)
    )
    found = list[JudgedResult]()
    rows = connection.execute(query.order_by(INSTANCES.c.received_at, INSTANCES.c.uid)).all()
    corrected, _ = _corrections(connection, folder, [row.instance for row in rows])
    for row in rows:
        path = folder / row.path
        try:
            head, marked_images = (
                header_reading.read_header(path).dataset,
                seg_reading.segmentation_origin(path).instances,
            )
        except (FormatError, OSError):  # damaged: nobody can look at it
            continue
        maker, what = tags.text(head, "Manufacturer"), tags.text(head, "SeriesDescription")
        columns = {"state": "done", "outcome": ANSWERED, "reason": None, "rule": "", "urgency": None, "because": None}
        columns["gate"] = ""
        found.append(
            JudgedResult(
                row.instance,
                row.study,
                row.study_uid,
                _series_of(connection, row.study, marked_images),
                columns,
                corrections=tuple(corrected[row.instance]),
                model=(", ".join(filter(None, [maker, what])) or "unknown", tags.text(head, "SoftwareVersions")),
                seg=path,
                instance=row.uid,
                of_images=marked_images,
            )
        )
    return found


def _series_of(connection: Connection, study: str, uids: frozenset[str]) -> tuple[str, ...]:
    """UIDs of the series that hold the images that a segmentation marks; none where they are not here."""
    some = [object_store.uid_key(uid) for uid in sorted(uids)][:500]
    both = INSTANCES.join(
        SERIES_ROWS, and_(INSTANCES.c.study == SERIES_ROWS.c.study, INSTANCES.c.series == SERIES_ROWS.c.series)
    )
    query = (
        select(SERIES_ROWS.c.uid).select_from(both).where(INSTANCES.c.study == study, INSTANCES.c.instance.in_(some))
    )
    return tuple(connection.execute(query.distinct().order_by(SERIES_ROWS.c.uid)).scalars())


Said = Literal["accepted", "corrected", "rejected"]


@dataclass(frozen=True)
class PersonVerdict:
    """Verdict of a person on a result. seconds: that they looked at it"""

    verdict: Said
    reason: str = ""
    text: str = ""
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The table of verdicts."""

    database: Database

    def add(self, judged: JudgedResult, verdict: PersonVerdict, actor: Actor) -> None:
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
        detail: dict[str, PlainValue] = {
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "revision": judged.revision,
        }
        with self.database.write() as connection:
            connection.execute(insert(FEEDBACK).values(at=DatabaseClock(), **row))
            if judged.seg is None:
                _write_outcomes(connection, judged, verdict, actor)
            audit_records.record_event(
                connection, "verdict", judged.key, actor=actor, study=judged.study, detail=detail
            )

    def last(self, keys: Sequence[str]) -> Mapping[str, Row[*tuple[Any, ...]]]:
        """{key of a result: the verdict that was given last}."""
        newest = select(func.max(FEEDBACK.c.feedback)).where(FEEDBACK.c.judged.in_(keys)).group_by(FEEDBACK.c.judged)
        rows = self.database.rows(select(FEEDBACK).where(FEEDBACK.c.feedback.in_(newest)))
        return {row.judged: row for row in rows}


def _write_outcomes(connection: Connection, judged: JudgedResult, verdict: PersonVerdict, actor: Actor) -> None:
    """Keep what a verdict says of the study, in place of the last one; who rejects does not say what is right."""
    connection.execute(delete(OUTCOME_ROWS).where(OUTCOME_ROWS.c.job == judged.key, OUTCOME_ROWS.c.source == VERDICT))
    if verdict.verdict != "rejected":
        outcomes.write_outcomes(
            connection, judged.key, outcomes.stated_values(judged.standing), VERDICT, account=actor.account
        )
