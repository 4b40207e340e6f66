"""A package as a model, computed by a backend."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isocenter import tasks
from isocenter.errors import UsageError, listed
from isocenter.runtime.device import AUTO
from isocenter.runtime.inference import Inference
from isocenter.runtime.model import Model, with_first_stage
from isocenter.runtime.model_record import built_from, files_of, preprocessing_of, with_parts
from isocenter.runtime.networks import Networks, TorchNetwork
from isocenter.runtime.package.backends.torch_eager import averaged
from isocenter.runtime.package.certificate import CERTIFICATE, read_certificate
from isocenter.runtime.package.choose_backend import PLAIN, Computing, choose_backend
from isocenter.runtime.package.contents import FIRST, PACKAGED, RECORD, of_members, package_record, weights_files
from isocenter.runtime.record_files import MANIFEST, added, joined, read_json, verify
from isocenter.runtime.windows.averaging import Averaged
from isocenter.runtime.windows.slide import Network

log = logging.getLogger("isocenter")


def read_package(path: Path, device: str, fold: int | None, backend: str, threads: int | None) -> Model:
    """The model of a package: one network, the mean of several, or one of them.

    Raises IntegrityError for a package that is not what was written, and what `choose_backend` raises.
    """
    record = package_record(path)
    if extra := added(path):
        log.warning("%s: holds %s, which its maker did not write: nothing reads it", path, listed(extra))
    if fold is not None:
        return _one_fold(path, record, fold, device, backend, threads)
    certificate = read_certificate(path)
    computing = choose_backend(backend, device, record, certificate, str(path))
    certificates = () if certificate is None else (f"{PACKAGED}/{CERTIFICATE}",)
    return _computed(path, record, computing, threads, certificates)


def _computed(
    path: Path, record: Mapping[str, Any], computing: Computing, threads: int | None, left_out: Sequence[str] = ()
) -> Model:
    """The model of a package on a backend; left_out: what its manifest must list beside what is read here."""
    parts = [f"{PACKAGED}/{name}" for name in files_of(record)]
    verify(path, needed=(f"{PACKAGED}/{RECORD}", *left_out, *parts, *computing.backend.files(record)))
    with built_from(record, path):
        network = computing.backend.network(path, computing.device, threads)
    model = _single_stage(path, record, network, computing, weights_files(record))
    if model.preprocessing.cascade is not None:
        # On the same backend: the certificate is that of what both say together.
        model = with_first_stage(model, _computed(path / FIRST, package_record(path / FIRST), computing, threads))
    return with_parts(model, record, path / PACKAGED)


def _one_fold(
    path: Path, record: Mapping[str, Any], fold: int, device: str, backend: str, threads: int | None
) -> Model:
    """One network of several. An ONNX file holds their mean, so that torch alone has them apart."""
    count = record["members"]
    if count == 1 or fold not in range(count):
        raise no_fold(fold, range(count if count > 1 else 0), path)
    if backend not in (AUTO, PLAIN):
        raise UsageError(f"{backend} computes all folds as one", str(path), f"Choose --backend {PLAIN} for one fold")
    computing = choose_backend(PLAIN, device, record, None, str(path))
    computing = replace(computing, because="torch alone has the folds apart")
    model = _of_members(path, record, [fold], computing, threads)
    if record.get("guard"):  # it looks at what the first network sees
        log.warning("%s: one fold alone is without the gate of the package: every image gets an answer", path)
    if model.preprocessing.cascade is None:
        return model
    # The networks of the first stage lie fold after fold. Those of the others may have seen what this fold has not.
    before = package_record(path / FIRST)
    per_fold = before["members"] // count
    numbers = range(fold * per_fold, (fold + 1) * per_fold)
    return with_first_stage(model, _of_members(path / FIRST, before, numbers, computing, threads))


def _of_members(
    path: Path, record: Mapping[str, Any], numbers: Sequence[int], computing: Computing, threads: int | None
) -> Model:
    """Some of several networks as a model, by torch; of a cascade those of one stage."""
    names, record = [weights_files(record)[number] for number in numbers], of_members(record, numbers)
    verify(path, needed=(f"{PACKAGED}/{RECORD}", *names))
    with built_from(record, path):
        network = averaged(record, [path / name for name in names], computing.device, threads)
    return _single_stage(path, record, network, computing, names)


def _single_stage(
    path: Path, record: Mapping[str, Any], network: Network, computing: Computing, weights: Sequence[str]
) -> Model:
    """The model of this very package, of a cascade its second stage without the first."""
    with built_from(record, path):
        task = tasks.build(record["task"])
        preprocessing, inference = preprocessing_of(record["preprocessing"]), Inference.of(record["inference"])
        origin = {**record["record"], "weights_sha256": _digest(path, weights)}
    architectures = tuple(record.get("architectures") or ())
    is_exported = not isinstance(network, TorchNetwork | Averaged)
    in_graph = (record["onnx"].get("uncertainty") or {}).get("method", "") if is_exported else ""
    networks = Networks(network, record["network"], architectures, computing.decision, in_graph)
    return Model(task, preprocessing, inference, networks, origin)


def _digest(path: Path, weights: Sequence[str]) -> str:
    """The digest of the weights, as the manifest says that they are and `verify` has seen that they are."""
    digests = read_json(path / MANIFEST, "isocenter.manifest")["sha256"]
    return digests[weights[0]] if len(weights) == 1 else joined([digests[name] for name in weights])


def no_fold(fold: int, folds: Collection[int], path: Path) -> UsageError:
    """The error for a fold that a run or a package lacks."""
    choice = f"Choose one of {', '.join(map(str, folds))}" if folds else "Leave --fold out"
    return UsageError(f"has no fold {fold}", str(path), choice)
