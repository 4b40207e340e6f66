"""The header of a NIfTI file in which there is nothing to repair: of most files. What is odd in others nibabel knows.

Its import takes a third of a second: as long as to read a volume.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final, Literal, Self

import numpy as np

from isocenter.files.nifti.header import END_OF_LINE, FIELDS, MAGIC, SMALLEST_SQUARE, TYPES, NiftiHeader

ORDERS: Final[tuple[Literal["<"], Literal[">"]]] = ("<", ">")
FORM_CODES: Final = range(6)
ALIGNMENT: Final = 16  # bytes, at which SPM wants the voxels to begin
# NIFTI_UNITS_*, by the names that nibabel gives them.
OF_SPACE: Final = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
OF_TIME: Final = {0: "unknown", 8: "sec", 16: "msec", 24: "usec", 32: "hz", 40: "ppm", 48: "rads"}
NAMES: Final = {number: name for name, number in TYPES.items()}
FREESURFER: Final = (27307, 1, 6)  # an axis of 163842 points, in three


class SoundHeader(NiftiHeader):
    """A header of a single file, without extensions, whose fields nibabel's checks pass; its methods are nibabel's."""

    is_single = True

    @classmethod
    def of(cls, head: bytes) -> Self | None:
        """The header at the start of a file; None where it is another one, or a check does not pass."""
        for version, kind in FIELDS.items():
            size = kind.itemsize
            for order in ORDERS:
                if len(head) < size + 4 or np.frombuffer(head, f"{order}i4", 1)[0] != size:
                    continue
                given = np.frombuffer(head, kind.newbyteorder(order), 1)
                header = cls(version, given.astype(kind).tobytes())
                header.order = order
                magic = bytes(given["magic"][0])
                return header if magic == MAGIC[version] and not head[size] and header._is_sound else None
        return None

    order: Literal["<", ">"] = "<"

    @property
    def _is_sound(self) -> bool:
        count, sizes, steps = int(self["dim"][0]), self["dim"], self["pixdim"]
        units, offset = int(self["xyzt_units"]), int(self["vox_offset"])
        name = NAMES.get(int(self["datatype"]))
        square = 1.0 - sum(float(self[f"quatern_{part}"]) ** 2 for part in "bcd")
        return bool(
            name is not None
            and int(self["bitpix"]) == 8 * np.dtype(name).itemsize
            and 1 <= count < len(sizes)
            and (sizes[1 : count + 1] > 0).all()
            and tuple(sizes[1:4]) != FREESURFER
            and steps[0] in (-1, 1)
            and (np.isfinite(steps[1:4]) & (steps[1:4] > 0)).all()
            and (offset == 0 or (offset >= self.single_vox_offset and offset % ALIGNMENT == 0))
            and offset == self["vox_offset"]
            and {int(self["qform_code"]), int(self["sform_code"])} <= set(FORM_CODES)
            and (int(self["qform_code"]) == 0 or square >= SMALLEST_SQUARE[self.version])
            and units % 8 in OF_SPACE
            and units - units % 8 in OF_TIME
            and (self.version == 1 or tuple(self["eol_check"]) == END_OF_LINE)
        )

    @property
    def single_vox_offset(self) -> int:
        """Where the voxels begin at the earliest."""
        return int(self.fields.dtype.itemsize) + 4

    @property
    def binaryblock(self) -> bytes:
        """Its bytes, little-endian."""
        return bytes(self.fields.tobytes())

    def as_byteswapped(self, endianness: str) -> Self:
        """Itself, because its fields are little-endian whatever the file's are."""
        return self

    def copy(self) -> Self:
        """Another one whose fields are its own."""
        other = copy(self)
        other.fields = self.fields.copy()
        return other

    def get_data_dtype(self) -> np.dtype[Any]:
        """The type of the voxels, as they stand in the file."""
        return np.dtype(NAMES[int(self["datatype"])]).newbyteorder(self.order)

    def get_data_shape(self) -> tuple[int, ...]:
        """The length of each axis, the fastest first."""
        return tuple(int(size) for size in self["dim"][1 : int(self["dim"][0]) + 1])

    def get_xyzt_units(self) -> tuple[str, str]:
        """The units of steps in space and in time."""
        units = int(self["xyzt_units"])
        return OF_SPACE[units % 8], OF_TIME[units - units % 8]

    def get_sform(self) -> np.ndarray:
        """(4, 4)"""
        return self.sform

    def get_qform(self) -> np.ndarray:
        """(4, 4)"""
        return self.qform
