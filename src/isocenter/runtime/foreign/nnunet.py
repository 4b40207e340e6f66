"""A result folder of nnU-Net v2 as a model: the folder that holds `plans.json`, `dataset.json` and `fold_*`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter.errors import FormatError, IntegrityError, UsageError
from isocenter.runtime.foreign.checkpoint import read_checkpoint, without_repeats
from isocenter.runtime.foreign.nnunet_plans import DATASET, PLANS, Plans
from isocenter.runtime.model import Inference, Model, build_module
from isocenter.runtime.package import joined
from isocenter.runtime.record_files import digest
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows import Averaged

if TYPE_CHECKING:
    from torch.nn import Module

    from isocenter.tasks import Task

# The finished network, else the best so far.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
# By how much of a window nnU-Net moves on.
STEP = 0.5

log = logging.getLogger("isocenter")


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
    first = read_checkpoint(files[0], trusted)
    plans = Plans.read(folder, _configuration(first, files[0]))
    task, network = plans.task(largest), plans.network()
    modules = []
    for number, file in enumerate(files):
        content = first if number == 0 else read_checkpoint(file, trusted)
        modules.append(_module(content, task, network, file))
    networks = tuple(TorchNetwork(module.to(device), device) for module in modules)
    run = networks[0] if len(networks) == 1 else Averaged(networks, task.decoding.average)
    inference = Inference(plans.patch, STEP, 1, _flips(first, plans))
    parts = (task, plans.preprocessing(), inference, network, run, _record(plans, first, files))
    first_stage = None if plans.previous is None else _stage_before(plans, device, trusted)
    return Model(*parts, first=first_stage)


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
    there = {one.name.removeprefix("fold_"): one for one in sorted(folder.glob("fold_*")) if one.is_dir()}
    there = {name: one for name, one in there.items() if any((one / file).is_file() for file in CHECKPOINTS)}
    numbered = {int(name): one for name, one in there.items() if name.isdecimal()}
    if fold is not None:
        if fold not in numbered:
            known = f"Choose one of {', '.join(map(str, numbered))}" if numbered else "Leave --fold out"
            raise UsageError(f"has no fold {fold}", str(folder), known)
        return [numbered[fold]]
    chosen = [numbered[number] for number in sorted(numbered)] or [there[name] for name in there if name == "all"]
    if not chosen:
        raise UsageError("holds no fold_*/checkpoint_final.pth", str(folder), "Give a folder of a finished training")
    if numbered and "all" in there:
        log.info("%s: the mean of folds %s; fold_all stays out, as in nnU-Net", folder, sorted(numbered))
    return chosen


def _checkpoint(folder: Path) -> Path:
    file = next(folder / name for name in CHECKPOINTS if (folder / name).is_file())
    if file.name != CHECKPOINTS[0]:
        log.warning("%s: has no %s; %s is used", folder, CHECKPOINTS[0], file.name)
    return file


def _configuration(checkpoint: Mapping[str, Any], file: Path) -> str:
    try:
        return str(checkpoint["init_args"]["configuration"])
    except (KeyError, TypeError) as error:
        raise FormatError("does not say its configuration", str(file), "Give a checkpoint of nnU-Net v2") from error


def _module(checkpoint: Mapping[str, Any], task: Task, network: dict[str, Any], file: Path) -> Module:
    """The network with the checkpoint's weights, ready to predict."""
    weights = without_repeats(checkpoint.get("network_weights", {}))
    if any(name.endswith(".running_mean") for name in weights):
        network["size"]["norm"] = "batch"  # a trainer of nnU-Net's changes it, and not the plans
    module = build_module(task, network)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).replace("\n", " ")[:200]
        problem = f"its weights are not of the planned network, trainer {checkpoint.get('trainer_name')} ({reason})"
        raise IntegrityError(
            problem, str(file), "Use it with nnU-Net itself, if its trainer is not a stock one"
        ) from error
    return module.eval()


def _flips(checkpoint: Mapping[str, Any], plans: Plans) -> tuple[int, ...]:
    """Axes of our window along which nnU-Net mirrors; a slice has one axis more here."""
    axes = checkpoint.get("inference_allowed_mirroring_axes") or ()
    return tuple(int(axis) + int(plans.slicewise) for axis in axes)


def _record(plans: Plans, checkpoint: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    digests = [digest(file) for file in files]
    return {
        "origin": "nnU-Net v2",
        "dataset": str(plans.plans.get("dataset_name", "")),
        "configuration": plans.configuration,
        "trainer": str(checkpoint.get("trainer_name", "")),
        "folds": [file.parent.name.removeprefix("fold_") for file in files],
        "weights_sha256": digests[0] if len(digests) == 1 else joined(digests),
    }
