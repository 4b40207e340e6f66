"""What a program asks of a model, and its whole answer as the tensors of the Open Inference Protocol."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.prediction import findings_file
from hilum.prediction.case_prediction import PredictionOutcome
from hilum.prediction.findings_file import FINDINGS as FINDINGS_FILE
from hilum.prediction.findings_file import ExaminedImage
from hilum.runtime import Model
from hilum.tasks import Task, properties
from hilum.values import Array, Prediction, Region, voxel_images
from hilum.values.covariate_values import CovariateValues

LABELS, PROBABILITIES, VALUES, BOXES, FINDINGS = "labels", "probabilities", "values", "boxes", "findings"
# The types of outputs.
INTEGER, REAL, BYTES = "INT32", "FP32", "BYTES"
# Numbers of an output that is answered as JSON: more take minutes to write and to read.
MOST_IN_JSON = 1 << 21


@dataclass(frozen=True)
class InferenceQuestion:
    """An image for a model. folder: holds the image, and gets the answer.

    digest:     of the model, as `ModelFacts.hash`
    image:      (file, offset in bytes) of its voxels, float32, and their shape, (channels, *spatial)
    affine:     index to RAS+ mm; None for an image without physical size
    wanted:     {output: whether as bytes behind the header}; None for all outputs
    as_bytes:   the same for outputs that `wanted` does not name
    covariates: of the patient
    id:         that the answer repeats
    """

    model: str
    digest: str
    folder: Path
    image: tuple[str, int]
    shape: tuple[int, ...]
    affine: Sequence[Sequence[float]] | None
    wanted: Mapping[str, bool] | None = None
    as_bytes: bool = False
    covariates: CovariateValues = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class InferenceReply:
    """The file with the answer to a question, or why there is none.

    header: bytes of its JSON, behind which lie those of the outputs; 0 where JSON is all of it
    """

    status: int = 200
    path: Path | None = None
    header: int = 0
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class OutputTensor:
    """An output. data: numbers, or the bytes of its only element; names: of the entries along its first axis."""

    name: str
    datatype: str
    data: NDArray[Any] | bytes
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""
        return (1,) if isinstance(self.data, bytes) else self.data.shape


def output_axes(task: Task, axes: int) -> dict[str, int]:
    """{output: its axes} of a kind of problem on images of so many axes; of several tasks with the name of each."""
    outputs = dict[str, int]()
    for name, part in properties.leaf_tasks(task).items():
        dense = [head for head in part.heads.values() if head.is_dense]
        if properties.marks_labels(part):
            outputs |= {_output_name(name, LABELS): axes, _output_name(name, PROBABILITIES): axes + 1}
        elif any(head.holds_boxes for head in dense):
            outputs[_output_name(name, BOXES)] = 2
        elif dense:
            outputs[_output_name(name, LABELS)] = axes
        else:
            states = PROBABILITIES if part.uncertainty in ("classes", "labels") else VALUES
            outputs[_output_name(name, states)] = 1
    return {**outputs, FINDINGS: 1}


class VoxelProbabilityFiles:
    """The probabilities of voxels, kept in a file for each output while the model tells them part by part.

    kept:     {output: (channels, *spatial)}, once the first part has come
    receiver: takes the parts; None where nobody wants them
    """

    def __init__(self, task: Task, spatial: tuple[int, ...], folder: Path, names: Sequence[str]) -> None:
        self.spatial, self.folder = spatial, folder
        self.kept: dict[str, np.memmap[Any, Any]] = {}
        self.heads = {
            properties.full_head_name(name, head): _output_name(name, PROBABILITIES)
            for name, part in properties.leaf_tasks(task).items()
            if properties.marks_labels(part) and _output_name(name, PROBABILITIES) in names
            for head, own in part.heads.items()
            if own.is_dense
        }
        self.receiver = self._take if self.heads else None

    def _take(self, region: Region, arrays: Mapping[str, Array]) -> None:
        for head, output in self.heads.items():
            if (array := arrays.get(head)) is None:
                continue
            if output not in self.kept:
                shape = (array.shape[0], *self.spatial)
                self.kept[output] = _on_disk(self.folder / f"{output}.raw", np.dtype(np.float32), shape)
            self.kept[output][(slice(None), *region)] = array


def tensors_of(model: Model, done: PredictionOutcome, taken: VoxelProbabilityFiles) -> Iterator[OutputTensor]:
    """All outputs of a case; of one from which the model abstains the findings alone, which say why."""
    if (prediction := done.prediction) is not None and done.abstained is None:
        for name, part in properties.leaf_tasks(model.task).items():
            yield from _of_part(name, part, prediction.parts[name] if name else prediction, taken)
    findings_file.write_findings(findings_file.findings_record([ExaminedImage(done)], model), taken.folder)
    yield OutputTensor(FINDINGS, BYTES, (taken.folder / FINDINGS_FILE).read_bytes())


def _of_part(name: str, task: Task, prediction: Prediction, taken: VoxelProbabilityFiles) -> Iterator[OutputTensor]:
    """The outputs of one task, besides its findings."""
    if prediction.data is not None:
        output = _output_name(name, LABELS)
        labels = _on_disk(taken.folder / f"{output}.raw", np.dtype(np.int32), tuple(prediction.data.shape))
        for region, part in voxel_images.walk_blocks(prediction.data):
            labels[region] = part
        yield OutputTensor(output, INTEGER, labels)
    voxels = taken.kept.get(_output_name(name, PROBABILITIES))
    if voxels is not None:
        labelled = [label.name for label in task.channel_labels]
        channels = ["background"] * (len(voxels) - len(labelled)) + labelled
        yield OutputTensor(_output_name(name, PROBABILITIES), REAL, voxels, tuple(channels))
    for kind, numbers in ((PROBABILITIES, prediction.probabilities), (VALUES, prediction.values)):
        if numbers is not None and voxels is None:
            yield OutputTensor(
                _output_name(name, kind), REAL, np.array(list(numbers.values()), np.float32), tuple(numbers)
            )
    if (called := prediction.called_boxes) is not None:
        yield OutputTensor(_output_name(name, BOXES), REAL, called.corners.astype(np.float32), tuple(called.names))


def _on_disk(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """An array in a file whose bytes are there: without them a full disk would end the process at a later write."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, dtype.itemsize * math.prod(shape))
    return np.memmap(path, dtype, "r+", shape=shape)


def _output_name(part: str, output: str) -> str:
    """The name of an output of a part; of a single task that of the output."""
    return f"{part}_{output}" if part else output
