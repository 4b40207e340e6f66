"""The state of a training on disk: whole or not there, and able to go on bit by bit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter.errors import IntegrityError
from isocenter.files import written
from isocenter.lazy import torch
from isocenter.runtime import (
    WEIGHTS,
    WITHOUT_PARTS,
    Parts,
    read_json,
    read_tensors,
    seal,
    verify,
    write_json,
    write_tensors,
)
from isocenter.tasks import settings_of
from isocenter.training.step.loss import Criterion

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    from isocenter.tasks import Task

STATE_SCHEMA = "isocenter.state"
# What objectives learn and keep: parts, queues, the weights that training began from.
OBJECTIVES = "objectives.safetensors"
# What the metric of a validation was made of, by case.
VALIDATION = "validation.safetensors"
# As `isocenter.load` reads them.
RECORD, MODEL_SCHEMA = "model.json", "isocenter.model"
# In a model's record: its weights are no longer those that training left.
REFITTED = "refitted"


def last_checkpoint(out: Path) -> Path:
    """The file in which a training keeps the state from which it goes on."""
    return out / "checkpoints" / "last"


def best_checkpoint(out: Path) -> Path:
    """The file in which a training keeps the weights that its validations chose."""
    return out / "checkpoints" / "best"


def write_checkpoint(
    folder: Path,
    model: Mapping[str, Any],
    averaged: Mapping[str, Tensor],
    *,
    module: Module | None = None,
    optimiser: Optimizer | None = None,
    state: Mapping[str, Any] | None = None,
    objectives: Mapping[str, Tensor] | None = None,
    validation: Mapping[str, Tensor] | None = None,
) -> None:
    """The averaged weights as a model that can be loaded; with the rest, training can go on from it.

    model:      the content of its `model.json`
    validation: what its metric was made of, so that later weights can be compared case by case
    """
    with written(folder, overwrite=True) as partial:
        partial.mkdir()
        write_json(partial / RECORD, MODEL_SCHEMA, model)
        write_tensors(partial / WEIGHTS, averaged)
        if module is not None and optimiser is not None:
            write_tensors(partial / "module.safetensors", module.state_dict())
            write_tensors(partial / "optimiser.safetensors", _flat(optimiser))
            write_json(partial / "state.json", STATE_SCHEMA, dict(state or {}))
        if objectives:
            write_tensors(partial / OBJECTIVES, objectives)
        if validation:
            write_tensors(partial / VALIDATION, validation)
        seal(partial)


def read_checkpoint(
    folder: Path, module: Module, averaged: Module, optimiser: Optimizer, criterion: Criterion
) -> tuple[dict[str, Any], Criterion]:
    """Bring module, averages and optimiser to the state in the folder; returns the rest of it, and the criterion."""
    verify(folder)
    state, folder_of_objectives = read_json(folder / "state.json", STATE_SCHEMA), folder / OBJECTIVES
    try:
        module.load_state_dict(read_tensors(folder / "module.safetensors"))
        averaged.load_state_dict(read_tensors(folder / "weights.safetensors"))
        criterion = criterion.restored(read_tensors(folder_of_objectives) if folder_of_objectives.is_file() else {})
        _unflatten(optimiser, read_tensors(folder / "optimiser.safetensors"))
    except (KeyError, RuntimeError) as error:
        raise IntegrityError(
            f"does not fit the plan's network ({error})", str(folder), "Resume with the plan of the run"
        ) from error
    return state, criterion


def validation_of(folder: Path) -> Mapping[str, Tensor]:
    """The values that the metric of the checkpoint was made of; empty where they were not kept."""
    path = folder / VALIDATION
    return read_tensors(path) if path.is_file() else {}


def with_task(folder: Path, task: Task) -> None:
    """The same weights with a task that was decided after training."""
    _rewritten(folder, {"task": {"name": task.name, **settings_of(task)}})


def with_parts(folder: Path, parts: Parts) -> None:
    """The same weights with the parts of a model that were found after training."""
    _rewritten(folder, parts.settings, parts)


def with_weights(folder: Path, averaged: Mapping[str, Tensor]) -> None:
    """The same model with other weights, which its record says."""
    record = read_json(folder / RECORD, MODEL_SCHEMA)["record"]
    _rewritten(folder, {"record": {**record, REFITTED: True}}, averaged=averaged)


def is_refitted(folder: Path) -> bool:
    """Whether its weights were changed after training."""
    return bool(read_json(folder / RECORD, MODEL_SCHEMA)["record"].get(REFITTED))


def _rewritten(
    folder: Path,
    changes: Mapping[str, Any],
    parts: Parts = WITHOUT_PARTS,
    averaged: Mapping[str, Tensor] | None = None,
) -> None:
    """A whole checkpoint with changes in its record takes the place of the old."""
    with written(folder, overwrite=True) as partial:
        shutil.copytree(folder, partial)
        parts.write(partial)
        if averaged is not None:
            write_tensors(partial / WEIGHTS, averaged)
        record = read_json(partial / RECORD, MODEL_SCHEMA)
        write_json(partial / RECORD, MODEL_SCHEMA, {**record, **changes})
        seal(partial)


def recover(run: Path) -> None:
    """Put in place what a kill left anywhere in the folder of a run, and clear away what it cut short.

    Nobody else may be writing into the run.
    """
    for room in sorted(run.rglob(".*.partial")):
        folder = room.parent / room.name.removeprefix(".").rsplit(".", 2)[0]
        # The old one is moved aside only when the new one is whole.
        if (room / "replaced").is_dir() and not folder.exists():
            (room / folder.name).rename(folder)
        shutil.rmtree(room, ignore_errors=True)


def _flat(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by "parameter/name"; its settings follow from the plan."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value) for number, values in state.items() for name, value in values.items()
    }


def _unflatten(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
