"""Maps of numbers as Parametric Map, PS3.3 A.75: one object a map, and of a map with names one for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import highdicom
import numpy as np
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from isocenter.errors import FormatError, GeometryError
from isocenter.files.dicom.writing.answers import Result, answer_path
from isocenter.files.dicom.writing.new_object import made_on_source, new_series, save
from isocenter.files.dicom.writing.source_planes import (
    Slice,
    correct_frames,
    places_of,
    refuse_placeless,
    slices_of,
    sources_of,
)
from isocenter.values import Array, Geometry

SERIES_NUMBER = 105
# Units of maps in UCUM; what has another one, or none, is stated without a unit.
UNITS = {"nats": SRCode("{nat}", "UCUM", "nat")}


def parametric_maps(result: Result, path: Path) -> Iterator[Path]:
    """An object for each map of a result, on all slices of its source, in 32-bit floats.

    Raises FormatError for a picture, and for a source without a frame of reference.
    """
    where, geometry = str(path), result.source.geometry
    slices = slices_of(result.source, where)
    if not geometry.is_volume:
        raise FormatError("a parametric map needs an image with positions", where, "Use the map's .tiff instead")
    refuse_placeless(slices, geometry, where)
    for kind, made in result.maps.items():
        data, names = np.asarray(made.data), made.names or ("",)
        for number, (name, values) in enumerate(zip(names, data if made.names else data[None], strict=True), start=1):
            target = answer_path(path, "pm", kind, number)
            title = f"{kind} {name}".strip() if not made.words else f"{kind}: {made.words}"
            _write(values, title, UNITS.get(made.unit, codes.UCUM.NoUnits), geometry, slices, target, result.algorithm)
            yield target


def _write(
    values: Array, title: str, unit: SRCode, geometry: Geometry, slices: list[Slice], path: Path, algorithm: str
) -> None:
    """Write numbers, (*spatial) on the source's grid; slices that were filled in have no frame."""
    where = str(path)
    if values.shape != geometry.shape:
        raise GeometryError(f"a map of {values.shape} on {geometry.shape} voxels", where, "Give the same grid")
    planes = np.stack([values[:, :, part.number].T for part in slices]).astype(np.float32)
    if not np.isfinite(planes).all():
        raise FormatError(f"the map {title} has values that are not finite", where, "Use the map's .nii.gz instead")
    low, high = float(planes.min()), float(planes.max())
    places = places_of(slices, geometry)
    with made_on_source("parametric map", where):
        made = highdicom.pm.ParametricMap(
            source_images=sources_of(slices),
            pixel_array=planes,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[
                highdicom.pm.RealWorldValueMapping(title[:16], title[:64], unit, value_range=(low, high))  # SH and LO
            ],
            voi_lut_transformations=[
                highdicom.VOILUTTransformation(window_center=(low + high) / 2, window_width=max(high - low, 1e-6))
            ],
            content_label="MAP",
            content_description=algorithm[:64],
            **new_series(SERIES_NUMBER, title),
            **places,
        )
    if "Laterality" not in made:
        made.Laterality = None  # type 2C of a paired part of the body, PS3.3 C.7.3.1
    correct_frames(made, slices, places)
    save(made, slices[0].frame.path, [title], path, overwrite=False)
