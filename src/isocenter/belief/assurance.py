"""Thresholds of sets and intervals by unseen cases, and how often and how well these hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isocenter.belief.certainty import AUTO, BY_CLASS, BY_PRESENCE, USUAL_RISK, Certainty
from isocenter.errors import counted
from isocenter.evaluation import (
    EVERYONE,
    FEWEST_OF_GROUP,
    Conformal,
    Metric,
    Seed,
    Table,
    bootstrap,
    class_scores,
    conformal_threshold,
    controlled_on_average,
    controlled_with_confidence,
    cross_bound,
    cross_steps,
    fewest_controlling,
    fewest_of_group,
    mondrian_thresholds,
    people_of,
    proportion,
)
from isocenter.files import parse_json
from isocenter.values import Decision, Floats, Row, is_missing, level_in

ANGELOPOULOS, CRC, LTT = "arXiv:2107.07511", "arXiv:2208.02814", "arXiv:2110.01052"
ROMANO = "arXiv:2006.02544"
EXACT = ": these cases trained nothing and decided nothing else"
APPROXIMATE = ": approximate, no guarantee, for these cases decided other things too"
# A coverage is right where it is the one that was asked for.
SET_METRICS = tuple(
    replace(one, is_of_belief=True, may_judge=False)
    for one in (
        Metric("coverage", "Coverage of sets and intervals", "aim"),
        Metric("coverage_present", "Coverage where present", "aim"),
        Metric("coverage_absent", "Coverage where absent", "aim"),
        Metric("set_size", "Mean size of sets", "less"),
        Metric("interval_width", "Mean width of intervals", "less"),
    )
)
# Probabilities from which on a voxel may be in a covering mask: never fewer voxels than what is likely, at last all.
COVERS_FROM = np.append(1 / (1 + np.exp(np.arange(0.0, 14.0, 0.125))), 0.0)
OF_MASKS = (
    "masks from these probabilities on miss at most {} % of a structure",
    "nothing less than the whole image is known to do so for",
)
# Columns of cases, and their metrics: the share that is missed, and what finds nothing.
MISSED, FALSE = "covering_missed", "covering_false"
CONFORMAL = "task.conformal"
# Columns of cases: a set as JSON, and the ends of an interval.
SET, LOW, HIGH = "set", "low", "high"
Found = tuple[Certainty, dict[str, Decision]]
# Scores of cases, the fold that gave each, and patients.
Scored = tuple[Floats, np.ndarray, np.ndarray]


def interval_decisions() -> dict[str, Decision]:
    """The settings of a task that states intervals, before any case has found something."""
    return {
        "coverage": Decision(Certainty.coverage, "the truth may lie outside in one patient of ten", ANGELOPOULOS),
        "conformal": Decision(None, "they are found after training, on cases that did not train"),
    }


def set_decisions() -> dict[str, Decision]:
    """The settings of a task that states sets, before any case has found something."""
    by = f"auto takes each class by itself where each has {FEWEST_OF_GROUP} patients, else all cases together"
    return interval_decisions() | {
        "conformal_method": Decision(
            AUTO, "auto takes lac, which gives the smallest sets, and sets without gaps for grades"
        ),
        "conformal_by": Decision(AUTO, by),
    }


def assured_classes(
    certainty: Certainty, probabilities: Floats, truth: np.ndarray, patients: ArrayLike, classes: Sequence[str],
    *, ordered: bool, exact: bool, covariates: Sequence[Mapping[str, Any]] = (),
) -> Found:  # fmt: skip
    """With thresholds of sets of classes. A class without any of these cases is in every set.

    probabilities: (cases, classes), calibrated; truth: (cases,) indices; ordered: the classes are grades
    exact:         these cases have decided nothing else
    covariates:    of each case, for sets that hold for each value of one: cases without it are left out
    """
    usual = "contiguous" if ordered else "lac"
    method = usual if certainty.conformal_method == AUTO else certainty.conformal_method
    owners = np.asarray(patients)
    counts = [len(np.unique(owners[truth == place])) for place in range(len(classes))]
    by, needed = certainty.conformal_by, fewest_of_group(certainty.coverage)
    if by == AUTO:
        by = BY_CLASS if min(counts) >= needed else EVERYONE
    scores = class_scores(probabilities, method)[np.arange(len(truth)), truth]  # type: ignore[arg-type]
    groups: list[str | None] = [classes[place] for place in truth] if by == BY_CLASS else [EVERYONE] * len(truth)
    if by not in (BY_CLASS, EVERYONE):
        groups = [None if is_missing(one.get(by)) else level_in(one[by]) for one in covariates]
    known = np.array([one is not None for one in groups])
    named = [one for one in groups if one is not None]
    limits = mondrian_thresholds(scores[known], named, certainty.coverage, owners[known]) or {EVERYONE: (math.inf, 0)}
    absent = {name: (math.inf, 0) for name, count in zip(classes, counts, strict=True) if not count}
    if absent and by not in (BY_CLASS, EVERYONE):  # no value of the covariate says anything of such a class
        limits, absent = {name: (math.inf, people) for name, (_, people) in limits.items()}, {}
    found, made = _with(certainty, method, by, {**limits, **absent}, _whose([owners[known]]), exact)
    if certainty.conformal_by == AUTO and by == EVERYONE:
        rarest = f"{counted(min(counts), 'patient')} of {classes[int(np.argmin(counts))]}, {needed} needed"
        because = f"{made[CONFORMAL].because}; over all classes together, a rare one may be held less often: {rarest}"
        made = {CONFORMAL: replace(made[CONFORMAL], because=because)}
    return found, made


def assured_each(
    certainty: Certainty, method: str, by: str, scores: Mapping[str, tuple[Floats, np.ndarray]], *, exact: bool
) -> Found:
    """With a threshold for each group of findings, or each target.

    scores: {name: (cases,) scores of the truth and patients}
    """
    limits = {name: conformal_threshold(own, certainty.coverage, people) for name, (own, people) in scores.items()}
    return _with(certainty, method, by, limits, _whose([people for _, people in scores.values()]), exact)


def crossed_classes(
    certainty: Certainty,
    probabilities: Floats,
    truth: np.ndarray,
    folds: np.ndarray,
    patients: np.ndarray,
    classes: Sequence[str],
) -> Found:
    """With what sets of the mean of folds rest on. A class without any of these cases is in every set.

    probabilities: (cases, classes), uncalibrated, by the fold that has not seen the case
    """
    conformal = certainty.conformal
    assert conformal is not None  # noqa: S101 - thresholds are found first
    scores = class_scores(probabilities, conformal.method)[np.arange(len(truth)), truth]  # type: ignore[arg-type]
    groups = {} if conformal.by == BY_CLASS else {EVERYONE: np.full(len(truth), True)}
    by_class = {name: truth == place for place, name in enumerate(classes)}
    groups |= {name: own for name, own in by_class.items() if conformal.by == BY_CLASS or not own.any()}
    each = {name: (scores[own], folds[own], patients[own]) for name, own in groups.items()}
    return crossed_each(certainty, each, int(folds.max()) + 1)


def crossed_each(certainty: Certainty, scores: Mapping[str, Scored], networks: int) -> Found:
    """With what sets and intervals of the mean of so many folds rest on, beside thresholds, which they have already.

    scores: {class, group of a finding or target, or `EVERYONE`: (cases,) scores of the truth by the fold that has not
            seen the case, uncalibrated, the number of that fold, and patients}
    """
    conformal = certainty.conformal
    assert conformal is not None  # noqa: S101 - thresholds are found first
    crossed = {name: cross_steps(own, folds, networks, people) for name, (own, folds, people) in scores.items()}
    surely = min((cross_bound(one, conformal.level) for one in crossed.values() if people_of(one)), default=0.0)
    known = _whose([people for *_, people in scores.values()])
    because = f"{_lacking(conformal)}sets and intervals of the mean of {networks} folds "
    because += f"hold the truth in about {100 * conformal.level:g} % of "
    because += f"{_whom(conformal.by)}, surely in {100 * surely:.0f} %, like {known} were scored by the fold "
    because += "that had not seen them (CV+); a single fold uses thresholds, which are approximate"
    made = replace(conformal, crossed=crossed)
    return replace(certainty, conformal=made), {CONFORMAL: Decision(made.settings, because, ROMANO)}


def covering_decisions(
    because: str = "a covering mask may miss a tenth of its structure on average",
) -> dict[str, Decision]:
    """The settings of a task that states masks or boxes that miss little, before any case has found something."""
    return {
        "risk": Decision(USUAL_RISK, because, CRC),
        "risk_delta": Decision(None, "it holds on average over calibration sets: no confidence was asked for"),
        "covering": Decision(None, "they are found after training, on cases that did not train"),
    }


def assured_covering(
    certainty: Certainty,
    missed: Mapping[str, tuple[Floats, np.ndarray]],
    *,
    exact: bool,
    words: tuple[str, str] = OF_MASKS,
) -> Found:
    """With a threshold for each structure or class of which no more is missed than `risk` allows.

    missed: {structure: ((cases, limits) share of it that is less probable than each of `COVERS_FROM`, patients)}
    words:  what misses how much, and what is said where no threshold is known
    """
    risk, delta = certainty.risk, certainty.risk_delta
    assert risk is not None  # noqa: S101 - nobody asks for masks without it
    limits, counts = dict[str, float](), dict[str, int]()
    for name, (losses, people) in missed.items():
        counts[name] = len(np.unique(people))
        place = -1
        if delta is None and counts[name]:
            place = controlled_on_average(losses, risk, people)
        elif delta is not None and counts[name]:
            place = controlled_with_confidence(losses, risk, delta, people)
        limits[name] = math.inf if place in (-1, len(COVERS_FROM) - 1) else 1 - float(COVERS_FROM[place])
    method = "crc" if delta is None else "ltt"
    conformal = Conformal(method, 1 - risk, "label", counts, limits, exact)
    how = "on average" if delta is None else f"with a confidence of {100 * (1 - delta):g} %"
    because = f"{words[0].format(f'{100 * risk:g}')} {how} in new patients like "
    because += f"those whose cases set them ({', '.join(f'{name} {count}' for name, count in counts.items())})"
    because += EXACT if exact else APPROXIMATE
    if endless := [name for name, limit in limits.items() if math.isinf(limit)]:
        because += f"; {words[1]} {', '.join(endless)}"
    decision = Decision(conformal.settings, because, CRC if delta is None else LTT)
    return replace(certainty, covering=conformal), {"task.covering": decision}


def covering_rows(table: Table, classes: Sequence[str], unit: str, *, seed: Seed) -> Iterator[Row]:
    """How much covering boxes or objects miss, and how many of them find nothing, over all classes and for each."""
    for metric, counted_in in ((MISSED, ""), (FALSE, unit)):
        for label in ("all", *classes) if metric in table else ():
            own = table if label == "all" else table[table["label"] == label]
            if metric == FALSE:  # a case has those of all its classes
                own = own[["case", "patient", FALSE]].groupby(["case", "patient"]).sum(min_count=1).reset_index()
            values, patients = own[metric].to_numpy(float), own["patient"].to_numpy(str)
            known = own["case"][np.isfinite(values)].nunique()
            yield Row(metric, label, replace(bootstrap(values, patients, seed=seed, unit=counted_in), n=known))


def _whose(owners: Sequence[np.ndarray]) -> str:
    """The patients whose cases, or those of the cases that, where each case stands for a patient, known or not.

    owners: (cases,) of each class, finding or target
    """
    people = {name for own in owners for name in np.asarray(own).tolist()}
    if all(len(np.unique(own)) == len(own) for own in owners):
        return f"those of the {counted(len(people), 'case')} that"
    return f"the {counted(len(people), 'patient')} whose cases"


def _with(
    certainty: Certainty, method: str, by: str, stated: Mapping[str, tuple[float, int]], known: str, exact: bool
) -> Found:
    level = certainty.coverage
    least = fewest_of_group(level) if by == BY_PRESENCE else 0
    limits = {name: limit for name, (limit, people) in stated.items() if people >= least}
    counts = {name: people for name, (_, people) in stated.items()}
    conformal = Conformal(method, level, by, counts, limits, exact)
    because = f"{_lacking(conformal)}sets and intervals hold the truth in {'' if exact else 'about '}{100 * level:g} % "
    because += f"of {_whom(by)} like {known} set them{EXACT if exact else APPROXIMATE}"
    if endless := [name for name, limit in limits.items() if math.isinf(limit)]:
        lacking = ", ".join(f"{name} ({counts[name]})" for name in endless)
        because += f"; {lacking}: too few patients with finite outputs (at least {fewest_controlling(1 - level)}), "
        because += "so nothing is left out"
    decision = Decision(conformal.settings, because, ANGELOPOULOS)
    return replace(certainty, conformal=conformal), {CONFORMAL: decision}


def _whom(by: str) -> str:
    """The patients for whom sets hold, in words."""
    each = {BY_CLASS: " of each class", BY_PRESENCE: " with each finding, and of those without it,"}
    return f"new patients{each.get(by, '')}"


def _lacking(conformal: Conformal) -> str:
    """The start of a reason: groups that are too small."""
    return f"no sets: {conformal.lacking}; other " if conformal.lacking else ""


def set_rows(label: str, table: Table, *, seed: Seed, sides: Sequence[str] = ()) -> Iterator[Row]:
    """How often the sets of these cases hold the reference, and how many answers they hold; of cases that have sets.

    sides: references of each of which the coverage is stated by itself
    """
    if SET not in table:
        return
    own = table[table[SET].notna() & (table[SET] != "")]
    if not len(own):
        return
    sets, patients = [parse_json(one) for one in own[SET]], own["patient"].to_numpy(str)
    covered = np.array([true in one for true, one in zip(own["reference"], sets, strict=True)])
    yield Row("coverage", label, proportion(covered, patients, seed=seed))
    for side in sides:
        if (there := (own["reference"] == side).to_numpy(bool)).any():
            yield Row(f"coverage_{side}", label, proportion(covered[there], patients[there], seed=seed))
    yield Row("set_size", label, bootstrap([len(one) for one in sets], patients, seed=seed, unit="answers"))


def interval_rows(label: str, table: Table, unit: str, *, seed: Seed) -> Iterator[Row]:
    """How often the intervals of these cases hold the reference, and how wide they are."""
    if LOW not in table:
        return
    own = table[table[LOW].notna() & table[HIGH].notna()]
    if not len(own):
        return
    low, high, true = (own[name].to_numpy(float) for name in (LOW, HIGH, "reference"))
    patients = own["patient"].to_numpy(str)
    yield Row("coverage", label, proportion((low <= true) & (true <= high), patients, seed=seed))
    yield Row("interval_width", label, bootstrap(high - low, patients, seed=seed, unit=unit or "unit unknown"))
