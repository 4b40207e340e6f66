"""A model as one thing: what comes before the network, the network, and what comes after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Lt
from numpy.typing import NDArray

from isocenter import networks, tasks
from isocenter.errors import DatasetError, IntegrityError, UsageError
from isocenter.files import read
from isocenter.lazy import torch
from isocenter.runtime.device import choose_device
from isocenter.runtime.preprocessing import Preprocessing
from isocenter.runtime.record import digest, read_json, read_tensors, verify, write_json, write_tensors
from isocenter.runtime.windows import Network, Progress, slide
from isocenter.tasks import Task
from isocenter.transforms import stacked
from isocenter.values import Case, Image, Prediction

if TYPE_CHECKING:
    from torch.nn import Module

RECORD = "model.json"
WEIGHTS = "weights.safetensors"
SCHEMA = "isocenter.model"

Axis = Annotated[int, Ge(0), Lt(3)]


@dataclass(frozen=True)
class Inference:
    """How the network is led over an image: the plan's section "inference".

    patch:      the window's voxels an axis
    overlap:    share of a window that the next one covers too
    batch:      windows that go through the network together
    flips:      axes of the network's grid along which each window is also seen mirrored; empty for none
    left_right: which axis of the network's grid runs between left and right; None where it is not known
    """

    patch: tuple[int, ...]
    overlap: Annotated[float, Ge(0), Lt(1)] = 0.5
    batch: int = 1
    flips: tuple[Axis, ...] = ()
    left_right: Axis | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Inference:
        """From a model's record; one written before there were flips has none."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class TorchNetwork:
    """A torch module as a function of NumPy arrays."""

    module: Module
    device: str = "cpu"

    def __call__(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = self.module(torch.from_numpy(batch).to(self.device))
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


@dataclass(frozen=True, eq=False)
class Model:
    """Preprocessing, network and decoding as one; the same object in training, prediction and service.

    network: the arguments of `networks.build` but the heads, which the task asks for
    run:     the network itself, as a function of NumPy arrays
    record:  where it comes from: data hash, plan, versions, what was measured
    """

    task: Task
    preprocessing: Preprocessing
    inference: Inference
    network: Mapping[str, Any]
    run: Network
    record: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, subject: Image | Case | str | Path, progress: Progress | None = None) -> Prediction:
        """The result on the subject's own grid; a path is read first.

        progress: is told how many windows of the image are done, and of how many
        Raises what reading raises, and DatasetError where the subject is not of the model's kind.
        """
        image, where = _image_of(subject)
        data, trace = self.preprocessing(image, where)
        inference = self.inference
        slabs = slide(
            self.run,
            data,
            inference.patch,
            overlap=inference.overlap,
            batch=inference.batch,
            merge=self.task.merge,
            progress=progress,
        )
        return self.task.decode(self.preprocessing.restored(slabs, trace), trace.source)

    def __repr__(self) -> str:
        labels, channels = ", ".join(one.name for one in self.task.labels), ", ".join(self.preprocessing.channels)
        network = f"{self.network['name']} in {self.preprocessing.ndim}D"
        return f"Model({self.task.name} of {labels}; {network}; channels {channels})"

    @property
    def settings(self) -> dict[str, Any]:
        """What `model.json` holds: all but the weights."""
        return {
            "task": {"name": self.task.name, **self.task.settings},
            "preprocessing": self.preprocessing.settings,
            "inference": self.inference.settings,
            "network": dict(self.network),
            "record": dict(self.record),
        }


def build_module(task: Task, network: Mapping[str, Any]) -> Module:
    """The torch module that these settings name, with fresh weights."""
    return networks.build(network["name"], network["channels"], network["spatial_dims"], task.heads, network["size"])


def save(model: Model, weights: Mapping[str, Any], folder: Path) -> None:
    """Record and weights into an existing folder; the caller seals it."""
    write_json(folder / RECORD, SCHEMA, model.settings)
    write_tensors(folder / WEIGHTS, weights)


def load(path: str | Path, device: str = "auto") -> Model:
    """The model of a run, a checkpoint or a package.

    Raises UsageError where there is no model, IntegrityError for a changed, damaged or newer one.
    """
    folder = _folder_of(Path(path))
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
    chosen = choose_device(device).value
    run = TorchNetwork(module.eval().to(chosen), chosen)
    return Model(task, preprocessing, inference, record["network"], run, origin)


def _folder_of(path: Path) -> Path:
    if not path.exists():
        raise UsageError("there is no such model", str(path), "Give a run's folder")
    for folder in (path, path / "checkpoints" / "best", path / "checkpoints" / "last"):
        if (folder / RECORD).is_file():
            return folder
    raise UsageError("holds no model", str(path), "Give the folder that `isocenter train` wrote")


def _image_of(subject: Image | Case | str | Path) -> tuple[Image, str]:
    if isinstance(subject, Image):
        return subject, subject.source.paths[0] if subject.source and subject.source.paths else "image"
    if isinstance(subject, Case):
        if not subject.images:
            raise DatasetError("the case has no image", subject.id, "Give its images")
        return stacked(subject.images, subject.id), subject.id
    return read(subject), str(subject)
