"""The trial of one backend in a process of its own: its outputs on some images, its speed and its memory.

`python -m hilum.runtime.package.backend_trial FOLDER`, where `task.json` describes the trial. A backend that
crashes ends this process alone, and the memory measured is its own.
"""

from __future__ import annotations

import json
import math
import pickle
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import BinaryIO, TypedDict

import numpy as np
import psutil

from hilum.errors import HilumError
from hilum.files.storage import structured_text
from hilum.runtime import hardware, model_files
from hilum.runtime.inference import ModelRequest
from hilum.runtime.model_assembly import Model
from hilum.tasks.shared.averages import BETWEEN, OUTPUT, WITHIN
from hilum.values import Array, Image, Prediction, Prompts, Region, bounding_boxes

TASK, FOUND = "task.json", "found.json"
# Of the probabilities of one image so many are kept for the comparison: 256 MiB.
MOST_KEPT = 2**26
# Images are predicted once more until so many times are known, or so many seconds are over.
REPEATS, ENOUGH_SECONDS = 5, 15.0


@dataclass
class KeptProbabilities:
    """Probabilities of an image, written into a file as they come: every backend gives them in the same order."""

    file: BinaryIO
    room: int = MOST_KEPT
    vectors: list[Array] = field(default_factory=list)

    def __call__(self, region: Region, arrays: Mapping[str, Array]) -> None:
        for array in (one for name, one in arrays.items() if not name.endswith((WITHIN, BETWEEN, OUTPUT))):
            flat = np.ravel(np.asarray(array, dtype=np.float32))[: self.room]
            self.file.write(flat.tobytes())
            self.room -= len(flat)
            if not region:
                self.vectors.append(flat)


def keep_image(image: Image, path: Path) -> None:
    """An image for the other process; its source stays here. A slide is read there, tile by tile."""
    values = {one.name: getattr(image, one.name) for one in fields(Image) if one.name not in ("pixels", "source")}
    values |= {"facts": dict(image.facts), "pixels": image.pixels if image.is_slide else np.asarray(image.data)}
    path.write_bytes(pickle.dumps(values, protocol=pickle.HIGHEST_PROTOCOL))


class TrialFigures(TypedDict, total=False):
    """The figures of a trial, as `BackendTrial` has them."""

    start: float
    seconds: float
    repeats: int
    peak_memory: float
    window: float | None


class TrialOutcome(TrialFigures, total=False):
    """The figures, or why there are none; late: because the time was up."""

    because: str
    late: bool


class StatedPromises(TypedDict):
    """The promises of an answer: whether it is given, its sets by name, and the ends of its intervals."""

    given: bool
    sets: list[list[Sequence[str]]]
    ends: list[list[float | None]]


def kept_image(path: Path) -> Image:
    """The inverse of `keep_image`, from a folder that only this user's processes write into."""
    return Image(**pickle.loads(path.read_bytes()))  # noqa: S301 - our own file of a moment ago


def images_in(folder: Path) -> list[Path]:
    """The kept images of a folder, in order."""
    return sorted(folder.glob("image_*.pickle"))


def trial_request(model: Model, image: Image) -> ModelRequest | None:
    """A box about the middle half of an image, for a model to which somebody has to point; None for all others."""
    if not model.task.takes_prompts:
        return None
    low, high = (bounding_boxes.in_letters(np.array(image.geometry.shape) * share) for share in (0.25, 0.75))
    return ModelRequest(prompts=Prompts(boxes=[(*low.tolist(), *high.tolist())]))


def run_trial(folder: Path) -> None:
    """Run the trial that `task.json` describes; its figures, or the reason without any, go into `found.json`."""
    asked = structured_text.load_json(folder / TASK)
    try:
        outcome = _try(folder, **asked)
    except (HilumError, ArithmeticError, MemoryError, OSError, RuntimeError, ValueError) as error:
        outcome = TrialOutcome(because=str(error).strip().partition("\n")[0] or type(error).__name__)
    (Path(asked["out"]) / FOUND).write_text(json.dumps(outcome), encoding="utf-8")


def _try(folder: Path, package: str, backend: str, device: str, threads: int | None, out: str) -> TrialOutcome:
    model = model_files.load(package, device, backend=backend, threads=threads)
    start, times = 0.0, list[float]()
    for path in images_in(folder):
        image = kept_image(path)
        with (Path(out) / f"{path.stem}.probabilities").open("wb") as file:
            stored = KeptProbabilities(file)
            prediction = model.predict(image, trial_request(model, image), receiver=stored, covariates={})
        np.save(Path(out) / f"{path.stem}.npy", _labels(prediction, stored))
        (Path(out) / f"{path.stem}.json").write_text(json.dumps(stated_promises(prediction)), encoding="utf-8")
        start = start or time.time() - psutil.Process().create_time()
    paths, began = images_in(folder), time.perf_counter()
    while len(times) < REPEATS and (not times or time.perf_counter() - began < ENOUGH_SECONDS):
        times.append(_seconds(model, kept_image(paths[len(times) % len(paths)])))
    seconds, peak = statistics.median(times), hardware.peak_memory() / 2**20
    # After the peak is read: a batch of another size is compiled anew.
    window = _window_seconds(model)
    return TrialOutcome(start=start, seconds=seconds, repeats=len(times), peak_memory=peak, window=window)


def _window_seconds(model: Model) -> float | None:
    """Median s of the networks for one window, of a cascade those of its second stage.

    None for what takes prompts, and for bags, whose tiles pass apart.
    """
    if model.task.takes_prompts or model.preprocessing.tiles is not None:
        return None
    rng, shape = np.random.default_rng(0), (1, int(model.networks.architecture["channels"]), *model.inference.patch)
    context = [np.zeros((1, len(model.networks.context)), np.float32)] if len(model.networks.context) else []
    batch, times = [rng.normal(size=shape).astype(np.float32), *context], list[float]()
    model.networks.run(*batch)  # compiled, where that is needed
    began = time.perf_counter()
    while len(times) < REPEATS and (not times or time.perf_counter() - began < ENOUGH_SECONDS):
        start = time.perf_counter()
        model.networks.run(*batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _seconds(model: Model, image: Image) -> float:
    began = time.perf_counter()
    np.asarray(
        model.predict(image, trial_request(model, image), covariates={}).data
    )  # a result that is made when it is read is read
    return time.perf_counter() - began


def _labels(prediction: Prediction, stored: KeptProbabilities) -> Array:
    """The label of each voxel; of a model of whole images the likeliest class, and nothing where it names none."""
    if prediction.data is not None:
        return np.asarray(prediction.data)
    if prediction.probabilities is None:
        return np.zeros(0, dtype=np.intp)
    return np.array([int(np.argmax(one)) for one in stored.vectors])


def stated_promises(prediction: Prediction) -> StatedPromises:
    """The promises of an answer: sets, ends of intervals, and whether the model gives it."""
    confidences = [one.confidence for one in (prediction, *prediction.parts.values())]
    # A lower bound of a time has no upper end.
    pairs = [(low, one.high.get(name, math.inf)) for one in confidences for name, low in one.low.items()]
    ends = [[end if math.isfinite(end) else None for end in pair] for pair in pairs]
    sets = [[name, list(answers)] for one in confidences for name, answers in one.set.items()]
    return {"given": prediction.abstained is None, "sets": sets, "ends": ends}


if __name__ == "__main__":
    run_trial(Path(sys.argv[1]))
