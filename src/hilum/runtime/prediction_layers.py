"""The layers of a prediction, from the windows up to the frames of a clip: each knows only the one below it.

A layer is a function of an image's passage through a model. `Model` puts them together; who needs another layer, as a
gate needs what the network has seen, gets it as a function. Frames pass a model of still images as a stream that keeps
nothing, or as one result of a clip.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import GeometryError
from hilum.runtime import covariate_encoding
from hilum.runtime.guard import image_observation
from hilum.runtime.guard.image_observation import Watching
from hilum.runtime.prompting import ImagePrompts
from hilum.runtime.uncertainty import disagreement
from hilum.runtime.windows import members_on_grid, pipeline
from hilum.runtime.windows.members_on_grid import MeanOfMembers
from hilum.runtime.windows.pipeline import BLANK, OpenedImage, Receiver, WindowSettings
from hilum.runtime.windows.slide import Network, Progress
from hilum.tasks import properties
from hilum.values import Array, Deferred, Geometry, Image, Prediction, Region
from hilum.values.covariate_values import CovariateValues
from hilum.values.table_cells import TableRow

if TYPE_CHECKING:
    from hilum.runtime.guard.image_gate import Guard
    from hilum.runtime.inference import ModelRequest
    from hilum.runtime.preprocessing.protocol import ImageSteps
    from hilum.tasks import Task


@dataclass(frozen=True, eq=False)
class Passage:
    """One image on its way through a model.

    where:    its name, for error messages
    network, preprocessing: that see it
    progress: called with the number of windows done, and of all windows
    receiver: called with the probabilities of each finished part of the image's grid
    """

    image: Image
    where: str
    request: ModelRequest
    covariates: CovariateValues | None
    network: Network
    preprocessing: ImageSteps
    progress: Progress | None = None
    receiver: Receiver | None = None


Layer = Callable[[Passage], Prediction]


def predict_windows(task: Task, windows: WindowSettings, passage: Passage) -> Prediction:
    """The lowest layer: windows of the image through the network, decoded on the image's grid."""
    image, where, asked, steps = passage.image, passage.where, passage.request.all_prompts, passage.preprocessing
    labels, pointed = [label.name for label in task.labels], None
    if asked:
        pointed = ImagePrompts.on_image(asked, labels, image, where, as_channels=steps.marks > 0)
        steps = pointed.beside_image(steps)
    prediction = pipeline.run_pipeline(
        image,
        where,
        task=task,
        preprocessing=steps,
        network=passage.network,
        windows=windows,
        progress=passage.progress,
        receiver=passage.receiver,
        region=passage.request.region,
        prompts=pointed,
    )
    prediction = replace(prediction, prompts=asked)
    return task.with_image(prediction, image, refined=passage.request.refined)


def predict_members(mean: MeanOfMembers, views: Sequence[Callable[..., OpenedImage]], passage: Passage) -> Prediction:
    """The lowest layer of members with grids of their own: windows of each, averaged on the image's grid and decoded.

    views: of each, from the passage to the image as it is seen; the passage's network is that of the first
    """
    seconds, (first, *others) = passage.request.seconds, views
    share = replace(passage.request, seconds=None if seconds is None else seconds / len(views))
    viewed = replace(passage, request=share)
    prediction = members_on_grid.predict_members(
        [first(viewed, viewed.network), *(view(viewed) for view in others)],
        mean,
        progress=passage.progress,
        receiver=passage.receiver,
        region=passage.request.region,
    )
    return mean.task.with_image(prediction, passage.image, refined=passage.request.refined)


def after_first_stage(
    first: Callable[[Image, ModelRequest, CovariateValues | None], tuple[Image, ImageSteps]],
    below: Layer,
    passage: Passage,
) -> Prediction:
    """The second stage of a cascade: it sees the image with what the first stage marks in it."""
    image, preprocessing = first(passage.image, passage.request, passage.covariates)
    return below(replace(passage, image=image, preprocessing=preprocessing))


def with_context(
    vector: Callable[[Image, CovariateValues | None, str], tuple[Any, Sequence[str]]],
    task: Task,
    below: Layer,
    passage: Passage,
) -> Prediction:
    """The network sees the patient's covariates too, and the patient's own sets and thresholds hold.

    vector: of an image, covariates and a name the network's context, and notes on missing values
    """
    context, notes = vector(passage.image, passage.covariates, passage.where)
    prediction = below(replace(passage, network=covariate_encoding.bind_context(passage.network, context)))
    if (narrowed := properties.covariate_adjustment(task)) is not None:
        prediction = narrowed(prediction, passage.covariates or {})
    return replace(prediction, notes=(*notes, *prediction.notes))


def state_uncertainty(task: Task, below: Layer, passage: Passage, *, finds: bool) -> Prediction:
    """The prediction states its uncertainty; not where that would take time for every voxel and nobody asks.

    finds: whether the network states the part about which views disagree
    """
    is_dense, maps = any(head.is_dense for head in task.heads.values()), passage.request.maps
    if is_dense and not maps and not finds:
        return below(passage)
    sought = disagreement.uncertainty_receiver(task, passage.image.geometry, maps=maps, parts=finds)
    return sought.add_to(below(replace(passage, receiver=join_receivers(passage.receiver, sought))))


def behind_gate(
    refuse: Callable[[Image, str, Region | None], None],
    guard: Guard | None,
    task: Task,
    below: Layer,
    passage: Passage,
    *,
    state: str,
) -> Prediction:
    """The gate: an image out of all proportion is refused before, a blank or unlike one once the network has seen it.

    refuse: raises for an image out of all proportion to those that trained the model
    state:  what stands beside every answer of a model without a fitted gate
    """
    request, shows = passage.request, image_observation.tissue_shown(passage.image, passage.preprocessing)
    watching = Watching(passage.network, composes=guard is not None, shows=shows)
    if not request.allow_large:
        refuse(passage.image, passage.where, request.region)
    prediction = replace(below(replace(passage, network=watching)), case=passage.where, task=task.name)
    prediction = replace(prediction, confidence=replace(prediction.confidence, gate=state))
    if task.answers_features:
        prediction = task.with_features(prediction, watching.observation(passage.image).features)
    # A volume that is never held is known to be blank once its windows were seen, of a deferred result later.
    if watching.is_blank and request.region is None and not isinstance(prediction.data, Deferred):
        prediction = replace(prediction, abstained=BLANK)
    if guard is None:
        return prediction
    # A part of an image is judged by its header alone: nobody has seen parts of the others.
    observation = watching.observation(passage.image, passage.covariates, is_whole=request.region is None)
    return guard.judge(prediction, observation, properties.sureness(task, prediction))


def within_covariates(
    why_far: Callable[[CovariateValues | None], Sequence[str]], guard: Guard | None, below: Layer, passage: Passage
) -> Prediction:
    """The gate takes covariates in: a patient whom no training case is like gets no answer.

    why_far: why covariates are far outside of those of the training cases
    Without a gate that refuses, the notes of the prediction say it.
    """
    prediction, reasons = below(passage), why_far(passage.covariates)
    return prediction if guard is None else guard.refuse_covariates(prediction, reasons)


def frame_by_frame(guard: Guard | None, task: Task, below: Layer, passage: Passage) -> Prediction:
    """The highest layer of a model of still images that marks voxels: a clip frame by frame, judged as a whole."""
    image, request = passage.image, passage.request
    if image.frames is None:
        return below(passage)
    if passage.receiver is not None or request.maps:
        raise GeometryError("the probabilities of a clip are not kept", passage.where, "Predict without them")
    count = image.frames or 1
    share = None if request.seconds is None else request.seconds / count

    def of_frame(still: Image, number: int) -> Prediction:
        """The prediction of one frame."""
        progress = None if passage.progress is None else partial(_of_frame, passage.progress, number, count)
        request_of_frame = replace(request, seconds=share)
        return below(
            replace(passage, image=still, where=image_name(still), request=request_of_frame, progress=progress)
        )

    clip = replace(predict_frames(image, of_frame), case=passage.where, task=task.name)
    clip = replace(clip, confidence=replace(clip.confidence, gate=clip.frames[0].confidence.gate))
    return clip if guard is None else guard.of_frames(clip, [properties.sureness(task, frame) for frame in clip.frames])


def join_receivers(*receivers: Receiver | None) -> Receiver | None:
    """One receiver that hands on to each of these; None where there is none."""
    present = [one for one in receivers if one is not None]
    return partial(_to_all, present) if present else None


def _to_all(receivers: Sequence[Receiver], region: Region, arrays: Mapping[str, Array]) -> None:
    for receiver in receivers:
        receiver(region, arrays)


def _of_frame(progress: Progress, number: int, count: int, done: int, of: int) -> None:
    """Report progress of one frame as progress of all: each has as many windows."""
    progress(number * of + done, count * of)


def image_name(image: Image) -> str:
    """The name of an image for error messages."""
    return image.source.paths[0] if image.source and image.source.paths else "image"


# Latencies are counted in steps of 1 % from 1 µs on, which reach beyond an hour: their number does not grow.
SHORTEST, STEP, STEPS = 1e-6, math.log(1.01), 2300
# Frames of a file that are read together.
READ_AHEAD = 8
# The columns of `measurements` that hold a size, and the names of their relative changes.
SIZES = {
    "volume_ml": "ejection_fraction_percent",
    "area_mm2": "fractional_area_change_percent",
    "voxels": "fractional_change_percent",
}


@dataclass(eq=False)
class Latency:
    """Seconds from a frame to its result, counted so that memory does not grow; percentiles are right within 1 %."""

    count: int = 0
    longest: float = 0.0
    _steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(STEPS, np.int64))

    def add(self, seconds: float) -> None:
        """Count one frame."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        step = math.log(max(seconds, SHORTEST) / SHORTEST) / STEP
        self._steps[min(int(step), STEPS - 1)] += 1

    def percentile(self, share: float) -> float:
        """Seconds within which this share (0 to 100) of the frames had their result; NaN without any."""
        if not self.count:
            return math.nan
        step = int(np.searchsorted(np.cumsum(self._steps), share / 100 * self.count))
        return min(SHORTEST * math.exp(STEP * (step + 0.5)), self.longest)

    @property
    def p50(self) -> float:
        """Median, s."""
        return self.percentile(50)

    @property
    def p99(self) -> float:
        """99th percentile, s."""
        return self.percentile(99)

    def __str__(self) -> str:
        figures = f"p50 {1000 * self.p50:.3g} ms, p99 {1000 * self.p99:.3g} ms, longest {1000 * self.longest:.3g} ms"
        return f"{self.count} frames: {figures}"


@dataclass(eq=False)
class FrameStream:
    """One prediction per frame, in order; `latency` counts their seconds, without those of reading a frame.

    predict:  of a frame as an image
    channels: of the model, for frames that are arrays (channels, *spatial)
    delay:    frames by which a result is late, because the network also sees those after its own
    """

    predict: Callable[[Image], Prediction]
    channels: tuple[str, ...]
    frames: Iterable[Image | Array]
    latency: Latency = field(default_factory=Latency)
    delay: int = 0

    def __iter__(self) -> Iterator[Prediction]:
        images = (_image_of(frame, self.channels) for frame in self.frames)
        for image in images if not self.delay else _with_neighbours(images, self.delay):
            started = time.perf_counter()
            prediction = self.predict(image)
            self.latency.add(time.perf_counter() - started)
            yield prediction


def _with_neighbours(images: Iterable[Image], around: int) -> Iterator[Image]:
    """The images of a clip, each once so many after it have come, with those before and after it."""
    held, first = list[Image](), 0  # `first` is the number of the oldest that is held
    count = 0
    for count, image in enumerate(images, start=1):
        held.append(image)
        if count > around:
            yield _with_held(held, count - 1 - around - first)
        while len(held) > 2 * around:
            del held[0]
            first += 1
    for number in range(max(0, count - around), count):
        yield _with_held(held, number - first)


def _with_held(held: Sequence[Image], place: int) -> Image:
    """An image with those that are held around it."""
    frames = [one.data for one in held]
    return replace(held[place], neighbours=lambda step: frames[min(max(place + step, 0), len(frames) - 1)])


def _image_of(frame: Image | Array, channels: tuple[str, ...]) -> Image:
    """The frame as an image; an array of another number of channels has no names, and the model refuses it."""
    if isinstance(frame, Image):
        return frame
    names = channels if len(channels) == len(frame) else ()
    return Image(frame, Geometry.of_pixels(frame.shape[1:]), channels=names)


def split_frames(image: Image, where: str) -> Iterator[Image]:
    """Each frame of a clip as an image of its own, a few read at a time; GeometryError for an image without frames."""
    if image.frames is None:
        raise GeometryError("has no frames", where, "Predict it as an image")
    read = image.reader()
    for start in range(0, image.frames, READ_AHEAD):
        part = read((slice(None), slice(start, min(start + READ_AHEAD, image.frames))))
        for number in range(part.shape[1]):
            pixels = np.ascontiguousarray(part[:, number])
            yield Image(
                pixels,
                image.geometry,
                modality=image.modality,
                channels=image.channels,
                padding=image.padding,
                facts=image.facts,
                source=image.source,
            )


def predict_frames(image: Image, predict: Callable[[Image, int], Prediction]) -> Prediction:
    """One prediction of a clip; predict: of a frame as an image, and its number."""
    # What a frame was decoded from would be far larger than the label maps of a long clip.
    decided = tuple(predict(still, number).without_tuning_arrays for number, still in enumerate(image.still_frames()))
    return _in_a_row(image.geometry, decided)


def _in_a_row(geometry: Geometry, frames: tuple[Prediction, ...]) -> Prediction:
    """Predictions of frames as one: its `data` and maps, where there are any, are (frames, *spatial); so of its parts.

    There is an answer where one frame has an answer.
    """
    reason = None if any(frame.abstained is None for frame in frames) else frames[0].abstained
    maps = [np.asarray(frame.data) for frame in frames if frame.data is not None]
    labels = max((frame.labels for frame in frames), key=len)  # of single objects the frame with most has all numbers
    parts = {part: _in_a_row(geometry, tuple(frame.parts[part] for frame in frames)) for part in frames[0].parts}
    data = np.stack(maps) if maps else None
    numbers = {
        name: replace(one, data=np.stack([np.asarray(frame.maps[name].data) for frame in frames]))
        for name, one in frames[0].maps.items()
        if not one.names and all(name in frame.maps for frame in frames)
    }
    return Prediction(geometry, data=data, abstained=reason, labels=labels, frames=frames, parts=parts, maps=numbers)


def size_changes(frames: Sequence[Sequence[TableRow]]) -> list[TableRow]:
    """One row per label: its largest and smallest size, and the difference in percent of the largest.

    frames: rows of `measurements` of each frame
    For volumes of a ventricle over a heartbeat that is the ejection fraction, (EDV - ESV) / EDV, for areas the
    fractional area change. Lang et al., J Am Soc Echocardiogr 2015, doi:10.1016/j.echo.2014.10.003
    """
    rows = list[TableRow]()
    for findings_of_frames in zip(*frames, strict=True):
        size = next(name for name in SIZES if name in findings_of_frames[0])
        largest, smallest = (bound(cast(float, row[size]) for row in findings_of_frames) for bound in (max, min))
        change = 100 * (largest - smallest) / largest if largest else float("nan")
        rows.append(
            {
                "label": findings_of_frames[0]["label"],
                f"largest_{size}": largest,
                f"smallest_{size}": smallest,
                SIZES[size]: round(change, 6),
            }
        )
    return rows
