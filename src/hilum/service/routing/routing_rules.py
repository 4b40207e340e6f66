"""Rules on series: which conditions hold, which series are taken, and which inputs a model is to answer.

Rules that could never take a series are refused: they would be silent for ever. Some rules wait for the answers of a
study's earlier jobs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

from sqlalchemy import Row, and_, select

from hilum.errors import UsageError
from hilum.lazy import pydicom
from hilum.reading import alignment
from hilum.service import model_facts
from hilum.service.configuration import ModelSection, NodeSettings, RoutingRule, Wish
from hilum.service.model_facts import IMAGE, ModelFacts
from hilum.service.records.job_queue import InsideBox, StatedInputs
from hilum.service.records.record_database import Database
from hilum.service.records.tables import FINDING_ROWS, JOBS
from hilum.service.routing.routing_facts import GEOMETRY, SeriesFacts
from hilum.values import ANSWERED, advice_lines
from hilum.values.advice_lines import AdviceWords

# Modalities whose images are no input of a model.
NO_IMAGES = frozenset({"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTDOSE", "RTPLAN", "DOC", "AU", "REG"})
RADIOGRAPHS = ("DX", "CR")
# The condition that a series is one volume.
# The outcome of a rule whose answer states something.
SOMETHING = "answered with findings"
READABLE, NO_LOCALIZER = "readable", "no localizer"


@dataclass(frozen=True)
class RuleCondition:
    """One condition of a rule on one series: what is wanted, what was found, whether it holds."""

    name: str
    wanted: Any
    found: Any
    holds: bool

    @property
    def failure(self) -> str:
        """Why it does not hold, in words."""
        if self.name == READABLE:
            return f"it cannot be read as one volume: {self.found}"
        return f"{self.name} is {_in_words(self.found)}, the rule asks for {_in_words(self.wanted)}"

    @property
    def in_words(self) -> str:
        """The wish and the finding, in words."""
        return f"{self.name}: the rule asks for {_in_words(self.wanted)}, and it is {_in_words(self.found)}"

    @property
    def fact(self) -> str:
        """The finding, in words."""
        return f"{self.name}: {_in_words(self.found)}"


@dataclass(frozen=True)
class RoutedSeries:
    """A rule on a series: taken, or not because of the conditions that do not hold."""

    rule: str
    series: str
    uid: str
    role: str
    taken: bool
    conditions: Sequence[RuleCondition]


@dataclass(frozen=True)
class StudyRouting:
    """The routing of a study by the rules.

    rows: every rule on every series
    jobs: (rule, {role: series key}) for each input that is to be answered
    """

    rows: Sequence[RoutedSeries]
    jobs: Sequence[tuple[RoutingRule, Mapping[str, str]]]

    @property
    def untaken(self) -> str | None:
        """Why there is no job: what fails first, rule by rule, without values, which may be a patient's."""
        if self.jobs:
            return None
        fails = dict[str, dict[str, None]]()
        for row in self.rows:
            for name in [one.name for one in row.conditions if not one.holds][:1]:
                fails.setdefault(row.rule, {})[name] = None
        reasons = [f"{rule} ({', '.join(names)})" for rule, names in fails.items()]
        return f"no rule takes a series of it; what fails: {'; '.join(reasons)}. See `hilum route`, or its /route"


@dataclass(frozen=True)
class StudyAnswers:
    """The answers of a study's earlier jobs, for rules that wait for them.

    outcomes:      {rule: outcome} of finished jobs, `SOMETHING` where one has found anything
    probabilities: {(rule, finding): probability}
    """

    outcomes: Mapping[str, str] = field(default_factory=dict)
    probabilities: Mapping[tuple[str, str], float] = field(default_factory=dict)


def _in_words(value: Any) -> str:
    """A fact or a wish as people write it: `absent`, `20 to 400`, `0.81, 0.81, 1`."""
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple) and len(value) == 2:  # a range of a rule; several values are a list
        return " to ".join(map(_in_words, value))
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def rules_of(settings: NodeSettings, models: Mapping[str, ModelFacts]) -> list[RoutingRule]:
    """The rules of a node; without any, each model takes every series of its modality.

    Raises UsageError for a rule that could never take a series, a finding that could never be urgent, and a bound that
    nothing could cross.
    """
    for n, urgent in enumerate(settings.urgent):
        with settings.locate_errors("urgent", n, "finding"):
            kind = "value" if urgent.probability is None else "probability"
            model_facts.refuse_unstated_findings(urgent.finding, kind, f"urgent finding {urgent.finding!r}", models)
    for n, bound in enumerate(settings.bound):
        with settings.locate_errors("bound", n, "label"):
            model_facts.refuse_unstated_findings(bound.label, "probability", f"bound of {bound.label!r}", models)
    rules = list(settings.rules) or [
        RoutingRule(
            name=name,
            model=name,
            when={"Modality": interchangeable_modalities(facts.modality)} if facts.modality else {},
        )
        for name, facts in models.items()
    ]
    check_rules(settings, models, rules)
    return rules


def study_routing(
    rules: Sequence[RoutingRule],
    models: Mapping[str, ModelFacts],
    series: Sequence[SeriesFacts],
    answers: StudyAnswers = StudyAnswers(),
) -> StudyRouting:
    """Every rule on every series of a study; one that waits for another's answer follows once that is there."""
    rows, jobs = list[RoutedSeries](), list[tuple[RoutingRule, Mapping[str, str]]]()
    for rule in rules:
        taken: dict[str, list[SeriesFacts]] = {}
        first = chain_conditions(rule, answers)
        for role, wishes in _wishes(rule, models[rule.model]).items():
            for one_series in series:
                conditions = [*first, *_conditions(rule, wishes, one_series, models[rule.model])]
                holds = all(condition.holds for condition in conditions)
                if holds:
                    taken.setdefault(role, []).append(one_series)
                rows.append(RoutedSeries(rule.name, one_series.series, one_series.uid, role, holds, conditions))
        roles = list(_wishes(rule, models[rule.model]))
        needed = [role for role in roles if role in taken or role not in models[rule.model].absent]
        if rule.take == "best" or len(roles) > 1:
            taken = {role: [_best(found)] for role, found in taken.items()}
            taken_series = {(role, found[0].series) for role, found in taken.items()}
            rows = [_passed_over(row, rule, taken_series) for row in rows]
            twice = {one for one, count in Counter(own[0].series for own in taken.values()).items() if count > 1}
            rows = [_in_two_roles(row, rule, twice) for row in rows]
            taken = {role: own for role, own in taken.items() if own[0].series not in twice}
        for combination in product(*(taken.get(role, []) for role in needed)) if taken else ():
            jobs.append((rule, {role: one.series for role, one in zip(needed, combination, strict=True)}))
    return StudyRouting(rows, jobs)


def series_hash(digests: Sequence[str]) -> str:
    """The SHA-256 of a series: of those of its objects, in their order."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def inputs_hash(inputs: StatedInputs, contents: Mapping[str, str]) -> str:
    """A SHA-256 of a job's inputs: of the bytes of its series, role by role, and of other answers that it rests on.

    inputs: as those of `Job`: "inside" is where alone is predicted, as `box_inside` gives it, "prior" the earlier study
    """
    parts = [f"{role}={contents[key]}" for role, key in sorted(inputs["series"].items())]
    inside = json.dumps(inputs["inside"], sort_keys=True) if "inside" in inputs else ""
    prior = [json.dumps(inputs["prior"], sort_keys=True)] if "prior" in inputs else []
    return hashlib.sha256("\n".join([*parts, inside, *prior]).encode()).hexdigest()


def _wishes(rule: RoutingRule, model: ModelFacts) -> dict[str, Mapping[str, Wish]]:
    """{role: conditions}: of a model of several images one each, as the rule's `series` names them."""
    if rule.series:
        return {role: {**rule.when, **wishes} for role, wishes in rule.series.items()}
    if len(model.roles) == 1:
        return {IMAGE: rule.when}
    return {role: {**rule.when, "SeriesDescription": role} for role in model.roles}


def _conditions(
    rule: RoutingRule, wishes: Mapping[str, Wish], series_facts: SeriesFacts, model: ModelFacts
) -> Iterator[RuleCondition]:
    """The wishes of the rule, and the model's own."""
    for key, wish in wishes.items():
        fact = series_facts.value(key)
        yield RuleCondition(key, wish, fact, fact_matches(key, wish, fact))
    for key, wish in rule.unless.items():
        fact = series_facts.value(key)
        yield RuleCondition(key, f"anything but {_in_words(wish)}", fact, not fact_matches(key, wish, fact))
    yield RuleCondition("kind of object", "an image", series_facts.modality, series_facts.modality not in NO_IMAGES)
    yield RuleCondition(READABLE, "a grid", series_facts.problem or "a grid", series_facts.problem is None)
    if model.modality:
        yield RuleCondition(
            "the model's modality",
            model.modality,
            series_facts.modality,
            series_facts.modality in interchangeable_modalities(model.modality),
        )
    if "localizer" not in wishes:
        kind = "a localizer" if series_facts.is_localizer else NO_LOCALIZER
        yield RuleCondition("kind of series", NO_LOCALIZER, kind, kind == NO_LOCALIZER)


def chain_conditions(rule: RoutingRule, answers: StudyAnswers) -> list[RuleCondition]:
    """The conditions on answers of other rules."""
    conditions = []
    if rule.inside is not None:
        outcome = answers.outcomes.get(rule.inside.rule)
        conditions.append(RuleCondition(f"answer of {rule.inside.rule}", SOMETHING, outcome, outcome == SOMETHING))
    if rule.only_if is not None:
        asked = rule.only_if
        probability = answers.probabilities.get((asked.rule, asked.finding))
        holds = probability is not None and probability >= asked.at_least
        conditions.append(
            RuleCondition(f"{asked.finding} by {asked.rule}", f">= {asked.at_least:g}", probability, holds)
        )
    return conditions


def interchangeable_modalities(modality: str) -> list[str]:
    """The modalities whose images a model of one takes: a radiograph is CR or DX, by the detector."""
    return list(RADIOGRAPHS) if modality in RADIOGRAPHS else [modality]


def fact_matches(key: str, wish: Wish, fact: Any) -> bool:
    """Whether a fact is as a rule wishes: equal, matched by `~`, any of a list, or every number within a range."""
    if fact is None:
        return False
    if isinstance(wish, tuple):
        numbers = fact if isinstance(fact, list | tuple) else [fact]
        low, high = wish
        return all(isinstance(number, int | float) and low <= number <= high for number in numbers) and bool(numbers)
    if isinstance(wish, list):
        return any(fact_matches(key, one, fact) for one in wish)
    values = fact if isinstance(fact, list | tuple) and key not in GEOMETRY else [fact]
    if isinstance(wish, str) and wish.startswith("~"):
        return any(re.search(wish[1:], str(value)) is not None for value in values)
    return any(value == wish or str(value) == str(wish) for value in values)


def _best(fitting: Sequence[SeriesFacts]) -> SeriesFacts:
    """The thinnest, of these that with the most slices, of these the newest."""

    def rank(series_facts: SeriesFacts) -> tuple[Any, ...]:
        thickness = max(series_facts.spacing_mm) if series_facts.spacing_mm else float("inf")
        at = f"{series_facts.attributes.get('SeriesDate', '')}{series_facts.attributes.get('SeriesTime', '')}"
        return -round(thickness, 4), series_facts.slices, at, series_facts.uid

    return max(fitting, key=rank)


def _passed_over(row: RoutedSeries, rule: RoutingRule, taken: set[tuple[str, str]]) -> RoutedSeries:
    """A row of a series that fits, where another one is better."""
    if row.rule != rule.name or not row.taken or (row.role, row.series) in taken:
        return row
    wanted = "the one series with the thinnest, then the most, then the newest slices"
    better = RuleCondition("choice among series", wanted, "fewer, thicker or older slices than another", False)
    return RoutedSeries(row.rule, row.series, row.uid, row.role, False, [*row.conditions, better])


def _in_two_roles(row: RoutedSeries, rule: RoutingRule, twice: Set[str]) -> RoutedSeries:
    """A row of a series that the rule would take for two images of the model: nothing says which of them it is."""
    if row.rule != rule.name or not row.taken or row.series not in twice:
        return row
    shared = RuleCondition("image of the model", "one for each series", "two of them", False)
    return RoutedSeries(row.rule, row.series, row.uid, row.role, False, [*row.conditions, shared])


def check_rules(settings: NodeSettings, models: Mapping[str, ModelFacts], rules: Sequence[RoutingRule]) -> None:
    """Refuse words that a series, a model or an answer does not have, and rules that wait for each other.

    rules: of the settings, or those that each model has without any
    Raises UsageError, with the words that there are.
    """
    answering = {rule.name: models[rule.model] for rule in rules}
    for n, rule in enumerate(rules):
        is_written = rule in settings.rules
        where = _place(rule.name) if is_written else f"model {rule.model!r}"
        keys: tuple[str, str | int] = ("rules", n) if is_written else ("models", rule.model)
        with settings.locate_errors(*keys):
            _check_conditions(rule, answering[rule.name])
            _check_advice(settings.models.get(rule.model), answering[rule.name], rule, where)
            _check_alignment(settings.models.get(rule.model), answering[rule.name], where)
            _check_answers(rule, answering)
    with settings.locate_errors("rules", 0):
        _check_order(rules)


def _check_conditions(rule: RoutingRule, model: ModelFacts) -> None:
    """Words of the rule that are neither in a series nor images of its model."""
    where = _place(rule.name)
    for key in [*rule.when, *rule.unless, *(key for wishes in rule.series.values() for key in wishes)]:
        if key not in (*GEOMETRY, "localizer") and pydicom.datadict.tag_for_keyword(key) is None:
            choice = f"Give a DICOM keyword, or one of {', '.join(GEOMETRY)}, localizer"
            raise UsageError(f"{key!r} is neither a DICOM keyword nor a fact of geometry", where, choice)
    if rule.series and set(rule.series) != set(model.roles):
        names_given, needed = (", ".join(sorted(names)) for names in (rule.series, model.roles))
        raise UsageError(
            f"series has {names_given}, and the model's images are {needed}", where, "Name each of them once"
        )


def _check_alignment(section: ModelSection | None, model: ModelFacts, where: str) -> None:
    """Images that share no place have one answer, and none in places of one of them."""
    if section is not None and alignment.is_apart(section.align) and any(axes > 1 for axes in model.outputs.values()):
        problem = f"{section.align!r} brings images together that share no place, and {model.task} answers in places"
        raise UsageError(problem, where, "Choose world or register, or a model of one answer a study")


def _check_advice(section: ModelSection | None, model: ModelFacts, rule: RoutingRule, where: str) -> None:
    """Lines of advice that no answer meets, and answers that no line covers."""
    compares = rule.prior is not None
    words = AdviceWords(tuple(model.grades), tuple(model.findings), model.units, compares)
    advice_lines.refuse_lines([] if section is None else section.advice, words, f"{where}: advice")


def _check_answers(rule: RoutingRule, answering: Mapping[str, ModelFacts]) -> None:
    """Labels and findings that the answers of the other rule never have. answering: {rule: its model}"""
    if (inside := rule.inside) is not None:
        labels = tuple(answering[inside.rule].labels)
        lacking = f"inside needs a label map, and the answers of {inside.rule!r} are none"
        remedy = "Name a rule whose model segments structures"
        _check_word(rule, ("inside.label", inside.label), ("labels", inside.rule, labels), lacking, remedy)
    if (asked := rule.only_if) is not None:
        findings = tuple(answering[asked.rule].findings)
        lacking = f"only_if needs a probability, and the answers of {asked.rule!r} state none"
        remedy = "Name a rule whose model states probabilities"
        _check_word(rule, ("only_if.finding", asked.finding), ("findings", asked.rule, findings), lacking, remedy)

    for lesion in () if rule.prior is None else rule.prior.lesions:
        own, lacking = tuple(answering[rule.name].labels), "lesions are structures, and the model's answers have none"
        _check_word(rule, ("prior.lesions", lesion), ("labels", rule.name, own), lacking, "Leave lesions out")


def _check_word(
    rule: RoutingRule, stated: tuple[str, str], allowed: tuple[str, str, Sequence[str]], lacking: str, remedy: str
) -> None:
    """stated: a key of the rule and its word; allowed: what the words are, of which rule, and they themselves."""
    (key, word), (what, other, words) = stated, allowed
    if word in words:
        return
    if not words:
        raise UsageError(lacking, _place(rule.name), remedy)
    problem = f"{key} is {word!r}, and the {what} of {other!r} are {', '.join(words)}"
    raise UsageError(problem, _place(rule.name), "Name one of them")


def _check_order(rules: Sequence[RoutingRule]) -> None:
    """Rules that wait for each other, so that none of them is ever the first."""
    waits = {rule.name: [one.rule for one in (rule.inside, rule.only_if) if one is not None] for rule in rules}
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        circle = [repr(name) for name in reversed(error.args[1])]
        remedy = "Let one of them wait for none of the others"
        raise UsageError(f"waits for itself: {' waits for '.join(circle)}", f"rule {circle[0]}", remedy) from error


def _place(rule: str) -> str:
    return f"rule {rule!r}"


# Of each rule the jobs of a study that have a result, oldest first: {rule: {job: keys of its series}}.
Results = Mapping[str, Mapping[str, frozenset[str]]]


def study_answers(
    database: Database,
    study: str,
    rules: Sequence[RoutingRule],
    models: Mapping[str, ModelFacts],
    contents: Mapping[str, str],
) -> tuple[StudyAnswers, Results]:
    """The answers of a study's finished jobs, and those of them that have a result.

    contents: {series: hash} of the study as it is
    Jobs of models that were replaced, or on inputs that have changed, say nothing.
    """
    ended = and_(JOBS.c.study == study, JOBS.c.state.in_(("sending", "done")))
    with database.read() as connection:
        rows = connection.execute(select(JOBS).where(ended).order_by(JOBS.c.created_at, JOBS.c.job)).all()
        joined = FINDING_ROWS.join(JOBS, FINDING_ROWS.c.job == JOBS.c.job)
        stated = connection.execute(
            select(JOBS.c.job, JOBS.c.rule, FINDING_ROWS.c.row).select_from(joined).where(ended)
        ).all()
    finished = _current(rows, {rule.name: models[rule.model].hash for rule in rules}, contents)
    chances: dict[tuple[str, str], float] = {}
    for job, rule, row in stated:
        if job in finished and row.get("probability") is not None:
            name = (rule, str(row["concept"]))
            chances[name] = max(chances.get(name, 0.0), float(row["probability"]))
    results = dict[str, dict[str, frozenset[str]]]()
    for job, made in finished.items():
        if made.outcome == ANSWERED and not made.is_empty:
            results.setdefault(made.rule, {})[job] = frozenset(made.inputs["series"].values())
    outcomes = {made.rule: made.outcome for made in finished.values()} | dict.fromkeys(results, SOMETHING)
    return StudyAnswers(outcomes, chances), results


def _current(rows: Iterable[Row[Any]], models: Mapping[str, str], contents: Mapping[str, str]) -> dict[str, Row[Any]]:
    """The jobs that the rules would make of the study as it is. models: {rule: hash of its model}"""
    current = dict[str, Row[Any]]()
    for row in rows:  # what a job looks within is older than the job
        inside = row.inputs.get("inside")
        is_of_study = inputs_hash(row.inputs, contents) == row.inputs_hash
        is_of_model = models.get(row.rule) == row.model_hash
        if is_of_study and is_of_model and (inside is None or inside["job"] in current):
            current[row.job] = row
    return current


def box_inside(
    rule: RoutingRule, series: Sequence[str], results: Results, labels: Mapping[str, Mapping[str, int]]
) -> InsideBox | None:
    """The box in which alone a job predicts: around which value of which job's answer; None for the whole image.

    series: keys of its series; labels: {rule: {label: value} of its answers}
    """
    if (inside := rule.inside) is None:
        return None
    value = labels[inside.rule][inside.label]
    earlier = _nearest(results[inside.rule], series)
    return {"job": earlier, "label": inside.label, "value": value, "margin_mm": inside.margin_mm}


def _nearest(results: Mapping[str, frozenset[str]], series: Sequence[str]) -> str:
    """The oldest job with a result on one of these series, else the oldest."""
    shared = (job for job, own in results.items() if not own.isdisjoint(series))
    return next(shared, next(iter(results)))
