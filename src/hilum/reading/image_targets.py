"""Cases of images with targets: images on the finer grid of these, and damaged images that are made of clean ones.

A damaged image is made when it is read, by its case and number: nobody stores it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.quality.references import targets
from hilum.transforms import corruptions, resampling
from hilum.transforms.corruptions import REMAKE, Damage
from hilum.values import Array, Case, Dataset, Deferred, Geometry, Image, LazyMapping, PlainValue
from hilum.values.voxel_images import SCALE, UNKNOWN_TARGET

TARGET = targets.KIND
# Damaged images of each clean one; fewer where all prepared ones take more bytes together, by those of each voxel.
DRAWS, PREPARED, VOXEL_BYTES = 4, 2**31, 8
BLIND = "blind_spot"
REMEDY = 'Give [least, most], as in --set "task.damage={rician: [0.02, 0.1]}"'


def with_targets(dataset: Dataset, settings: Mapping[str, PlainValue], *, references: bool = True) -> Dataset:
    """The data set with each image on the grid of its target; of clean images damaged ones are made.

    settings:   of the task: `damage`, {corruption: [least, most]}, of which images without targets get so many `draws`
                each, and are their targets
    references: False where nobody asks what is true
    Raises DatasetError for images of which nobody knows what they should become, unless blind spots teach.
    """
    damage = parse_damage(settings.get("damage"))
    if not references:
        return dataset
    if TARGET not in dataset.kinds:
        if settings.get("supervision") == BLIND:
            return _without_targets(dataset)
        if not damage:
            remedy = (
                "Put what each should become into targets/ beside images/, or learn from noisy images alone: "
                f"--set task.supervision={BLIND}; or have clean images damaged. {REMEDY}"
            )
            raise DatasetError("has images and no targets", str(dataset.root or dataset.name), remedy)
        return _with_damage(dataset, damage, cast("int | None", settings.get("draws")))
    return replace(dataset, cases=tuple(_on_grid_of_target(case) for case in dataset))


def parse_damage(value: Any) -> dict[str, tuple[float, float]]:
    """{corruption: (least, most)} of a setting; UsageError for what is none."""
    if value is None:
        return {}
    damage = dict[str, tuple[float, float]]()
    for name, ends in value.items() if isinstance(value, Mapping) else [(str(value), None)]:
        key = corruptions.corruption_key(str(name))
        is_range = isinstance(ends, list | tuple) and len(ends) == 2 and all(isinstance(n, int | float) for n in ends)
        if not is_range or ends is None or ends[0] > ends[1]:
            raise UsageError(f"{name} of {ends}", "task.damage", REMEDY)
        for strength in ends:
            corruptions.refuse_strength(key, float(strength), "task.damage")
        damage[key] = (float(ends[0]), float(ends[1]))
    return damage


def _without_targets(dataset: Dataset) -> Dataset:
    """Images that stand for their targets, and say that nobody knows these."""

    def own(images: Mapping[str, Image]) -> Image:
        image = images[next(iter(images))]
        return replace(image, facts={**image.facts, UNKNOWN_TARGET: True})

    cases = [
        replace(case, references=LazyMapping({**_loaders(case), TARGET: partial(own, case.images)})) for case in dataset
    ]
    return replace(dataset, cases=tuple(cases), derived={**dataset.derived, TARGET: UNKNOWN_TARGET})


def _loaders(case: Case) -> dict[str, Callable[[], Any]]:
    return {kind: partial(case.references.__getitem__, kind) for kind in case.references}


def _with_damage(dataset: Dataset, damage: Mapping[str, tuple[float, float]], draws: int | None) -> Dataset:
    """So many damaged images of each, which its patient keeps in one part."""
    count = draws or _that_fit(dataset.cases)
    cases = tuple(_damaged_case(case, damage, number) for case in dataset for number in range(1, count + 1))
    names = {case.id: [f"{case.id}_{number}" for number in range(1, count + 1)] for case in dataset}
    each = ", ".join(f"{name} {least:g} to {most:g}" for name, (least, most) in damage.items())
    words = f"{errors.count_phrase(count, 'damaged image')} of each of {len(dataset)}, by {each}"
    splits = {one: part for name, part in dataset.splits.items() for one in names[name]}
    return replace(dataset, cases=cases, splits=splits, derived={**dataset.derived, TARGET: words})


def _that_fit(cases: Sequence[Case]) -> int:
    """Damaged images of each that fit into memory together, by the size of the first."""
    if not cases:
        return 1
    image = next(iter(cases[0].images.values()))
    return int(min(max(PREPARED // (VOXEL_BYTES * math.prod(image.shape) * len(cases)), 1), DRAWS))


def _damaged_case(case: Case, damage: Mapping[str, tuple[float, float]], number: int) -> Case:
    name = f"{case.id}_{number}"
    loaders = {channel: partial(_damaged_image, case.images, channel, damage, name) for channel in case.images}
    clean: Callable[[], Image] = partial(case.images.__getitem__, next(iter(case.images)))
    references: dict[str, Callable[[], Any]] = {**_loaders(case), TARGET: clean}
    key = f"{case.key}|{number}|{json.dumps(damage, sort_keys=True)}"
    return replace(case, id=name, images=LazyMapping(loaders), references=LazyMapping(references), key=key)


def _damaged_image(
    images: Mapping[str, Image], channel: str, damage: Mapping[str, tuple[float, float]], name: str
) -> Image:
    clean = images[channel]
    recipe = corruptions.sample_damage(damage, seed=0, case=f"{name}/{channel}")
    pixels = Deferred(clean.shape, np.dtype(np.float32), partial(_damage, clean, recipe))
    return replace(clean, pixels=pixels, facts={**clean.facts, REMAKE: recipe})


def _damage(clean: Image, recipe: Damage) -> Array:
    """The voxels of the damaged image, which no type of the file rounds."""
    return recipe(clean.with_pixels(clean.data.astype(np.float32))).data


def _on_grid_of_target(case: Case) -> Case:
    """The case with its images on the grid of its target, where this is finer by whole numbers."""
    if TARGET not in case.references:
        return case
    return replace(case, images=LazyMapping({name: partial(_like_target, case, name) for name in case.images}))


def _like_target(case: Case, name: str) -> Image:
    image, target = case.images[name], case.references[TARGET]
    scale = targets.grid_scale(image.geometry, target.geometry)
    # A target of another field is named by whoever looks at the case.
    return image if scale is None or max(scale) == 1 else finer_image(image, scale, target.geometry)


def with_finer_images(cases: Sequence[Case], settings: Mapping[str, PlainValue]) -> list[Case]:
    """The cases with their images on the grid that a model answers on, by `scale` of its task."""
    if not (scale := cast("Sequence[int] | None", settings.get("scale"))):
        return list(cases)
    return [
        replace(case, images=LazyMapping({name: partial(_finer, case, name, tuple(scale)) for name in case.images}))
        for case in cases
    ]


def _finer(case: Case, name: str, scale: tuple[int, ...]) -> Image:
    image = case.images[name]
    if len(scale) != image.geometry.ndim:
        problem = f"an image of {image.geometry.ndim} axes, and the model makes {len(scale)} finer"
        raise GeometryError(problem, case.id, "Give images like those that trained it")
    return image if SCALE in image.facts else finer_image(image, scale)


def finer_image(image: Image, scale: Sequence[int], grid: Geometry | None = None) -> Image:
    """The image on a grid that is finer by whole numbers along each axis, edge to edge, read between voxels (cubic)."""
    shape = tuple(n * by for n, by in zip(image.geometry.shape, scale, strict=True))
    pixels = Deferred((image.shape[0], *shape), np.dtype(np.float32), partial(_resample, image, shape))
    facts = {**image.facts, SCALE: tuple(scale)}
    return replace(image, pixels=pixels, geometry=grid or image.geometry.reshape(shape), padding=None, facts=facts)


def _resample(image: Image, shape: tuple[int, ...]) -> Array:
    data, measured = image.data.astype(np.float32), image.valid
    lowest = data.min(where=measured, initial=np.inf) if measured.any() else 0.0
    return np.asarray(resampling.resample(np.where(measured, data, lowest), shape, "cubic"), dtype=np.float32)
