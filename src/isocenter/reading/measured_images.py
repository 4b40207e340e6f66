"""Cases of measurements that are made of clean images: slices of volumes, each measured when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from isocenter import errors
from isocenter.errors import DatasetError, UsageError
from isocenter.transforms.operators.simulated_scans import ScanSettings, SimulatedScan
from isocenter.values import Case, Dataset, Geometry, Image, LazyMapping

# Measurements of each picture, and slices of each volume, where nobody says.
DRAWS, SLICES = 4, 8
# The share of a volume, about its middle, in which slices lie: those at its ends hold little.
INNER = 0.6
# By how much finer CT is measured than it is answered: an object knows no pixels.
FINER = 2
TARGET = "target"


def with_measurements(dataset: Dataset, settings: Mapping[str, Any]) -> Dataset:
    """The data set with so many `draws` of each image, each a simulated measurement and the image, its target.

    Of a volume they are slices along its last axis. Raises UsageError for settings of no scan.
    """
    scan = _checked(ScanSettings.from_task(settings))
    cases, names = list[Case](), dict[str, list[str]]()
    for case in dataset:
        image = next(iter(case.images.values()))
        volume = image.geometry.ndim == 3
        count = settings.get("draws") or (SLICES if volume else DRAWS)
        places = np.linspace(0.5 - INNER / 2, 0.5 + INNER / 2, count) * (image.shape[-1] - 1)
        names[case.id] = [f"{case.id}_{number}" for number in range(1, count + 1)]
        for name, place in zip(names[case.id], places.round().astype(int).tolist(), strict=True):
            cases.append(_measured_case(case, name, place if volume else None, scan))
    splits = {one: part for name, part in dataset.splits.items() for one in names[name]}
    words = f"{errors.count_phrase(len(cases), f'{scan.operator} measurement')} of {len(dataset)} images"
    return replace(dataset, cases=tuple(cases), splits=splits, derived={**dataset.derived, TARGET: words})


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
