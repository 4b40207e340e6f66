"""Models on disk: a checkpoint, a run, a run of folds, whose models are one, and a package with its backend."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hilum import errors
from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import structured_text
from hilum.runtime import ensemble, hardware, model_assembly, model_record, record_files
from hilum.runtime.foreign import detect
from hilum.runtime.hardware import AUTO
from hilum.runtime.inference import Inference
from hilum.runtime.model_assembly import UNFINISHED, Model
from hilum.runtime.model_record import BUILDING_ERRORS
from hilum.runtime.model_schema import MODEL_SCHEMA, MembersRecord, ModelOrigin, ModelRecord
from hilum.runtime.package import backend_certificate, backends, package_contents
from hilum.runtime.package.backend_certificate import CERTIFICATE, PLAIN, Computing
from hilum.runtime.package.backends import torch_eager
from hilum.runtime.package.package_contents import FIRST, MEMBERS, PACKAGED, RECORD, WEIGHTS
from hilum.runtime.record_files import MANIFEST, MANIFEST_SCHEMA
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.runtime.windows.slide import Network
from hilum.tasks import task_catalogue, task_settings
from hilum.values import argument_kinds
from hilum.work_state import log

if TYPE_CHECKING:
    from torch import Tensor

SPLIT = "split.csv"
# Of a finished run.
REPORT = "report.html"
# Of a run of a cascade: where its first stage lies, a run of folds.
BEFORE = "low_resolution"


def save_model(model: Model, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Record and weights into an existing folder; the caller seals it."""
    record_files.write_json(folder / RECORD, MODEL_SCHEMA, model.settings)
    model.parts.write(folder)
    record_files.write_tensors(folder / WEIGHTS, weights)


def load(
    path: str | Path,
    device: str = "auto",
    *,
    fold: int | None = None,
    backend: str = "torch",
    threads: int | None = None,
    activation: str | None = None,
) -> Model:
    """The model of a run, a checkpoint, a package, an ensemble or another program; of folds or members their mean.

    path:    a folder, or a package's .zip; of other programs an nnU-Net v2 result folder, a MONAI bundle, or an ONNX
             file with its description beside it
    fold:    one of a run of folds, or of an ensemble's members, instead, from 0
    backend: what computes a package; "auto" takes the fastest that its certificate vouches for. A run has only torch
    threads: cores to use; all if none is given
    activation: of the outputs of an ONNX file, "none" (logits), "softmax" or "sigmoid"; None: its description, its
             graph or a trial decides
    Raises UsageError where there is no model, IntegrityError for a changed, damaged or newer one.
    """
    argument_kinds.fitting_argument("path", str | Path, path)
    if detect.is_foreign(Path(path)):
        _refuse_backend(backend, path)
        return detect.load_foreign(Path(path), device, fold=fold, threads=threads, activation=activation)
    detect.refuse_activation(activation, path)
    try:
        with record_files.unpack(Path(path)) as folder:
            if (folder / MANIFEST).is_file() and not (folder / RECORD).is_file():
                return model_assembly.with_uncertainty(read_package(folder, device, fold, backend, threads))
            _refuse_backend(backend, path)
            if threads is not None:
                hardware.use_threads(threads)
            chosen = hardware.choose_device(device)
            model = model_assembly.with_computing(_read_run(folder, chosen.value, fold), chosen)
            return model_assembly.with_uncertainty(_with_unfinished_training(model, Path(path), fold))
    except UsageError:
        detect.refuse_near_misses(Path(path))
        raise


def _with_unfinished_training(model: Model, run: Path, fold: int | None) -> Model:
    """The model, whose record states how far its training came where that was stopped."""
    if not (run / SPLIT).is_file() or (run / REPORT).is_file():
        return model
    folders = list(_folds(run).values()) if fold is None else [_folds(run)[fold]]
    files = [one / "checkpoints" / "last" / "state.json" for one in folders or [run]]
    states = [structured_text.load_json(file) for file in files if file.is_file()]
    done, planned = sum(one["step"] for one in states), sum(one["pace"]["steps"] for one in states)
    return replace(model, record={**model.record, UNFINISHED: f"{done} of {planned} steps"})


def _refuse_backend(backend: str, path: str | Path) -> None:
    """UsageError for a backend that computes only packages."""
    if backend not in (AUTO, PLAIN):
        backends.refuse_unknown_backends([backend])
        remedy = "Give what `hilum package` or `hilum adopt` wrote"
        raise UsageError(f"is not a package, so {backend} cannot compute it", str(path), remedy)


def _read_run(path: Path, device: str, fold: int | None) -> Model:
    if (path / MEMBERS).is_dir():
        return _ensemble(path, device, fold)
    folds = _folds(path)
    if fold is not None:
        if fold not in folds:
            raise missing_fold_error(fold, folds, path)
        return _read_folder(_folder_of(folds[fold]), hardware.choose_device(device).value)
    if not folds:
        return _read_folder(_folder_of(path), hardware.choose_device(device).value)
    _refuse_unfinished(path, folds)
    log.info("%s: the mean of its folds %s", path, ", ".join(map(str, folds)))
    return _mean_of_folds(list(folds.values()), str(path), hardware.choose_device(device).value)


def _mean_of_folds(folds: Sequence[Path], where: str, device: str) -> Model:
    """The mean of the models in these folders; of cascades the mean of the second stages, for whom all first ones mark.

    So nnU-Net predicts with a cascade of folds (doi:10.1038/s41592-020-01008-z): its members see one image.
    """
    folders = [_folder_of(folder) for folder in folds]
    mean = _average([_read_single(one, "cpu") for one in folders], where)
    mean = ensemble.place_on_device(mean, [folder / WEIGHTS for folder in folders], device)
    if mean.preprocessing.cascade is None:
        return mean
    before = [_folder_of(one) for folder in folders for one in _folds(_before(folder)).values()]
    # Nothing is found after the training of a first stage: what they take from their own cases serves training alone.
    first = _average([_read_single(one, "cpu") for one in before], where, decode_alike=False)
    return model_assembly.with_first_stage(
        mean, ensemble.place_on_device(first, [folder / WEIGHTS for folder in before], device)
    )


def _average(members: Sequence[Model], where: str, *, decode_alike: bool = True) -> Model:
    """Several models as one, which averages what their networks say window by window.

    decode_alike: whether their tasks must have all settings in common
    Raises UsageError for members that differ in labels, preprocessing, windows or in what validation cases decided:
    their outputs cannot be averaged.
    """
    first = members[0]
    for member in members[1:]:
        task, expected = member.task, first.task
        if (task.name, task.labels, task.heads) != (expected.name, expected.labels, expected.heads):
            raise UsageError("its members differ in their labels", where, "Choose one with --fold")
        if member.inference != first.inference:
            raise UsageError("its members use different window settings", where, "Choose one with --fold")
        # Training writes one task into all of them at its end.
        if decode_alike and task_settings.settings_of(member.task) != task_settings.settings_of(first.task):
            problem = "its members decode what their networks say in different ways"
            raise UsageError(problem, where, "Finish it with `hilum train --resume`, or choose one with --fold")
    return ensemble.averaged_model(members, first.task, first.inference, where=where)


def model_folders(run: Path) -> list[Path]:
    """The folders of the models that a run is the mean of, or of the one there is; UsageError where one is missing."""
    if (run / MEMBERS).is_dir():
        return [run / MEMBERS / str(number) for number in range(ensemble.read_member_list(run)["members"])]
    folds = _folds(run)
    if folds:
        _refuse_unfinished(run, folds)
    return [_folder_of(folder) for folder in folds.values() or [run]]


def _ensemble(path: Path, device: str, fold: int | None) -> Model:
    """The mean of an ensemble's members, or one of them; of a run whose folds have several networks those of a fold."""
    record = ensemble.read_member_list(path)
    numbers = range(record["members"])
    parts = record.get("folds") or record.get("apart") or [[number] for number in numbers]
    if fold is not None and fold not in range(len(parts)):
        raise missing_fold_error(fold, range(len(parts)), path)
    if record.get("apart") and fold is not None:
        return _apart(path, parts[fold], record, device)
    folders = [path / MEMBERS / str(number) for number in (numbers if fold is None else parts[fold])]
    if len(folders) == 1 and fold is not None:
        return _read_folder(folders[0], hardware.choose_device(device).value)
    try:
        task, inference = task_catalogue.build_task(record["task"]), Inference.from_settings(record["inference"])
    except BUILDING_ERRORS as error:
        raise IntegrityError(f"says nothing of its {error}", str(path / MEMBERS), "Get the ensemble again") from error
    if record.get("apart"):
        apart = [_apart(path, numbers_of_one, record, device) for numbers_of_one in parts]
        shares = package_contents.recorded_shares(record)
        return ensemble.with_own_guard(ensemble.joined_model(apart, task, shares), record, path)
    if len(folders) == 1:  # the others had no weight; what was found for the ensemble is not the member's own
        single = _read_folder(folders[0], hardware.choose_device(device).value)
        return ensemble.with_own_guard(replace(single, task=task, inference=inference), record, path)
    members = [_build(record_files.read_json(one / RECORD, MODEL_SCHEMA), one / WEIGHTS, "cpu", one) for one in folders]
    shares = package_contents.recorded_shares(record) if fold is None else None
    model = ensemble.averaged_model(members, task, inference, shares, str(path))
    model = model if fold is not None else ensemble.with_own_guard(model, record, path)
    return ensemble.place_on_device(model, [one / WEIGHTS for one in folders], hardware.choose_device(device).value)


def _apart(path: Path, numbers: Sequence[int], record: MembersRecord, device: str) -> Model:
    """A member whose outputs are averaged with those of others on the image's grid."""
    folders, foreign = [path / MEMBERS / str(number) for number in numbers], record.get("foreign") or {}
    if inner := foreign.get(str(numbers[0])):
        return detect.load_foreign(detect.copied_foreign(folders[0], inner), device)
    chosen = hardware.choose_device(device).value
    if len(folders) == 1:
        return _read_folder(folders[0], chosen)
    return _mean_of_folds(folders, str(path), chosen)


def _read_folder(folder: Path, device: str) -> Model:
    """The model in this very folder; the second stage of a cascade with the first, which lies beside it in the run."""
    model = _read_single(folder, device)
    if model.preprocessing.cascade is None:
        return model
    return model_assembly.with_first_stage(model, _read_run(_before(folder), device, None))


def _read_single(folder: Path, device: str) -> Model:
    """The model in this very folder, of a cascade its second stage without the first."""
    record = record_files.read_json(folder / RECORD, MODEL_SCHEMA)
    record_files.verify_seal(folder, needed=(RECORD, WEIGHTS, *model_record.part_files(record)))
    return _build(record, folder / WEIGHTS, device, folder)


def _before(folder: Path) -> Path:
    """The place of the first stage of the second one in this folder; UsageError where there is none."""
    run = next((one for one in (folder, *folder.resolve().parents[:2]) if (one / BEFORE).is_dir()), None)
    if run is None:
        problem = f"is the second stage of a cascade, and {BEFORE} is not beside it"
        raise UsageError(problem, str(folder), "Give the folder that `hilum train` wrote, whole")
    return run / BEFORE


def _build(record: ModelRecord, weights: Path, device: str, folder: Path) -> Model:
    """The model of a checkpoint's record and weights."""
    with model_record.refuse_malformed(record, folder):
        task = task_catalogue.build_task(record["task"])
        preprocessing = model_record.preprocessing_of(record["preprocessing"])
        inference = Inference.from_settings(record["inference"])
        [module] = package_contents.read_modules(record, task, [weights])
        run = TorchNetwork(module.to(device), device)
        origin: ModelOrigin = {**record["record"], "weights_sha256": record_files.file_digest(weights)}
    model = Model(task, preprocessing, inference, Networks(run, record["network"]), origin)
    return model_record.with_recorded_parts(model, record, folder)


def _folds(path: Path) -> dict[int, Path]:
    """The folders of the folds of a run, by number; none where it has no folds."""
    folds = {folder.name.removeprefix("fold_"): folder for folder in path.glob("fold_*") if folder.is_dir()}
    return {int(number): folds[number] for number in sorted(filter(str.isdecimal, folds), key=int)}


def _refuse_unfinished(path: Path, folds: Mapping[int, Path]) -> None:
    """UsageError where folds of the split have no model yet: the mean of the others is not what was planned."""
    if (path / "plans.json").is_file() and not (path / "dataset.json").is_file():
        problem = "is a result folder of nnU-Net without dataset.json, which names its labels and channels"
        raise UsageError(problem, str(path), "Copy dataset.json from the folder in which it was trained")
    planned = set(folds)
    if (path / SPLIT).is_file():
        with (path / SPLIT).open(encoding="utf-8", newline="") as file:
            planned |= {int(row["fold"]) for row in csv.DictReader(file) if row.get("fold", "").isdecimal()}
    lacking = sorted(fold for fold in planned if fold not in folds or _model_folder(folds[fold]) is None)
    if lacking:
        raise UsageError(
            f"holds no model of fold {', '.join(map(str, lacking))}",
            str(path),
            "Finish the run with `hilum train --resume`, or choose a trained one with --fold",
        )


def _model_folder(path: Path) -> Path | None:
    places = (path, path / "checkpoints" / "best", path / "checkpoints" / "last")
    return next((folder for folder in places if (folder / RECORD).is_file()), None)


def _folder_of(path: Path) -> Path:
    folder = _model_folder(path)
    if folder is None:
        raise UsageError("holds no model", str(path), "Give the folder that `hilum train` wrote")
    return folder


def read_package(path: Path, device: str, fold: int | None, backend: str, threads: int | None) -> Model:
    """The model of a package: one network, the mean of several, or one of them.

    Raises IntegrityError for a package that is not what was written, and what `choose_backend` raises.
    """
    record = package_contents.package_record(path)
    if extra := record_files.added_files(path):
        log.warning("%s: holds %s, which its maker did not write: nothing reads it", path, errors.list_phrase(extra))
    if fold is not None:
        return _one_fold(path, record, fold, device, backend, threads)
    certificate = backend_certificate.read_certificate(path)
    computing = backend_certificate.choose_backend(backend, device, record, certificate, str(path))
    certificates = () if certificate is None else (f"{PACKAGED}/{CERTIFICATE}",)
    return read_package_on(path, record, computing, threads, certificates)


def read_package_on(
    path: Path, record: ModelRecord, computing: Computing, threads: int | None, left_out: Sequence[str] = ()
) -> Model:
    """The model of a package on a backend, be it certified or not.

    left_out: what its manifest must list beside what is read here
    Raises IntegrityError for a package that is not what was written, UsageError for one without the backend's files.
    """
    parts = [f"{PACKAGED}/{name}" for name in model_record.part_files(record)]
    files = () if record.get("apart") else computing.backend.files(record)
    record_files.verify_seal(path, needed=(f"{PACKAGED}/{RECORD}", *left_out, *parts, *files))
    if record.get("apart"):
        return _joined_package(path, record, computing, threads)
    with model_record.refuse_malformed(record, path):
        network = computing.backend.network(path, computing.device, threads)
    model = _single_stage(path, record, network, computing, package_contents.weights_files(record))
    if model.preprocessing.cascade is not None:
        # On the same backend: the certificate is that of what both say together.
        model = model_assembly.with_first_stage(
            model, read_package_on(path / FIRST, package_contents.package_record(path / FIRST), computing, threads)
        )
    return model_record.with_recorded_parts(model, record, path / PACKAGED)


def _joined_package(path: Path, record: ModelRecord, computing: Computing, threads: int | None) -> Model:
    """The model of a package whose members have grids of their own, and are packages: all on the same backend."""
    members = list[Model]()
    for number in range(record["members"]):
        folder = path / MEMBERS / str(number)
        members.append(read_package_on(folder, package_contents.package_record(folder), computing, threads))
    with model_record.refuse_malformed(record, path):
        task, shares = task_catalogue.build_task(record["task"]), package_contents.recorded_shares(record)
        joined = ensemble.joined_model(members, task, shares)
    origin: ModelOrigin = {**record["record"], "weights_sha256": joined.record["weights_sha256"]}
    return model_record.with_recorded_parts(replace(joined, record=origin), record, path / PACKAGED)


def _one_fold(path: Path, record: ModelRecord, fold: int, device: str, backend: str, threads: int | None) -> Model:
    """One network of several. An ONNX file holds their mean, so that torch alone has them apart."""
    count = record["members"]
    if count == 1 or fold not in range(count):
        raise missing_fold_error(fold, range(count if count > 1 else 0), path)
    if backend not in (AUTO, PLAIN):
        raise UsageError(f"{backend} computes all folds as one", str(path), f"Choose --backend {PLAIN} for one fold")
    computing = backend_certificate.choose_backend(PLAIN, device, record, None, str(path))
    computing = replace(computing, because="torch alone has the folds apart")
    if record.get("apart"):
        folder = path / MEMBERS / str(fold)
        return read_package_on(folder, package_contents.package_record(folder), computing, threads)
    model = _of_members(path, record, [fold], computing, threads)
    if record.get("guard"):  # it looks at what the first network sees
        log.warning("%s: one fold alone is without the gate of the package: every image gets an answer", path)
    if model.preprocessing.cascade is None:
        return model
    # The networks of the first stage lie fold after fold. Those of the others may have seen what this fold has not.
    before = package_contents.package_record(path / FIRST)
    per_fold = before["members"] // count
    numbers = range(fold * per_fold, (fold + 1) * per_fold)
    return model_assembly.with_first_stage(model, _of_members(path / FIRST, before, numbers, computing, threads))


def _of_members(
    path: Path, record: ModelRecord, numbers: Sequence[int], computing: Computing, threads: int | None
) -> Model:
    """Some of several networks as a model, by torch; of a cascade those of one stage."""
    names = [package_contents.weights_files(record)[number] for number in numbers]
    record = package_contents.record_of_members(record, numbers)
    record_files.verify_seal(path, needed=(f"{PACKAGED}/{RECORD}", *names))
    with model_record.refuse_malformed(record, path):
        network = torch_eager.build_average(record, [path / name for name in names], computing.device, threads)
    return _single_stage(path, record, network, computing, names)


def _single_stage(
    path: Path, record: ModelRecord, network: Network, computing: Computing, weights: Sequence[str]
) -> Model:
    """The model of this very package, of a cascade its second stage without the first."""
    with model_record.refuse_malformed(record, path):
        task = task_catalogue.build_task(record["task"])
        preprocessing = model_record.preprocessing_of(record["preprocessing"])
        inference = Inference.from_settings(record["inference"])
        origin: ModelOrigin = {**record["record"], "weights_sha256": _digest(path, weights)}
    architectures = tuple(record.get("architectures") or ())
    # A backend that reads the weights computes the networks alone; a graph may state figures of uncertainty too.
    is_graph = set(package_contents.weights_files(record)).isdisjoint(computing.backend.files(record))
    computed = record["onnx"].get("uncertainty") if is_graph else None
    in_graph = computed["method"] if computed else ""
    packaged = 0 if isinstance(network, TorchNetwork | AveragedNetwork) else record["members"]
    networks = Networks(network, record["network"], architectures, computing.decision, in_graph, packaged)
    return Model(task, preprocessing, inference, networks, origin)


def _digest(path: Path, weights: Sequence[str]) -> str:
    """The digest of the weights, as the manifest says that they are and `verify_seal` has seen that they are."""
    digests = record_files.read_json(path / MANIFEST, MANIFEST_SCHEMA)["sha256"]
    return digests[weights[0]] if len(weights) == 1 else record_files.join_digests([digests[name] for name in weights])


def missing_fold_error(fold: int, folds: Collection[int], path: Path) -> UsageError:
    """The error for a fold that a run or a package lacks."""
    choice = f"Choose one of {', '.join(map(str, folds))}" if folds else "Leave --fold out"
    return UsageError(f"has no fold {fold}", str(path), choice)
