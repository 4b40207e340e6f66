"""Measurements of a structure as findings, each with the code that DICOM has for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isocenter.values import Code, Finding, Label, Measurements


@dataclass(frozen=True)
class Measure:
    """A column of `measurements.csv` in the words of a report."""

    concept: str
    unit: str
    code: Code | None = None


# CID 7469 and 7477 of PS3.16. No code says of a centre along which axis it is.
MEASURES: Mapping[str, Measure] = {
    "long_axis_mm": Measure("long axis", "mm", Code("SCT", "103339001", "Long axis")),
    "short_axis_mm": Measure("short axis", "mm", Code("SCT", "103340004", "Short axis")),
    "pieces": Measure("number of pieces", "1"),
    "centre_x_mm": Measure("centre x (RAS+)", "mm"),
    "centre_y_mm": Measure("centre y (RAS+)", "mm"),
    "centre_z_mm": Measure("centre z (RAS+)", "mm"),
    "centre_row_mm": Measure("centre row", "mm"),
    "centre_column_mm": Measure("centre column", "mm"),
    "sphericity": Measure("sphericity", "1", Code("IBSI", "QCFX", "Sphericity")),
    "elongation": Measure("elongation", "1", Code("IBSI", "Q3CK", "Elongation")),
    "flatness": Measure("flatness", "1", Code("IBSI", "N17B", "Flatness")),
}
# Of the intensities of a channel, whose name follows in the column.
INTENSITIES = {"mean": "mean intensity", "sd": "SD of intensity", "max": "maximum intensity", "peak": "peak intensity"}


def measured_findings(label: Label, measured: Measurements) -> Iterator[Finding]:
    """The measurements of one structure but its size; none that is not a number, as of a structure without a voxel."""
    row = next((one for one in measured if one["label"] == label.name), {})
    channels = [column.removeprefix("mean_") for column in row if column.startswith("mean_")]
    for column, value in row.items():
        measure = MEASURES.get(column) or _of_intensity(column, row, channels)
        if measure is not None and math.isfinite(value):
            codes = () if measure.code is None else (measure.code,)
            yield Finding(measure.concept, value, measure.unit, codes=codes, group=label.name, label=label.value)


def measured_names() -> tuple[str, ...]:
    """Names of `measured_findings`, but for the channel that intensities of several name."""
    return (*(one.concept for one in MEASURES.values()), *INTENSITIES.values())


def _of_intensity(column: str, row: Mapping[str, Any], channels: list[str]) -> Measure | None:
    """The measure of a column of intensities; the channel is named where there are several."""
    what, _, channel = column.partition("_")
    if what not in INTENSITIES or channel not in channels:
        return None
    unit = row.get("unit") or row.get(f"unit_{channel}") or ""
    return Measure(f"{INTENSITIES[what]}{f' of {channel}' if len(channels) > 1 else ''}", str(unit))
