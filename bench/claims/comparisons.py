"""False alarms and power of the tests by which models are compared, on simulated patients.

Cases have a truth and two scores, alike to a correlation of a half; three in ten are positive. Of clusters each patient
has two images, alike to .6, of truths of their own. Readers are simulated by Roe and Metz' model (Acad Radiol 1997,
doi:10.1016/S1076-6332(97)80210-3): AUROC .855, variances of their structures HL and LH.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from claims.law import ALARMS, Law, Random
from scipy import special, stats

from hilum.evaluation import calibration, classification, intervals
from hilum.evaluation.intervals import Resampling
from hilum.evaluation.significance import auroc_tests, paired_tests, probability_tests
from hilum.evaluation.significance.testing import DifferenceTest

SIZES = (50, 100, 400)
POSITIVE, ALIKE, IMAGES_ALIKE = 0.3, 0.5, 0.6
# Of a test that samples; the program's defaults are five times as many, which makes p smoother and no smaller.
DRAWS = 1999
KEPT = Resampling(keeps_draws=True)
# Roe and Metz: variances of reader, modality by reader, case, modality by case, reader by case, and of the rest.
STRUCTURES = {"HL": (0.0055, 0.0055, 0.3, 0.3, 0.2, 0.2), "LH": (0.03, 0.03, 0.1, 0.1, 0.2, 0.6)}

# (random, patients, how much better the second is) to p.
Compared = Callable[[Random, int, float], float]


def latent(random: Random, patients: int, images: int, models: int = 2) -> np.ndarray:
    """(models, patients * images) standard normal: alike between models, and within a patient."""
    of_patient = random.normal(size=(models + 1, patients, 1))
    own = np.sqrt(IMAGES_ALIKE) * of_patient + np.sqrt(1 - IMAGES_ALIKE) * random.normal(
        size=(models + 1, patients, images)
    )
    flat = (own if images > 1 else random.normal(size=own.shape)).reshape(models + 1, -1)
    return np.sqrt(ALIKE) * flat[0] + np.sqrt(1 - ALIKE) * flat[1:]


def separation(area: float) -> float:
    return float(np.sqrt(2) * stats.norm.ppf(area))


def diagnosed(
    random: Random, patients: int, images: int, area: float, effect: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(2, images) scores whose AUROCs are these, truths, and whose they are."""
    truth = np.zeros(patients * images, dtype=bool)
    truth[: round(POSITIVE * len(truth))] = True
    random.shuffle(truth)
    scores = latent(random, patients, images)
    scores += np.array([separation(area), separation(area + effect)])[:, None] * truth
    return scores, truth, np.repeat(np.arange(patients), images)


def by_delong(random: Random, patients: int, effect: float, images: int = 1, area: float = 0.8) -> float:
    (first, second), truth, owner = diagnosed(random, patients, images, area, effect)
    return auroc_tests.delong(first, second, truth, owner).p


def by_delong_unpaired(random: Random, patients: int, effect: float) -> float:
    (first, _), truth, _ = diagnosed(random, patients, 1, 0.8, 0.0)
    (_, second), other, _ = diagnosed(random, patients, 1, 0.8, effect)
    return auroc_tests.delong_unpaired(first, second, truth, other).p


def by_exchange(random: Random, patients: int, effect: float, images: int = 1, area: float = 0.8) -> float:
    (first, second), truth, owner = diagnosed(random, patients, images, area, effect)
    return paired_tests.permutation_test(first, second, truth, owner, seed=int(random.integers(2**31)), draws=DRAWS).p


def unlike(test: Callable[..., DifferenceTest], random: Random, patients: int, effect: float) -> float:
    """Equal AUROCs of scores that do not follow one law: the second's positives spread twice as far."""
    (first, second), truth, _ = diagnosed(random, patients, 1, 0.8, 0.0)
    own = second[truth] - separation(0.8)
    second[truth] = 2 * own + separation(0.8 + effect) * np.sqrt(5 / 2)
    return test(first, second, truth).p


def by_bootstrap(random: Random, patients: int, effect: float, images: int = 1) -> float:
    scores, truth, owner = diagnosed(random, patients, images, 0.8, effect)
    given = {"strata": truth, "seed": KEPT, "draws": 1000, "compares": True}
    return paired_tests.paired_bootstrap(
        *(intervals.bootstrap_statistic(partial(classification.auroc, one, truth), owner, **given) for one in scores)
    ).p


def right(random: Random, patients: int, images: int, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    level = stats.norm.ppf([0.8, 0.8 + effect])
    first, second = latent(random, patients, images) < level[:, None]
    return first, second, np.repeat(np.arange(patients), images)


def by_mcnemar(random: Random, patients: int, effect: float, images: int = 1) -> float:
    return paired_tests.mcnemar_test(*right(random, patients, images, effect)).p


def dice_like(random: Random, patients: int, images: int, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores near .85 with a long tail towards bad ones."""
    first, second = stats.beta.ppf(stats.norm.cdf(latent(random, patients, images)), 8.5, 1.5)
    return first, second + effect, np.repeat(np.arange(patients), images)


def by_ranks(random: Random, patients: int, effect: float, images: int = 1) -> float:
    return paired_tests.wilcoxon_test(*dice_like(random, patients, images, effect)).p


def of_means(random: Random, patients: int, effect: float, images: int = 1) -> float:
    first, second, owner = dice_like(random, patients, images, effect)
    return paired_tests.permutation_test(first, second, None, owner, seed=int(random.integers(2**31)), draws=DRAWS).p


def bootstrapped_means(random: Random, patients: int, effect: float, images: int = 1) -> float:
    first, second, owner = dice_like(random, patients, images, effect)
    return paired_tests.paired_bootstrap(
        *(intervals.bootstrap(one, owner, seed=KEPT, draws=1000) for one in (first, second))
    ).p


def read_by(readers: int, structure: str, kind: str, random: Random, patients: int, effect: float) -> float:
    return auroc_tests.mrmc(*readings(readers, structure, kind, random, patients, effect), readers=kind).p


def readings(
    readers: int, structure: str, kind: str, random: Random, patients: int, effect: float
) -> tuple[np.ndarray, np.ndarray]:
    """Roe and Metz: (modalities, readers, cases) scores, and truths; half of the cases are positive."""
    of_reader, of_both, of_case, by_modality, by_reader, rest = (np.sqrt(one) for one in STRUCTURES[structure])
    # Of these readers alone no two modalities are alike unless each reader reads both alike.
    of_both = 0.0 if kind == "fixed" else of_both
    truth = np.arange(patients) < patients // 2
    scores = np.zeros((2, readers, patients))
    for positive in (True, False):
        own = truth == positive
        n = int(own.sum())
        scores[..., own] = (
            of_reader * random.normal(size=(1, readers, 1))
            + of_both * random.normal(size=(2, readers, 1))
            + of_case * random.normal(size=(1, 1, n))
            + by_modality * random.normal(size=(2, 1, n))
            + by_reader * random.normal(size=(1, readers, n))
            + rest * random.normal(size=(2, readers, n))
        )
    spread = np.sqrt(1 + sum(STRUCTURES[structure][:2]))
    shift = np.array([separation(0.855), separation(0.855 + effect)]) * spread
    return scores + shift[:, None, None] * truth, truth


def fits(random: Random, patients: int, effect: float) -> float:
    """Probabilities that are right, or whose odds are to a power."""
    odds = random.normal(-0.5, 1.2, patients)
    truth = random.random(patients) < special.expit(odds)
    return probability_tests.hosmer_lemeshow(special.expit((1 + effect) * odds), truth).p


def slopes(random: Random, patients: int, effect: float) -> float:
    """By the interval of the calibration slope, as a normal deviate."""
    odds = random.normal(-0.5, 1.2, patients)
    truth = random.random(patients) < special.expit(odds)
    slope = calibration.slope_and_intercept((1 + effect) * odds, truth, np.arange(patients))[0]
    if slope.low is None or slope.high is None:
        return 1.0
    return 2 * float(stats.norm.sf(abs(slope.value - 1) / ((slope.high - slope.low) / 3.92)))


STUDIES: dict[str, Compared] = {
    "DeLong, AUROC .80": by_delong,
    "DeLong, AUROC .95": partial(by_delong, area=0.95),
    "DeLong, clusters": partial(by_delong, images=2),
    "DeLong, unpaired": by_delong_unpaired,
    "permutation, AUROC .80": by_exchange,
    "permutation, AUROC .95": partial(by_exchange, area=0.95),
    "permutation, AUROC, clusters": partial(by_exchange, images=2),
    "bootstrap, AUROC .80": by_bootstrap,
    "bootstrap, AUROC, clusters": partial(by_bootstrap, images=2),
    "McNemar": by_mcnemar,
    "McNemar, clusters": partial(by_mcnemar, images=2),
    "Wilcoxon": by_ranks,
    "Wilcoxon, clusters": partial(by_ranks, images=2),
    "permutation of means": of_means,
    "permutation of means, clusters": partial(of_means, images=2),
    "bootstrap of means": bootstrapped_means,
    "bootstrap of means, clusters": partial(bootstrapped_means, images=2),
    **{
        f"readers, {kind}: {number}, {structure}": partial(read_by, number, structure, kind)
        for kind, structures in (("random", ("HL", "LH")), ("fixed", ("HL",)))
        for structure in structures
        for number in (3, 5, 10)
    },
    "Hosmer-Lemeshow": fits,
    "calibration slope": slopes,
    "DeLong, unlike spreads": partial(unlike, auroc_tests.delong),
    "permutation, unlike spreads": partial(unlike, partial(paired_tests.permutation_test, draws=DRAWS)),
}
# {study: how much better the second is, or how far off the odds are}
EFFECTS: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("DeLong, AUROC .80", "permutation, AUROC .80", "bootstrap, AUROC .80"), (0.03, 0.06, 0.1)),
    "DeLong, clusters": (0.03, 0.06, 0.1),
    "McNemar": (0.03, 0.06, 0.1),
    **dict.fromkeys(("Wilcoxon", "permutation of means", "bootstrap of means"), (0.01, 0.02, 0.04)),
    "readers, random: 5, HL": (0.03, 0.06, 0.1),
    "Hosmer-Lemeshow": (0.5, 1.0),
    "calibration slope": (0.5, 1.0),
}


# Of these fewer than 3 % alarm where patients who tell the models apart are few: exact tests, a bootstrap of positives.
CAUTIOUS = ("DeLong, AUROC .95", "McNemar", "McNemar, clusters", "bootstrap, AUROC .80", "bootstrap, AUROC, clusters")
# Three readers are too few for the approximation to be closer.
FEW_READERS = (0.02, 0.075)


def alarm(study: Compared, patients: int, effect: float, random: Random) -> float:
    """1 where p is below 5 %; without any p nothing is found."""
    return float(study(random, patients, effect) < 0.05)


def limits(name: str) -> tuple[float, float]:
    if name.startswith("readers"):
        return FEW_READERS
    return (-np.inf, ALARMS[1]) if name in CAUTIOUS else ALARMS


LAWS = [
    Law(
        "p below 5 % for two equal models",
        f"{name}, {patients} patients",
        partial(alarm, study, patients, 0.0),
        *limits(name),
    )
    for name, study in STUDIES.items()
    for patients in SIZES
] + [
    Law(
        "power: p below 5 % for two unlike models",
        f"{name}, better by {effect:g}, {patients} patients",
        partial(alarm, STUDIES[name], patients, effect),
        draws=200,
    )
    for name, effects in EFFECTS.items()
    for effect in effects
    for patients in SIZES
]
