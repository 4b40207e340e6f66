"""A model as one thing: what comes before the network, the network, and what comes after."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Lt
from numpy.typing import NDArray

from isocenter import networks
from isocenter.errors import DatasetError, GeometryError, listed
from isocenter.files import read
from isocenter.runtime.by_frame import predicted_by_frame
from isocenter.runtime.covariate_encoding import Context, with_context
from isocenter.runtime.preprocessing import Prepares, Preprocessing
from isocenter.runtime.stream import Stream, frames_of
from isocenter.runtime.windows import Averaged, Beside, Progress, flipped_axes, passed
from isocenter.runtime.windows.slide import Network
from isocenter.tasks import Task
from isocenter.transforms import stacked
from isocenter.values import Array, Case, Decision, Image, Prediction, Region

if TYPE_CHECKING:
    from torch.nn import Module

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
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
        }
        return cls(**values)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Model:
    """Preprocessing, network and decoding as one; the same object in training, prediction and service.

    network: the arguments of `networks.build` but the heads, which the task asks for
    run:     the network itself, as a function of NumPy arrays
    record:  where it comes from: data hash, plan, versions, what was measured
    computing: with what and where the network computes, and why; None where nobody had to choose
    architectures: as `network`, of each member, where members are of several; empty where all are as it says
    """

    task: Task
    preprocessing: Prepares
    inference: Inference
    network: Mapping[str, Any]
    run: Network
    record: Mapping[str, Any] = field(default_factory=dict)
    computing: Decision | None = None
    architectures: tuple[Mapping[str, Any], ...] = ()

    def predict(
        self,
        subject: Image | Case | str | Path,
        progress: Progress | None = None,
        *,
        mirror: bool | None = None,
        beside: Beside | None = None,
        region: Region | None = None,
        overlap: float | None = None,
        seconds: float | None = None,
        covariates: Mapping[str, Any] | None = None,
    ) -> Prediction:
        """The result on the subject's own grid; a path is read first.

        progress: is told how many windows of the image are done, and of how many
        mirror:   whether windows are also seen mirrored, and the results averaged; as planned if not said
        beside:   is given the probabilities of each finished part of the subject's grid, in order
        region:   of the subject's grid, slices of voxels; what lies beyond is not predicted, and is background
        overlap:  share of a window that the next one covers too; as planned if not said
        seconds:  in which the windows should be done: the overlap becomes smaller where it has to
        covariates: of the patient, for a model that asks for them; those of a case if not given
        Raises what reading raises, DatasetError where the subject is not of the model's kind, and PlanError where
        mirroring would not be true to anatomy.
        """
        axes = self.flips(mirror)
        image, where = image_of(subject)
        if self._goes_by_frame(image):
            if beside is not None:
                raise GeometryError("the probabilities of a clip are not kept", where, "Predict without them")
            count = image.frames or 1

            def one(still: Image, number: int) -> Prediction:
                told = _of_frame(progress, number, count)
                return self.predict(still, told, mirror=mirror, region=region, overlap=overlap, seconds=seconds)

            return predicted_by_frame(image, one)
        if covariates is None and isinstance(subject, Case):
            covariates = subject.covariates or None
        told, notes = self.told(covariates, where, self._there(image, where))
        prediction = passed(
            image,
            where,
            task=self.task,
            preprocessing=self.preprocessing,
            network=with_context(self.run, told),
            patch=self.inference.patch,
            overlap=self.inference.overlap if overlap is None else overlap,
            batch=self.inference.batch,
            flips=axes,
            left_right=self.inference.left_right,
            progress=progress,
            beside=beside,
            region=region,
            seconds=seconds,
        )
        return replace(prediction, notes=(*notes, *prediction.notes)) if notes else prediction

    @property
    def context(self) -> Context:
        """What the network is told of a patient beside the image; without columns where it is told nothing."""
        return Context.of(self.network.get("context"))

    def _there(self, image: Image, where: str) -> tuple[str, ...] | None:
        """The channels that the image has, for a network that is told; None for one that is not."""
        if not self.context.channels or not isinstance(self.preprocessing, Preprocessing):
            return None
        there = self.preprocessing.there(image, where)
        return tuple(name for name, known in zip(self.preprocessing.channels, there, strict=True) if known)

    def told(
        self, covariates: Mapping[str, Any] | None, where: str = "covariates", there: Collection[str] | None = None
    ) -> tuple[NDArray[np.float32] | None, list[str]]:
        """The vector for a patient's covariates, and what has to be known of them; None for a network without one.

        there: channels that the case has; None for all
        DatasetError where the model asks for covariates and none of them was given.
        """
        context = self.context
        if not len(context):
            return None, []
        missing = covariates is None or (covariates and not set(context.names) & set(covariates))
        if context.names and missing:
            problem = f"the model was trained with {listed(context.names)} beside the image, and none was given"
            raise DatasetError(problem, where, "Give a table with these columns: --covariates TABLE.csv")
        return context.vector(covariates or {}, there)

    def _goes_by_frame(self, image: Image) -> bool:
        """Whether a clip is looked at frame by frame: by a model of still images that marks voxels."""
        dense = any(head.is_dense for head in self.task.heads.values())
        return image.frames is not None and self.preprocessing.frames is None and dense

    def stream(self, frames: Image | str | Path | Iterable[Image | Array], *, mirror: bool | None = None) -> Stream:
        """A prediction for each frame when it is asked for: of a film, or of whatever gives frame after frame.

        frames: a film (a path is read first), images, or arrays (channels, rows, columns)
        The stream's `latency` says p50 and p99. Nothing is kept of a frame, so any number of them may come.
        """
        if isinstance(frames, (str, Path)):
            frames = read(frames)
        if isinstance(frames, Image):
            frames = frames_of(*image_of(frames))
        return Stream(self, frames, mirror)

    def flips(self, mirror: bool | None = None) -> tuple[int, ...]:
        """The axes along which windows are also seen mirrored; PlanError where that is not true to anatomy."""
        inference = self.inference
        return flipped_axes(self.task, self.preprocessing.ndim, inference.flips, inference.left_right, mirror)

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks whose outputs are averaged, or the one there is."""
        return self.run.members if isinstance(self.run, Averaged) else (self.run,)

    @property
    def networks(self) -> tuple[Mapping[str, Any], ...]:
        """The arguments of `networks.build` for each of the members."""
        return self.architectures or (self.network,) * len(self.members)

    @property
    def shares(self) -> tuple[float, ...] | None:
        """How much each member counts; None where all count alike."""
        return self.run.shares if isinstance(self.run, Averaged) else None

    @property
    def families(self) -> str:
        """The names of its networks' families."""
        return ", ".join(dict.fromkeys(str(one["name"]) for one in self.networks))

    def __repr__(self) -> str:
        labels, channels = ", ".join(one.name for one in self.task.labels), ", ".join(self.preprocessing.channels)
        network = f"{self.families} in {self.preprocessing.ndim}D"
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


def _of_frame(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one frame, told as progress of all: they have as many windows each."""
    return None if progress is None else lambda done, of: progress(number * of + done, count * of)


def build_module(task: Task, network: Mapping[str, Any]) -> Module:
    """The torch module that these settings name, with fresh weights.

    marked: of labels that a network before marks, whose numbers are the last channel; a channel each for the family
    """
    context, marked, channels = len(Context.of(network.get("context"))), network.get("marked", 0), network["channels"]
    own = channels - 1 + marked if marked else channels
    told = (context, network.get("told"))
    module = networks.build(network["name"], own, network["spatial_dims"], task.heads, network["size"], *told)
    if not marked:
        return module
    from isocenter.runtime.bundle.network import AfterLabels  # it needs torch when it is imported

    return AfterLabels(module, marked)


def image_of(subject: Image | Case | str | Path) -> tuple[Image, str]:
    if isinstance(subject, Image):
        return subject, subject.source.paths[0] if subject.source and subject.source.paths else "image"
    if isinstance(subject, Case):
        if not subject.images:
            raise DatasetError("the case has no image", subject.id, "Give its images")
        return stacked(subject.images, subject.id), subject.id
    return read(subject), str(subject)
