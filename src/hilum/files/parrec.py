"""Philips PAR/REC, through nibabel; values are those shown on the console (DV = PV * RS + RI)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.parrec import PARRECError, PARRECHeader

from hilum.errors import FormatError, GeometryError
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import block, folder_files
from hilum.values import Array, Deferred, FactRule, Geometry, Image, Source

DYNAMIC = "dynamic scan number"
# A slice centre may lie this part of a slice step away from where the general information puts it.
CENTRE_TOLERANCE = 0.1


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """All volumes of the pair on its one grid, as frames.

    Frames are sorted by what distinguishes them (echo, phase, image type, diffusion, dynamic), not by their place in
    the file; where more than the dynamic scan differs, a note names it and no times are given.
    Raises FormatError for half a pair and for a pair that is cut short.
    """
    par, rec = _pair(path)
    header = _header(par)
    _refuse_if_short(header, rec)
    geometry = _geometry(header, par)
    slopes, intercepts = header.get_data_scaling("dv")
    top = block.largest_stored(header.get_data_dtype())
    block.refuse_unusable_scale(slopes, intercepts, top, str(par), "rescale slope and rescale intercept")
    shape = tuple(int(n) for n in header.get_data_shape())
    pixels = (1, shape[3], *shape[:3]) if len(shape) > 3 else (1, *shape)
    labels = header.get_volume_labels()
    others = [name for name in labels if name != DYNAMIC]
    notes: tuple[str, ...] = (f"The frames differ in {', '.join(others)}, in this order.",) if others else ()
    times = None
    if not others and len(pixels) == 5:
        times, about_times = _times(header, pixels[1])
        notes = (*notes, *about_times)
    image = Image(
        Deferred(pixels, np.dtype(np.float64), partial(_load, par, rec)),
        geometry,
        modality="MR",
        times=times,
        notes=notes,
        facts={name: tuple(np.asarray(values).tolist()) for name, values in labels.items()},
        source=Source("parrec", (str(par), str(rec))),
    )
    return {path.stem: image}


def _pair(path: Path) -> tuple[Path, Path]:
    pair = []
    for suffix in (".PAR", ".REC"):
        twins = (
            [path] if path.suffix.upper() == suffix else [path.with_suffix(suffix), path.with_suffix(suffix.lower())]
        )
        twin = next((twin for twin in twins if twin.is_file()), None)
        if twin is None:
            raise FormatError(
                f"half of a pair: {twins[0].name} is missing", str(path), "Put both files into one folder"
            )
        pair.append(folder_files.not_elsewhere(twin, path))
    return pair[0], pair[1]


def _header(par: Path) -> PARRECHeader:
    try:
        with par.open("rt", encoding="latin-1") as file:  # a protocol's name may hold any byte
            return cast("PARRECHeader", PARRECHeader.from_fileobj(file, permit_truncated=False, strict_sort=True))
    except (PARRECError, ValueError, KeyError, IndexError) as error:
        raise FormatError(f"the header is incomplete ({error})", str(par), "Export the whole scan again") from error


def _refuse_if_short(header: PARRECHeader, rec: Path) -> None:
    columns, rows = header.get_rec_shape()[:2]
    needed = len(header.image_defs) * int(columns) * int(rows) * header.get_data_dtype().itemsize
    if (size := rec.stat().st_size) < needed:
        raise FormatError(
            f"the voxels are cut short: the header promises {needed} bytes and there are {size}",
            str(rec),
            "Get the file again from where it came from",
        )


def _geometry(header: PARRECHeader, par: Path) -> Geometry:
    """nibabel's affine, checked against the centres that the header gives for each slice.

    nibabel reads only the general part, which an anonymiser may have emptied.
    """
    shape = tuple(int(n) for n in header.get_data_shape()[:3])
    try:
        geometry = Geometry(shape, np.asarray(header.get_affine(), dtype=np.float64))
    except PARRECError as error:  # a localizer has slices in several directions
        raise GeometryError(f"no one grid ({str(error).rstrip('.')})", str(par), "Export the scan as DICOM") from error
    order = header.get_sorted_slice_indices()[: shape[2]]
    back, up, left = np.asarray(header.image_defs["image offcentre"], dtype=np.float64)[order].T
    directions = np.stack([-left, -back, up], axis=1)
    slices = np.arange(shape[2])
    centre = [np.full(shape[2], (n - 1) / 2) for n in shape[:2]]
    apart = np.linalg.norm(geometry.to_world(np.stack([*centre, slices], axis=1)) - directions, axis=1).max()
    if apart > CENTRE_TOLERANCE * geometry.steps[2]:
        raise GeometryError(
            f"slices lie up to {apart:.2f} mm from where the header's general part puts them",
            str(par),
            "Export the scan as DICOM",
        )
    return geometry


def _times(header: PARRECHeader, frames: int) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """(seconds of each frame from the first, by the mean start of its slices; notes)."""
    if "dyn_scan_begin_time" not in (header.image_defs.dtype.names or ()):
        return None, ()
    starts = header.image_defs["dyn_scan_begin_time"][header.get_sorted_slice_indices()]
    starts = np.asarray(starts, dtype=np.float64).reshape(frames, -1).mean(axis=1)
    fallen = np.flatnonzero(np.diff(starts) <= 0)
    if len(fallen):
        return None, (f"The times of the frames do not rise at frame {fallen[0] + 2}: they are not known.",)
    return tuple((starts - starts[0]).tolist()), ()


def _load(par: Path, rec: Path) -> Array:
    """(1[, frames], *spatial) values, one slice of the file at a time."""
    header = _header(par)
    shape = tuple(int(n) for n in header.get_data_shape())
    slopes, intercepts = (scaling.ravel(order="F") for scaling in header.get_data_scaling("dv"))
    columns, rows = (int(n) for n in header.get_rec_shape()[:2])
    values = np.empty((columns * rows, len(slopes)), order="F")
    stored = np.empty(columns * rows, header.get_data_dtype())
    with rec.open("rb", buffering=0) as file:
        for n, index in enumerate(header.get_sorted_slice_indices()):
            file.seek(int(index) * stored.nbytes)
            if file.readinto(stored.data) < stored.nbytes:
                raise FormatError("has changed since it was opened", str(rec), "Read it again")
            values[:, n] = stored * slopes[n] + intercepts[n]
    values = values.reshape(shape, order="F")
    return np.moveaxis(values, -1, 0)[np.newaxis] if values.ndim == 4 else values[np.newaxis]


FACTS = (
    FactRule("PAR/REC", "read", "slope and intercept of each slice, times of frames"),
    FactRule("PAR/REC", "named", "times of frames that do not rise"),
    FactRule("PAR/REC", "refused", "slices of several directions, or whose places contradict the scan's"),
)
FORMAT = Format("parrec", read, parts=_pair, facts=FACTS)
