"""The rows of tests of models, and the margins and ranks that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isocenter.evaluation import Test, margin_interval, reason_against_margins

# The test of people who read the cases, and what stands in place of a model where they read without any.
MRMC, READERS = "mrmc", "readers"
# What the test of a difference shows.
Standing = Literal["superior", "non-inferior", "equivalent", "inferior", "not shown"]
# The verdicts that hold by a margin only.
OF_MARGINS: tuple[Standing, ...] = ("non-inferior", "equivalent")
# How estimates and tests of too few patients are marked in their method.
UNRELIABLE = "unreliable"


@dataclass(frozen=True)
class Margin:
    """A margin by which a model may be worse; `because` states whether it was fixed before any figure, and why."""

    value: float
    is_registered: bool
    because: str

    @classmethod
    def of(cls, given: float | None, registered: float | None) -> Margin | None:
        """The one that was given, or else registered; None where there is neither."""
        if given is None:
            return None if registered is None else cls(registered, True, "registered before training")
        if registered is None:
            return cls(given, False, "exploratory: it was given after the figures were made, and never registered")
        if given != registered:
            return cls(given, False, f"exploratory: {registered:g} was registered before training")
        return cls(given, True, "registered before training")

    def as_record(self) -> dict[str, Any]:
        """The record for `comparison.json`."""
        return {"margin": self.value, "registered": self.is_registered, "because": self.because}


@dataclass(frozen=True)
class ModelTest:
    """One row: the second model against the first in one metric of one label.

    is_primary:  whether it is of the primary metric over all labels, and not exploratory
    is_of_group: whether it is of some of the cases, whose group the label names
    unit:        of the difference
    """

    metric: str
    label: str
    first: str
    second: str
    name: str
    test: Test
    p_adjusted: float = float("nan")
    margin: float | None = None
    verdict: Standing = "not shown"
    is_primary: bool = False
    is_of_group: bool = False
    unit: str = ""

    @property
    def sides(self) -> tuple[str, str]:
        """The first and the second in words: people who read with a model are not the model."""
        sides = self.first, self.second
        if self.name != MRMC or READERS in sides:
            return sides
        return f"{READERS} with {self.first}", f"{READERS} with {self.second}"

    @property
    def name_of_p(self) -> str:
        """The name of p: a verdict by the margin rests on the interval, and p says nothing about it."""
        return "p of no difference" if self.verdict in OF_MARGINS else "p"

    @property
    def reason_against_margin(self) -> str:
        """Why the margin that was given could not be tested; empty where it was, or none was given."""
        return reason_against_margins(self.test) if self.margin else ""

    @property
    def margin_words(self) -> str:
        """The interval by which the margin was tested, where it is not that of the difference; else empty."""
        ends = margin_interval(self.test) if self.margin and not self.reason_against_margin else None
        how, unit = self.test.margin_method, f" {self.unit}" * bool(self.unit)
        return (
            f"the margin was tested by the interval {ends[0]:.4g} to {ends[1]:.4g}{unit} ({how})"
            if ends and how
            else ""
        )

    @property
    def is_unreliable(self) -> bool:
        """Whether the test rests on too few patients."""
        return UNRELIABLE in self.test.method

    def as_record(self) -> dict[str, Any]:
        """The record for `comparison.json`; what is not known is null."""
        numbers = {"difference": self.test.difference, "low": self.test.low, "high": self.test.high}
        numbers |= {"statistic": self.test.statistic, "p": self.test.p, "p_adjusted": self.p_adjusted}
        known = {name: None if n is None or not math.isfinite(n) else float(n) for name, n in numbers.items()}
        named = {"metric": self.metric, "label": self.label, "first": self.first, "second": self.second}
        judged = {"margin": self.margin, "verdict": self.verdict}
        reason = self.reason_against_margin
        of_margin = f"the margin was not tested: {reason}" if reason else self.margin_words
        method = "; ".join(words for words in (self.test.method, of_margin) if words)
        return {**named, "test": self.name, "method": method, **known, **judged}


@dataclass(frozen=True)
class Ranked:
    """The rank of one model over bootstrap samples, 1 for the best: mean, middle 95 %, and how often it is the best."""

    model: str
    rank: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class ReadingEffect:
    """Effect of reading in a second manner beside the first: with a model, or without any (READERS).

    shape:  (readers, cases)
    change: of the logarithm of seconds, which gives the ratio of reading times
    errors: shares of wrong readings in the first and the second manner; empty where readers made no calls
    apart:  their difference
    """

    first: str
    second: str
    label: str
    shape: tuple[int, ...]
    change: Test
    errors: tuple[float, ...] = ()
    apart: Test | None = None

    def as_record(self) -> dict[str, Any]:
        """The record for `comparison.json`; ratios of seconds, second to first."""
        ends = [self.change.difference, self.change.low, self.change.high]
        ratio, low, high = (None if one is None else math.exp(one) for one in ends)
        manners = {"first": self.first, "second": self.second, "label": self.label}
        counts = dict(zip(("readers", "cases"), self.shape, strict=True))
        record = {**manners, **counts, "ratio": ratio, "low": low, "high": high, "method": self.change.method}
        if self.apart is None:
            return record
        own = {"errors_first": self.errors[0], "errors_second": self.errors[1]}
        own |= {"errors_difference": self.apart.difference}
        return {**record, **own, "errors_low": self.apart.low, "errors_high": self.apart.high}

    def __str__(self) -> str:
        """ "readers with good against readers: reading times 0.80 times as long (95 % interval 0.70 to 0.91)"."""
        known, row = self.change.low is not None, self.as_record()
        manners = [one if one == READERS else f"{READERS} with {one}" for one in (self.first, self.second)]
        ends = f"95 % interval {row['low']:.2f} to {row['high']:.2f}" if known else self.change.method
        text = f"{manners[1]} against {manners[0]}: reading takes {row['ratio']:.2f} times as long ({ends})"
        if self.apart is None:
            return text
        ends = f", difference {row['errors_low']:.3f} to {row['errors_high']:.3f}" if self.apart.low is not None else ""
        return f"{text}; wrong in {self.errors[1]:.3f} beside {self.errors[0]:.3f} of readings{ends}"


@dataclass(frozen=True)
class Tested:
    """All tests of a comparison: rows, the margin of each second model, ranks by the primary metric, reading times."""

    rows: tuple[ModelTest, ...] = ()
    margins: Mapping[str, Margin] = field(default_factory=dict)
    ranks: tuple[Ranked, ...] = ()
    correction: str = "holm"
    readers: tuple[ReadingEffect, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """The record for `comparison.json`."""
        return {
            "tests": [row.as_record() for row in self.rows],
            "correction": self.correction,
            "margins": {name: margin.as_record() for name, margin in self.margins.items()},
            "ranks": [vars(one) for one in self.ranks],
            "readers": [one.as_record() for one in self.readers],
        }
