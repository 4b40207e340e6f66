"""The layers of a prediction, from the windows up to the frames of a clip: each knows only the one below it.

A layer is a function of an image's passage through a model. `Model` puts them together; who needs another layer, as a
gate needs what the network has seen, gets it as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from isocenter.errors import GeometryError
from isocenter.runtime.covariate_encoding import with_covariates
from isocenter.runtime.guard.observation import Watching
from isocenter.runtime.stream import predict_frames
from isocenter.runtime.uncertainty.receiver import uncertainty_of
from isocenter.runtime.windows.pipeline import BLANK, Receiver, WindowSettings, run_pipeline
from isocenter.runtime.windows.slide import Network, Progress
from isocenter.tasks import by_covariates, sureness
from isocenter.values import Array, Deferred, Image, Prediction, Region

if TYPE_CHECKING:
    from isocenter.runtime.guard.guard import Guard
    from isocenter.runtime.preprocessing.protocol import Restores
    from isocenter.runtime.request import Request
    from isocenter.tasks import Task


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
    request: Request
    covariates: Mapping[str, Any] | None
    network: Network
    preprocessing: Restores
    progress: Progress | None = None
    receiver: Receiver | None = None


Layer = Callable[[Passage], Prediction]


def in_windows(task: Task, windows: WindowSettings, passage: Passage) -> Prediction:
    """The lowest layer: windows of the image through the network, decoded on the image's grid."""
    prediction = run_pipeline(
        passage.image,
        passage.where,
        task=task,
        preprocessing=passage.preprocessing,
        network=passage.network,
        windows=windows,
        progress=passage.progress,
        receiver=passage.receiver,
        region=passage.request.region,
    )
    return task.with_image(prediction, passage.image, refined=passage.request.refined)


def after_first(
    first: Callable[[Image, Request, Mapping[str, Any] | None], tuple[Image, Restores]], below: Layer, passage: Passage
) -> Prediction:
    """The second stage of a cascade: it sees the image with what the first stage marks in it."""
    image, preprocessing = first(passage.image, passage.request, passage.covariates)
    return below(replace(passage, image=image, preprocessing=preprocessing))


def with_context(
    vector: Callable[[Image, Mapping[str, Any] | None, str], tuple[Any, Sequence[str]]],
    task: Task,
    below: Layer,
    passage: Passage,
) -> Prediction:
    """The network sees the patient's covariates too, and the patient's own sets and thresholds hold.

    vector: of an image, covariates and a name the network's context, and notes on missing values
    """
    context, notes = vector(passage.image, passage.covariates, passage.where)
    prediction = below(replace(passage, network=with_covariates(passage.network, context)))
    if (narrowed := by_covariates(task)) is not None:
        prediction = narrowed(prediction, passage.covariates or {})
    return replace(prediction, notes=(*notes, *prediction.notes))


def with_uncertainty(task: Task, below: Layer, passage: Passage, *, finds: bool) -> Prediction:
    """The prediction states its uncertainty; not where that would take time for every voxel and nobody asks.

    finds: whether the network states the part about which views disagree
    """
    is_dense, maps = any(head.is_dense for head in task.heads.values()), passage.request.maps
    if is_dense and not maps and not finds:
        return below(passage)
    sought = uncertainty_of(task, passage.image.geometry, maps=maps, parts=finds)
    return sought.stated(below(replace(passage, receiver=each_of(passage.receiver, sought))))


def judged(
    refuse: Callable[[Image, str, Region | None], None],
    guard: Guard | None,
    task: Task,
    below: Layer,
    passage: Passage,
) -> Prediction:
    """The gate: an image out of all proportion is refused before, a blank or unlike one once the network has seen it.

    refuse: raises for an image out of all proportion to those that trained the model
    """
    request, watching = passage.request, Watching(passage.network)
    if not request.allow_large:
        refuse(passage.image, passage.where, request.region)
    prediction = replace(below(replace(passage, network=watching)), case=passage.where, task=task.name)
    if task.by_name:
        prediction = task.with_features(prediction, watching.observation(passage.image).features)
    # A volume that is never held is known to be blank once its windows were seen, of a deferred result later.
    if watching.is_blank and request.region is None and not isinstance(prediction.data, Deferred):
        prediction = replace(prediction, abstained=BLANK)
    if guard is None:
        return prediction
    # A part of an image is judged by its header alone: nobody has seen parts of the others.
    seen = watching.observation(passage.image, passage.covariates, whole=request.region is None)
    return guard.judged(prediction, seen, sureness(task, prediction))


def by_frame(guard: Guard | None, task: Task, below: Layer, passage: Passage) -> Prediction:
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
        own = replace(request, seconds=share)
        return below(replace(passage, image=still, where=name_of(still), request=own, progress=progress))

    clip = replace(predict_frames(image, of_frame), case=passage.where, task=task.name)
    return clip if guard is None else guard.of_frames(clip, [sureness(task, frame) for frame in clip.frames])


def each_of(*receivers: Receiver | None) -> Receiver | None:
    """One receiver that hands on to each of these; None where there is none."""
    there = [one for one in receivers if one is not None]
    return partial(_to_all, there) if there else None


def _to_all(receivers: Sequence[Receiver], region: Region, arrays: Mapping[str, Array]) -> None:
    for receiver in receivers:
        receiver(region, arrays)


def _of_frame(progress: Progress, number: int, count: int, done: int, of: int) -> None:
    """Report progress of one frame as progress of all: each has as many windows."""
    progress(number * of + done, count * of)


def name_of(image: Image) -> str:
    """The name of an image for error messages."""
    return image.source.paths[0] if image.source and image.source.paths else "image"
