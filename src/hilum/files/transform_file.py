"""Files of spatial transforms: ITK's .h5 and .tfm, NIfTI fields, DICOM registrations.

A transform takes points of the fixed image to points of the moving one, in every format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from hilum.errors import FormatError, HilumError, UsageError
from hilum.files import _world, file_formats
from hilum.files.dicom import registration_object
from hilum.files.nifti import nifti_writing
from hilum.files.storage import atomic
from hilum.lazy import SimpleITK
from hilum.values import Affine, Displacement, Floats, Geometry, Image, SpatialTransform
from hilum.values.spatial_transform import TransformPart

ITK, NIFTI, DICOM = (".h5", ".hdf5", ".tfm", ".txt"), (".nii.gz", ".nii"), (".dcm",)
# What is read besides: ANTs' affine transforms are ITK's in a MATLAB file, the others are named with the way out.
FURTHER = (".mat", ".xfm", ".lta")
# NIfTI intents of a field, nifti1.h: VECTOR in ITK's LPS, DISPVECT in RAS+; so ITK 5.4 reads both.
VECTOR, DISPLACEMENT_VECTOR = 1007, 1006
# mm: a straight line that ITK calls linear, measured at this distance so that its matrix keeps all digits.
FAR = 1024.0
REMEDY = "Give .h5, .tfm, .nii.gz or .dcm, or the .mat of ANTs"
# How transforms of other programs begin, what they are, and the way out.
OTHERS = {
    r"\s*MNI Transform File": ("a transform of MINC", "Convert it by `itk_convert_xfm IN.xfm OUT.h5`"),
    r"(#.*\n|\s)*type\s*=\s*\d": (
        "a transform of FreeSurfer",
        "Convert it by `lta_convert --inlta IN --outitk OUT.txt`",
    ),
    r"\s*\(Transform\s": (
        "parameters of elastix",
        "Write the field by `transformix -def all -tp FILE -out FOLDER`, and give deformationField.nii.gz",
    ),
}
FSL = (
    "holds a matrix of FSL, which counts along the voxels of its two images",
    "Convert it by `c3d_affine_tool -ref FIXED -src MOVING FILE -fsl2ras -oitk OUT.txt`",
)
HEAD_BYTES = 1 << 12


def read_transform(path: str | Path) -> SpatialTransform:
    """A spatial transform from a file of ITK (.h5, .tfm) or ANTs (.mat), a NIfTI field, or a DICOM registration.

    Points are RAS+ mm; of two axes they are (row, column), ITK's y and x.
    Raises UsageError for a missing file, FormatError for another kind of transform, with the reason and the way out.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("there is no such file", str(path), "Check the path")
    readers = {ITK + FURTHER: _read_itk, NIFTI: _read_nifti, DICOM: registration_object.read_registration}
    return cast("SpatialTransform", _by_suffix(path, readers)(path))


def transforms_to_images(path: str | Path, fixed: Image, moving: Image) -> tuple[SpatialTransform, ...] | None:
    """The transforms from what a DICOM registration registers to both images, whichever of them it moves.

    None for other formats, and where neither image states a frame of reference: then the file is for this order alone.
    """
    path = Path(path)
    is_dicom = path.name.lower().endswith(DICOM) and path.is_file()
    return registration_object.transforms_to(path, fixed, moving) if is_dicom else None


def write_transform(
    transform: SpatialTransform,
    path: str | Path,
    *,
    fixed: Image | None = None,
    moving: Image | None = None,
    overwrite: bool = False,
) -> None:
    """Write a transform: .h5 and .tfm for ITK, .nii.gz for a single field, .dcm as a DICOM registration.

    fixed, moving: the DICOM images that a registration connects; other formats do not need them
    Raises FormatError for what the format cannot hold.
    """
    path = Path(path)

    def registration(transform: SpatialTransform, partial: Path) -> None:
        """A DICOM registration of both images."""
        if fixed is None or moving is None:
            raise FormatError("a DICOM registration connects two images", str(path), "Give `fixed` and `moving`")
        registration_object.write_registration(transform, fixed, moving, partial)

    write = _by_suffix(path, {ITK: _write_itk, NIFTI: _write_nifti, DICOM: registration})
    with atomic.write_whole(path, overwrite=overwrite) as partial:
        try:
            write(transform, partial)
        except HilumError as error:
            raise error.stating(where=str(path)) from error


def _by_suffix(path: Path, kinds: dict[tuple[str, ...], Callable[..., Any]]) -> Callable[..., Any]:
    for suffixes, function in kinds.items():
        if path.name.lower().endswith(suffixes):
            return function
    raise FormatError("the kind of transform is not known", str(path), REMEDY)


def _swap_sides(matrix: Floats) -> Floats:
    """A matrix of points in RAS+ mm (of a picture (row, column)) as one in LPS (x, y), or the reverse."""
    if len(matrix) == 3:
        return _world.swap_rows_and_columns(matrix)
    sides = np.diag([-1.0, -1.0, *np.ones(len(matrix) - 2)])
    return sides @ matrix @ sides


def _swapped_vectors(vectors: Floats) -> Floats:
    """(n, ...) lengths along the axes of one world as those along the axes of the other."""
    if len(vectors) == 2:
        return vectors[::-1]
    return vectors * np.reshape(np.array([-1, -1, 1], vectors.dtype), (3, *[1] * (vectors.ndim - 1)))


# ITK


def _read_itk(path: Path) -> SpatialTransform:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES).decode("utf-8-sig", errors="replace")
    for beginning, (what, remedy) in OTHERS.items():
        if re.match(beginning, head):
            raise FormatError(f"holds {what}, which is not read", str(path), remedy)
    if _is_bare_matrix(head):
        raise FormatError(FSL[0], str(path), FSL[1])
    try:
        read_one = SimpleITK.ReadTransform(str(path))
    except RuntimeError as error:
        remedy = "Write it again with the program that made it, as .h5 or .tfm"
        raise FormatError("is no transform that ITK can read", str(path), remedy) from error
    parts = tuple(_part_of(one, str(path)) for one in _flat(read_one))
    return SpatialTransform(parts or (Affine(np.eye(read_one.GetDimension() + 1)),))


def _is_bare_matrix(text: str) -> bool:
    """Whether a text is sixteen numbers and nothing else."""
    words = text.split()
    if len(words) != 16:
        return False
    try:
        return len([float(word) for word in words]) == len(words)
    except ValueError:
        return False


def _flat(transform: Any) -> Iterator[Any]:
    """The transforms that a composite applies, in their order; ITK applies the last one first."""
    if transform.GetTransformEnum() != SimpleITK.sitkComposite:
        yield transform.Downcast()
        return
    composite = SimpleITK.CompositeTransform(transform)
    for number in reversed(range(composite.GetNumberOfTransforms())):
        yield from _flat(composite.GetNthTransform(number))


def _part_of(transform: Any, where: str) -> TransformPart:
    dimension = transform.GetDimension()
    if dimension not in (2, 3):
        raise FormatError(f"a transform of {dimension} axes", where, "Give one of two or three axes")
    if transform.GetTransformEnum() == SimpleITK.sitkDisplacementField:
        return _field_of(transform.GetDisplacementField())
    if not transform.IsLinear():
        problem = f"holds a {transform.GetName()}, which is neither linear nor a field of displacements"
        raise FormatError(problem, where, "Turn it into a displacement field with the program that made it")
    matrix = np.eye(dimension + 1)
    matrix[:-1, -1] = origin = np.array(transform.TransformPoint([0.0] * dimension))
    for axis in range(dimension):
        point = [0.0] * dimension
        point[axis] = FAR
        matrix[:-1, axis] = (np.array(transform.TransformPoint(point)) - origin) / FAR
    return Affine(_swap_sides(matrix))


def _field_of(field: Any) -> Displacement:
    """ITK's image of vectors as a field of ours."""
    dimension = field.GetDimension()
    direction = np.reshape(field.GetDirection(), (dimension, dimension))
    affine = np.eye(dimension + 1)
    affine[:-1, :-1], affine[:-1, -1] = direction * field.GetSpacing(), field.GetOrigin()
    # (slice, row, column, component) there, (component, column, row, slice) here; a picture is (row, column)
    vectors = SimpleITK.GetArrayFromImage(field).T
    if dimension == 2:
        grid = Geometry(field.GetSize()[::-1], _world.swap_rows_and_columns(affine), oriented=False)
        return Displacement(_swapped_vectors(vectors).swapaxes(1, 2), grid)
    return Displacement(_swapped_vectors(vectors), Geometry(field.GetSize(), _world.swap_lps_ras(affine)))


def _write_itk(transform: SpatialTransform, path: Path) -> None:
    if transform.ndim not in (2, 3):
        raise FormatError(f"a transform of {transform.ndim} axes", str(path), "ITK has two and three")
    parts = [_itk_part(part) for part in transform.parts] or [
        SimpleITK.Transform(transform.ndim, SimpleITK.sitkIdentity)
    ]
    composite = parts[0] if len(parts) == 1 else SimpleITK.CompositeTransform(parts[::-1])
    SimpleITK.WriteTransform(composite, str(path))


def _itk_part(part: TransformPart) -> Any:
    if isinstance(part, Affine):
        matrix = _swap_sides(part.matrix)
        linear = SimpleITK.AffineTransform(part.ndim)
        linear.SetMatrix(matrix[:-1, :-1].ravel().tolist())
        linear.SetTranslation(matrix[:-1, -1].tolist())
        return linear
    grid = part.geometry
    refuse_sheared(grid, "ITK")
    vectors, affine, sizes = _swapped_vectors(part.vectors), _world.swap_lps_ras(grid.affine), grid.steps
    if grid.ndim == 2:
        vectors, affine, sizes = vectors.swapaxes(1, 2), _world.swap_rows_and_columns(grid.affine), grid.steps[::-1]
    field = SimpleITK.GetImageFromArray(np.ascontiguousarray(vectors.T, dtype=np.float64), isVector=True)
    field.SetSpacing(sizes)
    field.SetOrigin(affine[:-1, -1].tolist())
    field.SetDirection((affine[:-1, :-1] / sizes).ravel().tolist())
    return SimpleITK.DisplacementFieldTransform(field)


def refuse_sheared(grid: Geometry, what: str) -> None:
    """Raise FormatError for a field on a grid whose axes are not at right angles."""
    if grid.is_sheared:
        raise FormatError(
            f"{what} has no fields on a grid whose axes are not at right angles",
            "transform",
            "Resample the field onto a grid at right angles",
        )


# NIfTI


def _read_nifti(path: Path) -> SpatialTransform:
    image = file_formats.read(path)
    header = image.source.header if image.source is not None else None
    intent = int(header["intent_code"]) if header is not None else 0
    axes = int(header["dim"][0]) if header is not None else 0
    if axes != 5:
        remedy = "Write the field with its components on the fifth axis and intent 1007, as ITK and ANTs do"
        raise FormatError(f"a field has five axes, and this file has {axes}", str(path), remedy)
    if intent not in (VECTOR, DISPLACEMENT_VECTOR):
        remedy = "State intent 1007 for components in LPS, or 1006 for RAS+"
        raise FormatError(f"intent {intent} does not say which way the components point", str(path), remedy)
    if not image.geometry.has_sides or image.shape[0] != 3:
        raise FormatError(f"{image!r} is no field of displacements", str(path), "Give three components on a volume")
    vectors = image.data.astype(np.float64)
    return SpatialTransform((Displacement(_swapped_vectors(vectors) if intent == VECTOR else vectors, image.geometry),))


def _write_nifti(transform: SpatialTransform, path: Path) -> None:
    match transform.parts:
        case (Displacement() as field,) if field.geometry.has_sides:
            refuse_sheared(field.geometry, "ITK")
            vectors = _swapped_vectors(field.vectors).astype(np.float32, copy=False)
            nifti_writing.write(Image(vectors, field.geometry, channels=("x", "y", "z")), path)
        case _:
            problem = f"NIfTI holds one field of a volume, not {transform!r}"
            raise FormatError(problem, str(path), "Write .h5, which holds every part")
