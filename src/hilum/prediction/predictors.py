"""The place where the cases of a cohort are predicted: here, one after the other, or by processes elsewhere.

Here the next case is read and the last one is written while one is computed: no more than three are in memory. What is
computed stays in the calling thread, where Ctrl-C arrives and where a device is at home.
"""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from hilum import errors, work_state
from hilum.errors import HilumError, IntegrityError, OutOfMemorySuppressed, ResourceError, UsageError
from hilum.prediction import case_prediction
from hilum.prediction.answers import AUTO
from hilum.prediction.case_prediction import CaseRequest, PredictionOutcome
from hilum.runtime import Model, ModelRequest, hardware, model_assembly, model_files, predicted_memory
from hilum.runtime.foreign import detect
from hilum.runtime.inference import AS_PLANNED
from hilum.runtime.parallel import map_cases
from hilum.runtime.parallel.dask_cluster import Cluster
from hilum.runtime.parallel.map_cases import Spread
from hilum.transforms import channel_stack
from hilum.values import Case, Deferred, Image
from hilum.work_state import log

SHARE = "Give one that every worker sees under the same path"

# By bench/nnunet_prediction.py; bench/findings/nnunet.md has the command.
AS_MEASURED = "3.2 times with 10 volumes of a hippocampus model, on one core of an AMD EPYC that computes in bfloat16"

# Told (done, all) and, if there is more to say, a few words.
Progress = Callable[..., None]

_loading = threading.Lock()


def load_model(
    model: str | Path | Model,
    device: str,
    *,
    fold: int | None = None,
    threads: int | None = None,
    backend: str = AUTO,
    activation: str | None = None,
) -> Model:
    """The model of a run or a package, computed as its certificate vouches for; one in memory stays as it is.

    backend: of a package; "auto" takes the fastest that its certificate vouches for
    activation: of the outputs of an ONNX file, as in `load`
    Raises what loading raises, and UsageError for what can no longer be chosen of a model in memory.
    """
    if not isinstance(model, Model):
        loaded = model_files.load(model, device, fold=fold, backend=backend, threads=threads, activation=activation)
        hardware.announce_computing(loaded.networks.computing)
        if detect.is_foreign(Path(model)) and detect.why_unpackable(loaded) is None:
            log.info("hilum adopt %s --out PACKAGE makes predicting faster: %s", model, AS_MEASURED)
        return loaded
    if fold is not None:
        raise UsageError("a fold is chosen when a model is loaded", "--fold", "Give the run's folder")
    if backend != AUTO:
        raise UsageError("a backend is chosen when a model is loaded", "--backend", "Give the package's folder")
    if activation is not None:
        raise UsageError("an activation is chosen when a model is loaded", "--activation", "Give the ONNX file")
    return model


class CohortPredictor(Protocol):
    """Predicts cases and reports each.

    is_elsewhere: whether other processes do, with another working folder
    """

    is_elsewhere: ClassVar[bool]

    def __call__(
        self, cases: Sequence[Case], asked: CaseRequest, take: Take[PredictionOutcome], tracker: Progress
    ) -> None: ...


@dataclass
class _Words:
    """The progress of a case in words: called with windows, and with the same again for each part that is back."""

    case: str
    say: Callable[[str], None]
    windows: int = 0
    parts: int = 0

    def __call__(self, done: int, of: int) -> None:
        if done == self.windows:
            self.parts += 1
        self.windows = done
        parts = errors.count_phrase(self.parts, "part")
        back = f", {parts} of the result back on the image's grid" if self.parts else ""
        self.say(f"{self.case}: window {done} of {of}{back}")


@dataclass(frozen=True, eq=False)
class LocalPredictor:
    """Prediction on this machine's device, while the next case is read and the last one written."""

    model: Model
    is_elsewhere: ClassVar[bool] = False

    def __call__(
        self, cases: Sequence[Case], asked: CaseRequest, take: Take[PredictionOutcome], tracker: Progress
    ) -> None:
        model = predicted_memory.with_smaller_batches(self.model)
        numbers = {case.id: number for number, case in enumerate(cases, start=1)}

        def compute(case: Case, image: Image) -> Callable[[], PredictionOutcome]:
            number = numbers[case.id]
            tracker(number - 1, len(cases))
            words = _Words(f"case {number} of {len(cases)}", partial(tracker, number - 1, len(cases)))
            return case_prediction.compute_case(model, case, image, asked, words)

        overlap_cases(cases, image_of_case, compute, take)
        tracker(len(cases), len(cases))


@dataclass(frozen=True)
class ClusterPredictor:
    """Prediction by other processes, each of which loads the model itself.

    path:    of the model, in full
    digests: of its weights and its description, so that all processes predict with the same model
    device, threads, fold, backend, activation: as in `load`
    uncertainty: as in `with_uncertainty`
    request: what is asked of its predictions where a case asks nothing
    """

    spread: Spread
    path: str
    digests: tuple[str, ...]
    device: str = "auto"
    threads: int | None = None
    fold: int | None = None
    backend: str = "auto"
    uncertainty: str | None = None
    activation: str | None = None
    request: ModelRequest = AS_PLANNED
    is_elsewhere: ClassVar[bool] = True

    @classmethod
    def on_cluster(cls, scheduler: str, path: Path | None, model: Model, **loading: Any) -> ClusterPredictor:
        """The workers of a dask scheduler, each with the model of this path; UsageError for one in memory.

        loading: device, threads, fold, backend, uncertainty, activation, request
        """
        if path is None:
            raise UsageError("a model in memory cannot be sent to workers", "--scheduler", "Give the model's folder")
        return cls(Cluster(scheduler), str(path.absolute()), _digests_of_files(model), **loading)

    @property
    def model(self) -> Model:
        """The model, loaded once by the process that asks; its threads share it."""
        with _loading:
            return _model(self)

    def __call__(
        self, cases: Sequence[Case], asked: CaseRequest, take: Take[PredictionOutcome], tracker: Progress
    ) -> None:
        try:
            for done, (number, outcome) in enumerate(self.spread(partial(_predict, self, asked), cases), start=1):
                take(cases[number], outcome)
                tracker(done, len(cases))
        finally:  # what a process that died left half written
            for room in asked.folder.glob(".*.partial") if asked.folder is not None else ():
                shutil.rmtree(room, ignore_errors=True)


def _digests_of_files(model: Model) -> tuple[str, ...]:
    """SHA-256 of a model's weights and of its description: what a run found after its training may be replaced."""
    return tuple(str(model.record.get(key)) for key in ("weights_sha256", "description_sha256"))


def with_full_path(asked: CaseRequest) -> CaseRequest:
    """The same with the full path of the folder for the results, for a process with another working folder."""
    return replace(asked, folder=None if asked.folder is None else asked.folder.absolute())


def _predict(where: ClusterPredictor, asked: CaseRequest, case: Case) -> PredictionOutcome:
    """One case, in the other process."""
    if asked.folder is not None and not asked.folder.is_dir():
        raise ResourceError("a worker does not see the folder for the results", str(asked.folder), SHARE)
    return case_prediction.compute_case(where.model, case, image_of_case(case), asked)()


@lru_cache(maxsize=1)
def _model(where: ClusterPredictor) -> Model:
    if not Path(where.path).exists():
        raise ResourceError("a worker does not see the model", where.path, SHARE)
    model = model_files.load(
        where.path,
        where.device,
        fold=where.fold,
        backend=where.backend,
        threads=where.threads,
        activation=where.activation,
    )
    if _digests_of_files(model) != where.digests:
        raise IntegrityError("a worker sees another model", where.path, SHARE)
    model = replace(model, request=where.request)
    return predicted_memory.with_smaller_batches(model_assembly.with_uncertainty(model, where.uncertainty))


T = TypeVar("T")
R = TypeVar("R")
Take = Callable[[Case, R | HilumError], None]


def overlap_cases(
    cases: Sequence[Case], read: Callable[[Case], T], compute: Callable[[Case, T], Callable[[], R]], take: Take[R]
) -> None:
    """Every case read, computed and written; `take` gets the result of each in order.

    read:    in a thread of its own, one case ahead
    compute: gives what is left to do, which a third thread does: writing
    take:    is given the result, or the error of a case without one; what it raises ends the work
    Where memory runs out a case is tried once more when nothing is being written. Stopped by Ctrl-C, or by what
    `take` raises, what was computed is still written and told.
    """
    with ThreadPoolExecutor(1, "reading") as reader, ThreadPoolExecutor(1, "writing") as writer:
        written: deque[tuple[Case, Future[R]]] = deque()

        def tell() -> None:
            """Wait until nothing is being written."""
            while written:
                case, future = written[0]
                outcome = map_cases.case_outcome(partial(_result, future), case)
                written.popleft()
                take(case, outcome)

        def attempted(loaded: Callable[[], T], case: Case) -> Callable[[], R]:
            with OutOfMemorySuppressed():
                return compute(case, loaded())
            log.warning("memory ran out at %s: tried again by itself", case.id)
            tell()
            return compute(case, read(case))

        def reading(case: Case) -> T:
            with work_state.mark_case_at_work(case.id):
                return read(case)

        def writing(case: Case, left: Callable[[], R]) -> R:
            with work_state.mark_case_at_work(case.id):
                return left()

        ahead = deque(reader.submit(reading, case) for case in cases[:1])
        try:
            for number, case in enumerate(cases, start=1):
                loaded = ahead.popleft()
                ahead.extend(reader.submit(reading, following) for following in cases[number : number + 1])
                left = map_cases.case_outcome(partial(attempted, loaded.result), case)
                try:
                    tell()
                finally:
                    if isinstance(left, HilumError):
                        take(case, left)
                    else:
                        written.append((case, writer.submit(writing, case, left)))
        except KeyboardInterrupt:
            log.warning("stopping: what is done is being kept")
            raise
        finally:
            with work_state.finish_despite_interrupt():
                tell()


def _result(future: Future[R], case: Case) -> R:
    del case
    return future.result()


# An image that takes more than this share of the free memory, or than this many bytes, is not read ahead: it is read,
# or streamed, at its turn.
AHEAD_SHARE = 0.05
AHEAD_BYTES = 2**28


def image_of_case(case: Case) -> Image:
    """The case's image, its voxels read now where they are few enough to wait for their turn in memory."""
    return image_in_memory(channel_stack.stack_images(case.images, case.id))


def image_in_memory(image: Image) -> Image:
    """The image with its voxels read now, where they are few enough to wait in memory."""
    size = int(np.prod(image.shape)) * image.dtype.itemsize
    if (
        isinstance(image.pixels, Deferred)
        and not image.is_slide
        and size <= min(AHEAD_BYTES, AHEAD_SHARE * hardware.available_host_memory())
    ):
        return image.with_pixels(image.data)
    return image
