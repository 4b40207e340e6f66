"""A process that answers single images for other programs, each in a file that is sent as it is."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import struct
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from hilum.errors import HilumError, ResourceError, UsageError
from hilum.files.storage import atomic
from hilum.prediction import case_prediction
from hilum.prediction.case_prediction import CaseRequest
from hilum.runtime import Model, ModelRequest
from hilum.service.configuration import NodeSettings
from hilum.service.records import deployments, record_database
from hilum.service.work import answer_tensors
from hilum.service.work.answer_tensors import (
    MOST_IN_JSON,
    InferenceQuestion,
    InferenceReply,
    OutputTensor,
    VoxelProbabilityFiles,
)
from hilum.service.work.warm_models import WarmModels
from hilum.values import Case, Geometry, Image

NAME = "answer"


def serve_questions(settings: NodeSettings, connection: Connection) -> None:
    """Answer each `InferenceQuestion` of the connection by an `InferenceReply`, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks ends this process
    # What libraries find odd they say with the value, which may be a patient's.
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    queue, own = settings.queue, settings.models
    packages = deployments.package_finder(record_database.open_database(settings.database_url), settings.folder)
    models = WarmModels(own, queue.memory_gb / max(1, queue.workers), packages=packages)
    while True:
        try:
            question: InferenceQuestion = connection.recv()
        except EOFError:
            return
        request = ModelRequest(at_most=queue.job_timeout_s, allow_large=own[question.model].allow_large)
        connection.send(_reply(models, question, request))


def _reply(models: WarmModels, question: InferenceQuestion, request: ModelRequest) -> InferenceReply:
    """The reply to a question; an error that nobody foresaw is told by its kind alone."""
    try:
        model = models.model_for_job(question.model, question.digest)
        path, header = answer_question(model, question, request)
    except HilumError as error:
        status = 503 if isinstance(error, ResourceError) else 422
        return InferenceReply(status, problem=error.problem, remedy=error.remedy)
    except Exception as error:
        return InferenceReply(
            500, problem=f"{type(error).__name__} within the node", remedy="Report it, with the image if it may leave"
        )
    return InferenceReply(path=path, header=header)


def answer_question(model: Model, question: InferenceQuestion, request: ModelRequest) -> tuple[Path, int]:
    """The file with a model's answer to a question, and the bytes of its header.

    Raises what predicting raises, and UsageError for outputs or covariates that the model does not have.
    """
    image = _image(model, question)
    outputs = answer_tensors.output_axes(model.task, image.geometry.ndim)
    outputs_wanted = tuple(outputs if question.wanted is None else question.wanted)
    names = model.networks.context.names
    if unknown := sorted({*outputs_wanted} - {*outputs}) or sorted({*question.covariates} - {*names}):
        remedy = f"Outputs are {', '.join(outputs)}; parameters are covariates: {', '.join(names) or 'none here'}"
        raise UsageError(f"the model has no {', '.join(unknown)}", question.model, remedy)
    taken = VoxelProbabilityFiles(model.task, image.geometry.shape, question.folder, outputs_wanted)
    case = Case(NAME, NAME, {"image": image}, covariates=question.covariates)
    try:
        done = case_prediction.compute_case(model, case, image, CaseRequest(request=request), receiver=taken.receiver)()
        tensors = [
            one
            for one in answer_tensors.tensors_of(model, done, taken)
            if one.name in outputs_wanted or done.abstained is not None
        ]
        return _write_response(tensors, question)
    except OSError as error:
        raise atomic.unwritable_error(error, question.folder) from error


def _image(model: Model, question: InferenceQuestion) -> Image:
    """The image of a question, whose voxels are read from its file when they are needed."""
    file, offset = question.image
    shape, preparing = question.shape, model.preprocessing
    voxels = np.memmap(question.folder / file, np.float32, "r", offset, shape)
    spatial = shape[1:]
    geometry = (
        Geometry.of_pixels(spatial)
        if question.affine is None
        else Geometry(spatial, np.array(question.affine), oriented=len(spatial) == 3, unit=preparing.unit)
    )
    return Image(voxels, geometry, channels=tuple(preparing.channels))


def _write_response(tensors: Sequence[OutputTensor], question: InferenceQuestion) -> tuple[Path, int]:
    """Write a response of the protocol; return its file and the bytes of its header, 0 where JSON is all of it."""
    described, behind = [], []
    for tensor in tensors:
        as_bytes = (question.wanted or {}).get(tensor.name, question.as_bytes)
        parameters: dict[str, JsonValue] = {"names": json.dumps(tensor.names)} if tensor.names else {}
        own: dict[str, JsonValue] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if as_bytes:
            size = tensor.data.nbytes if not isinstance(tensor.data, bytes) else 4 + len(tensor.data)
            described.append({**own, "parameters": {**parameters, "binary_data_size": size}})
            behind.append(tensor)
            continue
        if math.prod(tensor.shape) > MOST_IN_JSON:
            problem = f"{tensor.name} has {math.prod(tensor.shape):,} numbers, too many for JSON"
            raise UsageError(problem, question.model, "Ask for it with binary_data")
        data = [tensor.data.decode()] if isinstance(tensor.data, bytes) else tensor.data.ravel().tolist()
        described.append({**own, **({"parameters": parameters} if parameters else {}), "data": data})
    named = {"model_name": question.model, **({"id": question.id} if question.id else {})}
    header = json.dumps({**named, "outputs": described}).encode()
    path = question.folder / NAME
    with path.open("wb") as file:
        file.write(header)
        for tensor in behind:
            if isinstance(tensor.data, bytes):
                file.write(struct.pack("<I", len(tensor.data)) + tensor.data)
            elif isinstance(tensor.data, np.memmap):
                tensor.data.flush()
                with Path(str(tensor.data.filename)).open("rb") as numbers:
                    shutil.copyfileobj(numbers, file)
            else:
                file.write(np.ascontiguousarray(tensor.data).tobytes())
    return path, len(header) if behind else 0
