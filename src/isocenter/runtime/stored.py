"""Models on disk: a checkpoint, a run, and a run of folds, whose models are one."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from isocenter import tasks
from isocenter.errors import IntegrityError, UsageError
from isocenter.runtime.archive import opened
from isocenter.runtime.device import choose_device
from isocenter.runtime.members import Averaged
from isocenter.runtime.model import Inference, Model, build_module
from isocenter.runtime.one_scale import converting, on_one_scale
from isocenter.runtime.preprocessing import Preprocessing
from isocenter.runtime.record import MANIFEST, digest, read_json, read_tensors, verify, write_json, write_tensors
from isocenter.runtime.torch_network import TorchNetwork

RECORD = "model.json"
WEIGHTS = "weights.safetensors"
SCHEMA = "isocenter.model"
SPLIT = "split.csv"
# The part of a package that is ours.
PACKAGED = "isocenter"
# More networks than any cross-validation has: a record that says so is no record of ours.
MOST_MEMBERS = 100

log = logging.getLogger("isocenter")


def save(model: Model, weights: Mapping[str, Any], folder: Path) -> None:
    """Record and weights into an existing folder; the caller seals it."""
    write_json(folder / RECORD, SCHEMA, model.settings)
    write_tensors(folder / WEIGHTS, weights)


def load(path: str | Path, device: str = "auto", *, fold: int | None = None) -> Model:
    """The model of a run, a checkpoint or a package; of a run of folds the mean of its folds.

    path: a folder, or a package's .zip
    fold: one of a run of folds instead, from 0
    Raises UsageError where there is no model, IntegrityError for a changed, damaged or newer one.
    """
    with opened(Path(path)) as folder:
        sealed_as_package = (folder / MANIFEST).is_file() and not (folder / RECORD).is_file()
        return (_read_package if sealed_as_package else _read_run)(folder, device, fold)


def member_weights(count: int) -> tuple[str, ...]:
    """The weights files of a package, one for each network of the model."""
    return (WEIGHTS,) if count == 1 else tuple(f"weights_{number}.safetensors" for number in range(count))


def _read_run(path: Path, device: str, fold: int | None) -> Model:
    folds = _folds(path)
    if fold is not None:
        if fold not in folds:
            raise _no_fold(fold, folds, path)
        return _read(_folder_of(folds[fold]), choose_device(device).value)
    if not folds:
        return _read(_folder_of(path), choose_device(device).value)
    _refuse_unfinished(path, folds)
    chosen = choose_device(device).value
    log.info("%s: the mean of its folds %s", path, ", ".join(map(str, folds)))
    return _averaged([_read(_folder_of(folder), chosen) for folder in folds.values()], str(path))


def _read_package(path: Path, device: str, fold: int | None) -> Model:
    """The model of a package: one network, or the mean of several."""
    record = read_json(path / PACKAGED / RECORD, SCHEMA)
    count = record.get("members")
    if not isinstance(count, int) or not 1 <= count <= MOST_MEMBERS:
        raise IntegrityError(f"has {count} networks", str(path / PACKAGED / RECORD), "Get the package again")
    names = [f"{PACKAGED}/{name}" for name in member_weights(count)]
    verify(path, needed=(f"{PACKAGED}/{RECORD}", *names))
    if fold is not None and (count == 1 or fold not in range(count)):
        raise _no_fold(fold, range(count if count > 1 else 0), path)
    chosen = names if fold is None else [names[fold]]
    return _built(record, [path / name for name in chosen], choose_device(device).value, path)


def _no_fold(fold: int, folds: Collection[int], path: Path) -> UsageError:
    known = f"Choose one of {', '.join(map(str, folds))}" if folds else "Leave --fold out"
    return UsageError(f"has no fold {fold}", str(path), known)


def _averaged(members: Sequence[Model], where: str) -> Model:
    """Several models as one, which averages what their networks say window by window.

    Raises UsageError for members that differ in labels, preprocessing, windows or in what validation cases decided:
    their outputs cannot be averaged.
    """
    first = members[0]
    for one in members[1:]:
        if (one.task.name, one.task.labels, one.task.heads) != (first.task.name, first.task.labels, first.task.heads):
            raise UsageError("its members differ in their labels", where, "Choose one with --fold")
        if one.inference != first.inference:
            raise UsageError("its members look through other windows", where, "Choose one with --fold")
        if one.task.settings != first.task.settings:  # training writes one task into all of them at its end
            problem = "its members decode what their networks say in different ways"
            raise UsageError(problem, where, "Finish it with `isocenter train --resume`, or choose one with --fold")
    preprocessing, networks = on_one_scale(members, where)
    run = Averaged(networks, first.task.average)
    return Model(first.task, preprocessing, first.inference, first.network, run, _record(members))


def _record(members: Sequence[Model]) -> dict[str, Any]:
    """Where a model of several comes from: what holds for all of them, and the record of each."""
    records = [dict(one.record) for one in members]
    common = {key: value for key, value in records[0].items() if all(one.get(key) == value for one in records)}
    digest_of_all = _joined([str(one.get("weights_sha256", "")) for one in records])
    return {**common, "weights_sha256": digest_of_all, "members": records}


def _read(folder: Path, device: str) -> Model:
    """The model in this very folder."""
    verify(folder, needed=(RECORD, WEIGHTS))
    return _built(read_json(folder / RECORD, SCHEMA), [folder / WEIGHTS], device, folder)


def _built(record: Mapping[str, Any], weights: Sequence[Path], device: str, folder: Path) -> Model:
    """The model of a record, with one network for each file of weights."""
    try:
        task = tasks.build(record["task"])
        preprocessing = Preprocessing.of(record["preprocessing"])
        inference = Inference.of(record["inference"])
        networks = []
        for file in weights:
            module = build_module(task, record["network"])
            if record.get("own_scales"):
                module = converting(module, len(preprocessing.channels))
            module.load_state_dict(read_tensors(file))
            networks.append(TorchNetwork(module.eval().to(device), device))
        digests = [digest(file) for file in weights]
        origin = {**record["record"], "weights_sha256": digests[0] if len(digests) == 1 else _joined(digests)}
    except (KeyError, TypeError, RuntimeError) as error:
        raise IntegrityError(f"weights and record do not fit ({error})", str(folder), "Get the model again") from error
    run = networks[0] if len(networks) == 1 else Averaged(tuple(networks), task.average)
    return Model(task, preprocessing, inference, record["network"], run, origin)


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


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
