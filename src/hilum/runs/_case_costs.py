"""What a case costs to predict and to score: measured on a few of its windows, and scaled to all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from hilum.runtime import Model
from hilum.runtime.preprocessing import coarse_mask
from hilum.runtime.proportion import Looking
from hilum.runtime.torch_networks import KeptOutputs
from hilum.runtime.windows import slide
from hilum.runtime.windows.slide import BagNetwork, Network, Skipping
from hilum.tasks import fitting
from hilum.tasks.fitting import PredictedCases
from hilum.transforms import channel_stack
from hilum.values import Array, Case, Image, Prediction, Region

# A case of so many windows is measured whole; of a larger one a part, of so many windows or of those of a batch.
FEW_WINDOWS, WINDOWS = 8, 2
# s of work after which it is not timed once more: what its first call allocates is little beside them.
LONG_WORK = 3.0
# Of quicker work the median of so many calls counts, or of those that fit into so many s: where a thousand cases
# follow, a stall of 20 ms in the only call would take 20 s from the training.
CALLS, CALLS_SECONDS = 5, 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class SecondsPerCase:
    """s a case: to predict, to score, and to tune on.

    voxels:  of the result
    network: of `predict`, what is saved where the network's outputs are known
    refine:  of `predict`, what improves a result after the network, which a gate does without
    windows: of `predict`, the time in which windows pass the network
    apart:   share of the windows that is left where they do not overlap
    """

    predict: float
    score: float
    tune: float
    voxels: int = 1
    network: float = 0.0
    refine: float = 0.0
    windows: float = 0.0
    apart: float = 1.0

    def of_networks(self, count: int) -> SecondsPerCase:
        """The costs where so many networks predict each case."""
        predict = count * (self.predict - self.refine) + self.refine
        return replace(self, predict=predict, network=count * self.network, windows=count * self.windows)

    def of_windows(self, share: float) -> SecondsPerCase:
        """The costs where the network sees a share of the windows, or of their mirrored views."""
        spared = (1 - share) * self.windows
        network, windows = max(0.0, self.network - spared), self.windows - spared
        return replace(self, predict=self.predict - spared, network=network, windows=windows)

    @property
    def without_overlap(self) -> SecondsPerCase:
        """The costs with windows that do not overlap."""
        return self.of_windows(self.apart)


@dataclass(frozen=True, eq=False)
class Sample:
    """A case, or the middle of a large one, on which costs are measured.

    windows: of the whole case; None where all of it is there
    voxels:  how many times as many the whole case has
    """

    case: Case
    windows: int | None = None
    voxels: float = 1.0


@dataclass(eq=False)
class WindowTimer:
    """A network that measures how long windows take from their way into it until they are merged.

    seconds: of all windows of a prediction
    done:    how many these were
    """

    network: Network
    seconds: float = 0.0
    done: int = 0
    _mark: float | None = None

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array]:
        self._mark = time.monotonic() if self._mark is None else self._mark
        return self.network(batch, *context)

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, which are the windows of a bag."""
        self._mark = time.monotonic() if self._mark is None else self._mark
        return cast("BagNetwork", self.network).encoded(tiles)

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The answer of a bag."""
        return cast("BagNetwork", self.network).pooled(features, places)

    def passed(self, done: int, _: int) -> None:
        """Take the time of windows that are done; of the parts of a result that come back in between nothing."""
        if self._mark is not None:
            self.seconds += time.monotonic() - self._mark
        self.done, self._mark = done, None


def measured_costs(model: Model, case: Case) -> SecondsPerCase:
    """Costs of a case as this machine does it now, mirrored views and all.

    Fresh weights predict ragged surfaces, which take far longer to score (hippocampus: 0.33 s, 0.013 s once trained):
    what is measured with them is not wholly believed, and measured anew half-way.
    """
    sample = sample_of(model, case)
    apart = 1.0 if sample.windows is None else windows_seen(model, case, 0.0) / sample.windows
    prediction, predict, windows = predicted(model, sample)
    _, score = timed(lambda: model.task.score([prediction], [sample.case]))
    _, tune = timed(lambda: fitting.with_fitted_calibration(model.task, PredictedCases([prediction], [sample.case])))
    again = predict
    if all(head.is_vector for head in model.task.heads.values()):  # others may not fit into the memory for them
        _, again, _ = predicted(model.keeping(KeptOutputs()), sample)
    refine = 0.0
    if model.task.refines:
        _, unrefined, _ = predicted(replace(model, request=replace(model.request, refined=False)), sample)
        refine = max(0.0, predict - unrefined)
    return SecondsPerCase(
        predict,
        score * sample.voxels,
        tune * sample.voxels,
        round(math.prod(prediction.geometry.shape) * sample.voxels),
        max(0.0, predict - again),
        refine,
        windows,
        apart,
    )


def predicted(model: Model, sample: Sample) -> tuple[Prediction, float, float]:
    """The prediction of a sample; s that the whole case takes, and s of these in which windows pass the network."""
    timers = list[WindowTimer]()
    model = replace(model, request=replace(model.request, samples_prompts=True))

    def predict() -> Prediction:
        timers.append(WindowTimer(model.networks.run))
        return model.with_run(timers[-1]).predict(sample.case, progress=timers[-1].passed)

    if sample.windows is not None:
        predict()  # what the first windows allocate would be multiplied
    prediction, seconds = timed(predict)
    in_windows = min(timers[-1].seconds, seconds)
    windows = in_windows if sample.windows is None else in_windows * sample.windows / max(1, timers[-1].done)
    return prediction, windows + (seconds - in_windows) * sample.voxels, windows


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what work makes, and the s that it takes once it runs steadily."""
    marks = [time.monotonic()]
    result = work()
    marks.append(time.monotonic())
    if marks[-1] - marks[0] < LONG_WORK:
        marks = marks[1:]
        while len(marks) <= CALLS and (len(marks) == 1 or marks[-1] - marks[0] < CALLS_SECONDS):
            work()
            marks.append(time.monotonic())
    return result, statistics.median(end - start for start, end in pairwise(marks))


def sample_of(model: Model, case: Case) -> Sample:
    """The middle of a case of many windows, as large as a few of them or a batch, with what its masks have there.

    The whole case where it has few windows, or is a clip or a pair, or where its images and masks have several grids.
    """
    looking, grid = Looking.from_model(model), next(iter(case.images.values())).geometry
    spatial, axes = looking.prepared_shape(grid), grid.to_canonical[0]
    is_resized = model.preprocessing.shape is not None or len(axes) != len(spatial)
    if is_resized or model.task.refines or model.task.takes_prompts or looking.windows(grid) <= FEW_WINDOWS:
        return Sample(case)
    part = slide.part_of_windows(spatial, looking.patch, looking.overlap, max(WINDOWS, model.inference.batch))
    shares = dict(zip(axes, np.divide(part, spatial).tolist(), strict=True))
    sizes = [min(size, math.ceil(size * shares[axis])) for axis, size in enumerate(grid.shape)]
    starts = [(size - length) // 2 for size, length in zip(grid.shape, sizes, strict=True)]
    region = tuple(slice(start, start + length) for start, length in zip(starts, sizes, strict=True))
    images = [one for one in (*case.images.values(), *case.references.values()) if isinstance(one, Image)]
    if any(one.frames is not None or not one.geometry.equals(grid) for one in images):
        return Sample(case)
    cut = replace(case, images=_crop_images(case.images, region), references=_crop_images(case.references, region))
    windows = windows_seen(model, case, looking.overlap)
    return Sample(cut, windows, math.prod(grid.shape) / math.prod(sizes))


def windows_seen(model: Model, case: Case, overlap: float) -> int:
    """How many windows with an overlap the network sees of a case, without those in the air beside a body."""
    image = channel_stack.stack_images(case.images, case.id)
    mask = None if model.inference.skip is None else coarse_mask.body_of(image)
    (axes, flips), grid = image.geometry.to_canonical, image.geometry.shape
    spatial = Looking.from_model(model).prepared_shape(image.geometry)

    def sees(window: Region) -> bool:
        """Whether a window of the network's grid holds something of the body."""
        region = [slice(0, size) for size in grid]
        for part, axis, is_turned, size in zip(window, axes, flips, spatial, strict=True):
            low, high = (max(0, size - part.stop), size - part.start) if is_turned else (part.start, part.stop)
            region[axis] = slice(low * grid[axis] // size, -(-min(high, size) * grid[axis] // size))
        return mask is None or mask.touches(tuple(region))

    skipping = None if mask is None else Skipping(sees, lambda name, channels: np.zeros(channels, np.float32))
    return slide.window_count(spatial, model.inference.patch, overlap, merge=model.task.merge, skipping=skipping)


def _crop_images(values: Mapping[str, Any], region: Region) -> dict[str, Any]:
    """The same with what images have in a region."""
    return {
        name: one.with_pixels(one.data[slice(None), *region].copy(order="K"), one.geometry.crop(region))
        if isinstance(one, Image)
        else one
        for name, one in values.items()
    }
