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
class Tested:
    """All tests of a comparison: rows, the margin of each second model, ranks by the primary metric."""

    rows: tuple[ModelTest, ...] = ()
    margins: Mapping[str, Margin] = field(default_factory=dict)
    ranks: tuple[Ranked, ...] = ()
    correction: str = "holm"

    def as_record(self) -> dict[str, Any]:
        """The record for `comparison.json`."""
        return {
            "tests": [row.as_record() for row in self.rows],
            "correction": self.correction,
            "margins": {name: margin.as_record() for name, margin in self.margins.items()},
            "ranks": [vars(one) for one in self.ranks],
        }
