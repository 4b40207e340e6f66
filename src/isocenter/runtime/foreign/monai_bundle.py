"""Foreign MONAI bundles as models: their own transforms and network, and Isocenter's windows and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter import tasks
from isocenter.errors import FormatError, IntegrityError, UsageError
from isocenter.lazy import monai
from isocenter.runtime import foreign
from isocenter.runtime.foreign.checkpoint import read_checkpoint
from isocenter.runtime.foreign.monai_config import REMEDY, Config, columns_first, name_of, steps_of
from isocenter.runtime.foreign.monai_transforms import KEY, MonaiTransforms
from isocenter.runtime.inference import Inference
from isocenter.runtime.model import Model
from isocenter.runtime.networks import Networks, TorchNetwork
from isocenter.runtime.record_files import digest
from isocenter.tasks import Task

if TYPE_CHECKING:
    from torch.nn import Module

METADATA = "configs/metadata.json"
CONFIGS = ("configs/inference.json",)
WEIGHTS = "models/model.pt"
OURS = "isocenter"
# Arguments of a SlidingWindowInferer that change what the network sees or how windows are merged, as ours are: MONAI's
# defaults.
WINDOWS: Mapping[str, Any] = {"padding_mode": "constant", "cval": 0, "sigma_scale": 0.125, "with_coord": False}
# Where those who write checkpoints put the weights in them.
WITHIN = ("state_dict", "model", "network", "net")


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a MONAI bundle that Isocenter did not write."""
    return (folder / METADATA).is_file() and not (folder / OURS).is_dir()


def load_bundle(folder: Path, device: str, *, trusted: Sequence[str] = ()) -> Model:
    """The bundle's network behind its own transforms, in our windows of its size and overlap.

    Raises UsageError for a class, a step or an expression that is not known, IntegrityError for weights that do not
    fit or would run code.
    """
    file = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if file is None:
        raise UsageError(f"has no {CONFIGS[0]}", str(folder), "Write a configuration in YAML as JSON")
    config, where = Config.read(file), str(file)
    metadata = Config.read(folder / METADATA).content
    post = steps_of(config.described(config.content.get("postprocessing")), where)
    channels, names = _defined(metadata, folder)
    window = config.described(config.content.get("inferer", {}))
    patch, inference = _windows(window, where)
    task = _task(post, names, str(window.get("mode", "constant")), where)
    steps = config.described(config.content.get("preprocessing"))
    transform = _compose(config, steps_of(steps, where))
    exclusive, by_columns = task.uncertainty == "classes", columns_first(steps)
    preprocessing = MonaiTransforms(channels, len(patch), transform, exclusive, patch, by_columns)
    [head] = task.heads.values()
    module = _module(config, folder, trusted, head.count)
    network = {"name": name_of(config.content["network_def"]), "channels": len(channels), "spatial_dims": len(patch)}
    origin = {
        "origin": "MONAI bundle",
        "name": str(metadata.get("name", "")),
        "version": str(metadata.get("version", "")),
    }
    record = {**origin, "weights_sha256": digest(folder / WEIGHTS)}
    run = TorchNetwork(module.to(device), device)
    return Model(task, preprocessing, inference, Networks(run, {**network, "size": {}}), record)


def _module(config: Config, folder: Path, trusted: Sequence[str], count: int) -> Module:
    """The network with the bundle's weights, ready to predict; its one tensor, of so many outputs, is our head."""
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
    return foreign.MaskNetwork(network, count, str(folder / METADATA)).eval()


def _compose(config: Config, steps: Sequence[Mapping[str, Any]]) -> Any:
    """The steps as one transform of the image alone."""
    transforms = []
    for step in steps:
        keys = step.get("keys", [])
        keys = [keys] if isinstance(keys, str) else list(keys)
        if KEY in keys:
            transforms.append(config.made({**step, "keys": [KEY]} if len(keys) == 1 else _of_image(step, keys)))
    return monai.transforms.Compose(transforms)


def _of_image(step: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A step for several keys as it is for the image: what it lists for each key is one of them."""
    index = list(keys).index(KEY)
    arguments = {
        key: value[index] if key in ("mode", "padding_mode") and isinstance(value, list) else value
        for key, value in step.items()
    }
    return {**arguments, "keys": [KEY]}


def _windows(inferer: Any, where: str) -> tuple[tuple[int, ...], Inference]:
    if name_of(inferer) != "SlidingWindowInferer":
        raise UsageError(f"its inferer is {name_of(inferer) or 'none'}, not SlidingWindowInferer", where, REMEDY)
    for key, default in WINDOWS.items():
        if inferer.get(key, default) != default:
            problem = f"its inferer has {key} {inferer[key]}; only {default} is supported"
            raise UsageError(problem, where, REMEDY)
    try:
        patch = tuple(int(size) for size in inferer["roi_size"])
        if min(patch, default=0) < 1:
            problem = (
                f"its inferer has a roi_size of {list(patch)}, and windows as large as the image are not supported"
            )
            raise UsageError(problem, where, "Write the voxels of a window on each axis")
        return patch, Inference(patch, float(inferer.get("overlap", 0.25)), int(inferer.get("sw_batch_size", 1)))
    except KeyError as error:
        raise UsageError("its inferer states no roi_size, the voxels of a window", where, REMEDY) from error
    except (TypeError, ValueError) as error:
        problem = f"its inferer states a roi_size, overlap or sw_batch_size that is not a number ({error})"
        raise UsageError(problem, where, REMEDY) from error


def _task(post: Sequence[Mapping[str, Any]], names: Mapping[int, str], mode: str, where: str) -> Task:
    """The task that its steps after the network make of the outputs."""
    exclusive, activation, called, largest = None, "", False, []
    for step in post:
        match name_of(step):
            case "AsDiscreted":
                exclusive, called = bool(_of_outputs(step, "argmax")), True
                if not exclusive:
                    _refuse_threshold(_of_outputs(step, "threshold"), activation, where)
            case "Activationsd":
                activation = next((kind for kind in ("softmax", "sigmoid") if _of_outputs(step, kind)), "")
                exclusive = activation == "softmax" if exclusive is None else exclusive
            case "KeepLargestConnectedComponentd":
                if not called:
                    raise UsageError("keeps the largest component before its outputs are thresholded", where, REMEDY)
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
    labels = {value: name for value, name in names.items() if value or not exclusive}
    # Regions that overlap are written in the order of their channels.
    values = {channel: channel if exclusive else channel + 1 for channel in labels}
    return tasks.build(
        {
            "name": "imported_segmentation",
            "labels": [{"value": values[channel], "name": labels[channel]} for channel in sorted(labels)],
            "loss": "dice+ce",
            "tolerance": 2.0,
            "writes": [0, *values.values()] if exclusive else list(values.values()),
            "exclusive": exclusive,
            "weighed": "monai_gaussian" if mode == "gaussian" else "monai_constant",
            "largest": largest,
        }
    )


def _of_outputs(step: Mapping[str, Any], setting: str) -> Any:
    """A setting of a step after the network; of a list, for several keys, the first, which is that of the outputs."""
    value = step.get(setting)
    return value[0] if isinstance(value, list) and value else value


def _refuse_threshold(threshold: Any, activation: str, where: str) -> None:
    """UsageError for regions that are not called where the sigmoid of their outputs is above a half, as ours are."""
    if threshold not in (0.5, None):
        raise UsageError(f"calls a region at a threshold of {threshold}, not 0.5", where, REMEDY)
    if activation != "sigmoid":
        form = f"a {activation}" if activation else "outputs without an Activationsd"
        raise UsageError(f"calls regions by a threshold of {form}; only of a sigmoid is supported", where, REMEDY)


def _largest(step: Mapping[str, Any], names: Mapping[int, str], where: str) -> list[list[int]]:
    """Groups of labels of which, together, the largest piece stays, pieces being connected also by a corner."""
    for key, allowed in {"num_components": (None, 1), "connectivity": (None,), "is_onehot": (None, False)}.items():
        if step.get(key) not in allowed:
            raise UsageError(f"keeps the largest piece with {key} {step[key]}, which is not supported", where, REMEDY)
    applied = step.get("applied_labels")
    labels = sorted(names) if applied is None else applied if isinstance(applied, list) else [applied]
    labels = [label for label in labels if label]
    return [[label] for label in labels] if step.get("independent", True) else [labels]


def _defined(metadata: Mapping[str, Any], folder: Path) -> tuple[tuple[str, ...], dict[int, str]]:
    """(names of the input's channels, {channel of the output: what it means})."""
    try:
        form = metadata["network_data_format"]
        image_form, outputs = form["inputs"]["image"], next(iter(form["outputs"].values()))
        defined = image_form.get("channel_def") or {str(n): str(n) for n in range(int(image_form["num_channels"]))}
        channels = tuple(str(defined[key]) for key in sorted(defined, key=int))
        named = {int(key): str(name) for key, name in outputs["channel_def"].items()}
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise FormatError(
            f"does not name its channels ({error})", str(folder / METADATA), "Get the bundle again"
        ) from error
    return channels, {channel: named[channel] for channel in sorted(named)}
