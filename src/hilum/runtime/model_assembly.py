"""A model as one object: preprocessing, networks and decoding, and the first stage of a cascade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.files import file_formats
from hilum.runtime import cascade, covariate_encoding, model_identity, prediction_layers, proportion, record_files
from hilum.runtime.guard.gate_state import NONE, OFF, UNFINISHED_TRAINING, UNKNOWN_TRAINING, GateState
from hilum.runtime.guard.image_observation import Observation, Watching
from hilum.runtime.inference import AS_PLANNED, ModelRequest
from hilum.runtime.model_parts import WITHOUT_PARTS, ModelParts
from hilum.runtime.model_schema import ModelOrigin, ModelRecord
from hilum.runtime.package import package_contents
from hilum.runtime.prediction_layers import FrameStream, Passage
from hilum.runtime.prompting import EncodedImage
from hilum.runtime.uncertainty import uncertainty_methods
from hilum.runtime.uncertainty.uncertainty_methods import NOTHING, MethodBasis, UncertaintyMethod
from hilum.runtime.windows import averaging, pipeline
from hilum.runtime.windows.fixed_views import FixedViews
from hilum.runtime.windows.members_on_grid import MeanOfMembers
from hilum.runtime.windows.pipeline import OpenedImage, Receiver, WindowSettings
from hilum.tasks import Task, fitting
from hilum.transforms import channel_stack
from hilum.values import Array, Case, Decision, Image, Prediction, Prompts, argument_kinds
from hilum.values.covariate_values import CovariateValues

# Under this name a record states how far the training of a run came that was stopped.
UNFINISHED: Final = "unfinished_training"

if TYPE_CHECKING:
    from hilum.runtime.guard.image_gate import Guard
    from hilum.runtime.inference import Inference
    from hilum.runtime.prediction_layers import Layer
    from hilum.runtime.preprocessing.protocol import ImageSteps, PreprocessingKind
    from hilum.runtime.torch_networks import Further, KeptOutputs, Networks
    from hilum.runtime.windows.slide import Network, Progress


@dataclass(frozen=True, eq=False)
class Model:
    """Preprocessing, networks and decoding as one object: the same in training, prediction and service.

    inference: the windows in which the networks see an image
    record:    where the model comes from: data hash, plan, versions, figures
    first:     the first stage of a cascade, whose labels are a further input channel; None for a model of one stage
    members:   models with grids, windows or families of their own: the mean of their outputs is taken on the image's
               grid. Preprocessing, inference and networks are then those of the first; empty for all other models
    shares:    how much each of these counts, in sum 1; None where all count alike
    parts:     what cases taught it after its training: the gate, posteriors, directions
    uncertainty: method by which it looks for its uncertainty, as `with_uncertainty` has chosen it
    request:   what is asked of its predictions where a caller asks nothing
    """

    task: Task
    preprocessing: PreprocessingKind
    inference: Inference
    networks: Networks
    record: ModelOrigin = field(default_factory=ModelOrigin)
    first: Model | None = None
    members: tuple[Model, ...] = ()
    shares: tuple[float, ...] | None = None
    parts: ModelParts = WITHOUT_PARTS
    uncertainty: UncertaintyMethod = NOTHING
    request: ModelRequest = AS_PLANNED

    def predict(
        self,
        subject: Image | Case | str | Path,
        request: ModelRequest | None = None,
        *,
        progress: Progress | None = None,
        receiver: Receiver | None = None,
        covariates: CovariateValues | None = None,
    ) -> Prediction:
        """Return the result on the subject's own grid; a path is read first.

        request:  how it is predicted, as in `ModelRequest(mirror=False)`; None is the model's own
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
        argument_kinds.fitting_argument("subject", Image | Case | str | Path, subject)
        request = self.request if request is None else request
        if (
            request.samples_prompts
            and self.task.takes_prompts
            and isinstance(subject, Case)
            and not request.all_prompts
        ):
            asked = replace(request, samples_prompts=False)
            return self.task.predict_sampled_prompts(
                lambda prompts: self.predict(subject, replace(asked, prompts=prompts), covariates=covariates), subject
            )
        image, where = subject_image(subject)
        pointed = self.pointing_at(request.all_prompts, where)
        predicted = pointed._layers(request)
        if covariates is None and isinstance(subject, Case):
            covariates = subject.covariates or None
        run = self.networks.run
        return predicted(Passage(image, where, request, covariates, run, self.preprocessing, progress, receiver))

    def pointing_at(self, prompts: Sequence[Prompts], where: str = "prompts") -> Model:
        """The model with the labels of prompts in its task, where these are others.

        Raises UsageError for prompts of a model that takes none, and for none of one that needs them.
        """
        task = self.task
        if not task.takes_prompts:
            if prompts:
                problem = f"the model ({task.name}) takes no prompts"
                raise UsageError(problem, where, "Leave them out, or give one of --task prompted, sam or medsam")
            return self
        if not prompts:
            problem = "the model marks what is pointed at, and no prompt is given"
            raise UsageError(problem, where, "Give a box or a point: --box, --point, --scribble or --prompts")
        names = [one.label for one in prompts]
        known = {label.name for label in task.labels}
        return self if set(names) <= known else replace(self, task=task.with_labels(names))

    @contextmanager
    def encoded(self, subject: Image | Case | str | Path) -> Iterator[EncodedImage]:
        """An image for several prompts one after the other: what needs none of them is computed once.

        with model.encoded(image) as seen: seen.predict(Prompts(boxes=[(10, 20, 50, 60)]))
        UsageError for a model that takes no prompts.
        """
        image, where = subject_image(subject)
        if not self.task.takes_prompts:
            raise UsageError(f"the model ({self.task.name}) takes no prompts", where, "Predict without them")
        covariates = subject.covariates or None if isinstance(subject, Case) else None
        encoding = replace(self, networks=self.networks.encoding())
        yield EncodedImage(encoding, image.with_pixels(image.data), covariates)

    def _layers(self, request: ModelRequest) -> Layer:
        """The layers of a prediction, put together from the lowest up; PlanError where mirrors contradict anatomy."""
        task, guard = self.task, self.parts.guard
        layer: Layer = partial(prediction_layers.predict_windows, task, self._windows(request))
        if self.members:
            mean = MeanOfMembers(task, self.shares, self.uncertainty.between(self.basis))
            layer = partial(prediction_layers.predict_members, mean, [one.view for one in self.members])
        elif self.first is not None:
            layer = partial(prediction_layers.after_first_stage, self.after_first, layer)
        layer = partial(prediction_layers.with_context, self.context_vector, task, layer)
        layer = partial(prediction_layers.state_uncertainty, task, layer, finds=self.uncertainty is not NOTHING)
        refuse = partial(proportion.refuse_out_of_proportion, self)
        layer = partial(prediction_layers.behind_gate, refuse, guard, task, layer, state=self.gate.unfitted_kind)
        if self._takes_stills:
            layer = partial(prediction_layers.frame_by_frame, guard, task, layer)
        return partial(prediction_layers.within_covariates, self.far_covariates, guard, layer)

    def view(self, passage: Passage, network: Network | None = None) -> OpenedImage:
        """The image as this model sees it as a member of others; network: its own, if it is watched."""
        image, preprocessing = self.after_first(passage.image, passage.request, passage.covariates)
        if network is None:
            context, _ = self.context_vector(passage.image, passage.covariates, passage.where)
            network = covariate_encoding.bind_context(self.networks.run, context)
        windows = self._windows(passage.request)
        return pipeline.open_image(
            image, passage.where, task=self.task, preprocessing=preprocessing, network=network, windows=windows
        )

    def _windows(self, request: ModelRequest) -> WindowSettings:
        """The windows of an image, as the plan, the request and the method of uncertainty have them."""
        settings, axes = self.inference, self.flips(request.mirror)
        views = 0 if request.mirror is False else settings.views
        overlap = settings.overlap if request.overlap is None else request.overlap
        planned = WindowSettings(
            settings.patch,
            overlap,
            settings.batch,
            axes,
            settings.left_right,
            request.seconds,
            plain=not (axes or views),
            at_most=request.at_most,
            skip=settings.skip,
            views=FixedViews(views, settings.turn, settings.gamma),
        )
        return self.uncertainty.windows(self.basis, planned)

    @property
    def basis(self) -> MethodBasis:
        """Basis on which a method of uncertainty builds."""
        flips, count = partial(self.flips, True), len(self.members)
        return MethodBasis(self.task, self.networks, self.inference, flips, self.parts.laplace, count)

    @property
    def guard(self) -> Guard | None:
        """The gate, which refuses images that are unlike those that trained it; None for a model that has none."""
        return self.parts.guard

    @property
    def gate(self) -> GateState:
        """On what it refuses images, and why it refuses none."""
        if self.guard is not None:
            return self.guard.state
        if self.unfinished_training:
            return GateState(NONE, UNFINISHED_TRAINING)
        return GateState(NONE, OFF if "data_hash" in self.record else UNKNOWN_TRAINING)

    @cached_property
    def sha256(self) -> str:
        """The digest of all that its answers rest on, weights and settings: another digest is another model."""
        return model_identity.model_digest(self)

    @property
    def unfinished_training(self) -> str:
        """That its training was stopped, how far it came, and what it lacks therefore; empty of a finished one."""
        steps = self.record.get(UNFINISHED)
        if not steps:
            return ""
        lacking = [] if fitting.found_settings(self.task) else ["calibration", "thresholds"]
        lacking += [] if self.guard is not None else ["gate"]
        without = f"; it lacks {', '.join(lacking)}" if lacking else ""
        return f"the training is not finished: {steps}{without}"

    def with_guard(self, guard: Guard | None) -> Model:
        """The model with a gate, and its networks with features where a gate or the result needs them."""
        shows = self.task.answers_features or (guard is not None and guard.features is not None)
        networks = self.networks.watch() if shows else self.networks
        return replace(self, networks=networks, parts=replace(self.parts, guard=guard))

    def with_run(self, run: Network) -> Model:
        """The model with another function of arrays for its networks."""
        return replace(self, networks=replace(self.networks, run=run))

    def keeping(self, kept_outputs: KeptOutputs) -> Model:
        """The model, its first stage and its members, whose networks compute no batch again that they have kept."""
        first = None if self.first is None else self.first.keeping(kept_outputs)
        members = tuple(one.keeping(kept_outputs) for one in self.members)
        return replace(self, networks=self.networks.keeping(kept_outputs), first=first, members=members)

    def observe(self, case: Case, further: Further | None = None) -> tuple[Observation, Prediction]:
        """Features and answer of the model for a case; further: what also looks at it, as in `WatchedNetwork`."""
        watching = Watching(self.networks.watch(further).run)
        ungated = replace(self, parts=replace(self.parts, guard=None))
        prediction = ungated.with_run(watching).predict(case, replace(self.request, refined=False))
        np.asarray(prediction.data)  # a large volume passes the network only while its result is read
        observation = watching.observation(channel_stack.stack_images(case.images, case.id), case.covariates)
        return replace(observation, patient=case.patient), prediction

    def pooled_features(self, case: Case) -> NDArray[np.float32]:
        """(features,) of the deepest map of the network for a case; UsageError of a network that gives none."""
        seen, _ = self.observe(case)
        if seen.features is None:
            problem = f"the network of the model ({self.networks.families}) gives no pooled features"
            remedy = "Choose --backend torch, or a model of another family: `hilum networks` lists them"
            raise UsageError(problem, self.task.name, remedy)
        return seen.features.astype(np.float32)

    def model_of(self, case: str) -> Model:
        """The model that predicts a case of this id: this one."""
        return self

    def after_first(
        self, image: Image, request: ModelRequest, covariates: CovariateValues | None
    ) -> tuple[Image, ImageSteps]:
        """The image and its preprocessing, in a cascade with what the first stage marks in it."""
        if self.first is None:
            return image, self.preprocessing
        of_whole = ModelRequest(mirror=request.mirror, allow_large=request.allow_large)
        stage = self.first.predict(image, of_whole, covariates=covariates)
        return cascade.with_stage_labels(image, self.preprocessing, stage, self.first.task.labels)

    def context_vector(
        self, image: Image, covariates: CovariateValues | None, where: str = "covariates"
    ) -> tuple[NDArray[np.float32] | None, list[str]]:
        """The network's context for a patient, (entries,), and notes on missing values; None for one without context.

        Raises DatasetError where the model has covariates and none of them was given.
        """
        context = self.networks.context
        if not len(context):
            return None, []
        present = self.preprocessing.present(image, where) if context.channels else None
        missing = covariates is None or (covariates and not set(context.names) & set(covariates))
        if context.names and missing:
            problem = (
                f"the model was trained with {errors.list_phrase(context.names)} beside the image, and none was given"
            )
            raise DatasetError(problem, where, "Give a table with these columns: --covariates TABLE.csv")
        channels = None if present is None else list(compress(self.preprocessing.channels, present))
        return context.vector(covariates or {}, channels)

    def far_covariates(self, covariates: CovariateValues | None) -> list[str]:
        """Why covariates of a patient are far outside of those that trained the model; empty where none is."""
        contexts = [model.networks.context for model in (self, *self.members)]
        return list(dict.fromkeys(reason for context in contexts for reason in context.why_far(covariates or {})))

    @property
    def _takes_stills(self) -> bool:
        """Whether it marks voxels of still images, so that it predicts a clip frame by frame."""
        return self.preprocessing.frames is None and any(head.is_dense for head in self.task.heads.values())

    def goes_by_frame(self, image: Image) -> bool:
        """Whether the model predicts this image frame by frame."""
        return image.frames is not None and self._takes_stills

    def stream(
        self, frames: Image | str | Path | Iterable[Image | Array], request: ModelRequest | None = None
    ) -> FrameStream:
        """Return one prediction per frame, each made when it is asked for: of a clip or of any source of frames.

        frames: a clip (a path is read first), images, or arrays (channels, rows, columns)
        The stream's `latency` has p50 and p99. No frame is kept, so their number has no limit; but for a model that
        sees frames around each, whose results are late by the stream's `delay`, in frames.
        """
        match frames:
            case str() | Path():
                frames = prediction_layers.split_frames(*subject_image(file_formats.read(frames)))
            case Image():
                frames = prediction_layers.split_frames(*subject_image(frames))
        predict, delay = partial(self.predict, request=request), self.preprocessing.around
        return FrameStream(predict, self.preprocessing.channels, frames, delay=delay)

    def flips(self, mirror: bool | None = None) -> tuple[int, ...]:
        """Axes along which the network also sees windows mirrored; PlanError where that contradicts anatomy."""
        inference = self.inference
        return averaging.flipped_axes(self.task, self.preprocessing.ndim, inference.flips, inference.left_right, mirror)

    def __repr__(self) -> str:
        labels, channels = ", ".join(label.name for label in self.task.labels), ", ".join(self.preprocessing.channels)
        stages = self.members or (self,)
        network = ", ".join(dict.fromkeys(f"{one.networks.families} in {one.preprocessing.ndim}D" for one in stages))
        return f"Model({self.task.name} of {labels}; {network}; channels {channels})"

    @property
    def settings(self) -> ModelRecord:
        """The content of `model.json`: all but the weights."""
        architecture = self.networks.architecture
        settings = package_contents.model_settings(
            self.task, self.preprocessing, self.inference, architecture, self.record
        )
        return {**settings, **self.parts.settings}


def with_first_stage(second: Model, first: Model) -> Model:
    """The second stage of a cascade with its first stage; the digest of its weights is that of both."""
    digests = [model.record.get("weights_sha256") for model in (first, second)]
    if not all(digests):
        return replace(second, first=first)
    record: ModelOrigin = {
        **second.record,
        "weights_sha256": record_files.join_digests([str(digest) for digest in digests]),
    }
    return replace(second, first=first, record=record)


def with_computing(model: Model, computing: Decision) -> Model:
    """The model with what computes it, and the reason."""
    return replace(model, networks=replace(model.networks, computing=computing))


def with_uncertainty(model: Model, asked: str | None = None) -> Model:
    """The model that looks for its uncertainty by a method, as `choose_method` takes it; its answers stay the same."""
    networks, method = uncertainty_methods.choose_method(model.basis, asked)
    return replace(model, networks=networks, uncertainty=method)


def subject_image(subject: Image | Case | str | Path) -> tuple[Image, str]:
    """A subject as one image, and its name for error messages; DatasetError for a case without images."""
    match subject:
        case Image():
            return subject, prediction_layers.image_name(subject)
        case Case():
            if not subject.images:
                raise DatasetError("the case has no image", subject.id, "Give its images")
            return channel_stack.stack_images(subject.images, subject.id), subject.id
        case _:
            return file_formats.read(subject), str(subject)
