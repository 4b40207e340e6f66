"""Spatial Registration and Deformable Spatial Registration, PS3.3 C.20.2 and C.20.3, from and to transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from hilum.errors import FormatError
from hilum.files import _world
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.uids import DEFORMABLE_REGISTRATION, SPATIAL_REGISTRATION
from hilum.files.dicom.writing import new_object, series_writing, source_planes
from hilum.values import Affine, Displacement, Floats, Geometry, Image, SpatialTransform
from hilum.values.spatial_transform import TransformPart

SERIES_NUMBER = 106
ALIGNMENT = ("DCM", "125024", "Image Content-based Alignment")
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
    with new_object.make_on_source("registration", where):
        registration = new_object.create_object(
            sop_class,
            "REG",
            ExplicitVRLittleEndian,
            source_planes.complete_for_highdicom(_head(fixed)),
            SERIES_NUMBER,
            "Registration",
        )
        registration.FrameOfReferenceUID = tags.text(head, "FrameOfReferenceUID")
        registration.PositionReferenceIndicator = None
        now = datetime.now()
        registration.ContentDate, registration.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        registration.ContentLabel, registration.ContentDescription = "REGISTRATION", "Moving image laid on fixed image"
        registration.ContentCreatorName = None
        registration.Laterality = None  # type 2C of a paired part of the body, PS3.3 C.7.3.1
        if matrix is not None:
            # From each image to the registered frame of reference: ours leads away from it.
            linear = [np.eye(4), np.linalg.inv(_swap_sides(matrix))]
            registration.RegistrationSequence = [_linear(heads, to) for heads, to in zip(sources, linear, strict=True)]
        else:
            registration.DeformableRegistrationSequence = [
                _identity(sources[0]),
                _deformable(sources[1], transform, where),
            ]
        _name_instances(registration, sources)
    new_object.save_object(registration, Path(_paths(fixed)[0]), [], path, overwrite=False)


def _paths(image: Image) -> Sequence[str]:
    return image.source.paths if image.source is not None else ()


def _head(image: Image) -> Dataset:
    return header_reading.read_header(Path(_paths(image)[0])).library


def _source(image: Image, where: str) -> list[Any]:
    """The headers of an image's files."""
    if image.source is None or not image.source.is_dicom:
        raise FormatError("a DICOM registration connects two DICOM images", where, "Write .h5, or give the series")
    heads = [header_reading.read_header(Path(one)).dataset for one in _paths(image)]
    if not tags.text(heads[0], "FrameOfReferenceUID"):
        problem = "the image states no FrameOfReferenceUID (0020,0052)"
        raise FormatError(problem, str(image.source.paths[0]), "Write .h5 instead")
    return heads


def _swap_sides(matrix: Floats) -> Floats:
    """A matrix of points in RAS+ mm as one in LPS, or the reverse."""
    sides = np.diag([-1.0, -1.0, 1.0, 1.0])
    return sides @ matrix @ sides


def _matrix_item(matrix: Floats) -> Dataset:
    """An item of the Matrix Sequence."""
    matrix_item, product = Dataset(), matrix[:3, :3].T @ matrix[:3, :3]
    scale = float(np.trace(product)) / 3
    is_scaled = np.allclose(product, scale * np.eye(3), atol=ROUNDING * scale) and np.linalg.det(matrix) > 0
    kinds = {True: "RIGID" if abs(scale - 1) < ROUNDING else "RIGID_SCALE", False: "AFFINE"}
    matrix_item.FrameOfReferenceTransformationMatrix = series_writing.decimal_strings(matrix.ravel())
    matrix_item.FrameOfReferenceTransformationMatrixType = kinds[bool(is_scaled)]
    return matrix_item


def _linear(heads: Sequence[Any], matrix: Floats) -> Dataset:
    """An item of the Registration Sequence."""
    registration_item, registration = Dataset(), Dataset()
    registration_item.FrameOfReferenceUID = tags.text(heads[0], "FrameOfReferenceUID")
    registration_item.ReferencedImageSequence = [source_planes.reference_object(one) for one in heads]
    registration.RegistrationTypeCodeSequence = [tags.code_item(*ALIGNMENT)]
    registration.MatrixSequence = [_matrix_item(matrix)]
    registration_item.MatrixRegistrationSequence = [registration]
    return registration_item


def _identity(heads: Sequence[Any]) -> Dataset:
    """An item of the Deformable Registration Sequence for the image that stays where it is."""
    deformation = Dataset()
    deformation.SourceFrameOfReferenceUID = tags.text(heads[0], "FrameOfReferenceUID")
    deformation.ReferencedImageSequence = [source_planes.reference_object(one) for one in heads]
    deformation.RegistrationTypeCodeSequence = [tags.code_item(*ALIGNMENT)]
    deformation.PreDeformationMatrixRegistrationSequence = [_matrix_item(np.eye(4))]
    deformation.PostDeformationMatrixRegistrationSequence = [_matrix_item(np.eye(4))]
    return deformation


def _deformable(heads: Sequence[Any], transform: SpatialTransform, where: str) -> Dataset:
    """The item of the moving image: source = post (pre (registered) + vector), PS3.3 C.20.3.1.1."""
    fields = [number for number, part in enumerate(transform.parts) if isinstance(part, Displacement)]
    if len(fields) != 1:
        raise FormatError(f"{len(fields)} fields", where, "DICOM holds one: join them, or write .h5")
    field = transform.parts[fields[0]]
    assert isinstance(field, Displacement)  # noqa: S101 - it was just looked for
    pre, post = (_join_matrices(part) for part in (transform.parts[: fields[0]], transform.parts[fields[0] + 1 :]))
    deformation = _identity(heads)
    deformation.PreDeformationMatrixRegistrationSequence = [_matrix_item(_swap_sides(pre))]
    deformation.PostDeformationMatrixRegistrationSequence = [_matrix_item(_swap_sides(post))]
    deformation.DeformableRegistrationGridSequence = [_grid(field)]
    return deformation


def _join_matrices(parts: Sequence[Any]) -> Floats:
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
    if np.linalg.det(_world.swap_lps_ras(grid.affine)[:3, :3]) < 0:
        grid, vectors = grid.permute((0, 1, 2), (False, False, True)), vectors[..., ::-1]
    affine, steps = _world.swap_lps_ras(grid.affine), grid.steps
    grid_item = Dataset()
    grid_item.ImageOrientationPatient = series_writing.decimal_strings(
        [*(affine[:3, 0] / steps[0]), *(affine[:3, 1] / steps[1])]
    )
    grid_item.ImagePositionPatient = series_writing.decimal_strings(affine[:3, 3])
    grid_item.GridDimensions = list(grid.shape)
    grid_item.GridResolution = list(steps)
    # The vectors of a row follow one another, each as x, y, z.
    in_lps = vectors * np.reshape([-1.0, -1.0, 1.0], (3, 1, 1, 1))
    grid_item.VectorGridData = np.ascontiguousarray(in_lps.T, dtype="<f4").tobytes()
    return grid_item


def _name_instances(registration: Dataset, sources: Sequence[Sequence[Any]]) -> None:
    """The Common Instance Reference Module, PS3.3 C.12.2: series of the own study, then other studies."""
    study_of_fixed = tags.text(sources[0][0], "StudyInstanceUID")
    studies: dict[str, dict[str, list[Dataset]]] = {study_of_fixed: {}}
    for head in (one for heads in sources for one in heads):
        series = studies.setdefault(tags.text(head, "StudyInstanceUID"), {})
        references = series.setdefault(tags.text(head, "SeriesInstanceUID"), [])
        reference = source_planes.reference_object(head)
        if all(one.ReferencedSOPInstanceUID != reference.ReferencedSOPInstanceUID for one in references[-1:]):
            references.append(reference)
    of_fixed = studies.pop(study_of_fixed)
    registration.ReferencedSeriesSequence = [_series(uid, references) for uid, references in of_fixed.items()]
    others = []
    for study, series in studies.items():
        other = Dataset()
        other.StudyInstanceUID = study
        other.ReferencedSeriesSequence = [_series(uid, references) for uid, references in series.items()]
        others.append(other)
    if others:
        registration.StudiesContainingOtherReferencedInstancesSequence = others


def _series(uid: str, references: list[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = uid, references
    return series


SIDES = np.diag([-1.0, -1.0, 1.0, 1.0])
REMEDY = "Give a registration of two images"


@dataclass(frozen=True, eq=False)
class _Side:
    """A frame of reference that a registration connects.

    instances: SOP Instance UIDs of its images, as far as they are named
    parts:     from the registered frame of reference to it; empty where nothing moves
    """

    frame: str
    instances: frozenset[str]
    parts: tuple[TransformPart, ...] = ()

    @property
    def transform(self) -> SpatialTransform:
        """The parts as a transform."""
        return SpatialTransform(self.parts or (Affine(np.eye(4)),))


def read_registration(path: Path) -> SpatialTransform:
    """The transform from the registered frame of reference, which is that of the fixed image, to the moving image.

    Raises FormatError where the object connects several moving images, or is none of both kinds.
    """
    sides = [side for side in _sides(path) if side.parts]
    if len(sides) > 1:
        raise FormatError(f"registers {len(sides)} images", str(path), REMEDY)
    return sides[0].transform if sides else SpatialTransform((Affine(np.eye(4)),))


def transforms_to(path: Path, *images: Image) -> tuple[SpatialTransform, ...] | None:
    """The transforms from the registered frame of reference to that of each of two images, whichever is the moving one.

    An image without a frame of reference, such as a NIfTI file, is the other one of two; None where neither has one.
    Raises FormatError for images in other frames of reference, or of which it is not known which one is which.
    """
    sides, where = _sides(path), str(path)
    known = [_side_of(image, sides, where) for image in images]
    if not any(known):
        return None
    chosen = [own or _other_side(sides, [one for one in known if one is not None], where) for own in known]
    if chosen[0] is chosen[1]:
        raise FormatError("both images lie in the same one of the frames of reference that it registers", where, REMEDY)
    return tuple(side.transform for side in chosen)


def _side_of(image: Image, sides: Sequence[_Side], where: str) -> _Side | None:
    """The side of an image, by its frame of reference; of several with that frame the one that names its instances."""
    frame = image.geometry.frame_of_reference
    if frame is None:
        return None
    own = [side for side in sides if side.frame == frame]
    if len(own) > 1:
        instances = {
            tags.text(header_reading.read_header(Path(one)).dataset, "SOPInstanceUID") for one in _paths(image)
        }
        own = [side for side in own if instances & side.instances]
    if len(own) != 1:
        name = _paths(image)[0] if _paths(image) else "the image"
        problem = f"registers frames of reference, and {'none' if not own else 'several'} of them is that of {name}"
        raise FormatError(problem, where, REMEDY)
    return own[0]


def _other_side(sides: Sequence[_Side], known: Sequence[_Side], where: str) -> _Side:
    others = [side for side in sides if side not in known]
    if len(others) != 1:
        problem = f"registers {len(sides)} frames of reference, and one of the images states none"
        raise FormatError(problem, where, "Give both images as DICOM series")
    return others[0]


def _sides(path: Path) -> list[_Side]:
    """Every frame of reference that the object connects, the registered one among them."""
    dataset, where = header_reading.read_object(path), str(path)
    kind, registered = tags.text(dataset, "SOPClassUID"), tags.text(dataset, "FrameOfReferenceUID")
    if kind == SPATIAL_REGISTRATION:
        moved = [
            (tags.text(one, "FrameOfReferenceUID"), one, _from_registered(one, where))
            for one in tags.items(dataset, "RegistrationSequence")
        ]
    elif kind == DEFORMABLE_REGISTRATION:
        moved = [
            (tags.text(one, "SourceFrameOfReferenceUID"), one, _deformable_parts(one, where))
            for one in tags.items(dataset, "DeformableRegistrationSequence")
        ]
    else:
        raise FormatError("is no DICOM registration", where, "Give a Spatial or Deformable Spatial Registration")
    still = {registered: frozenset[str]()}
    for frame, item, parts in moved:
        if not parts:
            still[frame] = still.get(frame, frozenset()) | _instances(item)
    sides = [_Side(frame, _instances(item), tuple(parts)) for frame, item, parts in moved if parts]
    return [*sides, *(_Side(frame, instances) for frame, instances in still.items())]


def _instances(item: Any) -> frozenset[str]:
    return frozenset(tags.text(one, "ReferencedSOPInstanceUID") for one in tags.items(item, "ReferencedImageSequence"))


def _from_registered(item: Any, where: str) -> list[TransformPart]:
    """RAS+ mm of the registered frame of reference to an image's own; the object leads the other way."""
    matrix = np.eye(4)
    for registration in tags.items(item, "MatrixRegistrationSequence"):
        for matrix_item in tags.items(registration, "MatrixSequence"):
            matrix = _read_matrix(matrix_item, where) @ matrix
    return [] if np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9) else [Affine(np.linalg.inv(matrix))]


def _read_matrix(item: Any, where: str) -> Floats:
    matrix = tags.numbers(item, "FrameOfReferenceTransformationMatrix", where, count=16)
    if matrix is None:
        raise FormatError("a matrix is missing", where, "Export the registration again")
    return cast("Floats", SIDES @ np.reshape(matrix, (4, 4)) @ SIDES)


def _deformable_parts(item: Any, where: str) -> list[TransformPart]:
    """Matrix, field and matrix of one image, without those that change nothing."""
    parts: list[TransformPart] = []
    for keyword in ("PreDeformationMatrixRegistrationSequence", "", "PostDeformationMatrixRegistrationSequence"):
        if not keyword:
            grid = tags.first_item(item, "DeformableRegistrationGridSequence")
            parts += [] if grid is None else [_field(grid, where)]
            continue
        for matrix_item in tags.items(item, keyword):
            matrix = _read_matrix(matrix_item, where)
            parts += [] if np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9) else [Affine(matrix)]
    return parts


def _field(item: Any, where: str) -> Displacement:
    axes, position = (tags.numbers(item, name, where) for name in ("ImageOrientationPatient", "ImagePositionPatient"))
    shape, steps = (tags.numbers(item, name, where, count=3) for name in ("GridDimensions", "GridResolution"))
    data = tags.attribute(item, "VectorGridData", where)
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
    return Displacement(np.diag(SIDES)[:3].reshape(3, 1, 1, 1) * ordered, Geometry(size, _world.swap_lps_ras(affine)))
