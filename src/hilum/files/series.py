"""Series in tables of numbers (CSV, TSV): vital signs over time, spectra; a row a sample, a column a channel.

The first column may be the axis, as "time (s)", "time_ms", "ppm", "wavenumber (cm-1)" or "sample". Samples lie at even
steps along it. Milliseconds, minutes and the like become seconds; other units stay what they are.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from hilum.errors import FormatError, GeometryError
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import csv_text
from hilum.files.storage.csv_text import CsvWriter
from hilum.values import Array, Floats, Geometry, Image, Source
from hilum.values.grid_geometry import SERIES_UNITS

# Names of an axis, and its unit where the name implies it.
NAMES: Mapping[str, str | None] = {
    "time": None, "t": None, "times": None, "axis": None, "seconds": "s", "ppm": "ppm", "chemical shift": "ppm",
    "wavenumber": "cm-1", "wavelength": "nm", "frequency": "Hz", "sample": None, "index": None,
}  # fmt: skip
SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
TITLES = {"s": "time (s)", "ppm": "chemical shift (ppm)", "cm-1": "wavenumber (cm-1)"}
DELIMITERS = {".tsv": "\t"}
TITLE = re.compile(r"^(?P<name>[a-z ]+?)(?:\s*[\[(]\s*(?P<unit>[^\])]+?)\s*[\])]|_(?P<end>[a-z]+))?$")
# As the slices of a volume: steps are even where each is within a hundredth of their median.
EVEN = 0.01
# The part that is read of a file that may be a series or a table of cases.
HEAD_BYTES, FEWEST = 4096, 4
LONGEST_LINE = 1 << 20


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One image of one axis, (channels, samples).

    Raises FormatError for what is no number, GeometryError for samples at uneven steps.
    """
    del options  # a series leaves nothing to decide
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = _delimiter(file.readline(LONGEST_LINE))
        file.seek(0)
        rows = (row for row in csv.reader(file, delimiter=delimiter) if row)
        first = next(rows, [])
        titled = any(_number(cell) is None for cell in first)
        titles = (
            [csv_text.unmark_cell(cell).strip() for cell in first] if titled else [str(n) for n in range(len(first))]
        )
        numbers = array("d")  # a list of Python's floats would take four times as much
        for row in rows if titled else chain([first], rows):
            values = [_number(cell) for cell in row]
            if len(values) != len(titles):
                raise FormatError(
                    "is not a table of numbers", str(path), "Write one row per sample and one column per channel"
                )
            try:
                numbers.extend(values)  # type: ignore[arg-type]  # else the TypeError that is caught
            except TypeError as error:
                problem, remedy = "holds text among its numbers", "Write only numbers under one row of names"
                raise FormatError(problem, str(path), remedy) from error
    if not numbers:
        raise FormatError("is not a table of numbers", str(path), "Write one row per sample and one column per channel")
    table = np.frombuffer(numbers, np.float64).reshape(-1, len(titles)).T
    return {path.stem: series_image(titles, table, path)}


def series_image(titles: Sequence[str], columns: Array, path: Path, kind: str = "series") -> Image:
    """(columns, samples) numbers with a title each as one image; the first may be the axis.

    Raises FormatError for no channel, no sample or a title that occurs twice, GeometryError for uneven steps.
    """
    first, doubled = titles[0], [title for title, times in Counter(titles).items() if times > 1]
    if doubled:
        raise FormatError(f"has two columns {doubled[0]!r}", str(path), "Give each column a name of its own")
    axis = _axis(first)
    channels = columns if axis is None else columns[1:]
    if not channels.size:
        raise FormatError("holds no channels of one length", str(path), "Write as many samples for each channel")
    is_known, unit, factor = axis or (False, "", 1.0)
    shape = columns.shape[1:]
    geometry = _grid(np.asarray(columns[0], float) * factor, unit, path) if is_known else Geometry.of_pixels(shape)
    silent = axis is not None and not is_known and "sample" not in first.lower()
    notes = (f"the axis {first!r} has no known unit, so its steps are counted in samples",) if silent else ()
    names = tuple(titles if axis is None else titles[1:])
    return Image(channels, geometry, channels=names, notes=notes, source=Source(kind, (str(path),)))


def write(image: Image, path: Path) -> None:
    """Write a CSV, its first column the axis; numbers as they are.

    Raises FormatError for an image of more than one axis, or with frames.
    """
    if image.geometry.ndim != 1 or image.frames is not None:
        raise FormatError("a table of samples holds one axis", str(path), "Write .nii.gz or .nrrd")
    grid, data = image.geometry, image.data
    places = grid.to_world(np.arange(grid.shape[0])[:, None])[:, 0] if grid.physical else np.arange(grid.shape[0])
    title = TITLES.get(grid.unit, f"axis ({grid.unit})") if grid.physical else "sample"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = CsvWriter(file, [title, *image.channels], DELIMITERS.get(path.suffix.lower(), ","))
        for row in zip(places.tolist(), *data.tolist(), strict=True):
            table.add(row)


def is_series(path: Path) -> bool:
    """Whether a table holds samples along an axis, rather than a case a row: a known one comes first, in even steps."""
    with path.open("rb") as file:
        text = file.read(HEAD_BYTES).decode("utf-8-sig", errors="replace")
    lines = text.splitlines()[: -1 if len(text) >= HEAD_BYTES else None]
    rows = [row for row in csv.reader(lines, delimiter=_delimiter(text)) if row]
    if len(rows) <= FEWEST or len(rows[0]) < 2 or _axis(rows[0][0]) is None:
        return False
    places = [_number(row[0]) for row in rows[1:]]
    if any(place is None for place in places):
        return False
    return _is_even(np.array(places, dtype=np.float64))


def _axis(title: str) -> tuple[bool, str, float] | None:
    """(whether its unit is known, the unit, what a number is multiplied by); None where it is no axis."""
    fit = TITLE.match(title.strip().lower())
    if fit is None or fit["name"].strip() not in NAMES:
        return None
    unit = fit["unit"] or fit["end"] or (NAMES[fit["name"].strip()] or "").lower()
    if unit in SECONDS:
        return True, "s", SECONDS[unit]
    unit = {one.lower(): one for one in SERIES_UNITS}.get(unit or "")
    return unit is not None, unit or "", 1.0


def _grid(places: Floats, unit: str, path: Path) -> Geometry:
    """(samples,) places along the axis as a grid."""
    if not _is_even(places):
        raise GeometryError("its samples lie at uneven steps", str(path), "Interpolate them at even steps first")
    step = (places[-1] - places[0]) / (len(places) - 1)
    return Geometry((len(places),), np.array([[step, places[0]], [0.0, 1.0]]), oriented=False, unit=unit)


def _is_even(places: Floats) -> bool:
    steps = np.diff(places)
    middle = float(np.median(steps)) if len(steps) else 0.0
    return bool(np.isfinite(places).all() and middle != 0 and (abs(steps - middle) <= EVEN * abs(middle)).all())


def _number(cell: str) -> float | None:
    """A blank is no measurement; None for what is no number."""
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError:
        return None


def _delimiter(text: str) -> str:
    line = text.partition("\n")[0]
    counts: Sequence[tuple[int, str]] = [(line.count(mark), mark) for mark in (",", "\t", ";")]
    return max(counts, key=lambda pair: pair[0])[1]


FORMAT = Format("series", read, write)
