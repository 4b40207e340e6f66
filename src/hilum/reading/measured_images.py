"""Cases of measurements: those of scanners beside their images, or made of clean images, slice by slice when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.files import measurement_file
from hilum.transforms import corruptions
from hilum.transforms.operators import reconstruction_methods, simulated_scans
from hilum.transforms.operators.simulated_scans import ScanSettings, SimulatedScan
from hilum.values import Acquisition, Array, Case, Dataset, Geometry, Image, LazyMapping, PlainValue

# Measurements of each picture, and slices of each volume, where nobody says.
DRAWS, SLICES = 4, 8
# The share of a volume, about its middle, in which slices lie: those at its ends hold little.
INNER = 0.6
# By how much finer CT is measured than it is answered: an object knows no pixels.
FINER = 2
TARGET, SCAN = "target", "scan"
# The folder with a measurement of each image of a data set, under its name.
MEASUREMENTS = "measurements"


def with_measurements(dataset: Dataset, settings: Mapping[str, PlainValue]) -> Dataset:
    """The data set with so many `draws` of each image, each a simulated measurement and the image, its target.

    Of a volume they are slices along its last axis. Where the set has a folder of measurements none is simulated: each
    is read, and its slices are those of its image. Raises UsageError for settings of no scan; DatasetError for images
    without a measurement, and for measurements of another kind, other coils, views or slices.
    """
    scan = _checked(ScanSettings.from_task(settings))
    if dataset.root is not None and (dataset.root / MEASUREMENTS).is_dir():
        return _with_stated_measurements(dataset, dataset.root / MEASUREMENTS, scan.operator)
    cases, names = list[Case](), dict[str, list[str]]()
    for case in dataset:
        image = next(iter(case.images.values()))
        volume = image.geometry.ndim == 3
        count = cast("int | None", settings.get("draws")) or (SLICES if volume else DRAWS)
        places = np.linspace(0.5 - INNER / 2, 0.5 + INNER / 2, count) * (image.shape[-1] - 1)
        names[case.id] = [f"{case.id}_{number}" for number in range(1, count + 1)]
        for name, place in zip(names[case.id], places.round().astype(int).tolist(), strict=True):
            cases.append(_measured_case(case, name, place if volume else None, scan))
    splits = {one: part for name, part in dataset.splits.items() for one in names[name]}
    words = f"{errors.count_phrase(len(cases), f'{scan.operator} measurement')} of {len(dataset)} images"
    return replace(dataset, cases=tuple(cases), splits=splits, derived={**dataset.derived, TARGET: words})


def _with_stated_measurements(dataset: Dataset, folder: Path, asked: str) -> Dataset:
    files = {path.stem: path for path in measurement_file.list_measurements(folder)}
    cases, names, kinds = list[Case](), dict[str, list[str]](), dict[tuple[Any, ...], str]()
    for case in dataset:
        stem = case.id.rpartition("/")[2]
        if stem not in files:
            raise DatasetError("has no measurement", case.id, f"Add {MEASUREMENTS}/{stem}.npz, or leave the image out")
        measurement, image = measurement_file.read_measurement(files[stem]), next(iter(case.images.values()))
        scan, measured = measurement.acquisition, len(measurement.data)
        slices = 1 if image.geometry.ndim == 2 else image.shape[-1]
        if measured != slices or scan.shape != image.shape[1:3]:
            problem = f"measures {measured} slices of {scan.shape}, and its image has {slices} of {image.shape[1:3]}"
            raise DatasetError(problem, str(files[stem]), "Give the image of this measurement")
        coils = measurement.data.shape[1] if scan.kind == "cartesian" and measurement.data.ndim == 4 else 1
        kinds.setdefault((scan.kind, coils, len(scan.angles_deg)), str(files[stem]))
        names[case.id] = [f"{case.id}_{number + 1}" for number in range(slices)]
        for number, name in enumerate(names[case.id]):
            place = None if image.geometry.ndim == 2 else number
            cases.append(_stated_case(case, name, place, files[stem]))
    if len(kinds) > 1:
        problem = f"is another scan (kind, coils, views) than {next(iter(kinds.values()))}: {[*kinds]}"
        raise DatasetError(problem, [*kinds.values()][1], "Give measurements of one kind of scan")
    [(kind, coils, views)] = kinds
    if kind != asked:
        raise UsageError(f"the measurements are {kind}", f"task.operator={asked}", f"Give task.operator={kind}")
    splits = {one: part for name, part in dataset.splits.items() for one in names[name]}
    stated = {"operator": kind, "coils": coils, **({"views": views} if kind == "parallel" else {})}
    words = f"{errors.count_phrase(len(cases), 'measured slice')} of {len(dataset)} images"
    derived = {**dataset.derived, TARGET: words, SCAN: json.dumps(stated)}
    return replace(dataset, cases=tuple(cases), splits=splits, derived=derived)


@dataclass(frozen=True)
class StatedScan:
    """One slice of a measurement that lies in a file; number: of the slice, from 0"""

    path: Path
    number: int

    def __call__(self, image: Image | None = None, original: Image | None = None) -> Image:
        """(channels, *shape) of the measurement; with what an image shows beside the original measured, too."""
        scan, channels, _ = self.measure(image, original)
        return replace(simulated_scans.network_image(scan, channels), facts={corruptions.REMAKE: self})

    def measure(self, image: Image | None = None, original: Image | None = None) -> tuple[Acquisition, Array, float]:
        """The scan, the network's channels of it, and the factor by which its intensities were multiplied."""
        measurement = measurement_file.read_measurement(self.path)
        [(operator, data)] = reconstruction_methods.operators_of_slices(measurement, self.number)
        channels, factor = simulated_scans.network_channels(operator, data)
        if image is not None and original is not None:  # on the scale of the original, with the phase of its scanner
            added = (image.data[0] - original.data[0]) / factor
            if operator.is_complex:
                added = added * np.exp(1j * np.angle(operator.adjoint(data)))
            changed, other = simulated_scans.network_channels(
                operator, data + operator.forward(added.astype(data.dtype)).astype(data.dtype)
            )
            changed[: 3 if operator.is_complex else 2] *= factor / other
            channels = changed
        return operator.acquisition, channels, factor


def _stated_case(case: Case, name: str, place: int | None, path: Path) -> Case:
    channel, scan = next(iter(case.images)), StatedScan(path, place or 0)

    def target() -> Image:
        acquisition, _, factor = scan.measure()
        clean = _clean_slice(case.images, channel, place, name)
        grid = Geometry.of_spacing(acquisition.shape, acquisition.spacing)
        return replace(clean, pixels=(clean.data * factor).astype(np.float32), geometry=grid)

    key = f"{case.key}|{name}|{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return replace(
        case, id=name, images=LazyMapping({channel: scan}), references=LazyMapping({TARGET: target}), key=key
    )


def _checked(scan: ScanSettings) -> ScanSettings:
    """The settings; UsageError for those of no scan."""
    for name, known in (("operator", ("cartesian", "parallel")), ("mask", ("random", "equispaced"))):
        if getattr(scan, name) not in known:
            raise UsageError(f"there is no {getattr(scan, name)!r}", f"task.{name}", f"Choose {' or '.join(known)}")
    limits = {"acceleration": 1, "coils": 1, "views": 1, "noise": 0, "centre": 0}
    for name, least in limits.items():
        if not getattr(scan, name) >= least:
            raise UsageError(f"{getattr(scan, name)}", f"task.{name}", f"Give a number from {least} on")
    return scan


def _measured_case(case: Case, name: str, place: int | None, scan: ScanSettings) -> Case:
    channel = next(iter(case.images))
    recipe = SimulatedScan(scan, name, 1 if scan.operator == "cartesian" else FINER)
    clean = partial(_clean_slice, case.images, channel, place, name)
    images = LazyMapping({channel: lambda: recipe(clean())})
    references = LazyMapping({TARGET: lambda: _target(clean(), recipe)})
    key = f"{case.key}|{name}|{place}|{json.dumps(asdict(scan), sort_keys=True)}"
    return replace(case, id=name, images=images, references=references, key=key)


def _clean_slice(images: Mapping[str, Image], channel: str, place: int | None, name: str) -> Image:
    """(1, rows, columns) of the first channel; DatasetError for what is no picture."""
    image = images[channel]
    data = image.reader()((slice(0, 1), *[slice(None)] * 2, *([] if place is None else [slice(place, place + 1)])))
    data = np.asarray(data, np.float32)
    pixels = data if place is None else data[..., 0]
    if pixels.ndim != 3:
        raise DatasetError(f"has the shape {image.shape}, and slices are measured", name, "Give pictures or volumes")
    spacing = (image.geometry.spacing or (1.0, 1.0))[:2]
    grid = Geometry.of_spacing(pixels.shape[1:], spacing)
    return replace(image, pixels=pixels, geometry=grid, channels=image.channels[:1], padding=None, facts={})


def _target(clean: Image, recipe: SimulatedScan) -> Image:
    """The clean image on the grid of the answer, times the factor of its measurement."""
    factor, step = recipe.measure(clean.data[0])[1], recipe.finer
    rows, columns = (size // step for size in clean.geometry.shape)
    blocks = clean.data[:, : rows * step, : columns * step].reshape(1, rows, step, columns, step)
    pixels = (blocks.mean(axis=(2, 4)) * factor).astype(np.float32)
    return replace(clean, pixels=pixels, geometry=clean.geometry.reshape((rows, columns)))
