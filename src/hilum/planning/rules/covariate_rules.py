"""Rules of covariates: which columns the network gets, how each becomes numbers, and where they join the image.

Columns that were measured over time become numbers in stretches of that time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import singledispatch
from itertools import chain
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, PlanError
from hilum.networks import factory
from hilum.quality import covariate_checks, label_proxies
from hilum.quality.label_proxies import PROXY
from hilum.runtime import Context, covariate_encoding
from hilum.runtime.covariate_encoding import Category, FreeText, MonitoredCovariate, Number
from hilum.tasks import Task
from hilum.tasks.shared import left_right
from hilum.values import (
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Floats,
    StatedSettings,
    covariate_values,
    personal_columns,
    table_cells,
)
from hilum.values.covariate_values import Course
from hilum.values.dataset_cases import References
from hilum.values.table_cells import TextColumn

# As a person asks for every column that is fit.
ALL = "all"
# Cases that a level needs, so that a weight of its own can be learnt; rarer ones are unknown.
FEWEST_OF_LEVEL = 5
MOST_LEVELS = 20
# Of training cases that have a value; a column with fewer says less than its gaps do.
KNOWN = 0.5
# Columns that are described one by one; of more what they have in common.
MOST_DESCRIBED = 24
MOBADERSANY = "doi:10.1073/pnas.1717139115"
DIGITS = 6
# Of the courses so many end by the last moment that is looked at; a few very long ones do not leave all others blank.
ENDED = 0.9
# About as many stretches as the middle course has readings, of these at the least and at the most.
FEWEST, MOST = 8, 64
CHE = "doi:10.1038/s41598-018-24271-9"
# What a covariate of patients becomes.
PatientColumn = Number | Category | MonitoredCovariate | FreeText
DEERWESTER = "doi:10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9"
NUMBERS = 16
# Patients that share a place.
FEWEST_PATIENTS = 5
# Texts from which the numbers are found; of more, so many in even steps.
MOST_TEXTS = 10_000
# Of the subspace iteration: directions beside those that are kept, and rounds (Halko et al., doi:10.1137/090771806).
BESIDE = 8
ROUNDS = 12
LARGEST = 127
# Of the largest deviation; a number that hardly varies over the training texts would be huge for a new one.
LEAST_DEVIATION = 0.05


def context_decision(dataset: Dataset, fingerprint: Fingerprint, asked: Any, *, of_fold: bool = False) -> Decision:
    """The columns that were asked for, each as the training cases have it; None where none was.

    asked:   None, "all", one name or several, patterns such as gene_* among them, or a plan's own settings
    of_fold: a column that is not fit among the training cases of one fold is left out there
    Raises PlanError for a column that is not there, and for one that teaches nothing or is the label.
    """
    cases, references = _training(dataset, fingerprint)
    columns_there = list(dict.fromkeys(name for case in (dataset if of_fold else cases) for name in case.covariates))
    if asked is None:
        offered = ": the data have none"
        if columns_there:
            offered = f"; there are {errors.list_phrase(columns_there)} (--set network.context=all)"
        return Decision(None, f"no covariates were asked for{offered}")
    if isinstance(asked, dict):
        Context.from_settings(asked)
        return Decision(asked, "set by hand")
    requested = [asked] if isinstance(asked, str) else list(asked)
    names = columns_there if asked == ALL else _meant(requested, columns_there)
    if unknown := [name for name in names if name not in columns_there]:
        problem = f"there is no covariate {unknown[0]!r}"
        raise PlanError(problem, "network.context", _choice(columns_there))
    of_name = {name: [case.covariates.get(name) for case in cases] for name in names}
    read = {name: values for name, values in of_name.items() if is_monitored(values)}
    when = time_stretches(read) if read else ""
    patients = [case.patient for case in cases]
    unread = {one.column: one for one in dataset.problems if one.column}
    columns: list[PatientColumn] = []
    without: list[str] = []
    for name, values in of_name.items():
        column: PatientColumn | str
        if name in unread:
            column = f"{unread[name].what}; {unread[name].remedy}"
        elif name not in read:
            column = _column(name, values, references, patients, every=asked == ALL)
        else:
            column = when if isinstance(when, str) else encode_monitored(name, values, when, references, patients)
        if not isinstance(column, str):
            columns.append(column)
        elif asked == ALL or name not in requested or of_fold:
            without.append(f"{name} ({column})")
        else:
            raise PlanError(f"{name}: {column}", "network.context", "Leave it out")
    if not columns:
        return Decision(None, f"no column is fit: {errors.list_phrase(without, MOST_DESCRIBED)}")
    few = len(columns) <= MOST_DESCRIBED
    described = "; ".join(map(_describe, columns)) if few else _summarise(columns)
    because = f"asked for: the network gets them with the image; {described}"
    because += f"; left out: {errors.list_phrase(without, MOST_DESCRIBED)}" if without else ""
    context = Context.from_settings({one.name: one.settings for one in columns})
    sources = [MOBADERSANY, *([CHE] if context.courses[0] else [])]
    sources += [DEERWESTER] if any(isinstance(one, FreeText) for one in columns) else []
    return Decision(context.settings, because, ", ".join(sources))


def _choice(columns: Sequence[str]) -> str:
    return f"Choose from {errors.list_phrase(columns)}" if columns else "The data have none"


def _meant(asked: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names, and the columns that patterns such as gene_* stand for; PlanError for one that stands for none."""
    names: list[str] = []
    for name in asked:
        fits = [name]
        if _is_pattern(name) and name not in columns:
            fits = [one for one in columns if fnmatchcase(one, name)]
        if not fits:
            problem = f"no covariate is called {name!r}"
            raise PlanError(problem, "network.context", _choice(columns))
        names += fits
    return list(dict.fromkeys(names))


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _summarise(columns: Sequence[PatientColumn]) -> str:
    """Many columns in a few words."""
    numbers = [one for one in columns if isinstance(one, Number)]
    read = [one for one in columns if isinstance(one, MonitoredCovariate)]
    texts = [one for one in columns if isinstance(one, FreeText)]
    categories = len(columns) - len(numbers) - len(read) - len(texts)
    gaps = sum(one.missing > 0 for one in columns)
    parts = []
    if numbers:
        counted = errors.count_phrase(len(numbers), "number")
        parts += [f"{counted} from {numbers[0].name} to {numbers[-1].name}: standardised"]
    parts += [f"{categories} of categories"] if categories else []
    parts += [f"{len(read)} measured repeatedly"] if read else []
    parts += [f"{len(texts)} of free text"] if texts else []
    parts += [f"{gaps} with gaps: the median and a mark, or unknown"] if gaps else []
    return "; ".join(parts)


def image_only_decision(covariates: Decision, cascade: Any) -> Decision:
    """Whether the images are trained on alone too, so that it can be said what the covariates add."""
    if not covariates.value:
        return Decision(False, "the network gets no covariates")
    if cascade is not None:
        return Decision(False, "the first networks of the cascade get them too, and would have to be trained anew")
    return Decision(True, "what the covariates add is the difference: each of both trainings has half of the minutes")


def sided_covariate(context: Any) -> str:
    """The first covariate of a network whose name or levels have a side, as laterality with OD and OS; empty: none.

    Free text may name a side at any time.
    """
    for column in Context.from_settings(context).of_patients.columns:
        levels = tuple(column.levels) if isinstance(column, Category) else ()
        if isinstance(column, FreeText) or left_right.have_sides([column.name]) or left_right.have_sides(levels):
            return column.name
    return ""


def _training(dataset: Dataset, fingerprint: Fingerprint) -> tuple[list[Case], list[Any]]:
    facts = {one.id: one.references for one in fingerprint.cases}
    cases = [case for case in dataset if case.id in facts]
    return cases, [facts[case.id] for case in cases]


def _column(
    name: str, values: list[Any], references: list[Any], patients: list[str], *, every: bool
) -> Number | Category | FreeText | str:
    """The column, or why it is left out.

    every: nobody asked for it by name, so that what is odd about it speaks against it
    """
    present = [one for one in values if not covariate_values.is_missing(one)]
    if label_proxies.is_constant(values):
        return "constant in the training cases"
    if (score := label_proxies.label_association(values, references, patients)) >= PROXY:
        return f"a proxy of the label, which it predicts by itself (score {score:.3f} of 1)"
    if every and personal_columns.kind_of_column(name) not in (None, personal_columns.FREE_TEXT):
        return "it says who somebody is"
    if every and covariate_checks.describes_imaging(name):
        return "it describes the acquisition, not the patient"
    if every and len(present) < KNOWN * len(values):
        return f"{len(values) - len(present)} of {len(values)} training cases lack it"
    if covariate_values.is_free_text(values):
        if every:
            return "free text, which is used where its name is given"
        return encode_free_text(name, values, references, patients)
    courses = [covariate_values.number_in(one) if isinstance(one, Course) else one for one in present]
    try:
        column = TextColumn(name, list(map(str, courses)), "the data")
        if table_cells.is_mostly_numeric(column):
            numbers = table_cells.numbers_in(column).refuse_odd().values
            return _number(name, numbers[np.isfinite(numbers)], len(values))
    except DatasetError as error:
        return error.problem
    return _category(name, present, len(values), every=every)


def _number(name: str, present: np.ndarray, count: int) -> Number | str:
    missing = 1 - len(present) / count
    filled = np.concatenate([present, np.full(count - len(present), np.median(present))])
    deviation = float(filled.std())
    if deviation == 0:
        return "alike in all training cases that have it"
    # Outwards to steps of the largest power of ten within the range: a lowest or highest value is one person's.
    low, high = float(present.min()), float(present.max())
    step = 10.0 ** np.floor(np.log10(high - low))
    ends = (np.floor(low / step) * step, np.ceil(high / step) * step)
    known = (np.median(present), filled.mean(), deviation, missing, *ends)
    return Number(name, *(float(f"{one:.{DIGITS}g}") for one in known))


def _category(name: str, present: Sequence[Any], count: int, *, every: bool) -> Category | str:
    often = Counter(covariate_values.level_in(one) for one in present)
    levels = {level: n for level, n in sorted(often.items()) if n >= FEWEST_OF_LEVEL}
    if len(levels) > MOST_LEVELS:
        return f"{len(levels)} levels"
    if not levels:
        return f"{len(often)} words, none of which {FEWEST_OF_LEVEL} training cases have"
    shares = {level: round(n / count, DIGITS) for level, n in levels.items()}
    rest = count - sum(levels.values())
    if len(levels) < 2 and (rest < FEWEST_OF_LEVEL or (every and len(often) > MOST_LEVELS)):
        return "hardly any training case differs"
    return Category(name, shares, round(rest / count, DIGITS))


@singledispatch
def _describe(column: PatientColumn) -> str:
    raise TypeError(column)


@_describe.register
def _(column: MonitoredCovariate) -> str:
    when = TimeStretches(column.start, column.stop, column.stretches, column.unit)
    gaps = f"; {column.missing:.0%} have no reading" if column.missing > 0 else ""
    return f"{column.name} is a course: the mean of {when}, else the last before, and a mark{gaps}"


@_describe.register
def _(column: FreeText) -> str:
    gaps = f", {column.missing:.0%} missing: their mean and a mark" if column.missing > 0 else ""
    return (
        f"{column.name} is free text: {len(column.means)} numbers by hashes of its words, of which none is kept{gaps}"
    )


@_describe.register
def _(column: Number) -> str:
    gaps = f", {column.missing:.0%} missing: the median and a mark" if column.missing > 0 else ""
    return f"{column.name} is standardised (median {column.median:g}{gaps})"


@_describe.register
def _(column: Category) -> str:
    gaps = f", {column.missing:.0%} missing or rare: unknown" if column.missing > 0 else ""
    return f"{column.name} is {' or '.join(column.levels)}{gaps}"


@dataclass(frozen=True)
class TimeStretches:
    """The stretches of time that all that is monitored is told in.

    start, stop: in s where `unit` says so
    """

    start: float
    stop: float
    stretches: int
    unit: str

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.stretches} stretches from {self.start:g} to {self.stop:g}{unit}"


def is_monitored(values: Sequence[Any]) -> bool:
    """Whether it changed in anybody while it was read."""
    courses = [course for course in map(covariate_values.course_in, values) if course is not None]
    return any(covariate_values.number_in(course) is None for course in courses)


def time_stretches(columns: Mapping[str, Sequence[Any]]) -> TimeStretches | str:
    """The times of monitored columns, as the training cases have them; or the reason why there are none."""
    every = map(covariate_values.course_in, chain.from_iterable(columns.values()))
    courses = [course for course in every if course is not None]
    if len(units := sorted({one.unit or "no unit" for one in courses})) > 1:
        return f"its times are in {errors.list_phrase(units)}"
    start = float(np.quantile([one.times[0] for one in courses], 1 - ENDED))
    stop = float(np.quantile([one.times[-1] for one in courses], ENDED))
    if not start < stop:
        return "it was measured at one time only"
    count = int(np.clip(np.median([len(one.times) for one in courses]), FEWEST, MOST))
    return TimeStretches(float(f"{start:.6g}"), float(f"{stop:.6g}"), count, courses[0].unit)


def encode_monitored(
    name: str, values: Sequence[Any], when: TimeStretches, references: list[References], patients: list[str]
) -> MonitoredCovariate | str:
    """The encoding of a monitored column as numbers, or the reason why it is left out."""
    courses = [covariate_values.course_in(one) for one in values]
    if strange := sum(
        one is None and not covariate_values.is_missing(value) for one, value in zip(courses, values, strict=True)
    ):
        return f"{strange} training cases have words, not numbers"
    if (score := label_proxies.label_association(list(courses), references, patients)) >= PROXY:
        of = "its mean, its end, or how long or often it was read"
        return f"a proxy of the label: {of} predicts it (score {score:.3f} of 1)"
    read = np.concatenate([one.values for one in courses if one is not None])
    missing = sum(one is None for one in courses) / len(courses)
    mean, deviation, missing = (float(f"{one:.6g}") for one in (read.mean(), read.std(), missing))
    return MonitoredCovariate(name, when.start, when.stop, when.stretches, mean, deviation, missing, when.unit)


# From so many entries on they are brought down to a few: as many weights as they have would fit any few hundred cases.
MANY_ENTRIES = 64
# Features that they are brought down to.
FEATURES = 16
# What the length of each entry's weights costs, times the root of (log entries / cases): so much the best of many
# entries seems to tell by chance (Bickel et al.). Of 5,000 columns that told nothing 0.3 left an AUROC of .943, as
# without them, and a fiftieth of it .70 to .80; three that told half of the class raised .82 to .90 to .93 (210 cases).
SPARSITY = 0.3
PEREZ = "arXiv:1709.07871"
BICKEL = "doi:10.1214/08-AOS620"
GORISHNIY = "arXiv:2106.11959"
REASONS = {
    "concatenate": ("the whole image gets one answer: covariates join its pooled features", MOBADERSANY),
    "film": ("answers have a place in the image: covariates scale and shift its maps, starting from no change", PEREZ),
    "tokens": ("the image is a sequence of tokens, and each covariate is one more", GORISHNIY),
    "attention": ("it is the only method of this network", ""),
}


def fusion_decisions(task: Task, name: str, context: StatedSettings | None, cases: int) -> dict[str, Decision]:
    """The decisions `context_fusion`, `narrow` and `sparsity` of the section "network".

    name:  of the family; PlanError for one that there is not
    cases: to train on
    """
    methods = factory.family_of(name).fusion_methods
    if not context or not methods:
        off = "there are no covariates" if not context else f"{name} leaves no choice"
        return {**dict.fromkeys(("context_fusion", "narrow"), Decision(None, off)), "sparsity": Decision(0.0, off)}
    entries = Context.from_settings(context)
    narrowing = _narrowing(len(entries) - 2 * math.prod(entries.courses), cases)
    return {"context_fusion": _method(task, methods), **narrowing}


def _method(task: Task, methods: tuple[str, ...]) -> Decision:
    dense = any(head.is_dense for head in task.heads.values())
    usual = "film" if dense else "concatenate"
    method = usual if usual in methods else methods[0]
    because, source = REASONS[method]
    # What joins pooled features reaches no voxel.
    others = [one for one in methods if one != method and not (dense and one == "concatenate")]
    if method == "film" and not dense:
        because = "normalisation would remove values that join the features, so covariates scale and shift the features"
    because += f" (or {', '.join(others)}: --set network.context_fusion)" if others else ""
    return Decision(method, because, source)


def _narrowing(entries: int, cases: int) -> dict[str, Decision]:
    if entries < MANY_ENTRIES:
        few = f"{entries} entries are few enough to be used as they are (fewer than {MANY_ENTRIES})"
        return {"narrow": Decision(None, few), "sparsity": Decision(0.0, few)}
    because = f"{entries} entries would dominate the image: they are reduced to {FEATURES} features first"
    sparsity = round(SPARSITY * math.sqrt(math.log(entries) / max(1, cases)), 4)
    cost = (
        f"each entry's weights start at 0, and their norm costs {SPARSITY:g} times the root of (log {entries} / "
        f"{cases} training cases): entries that tell no more than chance among so many keep weights of 0"
    )
    return {"narrow": Decision(FEATURES, because), "sparsity": Decision(sparsity, cost, BICKEL)}


# Rule of free text among covariates: the few numbers that say most about how texts of the training cases differ.
#
# Words and letter triples are hashed to places, which count more the fewer patients have them; a singular value
# decomposition of the training texts gives the numbers (latent semantic analysis, Deerwester et al. 1990). A place that
# fewer than five patients have counts nothing, so that a name, or what a single patient told, leaves no trace in a plan
# or a model.


def encode_free_text(
    name: str, values: Sequence[Any], references: Sequence[References], patients: Sequence[str]
) -> FreeText | str:
    """The encoding of a column of free text, or the reason why it is left out."""
    present = [n for n, one in enumerate(values) if not covariate_values.is_missing(one)]
    of_text = np.stack([covariate_encoding.text_places(str(values[n])) for n in present])
    weights = _place_weights(of_text, [patients[n] for n in present])
    directions = leading_directions((of_text * weights)[:: -(-len(present) // MOST_TEXTS)], NUMBERS)
    basis = weights[:, None] * directions
    if not basis.any():
        return f"texts without a word that {FEWEST_PATIENTS} training patients share"
    whole = np.round(LARGEST * basis / np.abs(basis).max()).astype(np.int8)
    numbers = of_text @ whole
    deviations = numbers.std(axis=0)
    if deviations.max() < 1e-6:
        return "alike in all training cases that have it"
    whole, numbers = (one[:, deviations > LEAST_DEVIATION * deviations.max()] for one in (whole, numbers))
    for column in numbers.T:
        known = dict(zip(present, column.tolist(), strict=True))
        score = label_proxies.label_association(
            [known.get(n) for n in range(len(values))], list(references), list(patients)
        )
        if score >= PROXY:
            return f"a proxy of the label: its words predict it by themselves (score {score:.3f} of 1)"
    means, deviations = (
        tuple(float(f"{one:.{DIGITS}g}") for one in own) for own in (numbers.mean(axis=0), numbers.std(axis=0))
    )
    missing = round(1 - len(present) / len(values), DIGITS)
    return FreeText(name, covariate_encoding.pack_weights(whole), means, deviations, missing)


def _place_weights(of_text: Floats, patients: Sequence[str]) -> Floats:
    """(places,) the logarithm of patients over those who have it; 0 for what few have."""
    people, owner = np.unique(patients, return_inverse=True)
    has = np.zeros((len(people), of_text.shape[1]), dtype=bool)
    np.logical_or.at(has, owner, of_text > 0)
    count = has.sum(axis=0)
    return np.where(count >= FEWEST_PATIENTS, np.log((1 + len(people)) / (1 + count)), 0.0)


def leading_directions(rows: Floats, count: int) -> Floats:
    """(columns, count or fewer) right singular vectors of the largest singular values, their largest entry positive."""
    wanted = min(count, *rows.shape)
    directions = np.random.default_rng(0).normal(size=(rows.shape[1], min(count + BESIDE, *rows.shape)))
    for _ in range(ROUNDS):
        directions, _ = np.linalg.qr(rows.T @ (rows @ directions))
    _, _, turned = np.linalg.svd(rows @ directions, full_matrices=False)
    found = (directions @ turned.T)[:, :wanted]
    return np.asarray(found * np.sign(found[np.abs(found).argmax(axis=0), np.arange(wanted)]))
