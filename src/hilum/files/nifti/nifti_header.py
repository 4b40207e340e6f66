"""The header of a NIfTI file: its fields, little-endian, and the grid that its forms, their codes and its units state.

https://nifti.nimh.nih.gov: nifti1.h, nifti2.h. The class is our own, because nibabel, which reads odd headers, takes a
third of a second to import: as long as converting a series.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hilum.errors import GeometryError
from hilum.lazy import nibabel
from hilum.values import Floats, Geometry

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_COMMON_TAIL = [("descrip", "S80"), ("aux_file", "S24")]
MAGIC: Final = {1: b"n+1", 2: b"n+2"}
END_OF_LINE: Final = (13, 10, 26, 10)  # damaged by a transfer as text
# DT_* of nifti1.h; voxels of several bytes are colours.
TYPES: Final = {
    "u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280,
}  # fmt: skip
COLOURS: Final = {3: 128, 4: 2304}
SCANNER: Final = 1  # NIFTI_XFORM_SCANNER_ANAT
MM, SECONDS, SPACE = 2, 8, 7  # NIFTI_UNITS_*, and the bits of the unit of space
# s in NIFTI_UNITS_SEC, _MSEC and _USEC, and the fields beside pixdim that are counted in them.
OF_A_SECOND: Final = {SECONDS: 1.0, 16: 1e-3, 24: 1e-6}
TIMES: Final = ("toffset", "slice_duration")
INTENTS: Final = {"none": 0, "label": 1002, "vector": 1007}
# Below it the quaternion's first part is 0: readers compute it from the others in this precision.
SMALLEST_SQUARE: Final = {1: 3 * float(np.finfo(np.float32).eps), 2: 3 * float(np.finfo(np.float64).eps)}
# nibabel's names of NIFTI_UNITS_*; a form without a unit is in mm, because NIfTI-1 defines forms in mm.
MM_OF_UNITS = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
# The largest part of a voxel by which two forms of one code may differ (the geometry contract).
FORM_TOLERANCE = 0.1


def _form_fields(code: str, number: str) -> list[tuple[Any, ...]]:
    """The fields of qform and sform, of these types."""
    parts = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    codes = [("qform_code", code), ("sform_code", code)]
    return [*codes, *((part, number) for part in parts), *((f"srow_{axis}", number, (4,)) for axis in "xyz")]


FIELDS: Final = {
    1: np.dtype([
        ("sizeof_hdr", "<i4"), ("data_type", "S10"), ("db_name", "S18"), ("extents", "<i4"), ("session_error", "<i2"),
        ("regular", "S1"), ("dim_info", "u1"), ("dim", "<i2", (8,)), ("intent_p1", "<f4"), ("intent_p2", "<f4"),
        ("intent_p3", "<f4"), ("intent_code", "<i2"), ("datatype", "<i2"), ("bitpix", "<i2"), ("slice_start", "<i2"),
        ("pixdim", "<f4", (8,)), ("vox_offset", "<f4"), ("scl_slope", "<f4"), ("scl_inter", "<f4"),
        ("slice_end", "<i2"), ("slice_code", "u1"), ("xyzt_units", "u1"), ("cal_max", "<f4"), ("cal_min", "<f4"),
        ("slice_duration", "<f4"), ("toffset", "<f4"), ("glmax", "<i4"), ("glmin", "<i4"), *_COMMON_TAIL,
        *_form_fields("<i2", "<f4"), ("intent_name", "S16"), ("magic", "S4"),
    ]),
    2: np.dtype([
        ("sizeof_hdr", "<i4"), ("magic", "S4"), ("eol_check", "i1", (4,)), ("datatype", "<i2"), ("bitpix", "<i2"),
        ("dim", "<i8", (8,)), ("intent_p1", "<f8"), ("intent_p2", "<f8"), ("intent_p3", "<f8"),
        ("pixdim", "<f8", (8,)), ("vox_offset", "<i8"), ("scl_slope", "<f8"), ("scl_inter", "<f8"), ("cal_max", "<f8"),
        ("cal_min", "<f8"), ("slice_duration", "<f8"), ("toffset", "<f8"), ("slice_start", "<i8"),
        ("slice_end", "<i8"), *_COMMON_TAIL, *_form_fields("<i4", "<f8"), ("slice_code", "<i4"), ("xyzt_units", "<i4"),
        ("intent_code", "<i4"), ("intent_name", "S16"), ("dim_info", "u1"), ("unused_str", "S15"),
    ]),
}  # fmt: skip


class NiftiHeader:
    """The header of a single file, version 1 or 2: of float32 in mm without forms, until it is told more.

    raw:        the bytes of a header to copy, little-endian
    extensions: what stands between header and voxels, as it is written: each with its size and code
    """

    def __init__(self, version: int, raw: bytes | None = None, extensions: bytes = b"") -> None:
        self.version, self.extensions = version, extensions
        kind = FIELDS[version]
        self.fields = np.zeros((), kind) if raw is None else np.frombuffer(raw, kind, 1).copy()[0]
        if raw is None:
            self["sizeof_hdr"], self["pixdim"], self["datatype"], self["bitpix"] = kind.itemsize, 1, TYPES["f4"], 32
            if version == 2:
                self["eol_check"] = END_OF_LINE
        self["magic"] = MAGIC[version]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.fields[name] = value

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """The length of each axis, the fastest first; what the header says of further axes is forgotten."""
        self["dim"] = 1
        self["dim"][: len(shape) + 1] = (len(shape), *shape)
        self["pixdim"][len(shape) + 1 :] = 1.0

    def set_dtype(self, dtype: np.dtype[Any]) -> None:
        """The type of the voxels."""
        self["datatype"] = TYPES[dtype.str[1:]] if dtype.names is None else COLOURS[len(dtype.names)]
        self["bitpix"] = 8 * dtype.itemsize

    def set_intent(self, name: str) -> None:
        """State what the voxels are: "label", "vector" or "none" of these."""
        self["intent_code"], self["intent_name"] = INTENTS[name], b""
        self["intent_p1"] = self["intent_p2"] = self["intent_p3"] = 0.0

    def set_units(self, *, mm: bool | None = None, seconds: bool = False) -> None:
        """Whether steps in space are in mm, as before for None, and those in time in s; others are not known.

        Other times that the header states go along, and are forgotten where one of the units is not known.
        """
        before = OF_A_SECOND.get(int(self["xyzt_units"]) & ~SPACE)
        if seconds or before:
            for name in TIMES:
                self[name] = float(self[name]) * before if seconds and before else 0.0
        space = int(self["xyzt_units"]) & SPACE if mm is None else MM * mm
        self["xyzt_units"] = space | SECONDS * seconds

    @property
    def sform(self) -> Floats:
        """(4, 4) of the voxel's index to the place in the header's unit."""
        return np.array([self["srow_x"], self["srow_y"], self["srow_z"], (0, 0, 0, 1)], np.float64)

    def set_sform(self, affine: Floats) -> None:
        """Set the sform, in the coordinates of the scanner."""
        self["sform_code"] = SCANNER
        self["srow_x"], self["srow_y"], self["srow_z"] = affine[:3]

    @property
    def qform(self) -> Floats:
        """The affine of the quaternion as readers complete it from its stored parts."""
        b, c, d = (float(self[f"quatern_{part}"]) for part in "bcd")
        square = 1.0 - (b * b + c * c + d * d)
        a = 0.0 if square < SMALLEST_SQUARE[self.version] else float(np.sqrt(square))
        affine = np.eye(4)
        sizes = self["pixdim"][1:4] * np.array([1.0, 1.0, self["pixdim"][0]])
        affine[:3, :3] = _rotation(np.array([a, b, c, d])) * sizes
        affine[:3, 3] = [self[f"qoffset_{axis}"] for axis in "xyz"]
        return affine

    def set_qform(self, affine: Floats) -> None:
        """Set the qform, in the coordinates of the scanner; of a shear the nearest turn, which `qform` then shows."""
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        turn = affine[:3, :3] / sizes
        side = 1.0 if np.linalg.det(turn) > 0 else -1.0
        turn[:, 2] *= side
        left, _, right = np.linalg.svd(turn)
        _, *parts = _quaternion(left @ right)
        self["qform_code"], self["pixdim"][:4] = SCANNER, (side, *sizes)
        for part, value in zip("bcd", parts, strict=True):
            self[f"quatern_{part}"] = value
        for axis, value in zip("xyz", affine[:3, 3], strict=True):
            self[f"qoffset_{axis}"] = value

    def write_to(self, file: BinaryIO) -> None:
        """The header, its extensions, and where the voxels begin: behind both."""
        flag = b"\1\0\0\0" if self.extensions else bytes(4)
        self["vox_offset"] = self.fields.dtype.itemsize + len(flag) + len(self.extensions)
        file.write(self.fields.tobytes() + flag + self.extensions)


def _quaternion(turn: Floats) -> Floats:
    """(a, b, c, d) of a rotation matrix, a not negative. Bar-Itzhack, J Guid Control Dyn 2000, doi:10.2514/2.4654"""
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = turn
    symmetric = np.array([
        [xx - yy - zz, yx + xy, zx + xz, yz - zy],
        [yx + xy, yy - xx - zz, zy + yz, zx - xz],
        [zx + xz, zy + yz, zz - xx - yy, xy - yx],
        [yz - zy, zx - xz, xy - yx, xx + yy + zz],
    ])  # fmt: skip
    values, vectors = np.linalg.eigh(symmetric / 3)
    quaternion: Floats = vectors[[3, 0, 1, 2], np.argmax(values)]
    return -quaternion if quaternion[0] < 0 else quaternion


def _rotation(quaternion: Floats) -> Floats:
    """(3, 3) of a quaternion (a, b, c, d), whatever its length."""
    a, b, c, d = quaternion / np.linalg.norm(quaternion)
    return np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip


def geometry_of(header: Any, where: str, prefer: Literal["sform", "qform"] | None = None) -> tuple[Geometry, list[str]]:
    """The grid and notes. Raises GeometryError where the forms leave two readings or none."""
    sizes = [int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]]
    shape = tuple([*sizes, 1, 1, 1][:3])  # two axes are one slice
    unit, has_unit = _unit(header)
    forms = _forms(header, where, prefer)
    try:
        if not forms:
            return _without_forms(header, shape, unit, has_unit)
        affine, notes = _choose_form(forms, shape, where)
        if prefer is not None:
            has_preferred = prefer in forms
            notes.append(
                f"The {prefer} was asked for." if has_preferred else f"There is no {prefer}, though it was asked for."
            )
        if not has_unit:
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
    return MM_OF_UNITS.get(name, 1.0), name in MM_OF_UNITS


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


def _choose_form(
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


def _without_forms(header: Any, shape: tuple[int, ...], unit: float, is_known: bool) -> tuple[Geometry, list[str]]:
    """The grid of a header without sides: spacing is known only if the header states its unit."""
    steps = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    ndim = int(header["dim"][0])
    for axis in range(3):
        if (axis >= ndim or shape[axis] == 1) and not steps[axis] > 0:
            steps[axis] = 1.0  # a single slice without thickness
    notes = ["The header does not state left and right (both codes 0): orientation unknown."]
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        return Geometry.of_pixels(shape), [*notes, "The header has no voxel size: size in mm unknown."]
    if not is_known:
        unknown = Geometry(shape, np.diag([*steps, 1.0]), physical=False, oriented=False)
        return unknown, [*notes, "The header states no unit: size in mm unknown."]
    return Geometry.of_spacing(shape, (steps * unit).tolist()), notes
