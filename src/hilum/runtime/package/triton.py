"""The network of a model alone, in the layout of a model repository of the Triton Inference Server.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md, and for the
configuration https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilum.errors import PlanError
from hilum.lazy import onnxruntime
from hilum.runtime import record_files
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import OnnxRecord
from hilum.runtime.package import package_writing
from hilum.tasks import task_catalogue, task_settings
from hilum.values.plain_values import PlainValue

TRITON_RECORD, SCHEMA = "hilum.json", "hilum.triton"
FIRST_STAGE = "_first"
NETWORK_ALONE = (
    "This is the network alone: it takes windows of prepared images and gives its raw outputs. Reading, preparing, "
    f"sliding, calibration and the gate are not in it; {TRITON_RECORD} states their settings"
)


@dataclass(frozen=True)
class _Port:
    """An input or output of an ONNX file. dims: without the batch, -1 where any number may lie."""

    name: str
    dims: tuple[int, ...]


def write_triton(model: Model, name: str, folder: Path) -> OnnxRecord:
    """Write a repository into an existing, empty folder; return the record of the ONNX file.

    name: of the model in it; of a cascade the first stage is a second model, of an ensemble whose members have grids
          of their own each member is one
    Raises PlanError for a network that cannot be exported.
    """
    stages = _stages(model, name)
    written = {stage: _write_stage(one, stage, folder) for stage, one in stages.items()}
    record_files.write_json(
        folder / TRITON_RECORD, SCHEMA, {"models": {stage: _around(one) for stage, one in stages.items()}}
    )
    return written[list(stages)[-1]]


def _stages(model: Model, name: str) -> dict[str, Model]:
    """{name in the repository: model} of both stages of a cascade, and of members with grids of their own."""
    if model.members:
        members = [_stages(one, f"{name}_{number}") for number, one in enumerate(model.members)]
        return {stage: one for stages in members for stage, one in stages.items()}
    return {name: model} if model.first is None else {f"{name}{FIRST_STAGE}": model.first, name: model}


def _write_stage(model: Model, name: str, folder: Path) -> OnnxRecord:
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    record = package_writing.write_network(model, path)
    if not record["exported"]:
        raise PlanError(f"the network cannot be written as ONNX: {record['because']}", name, "Package it for MONAI")
    text = _configuration(name, *_ports(path), batch=model.inference.batch)
    (folder / name / "config.pbtxt").write_text(text, encoding="utf-8")
    return record


def _ports(path: Path) -> tuple[list[_Port], list[_Port]]:
    """The inputs and outputs of an ONNX file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs, outputs = (
        [_Port(one.name, tuple(n if isinstance(n, int) else -1 for n in one.shape[1:])) for one in ports]
        for ports in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _configuration(name: str, inputs: Sequence[_Port], outputs: Sequence[_Port], *, batch: int) -> str:
    """The text of `config.pbtxt`."""
    return "\n".join(
        [
            f"# {NETWORK_ALONE}.",
            f"name: {_quote(name)}",
            'backend: "onnxruntime"',
            f"max_batch_size: {batch}",
            *_list_ports("input", inputs),
            *_list_ports("output", outputs),
            f'parameters {{ key: "hilum" value {{ string_value: {_quote(NETWORK_ALONE)} }} }}',
            "",
        ]
    )


def _list_ports(kind: str, ports: Sequence[_Port]) -> list[str]:
    return [f"{kind} {{ name: {_quote(one.name)} data_type: TYPE_FP32 dims: {list(one.dims)} }}" for one in ports]


def _quote(text: str) -> str:
    """Text in the text format of protobuf, whose escapes are those of JSON for what a name may hold."""
    return json.dumps(text, ensure_ascii=False)


def _around(model: Model) -> Mapping[str, PlainValue]:
    """Steps before the network, and after it."""
    channels = {
        head: [label.name for label in labels] for head, labels in task_catalogue.channel_labels(model.task).items()
    }
    return {
        "sha256": model.sha256,
        "weights_sha256": model.record.get("weights_sha256"),
        "channels": list(model.preprocessing.channels),
        "preprocessing": model.preprocessing.settings,
        "inference": model.inference.settings,
        "task": {"name": model.task.name, **task_settings.settings_of(model.task)},
        "labels": channels or {"": [label.name for label in model.task.labels]},
        "covariates": list(model.networks.context.names),
    }
