"""The plan of a trial as a person writes it, read strictly, and in the words of its documents and of a registry."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import UsageError
from hilum.files.storage import structured_text
from hilum.studies import sizing
from hilum.studies.sizing import StudySize
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import RecordSchema

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Texts = Annotated[tuple[Text, ...], Strict(False)]
# Columns of the table of data that have a meaning of their own.
PARTICIPANT = "participant"
ARM = "arm"
# The metrics of times to an event, and of 0 and 1.
TIME = "time"
PROPORTION = "proportion"
METHODS = {"parallel": "block", "cluster": "cluster"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Arm(_Part):
    """One arm. text: its care, in enough detail to repeat it; share: of 2:1 the 2"""

    name: Text
    text: Text
    share: Annotated[int, Field(ge=1, le=4)] = 1


class Endpoint(_Part):
    """One endpoint: a column of the table, a mean of numbers, a proportion of 0 and 1, or times to an event.

    event:     of times, the column that says whether the event happened then, 1, or whether nobody knows more, 0
    direction: whether higher or lower is better; of times, whether late or early events are
    margin:    how much worse the new arm may be, in the unit of the column (non-inferiority); of times a hazard ratio
               above 1
    """

    name: Text
    text: str = ""
    metric: Literal["mean", "proportion", "time"]
    event: str = ""
    direction: Literal["higher", "lower"]
    primary: bool = False
    margin: Annotated[float, Field(gt=0)] | None = None
    time_frame: str = ""

    @property
    def is_more_better(self) -> bool:
        """Whether a positive effect is good: late events are so by a lower hazard."""
        return (self.direction == "higher") != (self.metric == TIME)

    @property
    def margin_of_effect(self) -> float | None:
        """The margin in the unit of the effect, which is the logarithm of a hazard ratio for times."""
        return math.log(self.margin) if self.margin is not None and self.metric == TIME else self.margin


class Population(_Part):
    """Who is included, as a registry asks for it."""

    criteria: Text
    sex: Literal["all", "female", "male"] = "all"
    minimum_age: str = ""
    maximum_age: str = ""
    healthy: bool = False


class Clusters(_Part):
    """Clusters that are allocated as a whole, such as hospitals. members: {name: {stratum: level}}"""

    column: Text
    members: dict[str, dict[str, str]]


class Analysis(_Part):
    """Analysis of the primary endpoint.

    covariates:   columns of before the allocation, for which effects are adjusted
    per_protocol: the column that says who was treated as planned, 1 or 0
    reason:       the column that says why an outcome is missing
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    covariates: Texts = ()
    per_protocol: str = ""
    reason: str = ""


class PlannedLooks(_Part):
    """Interim analyses, the last one included."""

    number: Annotated[int, Field(ge=2, le=20)]
    spending: Literal["obrien-fleming", "pocock"] = "obrien-fleming"


class MissingOutcomes(_Part):
    """Imputation of missing outcomes. auxiliary: columns that predict them and are not analysed"""

    imputations: Annotated[int, Field(ge=2, le=200)] = 20
    auxiliary: Texts = ()
    seed: Annotated[int, Field(ge=0)] = 0


class Registry(_Part):
    """Further entries that a registry asks for."""

    conditions: Texts = ()
    purpose: str = ""
    masking: str = ""
    sponsor: str = ""
    start: str = ""
    completion: str = ""


class Study(_Part):
    """A trial of two arms, the first of which is the control."""

    title: Text
    question: Text
    design: Literal["parallel", "cluster"]
    arms: Annotated[tuple[Arm, ...], Strict(False), Field(min_length=2, max_length=2)]
    endpoints: Annotated[tuple[Endpoint, ...], Strict(False), Field(min_length=1)]
    population: Population
    version: str = ""
    summary: str = ""
    ethics: str = ""
    strata: dict[str, Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)]] = {}
    clusters: Clusters | None = None
    size: dict[str, str | float | bool] = {}
    analysis: Analysis = Analysis()
    looks: PlannedLooks | None = None
    missing: MissingOutcomes = MissingOutcomes()
    subgroups: Texts = ()
    registry: Registry = Registry()

    @property
    def names(self) -> tuple[str, str]:
        """The arms, the control first."""
        control, new = self.arms
        return control.name, new.name

    @property
    def method(self) -> str:
        """Method of randomisation: block or cluster."""
        return METHODS[self.design]

    @property
    def primary(self) -> tuple[Endpoint, ...]:
        return tuple(one for one in self.endpoints if one.primary)

    @property
    def planned_size(self) -> StudySize | None:
        """The size, with the looks and the alpha of the plan; None where none is planned. Raises UsageError."""
        if not self.size:
            return None
        given = {"alpha": self.analysis.alpha, **self.size}
        if self.looks is not None:
            given |= {"looks": self.looks.number, "spending": self.looks.spending}
        return _size(str(given.pop("design", "")), tuple(given.items()))


@cache
def _size(design: str, given: tuple[tuple[str, Any], ...]) -> StudySize:
    return sizing.size_study(design, dict(given))


def read_study(text: str, where: str) -> Study:
    """The plan in a text. where: the name of its file. Raises UsageError that names the line."""
    try:
        study = Study.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not TOML: {error}", where, "Correct the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        words = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
        raise _wrong(text, where, place, words, "Write it as docs/how-to/trial.md shows") from error
    for key, problem, remedy in _faults(study):
        raise _wrong(text, where, key.split("."), problem, remedy)
    try:
        _ = study.planned_size
    except UsageError as error:
        raise _wrong(text, where, ["size"], error.problem, error.remedy) from error
    return study


def _wrong(text: str, where: str, place: list[str], problem: str, remedy: str) -> UsageError:
    return UsageError(
        f"{'.'.join(place)}: {problem}", f"{where}, line {structured_text.line_of_key(text, place)}", remedy
    )


def _faults(study: Study) -> list[tuple[str, str, str]]:
    """(key, problem, remedy) of parts that contradict each other."""
    columns = [PARTICIPANT, ARM, *study.strata, *(one.name for one in study.endpoints)]
    columns += list(dict.fromkeys(one.event for one in study.endpoints if one.event))
    timed = [one for one in study.endpoints if one.metric == TIME]
    columns += [one for one in (study.analysis.per_protocol, study.analysis.reason) if one]
    columns += [study.clusters.column] if study.clusters and study.clusters.column not in study.strata else []
    twice = [name for name, number in Counter(columns).items() if number > 1]
    endpoints = {one.name for one in study.endpoints}
    taken = [one for one in (*study.analysis.covariates, *study.missing.auxiliary) if one in endpoints]
    faults = [
        (study.arms[0].name == study.arms[1].name, "arms.1.name", "both arms have one name", "Name them apart"),
        (not study.primary, "endpoints", "none is primary", "Give one of them primary = true"),
        (bool(twice), "endpoints", f"{errors.list_phrase(twice)} names two columns", "Rename one"),
        (
            bool(taken),
            "analysis.covariates",
            f"{errors.list_phrase(taken)} is an endpoint",
            "Name what is known before",
        ),
        (
            any((one.metric == TIME) != bool(one.event) for one in study.endpoints),
            "endpoints",
            "times have a column that says whether the event happened, and others have none",
            'Write event = "COLUMN" where metric = "time", and only there',
        ),
        (
            any(one.margin is not None and one.margin <= 1 for one in timed),
            "endpoints",
            "the margin of times is a hazard ratio above 1 that is still accepted",
            "Give a number above 1",
        ),
        (
            any(one.metric == PROPORTION and one.margin is not None and one.margin >= 1 for one in study.endpoints),
            "endpoints",
            "the margin of a proportion is a difference below 1: no proportion is worse by more",
            "Write 10 % as 0.1",
        ),
        (
            any(Counter(levels).most_common(1)[0][1] > 1 for levels in study.strata.values()),
            "strata",
            "a stratum names one level twice",
            "Name each level once",
        ),
        (
            _ends_before_start(study.registry),
            "registry.completion",
            f"the study ends on {study.registry.completion}, before it starts on {study.registry.start}",
            "Correct one of the two",
        ),
        (
            bool(timed) and study.clusters is not None,
            "endpoints",
            "times to an event are not analysed by cluster: means of clusters take no account of who is followed no "
            "longer",
            'Write metric = "proportion" with a column of who had the event by a fixed day',
        ),
        (
            study.looks is not None and not study.size,
            "looks",
            "looks need the planned size, of which each has a share",
            "Add [size], as `hilum study size` takes it",
        ),
        (
            (study.design == "cluster") != (study.clusters is not None),
            "design",
            f"{study.design} does not fit {'no ' * (study.clusters is None)}clusters",
            'Write design = "cluster" with [clusters], or neither',
        ),
    ]
    found = [(place, problem, remedy) for is_fault, place, problem, remedy in faults if is_fault]
    return found or _cluster_faults(study)


def _ends_before_start(registry: Registry) -> bool:
    """Whether a study is completed before it starts, as far as both dates say: a month or a day, 2026-11-30."""
    start = registry.start
    completion = registry.completion
    if not all(re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", text) for text in (start, completion)):
        return False
    letters = min(len(start), len(completion))
    return completion[:letters] < start[:letters]


def _cluster_faults(study: Study) -> list[tuple[str, str, str]]:
    if study.clusters is None:
        return []
    place = "clusters.members"
    found = list[tuple[str, str, str]]()
    for name, levels in study.clusters.members.items():
        unknown = {stratum: levels.get(stratum) for stratum in study.strata} if set(levels) != set(study.strata) else {}
        unknown |= {stratum: own for stratum, own in levels.items() if own not in study.strata.get(stratum, ())}
        if unknown:
            problem = f"{name} has {', '.join(f'{key} {value}' for key, value in unknown.items())}"
            found.append(
                (f"{place}.{name}", problem, f"Give a level of {errors.list_phrase(study.strata) or 'no stratum'}")
            )
    shares = [one.share for one in study.arms]
    if len(study.clusters.members) * min(shares) < 2 * sum(shares):
        problem = "one cluster an arm: its effect cannot be told from that of the arm"
        found.append((place, problem, "Plan two clusters or more in each arm"))
    return found


def refuse_level(study: Study, levels: Mapping[str, str]) -> None:
    """UsageError for an unknown stratum, one that is missing, and a level that the plan does not name."""
    for name in (*study.strata, *levels):
        if name not in study.strata:
            remedy = (
                f"Use {errors.list_phrase(study.strata)}" if study.strata else "Leave it out: the plan has no strata"
            )
            raise UsageError(f"the plan has no stratum {name!r}", "--set", remedy)
        if levels.get(name) not in study.strata[name]:
            problem = f"{name} is {levels[name]!r}" if name in levels else f"{name} is missing"
            raise UsageError(f"{problem}, which is no stratum", "--set", f"Give {name}={'|'.join(study.strata[name])}")


INTENTION = "intention to treat"


def plan_record(study: Study) -> dict[str, PlainValue]:
    """Record of a plan for its documents: the same words in the protocol and with the results."""
    adjusted = [*(study.strata if study.clusters is None else ()), *study.analysis.covariates]
    by = f", adjusted for {errors.list_phrase(adjusted)}" if adjusted else ""
    tested = "participant by participant, with HC3 errors" if study.clusters is None else "of the means of clusters"
    has_times = any(one.event for one in study.endpoints)
    of_times = f" Hazard ratio of times to an event by Cox's model{by}." if has_times else ""
    levels = f"Analysed as allocated, all participants ({INTENTION})"
    planned = study.planned_size
    return {
        "title": study.title,
        "question": study.question,
        "summary": study.summary or study.question,
        "protocol_version": study.version,
        "ethics": study.ethics,
        "sponsor": study.registry.sponsor,
        "masking": study.registry.masking,
        "dates": " to ".join(filter(None, (study.registry.start, study.registry.completion))),
        "design": f"{'Clusters' if study.clusters else 'Participants'} are allocated to two parallel arms, "
        f"{study.arms[0].share}:{study.arms[1].share}; "
        + ("non-inferiority" if any(one.margin for one in study.primary) else "superiority"),
        "arms": [one.model_dump() for one in study.arms],
        "endpoints": [one.model_dump() for one in study.endpoints],
        "population": study.population.model_dump(),
        "size": None
        if planned is None
        else {k: v for k, v in planned.as_record().items() if k not in ("schema", "version")},
        "strata": {name: list(levels) for name, levels in study.strata.items()} or "none",
        "randomisation": {
            "method": "Clusters at random, balanced within strata"
            if study.clusters
            else "Permuted blocks of random size",
            "strata": errors.list_phrase(study.strata) or "not stratified",
            "concealment": "The list is encrypted; each arm is shown once, when a participant or cluster is enrolled, "
            "and logged. Nobody can see a later one.",
        },
        "analysis": f"Difference of means or proportions, new less control, {tested}{by}; two-sided at "
        f"{study.analysis.alpha:g}.{of_times} Holm's adjustment within several primary and within secondary endpoints.",
        "populations": f"{levels}; per protocol those with {study.analysis.per_protocol} = 1."
        if study.analysis.per_protocol
        else f"{levels}.",
        "missing": f"{study.missing.imputations} imputations by chained equations, pooled by Rubin's rules; "
        "complete cases, best and worst case beside.",
        "subgroups": [f"{name}: the effect in each level, and a test of interaction" for name in study.subgroups]
        or "none are planned",
        "exploratory": "Whatever is not named here is marked as exploratory",
        "looks": "One analysis, at the end"
        if study.looks is None
        else f"{study.looks.number} looks, which spend alpha as {study.looks.spending}; the trial stops for an effect "
        "beyond the look's bound",
    }


class RegistryRecord(TypedDict):
    """The plan in the fields of ClinicalTrials.gov, and those that are missing."""

    protocolSection: Mapping[str, PlainValue]
    missing: list[str]


REGISTRY_SCHEMA = RecordSchema("hilum.study_registry", RegistryRecord)


def registry_record(study: Study) -> RegistryRecord:
    """The plan in the fields of ClinicalTrials.gov, and which of those that it asks for are missing.

    https://clinicaltrials.gov/data-api/about-api/study-data-structure
    """
    asked = study.registry
    planned = study.planned_size
    who = study.population
    outcomes = {
        is_primary: [_outcome(one) for one in study.endpoints if one.primary == is_primary]
        for is_primary in (True, False)
    }
    groups = [
        {"label": one.name, "type": kind, "description": one.text, "interventionNames": [f"Device: {one.name}"]}
        for one, kind in zip(study.arms, ("ACTIVE_COMPARATOR", "EXPERIMENTAL"), strict=True)
    ]
    care = [
        {"type": "DEVICE", "name": one.name, "description": one.text, "armGroupLabels": [one.name]}
        for one in study.arms
    ]
    section = {
        "identificationModule": {"briefTitle": study.title, "officialTitle": study.title},
        "statusModule": {"startDateStruct": {"date": asked.start}, "completionDateStruct": {"date": asked.completion}},
        "sponsorCollaboratorsModule": {"leadSponsor": {"name": asked.sponsor}},
        "descriptionModule": {"briefSummary": study.summary or study.question},
        "conditionsModule": {"conditions": list(asked.conditions)},
        "designModule": {
            "studyType": "INTERVENTIONAL",
            "phases": ["NA"],
            "designInfo": {
                "allocation": "RANDOMIZED",
                "interventionModel": "PARALLEL",
                "primaryPurpose": asked.purpose,
                "maskingInfo": {"masking": asked.masking},
            },
            "enrollmentInfo": {"count": planned.n if planned is not None else None, "type": "ESTIMATED"},
        },
        "armsInterventionsModule": {"armGroups": groups, "interventions": care},
        "outcomesModule": {"primaryOutcomes": outcomes[True], "secondaryOutcomes": outcomes[False]},
        "eligibilityModule": {
            "eligibilityCriteria": who.criteria,
            "healthyVolunteers": who.healthy,
            "sex": who.sex.upper(),
            "minimumAge": who.minimum_age,
            "maximumAge": who.maximum_age,
        },
        "oversightModule": {"ethics": study.ethics},
    }
    keys = {f"registry.{name}": value for name, value in asked.model_dump().items()}
    keys |= {f"endpoints.{one.name}.time_frame": one.time_frame for one in study.endpoints}
    keys |= {"population.minimum_age": who.minimum_age, "ethics": study.ethics, "size": study.size}
    missing = [name for name, value in keys.items() if not value]
    return cast("RegistryRecord", {"protocolSection": section, "missing": missing})


def _outcome(endpoint: Endpoint) -> dict[str, str]:
    return {"measure": endpoint.name, "description": endpoint.text, "timeFrame": endpoint.time_frame}
