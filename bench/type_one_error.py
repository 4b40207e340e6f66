"""False alarms and power of the tests by which models are compared, on simulated patients.

    OMP_NUM_THREADS=1 python bench/type_one_error.py --resume --record

Where two models are equally good, a test at 5 % should find a difference in 5 % of 5,000 studies. Cases have a truth
and two scores, alike to a correlation of a half; three in ten are positive. Of clusters each patient has two images,
alike to .6, of truths of their own. Readers are simulated by Roe and Metz' model (Acad Radiol 1997,
doi:10.1016/S1076-6332(97)80210-3): AUROC .855, variances of their structures HL and LH.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from environment import PLACE
from recorded import code, record
from scipy import special, stats

from isocenter.evaluation import (
    Resampling,
    Test,
    auroc,
    bootstrap,
    bootstrap_statistic,
    delong,
    delong_unpaired,
    hosmer_lemeshow,
    mcnemar,
    mrmc,
    non_inferiority,
    paired_bootstrap,
    permutation,
    slope_and_intercept,
    wilcoxon,
)

SIZES, POWER_SIZES = (50, 100, 400), (50, 100, 400)
POSITIVE, ALIKE, IMAGES_ALIKE = 0.3, 0.5, 0.6
# By which the second is worse where it is tested that it is no worse.
MARGIN = 0.05
# Of a test that draws; the program's defaults are five times as many, which makes p smoother and no smaller.
DRAWS = 1999
KEPT = Resampling(keeps_draws=True)
# Roe and Metz: variances of reader, modality by reader, case, modality by case, reader by case, and of the rest.
STRUCTURES = {"HL": (0.0055, 0.0055, 0.3, 0.3, 0.2, 0.2), "LH": (0.03, 0.03, 0.1, 0.1, 0.2, 0.6)}

Random = np.random.Generator
# (random, patients, how much better the second is) to p.
Study = Callable[[Random, int, float], float]


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
    return delong(first, second, truth, owner).p


def by_delong_unpaired(random: Random, patients: int, effect: float) -> float:
    (first, _), truth, _ = diagnosed(random, patients, 1, 0.8, 0.0)
    (_, second), other, _ = diagnosed(random, patients, 1, 0.8, effect)
    return delong_unpaired(first, second, truth, other).p


def by_exchange(random: Random, patients: int, effect: float, images: int = 1, area: float = 0.8) -> float:
    (first, second), truth, owner = diagnosed(random, patients, images, area, effect)
    return permutation(first, second, truth, owner, seed=int(random.integers(2**31)), draws=DRAWS).p


def unlike(test: Callable[..., Test], random: Random, patients: int, effect: float) -> float:
    """Equal AUROCs of scores that do not follow one law: the second's positives spread twice as far."""
    (first, second), truth, _ = diagnosed(random, patients, 1, 0.8, 0.0)
    own = second[truth] - separation(0.8)
    second[truth] = 2 * own + separation(0.8 + effect) * np.sqrt(5 / 2)
    return test(first, second, truth).p


def by_bootstrap(random: Random, patients: int, effect: float, images: int = 1) -> float:
    scores, truth, owner = diagnosed(random, patients, images, 0.8, effect)
    given = {"strata": truth, "seed": KEPT, "draws": 1000, "compares": True}
    return paired_bootstrap(*(bootstrap_statistic(partial(auroc, one, truth), owner, **given) for one in scores)).p


def not_worse(random: Random, patients: int, effect: float, by: Callable[..., Test] = delong) -> float:
    """Twice the one-sided p, so that 2.5 % of them are right; the second is worse by just the margin of .05."""
    (first, second), truth, _ = diagnosed(random, patients, 1, 0.85, effect - MARGIN)
    return 2 * non_inferiority(replace(by(first, second, truth), too_few=""), MARGIN).p


def right_not_worse(random: Random, patients: int, effect: float) -> float:
    """As `not_worse`, of calls; without an interval nothing is shown."""
    return 2 * non_inferiority(mcnemar(*right(random, patients, 1, effect - MARGIN)), MARGIN).p


def means_not_worse(random: Random, patients: int, effect: float) -> float:
    """As `not_worse`, of means."""
    first, second, owner = dice_like(random, patients, 1, effect - MARGIN)
    return 2 * non_inferiority(permutation(first, second, None, owner, draws=DRAWS), MARGIN).p


def right(random: Random, patients: int, images: int, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    level = stats.norm.ppf([0.8, 0.8 + effect])
    first, second = latent(random, patients, images) < level[:, None]
    return first, second, np.repeat(np.arange(patients), images)


def by_mcnemar(random: Random, patients: int, effect: float, images: int = 1) -> float:
    return mcnemar(*right(random, patients, images, effect)).p


def dice_like(random: Random, patients: int, images: int, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores near .85 with a long tail towards bad ones."""
    first, second = stats.beta.ppf(stats.norm.cdf(latent(random, patients, images)), 8.5, 1.5)
    return first, second + effect, np.repeat(np.arange(patients), images)


def by_ranks(random: Random, patients: int, effect: float, images: int = 1) -> float:
    return wilcoxon(*dice_like(random, patients, images, effect)).p


def of_means(random: Random, patients: int, effect: float, images: int = 1) -> float:
    first, second, owner = dice_like(random, patients, images, effect)
    return permutation(first, second, None, owner, seed=int(random.integers(2**31)), draws=DRAWS).p


def bootstrapped_means(random: Random, patients: int, effect: float, images: int = 1) -> float:
    first, second, owner = dice_like(random, patients, images, effect)
    return paired_bootstrap(*(bootstrap(one, owner, seed=KEPT, draws=1000) for one in (first, second))).p


def read_by(readers: int, structure: str, kind: str, random: Random, patients: int, effect: float) -> float:
    return mrmc(*readings(readers, structure, kind, random, patients, effect), readers=kind).p


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
    return hosmer_lemeshow(special.expit((1 + effect) * odds), truth).p


def slopes(random: Random, patients: int, effect: float) -> float:
    """By the interval of the calibration slope, as a normal deviate."""
    odds = random.normal(-0.5, 1.2, patients)
    truth = random.random(patients) < special.expit(odds)
    slope = slope_and_intercept((1 + effect) * odds, truth, np.arange(patients))[0]
    if slope.low is None or slope.high is None:
        return 1.0
    return 2 * float(stats.norm.sf(abs(slope.value - 1) / ((slope.high - slope.low) / 3.92)))


STUDIES: dict[str, Study] = {
    "DeLong, AUROC .80": by_delong,
    "DeLong, AUROC .95": partial(by_delong, area=0.95),
    "DeLong, clusters": partial(by_delong, images=2),
    "DeLong, unpaired": by_delong_unpaired,
    "permutation, AUROC .80": by_exchange,
    "permutation, AUROC .95": partial(by_exchange, area=0.95),
    "permutation, AUROC, clusters": partial(by_exchange, images=2),
    "bootstrap, AUROC .80": by_bootstrap,
    "bootstrap, AUROC, clusters": partial(by_bootstrap, images=2),
    "non-inferiority (DeLong), at the margin": not_worse,
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
    "DeLong, unlike spreads": partial(unlike, delong),
    "permutation, unlike spreads": partial(unlike, partial(permutation, draws=DRAWS)),
    # The place of a study is the seed of its draws: further ones stand at the end.
    "non-inferiority (permutation), at the margin": partial(not_worse, by=partial(permutation, draws=DRAWS)),
    "non-inferiority (permutation of means), at the margin": means_not_worse,
    "non-inferiority (McNemar), at the margin": right_not_worse,
}
# {study: how much better the second is, or how far off the odds are}
EFFECTS: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("DeLong, AUROC .80", "permutation, AUROC .80", "bootstrap, AUROC .80"), (0.03, 0.06, 0.1)),
    "DeLong, clusters": (0.03, 0.06, 0.1),
    "non-inferiority (DeLong), at the margin": (0.05, 0.1),
    "non-inferiority (permutation), at the margin": (0.05, 0.1),
    "McNemar": (0.03, 0.06, 0.1),
    **dict.fromkeys(("Wilcoxon", "permutation of means", "bootstrap of means"), (0.01, 0.02, 0.04)),
    "readers, random: 5, HL": (0.03, 0.06, 0.1),
    "Hosmer-Lemeshow": (0.5, 1.0),
    "calibration slope": (0.5, 1.0),
}


def cell(study: Study, place: int, patients: int, effect: float, draws: int) -> float:
    """The share of studies with a p below 5 %; without any p nothing is found."""
    found = [study(np.random.default_rng((place, patients, n)), patients, effect) < 0.05 for n in range(draws)]
    return float(np.mean(found))


def _work() -> list[tuple[int, str, int, float]]:
    """(place of the study, its seed; its name, patients, effect): what takes longest last, false alarms first."""
    work = [
        (place, name, patients, effect)
        for place, name in enumerate(STUDIES)
        for effect in (0.0, *EFFECTS.get(name, ()))
        for patients in (SIZES if effect == 0 else POWER_SIZES)
    ]
    return sorted(work, key=lambda one: ("bootstrap" in one[1], "bootstrap, AUROC" in one[1], one[3] > 0))


def cells(draws: int, resume: bool, known: bool) -> dict[str, dict[str, float]]:
    """{study: {"patients effect": share}}; each is kept as soon as it is known."""
    kept = PLACE / "type_one_error.json"
    done: dict[str, dict[str, float]] = {}
    if (resume or known) and kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        done = before["cells"] if before["draws"] == draws else {}
    if known:
        return {name: done.get(name, {}) for name in STUDIES}
    PLACE.mkdir(exist_ok=True)
    for place, name, patients, effect in _work():
        key = f"{patients} {effect:g}"
        if key in done.setdefault(name, {}):
            continue
        started = time.monotonic()
        own = draws if effect == 0 else max(1, draws // 5)
        done[name][key] = cell(STUDIES[name], place, patients, effect, own)
        kept.write_text(json.dumps({"draws": draws, "code": code(), "cells": done}), encoding="utf-8")
        print(f"{name}, {key}: {100 * done[name][key]:.1f} % ({time.monotonic() - started:.0f} s)", flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--resume", action="store_true", help="leave out what was finished with as many draws")
    parser.add_argument("--known", action="store_true", help="measure nothing more; tables of what is known")
    parser.add_argument("--record", action="store_true", help="write the tables to docs/benchmarks")
    given = parser.parse_args()
    found = cells(given.draws, given.resume, given.known)
    lines = [f"| test | {' | '.join(f'{n} patients' for n in SIZES)} |", "|---" * (len(SIZES) + 1) + "|"]
    for name in STUDIES:
        own = found[name]
        shares = " | ".join(f"{100 * own[f'{n} 0']:.1f} %" if f"{n} 0" in own else "not measured" for n in SIZES)
        lines.append(f"| {name} | {shares} |")
    power = [f"| test | effect | {' | '.join(f'{n} patients' for n in POWER_SIZES)} |", "|---" * 5 + "|"]
    for name, effects in EFFECTS.items():
        for effect in effects:
            own = [found[name].get(f"{n} {effect:g}") for n in POWER_SIZES]
            shares = " | ".join("not measured" if one is None else f"{100 * one:.0f} %" for one in own)
            power.append(f"| {name} | {effect:g} | {shares} |")
    error = 100 * np.sqrt(0.05 * 0.95 / given.draws)
    about = (
        f"Share of {given.draws:,} studies without any difference in which p is below 5 %; its standard error is "
        f"{error:.1f} %. Non-inferiority is tested on one side at 2.5 %, which is what "
        f"should stand there, where the second is worse by just the margin of .05."
    )
    text = "\n".join([about, "", *lines, "", "Power, of a fifth as many studies:", "", *power])
    print(text)
    if given.record:
        record("type_one_error", "False alarms and power", text, {"draws": given.draws, "cells": found})


if __name__ == "__main__":
    main()
