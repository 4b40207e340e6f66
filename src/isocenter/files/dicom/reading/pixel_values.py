"""The meaning of a DICOM series' stored values: lines and tables of frames, units, SUV, padding, display windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import FormatError
from isocenter.files.dicom import tags
from isocenter.files.dicom.elements import DicomDataset
from isocenter.files.dicom.reading import pixel_layout, suv_scaling
from isocenter.files.dicom.reading.pixel_layout import MONOCHROME
from isocenter.files.dicom.reading.suv_scaling import SUV_BW, SuvUnknownError
from isocenter.files.storage import block

__all__ = [
    "DisplayWindow",
    "ValueMeaning",
    "apply_window",
    "display_brightness",
    "display_window",
    "has_varying_values",
    "lowest_value",
    "meaning_of_series",
    "padding_range",
    "padding_ranges",
    "rescale_stored",
    "unit_after_lut",
    "unit_of_file",
    "value_dtype",
    "value_map",
    "window_fact",
]

LINEAR, LINEAR_EXACT = "LINEAR", "LINEAR_EXACT"


@dataclass(frozen=True)
class DisplayWindow:
    """A display window in the image's own values, PS3.3 C.11.2.1.2."""

    centre: float
    width: float
    function: str = LINEAR

    @property
    def is_linear(self) -> bool:
        """Whether it is defined over whole values, its ends counted."""
        return self.function == LINEAR


def meaning_of_series(datasets: Sequence[DicomDataset], *, real_world: bool = False, where: str = "") -> ValueMeaning:
    """Unit, SUV factor, notes and facts of all files of one series."""
    first = datasets[0]
    notes: list[str] = []
    meant = ValueMeaning(
        unit=unit_after_lut(first, where), real_world=real_world and real_world_mapping(first, 0) is not None
    )
    if meant.real_world:
        meant = replace(meant, unit=_real_world_unit(first))
        notes.append(f"real world values in {meant.unit or 'no unit'}")
        if (
            len(
                tags.items(attribute_holder(first, "RealWorldValueMappingSequence", 0), "RealWorldValueMappingSequence")
            )
            > 1
        ):
            notes.append("of several real world value mappings the first was taken")
    elif real_world:
        notes.append("there is no real world value mapping")
    elif _are_stored(first, where):
        notes.append("values are as stored: a real world value mapping is there, which real_world=True applies")
    if tags.text(first, "Modality") == "PT" and not meant.real_world:
        try:
            meant = replace(meant, unit=SUV_BW, suv=suv_scaling.suv_bw_factor(datasets))
        except SuvUnknownError as reason:
            notes.append(f"values stay {meant.unit or 'as they are'}, SUVbw is not known: {reason}")
    if is_inverted(first, where):
        notes.append("MONOCHROME1 was inverted: higher is brighter")
    return replace(meant, notes=tuple(notes), facts=_facts(first, meant, where))


def rescale_stored(
    stored: Values,
    dataset: DicomDataset,
    frame: int | None = None,
    meaning: ValueMeaning | None = None,
    where: str = "",
) -> Values:
    """Stored values of one frame, or of all frames along the first axis, as what they mean.

    Colours come back as they are. Integers keep the smallest integer type that holds every value the header allows,
    so that all frames of one header have one type (see `value_dtype`).
    Raises FormatError for a slope of zero or a damaged table.
    """
    if tags.text(dataset, "PhotometricInterpretation") not in MONOCHROME:
        return stored
    if frame is not None or stored.ndim == 2:
        return value_map(dataset, frame or 0, meaning, where)(stored)
    maps = [value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, len(stored)))]
    if len(maps) == 1:
        return maps[0](stored)
    dtype = np.result_type(*[m.dtype for m in maps])
    return np.stack([m(part).astype(dtype) for m, part in zip(maps, stored, strict=True)])


def value_dtype(
    dataset: DicomDataset, frames: int = 1, meaning: ValueMeaning | None = None, where: str = ""
) -> np.dtype[Any]:
    """The type that `rescale_stored` gives for grey pixels, from the header."""
    maps = [value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames))]
    return np.result_type(*[m.dtype for m in maps])


def padding_range(
    dataset: DicomDataset, frame: int = 0, meaning: ValueMeaning | None = None, where: str = ""
) -> tuple[float, float] | None:
    """(low, high) values that are padding and no measurement, PS3.3 C.7.5.1.1.2; None where none are stated."""
    if tags.text(dataset, "PhotometricInterpretation") not in MONOCHROME:
        return None
    padding = _padding(dataset, where)
    if padding is None:
        return None
    values = value_map(dataset, frame, meaning, where)(np.asarray(padding))
    if not np.isfinite(values).all():  # not mapped to the real world: NaN marks it already
        return None
    return float(values.min()), float(values.max())


def padding_ranges(
    dataset: DicomDataset, frames: int = 1, meaning: ValueMeaning | None = None, where: str = ""
) -> frozenset[tuple[float, float] | None]:
    """The different `padding_range`s of all frames."""
    return frozenset(padding_range(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames)))


def lowest_value(dataset: DicomDataset, frames: int = 1, meaning: ValueMeaning | None = None, where: str = "") -> float:
    """The lowest value that any frame's stored values can mean."""
    maps = (value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames)))
    return min(one.ends[0] for one in maps)


def display_window(
    dataset: DicomDataset, frame: int = 0, meaning: ValueMeaning | None = None, where: str = ""
) -> DisplayWindow | None:
    """The first stated window, in the values of `rescale_stored`; None where none is, or real world values are."""
    window = _stated_window(dataset, frame, meaning, where)
    mirror = None if window is None else value_map(dataset, frame, meaning, where).mirror
    if window is None or mirror is None:
        return window
    # LINEAR counts its ends to whole values, so its mirror image lies one further up.
    return replace(window, centre=mirror - window.centre + window.is_linear)


def _stated_window(dataset: DicomDataset, frame: int, meaning: ValueMeaning | None, where: str) -> DisplayWindow | None:
    """The first stated window, in values before a MONOCHROME1 picture is inverted; a damaged one counts as none.

    Without one that in which the VOI LUT rises.
    """
    if meaning is not None and meaning.real_world:
        return None
    holding = attribute_holder(dataset, "WindowCenter", frame, "FrameVOILUTSequence")
    try:
        centres, widths = tags.numbers(holding, "WindowCenter", where), tags.numbers(holding, "WindowWidth", where)
        table = None if centres and widths else _voi_lut(dataset, frame)
        window = None if table is None else _rise_of(lookup_table(table, where))
    except FormatError:  # it only says how a picture may be shown
        return None
    if centres and widths and widths[0] > 0:
        window = DisplayWindow(centres[0], widths[0], tags.text(holding, "VOILUTFunction") or LINEAR)
    if window is None:
        return None
    return window if meaning is None or meaning.suv is None else _scale_window(window, meaning.suv)


def _voi_lut(dataset: DicomDataset, frame: int) -> DicomDataset | None:
    """The first table of values to brightness of a frame, PS3.3 C.11.2.1.1."""
    return tags.first_item(attribute_holder(dataset, "VOILUTSequence", frame, "FrameVOILUTSequence"), "VOILUTSequence")


def _rise_of(lut: LookupTable) -> DisplayWindow | None:
    """The window whose line goes through the tenth and the ninth tenth of a table's rise; None of one that is flat."""
    levels, rises = lut.table.astype(np.float64), lut.table[0] <= lut.table[-1]
    levels = np.maximum.accumulate(levels if rises else levels[::-1])
    if levels[0] == levels[-1]:
        return None
    tenths = levels[0] + (levels[-1] - levels[0]) * np.array([0.1, 0.9])
    after = np.searchsorted(levels, tenths)
    low, high = after - (levels[after] - tenths) / (levels[after] - levels[after - 1])
    centre = float(low + high) / 2
    return DisplayWindow(
        lut.first + (centre if rises else len(levels) - 1 - centre), float(high - low) / 0.8, LINEAR_EXACT
    )


def _scale_window(window: DisplayWindow, factor: float) -> DisplayWindow:
    """The same window over values that are `factor` times larger; LINEAR is only defined over whole values."""
    if window.is_linear:
        window = DisplayWindow(window.centre - 0.5, max(window.width - 1, 1e-6), LINEAR_EXACT)
    return replace(window, centre=window.centre * factor, width=window.width * factor)


def display_brightness(
    values: Values,
    dataset: DicomDataset,
    frame: int = 0,
    meaning: ValueMeaning | None = None,
    where: str = "",
    window: DisplayWindow | None = None,
) -> NDArray[np.float32]:
    """Rescaled values as brightness from 0 (black) to 1, of a grey picture.

    Through the given window, else the file's VOI LUT, else its window, else their range. Each of them is about values
    that are not inverted; then the lowest value of every MONOCHROME1 picture is white. PS3.3 C.7.6.3.1.2 and C.11.6
    window: in values of the modality LUT, as viewers ask for it, PS3.18 8.3.5.1.4
    """
    mirror = value_map(dataset, frame, meaning, where).mirror
    plain = values if mirror is None else mirror - values.astype(np.float64)
    bright = _bright(plain, dataset, frame, meaning, where) if window is None else apply_window(plain, window)
    return 1 - bright if tags.text(dataset, "PhotometricInterpretation") == "MONOCHROME1" else bright


def _bright(
    values: Values, dataset: DicomDataset, frame: int, meaning: ValueMeaning | None, where: str
) -> NDArray[np.float32]:
    """Brightness of values that are not inverted, as the file's VOI LUT or window has it, else from their range."""
    table = _voi_lut(dataset, frame)
    if table is not None and not (meaning is not None and (meaning.real_world or meaning.suv)):
        lut = lookup_table(table, where)
        index = np.clip(np.rint(values.astype(np.float64)).astype(np.int64) - lut.first, 0, len(lut.table) - 1)
        return np.asarray(lut.table[index] / float((1 << lut.bits) - 1), dtype=np.float32)
    window = _stated_window(dataset, frame, meaning, where)
    if window is None:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        window = DisplayWindow((low + high) / 2, max(high - low, 1e-12), LINEAR_EXACT)
    return apply_window(values, window)


def apply_window(values: Values, window: DisplayWindow) -> NDArray[np.float32]:
    """Brightness 0..1 through a window, PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    brightness = FUNCTIONS.get(window.function, _linear)
    return np.asarray(brightness(values.astype(np.float64) - window.centre, window.width), dtype=np.float32)


def _linear(offset: Values, width: float) -> Values:
    return offset > -0.5 if width <= 1 else np.clip((offset + 0.5) / (width - 1) + 0.5, 0, 1)


def _linear_exact(offset: Values, width: float) -> Values:
    return np.clip(offset / width + 0.5, 0, 1)


def _sigmoid(offset: Values, width: float) -> Values:
    return 1 / (1 + np.exp(-4 * offset / width))


# VOI LUT Function, PS3.3 C.11.2.1.3: brightness from the distance to the window's centre, and its width.
FUNCTIONS = {LINEAR_EXACT: _linear_exact, "SIGMOID": _sigmoid}


def window_fact(dataset: DicomDataset, frame: int, meant: ValueMeaning, where: str) -> tuple[float, float, str] | None:
    """The display window of a frame as a fact of its image: centre, width and function; None where none is stated."""
    window = display_window(dataset, frame, meant, where)
    return None if window is None else (window.centre, window.width, window.function)


def _facts(dataset: DicomDataset, meant: ValueMeaning, where: str) -> dict[str, Any]:
    """Facts that later steps use: unit, presentation intent, window; only those that are stated."""
    facts = {
        "unit": meant.unit,
        "presentation_intent": tags.text(dataset, "PresentationIntentType").lower(),
        "window": window_fact(dataset, 0, meant, where),
        "rescale_type": tags.text(
            attribute_holder(dataset, "RescaleType", 0, "PixelValueTransformationSequence"), "RescaleType"
        ),
        "suv_bw_factor": meant.suv,
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _are_stored(dataset: DicomDataset, where: str) -> bool:
    """Whether values are integers of no unit that only a real world value mapping gives a meaning to."""
    return (
        real_world_mapping(dataset, 0) is not None
        and not unit_after_lut(dataset, where)
        and stored_range(dataset, where)[2] is None
        and value_map(dataset, 0, None, where).is_identity
    )


def unit_of_file(dataset: DicomDataset, meant: ValueMeaning, where: str = "") -> str:
    """The unit of one file's values, before a factor to SUVbw."""
    return _real_world_unit(dataset) if meant.real_world else unit_after_lut(dataset, where)


def _real_world_unit(dataset: DicomDataset) -> str:
    mapping = real_world_mapping(dataset, 0)
    code = None if mapping is None else tags.first_item(mapping, "MeasurementUnitsCodeSequence")
    return "" if code is None else tags.text(code, "CodeValue")


def _padding(dataset: DicomDataset, where: str) -> tuple[float, float] | None:
    """The stated padding in stored values."""
    for prefix in ("Float", "DoubleFloat"):
        value = tags.single_number(dataset, f"{prefix}PixelPaddingValue", where)
        if value is not None:
            limit = tags.single_number(dataset, f"{prefix}PixelPaddingRangeLimit", where)
            return value, value if limit is None else limit
    value, limit = (tags.single_number(dataset, f"PixelPadding{name}", where) for name in ("Value", "RangeLimit"))
    if value is None:
        return None
    low, high, _ = stored_range(dataset, where)
    return _into(value, low, high), _into(value if limit is None else limit, low, high)


def _into(value: float, low: float, high: float) -> float:
    """Padding is often written with the other signedness; it is the same bits that are meant."""
    span = high - low + 1
    return value if low <= value <= high else low + (value - low) % span


def has_varying_values(dataset: DicomDataset) -> bool:
    """Whether frames may mean their values differently: where something is stated frame by frame."""
    varying = ("PixelValueTransformationSequence", "RealWorldValueMappingSequence", "ModalityLUTSequence")
    frame_groups = tags.items(dataset, "PerFrameFunctionalGroupsSequence")
    return any(keyword in groups for groups in frame_groups for keyword in varying)


def _varying_frames(dataset: DicomDataset, frames: int) -> int:
    """The number of frames that need a map of their own; 1 where nothing is stated frame by frame."""
    return frames if has_varying_values(dataset) else 1


# The map from one frame's stored DICOM values to what they mean: a line or a table, its unit, inversion.
#
# The order is PS3.3 C.7.6.16.2.9 and C.11.1: stored value, then modality LUT or rescale (or, on request, the real world
# value mapping in its place), then the SUV factor of PET. MONOCHROME1 pictures of the kinds in `PICTURES` are inverted
# last, in `value_map` and nowhere else, so that higher is brighter.

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
    facts: Mapping[str, Any] = field(default_factory=dict)


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
    block.refuse_scale(values.slope, values.intercept, top, where, "its rescale factors", takes_zero=takes_zero)
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
    slope, intercept = (
        tags.single_number(holding, "RescaleSlope", where),
        tags.single_number(holding, "RescaleIntercept", where),
    )
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
    return (
        bound
        if bound is not None
        else tags.single_number(mapping, f"DoubleFloatRealWorldValue{name}ValueMapped", where)
    )


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
