"""Models on disk: a checkpoint, a run, and a run of folds, whose models are one."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isocenter import tasks
from isocenter.errors import IntegrityError, UsageError
from isocenter.runtime.agreement import agreed
from isocenter.runtime.device import choose_device
from isocenter.runtime.members import Averaged
from isocenter.runtime.model import Inference, Model, build_module
from isocenter.runtime.preprocessing import Preprocessing
from isocenter.runtime.record import digest, read_json, read_tensors, verify, write_json, write_tensors
from isocenter.runtime.torch_network import TorchNetwork

RECORD = "model.json"
WEIGHTS = "weights.safetensors"
SCHEMA = "isocenter.model"
SPLIT = "split.csv"

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
    _refuse_unfinished(path, folds)
    chosen = choose_device(device).value
    log.info("%s: the mean of its folds %s", path, ", ".join(map(str, folds)))
    return averaged([_read(_folder_of(folder), chosen) for folder in folds.values()], str(path))


def averaged(members: Sequence[Model], where: str) -> Model:
    """Several models as one, which averages what their networks say window by window.

    Raises UsageError for members that differ in labels, preprocessing or windows: their outputs cannot be averaged.
    """
    first = members[0]
    for one in members[1:]:
        if (one.task.name, one.task.labels, one.task.heads) != (first.task.name, first.task.labels, first.task.heads):
            raise UsageError("its members differ in their labels", where, "Choose one with --fold")
        if one.preprocessing != first.preprocessing or one.inference != first.inference:
            raise UsageError("its members see images differently prepared", where, "Choose one with --fold")
    task = tasks.build(agreed([one.settings["task"] for one in members], where))
    run = Averaged(tuple(one.run for one in members), task.average)
    return Model(task, first.preprocessing, first.inference, first.network, run, _record(members))


def _record(members: Sequence[Model]) -> dict[str, Any]:
    """Where a model of several comes from: what holds for all of them, and the record of each."""
    records = [dict(one.record) for one in members]
    common = {key: value for key, value in records[0].items() if all(one.get(key) == value for one in records)}
    digests = "".join(str(one.get("weights_sha256", "")) for one in records)
    return {**common, "weights_sha256": hashlib.sha256(digests.encode()).hexdigest(), "members": records}


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


def _refuse_unfinished(path: Path, folds: Mapping[int, Path]) -> None:
    """UsageError where folds of the split have no model yet: the mean of the others is not what was planned."""
    planned = set(folds)
    if (path / SPLIT).is_file():
        with (path / SPLIT).open(encoding="utf-8", newline="") as file:
            planned |= {int(row["fold"]) for row in csv.DictReader(file) if row.get("fold", "").isdecimal()}
    lacking = sorted(fold for fold in planned if fold not in folds or _found(folds[fold]) is None)
    if lacking:
        raise UsageError(
            f"holds no model of fold {', '.join(map(str, lacking))}",
            str(path),
            "Finish the run with `isocenter train --resume`, or choose a trained one with --fold",
        )


def _found(path: Path) -> Path | None:
    places = (path, path / "checkpoints" / "best", path / "checkpoints" / "last")
    return next((folder for folder in places if (folder / RECORD).is_file()), None)


def _folder_of(path: Path) -> Path:
    folder = _found(path)
    if folder is None:
        raise UsageError("holds no model", str(path), "Give the folder that `isocenter train` wrote")
    return folder
