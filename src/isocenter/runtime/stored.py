"""Models on disk: a checkpoint, a run, and a run of folds, whose models are one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isocenter import tasks
from isocenter.errors import IntegrityError, UsageError
from isocenter.runtime.device import choose_device
from isocenter.runtime.members import Averaged
from isocenter.runtime.model import Inference, Model, build_module
from isocenter.runtime.preprocessing import Preprocessing
from isocenter.runtime.record import digest, read_json, read_tensors, verify, write_json, write_tensors
from isocenter.runtime.torch_network import TorchNetwork

RECORD = "model.json"
WEIGHTS = "weights.safetensors"
SCHEMA = "isocenter.model"

log = logging.getLogger("isocenter")


def save(model: Model, weights: Mapping[str, Any], folder: Path) -> None:
    """Record and weights into an existing folder; the caller seals it."""
    write_json(folder / RECORD, SCHEMA, model.settings)
    write_tensors(folder / WEIGHTS, weights)


def load(path: str | Path, device: str = "auto", *, fold: int | None = None) -> Model:
    """The model of a run, a checkpoint or a package; of a run of folds the mean of its folds.

    fold: one of a run of folds instead, from 0
    Raises UsageError where there is no model, IntegrityError for a changed, damaged or newer one.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError("there is no such model", str(path), "Give a run's folder")
    folds = _folds(path)
    if fold is not None:
        if fold not in folds:
            known = f"Choose one of {', '.join(map(str, folds))}" if folds else "Leave --fold out"
            raise UsageError(f"has no fold {fold}", str(path), known)
        return _read(_folder_of(folds[fold]), choose_device(device).value)
    if not folds:
        return _read(_folder_of(path), choose_device(device).value)
    chosen = choose_device(device).value
    log.info("%s: the mean of its folds %s", path, ", ".join(map(str, folds)))
    return averaged([_read(_folder_of(folder), chosen) for folder in folds.values()], str(path))


def averaged(members: Sequence[Model], where: str) -> Model:
    """Several models as one, which averages what their networks say window by window.

    Raises UsageError for members that differ in task, preprocessing or windows: their outputs cannot be averaged.
    """
    first = members[0]
    for name in ("task", "preprocessing", "inference"):
        if any(one.settings[name] != first.settings[name] for one in members):
            raise UsageError(f"its members differ in their {name}", where, "Choose one with --fold")
    digests = [str(one.record.get("weights_sha256", "")) for one in members]
    record = {
        **{key: value for key, value in first.record.items() if all(one.record.get(key) == value for one in members)},
        "members": [dict(one.record) for one in members],
        "weights_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
    }
    run = Averaged(tuple(one.run for one in members), first.task.average)
    return Model(first.task, first.preprocessing, first.inference, first.network, run, record)


def _read(folder: Path, device: str) -> Model:
    """The model in this very folder."""
    verify(folder, needed=(RECORD, WEIGHTS))
    record = read_json(folder / RECORD, SCHEMA)
    try:
        task = tasks.build(record["task"])
        preprocessing = Preprocessing.of(record["preprocessing"])
        inference = Inference.of(record["inference"])
        module = build_module(task, record["network"])
        module.load_state_dict(read_tensors(folder / WEIGHTS))
        origin = {**record["record"], "weights_sha256": digest(folder / WEIGHTS)}
    except (KeyError, TypeError, RuntimeError) as error:
        raise IntegrityError(f"weights and record do not fit ({error})", str(folder), "Get the model again") from error
    run = TorchNetwork(module.eval().to(device), device)
    return Model(task, preprocessing, inference, record["network"], run, origin)


def _folds(path: Path) -> dict[int, Path]:
    """The folders of the folds of a run, by number; none where it has no folds."""
    found = {folder.name.removeprefix("fold_"): folder for folder in path.glob("fold_*") if folder.is_dir()}
    return {int(number): found[number] for number in sorted(filter(str.isdecimal, found), key=int)}


def _folder_of(path: Path) -> Path:
    for folder in (path, path / "checkpoints" / "best", path / "checkpoints" / "last"):
        if (folder / RECORD).is_file():
            return folder
    raise UsageError("holds no model", str(path), "Give the folder that `isocenter train` wrote")
