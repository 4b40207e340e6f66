"""Spatial Registration and Deformable Spatial Registration, PS3.3 C.20.2 and C.20.3, as transforms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import FormatError
from isocenter.files.dicom.classes import DEFORMABLE_REGISTRATION, SPATIAL_REGISTRATION
from isocenter.files.dicom.header import read_object
from isocenter.files.dicom.tags import attribute, first_item, items, numbers
from isocenter.files.world import from_lps
from isocenter.values import Affine, Displacement, Floats, Geometry, SpatialTransform, TransformPart

SIDES = np.diag([-1.0, -1.0, 1.0, 1.0])
REMEDY = "Give a registration of two images"


def read_registration(path: Path) -> SpatialTransform:
    """The transform from the registered frame of reference, which is that of the fixed image, to the moving image.

    Raises FormatError where the object connects several moving images, or is none of both kinds.
    """
    dataset, where = read_object(path), str(path)
    kind = str(dataset.get("SOPClassUID", ""))
    if kind == SPATIAL_REGISTRATION:
        found = [matrix for matrix in _matrices(dataset, where) if not np.allclose(matrix, np.eye(4))]
        _refuse_several(len(found), where)
        # The object leads from the moving image to the registered frame.
        return SpatialTransform((Affine(np.linalg.inv(found[0]) if found else np.eye(4)),))
    if kind == DEFORMABLE_REGISTRATION:
        made = [parts for one in items(dataset, "DeformableRegistrationSequence") if (parts := _deformed(one, where))]
        _refuse_several(len(made), where)
        return SpatialTransform(tuple(made[0]) if made else (Affine(np.eye(4)),))
    raise FormatError("is no DICOM registration", where, "Give a Spatial or Deformable Spatial Registration")


def _refuse_several(count: int, where: str) -> None:
    if count > 1:
        raise FormatError(f"registers {count} images", where, REMEDY)


def _matrices(dataset: Any, where: str) -> Iterator[Floats]:
    """(4, 4) RAS+ mm of each image to the registered frame of reference."""
    for item in items(dataset, "RegistrationSequence"):
        matrix = np.eye(4)
        for registration in items(item, "MatrixRegistrationSequence"):
            for one in items(registration, "MatrixSequence"):
                matrix = _matrix(one, where) @ matrix
        yield matrix


def _matrix(item: Any, where: str) -> Floats:
    stated = numbers(item, "FrameOfReferenceTransformationMatrix", where, count=16)
    if stated is None:
        raise FormatError("a matrix is missing", where, "Export the registration again")
    return SIDES @ np.reshape(stated, (4, 4)) @ SIDES


def _deformed(item: Any, where: str) -> list[TransformPart]:
    """Matrix, field and matrix of one image, without those that change nothing."""
    parts: list[TransformPart] = []
    for keyword in ("PreDeformationMatrixRegistrationSequence", "", "PostDeformationMatrixRegistrationSequence"):
        if not keyword:
            grid = first_item(item, "DeformableRegistrationGridSequence")
            parts += [] if grid is None else [_field(grid, where)]
            continue
        for one in items(item, keyword):
            matrix = _matrix(one, where)
            parts += [] if np.allclose(matrix, np.eye(4)) else [Affine(matrix)]
    return parts


def _field(item: Any, where: str) -> Displacement:
    axes, position = (numbers(item, name, where) for name in ("ImageOrientationPatient", "ImagePositionPatient"))
    shape, steps = (numbers(item, name, where, count=3) for name in ("GridDimensions", "GridResolution"))
    data = attribute(item, "VectorGridData", where)
    if None in (axes, position, shape, steps) or data is None or len(axes or ()) != 6 or len(position or ()) != 3:
        raise FormatError("the grid of the deformation is not complete", where, "Export the registration again")
    row, column = np.array(axes[:3] if axes else ()), np.array(axes[3:] if axes else ())
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row, column, np.cross(row, column)], axis=1) * steps
    affine[:3, 3] = position
    size = tuple(int(one) for one in shape or ())
    vectors = np.frombuffer(bytes(data), dtype="<f4")
    if vectors.size != 3 * np.prod(size):
        problem = f"{vectors.size // 3} vectors on a grid of {' x '.join(map(str, size))}"
        raise FormatError(problem, where, "Export the registration again")
    ordered = vectors.reshape(*size[::-1], 3).T  # (component, column, row, slice)
    return Displacement(np.diag(SIDES)[:3].reshape(3, 1, 1, 1) * ordered, Geometry(size, from_lps(affine)))
