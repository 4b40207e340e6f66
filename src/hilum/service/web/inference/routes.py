"""The Open Inference Protocol v2 over HTTP: requests checked before any voxel is read, and routes that answer them.

With its extension for binary tensors:
https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from starlette.types import Receive, Scope, Send

from hilum.errors import FormatError, ResourceError
from hilum.files.storage import atomic
from hilum.service.model_facts import ModelFacts
from hilum.service.web import access, node_routes
from hilum.service.web.access import ANYBODY, ROLES, WORKING, Who
from hilum.service.web.node_routes import THREADS
from hilum.service.web.response_shapes import INFERENCE, InferenceProblem
from hilum.service.web.web_node import Node, WebError, WebNode
from hilum.service.work.answer_tensors import (
    BYTES,
    FINDINGS,
    INTEGER,
    LABELS,
    MOST_IN_JSON,
    REAL,
    InferenceQuestion,
    InferenceReply,
)
from hilum.values.covariate_values import CovariateValues

IMAGE, AFFINE = "image", "affine"
# Bytes of JSON; a number takes some ten of them, and ten times that once it is read.
MOST_JSON_BYTES = 1 << 24
BINARY_SIZE, BINARY, BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
# Parameters of the protocol and its extensions, which say nothing of the patient.
OF_PROTOCOL = frozenset({BINARY_OUTPUT, "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"})
Parameter = str | int | float | bool


class InputShape(BaseModel):
    """An input. data: its numbers, nested or in one list; without them they lie behind the header."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=5)]
    datatype: str
    parameters: dict[str, Parameter] = {}
    data: list[Any] | None = None


class OutputShape(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Parameter] = {}


class RequestShape(BaseModel):
    """The JSON of a request. parameters: covariates of the patient, beside those of the protocol."""

    id: str = ""
    parameters: dict[str, Parameter] = {}
    inputs: Annotated[list[InputShape], Field(max_length=2)]
    outputs: list[OutputShape] | None = None


class TensorKind(NamedTuple):
    """The tensor that a model takes: its type, and its axes, -1 where any number may lie."""

    datatype: str
    dtype: type[np.generic]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class InferenceRequest:
    """Request of an inference: the model's inputs, from JSON or from the bytes behind it.

    shape:   (channels, *spatial)
    voxels:  from JSON; None where they come as bytes
    places:  {input: (offset, bytes)} of those behind the header, in their order
    affine:  from JSON
    wanted:  {output: whether as bytes}; None for all, as `as_bytes` says
    """

    id: str
    shape: tuple[int, ...]
    voxels: NDArray[np.float32] | None
    affine: NDArray[np.float64] | None
    places: Mapping[str, tuple[int, int]]
    wanted: Mapping[str, bool] | None
    as_bytes: bool
    covariates: CovariateValues

    @property
    def behind(self) -> int:
        """Bytes behind the header."""
        return sum(size for _, size in self.places.values())


def inputs_of(model: ModelFacts) -> dict[str, TensorKind]:
    """The inputs of a model. The affine may be left out of what is no volume."""
    side = model.axes + 1
    return {
        IMAGE: TensorKind("FP32", np.float32, (len(model.channels), *[-1] * model.axes)),
        AFFINE: TensorKind("FP64", np.float64, (side, side)),
    }


def read_inference(text: bytes, model: ModelFacts, most_bytes: int) -> InferenceRequest:
    """The request that JSON states; nothing is made that is larger than the JSON itself.

    most_bytes: of the voxels
    Raises FormatError for what is none, or does not suit the model.
    """
    try:
        request = RequestShape.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the JSON"
        raise FormatError(f"{where}: {first['msg']}", model.name, "Send a request of the protocol") from error
    inputs = inputs_of(model)
    by_name = {one.name: one for one in request.inputs}
    if len(by_name) < len(request.inputs) or not {IMAGE} <= {*by_name} <= {*inputs}:
        raise FormatError(
            f"has the inputs {', '.join(one.name for one in request.inputs)}", model.name, _expected_tensors(model)
        )
    if AFFINE not in by_name and model.axes > 2:
        raise FormatError("has no affine, so nobody knows where the voxels lie", model.name, _expected_tensors(model))
    for name, one in by_name.items():
        _check(one, inputs[name], model, most_bytes)
    offsets, at = dict[str, tuple[int, int]](), 0
    for one in request.inputs:  # their bytes lie in this order
        if one.data is None:
            size = _bytes_of(one, inputs[one.name], model)
            offsets[one.name], at = (at, size), at + size
    as_bytes = bool(request.parameters.get(BINARY_OUTPUT, False))
    outputs = request.outputs and {one.name: bool(one.parameters.get(BINARY, as_bytes)) for one in request.outputs}
    arrays = {name: _numbers(one, inputs[name], model) for name, one in by_name.items() if one.data is not None}
    covariates = {name: value for name, value in request.parameters.items() if name not in OF_PROTOCOL}
    shape, voxels = tuple(by_name[IMAGE].shape), arrays.get(IMAGE)
    return InferenceRequest(
        request.id, shape, voxels, arrays.get(AFFINE), offsets, outputs or None, as_bytes, covariates
    )


def _expected_tensors(model: ModelFacts) -> str:
    """Outputs that are to be sent."""
    descriptions = (f"{name} {kind.datatype} {list(kind.shape)}" for name, kind in inputs_of(model).items())
    return f"Send {' and '.join(descriptions)}, as /v2/models/{model.name} states them"


def _check(input_shape: InputShape, kind: TensorKind, model: ModelFacts, most_bytes: int) -> None:
    """Raise FormatError for another type or shape, or one that claims more voxels than are taken."""
    fits = len(input_shape.shape) == len(kind.shape) and all(
        n in (size, -1) for size, n in zip(input_shape.shape, kind.shape, strict=True)
    )
    if input_shape.datatype != kind.datatype or not fits:
        raise FormatError(
            f"{input_shape.name} is {input_shape.datatype} {input_shape.shape}", model.name, _expected_tensors(model)
        )
    if (size := _size(input_shape, kind)) > most_bytes:
        problem = (
            f"{input_shape.name} would take {size / 1e6:,.0f} MB, and at most {most_bytes / 1e6:,.0f} MB are taken"
        )
        raise FormatError(problem, model.name, "Send a smaller image, or raise dicom.max_object_mb")


def _size(input_shape: InputShape, kind: TensorKind) -> int:
    return math.prod(input_shape.shape) * np.dtype(kind.dtype).itemsize


def _bytes_of(input_shape: InputShape, kind: TensorKind, model: ModelFacts) -> int:
    """Bytes of an input that lie behind the header. Raises FormatError where its shape says otherwise."""
    stated_size, size = input_shape.parameters.get(BINARY_SIZE), _size(input_shape, kind)
    if stated_size != size:
        problem = f"{input_shape.name} of {input_shape.shape} has {size} bytes, and {BINARY_SIZE} is {stated_size}"
        raise FormatError(problem, model.name, f"Send data, or {BINARY_SIZE} and so many bytes")
    return size


def _numbers(input_shape: InputShape, kind: TensorKind, model: ModelFacts) -> NDArray[Any]:
    """The numbers of an input's JSON in its shape. Raises FormatError for others, or another count."""
    count = math.prod(input_shape.shape)
    try:
        flat = list(_flat(input_shape.data))
        if len(flat) == count:
            return np.array(flat, np.float64).astype(kind.dtype).reshape(input_shape.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(
            f"data of {input_shape.name} hold what is no number", model.name, _expected_tensors(model)
        ) from error
    raise FormatError(f"{input_shape.name} of {input_shape.shape} has {len(flat)} numbers", model.name, f"Send {count}")


def _flat(data: Any) -> Iterator[float]:
    """The numbers of nested lists, in order; without recursion, which a hostile depth would exhaust."""
    waiting = [iter(data)]
    while waiting:
        for one in waiting[-1]:
            if isinstance(one, list):
                waiting.append(iter(one))
                break
            if isinstance(one, bool) or not isinstance(one, int | float):
                raise TypeError(type(one).__name__)
            yield one
        else:
            waiting.pop()


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
    platform: str = "hilum"
    inputs: list[TensorShape]
    outputs: list[TensorShape]


@router.get("", dependencies=[access.require_roles(ROLES)])
async def server_metadata(node: Node) -> ServerShape:
    """Describe the server."""
    return ServerShape(name=node.settings.node.name, version=version("hilum"), extensions=["binary_tensor_data"])


@router.get("/health/live", dependencies=[access.require_roles(ANYBODY)])
async def server_live() -> ServerLiveShape:
    """The web process answers."""
    return ServerLiveShape(live=True)


@router.get("/health/ready", dependencies=[access.require_roles(ANYBODY)], responses={503: {"model": ServerReadyShape}})
async def server_ready(node: Node, response: Response) -> ServerReadyShape:
    """The parts of the node work."""
    parts = await to_thread.run_sync(node_routes.node_parts, node, limiter=THREADS)
    is_ready = all(part.ok for part in parts)
    response.status_code = 200 if is_ready else 503
    return ServerReadyShape(name=node.settings.node.name, ready=is_ready)


@router.get("/models/{name}", dependencies=[access.require_roles(ROLES)])
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


@router.get("/models/{name}/ready", dependencies=[access.require_roles(ROLES)])
def model_ready(node: Node, name: str) -> ServerReadyShape:
    """The model can be asked; it is loaded at the first question."""
    return ServerReadyShape(name=_model(node, name).name, ready=True)


@router.post(
    "/models/{name}/infer",
    dependencies=[access.require_roles(WORKING)],
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
    header_length = request.headers.get(HEADER_LENGTH, str(length))
    if not (header_length.isascii() and header_length.isdecimal()) or int(header_length) > length:
        raise FormatError(
            f"{header_length!r} is no length of the header of {length} bytes", HEADER_LENGTH, "Correct it"
        )
    header = int(header_length)
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


def _check_outputs(node: WebNode, model: ModelFacts, asked: InferenceRequest) -> None:
    """Raise WebError or ResourceError for an answer that would be too large, before anything is computed."""
    voxels = int(np.prod(asked.shape[1:]))
    outputs_wanted = dict.fromkeys(model.outputs, asked.as_bytes) if asked.wanted is None else asked.wanted
    dense = [name for name in outputs_wanted if name in model.outputs and model.outputs[name] >= model.axes > 1]
    for name in dense:
        if voxels > MOST_IN_JSON and not outputs_wanted[name]:
            raise WebError(413, f"{name} has {voxels:,} voxels, too many for JSON", model.name, "Ask for binary_data")
    # Twice: an output lies in a file of its own before it is part of the answer.
    size = asked.behind + 2 * 4 * voxels * len(dense)
    if node_routes.free_bytes(node) - size < node.settings.node.min_free_gb * 1e9:
        raise ResourceError("there is too little disk space for the image and its answer", model.name, "Free some")


async def _reply(
    node: WebNode, model: ModelFacts, asked: InferenceRequest, folder: Path, first: bytes, stream: AsyncIterator[bytes]
) -> InferenceReply:
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
        raise atomic.unwritable_error(error, folder) from error
    question = InferenceQuestion(
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
