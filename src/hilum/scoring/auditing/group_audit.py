"""Comparison of a model's figures among groups of people.

Also the change of an answer when the patient is said to be of another group, all else alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import JsonValue
from typing_extensions import TypedDict

from hilum import errors
from hilum.evaluation import ALL, Metrics, Table, case_tables, intervals
from hilum.evaluation.case_tables import COVARIATE, THRESHOLD
from hilum.evaluation.fairness import group_attributes, group_gaps
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.evaluation.fairness.group_gaps import FEW, Gap, NeighbourDistances
from hilum.evaluation.significance import testing
from hilum.layouts.cases import table_join
from hilum.lazy import pandas as pd
from hilum.report import Block, Details, Paragraph, Section, wording
from hilum.report import Table as PageTable
from hilum.report.figures import charts
from hilum.scoring import case_scoring
from hilum.scoring.case_scoring import AuditInput, AuditOutcome
from hilum.tasks import Task
from hilum.values import Case, Dataset, Estimate, Floats, Row, covariate_values
from hilum.values.covariate_values import CovariateValues
from hilum.values.record_schema import RecordSchema


class GapRow(TypedDict):
    """How far the groups of an attribute are apart in a figure; `expected` where no group differs."""

    attribute: str
    metric: str
    label: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    worst: str
    expected: float | None


class FairnessRecord(TypedDict):
    """Groups of patients beside one another.

    groups:      the attributes that were asked for; exploratory: those that nobody preregistered
    individual:  of each attribute, how alike cases are answered that look alike to the network
    swapped:     how far answers move where the attribute of a case is changed
    """

    groups: str
    exploratory: list[str]
    level: float
    gaps: list[GapRow]
    individual: list[dict[str, JsonValue]]
    swapped: list[dict[str, JsonValue]]


GROUPS, FAIRNESS, SCHEMA = "groups.csv", "fairness.json", RecordSchema("hilum.fairness", FairnessRecord)
OF_GROUPS = (GROUPS, FAIRNESS)
TITLE = "Groups of people"
COLUMNS = ("attribute", "group", "metric", "label", "value", "low", "high", "n", "patients", "judged")
YES, NOT_KNOWN = "yes", "nobody knows the group"
# From this p on, adjusted for all gaps, a gap is shown.
LEVEL = 0.05
# Draws of a group's intervals, times its cases: of large groups fewer draws say as much.
MOST_WORK, FEWEST_DRAWS, DRAWS = 1_000_000, 100, 1000
# Between a person and the group: a person who changes it is two.
SIGN = "\x1f"
HOW = (
    "Gaps are those of the best and the worst group. Groups without any difference have a gap too: its mean is that "
    "by chance. Intervals are those of these two groups, from a bootstrap of patients, as wide as intervals of all "
    "pairs of groups together have to be. p comes from a permutation of patients (cases, where patients are unknown; "
    "of very many, from the normal "
    "distribution) that compares differences by their standard errors, adjusted by Holm for all gaps here."
)
NEAREST = (
    "Distance between the answer to a case and that to its nearest neighbour, by what "
    "the network sees, in other groups "
    "and in its own. p comes from a permutation of groups: a case of a small group has few neighbours of its own, so "
    "that the difference by chance may be below 0."
)
# All further predictions are at most this share of the cases, so that an evaluation takes little longer; with so many
# cases of each covariate at least something can be stated, of a small set at a higher price.
SWAPPED_SHARE, FEWEST_SWAPPED = 0.1, 5
CALLED = "predicted"


@dataclass(frozen=True, eq=False)
class GroupFigures:
    """The figures of groups, as rows of `groups.csv`, and the gaps among groups.

    rows: (attribute, group, what was measured, whether it can be judged)
    """

    rows: list[tuple[str, str, Row, str]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


def with_table_covariates(
    dataset: Dataset, table: str | Path | None, scored: Container[str], asked: str | None = None
) -> Dataset:
    """The data set with further covariates of cases that are scored, by case or patient; known ones of its own stay.

    asked: groups as `groups_by_attribute` takes them: what has limits is a number
    Raises DatasetError for a table that names neither, or lacks one of them, and for a cell that is no number there.
    """
    if table is None:
        return dataset
    covered = [case for case in dataset if case.id in scored]
    whose = [(case.id, case.patient) for case in covered]
    firsts = [case.files[0] for case in covered if case.files]
    words = [word.partition(":") for word in (asked or "").replace("*", ",").split(",")]
    numbers = [name.strip() for name, _, limits in words if limits]
    found, problems = table_join.covariates_of_cases(Path(table), whose, firsts, numbers)
    more = {case.id: _complete(case.covariates, row) for case, row in zip(covered, found, strict=True)}
    cases = tuple(replace(case, covariates=more[case.id]) if case.id in more else case for case in dataset)
    return replace(dataset, cases=cases, problems=(*dataset.problems, *problems))


def _complete(covariates: CovariateValues, more: CovariateValues) -> CovariateValues:
    """Covariates and more of them: names as the first spell them, whose missing values the second fill in."""
    spelled = {name.casefold(): name for name in covariates}
    # DICOM has every patient's sex and age, which are empty where somebody has hidden them.
    present = {name: value for name, value in covariates.items() if not covariate_values.is_missing(value)}
    return {**covariates, **{spelled.get(name.casefold(), name): value for name, value in more.items()}, **present}


def audit_groups(audit: AuditInput) -> AuditOutcome | None:
    """Every figure by group, and the gaps among groups; None where no covariate makes groups."""
    scored, asked = audit.scored, audit.options.groups or audit.planned
    task, table = scored.task, scored.table
    who = table.drop_duplicates("case").set_index("case")
    covariates = {name.removeprefix(COVARIATE): who[name].tolist() for name in case_tables.covariate_columns(table)}
    assigned = group_attributes.groups_by_attribute(covariates, asked, strictly=audit.options.groups is not None)
    if not assigned or task is None:
        return None
    compared = GroupFigures()
    for attribute, names in assigned.items():
        of_case = dict(zip(who.index, names.tolist(), strict=True))
        for part, (kind, rows) in scored.parts.items():
            groups = rows["case"].map(of_case).to_numpy(dtype=object)
            look = AttributeGroups(attribute, part, kind, rows, groups, audit.seed)
            compared.rows.extend(look.rows())
            compared.gaps.extend(look.gaps())
        if "abstained" in who:
            look = AttributeGroups(attribute, "", task, who.reset_index(), names, audit.seed)
            judged_names = np.where(np.isin(names.astype(str), look.groups_with_enough(ALL)), names, "")
            compared.gaps.append(group_gaps.abstention_gap(attribute, look.table, judged_names, seed=audit.seed))
    if not audit.patients_known:
        compared.rows[:] = [
            (a, g, replace(row, estimate=case_scoring.named_by_case(row.estimate)), j) for a, g, row, j in compared.rows
        ]
    done = replace(compared, gaps=group_gaps.adjusted_gaps(compared.gaps, testing.holm))
    alike = [one for name, own in assigned.items() if (one := _alike(audit, name, own, who)) is not None]
    late = groups_not_preregistered(asked or ",".join(assigned), audit.preregistered)
    moved = swap_covariates(
        audit, {name: dict(zip(who.index, own.tolist(), strict=True)) for name, own in assigned.items()}
    )
    plain = FairnessRecord(
        groups=asked or ",".join(assigned),
        exploratory=late,
        level=LEVEL,
        gaps=[cast("GapRow", _record(gap)) for gap in done.gaps],
        individual=[*map(_record, alike)],
        swapped=[*map(_record, moved)],
    )
    notes = [_words(gap, scored.metrics) for gap in _gaps_to_show(done.gaps)]
    return AuditOutcome(
        {GROUPS: _csv(done)},
        {FAIRNESS: (SCHEMA, plain)},
        [_section(done, scored.metrics, alike, moved, _when(late, audit.preregistered))],
        notes,
    )


@dataclass(frozen=True, eq=False)
class AttributeGroups:
    """One attribute of the cases of one task; groups: (rows,)"""

    attribute: str
    part: str
    task: Task
    table: Table
    groups: np.ndarray
    seed: int
    _enough: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def names(self) -> list[str]:
        """The groups, ranges as they rise, those of whom nobody knows it last."""
        return sorted(set(self.groups.tolist()), key=group_attributes.group_order)

    def groups_with_enough(self, label: str) -> list[str]:
        """The groups with people enough for this label."""
        if label not in self._enough:
            table = self.table
            every = np.ones(len(table), dtype=bool)
            here = (table["label"] == label).to_numpy() if label in set(table["label"]) else every
            classes = group_gaps.classes_in_references(table[here])
            named = [name for name in self.names if name != UNKNOWN]
            few = [group_gaps.has_few_people(table[here & (self.groups == name)], label, classes) for name in named]
            self._enough[label] = [name for name, is_few in zip(named, few, strict=True) if not is_few]
        return self._enough[label]

    def rows(self) -> Iterator[tuple[str, str, Row, str]]:
        """Every figure of each group."""
        for name, rows in self.summaries.items():
            for row in [*rows, *self._thresholds(name)]:
                word = NOT_KNOWN if name == UNKNOWN else YES if name in self.groups_with_enough(row.label) else FEW
                yield self.attribute, name, replace(row, label=self._full_label(row.label)), word

    def _thresholds(self, name: str) -> Iterator[Row]:
        """The threshold by which a group's cases were called, where not all cases have the same one."""
        for column in case_tables.threshold_columns(self.table):
            for label, rows in self.table.assign(group=self.groups).groupby("label"):
                thresholds = rows.loc[rows["group"] == name, column].dropna()
                if rows[column].nunique() > 1 and len(thresholds):
                    method = "none: the median of the group's cases"
                    estimate = Estimate(float(thresholds.median()), n=len(thresholds), method=method)
                    yield Row(THRESHOLD, column.partition("_")[2] or str(label), estimate)

    def gaps(self) -> Iterator[Gap]:
        """The gaps of calls, and those of the task's own metrics."""
        positives = self.task.positives
        of_calls = group_gaps.rate_gaps(
            self.attribute, self.table, self.groups, self.groups_with_enough, seed=self.seed, positives=positives
        )
        yield from (replace(gap, label=self._full_label(gap.label)) for gap in (*of_calls, *self._of_metrics()))

    def _full_label(self, label: str) -> str:
        return f"{self.part}: {label}" if self.part else label

    @cached_property
    def summaries(self) -> Mapping[str, Sequence[Row]]:
        """{group: every figure of it}"""
        summaries = {}
        for name in self.names:
            rows = self.table[self.groups == name].reset_index(drop=True)
            draws = int(np.clip(MOST_WORK // len(rows), FEWEST_DRAWS, DRAWS))
            how = case_tables.resampling_of_table(rows, self.seed).with_draws(draws)
            summaries[name] = self.task.summary(rows, seed=how)
        return summaries

    @cached_property
    def _of_all(self) -> list[Row]:
        """Every figure of all groups together, with what it was made of; of very many people only what there is."""
        person = self.table["patient"].astype(str) + SIGN + self.groups.astype(str)
        if not group_gaps.can_deal_groups(person.nunique(), len(self.names)):
            rows = {(row.metric, row.label): row for own in self.summaries.values() for row in own}
            return [replace(row, estimate=Estimate(float("nan"))) for row in rows.values()]
        units = self.table.assign(patient=person)
        how = replace(case_tables.resampling_of_table(units, self.seed), draws=2, keeps_recipe=True)
        return self.task.summary(units, seed=how)

    def _of_metrics(self) -> Iterator[Gap]:
        """The gaps of each audited metric and label; one that repeats another is left out."""
        done: set[tuple[Any, ...]] = set()
        estimates = {
            name: {(row.metric, row.label): row.estimate for row in rows} for name, rows in self.summaries.items()
        }
        for row in self._of_all:
            if not self.task.metrics.metric_named(row.metric).is_audited:
                continue
            nothing = Estimate(float("nan"))
            judged = self.groups_with_enough(row.label)
            of_groups = {name: estimates[name].get((row.metric, row.label), nothing) for name in judged}
            key = (row.metric, *(round(one.value, 12) for one in of_groups.values()))
            if of_groups and key in done:
                continue
            done.add(key)
            yield self._gap(row, of_groups)

    def _gap(self, row: Row, estimates: Mapping[str, Estimate]) -> Gap:
        gap, recipe = Gap(self.attribute, row.metric, row.label, float("nan")), row.estimate.recipe
        metric = self.task.metrics.metric_named(row.metric)
        is_error = metric.better == "less"
        if recipe is not None:
            people = {one: one.partition(SIGN)[2] for one in recipe.people.tolist()}
            people_of_group = {one: group for one, group in people.items() if group in estimates}
            return group_gaps.gap_of_recipe(gap, recipe, people_of_group, worse=1 if is_error else -1, seed=self.seed)
        if (aim := metric.aim) is not None:
            return group_gaps.gap_of_estimates(gap, estimates, lambda value: abs(value - aim))
        return group_gaps.gap_of_estimates(gap, estimates, lambda value: value if is_error else -value)


def _alike(audit: AuditInput, attribute: str, groups: np.ndarray, who: Table) -> NeighbourDistances | None:
    """Whether cases that look alike to the network are answered alike; None without its features, or numbers."""
    features = audit.scored.features
    here = [n for n, case in enumerate(who.index) if case in features]
    if not features or not answer_columns(who) or not here:
        return None
    answers = answers_by_case(audit.scored.table).reindex(who.index).to_numpy(dtype=float)[here]
    rows = np.stack([features[who.index[n]][1] for n in here]).astype(np.float64)
    patients = who["patient"].to_numpy(dtype=object)[here]
    is_known = np.isfinite(answers).any(axis=1)
    eyes = np.array([audit.network_of(str(who.index[n])) for n in here])
    known = [one[is_known] for one in (rows, answers, groups[here], patients)]
    return group_gaps.neighbour_gap(attribute, *known, seed=audit.seed, eyes=eyes[is_known])


def _csv(compared: GroupFigures) -> Table:
    lines = [
        (attribute, group, row.metric, row.label, *_estimate_cells(row.estimate), judged)
        for attribute, group, row, judged in compared.rows
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _estimate_cells(estimate: Estimate) -> tuple[Any, ...]:
    return estimate.value, estimate.low, estimate.high, estimate.n, estimate.patients


def _record(gap: Gap | NeighbourDistances | SwappedAnswers) -> dict[str, JsonValue]:
    """JSON knows no NaN."""
    plain = asdict(gap).items()
    return {name: None if isinstance(one, float) and not np.isfinite(one) else one for name, one in plain}


def _gaps_to_show(gaps: Sequence[Gap]) -> list[Gap]:
    return sorted((gap for gap in gaps if gap.p_adjusted < LEVEL), key=lambda gap: gap.p_adjusted)


def _words(gap: Gap, metrics: Metrics) -> str:
    """A gap in a sentence."""
    label = "" if gap.label == ALL else f" of {gap.label}"
    p_in_words = wording.p_text(gap.p_adjusted)
    how = f"{wording.number_text(gap.low)} to {wording.number_text(gap.high)}, adjusted p {p_in_words}"
    how += f", by chance {wording.number_text(gap.expected)}" if np.isfinite(gap.expected) else ""
    what = f"{metrics.metric_named(gap.metric).words}{label}"
    return (
        f"Groups of {gap.attribute} differ: {what} by {wording.number_text(gap.value)} ({how}), worst for {gap.worst}."
    )


def groups_not_preregistered(asked: str, preregistered: str | None) -> list[str]:
    """The parts of "sex,age:40:60" that were not among the groups fixed before training."""
    spelled = {_spell(one) for one in (preregistered or "").split(",")}
    return [one.strip() for one in asked.split(",") if one.strip() and _spell(one) not in spelled]


def _spell(group: str) -> str:
    return "".join(group.split()).casefold()


def _when(late: Sequence[str], preregistered: str | None) -> str:
    """Whether groups were fixed before anybody knew how they fare, in a sentence."""
    if not late:
        return "These groups were fixed before training."
    if preregistered is None:
        return "No groups were fixed before training: every gap is exploratory."
    return f"Not fixed before training, and so exploratory: {errors.list_phrase(late)}."


def _verdict(compared: GroupFigures) -> str:
    """The number of gaps that are shown, of those that could be tested, and the groups with too few people."""
    shown, tested = _gaps_to_show(compared.gaps), [gap for gap in compared.gaps if np.isfinite(gap.p)]
    attributes = errors.list_phrase(list(dict.fromkeys(gap.attribute for gap in compared.gaps)))
    if shown:
        gaps = errors.count_phrase(len(shown), "gap")
        verdict = f"Groups of {attributes} differ by {gaps} of {len(tested)} that were tested."
    elif tested:
        verdict = f"No gap shown among groups of {attributes} ({errors.count_phrase(len(tested), 'gap')} tested)."
    else:
        verdict = f"Groups of {attributes} are too small to test any gap: whether there are gaps is not known."
    few = list(dict.fromkeys(f"{a} {g}" for a, g, _, judged in compared.rows if judged == FEW))
    if few:
        return f"{verdict} Groups with too few people to judge, by one label or more: {errors.list_phrase(few)}."
    return verdict


def _section(
    compared: GroupFigures,
    metrics: Metrics,
    alike: Sequence[NeighbourDistances],
    moved: Sequence[SwappedAnswers],
    when: str,
) -> Section:
    words = [_verdict(compared), when, *(one.words for one in moved)]
    blocks: list[Block] = [Paragraph(" ".join(words)), *_forest(compared, metrics)]
    rows = [_cells(gap, metrics) for gap in _gaps_to_show(compared.gaps)]
    columns = ("Attribute", "Gap", "Label", "Value", "By chance", "95 % interval", "p", "adjusted p", "Worst for")
    if rows:
        blocks.append(PageTable(columns, rows))
    blocks += _all_gaps(compared.gaps, metrics, columns)
    levels = [
        (a, g, row.label, wording.number_text(row.estimate.value))
        for a, g, row, _ in compared.rows
        if row.metric == THRESHOLD
    ]
    if levels:
        called = PageTable(("Attribute", "Group", "Label", "Called from this probability on"), levels)
        blocks.append(Details("Thresholds by group", [called]))
    if alike:
        cells = [
            (one.attribute, *map(wording.number_text, (one.others, one.own, one.difference)), f"{one.p:.2g}")
            for one in alike
        ]
        heads = ("Attribute", "Other groups", "Own group", "Difference", "p")
        blocks.append(Details("Do people with similar images get similar answers?", [PageTable(heads, cells, NEAREST)]))
    return Section(TITLE, blocks)


def _all_gaps(gaps: Sequence[Gap], metrics: Metrics, columns: Sequence[str]) -> Iterator[Block]:
    """Every gap that has a value, and of how many there are too few people, by attribute."""
    cells = [_cells(gap, metrics) for gap in gaps if np.isfinite(gap.value)]
    unknown = Counter(gap.attribute for gap in gaps if not np.isfinite(gap.value))
    if cells:
        yield Details(f"All {errors.count_phrase(len(cells), 'gap')} with a value", [PageTable(columns, cells, HOW)])
    if unknown:
        parts = errors.list_phrase([f"{attribute} ({count})" for attribute, count in unknown.items()])
        gaps_unknown = errors.count_phrase(unknown.total(), "gap has", "gaps have")
        yield Paragraph(f"{gaps_unknown} no value, because a group has too few people: {parts}.")


def _forest(compared: GroupFigures, metrics: Metrics) -> Iterator[Block]:
    """The first metric whose gaps are tested, of each group; that over all labels, if there is one."""
    audited = [gap for gap in compared.gaps if gap.metric in {row.metric for _, _, row, _ in compared.rows}]
    if not audited:
        return
    metric, label = audited[0].metric, audited[0].label
    of_metric = [
        (attribute, group, row.estimate, judged == YES)
        for attribute, group, row, judged in compared.rows
        if (row.metric, row.label) == (metric, label)
    ]
    if any(np.isfinite(estimate.value) for _, _, estimate, _ in of_metric):
        yield charts.forest(
            of_metric, f"{metrics.metric_named(metric).words} by group", axis=metrics.metric_named(metric).words
        )


def _cells(gap: Gap, metrics: Metrics) -> tuple[Any, ...]:
    interval = f"{wording.number_text(gap.low)} to {wording.number_text(gap.high)}" if np.isfinite(gap.low) else ""
    p_values = [wording.p_text(one) if np.isfinite(one) else "" for one in (gap.p, gap.p_adjusted)]
    chance = wording.number_text(gap.expected) if np.isfinite(gap.expected) else ""
    what = (gap.attribute, metrics.metric_named(gap.metric).words, gap.label)
    return (*what, wording.number_text(gap.value), chance, interval, *p_values, gap.worst)


@dataclass(frozen=True)
class SwappedAnswers:
    """Answers with a covariate that the network gets as it is, and as the other groups have it.

    moved:     mean absolute change of probabilities, risks or values, over the other groups, of several values in
               standard deviations; low, high: of patients
    changed:   share of cases whose call is another one in some other group; None where nothing is called
    """

    attribute: str
    moved: float
    low: float | None
    high: float | None
    changed: float | None
    cases: int

    @property
    def words(self) -> str:
        """The change in a sentence."""
        interval = (
            ""
            if self.low is None or self.high is None
            else f" ({wording.number_text(self.low)} to {wording.number_text(self.high)})"
        )
        calls = "" if self.changed is None else f", and {wording.share_text(self.changed)} of the calls change"
        cases = errors.count_phrase(self.cases, "case")
        moves = f"the answer changes by {wording.number_text(self.moved)}{interval} on average{calls} ({cases})"
        return f"With the {self.attribute} of another group and everything else unchanged, {moves}."


def swap_covariates(audit: AuditInput, assigned: Mapping[str, Mapping[str, str]]) -> list[SwappedAnswers]:
    """The change of answers with each covariate that the network gets and that makes two groups or more.

    assigned: {attribute: {case id: its group}}
    Counterfactual fairness of inputs alone: Kusner et al., NeurIPS 2017, arXiv:1703.06856
    """
    if not answer_columns(audit.scored.table):
        return []
    asked: dict[str, tuple[list[Case], CovariateValues]] = {}
    for attribute, groups in assigned.items():
        of_known_group = [case for case in audit.cases if groups.get(case.id, UNKNOWN) != UNKNOWN]
        values = _values(of_known_group, attribute, groups)
        if len(values) > 1 and attribute in audit.predictor.model_of(of_known_group[0].id).networks.context.names:
            asked[attribute] = of_known_group, values
    return [
        _swap(audit, attribute, _some(known, len(values), len(asked), audit), values, assigned[attribute])
        for attribute, (known, values) in asked.items()
    ]


def _some(candidates: Sequence[Case], groups: int, attributes: int, audit: AuditInput) -> list[Case]:
    """The cases that are predicted again as those of each other group: attributes share what predictions there are."""
    per_group = int(SWAPPED_SHARE * len(audit.cases) / attributes / (groups - 1))
    count = min(len(candidates), max(FEWEST_SWAPPED, per_group))
    return [
        candidates[place]
        for place in sorted(np.random.default_rng(audit.seed).choice(len(candidates), count, replace=False))
    ]


def _swap(
    audit: AuditInput, attribute: str, cases: Sequence[Case], values: CovariateValues, groups: Mapping[str, str]
) -> SwappedAnswers:
    table = audit.scored.table
    is_called = CALLED in table and not pd.api.types.is_numeric_dtype(table[CALLED])
    moved, changed, patients, sizes = list[float](), list[bool](), list[str](), answer_scales(table)
    for case in cases:
        rows = table[table["case"] == case.id]
        others = [
            _score_swapped(audit, case, attribute, value) for name, value in values.items() if name != groups[case.id]
        ]
        here, calls = _answers(rows), rows[CALLED].astype(str).tolist() if is_called else []
        size = rows["label"].map(sizes).to_numpy(dtype=float)[:, None]
        moved.append(float(np.nanmean([np.abs(_answers(one) - here) / size for one in others])))
        changed.append(is_called and any(one[CALLED].astype(str).tolist() != calls for one in others))
        patients.append(case.patient)
    are_shares = all(name.startswith("probability") for name in answer_columns(table))
    estimate = intervals.bootstrap(np.array(moved), np.array(patients), seed=audit.seed, exact=are_shares)
    share = float(np.mean(changed)) if is_called else None
    return SwappedAnswers(attribute, estimate.value, estimate.low, estimate.high, share, len(cases))


def answer_columns(table: Table) -> list[str]:
    """The columns of a table of cases that hold numbers which a model states: probabilities, a risk, a value."""
    names = [str(name) for name in table if str(name).startswith("probability")]
    numbers = [name for name in ("risk", CALLED) if name in table and pd.api.types.is_numeric_dtype(table[name])]
    return names or numbers


def answer_scales(table: Table) -> dict[str, float]:
    """{label: by what its answers are divided}: of several values, each in its unit, their standard deviation."""
    if table["label"].nunique() < 2 or CALLED not in answer_columns(table):
        return dict.fromkeys(table["label"], 1.0)
    deviations = table.groupby("label")[CALLED].std()
    return {str(label): float(one) for label, one in deviations.where(deviations > 0, 1.0).items()}


def answers_by_case(table: Table) -> Table:
    """(cases, answers) of every label, scaled as above; NaN where a case has no row of it."""
    names = answer_columns(table)
    scaled = table[names].astype(float).div(table["label"].map(answer_scales(table)), axis=0)
    return table[["case", "label"]].join(scaled).pivot(index="case", columns="label", values=names)


def _values(cases: list[Case], attribute: str, groups: Mapping[str, str]) -> CovariateValues:
    """{group: the covariate as its cases have it}, of numbers their median."""
    values = {}
    for name in dict.fromkeys(groups[case.id] for case in cases):
        values_of_group = [case.covariates.get(attribute) for case in cases if groups[case.id] == name]
        numbers = [one for value in values_of_group if (one := covariate_values.number_in(value)) is not None]
        values[name] = float(np.median(numbers)) if len(numbers) == len(values_of_group) else values_of_group[0]
    return values


def _score_swapped(audit: AuditInput, case: Case, attribute: str, value: Any) -> Table:
    prediction = audit.predictor.predict(replace(case, covariates={**case.covariates, attribute: value}))
    task, fold = audit.predictor.task, audit.folds.get(case.id)
    return pd.DataFrame(case_scoring.case_table_rows(prediction, case, task, "test", fold))


def _answers(rows: Table) -> Floats:
    return rows[answer_columns(rows)].to_numpy(dtype=float)
