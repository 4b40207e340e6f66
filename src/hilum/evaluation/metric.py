"""Metrics: the words of each, which way it is better, its unit, and where reports and audits show it.

Each metric is declared beside the function that computes it, and a metric of one kind of problem in the file of its
scores. A kind of problem collects those that it states; reports, audits and comparisons ask that collection.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from hilum.values import Estimate
from hilum.values.grid_geometry import SERIES_UNITS

# {end of a metric's name: unit} of what is not in mm or ml: a distance that counts pixels must not be read as mm.
UNIT_ENDS: Mapping[str, str] = {
    "_pixels": "pixels",
    "_voxels": "voxels",
    "_mm2": "mm²",
    **{f"_{unit}": unit for unit in SERIES_UNITS},
}
# Ends of the names of metrics of probabilities before they were calibrated, by the epistemic part of the uncertainty,
# and of the answered cases alone.
BEFORE = "_uncalibrated"
BY_EPISTEMIC = "_epistemic"
OF_ANSWERED = "_answered"
# Begins the names of metrics of a further model that sees the result.
DOWNSTREAM = "downstream_"


@dataclass(frozen=True)
class Metric:
    """A figure of how good predictions are, or of how far they can be believed.

    name:           as in summary.json
    words:          as papers spell it, without the unit; where none are given, those of the name
    better:         whether more or less of it is better; "aim": it is right at a value of its own
    aim:            this value, where it is the same for all models
    worst:          the worst value that a case can have; None of distances, volumes and errors in a unit
    least, most:    the ends of its scale; 0 and 1 where a worst value is stated
    unit:           of its values; empty for a ratio, and where it is the unit of what was measured; a ratio whose cases
                    are all 0 or 1 gets the exact interval of a share (`intervals.bootstrap`)
    is_audited:     whether gaps among groups of people are tested
    is_of_belief:   whether it says how far results can be believed, and so stands apart in reports
    is_calibration: whether it is the one figure of belief that stands beside other metrics
    may_judge:      whether a plan may name it as the primary metric
    joins_primary:  whether headlines state it beside the primary metric, which alone would mislead
    tolerated:      what is further from its aim, or worse, speaks against a model; None: nothing does
    """

    name: str
    words: str = ""
    better: Literal["more", "less", "aim"] = "more"
    aim: float | None = field(default=None, kw_only=True)
    worst: float | None = field(default=None, kw_only=True)
    least: float = field(default=-math.inf, kw_only=True)
    most: float = field(default=math.inf, kw_only=True)
    unit: str = field(default="", kw_only=True)
    is_audited: bool = field(default=False, kw_only=True)
    is_of_belief: bool = field(default=False, kw_only=True)
    is_calibration: bool = field(default=False, kw_only=True)
    may_judge: bool = field(default=True, kw_only=True)
    joins_primary: bool = field(default=False, kw_only=True)
    tolerated: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not self.words:
            words = self.name.replace("_", " ").strip()
            object.__setattr__(self, "words", words[:1].upper() + words[1:])
        if self.worst is not None:
            object.__setattr__(self, "least", 0.0)
            object.__setattr__(self, "most", 1.0)

    def in_unit(self, end: str, words: str = "") -> Metric:
        """The same metric in the unit of one of `UNIT_ENDS`, which its name then ends with; a ratio has no unit."""
        unit = UNIT_ENDS[end] if self.unit not in ("", "%") else self.unit
        return replace(self, name=f"{self.name}{end}", words=words or self.words, unit=unit)

    def ending(self, end: str) -> Metric:
        """The same metric by other probabilities or of fewer cases; end: `BEFORE`, `BY_EPISTEMIC` or `OF_ANSWERED`."""
        return replace(
            self,
            name=f"{self.name}{end}",
            words=f"{self.words}, {end[1:]}",
            is_audited=False,
            is_of_belief=self.is_of_belief and end != OF_ANSWERED,
            is_calibration=False,
            may_judge=False,
            joins_primary=False,
        )

    def speaks_against(self, estimate: Estimate) -> bool:
        """Whether a figure is worse than is tolerated; of one with an aim the interval lies apart from that too."""
        if self.tolerated is None or not math.isfinite(estimate.value):
            return False
        if self.aim is None:
            return (estimate.value < self.tolerated) == (self.better == "more") and estimate.value != self.tolerated
        low, high = estimate.low, estimate.high
        is_apart = low is not None and high is not None and not low <= self.aim <= high
        return is_apart and abs(estimate.value - self.aim) > self.tolerated


# Of any kind of problem: how well an attacker tells from losses who trained a model.
MEMBERSHIP_AUC = Metric(
    "membership_auc", "AUC of the attack by losses", "aim", aim=0.5, least=0.0, most=1.0, may_judge=False
)
MEMBERSHIP_TPR = Metric(
    "membership_tpr", "Training patients found at 1 % false alarms", "aim", aim=0.01, least=0.0, may_judge=False
)
MEMBERSHIP = {one.name: one for one in (MEMBERSHIP_AUC, MEMBERSHIP_TPR)}
# Of volumes: 95 % of repeated measurements differ by less.
REPEATABILITY = Metric(
    "repeatability", "Repeatability coefficient of the volume", "less", least=0.0, unit="%", may_judge=False
)
OF_ANY_KIND = {**MEMBERSHIP, REPEATABILITY.name: REPEATABILITY}


@dataclass(frozen=True)
class Metrics:
    """The metrics that a kind of problem states.

    each:       the metrics, those of belief in the order of reports; of two with one name the later one counts
    label_word: what the labels of its figures are: "structure", "class", "finding"
    of_case:    the score by which a report judges a single case where the primary metric has none
    """

    each: tuple[Metric, ...] = ()
    label_word: str = "label"
    of_case: str | None = None

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._by_name.values())

    def mark_audited(self, *, audited: Collection[str], calibration: str) -> Metrics:
        """The same metrics, of which gaps in the audited ones are tested, and one stands for how far results hold."""
        if unknown := {*audited, calibration} - set(self._by_name):
            raise ValueError(f"{', '.join(sorted(unknown))} is no metric of these")
        marked = (
            replace(one, is_audited=one.name in audited, is_calibration=one.name == calibration) for one in self.each
        )
        return replace(self, each=tuple(marked))

    def metric_named(self, name: str) -> Metric:
        """The metric of this name, which may end with a unit, or with the probabilities or cases that it is of.

        An unknown name is a metric of which more is better, with its name as words.
        """
        if name in self._by_name:
            return self._by_name[name]
        for end in UNIT_ENDS:
            if name.endswith(end) and name != end:
                return self.metric_named(name.removesuffix(end)).in_unit(end)
        for end in (OF_ANSWERED, BEFORE, BY_EPISTEMIC):
            if name.endswith(end) and name != end:
                return self.metric_named(name.removesuffix(end)).ending(end)
        return OF_ANY_KIND.get(name) or Metric(name, may_judge=False, joins_primary=name.startswith(DOWNSTREAM))

    @property
    def primaries(self) -> frozenset[str]:
        """The names that a plan may give as the primary metric."""
        return frozenset(one.name for one in self if one.may_judge)

    @cached_property
    def _by_name(self) -> Mapping[str, Metric]:
        return {one.name: one for one in self.each}
