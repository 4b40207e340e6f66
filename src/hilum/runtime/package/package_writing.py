"""A model as a package: a MONAI bundle that runs without Hilum, and that Hilum loads again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, cast

from hilum.errors import PlanError
from hilum.evaluation import case_tables
from hilum.evaluation.metric import REPEATABILITY
from hilum.lazy import torch
from hilum.networks import factory
from hilum.runtime import ensemble, hardware, record_files
from hilum.runtime.foreign import detect
from hilum.runtime.foreign.monai_config import Described
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import MODEL_SCHEMA, LabelRecord, ModelRecord, OnnxRecord, PackedNetworks
from hilum.runtime.package import bag_export, monai_metadata, onnx_export, package_contents, readme, script_sources
from hilum.runtime.package.monai_metadata import NO_BUNDLE, READERS
from hilum.runtime.package.onnx_export import FurtherOutputs, WithFurther
from hilum.runtime.package.package_contents import (
    EXPLANATIONS,
    FIRST,
    MEMBERS,
    ONNX,
    PACKAGED,
    RECORD,
)
from hilum.runtime.package.script_sources import TOP, Sources
from hilum.runtime.torch_networks import TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import properties
from hilum.values import Decision, Label, Row, grouping, record_schema
from hilum.values.explanation_records import EXPLANATIONS_SCHEMA, ExplanationsRecord

if TYPE_CHECKING:
    from torch.nn import Module

# What of a kind of problem a packaged model needs: what comes after the network.
PREDICTS = frozenset(
    {
        *(
            "name",
            "check_and_fill",
            "parts",
            "heads",
            "labels",
            "channel_labels",
            "merge",
            "channels_when_mirrored",
            "average",
        ),
        *(
            "probability_heads",
            "probabilities",
            "decode",
            "outputs",
            "bytes_per_voxel",
            "folds_by_head",
            "background_outputs",
            "takes_prompts",
        ),
    }
)
LICENSE = "LICENSE"
OF_A_CASCADE = "It is the first stage of a cascade, at low resolution: its performance alone was not estimated."
OF_AN_ENSEMBLE = "It is a member of an ensemble: its performance alone was not estimated."
# By how much one tensor of several networks may differ from what the task averages them to, of the largest output.
AGREEMENT = 1e-4


@dataclass(frozen=True)
class PackageEvidence:
    """The evidence about a model beside itself.

    rows:      of its evaluation, with intervals; none where nothing was estimated
    limits:    sentences that a reader has to know beside the figures
    decisions: of the plan, with their reasons
    trained:   hashes of the images that it was trained with, or that decided something of it
    tested:    hashes of the images that it was tested on
    explanations: what tests found of its explanations, as a run keeps it; empty where nobody tested any
    audits:    {file name: text} of what was found about groups of people
    """

    rows: Sequence[Row] = ()
    limits: Sequence[str] = ()
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    trained: Sequence[str] = ()
    tested: Sequence[str] = ()
    explanations: ExplanationsRecord = field(default_factory=ExplanationsRecord)
    audits: Mapping[str, str] = field(default_factory=dict)


def write_package(model: Model, evidence: PackageEvidence, title: str, folder: Path) -> OnnxRecord:
    """The package into an existing, empty folder; what became of its ONNX file.

    Raises PlanError for a model whose parts cannot travel.
    """
    if model.first is not None:
        (folder / FIRST).mkdir()
        write_package(model.first, PackageEvidence(limits=[OF_A_CASCADE]), f"{title}, first stage", folder / FIRST)
    for name in ("configs", "docs", PACKAGED):
        (folder / name).mkdir()
    texts = {"version": "1.0.0", "name": title, "task": model.task.name, "description": _description(model)}
    networks, needs = _write_members(model, texts, folder) if model.members else _write_networks(model, texts, folder)
    record: ModelRecord = {
        **model.settings,
        "record": {
            **model.record,
            "repeatability": {
                one.label: one.estimate.value for one in evidence.rows if one.metric == REPEATABILITY.name
            },
            "trained": list(evidence.trained),
            "tested": list(evidence.tested),
            "limits": list(evidence.limits),
        },
        **networks,
        "labels": [_plain_label(label) for label in model.task.labels],
        "evaluation": case_tables.rows_to_json(evidence.rows)["rows"],
        "decisions": {name: record_schema.decision_record(one) for name, one in evidence.decisions.items()},
        "environment": hardware.machine_environment(),
    }
    record_files.write_json(folder / PACKAGED / RECORD, MODEL_SCHEMA, record)
    model.parts.write(folder / PACKAGED)
    if evidence.explanations:
        # Codes, measures and calibration, which a package may add, change the model and none of its maps.
        explanations: ExplanationsRecord = {**evidence.explanations, "sha256": model.sha256}
        record_files.write_json(folder / PACKAGED / EXPLANATIONS, EXPLANATIONS_SCHEMA, explanations)
    for name, content in evidence.audits.items():
        (folder / PACKAGED / name).write_text(content, encoding="utf-8")
    page = readme.readme_text(model, title, evidence.rows, evidence.limits, needs, texts["description"])
    (folder / "docs" / "README.md").write_text(page, encoding="utf-8")
    text = files(TOP).joinpath(LICENSE).read_text(encoding="utf-8")
    (folder / LICENSE).write_text(text, encoding="utf-8")
    record_files.seal_folder(folder)
    return networks["onnx"]


def _write_networks(model: Model, texts: Mapping[str, str], folder: Path) -> tuple[PackedNetworks, Mapping[str, str]]:
    """Write the networks as a bundle of MONAI; the entries of the record, and {package: version} that it needs."""
    modules, sources = _modules(model), _sources(model)
    for name in ("models", "scripts"):
        (folder / name).mkdir()
    for path, text in sources.texts.items():
        (folder / "scripts" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "scripts" / path).write_text(text, encoding="utf-8")
    _write_config(folder / "configs" / "metadata.json", monai_metadata.metadata_json(model, sources.needs, texts))
    config = monai_metadata.inference_json(model, sources.places)
    _write_config(folder / "configs" / "inference.json", {**config, **_refuse_run(monai_metadata.why_unbundled(model))})
    networks: PackedNetworks = {
        "onnx": _write_weights(model, modules, folder),
        "members": len(modules),
        "architectures": [*model.networks.unlike] or None,
        "shares": model.networks.shares,
        "own_scales": ensemble.have_own_scales(model),
    }
    return networks, monai_metadata.required_packages(sources.needs)


def _write_members(model: Model, texts: Mapping[str, str], folder: Path) -> tuple[PackedNetworks, Mapping[str, str]]:
    """The same of members with grids of their own: each a package; MONAI's configuration says that it has no mean."""
    exported = list[OnnxRecord]()
    for number, one in enumerate(model.members):
        if problem := detect.why_unpackable(one):
            raise PlanError(f"a member {problem}", "package", "Predict with the ensemble's own folder")
        place, evidence = folder / MEMBERS / str(number), PackageEvidence(limits=[OF_AN_ENSEMBLE])
        place.mkdir(parents=True)
        exported.append(write_package(one, evidence, f"{texts['name']}, member {number}", place))
    for name, config in {"metadata": texts, "inference": _refuse_run(NO_BUNDLE)}.items():
        _write_config(folder / "configs" / f"{name}.json", config)
    onnx = next((one for one in exported if not one["exported"]), exported[0])
    return {"onnx": onnx, "members": len(exported), "apart": True, "shares": model.shares}, {}


def _refuse_run(because: str) -> dict[str, list[str]]:
    """The entries of a configuration that MONAI does not run; none without a reason."""
    return {"imports": ["$import sys"], "run": [f"$sys.exit({because!r})"]} if because else {}


def _write_weights(model: Model, modules: Sequence[Module], folder: Path) -> OnnxRecord:
    """Write the weights for MONAI, for ONNX and for Hilum; return what became of the ONNX file."""
    network = _as_one(model, modules)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    for name, module in zip(package_contents.member_weight_files(len(modules)), modules, strict=True):
        record_files.write_tensors(folder / PACKAGED / name, module.state_dict())
    if model.preprocessing.tiles is not None:
        return bag_export.write_halves(model, modules, folder)
    further = FurtherOutputs.from_model(model)
    if further.names:
        heads = list(model.task.heads)
        with_further = WithFurther(network, heads, further, model.networks.shares)
        exported = _export(model, with_further, folder / ONNX, further.names)
        if exported["exported"]:
            return {**exported, **further.record}
    return _export(model, network, folder / ONNX)


def write_network(model: Model, path: Path) -> OnnxRecord:
    """Write the network of a model, or the mean of several, as an ONNX file with its heads alone; its record.

    Raises PlanError for a model whose network cannot travel.
    """
    return _export(model, _as_one(model, _modules(model)), path)


def _as_one(model: Model, modules: Sequence[Module]) -> Module:
    """The networks as one that gives each head; PlanError where that is not what the task averages them to."""
    network = package_contents.every_head_network(model.task, modules, model.networks.shares).eval()
    _check_mean(model, modules, network)
    return network


def _export(model: Model, network: Module, path: Path, further: Sequence[str] = ()) -> OnnxRecord:
    """The record of a model's network as an ONNX file. further: its outputs after the heads"""
    refused = next(
        filter(None, (factory.family_of(one["name"]).without_onnx for one in model.networks.architectures)), ""
    )
    shape = (int(model.networks.architecture["channels"]), *model.inference.patch)
    heads = list(model.task.heads)
    names = [*(heads if len(heads) > 1 else ["pred"]), *further]
    return onnx_export.write_onnx(
        network, shape, path, context=len(model.networks.context), names=names, refused=refused
    )


# What the names of tasks of other programs' models begin with: a prefix for the code, and no word for a reader.
IMPORTED = "imported_"


def _description(model: Model) -> str:
    axes, modality = model.preprocessing.ndim, model.preprocessing.modality
    words = f" of modality {modality}" if modality != "unknown" else ""
    answered = "; ".join(
        f"{task.name.removeprefix(IMPORTED)} of {', '.join(label.name for label in task.labels)}"
        for task in properties.leaf_tasks(model.task).values()
    )
    return f"{answered[0].upper()}{answered[1:]} in images{words} with {axes} axes."


def _modules(model: Model) -> list[Module]:
    """The network of the model, or those of its folds."""
    modules = [one.module.cpu() for one in model.networks.members if isinstance(one, TorchNetwork)]
    if len(modules) != len(model.networks.members):
        raise PlanError("the model's network is not a torch module", "package", "Load the model from its run")
    return modules


def _sources(model: Model) -> Sources:
    kinds, preparation = monai_metadata.task_classes(model.task), type(model.preprocessing)
    # Of a family's file what builds it; the `Family` itself stays here.
    functions = grouping.by_key(sorted({factory.builder_source(one["name"]) for one in model.networks.architectures}))
    families = {f"hilum.networks.{path.stem}": path.read_text(encoding="utf-8") for path in functions}
    return script_sources.collect_sources(
        {
            f"{TOP}.inference": (),
            f"{TOP}.network": (),
            f"{TOP}.formats": (READERS[model.preprocessing.ndim],),
            **{kind.__module__: (kind.__qualname__,) for kind in kinds},
            preparation.__module__: (preparation.__qualname__,),
            **dict(zip(families, functions.values(), strict=True)),
        },
        parts=prediction_members(kinds),
        texts_at_hand=families,
        stamp=f"From Hilum {version('hilum')}, Apache-2.0: see LICENSE.",
    )


def prediction_members(kinds: Sequence[type]) -> dict[str, set[str]]:
    """{module: members of its classes} that prediction needs of these kinds, and of what they are derived from."""
    needed: dict[str, set[str]] = {}
    for kind in kinds:
        for base in kind.__mro__:
            needed.setdefault(base.__module__, set()).update(_predicting(kind))
    return needed


def _predicting(kind: type) -> set[str]:
    """Members that prediction needs of a kind of problem and of its bases: methods, and those that they call."""
    methods: dict[str, list[CodeType]] = {}
    for base in kind.__mro__:
        for name, value in vars(base).items():
            function = getattr(value, "fget", None) or getattr(value, "__func__", value)  # a property, a class method
            code = getattr(function, "__code__", None)
            methods.setdefault(name, []).extend([code] if code else [])
    waiting, needed = set(PREDICTS), set(PREDICTS)
    while waiting:
        called = {name for code in methods.get(waiting.pop(), ()) for name in _looked_up(code)}
        waiting |= (called & set(methods)) - needed
        needed |= waiting
    return needed


def _looked_up(code: CodeType) -> Iterator[str]:
    """Every attribute and global name of a function, also of those within it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _looked_up(inner)


def _check_mean(model: Model, modules: Sequence[Module], network: Module) -> None:
    """PlanError where what the networks say as one is not what the task averages them to."""
    if len(modules) == 1:
        return
    shape = (1, int(model.networks.architecture["channels"]), *model.inference.patch)
    shapes = [shape, *([(1, len(model.networks.context))] if len(model.networks.context) else [])]
    inputs = [torch.randn(size, generator=torch.Generator().manual_seed(0)) for size in shapes]
    with torch.inference_mode():
        outputs = network(*inputs)
    averaged = AveragedNetwork(
        tuple(TorchNetwork(module) for module in modules), model.task.average, model.networks.shares
    )
    expected = averaged(*(network.numpy() for network in inputs))
    for head, output in zip(model.task.heads, package_contents.tensors_by_head(outputs), strict=True):
        if not abs(output.numpy() - expected[head]).max() <= AGREEMENT * abs(output.numpy()).max():
            problem = f"a {model.task.name} averages its networks otherwise than as probabilities or outputs"
            raise PlanError(problem, "package", "Choose one fold")


def _plain_label(label: Label) -> LabelRecord:
    return cast("LabelRecord", {key: value for key, value in asdict(label).items() if value is not None})


def _write_config(path: Path, config: Described) -> None:
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
