"""Foreign MONAI bundles as models: their own transforms and network, and Hilum's windows and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.errors import FormatError, IntegrityError, UsageError
from hilum.lazy import monai, torch
from hilum.networks.layouts.weight_layout import Content
from hilum.runtime import record_files
from hilum.runtime.foreign import monai_config, monai_network, torch_files
from hilum.runtime.foreign.monai_config import ARGUMENT_ERRORS, CLASSIFIERS, KEY, REMEDY, Config
from hilum.runtime.foreign.monai_expressions import Lambda
from hilum.runtime.foreign.monai_transforms import MonaiTransforms, Returned
from hilum.runtime.inference import Inference
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import ModelOrigin, NetworkArguments
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import Task, task_catalogue
from hilum.values.setting_fields import StatedSettings

if TYPE_CHECKING:
    from torch.nn import Module

    from hilum.runtime.foreign.monai_config import Described


METADATA = "configs/metadata.json"
CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
WEIGHTS = "models/model.pt"
OURS = "hilum"
# The key of the outputs, in the steps after the network.
OUTPUTS = "pred"
# Arguments of a SlidingWindowInferer, and those of them that can only be some values, as our own windows are.
INFERER: StatedSettings = {
    **{"roi_size": None, "overlap": 0.25, "sw_batch_size": 1, "mode": "constant", "padding_mode": "constant"},
    **{"cval": 0, "sigma_scale": 0.125, "with_coord": False, "spatial_dim": 0},
}
POSSIBLE: StatedSettings = {
    **{"mode": ("constant", "gaussian"), "padding_mode": ("constant", "replicate")},
    **{"sigma_scale": (0.125,), "with_coord": (False,)},
}
SLIDING = ("SlidingWindowInferer", "SlidingWindowInfererAdapt", "SliceInferer")
# Steps that give an image a size of its own.
SIZING = ("Resized", "ResizeWithPadOrCropd")
# Regions of which every combination is tried.
MOST_REGIONS = 10
# Steps after the network that change no number.
UNCHANGING = ("EnsureTyped", "ToTensord", "ToNumpyd", "CastToTyped")
# Where those who write checkpoints put the weights in them.
WITHIN = ("state_dict", "model", "network", "net")


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a MONAI bundle that Hilum did not write."""
    return (folder / METADATA).is_file() and not (folder / OURS).is_dir()


def load_bundle(folder: Path, device: str, *, trusted: Sequence[str] = ()) -> Model:
    """The bundle's network behind its own transforms, in our windows of its size and overlap.

    Raises UsageError for a class, a step or an expression that is not known, IntegrityError for weights that do not
    fit or would run code.
    """
    config = _config(folder)
    metadata = Config.from_file(folder / METADATA, folder).content
    channels, names, size = _definition(metadata, folder)
    network = config.resolve(_part(config, "network_def"))
    config.kind(network)
    steps = config.resolve(config.content.get("preprocessing"))
    before = monai_config.enabled_steps(steps, config.where)
    views = _views(config, network, before, size)
    dense = monai_config.class_name(network) not in CLASSIFIERS
    if not (dense or views.whole):
        raise UsageError("shows a network of whole images windows of them", config.where, REMEDY)
    after = monai_config.enabled_steps(config.resolve(config.content.get("postprocessing")), config.where)
    meaning = _meaning(after, names, config.where)
    task = _segmentation(meaning, views.merge, config.where) if dense else _classification(meaning, config.where)
    preprocessing = MonaiTransforms(
        channels,
        len(views.patch),
        _compose(config, before),
        bool(meaning.exclusive),
        views.patch,
        monai_config.loads_columns_first(steps, config.where),
        returned=meaning.returned,
        nearest=meaning.nearest,
        dense=dense,
        whole=views.whole,
        beyond=views.beyond,
    )
    weights = _weights(config)
    [(head, outputs)] = task.heads.items()
    made = monai_network.OneHead(
        _module(config, network, weights, trusted),
        outputs.count,
        str(folder / METADATA),
        head=head,
        plane=views.plane,
        order=tuple(meaning.values or ()),
    )
    architecture: NetworkArguments = {
        "name": monai_config.class_name(network),
        "channels": len(channels),
        "spatial_dims": len(views.patch),
        "size": {},
    }
    record: ModelOrigin = {
        "origin": "MONAI bundle",
        "name": str(metadata.get("name", "")),
        "version": str(metadata.get("version", "")),
        "weights_sha256": record_files.file_digest(weights),
        "description_sha256": record_files.digest_of_files([folder / METADATA, _config_file(folder)]),
    }
    run = TorchNetwork(made.eval().to(device), device)
    inference = Inference(views.patch, views.overlap, views.batch)
    return Model(task, preprocessing, inference, Networks(run, architecture), record)


def _config_file(folder: Path) -> Path:
    """The file of its configuration of a prediction; UsageError where there is none."""
    file = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if file is None:
        raise UsageError(f"has no {CONFIGS[0]} and no {CONFIGS[1]}", str(folder), "Get the bundle again, whole")
    return file


def _config(folder: Path) -> Config:
    """Its configuration of a prediction, whose paths begin at its own folder wherever that lies."""
    config = Config.from_file(_config_file(folder), folder)
    return replace(config, content={**config.content, "bundle_root": str(folder)})


def _part(config: Config, name: str) -> Any:
    if name not in config.content:
        raise UsageError(f"has no {name}", config.where, REMEDY)
    return config.content[name]


def _weights(config: Config) -> Path:
    """The file from which its CheckpointLoader reads the network, else where bundles have it."""
    parts = [one for part in config.content.values() for one in (part if isinstance(part, list) else [part])]
    stated = [
        one["load_path"] for one in parts if monai_config.class_name(one) == "CheckpointLoader" and "load_path" in one
    ]
    return config.file(config.resolve(stated[0]) if stated else WEIGHTS)


def _module(config: Config, network: Any, file: Path, trusted: Sequence[str]) -> Module:
    """The network with the bundle's weights."""
    module = config.make(network)
    if not isinstance(module, torch.nn.Module):
        raise UsageError("its network_def is no network", config.where, REMEDY)
    weights: Content = torch_files.read_torch_file(file, trusted)
    weights = next((weights[name] for name in WITHIN if isinstance(weights.get(name), Mapping)), weights)
    try:
        module.load_state_dict(dict(weights))
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).replace("\n", " ")[:200]
        raise IntegrityError(f"holds other weights than the network has ({reason})", str(file), REMEDY) from error
    return module


def _compose(config: Config, steps: Sequence[Described]) -> Any:
    """The steps as one transform of the image alone."""
    transforms = []
    for step in steps:
        keys = monai_config.step_keys(step)
        if KEY in keys or "keys" not in step:
            transforms.append(config.make(_of_image(step, keys) if KEY in keys else step))
    return monai.transforms.Compose(transforms)


def _of_image(step: Described, keys: Sequence[str]) -> Described:
    """A step for several keys as it is for the image: what it lists for each key is one of them."""
    index = list(keys).index(KEY)
    arguments = {
        key: value[index] if key in ("mode", "padding_mode") and isinstance(value, list) else value
        for key, value in step.items()
    }
    return {**arguments, "keys": [KEY]}


@dataclass(frozen=True)
class _Views:
    """The parts of an image that the network sees: windows, slices, or all of it at once.

    plane:  the axis along which it sees single slices
    beyond: as in `MonaiTransforms`
    """

    patch: tuple[int, ...]
    overlap: float = 0.25
    batch: int = 1
    merge: str = "constant"
    plane: int | None = None
    whole: bool = False
    beyond: StatedSettings = field(default_factory=dict)


def _views(config: Config, network: Any, before: Sequence[Described], size: Any) -> _Views:
    """What its inferer shows the network; size: of an image, as the metadata state it."""
    inferer, where = config.resolve(_part(config, "inferer")), config.where
    kind, axes = monai_config.class_name(inferer), network.get("spatial_dims", 3) if isinstance(network, Mapping) else 3
    if kind == "SimpleInferer":
        sizes = [size, *(step.get("spatial_size") for step in before if monai_config.class_name(step) in SIZING)]
        return _Views(_patch("spatial_size, the voxels of an image", sizes[-1], axes, where), whole=True)
    if kind not in SLIDING:
        monai_config.refuse_script(inferer, where)
        problem = f"its inferer is {kind or 'none'}, not one of SimpleInferer, {', '.join(SLIDING)}"
        raise UsageError(problem, where, REMEDY)
    stated = {**INFERER, **inferer}
    for key, possible in POSSIBLE.items():
        if stated[key] not in possible:
            problem = f"its inferer has {key} {stated[key]}; only {' or '.join(map(str, possible))} is supported"
            raise UsageError(problem, where, REMEDY)
    patch, plane = _patch("roi_size, the voxels of a window", stated["roi_size"], axes, where), None
    try:
        if kind == "SliceInferer":
            plane = range(len(patch) + 1)[stated["spatial_dim"]]
            patch = (*patch[:plane], 1, *patch[plane:])
        numbers = float(stated["overlap"]), int(stated["sw_batch_size"])
        beyond = {"mode": "edge"} if stated["padding_mode"] != "constant" else {"constant_values": stated["cval"]}
        if not 0 <= numbers[0] < 1 or numbers[1] < 1 or not isinstance(stated["cval"], int | float):
            raise ValueError(f"{numbers[0]}, {numbers[1]}, {stated['cval']}")
    except (TypeError, ValueError, LookupError) as error:
        problem = f"its inferer has an overlap, sw_batch_size, cval or spatial_dim that cannot be ({error})"
        raise UsageError(problem, where, REMEDY) from error
    return _Views(patch, *numbers, stated["mode"], plane, beyond=beyond if beyond != {"constant_values": 0} else {})


def _patch(what: str, size: Any, axes: Any, where: str) -> tuple[int, ...]:
    """Voxels on each axis; UsageError where they are not stated as positive numbers.

    what: states them, and of what
    axes: number of them where one number is stated for all
    """
    remedy = f"Write the voxels of {what.rpartition(' of ')[2]} on each axis"
    if size is None:
        raise UsageError(f"its inferer states no {what}", where, remedy)
    try:
        patch = tuple(int(length) for length in ([size] * axes if isinstance(size, int) else size))
    except (OverflowError, TypeError, ValueError) as error:
        raise UsageError(f"its inferer states a {what}, that is not a number: {size!r}", where, remedy) from error
    if min(patch, default=0) < 1 or len(patch) > 3:
        problem = f"its inferer has a {what.partition(',')[0]} of {list(patch)}"
        raise UsageError(f"{problem}, and windows as large as the image are not supported", where, remedy)
    return patch


@dataclass
class _Meaning:
    """What the steps after the network make of its outputs.

    names:     {output: what it means}
    exclusive: whether they are classes, of which the largest wins; None where no step says so
    activation: "softmax", "sigmoid" or "" for none
    called:    whether labels are made of probabilities
    largest:   groups of labels of which only the largest piece stays
    onehot:    whether labels are a channel each
    values:    of each class, or of each region in the order in which they are written; None for those of their order
    """

    names: Mapping[int, str]
    exclusive: bool | None = None
    activation: str = ""
    called: bool = False
    onehot: bool = False
    largest: list[list[int]] = field(default_factory=list)
    returned: Returned = "probabilities"
    nearest: bool = True  # as SaveImaged brings back what no step has
    values: Mapping[int, int] | None = None


def _meaning(post: Sequence[Described], names: Mapping[int, str], where: str) -> _Meaning:
    """The meaning that its steps after the network give to the outputs."""
    meaning = _Meaning(names)
    for step in post:
        if OUTPUTS not in monai_config.step_keys(step) and "keys" in step:
            continue
        match monai_config.class_name(step):
            case "AsDiscreted":
                meaning.exclusive, meaning.called = bool(_of_outputs(step, "argmax")), True
                meaning.onehot = bool(_of_outputs(step, "to_onehot")) or not meaning.exclusive
                if not meaning.exclusive:
                    _refuse_threshold(_of_outputs(step, "threshold"), meaning.activation, where)
            case "Activationsd":
                meaning.activation = next((kind for kind in ("softmax", "sigmoid") if _of_outputs(step, kind)), "")
                if meaning.exclusive is None and meaning.activation:
                    meaning.exclusive = meaning.activation == "softmax"
            case "KeepLargestConnectedComponentd":
                if not meaning.called:
                    raise UsageError("keeps the largest component before its outputs are thresholded", where, REMEDY)
                meaning.largest += _largest(step, names, where)
            case "Invertd":
                meaning.nearest = bool(_of_outputs(step, "nearest_interp", default=True))
                # Of probabilities the nearest are those of the nearest label.
                if not meaning.nearest and not (meaning.activation and not meaning.called):
                    meaning.returned = "labels" if meaning.called else "outputs"
            case "Lambdad":
                meaning.values = _values(step, meaning, where)
            case kind if kind not in UNCHANGING:
                monai_config.refuse_script(step, where)
                raise UsageError(f"has a step {kind} after its network", where, REMEDY)
    if meaning.exclusive is None:
        raise UsageError("does not say what its outputs mean: no AsDiscreted, no Activationsd", where, REMEDY)
    return meaning


def _values(step: Described, meaning: _Meaning, where: str) -> Mapping[int, int]:
    """The label that a function of called outputs gives each of them: it is asked for every combination of them.

    Of regions the order is that in which each is written over those before it. Raises UsageError where no such labels
    say what the function does.
    """
    function, count = step.get("func"), len(meaning.names)
    known = meaning.exclusive or count <= MOST_REGIONS
    if not (isinstance(function, Lambda) and meaning.called and meaning.values is None and known):
        raise UsageError("has a Lambdad that is no lambda of what is called", where, REMEDY)
    channels, several = sorted(meaning.names), not meaning.exclusive
    sizes = range(count + 1) if several else (1,)
    sets = list(chain.from_iterable(combinations(channels, size) for size in sizes))
    marked = torch.tensor([[float(n in one) for one in sets] for n in channels])
    try:
        labels = torch.as_tensor(function(marked if meaning.onehot else marked.argmax(dim=0, keepdim=True).float()))
        if len(labels) > 1:  # a channel for each label that is left
            labels = (labels * torch.arange(1, len(labels) + 1)[:, None]).amax(dim=0, keepdim=True)
        found = dict(zip(sets, map(float, labels[0].tolist()), strict=True))
    except ARGUMENT_ERRORS as error:
        raise UsageError(
            f"has a Lambdad that cannot be followed ({monai_config.error_reason(error)})", where, REMEDY
        ) from error
    of_channel = {n: found[n,] for n in channels}
    # Of two regions the one that is written later stays.
    stays = {
        n: sum(found[min(n, m), max(n, m)] == of_channel[n] for m in channels if m != n) if several else n
        for n in channels
    }
    order = sorted(channels, key=lambda n: stays[n])
    on_top = [of_channel[max(one, key=order.index)] if one else 0 for one in sets]
    whole = all(value == int(value) for value in of_channel.values()) and min(of_channel.values()) >= several
    if not whole or on_top != list(found.values()) or (not several and of_channel[channels[0]]):
        raise UsageError("has a Lambdad whose labels no label map of its outputs has", where, REMEDY)
    return {n: int(of_channel[n]) for n in order}


def _segmentation(meaning: _Meaning, merge: str, where: str) -> Task:
    exclusive = bool(meaning.exclusive)
    names = {0: "background", **meaning.names} if exclusive else meaning.names
    if meaning.largest and not exclusive:
        problem = "keeps the largest piece of overlapping regions; only that of classes is supported"
        raise UsageError(problem, where, REMEDY)
    if meaning.largest and meaning.values is not None:
        raise UsageError("keeps the largest piece of labels that a Lambdad has changed", where, REMEDY)
    # Regions that overlap are written in the order of their channels.
    values = meaning.values or {channel: channel if exclusive else channel + 1 for channel in names}
    labels = dict[int, str]()
    for channel, value in values.items():
        if value:
            labels[value] = f"{labels[value]} or {names[channel]}" if value in labels else names[channel]
    return task_catalogue.build_task(
        {
            "name": "imported_segmentation",
            "labels": [{"value": value, "name": labels[value]} for value in sorted(labels)],
            "loss": "dice+ce",
            "tolerance": 2.0,
            "writes": list(values.values()),
            "exclusive": exclusive,
            "weighed": f"monai_{merge}",
            "largest": meaning.largest,
        }
    )


def _classification(meaning: _Meaning, where: str) -> Task:
    """One of several classes, or findings where each output is a probability by itself."""
    if meaning.largest or meaning.values is not None:
        raise UsageError("has a step for voxels after a network of whole images", where, REMEDY)
    names = list(meaning.names.values())
    return task_catalogue.build_task(
        {"name": "classification", "classes": names} if meaning.exclusive else {"name": "findings", "findings": names}
    )


def _of_outputs(step: Described, setting: str, default: Any = None) -> Any:
    """A setting of a step after the network; of a list, for several keys, that of the outputs."""
    value, keys = step.get(setting, default), monai_config.step_keys(step)
    return value[keys.index(OUTPUTS)] if isinstance(value, list) and len(value) == len(keys) else value


def _refuse_threshold(threshold: Any, activation: str, where: str) -> None:
    """UsageError for regions that are not called where the sigmoid of their outputs is above a half, as ours are."""
    if threshold not in (0.5, None):
        raise UsageError(f"calls a region at a threshold of {threshold}, not 0.5", where, REMEDY)
    if activation != "sigmoid":
        form = f"a {activation}" if activation else "outputs without an Activationsd"
        raise UsageError(f"calls regions by a threshold of {form}; only of a sigmoid is supported", where, REMEDY)


def _largest(step: Described, names: Mapping[int, str], where: str) -> list[list[int]]:
    """Groups of labels of which, together, the largest piece stays, pieces being connected also by a corner."""
    for key, allowed in {"num_components": (None, 1), "connectivity": (None,), "is_onehot": (None, False)}.items():
        if step.get(key) not in allowed:
            raise UsageError(f"keeps the largest piece with {key} {step[key]}, which is not supported", where, REMEDY)
    applied = step.get("applied_labels")
    labels = sorted(names) if applied is None else applied if isinstance(applied, list) else [applied]
    labels = [label for label in labels if label]
    return [[label] for label in labels] if step.get("independent", True) else [labels]


def _definition(metadata: Described, folder: Path) -> tuple[tuple[str, ...], dict[int, str], Any]:
    """(names of the input's channels, {channel of the output: what it means}, size of an image, where it is stated)."""
    where, again = str(folder / METADATA), "Get the bundle again"
    form = metadata.get("network_data_format")
    if not isinstance(form, Mapping):
        raise FormatError("states no network_data_format", where, REMEDY)
    try:
        inputs = form["inputs"]
        if KEY not in inputs:
            raise UsageError(f"its network sees no image, but {', '.join(map(str, inputs))}", where, REMEDY)
        outputs, count = next(iter(form["outputs"].values())), int(inputs[KEY]["num_channels"])
        defined = {int(key): str(name) for key, name in (inputs[KEY].get("channel_def") or {}).items()}
        if len(defined) != count:
            defined = {number: str(number) for number in range(count)}
        named = outputs.get("channel_def") or outputs.get("label_def")
        if not named:
            kind = " ".join(str(outputs.get(name)) for name in ("type", "format"))
            raise FormatError(f"does not name the channels of its output ({kind})", where, again)
        names = {int(key): str(named[key]) for key in sorted(named, key=int)}
    except (*ARGUMENT_ERRORS, StopIteration) as error:
        raise FormatError(f"does not name its channels ({monai_config.error_reason(error)})", where, again) from error
    return tuple(defined[key] for key in sorted(defined)), names, inputs[KEY].get("spatial_shape")
