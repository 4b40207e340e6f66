"""A request of the Open Inference Protocol, checked before any voxel is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from isocenter.errors import FormatError
from isocenter.service.routing.facts import ModelFacts

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


class Kind(NamedTuple):
    """The tensor that a model takes: its type, and its axes, -1 where any number may lie."""

    datatype: str
    dtype: type[np.generic]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Inference:
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
    covariates: Mapping[str, Any]

    @property
    def behind(self) -> int:
        """Bytes behind the header."""
        return sum(size for _, size in self.places.values())


def inputs_of(model: ModelFacts) -> dict[str, Kind]:
    """The inputs of a model. The affine may be left out of what is no volume."""
    side = model.axes + 1
    return {
        IMAGE: Kind("FP32", np.float32, (len(model.channels), *[-1] * model.axes)),
        AFFINE: Kind("FP64", np.float64, (side, side)),
    }


def read_inference(text: bytes, model: ModelFacts, most_bytes: int) -> Inference:
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
    known = inputs_of(model)
    given = {one.name: one for one in request.inputs}
    if len(given) < len(request.inputs) or not {IMAGE} <= {*given} <= {*known}:
        raise FormatError(f"has the inputs {', '.join(one.name for one in request.inputs)}", model.name, _taken(model))
    if AFFINE not in given and model.axes > 2:
        raise FormatError("has no affine, so nobody knows where the voxels lie", model.name, _taken(model))
    for name, one in given.items():
        _check(one, known[name], model, most_bytes)
    offsets, at = dict[str, tuple[int, int]](), 0
    for one in request.inputs:  # their bytes lie in this order
        if one.data is None:
            size = _bytes_of(one, known[one.name], model)
            offsets[one.name], at = (at, size), at + size
    as_bytes = bool(request.parameters.get(BINARY_OUTPUT, False))
    wanted = request.outputs and {one.name: bool(one.parameters.get(BINARY, as_bytes)) for one in request.outputs}
    arrays = {name: _numbers(one, known[name], model) for name, one in given.items() if one.data is not None}
    covariates = {name: value for name, value in request.parameters.items() if name not in OF_PROTOCOL}
    shape, voxels = tuple(given[IMAGE].shape), arrays.get(IMAGE)
    return Inference(request.id, shape, voxels, arrays.get(AFFINE), offsets, wanted or None, as_bytes, covariates)


def _taken(model: ModelFacts) -> str:
    """Outputs that are to be sent."""
    each = (f"{name} {kind.datatype} {list(kind.shape)}" for name, kind in inputs_of(model).items())
    return f"Send {' and '.join(each)}, as /v2/models/{model.name} states them"


def _check(one: InputShape, kind: Kind, model: ModelFacts, most_bytes: int) -> None:
    """Raise FormatError for another type or shape, or one that claims more voxels than are taken."""
    fits = len(one.shape) == len(kind.shape) and all(
        n in (size, -1) for size, n in zip(one.shape, kind.shape, strict=True)
    )
    if one.datatype != kind.datatype or not fits:
        raise FormatError(f"{one.name} is {one.datatype} {one.shape}", model.name, _taken(model))
    if (size := _size(one, kind)) > most_bytes:
        problem = f"{one.name} would take {size / 1e6:,.0f} MB, and at most {most_bytes / 1e6:,.0f} MB are taken"
        raise FormatError(problem, model.name, "Send a smaller image, or raise dicom.max_object_mb")


def _size(one: InputShape, kind: Kind) -> int:
    return math.prod(one.shape) * np.dtype(kind.dtype).itemsize


def _bytes_of(one: InputShape, kind: Kind, model: ModelFacts) -> int:
    """Bytes of an input that lie behind the header. Raises FormatError where its shape says otherwise."""
    stated, size = one.parameters.get(BINARY_SIZE), _size(one, kind)
    if stated != size:
        problem = f"{one.name} of {one.shape} has {size} bytes, and {BINARY_SIZE} is {stated}"
        raise FormatError(problem, model.name, f"Send data, or {BINARY_SIZE} and so many bytes")
    return size


def _numbers(one: InputShape, kind: Kind, model: ModelFacts) -> NDArray[Any]:
    """The numbers of an input's JSON in its shape. Raises FormatError for others, or another count."""
    count = math.prod(one.shape)
    try:
        flat = list(_flat(one.data))
        if len(flat) == count:
            return np.array(flat, np.float64).astype(kind.dtype).reshape(one.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"data of {one.name} hold what is no number", model.name, _taken(model)) from error
    raise FormatError(f"{one.name} of {one.shape} has {len(flat)} numbers", model.name, f"Send {count}")


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
