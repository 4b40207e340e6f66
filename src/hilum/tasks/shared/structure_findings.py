"""Measurements of structures as findings, each with DICOM's code, and ratios of them, such as that of cup and disc."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from hilum import errors
from hilum.errors import UsageError
from hilum.values import Code, Finding, Label, Measurements
from hilum.values.table_cells import TableRow


@dataclass(frozen=True)
class Measure:
    """A column of `measurements.csv` in the words of a report."""

    concept: str
    unit: str
    code: Code | None = None


NARROWING = "narrowing"
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
    "length_mm": Measure("centreline length", "mm"),
    "least_diameter_mm": Measure("least diameter", "mm"),
    "least_x_mm": Measure("least diameter at x (RAS+)", "mm"),
    "least_y_mm": Measure("least diameter at y (RAS+)", "mm"),
    "least_z_mm": Measure("least diameter at z (RAS+)", "mm"),
    "least_row_mm": Measure("least diameter at row", "mm"),
    "least_column_mm": Measure("least diameter at column", "mm"),
    "narrowing_percent": Measure(NARROWING, "%"),
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
        if measure is not None and math.isfinite(number := cast("float", value)):
            codes = () if measure.code is None else (measure.code,)
            yield Finding(measure.concept, number, measure.unit, codes=codes, group=label.name, label=label.value)


def measurement_units() -> dict[str, str]:
    """{name: unit} of `measured_findings`, but for the channel that intensities of several name, and their units."""
    return {**{one.concept: one.unit for one in MEASURES.values()}, **dict.fromkeys(INTENSITIES.values(), "")}


def _of_intensity(column: str, row: TableRow, channels: list[str]) -> Measure | None:
    """The measure of a column of intensities; the channel is named where there are several."""
    what, _, channel = column.partition("_")
    if what not in INTENSITIES or channel not in channels:
        return None
    unit = row.get("unit") or row.get(f"unit_{channel}") or ""
    return Measure(f"{INTENSITIES[what]}{f' of {channel}' if len(channels) > 1 else ''}", str(unit))


# Ratios of measurements of structures, such as that of the cup and the disc of the optic nerve.
#
# They are stated as `cdr = cup.short_axis_mm / disc.short_axis_mm`, in columns of `measurements.csv`. A copy of this
# file travels with a packaged model.

SIZES = ("volume_ml", "area_mm2")
COLUMN = re.compile(r"voxels|(mean|sd|max|peak)_\S+")
GRAMMAR = re.compile(r"\s*([^=]+?)\s*=\s*([^=/]+?)\.(\w+)\s*/\s*([^=/]+?)\.(\w+)\s*")
UNIT = re.compile(r"_(mm2|mm|ml)$")
WHERE = "--measure"


@dataclass(frozen=True)
class StructureMeasurement:
    """A column of `measurements.csv` for one structure."""

    structure: str
    column: str

    def __str__(self) -> str:
        return f"{self.structure}.{self.column}"

    @property
    def unit(self) -> str:
        """The unit that the column is named by; empty for counts, ratios and intensities."""
        named = UNIT.search(self.column)
        return named[1] if named else ""


@dataclass(frozen=True)
class Ratio:
    """One measurement divided by another, under a name of its own."""

    name: str
    above: StructureMeasurement
    below: StructureMeasurement

    @classmethod
    def from_text(cls, text: str, where: str = WHERE) -> Ratio:
        """The ratio of `name = structure.column / structure.column`. Raises UsageError for anything else."""
        match = GRAMMAR.fullmatch(text)
        if match is None:
            remedy = "Write name = structure.column / structure.column, with columns of measurements.csv"
            raise UsageError(f"cannot understand {text!r}", where, remedy)
        name, above, upper, below, other = match.groups()
        ratio = cls(name, StructureMeasurement(above, upper), StructureMeasurement(below, other))
        for measured in (ratio.above, ratio.below):
            if measured.column not in (*SIZES, *MEASURES) and not COLUMN.fullmatch(measured.column):
                allowed = errors.list_phrase((*SIZES, *MEASURES))
                raise UsageError(f"{measured}: there is no such measurement", where, f"Choose one of {allowed}")
        return ratio

    def __str__(self) -> str:
        return f"{self.name} = {self.above} / {self.below}"

    @property
    def unit(self) -> str:
        """1 for measurements of one unit."""
        above, below = self.above.unit or "1", self.below.unit or "1"
        return "1" if above == below else f"{above}/{below}" if below != "1" else above

    def compute(self, findings: Sequence[Finding], measured: Measurements) -> Finding | None:
        """The ratio with its interval; None where one of its measurements is not known or the second is 0.

        The interval holds all ratios of what the intervals of both sizes hold; there is none for other measurements.
        """
        above, below = (_value(one, measured) for one in (self.above, self.below))
        if above is None or not below:
            return None
        (low, high), (least, most) = (_interval(one, findings) for one in (self.above, self.below))
        finding = Finding(self.name, round(above / below, 6), self.unit)
        if low is None or high is None or most is None or not least or least < 0:
            return finding
        return replace(finding, low=round(low / most, 6), high=round(high / least, 6))


def ratios_from(texts: Sequence[str], structures: Sequence[str], where: str = WHERE) -> tuple[Ratio, ...]:
    """Ratios of structures. Raises UsageError for another structure, and for a name given twice."""
    ratios = tuple(Ratio.from_text(text, where) for text in texts)
    for ratio in ratios:
        if unknown := [one for one in (ratio.above, ratio.below) if one.structure not in structures]:
            raise UsageError(
                f"{unknown[0]}: there is no such structure", where, f"Choose one of {errors.list_phrase(structures)}"
            )
    if len({one.name for one in ratios}) < len(ratios):
        raise UsageError("two ratios have one name", where, "Give each a name of its own")
    return ratios


def _value(measurement: StructureMeasurement, measured: Measurements) -> float | None:
    """A measurement; None where it is not known or not a number."""
    row = next((row for row in measured if row["label"] == measurement.structure), {})
    value = row.get(measurement.column)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _interval(measurement: StructureMeasurement, findings: Sequence[Finding]) -> tuple[float | None, float | None]:
    """The interval of a structure's size; (None, None) of any other measurement."""
    if measurement.column not in SIZES:
        return None, None
    structure = measurement.structure.rpartition(": ")[2]  # of several tasks the part stands before it
    groups = (measurement.structure, structure)
    ends = [
        finding
        for finding in findings
        if finding.concept == structure and (finding.group in groups or finding.group.endswith(f": {structure}"))
    ]
    return (ends[0].low, ends[0].high) if len(ends) == 1 else (None, None)
