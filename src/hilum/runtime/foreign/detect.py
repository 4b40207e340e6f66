"""Detection of the program that a model comes from, and such models as the cases of a site have calibrated them.

A model that cannot become a package is kept as it is: a folder with `calibrated.json` (what the cases decided, and
hashes of them), the gate that they gave it, the model's own files, and a manifest.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import IntegrityError, UsageError
from hilum.networks import factory
from hilum.runtime import hardware, model_assembly, model_record, record_files
from hilum.runtime.foreign import monai_bundle, nnunet_model, onnx_model
from hilum.runtime.foreign.monai_bundle import METADATA
from hilum.runtime.foreign.nnunet_model import DATASET, PLANS
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_record import BUILDING_ERRORS
from hilum.runtime.model_schema import Fields, ModelOrigin
from hilum.runtime.package.package_contents import PACKAGED
from hilum.runtime.part_settings import PartsRecord
from hilum.runtime.record_files import MANIFEST
from hilum.tasks import task_catalogue, task_settings
from hilum.values.record_schema import RecordSchema, StatedDecision


def is_foreign(path: Path) -> bool:
    """Whether it is a model of another program that we know, as its maker wrote it or calibrated here."""
    return (
        is_calibrated(path)
        or onnx_model.is_onnx(path)
        or (path.is_dir() and (nnunet_model.is_nnunet(path) or monai_bundle.is_bundle(path)))
    )


def load_foreign(
    path: Path,
    device: str,
    *,
    fold: int | None = None,
    trusted: Sequence[str] = (),
    largest: Sequence[Sequence[int]] = (),
    threads: int | None = None,
    activation: str | None = None,
) -> Model:
    """The model of another program.

    fold:    one of several networks
    activation: as in `load`
    trusted: names that its checkpoints may import beside tensors and numbers
    largest: groups of label values of which only the largest piece stays
    Raises UsageError where it is none that we know, IntegrityError where code would run.
    """
    if is_calibrated(path):
        inner = load_foreign(
            original_path(path),
            device,
            fold=fold,
            trusted=trusted,
            largest=largest,
            threads=threads,
            activation=activation,
        )
        return with_kept_calibration(inner, path)
    if onnx_model.is_onnx(path):
        if fold is not None:
            raise UsageError("an ONNX file has no folds", str(path), "Leave --fold out")
        return onnx_model.load_onnx(path, device, threads, activation)
    refuse_activation(activation, path)
    if threads is not None:
        hardware.use_threads(threads)
    if path.is_dir() and nnunet_model.is_nnunet(path):
        chosen = hardware.choose_device(device)
        model = nnunet_model.load_nnunet(path, chosen.value, fold=fold, trusted=trusted, largest=largest)
        return model_assembly.with_computing(model, chosen)
    if path.is_dir() and monai_bundle.is_bundle(path):
        if fold is not None or largest:
            raise UsageError("a bundle has no folds and no postprocessing.pkl", str(path), "Leave them out")
        chosen = hardware.choose_device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what MONAI says of its own next versions
            return model_assembly.with_computing(monai_bundle.load_bundle(path, chosen.value, trusted=trusted), chosen)
    refuse_near_misses(path)
    raise UsageError(
        "is not a model of a known program", str(path), "Give an nnU-Net v2 result folder, a MONAI bundle or ONNX"
    )


# A program, the two files by which its folder is known, and what else lies there.
ALMOST = (
    ("nnU-Net v2", PLANS, DATASET, "fold_*/checkpoint_*.pth"),
    ("MONAI", "configs/inference.json", METADATA, "models/*.pt"),
    ("MONAI", "configs/inference.yaml", METADATA, "models/*.pt"),
)
# Parts of such a folder that are given in its place.
PARTS = re.compile(r"fold_(\w+)|configs|models|.*\.(pth|pt|ts|json|yaml)")


def refuse_near_misses(path: Path) -> None:
    """UsageError for what belongs to a model of another program and is not its folder: it names what is meant.

    A package of ours is a MONAI bundle too, and may lack what only MONAI needs.
    """
    if (path / PACKAGED).is_dir():
        return
    if (path / "plans.pkl").is_file():
        raise UsageError("is a model of nnU-Net v1", str(path), "Give one of nnU-Net v2, which has plans.json")
    for program, *names, besides in ALMOST:
        lacking = [name for name in names if not (path / name).is_file()]
        if len(lacking) == 1 and any(path.glob(besides)):
            remedy = f"Put the file of the same training there: {program} writes it for each"
            raise UsageError(f"is a model of {program}, but {lacking[0]} is missing", str(path), remedy)
        for above in (path.parent, path.parent.parent):
            if PARTS.fullmatch(path.name) and all((above / name).is_file() for name in names):
                fold = re.search(r"fold_(\d+)", str(path.relative_to(above)))
                remedy = f"Give {above}{f' and --fold {fold[1]}' if fold else ''}"
                raise UsageError(f"is a part of a model of {program}", str(path), remedy)
        below = [path / one.relative_to(path).parts[0] for one in sorted(path.glob(f"*/{names[0]}"))]
        below += [one.parent for one in sorted(path.glob(f"*/*/{names[0]}"))] if program != "MONAI" else []
        if below:
            problem = f"is no model, and holds {errors.count_phrase(len(below), 'folder')} of {program}"
            raise UsageError(problem, str(path), f"Give {errors.list_phrase(below)}")


def refuse_activation(activation: str | None, path: str | Path) -> None:
    """UsageError for the activation of a model that is no ONNX file: other programs state it."""
    if activation is not None:
        raise UsageError("is no ONNX file, so its activation is known", str(path), "Leave --activation out")


def why_unkept(model: Model) -> str | None:
    """The reason why a model of another program cannot be written anew, as a package or as it is; None where it can."""
    if model.preprocessing.settings.get("previous"):
        return "is a cascade of two networks, and packages hold those of our own trainings alone"
    return None


def why_unpackable(model: Model) -> str | None:
    """The reason that keeps a model of another program, which predicts as it is, out of a package; None for nothing."""
    name = model.networks.architecture["name"]
    others = None if name in factory.family_names() else f"its network is {name}, whose sources are not ours to pack"
    return why_unkept(model) or others


class CalibratedFacts(TypedDict):
    """Of a calibration: hashes of its cases, what it cannot promise, and what it decided."""

    trained: list[str]
    limits: list[str]
    decisions: dict[str, StatedDecision]


class CalibratedRecord(PartsRecord, CalibratedFacts):
    """A model of another program with what cases decided of it; model: its file or folder beside this record."""

    model: str
    task: Fields


RECORD, SCHEMA = "calibrated.json", RecordSchema("hilum.calibrated", CalibratedRecord)
# What tells such a folder from any other.
CALIBRATED = (RECORD, MANIFEST)
# Of a bundle, which is a folder.
BUNDLE = "bundle"


def is_calibrated(path: Path) -> bool:
    """Whether it is such a folder."""
    return all((path / name).is_file() for name in CALIBRATED)


def write_calibrated(model: Model, source: Path, facts: CalibratedFacts, folder: Path) -> None:
    """The model of a source, which is copied, with what its task was found to be, into an existing, empty folder.

    facts: goes into its record: hashes of cases, limits, decisions
    """
    inner = copy_foreign(original_path(source), folder)
    settings = {*task_settings.found_after_training(model.task), *task_settings.preregistered_settings(model.task)}
    found = {setting: value for setting, value in task_settings.settings_of(model.task).items() if setting in settings}
    model.parts.write(folder)
    record: CalibratedRecord = {"model": inner, "task": found, **model.parts.settings, **facts}
    record_files.write_json(folder / RECORD, SCHEMA, record)
    record_files.seal_folder(folder)


def copy_foreign(name: Path, folder: Path) -> str:
    """Copy a model of another program into an existing, empty folder; the name that it has there."""
    if not name.is_file():
        shutil.copytree(name, folder / BUNDLE)
        return BUNDLE
    for file in onnx_model.files_of_onnx(name):
        target = folder / file.relative_to(name.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return name.name


def copied_foreign(folder: Path, name: str) -> Path:
    """What `copy_foreign` has put into a folder under this name; IntegrityError for a name of no model there."""
    inner = folder / name
    if not inner.resolve().is_relative_to(folder.resolve()) or not (onnx_model.is_onnx(inner) or inner.is_dir()):
        raise IntegrityError("names no model in its folder", str(folder), "Get the folder again, whole")
    return inner


def original_path(path: Path) -> Path:
    """The other program's own file or folder: within such a folder, else the path itself."""
    if not is_calibrated(path):
        return path
    return copied_foreign(path, str(_record(path)["model"]))


def with_kept_calibration(model: Model, path: Path) -> Model:
    """The model with what is kept beside it; IntegrityError where a file of the folder is not what was written."""
    record_files.verify_seal(path, needed=(RECORD,))
    record = _record(path)
    try:
        task = task_catalogue.build_task(
            {"name": model.task.name, **task_settings.settings_of(model.task), **record["task"]}
        )
    except BUILDING_ERRORS as error:
        raise IntegrityError(f"does not fit its model ({error})", str(path / RECORD), "Calibrate it again") from error
    origin: ModelOrigin = {**model.record, "trained": record["trained"], "limits": record["limits"]}
    return model_record.with_recorded_parts(replace(model, task=task, record=origin), record, path)


def _record(path: Path) -> CalibratedRecord:
    return record_files.read_json(path / RECORD, SCHEMA)
