"""The making of a package's certificate: every backend predicts the same images and is compared with torch."""

from __future__ import annotations

import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from hilum import errors
from hilum.errors import ResourceError
from hilum.files.storage import structured_text
from hilum.lazy import onnx
from hilum.runtime import hardware, record_files
from hilum.runtime.model_assembly import Model
from hilum.runtime.package import backend_trial, backends, package_contents
from hilum.runtime.package.backend_certificate import (
    FLOAT32,
    PLAIN,
    QUANTISED,
    TOLERANCES,
    TYPICAL_IMAGES,
    BackendTrial,
    Certificate,
    Difference,
)
from hilum.runtime.package.backend_trial import FOUND, REPEATS, TASK, StatedPromises, TrialFigures, TrialOutcome
from hilum.runtime.package.backends import onnx as backends_onnx
from hilum.runtime.package.package_contents import MADE, ONNX
from hilum.transforms import COLOUR
from hilum.values import Array, Deferred, Geometry, Image, Label, SlideLevel
from hilum.work_state import log

# s after which a backend is given up: compiling ahead of time takes one or two minutes, an engine of TensorRT ten.
LONGEST = 1800.0
# Images of noise, where there are no others.
SEEDED = 2
# In the record of a trial that was given up.
LATE: Final = "late"
# Figures of a trial that differ from one time to the next.
TIMES = ("start", "seconds", "window")
# Numbers compared at once.
CHUNK = 2**22


def certify(
    folder: Path,
    model: Model,
    images: Iterable[Image] = (),
    description: str = "",
    *,
    names: Sequence[str] | None = None,
    devices: Sequence[str] = ("cpu",),
    threads: int | None = None,
    only_fastest: bool = False,
    rounds: int = 1,
) -> Certificate:
    """Try every backend that is here on a sealed package, write what was found into it and seal it again.

    model:  what was packaged
    images: what is predicted; images of noise where there are none
    description: of the images, in words
    names:  of the backends to be tried beside torch; all if not said
    only_fastest: leave out those that `predict` would not take here by itself: what needs minutes for its first
            result, and what is not done in the time in which the fastest before it is
    rounds: so often all are timed, one backend after the other each time; times are medians of the rounds
    Raises ResourceError where torch itself cannot predict them.
    """
    with tempfile.TemporaryDirectory(prefix="hilum-") as room:
        count = _keep_images(images, Path(room))
        if not count:
            count = _keep_images(noise_images(model), Path(room))
            description = f"{description or 'no images were given'}: {SEEDED} of noise"
        usual = backends.quick_backends() if only_fastest else backends.backend_names()
        made = package_contents.package_record(folder).get(MADE) or {}
        chosen = names or [one for one in usual if one in made or not _is_quantised(one)]
        tried = list(dict.fromkeys([(PLAIN, "cpu"), *((name, one) for one in devices for name in chosen)]))
        trials = _trials(folder, model.task.labels, Path(room), tried, threads, only_fastest)
        trials = _timed_again(folder, Path(room), trials, threads, rounds - 1)
    thread_count = errors.count_phrase(threads or backends_onnx.usable_cores(), "thread")
    machine = f"{hardware.processor_name()}, {thread_count}, Python {platform.python_version()}"
    certificate = Certificate(description, machine, onnx_opset(folder / ONNX), tuple(trials))
    certificate.write(folder)
    record_files.seal_folder(folder)
    return certificate


def _is_quantised(name: str) -> bool:
    return backends.find_backend(name).precision in QUANTISED


def noise_images(model: Model) -> Iterable[Image]:
    """Smooth noise on the grid of two windows that overlap, at the spacing that the model works at; slides for bags."""
    if (tiles := model.preprocessing.tiles) is not None:
        for seed in range(SEEDED):
            noise = np.random.default_rng(seed).integers(0, 256, (3, *(3 * tiles.size,) * 2), dtype=np.uint8)
            pixels = Deferred(noise.shape, noise.dtype, partial(np.asarray, noise))
            grid = Geometry.of_spacing(pixels.shape[1:], (tiles.mm,) * 2)
            yield Image(pixels, grid, model.preprocessing.modality, COLOUR, levels=(SlideLevel(pixels),))
        return
    preprocessing, ndim, spacing = model.preprocessing, model.preprocessing.ndim, model.preprocessing.spacing or ()
    window = preprocessing.shape or model.inference.patch
    steps = (*[1.0] * (ndim - len(spacing)), *spacing)  # a network of slices has none across them
    upright = np.argsort(preprocessing.order_of_axes)
    longest = int(np.argmax(window))
    larger = [size + size // 2 * (axis == longest) for axis, size in enumerate(window)]
    shape = tuple(larger[axis] for axis in upright)
    for seed in range(SEEDED):
        rng = np.random.default_rng(seed)
        count = len(preprocessing.channels) * preprocessing.moments
        voxels = rng.normal(100, 40, (count, *shape))
        for axis in range(1, ndim + 1):  # neighbours are alike, as in images
            voxels = (voxels + np.roll(voxels, 1, axis) + np.roll(voxels, 2, axis)) / 3
        coloured = preprocessing.channels == COLOUR
        data = voxels.clip(0, 255).astype(np.uint8) if coloured else voxels.astype(np.float32)
        affine = np.diag([*(steps[axis] for axis in upright), 1.0])
        geometry = Geometry(shape, affine, unit=preprocessing.unit)
        geometry = Geometry.of_pixels(shape) if ndim < 3 and not spacing else geometry
        if preprocessing.around:
            clip = Image(data.reshape(-1, preprocessing.moments, *shape), geometry, preprocessing.modality)
            yield replace(clip.frame(preprocessing.around), channels=preprocessing.channels)
            continue
        if preprocessing.frames is None:
            yield Image(data, geometry, preprocessing.modality, preprocessing.channels)
            continue
        data, step = data.reshape(-1, preprocessing.frames, *shape), preprocessing.interval
        if step is not None:  # every other clip is shorter
            data = data[:, : max(min(2, preprocessing.frames), preprocessing.frames - seed)]
        times = None if step is None else tuple(n * step for n in range(data.shape[1]))
        if step is not None and step > 1:  # a frame at each 1, so that it is the same in s and in frames
            count = math.ceil((data.shape[1] - 1) * step) + 1
            data = data[:, (np.arange(count) / step + 0.5).astype(int).clip(max=data.shape[1] - 1)]
            times = tuple(float(n) for n in range(count))
        yield Image(data, geometry, preprocessing.modality, preprocessing.channels, times)


def _keep_images(images: Iterable[Image], room: Path) -> int:
    """Keep images in the folder, and return their number."""
    count = 0
    for count, image in enumerate(images, start=1):
        backend_trial.keep_image(image, room / f"image_{count:03}.pickle")
    return count


def _trials(
    package: Path,
    labels: Sequence[Label],
    room: Path,
    tried: Sequence[tuple[str, str]],
    threads: int | None,
    only_fastest: bool,
) -> list[BackendTrial]:
    """Trials of each backend and device, beside the first of them."""
    trials: list[BackendTrial] = []
    images = max(TYPICAL_IMAGES, len(backend_trial.images_in(room)) + REPEATS)
    for number, (name, device) in enumerate(tried):
        backend = backends.find_backend(name)
        if (lacking := backend.lacking(device)) is not None:
            log.info("%s on %s is not tried: %s", name, device, lacking)
            continue
        log.info("certificate: %s on %s", name, device)
        out = room / str(number)
        out.mkdir()
        usual = [one.cost(images) for one in trials if one.passed and one.device == device] if only_fastest else []
        longest = min([LONGEST, *usual])
        record = _in_a_process(room, package, name, device, threads, out, longest)
        if LATE in record and longest < LONGEST:
            log.info("%s on %s is slower than another: left out of the certificate", name, device)
            continue
        if "because" in record and not number:
            problem = f"torch cannot predict what the certificate is made with: {record['because']}"
            raise ResourceError(problem, str(package), "Package without a certificate (--backends none)")
        difference = (
            None
            if "because" in record
            else _difference(room, room / "0", out, labels, TOLERANCES[backend.precision].ends)
        )
        trials.append(_judge(backend, device, record, difference))
        if number:
            shutil.rmtree(out)
    return trials


def _timed_again(
    package: Path, room: Path, trials: list[BackendTrial], threads: int | None, rounds: int
) -> list[BackendTrial]:
    """The trials with medians of further rounds: what else the machine does is slow for all backends alike."""
    times = {place: [one] for place, one in enumerate(trials) if one.seconds is not None}
    for number in range(rounds):
        for place, first in enumerate(trials):
            if place in times:
                out = room / f"round-{number}-{place}"
                out.mkdir()
                record: Any = _in_a_process(room, package, first.backend, first.device, threads, out, LONGEST)
                if "because" not in record:
                    times[place].append(replace(first, **{name: record[name] for name in TIMES}))
                shutil.rmtree(out)
    return [_with_medians(one, times[place]) if place in times else one for place, one in enumerate(trials)]


def _with_medians(trial: BackendTrial, rounds: Sequence[BackendTrial]) -> BackendTrial:
    start, seconds, window = (statistics.median(getattr(one, name) or 0.0 for one in rounds) or None for name in TIMES)
    return replace(trial, start=start, seconds=seconds, window=window)


def _in_a_process(
    room: Path, package: Path, backend: str, device: str, threads: int | None, out: Path, longest: float
) -> TrialOutcome:
    """The findings of a trial, or why it found nothing."""
    asked = {"package": str(package), "backend": backend, "device": device, "threads": threads, "out": str(out)}
    (room / TASK).write_text(json.dumps(asked), encoding="utf-8")
    # Without the folder that the command was given in, whose files are somebody else's: none of them is a module.
    command = [sys.executable, "-P", "-m", "hilum.runtime.package.backend_trial", str(room)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=longest, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return {"because": f"not done after {longest:.0f} s", LATE: True}
    if not (out / FOUND).is_file():
        last = done.stderr.rstrip().rpartition("\n")[2]
        return {"because": f"its process ended with {done.returncode}: {last}"}
    outcome: TrialOutcome = structured_text.load_json(out / FOUND)
    return outcome


def _judge(backend: backends.Backend, device: str, record: TrialOutcome, difference: Difference | None) -> BackendTrial:
    measured = TrialFigures()
    if difference is None:
        because, passed = record["because"], False
    else:
        beyond = difference.beyond(TOLERANCES[backend.precision])
        because = "; ".join(beyond) or f"within the tolerances of {backend.precision}"
        passed, measured = not beyond, record
    return BackendTrial(
        backend.name,
        device,
        passed,
        because,
        difference,
        versions=hardware.package_versions(backend.packages),
        precision=backend.precision,
        instructions=hardware.processor_instructions(),
        **measured,
    )


def _difference(room: Path, reference: Path, other: Path, labels: Sequence[Label], ends: float) -> Difference:
    """Between what two backends said of all images, in voxels and labels taken together."""
    largest = total = numbers = voxels = disagreeing = 0.0
    counts, images, otherwise = np.zeros((3, len(labels))), backend_trial.images_in(room), 0
    for image in images:
        stated = [structured_text.load_json(folder / f"{image.stem}.json") for folder in (reference, other)]
        otherwise += states_otherwise(stated[0], stated[1], ends)
        ours, theirs = (_probabilities(folder / f"{image.stem}.probabilities") for folder in (reference, other))
        if len(ours) != len(theirs):
            return Difference(float("nan"), float("nan"), 0, 0)
        for start in range(0, len(ours), CHUNK):
            apart = np.abs(ours[start : start + CHUNK] - theirs[start : start + CHUNK])
            # A maximum of not a number is none: what one backend cannot say is no agreement.
            largest, total = float(np.maximum(largest, apart.max())), total + float(apart.sum(dtype=np.float64))
        numbers += len(ours)
        our_labels, their_labels = (
            np.load(folder / f"{image.stem}.npy", mmap_mode="r") for folder in (reference, other)
        )
        voxels, disagreeing = voxels + our_labels.size, disagreeing + np.count_nonzero(our_labels != their_labels)
        overlaps = [
            [np.count_nonzero(where) for where in _overlaps(our_labels, their_labels, label)] for label in labels
        ]
        counts += np.transpose(overlaps)
    dice = {label.name: 2 * both / (n + m) for label, both, n, m in zip(labels, *counts, strict=True) if n + m}
    mean = total / max(1, numbers)
    return Difference(largest, mean, int(voxels), int(disagreeing), dice, len(images), otherwise)


def states_otherwise(ours: StatedPromises, theirs: StatedPromises, ends: float = TOLERANCES[FLOAT32].ends) -> bool:
    """Whether sets or the verdict of the gate differ, or ends of an interval by more than this share of its width."""
    if any(ours[key] != theirs[key] for key in ("given", "sets")):
        return True
    return any(_ends_elsewhere(mine, other, ends) for mine, other in zip(ours["ends"], theirs["ends"], strict=True))


def _ends_elsewhere(ours: Sequence[float | None], theirs: Sequence[float | None], share: float) -> bool:
    """Whether an interval differs from another by more than this share; None is an end that it does not have."""
    ends = [pair for pair in zip(ours, theirs, strict=True) if pair != (None, None)]
    if any(None in pair for pair in ends):
        return True
    our_ends, others = np.array(ends, dtype=np.float64).reshape(-1, 2).T
    # A bound alone has no width: its own size stands for it.
    width = np.ptp(our_ends) if len(our_ends) > 1 else np.abs(our_ends).max(initial=0.0)
    return not np.allclose(our_ends, others, rtol=0, atol=share * width)


def _overlaps(first: Array, second: Array, label: Label) -> tuple[Array, Array, Array]:
    """Masks of voxels where both have the label, where the one and where the other has it."""
    ours, theirs = first == label.value, second == label.value
    return ours & theirs, ours, theirs


def _probabilities(path: Path) -> Array:
    return np.memmap(path, np.float32, "r") if path.stat().st_size else np.zeros(0, np.float32)


def onnx_opset(path: Path) -> int | None:
    """The opset of an ONNX file; None where there is none."""
    if not path.is_file():
        return None
    opset_import = onnx.load(path, load_external_data=False).opset_import
    return next((int(one.version) for one in opset_import if one.domain in ("", "ai.onnx")), None)
