"""Foreign MONAI bundles as models: their own transforms and network, and Isocenter's windows and files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter import tasks
from isocenter.errors import DatasetError, FormatError, GeometryError, IntegrityError, UsageError, counted
from isocenter.lazy import monai, torch
from isocenter.runtime import foreign
from isocenter.runtime.foreign.checkpoint import read_checkpoint
from isocenter.runtime.foreign.monai_config import REMEDY, Config, name_of, steps_of
from isocenter.runtime.foreign.monai_inverse import way_back
from isocenter.runtime.model import Inference, Model
from isocenter.runtime.preprocessing import Held, Part, Trace, parts_of, restored
from isocenter.runtime.record_files import digest
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.tasks import Task
from isocenter.transforms import Stretched, padding
from isocenter.values import MM, Array, Geometry, Image, Region, Slabs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

KIND = "monai"
METADATA = "configs/metadata.json"
CONFIGS = ("configs/inference.json",)
WEIGHTS = "models/model.pt"
OURS = "isocenter"
KEY = "image"
# A probability of 0 or 1 has no logit.
LEAST = 1e-7
# Where those who write checkpoints put the weights in them.
WITHIN = ("state_dict", "model", "network", "net")


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a MONAI bundle that Isocenter did not write."""
    return (folder / METADATA).is_file() and not (folder / OURS).is_dir()


@dataclass(frozen=True, eq=False)
class Transformed:
    """What the transforms made of an image, for MONAI to undo them, and with how many zeros a small one was surrounded.

    Only where they cannot be undone axis by axis: else there is a trace.
    """

    source: Geometry
    image: Any
    pad: Sequence[tuple[int, int]]
    squeezed: None = None


@dataclass(frozen=True, eq=False)
class MonaiTransforms:
    """The bundle's own preprocessing, undone as MONAI undoes it: what went through the network, interpolated linearly.

    exclusive: whether outputs become probabilities by a softmax or by a sigmoid, before they are brought back
    """

    channels: tuple[str, ...]
    ndim: int
    transform: Any
    exclusive: bool
    patch: tuple[int, ...]
    steps: Sequence[Mapping[str, Any]] = ()
    modality: str = "unknown"
    spacing: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: {"kind": KIND})

    unit = MM
    frames = None
    interval = None
    reduction = 1.0
    cascade = None

    @property
    def order_of_axes(self) -> tuple[int, ...]:
        """The image's own order."""
        return tuple(range(self.ndim))

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], Trace | Transformed]:
        """(channels, *spatial); DatasetError for other channels, GeometryError for other axes."""
        if len(image.channels) != len(self.channels):
            problem = f"has {counted(len(image.channels), 'channel')}, the model expects {len(self.channels)}"
            raise DatasetError(problem, where, f"Give {', '.join(self.channels)}, in that order")
        if image.geometry.ndim != self.ndim or image.frames is not None:
            raise GeometryError(f"has not {self.ndim} axes", where, "Give images of the kind it was trained on")
        pixels = torch.from_numpy(np.ascontiguousarray(image.data, dtype=np.float32))
        prepared = self.transform({KEY: _with_affine(pixels, image.geometry)})[KEY]
        pad = padding(tuple(prepared.shape[1:]), self.patch)  # as MONAI's own windows have it
        seen = np.pad(np.asarray(prepared.numpy(), dtype=np.float32), [(0, 0), *pad])
        trace = way_back(prepared.applied_operations, prepared.affine, prepared.shape[1:], pad, image.geometry)
        whole = Transformed(image.geometry, prepared, pad) if trace is None else trace.by_smallest_plane()
        return np.ascontiguousarray(seen), whole

    def opened(self, image: Image, where: str) -> tuple[NDArray[np.float32], Trace | Transformed]:
        """The same as a call: the image is prepared whole."""
        return self(image, where)

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """All channels: an image with fewer is refused."""
        return (True,) * len(self.channels)

    def parts(
        self, trace: Trace | Transformed, region: Region | None, patch: Sequence[int], channels: int
    ) -> Sequence[Part]:
        """Columns of what is wanted; all at once where MONAI itself has to undo its transforms."""
        return parts_of(trace, region, patch, channels) if isinstance(trace, Trace) else (Part(),)

    def restored(
        self, slabs: Slabs, trace: Trace | Transformed, part: Region | None = None
    ) -> Iterator[tuple[Region, Mapping[str, Any]]]:
        """Outputs whose probabilities are those that were brought back."""
        then = _logarithm if self.exclusive else _log_odds
        likely = ((region, {"mask": self._probabilities(arrays["mask"])}) for region, arrays in slabs)
        if isinstance(trace, Transformed):
            yield tuple(slice(0, size) for size in trace.source.shape), {"mask": then(self._whole(likely, trace))}
            return
        for region, arrays in restored(likely, trace, part):
            back = arrays["mask"]
            if not isinstance(back, Stretched):
                back = Stretched(back, (None,) * self.ndim, tuple(range(self.ndim)))
            yield region, {"mask": replace(back, then=then)}

    def _probabilities(self, outputs: Array) -> NDArray[np.float32]:
        logits = torch.from_numpy(np.ascontiguousarray(outputs, dtype=np.float32))
        return np.asarray((logits.softmax(dim=0) if self.exclusive else logits.sigmoid()).numpy())

    def _whole(self, likely: Slabs, trace: Transformed) -> NDArray[np.float32]:
        """Probabilities on the source's grid, as MONAI undoes its transforms: one class after the other."""
        inner = tuple(slice(low, low + n) for (low, _), n in zip(trace.pad, trace.image.shape[1:], strict=True))
        there, outputs = np.empty(0, np.float32), np.empty(0, np.float32)
        for (rows, *plane), arrays in likely:
            if not there.size:
                sizes = [n + low + high for (low, high), n in zip(trace.pad, trace.image.shape[1:], strict=True)]
                there = np.empty((len(arrays["mask"]), *sizes), np.float32)
                outputs = np.empty((len(there), *trace.source.shape), np.float32)
            there[(slice(None), rows, *plane)] = arrays["mask"]
        for number in range(len(there)):
            operations = copy.deepcopy(trace.image.applied_operations)  # undoing takes notes apart
            pixels = torch.from_numpy(there[(slice(number, number + 1), *inner)])
            image = monai.data.MetaTensor(pixels, affine=trace.image.affine, applied_operations=operations)
            with monai.transforms.utils.allow_missing_keys_mode(self.transform):
                back = self.transform.inverse({KEY: image})[KEY][0]
            if tuple(back.shape) != trace.source.shape:
                raise GeometryError("its transforms cannot be undone", "the bundle", REMEDY)
            outputs[number] = back
        return outputs

    def held(self, geometry: Geometry) -> Held:
        """By what its steps would do to an image of this geometry; of none a voxel is looked at."""
        if geometry.ndim != self.ndim:
            return Held(prepared=False)
        image = _with_affine(torch.zeros(1).expand(1, *geometry.shape), geometry)
        # What is cut away depends on the voxels: it is reckoned with, and goes back axis by axis.
        lazy, of_voxels = monai.transforms.LazyTransform, monai.transforms.CropForegroundd
        spatial: list[Any] = [
            one for one in self.transform.transforms if isinstance(one, lazy) and not isinstance(one, of_voxels)
        ]
        for step in spatial:
            image = step({KEY: image}, lazy=True)[KEY]
        shape = tuple(int(size) for size in image.peek_pending_shape())
        trace = way_back(image.pending_operations, image.peek_pending_affine(), shape, [(0, 0)] * self.ndim, geometry)
        return Held(prepared=False, restored=trace is not None, shape=shape)


def _with_affine(pixels: Tensor, geometry: Geometry) -> Any:
    """(channels, *spatial) as MONAI knows where it lies."""
    affine, ndim = np.eye(4), geometry.ndim
    affine[:ndim, :ndim], affine[:ndim, 3] = geometry.affine[:-1, :-1], geometry.affine[:-1, -1]
    return monai.data.MetaTensor(pixels, affine=torch.from_numpy(affine))


def _logarithm(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.log(np.clip(likely, LEAST, 1 - LEAST)))


def _log_odds(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    held = np.clip(likely, LEAST, 1 - LEAST)
    return np.asarray(np.log(held / (1 - held)))


def load_bundle(folder: Path, device: str, *, trusted: Sequence[str] = ()) -> Model:
    """The bundle's network behind its own transforms, in our windows of its size and overlap.

    Raises UsageError for a class, a step or an expression that is not known, IntegrityError for weights that do not
    fit or would run code.
    """
    file = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if file is None:
        raise UsageError(f"has no {CONFIGS[0]}", str(folder), "A configuration in YAML: write it as JSON")
    config, where = Config.read(file), str(file)
    metadata = Config.read(folder / METADATA).content
    post = steps_of(config.described(config.content.get("postprocessing")), where)
    channels, names = _defined(metadata, folder)
    window = config.described(config.content.get("inferer", {}))
    patch, inference = _windows(window, where)
    task = _task(post, names, str(window.get("mode", "constant")), where)
    preparation = steps_of(config.described(config.content.get("preprocessing")), where)
    transform = _compose(config, preparation)
    preprocessing = MonaiTransforms(channels, len(patch), transform, task.decoding.exclusive, patch, preparation)
    module = _module(config, folder, trusted)
    network = {"name": name_of(config.content["network_def"]), "channels": len(channels), "spatial_dims": len(patch)}
    origin = {
        "origin": "MONAI bundle",
        "name": str(metadata.get("name", "")),
        "version": str(metadata.get("version", "")),
    }
    record = {**origin, "weights_sha256": digest(folder / WEIGHTS)}
    run = TorchNetwork(module.to(device), device)
    return Model(task, preprocessing, inference, {**network, "size": {}}, run, record)


def _module(config: Config, folder: Path, trusted: Sequence[str]) -> Module:
    """The network with the bundle's weights, ready to predict; its one tensor is our head."""
    if "network_def" not in config.content or not (folder / WEIGHTS).is_file():
        raise UsageError(f"has no network_def, or no {WEIGHTS}", str(folder), REMEDY)
    network = config.made(config.described(config.content["network_def"]))
    weights: Mapping[str, Any] = read_checkpoint(folder / WEIGHTS, trusted)
    weights = next((weights[name] for name in WITHIN if isinstance(weights.get(name), Mapping)), weights)
    try:
        network.load_state_dict(dict(weights))
    except (RuntimeError, AttributeError) as error:
        reason = str(error).replace("\n", " ")[:200]
        raise IntegrityError(
            f"holds other weights than the network has ({reason})", str(folder / WEIGHTS), REMEDY
        ) from error
    return foreign.MaskNetwork(network).eval()


def _compose(config: Config, steps: Sequence[Mapping[str, Any]]) -> Any:
    """The steps as one transform of the image alone."""
    made = []
    for step in steps:
        keys = step.get("keys", [])
        keys = [keys] if isinstance(keys, str) else list(keys)
        if KEY in keys:
            made.append(config.made({**step, "keys": [KEY]} if len(keys) == 1 else _of_image(step, keys)))
    return monai.transforms.Compose(made)


def _of_image(step: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A step for several keys as it is for the image: what it lists for each key is one of them."""
    place = list(keys).index(KEY)
    own = {
        key: value[place] if key in ("mode", "padding_mode") and isinstance(value, list) else value
        for key, value in step.items()
    }
    return {**own, "keys": [KEY]}


def _windows(given: Any, where: str) -> tuple[tuple[int, ...], Inference]:
    if name_of(given) != "SlidingWindowInferer":
        raise UsageError(f"its inferer is {name_of(given) or 'none'}, not SlidingWindowInferer", where, REMEDY)
    try:
        patch = tuple(int(size) for size in given["roi_size"])
        return patch, Inference(patch, float(given.get("overlap", 0.25)), int(given.get("sw_batch_size", 1)))
    except KeyError as error:
        raise UsageError("its inferer states no roi_size, the voxels of a window", where, REMEDY) from error
    except (TypeError, ValueError) as error:
        problem = f"its inferer states a roi_size, overlap or sw_batch_size that is no number ({error})"
        raise UsageError(problem, where, REMEDY) from error


def _task(post: Sequence[Mapping[str, Any]], names: Mapping[int, str], mode: str, where: str) -> Task:
    """What its steps after the network make of the outputs."""
    exclusive, largest = None, []
    for step in post:
        match name_of(step):
            case "AsDiscreted":
                exclusive = bool(step.get("argmax", False))
                if not exclusive and step.get("threshold") not in (0.5, None):
                    raise UsageError(f"calls a region from {step['threshold']} on, not from 0.5", where, REMEDY)
            case "Activationsd":
                exclusive = bool(step.get("softmax", False)) if exclusive is None else exclusive
            case "KeepLargestConnectedComponentd":
                largest += _largest(step, names, where)
            case "Invertd" | "EnsureTyped":
                pass
            case kind:
                raise UsageError(f"has a step {kind or 'without a class'} after its network", where, REMEDY)
    if exclusive is None:
        raise UsageError("does not say what its outputs mean: no AsDiscreted, no Activationsd", where, REMEDY)
    if largest and not exclusive:
        problem = "keeps the largest piece of overlapping regions; only that of classes is supported"
        raise UsageError(problem, where, REMEDY)
    kept = {value: name for value, name in names.items() if value or not exclusive}
    # Regions that overlap are written in the order of their channels.
    values = {channel: channel if exclusive else channel + 1 for channel in kept}
    return tasks.build(
        {
            "name": "imported_segmentation",
            "labels": [{"value": values[channel], "name": kept[channel]} for channel in sorted(kept)],
            "loss": "dice+ce",
            "tolerance": 2.0,
            "writes": [0, *values.values()] if exclusive else list(values.values()),
            "exclusive": exclusive,
            "weighed": "gaussian" if mode == "gaussian" else "mean",
            "largest": largest,
        }
    )


def _largest(step: Mapping[str, Any], names: Mapping[int, str], where: str) -> list[list[int]]:
    """Groups of labels of which, together, the largest piece stays, pieces being connected also by a corner."""
    for key, known in {"num_components": (None, 1), "connectivity": (None,), "is_onehot": (None, False)}.items():
        if step.get(key) not in known:
            raise UsageError(f"keeps the largest piece with {key} {step[key]}, which is not supported", where, REMEDY)
    given = step.get("applied_labels")
    labels = sorted(names) if given is None else given if isinstance(given, list) else [given]
    labels = [label for label in labels if label]
    return [[label] for label in labels] if step.get("independent", True) else [labels]


def _defined(metadata: Mapping[str, Any], folder: Path) -> tuple[tuple[str, ...], dict[int, str]]:
    """(names of the input's channels, {channel of the output: what it means})."""
    try:
        form = metadata["network_data_format"]
        given, outputs = form["inputs"]["image"], next(iter(form["outputs"].values()))
        defined = given.get("channel_def") or {str(n): str(n) for n in range(int(given["num_channels"]))}
        channels = tuple(str(defined[key]) for key in sorted(defined, key=int))
        named = {int(key): str(name) for key, name in outputs["channel_def"].items()}
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise FormatError(
            f"does not name its channels ({error})", str(folder / METADATA), "Get the bundle again"
        ) from error
    return channels, {channel: named[channel] for channel in sorted(named)}
