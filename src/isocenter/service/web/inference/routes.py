"""Routes of the Open Inference Protocol v2, with its extension for binary tensors.

https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from isocenter.errors import FormatError, ResourceError
from isocenter.files import unwritable
from isocenter.service.routing.facts import ModelFacts
from isocenter.service.web.access import ANYBODY, ROLES, WORKING, Who, roles
from isocenter.service.web.health import THREADS, parts_of
from isocenter.service.web.inference.request import (
    AFFINE,
    IMAGE,
    MOST_JSON_BYTES,
    Inference,
    RequestShape,
    inputs_of,
    read_inference,
)
from isocenter.service.web.node import free_bytes
from isocenter.service.web.shapes import INFERENCE, InferenceProblem
from isocenter.service.web.web_node import Node, WebError, WebNode
from isocenter.service.work.question import (
    BYTES,
    FINDINGS,
    INTEGER,
    LABELS,
    MOST_IN_JSON,
    REAL,
    Question,
    Reply,
)

HEADER_LENGTH = "Inference-Header-Content-Length"
VOXELS, OCTETS = "voxels", "application/octet-stream"
router = APIRouter(
    prefix=INFERENCE,
    tags=["Open Inference Protocol"],
    responses={status: {"model": InferenceProblem} for status in (401, 403, 404, 422, 503)},
)


class ServerShape(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ServerLiveShape(BaseModel):
    """Whether the server answers."""

    live: bool


class ServerReadyShape(BaseModel):
    """Whether the server, or a model, can be asked."""

    name: str
    ready: bool


class TensorShape(BaseModel):
    """A tensor; -1 for an axis of any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadataShape(BaseModel):
    """A model: its whole answer, not the outputs of its network."""

    name: str
    platform: str = "isocenter"
    inputs: list[TensorShape]
    outputs: list[TensorShape]


@router.get("", dependencies=[roles(*ROLES)])
async def server_metadata(node: Node) -> ServerShape:
    """Describe the server."""
    return ServerShape(name=node.settings.node.name, version=version("isocenter"), extensions=["binary_tensor_data"])


@router.get("/health/live", dependencies=[roles(ANYBODY)])
async def server_live() -> ServerLiveShape:
    """The web process answers."""
    return ServerLiveShape(live=True)


@router.get("/health/ready", dependencies=[roles(ANYBODY)], responses={503: {"model": ServerReadyShape}})
async def server_ready(node: Node, response: Response) -> ServerReadyShape:
    """The parts of the node work."""
    parts = await to_thread.run_sync(parts_of, node, limiter=THREADS)
    is_ready = all(part.ok for part in parts)
    response.status_code = 200 if is_ready else 503
    return ServerReadyShape(name=node.settings.node.name, ready=is_ready)


@router.get("/models/{name}", dependencies=[roles(*ROLES)])
def model_metadata(node: Node, name: str) -> ModelMetadataShape:
    """Inputs and outputs of a model."""
    model = _model(node, name)
    inputs = [
        TensorShape(name=name, datatype=kind.datatype, shape=list(kind.shape))
        for name, kind in inputs_of(model).items()
    ]
    outputs = [
        TensorShape(name=name, datatype=_type_of(name), shape=[1] if name == FINDINGS else [-1] * axes)
        for name, axes in model.outputs.items()
    ]
    return ModelMetadataShape(name=name, inputs=inputs, outputs=outputs)


@router.get("/models/{name}/ready", dependencies=[roles(*ROLES)])
def model_ready(node: Node, name: str) -> ServerReadyShape:
    """The model can be asked; it is loaded at the first question."""
    return ServerReadyShape(name=_model(node, name).name, ready=True)


@router.post(
    "/models/{name}/infer",
    dependencies=[roles(*WORKING)],
    response_class=FileResponse,
    responses={
        200: {"content": {"application/json": {}, OCTETS: {}}},
        **{status: {"model": InferenceProblem} for status in (408, 411, 413, 415, 500)},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": RequestShape.model_json_schema()},
                OCTETS: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def infer(request: Request, node: Node, who: Who, name: str) -> FileResponse:
    """The model's answer for one image."""
    model = await to_thread.run_sync(_model, node, name)
    header, rest = _lengths(request, node)
    stream = _pieces(request)
    text = bytearray()
    async for piece in stream:
        text += piece
        if len(text) >= header:
            break
    if len(text) < header:
        raise FormatError(f"the body ends after {len(text)} bytes of {header + rest}", name, "Send all of it")
    most = node.settings.dicom.max_object_mb * 1_000_000
    asked = await to_thread.run_sync(read_inference, bytes(text[:header]), model, most)
    if asked.behind != rest:
        problem = f"{rest} bytes lie behind the header, and the inputs say {asked.behind}"
        raise FormatError(problem, name, "Send the bytes of each input, in their order")
    _check_outputs(node, model, asked)
    hashed = {"model": model.hash}
    await to_thread.run_sync(lambda: node.record("prediction", f"{INFERENCE}/models/{name}", who, detail=hashed))
    with node.computing.folder() as folder:
        reply = await _reply(node, model, asked, folder, bytes(text[header:]), stream)
        if reply.path is None:
            raise WebError(reply.status, reply.problem, name, reply.remedy)
        headers = {HEADER_LENGTH: str(reply.header)} if reply.header else {}
        return _OnceOnly(reply.path, headers=headers, media_type=OCTETS if reply.header else "application/json")


class _OnceOnly(FileResponse):
    """An answer whose folder is removed once it is sent, or cannot be."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            shutil.rmtree(Path(self.path).parent, ignore_errors=True)


def _model(node: WebNode, name: str) -> ModelFacts:
    """The facts of a model. Raises WebError for one that is not there, or takes clips."""
    model = node.models.get(name)
    if model is None or name not in node.settings.models:
        raise WebError(404, "there is no such model", name, "See /api/models")
    if not model.outputs:
        raise WebError(422, "the model takes clips, which this protocol does not carry", name, "Send DICOM")
    return model


def _type_of(output: str) -> str:
    return BYTES if output == FINDINGS else INTEGER if output.endswith(LABELS) else REAL


def _lengths(request: Request, node: WebNode) -> tuple[int, int]:
    """Bytes of the header and of what lies behind it. Raises WebError, before any of it is read, for too many."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise WebError(415, "the body is compressed", "Content-Encoding", "Send it as it is")
    try:
        length = int(request.headers["content-length"])
    except (KeyError, ValueError) as error:
        raise WebError(411, "the body has no stated length", "Content-Length", "State it") from error
    stated = request.headers.get(HEADER_LENGTH, str(length))
    if not (stated.isascii() and stated.isdecimal()) or int(stated) > length:
        raise FormatError(f"{stated!r} is no length of the header of {length} bytes", HEADER_LENGTH, "Correct it")
    header = int(stated)
    most = node.settings.dicom.max_object_mb * 1_000_000 + MOST_JSON_BYTES
    if length > most:
        problem = f"the body has {length / 1e6:,.0f} MB, and at most {most / 1e6:,.0f} MB are taken"
        raise WebError(413, problem, "Content-Length", "Send a smaller image, or raise dicom.max_object_mb")
    if header > MOST_JSON_BYTES:
        problem = f"{header / 1e6:,.0f} MB of JSON, and at most {MOST_JSON_BYTES / 1e6:,.0f} MB are read"
        raise WebError(413, problem, HEADER_LENGTH, "Send the voxels as binary tensor data")
    return header, length - header


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes."""
    async for piece in request.stream():
        yield piece


def _check_outputs(node: WebNode, model: ModelFacts, asked: Inference) -> None:
    """Raise WebError or ResourceError for an answer that would be too large, before anything is computed."""
    voxels = int(np.prod(asked.shape[1:]))
    wanted = dict.fromkeys(model.outputs, asked.as_bytes) if asked.wanted is None else asked.wanted
    dense = [name for name in wanted if name in model.outputs and model.outputs[name] >= model.axes > 1]
    for name in dense:
        if voxels > MOST_IN_JSON and not wanted[name]:
            raise WebError(413, f"{name} has {voxels:,} voxels, too many for JSON", model.name, "Ask for binary_data")
    # Twice: an output lies in a file of its own before it is part of the answer.
    size = asked.behind + 2 * 4 * voxels * len(dense)
    if free_bytes(node) - size < node.settings.node.min_free_gb * 1e9:
        raise ResourceError("there is too little disk space for the image and its answer", model.name, "Free some")


async def _reply(
    node: WebNode, model: ModelFacts, asked: Inference, folder: Path, first: bytes, stream: AsyncIterator[bytes]
) -> Reply:
    """The reply to a request, whose voxels are first written to a file."""
    path = folder / VOXELS
    try:
        with path.open("wb") as file:
            size = await to_thread.run_sync(file.write, first)
            async for piece in stream:
                size += await to_thread.run_sync(file.write, piece)
        if size != asked.behind:
            problem = f"{size} bytes lie behind the header, and the inputs say {asked.behind}"
            raise FormatError(problem, model.name, "Send the bytes of each input, in their order")
        offset = asked.places.get(IMAGE, (0, 0))[0]
        if asked.voxels is not None:
            path, offset = folder / f"{VOXELS}.json", 0
            await to_thread.run_sync(asked.voxels.tofile, path)
        affine = asked.affine
        if AFFINE in asked.places:
            read = partial(np.fromfile, folder / VOXELS, np.float64, count=(model.axes + 1) ** 2)
            affine = (await to_thread.run_sync(partial(read, offset=asked.places[AFFINE][0]))).reshape(
                model.axes + 1, -1
            )
    except OSError as error:
        raise unwritable(error, folder) from error
    question = Question(
        model.name,
        model.hash,
        folder,
        (path.name, offset),
        asked.shape,
        None if affine is None else affine.tolist(),
        asked.wanted,
        asked.as_bytes,
        asked.covariates,
        asked.id,
    )
    return await to_thread.run_sync(node.computing.ask, question, limiter=node.computing.turn)
