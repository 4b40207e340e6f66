"""WADO-RS: objects, their headers, frames, and pictures of them (PS3.18 10.4)."""

from __future__ import annotations

import io
import json
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from email.message import Message
from itertools import chain
from pathlib import Path
from threading import BoundedSemaphore
from typing import Annotated
from urllib.request import parse_http_list

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response, StreamingResponse
from PIL import Image
from pydantic import BaseModel, Field

from hilum.errors import FormatError
from hilum.files.dicom import header_reading
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import single_frame
from hilum.files.dicom.reading.display_windows import DisplayWindow
from hilum.service.objects import object_store
from hilum.service.objects.dicom_json import IN_JSON, MEDIA
from hilum.service.records.actor import Actor
from hilum.service.records.job_queue import GOING
from hilum.service.web import access, web_node, worklist_routes
from hilum.service.web.access import ROLES, Who
from hilum.service.web.dicomweb import search
from hilum.service.web.dicomweb.search import StoredObject
from hilum.service.web.response_shapes import Problem, Responses
from hilum.service.web.web_node import Node, Uid, WebError, WebNode

router = APIRouter(
    prefix="/dicomweb/studies/{study}",
    tags=["DICOMweb"],
    dependencies=[access.require_roles(ROLES), Depends(web_node.wait_for_rows)],
)
OBJECT, BYTES = "application/dicom", "application/octet-stream"
PLAIN = "1.2.840.10008.1.2.1"  # how decoded frames and objects come
AS_STORED = f'multipart/related; type="{OBJECT}"; transfer-syntax=*'
WEIGHT = r"[01](\.\d{0,3})?"  # RFC 9110 12.4.2
READ_AT_ONCE, MOST_HELD = 1 << 18, 1 << 24
DECODED_AT_ONCE = BoundedSemaphore(2)  # a frame may take much memory
IN_SERIES, IN_INSTANCE = "/series/{series}", "/series/{series}/instances/{instance}"
Frames = Annotated[str, PathParameter(pattern=r"^[0-9,]{1,4000}$")]
Accepted = list[tuple[str, str, str]]
PICTURES = ("image/jpeg", "image/png", "image/*", "*/*")
OF_OBJECTS, OF_FRAMES, OF_PICTURES = (
    Responses({200: {"content": {one: {} for one in media}}, **{status: {"model": Problem} for status in (400, 406)}})
    for media in (("multipart/related", OBJECT), ("multipart/related",), PICTURES[:2])
)
_JPEG = "1.2.840.10008.1.2.4"
# Media types of compressed frames, PS3.18 8.7.3.3.2
FRAME_MEDIA = {
    **dict.fromkeys((f"{_JPEG}.{n}" for n in (50, 51, 57, 70)), "image/jpeg"),
    **dict.fromkeys((f"{_JPEG}.{n}" for n in (80, 81)), "image/jls"),
    **dict.fromkeys((f"{_JPEG}.{n}" for n in (90, 91)), "image/jp2"),
    **dict.fromkeys((f"{_JPEG}.{n}" for n in (201, 202, 203)), "image/jphc"),
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}


@router.get("", response_class=StreamingResponse, responses=OF_OBJECTS)
def get_study(request: Request, node: Node, who: Who, study: Uid) -> StreamingResponse:
    """All objects of a study."""
    stored = _find_objects(node, who, study)
    worklist_routes.record_export(node, who, object_store.uid_key(study), object_store.uid_key(study))
    return _objects(request, stored)


@router.get(IN_SERIES, response_class=StreamingResponse, responses=OF_OBJECTS)
def get_series(request: Request, node: Node, who: Who, study: Uid, series: Uid) -> StreamingResponse:
    """All objects of a series."""
    stored = _find_objects(node, who, study, series)
    worklist_routes.record_export(node, who, object_store.uid_key(study), object_store.uid_key(series))
    return _objects(request, stored)


@router.get(IN_INSTANCE, response_class=StreamingResponse, responses=OF_OBJECTS)
def get_instance(request: Request, node: Node, who: Who, study: Uid, series: Uid, instance: Uid) -> StreamingResponse:
    """One object."""
    stored = _find_objects(node, who, study, series, instance)
    worklist_routes.record_export(node, who, object_store.uid_key(study))
    asked = accepted_media(request)
    unpacked = [syntax for kind, _, syntax in asked if kind == OBJECT]
    if not unpacked or any(kind == "multipart/related" for kind, _, _ in asked):
        return _objects(request, stored)
    [syntax] = _syntaxes(stored, unpacked)
    return StreamingResponse(_bytes(stored[0], syntax)[1], media_type=f"{OBJECT}; transfer-syntax={syntax}")


@router.get("/metadata", response_class=StreamingResponse, responses={200: IN_JSON})
def get_study_metadata(node: Node, who: Who, study: Uid) -> StreamingResponse:
    """Headers of all objects of a study."""
    return _metadata(_view_objects(node, who, study))


@router.get(IN_SERIES + "/metadata", response_class=StreamingResponse, responses={200: IN_JSON})
def get_series_metadata(node: Node, who: Who, study: Uid, series: Uid) -> StreamingResponse:
    """Headers of all objects of a series."""
    return _metadata(_view_objects(node, who, study, series))


@router.get(IN_INSTANCE + "/metadata", response_class=StreamingResponse, responses={200: IN_JSON})
def get_instance_metadata(node: Node, who: Who, study: Uid, series: Uid, instance: Uid) -> StreamingResponse:
    """The header of one object."""
    return _metadata(_view_objects(node, who, study, series, instance))


@router.get(IN_INSTANCE + "/frames/{frames}", response_class=StreamingResponse, responses=OF_FRAMES)
def get_frames(
    request: Request, node: Node, who: Who, study: Uid, series: Uid, instance: Uid, frames: Frames
) -> StreamingResponse:
    """Frames without their header: as they are stored, or decoded."""
    stored = _view_objects(node, who, study, series, instance)[0]
    head = header_reading.read_header(stored.path)
    numbers = _numbers(head, frames)
    media = FRAME_MEDIA.get(stored.syntax, BYTES)
    for kind, part, syntax in accepted_media(request):
        if kind not in ("multipart/related", "*/*", "multipart/*"):
            continue
        # A frame as it is stored is given to whoever names its kind, its transfer syntax, or takes any.
        fits = media != BYTES and syntax in ("", "*", stored.syntax)
        if fits and (syntax or part in (media, "image/*")):
            content_type = f"{media}; transfer-syntax={stored.syntax}"
            return _multipart(media, ((content_type, [single_frame.stored_frame(head, number)]) for number in numbers))
        if part in (BYTES, "", "*/*") and syntax in ("", "*", PLAIN):
            return _multipart(BYTES, ((BYTES, [_decode(head, number)]) for number in numbers))
    raise _not_acceptable(f"{BYTES} or {media}")


@router.get(IN_INSTANCE + "/rendered", response_class=Response, responses=OF_PICTURES)
def get_rendered(
    request: Request, node: Node, who: Who, study: Uid, series: Uid, instance: Uid, how: Annotated[Rendering, Query()]
) -> Response:
    """A picture of an object, as JPEG or PNG; of several frames the first."""
    return get_rendered_frame(request, node, who, study, series, instance, "1", how)


@router.get(IN_INSTANCE + "/frames/{frames}/rendered", response_class=Response, responses=OF_PICTURES)
def get_rendered_frame(
    request: Request,
    node: Node,
    who: Who,
    study: Uid,
    series: Uid,
    instance: Uid,
    frames: Frames,
    how: Annotated[Rendering, Query()],
) -> Response:
    """A picture of one frame, as JPEG or PNG."""
    stored = _view_objects(node, who, study, series, instance)[0]
    number, *others = _numbers(header_reading.read_header(stored.path), frames)
    if others:
        raise WebError(400, "one picture shows one frame", "frames", "Ask for each frame")
    kinds = [kind for kind, _, _ in accepted_media(request)]
    media = next(("image/png" if kind == "image/png" else "image/jpeg" for kind in kinds if kind in PICTURES), None)
    if media is None:
        raise _not_acceptable("image/jpeg or image/png")
    with DECODED_AT_ONCE:
        return Response(render_frame(stored.path, number, how, media.removeprefix("image/")), media_type=media)


def accepted_media(request: Request) -> Accepted:
    """(media type, that of its parts, transfer syntax) that the client takes, what it weighs most first."""
    weighed: list[tuple[float, tuple[str, str, str]]] = []
    for item in parse_http_list(request.headers.get("accept") or "*/*"):
        header = Message()
        header["content-type"] = item
        kind = item.partition(";")[0].strip().lower()
        part = header.get_param("type", "")
        syntax = header.get_param("transfer-syntax", "")
        quality = str(header.get_param("q", "1"))
        weight = float(quality) if re.fullmatch(WEIGHT, quality) else 1.0
        weighed.append((weight, (kind, str(part).lower(), str(syntax))))
    return [kinds for weight, kinds in sorted(weighed, key=lambda one: -one[0]) if weight > 0]


def _find_objects(
    node: WebNode, who: Actor, study: str, series: str | None = None, instance: str | None = None
) -> list[StoredObject]:
    for stored_study in search.stored_studies(node, who, [study]):
        if stored_study.row.state != GOING and (stored := list(stored_study.objects(series, instance))):
            return stored
        if stored_study.is_blind and any(replace(stored_study, is_blind=False).objects(series, instance)):
            raise worklist_routes.hidden_error("the path")
    web_node.refuse_gone(node, object_store.uid_key(study), "the path")
    raise WebError(404, "the node has no such object", "the path", "Search by QIDO-RS for what it has")


def _view_objects(
    node: WebNode, who: Actor, study: str, series: str | None = None, instance: str | None = None
) -> list[StoredObject]:
    """The same for somebody who looks at the study."""
    stored = _find_objects(node, who, study, series, instance)
    worklist_routes.record_view(node, who, object_store.uid_key(study))
    return stored


def _objects(request: Request, stored: list[StoredObject]) -> StreamingResponse:
    """Objects as the client takes them; each part says in which transfer syntax it comes."""
    objects = [
        syntax
        for kind, part, syntax in accepted_media(request)
        if kind in ("*/*", "multipart/*") or (kind == "multipart/related" and part in ("", OBJECT))
    ]
    syntaxes = _syntaxes(stored, objects)
    is_single = len(stored) == 1
    parts = (_bytes(one, syntax, is_single=is_single) for one, syntax in zip(stored, syntaxes, strict=True))
    return _multipart(OBJECT, ((f"{OBJECT}; transfer-syntax={syntax}", data) for syntax, data in parts))


def _syntaxes(stored: list[StoredObject], accepted_syntaxes: list[str]) -> list[str]:
    """The transfer syntax in which each object comes: the first of those wanted in which it can.

    Who names none gets explicit VR without compression (PS3.18 8.7.3), who says `*` what is stored. Raises WebError.
    """
    if not accepted_syntaxes:
        raise _not_acceptable(AS_STORED)
    syntaxes = []
    for syntax in dict.fromkeys(one.syntax for one in stored):
        plain = PLAIN if syntax == PLAIN or single_frame.is_decodable(syntax) else None
        comes = (syntax if one in ("*", syntax) else plain if one in ("", PLAIN) else None for one in accepted_syntaxes)
        syntaxes.append((syntax, next(filter(None, comes), None)))
    lacking = [own for own, comes in syntaxes if comes is None]
    if lacking:
        problem = f"objects in transfer syntax {', '.join(lacking)} cannot come as the Accept header asks"
        raise WebError(406, problem, "the request", f"Accept {AS_STORED}")
    return [str(dict(syntaxes)[one.syntax]) for one in stored]


def _bytes(stored: StoredObject, syntax: str, *, is_single: bool = True) -> tuple[str, Iterable[bytes]]:
    """(transfer syntax, bytes) of an object; a damaged one among others comes as it is stored."""
    if syntax != stored.syntax:
        try:
            with DECODED_AT_ONCE:
                return syntax, _spool(single_frame.native_object(stored.path), stored.path.parent)
        except FormatError as error:
            if is_single:
                raise WebError(406, f"the object {error.problem}", "the request", f"Accept {AS_STORED}") from error
    return stored.syntax, _file(stored.path)


def _spool(data: bytes, folder: Path) -> Iterator[bytes]:
    """Bytes, many of them from a file without a name: how long they wait is for the client to say."""
    if len(data) <= MOST_HELD:
        yield data
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(data)
        del data
        file.seek(0)
        yield from iter(lambda: file.read(READ_AT_ONCE), b"")


def _metadata(objects: list[StoredObject]) -> StreamingResponse:
    def text() -> Iterator[str]:
        for number, stored in enumerate(objects):
            yield ("," if number else "[") + json.dumps(stored.elements)
        yield "]"

    return StreamingResponse(text(), media_type=MEDIA)


def _multipart(kind: str, parts: Iterator[tuple[str, Iterable[bytes]]]) -> StreamingResponse:
    """Parts (Content-Type, bytes in pieces), made one after the other while they are sent; the first one before."""
    boundary = uuid.uuid4().hex
    first = next(parts)

    def body() -> Iterator[bytes]:
        for content_type, pieces in chain([first], parts):
            yield f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()
            yield from pieces
        yield f"\r\n--{boundary}--\r\n".encode()

    return StreamingResponse(body(), media_type=f'multipart/related; type="{kind}"; boundary={boundary}')


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ_AT_ONCE):
            yield data


def _decode(head: Header, number: int) -> bytes:
    with DECODED_AT_ONCE:
        return single_frame.native_frame(head, number)


def _numbers(head: Header, frames: str) -> list[int]:
    """Frames from 0. Raises WebError where the object has none, or not these."""
    count = header_reading.frame_count(head) if head.has_pixels else 0
    numbers = [int(number or 0) - 1 for number in frames.split(",")]
    if min(numbers) < 0 or max(numbers) >= count:
        raise WebError(404, f"the object has {count} frames", "frames", "Ask for one of them, counted from 1")
    return numbers


def _not_acceptable(offered: str) -> WebError:
    return WebError(406, "the Accept header asks for what the node cannot give", "the request", f"Accept {offered}")


NUMBER = r"-?\d{1,9}(\.\d{1,9})?"
FUNCTIONS = {"": "LINEAR", "linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}


class Rendering(BaseModel):
    """Settings of a picture. window: centre, width and function; viewport: width and height (pixels)."""

    window: Annotated[str | None, Field(pattern=rf"^{NUMBER},{NUMBER}(,(linear|linear-exact|sigmoid))?$")] = None
    viewport: Annotated[str | None, Field(pattern=r"^[1-9]\d{0,3},[1-9]\d{0,3}$")] = None
    quality: Annotated[int, Field(ge=1, le=100)] = 90


def render_frame(path: Path, number: int, how: Rendering, kind: str) -> bytes:
    """A frame as `jpeg` or `png`. Raises FormatError where it cannot be decoded."""
    picture = Image.fromarray(
        single_frame.displayed_frame(header_reading.read_header(path), number, _window(how.window))
    )
    if how.viewport is not None:
        width, height = map(int, how.viewport.split(","))
        scale = min(width / picture.width, height / picture.height)
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    file = io.BytesIO()
    picture.save(file, kind, quality=how.quality)
    return file.getvalue()


def _window(text: str | None) -> DisplayWindow | None:
    if text is None:
        return None
    centre, width, function = re.split(",", f"{text},")[:3]
    if float(width) <= 0:
        raise WebError(400, "the width of a window must be above 0", "window", "Give window=centre,width,linear")
    return DisplayWindow(float(centre), float(width), FUNCTIONS[function])
