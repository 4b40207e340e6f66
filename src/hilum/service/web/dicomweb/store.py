"""STOW-RS: objects taken as they come, each a file before the next begins (PS3.18 10.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Self

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from hilum.errors import FormatError
from hilum.files.dicom import object_identity
from hilum.files.dicom.object_identity import ObjectIdentity
from hilum.service.dimse_statuses import DUPLICATE
from hilum.service.objects import dicom_json, multipart, object_store
from hilum.service.objects.dicom_json import IN_JSON, MEDIA, DicomJson
from hilum.service.objects.journal import Received
from hilum.service.objects.multipart import MultipartReader
from hilum.service.objects.object_store import IncomingPart
from hilum.service.web import access, web_node
from hilum.service.web.access import WORKING
from hilum.service.web.response_shapes import Problem
from hilum.service.web.web_node import Node, Uid, WebError, WebNode

router = APIRouter(
    prefix="/dicomweb",
    tags=["DICOMweb"],
    dependencies=[access.require_roles(WORKING)],
    default_response_class=Response,
    responses={
        200: IN_JSON,
        202: {"description": "Some objects were not stored", **IN_JSON},
        409: {"description": "No object was stored", **IN_JSON},
        **{status: {"model": Problem} for status in (408, 413, 415)},
    },
)
BODY = {"requestBody": {"required": True, "content": {"multipart/related": {"schema": {"type": "string"}}}}}
# PS3.18 I.2.2: why an object is not stored
TOO_LARGE, NOT_OF_STUDY, NO_OBJECT = 0xA700, 0xA900, 0xC000
MOST_OBJECTS = 100_000  # of one request: each is a line of its answer


@router.post("/studies", openapi_extra=BODY)
async def store(request: Request, node: Node) -> JSONResponse:
    """Store objects of any study."""
    return await _store_parts(request, node, None)


@router.post("/studies/{study}", openapi_extra=BODY)
async def store_in_study(request: Request, node: Node, study: Uid) -> JSONResponse:
    """Store objects of one study."""
    return await _store_parts(request, node, study)


async def _store_parts(request: Request, node: WebNode, study: str | None) -> JSONResponse:
    try:
        reader = MultipartReader(multipart.boundary_of(request.headers.get("content-type", "")))
    except FormatError as error:
        raise WebError(415, error.problem, error.where, error.remedy) from error
    peer = request.client.host if request.client else ""
    with _Storing(node, peer, study) as storing:
        async for data in request.stream():
            # Writing waits for the disk, and others are served meanwhile.
            await _in_thread(partial(storing.take, reader.feed(data)))
        reader.finish()
        await _in_thread(storing.secure)
    if not storing.kept and not storing.failed:
        raise FormatError("the body holds no object", "the request", "Send one part for each object")
    status = 409 if not storing.kept else 202 if storing.failed else 200
    return JSONResponse(storing.answer(web_node.dicomweb_url(request)), status, media_type=MEDIA)


async def _in_thread(step: Callable[[], None]) -> None:
    """Take a step in a thread; a cancelled request ends only after it, for it writes to open files."""
    taken = asyncio.get_running_loop().run_in_executor(None, step)
    cancelled: asyncio.CancelledError | None = None
    while not taken.done():
        try:
            await asyncio.wait([taken])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        taken.exception()  # the step's own error is nobody's any more
        raise cancelled
    taken.result()


class _Storing:
    """The objects of one request: at most one is a file that is not whole."""

    def __init__(self, node: WebNode, peer: str, study: str | None) -> None:
        self.node, self.peer, self.study = node, peer, study
        self.kept: list[Received] = []
        self.failed: list[tuple[ObjectIdentity | None, int]] = []
        self._largest = node.settings.dicom.max_object_mb * 1_000_000
        self._part: IncomingPart | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def take(self, events: Iterator[str | bytes | None]) -> None:
        """Write what has come of the body. Raises ResourceError and FormatError."""
        for event in events:
            if isinstance(event, str):
                self._start_object(event)
            elif isinstance(event, bytes):
                self._write(event)
            else:
                self._end()

    def secure(self) -> None:
        """Wait for the disk, where the node promises that before it answers."""
        if self.node.settings.dicom.sync != "commit":
            object_store.secure_files(self.node.folder, [one.path for one in self.kept])

    def answer(self, base: str) -> DicomJson:
        """Answer on what was stored, and what was not and why, as DICOM JSON. base: of the URLs. PS3.18 10.5.3.2"""
        stored = [
            _reference(one)
            | dicom_json.json_element(
                "RetrieveURL", [f"{base}/studies/{one.study}/series/{one.series}/instances/{one.instance}"]
            )
            for one in self.kept
        ]
        failed = [_reference(one) | dicom_json.json_element("FailureReason", [reason]) for one, reason in self.failed]
        response, studies = DicomJson(), {one.study for one in self.kept}
        if len(studies) == 1:
            response |= dicom_json.json_element("RetrieveURL", [f"{base}/studies/{one}" for one in studies])
        for name, items in (("ReferencedSOPSequence", stored), ("FailedSOPSequence", failed)):
            response |= dicom_json.json_element(name, items) if items else {}
        return response

    def _start_object(self, content_type: str) -> None:
        if len(self.kept) + len(self.failed) >= MOST_OBJECTS:
            raise WebError(
                413, f"the body holds more than {MOST_OBJECTS} objects", "the request", "Send them in several"
            )
        if content_type not in ("application/dicom", ""):
            self.failed.append((None, NO_OBJECT))
            return
        self._part = self._stack.enter_context(self.node.store.open_part())

    def _write(self, data: bytes) -> None:
        if self._part is None:
            return
        self._part.write(data)
        if self._part.size > self._largest:
            self._drop()
            self.failed.append((None, TOO_LARGE))

    def _end(self) -> None:
        if self._part is None:
            return
        try:
            identity = object_identity.read_identity(self._part.path)
            if self.study not in (None, identity.study):
                self.failed.append((identity, NOT_OF_STUDY))
                return
            received = self.node.store.keep(self._part, self.peer, "stow")
            if received.is_aside:
                self.failed.append((identity, DUPLICATE))
            else:
                self.node.arrivals.add(received)
                self.kept.append(received)
        except FormatError:
            self.failed.append((None, NO_OBJECT))
        finally:
            self._drop()

    def _drop(self) -> None:
        self._part = None
        self._stack.close()


def _reference(stored: ObjectIdentity | Received | None) -> DicomJson:
    if stored is None:
        return {}
    return dicom_json.json_element("ReferencedSOPClassUID", [stored.sop_class]) | dicom_json.json_element(
        "ReferencedSOPInstanceUID", [stored.instance]
    )
