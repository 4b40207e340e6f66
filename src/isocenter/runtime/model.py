"""A model as one object: preprocessing, network and decoding, and the first stage of a cascade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.errors import DatasetError, GeometryError, PlanError, listed
from isocenter.files import read
from isocenter.runtime import bundle
from isocenter.runtime.cascade import labelled
from isocenter.runtime.covariate_encoding import Context, with_covariates
from isocenter.runtime.differentiable import Differentiable
from isocenter.runtime.directions import Directions
from isocenter.runtime.guard.guard import Guard
from isocenter.runtime.guard.observation import Watching
from isocenter.runtime.inference import NONE, TTA, Inference
from isocenter.runtime.preprocessing.protocol import Prepares
from isocenter.runtime.proportion import refuse_out_of_proportion
from isocenter.runtime.record_files import joined
from isocenter.runtime.request import AS_PLANNED, Request
from isocenter.runtime.stream import Stream, frames_of, predict_frames
from isocenter.runtime.uncertainty.disagreement import Disagreement
from isocenter.runtime.uncertainty.last_layers import Laplace
from isocenter.runtime.uncertainty.receiver import PartUncertainties, Uncertainty, uncertainty_of
from isocenter.runtime.windows.averaging import Averaged, flipped_axes, members_of
from isocenter.runtime.windows.pipeline import BLANK, Receiver, WindowSettings, run_pipeline
from isocenter.runtime.windows.slide import Network, Progress
from isocenter.tasks import Task, by_covariates, settings_of, sureness
from isocenter.transforms import stacked
from isocenter.values import Array, Case, Decision, Deferred, Dense, Head, Image, Prediction, Region, Vector

if TYPE_CHECKING:
    from torch.nn import Module

    from isocenter.runtime.preprocessing.protocol import Restores


@dataclass(frozen=True, eq=False)
class Model:
    """Preprocessing, network and decoding as one object: the same in training, prediction and service.

    network:   the arguments of `networks.build` without the heads, which follow from the task
    run:       the network itself, as a function of NumPy arrays
    record:    where the model comes from: data hash, plan, versions, figures
    computing: device and backend, and the reason; None where there was no choice
    architectures: as `network`, for each member of an ensemble of several; empty where all members are alike
    first:     the first stage of a cascade, whose labels are a further input channel; None for a model of one stage
    guard:     refuses images that are unlike those that trained it; None for a model without, which predicts any
    laplace:   the posterior of its last layers; None for a model without
    directions: along which its training images differ; None of few patients, and of dense answers
    uncertainty: method by which it looks for its uncertainty, as `with_uncertainty` has chosen it
    in_graph:  the method whose figures the network computes itself, as an exported one does
    request:   what is asked of its predictions where a caller asks nothing
    """

    task: Task
    preprocessing: Prepares
    inference: Inference
    network: Mapping[str, Any]
    run: Network
    record: Mapping[str, Any] = field(default_factory=dict)
    computing: Decision | None = None
    architectures: tuple[Mapping[str, Any], ...] = ()
    first: Model | None = None
    guard: Guard | None = None
    laplace: Laplace | None = None
    directions: Directions | None = None
    uncertainty: str = NONE
    in_graph: str = NONE
    request: Request = AS_PLANNED

    def predict(
        self,
        subject: Image | Case | str | Path,
        request: Request | None = None,
        *,
        progress: Progress | None = None,
        receiver: Receiver | None = None,
        covariates: Mapping[str, Any] | None = None,
    ) -> Prediction:
        """Return the result on the subject's own grid; a path is read first.

        request:  how it is predicted, as in `Request(mirror=False)`; None is the model's own
        progress: called with the number of windows done, and of all windows; again for each part of the result that
                  they bring back onto the subject's grid
        receiver: called with the probabilities of each finished part of the subject's grid, in order
        covariates: of the patient, for a model with covariates; None takes those of a case
        A first stage mirrors windows if the second does, and always sees the whole image. What the gate refuses, or
        is one value everywhere, has its results too, and says so in `abstained`. Raises what reading raises,
        DatasetError where the subject does not suit the model or is out of all proportion to its training images,
        GeometryError where sides matter and are unknown, PlanError where mirroring would contradict anatomy, and
        OutputError where outputs of the network are not finite.
        """
        request = self.request if request is None else request
        axes = self.flips(request.mirror)
        image, where = image_of(subject)
        if covariates is None and isinstance(subject, Case):
            covariates = subject.covariates or None
        if self.goes_by_frame(image):
            if receiver is not None or request.maps:
                raise GeometryError("the probabilities of a clip are not kept", where, "Predict without them")
            count = image.frames or 1
            of_each = request if request.seconds is None else replace(request, seconds=request.seconds / count)

            def of_frame(still: Image, number: int) -> Prediction:
                """The prediction of one frame."""
                told = _of_frame(progress, number, count)
                return self.predict(still, of_each, progress=told, covariates=covariates)

            return self._judged_clip(replace(predict_frames(image, of_frame), case=where, task=self.task.name))
        if not request.allow_large:
            refuse_out_of_proportion(self, image, where, request.region)
        vector, notes = self.context_vector(image, covariates, where)
        given, watching = image, Watching(self.run)
        image, preprocessing = self.after_first(image, request, covariates)
        sought = self._sought(image, maps=request.maps)
        prediction = run_pipeline(
            image,
            where,
            task=self.task,
            preprocessing=preprocessing,
            network=with_covariates(watching, vector),
            windows=self._windows(axes, request),
            progress=progress,
            receiver=each_of(receiver, sought),
            region=request.region,
        )
        if (narrowed := by_covariates(self.task)) is not None:
            prediction = narrowed(prediction, covariates or {})
        prediction = prediction if sought is None else sought.stated(prediction)
        prediction = replace(prediction, case=where, task=self.task.name, notes=(*notes, *prediction.notes))
        # A volume that is never held is known to be blank once its windows were seen, of a deferred result later.
        if watching.is_blank and request.region is None and not isinstance(prediction.data, Deferred):
            prediction = replace(prediction, abstained=BLANK)
        if self.guard is None:
            return prediction
        # A part of an image is judged by its header alone: nobody has seen parts of the others.
        seen = watching.observation(given, covariates, whole=request.region is None)
        return self.guard.judged(prediction, seen, sureness(self.task, prediction))

    def _judged_clip(self, clip: Prediction) -> Prediction:
        """The clip with what the gate says of all its frames."""
        if self.guard is None:
            return clip
        return self.guard.of_frames(clip, [sureness(self.task, frame) for frame in clip.frames])

    def model_of(self, case: str) -> Model:
        """The model that predicts a case of this id: this one."""
        return self

    def after_first(
        self, image: Image, request: Request, covariates: Mapping[str, Any] | None = None
    ) -> tuple[Image, Restores]:
        """The image and its preprocessing, in a cascade with what the first stage marks in it."""
        if self.first is None:
            return image, self.preprocessing
        whole = Request(mirror=request.mirror, allow_large=request.allow_large)
        stage = self.first.predict(image, whole, covariates=covariates)
        return labelled(image, self.preprocessing, stage, self.first.task.labels)

    def _windows(self, axes: tuple[int, ...], request: Request) -> WindowSettings:
        """The windows of an image: mirrored along these axes, and perhaps along others to see the spread."""
        own, by_mirrors = self.inference, self.uncertainty == TTA
        return WindowSettings(
            own.patch,
            own.overlap if request.overlap is None else request.overlap,
            own.batch,
            axes or (self.flips(True) if by_mirrors else ()),
            own.left_right,
            request.seconds,
            Disagreement.of(self.task) if by_mirrors else None,
            plain=not axes,
            at_most=request.at_most,
        )

    def _sought(self, image: Image, *, maps: bool) -> Uncertainty | PartUncertainties | None:
        """The receiver that gathers the uncertainty; None where it would take time for every voxel and nobody asks."""
        finds, is_dense = self.uncertainty != NONE, any(head.is_dense for head in self.task.heads.values())
        if is_dense and not maps and not finds:
            return None
        return uncertainty_of(self.task, image.geometry, maps=maps, parts=finds)

    @property
    def context(self) -> Context:
        """The covariates and channels that are entries of the network's context; no columns for a network without."""
        return Context.of(self.network.get("context"))

    def context_vector(
        self, image: Image, covariates: Mapping[str, Any] | None, where: str = "covariates"
    ) -> tuple[NDArray[np.float32] | None, list[str]]:
        """The network's context for a patient, (entries,), and notes on missing values; None for one without context.

        Raises DatasetError where the model has covariates and none of them was given.
        """
        context = self.context
        if not len(context):
            return None, []
        present = self.preprocessing.present(image, where) if context.channels else None
        missing = covariates is None or (covariates and not set(context.names) & set(covariates))
        if context.names and missing:
            problem = f"the model was trained with {listed(context.names)} beside the image, and none was given"
            raise DatasetError(problem, where, "Give a table with these columns: --covariates TABLE.csv")
        channels = None if present is None else list(compress(self.preprocessing.channels, present))
        return context.vector(covariates or {}, channels)

    def goes_by_frame(self, image: Image) -> bool:
        """Whether the model predicts a clip frame by frame: a model of still images that marks voxels."""
        dense = any(head.is_dense for head in self.task.heads.values())
        return image.frames is not None and self.preprocessing.frames is None and dense

    def stream(self, frames: Image | str | Path | Iterable[Image | Array], request: Request | None = None) -> Stream:
        """Return one prediction per frame, each made when it is asked for: of a film or of any source of frames.

        frames: a film (a path is read first), images, or arrays (channels, rows, columns)
        The stream's `latency` has p50 and p99. No frame is kept, so their number has no limit.
        """
        match frames:
            case str() | Path():
                frames = frames_of(*image_of(read(frames)))
            case Image():
                frames = frames_of(*image_of(frames))
        return Stream(partial(self.predict, request=request), self.preprocessing.channels, frames)

    def flips(self, mirror: bool | None = None) -> tuple[int, ...]:
        """Axes along which the network also sees windows mirrored; PlanError where that contradicts anatomy."""
        inference = self.inference
        return flipped_axes(self.task, self.preprocessing.ndim, inference.flips, inference.left_right, mirror)

    @property
    def average(self) -> Averaged | None:
        """Its networks as one, where they are several; None for a single network."""
        return self.run if isinstance(self.run, Averaged) else None

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks whose outputs are averaged, or the only network."""
        return members_of(self.run)

    @property
    def networks(self) -> tuple[Mapping[str, Any], ...]:
        """The arguments of `networks.build` for each of the members."""
        return self.architectures or (self.network,) * len(self.members)

    @property
    def shares(self) -> tuple[float, ...] | None:
        """The weight of each member; None where all members count alike."""
        return None if self.average is None else self.average.shares

    @property
    def families(self) -> str:
        """The names of its networks' families."""
        return ", ".join(dict.fromkeys(str(network["name"]) for network in self.networks))

    def __repr__(self) -> str:
        labels, channels = ", ".join(label.name for label in self.task.labels), ", ".join(self.preprocessing.channels)
        network = f"{self.families} in {self.preprocessing.ndim}D"
        return f"Model({self.task.name} of {labels}; {network}; channels {channels})"

    def differentiable(self) -> Differentiable:
        """Its networks as modules with gradients; UsageError for a model that computes without torch."""
        return Differentiable.of(self.run, self.networks, self.computing)

    @property
    def settings(self) -> dict[str, Any]:
        """The content of `model.json`: all but the weights."""
        return {
            "task": {"name": self.task.name, **settings_of(self.task)},
            "preprocessing": self.preprocessing.settings,
            "inference": self.inference.settings,
            "network": dict(self.network),
            "record": dict(self.record),
            **{name: part.settings for name, part in self.parts.items()},
        }

    @property
    def parts(self) -> dict[str, Any]:
        """Parts that were found after training and have arrays of their own: {name of the field: part}."""
        each = {"guard": self.guard, "laplace": self.laplace, "directions": self.directions}
        return {name: part for name, part in each.items() if part is not None}


def with_first_stage(second: Model, first: Model) -> Model:
    """The second stage of a cascade with its first stage; the digest of its weights is that of both."""
    digests = [model.record.get("weights_sha256") for model in (first, second)]
    if not all(digests):
        return replace(second, first=first)
    record = {**second.record, "weights_sha256": joined([str(digest) for digest in digests])}
    return replace(second, first=first, record=record)


def each_of(*receivers: Receiver | None) -> Receiver | None:
    """One receiver that hands on to each of these; None where there is none."""
    there = [one for one in receivers if one is not None]
    return partial(_to_all, there) if there else None


def _to_all(receivers: Sequence[Receiver], region: Region, arrays: Mapping[str, Array]) -> None:
    for receiver in receivers:
        receiver(region, arrays)


def _of_frame(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one frame, reported as progress of all: each has as many windows."""
    return None if progress is None else lambda done, of: progress(number * of + done, count * of)


def build_module(task: Task, network: Mapping[str, Any]) -> Module:
    """The torch module that these settings name, with fresh weights.

    The entry "marked" is the number of labels of a first stage: their numbers are the last channel of the input, and
    each becomes a channel of the family's network. "first_entry" is where its covariates begin in a context of several
    networks. With "noise" the family's network has twice as many outputs of classes.
    """
    context, marked, channels = len(Context.of(network.get("context"))), network.get("marked", 0), network["channels"]
    own = channels - 1 + marked if marked else channels
    fusion = network.get("fusion")
    heads, noisy = heads_of(task, network)
    module = networks.build(network["name"], own, network["spatial_dims"], heads, network["size"], context, fusion)
    module = networks.with_quick_single_volumes(module)
    module = bundle.NoisyLogits(module, noisy) if noisy else module
    module = bundle.AfterLabels(module, marked) if marked else module
    return bundle.OnItsEntries(module, network["first_entry"], context) if "first_entry" in network else module


def heads_of(task: Task, network: Mapping[str, Any]) -> tuple[Mapping[str, Head], dict[str, int]]:
    """The heads of the family's network, and {head: its classes} of those whose logits are noisy.

    PlanError where no class excludes another, or where outputs state evidence.
    """
    if not network.get("noise"):
        return task.heads, {}
    noisy = {name: head.count for name, head in task.heads.items() if name in task.probability_heads}
    if not noisy or task.states_evidence:
        problem = "noise of logits is for classes of which one is right, without evidence"
        raise PlanError(problem, "network.noise", "Give none")
    kinds = {name: Vector if task.heads[name].is_vector else Dense for name in noisy}
    return {**task.heads, **{name: kinds[name](2 * count) for name, count in noisy.items()}}, noisy


def image_of(subject: Image | Case | str | Path) -> tuple[Image, str]:
    """A subject as one image, and its name for error messages; DatasetError for a case without images."""
    match subject:
        case Image():
            return subject, subject.source.paths[0] if subject.source and subject.source.paths else "image"
        case Case():
            if not subject.images:
                raise DatasetError("the case has no image", subject.id, "Give its images")
            return stacked(subject.images, subject.id), subject.id
        case _:
            return read(subject), str(subject)
