"""The map from one frame's stored DICOM values to what they mean: a line or a table, its unit, inversion.

The order is PS3.3 C.7.6.16.2.9 and C.11.1: stored value, then modality LUT or rescale (or, on request, the real world
value mapping in its place), then the SUV factor of PET. MONOCHROME1 pictures of the kinds in `PICTURES` are inverted
last, in `value_map` and nowhere else, so that higher is brighter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import pixel_layout, suv_scaling
from hilum.files.storage import block
from hilum.values.voxel_images import FileFacts

Values = NDArray[Any]
# Kinds whose grey values carry no unit and are only ever looked at; there MONOCHROME1 is about display.
PICTURES = frozenset({
    "CR", "DX", "MG", "IO", "PX", "RF", "RG", "XA", "US", "IVUS", "SC", "OT", "ES", "XC", "GM", "SM", "OP", "OPT", "DG",
})  # fmt: skip
INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
AT_ONCE = 1 << 18
NO_UNIT = ("US", "")  # PS3.3 C.11.1.1.2: "unspecified"
DOSE_UNITS = {"GY": "Gy", "RELATIVE": "relative dose"}  # PS3.3 C.8.8.3
UNITS = {"HU": "HU", "OD": "10^-3 OD", "MGML": "mg/ml", "Z_EFF": "Z effective", "ED": "10^23 electrons/ml"}


@dataclass(frozen=True)
class ValueMeaning:
    """The meaning of a series' values, decided once for all its files.

    unit:       "HU", "Bq/ml", "SUVbw", ... or empty
    suv:        factor from the rescaled values to SUVbw; None where they stay what they are
    real_world: whether a Real World Value Mapping takes the place of the modality LUT
    notes, facts: for the Image
    """

    unit: str = ""
    suv: float | None = None
    real_world: bool = False
    notes: tuple[str, ...] = ()
    facts: FileFacts = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ValueMap:
    """Stored value to value, of one frame: a line, or a table that starts at `first`.

    low, high: the range of stored values for which it is stated; beyond it a line gives NaN where `strict`
    mirror: the sum of the lowest and the highest value, where the picture is inverted
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: Values | None = None
    first: int = 0
    low: float = 0
    high: float = 0
    strict: bool = False
    floating: np.dtype[Any] | None = None
    mirror: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value that can come out, before the picture is inverted."""
        if self.table is not None:
            return float(self.table.min()), float(self.table.max())
        ends = (self.slope * self.low + self.intercept, self.slope * self.high + self.intercept)
        return min(ends), max(ends)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integer type that holds every possible value exactly, else float32 (or as stored)."""
        if self.floating is not None:
            return self.floating
        are_whole = float(self.slope).is_integer() and float(self.intercept).is_integer()
        if self.strict or (self.table is None and not are_whole):
            return np.dtype(np.float32)
        low, high = (int(end) for end in self.ends)
        fitting = (np.dtype(t) for t in INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
        return next(fitting, np.dtype(np.float32))

    @property
    def is_identity(self) -> bool:
        """Whether every stored value is its own value."""
        return self.is_line and (self.slope, self.intercept) == (1, 0) and self.mirror is None and not self.strict

    @property
    def is_line(self) -> bool:
        """Whether values are slope times stored value plus intercept, and no table."""
        return self.table is None

    def __call__(self, stored: Values) -> Values:
        if stored.size <= AT_ONCE:
            return self._map_stored(stored)
        values = np.empty(stored.shape, self.dtype)
        step = max(1, AT_ONCE * len(stored) // stored.size)
        for start in range(0, len(stored), step):  # on the way numbers have 64 bits: never those of a whole picture
            values[start : start + step] = self._map_stored(stored[start : start + step])
        return values

    def _map_stored(self, stored: Values) -> Values:
        if self.table is not None:
            values = self.table[np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)]
        elif (self.slope, self.intercept) == (1, 0):
            values = stored
        elif is_integer_type(self.dtype) and is_integer_type(stored.dtype) and self.mirror is None and not self.strict:
            # Whole numbers wrap round on the way and come out right: every result fits into the type.
            values = stored.astype(self.dtype)
            values *= np.int64(self.slope).astype(self.dtype)
            values += np.int64(self.intercept).astype(self.dtype)
            return values
        elif is_integer_type(self.dtype):
            values = stored.astype(np.int64) * int(self.slope) + int(self.intercept)
        else:
            values = stored.astype(np.float64) * self.slope + self.intercept
        if self.mirror is not None:
            wide = values.astype(np.int64 if is_integer_type(values.dtype) else np.float64)
            values = (int(self.mirror) if is_integer_type(self.dtype) else self.mirror) - wide
        if self.strict:
            values = np.where((stored >= self.low) & (stored <= self.high), values, np.nan)
        return values.astype(self.dtype)


class LookupTable(NamedTuple):
    """A lookup table: entry 0 belongs to the value `first`."""

    table: Values
    first: int
    bits: int


def value_map(dataset: DicomDataset, frame: int = 0, meaning: ValueMeaning | None = None, where: str = "") -> ValueMap:
    """Stored value to value for one frame of a grey picture: the one place that joins all steps."""
    low, high, floating = stored_range(dataset, where)
    plain = ValueMap(low=low, high=high, floating=floating)
    if meaning is not None and meaning.real_world:
        return _check_bounded(_real_world(dataset, frame, plain, where), where)
    table = tags.first_item(attribute_holder(dataset, "ModalityLUTSequence", frame), "ModalityLUTSequence")
    if table is not None:
        lut = lookup_table(table, where)
        values = replace(plain, table=lut.table, first=lut.first)
    else:
        slope, intercept = _line(dataset, frame, where)
        values = replace(plain, slope=slope, intercept=intercept)
    if meaning is not None and meaning.suv is not None:
        values = replace(values, slope=values.slope * meaning.suv, intercept=values.intercept * meaning.suv)
    values = _check_bounded(values, where, takes_zero=is_dose(dataset))
    return replace(values, mirror=sum(values.ends)) if is_inverted(dataset, where) else values


def _check_bounded(values: ValueMap, where: str, *, takes_zero: bool = False) -> ValueMap:
    """The map, if all that can come out is a number of float32; no dose at all has a scaling of 0."""
    top = max(-values.low, values.high) if values.table is None else float(np.abs(values.table).max())
    block.refuse_unusable_scale(
        values.slope, values.intercept, top, where, "its rescale factors", takes_zero=takes_zero
    )
    return values


def is_inverted(dataset: DicomDataset, where: str = "") -> bool:
    """Whether a MONOCHROME1 picture is inverted. Values with a unit keep their sense: higher is more of it."""
    return (
        tags.text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        and tags.text(dataset, "Modality") in PICTURES | {""}
        and not unit_after_lut(dataset, where)
        and stored_range(dataset, where)[2] is None
    )


def unit_after_lut(dataset: DicomDataset, where: str = "") -> str:
    """The unit of a value after the modality LUT, empty where nothing is stated."""
    kind = tags.text(dataset, "Modality")
    if kind == "PT":
        return suv_scaling.pet_unit(dataset)
    if is_dose(dataset):
        return DOSE_UNITS.get(tags.text(dataset, "DoseUnits"), "")
    table = tags.first_item(dataset, "ModalityLUTSequence")
    if table is not None:
        unit = tags.text(table, "ModalityLUTType")
    else:
        unit = tags.text(attribute_holder(dataset, "RescaleType", 0, "PixelValueTransformationSequence"), "RescaleType")
        if not unit and kind == "CT" and _is_rescaled(dataset):
            return "HU"  # PS3.3 C.8.2.1.1.4: the type may be left out only where it is HU
    return "" if unit in NO_UNIT else UNITS.get(unit, unit)


def is_dose(dataset: DicomDataset) -> bool:
    """Whether the values are those of a radiotherapy dose, PS3.3 C.8.8.3."""
    return tags.text(dataset, "Modality") == "RTDOSE"


def _is_rescaled(dataset: DicomDataset) -> bool:
    holding = attribute_holder(dataset, "RescaleIntercept", 0, "PixelValueTransformationSequence")
    return "RescaleIntercept" in holding


def stored_range(dataset: DicomDataset, where: str) -> tuple[float, float, np.dtype[Any] | None]:
    """(lowest, highest, floating point type if it is one) of what `decode` can give."""
    floating = pixel_layout.floating_bits(dataset)
    if floating is not None:
        return -np.inf, np.inf, np.dtype(f"f{floating // 8}")
    stored = tags.whole_number(dataset, "BitsStored", where)
    bits = (tags.whole_number(dataset, "BitsAllocated", where) or 0) if stored is None else stored
    if not 1 <= bits <= 64:
        raise tags.malformed_error("BitsStored", f"{bits} bits", where)
    if tags.whole_number(dataset, "PixelRepresentation", where) == 1:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1, None
    return 0, (1 << bits) - 1, None


def _line(dataset: DicomDataset, frame: int, where: str) -> tuple[float, float]:
    if is_dose(dataset):
        scaling = tags.single_number(dataset, "DoseGridScaling", where)
        return 1.0 if scaling is None else scaling, 0.0
    holding = attribute_holder(dataset, "RescaleSlope", frame, "PixelValueTransformationSequence")
    slope = tags.single_number(holding, "RescaleSlope", where)
    intercept = tags.single_number(holding, "RescaleIntercept", where)
    return 1.0 if slope is None else slope, intercept or 0.0


def lookup_table(lut: DicomDataset, where: str) -> LookupTable:
    """A LUT item, PS3.3 C.11.1.1.1."""
    descriptor = tags.numbers(lut, "LUTDescriptor", where, count=3)
    data = tags.attribute(lut, "LUTData", where)
    if descriptor is None or data is None:
        raise tags.malformed_error("LUTData", "a lookup table without content", where)
    entries, first, bits = (int(n) for n in descriptor)
    entries = entries % 65536 or 65536
    if isinstance(data, bytes):
        big = lut.original_encoding[1] is False
        wide = len(data) >= 2 * entries  # 8-bit entries may be packed, PS3.3 C.11.1.1.1
        table = np.frombuffer(data[: len(data) & ~1] if wide else data, (">u2" if big else "<u2") if wide else "u1")
    else:
        table = np.atleast_1d(np.asarray(data, dtype=np.int64) & 0xFFFF).astype(np.uint16)
    if len(table) < entries or not 8 <= bits <= 16:
        raise tags.malformed_error("LUTData", f"{len(table)} entries of {bits} bits where {entries} belong", where)
    return LookupTable(table[:entries].astype(np.uint16), first, bits)


def _real_world(dataset: DicomDataset, frame: int, plain: ValueMap, where: str) -> ValueMap:
    """PS3.3 C.7.6.16.2.11; values outside the mapped range have no real world value and become NaN."""
    mapping = real_world_mapping(dataset, frame)
    if mapping is None:
        raise FormatError(f"frame {frame + 1} has no real world value mapping", where, "Read it without real_world")
    ends = [_end(mapping, name, where) for name in ("First", "Last")]
    slope, intercept = (tags.single_number(mapping, f"RealWorldValue{name}", where) for name in ("Slope", "Intercept"))
    if slope is not None:
        low, high = (
            end if end is not None else other for end, other in zip(ends, (plain.low, plain.high), strict=True)
        )
        return replace(plain, slope=slope, intercept=intercept or 0.0, low=low, high=high, strict=True)
    table = tags.numbers(mapping, "RealWorldValueLUTData", where)
    if table is None or ends[0] is None or ends[1] is None or len(table) != ends[1] - ends[0] + 1:
        raise tags.malformed_error("RealWorldValueLUTData", "a mapping without slope or whole table", where)
    return replace(plain, table=np.array(table), first=int(ends[0]), low=ends[0], high=ends[1], strict=True)


def _end(mapping: DicomDataset, name: str, where: str) -> float | None:
    """First or last value mapped, as integer or as double."""
    bound = tags.single_number(mapping, f"RealWorldValue{name}ValueMapped", where)
    if bound is not None:
        return bound
    return tags.single_number(mapping, f"DoubleFloatRealWorldValue{name}ValueMapped", where)


def real_world_mapping(dataset: DicomDataset, frame: int) -> DicomDataset | None:
    """The first real world value mapping of a frame."""
    return tags.first_item(
        attribute_holder(dataset, "RealWorldValueMappingSequence", frame), "RealWorldValueMappingSequence"
    )


def attribute_holder(dataset: DicomDataset, keyword: str, frame: int, group: str = "") -> DicomDataset:
    """The data set that holds an attribute of a frame: its own functional group, the shared one, or the root.

    group: the functional group's sequence that holds it; empty for one that stands in the group directly
    """
    for groups in tags.frame_groups(dataset, frame):
        holder = tags.first_item(groups, group) if group else groups
        if holder is not None and keyword in holder:
            return holder
    return dataset


def is_integer_type(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of this type are integers."""
    return np.issubdtype(dtype, np.integer)
