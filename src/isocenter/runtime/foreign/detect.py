"""Detection of the program that a model comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isocenter import networks
from isocenter.errors import UsageError
from isocenter.runtime.device import choose_device, use_threads
from isocenter.runtime.foreign.calibrated import is_calibrated, model_of, with_calibration
from isocenter.runtime.foreign.monai_bundle import is_bundle, load_bundle
from isocenter.runtime.foreign.nnunet import is_nnunet, load_nnunet
from isocenter.runtime.foreign.onnx_model import is_onnx, load_onnx
from isocenter.runtime.model import Model, computed_by


def is_foreign(path: Path) -> bool:
    """Whether it is a model of another program that we know, as its maker wrote it or calibrated here."""
    return is_calibrated(path) or is_onnx(path) or (path.is_dir() and (is_nnunet(path) or is_bundle(path)))


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
            model_of(path),
            device,
            fold=fold,
            trusted=trusted,
            largest=largest,
            threads=threads,
            activation=activation,
        )
        return with_calibration(inner, path)
    if is_onnx(path):
        if fold is not None:
            raise UsageError("an ONNX file has no folds", str(path), "Leave --fold out")
        return load_onnx(path, device, threads, activation)
    refuse_activation(activation, path)
    if threads is not None:
        use_threads(threads)
    if path.is_dir() and is_nnunet(path):
        chosen = choose_device(device)
        model = load_nnunet(path, chosen.value, fold=fold, trusted=trusted, largest=largest)
        return computed_by(model, chosen)
    if path.is_dir() and is_bundle(path):
        if fold is not None or largest:
            raise UsageError("a bundle has no folds and no postprocessing.pkl", str(path), "Leave them out")
        chosen = choose_device(device)
        return computed_by(load_bundle(path, chosen.value, trusted=trusted), chosen)
    raise UsageError(
        "is not a model of a known program", str(path), "Give an nnU-Net v2 result folder, a MONAI bundle or ONNX"
    )


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
    others = None if name in networks.names() else f"its network is {name}, whose sources are not ours to pack"
    return why_unkept(model) or others
