"""A plain ONNX file with a small description beside it: `model.onnx` and `model.json`.

The description says what an ONNX file cannot: {"labels": {"tumour": 1}, "channels": ["T1"], "patch": [96, 96, 96],
"normalisation": [{"method": "zscore"}]}, and where it is not so, "outputs": "regions" (each likelier than not, in
place of classes of which the largest wins), "spacing", "crop", "order", "overlap", "batch", "flips" and "modality".
"labels": ["benign", "malignant"] are classes of the whole image, which is then brought to the patch's shape.
Outputs are logits; of a network that ends in a softmax or a sigmoid, which its graph or a trial shows, or "activation"
states, they are made so. Images are brought to RAS+ first.
Nothing here imports torch.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter import tasks
from isocenter.errors import FormatError, PlanError, UsageError, counted
from isocenter.files import load_json
from isocenter.lazy import onnx
from isocenter.runtime.device import AUTO, CPU, CUDA
from isocenter.runtime.foreign.output_activation import ACTIVATIONS, TO_LOGITS, ToLogits, activation_of, noise
from isocenter.runtime.inference import Inference
from isocenter.runtime.model import Model
from isocenter.runtime.networks import Networks
from isocenter.runtime.package.backends.onnx import OnnxNetwork, Provider, onnx_errors, open_onnx
from isocenter.runtime.preprocessing.preprocessing import Preprocessing
from isocenter.runtime.record_files import digest
from isocenter.tasks import Task
from isocenter.transforms import Normalisation
from isocenter.values import Decision

NEEDED = ("labels", "channels", "patch", "normalisation")
OF_IMAGES = ("spacing", "crop", "order", "modality")
OF_WINDOWS = ("overlap", "batch", "flips")
METHODS = ("zscore", "window", "range")
KNOWN = (*NEEDED, *OF_IMAGES, *OF_WINDOWS, "outputs", "activation", "positive")

log = logging.getLogger("isocenter")


@dataclass(frozen=True, eq=False)
class Described:
    """The network of an ONNX file, whose outputs have to be those that the description names.

    count: of outputs
    dense: whether each has a value for every voxel of a window
    where: the description
    to_logits: makes logits of outputs that are probabilities; None for a network whose outputs are logits
    """

    network: OnnxNetwork
    count: int
    dense: bool
    where: str
    to_logits: ToLogits | None = None

    def __call__(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        window = batch.shape[1:]
        try:
            outputs = self.network(batch)
        except onnx_errors() as error:
            reason = " ".join(str(error).split())
            problem = f"the network cannot compute windows of {window} ({reason})"
            raise FormatError(problem, self.where, "Correct channels and patch") from error
        [shape] = [output.shape[1:] for output in outputs.values()]
        expected = (self.count, *(window[1:] if self.dense else ()))
        if shape != expected:
            problem = f"what is described has outputs of {expected} for windows of {window}, the network gives {shape}"
            raise FormatError(problem, self.where, "Correct labels and outputs")
        return outputs if self.to_logits is None else {name: self.to_logits(one) for name, one in outputs.items()}


def is_onnx(path: Path) -> bool:
    """Whether it is an ONNX file, by its name."""
    return path.suffix.lower() == ".onnx" and path.is_file()


def files_of_onnx(path: Path) -> list[Path]:
    """The ONNX file, its description, and files beside it that hold weights which it names."""
    graph = onnx.load(path, load_external_data=False).graph
    entries = [entry for weights in graph.initializer for entry in weights.external_data if entry.key == "location"]
    further = sorted({path.parent / entry.value for entry in entries})
    outside = [one for one in further if not one.resolve().is_relative_to(path.parent.resolve())]
    if outside:
        raise FormatError(f"names weights outside its folder ({outside[0]})", str(path), "Put them into its folder")
    return [path, path.with_suffix(".json"), *further]


def load_onnx(path: Path, device: str, threads: int | None = None, activation: str | None = None) -> Model:
    """The model of an ONNX file; on the CPU, or on the GPU that is asked for.

    activation: of its outputs, "none", "softmax" or "sigmoid"; None for what the description, the graph or a trial says
    Raises UsageError without a description, for one that lacks something, or for a device that ONNX Runtime does not
    know; FormatError for a description that cannot be.
    """
    chosen = _device(device, str(path))
    description = _description(path.with_suffix(".json"))
    asked = activation or description.get("activation")
    if asked not in (None, *ACTIVATIONS):
        raise UsageError(f"no activation is called {asked!r}", str(path), f"Choose from {', '.join(ACTIVATIONS)}")
    try:
        task = _task(description)
        preprocessing = Preprocessing.of(_preprocessing(description))
        windows = {key: description[key] for key in OF_WINDOWS if key in description}
        inference = Inference.of({"patch": list(description["patch"]), **windows})
    except PlanError as error:
        raise error.stating(where=str(path.with_suffix(".json"))) from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise FormatError(f"has impossible values ({error})", str(path.with_suffix(".json")), "Correct it") from error
    kind, _, number = chosen.value.partition(":")
    gpu: list[Provider] = [("CUDAExecutionProvider", {"device_id": int(number or 0)})] if kind == CUDA else []
    [(name, head)] = task.heads.items()
    opened = open_onnx(path, [name], [*gpu, "CPUExecutionProvider"], threads)
    if len(opened.session.get_inputs()) != 1:
        raise FormatError("has more inputs than the image", str(path), "Export the network with one input")
    count = head.count if head.is_dense else len(task.labels)
    exclusive = task.uncertainty == "classes"
    if opened.whole_numbers is not None:
        _refuse_other_units(preprocessing, opened.whole_numbers, str(path.with_suffix(".json")))
    batch = noise(len(preprocessing.channels), inference.patch, opened.batch or inference.batch)
    found = activation_of(path, asked, exclusive=exclusive, outputs=partial(_outputs, opened, batch))
    log.info("%s: the activation of its outputs is %s: %s", path, found.value, found.because)
    network = Described(opened, count, head.is_dense, str(path.with_suffix(".json")), TO_LOGITS[found.value])
    size = {"name": "onnx", "channels": len(preprocessing.channels), "spatial_dims": preprocessing.ndim, "size": {}}
    computing = Decision(f"{chosen.value} with onnx", chosen.because)
    origin = {"origin": "ONNX", "weights_sha256": digest(path), "activation": asdict(found)}
    return Model(task, preprocessing, inference, Networks(network, size, computing=computing), origin)


def _refuse_other_units(preprocessing: Preprocessing, bounds: np.iinfo[Any], where: str) -> None:
    """FormatError for a normalisation that rounding to the whole numbers of the input would destroy."""
    for normalisation in preprocessing.normalisation:
        if not _keeps_unit(normalisation, bounds):
            method = normalisation.method
            problem = f"the network takes whole numbers ({bounds.dtype}), and normalisation {method} makes others"
            remedy = 'Keep the values as they are: {"method": "window", "low": 0, "high": 255}'
            raise FormatError(problem, where, remedy)


def _keeps_unit(normalisation: Normalisation, bounds: np.iinfo[Any]) -> bool:
    """Whether values that are 1 apart in the file still are so, and within the bounds."""
    if normalisation.method == "zscore" or normalisation.low is None or normalisation.high is None:
        return False
    ends = np.array([normalisation.low, normalisation.high], np.float32)
    low, high = normalisation.scale(normalisation.low).applied(ends, np.ones_like(ends, dtype=bool)).tolist()
    return (
        high - low >= normalisation.high - normalisation.low - 0.5
        and low >= bounds.min - 0.5
        and high <= bounds.max + 0.5
    )


def _outputs(network: OnnxNetwork, batches: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Outputs of the network for batches, until it cannot take one: a prediction says why."""
    with suppress(MemoryError, *onnx_errors()):
        for batch in batches:
            yield from network(batch).values()


def _device(name: str, where: str) -> Decision:
    """The device on which ONNX Runtime computes; torch, which knows of GPUs, is not asked."""
    if name == AUTO:
        return Decision(CPU, because="an ONNX file is computed on a GPU only where --device names it")
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise UsageError(f"cannot be computed on {name!r}", where, "Choose --device cpu, or cuda:0 and the like")
    return Decision(name, because="asked for")


def _description(path: Path) -> dict[str, Any]:
    where = str(path)
    if not path.is_file():
        remedy = f"Write {path.name} with {', '.join(NEEDED)}: an ONNX file says nothing of its images"
        raise UsageError("is missing, which describes the ONNX file", where, remedy)
    try:
        description = load_json(path)
    except (OSError, ValueError) as error:
        raise FormatError(f"is not JSON ({error})", where, "Correct it") from error
    if not isinstance(description, dict):
        raise FormatError("is not a JSON object", where, "Write one with labels, channels and outputs")
    missing, unknown = [key for key in NEEDED if key not in description], sorted(set(description) - set(KNOWN))
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown entries {', '.join(unknown)}"
        raise UsageError(problem, where, f"Known are {', '.join(KNOWN)}")
    if description.get("outputs", "classes") not in ("classes", "regions"):
        raise UsageError(f"outputs are {description['outputs']!r}", where, "Write classes or regions")
    if "positive" in description and not isinstance(description["labels"], list):
        raise UsageError("names a positive class, and its labels are those of a label map", where, "Leave it out")
    _refuse_normalisation(description, where)
    return description


def _refuse_normalisation(description: Mapping[str, Any], where: str) -> None:
    """FormatError for what cannot be done to intensities."""
    entries, channels = description["normalisation"], description["channels"]
    if (
        not isinstance(entries, list)
        or not isinstance(channels, list)
        or not all(isinstance(one, dict) for one in entries)
    ):
        remedy = 'Give one for each channel, as in "channels": ["T1"], "normalisation": [{"method": "zscore"}]'
        raise FormatError("channels and normalisation are not lists that belong together", where, remedy)
    if len(entries) != len(channels):
        problem = f"{counted(len(entries), 'normalisation')} for {counted(len(channels), 'channel')}"
        raise FormatError(problem, where, "Give one for each channel")
    for settings in entries:
        if (method := settings.get("method")) not in METHODS:
            raise FormatError(f"no normalisation is called {method!r}", where, f"Choose from {', '.join(METHODS)}")
        bounds = [settings.get(end) for end in ("low", "high")]
        numbers = [end for end in bounds if isinstance(end, int | float)]
        if method != "zscore" and not (len(numbers) == len(bounds) and numbers[0] < numbers[1]):
            raise FormatError(f"{method} lacks its bounds", where, "Give a low and a higher high")


def _task(description: Mapping[str, Any]) -> Task:
    if isinstance(description["labels"], list):
        question = {"classes": description["labels"], "positive": description.get("positive")}
        return tasks.build({"name": "classification", **question, "smoothing": 0.0})
    names = {int(value): str(name) for name, value in description["labels"].items() if int(value) != 0}
    exclusive = description.get("outputs", "classes") == "classes"
    return tasks.build(
        {
            "name": "imported_segmentation",
            "labels": [{"value": value, "name": names[value]} for value in sorted(names)],
            # It is not trained here; these say nothing of how it was.
            "loss": "dice+ce",
            "tolerance": 2.0,
            # Regions are written in the order in which they are named, classes lie in the order of their values.
            "writes": [0, *sorted(names)] if exclusive else list(names),
            "exclusive": exclusive,
        }
    )


def _preprocessing(description: Mapping[str, Any]) -> dict[str, Any]:
    patch = list(description["patch"])
    settings = {key: description[key] for key in OF_IMAGES if key in description}
    return {
        "ndim": len(patch),
        "channels": list(description["channels"]),
        "normalisation": description["normalisation"],
        **({"shape": patch} if isinstance(description["labels"], list) else {"smallest": patch}),
        **settings,
    }
