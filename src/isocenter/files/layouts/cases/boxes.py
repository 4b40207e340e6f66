"""Boxes as files state them, x before y, brought onto the axes of the image that they were drawn on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from isocenter.errors import DatasetError, listed
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.values import BoundingBoxes, Floats, Geometry, Image

# Files count voxels from 0 or from 1, and round: a box may lie so far outside, and is cut back.
SLACK = 1.0


@dataclass(frozen=True)
class Drawn:
    """One box as a file states it.

    low, high: (x, y[, z]) edges in voxels, counted from 0
    where:     in the file, in words
    """

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    where: str
    ignored: bool = False


@dataclass(frozen=True)
class Annotation:
    """The boxes that a file states for one image.

    size: (columns, rows) as stated, None where they are not
    """

    path: Path
    boxes: tuple[Drawn, ...]
    size: tuple[int, int] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of this annotation: the rest of a file of many images does not change the case."""
        stated = [self.size, [asdict(box) for box in self.boxes]]
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def load_boxes(annotation: Annotation, called: Mapping[str, str], image: Callable[[], Image]) -> BoundingBoxes:
    """The boxes on their image's axes; what was cut back or left out stands in their notes.

    called: {name in the file: name of the class}
    Raises DatasetError, by file and box, for one whose end lies before its start or lies outside the image, and for an
    image of another size than the file states.
    """
    geometry, where = image().geometry, str(annotation.path)
    size = _columns_and_rows(geometry)
    if annotation.size is not None and annotation.size != size[:2]:
        stated, actual = (f"{columns} x {rows}" for columns, rows in (annotation.size, size[:2]))
        problem = f"is of an image of {stated} pixels (columns x rows), and the image has {actual}"
        raise DatasetError(problem, where, "Give the image that the boxes were drawn on")
    corners, kept, notes = [], [], []
    seen: set[tuple[Any, ...]] = set()
    for box in annotation.boxes:
        if any(low == high for low, high in zip(box.low, box.high, strict=True)):
            notes.append(f"{box.where} ({box.name}) has no extent, and is left out")
            continue
        edges, cut = _inside(box, size, where)
        same = (box.name, *edges.ravel().tolist())
        if same in seen:
            notes.append(f"{box.where} ({box.name}) occurs twice, and counts once")
            continue
        seen.add(same)
        notes += [f"{box.where} ({box.name}) reached beyond the image, and was cut back"] if cut else []
        kept.append(box)
        corners.append(_on_axes(edges, geometry.ndim))
    return BoundingBoxes(
        np.array(corners).reshape(-1, 2 * geometry.ndim),
        tuple(called[box.name] for box in kept),
        ignored=np.array([box.ignored for box in kept], dtype=bool),
        notes=tuple(notes),
    )


def names_in(annotations: Sequence[Annotation]) -> set[str]:
    """Every class that is drawn."""
    return {box.name for annotation in annotations for box in annotation.boxes}


def by_file_name(folder: Folder) -> dict[str, list[Member]]:
    """{name with suffix: images in all folders that are called so}"""
    images: dict[str, list[Member]] = {}
    for member in folder.images:
        images.setdefault(member.path.name, []).append(member)
    return images


def image_named(images: Mapping[str, Sequence[Member]], name: str, near: Sequence[Path], where: Path) -> Member | None:
    """The image of this name: in one of the folders `near`, the best first, else the only one that is called so.

    name:  may start with folders
    where: it is named
    Raises DatasetError where several images are called so and none lies near.
    """
    wanted = PurePosixPath(name.replace("\\", "/"))
    same = images.get(wanted.name, ())
    for place in near:
        for member in same:
            if member.path == place / wanted:
                return member
    if len(same) > 1:
        problem = f"names {name}, and several images are called so ({listed(member.path for member in same)})"
        raise DatasetError(problem, str(where), "Write the folder with the name, or rename")
    return same[0] if same else None


def _inside(box: Drawn, size: tuple[int, ...], where: str) -> tuple[Floats, bool]:
    """(2, axes) edges within the image, and whether they were cut back."""
    if len(box.low) not in (len(size), 2) or (len(box.low) == 2 and size[2:] not in ((), (1,))):
        problem = f"{box.where} ({box.name}) has {len(box.low)} axes, the image {size}"
        raise DatasetError(problem, where, "Give x0, y0, x1, y1 of pictures, and z0, z1 of volumes too")
    flat = len(box.low) < len(size)  # of a volume with a single slice
    low, high = np.array([*box.low, *[0.0] * flat]), np.array([*box.high, *[1.0] * flat])
    stated = f"{box.where} ({box.name}) from {_spelled(box.low)} to {_spelled(box.high)}"
    if not np.isfinite([low, high]).all():
        raise DatasetError(f"{stated} is not a box", where, "Give numbers")
    if (high < low).any():
        raise DatasetError(f"{stated} ends before it starts", where, "Write the smaller corner first")
    whole = np.array(size, dtype=float)
    if (low < -SLACK).any() or (high > whole + SLACK).any() or (low >= whole).any() or (high <= 0).any():
        problem = f"{stated} lies outside the image of {_spelled(size)}"
        raise DatasetError(problem, where, "Check whether box and image belong to each other; count voxels from 0")
    edges = np.clip([low, high], 0.0, whole)
    return edges, bool((edges != [low, high]).any())


def _columns_and_rows(geometry: Geometry) -> tuple[int, ...]:
    """Voxels along x, y[, z]: a picture has its rows first."""
    return geometry.shape[::-1] if geometry.is_picture else geometry.shape


def _on_axes(edges: Floats, ndim: int) -> Floats:
    """(2, axes) along x, y[, z] as (2 * axes) along the image's own axes."""
    return np.ravel(edges[:, ::-1] if ndim == 2 else edges)


def _spelled(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"
