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

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import FormatError, PlanError, UsageError
from hilum.files import label_table
from hilum.files.storage import structured_text
from hilum.lazy import onnx
from hilum.runtime import record_files
from hilum.runtime.foreign import output_activation
from hilum.runtime.foreign.output_activation import ACTIVATIONS, LOG_SOFTMAX, SOFTMAX, TO_LOGITS, ToLogits
from hilum.runtime.hardware import AUTO, CPU, CUDA
from hilum.runtime.inference import Inference
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import ModelOrigin, NetworkArguments
from hilum.runtime.package.backends import onnx as backends_onnx
from hilum.runtime.package.backends.onnx import OnnxNetwork, Provider
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.runtime.torch_networks import Networks
from hilum.tasks import Task, task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Decision, Label, StatedSettings, record_schema
from hilum.work_state import log

NEEDED = ("labels", "channels", "patch", "normalisation")
OF_IMAGES = ("spacing", "crop", "order", "modality")
OF_WINDOWS = ("overlap", "batch", "flips")
OF_ARRAYS = ("axes", "orientation", "output")
AXES, ORIENTATIONS = ("xyz", "zyx"), ("RAS", "LPS")
METHODS = ("zscore", "window", "range")
KNOWN = (*NEEDED, *OF_IMAGES, *OF_WINDOWS, *OF_ARRAYS, "outputs", "activation", "positive")


@dataclass(frozen=True, eq=False)
class DescribedNetwork:
    """The network of an ONNX file, whose outputs have to be those that the description names.

    count: of outputs
    dense: whether each has a value for every voxel of a window
    where: the description
    to_logits: makes logits of outputs that are probabilities; None for a network whose outputs are logits
    exclusive: whether the outputs are classes: one output for two of them is then the second's
    order, turned: the axes of space as the network has them, and those that run against RAS+
    channels_last: whether the channels stand behind the axes of space
    """

    network: OnnxNetwork
    head: str
    count: int
    dense: bool
    where: str
    exclusive: bool
    order: tuple[int, ...]
    turned: tuple[int, ...]
    channels_last: bool
    to_logits: ToLogits | None = None

    def __call__(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        window = batch.shape[1:]
        [output] = self.outputs(batch).values()
        shape, expected = output.shape[1:], self.shapes(window)
        if shape not in expected:
            of_windows = f"for windows of {window}"
            problem = f"what is described has outputs of {expected[0]} {of_windows}, the network gives {shape}"
            remedy = "Correct labels and outputs: a label for each channel, the background too, unless they are regions"
            raise FormatError(problem, self.where, remedy)
        logits = output if self.to_logits is None else self.to_logits(output)
        if shape != expected[0]:  # of two classes the second alone: of the first it is 0
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        return {self.head: logits}

    def shapes(self, window: Sequence[int]) -> list[tuple[int, ...]]:
        """The shapes that outputs for a window may have, that of the description first."""
        # A softmax of one output is always 1.
        is_softmax = self.to_logits in (TO_LOGITS[SOFTMAX], TO_LOGITS[LOG_SOFTMAX])
        counts = (2, 1) if self.exclusive and self.count == 2 and not is_softmax else (self.count,)
        return [(count, *(window[1:] if self.dense else ())) for count in counts]

    def outputs(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """All outputs by name, laid as the windows are; a graph of fixed batch gets full ones, filled up with zeros."""
        spatial, size = [2 + axis for axis in self.order], self.network.batch or len(batch)
        given = np.flip(batch, tuple(2 + axis for axis in self.turned)).transpose(0, 1, *spatial)
        given = np.moveaxis(given, 1, -1) if self.channels_last else given
        short = -len(given) % size
        given = np.pad(given, [(0, short), *[(0, 0)] * (given.ndim - 1)])
        try:
            parts = [self.network(given[start : start + size]) for start in range(0, len(given), size)]
        except backends_onnx.onnx_errors() as error:
            reason = " ".join(str(error).split())
            problem = f"the network cannot compute windows of {batch.shape[1:]} ({reason})"
            raise FormatError(problem, self.where, "Correct channels and patch") from error
        joined = {name: np.concatenate([one[name] for one in parts])[: len(batch)] for name in parts[0]}
        return {name: self._laid(one) for name, one in joined.items()}

    def _laid(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """An output as (batch, channels[, *spatial]), its axes in our order; a lone channel may be no axis of it."""
        if not self.dense:
            is_vector = output[0].size == max(output.shape[1:], default=1)
            return output.reshape(len(output), -1) if is_vector else output
        ndim = 2 + len(self.order)
        output = np.moveaxis(output, -1, 1) if self.channels_last and output.ndim == ndim else output
        output = output[:, None] if output.ndim == ndim - 1 else output
        if output.ndim != ndim:
            return output
        return np.flip(output.transpose(0, 1, *(2 + np.argsort(self.order))), tuple(2 + axis for axis in self.turned))


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
    chosen, where = _device(device, str(path)), str(path.with_suffix(".json"))
    description = _description(path.with_suffix(".json"))
    asked = activation or description.get("activation")
    if asked not in (None, *ACTIVATIONS):
        raise UsageError(f"no activation is called {asked!r}", str(path), f"Choose from {', '.join(ACTIVATIONS)}")
    try:
        order, turned = _axes(description, where)
        description = _in_our_order(description, order)
        task = _task(description)
        preprocessing = Preprocessing.from_settings(_preprocessing(description))
        windows = {key: description[key] for key in OF_WINDOWS if key in description}
        inference = Inference.from_settings({"patch": list(description["patch"]), **windows})
    except PlanError as error:
        raise error.stating(where=str(path.with_suffix(".json"))) from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise FormatError(f"has impossible values ({error})", str(path.with_suffix(".json")), "Correct it") from error
    kind, _, number = chosen.value.partition(":")
    gpu: list[Provider] = [("CUDAExecutionProvider", {"device_id": int(number or 0)})] if kind == CUDA else []
    [(name, head)] = task.heads.items()
    opened = backends_onnx.open_onnx(path, [], [*gpu, "CPUExecutionProvider"], threads)
    if len(opened.session.get_inputs()) != 1:
        raise FormatError("has more inputs than the image", str(path), "Export the network with one input")
    count = head.count if head.is_dense else len(task.labels)
    exclusive = task.uncertainty == "classes"
    if opened.whole_numbers is not None:
        _refuse_other_units(preprocessing, opened.whole_numbers, where)
    sizes, channels = opened.session.get_inputs()[0].shape, len(preprocessing.channels)
    last = len(sizes) == 2 + len(order) and sizes[-1] == channels != sizes[1]
    network = DescribedNetwork(opened, name, count, head.is_dense, where, exclusive, order, turned, channels_last=last)
    network = _with_output(network, description.get("output"), (channels, *inference.patch))
    batch = output_activation.noise_windows(channels, inference.patch, opened.batch or inference.batch)
    taken = network.network.taken[0]
    found = output_activation.activation_of(
        path, asked, name=taken, exclusive=exclusive, outputs=partial(_outputs, network, batch)
    )
    log.info("%s: the activation of its outputs is %s: %s", path, found.value, found.because)
    network = replace(network, to_logits=TO_LOGITS[found.value])
    size: NetworkArguments = {
        "name": "onnx",
        "channels": len(preprocessing.channels),
        "spatial_dims": preprocessing.ndim,
        "size": {},
    }
    computing = Decision(f"{chosen.value} with onnx", chosen.because)
    weights = [file for file in files_of_onnx(path) if file != path.with_suffix(".json")]
    origin: ModelOrigin = {
        "origin": "ONNX",
        "weights_sha256": record_files.digest_of_files(weights),
        "description_sha256": record_files.file_digest(path.with_suffix(".json")),
        "activation": record_schema.decision_record(found),
    }
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
    low, high = normalisation.scale(normalisation.low).apply_in_place(ends, np.ones_like(ends, dtype=bool)).tolist()
    return cast(
        bool,
        high - low >= normalisation.high - normalisation.low - 0.5
        and low >= bounds.min - 0.5
        and high <= bounds.max + 0.5,
    )


def _outputs(network: DescribedNetwork, batches: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Outputs of the network for batches, until it cannot take one: a prediction says why."""
    with suppress(MemoryError, FormatError):
        for batch in batches:
            yield from network.outputs(batch).values()


def _with_output(network: DescribedNetwork, asked: object, window: tuple[int, ...]) -> DescribedNetwork:
    """The network with the one output that is asked for, else the one of several that has a window's shape."""
    names = [one.name for one in network.network.session.get_outputs()]
    fitting = [name for name in names if asked in (None, name)]
    if asked is None and len(names) > 1:
        made = network.outputs(np.zeros((1, *window), np.float32))
        fitting = [name for name in names if made[name].shape[1:] in network.shapes(window)]
    if len(fitting) != 1:
        problem = f"of the outputs {errors.list_phrase(names)} {len(fitting) or 'none'} are what is described"
        raise FormatError(problem, network.where, 'Name the one to take, as in "output": "NAME"')
    if asked is None and len(names) > 1:
        log.warning(
            "%s: of its outputs (%s) %s is taken, which has a window's shape",
            network.where,
            errors.list_phrase(names),
            *fitting,
        )
    return replace(network, network=replace(network.network, heads=tuple(fitting), taken=tuple(fitting)))


def _axes(description: StatedSettings, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(axes of space in the network's order, those that run against RAS+); a warning where a cube leaves it open."""
    patch, axes, orientation = description["patch"], description.get("axes"), description.get("orientation", "RAS")
    if axes is None and len(patch) == 3 and patch[0] == patch[2]:
        log.warning(
            '%s states no order of axes: they are taken as x, y, z ("axes": "xyz"), as nibabel reads arrays; a network '
            'that was trained on arrays z, y, x, as SimpleITK gives them, needs "axes": "zyx"',
            where,
        )
    axes = axes or "xyz"[: len(patch)]
    for key, value, known in (("axes", axes, AXES), ("orientation", orientation, ORIENTATIONS)):
        if key in description and (value not in known or len(patch) != 3):
            raise FormatError(f"{key} are {value!r}", where, f"Write one of {', '.join(known)}, of a patch of 3 axes")
    order = tuple(range(len(patch))) if len(patch) != 3 else tuple("xyz".index(one) for one in axes)
    return order, (0, 1) if orientation == "LPS" else ()


def _in_our_order(description: StatedSettings, order: tuple[int, ...]) -> StatedSettings:
    """The description with its numbers an axis in the order x, y, z."""
    changed = {
        key: [description[key][n] for n in np.argsort(order)]
        for key in ("patch", "spacing")
        if isinstance(description.get(key), list)
    }
    flips = {"flips": sorted(order[n] for n in description["flips"])} if "flips" in description else {}
    return {**description, **changed, **flips}


def _device(name: str, where: str) -> Decision:
    """The device on which ONNX Runtime computes; torch, which knows of GPUs, is not asked."""
    if name == AUTO:
        return Decision(CPU, because="an ONNX file is computed on a GPU only where --device names it")
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise UsageError(f"cannot be computed on {name!r}", where, "Choose --device cpu, or cuda:0 and the like")
    return Decision(name, because="asked for")


def _description(path: Path) -> StatedSettings:
    where = str(path)
    if not path.is_file():
        remedy = f"Write {path.name} with {', '.join(NEEDED)}: an ONNX file says nothing of its images"
        raise UsageError("is missing, which describes the ONNX file", where, remedy)
    try:
        description = structured_text.load_json(path)
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


def _refuse_normalisation(description: StatedSettings, where: str) -> None:
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
        problem = (
            f"{errors.count_phrase(len(entries), 'normalisation')} for {errors.count_phrase(len(channels), 'channel')}"
        )
        raise FormatError(problem, where, "Give one for each channel")
    for settings in entries:
        if (method := settings.get("method")) not in METHODS:
            raise FormatError(f"no normalisation is called {method!r}", where, f"Choose from {', '.join(METHODS)}")
        bounds = [settings.get(end) for end in ("low", "high")]
        numbers = [end for end in bounds if isinstance(end, int | float)]
        if method != "zscore" and not (len(numbers) == len(bounds) and numbers[0] < numbers[1]):
            raise FormatError(f"{method} lacks its bounds", where, "Give a low and a higher high")


def _task(description: StatedSettings) -> Task:
    if isinstance(description["labels"], list):
        _refuse_labels(enumerate(description["labels"]))
        question = {"classes": description["labels"], "positive": description.get("positive")}
        return task_catalogue.build_task({"name": "classification", **question, "smoothing": 0.0})
    _refuse_labels((value, name) for name, value in description["labels"].items())
    names = {int(value): str(name) for name, value in description["labels"].items() if int(value) != 0}
    exclusive = description.get("outputs", "classes") == "classes"
    return task_catalogue.build_task(
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


def _refuse_labels(stated: Iterable[tuple[object, object]]) -> None:
    """ValueError for values and names that cannot be those of labels."""
    labels = list[Label]()
    for value, name in stated:
        whole = label_table.label_value(value)
        if whole is None:
            raise ValueError(f"the label {name!r} is {value!r}, not one whole number")
        labels.append(Label(whole, str(name)))
    if fault := label_table.label_fault(labels):
        raise ValueError(fault)


def _preprocessing(description: StatedSettings) -> StatedSettings:
    patch = list(description["patch"])
    settings = {key: description[key] for key in OF_IMAGES if key in description}
    return {
        "ndim": len(patch),
        "channels": list(description["channels"]),
        "normalisation": description["normalisation"],
        **({"shape": patch} if isinstance(description["labels"], list) else {"smallest": patch}),
        **settings,
    }
