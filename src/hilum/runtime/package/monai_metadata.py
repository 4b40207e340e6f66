"""The configurations of a package for MONAI: `configs/metadata.json` and `configs/inference.json`.

https://docs.monai.io/en/stable/mb_specification.html
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING, cast

from hilum.networks import factory
from hilum.networks.factory import BAYESIAN
from hilum.networks.network_family import FusionSettings
from hilum.runtime import ensemble, torch_networks
from hilum.runtime.covariate_encoding import Context
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import NetworkArguments
from hilum.runtime.package import package_contents
from hilum.runtime.package.package_contents import FIRST
from hilum.tasks import Task, properties, task_catalogue
from hilum.values import Head

if TYPE_CHECKING:
    from hilum.runtime.foreign.monai_config import Described

# The newest that MONAI publishes, and what its `verify_metadata` downloads.
METADATA_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
NOT_STATED = "not stated"
# Which function of `bundle/formats.py` names the files of images of so many axes.
READERS = {1: "tables", 2: "pictures", 3: "volumes"}
# What MONAI itself brings is no requirement beside it.
BROUGHT = frozenset({"monai", "numpy", "torch"})
# Text that begins so is code or a reference to MONAI's parser of configurations.
SIGNS = ("$", "@", "%")


def required_packages(needs: Collection[str]) -> dict[str, str]:
    """{distribution: version} of what the package's scripts import beside MONAI's own needs."""
    named = _distributions(tuple(sys.path))
    return {name: version(name) for need in sorted(set(needs) - BROUGHT) for name in named.get(need, ())[:1]}


@cache  # it reads what each installed package lists, half a second
def _distributions(searched: tuple[str, ...]) -> Mapping[str, list[str]]:
    """The distributions that bring a package of modules, by its name."""
    del searched  # where Python looks for packages: with another of them the answer is another
    return packages_distributions()


def metadata_json(model: Model, needs: Collection[str], texts: Mapping[str, str]) -> Described:
    """metadata.json. Authors and copyright are what the environment says (HILUM_AUTHORS, HILUM_COPYRIGHT).

    said: "version", "task", "description" and what else is to stand there, in words
    """
    return {
        "schema": METADATA_SCHEMA,
        "changelog": {texts["version"]: "packaged by Hilum"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": required_packages(needs),
        "authors": escape_text(os.environ.get("HILUM_AUTHORS", NOT_STATED)),
        "copyright": escape_text(os.environ.get("HILUM_COPYRIGHT", NOT_STATED)),
        "intended_use": "Research. It is not a medical device: see docs/README.md",
        **{key: escape_text(value) for key, value in texts.items()},
        "network_data_format": {"inputs": {"image": _input(model)}, "outputs": {"pred": _output(model)}},
    }


# Why MONAI does not run an ensemble whose members have grids of their own.
NO_BUNDLE = (
    "MONAI does not run this ensemble: its members see images on grids of their own, and a bundle has no mean on the "
    "grid of the image. Run one of them, which is a bundle itself (members/0, ...), or all with `hilum predict`."
)
# Why MONAI's own command does not run a model to which somebody points.
NO_POINTING = (
    "MONAI's command for the bundle cannot be told what is pointed at: add --box x0,y0[,z0],x1,y1[,z1] to ours."
)


# Nor one that cuts slides into tiles, which MONAI's readers hold as a whole.
NO_SLIDES = "MONAI does not run this model: it sees a slide tile by tile. Predict with `hilum predict`."


def why_unbundled(model: Model) -> str:
    """Why MONAI does not run a model's package; empty where it does."""
    return NO_BUNDLE if model.members else NO_SLIDES if model.preprocessing.tiles is not None else ""


def inference_json(model: Model, places: Mapping[str, str]) -> Described:
    """inference.json: run from the package's folder, it needs MONAI and the package's own scripts.

    places: {module as it is called here: dotted name under scripts}
    """
    here = "$@bundle_root + "
    table = {"covariates": "@covariates", "formats": "@formats"} if model.networks.context.names else {}
    absent = [escape_text(name) for name in cast("Sequence[str]", model.preprocessing.settings.get("absent", ()))]
    before: Described = {}
    if model.first is not None:
        first = _inferer(model.first, places, f"{FIRST}/", {"network": "@network_before"})
        before = {"network_before": _network_def(model.first), "before": first}
    definition = {"network": "@network_def", **table, **({"before": "@before"} if before else {})}
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": f"{here}'/images'",
        "output_dir": f"{here}'/results'",
        **({"covariates": ""} if table else {}),
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": _network_def(model),
        **before,
        "formats": {"_target_": f"scripts.formats.{READERS[model.preprocessing.ndim]}"},
        "dataset": {
            "_target_": "scripts.inference.cases",
            "source": "@dataset_dir",
            "formats": "@formats",
            "channels": [escape_text(name) for name in model.preprocessing.channels],
            **({"absent": absent} if absent else {}),
        },
        "inferer": _inferer(model, places, "", definition),
        "evaluator": {
            "_target_": "scripts.inference.Evaluator",
            "dataset": "@dataset",
            "inferer": "@inferer",
            "formats": "@formats",
            "output_dir": "@output_dir",
        },
        "run": ["$@evaluator.run()"],
    }


def _network_def(model: Model) -> Described:
    """The networks of a model as one, each with its scale of intensities where it has one of its own."""
    own_scales = ensemble.have_own_scales(model)
    mean = package_contents.kind_of_mean(model.task, _head(model))
    return {
        "_target_": "scripts.network.OneTensor",
        "networks": [_one_network(model, network, own_scales) for network in model.networks.architectures],
        "head": _head(model),
        **({} if mean == "probabilities" else {"mean": mean}),
        **({} if model.networks.shares is None else {"shares": list(model.networks.shares)}),
    }


def _one_network(model: Model, network: NetworkArguments, own_scales: bool) -> Described:
    """One of the networks of a model, as these settings have it."""
    path, function = factory.builder_source(network["name"])
    marked, channels = network.get("marked", 0), network["channels"]
    context = len(Context.from_settings(network.get("context")))
    heads = torch_networks.family_heads(model.task.heads, network)
    definition = {
        "_target_": f"scripts.networks.{path.stem}.{function}",
        "channels": channels - 1 + marked if marked else channels,
        "spatial_dims": network["spatial_dims"],
        **factory.head_arguments(network["name"], heads),
        **factory.family_settings(
            network["name"], heads, network["size"], context, cast("FusionSettings | None", network.get("fusion"))
        ),
    }
    if network["size"].get(BAYESIAN):
        definition = {"_target_": "scripts.network.with_variational_layers", "network": definition}
    if numbers := network.get(torch_networks.EMBEDDED):
        answer = {"head": _head(model), "numbers": numbers, "outputs": model.task.heads[_head(model)].count}
        definition = {"_target_": "scripts.network.OnNormedFeatures", "network": definition, **answer}
    if moving := torch_networks.displacing_heads(model.task.heads):
        definition = {"_target_": "scripts.network.Displacing", "network": definition, "counts": moving}
    if added := torch_networks.added_inputs(model.task.heads):
        definition = {"_target_": "scripts.network.Correcting", "network": definition, "added": added}
    if marked:
        definition = {"_target_": "scripts.network.AfterLabels", "network": definition, "labels": marked}
    if "first_entry" in network:
        entries = {"first": network["first_entry"], "count": context}
        definition = {"_target_": "scripts.network.OnItsEntries", "network": definition, **entries}
    if own_scales:
        definition = {"_target_": "scripts.network.OnItsScale", "network": definition, "channels": channels}
    return definition


def _inferer(model: Model, places: Mapping[str, str], folder: str, definition: Described) -> Described:
    """Inferer that makes a model of the files in a folder of the package; definition: what else it takes."""
    (kind, *parts), preparation = task_classes(model.task), type(model.preprocessing)
    here = "$@bundle_root + "
    return {
        "_target_": "scripts.inference.inferer",
        "record": f"{here}'/{folder}hilum/model.json'",
        "weights": f"{here}'/{folder}models/model.pt'",
        "task": _callable(places, kind),
        **({"parts": [_callable(places, one) for one in parts]} if parts else {}),
        "preparation": _callable(places, preparation),
        "device": "@device",
        **definition,
    }


def task_classes(task: Task) -> list[type[Task]]:
    """The class of a task, and those of the tasks that it is made of."""
    return list(dict.fromkeys([type(task), *map(type, properties.leaf_tasks(task).values())]))


def _callable(places: Mapping[str, str], kind: type) -> dict[str, str]:
    """A class of the package's scripts, as it is and not made."""
    return {"_target_": f"scripts.{places[kind.__module__]}.{kind.__qualname__}", "_mode_": "callable"}


def escape_text(text: str) -> str:
    """Text that MONAI's parser takes for nothing but text: a class may have any name."""
    return f" {text}" if text.startswith(SIGNS) else text


def _head(model: Model) -> str:
    return next(iter(model.task.heads))


def _input(model: Model) -> Described:
    preprocessing = model.preprocessing
    marks = ["numbers of the labels that the first stage marked"] * (preprocessing.cascade is not None)
    return {
        "type": "image",
        "format": "magnitude",
        "modality": preprocessing.modality if preprocessing.modality != "unknown" else "n/a",
        "num_channels": model.networks.architecture["channels"],
        "spatial_shape": list(model.inference.patch),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": preprocessing.shape is None,
        "channel_def": _number_names([*_inputs(preprocessing.channels, preprocessing.moments), *marks]),
    }


def _inputs(channels: Sequence[str], frames: int) -> list[str]:
    """The channels, those of a clip frame by frame."""
    if frames == 1:
        return list(channels)
    return [f"{name}, frame {number}" for name in channels for number in range(frames)]


def _output(model: Model) -> Described:
    """Description of the first head: an image of labels, the outputs of the classes, or numbers."""
    head = model.task.heads[_head(model)]
    names = [label.name for label in task_catalogue.channel_labels(model.task).get(_head(model), model.task.labels)]
    kind, content = ("image", "labels") if head.is_dense else ("probabilities", "classes")
    if head.holds_numbers or head.holds_intensities:
        kind, content = "image" if head.is_dense else "tuples", "magnitude"
    return {
        "type": kind,
        "format": content,
        "modality": "n/a",
        "num_channels": head.count,
        "spatial_shape": list(model.inference.patch) if head.is_dense else [1],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": head.is_dense and model.preprocessing.shape is None,
        "channel_def": _number_names(_channels(head, names)),
    }


def _channels(head: Head, names: Sequence[str]) -> list[str]:
    """Meaning of each output: the background, the labels, what belongs to the grid's axes.

    Of numbers these, and what is said of each behind them. Numbered alone where labels follow from several outputs.
    """
    if head.holds_numbers:
        return [*names, *(f"about {name}" for name in names)][: head.count]
    if head.called:
        return [*head.called, *(f"log deviation of {name}" for name in head.called)][: head.count]
    if head.count < len(names):
        return [f"output {number}" for number in range(head.count)]
    axes = _along_axes(head)
    return ["background"] * (head.count - len(names) - len(axes)) + [*names, *axes]


def _along_axes(head: Head) -> list[str]:
    """Names of the channels that belong to axes of the grid."""
    counts = {"length along axis": head.lengths, "offset along axis": head.offsets}
    return [f"{name} {axis}" for name, count in counts.items() for axis in range(count)]


def _number_names(names: Sequence[str]) -> dict[str, str]:
    return {str(number): escape_text(name) for number, name in enumerate(names)}
