"""A result folder of nnU-Net v2 as a model: the folder that holds `plans.json`, `dataset.json` and `fold_*`.

`postprocessing.pkl` says of which labels only the largest piece stays; it is read without running anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.errors import FormatError, IntegrityError, UsageError
from hilum.files.storage import structured_text
from hilum.networks import weight_loading
from hilum.networks.layouts import nnunet_weights
from hilum.networks.layouts.weight_layout import Content
from hilum.networks.network_family import SizeValue
from hilum.networks.weight_loading import NUMPY_SCALAR
from hilum.runtime import record_files, torch_networks
from hilum.runtime.foreign import torch_files
from hilum.runtime.inference import Inference
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import ModelOrigin, NetworkArguments
from hilum.runtime.preprocessing.nnunet_preprocessing import NNUNetPreprocessing, NNUNetResampling, Scheme
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import Task, task_catalogue
from hilum.transforms import COLOUR
from hilum.values import PlainValue, StatedSettings, voxel_images
from hilum.work_state import log

if TYPE_CHECKING:
    from torch.nn import Module


# The finished network, else the best so far.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
# By how much of a window nnU-Net moves on.
STEP = 0.5


def is_nnunet(folder: Path) -> bool:
    """Whether a folder is a result of nnU-Net v2."""
    return all((folder / name).is_file() for name in (PLANS, DATASET))


def load_nnunet(
    folder: Path,
    device: str,
    *,
    fold: int | None = None,
    trusted: Sequence[str] = (),
    largest: Sequence[Sequence[int]] = (),
) -> Model:
    """The mean of its folds, or one of them; where no fold was trained, the network of all cases.

    trusted: what its checkpoints may import beside tensors and numbers
    largest: groups of label values of which only the largest piece stays
    Raises UsageError for what nnU-Net can and we cannot, IntegrityError for a checkpoint that would run code.
    """
    files = [_checkpoint(one) for one in _folds(folder, fold)]
    first = torch_files.read_torch_file(files[0], trusted)
    plans = Plans.from_folder(folder, _configuration(first, files[0]))
    task, network = plans.task(largest), plans.network()
    modules = []
    for number, file in enumerate(files):
        content = first if number == 0 else torch_files.read_torch_file(file, trusted)
        modules.append(_module(content, task, network, file))
    networks = tuple(TorchNetwork(module.to(device), device) for module in modules)
    run = networks[0] if len(networks) == 1 else AveragedNetwork(networks, task.average)
    inference = Inference(plans.patch, STEP, 1, _flips(first, plans))
    first_stage = None if plans.previous is None else _stage_before(plans, device, trusted)
    record = _record(plans, first, files)
    return Model(task, plans.preprocessing(), inference, Networks(run, network), record, first_stage)


def nnunet_start(folder: Path) -> tuple[Path, Mapping[str, PlainValue]]:
    """The checkpoint of the first fold, for a training that starts from its weights, and what a plan takes from it.

    That is the grid, with axes in our order, and the intensities of CT, by the names of our preprocessing.
    Raises what `load_nnunet` raises.
    """
    file = _checkpoint(_folds(folder, None)[0])
    preprocessing = Plans.from_folder(folder, _configuration(torch_files.read_torch_file(file), file)).preprocessing()
    settings: dict[str, PlainValue] = {"modality": preprocessing.modality, "unit": preprocessing.unit}
    if len(preprocessing.spacing) == len(preprocessing.order_of_axes):
        settings["spacing"] = [
            preprocessing.spacing[preprocessing.order_of_axes.index(axis)] for axis in range(len(preprocessing.spacing))
        ]
    if all(scheme.name == CT for scheme in preprocessing.schemes):
        settings["normalisation"] = [
            {"method": "window", "low": one.low, "high": one.high, "mean": one.mean, "deviation": one.deviation}
            for one in preprocessing.schemes
        ]
    return file, settings


def _stage_before(plans: Plans, device: str, trusted: Sequence[str]) -> Model:
    """The model of the configuration before, from where nnU-Net puts it: beside this one, under its own name."""
    trainer, _, _ = plans.folder.resolve().name.rpartition("__")
    folder = plans.folder.resolve().with_name(f"{trainer}__{plans.previous}")
    if not trainer or not is_nnunet(folder):
        problem = f"is the second stage of a cascade, and {folder.name or plans.previous} is not beside it"
        remedy = f"Put the result folder of {plans.previous} there, as nnU-Net has it: TRAINER__PLANS__CONFIGURATION"
        raise UsageError(problem, str(plans.folder), remedy)
    return load_nnunet(folder, device, trusted=trusted)


def _folds(folder: Path, fold: int | None) -> list[Path]:
    """The folders of the networks to use."""
    folders = {one.name.removeprefix("fold_"): one for one in sorted(folder.glob("fold_*")) if one.is_dir()}
    folders = {name: one for name, one in folders.items() if any((one / file).is_file() for file in CHECKPOINTS)}
    numbered = {int(name): one for name, one in folders.items() if name.isdecimal()}
    if fold is not None:
        if fold not in numbered:
            choice = f"Choose one of {', '.join(map(str, numbered))}" if numbered else "Leave --fold out"
            raise UsageError(f"has no fold {fold}", str(folder), choice)
        return [numbered[fold]]
    chosen = [numbered[number] for number in sorted(numbered)] or [folders[name] for name in folders if name == "all"]
    if not chosen:
        raise UsageError("holds no fold_*/checkpoint_final.pth", str(folder), "Give a folder of a finished training")
    if numbered and "all" in folders:
        log.info("%s: the mean of folds %s; fold_all stays out, as in nnU-Net", folder, sorted(numbered))
    return chosen


def _checkpoint(folder: Path) -> Path:
    file = next(folder / name for name in CHECKPOINTS if (folder / name).is_file())
    if file.name != CHECKPOINTS[0]:
        log.warning("%s: has no %s; %s is used", folder, CHECKPOINTS[0], file.name)
    return file


def _configuration(checkpoint: Content, file: Path) -> str:
    try:
        return str(checkpoint["init_args"]["configuration"])
    except (KeyError, TypeError) as error:
        raise FormatError("does not say its configuration", str(file), "Give a checkpoint of nnU-Net v2") from error


def _module(checkpoint: Content, task: Task, network: NetworkArguments, file: Path) -> Module:
    """The network with the checkpoint's weights, ready to predict."""
    weights = nnunet_weights.without_repeats(checkpoint.get("network_weights", {}))
    if any(name.endswith(".running_mean") for name in weights):
        network["size"] = {**network["size"], "norm": "batch"}  # a trainer of nnU-Net's changes it, and not the plans
    module = torch_networks.build_module(task, network)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).replace("\n", " ")[:200]
        problem = f"its weights are not of the planned network, trainer {checkpoint.get('trainer_name')} ({reason})"
        raise IntegrityError(
            problem, str(file), "Use it with nnU-Net itself, if its trainer is not a stock one"
        ) from error
    return module.eval()


def _flips(checkpoint: Content, plans: Plans) -> tuple[int, ...]:
    """Axes of our window along which nnU-Net mirrors; a slice has one axis more here."""
    axes = checkpoint.get("inference_allowed_mirroring_axes") or ()
    return tuple(int(axis) + int(plans.slicewise) for axis in axes)


def _record(plans: Plans, checkpoint: Content, files: Sequence[Path]) -> ModelOrigin:
    return {
        "origin": "nnU-Net v2",
        "dataset": str(plans.plans.get("dataset_name", "")),
        "configuration": plans.configuration,
        "trainer": str(checkpoint.get("trainer_name", "")),
        "folds": [file.parent.name.removeprefix("fold_") for file in files],
        "weights_sha256": record_files.digest_of_files(files),
        "description_sha256": record_files.digest_of_files([plans.folder / PLANS, plans.folder / DATASET]),
    }


PLANS, DATASET = "plans.json", "dataset.json"
# Whether each of nnU-Net's readers turns an image to RAS+ first; all give (slice, row, column).
READERS = {
    "SimpleITKIO": False,
    "NibabelIO": False,
    "NaturalImage2DIO": False,
    "Tiff3DIO": False,
    "NibabelIOWithReorient": True,
    "SimpleITKIOWithReorient": True,
}
# nnU-Net's networks: our family, the setting that counts what it repeats, and nnU-Net's key for that.
NETWORKS = {
    "PlainConvUNet": ("plain_conv_unet", "convolutions", "n_conv_per_stage"),
    "ResidualEncoderUNet": ("residual_encoder_unet", "blocks", "n_blocks_per_stage"),
}
CT = "CTNormalization"
# By the last part of torch's name.
NORMS = {"InstanceNorm2d": "instance", "InstanceNorm3d": "instance", "BatchNorm2d": "batch", "BatchNorm3d": "batch"}
ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}
RGB = ({"R", "G", "B"}, {"red", "green", "blue"})
ELSEWHERE = "Use it with nnU-Net itself"


@dataclass(frozen=True)
class Plans:
    """The two files of a result folder, and the configuration of which it holds the networks."""

    folder: Path
    plans: StatedSettings
    dataset: StatedSettings
    configuration: str

    @classmethod
    def from_folder(cls, folder: Path, configuration: str) -> Plans:
        """FormatError for a file that cannot be read, UsageError for a configuration that is not planned."""
        plans, dataset = (_json(folder / name) for name in (PLANS, DATASET))
        if configuration not in plans.get("configurations", {}):
            names = ", ".join(plans.get("configurations", {}))
            raise UsageError(f"plans no configuration {configuration!r}", str(folder / PLANS), f"It plans {names}")
        return cls(folder, plans, dataset, configuration)

    @property
    def configuration_settings(self) -> StatedSettings:
        """The configuration, with what it inherits."""
        return self._resolve(self.configuration, ())

    def _resolve(self, name: str, path: tuple[str, ...]) -> StatedSettings:
        configurations = self.plans["configurations"]
        if name in path or name not in configurations:
            raise FormatError(f"inherits from {name!r}, not there", str(self.folder / PLANS), "Get the file again")
        planned = dict(configurations[name])
        above = planned.get("inherits_from")
        return {**self._resolve(above, (*path, name)), **planned} if above else planned

    @property
    def previous(self) -> str | None:
        """The configuration whose result this one sees too, in a cascade."""
        return self.configuration_settings.get("previous_stage")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the images of a case, in order."""
        named = self.dataset.get("channel_names") or self.dataset["modality"]
        names = tuple(str(named[key]) for key in sorted(named, key=int))
        return COLOUR if set(names) in RGB else names

    @property
    def slicewise(self) -> bool:
        """Whether the network sees one slice at a time."""
        return len(self.configuration_settings["patch_size"]) == 2

    @property
    def patch(self) -> tuple[int, ...]:
        """Patch of three axes: a network of two sees one slice at a time."""
        patch = tuple(int(size) for size in self.configuration_settings["patch_size"])
        return (1, *patch) if self.slicewise else patch

    def task(self, largest: Sequence[Sequence[int]] = ()) -> Task:
        """The task by which its outputs become labels: classes, or regions that are written one over another."""
        _only(self.plans.get("label_manager", "LabelManager"), {"LabelManager"}, "labels", self.folder)
        labels = {name: value for name, value in self.dataset["labels"].items() if name not in ("background", "ignore")}
        regions = {name: value for name, value in labels.items() if isinstance(value, list) and len(value) > 1}
        marked: dict[str, tuple[int, ...]] = {}
        if regions:
            order = [int(value) for value in self.dataset["regions_class_order"]]
            marked = {name: _mark_first(mark, labels[name]) for name, mark in zip(labels, order, strict=True)}
            names, writes = {one.value: one.name for one in voxel_images.labels_of_regions(marked)}, order
        else:
            names = {int(_values(value)[0]): name for name, value in labels.items()}
            writes = [0, *sorted(names)]
            if writes != list(range(len(labels) + 1)):
                raise FormatError("labels are not 0, 1, 2, ...", str(self.folder / DATASET), ELSEWHERE)
        return task_catalogue.build_task(
            {
                "name": "imported_segmentation",
                "labels": [{"value": value, "name": names[value]} for value in sorted(names)],
                # It is not trained here; these say nothing of how it was.
                "loss": "dice+ce",
                "tolerance": 2.0,
                "writes": writes,
                "exclusive": not regions,
                # Those that nobody could tell from a label map are scored by their parts.
                "regions": marked if regions and not voxel_images.find_hidden_region(marked) else None,
                "weighed": "nnunet",
                "largest": largest,
            }
        )

    def preprocessing(self) -> NNUNetPreprocessing:
        """The preprocessing of the configuration; UsageError for a step that is not nnU-Net's own."""
        planned, where = self.configuration_settings, self.folder
        _only(planned.get("preprocessor_name", "DefaultPreprocessor"), {"DefaultPreprocessor"}, "preprocessor", where)
        reader = _only(self.plans["image_reader_writer"], set(READERS), "reader", where)
        masked = planned["use_mask_for_norm"]
        schemes = tuple(
            self._scheme(number, name, bool(masked[number]))
            for number, name in enumerate(planned["normalization_schemes"])
        )
        return NNUNetPreprocessing(
            self.channels,
            schemes,
            tuple(float(step) for step in planned["spacing"]),
            self.patch,
            tuple(int(axis) for axis in self.plans["transpose_forward"]),
            READERS[reader],
            self._resampling("data"),
            self._resampling("probabilities"),
            self._foreground if self.previous else (),
            self._resampling("seg"),
            "CT" if any(scheme.name == CT for scheme in schemes) else "unknown",
        )

    @property
    def _foreground(self) -> tuple[int, ...]:
        """Every value but 0, regions taken apart: the channels of a stage before."""
        values = (value for name, value in self.dataset["labels"].items() if name != "ignore")
        flat = {int(one) for value in values for one in _values(value)}
        return tuple(sorted(flat - {0}))

    def _scheme(self, number: int, name: str, masked: bool) -> Scheme:
        if name != CT:
            return Scheme(name, masked)
        intensities = self.plans.get("foreground_intensity_properties_per_channel")
        properties = (intensities or self.plans["foreground_intensity_properties_by_modality"])[str(number)]
        return Scheme(
            name,
            masked,
            float(properties["percentile_00_5"]),
            float(properties["percentile_99_5"]),
            float(properties["mean"]),
            float(properties["std"]),
        )

    def _resampling(self, of: str) -> NNUNetResampling:
        """One of the three: of "data", "seg" and "probabilities"."""
        function = self.configuration_settings[f"resampling_fn_{of}"]
        arguments = self.configuration_settings[f"resampling_fn_{of}_kwargs"]
        functions = {"resample_data_or_seg_to_shape", "resample_torch_fornnunet"}
        _only(function, functions, "resampling", self.folder)
        apart = arguments.get("force_separate_z")
        threshold = float(arguments.get("separate_z_anisotropy_threshold", 3.0))
        if function == "resample_torch_fornnunet":
            _only(arguments.get("mode", "linear"), {"linear"}, "resampling", self.folder)
            _only(arguments.get("aniso_axis_mode", "nearest-exact"), {"nearest-exact"}, "resampling", self.folder)
            return NNUNetResampling(1, 0, apart, threshold, by_share=True)
        return NNUNetResampling(int(arguments.get("order", 3)), int(arguments.get("order_z", 0)), apart, threshold)

    def network(self) -> NetworkArguments:
        """The arguments of `factory.build` but the heads."""
        name, size = _architecture(self.configuration_settings, self.folder)
        channels = len(self.channels) + (len(self._foreground) if self.previous else 0)
        if self.slicewise:
            size["slicewise"] = True
        return {"name": name, "channels": channels, "spatial_dims": 3, "size": size}


def _mark_first(mark: int, size: Any) -> tuple[int, ...]:
    """The values of a region, first the one that marks it."""
    return tuple(dict.fromkeys([mark, *(int(one) for one in _values(size))]))


def _values(value: Any) -> list[Any]:
    """The values of a label or of a region."""
    return value if isinstance(value, list) else [value]


def _architecture(planned: StatedSettings, folder: Path) -> tuple[str, dict[str, SizeValue]]:
    """(family, its settings); plans from before 2024 say the same in other words."""
    if "architecture" not in planned:
        return _older_architecture(planned, folder)
    architecture, where = planned["architecture"], folder
    full = str(architecture["network_class_name"])
    name = _only(full.rpartition(".")[2], set(NETWORKS), "network", where)
    if not full.startswith("dynamic_network_architectures.architectures."):
        raise UsageError(f"its network {full} is not one of nnU-Net's own", str(where / PLANS), ELSEWHERE)
    arguments = architecture["arch_kwargs"]
    size = {
        "features": _value_per_axis(arguments["features_per_stage"], arguments["n_stages"]),
        "kernels": arguments["kernel_sizes"],
        "strides": arguments["strides"],
        "decoder_convolutions": _value_per_axis(arguments["n_conv_per_stage_decoder"], arguments["n_stages"] - 1),
        "bias": bool(arguments.get("conv_bias", False)),
        "norm": _norm(arguments.get("norm_op"), where),
        "norm_options": dict(arguments.get("norm_op_kwargs") or {}),
        "activation": ACTIVATIONS[_only(_last(arguments.get("nonlin")), set(ACTIVATIONS), "activation", where)],
        "slope": float((arguments.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)),
    }
    family, blocks, counted = NETWORKS[name]
    for other in ("block", "bottleneck_channels", "stem_channels"):
        if arguments.get(other) is not None and _last(arguments[other]) != "BasicBlockD":
            raise UsageError(
                f"its network has a {other} of its own ({arguments[other]})", str(where / PLANS), ELSEWHERE
            )
    if arguments.get("nonlin_first"):
        size["norm_last"] = True
    axes = len(planned["patch_size"])
    size |= {key: _each_axis(size[key], axes, arguments["n_stages"]) for key in ("kernels", "strides")}
    return family, {**size, blocks: _value_per_axis(arguments[counted], arguments["n_stages"])}


def _older_architecture(planned: StatedSettings, folder: Path) -> tuple[str, dict[str, SizeValue]]:
    name = _only(planned.get("UNet_class_name"), set(NETWORKS), "network", folder)
    family, blocks, _ = NETWORKS[name]
    convolutions = planned["n_conv_per_stage_encoder"]
    base, most = planned["UNet_base_num_features"], planned["unet_max_num_features"]
    size = {
        "features": [min(base * 2**stage, most) for stage in range(len(convolutions))],
        "kernels": planned["conv_kernel_sizes"],
        "strides": planned["pool_op_kernel_sizes"],
        blocks: list(convolutions),
        "decoder_convolutions": list(planned["n_conv_per_stage_decoder"]),
    }
    return family, size


def _norm(operation: Any, folder: Path) -> str | None:
    return None if operation is None else NORMS[_only(_last(operation), set(NORMS), "normalisation", folder)]


def _last(dotted: Any) -> str:
    return str(dotted).rpartition(".")[2]


def _value_per_axis(value: int | Sequence[int], count: int) -> list[int]:
    return [int(value)] * count if isinstance(value, int) else [int(one) for one in value]


def _each_axis(value: Any, axes: int, stages: int) -> list[list[int]]:
    values = [value] * stages if isinstance(value, int) else list(value)
    return [[one] * axes if isinstance(one, int) else [int(n) for n in one] for one in values]


def _only(value: Any, allowed: set[str], what: str, folder: Path) -> str:
    """UsageError for a part that is not one of nnU-Net's own that we know."""
    if value not in allowed:
        problem = f"its {what} is {value}, and known are {', '.join(sorted(allowed))}"
        raise UsageError(problem, str(folder / PLANS), ELSEWHERE)
    return str(value)


def _json(path: Path) -> StatedSettings:
    try:
        content = structured_text.load_json(path)
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot be read ({error})", str(path), "Get the folder again") from error
    if not isinstance(content, dict):
        raise FormatError("is not a record", str(path), "Get the folder again")
    return content


# The one function that nnU-Net v2 writes there.
LARGEST = "nnunetv2.postprocessing.remove_connected_components.remove_all_but_largest_component_from_segmentation"
REMEDY = "Apply it with nnU-Net itself, if you trust it"


class _Steps(pickle.Unpickler):
    """Numbers, lists and the name of one function; the function itself is never imported."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the file stands for; UnpicklingError for a name that is not expected."""
        full = f"{module}.{name}"
        if full == LARGEST:
            return LARGEST
        if full in NUMPY_SCALAR:
            return weight_loading.numpy_number
        if full == "numpy.dtype":
            return np.dtype
        if full == "_codecs.encode":  # how an older protocol writes bytes
            return _bytes
        raise pickle.UnpicklingError(f"it would call {full}")


def read_postprocessing(path: Path) -> tuple[tuple[int, ...], ...]:
    """Groups of label values of which, together, only the largest connected piece stays; applied in this order.

    Raises IntegrityError for a file that names any other function, FormatError for one that is none.
    """
    try:
        with path.open("rb") as file:
            functions, arguments = _Steps(file).load()
        return tuple(_group(function, given) for function, given in zip(functions, arguments, strict=True))
    except pickle.UnpicklingError as error:
        raise IntegrityError(f"is not the one step that is known ({error})", str(path), REMEDY) from error
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise FormatError(f"cannot be read ({error})", str(path), "Give nnU-Net's postprocessing.pkl") from error


def _bytes(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"bytes in {codec}")
    return text.encode(codec)


def _group(function: Any, arguments: StatedSettings) -> tuple[int, ...]:
    if function != LARGEST or set(arguments) - {"labels_or_regions", "background_label"}:
        raise pickle.UnpicklingError(f"a step with {sorted(arguments)}")
    if int(arguments.get("background_label", 0)) != 0:
        raise pickle.UnpicklingError("a background that is not 0")
    return tuple(sorted(set(_pickled_values(arguments["labels_or_regions"]))))


def _pickled_values(content: Any) -> Iterator[int]:
    """A label, a region of several, or a list of either."""
    if isinstance(content, list | tuple):
        for value in content:
            yield from _pickled_values(value)
    else:
        yield int(content)
