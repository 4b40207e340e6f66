"""Thresholds of sets and intervals by unseen cases, and how often and how well these hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hilum import errors
from hilum.belief.certainties import AUTO, BY_CLASS, BY_PRESENCE, Certainty
from hilum.evaluation import Metric, Seed, Table, intervals
from hilum.evaluation import conformal as evaluation_conformal
from hilum.evaluation.conformal import FEWEST_OF_GROUP, Conformal
from hilum.files.storage import structured_text
from hilum.values import Decision, Floats, Row

ANGELOPOULOS = "arXiv:2107.07511"
CRC = "arXiv:2208.02814"
LTT = "arXiv:2110.01052"
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
CONFORMAL = "task.conformal"
# Columns of cases: a set as JSON, and the ends of an interval.
SET = "set"
LOW = "low"
HIGH = "high"
# Scores of cases, the fold that gave each, and patients.
Scored = tuple[Floats, np.ndarray, np.ndarray]


def interval_decisions() -> dict[str, Decision]:
    """The settings of a task that states intervals, before any case has found something."""
    return {
        "coverage": Decision(Certainty.coverage, "the truth may lie outside in one patient of ten", ANGELOPOULOS),
        "conformal": Decision(None, "they are found after training, on cases that did not train"),
    }


def prediction_set_decisions() -> dict[str, Decision]:
    """The settings of a task that states sets, before any case has found something."""
    by = f"auto takes each class by itself where each has {FEWEST_OF_GROUP} patients, else all cases together"
    return interval_decisions() | {
        "conformal_method": Decision(
            AUTO, "auto takes lac, which gives the smallest sets, and sets without gaps for grades"
        ),
        "conformal_by": Decision(AUTO, by),
    }


def find_conformal_thresholds(
    certainty: Certainty, method: str, by: str, scores: Mapping[str, tuple[Floats, np.ndarray]], *, exact: bool
) -> dict[str, Decision]:
    """Find a threshold for each group of findings, or each target.

    scores: {name: (cases,) scores of the truth and patients}
    """
    limits = {
        name: evaluation_conformal.conformal_threshold(own, certainty.coverage, people)
        for name, (own, people) in scores.items()
    }
    return threshold_decision(
        certainty.coverage, method, by, limits, [people for _, people in scores.values()], exact=exact
    )


def add_fold_scores(conformal: Conformal, scores: Mapping[str, Scored], networks: int) -> dict[str, Decision]:
    """Add the scores of the folds to thresholds, for sets and intervals of their mean.

    scores: {class, group of a finding or target, or `EVERYONE`: (cases,) scores of the truth by the fold that has not
            seen the case, uncalibrated, the number of that fold, and patients}
    networks: how many folds there are
    """
    crossed = {
        name: evaluation_conformal.cross_steps(own, folds, networks, people)
        for name, (own, folds, people) in scores.items()
    }
    scored = [one for one in crossed.values() if evaluation_conformal.count_scored_patients(one)]
    surely = min((evaluation_conformal.cross_bound(one, conformal.level) for one in scored), default=0.0)
    whose = _whose([people for *_, people in scores.values()])
    because = f"{_lacking(conformal)}sets and intervals of the mean of {networks} folds "
    because += f"hold the truth in about {100 * conformal.level:g} % of "
    because += f"{_whom(conformal.by)}, surely in {100 * surely:.0f} %, like {whose} were scored by the fold "
    because += "that had not seen them (CV+); a single fold uses thresholds, which are approximate"
    return {CONFORMAL: Decision(replace(conformal, crossed=crossed).settings, because, ROMANO)}


def _whose(owners: Sequence[np.ndarray]) -> str:
    """The patients whose cases, or those of the cases that, where each case stands for a patient, known or not.

    owners: (cases,) of each class, finding or target
    """
    people = {name for own in owners for name in np.asarray(own).tolist()}
    if all(len(np.unique(own)) == len(own) for own in owners):
        return f"those of the {errors.count_phrase(len(people), 'case')} that"
    return f"the {errors.count_phrase(len(people), 'patient')} whose cases"


def threshold_decision(
    level: float,
    method: str,
    by: str,
    thresholds: Mapping[str, tuple[float, int]],
    owners: Sequence[np.ndarray],
    *,
    exact: bool,
) -> dict[str, Decision]:
    """Return the thresholds of sets or intervals as a decision.

    level:  coverage; thresholds: {group: threshold and patients}; owners: as `_whose` has them
    exact:  the cases have decided nothing else
    """
    least = evaluation_conformal.fewest_for_group(level) if by == BY_PRESENCE else 0
    limits = {name: limit for name, (limit, people) in thresholds.items() if people >= least}
    counts = {name: people for name, (_, people) in thresholds.items()}
    guarantee = Conformal(method, level, by, counts, limits, exact)
    because = f"{_lacking(guarantee)}sets and intervals hold the truth in {'' if exact else 'about '}{100 * level:g} % "
    because += f"of {_whom(by)} like {_whose(owners)} set them{EXACT if exact else APPROXIMATE}"
    if endless := [name for name, limit in limits.items() if math.isinf(limit)]:
        lacking = ", ".join(f"{name} ({counts[name]})" for name in endless)
        needed = evaluation_conformal.fewest_for_control(1 - level)
        because += f"; {lacking}: too few patients with finite outputs (at least {needed}), "
        because += "so nothing is left out"
    return {CONFORMAL: Decision(guarantee.settings, because, ANGELOPOULOS)}


def _whom(by: str) -> str:
    """The patients for whom sets hold, in words."""
    words = {BY_CLASS: " of each class", BY_PRESENCE: " with each finding, and of those without it,"}
    return f"new patients{words.get(by, '')}"


def _lacking(guarantee: Conformal) -> str:
    """The start of a reason: groups that are too small."""
    return f"no sets: {guarantee.lacking}; other " if guarantee.lacking else ""


def set_rows(label: str, table: Table, *, seed: Seed, sides: Sequence[str] = ()) -> Iterator[Row]:
    """Rows on how often sets of these cases hold the reference, and how many answers they hold; of cases with sets.

    sides: references of each of which the coverage is stated by itself
    """
    if SET not in table:
        return
    rows = table[table[SET].notna() & (table[SET] != "")]
    if not len(rows):
        return
    sets = [structured_text.parse_json(one) for one in rows[SET]]
    patients = rows["patient"].to_numpy(str)
    covered = np.array([true in one for true, one in zip(rows["reference"], sets, strict=True)])
    yield Row("coverage", label, intervals.proportion(covered, patients, seed=seed))
    for side in sides:
        if (is_on_side := (rows["reference"] == side).to_numpy(bool)).any():
            yield Row(
                f"coverage_{side}", label, intervals.proportion(covered[is_on_side], patients[is_on_side], seed=seed)
            )
    yield Row("set_size", label, intervals.bootstrap([len(one) for one in sets], patients, seed=seed, unit="answers"))


def interval_rows(label: str, table: Table, unit: str, *, seed: Seed) -> Iterator[Row]:
    """Rows on how often the intervals of these cases hold the reference, and how wide they are."""
    if LOW not in table:
        return
    rows = table[table[LOW].notna() & table[HIGH].notna()]
    if not len(rows):
        return
    low, high, true = (rows[name].to_numpy(float) for name in (LOW, HIGH, "reference"))
    patients = rows["patient"].to_numpy(str)
    yield Row("coverage", label, intervals.proportion((low <= true) & (true <= high), patients, seed=seed))
    yield Row(
        "interval_width", label, intervals.bootstrap(high - low, patients, seed=seed, unit=unit or "unit unknown")
    )
