"""Routes by which people correct results: strokes that are kept as they are made, corrections, and verdicts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from isocenter.errors import DatasetError
from isocenter.service.reading.correcting import (
    MOST_RUNS,
    Corrections,
    Drafts,
    MovedOnError,
    NothingDrawnError,
    Stroke,
    check_box,
    check_voxels,
)
from isocenter.service.reading.judged import MASK, Judged, Verdict, Verdicts
from isocenter.service.reading.volumes import named_image
from isocenter.service.records.actor import READERS, Actor
from isocenter.service.routing.rules import rules_of
from isocenter.service.web.access import Who, roles
from isocenter.service.web.reading import images_of, known_result, map_of
from isocenter.service.web.shapes import Problem
from isocenter.service.web.web_node import JobName, Node, WebError, WebNode
from isocenter.service.web.worklist import refuse_hidden

router = APIRouter(prefix="/api/jobs", tags=["reading"], dependencies=[roles(READERS)])
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
    """Drawing of an account on a result that is not saved; revision: of the result as it stands."""

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

    verdict: Literal["accept", "correct", "reject"]
    reason: Annotated[str, Field(max_length=200)] = ""
    text: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class GivenShape(BaseModel):
    """A verdict that is kept."""

    verdict: str
    revision: int


@router.get("/{job}/draft")
def get_draft(node: Node, who: Who, job: JobName) -> DraftShape:
    """Get what the account has drawn on a result and not saved yet."""
    judged = known_result(node, job)
    refuse_hidden(node, who, judged.study)
    strokes = Drafts(node.database).of(judged.key, who.account)
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


@router.post("/{job}/draft", responses={409: {"model": Problem}})
def add_stroke(node: Node, who: Who, job: JobName, stroke: StrokeShape) -> SeenShape:
    """Keep a stroke on a result's own grid."""
    judged = _open_result(node, who, job)
    box = None if stroke.box is None else stroke.box.model_dump()
    drawn_stroke = Stroke(stroke.stroke, stroke.label, tuple(stroke.runs), box, stroke.image)
    images = images_of(node, judged)
    if drawn_stroke.image >= len(images):
        raise WebError(422, f"the series has {len(images)} images", "image", "Count them from 0")
    try:
        if drawn_stroke.box is not None:
            check_box(drawn_stroke, images[drawn_stroke.image].shape)
        elif not drawn_stroke.runs:
            raise DatasetError("the stroke is empty", "runs", "Give its voxels, or a box")
        elif MASK not in judged.maps(named_image(images, drawn_stroke.image)):
            raise WebError(409, "the result has no mask", job, "Accept or reject it, or draw a box")
        else:
            check_voxels(
                drawn_stroke,
                images[drawn_stroke.image].shape,
                map_of(node, judged, MASK, drawn_stroke.image).image.labels,
            )
    except DatasetError as error:
        raise WebError(422, error.problem, error.where, error.remedy) from error
    Drafts(node.database).add(judged.key, who.account, drawn_stroke)
    return SeenShape(revision=judged.revision)


@router.delete("/{job}/draft/{stroke}")
def undo_stroke(node: Node, who: Who, job: JobName, stroke: StrokeName) -> SeenShape:
    """Forget a stroke."""
    judged = known_result(node, job)
    if not Drafts(node.database).undo(judged.key, who.account, stroke):
        raise WebError(404, "there is no such stroke", stroke, "See the draft")
    return SeenShape(revision=judged.revision)


@router.put("/{job}/correction", responses={409: {"model": Problem}, 412: {"model": Problem}})
def correct(node: Node, who: Who, job: JobName, seen_shape: SeenShape) -> CorrectedShape:
    """Save what the account has drawn on a result: as a mask, a SEG and a verified report, which go to peers."""
    judged = _open_result(node, who, job)
    saving = Corrections(node.database, node.settings, _peers(node, judged))
    try:
        correction = saving.save(
            judged,
            images_of(node, judged),
            seen_shape.revision,
            who,
            lambda name, number: map_of(node, judged, name, number).image,
        )
    except MovedOnError as error:
        raise WebError(412, error.problem, error.where, error.remedy) from error
    except NothingDrawnError as error:
        raise WebError(409, error.problem, error.where, error.remedy) from error
    return CorrectedShape(
        revision=correction.revision,
        correction=correction.key,
        answers=list(correction.names),
        lacking=list(correction.lacking),
    )


@router.post("/{job}/feedback")
def give_feedback(node: Node, who: Who, job: JobName, feedback_shape: FeedbackShape) -> GivenShape:
    """Accept, correct or reject a result as it stands."""
    judged, reasons = _open_result(node, who, job), node.settings.page.reasons
    if feedback_shape.reason and feedback_shape.reason not in reasons:
        raise WebError(422, "there is no such reason", "reason", f"Give one of {', '.join(reasons)}, or your own text")
    if feedback_shape.verdict == "reject" and not (feedback_shape.reason or feedback_shape.text.strip()):
        raise WebError(422, "a rejection without a reason", "reason", f"Give one of {', '.join(reasons)}, or a text")
    if feedback_shape.verdict == "correct" and not judged.corrections:
        raise WebError(409, "nobody has corrected the result", job, "Save a correction first")
    verdict = Verdict(
        feedback_shape.verdict, feedback_shape.reason, feedback_shape.text.strip(), feedback_shape.seconds
    )
    Verdicts(node.database).add(judged, verdict, who)
    return GivenShape(verdict=feedback_shape.verdict, revision=judged.revision)


def _open_result(node: WebNode, who: Actor, key: str) -> Judged:
    """A result that may still be corrected and judged. WebError where it may not."""
    judged = known_result(node, key)
    refuse_hidden(node, who, judged.study)
    if judged.is_taken_back:
        raise WebError(409, f"the job is {judged.columns['state']}", key, "Read the result of the job in its place")
    if not judged.is_result:
        raise WebError(409, "the job has no result", key, "Wait for it, or see its reason")
    return judged


def _peers(node: WebNode, judged: Judged) -> list[str]:
    """The peers that get corrections: those of the job's rule, and those of the page."""
    rules = rules_of(node.settings, node.models) if judged.seg is None else []
    receivers = next((rule.send for rule in rules if rule.name == judged.columns["rule"]), [])
    return [*receivers, *node.settings.page.send]
