"""Routes of a study as people read it: its series, what was found in them, and the maps of results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, and_, select

from isocenter.errors import IsocenterError
from isocenter.report import colours
from isocenter.service.reading.blind import VIEW, own_series
from isocenter.service.reading.judged import MASK, Judged, Verdicts, judged_in, judged_of
from isocenter.service.reading.volumes import SeriesImages, Volume, kind_of, named_image
from isocenter.service.records.tables import studies
from isocenter.service.routing.facts import ROUTINE
from isocenter.service.routing.rules import NO_IMAGES
from isocenter.service.settings import PRIORITIES
from isocenter.service.web.access import ROLES, Who, roles
from isocenter.service.web.series import RAW, Place, PlaneName, slice_answer, slice_of, volumes_of
from isocenter.service.web.shapes import Time, shown_date, shown_name, words_of
from isocenter.service.web.web_node import JobName, Node, StudyName, WebError, WebNode, study_key
from isocenter.service.web.worklist import BlindShape, blind_shapes, record_view, refuse_hidden
from isocenter.values import Image

router = APIRouter(prefix="/api", tags=["reading"])
EARLIER = 20  # studies of the same patient, the newest


class SeriesShape(BaseModel):
    """A series, by its UID. kind: "" of what is no image; ours: whether this node has made its objects"""

    series: str
    modality: str
    description: str
    kind: str
    instances: int
    ours: bool


class LabelShape(BaseModel):
    """A value of the label map. colour: red, green and blue in 0..255"""

    label: int
    name: str
    colour: tuple[int, int, int]


class BoxShape(BaseModel):
    """A box that was found. corners: its start on every axis of the source's array, then its end, in voxels

    They are edges: voxel i reaches from i to i + 1. image: of a series of several
    """

    box: int
    name: str
    corners: list[float]
    probability: float | None
    image: str | None


class VerdictShape(BaseModel):
    """Last verdict of a person on a result."""

    verdict: str
    reason: str
    text: str
    account: str
    at: Time


class JudgedShape(BaseModel):
    """A result, as a person reads it.

    job:      of the job; of a segmentation of another product, under which it is judged and corrected
    revision: of corrections, 0 where nobody has corrected it
    findings: rows as `findings.json` has them
    """

    job: str
    rule: str
    model: str
    version: str
    state: str
    outcome: str | None
    reason: str | None
    priority: str
    because: str
    series: list[str]
    maps: list[str]
    labels: list[LabelShape]
    boxes: list[BoxShape]
    findings: list[dict[str, Any]]
    revision: int
    verdict: VerdictShape | None
    segmentation_of_another: bool


class EarlierShape(BaseModel):
    """An earlier study of the same patient."""

    study: str
    date: str
    description: str


class ReadingShape(BaseModel):
    """A study as a person reads it.

    blind:   what is asked of the reader before any result is shown; the jobs are hidden meanwhile
    reasons: for which a result may be rejected
    """

    schema_: str = Field(alias="schema")
    version: int = 1
    study: str
    patient: str
    date: str
    description: str
    series: list[SeriesShape]
    jobs: list[JudgedShape]
    earlier: list[EarlierShape]
    blind: list[BlindShape]
    reasons: list[str]


@router.get("/studies/{study}/reading", dependencies=[roles(ROLES)])
def get_reading(node: Node, who: Who, study: StudyName) -> ReadingShape:
    """A study: its series, every result that holds, and the patient's earlier studies."""
    key = study_key(study)
    with node.database.read() as connection:
        row = connection.execute(select(studies).where(studies.c.study == key)).first()
        if row is None:
            raise WebError(404, "there is no such study", study, "See /api/studies")
        ours = own_series(connection, key)
        before = _earlier(connection, row)
    reads = record_view(node, who, key)
    attributes = row.attributes or {}
    every = [one for one in node.index.series_of(key) if not (reads and one.series in ours)]
    every_result = [] if reads else judged_in(node.database, node.folder, key)
    verdicts = Verdicts(node.database).last([one.key for one in every_result])
    return ReadingShape(
        schema="isocenter.reading",
        study=row.uid,
        patient=shown_name(attributes.get("PatientName")),
        date=shown_date(attributes.get("StudyDate")),
        description=words_of(attributes.get("StudyDescription")),
        series=[_series(node, row, one, one.series in ours) for one in every],
        jobs=[_judged(node, one, verdicts.get(one.key)) for one in every_result],
        earlier=before,
        blind=blind_shapes(reads),
        reasons=list(node.settings.page.reasons),
    )


@router.get(
    "/jobs/{job}/maps/{name}/slices/{plane}/{k}",
    response_class=Response,
    responses=RAW,
    dependencies=[roles(ROLES)],
)
def get_map_slice(
    node: Node,
    who: Who,
    request: Request,
    job: JobName,
    name: str,
    plane: PlaneName,
    k: int,
    image: Place = 0,
    frame: Place = 0,
) -> Response:
    """Slice k of a map of a result, on the grid of its first series; `mask` is the label map."""
    judged = known_result(node, job)
    refuse_hidden(node, who, judged.study)
    node.record_opening(VIEW, judged.study, who)
    volume = map_of(node, judged, name, image)
    return slice_answer(request, slice_of(volume, plane, k, frame=frame))


def known_result(node: WebNode, key: str) -> Judged:
    """The result that a key names. WebError where there is none."""
    judged = judged_of(node.database, node.folder, key)
    if judged is None:
        raise WebError(404, "there is no such job", key, "See the study's reading")
    return judged


def map_of(node: WebNode, judged: Judged, name: str, number: int) -> Volume:
    """A map of a result on one of several images of its series. WebError where there is none."""
    images = images_of(node, judged)
    maps = judged.maps(named_image(images, number)) if number < len(images) else {}
    path = maps.get(name)
    if path is None:
        raise WebError(404, "the result has no such map", name, "See the study's reading")
    [volume] = node.volumes.of(
        (judged.key, name, number, _stamp(path)), partial(_read, judged, path, images[number].image)
    )
    return volume


def _stamp(path: Path) -> tuple[int, int]:
    """Stamp that changes where a job is done again."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _read(judged: Judged, path: Path, on: Image) -> Sequence[Image]:
    """A map as an image on the grid on which it was made. WebError where it lies on another."""
    image = judged.read_map(path, on)
    if image.geometry.shape != on.geometry.shape:
        raise WebError(409, "the map lies on another grid than its series", path.name, "Retry the job")
    return [image]


def images_of(node: WebNode, judged: Judged) -> list[Volume]:
    """The images of the series on whose grid a result lies. WebError where they are not here."""
    if not judged.series:
        raise WebError(409, "the images that it was drawn on are not here", judged.key, "Have them sent")
    return volumes_of(node, judged.series[0], judged.study)


def _series(node: WebNode, study: Row[Any], row: Row[Any], ours: bool) -> SeriesShape:
    attributes = row.attributes or {}
    return SeriesShape(
        series=row.uid,
        modality=row.modality or "",
        description=words_of(attributes.get("SeriesDescription")),
        kind=_kind(node, study, row),
        instances=row.instances,
        ours=ours,
    )


def _kind(node: WebNode, study: Row[Any], row: Row[Any]) -> str:
    """A volume, a picture, a clip, or "" for what is none of them; what the records do not know, the headers say."""
    if row.modality in NO_IMAGES:
        return ""
    if row.shape is not None and study.state != "receiving":
        return "volume" if len(row.shape) == 3 else "clip" if (row.frames or 1) > 1 else "picture"
    images = SeriesImages(node.database, node.folder, node.volumes)
    try:
        [row_of_series] = images.rows(row.uid, row.study)
        image = images.of(row_of_series)[0].image
        return "" if image.labels else kind_of(image)
    except (IsocenterError, OSError):
        return ""


def _judged(node: WebNode, judged: Judged, verdict: Row[*tuple[Any, ...]] | None) -> JudgedShape:
    columns, maps, labels = judged.columns, list[str](), list[LabelShape]()
    if judged.is_result:
        try:
            images = images_of(node, judged)
            every = [judged.maps(named_image(images, number)) for number in range(len(images))]
            maps = list(dict.fromkeys(name for one in every for name in one))
            with_mask = [number for number, one in enumerate(every) if MASK in one]
            if with_mask:
                mask = map_of(node, judged, MASK, with_mask[0]).image
                names = {one.value: one.name for one in mask.labels}
                labels = [
                    LabelShape(label=value, name=names[value], colour=c) for value, c in colours(mask.labels).items()
                ]
        except IsocenterError:  # its images cannot be read: its findings are shown without
            maps, labels = [], []
    return JudgedShape(
        job=judged.key,
        rule=columns["rule"],
        model=judged.model[0],
        version=judged.model[1],
        state=columns["state"],
        outcome=columns["outcome"],
        reason=columns["reason"],
        priority=PRIORITIES[ROUTINE if columns["urgency"] is None else columns["urgency"]],
        because=columns["because"] or "",
        series=list(judged.series),
        maps=maps,
        labels=labels,
        boxes=[_box(row) for row in judged.standing if row.get("box") is not None],
        findings=[dict(row) for row in judged.standing],
        revision=judged.revision,
        verdict=None if verdict is None else VerdictShape.model_validate(verdict._mapping),
        segmentation_of_another=judged.seg is not None,
    )


def _box(row: Any) -> BoxShape:
    columns = {name: row.get(name) for name in ("box", "probability")}
    return BoxShape(name=row["concept"], corners=row["value"], image=row.get("instance"), **columns)


def _earlier(connection: Connection, study: Row[Any]) -> list[EarlierShape]:
    """The patient's studies before this one, the newest first."""
    if study.patient is None:
        return []
    others = and_(studies.c.patient == study.patient, studies.c.study != study.study)
    rows = connection.execute(select(studies.c.uid, studies.c.attributes, studies.c.received_at).where(others)).all()
    before = [row for row in rows if _time(row) < _time(study)]
    before.sort(key=_time, reverse=True)
    return [
        EarlierShape(
            study=row.uid,
            date=shown_date(row.attributes.get("StudyDate")),
            description=words_of(row.attributes.get("StudyDescription")),
        )
        for row in before[:EARLIER]
    ]


def _time(row: Row[*tuple[Any, ...]]) -> tuple[str, float]:
    """Time by which studies of a patient follow each other."""
    attributes = row.attributes or {}
    return f"{attributes.get('StudyDate', '')}{attributes.get('StudyTime', '')}", row.received_at
