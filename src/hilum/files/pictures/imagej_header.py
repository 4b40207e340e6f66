"""The description that ImageJ and Fiji write into a TIFF: voxel size, time between frames, calibration of values.

Pixels a unit stand in the resolution tags, the rest in lines `key=value`: ij.io.TiffEncoder and ij.io.FileOpener of
https://github.com/imagej/ImageJ
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hilum.errors import FormatError
from hilum.files._voxel_files import INTEGERS
from hilum.files.pictures.stated_facts import StatedFacts
from hilum.files.storage import block
from hilum.values import Array

MM = {
    "m": 1e3, "meter": 1e3, "cm": 10.0, "centimeter": 10.0, "mm": 1.0, "millimeter": 1.0,
    "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "micrometers": 1e-3,
    "nm": 1e-6, "nanometer": 1e-6, "pm": 1e-9, "å": 1e-7, "angstrom": 1e-7, "in": 25.4, "inch": 25.4, "inches": 25.4,
}  # fmt: skip
# An image that nobody calibrated.
NO_UNIT = frozenset({"", "pixel", "pixels"})
MICRO = {"\N{GREEK SMALL LETTER MU}": "\N{MICRO SIGN}"}
ESCAPED = re.compile(r"\\u([0-9A-Fa-f]{4})")
SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "min": 60.0}
# ij.measure.Calibration: a straight line, and values that nobody calibrated; 1 to 9 and 21 are curves.
STRAIGHT_LINE, UNCALIBRATED = 0, 20
# What lies beside the pixels, by the keys of the library.
LEFT_OUT = {"ROI": "a region of interest", "Overlays": "regions of interest in an overlay"}


def read_facts(header: Mapping[str, Any], pixels_a_unit: Mapping[str, float | None], where: str) -> StatedFacts:
    """The facts that a description states. pixels_a_unit: along X and Y, of the resolution tags.

    Raises FormatError for a calibration that leads nowhere.
    """
    sizes, size_notes = _sizes(header, pixels_a_unit)
    increment, time_notes = _increment(header)
    slope, intercept, value_notes = _calibration(header, where)
    left_out_notes = [f"{words} beside the pixels was left out" for key, words in LEFT_OUT.items() if header.get(key)]
    notes = (*size_notes, *time_notes, *value_notes, *left_out_notes)
    return StatedFacts(sizes, increment=increment, slope=slope, intercept=intercept, notes=notes)


def calibrate(stored: Array, facts: StatedFacts, where: str) -> Array:
    """The values of stored numbers: whole ones stay whole where they do by the calibration."""
    if (facts.slope, facts.intercept) == (1.0, 0.0):
        return stored
    block.refuse_unusable_scale(
        facts.slope, facts.intercept, block.largest_stored(stored.dtype), where, "its calibration (c0 and c1)"
    )
    slope, intercept = facts.slope, facts.intercept
    if slope.is_integer() and intercept.is_integer() and stored.dtype.kind in "iu":
        kind = np.iinfo(stored.dtype)
        ends = sorted(int(slope) * end + int(intercept) for end in (kind.min, kind.max))
        # Every number that the file could hold fits: all files of one kind come out in one type.
        fitting = [one for one in INTEGERS if np.iinfo(one).min <= ends[0] and ends[1] <= np.iinfo(one).max]
        if fitting:
            whole = fitting[0]
            values = stored.astype(whole)
            np.multiply(values, np.int64(slope).astype(whole), out=values)
            np.add(values, np.int64(intercept).astype(whole), out=values)
            return values
    values = stored.astype(np.float32 if stored.dtype.itemsize <= 2 else np.float64)
    np.multiply(values, slope, out=values)
    np.add(values, intercept, out=values)
    return values


def _sizes(header: Mapping[str, Any], pixels_a_unit: Mapping[str, float | None]) -> tuple[dict[str, float], list[str]]:
    """mm along each axis, and what is stated in no unit of length."""
    common = _word(header.get("unit"))
    units = {"X": common, "Y": _word(header.get("yunit")) or common, "Z": _word(header.get("zunit")) or common}
    sizes = dict[str, float]()
    lengths = {axis: 1 / pixels if pixels else None for axis, pixels in pixels_a_unit.items()}
    lengths["Z"] = _number(header.get("spacing"))
    for axis, length in lengths.items():
        # A negative spacing says that the planes are numbered from the other end.
        if length is not None and math.isfinite(length) and length and units[axis] in MM:
            sizes[axis] = abs(length) * MM[units[axis]]
    unknown = sorted({unit for unit in units.values() if unit not in MM and unit not in NO_UNIT})
    notes = [
        f"the unit {unit!r} of its voxel size is no length that is known: the size was left out" for unit in unknown
    ]
    return sizes, notes


def _increment(header: Mapping[str, Any]) -> tuple[float | None, list[str]]:
    """s between frames, by the interval or by the frames a second, and a unit that is no time."""
    interval, rate = _number(header.get("finterval")), _number(header.get("fps"))
    unit = _word(header.get("tunit"))
    if interval and unit not in SECONDS:
        return None, [f"the unit {unit!r} of its frame interval is no time that is known: the times were left out"]
    if interval:
        return interval * SECONDS[unit], []
    return (1 / rate if rate else None), []


def _calibration(header: Mapping[str, Any], where: str) -> tuple[float, float, list[str]]:
    """Slope and intercept of the values, and a calibration that is no straight line."""
    function = header.get("cf", UNCALIBRATED)
    if function == UNCALIBRATED:
        return 1.0, 0.0, []
    if function != STRAIGHT_LINE:
        unit = _word(header.get("vunit"))
        named = f" in {unit}" if unit else ""
        return (
            1.0,
            0.0,
            [f"ImageJ's calibration of its values{named} is no straight line (cf={function}): they are as stored"],
        )
    intercept, slope = _number(header.get("c0", 0.0)), _number(header.get("c1", 1.0))
    if intercept is None or slope is None:
        raise FormatError(
            "c0 or c1 of its calibration is no number", where, "Calibrate it in ImageJ, and save it again"
        )
    if (slope, intercept) == (1.0, 0.0):
        return slope, intercept, []
    return slope, intercept, [f"values were calibrated as ImageJ shows them: {slope:g} x stored {intercept:+g}"]


def _number(value: object) -> float | None:
    """A finite number as the library reads it, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _word(value: object) -> str:
    """A unit in small letters, with its escaped letters written out and one sign for micro."""
    text = ESCAPED.sub(lambda escaped: chr(int(escaped[1], 16)), "" if value is None else str(value)).strip().casefold()
    # Small letters of the micro sign are the Greek letter's.
    for greek, sign in MICRO.items():
        text = text.replace(greek, sign)
    return text
