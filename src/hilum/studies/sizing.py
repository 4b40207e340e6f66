"""The size of a study: of its participants, power and effect the one that is not given."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from pydantic import JsonValue

from hilum.errors import UsageError
from hilum.evaluation import intervals
from hilum.lazy import optimize, special, stats
from hilum.studies import _study_design, _trial_designs, interim_looks
from hilum.studies._proportions import MEANS, PAIRED_PROPORTIONS, PROPORTION, PROPORTIONS, ROUNDING, SPECIFICITY
from hilum.studies._study_design import CLUSTERED, COMMON, PER_ARM, Design, DesignInput, Inputs
from hilum.studies._trial_designs import STEPPED_WEDGE, SURVIVAL
from hilum.studies.before_after import BEFORE_AFTER
from hilum.studies.interim_looks import InterimLook
from hilum.studies.model_studies import AUROC, MRMC, PREDICTION_MODEL
from hilum.values import record_schema

DESIGNS = {
    one.name: one
    for one in (
        PROPORTION,
        PROPORTIONS,
        PAIRED_PROPORTIONS,
        MEANS,
        AUROC,
        MRMC,
        SURVIVAL,
        PREDICTION_MODEL,
        STEPPED_WEDGE,
        BEFORE_AFTER,
    )
}
POWER = 0.8
# More participants in an arm than any study has.
MOST = 1_000_000
# The power of an exact test rises and falls; beyond this many times the first n that reaches it, it does not fall back.
SAW = 1.6
# Draws that are simulated at once, so that memory holds them.
CHUNK = 250


@dataclass(frozen=True)
class SimulatedShare:
    """The share of simulated studies that found the effect, with its 95 % interval."""

    value: float
    low: float
    high: float
    draws: int


@dataclass(frozen=True)
class StudySize:
    """Size that a study needs.

    inputs:   those given, and those that hold by default
    n:        participants in all, before dropout; per_arm: of one arm
    clusters: in all
    events:   of all participants, dropout left out
    looks:    where there are several
    power:    at this n; None for a design that has none
    with_finding: participants in all who have the finding, where its prevalence is given
    counted:  what n counts
    """

    design: str
    inputs: Inputs
    n: int | None
    per_arm: int | None
    clusters: int | None
    events: int | None
    looks: tuple[InterimLook, ...]
    power: float | None
    formula: str
    source: str
    simulated: SimulatedShare | None = None
    with_finding: int | None = None
    counted: str = "participants"

    def as_record(self) -> dict[str, JsonValue]:
        """The record for `--json`: its fields."""
        own = record_schema.plain_fields(self)
        return {"schema": "hilum.study_size", "version": 1, **own, "without_finding": self.without_finding}

    @property
    def without_finding(self) -> int | None:
        """Participants in all who have not the finding."""
        return None if self.n is None or self.with_finding is None else self.n - self.with_finding

    def __repr__(self) -> str:
        counts = {self.counted: self.n, "with the finding": self.with_finding, "without": self.without_finding}
        counts |= {"in an arm": self.per_arm, "clusters": self.clusters, "events": self.events}
        lines = [
            f"{self.design}: {', '.join(f'{value} {name}' for name, value in counts.items() if value is not None)}"
        ]
        if self.power is not None:
            lines.append(f"power {self.power:.4f}")
        if self.simulated is not None:
            simulated = self.simulated
            ends = f"{simulated.low:.4f} to {simulated.high:.4f}"
            lines.append(f"simulated {simulated.value:.4f} ({ends}), {simulated.draws} studies")
        lines += [f"look {one.look} at {one.fraction:.3f} of the data: |z| from {one.bound:.3f}" for one in self.looks]
        given = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.inputs.items()
        )
        return "\n".join([*lines, f"inputs: {given}", self.formula, self.source])


def size_study(design: str, given: Inputs, *, simulate: int = 0, seed: int = 0) -> StudySize:
    """The size of a study; see `hilum.study_size`."""
    if design not in DESIGNS:
        raise UsageError(f"there is no design {design!r}", "study size", f"Choose one of {', '.join(DESIGNS)}")
    chosen = DESIGNS[design]
    trial = _Trial(chosen, _study_design.read_inputs(design, known_inputs(chosen), given))
    chosen.refuse(trial.inputs)
    trial.refuse()
    number = chosen.number(trial.inputs)
    if number is not None:
        if trial.given_units is not None or trial.inputs["power"] is not None or trial.inputs["looks"] > 1:
            problem = "this design has no power, so that n, power and looks have no meaning"
            raise UsageError(problem, f"study size {design}", "Leave them out")
        if not number <= MOST:
            problem = f"no study of up to {MOST:,} {chosen.counted} is large enough"
            raise UsageError(problem, f"study size {design}", chosen.beyond)
        units = trial.units_of(number)
        trial = replace(trial, has_power=False)
    else:
        trial, units = trial.solve()
        trial.refuse_untestable(units)
    simulated = None
    if simulate:
        simulated = trial.simulate(units, simulate, np.random.default_rng(seed))
    return trial.size(units, simulated)


def known_inputs(design: Design) -> dict[str, DesignInput]:
    """Every input of a design, its own first."""
    known = dict(design.inputs) | COMMON
    if design.unit is None and design.groups({"paired": False}) == 2:
        known |= PER_ARM
    return known | (CLUSTERED if design.is_clustered else {})


@dataclass(frozen=True, eq=False)
class _Trial:
    """A design with its inputs. A unit is a participant of an arm, or a cluster of an arm or sequence."""

    design: Design
    inputs: Inputs
    has_power: bool = True

    @property
    def groups(self) -> int:
        return self.design.groups(self.inputs)

    @property
    def cluster(self) -> int | None:
        """Participants of a cluster, where clusters are allocated."""
        return self.inputs.get("cluster")

    @property
    def unit(self) -> int:
        """Participants of a unit."""
        return self.cluster or (self.design.unit(self.inputs) if self.design.unit else 1)

    @property
    def variance_inflation(self) -> float:
        """Inflation by clusters of unequal sizes. Eldridge et al., Int J Epidemiol 2006, doi:10.1093/ije/dyl129"""
        size = self.unit * (1 - self.inputs["dropout"])
        return cast(float, max(1.0, 1 + ((1 + self.inputs["cv"] ** 2) * size - 1) * self.inputs["icc"]))

    @property
    def given_units(self) -> int | None:
        """Units of a group, where a person gives n, per_arm or clusters. Raises UsageError where they do not fit."""
        totals = {"n": self.groups * self.unit, "per_arm": self.unit, "clusters": self.groups}
        given = [name for name in totals if self.inputs.get(name) is not None]
        if not given:
            return None
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} say the same", f"--set {given[1]}", "Give one of them")
        [name] = given
        if name == "clusters" and self.cluster is None and self.design.unit is None:
            raise UsageError("clusters need the size of one", "--set clusters", "Add --set cluster=SIZE")
        units, rest = divmod(self.inputs[name], totals[name])
        if rest or not units:
            problem = f"{name} is {self.inputs[name]}, and a study of this design has a multiple of {totals[name]}"
            raise UsageError(problem, f"--set {name}", f"Give a multiple of {totals[name]}")
        return int(units)

    @cached_property
    def looks(self) -> list[InterimLook]:
        return interim_looks.equally_spaced_looks(self.inputs["looks"], self.inputs["alpha"], self.inputs["spending"])

    def refuse(self) -> None:
        """Raise UsageError for clusters that cannot be compared."""
        power = self.inputs["power"]
        tail = self.inputs["alpha"] / 2
        if power is not None and power <= tail:
            problem = f"power is {power:g}, which a study without effect has too"
            raise UsageError(problem, "--set power", f"Give more than alpha / 2, {tail:g}")
        if self.inputs["looks"] > 20:
            raise UsageError("more than 20 looks", "--set looks", "Give 20 or fewer")
        if self.cluster is None:
            stray = [name for name in ("icc",) if self.inputs.get(name) is not None] + (
                ["cv"] if self.inputs.get("cv") else []
            )
            if stray:
                raise UsageError(f"{stray[0]} without clusters", f"--set {stray[0]}", "Add --set cluster=SIZE")
            return
        if self.inputs["icc"] is None:
            problem = "clusters need the intraclass correlation of their participants"
            raise UsageError(problem, "--set cluster", "Add --set icc=VALUE; many lie between 0.01 and 0.1")
        if self.given_units == 1:
            problem = "one cluster an arm: its effect cannot be told from that of the arm"
            raise UsageError(problem, "--set clusters", f"Give {2 * self.groups} clusters or more")

    @property
    def counted(self) -> str:
        """What units are, in words."""
        return "clusters" if self.cluster is not None or self.design.unit else self.design.counted

    def refuse_untestable(self, units: int) -> None:
        """Raise UsageError for a study whose test cannot be computed, and for one that nobody could do."""
        power = self.power(units)
        where = f"study size {self.design.name}"
        counts = f"{units * self.groups} {self.counted}"
        if math.isnan(power):
            problem = f"the power of {counts} cannot be computed: the effect is beyond what the test can tell"
            raise UsageError(problem, where, "Check the effect and its spread")
        if power <= 0:
            remedy = "Give more, or leave their number out to learn it"
            raise UsageError(f"{counts} are too few for the test of this design", where, remedy)
        if (people := units * self.unit * self.groups) > 2 * MOST:
            problem = f"{people:,} participants are more than any study has"
            raise UsageError(problem, where, self.design.beyond)

    def units_of(self, number: float) -> int:
        """Units that give so many analysed participants in all."""
        if self.cluster is not None:
            number *= self.variance_inflation
        return cast(int, math.ceil(number / (1 - self.inputs["dropout"]) / (self.groups * self.unit) - 1e-9))

    def power(self, units: float) -> float:
        """Power with so many units in a group."""
        return self._final_power(self.design.power(self.inputs, self._analysed_participants(units)), units)

    def _analysed_participants(self, units: float) -> float:
        """Participants of a group who tell as much as those of so many units."""
        participants = units * self.unit * (1.0 if self.design.unit else 1 - self.inputs["dropout"])
        return participants if self.cluster is None else participants / self.variance_inflation

    def _final_power(self, power: float, units: float) -> float:
        """The power of a study that has clusters and looks as well."""
        power = power if self.cluster is None else self._cluster_power(power, units)
        return power if len(self.looks) == 1 else interim_looks.crossing_chance(self.looks, self._drift(power))

    def _drift(self, power: float) -> float:
        """The mean of a z statistic that has this power in a study without looks."""
        tail = min(max(power, 1e-12), 1 - 1e-12)
        return float(special.ndtri(tail) - special.ndtri(self.inputs["alpha"] / 2))

    def _cluster_power(self, power: float, units: float) -> float:
        """The power of a t test of the clusters' means, in which a z test of participants has this one."""
        free = self.groups * (units - 1)
        if free < 1:
            return 0.0
        critical = stats.t.isf(self.inputs["alpha"] / 2, free)
        return float(stats.nct.sf(critical, free, self._drift(power)))

    def solve(self) -> tuple[_Trial, int]:
        """The trial with its effect, and its units: whichever is not given is found."""
        name = self.design.effect[0] if self.design.effect else None
        is_open = name is not None and self.inputs[name] is None
        units = self.given_units
        power = self.inputs["power"]
        if is_open and (units is None or power is None):
            problem = f"{self.design.name} needs {name} ({self.design.inputs[str(name)].text})"
            raise UsageError(problem, "--set", f"Add --set {name}=VALUE; or give n and power, to learn it")
        if is_open and units is not None and self.design.effect:
            return self._with_effect(str(name), self.design.effect[1](self.inputs), units, power), units
        if units is not None and power is not None:
            problem = "n, power and the effect are all given, so that nothing is left to find"
            raise UsageError(problem, "--set", "Leave one of them out")
        return (self, units) if units is not None else (self, self._fewest(power or POWER))

    def _fewest(self, power: float) -> int:
        """The fewest units from which the power stays."""
        least = 2 if self.unit > 1 and self.cluster is not None else 1
        high = least
        while self.power(high) < power:
            high *= 2
            if high > MOST:
                most = f"{MOST:,} {self.counted}{' in an arm' if self.groups == 2 else ''}"
                problem = f"a power of {power:g} is not reached by {most}, which have {self.power(MOST):.3g}"
                raise UsageError(problem, f"study size {self.design.name}", self.design.beyond)
        low = high // 2 if high > least else least - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.power(middle) >= power else (middle, high)
        if self.design.powers is None:
            return high
        more = np.arange(high, math.ceil(SAW * high) + 60)
        powers = self.design.powers(self.inputs, np.array([self._analysed_participants(int(units)) for units in more]))
        wished = (self._final_power(float(one), int(units)) >= power for one, units in zip(powers, more, strict=True))
        below = [int(units) for units, holds in zip(more, wished, strict=True) if not holds]
        return below[-1] + 1 if below else high

    def _with_effect(self, name: str, ends: tuple[float, float], units: int, power: float) -> _Trial:
        """The smallest effect that so many units find with this power."""
        null, largest = ends

        def missing(share: float) -> float:
            value = null + share * (largest - null)
            return replace(self, inputs={**self.inputs, name: value}).power(units) - power

        if missing(1 - 1e-6) < 0:
            problem = f"no {name} is found with a power of {power:g} by so few participants"
            raise UsageError(problem, f"--set {name}", "Give more participants, or less power")
        share = optimize.brentq(missing, 1e-6, 1 - 1e-6, xtol=1e-10)
        return replace(self, inputs={**self.inputs, name: float(null + share * (largest - null))})

    def simulate(self, units: int, draws: int, random: np.random.Generator) -> SimulatedShare:
        """The share of so many studies, made up and tested, that find the effect."""
        of_clusters = self.design.cluster_means
        if not self.has_power or (self.cluster is not None and of_clusters is None):
            problem = "has no power to simulate" if not self.has_power else "is not simulated with clusters"
            raise UsageError(f"{self.design.name} {problem}", "--simulate", "Leave out --simulate")
        analysed = units * self.unit * (1 if self.design.unit else 1 - self.inputs["dropout"])
        sizes = [max(2, math.floor(analysed * look.fraction + 1e-9)) for look in self.looks]
        clusters = [max(2, round(units * look.fraction)) for look in self.looks]
        limits = np.array([look.bound for look in self.looks])
        found = 0
        for start in range(0, draws, CHUNK):
            number = min(CHUNK, draws - start)
            if self.cluster is not None and of_clusters is not None:
                seen = _trial_designs.cluster_statistics(of_clusters, self.inputs, clusters, number, random)
            else:
                seen = self.design.simulation(self.inputs, sizes, number, random)
            found += int((seen >= limits - 1e-9).any(axis=1).sum())
        interval = intervals.clopper_pearson(found, draws)
        return SimulatedShare(found / draws, float(interval.low or 0.0), float(interval.high or 1.0), draws)

    def _with_finding(self, number: int, prevalence: float) -> int:
        """Participants with the finding, so that those whom the design counts are no more than their share."""
        if self.inputs.get("measure") == SPECIFICITY:
            return number - math.floor(number * (1 - prevalence) + ROUNDING)
        return math.floor(number * prevalence + ROUNDING)

    def size(self, units: int, simulated: SimulatedShare | None) -> StudySize:
        """The record of a trial with so many units in a group."""
        number = units * self.unit * self.groups
        is_wedge = self.design.unit is not None
        share = self.inputs["dropout"]
        events = self.design.events(self.inputs) * number * (1 - share) if self.design.events else None
        counts_people = self.inputs.get("event_probability", 1.0) is not None
        prevalence = None if self.design.events else self.inputs.get("prevalence")
        kept = {name: value for name, value in self.inputs.items() if value is not None}
        if not self.has_power or len(self.looks) == 1:
            kept = {name: value for name, value in kept.items() if name not in ("looks", "spending")}
        if self.cluster is None:
            kept.pop("cv", None)
        if self.has_power and self.inputs["power"] is None and self.given_units is None:
            kept["power"] = POWER
        return StudySize(
            self.design.name,
            kept,
            number if counts_people else None,
            units * self.unit if self.groups == 2 and not is_wedge and counts_people else None,
            units * self.groups if is_wedge or self.cluster is not None else None,
            None if events is None else math.ceil(events - 1e-9),
            tuple(self.looks) if len(self.looks) > 1 else (),
            self.power(units) if self.has_power else None,
            self.design.formula,
            self.design.source,
            simulated,
            None if prevalence is None else self._with_finding(number, prevalence),
            self.design.counted,
        )
