"""Routes of a study as people read and correct it: its series, what was found in them, maps, strokes, corrections."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, JsonValue
from sqlalchemy import Connection, Row, and_, select

from hilum.errors import DatasetError, HilumError
from hilum.files.storage import csv_text
from hilum.prediction import earlier_study
from hilum.report import display
from hilum.service.configuration import PRIORITIES
from hilum.service.model_facts import ROUTINE
from hilum.service.reading import (
    blind_reading,
    correcting,
    judged_results,
    label_strokes,
    sliced_volumes,
    volume_slices,
)
from hilum.service.reading.blind_reading import VIEW
from hilum.service.reading.correcting import Corrections, Drafts, MovedOnError, NoStrokesError
from hilum.service.reading.judged_results import MASK, JudgedResult, PersonVerdict, Said, Verdicts
from hilum.service.reading.label_strokes import MOST_RUNS, BoxDraft, Stroke
from hilum.service.reading.sliced_volumes import SlicedVolume
from hilum.service.reading.volume_slices import SeriesImages
from hilum.service.records import study_index
from hilum.service.records.actor import READERS, Actor
from hilum.service.records.tables import JOBS, STUDIES
from hilum.service.routing import routing_rules
from hilum.service.routing.routing_rules import NO_IMAGES
from hilum.service.web import access, response_shapes, series_routes, web_node, worklist_routes
from hilum.service.web.access import ROLES, Who
from hilum.service.web.response_shapes import Problem, Time
from hilum.service.web.series_routes import RAW, Place, PlaneName
from hilum.service.web.web_node import JobName, Node, StudyName, WebError, WebNode
from hilum.service.web.worklist_routes import BlindShape
from hilum.values import Image
from hilum.values.finding import CHANGE
from hilum.values.finding_records import FindingRow

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


class StudyChangeShape(BaseModel):
    """What changed since an earlier study: that, and rows of `change.csv` with `low` and `high` of the percent.

    study: empty where the earlier one is no longer here
    """

    study: str
    date: str
    rows: list[dict[str, JsonValue]]


class JudgedShape(BaseModel):
    """A result, as a person reads it.

    job:      of the job; of a segmentation of another product, under which it is judged and corrected
    revision: of corrections, 0 where nobody has corrected it
    findings: rows as `findings.json` has them
    gate:     of a model whose gate is not fitted, what it refuses images by
    """

    job: str
    rule: str
    model: str
    version: str
    gate: str
    state: str
    outcome: str | None
    reason: str | None
    priority: str
    because: str
    series: list[str]
    maps: list[str]
    labels: list[LabelShape]
    boxes: list[BoxShape]
    findings: list[FindingRow]
    revision: int
    verdict: VerdictShape | None
    segmentation_of_another: bool
    change: StudyChangeShape | None


class EarlierShape(BaseModel):
    """An earlier study of the same patient."""

    study: str
    date: str
    description: str


class ReadingShape(BaseModel):
    """A study as a person reads it.

    blind:   what is asked of the reader before any result is shown; the jobs are hidden meanwhile
    reasons: for which a result may be rejected
    outcome, reason: with which the study was settled; None before, and while its results are hidden
    text:    what objects with results bear too, such as "For research use only"
    withheld: why notes reject images that came again, so that no model gets them
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
    outcome: str | None
    reason: str | None
    text: str
    withheld: list[str]


@router.get("/studies/{study}/reading", dependencies=[access.require_roles(ROLES)])
def get_reading(node: Node, who: Who, study: StudyName) -> ReadingShape:
    """A study: its series, every result that holds, and the patient's earlier studies."""
    key = web_node.study_key(study)
    with node.database.read() as connection:
        row = connection.execute(select(STUDIES).where(STUDIES.c.study == key)).first()
        if row is None:
            raise WebError(404, "there is no such study", study, "See /api/studies")
        ours = blind_reading.own_series(connection, key)
        before, withheld = _earlier(connection, row), study_index.withheld_because(connection, key)
    web_node.refuse_gone(node, key, study, results=True)
    reads = worklist_routes.record_view(node, who, key)
    attributes = row.attributes or {}
    every = [one for one in node.index.series_of(key) if not (reads and one.series in ours)]
    every_result = [] if reads else judged_results.judged_in_study(node.database, node.folder, key)
    verdicts = Verdicts(node.database).last([one.key for one in every_result])
    return ReadingShape(
        schema="hilum.reading",
        study=row.uid,
        patient=response_shapes.shown_name(attributes.get("PatientName")),
        date=response_shapes.shown_date(attributes.get("StudyDate")),
        description=response_shapes.attribute_text(attributes.get("StudyDescription")),
        series=[_series(node, row, one, one.series in ours) for one in every],
        jobs=[_result_shape(node, one, verdicts.get(one.key)) for one in every_result],
        earlier=before,
        blind=worklist_routes.blind_shapes(reads),
        reasons=list(node.settings.page.reasons),
        outcome=None if reads else row.outcome,
        reason=None if reads else row.reason,
        text=node.settings.node.text,
        withheld=list(withheld),
    )


@router.get(
    "/jobs/{job}/maps/{name}/slices/{plane}/{k}",
    response_class=Response,
    responses=RAW,
    dependencies=[access.require_roles(ROLES)],
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
    worklist_routes.refuse_hidden(node, who, judged.study)
    node.record_opening(VIEW, judged.study, who)
    volume = map_of(node, judged, name, image)
    return series_routes.slice_answer(request, series_routes.slice_of(volume, plane, k, frame=frame))


def known_result(node: WebNode, key: str) -> JudgedResult:
    """The result that a key names. WebError where there is none."""
    judged = judged_results.find_judged(node.database, node.folder, key)
    if judged is None:
        raise WebError(404, "there is no such job", key, "See the study's reading")
    web_node.refuse_gone(node, judged.study, key, results=True)
    return judged


def map_of(node: WebNode, judged: JudgedResult, name: str, number: int) -> SlicedVolume:
    """A map of a result on one of several images of its series. WebError where there is none."""
    images = images_of_result(node, judged)
    maps = judged.maps(volume_slices.named_image(images, number)) if number < len(images) else {}
    path = maps.get(name)
    if path is None:
        raise WebError(404, "the result has no such map", name, "See the study's reading")
    [volume] = node.volumes.load(
        (judged.key, name, number, _stamp(path)), partial(_read_map, judged, path, images[number].image)
    )
    return volume


def _stamp(path: pathlib.Path) -> tuple[int, int]:
    """Stamp that changes where a job is done again."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _read_map(judged: JudgedResult, path: pathlib.Path, on: Image) -> Sequence[Image]:
    """A map as an image on the grid on which it was made. WebError where it lies on another."""
    image = judged.read_map(path, on)
    if image.geometry.shape != on.geometry.shape:
        raise WebError(409, "the map lies on another grid than its series", path.name, "Retry the job")
    return [image]


def images_of_result(node: WebNode, judged: JudgedResult) -> list[SlicedVolume]:
    """The images of the series on whose grid a result lies. WebError where they are not here."""
    if not judged.series:
        raise WebError(409, "the images that it marks are not here", judged.key, "Have them sent")
    return series_routes.volumes_of_series(node, judged.series[0], judged.study)


def _series(node: WebNode, study: Row[Any], row: Row[Any], ours: bool) -> SeriesShape:
    attributes = row.attributes or {}
    return SeriesShape(
        series=row.uid,
        modality=row.modality or "",
        description=response_shapes.attribute_text(attributes.get("SeriesDescription")),
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
        image = images.images_of_row(row_of_series)[0].image
        return "" if image.labels else sliced_volumes.image_kind(image)
    except (HilumError, OSError):
        return ""


def _result_shape(node: WebNode, judged: JudgedResult, verdict: Row[*tuple[Any, ...]] | None) -> JudgedShape:
    columns, maps, labels = judged.columns, list[str](), list[LabelShape]()
    if judged.is_result:
        try:
            images = images_of_result(node, judged)
            every = [judged.maps(volume_slices.named_image(images, number)) for number in range(len(images))]
            maps = list(dict.fromkeys(name for one in every for name in one))
            with_mask = [number for number, one in enumerate(every) if MASK in one]
            if with_mask:
                mask = map_of(node, judged, MASK, with_mask[0]).image
                names = {one.value: one.name for one in mask.labels}
                labels = [
                    LabelShape(label=value, name=names[value], colour=c)
                    for value, c in display.label_colours(mask.labels).items()
                ]
        except HilumError:  # its images cannot be read: its findings are shown without
            maps, labels = [], []
    return JudgedShape(
        job=judged.key,
        rule=columns["rule"],
        model=judged.model[0],
        version=judged.model[1],
        gate=columns["gate"],
        state=columns["state"],
        outcome=columns["outcome"],
        reason=columns["reason"],
        priority=PRIORITIES[ROUTINE if columns["urgency"] is None else columns["urgency"]],
        because=columns["because"] or "",
        series=list(judged.series),
        maps=maps,
        labels=labels,
        boxes=[_box(row) for row in judged.standing if row.get("box") is not None],
        findings=list(judged.standing),
        revision=judged.revision,
        verdict=None if verdict is None else VerdictShape.model_validate(verdict._mapping),
        segmentation_of_another=judged.seg is not None,
        change=_change(node, judged),
    )


def _change(node: WebNode, judged: JudgedResult) -> StudyChangeShape | None:
    """What changed since the study with which a result was compared; None of one without."""
    prior, path = (judged.columns.get("inputs") or {}).get("prior"), judged.folder / earlier_study.TABLE
    if prior is None or not path.is_file():
        return None
    both = JOBS.join(STUDIES, JOBS.c.study == STUDIES.c.study)
    stated = select(STUDIES.c.uid, STUDIES.c.attributes).select_from(both)
    study = node.database.first(stated.where(JOBS.c.job == prior["job"]))
    limits = {
        row["group"]: {end: row[end] for end in ("low", "high")} for row in judged.rows if row["concept"] == CHANGE
    }
    cells = csv_text.read_given_table(path).to_dict("records")
    return StudyChangeShape(
        study="" if study is None else study.uid,
        date="" if study is None else response_shapes.shown_date((study.attributes or {}).get("StudyDate")),
        rows=[{**{str(name): text for name, text in row.items()}, **limits.get(row["label"], {})} for row in cells],
    )


def _box(row: Any) -> BoxShape:
    columns = {name: row.get(name) for name in ("box", "probability")}
    return BoxShape(name=row["concept"], corners=row["value"], image=row.get("instance"), **columns)


def _earlier(connection: Connection, study: Row[Any]) -> list[EarlierShape]:
    """The patient's studies before this one, the newest first."""
    if study.patient is None:
        return []
    others = and_(STUDIES.c.patient == study.patient, STUDIES.c.study != study.study)
    rows = connection.execute(select(STUDIES.c.uid, STUDIES.c.attributes, STUDIES.c.received_at).where(others)).all()
    before = [row for row in rows if _time(row) < _time(study)]
    before.sort(key=_time, reverse=True)
    return [
        EarlierShape(
            study=row.uid,
            date=response_shapes.shown_date(row.attributes.get("StudyDate")),
            description=response_shapes.attribute_text(row.attributes.get("StudyDescription")),
        )
        for row in before[:EARLIER]
    ]


def _time(row: Row[*tuple[Any, ...]]) -> tuple[str, float]:
    """Time by which studies of a patient follow each other."""
    attributes = row.attributes or {}
    return f"{attributes.get('StudyDate', '')}{attributes.get('StudyTime', '')}", row.received_at


correcting_router = APIRouter(prefix="/api/jobs", tags=["reading"], dependencies=[access.require_roles(READERS)])
StrokeName = Annotated[str, Path(pattern=r"^[\w.-]{1,64}$")]
LONGEST_TEXT = 4000


class BoxMark(BaseModel):
    """A box: a new one, or in place of `box`, which goes where no label is given.

    corners: its start on every axis of the source's array, then its end, in voxels; label: what it shows
    """

    corners: Annotated[list[float], Field(max_length=6)] = []
    label: str | int | None = None
    box: int | None = None


class StrokeShape(BaseModel):
    """A stroke, by a name that the page makes up: voxels that get a label, or a box.

    label: 0 erases; runs: (start, length) of voxels in C order of the source's array; image: of a series of several
    """

    stroke: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    label: Annotated[int, Field(ge=0)] = 0
    runs: Annotated[list[tuple[int, int]], Field(max_length=MOST_RUNS)] = []
    box: BoxMark | None = None
    image: Annotated[int, Field(ge=0)] = 0


class DraftShape(BaseModel):
    """Unsaved strokes of an account on a result; revision: of the result as it stands."""

    revision: int
    strokes: list[StrokeShape]


class SeenShape(BaseModel):
    """The revision that a correction began from."""

    revision: Annotated[int, Field(ge=0)]


class CorrectedShape(BaseModel):
    """A correction, by whose key its files are had as those of a job are.

    answers: names of its files; lacking: what of it could not be written, and why
    """

    revision: int
    correction: str
    answers: list[str]
    lacking: list[str]


class FeedbackShape(BaseModel):
    """A verdict. reason: one of `[page] reasons`, or empty; text: in own words; seconds: spent on it"""

    verdict: Said
    reason: Annotated[str, Field(max_length=200)] = ""
    text: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class GivenShape(BaseModel):
    """A verdict that is kept."""

    verdict: str
    revision: int


@correcting_router.get("/{job}/draft")
def get_draft(node: Node, who: Who, job: JobName) -> DraftShape:
    """Get the unsaved strokes of the account on a result."""
    judged = known_result(node, job)
    worklist_routes.refuse_hidden(node, who, judged.study)
    strokes = Drafts(node.database).strokes(judged.key, who.account)
    shapes = [
        StrokeShape(
            stroke=one.stroke,
            label=one.label,
            runs=list(one.runs),
            box=None if one.box is None else BoxMark(**one.box),
            image=one.image,
        )
        for one in strokes
    ]
    return DraftShape(revision=judged.revision, strokes=shapes)


@correcting_router.post("/{job}/draft", responses={409: {"model": Problem}})
def add_stroke(node: Node, who: Who, job: JobName, stroke: StrokeShape) -> SeenShape:
    """Keep a stroke on a result's own grid."""
    judged = _open_result(node, who, job)
    box = None if stroke.box is None else cast("BoxDraft", stroke.box.model_dump())
    new_stroke = Stroke(stroke.stroke, stroke.label, tuple(stroke.runs), box, stroke.image)
    images = images_of_result(node, judged)
    if new_stroke.image >= len(images):
        raise WebError(422, f"the series has {len(images)} images", "image", "Count them from 0")
    try:
        if new_stroke.box is not None:
            correcting.check_box(new_stroke, images[new_stroke.image].shape)
        elif not new_stroke.runs:
            raise DatasetError("the stroke is empty", "runs", "Give its voxels, or a box")
        elif MASK not in judged.maps(volume_slices.named_image(images, new_stroke.image)):
            raise WebError(409, "the result has no mask", job, "Accept or reject it, or add a box")
        else:
            label_strokes.check_stroke(
                new_stroke,
                images[new_stroke.image].shape,
                map_of(node, judged, MASK, new_stroke.image).image.labels,
            )
    except DatasetError as error:
        raise WebError(422, error.problem, error.where, error.remedy) from error
    Drafts(node.database).add(judged.key, who.account, new_stroke)
    return SeenShape(revision=judged.revision)


@correcting_router.delete("/{job}/draft/{stroke}")
def undo_stroke(node: Node, who: Who, job: JobName, stroke: StrokeName) -> SeenShape:
    """Forget a stroke."""
    judged = known_result(node, job)
    if not Drafts(node.database).undo(judged.key, who.account, stroke):
        raise WebError(404, "there is no such stroke", stroke, "See the draft")
    return SeenShape(revision=judged.revision)


@correcting_router.put("/{job}/correction", responses={409: {"model": Problem}, 412: {"model": Problem}})
def correct(node: Node, who: Who, job: JobName, seen_shape: SeenShape) -> CorrectedShape:
    """Save the strokes of the account on a result: as a mask, a SEG and a verified report, which go to peers."""
    judged = _open_result(node, who, job)
    saving = Corrections(node.database, node.settings, _peers(node, judged))
    try:
        correction = saving.save(
            judged,
            images_of_result(node, judged),
            seen_shape.revision,
            who,
            lambda name, number: map_of(node, judged, name, number).image,
        )
    except MovedOnError as error:
        raise WebError(412, error.problem, error.where, error.remedy) from error
    except NoStrokesError as error:
        raise WebError(409, error.problem, error.where, error.remedy) from error
    return CorrectedShape(
        revision=correction.revision,
        correction=correction.key,
        answers=list(correction.names),
        lacking=list(correction.lacking),
    )


@correcting_router.post("/{job}/feedback")
def give_feedback(node: Node, who: Who, job: JobName, feedback_shape: FeedbackShape) -> GivenShape:
    """Accept, correct or reject a result as it stands."""
    judged, reasons = _open_result(node, who, job), node.settings.page.reasons
    if feedback_shape.reason and feedback_shape.reason not in reasons:
        raise WebError(422, "there is no such reason", "reason", f"Give one of {', '.join(reasons)}, or your own text")
    if feedback_shape.verdict == "rejected" and not (feedback_shape.reason or feedback_shape.text.strip()):
        raise WebError(422, "a rejection without a reason", "reason", f"Give one of {', '.join(reasons)}, or a text")
    if feedback_shape.verdict == "corrected" and not judged.corrections:
        raise WebError(409, "nobody has corrected the result", job, "Save a correction first")
    verdict = PersonVerdict(
        feedback_shape.verdict, feedback_shape.reason, feedback_shape.text.strip(), feedback_shape.seconds
    )
    Verdicts(node.database).add(judged, verdict, who)
    return GivenShape(verdict=feedback_shape.verdict, revision=judged.revision)


def _open_result(node: WebNode, who: Actor, key: str) -> JudgedResult:
    """A result that may still be corrected and judged. WebError where it may not."""
    judged = known_result(node, key)
    worklist_routes.refuse_hidden(node, who, judged.study)
    if judged.is_taken_back:
        raise WebError(409, f"the job is {judged.columns['state']}", key, "Read the result of the job in its place")
    if not judged.is_result:
        raise WebError(409, "the job has no result", key, "Wait for it, or see its reason")
    return judged


def _peers(node: WebNode, judged: JudgedResult) -> list[str]:
    """The peers that get corrections: those of the job's rule, and those of the page."""
    rules = routing_rules.rules_of(node.settings, node.models) if judged.seg is None else []
    receivers = next((rule.send for rule in rules if rule.name == judged.columns["rule"]), [])
    return [*receivers, *node.settings.page.send]
