"""Ratios of measurements of structures, such as that of the cup and the disc of the optic nerve.

They are stated as `cdr = cup.short_axis_mm / disc.short_axis_mm`, in columns of `measurements.csv`.
A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from isocenter.errors import UsageError, listed
from isocenter.tasks.shared.structure_findings import MEASURES
from isocenter.values import Finding, Measurements

SIZES = ("volume_ml", "area_mm2")
COLUMN = re.compile(r"voxels|(mean|sd|max|peak)_\S+")
GRAMMAR = re.compile(r"\s*([^=]+?)\s*=\s*([^=/]+?)\.(\w+)\s*/\s*([^=/]+?)\.(\w+)\s*")
UNIT = re.compile(r"_(mm2|mm|ml)$")
WHERE = "--measure"


@dataclass(frozen=True)
class Measured:
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
    above: Measured
    below: Measured

    @classmethod
    def of(cls, text: str, where: str = WHERE) -> Ratio:
        """The ratio of `name = structure.column / structure.column`. Raises UsageError for anything else."""
        match = GRAMMAR.fullmatch(text)
        if match is None:
            remedy = "Write name = structure.column / structure.column, with columns of measurements.csv"
            raise UsageError(f"cannot understand {text!r}", where, remedy)
        name, above, upper, below, other = match.groups()
        ratio = cls(name, Measured(above, upper), Measured(below, other))
        for measured in (ratio.above, ratio.below):
            if measured.column not in (*SIZES, *MEASURES) and not COLUMN.fullmatch(measured.column):
                allowed = listed((*SIZES, *MEASURES))
                raise UsageError(f"{measured}: there is no such measurement", where, f"Choose one of {allowed}")
        return ratio

    def __str__(self) -> str:
        return f"{self.name} = {self.above} / {self.below}"

    @property
    def unit(self) -> str:
        """1 for measurements of one unit."""
        above, below = self.above.unit or "1", self.below.unit or "1"
        return "1" if above == below else f"{above}/{below}" if below != "1" else above

    def found(self, findings: Sequence[Finding], measured: Measurements) -> Finding | None:
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
    ratios = tuple(Ratio.of(text, where) for text in texts)
    for ratio in ratios:
        if unknown := [one for one in (ratio.above, ratio.below) if one.structure not in structures]:
            raise UsageError(f"{unknown[0]}: there is no such structure", where, f"Choose one of {listed(structures)}")
    if len({one.name for one in ratios}) < len(ratios):
        raise UsageError("two ratios have one name", where, "Give each a name of its own")
    return ratios


def _value(measurement: Measured, measured: Measurements) -> float | None:
    """A measurement; None where it is not known or not a number."""
    row = next((row for row in measured if row["label"] == measurement.structure), {})
    value = row.get(measurement.column)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _interval(measurement: Measured, findings: Sequence[Finding]) -> tuple[float | None, float | None]:
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
