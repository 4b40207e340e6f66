"""Transforms as Spatial Registration, PS3.3 A.39.1 and C.20.2, or as a deformable one, A.39.2 and C.20.3."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from isocenter.errors import FormatError
from isocenter.files.dicom.classes import DEFORMABLE_REGISTRATION, SPATIAL_REGISTRATION
from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.tags import text
from isocenter.files.dicom.writing.new_object import made_on_source, new_object, save
from isocenter.files.dicom.writing.source_planes import completed, reference_to
from isocenter.files.world import from_lps
from isocenter.values import Affine, Displacement, Floats, Image, SpatialTransform

SERIES_NUMBER = 106
# How far a matrix may be off a rotation for its type, PS3.3 C.20.2.1.2.
ROUNDING = 1e-6


def write_registration(transform: SpatialTransform, fixed: Image, moving: Image, path: Path) -> None:
    """Write a transform that connects two DICOM images: with a field a deformable one, which holds a single field.

    The object belongs to the patient and the study of the fixed image, whose frame of reference is the registered one.
    Raises FormatError for images without a frame of reference, and for what DICOM cannot hold.
    """
    where = str(path)
    sources = [_source(one, where) for one in (fixed, moving)]
    matrix = transform.matrix
    sop_class = SPATIAL_REGISTRATION if matrix is not None else DEFORMABLE_REGISTRATION
    head = sources[0][0]
    with made_on_source("registration", where):
        made = new_object(
            sop_class, "REG", ExplicitVRLittleEndian, completed(_head(fixed)), SERIES_NUMBER, "Registration"
        )
        made.FrameOfReferenceUID, made.PositionReferenceIndicator = text(head, "FrameOfReferenceUID"), None
        now = datetime.now()
        made.ContentDate, made.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        made.ContentLabel, made.ContentDescription = "REGISTRATION", "Moving image laid on fixed image"
        made.ContentCreatorName = None
        made.Laterality = None  # type 2C of a paired part of the body, PS3.3 C.7.3.1
        if matrix is not None:
            # From each image to the registered frame of reference: ours leads away from it.
            linear = [np.eye(4), np.linalg.inv(_turned(matrix))]
            made.RegistrationSequence = [_linear(*one) for one in zip(sources, linear, strict=True)]
        else:
            made.DeformableRegistrationSequence = [_identity(sources[0]), _deformable(sources[1], transform, where)]
        _name_instances(made, sources)
    save(made, Path(_paths(fixed)[0]), [], path, overwrite=False)


def _paths(image: Image) -> Sequence[str]:
    return image.source.paths if image.source is not None else ()


def _head(image: Image) -> Dataset:
    return read_header(Path(_paths(image)[0])).library


def _source(image: Image, where: str) -> list[Any]:
    """The headers of an image's files."""
    if image.source is None or not image.source.is_dicom:
        raise FormatError("a DICOM registration connects two DICOM images", where, "Write .h5, or give the series")
    heads = [read_header(Path(one)).dataset for one in _paths(image)]
    if not text(heads[0], "FrameOfReferenceUID"):
        problem = "the image states no FrameOfReferenceUID (0020,0052)"
        raise FormatError(problem, str(image.source.paths[0]), "Write .h5 instead")
    return heads


def _turned(matrix: Floats) -> Floats:
    """A matrix of points in RAS+ mm as one in LPS, or the reverse."""
    sides = np.diag([-1.0, -1.0, 1.0, 1.0])
    return sides @ matrix @ sides


def _matrix(matrix: Floats) -> Dataset:
    """An item of the Matrix Sequence."""
    made, product = Dataset(), matrix[:3, :3].T @ matrix[:3, :3]
    scale = float(np.trace(product)) / 3
    is_scaled = np.allclose(product, scale * np.eye(3), atol=ROUNDING * scale) and np.linalg.det(matrix) > 0
    kinds = {True: "RIGID" if abs(scale - 1) < ROUNDING else "RIGID_SCALE", False: "AFFINE"}
    made.FrameOfReferenceTransformationMatrix = [f"{value:.12g}"[:16] for value in matrix.ravel()]
    made.FrameOfReferenceTransformationMatrixType = kinds[bool(is_scaled)]
    return made


def _registration_type() -> Dataset:
    code = Dataset()
    stated = codes.DCM.ImageContentBasedAlignment
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = stated[:3]
    return code


def _linear(heads: Sequence[Any], matrix: Floats) -> Dataset:
    """An item of the Registration Sequence."""
    made, registration = Dataset(), Dataset()
    made.FrameOfReferenceUID = text(heads[0], "FrameOfReferenceUID")
    made.ReferencedImageSequence = [reference_to(one) for one in heads]
    registration.RegistrationTypeCodeSequence = [_registration_type()]
    registration.MatrixSequence = [_matrix(matrix)]
    made.MatrixRegistrationSequence = [registration]
    return made


def _identity(heads: Sequence[Any]) -> Dataset:
    """An item of the Deformable Registration Sequence for the image that stays where it is."""
    made = Dataset()
    made.SourceFrameOfReferenceUID = text(heads[0], "FrameOfReferenceUID")
    made.ReferencedImageSequence = [reference_to(one) for one in heads]
    made.RegistrationTypeCodeSequence = [_registration_type()]
    made.PreDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    made.PostDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    return made


def _deformable(heads: Sequence[Any], transform: SpatialTransform, where: str) -> Dataset:
    """The item of the moving image: source = post (pre (registered) + vector), PS3.3 C.20.3.1.1."""
    fields = [number for number, part in enumerate(transform.parts) if isinstance(part, Displacement)]
    if len(fields) != 1:
        raise FormatError(f"{len(fields)} fields", where, "DICOM holds one: join them, or write .h5")
    field = transform.parts[fields[0]]
    assert isinstance(field, Displacement)  # noqa: S101 - it was just looked for
    pre, post = (_joined(part) for part in (transform.parts[: fields[0]], transform.parts[fields[0] + 1 :]))
    made = _identity(heads)
    made.PreDeformationMatrixRegistrationSequence = [_matrix(_turned(pre))]
    made.PostDeformationMatrixRegistrationSequence = [_matrix(_turned(post))]
    made.DeformableRegistrationGridSequence = [_grid(field)]
    return made


def _joined(parts: Sequence[Any]) -> Floats:
    matrix = np.eye(4)
    for part in parts:
        assert isinstance(part, Affine)  # noqa: S101 - there is one field, and it is not among these
        matrix = part.matrix @ matrix
    return matrix


def _grid(field: Displacement) -> Dataset:
    """An item of the Deformable Registration Grid Sequence; its third axis is the product of the others."""
    grid, vectors = field.geometry, field.vectors
    if grid.is_sheared:
        raise FormatError("a field on a grid whose axes are not at right angles", "transform", "Resample it first")
    if np.linalg.det(from_lps(grid.affine)[:3, :3]) < 0:
        grid, vectors = grid.permuted((0, 1, 2), (False, False, True)), vectors[..., ::-1]
    affine, steps = from_lps(grid.affine), grid.steps
    made = Dataset()
    made.ImageOrientationPatient = _decimals([*(affine[:3, 0] / steps[0]), *(affine[:3, 1] / steps[1])])
    made.ImagePositionPatient = _decimals(affine[:3, 3])
    made.GridDimensions = list(grid.shape)
    made.GridResolution = list(steps)
    # The vectors of a row follow one another, each as x, y, z.
    in_lps = vectors * np.reshape([-1.0, -1.0, 1.0], (3, 1, 1, 1))
    made.VectorGridData = np.ascontiguousarray(in_lps.T, dtype="<f4").tobytes()
    return made


def _decimals(values: Any) -> list[str]:
    return [f"{value:.10g}"[:16] for value in values]


def _name_instances(made: Dataset, sources: Sequence[Sequence[Any]]) -> None:
    """The Common Instance Reference Module, PS3.3 C.12.2: series of the own study, then other studies."""
    own = text(sources[0][0], "StudyInstanceUID")
    studies: dict[str, dict[str, list[Dataset]]] = {own: {}}
    for head in (one for heads in sources for one in heads):
        series = studies.setdefault(text(head, "StudyInstanceUID"), {})
        references = series.setdefault(text(head, "SeriesInstanceUID"), [])
        reference = reference_to(head)
        if all(one.ReferencedSOPInstanceUID != reference.ReferencedSOPInstanceUID for one in references[-1:]):
            references.append(reference)
    made.ReferencedSeriesSequence = [_series(*one) for one in studies.pop(own).items()]
    others = []
    for study, series in studies.items():
        other = Dataset()
        other.StudyInstanceUID, other.ReferencedSeriesSequence = study, [_series(*one) for one in series.items()]
        others.append(other)
    if others:
        made.StudiesContainingOtherReferencedInstancesSequence = others


def _series(uid: str, references: list[Dataset]) -> Dataset:
    made = Dataset()
    made.SeriesInstanceUID, made.ReferencedInstanceSequence = uid, references
    return made
