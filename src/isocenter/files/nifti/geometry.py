"""The grid of a NIfTI file, from sform, qform, their codes and the units."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import GeometryError
from isocenter.files.nifti.header import NiftiHeader
from isocenter.lazy import nibabel
from isocenter.values import Floats, Geometry

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

# nibabel's names of NIFTI_UNITS_*; a form without a unit is in mm, because NIfTI-1 defines forms in mm.
MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
# The largest part of a voxel by which two forms of one code may differ (the geometry contract).
FORM_TOLERANCE = 0.1


def geometry_of(header: Any, where: str, prefer: Literal["sform", "qform"] | None = None) -> tuple[Geometry, list[str]]:
    """The grid and notes. Raises GeometryError where the forms leave two readings or none."""
    given = [int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]]
    shape = tuple([*given, 1, 1, 1][:3])  # two axes are one slice
    unit, stated = _unit(header)
    forms = _forms(header, where, prefer)
    try:
        if not forms:
            return _without_forms(header, shape, unit, stated)
        affine, notes = _chosen(forms, shape, where)
        if prefer is not None:
            there = prefer in forms
            notes.append(f"The {prefer} was asked for." if there else f"There is no {prefer}, though it was asked for.")
        if not stated:
            notes.append("The header states no unit; mm, as NIfTI-1 defines its forms.")
        scale = np.diag([unit, unit, unit, 1.0])
        return Geometry(shape, scale @ affine), notes
    except GeometryError as error:
        remedy = error.remedy if error.where == where else "Correct sform and qform in the header"
        raise GeometryError(error.problem, where, remedy) from error


def is_nifti(header: Any) -> TypeGuard[Nifti1Header]:
    """Whether a header is one of NIfTI, and not of Analyze 7.5."""
    if isinstance(header, NiftiHeader):  # without a look at nibabel, which would be imported
        return True
    return isinstance(header, nibabel.nifti1.Nifti1Header)


def _unit(header: Any) -> tuple[float, bool]:
    """(mm in one unit of the header, whether the header states its unit)."""
    if not is_nifti(header):
        return 1.0, True  # Analyze 7.5 gives voxel sizes in mm
    try:
        name = header.get_xyzt_units()[0]
    except KeyError:
        name = "unknown"
    return MM.get(name, 1.0), name in MM


def _forms(header: Any, where: str, prefer: str | None) -> dict[str, tuple[NDArray[np.float64], int]]:
    """{name: (affine, code)} of the forms whose code is above 0; of both only the preferred one."""
    if not is_nifti(header):
        return {}
    forms = {}
    if int(header["sform_code"]) > 0:
        forms["sform"] = (np.asarray(header.get_sform(), dtype=np.float64), int(header["sform_code"]))
    if int(header["qform_code"]) > 0 and prefer not in forms:
        forms["qform"] = (_qform(header, where), int(header["qform_code"]))
    return {prefer: forms[prefer]} if prefer in forms else forms


def _qform(header: Any, where: str) -> NDArray[np.float64]:
    """The header's qform; the missing thickness of a single slice is taken as 1, as no voxel depends on it."""
    header = header.copy()
    sizes = header["dim"][1:4]
    for axis in range(3):
        if header["pixdim"][1 + axis] == 0 and (sizes[axis] <= 1 or axis >= int(header["dim"][0])):
            header["pixdim"][1 + axis] = 1.0
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (nibabel.spatialimages.HeaderDataError, ValueError) as error:
        raise GeometryError(
            f"the qform is not a rotation ({error})", where, "Give --prefer sform, or correct it"
        ) from error


def _chosen(
    forms: dict[str, tuple[NDArray[np.float64], int]], shape: tuple[int, ...], where: str
) -> tuple[NDArray[np.float64], list[str]]:
    if len(forms) == 1:
        return next(iter(forms.values()))[0], []
    (sform, s_code), (qform, q_code) = forms["sform"], forms["qform"]
    apart = apart_in_voxels(Geometry(shape, sform), qform)
    if apart <= FORM_TOLERANCE:
        return sform, []
    if s_code != q_code:
        return sform, [f"sform (code {s_code}) and qform (code {q_code}) lie {apart:.3g} voxels apart; sform used."]
    raise GeometryError(
        f"sform and qform both have code {s_code} and lie {apart:.3g} voxels apart",
        where,
        "Choose the right one with --prefer sform or --prefer qform",
    )


def apart_in_voxels(grid: Geometry, affine: Floats) -> float:
    """The largest distance in voxels by which another affine moves a corner of a grid."""
    moved = replace(grid, affine=affine).corners
    corners = grid.to_index(grid.corners)
    return float(np.abs(grid.to_index(moved) - corners).max())


def _without_forms(header: Any, shape: tuple[int, ...], unit: float, stated: bool) -> tuple[Geometry, list[str]]:
    """The grid of a header without sides: spacing is known only if the header states its unit."""
    steps = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    given = int(header["dim"][0])
    for axis in range(3):
        if (axis >= given or shape[axis] == 1) and not steps[axis] > 0:
            steps[axis] = 1.0  # a single slice without thickness
    notes = ["The header does not state left and right (both codes 0): orientation unknown."]
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        return Geometry.of_pixels(shape), [*notes, "The header has no voxel size: size in mm unknown."]
    if not stated:
        unknown = Geometry(shape, np.diag([*steps, 1.0]), physical=False, oriented=False)
        return unknown, [*notes, "The header states no unit: size in mm unknown."]
    return Geometry.of_spacing(shape, (steps * unit).tolist()), notes
