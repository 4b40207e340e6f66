"""How often the 95 % intervals of figures hold the truth, by simulated patients.

Every patient has two images that are alike, unless a law says one, so that a method which resamples images shows how
far it is off. A study whose method gives no interval is left out, and its share is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
from claims.law import COVERAGE, Law, Random
from scipy import stats

from hilum.evaluation import calibration, classification, intervals, survival
from hilum.evaluation.classification import Confusion
from hilum.evaluation.intervals import Resampling
from hilum.tasks.survival import answering, scoring
from hilum.tasks.survival.scoring import Outcomes
from hilum.values import Estimate

PATIENTS = (10, 20, 50, 100)
# Of a bootstrap; the program's default is twice as many.
DRAWS = 1000
IMAGES = 2
# Correlation of the two images of a patient on the scale that scores are sampled from.
ALIKE = 0.8


def separation(area: float) -> float:
    """How far apart two normal distributions of this AUROC lie."""
    return float(np.sqrt(2) * stats.norm.ppf(area))


SEPARATION = separation(0.90)

FOLDS = 5
# Until when times to an event are followed, and the upper ends of the uniform laws by which they are censored.
HORIZON, CENSORED = 1.0, {"a third": 3.0, "half": 1.5}
TRAINED = 2000  # patients of whom the censoring was learnt
# At which a PPV is stated.
PREVALENCE = 0.05

Estimated = Callable[[Random, int, int], Estimate]


def latent(random: Random, patients: int, images: int = IMAGES) -> np.ndarray:
    """(patients * images,) standard normal, alike within a patient."""
    person, image = random.normal(size=(patients, 1)), random.normal(size=(patients, images))
    return (np.sqrt(ALIKE) * person + np.sqrt(1 - ALIKE) * image).ravel()


def owners(patients: int, images: int = IMAGES) -> np.ndarray:
    return np.repeat(np.arange(patients), images)


def dice_like(random: Random, patients: int, images: int = IMAGES) -> np.ndarray:
    """Scores near 0.85 with a long tail towards bad ones."""
    return np.asarray(stats.beta.ppf(stats.norm.cdf(latent(random, patients, images)), 8.5, 1.5))


def mean_by_patient(random: Random, patients: int, draws: int) -> Estimate:
    return intervals.bootstrap(dice_like(random, patients), owners(patients), seed=0, draws=draws)


def mean_by_image(random: Random, patients: int, draws: int) -> Estimate:
    return intervals.bootstrap(dice_like(random, patients), np.arange(patients * IMAGES), seed=0, draws=draws)


def mean_not_widened(random: Random, patients: int, draws: int) -> Estimate:
    """The plain percentile interval, whose draws vary too little."""
    scores = dice_like(random, patients).reshape(patients, IMAGES).mean(axis=1)
    resampled = scores[random.integers(patients, size=(draws, patients))].mean(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975]).tolist()
    return Estimate(float(scores.mean()), low, high)


def median_exact(random: Random, patients: int, draws: int) -> Estimate:
    return intervals.median(dice_like(random, patients, 1), owners(patients, 1))


def right(random: Random, patients: int, share: float, images: int = IMAGES) -> np.ndarray:
    return latent(random, patients, images) < stats.norm.ppf(share)


def share_by_patient(random: Random, patients: int, draws: int, share: float) -> Estimate:
    return intervals.bootstrap(right(random, patients, share), owners(patients), seed=0, draws=draws)


def share_wilson(random: Random, patients: int, draws: int, share: float) -> Estimate:
    return intervals.wilson(int(right(random, patients, share, 1).sum()), patients)


def share_exact(random: Random, patients: int, draws: int, share: float) -> Estimate:
    return intervals.clopper_pearson(int(right(random, patients, share, 1).sum()), patients)


def diagnosed(random: Random, patients: int, area: float = 0.90) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truths; three patients in ten are ill."""
    ill = np.repeat(np.arange(patients) < round(0.3 * patients), IMAGES)
    return latent(random, patients) + separation(area) * ill, ill


def auroc_stratified(random: Random, patients: int, draws: int, area: float) -> Estimate:
    scores, ill = diagnosed(random, patients, area)
    given = {"strata": ill, "seed": 0, "draws": draws, "compares": True}
    return intervals.bootstrap_statistic(partial(classification.auroc, scores, ill), owners(patients), **given)


def out_of_fold(random: Random, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and truths, and who scored: five models, each of which calls everything higher or lower than others do."""
    scores, ill = diagnosed(random, patients)
    fold = np.arange(patients) % FOLDS
    return scores + random.normal(0, 1, FOLDS)[np.repeat(fold, IMAGES)], ill, fold


def auroc_over_folds(random: Random, patients: int, draws: int) -> Estimate:
    scores, ill, fold = out_of_fold(random, patients)
    within = Resampling(seed=0, models=dict(enumerate(fold.tolist())))
    given = {"strata": ill, "seed": within, "draws": draws, "compares": True}
    return intervals.bootstrap_statistic(partial(classification.auroc, scores, ill), owners(patients), **given)


def auroc_of_all_folds(random: Random, patients: int, draws: int) -> Estimate:
    """As if one model had scored them all."""
    scores, ill, _ = out_of_fold(random, patients)
    return intervals.bootstrap_statistic(
        partial(classification.auroc, scores, ill), owners(patients), strata=ill, seed=0, draws=draws
    )


def f1_stratified(random: Random, patients: int, draws: int) -> Estimate:
    scores, ill = diagnosed(random, patients)
    called = scores > SEPARATION / 2

    def f1(weights: np.ndarray) -> np.ndarray:
        return Confusion.from_calls(called, ill, weights=weights).f1

    return intervals.bootstrap_statistic(f1, owners(patients), strata=ill, seed=0, draws=draws)


def ppv_at_five_per_cent(random: Random, patients: int, draws: int) -> Estimate:
    """Of cases of which three in ten are ill, stated where one in twenty is."""
    scores, ill = diagnosed(random, patients)
    called = scores > SEPARATION / 2
    ppv, _ = classification.predictive_values(called, ill, owners(patients), prevalence=PREVALENCE, seed=0)
    return ppv


def ece_of_a_calibrated_model(random: Random, patients: int, draws: int) -> Estimate:
    chance = random.uniform(size=patients)
    happened = random.uniform(size=patients) < chance
    return intervals.bootstrap_statistic(
        partial(classification.ece, chance, happened), np.arange(patients), seed=0, draws=draws
    )


def ece_by_gaps(random: Random, patients: int, draws: int, kept: float = 1.0) -> Estimate:
    """kept: share of the distance of a stated probability from one half that is true"""
    chance = random.random(patients)
    happened = random.random(patients) < 0.5 + kept * (chance - 0.5)
    return calibration.calibration_error(chance, happened, np.arange(patients), seed=0, draws=2)


@cache
def true_ece(kept: float) -> float:
    """Of uniform probabilities in 15 equal bins: the mean distance, but for the middle bin, whose gaps cancel."""
    return (1 - kept) * (0.25 - 1 / 900)


def part_of_brier(random: Random, patients: int, draws: int, part: int, kept: float) -> Estimate:
    """kept: as above"""
    chance = random.random(patients)
    happened = random.random(patients) < 0.5 + kept * (chance - 0.5)
    return calibration.brier_estimates(chance, happened, np.arange(patients), seed=0)[part]


@cache
def true_part(part: int, kept: float) -> float:
    """Of uniform probabilities in 15 equal bins, whose middles have this variance."""
    middles = (1 - 1 / 15**2) / 12
    return ((1 - kept) ** 2 * middles, kept**2 * middles, 0.25)[part]


@cache
def true_f1() -> float:
    hit = stats.norm.cdf(SEPARATION / 2)
    return float(2 * 0.3 * hit / (2 * 0.3 * hit + 0.7 * (1 - hit) + 0.3 * (1 - hit)))


@cache
def true_ppv() -> float:
    hit = stats.norm.cdf(SEPARATION / 2)
    return float(PREVALENCE * hit / (PREVALENCE * hit + (1 - PREVALENCE) * (1 - hit)))


def followed(random: Random, patients: int, until: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log hazards, times and events: exponential with hazards whose logarithms are standard normal."""
    risk = random.normal(size=patients)
    event, left = random.exponential(np.exp(-risk)), random.uniform(0, until, patients)
    return risk, np.minimum(event, left), event <= left


def survival_figures(seeds: tuple[int, ...], patients: int, draws: int, until: float) -> Mapping[str, Estimate]:
    """Every figure of a study whose model states the true chances; seeds: of its patients"""
    trained = followed(np.random.default_rng(0), TRAINED, until)
    risk, times, happened = followed(np.random.default_rng(seeds), patients, until)
    curves = np.exp(-np.exp(risk)[:, None] * answering.comparison_times(HORIZON))
    outcomes = Outcomes(
        risk,
        times,
        happened,
        np.arange(patients).astype(str),
        np.exp(-np.exp(risk)[:, None] * HORIZON),
        np.exp(-np.exp(risk) * np.minimum(times, HORIZON)),
        np.full(patients, curves.mean()),  # their figure is not looked at
        [HORIZON],
        "",
        survival.censoring_curve(*trained[1:]),
        None,
    )
    rows = scoring.survival_summary_rows(outcomes, seed=Resampling(seed=0, draws=draws))
    return {row.metric: row.estimate for row in rows}


def of_survival(random: Random, patients: int, draws: int, metric: str, until: float) -> Estimate:
    seeds = random.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]  # the study's own
    return survival_figures(tuple(seeds), patients, draws, until)[metric]


@cache
def true_of_survival(metric: str, until: float) -> float:
    """By the law of two patients, on a grid of both log hazards: the share of pairs that count which are in order."""
    grid = np.linspace(-6, 6, 1201)
    first, second = grid[:, None], grid[None, :]
    density = stats.norm.pdf(first) * stats.norm.pdf(second)
    own, other = np.exp(first), np.exp(second)
    both = own + other
    match metric:
        case "uno_c":  # the first has the event before the second, by the horizon
            weight = own / both * -np.expm1(-both * HORIZON)
        case "harrell_c":  # and while both are followed
            weight = own * (1 / both - 2 / (until * both**2) - 2 * np.expm1(-both * until) / (until**2 * both**3))
        case "dynamic_auc":  # the first has it by the horizon, the second does not
            weight = -np.expm1(-own * HORIZON) * np.exp(-other * HORIZON)
        case _:  # of calibration
            return 1.0
    in_order = (first > second) + 0.5 * (first == second)
    return float((density * weight * in_order).sum() / (density * weight).sum())


STUDIES: list[tuple[str, str, float, Estimated]] = [
    ("mean Dice 0.85", "patient bootstrap", 0.85, mean_by_patient),
    ("mean Dice 0.85", "patient bootstrap, not widened", 0.85, mean_not_widened),
    ("mean Dice 0.85", "image bootstrap (wrong)", 0.85, mean_by_image),
    ("median Dice", "order statistics, one image each", float(stats.beta.median(8.5, 1.5)), median_exact),
    *[
        (f"accuracy {share}", name, share, partial(study, share=share))
        for share in (0.8, 0.95)
        for name, study in (
            ("patient bootstrap", share_by_patient),
            ("Wilson, one image each", share_wilson),
            ("Clopper-Pearson, one image each", share_exact),
        )
    ],
    *[
        (f"AUROC {area}", "patient bootstrap by class, logit", area, partial(auroc_stratified, area=area))
        for area in (0.9, 0.97)
    ],
    ("AUROC 0.90 out of 5 folds", "mean over folds, patient bootstrap within fold and class", 0.90, auroc_over_folds),
    ("AUROC 0.90 out of 5 folds", "all scores in one order (wrong)", 0.90, auroc_of_all_folds),
    (f"F1 {true_f1():.2f}", "patient bootstrap by class", true_f1(), f1_stratified),
    (f"PPV {true_ppv():.2f}, at 5 %", "patient bootstrap by class", true_ppv(), ppv_at_five_per_cent),
    ("ECE 0", "patient bootstrap (why it is not used)", 0.0, ece_of_a_calibrated_model),
    ("ECE 0", "normal law of the gaps by patient", 0.0, ece_by_gaps),
    *[
        (
            f"ECE {true_ece(kept):.2f}",
            "normal law of the gaps by patient",
            true_ece(kept),
            partial(ece_by_gaps, kept=kept),
        )
        for kept in (0.8, 0.6)
    ],
    *[
        (
            f"Brier's {name} {true_part(part, kept):.3f}",
            "normal law of the parts by patient",
            true_part(part, kept),
            partial(part_of_brier, part=part, kept=kept),
        )
        for kept in (1.0, 0.6)
        for part, name in enumerate(("reliability", "resolution", "uncertainty"))
    ],
    *[
        (
            f"survival, {name} {true_of_survival(metric, until):.3f}",
            f"patient bootstrap, {share} censored",
            true_of_survival(metric, until),
            partial(of_survival, metric=metric, until=until),
        )
        for share, until in CENSORED.items()
        for metric, name in {
            "uno_c": "Uno's c",
            "harrell_c": "Harrell's c",
            "dynamic_auc": "AUC by a horizon",
            "expected_over_observed": "expected over observed",
            "calibration_slope": "slope",
        }.items()
    ],
]


# What no report takes; here for what it would state.
NOT_TAKEN = (
    "image bootstrap (wrong)",
    "patient bootstrap, not widened",
    "patient bootstrap (why it is not used)",
    "all scores in one order (wrong)",
)


def holds_truth(study: Estimated, truth: float, patients: int, random: Random) -> float:
    """1 where the interval holds the truth; NaN without an interval."""
    made = study(random, patients, DRAWS)
    if made.low is None or made.high is None:
        return float("nan")
    return float(made.low <= truth <= made.high)


LAWS = [
    Law(
        "a 95 % interval holds the truth",
        f"{figure}, {method}, {patients} patients",
        partial(holds_truth, study, truth, patients),
        -np.inf if method in NOT_TAKEN else COVERAGE[0],
        draws=400,
    )
    for figure, method, truth, study in STUDIES
    for patients in PATIENTS
]
