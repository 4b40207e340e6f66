"""Whether sources differ, what a corruption does, how far readings agree, what boxes find, what calls are worth.

Truths are those of the law by which cases are sampled. Patients with three images have images that are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Literal

import numpy as np
from claims.law import ALARMS, COVERAGE, Law, Random
from scipy import stats

from hilum.evaluation import classification, intervals, regression
from hilum.evaluation.box_matching import Froc, Matches
from hilum.evaluation.classification import Confusion
from hilum.evaluation.fairness import shift_tests
from hilum.evaluation.intervals import Resampling
from hilum.evaluation.significance import probability_tests
from hilum.evaluation.significance import raters as significance_raters
from hilum.tasks.classification import scoring
from hilum.tasks.shared import measurements
from hilum.tasks.shared.measurements import MeasuredQuantity
from hilum.values import Estimate

DRAWS = Resampling(seed=0, draws=400)
KEPT = Resampling(seed=0, draws=400, keeps_draws=True)
# Patients, and images of each.
SIZES = ((20, 1), (50, 1), (200, 1), (20, 3), (50, 3))
# Share of a variance that is of the patient, where there are several images of each.
ALIKE = 0.5


def held(estimate: Estimate, truth: float) -> float:
    """1 where the interval holds the truth; NaN without an interval."""
    if estimate.low is None or estimate.high is None:
        return float("nan")
    return float(estimate.low <= truth <= estimate.high)


def owners(patients: int, images: int) -> np.ndarray:
    return np.repeat(np.arange(patients), images)


def alike(random: Random, owner: np.ndarray, law: Literal["normal", "heavy"] = "normal") -> np.ndarray:
    """(images,) of variance 1; "heavy": by Student's law of 5 degrees"""

    def sampled(count: int) -> np.ndarray:
        return random.normal(size=count) if law == "normal" else random.standard_t(5, count) * np.sqrt(3 / 5)

    people = int(owner[-1]) + 1
    if people == len(owner):
        return sampled(people)
    return np.sqrt(ALIKE) * sampled(people)[owner] + np.sqrt(1 - ALIKE) * sampled(len(owner))


def sources(random: Random, groups: Sequence[tuple[int, int]]) -> float:
    """Two sources of like images, and of as many or unlike images a patient."""
    rows = []
    for patients, images in groups:
        owner = owners(patients, images)
        seen = np.stack([alike(random, owner) for _ in range(16)], axis=1)
        rows.append(seen[shift_tests.one_case_each(owner)])
    return float(shift_tests.energy_test(*rows, seed=int(random.integers(2**31)), draws=199) <= 0.05)


def harms(random: Random, patients: int, tried: int, common: float, harm: float = 0.0) -> float:
    """Scores under so many conditions, of which none changes the mean, or the last lowers it by so many deviations.

    common: correlation of what two conditions do to a score
    """
    before = random.normal(0.85, 0.08, patients)
    shared, own = random.normal(size=(patients, 1)), random.normal(size=(patients, tried))
    changes = np.sqrt(common) * shared + np.sqrt(1 - common) * own
    changes[:, -1] -= harm
    worst = int(changes.mean(axis=0).argmin())
    figures = [
        intervals.bootstrap(one, np.arange(patients), seed=KEPT) for one in (before, before + 0.02 * changes[:, worst])
    ]
    apart = intervals.bonferroni(intervals.difference(*figures), tried)
    return float(apart.high is not None and apart.high < 0)


def measured(random: Random, patients: int, images: int, law: Literal["normal", "heavy"]) -> MeasuredQuantity:
    """Predicted values that are 1 too high on average, with errors of variance 1."""
    owner = owners(patients, images)
    reference = random.normal(10, 3, len(owner))
    predicted = reference + 1 + alike(random, owner, law)
    return MeasuredQuantity("volume", predicted, reference, owner.astype(str), np.arange(len(owner)).astype(str))


def limits(random: Random, patients: int, images: int, law: Literal["normal", "heavy"]) -> float:
    """Of both limits of agreement."""
    rows = measurements.agreement_rows(measured(random, patients, images, law), "ml", seed=DRAWS)
    half = float(stats.norm.ppf(0.975))
    return float(np.mean([held(row.estimate, end) for row, end in zip(rows[1:3], (1 - half, 1 + half), strict=True)]))


def root_error(random: Random, patients: int, images: int, law: Literal["normal", "heavy"]) -> float:
    own = measured(random, patients, images, law)
    plain = measurements.compared_estimate(own, regression.root_mean_squared_error, "ml", DRAWS)
    return held(intervals.figure_of_differences(plain, own.predicted - own.reference, own.patients, seed=DRAWS), 2**0.5)


def grades(random: Random, patients: int, images: int, error: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and true grades of four, and whose they are."""
    owner, cuts = owners(patients, images), [-0.8, 0.2, 1.2]
    true = random.normal(size=patients)[owner]
    return np.searchsorted(cuts, true + error * alike(random, owner)), np.searchsorted(cuts, true), owner


@cache
def true_kappa(error: float) -> float:
    predicted, reference, _ = grades(np.random.default_rng(0), 300_000, 1, error)
    confusion = Confusion.from_calls(predicted, reference, 4, np.ones((1, len(predicted))))
    return float(classification.weighted_kappa(confusion, classification.grade_distances(4, 2))[0])


def kappa(random: Random, patients: int, images: int, error: float) -> float:
    predicted, reference, owner = grades(random, patients, images, error)
    return held(scoring.quadratic_kappa(predicted, reference, 4, owner, seed=DRAWS), true_kappa(error))


def raters(random: Random, subjects: int, number: int, share: float) -> float:
    """Ratings by raters of whom each reads higher or lower; share: of the variance that is of the subjects"""
    rest = (1 - share) / 2
    ratings = np.sqrt(share) * random.normal(size=(subjects, 1)) + np.sqrt(rest) * random.normal(size=(1, number))
    test = significance_raters.icc(ratings + np.sqrt(rest) * random.normal(size=(subjects, number)))
    return float("nan") if test.low is None or test.high is None else float(test.low <= share <= test.high)


# Boxes: references and false boxes a scan, the share of references that any box hits, and how much higher these score.
REFERENCES, FALSE, HIT, HIGHER = 1.5, 3.0, 0.92, 1.5


def boxes(random: Random, patients: int, images: int) -> tuple[Froc, Matches, np.ndarray]:
    """In hard patients fewer are found; the number of false boxes differs among patients too."""
    owner = owners(patients, images)
    hard, many = random.normal(size=patients)[owner], np.exp(random.normal(-0.18, 0.6, patients))[owner]
    counts = random.poisson(REFERENCES, len(owner))
    image = np.repeat(np.arange(len(owner)), counts)
    scores = HIGHER - np.sqrt(ALIKE) * hard[image] + np.sqrt(1 - ALIKE) * random.normal(size=len(image))
    hit = random.random(len(image)) < HIT
    false_image = np.repeat(np.arange(len(owner)), random.poisson(FALSE * many))
    false = random.normal(size=len(false_image))
    curve = Froc(np.where(hit, scores, -np.inf), image, np.ones(len(image)), false, false_image, len(owner))
    both, right = np.concatenate([scores[hit], false]), np.arange(hit.sum() + len(false)) < hit.sum()
    where = np.concatenate([image[hit], false_image])
    return curve, Matches(both, where, right, np.arange(len(both)), counts.astype(float)), owner


def true_of_boxes(figure: str) -> float:
    if figure == "AP":
        scores = np.linspace(-8, 10, 20001)
        found, wrong = REFERENCES * HIT * stats.norm.sf(scores - HIGHER), FALSE * stats.norm.sf(scores)
        return float(-np.trapezoid(found / (found + wrong), found / REFERENCES))
    at = [
        HIT if rate >= FALSE else HIT * float(stats.norm.sf(stats.norm.isf(rate / FALSE) - HIGHER))
        for rate in (Froc.rates if figure == "CPM" else (float(figure),))
    ]
    return float(np.mean(at))


def found(random: Random, patients: int, images: int, figure: str) -> float:
    curve, matches, owner = boxes(random, patients, images)
    named = {"AP": matches.average_precision, "CPM": curve.cpm}
    statistic = named.get(figure) or partial(curve.sensitivity, float(figure))
    estimate = intervals.bootstrap_statistic(statistic, owner, seed=DRAWS, exact=False, compares=True)
    return held(estimate, true_of_boxes(figure))


# Models that state log odds of the truth's about the mean, times a factor, and moved.
MODELS = {"calibrated": (1.0, 0.0), "overconfident": (2.5, 0.0), "too high": (1.0, 1.0), "of chance": (0.0, 0.0)}
MEAN, SPREAD = -1.5, 1.5


def stated(random: Random, patients: int, images: int, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, truths and owners."""
    owner, (factor, moved) = owners(patients, images), MODELS[model]
    odds = MEAN + SPREAD * alike(random, owner)
    truth = random.random(len(owner)) < 1 / (1 + np.exp(-odds))
    if factor == 0:
        odds, factor = MEAN + SPREAD * random.normal(size=len(owner)), 1.0
    return 1 / (1 + np.exp(-(MEAN + moved + factor * (odds - MEAN)))), truth, owner


@cache
def true_gain(model: str) -> np.ndarray:
    """(thresholds,) what calls are worth more than the better of calling everybody or nobody."""
    curve = probability_tests.decision_curve(*stated(np.random.default_rng(0), 400_000, 1, model))
    return np.asarray(curve.value - np.maximum(curve.treat_all, 0))


@cache
def true_worth(model: str, threshold: float) -> float:
    return float(
        probability_tests.decision_curve(*stated(np.random.default_rng(0), 400_000, 1, model), [threshold]).value[0]
    )


def worth(random: Random, patients: int, images: int, model: str, threshold: float) -> float:
    curve = probability_tests.decision_curve(*stated(random, patients, images, model), [threshold])
    truth = true_worth(model, threshold)
    return float(curve.low[0] <= truth <= curve.high[0]) if np.isfinite(curve.low[0]) else float("nan")


def overstated(random: Random, patients: int, images: int, model: str) -> float:
    """1 where any threshold is among those of the sentence at which calls are worth no more; 1e-4 is the truth's own
    error."""
    curve = probability_tests.decision_curve(*stated(random, patients, images, model))
    if curve.gains is None:
        return 0.0
    named = (curve.thresholds >= curve.gains[0]) & (curve.thresholds <= curve.gains[1])
    return float((true_gain(model)[named] <= (1e-3 if model == "of chance" else -1e-4)).any())


def words(patients: int, images: int) -> str:
    return f"{patients} patients" + f" of {images} images" * (images > 1)


LAWS = [
    *[
        Law(
            "like sources are said to differ (p below 5 %)",
            f"{words(*first)} beside {words(*second)}",
            partial(sources, groups=(first, second)),
            *ALARMS,
            draws=600,
            few=40 * (first[0] == 100),
            wide=(0.0, 0.2),
        )
        for first, second in (((40, 1), (40, 1)), ((40, 1), (40, 3)), ((40, 1), (100, 3)), ((100, 1), (100, 3)))
    ],
    *[
        Law(
            "a corruption is said to do harm, and none does",
            f"{patients} patients, {tried} conditions" + ", alike by half" * (common > 0),
            partial(harms, patients=patients, tried=tried, common=common),
            high=0.05,
            few=40 * ((patients, tried, common) == (50, 45, 0)),
            wide=(0.0, 0.2),
        )
        for patients in (20, 50, 200)
        for tried, common in ((3, 0.0), (10, 0.0), (45, 0.0), (45, 0.5))
    ],
    Law(
        "a corruption is said to do harm that does",
        "0.8 standard deviations, 50 patients, 45 conditions",
        partial(harms, patients=50, tried=45, common=0.0, harm=0.8),
        0.9,
    ),
    *[
        Law(
            claim,
            f"{words(*size)}, {law} errors",
            partial(study, patients=size[0], images=size[1], law=law),
            *COVERAGE,
            few=300 * (study is limits and size == (20, 1) and law == "heavy"),
            wide=(0.86, 1.0),
        )
        for claim, study in (("limits of agreement, 95 % interval", limits), ("RMSE, 95 % interval", root_error))
        for law in ("normal", "heavy")
        for size in SIZES
    ],
    *[
        Law(
            "quadratic kappa, 95 % interval",
            f"{words(*size)}, kappa {name}",
            partial(kappa, patients=size[0], images=size[1], error=error),
            *COVERAGE,
            draws=600,
        )
        for name, error in ((".74", 0.7), (".89", 0.4))
        for size in SIZES
    ],
    *[
        Law(
            "ICC(2,1) of readers, 95 % interval",
            f"{subjects} subjects, {number} readers, ICC {share}",
            partial(raters, subjects=subjects, number=number, share=share),
            *COVERAGE,
            few=200 * (subjects == 200 and share == 0.8),
            wide=(0.89, 1.0),
        )
        for share in (0.5, 0.8)
        for subjects, number in ((20, 2), (20, 5), (50, 3), (200, 5))
    ],
    *[
        Law(
            "boxes found, 95 % interval",
            f"{'' if figure in ('AP', 'CPM') else 'sensitivity at false boxes a scan: '}{figure}, {words(*size)}",
            partial(found, patients=size[0], images=size[1], figure=figure),
            *COVERAGE,
            draws=500,
        )
        for figure in ("0.125", "1", "CPM", "AP")
        for size in SIZES
    ],
    *[
        Law(
            "net benefit at a threshold, 95 % interval",
            f"threshold {threshold}, {words(*size)}, {model}",
            partial(worth, patients=size[0], images=size[1], model=model, threshold=threshold),
            *COVERAGE,
        )
        for model in ("calibrated", "overconfident")
        for threshold in (0.1, 0.3, 0.5)
        for size in SIZES
    ],
    *[
        Law(
            "calls are said to be worth more at a threshold where they are not",
            f"{words(*size)}, {model}",
            partial(overstated, patients=size[0], images=size[1], model=model),
            high=0.07,
            draws=500,
        )
        for model in ("overconfident", "too high", "of chance")
        for size in SIZES
    ],
]
