"""A model of another program that cannot become a package, kept as it is beside what a site's cases decided.

A folder with `calibrated.json` (what the cases decided, and hashes of them), the gate that they gave it, the model's
own files, and a manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from isocenter import tasks
from isocenter.errors import IntegrityError
from isocenter.runtime.foreign.onnx_model import files_of_onnx, is_onnx
from isocenter.runtime.model import Model
from isocenter.runtime.model_record import BUILDING_ERRORS, with_parts
from isocenter.runtime.record_files import MANIFEST, read_json, seal, verify, write_json

RECORD, SCHEMA = "calibrated.json", "isocenter.calibrated"
# What tells such a folder from any other.
CALIBRATED = (RECORD, MANIFEST)
# Of a bundle, which is a folder.
BUNDLE = "bundle"


def is_calibrated(path: Path) -> bool:
    """Whether it is such a folder."""
    return all((path / name).is_file() for name in CALIBRATED)


def write_calibrated(model: Model, source: Path, facts: Mapping[str, Any], folder: Path) -> None:
    """The model of a source, which is copied, with what its task was found to be, into an existing, empty folder.

    facts: goes into its record: hashes of cases, limits, decisions
    """
    name = model_of(source)
    if name.is_file():
        for file in files_of_onnx(name):
            target = folder / file.relative_to(name.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        inner = name.name
    else:
        inner = BUNDLE
        shutil.copytree(name, folder / inner)
    kept = {*tasks.found_after_training(model.task), *tasks.registered_settings(model.task)}
    found = {setting: value for setting, value in tasks.settings_of(model.task).items() if setting in kept}
    model.parts.write(folder)
    write_json(folder / RECORD, SCHEMA, {"model": inner, "task": found, **model.parts.settings, **facts})
    seal(folder)


def model_of(path: Path) -> Path:
    """The other program's own file or folder: within such a folder, else the path itself."""
    if not is_calibrated(path):
        return path
    inner = path / str(_record(path)["model"])
    if not inner.resolve().is_relative_to(path.resolve()) or not (is_onnx(inner) or inner.is_dir()):
        raise IntegrityError("names no model in its folder", str(path / RECORD), "Get the folder again, whole")
    return inner


def with_calibration(model: Model, path: Path) -> Model:
    """The model with what is kept beside it; IntegrityError where a file of the folder is not what was written."""
    verify(path, needed=(RECORD,))
    record = _record(path)
    try:
        task = tasks.build({"name": model.task.name, **tasks.settings_of(model.task), **record["task"]})
    except BUILDING_ERRORS as error:
        raise IntegrityError(f"does not fit its model ({error})", str(path / RECORD), "Calibrate it again") from error
    kept = {name: record[name] for name in ("trained", "limits")}
    return with_parts(replace(model, task=task, record={**model.record, **kept}), record, path)


def _record(path: Path) -> Mapping[str, Any]:
    return read_json(path / RECORD, SCHEMA)
