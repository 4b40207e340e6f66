"""The meaning of a DICOM series' stored values: its unit, SUV and padding, and the values themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import display_windows, suv_scaling, value_maps
from hilum.files.dicom.reading.pixel_layout import MONOCHROME
from hilum.files.dicom.reading.suv_scaling import SUV_BW, SuvUnknownError
from hilum.files.dicom.reading.value_maps import ValueMeaning, Values
from hilum.values.voxel_images import FileFacts


def meaning_of_series(datasets: Sequence[DicomDataset], *, real_world: bool = False, where: str = "") -> ValueMeaning:
    """Unit, SUV factor, notes and facts of all files of one series."""
    first = datasets[0]
    notes: list[str] = []
    meant = ValueMeaning(
        unit=value_maps.unit_after_lut(first, where),
        real_world=real_world and value_maps.real_world_mapping(first, 0) is not None,
    )
    if meant.real_world:
        meant = replace(meant, unit=_real_world_unit(first))
        notes.append(f"real world values in {meant.unit or 'no unit'}")
        holder = value_maps.attribute_holder(first, "RealWorldValueMappingSequence", 0)
        if len(tags.items(holder, "RealWorldValueMappingSequence")) > 1:
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
    if value_maps.is_inverted(first, where):
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
        return value_maps.value_map(dataset, frame or 0, meaning, where)(stored)
    maps = [value_maps.value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, len(stored)))]
    if len(maps) == 1:
        return maps[0](stored)
    dtype = np.result_type(*[m.dtype for m in maps])
    return np.stack([m(part).astype(dtype) for m, part in zip(maps, stored, strict=True)])


def value_dtype(
    dataset: DicomDataset, frames: int = 1, meaning: ValueMeaning | None = None, where: str = ""
) -> np.dtype[Any]:
    """The type that `rescale_stored` gives for grey pixels, from the header."""
    maps = [value_maps.value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames))]
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
    values = value_maps.value_map(dataset, frame, meaning, where)(np.asarray(padding))
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
    maps = (value_maps.value_map(dataset, n, meaning, where) for n in range(_varying_frames(dataset, frames)))
    return min(one.ends[0] for one in maps)


def _facts(dataset: DicomDataset, meant: ValueMeaning, where: str) -> FileFacts:
    """Facts that later steps use: unit, presentation intent, window and its direction; only those that are stated."""
    facts = {
        "unit": meant.unit,
        "presentation_intent": tags.text(dataset, "PresentationIntentType").lower(),
        "window": display_windows.window_fact(dataset, 0, meant, where),
        "lowest_is_white": display_windows.shows_lowest_white(dataset, 0, meant, where) or None,
        "rescale_type": tags.text(
            value_maps.attribute_holder(dataset, "RescaleType", 0, "PixelValueTransformationSequence"), "RescaleType"
        ),
        "suv_bw_factor": meant.suv,
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _are_stored(dataset: DicomDataset, where: str) -> bool:
    """Whether values are integers of no unit that only a real world value mapping gives a meaning to."""
    return (
        value_maps.real_world_mapping(dataset, 0) is not None
        and not value_maps.unit_after_lut(dataset, where)
        and value_maps.stored_range(dataset, where)[2] is None
        and value_maps.value_map(dataset, 0, None, where).is_identity
    )


def unit_of_file(dataset: DicomDataset, meant: ValueMeaning, where: str = "") -> str:
    """The unit of one file's values, before a factor to SUVbw."""
    return _real_world_unit(dataset) if meant.real_world else value_maps.unit_after_lut(dataset, where)


def _real_world_unit(dataset: DicomDataset) -> str:
    mapping = value_maps.real_world_mapping(dataset, 0)
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
    low, high, _ = value_maps.stored_range(dataset, where)
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
