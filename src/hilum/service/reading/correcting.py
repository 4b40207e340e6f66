"""A result as a person corrects it: unsaved strokes, then mask and findings, written as SEG and report and sent."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from hilum.errors import DatasetError, FormatError, GeometryError, HilumError
from hilum.evaluation import mask_overlap
from hilum.files import file_formats, result_images
from hilum.files.dicom.reading import seg_reading
from hilum.files.dicom.writing import new_object, seg, sr, stamp
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.prediction import findings_file, result_files
from hilum.runtime import label_measurements
from hilum.service import model_facts
from hilum.service.configuration import NodeSettings
from hilum.service.reading import label_strokes, volume_slices
from hilum.service.reading.judged_results import MASK, JudgedResult
from hilum.service.reading.label_strokes import Stroke
from hilum.service.reading.sliced_volumes import SlicedVolume
from hilum.service.records import audit_records
from hilum.service.records.actor import Actor
from hilum.service.records.job_queue import ResultFile
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import ANSWERS, CORRECTIONS, DELIVERIES, DRAFTS, JOBS, STUDIES
from hilum.service.work import job_answers
from hilum.service.work.job_answers import ObjectMarks
from hilum.tasks.shared import structure_findings
from hilum.values import ANSWERED, Array, Code, Finding, Image, Label, PlainValue
from hilum.values.finding import FindingsRecord
from hilum.values.finding_records import FindingRow

NOTHING_LEFT = "the reader has found nothing"


@dataclass(frozen=True, eq=False)
class Drafts:
    """The table of strokes; each account has its own of each result."""

    database: Database

    def strokes(self, judged: str, account: str) -> list[Stroke]:
        """The strokes of an account on a result, in their order."""
        with self.database.read() as connection:
            return strokes_of(connection, judged, account)

    def add(self, judged: str, account: str, stroke: Stroke) -> None:
        """Keep a stroke; one of the same name is there already, as where an answer was lost on its way."""
        here = and_(DRAFTS.c.judged == judged, DRAFTS.c.account == account, DRAFTS.c.stroke == stroke.stroke)
        with self.database.write() as connection:
            if connection.execute(select(DRAFTS.c.draft).where(here)).first() is None:
                columns = {"judged": judged, "account": account, "stroke": stroke.stroke, "mark": stroke.mark}
                connection.execute(insert(DRAFTS).values(at=DatabaseClock(), **columns))

    def undo(self, judged: str, account: str, stroke: str) -> bool:
        """Forget a stroke; False where there is none."""
        here = and_(DRAFTS.c.judged == judged, DRAFTS.c.account == account, DRAFTS.c.stroke == stroke)
        with self.database.write() as connection:
            return connection.execute(delete(DRAFTS).where(here)).rowcount == 1


def strokes_of(connection: Connection, judged: str, account: str) -> list[Stroke]:
    """The strokes of an account on a result, in their order."""
    mine = and_(DRAFTS.c.judged == judged, DRAFTS.c.account == account)
    rows = connection.execute(select(DRAFTS.c.stroke, DRAFTS.c.mark).where(mine).order_by(DRAFTS.c.draft))
    return [Stroke.from_record(row.stroke, row.mark) for row in rows]


def forget_strokes(connection: Connection, judged: str, account: str, strokes: Sequence[Stroke]) -> None:
    """Forget strokes that a correction holds."""
    names = [one.stroke for one in strokes]
    mine = and_(DRAFTS.c.judged == judged, DRAFTS.c.account == account, DRAFTS.c.stroke.in_(names))
    connection.execute(delete(DRAFTS).where(mine))


def apply_box_strokes(rows: Sequence[FindingRow], strokes: Sequence[Stroke]) -> list[FindingRow]:
    """Rows of findings with boxes as strokes add, change and remove them, numbered anew."""
    boxes: dict[int | str, FindingRow] = {box: {**row} for row in rows if (box := row.get("box")) is not None}
    for stroke in strokes:
        if stroke.box is None:
            continue
        key, label = stroke.box.get("box"), stroke.box.get("label")
        if not label:
            boxes.pop(key if key is not None else "", None)
            continue
        finding: FindingRow = {"concept": str(label), "value": list(stroke.box["corners"]), "unit": "voxels"}
        before = boxes.get(key) if key is not None else None
        if before is not None and before["concept"] == str(label) and before.get("codes"):
            finding = {"codes": before["codes"], **finding}
        # A probability was that of the model's box.
        boxes[stroke.stroke if key is None else key] = finding
    corrected: list[FindingRow] = [{**row} for row in rows if row.get("box") is None]
    for number, row in enumerate(boxes.values()):
        row["box"] = number
    return [*corrected, *boxes.values()]


def check_box(stroke: Stroke, shape: Sequence[int]) -> None:
    """Refuse a box that does not lie on the grid, or has no extent. Raises DatasetError."""
    box = stroke.box or {}
    if not box.get("label"):
        if box.get("box") is None:
            raise DatasetError("the box has no label", "box", "Give its label, or the box that is to go")
        return
    corners = np.asarray(box.get("corners", ()), dtype=np.float64)
    axes = len(shape)
    if corners.shape != (2 * axes,) or not np.isfinite(corners).all():
        raise DatasetError(f"a box of {corners.size} corners", "box", f"Give its {axes} starts, then its {axes} ends")
    start, end = corners[:axes], corners[axes:]
    if (start < 0).any() or (end > np.asarray(shape)).any() or (start >= end).any():
        words = " x ".join(map(str, shape))
        raise DatasetError(f"the box lies outside the grid of {words} voxels", "box", "Stay on the result's own grid")


DESCRIPTION = "Corrected segmentation"


class MovedOnError(HilumError):
    """Another person has corrected a result meanwhile."""


class NoStrokesError(HilumError):
    """There is nothing to correct a result with, or it is none that can be corrected."""


@dataclass(frozen=True)
class CorrectedResult:
    """A correction. revision: of the result now; names: of its files; lacking: what could not be written, and why"""

    key: str
    revision: int
    names: Sequence[str]
    lacking: Sequence[str]


@dataclass(frozen=True, eq=False)
class Corrections:
    """The table of corrections, and their files. send: peers that get their DICOM objects"""

    database: Database
    settings: NodeSettings
    send: Sequence[str]

    def save(
        self,
        judged: JudgedResult,
        images: Sequence[SlicedVolume],
        revision: int,
        actor: Actor,
        read: Callable[[str, int], Image],
    ) -> CorrectedResult:
        """Make a correction of an account's strokes on a result.

        images:   of the series on whose grid it lies
        revision: that the person has seen; read: a map of the result by its name and the number of the image
        Raises MovedOnError where another revision stands, NoStrokesError where there is none.
        """
        with self.database.read() as connection:
            strokes, at = strokes_of(connection, judged.key, actor.account), _now(connection)
            _check_revision(connection, judged, revision)
        if not strokes:
            raise NoStrokesError("there is no unsaved stroke", judged.key, "Correct first")
        key = hashlib.sha256(f"{judged.key}\0{revision + 1}\0{actor.account}\0{at}".encode()).hexdigest()[:32]
        results = self.settings.folder / "results"
        results.mkdir(exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=results))
        try:
            writing = _Writing(self.settings, judged, key, revision + 1, at, actor, room)
            rows = writing.write(images, strokes, read)
            files = writing.answers(rows)
            with self.database.write() as connection:
                _check_revision(connection, judged, revision, locks=True)
                columns = {"correction": key, "judged": judged.key, "study": judged.study, "revision": revision + 1}
                connection.execute(insert(CORRECTIONS).values(account=actor.account, at=at, findings=rows, **columns))
                self._send(connection, key, files)
                urgency = model_facts.most_urgent(rows, self.settings.urgent)
                priority = {"urgency": urgency and urgency.rank, "because": urgency and urgency.because}
                connection.execute(update(JOBS).where(JOBS.c.job == judged.key).values(priority))
                forget_strokes(connection, judged.key, actor.account, strokes)
                detail: dict[str, PlainValue] = {"revision": revision + 1, "correction": key, "strokes": len(strokes)}
                audit_records.record_event(
                    connection, "correction", judged.key, actor=actor, study=judged.study, detail=detail
                )
                room.rename(results / key)
        finally:
            shutil.rmtree(room, ignore_errors=True)
        return CorrectedResult(key, revision + 1, [one.name for one in files], writing.lacking)

    def _send(self, connection: Connection, key: str, files: Sequence[ResultFile]) -> None:
        for file in files:
            connection.execute(insert(ANSWERS).values(job=key, **vars(file)))
            if file.sop_instance_uid is None:
                continue
            for peer in sorted(set(self.send)):
                begun = {"state": "waiting", "next_at": DatabaseClock(), "created_at": DatabaseClock()}
                connection.execute(insert(DELIVERIES).values(job=key, name=file.name, peer=peer, **begun))


def _now(connection: Connection) -> float:
    return float(connection.execute(DatabaseClock().select()).scalar_one())


def _check_revision(connection: Connection, judged: JudgedResult, revision: int, *, locks: bool = False) -> None:
    """Raises MovedOnError where another revision stands, NoStrokesError where the result is taken back.

    locks: keep others from correcting anything of the study until this transaction has ended
    """
    if locks:
        connection.execute(select(STUDIES.c.study).where(STUDIES.c.study == judged.study).with_for_update())
    state = connection.execute(select(JOBS.c.state).where(JOBS.c.job == judged.key)).scalar()
    if state in ("superseded", "cancelled"):
        raise NoStrokesError(f"the job is {state}", judged.key, "Correct the result of the job in its place")
    newest = select(func.max(CORRECTIONS.c.revision)).where(CORRECTIONS.c.judged == judged.key)
    stands = connection.execute(newest).scalar() or 0
    if stands != revision:
        problem = f"revision {stands} stands, and this correction began from {revision}"
        raise MovedOnError(problem, judged.key, "Look at what was corrected meanwhile, then save again")


class _Writing:
    """The files of one correction, written into a folder of their own.

    lacking:    what could not be written, and why
    has_result: whether a voxel is marked, also of a clip, whose structures are not measured
    """

    def __init__(
        self, settings: NodeSettings, judged: JudgedResult, key: str, revision: int, at: float, actor: Actor, room: Path
    ) -> None:
        self.settings, self.judged, self.key, self.revision, self.at = settings, judged, key, revision, at
        self.room, self.lacking, self.has_result = room, list[str](), False
        # Nobody can vouch for a report under no name.
        self.reader = new_object.ReadingPerson(actor.account or "not logged in", settings.node.name)
        self.is_known = bool(actor.account)
        self.earlier = dict[str, Path]()

    def write(
        self, images: Sequence[SlicedVolume], strokes: Sequence[Stroke], read: Callable[[str, int], Image]
    ) -> list[FindingRow]:
        """Write what the strokes make of a result; the rows of its findings then."""
        rows: list[FindingRow] = [{**row} for row in self.judged.standing]
        for number in sorted({one.image for one in strokes}):
            mine = [one for one in strokes if one.image == number]
            image = replace(images[number].image, pixels=images[number].voxels)
            instance = volume_slices.named_image(images, number)
            name = self.judged.case_of(instance)
            of_others, own_rows = _split_by_image(rows, instance)
            own_rows = apply_box_strokes(own_rows, mine)
            segmentations, is_marked, labels = dict[Path, Sequence[Label]](), False, list[Label]()
            if any(one.box is None for one in mine):
                mask, labels = self._apply(read(MASK, number), mine)
                self._write_map(mask, labels, image, name, self.judged.maps(instance).get(MASK))
                is_marked = bool(mask.any())
                segmentations = self._segmentation(mask, labels, image, name) if is_marked else {}
                own_rows = _remeasure(own_rows, mask, labels, image)
            is_empty = not is_marked and not any(map(_states_something, own_rows))
            self._report(own_rows, image, name, segmentations, [one.name for one in labels], is_empty=is_empty)
            rows, self.has_result = [*of_others, *own_rows], self.has_result or is_marked
        self._write_findings(rows)
        return rows

    def _write_findings(self, rows: Sequence[FindingRow]) -> None:
        name, release = self.judged.model
        model = {"name": name, "version": release, "corrected_by": self.reader.name}
        places = tuple(map(_place_of, rows))
        is_result = self.has_result or any(map(_states_something, rows))
        reason, findings = "" if is_result else NOTHING_LEFT, tuple(finding_of(row) for row in rows)
        places = places if any(places) else ()
        findings_file.write_findings(
            FindingsRecord(findings, ANSWERED, reason, model, places, is_empty=not is_result), self.room
        )

    def _apply(self, standing: Image, strokes: Sequence[Stroke]) -> tuple[Array, list[Label]]:
        if standing.shape[0] > 1:
            problem = "its segments overlap, and one label map cannot hold them"
            raise NoStrokesError(problem, self.judged.key, "Correct it where it was made")
        codes = self._codes()
        labels = [replace(one, code=one.code or codes.get(one.name)) for one in standing.labels if one.value]
        return label_strokes.apply_strokes(standing.data[0], strokes), labels

    def _codes(self) -> Mapping[str, Code | None]:
        """Codes of the labels, as the SEG of the result states them: other formats have no place for codes."""
        for name in self.judged.files:
            if name.endswith(".dcm"):
                try:
                    return {one.name: one.code for one in seg_reading.stated_segments(self.judged.folder / name)}
                except (FormatError, OSError):
                    continue
        return {}

    def _write_map(self, mask: Array, labels: Sequence[Label], image: Image, name: str, earlier: Path | None) -> None:
        """The label map in the format of the one that it replaces."""
        plain = ".tiff" if image.geometry.physical or image.frames is not None else ".png"
        kind = ".nii.gz" if image.geometry.is_volume else plain
        suffix = file_formats.suffix_of(earlier) if earlier is not None and earlier != self.judged.seg else kind
        result_images.write_label_map(mask, labels, image, self.room / f"{name}{suffix}", algorithm=self._algorithm)

    def _segmentation(
        self, mask: Array, labels: Sequence[Label], image: Image, name: str
    ) -> dict[Path, Sequence[Label]]:
        path = self.room / f"{name}.dcm"
        try:
            seg.write_segmentation(
                mask, labels, image, path, algorithm_name=self._algorithm, description=DESCRIPTION, reader=self.reader
            )
        except (FormatError, GeometryError) as error:
            self.lacking.append(f"no SEG: {error.problem}")
            return {}
        return {path: labels}

    def _report(
        self,
        rows: Sequence[FindingRow],
        image: Image,
        name: str,
        segmentations: Mapping[Path, Sequence[Label]],
        structures: Sequence[str],
        *,
        is_empty: bool,
    ) -> None:
        """The report of the findings as they stand, which names the one that it takes the place of."""
        path = self.room / f"{name}_report.dcm"
        before = [*reversed([(one.folder, one.files) for one in self.judged.corrections])]
        before.append((self.judged.folder, self.judged.files))
        earlier = next((folder / path.name for folder, names in before if path.name in names), None)
        others = [one for one in (self.judged.seg,) if one is not None]
        try:
            report = Result(
                image,
                self._algorithm,
                findings=[finding_of(row) for row in rows],
                segmentations=segmentations,
                classes=structures if is_empty else (),
                is_empty=is_empty,
            )
            sr.write_report(report, path, reader=self.reader if self.is_known else None, others=others)
        except (FormatError, GeometryError) as error:
            self.lacking.append(f"no report: {error.problem}")
            return
        if earlier is not None and earlier.exists():
            self.earlier[path.name] = earlier

    @property
    def _algorithm(self) -> str:
        return result_files.algorithm_name(*self.judged.model)

    def answers(self, rows: Sequence[FindingRow]) -> list[ResultFile]:
        """The files, the DICOM objects under UIDs that follow from the correction. rows: its findings"""
        node, model_settings = self.settings.node, self.settings.models.get(str(self.judged.columns.get("model", "")))
        marks = ObjectMarks(
            node.uid_root,
            node.text,
            model_settings is not None and model_settings.sr_class == "comprehensive",
            self.earlier,
        )
        paths = sorted(path for path in self.room.iterdir() if path.is_file())
        objects = [path for path in paths if path.suffix == ".dcm"]
        stamps = {path: self._stamp(path) for path in objects}
        uids = {old: new for path, by in stamps.items() for old, new in stamp.stamped_uids(path, by).items()}
        urgency = model_facts.most_urgent(rows, self.settings.urgent)
        return [job_answers.result_file(path, stamps.get(path), uids, marks, urgency) for path in paths]

    def _stamp(self, path: Path) -> stamp.Stamp:
        """Versions of a correction share a series, and count up in it."""
        node, shared = self.settings.node, f"{self.judged.key} corrected {path.name}"
        return stamp.Stamp(node.uid_root, f"{self.key} {path.name}", self.at, node.text, shared, self.revision)


def finding_of(row: FindingRow) -> Finding:
    """A finding from its row in `findings.json`."""
    stated = cast("Mapping[str, Any]", row)
    known_fields = {one.name: stated[one.name] for one in fields(Finding) if one.name in stated}
    known_fields["codes"] = tuple(Code(**code) for code in known_fields.get("codes") or ())
    if known_fields.get("possible") is not None:
        known_fields["possible"] = tuple(known_fields["possible"])
    return Finding(**known_fields)


def _split_by_image(rows: Sequence[FindingRow], instance: str | None) -> tuple[list[FindingRow], list[FindingRow]]:
    """(findings of other images, those of this one); instance: of one of several, as its findings name it."""
    own_rows: list[FindingRow] = [{**row} for row in rows if instance is None or row.get("instance") == instance]
    others: list[FindingRow] = [{**row} for row in rows if instance is not None and row.get("instance") != instance]
    return others, own_rows


def _place_of(row: FindingRow) -> dict[str, str]:
    """What names the image of a finding, where there are several."""
    stated = {"case": row.get("case"), "instance": row.get("instance")}
    return {name: one for name, one in stated.items() if one is not None}


def _states_something(row: FindingRow) -> bool:
    """Whether a finding is more than a structure without a voxel."""
    return row.get("label") is None or bool(row.get("value"))


def _remeasure(rows: Sequence[FindingRow], mask: Array, labels: Sequence[Label], image: Image) -> list[FindingRow]:
    """Findings with the size and the measurements of each structure as it is now, in place of those before.

    They have no interval: a person's outline has none that we know. A structure that is erased is absent, and has no
    size. Of a clip no structure is measured.
    """
    rows_kept: list[FindingRow] = [{**row} for row in rows if row.get("label") is None]
    if image.frames is not None:
        return rows_kept
    # As results state it: in ml or mm2, and in voxels where their size is not known.
    step = (image.geometry.voxel_size or (1.0, ""))[0]
    unit = mask_overlap.volume_unit(image.geometry).replace("mm²", "mm2")
    codes = {row["concept"]: finding_of(row).codes for row in rows if row.get("label") is not None}
    place_columns = _place_of(rows[0]) if rows else {}
    lines = {str(row["group"]) for row in rows if row.get("concept") == structure_findings.NARROWING}
    table = label_measurements.measure_labels(mask, labels, image, lines)
    for label in labels:
        codes_of_label = codes.get(label.name) or ((label.code,) if label.code is not None else ())
        volume = round(float(np.count_nonzero(mask == label.value)) * step, 6)
        size, unit_of_size = (volume, unit) if volume else (False, "")
        findings = [Finding(label.name, size, unit_of_size, codes=codes_of_label, group=label.name, label=label.value)]
        findings += [*structure_findings.measured_findings(label, table)] if volume else []
        rows_kept += [cast("FindingRow", {**asdict(one), **place_columns}) for one in findings]
    return rows_kept
