"""AUROCs of models, or of readers, of the same cases, how they vary together, and tests of their differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.evaluation import _weighting
from hilum.evaluation.significance import margins, testing
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.lazy import stats
from hilum.values import Floats

# Of fewer patients DeLong's test finds too little: 3 % in place of 5 % of equal models with an AUROC of .95 and 30
# positives of 100 patients (bench/claims/comparisons.py), and its interval is too narrow at a margin.
# The permutation keeps its level at any number.
FEW_FOR_DELONG = 400


def placements(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats]:
    """(models, positives) share of negatives that each is above, (models, negatives) share of positives below.

    scores: (models, cases); positive: (cases,) truths. Ties count half; the mean of either is the AUROC.
    By ranks: Sun and Xu, IEEE Signal Process Lett 2014, doi:10.1109/LSP.2014.2337313
    """
    score = np.asarray(scores, dtype=np.float64)
    truth = _weighting.require_truths(positive, "positive")
    if not score.shape[1:] == truth.shape == (truth.size,) or not np.isfinite(score).all():
        problem = f"scores of {score.shape} for {truth.shape} references, or one that is not a number"
        raise UsageError(problem, "AUROC", "Give (models, cases) scores and (cases,) truths")
    if truth.all() or not truth.any():
        raise UsageError("all cases are alike", "AUROC", "Give cases with and without what is looked for")
    ranks, yes, no = (stats.rankdata(one, axis=1) for one in (score, score[:, truth], score[:, ~truth]))
    return (ranks[:, truth] - yes) / (~truth).sum(), 1 - (ranks[:, ~truth] - no) / truth.sum()


def area_covariance(scores: ArrayLike, positive: ArrayLike, patients: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """(models,) AUROCs, and the (models, models) covariance of their estimates.

    patients: (cases,) whose, where patients have several
    DeLong et al., Biometrics 1988, doi:10.2307/2531595; of patients with several cases Obuchowski, Biometrics 1997,
    doi:10.2307/2533958, which is the same where each has one
    """
    above, below = placements(scores, positive)
    truth = _weighting.require_truths(positive, "positive")
    areas = above.mean(axis=1)
    owner = testing.patient_numbers(patients, len(truth))
    people = int(owner.max()) + 1
    sides = []
    covariance = np.zeros((len(areas), len(areas)))
    for part, owner_of_part in ((above, owner[truth]), (below, owner[~truth])):
        apart = (part - areas[:, None]) / part.shape[1]
        sums = np.stack([np.bincount(owner_of_part, one, minlength=people) for one in apart])
        covariance += _unbiased_factor(len(np.unique(owner_of_part))) * sums @ sums.T
        sides.append(sums)
    both = sides[0] @ sides[1].T
    return areas, covariance + _unbiased_factor(people) * (both + both.T)


def jackknife_covariance(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats]:
    """Areas and covariance as in `area_covariance`, from the AUROCs without each case in turn.

    Quenouille, Biometrika 1956, doi:10.2307/2332914
    """
    above, below = placements(scores, positive)
    areas = above.mean(axis=1)
    cases = above.shape[1] + below.shape[1]
    without = [(areas[:, None] * part.shape[1] - part) / (part.shape[1] - 1) for part in (above, below)]
    apart = np.concatenate(without, axis=1)
    apart -= apart.mean(axis=1, keepdims=True)
    return areas, (cases - 1) / cases * apart @ apart.T


def delong(
    first: ArrayLike, second: ArrayLike, positive: ArrayLike, patients: ArrayLike | None = None
) -> DifferenceTest:
    """The difference of two models' AUROCs on the same cases, by the normal law.

    first, second: (cases,) scores, each on a scale of its own; positive: (cases,) truths
    patients:      (cases,) whose, where patients have several: they are clusters
    Its interval is symmetric and too narrow of AUROCs near 1: it tests no margin where the patients are too few.
    """
    areas, covariance = area_covariance(np.stack(testing.paired_numbers(first, second)), positive, patients)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    clustered = patients is not None and len(np.unique(np.asarray(patients))) < len(np.asarray(patients))
    method = f"DeLong, paired{'; patients are clusters (Obuchowski)' if clustered else ''}; z"
    test = testing.normal_test(float(areas[1] - areas[0]), max(variance, 0.0) ** 0.5, method)
    people = len(np.unique(testing.patient_numbers(patients, len(np.asarray(positive)))))
    return replace(test, too_few=margins.too_few_for_margins(people, FEW_FOR_DELONG))


def delong_unpaired(
    first: ArrayLike,
    second: ArrayLike,
    first_positive: ArrayLike,
    second_positive: ArrayLike,
    first_patients: ArrayLike | None = None,
    second_patients: ArrayLike | None = None,
) -> DifferenceTest:
    """The difference of two AUROCs on different patients, by Student's law with Welch's degrees of freedom."""
    areas = np.zeros(2)
    variances = np.zeros(2)
    free = np.zeros(2)
    sides = ((first, first_positive, first_patients), (second, second_positive, second_patients))
    for n, (scores, positive, patients) in enumerate(sides):
        area, covariance = area_covariance(np.asarray(scores)[None], positive, patients)
        areas[n] = area[0]
        variances[n] = covariance[0, 0]
        free[n] = len(np.unique(testing.patient_numbers(patients, len(np.asarray(positive))))) - 1
    total = float(variances.sum())
    degrees = total**2 / float((variances**2 / free).sum()) if total > 0 else 1.0
    method = f"DeLong, unpaired; t with {degrees:.4g} degrees of freedom"
    return testing.normal_test(float(areas[1] - areas[0]), total**0.5, method, degrees)


def _unbiased_factor(people: int) -> float:
    """The factor that makes a sum of squares over a number of people an unbiased estimate; NaN for one person."""
    return people / (people - 1) if people > 1 else float("nan")


def mrmc(
    scores: ArrayLike,
    positive: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    readers: Literal["random", "fixed"] = "random",
) -> DifferenceTest:
    """The difference of two modalities' mean AUROCs over readers, with the chance of other cases and other readers.

    scores:   (modalities, readers, cases), two modalities, each read by every reader on every case
    positive: (cases,) truths; patients: (cases,) whose, where patients have several
    readers:  "random" speaks of other readers too, "fixed" of these alone; a single reader is DeLong's test
    Obuchowski and Rockette, Commun Stat Simul Comput 1995, doi:10.1080/03610919508813243; degrees of freedom: Hillis,
    Stat Med 2007, doi:10.1002/sim.2532. Covariances by jackknife, those of patients with several cases as in `delong`
    """
    score = np.asarray(scores, dtype=np.float64)
    if score.ndim != 3 or len(score) != 2 or not score.shape[1] or not np.isfinite(score).all():
        problem = f"scores of {score.shape}, or some are missing"
        raise UsageError(problem, "mrmc", "Give (2, readers, cases): every reader reads every case both times")
    if readers not in ("random", "fixed"):
        raise UsageError(f"readers are {readers!r}", "mrmc", "Choose random or fixed")
    if score.shape[1] == 1:
        return delong(score[0, 0], score[1, 0], positive, patients)
    variances = reader_variances(score, positive, patients)
    number = variances.readers
    difference = variances.difference
    within = variances.own
    between = variances.between
    interaction = variances.interaction
    name = "Obuchowski-Rockette, readers"
    if readers == "fixed":
        error = max(2 / number * (within + (number - 1) * max(between, 0.0)), 0.0) ** 0.5
        return testing.normal_test(difference, error, f"{name} fixed; z")
    total = interaction + max(number * between, 0.0)
    if interaction <= 0:
        return testing.normal_test(difference, max(2 / number * total, 0.0) ** 0.5, f"{name} random, all alike; z")
    degrees = total**2 / (interaction**2 / (number - 1))
    test = testing.normal_test(difference, (2 / number * total) ** 0.5, name, degrees)
    method = f"{name} and cases random; F with 1 and {degrees:.4g} degrees of freedom (Hillis)"
    return DifferenceTest(test.difference, test.low, test.high, test.statistic**2, test.p, method)


@dataclass(frozen=True)
class ReaderVariances:
    """Variances by which the difference of two modalities' mean AUROCs varies in a study of readers.

    difference:  of the modalities, second less first
    interaction: mean square of readers by modalities
    own:         Var less Cov1, of one reader's difference, half of it
    between:     Cov2 less Cov3, of two readers' differences, half of it; chance may make it negative
    """

    difference: float
    interaction: float
    own: float
    between: float
    readers: int
    cases: int


def reader_variances(scores: ArrayLike, positive: ArrayLike, patients: ArrayLike | None = None) -> ReaderVariances:
    """The variances by which a study of readers is tested, or a further one is sized.

    scores: (2, readers, cases), two readers or more; positive: (cases,) truths; patients: (cases,) whose
    """
    score = np.asarray(scores, dtype=np.float64)
    number = score.shape[1]
    flat = score.reshape(2 * number, -1)
    if patients is None:
        areas, covariance = jackknife_covariance(flat, positive)
    else:
        areas, covariance = area_covariance(flat, positive, patients)
    within, between = _within(covariance, number)
    apart = areas[number:] - areas[:number]
    return ReaderVariances(float(apart.mean()), float(apart.var(ddof=1)) / 2, within, between, number, score.shape[2])


def _within(covariance: Floats, number: int) -> tuple[float, float]:
    """Var less Cov1 and Cov2 less Cov3: of one reader's and of two readers' differences, each half of it."""
    apart = covariance[:number, :number] + covariance[number:, number:]
    apart = (apart - covariance[:number, number:] - covariance[number:, :number]) / 2
    mean = float(np.trace(apart)) / number
    return mean, (float(apart.sum()) - number * mean) / (number * (number - 1))
