"""The names of the files of checkpoints and packages, what their record states, and networks as torch modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from hilum.errors import IntegrityError, UsageError
from hilum.runtime import bundle, record_files, torch_networks
from hilum.runtime.model_schema import MODEL_SCHEMA, MembersRecord, ModelOrigin, ModelRecord, NetworkArguments
from hilum.tasks import task_settings

if TYPE_CHECKING:
    from torch.nn import Module

    from hilum.runtime.bundle.network import OneTensor
    from hilum.runtime.inference import Inference
    from hilum.runtime.preprocessing.protocol import PreprocessingKind
    from hilum.tasks import Task
    from hilum.tasks.shared.averages import Shares

RECORD = "model.json"
WEIGHTS = "weights.safetensors"
# The part of a package that is ours.
PACKAGED = "hilum"
# In a run's folder, and in a package beside its record: what tests found of explanations.
EXPLANATIONS = "explanations.json"
ONNX = "models/model.onnx"
# Of a network of bags, of whose two halves `ONNX` is the one that pools: the half that sees tiles.
ONNX_TILES = "models/model.tiles.onnx"
# Of a package with quantised networks, which its record lists under this name by backend.
ONNX_INT8, ONNX_INT4 = "models/model.int8.onnx", "models/model.int4.onnx"
OPENVINO_INT8 = ("hilum/openvino_int8.xml", "hilum/openvino_int8.bin")
MADE: Final = "quantised"
# Of a package of a cascade: where the package of its first stage lies.
FIRST = "first"
# Of an ensemble, and of a package whose members have grids of their own: where these lie.
MEMBERS = "members"
# The input of an ONNX file beside the image; those of the half that pools.
CONTEXT = "context"
FEATURES, PLACES = "tile_features", "places"
# The latter gets whole blocks of so many tiles, of which the last may be absent.
TILES_OF_BLOCK = 64
# More networks than any cross-validation has: a record that says so is no record of ours.
MOST_MEMBERS = 100


def model_settings(
    task: Task,
    preprocessing: PreprocessingKind,
    inference: Inference,
    architecture: NetworkArguments,
    record: ModelOrigin,
) -> ModelRecord:
    """The content of `model.json`: all but the weights, and what is found after training.

    architecture: the arguments of `factory.build` without the heads
    record:       where the model comes from
    """
    return {
        "task": {"name": task.name, **task_settings.settings_of(task)},
        "preprocessing": preprocessing.settings,
        "inference": inference.settings,
        "network": architecture,
        "record": {**record},
    }


def package_record(folder: Path) -> ModelRecord:
    """`hilum/model.json` of a package; IntegrityError where it is not one of ours."""
    record = record_files.read_json(folder / PACKAGED / RECORD, MODEL_SCHEMA)
    count = record.get("members")
    if not isinstance(count, int) or not 1 <= count <= MOST_MEMBERS:
        raise IntegrityError(f"has {count} networks", str(folder / PACKAGED / RECORD), "Get the package again")
    return record


def member_weight_files(count: int) -> tuple[str, ...]:
    """The weights files of a package, one for each network of the model."""
    return (WEIGHTS,) if count == 1 else tuple(f"weights_{number}.safetensors" for number in range(count))


def weights_files(record: ModelRecord) -> tuple[str, ...]:
    """The same, as the manifest names them."""
    return tuple(f"{PACKAGED}/{name}" for name in member_weight_files(record["members"]))


def quantised_files(record: ModelRecord, backend: str, files: tuple[str, ...]) -> tuple[str, ...]:
    """The files of a quantised network; UsageError for a package without it."""
    if backend not in (record.get(MADE) or {}):
        raise UsageError(
            f"the package holds no file of {backend}",
            f"{PACKAGED}/{RECORD}",
            "Make one with `hilum compress`, or choose --backend auto",
        )
    return files


def single_output_network(task: Task, modules: Sequence[Module], shares: Shares = None) -> OneTensor:
    """The networks as one with one tensor out: of several the mean that the task takes, of probabilities or outputs."""
    head = next(iter(task.heads))
    return bundle.network.OneTensor(modules, head, kind_of_mean(task, head), shares)


def every_head_network(task: Task, modules: Sequence[Module], shares: Shares = None) -> Module:
    """The same with a tensor for each head, where the task has several: what is computed elsewhere answers all."""
    if len(task.heads) == 1:
        return single_output_network(task, modules, shares)
    return bundle.network.EveryHead(modules, {head: kind_of_mean(task, head) for head in task.heads}, shares)


def tensors_by_head(outputs: Any) -> tuple[Any, ...]:
    """The tensors that `single_output_network` or `every_head_network` gives, one per head."""
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def recorded_shares(record: ModelRecord | MembersRecord) -> tuple[float, ...] | None:
    """The shares of the networks of a record; None where all count alike."""
    shares = record.get("shares")
    return None if shares is None else tuple(float(one) for one in shares)


def recorded_networks(record: ModelRecord, count: int = 1) -> list[NetworkArguments]:
    """The arguments of `factory.build` for each of the networks of a record."""
    return list(record.get("architectures") or [record["network"]] * count)


def record_of_members(record: ModelRecord, numbers: Sequence[int]) -> ModelRecord:
    """The record of a model that is one of several networks alone, or some of them that have the same covariates."""
    networks_of_member = recorded_networks(record, int(record["members"]))
    # Their covariates are the only ones now.
    chosen: list[NetworkArguments] = [
        {**one, "first_entry": 0} if "first_entry" in one else one
        for one in (networks_of_member[number] for number in numbers)
    ]
    alike = all(one == chosen[0] for one in chosen)
    return {**record, "network": chosen[0], "architectures": None if alike else chosen, "shares": None}


def kind_of_mean(task: Task, head: str) -> Literal["outputs", "probabilities"]:
    """The outputs of which the task takes the mean where there are several networks."""
    return "probabilities" if head in task.probability_heads else "outputs"


def read_modules(record: ModelRecord, task: Task, weights: Sequence[Path]) -> list[Module]:
    """A torch module for each file of weights, on the CPU and ready to predict.

    Raises IntegrityError for a file that holds other weights, and what torch raises where names or shapes differ.
    """
    modules = []
    for file, network in zip(weights, recorded_networks(record, len(weights)), strict=True):
        module = torch_networks.build_module(task, network)
        if record.get("own_scales"):
            module = bundle.network.OnItsScale(module, int(record["network"]["channels"]))
        module.load_state_dict(record_files.read_tensors(file))
        modules.append(module.eval())
    return modules
