"""The meaning of all values of a DICOM series: units, SUV, padding, and display windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import FormatError
from isocenter.files.dicom.elements import Dataset
from isocenter.files.dicom.reading.pixel_layout import MONOCHROME
from isocenter.files.dicom.reading.suv import SUV_BW, SuvUnknownError, suv_bw_factor
from isocenter.files.dicom.reading.value_map import (
    Meaning,
    Values,
    holder,
    is_inverted,
    mapping_of,
    stored_range,
    table_of,
    unit,
    value_map,
)
from isocenter.files.dicom.tags import first_item, items, number, numbers, text

__all__ = [
    "Meaning",
    "Window",
    "display_window",
    "displayed",
    "has_varying_values",
    "lowest_value",
    "meaning",
    "padding_range",
    "padding_ranges",
    "rescaled",
    "unit",
    "unit_of",
    "value_dtype",
    "value_map",
    "window_fact",
    "windowed",
]

LINEAR, LINEAR_EXACT = "LINEAR", "LINEAR_EXACT"


@dataclass(frozen=True)
class Window:
    """A display window in the image's own values, PS3.3 C.11.2.1.2."""

    centre: float
    width: float
    function: str = LINEAR

    @property
    def is_linear(self) -> bool:
        """Whether it is defined over whole values, its ends counted."""
        return self.function == LINEAR


def meaning(datasets: Sequence[Dataset], *, real_world: bool = False, where: str = "") -> Meaning:
    """Unit, SUV factor, notes and facts of all files of one series."""
    first = datasets[0]
    notes: list[str] = []
    meant = Meaning(unit=unit(first, where), real_world=real_world and mapping_of(first, 0) is not None)
    if meant.real_world:
        meant = replace(meant, unit=_real_world_unit(first))
        notes.append(f"real world values in {meant.unit or 'no unit'}")
        if len(items(holder(first, "RealWorldValueMappingSequence", 0), "RealWorldValueMappingSequence")) > 1:
            notes.append("of several real world value mappings the first was taken")
    elif real_world:
        notes.append("there is no real world value mapping")
    elif _are_stored(first, where):
        notes.append("values are as stored: a real world value mapping is there, which real_world=True applies")
    if text(first, "Modality") == "PT" and not meant.real_world:
        try:
            meant = replace(meant, unit=SUV_BW, suv=suv_bw_factor(datasets))
        except SuvUnknownError as reason:
            notes.append(f"values stay {meant.unit or 'as they are'}, SUVbw is not known: {reason}")
    if is_inverted(first, where):
        notes.append("MONOCHROME1 was inverted: higher is brighter")
    return replace(meant, notes=tuple(notes), facts=_facts(first, meant, where))


def rescaled(
    stored: Values, dataset: Dataset, frame: int | None = None, meaning: Meaning | None = None, where: str = ""
) -> Values:
    """Stored values of one frame, or of all frames along the first axis, as what they mean.

    Colours come back as they are. Integers keep the smallest integer type that holds every value the header allows,
    so that all frames of one header have one type (see `value_dtype`).
    Raises FormatError for a slope of zero or a damaged table.
    """
    if text(dataset, "PhotometricInterpretation") not in MONOCHROME:
        return stored
    if frame is not None or stored.ndim == 2:
        return value_map(dataset, frame or 0, meaning, where)(stored)
    maps = [value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, len(stored)))]
    if len(maps) == 1:
        return maps[0](stored)
    dtype = np.result_type(*[m.dtype for m in maps])
    return np.stack([m(part).astype(dtype) for m, part in zip(maps, stored, strict=True)])


def value_dtype(dataset: Dataset, frames: int = 1, meaning: Meaning | None = None, where: str = "") -> np.dtype[Any]:
    """The type that `rescaled` gives for grey pixels, from the header."""
    maps = [value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames))]
    return np.result_type(*[m.dtype for m in maps])


def padding_range(
    dataset: Dataset, frame: int = 0, meaning: Meaning | None = None, where: str = ""
) -> tuple[float, float] | None:
    """(low, high) values that are padding and no measurement, PS3.3 C.7.5.1.1.2; None where none are stated."""
    if text(dataset, "PhotometricInterpretation") not in MONOCHROME:
        return None
    padding = _padding(dataset, where)
    if padding is None:
        return None
    values = value_map(dataset, frame, meaning, where)(np.asarray(padding))
    if not np.isfinite(values).all():  # not mapped to the real world: NaN marks it already
        return None
    return float(values.min()), float(values.max())


def padding_ranges(
    dataset: Dataset, frames: int = 1, meaning: Meaning | None = None, where: str = ""
) -> frozenset[tuple[float, float] | None]:
    """The different `padding_range`s of all frames."""
    return frozenset(padding_range(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames)))


def lowest_value(dataset: Dataset, frames: int = 1, meaning: Meaning | None = None, where: str = "") -> float:
    """The lowest value that any frame's stored values can mean."""
    maps = (value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames)))
    return min(one.ends[0] for one in maps)


def display_window(dataset: Dataset, frame: int = 0, meaning: Meaning | None = None, where: str = "") -> Window | None:
    """The first stated window, in the values that `rescaled` gives; None where none is, or real world values are."""
    window = _stated_window(dataset, frame, meaning, where)
    mirror = None if window is None else value_map(dataset, frame, meaning, where).mirror
    if window is None or mirror is None:
        return window
    # LINEAR counts its ends to whole values, so its mirror image lies one further up.
    return replace(window, centre=mirror - window.centre + window.is_linear)


def _stated_window(dataset: Dataset, frame: int, meaning: Meaning | None, where: str) -> Window | None:
    """The first stated window, in values before a MONOCHROME1 picture is inverted; a damaged one counts as none."""
    place = holder(dataset, "WindowCenter", frame, "FrameVOILUTSequence")
    try:
        centres, widths = numbers(place, "WindowCenter", where), numbers(place, "WindowWidth", where)
    except FormatError:  # it only says how a picture may be shown
        return None
    if not centres or not widths or widths[0] <= 0 or (meaning is not None and meaning.real_world):
        return None
    window = Window(centres[0], widths[0], text(place, "VOILUTFunction") or LINEAR)
    return window if meaning is None or meaning.suv is None else _scaled(window, meaning.suv)


def _scaled(window: Window, factor: float) -> Window:
    """The same window over values that are `factor` times larger; LINEAR is only defined over whole values."""
    if window.is_linear:
        window = Window(window.centre - 0.5, max(window.width - 1, 1e-6), LINEAR_EXACT)
    return replace(window, centre=window.centre * factor, width=window.width * factor)


def displayed(
    values: Values,
    dataset: Dataset,
    frame: int = 0,
    meaning: Meaning | None = None,
    where: str = "",
    window: Window | None = None,
) -> NDArray[np.float32]:
    """Rescaled values as brightness from 0 (black) to 1, of a grey picture.

    Through the given window, else the file's VOI LUT, else its window, else their range. Each of them is about values
    that are not inverted; then the lowest value of every MONOCHROME1 picture is white. PS3.3 C.7.6.3.1.2 and C.11.6
    window: in values of the modality LUT, as viewers ask for it, PS3.18 8.3.5.1.4
    """
    mirror = value_map(dataset, frame, meaning, where).mirror
    plain = values if mirror is None else mirror - values.astype(np.float64)
    bright = _bright(plain, dataset, frame, meaning, where) if window is None else windowed(plain, window)
    return 1 - bright if text(dataset, "PhotometricInterpretation") == "MONOCHROME1" else bright


def _bright(values: Values, dataset: Dataset, frame: int, meaning: Meaning | None, where: str) -> NDArray[np.float32]:
    """Brightness of values that are not inverted, as the file's VOI LUT or window has it, else from their range."""
    table = first_item(holder(dataset, "VOILUTSequence", frame, "FrameVOILUTSequence"), "VOILUTSequence")
    if table is not None and not (meaning is not None and (meaning.real_world or meaning.suv)):
        lut = table_of(table, where)
        index = np.clip(np.rint(values.astype(np.float64)).astype(np.int64) - lut.first, 0, len(lut.table) - 1)
        return np.asarray(lut.table[index] / float((1 << lut.bits) - 1), dtype=np.float32)
    window = _stated_window(dataset, frame, meaning, where)
    if window is None:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        window = Window((low + high) / 2, max(high - low, 1e-12), LINEAR_EXACT)
    return windowed(values, window)


def windowed(values: Values, window: Window) -> NDArray[np.float32]:
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


def window_fact(dataset: Dataset, frame: int, meant: Meaning, where: str) -> tuple[float, float, str] | None:
    """The display window of a frame as a fact of its image: centre, width and function; None where none is stated."""
    window = display_window(dataset, frame, meant, where)
    return None if window is None else (window.centre, window.width, window.function)


def _facts(dataset: Dataset, meant: Meaning, where: str) -> dict[str, Any]:
    """Facts that later steps use: unit, presentation intent, window; only those that are stated."""
    facts = {
        "unit": meant.unit,
        "presentation_intent": text(dataset, "PresentationIntentType").lower(),
        "window": window_fact(dataset, 0, meant, where),
        "rescale_type": text(holder(dataset, "RescaleType", 0, "PixelValueTransformationSequence"), "RescaleType"),
        "suv_bw_factor": meant.suv,
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _are_stored(dataset: Dataset, where: str) -> bool:
    """Whether values are integers of no unit that only a real world value mapping gives a meaning to."""
    return (
        mapping_of(dataset, 0) is not None
        and not unit(dataset, where)
        and stored_range(dataset, where)[2] is None
        and value_map(dataset, 0, None, where).is_identity
    )


def unit_of(dataset: Dataset, meant: Meaning, where: str = "") -> str:
    """The unit of one file's values, before a factor to SUVbw."""
    return _real_world_unit(dataset) if meant.real_world else unit(dataset, where)


def _real_world_unit(dataset: Dataset) -> str:
    mapping = mapping_of(dataset, 0)
    code = None if mapping is None else first_item(mapping, "MeasurementUnitsCodeSequence")
    return "" if code is None else text(code, "CodeValue")


def _padding(dataset: Dataset, where: str) -> tuple[float, float] | None:
    """The stated padding in stored values."""
    for prefix in ("Float", "DoubleFloat"):
        value = number(dataset, f"{prefix}PixelPaddingValue", where)
        if value is not None:
            limit = number(dataset, f"{prefix}PixelPaddingRangeLimit", where)
            return value, value if limit is None else limit
    value, limit = (number(dataset, f"PixelPadding{name}", where) for name in ("Value", "RangeLimit"))
    if value is None:
        return None
    low, high, _ = stored_range(dataset, where)
    return _into(value, low, high), _into(value if limit is None else limit, low, high)


def _into(value: float, low: float, high: float) -> float:
    """Padding is often written with the other signedness; it is the same bits that are meant."""
    span = high - low + 1
    return value if low <= value <= high else low + (value - low) % span


def has_varying_values(dataset: Dataset) -> bool:
    """Whether frames may mean their values differently: where something is stated frame by frame."""
    varying = ("PixelValueTransformationSequence", "RealWorldValueMappingSequence", "ModalityLUTSequence")
    own = items(dataset, "PerFrameFunctionalGroupsSequence")
    return any(keyword in groups for groups in own for keyword in varying)


def _varying_frames(dataset: Dataset, frames: int) -> int:
    """The number of frames that need a map of their own; 1 where nothing is stated frame by frame."""
    return frames if has_varying_values(dataset) else 1
