"""Diffusion weighting of a single-frame MR image, where the maker hides it too."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from isocenter.errors import FormatError
from isocenter.files.dicom.tags import lenient, numbers

# (group, creator, element) of the b-value. GE packs further things above 10^6 into the same number.
B_VALUES = (
    (0x2001, "Philips Imaging DD 001", 0x03),
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
)
GE_PACKING = 1_000_000
# Siemens writes the direction in the patient's frame; GE's is in the image's and Philips' is in the standard's place.
SIEMENS_DIRECTION = (0x0019, "SIEMENS MR HEADER", 0x0E)

Direction = tuple[float, ...]


def b_value(dataset: Dataset) -> float | None:
    """s/mm2, from the standard's attribute, else from the maker's."""
    told = lenient(dataset, "DiffusionBValue")
    if told is not None:
        return told
    for place in B_VALUES:
        found = _private(dataset, *place)
        if found:
            return found[0] % GE_PACKING if found[0] >= GE_PACKING else found[0]
    return None


def gradient_direction(dataset: Dataset) -> Direction | None:
    """(3,) LPS unit vector of the gradient, None where it isn't told; zeros where there is no weighting."""
    try:
        told = numbers(dataset, "DiffusionGradientOrientation", "", 3)
    except FormatError:
        told = None
    found = told or _private(dataset, *SIEMENS_DIRECTION)
    return tuple(round(x, 5) for x in found) if found and len(found) == 3 else None


def _private(dataset: Dataset, group: int, creator: str, element: int) -> tuple[float, ...]:
    """The numbers of a private attribute; none where it is absent or unreadable."""
    # Makers claim their blocks at (group,0010) to (group,00FF), PS3.5 7.8.1; the library takes long to look there.
    claims = [tag for tag in dataset.keys() if tag >> 8 == group << 8 and tag & 0xFF >= 0x10]  # noqa: SIM118
    try:
        block = next((tag & 0xFF for tag in claims if str(dataset[tag].value).strip() == creator), None)
        if block is None:
            return ()
        value = dataset[group << 16 | block << 8 | element].value
        values = value if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]
        found = tuple(float(v) for v in values)
    except (KeyError, TypeError, ValueError):
        return ()
    return found if all(math.isfinite(v) for v in found) else ()
