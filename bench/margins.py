"""How often intervals show that a model is not inferior which is worse by just the margin, on simulated patients.

    OMP_NUM_THREADS=1 python bench/margins.py [--draws 2000] [--only CASES...] [--record]

2.5 % is asked for. Cases are those of bench/type_one_error.py. Dice is moved by the margin, or has a longer tail
towards bad cases whose mean is lower by the margin. Intervals are judged as they are, also where the program gives no
verdict because the patients are too few. With --only, the other cases' shares are those that were recorded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from recorded import known, record
from scipy import stats
from type_one_error import KEPT, Random, diagnosed, dice_like, latent, readings

from isocenter.evaluation import (
    Test,
    auroc,
    bootstrap,
    bootstrap_statistic,
    delong,
    delong_unpaired,
    mcnemar,
    mrmc,
    non_inferiority,
    paired_bootstrap,
    permutation,
)

SIZES = (7, 10, 20, 50, 100)
DRAWS = 999
Made = Iterator[tuple[str, Test]]


def moved(random: Random, patients: int, images: int, margin: float) -> Made:
    yield from of_means(*dice_like(random, patients, images, -margin))


def tailed(random: Random, patients: int, images: int, margin: float) -> Made:
    """Beta laws with means .85 and less by the margin, whose tail is longer."""
    shares = stats.norm.cdf(latent(random, patients, images))
    first = stats.beta.ppf(shares[0], 8.5, 1.5)
    second = stats.beta.ppf(shares[1], 5 * (0.85 - margin), 5 * (0.15 + margin))
    yield from of_means(first, second, np.repeat(np.arange(patients), images))


def of_means(first: np.ndarray, second: np.ndarray, owner: np.ndarray) -> Made:
    yield "exchanges", permutation(first, second, None, owner, draws=DRAWS)
    yield "bootstrap", paired_bootstrap(*(bootstrap(one, owner, seed=KEPT, draws=500) for one in (first, second)))
    apart = np.bincount(owner, second - first) / np.bincount(owner)
    ends = stats.ttest_1samp(apart, 0).confidence_interval()
    yield "Student's t", Test(float(apart.mean()), float(ends.low), float(ends.high), 0.0, 1.0, "t")


def areas(random: Random, patients: int, images: int, margin: float, area: float = 0.85) -> Made:
    scores, truth, owner = diagnosed(random, patients, images, area, -margin)
    given = {"strata": truth, "seed": KEPT, "draws": 500, "compares": True}
    yield "logit", permutation(*scores, truth, owner, draws=1)
    yield "DeLong", delong(*scores, truth, owner)
    yield (
        "bootstrap",
        paired_bootstrap(*(bootstrap_statistic(partial(auroc, one, truth), owner, **given) for one in scores)),
    )


def calls(random: Random, patients: int, images: int, margin: float, share: float = 0.8) -> Made:
    """Right calls: latent numbers below the share's quantile."""
    first, second = latent(random, patients, images) < stats.norm.ppf([share, share - margin])[:, None]
    owner = np.repeat(np.arange(patients), images)
    yield "score", mcnemar(first, second, owner)
    yield "exchanges", permutation(1.0 * first, 1.0 * second, None, owner, draws=DRAWS)
    yield "bootstrap", paired_bootstrap(*(bootstrap(one, owner, seed=KEPT, draws=500) for one in (first, second)))


def apart(random: Random, patients: int, images: int, margin: float) -> Made:
    """Two models on other patients each."""
    (first, _), truth, _ = diagnosed(random, patients, images, 0.85, 0.0)
    (_, second), other, _ = diagnosed(random, patients, images, 0.85, -margin)
    yield "DeLong", delong_unpaired(first, second, truth, other)


def read_in_both(random: Random, patients: int, images: int, margin: float, structure: str, kind: str) -> Made:
    """Five readers by Roe and Metz' model, whose area is less by the margin in the second modality."""
    yield "Hillis", mrmc(*readings(5, structure, kind, random, patients, -margin), readers=kind)


# {cases: (study, images a patient)}
STUDIES: dict[str, tuple[Callable[..., Made], int]] = {
    "Dice, moved": (moved, 1),
    "Dice, longer tail": (tailed, 1),
    "Dice, longer tail, clusters": (tailed, 2),
    "AUROC .85": (areas, 1),
    "AUROC .95": (partial(areas, area=0.95), 1),
    "AUROC .85, clusters": (areas, 2),
    "right calls .80": (calls, 1),
    "right calls .95": (partial(calls, share=0.95), 1),
    "right calls .80, clusters": (calls, 2),
    "AUROC .85, other patients each": (apart, 1),
    "five random readers, HL": (partial(read_in_both, structure="HL", kind="random"), 1),
    "five random readers, LH": (partial(read_in_both, structure="LH", kind="random"), 1),
    "five fixed readers, HL": (partial(read_in_both, structure="HL", kind="fixed"), 1),
}
MARGIN = 0.05


def shares_shown(study: Callable[..., Made], place: int, patients: int, images: int, draws: int) -> dict[str, float]:
    """{interval: the share of studies in which it lies within the margin}; without an interval nothing is shown."""
    shown: dict[str, int] = {}
    for n in range(draws):
        # Just above the margin, so that rounding of shares decides nothing.
        for name, test in study(np.random.default_rng((place, patients, n)), patients, images, MARGIN):
            p = non_inferiority(replace(test, too_few=""), MARGIN - 1e-9).p
            shown[name] = shown.get(name, 0) + int(p < 0.025)
    return {name: count / draws for name, count in shown.items()}


def of_sizes(recorded: Mapping[str, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    """{interval: {patients: share}} as JSON keeps them."""
    return {interval: {int(n): share for n, share in each.items()} for interval, each in recorded.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=list(STUDIES), metavar="CASES", help=", ".join(STUDIES))
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")
    given = parser.parse_args()
    cells: dict[str, dict[str, dict[int, float]]] = {}
    before = known("margins").get("cells", {}) if given.only else {}
    for place, (name, (study, images)) in enumerate(STUDIES.items()):
        if given.only and name not in given.only:
            cells |= {name: of_sizes(before[name])} if name in before else {}
            continue
        started = time.monotonic()
        for patients in SIZES:
            for interval, share in shares_shown(study, place, patients, images, given.draws).items():
                cells.setdefault(name, {}).setdefault(interval, {})[patients] = share
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    lines = [f"| cases | interval | {' | '.join(f'{n} patients' for n in SIZES)} |", "|---" * (len(SIZES) + 2) + "|"]
    for name, own in cells.items():
        for interval, each in own.items():
            lines.append(f"| {name} | {interval} | {' | '.join(f'{100 * each[n]:.1f} %' for n in SIZES)} |")
    error = 100 * np.sqrt(0.025 * 0.975 / given.draws)
    about = (
        f"Share of {given.draws:,} studies in which a model that is worse by just the margin of {MARGIN} is shown to "
        f"be none the worse; 2.5 % is asked for, its standard error is {error:.1f} %. The first interval of each is "
        "the program's; of means it gives a verdict from 50 patients on."
        + f" The rows other than of {', '.join(given.only or ())} were recorded before."
        * bool(given.only)
    )
    text = "\n".join([about, "", *lines])
    print(text)
    if given.record:
        record("margins", "Non-inferiority at the margin", text, {"draws": given.draws, "cells": cells})


if __name__ == "__main__":
    main()
