"""The rows of a compression: one a variant and backend, with its size, times, memory and price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hilum.errors import UsageError
from hilum.report import wording
from hilum.runtime import record_files
from hilum.runtime.package import backends, package_contents
from hilum.runtime.package.backend_certificate import QUANTISED, BackendTrial
from hilum.verbs.compressing.variant_price import VariantPrice

FLOAT = "float"
MEGABYTE = 1e6
# What a target may be about, and the columns that state it.
COSTS = {"latency": "latency_ms", "size": "size_mb", "memory": "peak_mib"}


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """One variant on one backend; None where nothing was measured.

    variant:    "float", or the method that made it
    parameters: numbers that the network has learnt
    size_mb:    1e6 bytes of the files that the backend reads
    window_ms, latency_ms, cold_ms: of the network for a window, of a whole image, and from a cold process to the first
    difference, low, high: of the metric from that of float, with the interval of its test
    worst_group, worst_group_difference: what loses most
    """

    variant: str
    backend: str
    instructions: Sequence[str] = ()
    parameters: int | None = None
    size_mb: float | None = None
    window_ms: float | None = None
    latency_ms: float | None = None
    cold_ms: float | None = None
    peak_mib: float | None = None
    metric: str = ""
    value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    ece_difference: float | None = None
    worst_group: str = ""
    worst_group_difference: float | None = None
    passed: bool = False
    because: str = ""

    @property
    def key(self) -> str:
        """The name of its price: that of the backend where the variant is quantised."""
        return self.backend if self.variant in QUANTISED else self.variant

    @property
    def line(self) -> str:
        """One line for a terminal."""
        verdict = "passed" if self.passed else "did not pass"
        size = f", {self.size_mb:.2f} MB" if self.size_mb is not None else ""
        times = "" if self.latency_ms is None else f", {self.latency_ms:.0f} ms an image, {self.peak_mib or 0:.0f} MiB"
        apart = "" if self.difference is None else f", {wording.number_text(self.difference, places=4, signed=True)}"
        value = "" if self.value is None else f", {self.metric} {self.value:.4f}{apart}"
        return f"{self.variant} by {self.backend}: {verdict}{size}{times}{value}; {self.because}"


@dataclass(frozen=True)
class CostTarget:
    """The most that something may cost: column of a row, and limit. Raises UsageError for another text."""

    text: str

    def __post_init__(self) -> None:
        name, _, number = self.text.partition("=")
        if name not in COSTS or not number.replace(".", "", 1).isdecimal() or not float(number) > 0:
            names = ", ".join(COSTS)
            raise UsageError(f"{self.text!r} is no target", "--target", f"Give one of {names} with a number: size=2")

    @property
    def column(self) -> str:
        """The column of rows that it is about."""
        return COSTS[self.text.partition("=")[0]]

    @property
    def limit(self) -> float:
        """The most, in the unit of the column."""
        return float(self.text.partition("=")[2])

    def best_row(self, rows: Sequence[VariantRow]) -> VariantRow | None:
        """The row with the best score that passed and costs no more, of equal ones the cheaper; None without one."""
        fit = [row for row in self._measured(rows) if getattr(row, self.column) <= self.limit]
        return max(fit, key=lambda row: (row.difference or 0.0, -getattr(row, self.column)), default=None)

    def sentence(self, rows: Sequence[VariantRow]) -> str:
        """The best variant that meets it, or how near the nearest comes."""
        best, measured = self.best_row(rows), self._measured(rows)
        if best is not None:
            return f"{self.text} is met by {best.variant} by {best.backend}: {getattr(best, self.column):.4g}"
        nearest = min(measured, key=lambda row: getattr(row, self.column), default=None)
        if nearest is None:
            return f"{self.text} is not met: nothing passed"
        came = f"{nearest.variant} by {nearest.backend} comes to {getattr(nearest, self.column):.4g}"
        return f"{self.text} is not met: {came}"

    def _measured(self, rows: Sequence[VariantRow]) -> list[VariantRow]:
        return [row for row in rows if row.passed and getattr(row, self.column) is not None]


def variant_row(folder: Path, trial: BackendTrial, price: VariantPrice | None, variant: str = "") -> VariantRow:
    """The row of a trial of a package; price: of a variant, None of the model in float."""
    backend = backends.find_backend(trial.backend)
    record = package_contents.package_record(folder)
    files = [folder / name for name in backend.files(record)]
    row = VariantRow(
        variant=variant or (trial.precision if trial.precision in QUANTISED else FLOAT),
        backend=trial.backend,
        instructions=list(trial.instructions),
        parameters=count_parameters(folder),
        size_mb=sum(one.stat().st_size for one in files) / MEGABYTE,
        window_ms=_ms(trial.window),
        latency_ms=_ms(trial.seconds),
        cold_ms=_ms(trial.start),
        peak_mib=trial.peak_memory,
        passed=trial.passed and (price is None or price.passed),
        because=trial.because if price is None or trial.accuracy is not None else f"{price.because}; {trial.because}",
    )
    return row if price is None else with_price(row, price)


def with_price(row: VariantRow, price: VariantPrice) -> VariantRow:
    """The row with the columns that a price fills."""
    test, worst = price.test, price.worst
    return replace(
        row,
        metric=price.metric,
        value=finite_or_none(price.value.value),
        difference=None if test is None else finite_or_none(test.difference),
        low=None if test is None else test.low,
        high=None if test is None else test.high,
        ece_difference=price.ece_difference,
        worst_group="" if worst is None else worst.name,
        worst_group_difference=None if worst is None else finite_or_none(worst.test.difference),
    )


def count_parameters(folder: Path) -> int:
    """Numbers that the networks of a package have learnt, their running statistics with them."""
    record = package_contents.package_record(folder)
    if record.get("apart"):
        return 0
    files = package_contents.weights_files(record)
    return sum(one.numel() for name in files for one in record_files.read_tensors(folder / name).values())


def finite_or_none(value: float | None) -> float | None:
    """The number, or None for what is none."""
    return None if value is None or not math.isfinite(value) else float(value)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
