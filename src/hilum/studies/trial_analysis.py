"""The analysis of a trial by its locked plan: tests, the flow of participants, and what each arm began with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NotRequired, cast

import numpy as np
from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.evaluation import survival
from hilum.evaluation.significance import testing
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.lazy import special, stats
from hilum.report import Figure
from hilum.report.figures import cohort_figures
from hilum.studies import treatment_effects, trial_protocol
from hilum.studies.interim_looks import InterimLook
from hilum.studies.treatment_effects import Effect
from hilum.studies.trial_protocol import ARM, INTENTION, PARTICIPANT, TIME, Endpoint, Study
from hilum.values import Floats, covariate_values, table_cells
from hilum.values.record_schema import RecordSchema
from hilum.values.table_cells import ColumnValues, TableRow, TextColumn

PROTOCOL = "per protocol"
NOT_STATED = "not stated"
# Standard deviations from the mean of an arm that stand for the best and the worst number.
# Jakobsen et al., BMC Med Res Methodol 2017, doi:10.1186/s12874-017-0442-1
EXTREME = 2.0
# Fewer participants of an arm in a subgroup tell nothing of it.
FEWEST = 5
# A covariate of more words than these has hardly any participants of each.
MOST_LEVELS = 10
Rows = np.ndarray
# What the arms began with: of each its mean, deviation and number, or count.
BaselineRow = dict[str, str | dict[str, float]]


class EffectRow(TypedDict):
    """An effect on an endpoint in some participants; a number is NaN, in files null, where it is not defined.

    n, known, values, sd: of each arm; role: primary, secondary, sensitivity, subgroup, interaction or exploratory
    """

    metric: str
    label: str
    first: str
    second: str
    test: str
    method: str
    difference: float
    low: float
    high: float
    statistic: float
    p: float
    p_adjusted: float | None
    margin: float | None
    verdict: str | None
    level: float
    endpoint: str
    role: str
    population: str
    missing: str
    planned: bool
    n: dict[str, int]
    known: dict[str, int]
    values: dict[str, float | None]
    sd: dict[str, float]
    hazard_ratio: NotRequired[dict[str, float]]
    events: NotRequired[dict[str, int]]
    logrank_p: NotRequired[float]
    differs_most: NotRequired[str]


class FlowArm(TypedDict):
    """How many of an arm were assigned, took part, have an outcome and were analysed."""

    arm: str
    unit: str
    assigned: int
    participants: int
    with_outcome: int
    analysed: int
    per_protocol: NotRequired[int]


class FlowRecord(TypedDict):
    """The flow of participants; losses: arm, reason and participants, or that no outcome is missing."""

    arms: list[FlowArm]
    losses: list[TableRow] | str


FLOW_SCHEMA = RecordSchema("hilum.study_flow", FlowRecord)


def read_data(study: Study, table: pd.DataFrame, log: pd.DataFrame, where: str, *, is_last: bool) -> pd.DataFrame:
    """The table with the strata of the allocation, in its own order.

    table: a row a participant, every cell as text; log: of assignments
    is_last: whether all who were assigned must be there
    Raises DatasetError for arms unlike the allocation, a cluster in both arms, participants who were not assigned or
    are missing, and a column that is missing.
    """
    unit = study.clusters.column if study.clusters is not None else PARTICIPANT
    named = [one for one in (study.analysis.per_protocol, study.analysis.reason) if one]
    named += [one.event for one in study.endpoints if one.event]
    named += [*study.analysis.covariates, *study.missing.auxiliary, *study.subgroups]
    needed = [PARTICIPANT, ARM, unit, *(one.name for one in study.endpoints), *named]
    if absent := [name for name in dict.fromkeys(needed) if name not in table and name not in study.strata]:
        raise DatasetError(f"has no column {errors.list_phrase(absent)}", where, "Name the columns as study.toml does")
    if table[PARTICIPANT].duplicated().any():
        twice = table[PARTICIPANT][table[PARTICIPANT].duplicated()]
        raise DatasetError(f"has {errors.list_phrase(twice)} twice", where, "Give one row for each participant")
    for name, arms in table.groupby(unit)[ARM]:
        if arms.nunique() > 1:
            raise DatasetError(f"{unit} {name} is in both arms", where, "Give each the arm that it was allocated to")
    known = log.set_index(PARTICIPANT)
    strangers = [one for one in dict.fromkeys(table[unit]) if one not in known.index]
    if strangers:
        raise DatasetError(
            f"{unit} {errors.list_phrase(strangers)} was never assigned", where, "Leave out who was not randomised"
        )
    unlike = np.flatnonzero(table[ARM].to_numpy() != known.loc[table[unit], ARM].to_numpy())
    if len(unlike):
        first = table[unit].iloc[unlike[0]]
        arm = table[ARM].iloc[unlike[0]]
        problem = f"{unit} {first} has the arm {arm!r}, and was allocated to {known.loc[first, ARM]!r}"
        remedy = "Give the arm as allocated; who was treated otherwise is not per protocol"
        raise DatasetError(problem, where, remedy)
    left = [one for one in known.index if one not in set(table[unit])]
    if left and is_last:
        problem = f"{unit} {errors.list_phrase(left)} was assigned and has no row"
        raise DatasetError(problem, where, "Add a row with an empty outcome: all who were assigned are analysed")
    strata = {name: known.loc[table[unit], name].to_numpy() for name in study.strata}
    return table.assign(**strata).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class TrialAnalysis:
    """The data of a trial and its plan.

    look:     this analysis, with its fraction and bound; None where there is one alone
    explored: endpoints that the plan does not have
    is_planned: whether the plan allows this analysis
    """

    study: Study
    data: pd.DataFrame
    where: str
    look: InterimLook | None = None
    explored: Sequence[Endpoint] = ()
    is_planned: bool = True

    def level(self, endpoint: Endpoint) -> float:
        """Level of its interval: that of the look's bound, so that all looks hold at once; primary endpoints share it.

        Jennison and Turnbull, J R Stat Soc B 1989, doi:10.1111/j.2517-6161.1989.tb01433.x
        """
        return 1 - self.alpha / (len(self.study.primary) if endpoint.primary else 1)

    @property
    def alpha(self) -> float:
        """The two-sided level of this look."""
        return self.study.analysis.alpha if self.look is None else 2 * float(special.ndtr(-self.look.bound))

    @cached_property
    def is_new(self) -> Rows:
        return (self.data[ARM] == self.study.names[1]).to_numpy()

    @cached_property
    def is_followed(self) -> Rows | None:
        """Who was treated as planned; None where the plan names no column."""
        name = self.study.analysis.per_protocol
        if not name:
            return None
        found = table_cells.truths_in(self._text(name))
        self._refuse(found, np.isnan(found.values), "1 for who was treated as planned, 0 for who was not")
        return np.asarray(found.values == 1)

    def _text(self, name: str) -> TextColumn:
        if name not in self.data:
            raise DatasetError(f"has no column {name}", self.where, "Name a column of the table")
        return csv_text.text_column(self.data, name, self.where)

    def _refuse(self, found: ColumnValues, is_wrong: Rows, kind: str) -> None:
        """Refuse the first cell that is wrong, by its participant."""
        for row in np.flatnonzero(is_wrong)[:1].tolist():
            column = found.column
            why = f": it {found.odd[row]}" if row in found.odd else ""
            problem = (
                f"{column.name} of {self.data[PARTICIPANT][row]} is {column.cells[row]!r}, {column.place(row)}{why}"
            )
            raise DatasetError(problem, self.where, f"Give {kind}")

    def numbers(self, name: str, *, of: Endpoint | None = None) -> Floats:
        """A column as numbers, NaN where a cell is empty. Raises DatasetError for another text."""
        is_share, is_time = (of is not None and of.metric == kind for kind in ("proportion", TIME))
        found = (
            table_cells.truths_in(self._text(name))
            if is_share
            else table_cells.numbers_in(self._text(name), strictly=True)
        )
        is_wrong = np.isin(np.arange(len(found.values)), list(found.odd)) | (is_time & (found.values < 0))
        kind = "0 or 1" if is_share else "a number from 0 on" if is_time else "a number"
        self._refuse(found, is_wrong, f"{kind}, or nothing where it is not known")
        return found.values

    def has_event(self, endpoint: Endpoint) -> Rows:
        """(participants,) whether the event of times happened; False where no time is known. Raises DatasetError."""
        found = table_cells.truths_in(self._text(endpoint.event))
        known = np.isfinite(self.numbers(endpoint.name, of=endpoint))
        kind = "1 for an event at that time, 0 for who is followed no longer"
        self._refuse(found, known & np.isnan(found.values), kind)
        return np.asarray(known & (found.values == 1))

    def _columns(self, names: Sequence[str]) -> dict[str, Floats]:
        """Numbers as they are, words as one column of 0 and 1 a level but the first."""
        found: dict[str, Floats] = {}
        for name in names:
            column = self._text(name)
            if table_cells.is_mostly_numeric(column):
                numbers = table_cells.numbers_in(column)
                is_odd = np.isin(np.arange(len(numbers.values)), list(numbers.odd))
                self._refuse(numbers, is_odd, "a number, or nothing where it is not known")
                found[name] = numbers.values
                continue
            cells = np.array(covariate_values.one_spelling(column.cells, self.study.strata.get(name, ())), dtype=object)
            known = np.array([not table_cells.is_absent(cell) for cell in column.cells])
            levels = sorted(set(cells[known]))
            if len(levels) > MOST_LEVELS and name not in {*self.study.strata, *self.study.subgroups}:
                problem = f"{name} has {len(levels)} levels, such as {errors.list_phrase(map(repr, levels), 3)}"
                raise DatasetError(problem, self.where, "Give numbers, or fewer groups")
            found |= {f"{name}={level}": np.where(known, cells == level, np.nan) for level in levels[1:]}
        return found

    def column_sentences(self) -> list[str]:
        """How each column of numbers and of truths was read, as the report states it."""
        endpoints = [*self.study.endpoints, *self.explored]
        plan = self.study.analysis
        truths = [one.name for one in endpoints if one.metric == "proportion"]
        truths += [name for name in (plan.per_protocol, *(one.event for one in endpoints)) if name]
        others = [*(one.name for one in endpoints), *plan.covariates, *self.study.missing.auxiliary]
        columns = [self._text(name) for name in dict.fromkeys((*truths, *others))]
        read = [
            table_cells.truths_in(one) if one.name in truths else table_cells.numbers_in(one)
            for one in columns
            if one.name in truths or table_cells.is_mostly_numeric(one)
        ]
        return [one.sentence for one in read]

    @cached_property
    def _adjustment_columns(self) -> dict[str, Floats]:
        strata: dict[str, Floats] = {
            f"{name}={level}": np.asarray(self.data[name] == level, dtype=np.float64)
            for name, levels in self.study.strata.items()
            for level in levels[1:]
        }
        # Few clusters bear no column for each level of a stratum.
        return ({} if self.study.clusters is not None else strata) | self._columns(self.study.analysis.covariates)

    @cached_property
    def _planned_tables(self) -> list[pd.DataFrame]:
        return self._impute(self.study.endpoints)

    @cached_property
    def _explored_tables(self) -> list[pd.DataFrame]:
        """Tables of further looks in a chain of their own, so that nothing of the plan depends on them."""
        return self._impute(self.explored)

    def _impute(self, endpoints: Sequence[Endpoint]) -> list[pd.DataFrame]:
        """Imputations of endpoints, covariates and auxiliary columns, all in one chain.

        The arm, or each cluster, predicts too: without clusters the variance would come out too small, with them it is
        a little too large. Andridge, Biom J 2011, doi:10.1002/bimj.201000140
        """
        outcomes = dict[str, Floats]()
        for one in endpoints:
            outcomes |= self._hazards(one) if one.metric == TIME else {one.name: self.numbers(one.name, of=one)}
        if self.study.clusters is None:
            groups = {ARM: self.is_new.astype(float)}
        else:
            names = self.data[self.study.clusters.column]
            groups = {f"cluster {one}": (names == one).to_numpy(dtype=float) for one in sorted(set(names))[1:]}
        columns = outcomes | self._adjustment_columns | self._columns(self.study.missing.auxiliary) | groups
        plan = self.study.missing
        return treatment_effects.impute_missing(pd.DataFrame(columns), plan.imputations, plan.seed)

    def _hazards(self, endpoint: Endpoint) -> dict[str, Floats]:
        """Event and hazard until then, by which missing covariates of times are predicted.

        White and Royston, Stat Med 2009, doi:10.1002/sim.3618
        """
        times = self.numbers(endpoint.name, of=endpoint)
        happened = self.has_event(endpoint)
        known = np.isfinite(times)
        hazard, event = (np.full(len(times), np.nan) for _ in range(2))
        left = survival.kaplan_meier(times[known], happened[known]).at(times[known])
        hazard[known] = -np.log(np.maximum(left, 1 / max(1, len(left))))
        event[known] = happened[known]
        return {f"hazard of {endpoint.name}": hazard, f"event of {endpoint.name}": event}

    def effect(self, endpoint: Endpoint, rows: Rows, *, filled: Floats | None = None) -> Effect:
        """The effect in these participants, pooled over imputations. filled: outcomes in place of imputed ones.

        Raises DatasetError for an arm of which fewer than two outcomes are known.
        """
        known = rows & np.isfinite(self.numbers(endpoint.name, of=endpoint))
        for side, arm in enumerate(self.study.names):
            if (number := int((known & (self.is_new == side)).sum())) < 2:
                who = f" of those treated {PROTOCOL}" if rows is self.is_followed else ""
                problem = (
                    f"{endpoint.name}: {'one outcome alone' if number else 'no outcome'} of the arm {arm} is known"
                )
                raise DatasetError(f"{problem}{who}", self.where, "Analyse once outcomes of both arms are known")
        effects = []
        for table in self._explored_tables if endpoint in self.explored else self._planned_tables:
            covariates = table[list(self._adjustment_columns)].to_numpy()
            try:
                if endpoint.metric == TIME:
                    effects.append(self._effect_on_times(endpoint, rows, covariates))
                    continue
                outcome = table[endpoint.name].to_numpy() if filled is None else filled
                effects.append(self._effect(outcome[rows], rows, covariates[rows]))
            except UsageError as error:
                raise DatasetError(f"{endpoint.name}: {error.problem}", self.where, error.remedy) from error
        effect = treatment_effects.pool_effects(effects)
        if effect.rank is None or endpoint.metric == TIME or filled is not None:
            return effect
        # An exact test takes imputed outcomes for known ones, and would be too sure.
        outcome = self.numbers(endpoint.name, of=endpoint)[known]
        return treatment_effects.participant_effect(outcome, self.is_new[known], np.zeros((len(outcome), 0)))

    def _effect(self, outcome: Floats, rows: Rows, covariates: Floats) -> Effect:
        if self.study.clusters is None:
            return treatment_effects.participant_effect(outcome, self.is_new[rows], covariates)
        return treatment_effects.cluster_effect(
            outcome, self.is_new[rows], self.data[self.study.clusters.column][rows], covariates
        )

    def _effect_on_times(self, endpoint: Endpoint, rows: Rows, covariates: Floats) -> Effect:
        """Effect on times of those who were followed at all."""
        times = self.numbers(endpoint.name, of=endpoint)
        happened = self.has_event(endpoint)
        followed = rows & np.isfinite(times)
        return treatment_effects.hazard_effect(
            times[followed], happened[followed], self.is_new[followed], covariates[followed]
        )

    def row(self, endpoint: Endpoint, rows: Rows, effect: Effect, **words: Any) -> EffectRow:
        """A row as of `comparison.json`, with the population and how missing outcomes were taken."""
        outcomes = self.numbers(endpoint.name, of=endpoint)
        test = effect.test(self.level(endpoint))
        observed = rows & np.isfinite(outcomes)
        control, new = self.study.names
        values = {name: outcomes[observed & (self.is_new == side)] for side, name in enumerate((control, new))}
        row = {
            "metric": endpoint.metric,
            "label": "all",
            "first": control,
            "second": new,
            "test": "cluster" if self.study.clusters is not None else "participant",
            "method": test.method,
            "difference": test.difference,
            "low": test.low,
            "high": test.high,
            "level": self.level(endpoint),
            "statistic": test.statistic,
            "p": test.p,
            "p_adjusted": None,
            "margin": None,
            "verdict": None,
            "endpoint": endpoint.name,
            "role": "secondary",
            "population": INTENTION,
            "missing": "imputed" if np.isnan(outcomes[rows]).any() else "none",
            "planned": self.is_planned,
            "n": {name: int((rows & (self.is_new == side)).sum()) for side, name in enumerate((control, new))},
            "known": {name: len(own) for name, own in values.items()},
            "values": {name: float(own.mean()) if len(own) else None for name, own in values.items()},
            "sd": {name: float(own.std(ddof=1)) if len(own) > 1 else math.nan for name, own in values.items()},
            **(self._of_times(endpoint, observed, test) if endpoint.metric == TIME else {}),
            **words,
        }
        return cast("EffectRow", row)

    def _of_times(self, endpoint: Endpoint, observed: Rows, test: DifferenceTest) -> dict[str, object]:
        """Further figures of times: the hazard ratio, events and median of each arm, the log-rank test."""
        times = self.numbers(endpoint.name, of=endpoint)
        happened = self.has_event(endpoint)
        sides = {name: observed & (self.is_new == side) for side, name in enumerate(self.study.names)}
        ends = [math.nan if end is None else float(np.exp(end)) for end in (test.difference, test.low, test.high)]
        return {
            "hazard_ratio": dict(zip(("value", "low", "high"), ends, strict=True)),
            "events": {name: int(happened[own].sum()) for name, own in sides.items()},
            "values": {
                name: treatment_effects.kaplan_meier_median(times[own], happened[own]) for name, own in sides.items()
            },
            "logrank_p": survival.logrank_test(times[observed], happened[observed], self.is_new[observed])[1],
            "missing": "left out" if np.isnan(times).any() else "none",
        }

    def rows(self) -> list[EffectRow]:
        """The primary endpoints first, each with its sensitivity analyses; then secondary ones, subgroups, explored."""
        everybody = np.ones(len(self.data), dtype=bool)
        rows = []
        for endpoint in self.study.endpoints:
            role = "primary" if endpoint.primary else "secondary"
            rows.append(self.row(endpoint, everybody, self.effect(endpoint, everybody), role=role))
            rows += self._sensitivity(endpoint, everybody) if endpoint.primary else []
            if self.is_followed is not None:
                effect = self.effect(endpoint, self.is_followed)
                rows.append(self.row(endpoint, self.is_followed, effect, role="sensitivity", population=PROTOCOL))
        for endpoint in self.study.primary:
            rows += [row for name in self.study.subgroups for row in self._subgroups(endpoint, name)]
        for endpoint in self.explored:
            effect = self.effect(endpoint, everybody)
            rows.append(self.row(endpoint, everybody, effect, role="exploratory", planned=False))
        return self._judge(rows)

    def _sensitivity(self, endpoint: Endpoint, everybody: Rows) -> list[EffectRow]:
        """Complete cases, and missing outcomes as good for one arm and as bad for the other as can be.

        Nothing of times: who was not followed at all is in no analysis of them.
        """
        if endpoint.metric == TIME:
            return []
        outcomes = self.numbers(endpoint.name, of=endpoint)
        observed = np.isfinite(outcomes)
        if observed.all():
            return []
        rows = [
            self.row(endpoint, observed, self.effect(endpoint, observed), role="sensitivity", missing="complete cases")
        ]
        for word, is_best in (("best case", True), ("worst case", False)):
            filled = outcomes.copy()
            for side in (False, True):
                in_arm = self.is_new == side
                is_high = endpoint.is_more_better == (is_best == side)
                spread = EXTREME * np.std(outcomes[in_arm & observed], ddof=1) * (1 if is_high else -1)
                extreme = (
                    float(is_high) if endpoint.metric == "proportion" else outcomes[in_arm & observed].mean() + spread
                )
                filled[in_arm & ~observed] = extreme
            effect = self.effect(endpoint, everybody, filled=filled)
            rows.append(self.row(endpoint, everybody, effect, role="sensitivity", missing=word))
        return rows

    def _subgroups(self, endpoint: Endpoint, name: str) -> list[EffectRow]:
        """The effect in each level, and the test that it is the same in all: Cochran's Q, by an F law of the fewest.

        Cochran, Biometrics 1954, doi:10.2307/3001666; where levels share clusters their effects go together, and the
        test is careful.
        """
        effects = dict[str, Effect]()
        rows = list[EffectRow]()
        for level in sorted(level for level in set(self.data[name]) if not table_cells.is_absent(level)):
            in_level = (self.data[name] == level).to_numpy()
            try:
                if min((in_level & self.is_new).sum(), (in_level & ~self.is_new).sum()) < FEWEST:
                    continue
                effect = self.effect(endpoint, in_level)
            except DatasetError:  # too few clusters, or outcomes all alike
                continue
            rows.append(self.row(endpoint, in_level, effect, role="subgroup", label=f"{name}={level}"))
            effects |= {level: effect} if effect.rank is None else {}
        if len(effects) < 2:
            return rows
        differences, weights = np.array([[one.difference, 1 / one.variance] for one in effects.values()]).T
        apart = float((weights * (differences - weights @ differences / weights.sum()) ** 2).sum())
        free = len(effects) - 1
        least = min(one.degrees for one in effects.values())
        p = float(stats.f.sf(apart / free, free, least) if np.isfinite(least) else stats.chi2.sf(apart, free))
        most = list(effects)[int(np.argmax(np.abs(differences - differences.mean())))]
        both: dict[str, object] = {
            "difference": None,
            "low": None,
            "high": None,
            "statistic": apart / free,
            "p": p,
            "values": {},
        }
        both |= {"differs_most": f"{name}={most}", "method": f"interaction: Cochran's Q over {free + 1} levels, F"}
        whole = np.ones(len(self.data), dtype=bool)
        row = self.row(endpoint, whole, effects[most], role="interaction", label=name)
        return [*rows, cast("EffectRow", {**row, **both})]

    def _judge(self, rows: list[EffectRow]) -> list[EffectRow]:
        """Holm's adjustment within primary, secondary endpoints and interactions, and the verdicts of endpoints."""
        endpoints = {one.name: one for one in (*self.study.endpoints, *self.explored)}
        for role in ("primary", "secondary", "interaction"):
            family = [row for row in rows if row["role"] == role]
            for row, p in zip(family, testing.holm([row["p"] for row in family]).tolist(), strict=True):
                row["p_adjusted"] = p
        for row in rows:
            if row["role"] in ("primary", "secondary"):
                endpoint = endpoints[row["endpoint"]]
                row["margin"] = endpoint.margin
                row["verdict"] = _verdict(row, endpoint, self.alpha)
        return rows

    def record(self) -> dict[str, object]:
        """Record of the data in `results.json`; a word stands where there is nothing, so that it is an answer."""
        rows = self.rows()
        study = self.study
        look = {} if self.look is None else {"now": self.look.look, "fraction": self.look.fraction}
        subgroups = [row for row in rows if row["role"] in ("subgroup", "interaction")]
        explored = [row for row in rows if not row["planned"]]
        gaps = {}
        for endpoint in study.endpoints:
            seen = np.isnan(self.numbers(endpoint.name))
            gaps[endpoint.name] = {name: int(seen[self.is_new == side].sum()) for side, name in enumerate(study.names)}
        return {
            "tests": rows,
            "correction": "holm",
            "look": {**look, "level": self.alpha, "planned": self.is_planned},
            "missing": {"method": trial_protocol.plan_record(study)["missing"], "outcomes": gaps},
            "subgroups": subgroups or "none were planned",
            "exploratory": explored or "nothing but what the plan says was analysed",
            "baseline": self.baseline(),
            "columns": self.column_sentences(),
        }

    def baseline(self) -> list[BaselineRow]:
        """Strata, subgroups and covariates of each arm: a share, or mean and standard deviation. No tests."""
        rows = []
        for name in dict.fromkeys((*self.study.strata, *self.study.subgroups, *self.study.analysis.covariates)):
            for level, values in self._columns([name]).items():
                row: BaselineRow = {"characteristic": level}
                for side, arm in enumerate(self.study.names):
                    own = pd.Series(values[self.is_new == side])
                    # Of those with one level, how many they are.
                    count = {"count": int(own.sum())} if level != name else {}
                    row[arm] = {"mean": own.mean(), "sd": own.std(), "n": int(own.notna().sum()), **count}
                rows.append(row)
        sizes: BaselineRow = {arm: {"n": int((self.is_new == side).sum())} for side, arm in enumerate(self.study.names)}
        return [{"characteristic": "participants", **sizes}, *rows]

    def flow(self, log: pd.DataFrame) -> FlowRecord:
        """Participants and clusters of each arm from allocation to analysis, and why outcomes are missing."""
        first = self.study.primary[0]
        known = np.isfinite(self.numbers(first.name, of=first))
        arms = list[FlowArm]()
        losses = list[TableRow]()
        reasons = self.data[self.study.analysis.reason] if self.study.analysis.reason else None
        for side, name in enumerate(self.study.names):
            own = self.is_new == side
            unit = "participant" if self.study.clusters is None else "cluster"
            row = {"arm": name, "unit": unit, "assigned": int((log[ARM] == name).sum()), "participants": int(own.sum())}
            row |= {"with_outcome": int((own & known).sum()), "analysed": int(own.sum())}
            if self.is_followed is not None:
                row["per_protocol"] = int((own & self.is_followed).sum())
            arms.append(cast("FlowArm", row))
            lost = own & ~known
            words = pd.Series(NOT_STATED, index=self.data.index) if reasons is None else reasons.replace("", NOT_STATED)
            losses += [
                {"arm": name, "reason": reason, "participants": int(number)}
                for reason, number in words[lost].value_counts().items()
            ]
        return {"arms": arms, "losses": losses or "no outcome is missing"}


def _verdict(row: EffectRow, endpoint: Endpoint, alpha: float) -> str:
    """Verdict as in `comparison.json`: a difference by the adjusted p, what a margin shows by the interval."""
    sign = 1 if endpoint.is_more_better else -1
    is_shown = row["p_adjusted"] is not None and row["p_adjusted"] < alpha
    if is_shown and sign * row["statistic"] > 0:
        return "superior"
    margin = endpoint.margin_of_effect
    worst, best = sorted((sign * row["low"], sign * row["high"]))
    if margin is not None and worst > -margin:
        return "equivalent" if best < margin else "non-inferior"
    return "inferior" if is_shown else "not shown"


def flow_diagram(arms: Sequence[FlowArm]) -> Figure:
    """The diagram, from the rows of arms in `flow.json` alone."""
    parts = []
    for row in arms:
        followed = f", per protocol: {row['per_protocol']}" if "per_protocol" in row else ""
        known = f"{row['arm']}: {row['participants']}, with outcome: {row['with_outcome']}"
        parts.append(f"{known}\nanalysed: {row['analysed']}{followed}")
    assigned = sum(row["assigned"] for row in arms)
    steps = [(f"Assigned: {errors.count_phrase(assigned, arms[0]['unit'])}", "")]
    caption = "Participants of each arm; every number stands in its record."
    return cohort_figures.flow_of_cases(steps, parts, "Flow of participants", caption=caption)
