"""The images of a case brought onto the grid of its first, or of a named one.

By their places, by registration, or apart: each by itself, where images share no place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from hilum import errors
from hilum.errors import GeometryError, HilumError, UsageError
from hilum.files.storage import cache, csv_text, hashing, structured_text
from hilum.lazy import pandas as pd
from hilum.registration import engine, motion
from hilum.registration.engine import RegistrationSettings
from hilum.tasks import Task
from hilum.transforms import spatial_transforms
from hilum.values import (
    Affine,
    Array,
    Case,
    Deferred,
    Floats,
    Geometry,
    Image,
    LazyMapping,
    SpatialTransform,
    plain_values,
    reference_kind,
)
from hilum.values.voxel_images import BROUGHT

# The fact of an image that was registered: onto which one, with which transform, and what similarity came of it.
ONTO = "onto"
# The alignment of images that share no place: views of an exam.
APART = "apart"
COLUMNS = (
    "case", "image", "onto", "similarity", "before", "after", "x_mm", "y_mm", "z_mm", "x_deg", "y_deg", "z_deg",
)  # fmt: skip
LOOK = "Look at the images; give --align world if the headers are right, or leave the case out"
RIGID = RegistrationSettings("rigid")


def aligned_case(case: Case, how: str) -> Case:
    """The case with every image on the grid of one, when it is read; its references must lie there.

    how: as `ReadingOptions.align`: world, register or apart, and the image's name behind a colon; else it is the first
    """
    method, _, onto = how.partition(":")
    if method == APART:
        images: Mapping[str, Image] = _Views(case, onto)
    else:
        align = {"world": _in_world, "register": _register}[method]
        images = LazyMapping({name: partial(align, case, name, onto) for name in case.images})
    return replace(
        case,
        images=images,
        references=LazyMapping({kind: partial(_on_grid, case, kind, how) for kind in case.references}),
    )


class _Views(LazyMapping[Image]):
    """The images of an exam, each by itself as large as that one by whose name the size of all goes."""

    def __init__(self, case: Case, onto: str) -> None:
        super().__init__({name: partial(_in_world, case, name, onto, apart=True) for name in case.images})
        self._case, self._onto = case, onto

    def without_others(self, names: Collection[str]) -> _Views:
        """These images of an exam that lacks the others: the size then goes by another one."""
        return _Views(self._case.with_images(names), self._onto)


def is_apart(how: str | None) -> bool:
    """Whether the images of a case share no place: such a case is an exam of views with one answer."""
    return how is not None and how.partition(":")[0] == APART


def refuse_dense(task: Task, how: str | None) -> None:
    """Raise UsageError where a task answers in places of an image, and the images of a case share none."""
    if is_apart(how) and not all(head.is_vector for head in task.heads.values()):
        problem = f"{task.name} answers in places of an image, and images that are brought together apart share none"
        raise UsageError(problem, f"--align {how}", "Choose world or register, or ask for one answer a case")


def write_alignment(cases: Iterable[Case], how: str | None, folder: Path) -> None:
    """Write `alignment.csv`, a row for each image that was registered; nothing where none was to be."""
    if how is not None and how.partition(":")[0] == "register":
        rows = [row for case in cases for name in case.images for row in _motions(case, name)]
        csv_text.write_table(pd.DataFrame(rows, columns=list(COLUMNS)), folder / "alignment.csv")


def _motions(case: Case, name: str) -> Iterator[list[Any]]:
    """The row of an image that was registered."""
    with suppress(HilumError):  # a case that cannot be read, or gains nothing, is named where it is needed
        image = case.images[name]
        if (onto := image.facts.get(ONTO)) is not None:
            measured = [onto[key] for key in ("image", "similarity", "before", "after")]
            yield [case.id, name, *measured, *_motion(np.array(onto["matrix"]), image.geometry)]


def _name_of_grid(case: Case, onto: str) -> str:
    """The image whose grid is that of all. Raises GeometryError where the case lacks the one that is named."""
    if onto and onto not in case.images:
        problem = f"has no image {onto!r} to lay the others on, only {errors.list_phrase(case.images)}"
        raise GeometryError(problem, case.id, "Name one of them behind --align world:, register: or apart:")
    return onto or next(iter(case.images))


def _on_grid(case: Case, kind: str, how: str) -> Any:
    """A reference. Raises GeometryError where it lies on the grid of another image than all are laid on."""
    value, (method, _, onto) = case.references[kind], how.partition(":")
    if method == APART and reference_kind.placed_value(value) is not None:
        problem = f"the {kind} has a place in one image, and images that are brought together apart share none"
        raise GeometryError(problem, case.id, "Choose --align world or register, or leave it out")
    name = _name_of_grid(case, onto)
    if not isinstance(value, Image) or value.geometry.equals(case.images[name].geometry):
        return value
    if own := next((other for other, image in case.images.items() if image.geometry.equals(value.geometry)), None):
        problem = f"the {kind} lies on the grid of {own!r}, and all images are laid on {name!r}"
        raise GeometryError(problem, case.id, f"Lay them on the image of its contours: --align {method}:{own}")
    return value


def _in_world(case: Case, name: str, onto: str, *, apart: bool = False) -> Image:
    """An image on the grid of one, by where both lie; apart: by its size alone."""
    first, image = _name_of_grid(case, onto), case.images[name]
    grid = case.images[first].geometry
    if (apart and name == first) or image.geometry.equals(grid):
        return image
    bring = spatial_transforms.fit_to_grid if apart else spatial_transforms.align_to_grid
    moved = bring(image, grid, f"{case.id}, {name}")
    how = "brought to the size of {!r}, its proportions kept" if apart else "resampled onto the grid of {!r}"
    return replace(moved, notes=(*moved.notes, how.format(first)), facts={**moved.facts, BROUGHT: True})


def _register(case: Case, name: str, onto: str) -> Image:
    """An image on the grid of one, read when it is asked for; on that grid already it stays as it is."""
    first, image = _name_of_grid(case, onto), case.images[name]
    fixed = case.images[first]
    if image.geometry.equals(fixed.geometry):
        return image
    made = _transform(fixed, image, f"{case.id}, {name}")
    moved = partial(_move, image, made["matrix"], fixed.geometry)
    shape = (*image.shape[: -image.geometry.ndim], *fixed.geometry.shape)
    words = f"{made['similarity']} {made['before']:.3g} before, {made['after']:.3g} after"
    return replace(
        image,
        pixels=Deferred(shape, np.dtype(np.float32), moved),
        geometry=fixed.geometry,
        padding=None,
        notes=(*image.notes, f"registered rigidly onto {first!r} ({words})"),
        facts={**image.facts, ONTO: {"image": first, **made}, BROUGHT: True},
    )


def _move(image: Image, matrix: list[list[float]], onto: Geometry) -> Array:
    transform = SpatialTransform((Affine(np.array(matrix)),), onto, image.geometry)
    return spatial_transforms.carry_image(image, transform, onto).data


class AlignmentEntry(TypedDict):
    """The matrix of a rigid transform, and the similarity before and after it."""

    matrix: list[list[float]]
    similarity: str
    before: float
    after: float


def _transform(fixed: Image, moving: Image, where: str) -> AlignmentEntry:
    """The rigid transform from one image to another, and the similarity before and after; kept in the cache.

    Raises GeometryError where it gains nothing: the images then lie as well as they can, or are of two people.
    """
    path = cache.cache_folder() / "alignment" / f"{_key(fixed, moving)}.json"
    try:
        return cast("AlignmentEntry", dict(structured_text.load_json(path)))
    except (OSError, ValueError):  # there is none yet, or it is damaged
        pass
    # Unlike frames of reference are what is mended here.
    pair = [_placeless(image) for image in (fixed, moving)]
    made = engine.register_images(pair[0], pair[1], RIGID, where=where)
    if made.applied is False:
        reasons = "; ".join(made.notes) or "nothing was found"
        raise GeometryError(f"registration was not applied: {reasons}", where, LOOK)
    matrix, first = made.transform.matrix, made.first_guess.matrix
    was_moved = matrix is not None and first is not None and not np.array_equal(matrix, first)
    if not made.gains and was_moved:
        raise GeometryError(
            f"registration gains nothing ({made.similarity} {made.before:.3g} before, {made.after:.3g} after)",
            where,
            LOOK,
        )
    assert matrix is not None  # noqa: S101 - rigid
    onto = AlignmentEntry(matrix=matrix.tolist(), similarity=made.similarity, before=made.before, after=made.after)
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.write_cache_entry(path) as partly:
        partly.write_text(json.dumps(plain_values.as_json(onto)), encoding="utf-8")
    return onto


def _placeless(image: Image) -> Image:
    still = image.frame(0) if image.frames is not None else image
    return replace(still, geometry=replace(still.geometry, frame_of_reference=None))


def _key(*images: Image) -> str:
    """A hash of the files of images, and of what reading made of them."""
    total = hashlib.sha256()
    for image in images:
        if image.source is None or not image.source.paths:
            total.update(np.ascontiguousarray(image.data).tobytes())
        else:
            for path in image.source.paths:
                total.update(hashing.file_hash(Path(path)).encode())
        total.update(image.geometry.affine.tobytes())
        total.update(repr((image.shape, image.channels, image.modality, image.notes)).encode())
    return total.hexdigest()


def _motion(matrix: Floats, grid: Geometry) -> list[float]:
    """mm by which the centre of a grid moves along x, y and z, and degrees about them; of pictures no third, none."""
    centre = grid.corners.mean(axis=0)
    shift = (matrix[:-1, :-1] @ centre + matrix[:-1, -1] - centre).tolist()
    return [*shift, *motion.rotation_angles(matrix).tolist()] if grid.ndim == 3 else [*shift[::-1], *[math.nan] * 4]
