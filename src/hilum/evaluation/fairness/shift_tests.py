"""Differences between the images of groups: of all their patients, and of pairs of patients who are alike.

Two groups of cases are tested for one source by rows of numbers about each case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.evaluation import _weighting
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.evaluation.intervals import FEW_PATIENTS, Integers
from hilum.evaluation.significance import testing
from hilum.lazy import special, stats
from hilum.values import Floats, covariate_values

OTHERS = "the others"
SHOWN_LEVEL = 0.05
# Of the logits of the probabilities: so far apart two patients may be. Austin, Pharm Stat 2011, doi:10.1002/pst.433
CALIPER = 0.2
FIT_STEPS = 50
FIT_RIDGE = 1e-6


@dataclass(frozen=True)
class ShiftTest:
    """One test between two groups of patients.

    matched: whether it is of pairs that are alike in who they are
    value:   of the test's own distance
    """

    attribute: str
    first: str
    second: str
    test: str
    matched: bool
    value: float
    p: float
    p_adjusted: float
    patients_first: int
    patients_second: int


@dataclass(frozen=True)
class Balance:
    """The difference of two groups in a covariate, in standard deviations, before and after matching."""

    attribute: str
    first: str
    second: str
    covariate: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class GroupedPatients:
    """Patients of groups: one who is in two groups is two.

    rows:       (patients, numbers) how their images look, or what a network sees in them
    groups:     (patients,)
    covariates: {name: (patients,)} by which they are matched
    """

    rows: Floats
    groups: np.ndarray
    covariates: Mapping[str, Sequence[Any]]

    @classmethod
    def from_cases(
        cls, rows: Floats, groups: Sequence[str], patients: Sequence[str], covariates: Mapping[str, Sequence[Any]]
    ) -> GroupedPatients:
        """The patients by one case of each patient and group (`one_case_each`)."""
        first = one_case_each([f"{patient}\n{group}" for patient, group in zip(patients, groups, strict=True)])
        of_patients = {name: [values[n] for n in first] for name, values in covariates.items()}
        return cls(rows[first], np.asarray(groups)[first], of_patients)


def compare_groups(attribute: str, patients: GroupedPatients, *, seed: int) -> tuple[list[ShiftTest], list[Balance]]:
    """The tests of two groups, of more of each against the others, before and after matching; p is Holm's of them all.

    A group with fewer than 10 patients, or with fewer pairs, is not tested.
    """
    shifts = list[ShiftTest]()
    balance = list[Balance]()
    for group, rest in _group_pairs(patients.groups):
        treated = patients.groups == group
        here = treated | (patients.groups != UNKNOWN)
        features = patients.rows[here]
        treated = treated[here]
        if min(treated.sum(), (~treated).sum()) < FEW_PATIENTS:
            continue
        scaled = _standardise_columns(features)
        shifts += _tests(attribute, (group, rest), False, scaled[treated], scaled[~treated], seed)
        columns = encode_covariates({name: _select(values, here) for name, values in patients.covariates.items()})
        if not columns:
            continue
        is_rarer = treated if treated.sum() <= (~treated).sum() else ~treated
        pairs = match_pairs(is_rarer, propensity_scores(is_rarer, list(columns.values())))
        first, second = pairs if is_rarer is treated else pairs[::-1]
        for name, column in columns.items():
            deviation = float(np.sqrt((column[treated].var() + column[~treated].var()) / 2))
            before = standardised_difference(column[treated], column[~treated], deviation)
            after = standardised_difference(column[first], column[second], deviation)
            balance.append(Balance(attribute, group, rest, name, before, after if len(first) else float("nan")))
        if len(first) >= FEW_PATIENTS:
            shifts += _tests(attribute, (group, rest), True, scaled[first], scaled[second], seed)
    adjusted = testing.holm([one.p for one in shifts])
    return [replace(one, p_adjusted=float(p)) for one, p in zip(shifts, adjusted, strict=True)], balance


def shift_words(attribute: str, shifts: Sequence[ShiftTest], matched_by: Sequence[str]) -> str:
    """The tests of an attribute in words: a sentence for each two groups that look different, one for all others."""
    compared = dict.fromkeys((one.first, one.second) for one in shifts)
    if not compared:
        return f"{attribute}: too few patients to compare its groups."
    unlike = list[str]()
    others = dict[str, float]()
    for first, second in compared:
        of_pair = [one for one in shifts if (one.first, one.second) == (first, second)]
        p = min(one.p_adjusted for one in of_pair if not one.matched)
        pair = f"{first} and {second}"
        if p < SHOWN_LEVEL:
            pairs = [one for one in of_pair if one.matched]
            unlike.append(f"{pair} look different (adjusted p {p:.2g}){_matched_words(pairs, matched_by)}.")
        else:
            others[pair] = p
    if others:
        least = f"adjusted p {min(others.values()):.2g}{' and more' if len(others) > 1 else ''}"
        unlike.append(f"no difference shown: {errors.list_phrase(others)} ({least}).")
    return " ".join(f"{attribute}: {words}" for words in unlike)


def _matched_words(pairs: Sequence[ShiftTest], matched_by: Sequence[str]) -> str:
    """A clause on what matched pairs show of a difference; if they do not show it, its reason stays open."""
    if not matched_by:
        return "; there is no covariate to match their patients by"
    alike = f"pairs of patients alike in {errors.list_phrase(matched_by)}"
    if not pairs:
        return f"; there are fewer than {FEW_PATIENTS} {alike}"
    p = min(one.p_adjusted for one in pairs)
    where = f"shown in {pairs[0].patients_first} {alike} (adjusted p {p:.2g})"
    if p < SHOWN_LEVEL:
        return f", also {where}: the acquisition differs, or the patients in something else"
    return f", not {where}: other patients may explain it, or the pairs are too few"


def _group_pairs(groups: np.ndarray) -> Iterator[tuple[str, str]]:
    names = sorted(set(groups.tolist()) - {UNKNOWN})
    if len(names) == 2:
        yield names[0], names[1]
    elif len(names) > 2:
        yield from ((name, OTHERS) for name in names)


def _tests(
    attribute: str, names: tuple[str, str], is_matched: bool, first: Floats, second: Floats, seed: int
) -> Iterator[ShiftTest]:
    group, other = names
    for test, (value, p) in two_sample_tests(first, second, seed=seed).items():
        yield ShiftTest(attribute, group, other, test, is_matched, value, p, float("nan"), len(first), len(second))


def _standardise_columns(rows: Floats) -> Floats:
    deviation = rows.std(axis=0)
    return np.asarray((rows - rows.mean(axis=0))[:, deviation > 0] / deviation[deviation > 0])


def _select(values: Sequence[Any], here: np.ndarray) -> list[Any]:
    return [value for value, is_here in zip(values, here, strict=True) if is_here]


def encode_covariates(covariates: Mapping[str, Sequence[Any]]) -> dict[str, Floats]:
    """{covariate or covariate=level: (patients,)}: numbers as they are, levels 0 or 1; what is missing is a level."""
    columns: dict[str, Floats] = {}
    for name, values in covariates.items():
        missing = np.array([covariate_values.is_missing(value) for value in values])
        numbers = [covariate_values.number_in(value) for value, gap in zip(values, missing, strict=True) if not gap]
        if numbers and None not in numbers:
            column = np.zeros(len(values))
            column[~missing] = np.array(numbers, dtype=float)
            column[missing] = column[~missing].mean()
            columns[name] = column
        else:
            levels = np.array([covariate_values.level_in(value) for value in values])
            levels[missing] = ""
            columns |= {f"{name}={one}": (levels == one).astype(float) for one in sorted(set(levels) - {""})}
        if missing.any() and not missing.all():
            columns[f"{name} is missing"] = missing.astype(float)
    return columns


def propensity_scores(treated: np.ndarray, columns: Sequence[Floats]) -> Floats:
    """(patients,) the probability of the group by a logistic regression on the columns.

    Rosenbaum and Rubin, Biometrika 1983, doi:10.1093/biomet/70.1.41
    """
    truth = treated.astype(float)
    scaled = [(one - one.mean()) / one.std() for one in columns if one.std() > 0]
    features = np.stack([np.ones(len(truth)), *scaled], axis=1)
    coefficients = np.zeros(features.shape[1])
    for _ in range(FIT_STEPS):
        chance = special.expit(features @ coefficients)
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features + FIT_RIDGE * np.eye(len(coefficients))
        step = np.linalg.solve(hessian, features.T @ (truth - chance) - FIT_RIDGE * coefficients)
        coefficients = coefficients + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return np.asarray(special.expit(features @ coefficients))


def match_pairs(treated: np.ndarray, chance: Floats, *, caliper: float | None = CALIPER) -> tuple[Integers, Integers]:
    """Pairs, one treated patient and another: the nearest that is left, the likeliest treated patient first.

    chance:  (patients,) of being treated; caliper: in standard deviations of its logit; None pairs everybody it can
    As MatchIt's `nearest`, without replacement. Ho et al., J Stat Softw 2011, doi:10.18637/jss.v042.i08
    """
    logit = special.logit(np.clip(chance, 1e-12, 1 - 1e-12))
    widest = np.inf if caliper is None else caliper * float(logit.std(ddof=1))
    left = np.flatnonzero(~treated)
    ours = list[int]()
    theirs = list[int]()
    for person in sorted(np.flatnonzero(treated), key=lambda place: -chance[place]):
        if not len(left):
            break
        near = int(np.abs(chance[left] - chance[person]).argmin())
        if abs(logit[left[near]] - logit[person]) <= widest:
            ours.append(int(person))
            theirs.append(int(left[near]))
            left = np.delete(left, near)
    return np.array(ours, dtype=np.intp), np.array(theirs, dtype=np.intp)


def standardised_difference(first: Floats, second: Floats, deviation: float) -> float:
    """The difference of two means by a standard deviation, that before matching; 0 where nothing varies."""
    return float((first.mean() - second.mean()) / deviation) if deviation > 0 and len(first) and len(second) else 0.0


DRAWS = 999
# Of larger groups so many rows are sampled: their differences are compared each with each.
MOST = 500
# Principal axes, so few that each is of many cases; and what of the longest is none.
MOST_AXES = 32
CASES_AN_AXIS = 8
ROUNDING = 1e-6


class TwoSampleTest(NamedTuple):
    """A distance between two groups, and the share of dealings with one as large."""

    value: float
    p: float


def one_case_each(patients: ArrayLike) -> NDArray[np.intp]:
    """(patients,) the place of one image of each, chosen at random, in the order of their ids.

    The mean of a patient's images varies the less the more there are: groups with unlike numbers of images would look
    unlike though their images are alike.
    """
    owners = np.asarray(patients)
    order = np.random.default_rng(0).permutation(len(owners))
    return np.asarray(order[np.unique(owners[order], return_index=True)[1]])


def energy_test(first: ArrayLike, second: ArrayLike, *, seed: int, draws: int = DRAWS) -> float:
    """The probability of so large a distance between two groups of rows, (cases, numbers), if they are alike.

    The energy distance: twice the mean distance between groups less those within. It is 0 for equal distributions
    alone, whatever they are; its law is that of groups whose rows are dealt anew. Székely and Rizzo, Testing for equal
    distributions in high dimension, InterStat 2004. Rows are taken along the principal axes of both groups, with equal
    variances: what a network sees differs among sources in small directions more than in those that tell classes apart.
    """
    rows, is_first = _dealt(first, second, seed, draws)
    return _judge(_energy(_apart(rows), is_first)).p


def two_sample_tests(first: ArrayLike, second: ArrayLike, *, seed: int, draws: int = DRAWS) -> dict[str, TwoSampleTest]:
    """{test: distance and p} of two groups of rows, along principal axes as in `energy_test`.

    energy:     as there
    mmd:        the maximum mean discrepancy of a Gaussian kernel as wide as the median distance. Gretton et al., J Mach
                Learn Res 2012
    classifier: the area under the curve by which a ridge regression tells a row's group, each row by the others. Lopez-
                Paz and Oquab, ICLR 2017, arXiv:1610.06545; leaving one out is exact, so each dealing is learnt anew
    """
    rows, is_first = _dealt(first, second, seed, draws)
    apart = _apart(rows)
    width = float(np.median(apart[np.triu_indices(len(rows), 1)])) or 1.0
    return {
        "mmd": _judge(-_energy(np.exp(-((apart / width) ** 2) / 2), is_first)),
        "energy": _judge(_energy(apart, is_first)),
        "classifier": _judge(_separation(rows, is_first)),
    }


def _dealt(first: ArrayLike, second: ArrayLike, seed: int, draws: int) -> tuple[Floats, Floats]:
    """The rows of both, and (dealings, rows) which are dealt to the first; the first dealing is what they are."""
    _weighting.refuse_no_draws(draws)
    random = np.random.default_rng(seed)
    groups = [_some(np.asarray(one, dtype=np.float64), random) for one in (first, second)]
    rows = _whiten(np.concatenate(groups))
    size = len(groups[0])
    is_first = np.zeros((draws + 1, len(rows)))
    is_first[0, :size] = 1
    is_first[1:] = random.permuted(np.broadcast_to(is_first[0], (draws, len(rows))), axis=1)
    return rows, is_first


def _judge(distances: Floats) -> TwoSampleTest:
    p = np.mean(distances >= distances[0] - 1e-9 * abs(distances[0]))
    return TwoSampleTest(float(distances[0]), float(p))


def _apart(rows: Floats) -> Floats:
    squares = np.sum(rows**2, axis=1)
    return cast("Floats", np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0)))


def _energy(apart: Floats, is_first: Floats) -> Floats:
    """(dealings,) twice the mean of what lies between the groups less those within; of a kernel less by more."""
    count = is_first.shape[1]
    size = float(is_first[0].sum())
    to_first = is_first @ apart
    within = np.sum(to_first * is_first, axis=1)
    between = to_first.sum(axis=1) - within
    others = apart.sum() - within - 2 * between
    return np.asarray(2 * between / (size * (count - size)) - within / size**2 - others / (count - size) ** 2)


def _separation(rows: Floats, is_first: Floats) -> Floats:
    """(dealings,) the area under the curve of the group that the other rows say each row is of."""
    features = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    inverse = np.linalg.inv(features.T @ features + np.eye(features.shape[1]))
    hat = features @ inverse @ features.T
    leverage = np.diag(hat)
    predicted = (is_first @ hat - is_first * leverage) / (1 - leverage)
    # Without a row its own group is rarer, so that a regression that knows nothing says the other one of each.
    size = is_first.sum(axis=1, keepdims=True)
    count = is_first.shape[1]
    predicted = predicted - (size - is_first) / (count - 1)
    ranks = stats.rankdata(predicted, axis=1)
    ones = is_first.sum(axis=1)
    return np.asarray((np.sum(ranks * is_first, axis=1) - ones * (ones + 1) / 2) / (ones * (count - ones)))


def _whiten(rows: Floats) -> Floats:
    """(cases, axes)"""
    axes, lengths, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    is_kept = lengths > ROUNDING * max(float(lengths[0]), np.finfo(float).tiny)
    return cast(
        "Floats", axes[:, : min(MOST_AXES, len(rows) // CASES_AN_AXIS, int(is_kept.sum()))] * np.sqrt(len(rows))
    )


def _some(rows: Floats, random: np.random.Generator) -> Floats:
    return rows if len(rows) <= MOST else rows[np.sort(random.choice(len(rows), MOST, replace=False))]
