"""Maps of numbers as Parametric Map, PS3.3 A.75: one object a map, of one with names a channel for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from hilum.errors import FormatError, GeometryError
from hilum.files.dicom.writing import dicom_answers, new_object, source_planes
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.files.dicom.writing.source_planes import SourceSlice
from hilum.values import Geometry, Map

SERIES_NUMBER = 105
# Of a voxel, and of the value of one element, which counts its bytes in 32 bits. PS3.5 7.1.1
VOXEL_BYTES, MOST_BYTES = 4, 2**32 - 2
# Which takes windows narrower than 1, as of probabilities. PS3.3 C.11.2.1.3.2
EXACT = highdicom.VOILUTFunctionValues.LINEAR_EXACT
# Units of maps in UCUM; what has another one, or none, is stated without a unit.
UNITS = {"nats": SRCode("{nat}", "UCUM", "nat")}


def parametric_maps(result: Result, path: Path) -> Iterator[Path]:
    """An object for each map of a result, on all slices of its source, in 32-bit floats.

    Raises FormatError for a picture, and for a source without a frame of reference.
    """
    where, geometry = str(path), result.source.geometry
    slices = source_planes.source_slices(result.source, where)
    if not geometry.is_volume:
        raise FormatError("a parametric map needs an image with positions", where, "Use the map's .tiff instead")
    source_planes.refuse_placeless(slices, result.source, where)
    for kind, parameter_map in result.maps.items():
        target = dicom_answers.path_of_object(path, "pm", kind)
        _write(
            parameter_map,
            f"{kind}: {parameter_map.words}" if parameter_map.words else kind,
            geometry,
            slices,
            target,
            result.algorithm,
        )
        yield target


def _write(
    made_map: Map, title: str, geometry: Geometry, slices: list[SourceSlice], path: Path, algorithm: str
) -> None:
    """Write a map, (*spatial) or (names, *spatial) on the source's grid; slices that were filled in have no frame."""
    where, names = str(path), made_map.names
    if made_map.data.shape[-3:] != geometry.shape:
        raise GeometryError(f"a map of {made_map.data.shape} on {geometry.shape} voxels", where, "Give the same grid")
    if (size := VOXEL_BYTES * math.prod(made_map.data.shape)) > MOST_BYTES:
        problem = f"the map {title} takes {size / 2**30:.1f} GiB, and a DICOM object holds at most 4"
        raise FormatError(problem, where, "Use the map's .nii.gz instead")
    planes = _planes(made_map, slices)
    if not np.isfinite(planes).all():
        raise FormatError(f"the map {title} has values that are not finite", where, "Use the map's .nii.gz instead")
    low, high = float(planes.min()), float(planes.max())
    unit = UNITS.get(made_map.unit, codes.UCUM.NoUnits)
    mappings = [
        highdicom.pm.RealWorldValueMapping(label, name[:64], unit, value_range=(low, high))  # SH and LO
        for label, name in zip(_labels(names), names, strict=True)
    ]
    mapping = highdicom.pm.RealWorldValueMapping(title[:16], title[:64], unit, value_range=(low, high))
    places = source_planes.placing_arguments(slices, geometry)
    with new_object.make_on_source("parametric map", where):
        dataset = highdicom.pm.ParametricMap(
            source_images=source_planes.source_file_headers(slices),
            pixel_array=planes,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[[one] for one in mappings] if names else [mapping],
            voi_lut_transformations=[
                highdicom.VOILUTTransformation(
                    window_center=(low + high) / 2,
                    window_width=max(high - low, 1e-6),
                    voi_lut_function=EXACT,
                )
            ],
            content_label="MAP",
            content_description=algorithm[:64],
            **new_object.new_series_arguments(SERIES_NUMBER, title),
            **places,
        )
    if "Laterality" not in dataset:
        dataset.Laterality = None  # type 2C of a paired part of the body, PS3.3 C.7.3.1
    source_planes.correct_frames(dataset, slices, places)
    new_object.save_object(dataset, slices[0].frame.path, [title, *names], path, overwrite=False)


def _planes(parameter_map: Map, slices: Sequence[SourceSlice]) -> NDArray[np.float32]:
    """(slices, rows, columns), or (slices, rows, columns, names) that are read one after the other."""
    if not parameter_map.names:
        numbers = np.asarray(parameter_map.data)
        return np.stack([numbers[:, :, part.number].T for part in slices]).astype(np.float32)
    count, columns, rows, _ = parameter_map.data.shape
    planes = np.empty((len(slices), rows, columns, count), np.float32)
    everywhere = tuple(slice(0, size) for size in parameter_map.data.shape[1:])
    for name in range(count):
        [numbers] = np.asarray(parameter_map.data[(slice(name, name + 1), *everywhere)])
        for n, part in enumerate(slices):
            planes[n, ..., name] = numbers[:, :, part.number].T
    return planes


def _labels(names: Sequence[str]) -> list[str]:
    """A label of at most 16 letters for each name (SH), all of them different: channels are told apart by it."""
    cut = [name[:16] for name in names]
    return [
        own if cut.count(own) == 1 else f"{n} {name}"[:16] for n, (own, name) in enumerate(zip(cut, names, strict=True))
    ]
