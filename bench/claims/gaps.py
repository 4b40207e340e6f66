"""Gaps among groups of people, and groups in which a model fails more: false alarms without a difference, and power.

Groups of equal means are of unlike spread, size or number of images; audits of weak groups have covariates, facts of
the image and clusters of features that say nothing about errors, and of power a fifth of patients with more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from claims.law import ALARMS, Law, Random
from scipy import stats

from hilum.evaluation import Table, classification, intervals
from hilum.evaluation.fairness import group_gaps
from hilum.evaluation.fairness.group_gaps import Gap
from hilum.evaluation.intervals import Resampling
from hilum.evaluation.significance import weakness
from hilum.lazy import pandas as pd
from hilum.values import Estimate

ALPHA = 0.05
KEPT = Resampling(draws=2, keeps_recipe=True)
# Patients and spread of two groups of equal means.
UNLIKE = {
    "20 of SD .15 beside 200 of SD .05": ((20, 0.15), (200, 0.05)),
    "40 of SD .12 beside 200 of SD .06": ((40, 0.12), (200, 0.06)),
    "20 of SD .05 beside 200 of SD .15": ((20, 0.05), (200, 0.15)),
}
# AUROC in every group where nothing depends on it.
AREA = 0.85
# A Gap of one simulated study, and what is asked of it.
Simulated = Callable[[Random], Gap]


def seed_of(random: Random) -> int:
    return int(random.integers(2**31))


def means(random: Random, groups: Sequence[tuple[int, float]], images: int = 1) -> Gap:
    """Groups of (patients, spread) whose means are .8; a patient's images are alike to a half."""
    spread = np.repeat([own for _, own in groups], [count for count, _ in groups])
    own = random.normal(size=(len(spread), 1))
    if images > 1:
        own = np.sqrt(0.5) * own + np.sqrt(0.5) * random.normal(size=(len(spread), images))
    patients = np.repeat([f"p{n}" for n in range(len(spread))], images)
    scores = 0.8 + (spread[:, None] * own).ravel()
    return _gap(random, intervals.bootstrap(scores, patients, seed=KEPT, unit="mm"), [count for count, _ in groups])


def areas(random: Random, groups: Sequence[tuple[int, int, float]], area: float = AREA) -> Gap:
    """Groups of (ill, others, SD of the ill by that of the others) of the same AUROC."""
    positive, scores = list[np.ndarray](), list[np.ndarray]()
    for ill, others, spread in groups:
        apart = stats.norm.ppf(area) * np.hypot(1, spread)
        positive.append(np.arange(ill + others) < ill)
        scores.append(np.r_[random.normal(apart, spread, ill), random.normal(size=others)])
    truth, patients = np.concatenate(positive), np.array([f"p{n}" for n in range(sum(map(len, positive)))])
    statistic = partial(classification.auroc, np.concatenate(scores), truth)
    made = intervals.bootstrap_statistic(statistic, patients, strata=truth, seed=KEPT, compares=True)
    return _gap(random, made, [len(own) for own in positive])


def _gap(random: Random, made: Estimate, sizes: Sequence[int]) -> Gap:
    recipe = made.recipe
    assert recipe is not None
    group = np.repeat(np.arange(len(sizes)).astype(str), sizes)
    groups = {one: group[int(one[1:])] for one in recipe.people.tolist()}
    return group_gaps.gap_of_recipe(Gap("group", "figure", "all", 0.0), recipe, groups, worse=-1, seed=seed_of(random))


def calls(random: Random, groups: Sequence[tuple[int, int, float]], rate: float, metric: str = "") -> Gap:
    """Groups of (patients, images of each, how alike these are) who are all ill: so often that is said."""
    rows = list[Table]()
    for number, (patients, images, alike) in enumerate(groups):
        own = np.sqrt(alike) * random.normal(size=(patients, 1))
        own = own + np.sqrt(1 - alike) * random.normal(size=(patients, images))
        said = np.where(own.ravel() < stats.norm.ppf(rate), "ill", "fine")
        people = np.repeat([f"{number} {n}" for n in range(patients)], images)
        rows.append(pd.DataFrame({"patient": people, "predicted": said, "group": str(number)}))
    table = pd.concat(rows, ignore_index=True).assign(reference="ill", label="all")
    names = sorted(set(table["group"]))
    found = group_gaps.rate_gaps(
        "group", table, table["group"].to_numpy(), lambda _: names, seed=seed_of(random), positives=["ill"]
    )
    return next(one for one in found if one.metric == (metric or "equal_opportunity_difference"))


def estimated(random: Random, groups: int, error: float = 0.1) -> Gap:
    """Groups of which only estimates with intervals are known."""
    values = random.normal(1, error, groups)
    half = stats.norm.isf(0.025) * error
    known = {str(n): Estimate(one, one - half, one + half, n=100) for n, one in enumerate(values.tolist())}
    return group_gaps.gap_of_estimates(Gap("group", "figure", "all", 0.0), known, lambda value: -value)


def is_below(random: Random, simulate: Simulated) -> float:
    return float(simulate(random).p < ALPHA)


def is_without(random: Random, simulate: Simulated, least: float = 0.0) -> float:
    """Whether the interval leaves out that there is no difference."""
    gap = simulate(random)
    return float(not gap.low <= least <= gap.high)


def beside_expected(random: Random, simulate: Simulated) -> float:
    gap = simulate(random)
    return gap.value / gap.expected


def columns_of(random: Random, people: int, each: int) -> dict[str, list[Any]]:
    """Of a cohort like those that are audited: covariates, sizes and brightness, clusters of features."""
    own = {
        "sex": random.choice(["F", "M"], people),
        "site": random.choice(["A", "B", "C", "D"], people, p=[0.5, 0.3, 0.15, 0.05]),
        "age": random.normal(60, 12, people),
        "scanner": random.choice(["x", "y", "z"], people),
        "spacing": random.choice([0.5, 0.7, 1.0], people),
        "size": random.integers(200, 600, people),
        "mean": random.gamma(4, 20, people),
    }
    made = {name: list(np.repeat(values, each)) for name, values in own.items()}
    patients = [f"p{n // each}" for n in range(people * each)]
    features = np.repeat(random.normal(size=(people, 24)), each, axis=0) + random.normal(0, 0.3, (people * each, 24))
    return {**made, "features": weakness.cluster_cases(features, patients, seed=seed_of(random))}


def is_found(random: Random, people: int, each: int, kind: str, times: float = 1.0) -> float:
    """Whether an audit finds a weak group; of a planted one, whether it finds that one."""
    columns = columns_of(random, people, each)
    weak = random.random(people) < 0.2
    tendency = random.beta(1, 9, people) if each > 1 else np.full(people, 0.1)
    if times > 1:
        columns["planted"] = ["yes" if one else "no" for one in np.repeat(weak, each)]
        tendency = np.where(weak, tendency * times, tendency)
    chance = np.repeat(tendency.clip(0, 1), each)
    errors = (
        random.random(people * each) < chance
        if kind == "calls"
        else random.beta(1.5, 6, people * each) ** (0.1 / (chance + 0.02))
    )
    patients = [f"p{n // each}" for n in range(people * each)]
    found = [one for one in weakness.weak_groups(errors, patients, columns, seed=seed_of(random)) if one.is_found]
    return float(any(times == 1 or (one.attribute, one.group) == ("planted", "yes") for one in found))


def is_unlike_found(random: Random, groups: Sequence[tuple[int, float]], many: int = 1) -> float:
    """Whether either of two groups of equal mean errors is found to be weak."""
    spread = np.repeat([own for _, own in groups], [count * many for count, _ in groups])
    errors = 0.2 + spread * random.normal(size=len(spread))
    group = np.repeat(["a", "b"], [count * many for count, _ in groups])
    patients = [f"p{n}" for n in range(len(spread))]
    return float(
        any(one.is_found for one in weakness.weak_groups(errors, patients, {"group": group}, seed=seed_of(random)))
    )


# Audits without a weak group, and with a fifth of the patients who have twice or three times the errors: what share of
# these is found at least (as by permutation of plain differences, less what chance allows of so few).
AUDITS = {
    (100, 1, "calls"): (0.0, 0.03),
    (100, 1, "dice"): (0.9, 0.95),
    (100, 3, "calls"): (0.09, 0.4),
    (100, 3, "dice"): (0.3, 0.7),
    (400, 1, "calls"): (0.15, 0.8),
    (400, 1, "dice"): (0.97, 0.97),
    (400, 3, "calls"): (0.6, 0.97),
    (400, 3, "dice"): (0.9, 0.97),
    (3000, 1, "calls"): (0.97, 0.97),
    (3000, 3, "dice"): (0.97, 0.97),
}
FEW = {"few": 60, "wide": (0.0, 0.19)}
TWO = "a gap between two groups without any: p below 5 %"
SEVERAL = "a gap among equal groups: its interval leaves out 0"
EXPECTED = "a gap among equal groups, by that which is stated as chance"
WEAK = "a weak group found where there is none"


def _laws() -> list[Law]:
    laws = list[Law]()

    def below(of: Any, **how: Any) -> Callable[[Random], float]:
        return partial(is_below, simulate=partial(of, **how))

    for place, (cell, groups) in enumerate(UNLIKE.items()):
        few: dict[str, Any] = FEW if place == 0 else {}
        laws.append(Law(TWO, f"means, {cell}", below(means, groups=groups), *ALARMS, **few))
    first = next(iter(UNLIKE.values()))
    laws.append(Law(TWO, "means, three images each, as the first", below(means, groups=first, images=3), *ALARMS))
    four = ((20, 0.15), (40, 0.05), (60, 0.1), (100, 0.05))
    laws.append(Law(TWO, "means of four groups of unlike spread and size", below(means, groups=four), *ALARMS))
    for ill, others, spread in ((15, 30, 2.0), (15, 30, 0.5), (30, 30, 3.0), (10, 10, 1.0)):
        cell = f"AUROC, {ill} ill of SD {spread:g} and {others} others beside 60 and 140"
        study = below(areas, groups=((ill, others, spread), (60, 140, 1.0)))
        laws.append(Law(TWO, cell, study, *ALARMS, draws=300))
    for images, rate in (((1, 1), 0.8), ((10, 1), 0.8), ((1, 10), 0.8), ((1, 1), 0.95)):
        cell = f"calls {rate:g}, 20 of {images[0]} images beside 200 of {images[1]}"
        groups_of_calls = ((20, images[0], 0.9), (200, images[1], 0.9))
        laws.append(Law(TWO, cell, below(calls, groups=groups_of_calls, rate=rate), 0.0, ALARMS[1], draws=300))
    for count in (2, 4, 8):
        some: dict[str, Any] = {"few": 40, "wide": (0.0, 0.2)} if count == 8 else {}
        for size in (20, 60):
            made = partial(means, groups=((size, 0.1),) * count)
            study = partial(is_without, simulate=made)
            chosen = some if size == 20 else {}
            laws.append(Law(SEVERAL, f"means, {count} groups of {size}", study, *ALARMS, **chosen))
        made = partial(areas, groups=((15, 30, 1.0),) * count)
        draws = 400 if count < 8 else 120
        laws.append(
            Law(SEVERAL, f"AUROC, {count} of 15 and 30", partial(is_without, simulate=made), *ALARMS, draws=draws)
        )
        said = partial(calls, groups=((50, 1, 0.0),) * count, rate=0.8)
        laws.append(Law(SEVERAL, f"calls, {count} of 50", partial(is_without, simulate=said), *ALARMS, draws=400))
        ratios = partial(said, metric="demographic_parity_ratio")
        study = partial(is_without, simulate=ratios, least=1.0)
        laws.append(Law(SEVERAL, f"ratio of calls, {count} of 50", study, 0.0, ALARMS[1], draws=400))
        known = partial(estimated, groups=count)
        laws.append(Law(SEVERAL, f"estimates, {count}", partial(is_without, simulate=known), *ALARMS))
        for name, of in (("means", partial(means, groups=((40, 0.1),) * count)), ("estimates", known)):
            laws.append(Law(EXPECTED, f"{name}, {count}", partial(beside_expected, simulate=of), 0.9, 1.1, draws=300))
    for place, (cell, groups) in enumerate(UNLIKE.items()):
        few = FEW if place == 0 else {}
        laws.append(Law(WEAK, cell, partial(is_unlike_found, groups=groups), *ALARMS, **few))
        ten = partial(is_unlike_found, groups=groups, many=10)
        laws.append(Law(WEAK, f"{cell}, ten times as many", ten, *ALARMS, draws=200))
    for (people, each, kind), least in AUDITS.items():
        cell = f"{people} patients, {each} cases each, {kind}"
        draws = {100: 300, 400: 120, 3000: 24}[people]
        laws.append(
            Law(WEAK, f"audit of {cell}", partial(is_found, people=people, each=each, kind=kind), 0.0, 0.07, draws)
        )
        for times, share in zip((2.0, 3.0), least, strict=True):
            study = partial(is_found, people=people, each=each, kind=kind, times=times)
            laws.append(
                Law("a planted weak group is found", f"{times:g} times, {cell}", study, share, 1.0, max(draws // 4, 12))
            )
    return laws


LAWS = _laws()
