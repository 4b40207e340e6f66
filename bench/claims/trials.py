"""Trials: clusters that are few and unequal, outcomes that are missing, looks that spend alpha, and lists of arms.

Sites have sizes of a gamma law with a coefficient of variation of .8, 40 participants on average. Outcomes are missing
at random: the more often, the higher a variable that is known of all, and in one arm more than in the other.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pandas as pd
from claims.law import COVERAGE, Law, Random
from scipy import special, stats

from hilum.studies import interim_looks, randomisation, treatment_effects
from hilum.studies.trial_protocol import Study

SIZE, UNEQUAL = 40, 0.8
EFFECT = 0.4
PARTICIPANTS, IMPUTED = 200, 5
# Shares of the participants that are known at three looks, which nobody planned so.
FRACTIONS = (0.3, 0.75, 1.0)
ENROLLED = 100


def alarms(random: Random, sites: int, icc: float, is_clustered: bool = True, adjusted: bool = False) -> float:
    """Whether a trial without an effect finds one at 5 %."""
    sizes = np.maximum(2, random.gamma(1 / UNEQUAL**2, SIZE * UNEQUAL**2, sites).round()).astype(int)
    site = np.repeat(np.arange(sites), sizes)
    arm = random.permutation(np.arange(sites) % 2)[site]
    known = random.normal(size=len(site)) if adjusted else np.zeros(len(site))
    own = np.sqrt(icc) * random.normal(size=sites)[site] + np.sqrt(1 - icc) * random.normal(size=len(site))
    outcome = known + own
    if not is_clustered:
        return float(stats.ttest_ind(outcome[arm == 1], outcome[arm == 0]).pvalue < 0.05)
    return float(treatment_effects.cluster_test(outcome, arm, site, known[:, None] if adjusted else None).p < 0.05)


def covers(random: Random, is_imputed: bool, is_binary: bool) -> float:
    """Whether the interval of a difference holds the true one, where about a quarter of the outcomes is missing."""
    arm = random.permutation(np.arange(PARTICIPANTS) % 2)
    known = random.normal(size=PARTICIPANTS)
    latent = EFFECT * arm + known + random.normal(size=PARTICIPANTS)
    outcome = (latent > 0).astype(float) if is_binary else latent
    truth = stats.norm.cdf(EFFECT / np.sqrt(2)) - 0.5 if is_binary else EFFECT
    outcome[random.random(PARTICIPANTS) < special.expit(known * (1 + arm) - 1.4)] = np.nan
    table = pd.DataFrame({"outcome": outcome, "arm": arm.astype(float), "known": known})
    seen = (
        treatment_effects.impute_missing(table, IMPUTED, int(random.integers(2**31)))
        if is_imputed
        else [table.dropna()]
    )
    effects = [
        treatment_effects.participant_effect(
            one["outcome"].to_numpy(), one["arm"].to_numpy() == 1, np.zeros((len(one), 0))
        )
        for one in seen
    ]
    low, high = treatment_effects.pool_effects(effects).interval(0.95)
    return float(low <= truth <= high)


@cache
def bound_of(look: int, spending: str) -> float:
    """The bound of a look, when only those before it are known."""
    return interim_looks.looks_at_fractions(FRACTIONS[:look], 0.05, spending)[-1].bound


def stops(random: Random, spending: str) -> float:
    """Whether a trial without an effect passes a bound at one of three looks."""
    arm, outcome = random.permutation(np.arange(150) % 2) == 1, random.normal(size=150)
    for number, fraction in enumerate(FRACTIONS, start=1):
        bound = bound_of(number, spending)
        seen = round(fraction * len(arm))
        if abs(treatment_effects.participant_effect(outcome[:seen], arm[:seen], np.zeros((seen, 0))).z) >= bound:
            return 1.0
    return 0.0


@cache
def of_blocks() -> Study:
    arms = [{"name": name, "text": name} for name in "AB"]
    return Study.model_validate(
        {
            "title": "lists",
            "question": "lists",
            "design": "parallel",
            "arms": arms,
            "endpoints": [{"name": "outcome", "metric": "mean", "direction": "higher", "primary": True}],
            "population": {"criteria": "anybody"},
        }
    )


@cache
def of_sites() -> Study:
    members = {f"site {place}": {"size": "large" if place < 5 else "small"} for place in range(12)}
    clusters = {"column": "site", "members": members}
    changed = {"design": "cluster", "clusters": clusters, "strata": {"size": ["large", "small"]}}
    return Study.model_validate({**of_blocks().model_dump(), **changed})


def imbalance(random: Random) -> float:
    """The largest difference of the arms while participants enrol."""
    [allocated] = randomisation.allocate_lists(of_blocks(), ENROLLED, random).values()
    signs = np.where(np.array(allocated[:ENROLLED]) == "A", 1, -1)
    return float(np.abs(np.cumsum(signs)).max())


def foretold(random: Random) -> float:
    """The share of arms that is right for whoever names the one that has fewer so far, and tosses where none has."""
    [allocated] = randomisation.allocate_lists(of_blocks(), ENROLLED, random).values()
    signs = np.where(np.array(allocated[:ENROLLED]) == "A", 1, -1)
    ahead = np.cumsum(signs) - signs
    return float(np.where(ahead == 0, 0.5, np.sign(ahead) == -signs).mean())


def uneven_sites(random: Random) -> float:
    """The largest difference of the arms, over both strata and the whole."""
    lists = randomisation.allocate_lists(of_sites(), 1, random)
    signs = np.array([1 if arms == ["A"] else -1 for arms in lists.values()])
    return float(max(abs(signs.sum()), abs(signs[:5].sum()), abs(signs[5:].sum())))


# Of blocks of 4 and 6 in equal numbers, by whoever knows nothing of their ends: Blackwell and Hodges, Ann Math Stat
# 1957, doi:10.1214/aoms/1177706973: ((2 + 5 / 6) + (3 + 1.1)) / 10.
FORETOLD = (2 + 5 / 6 + 3 + 1.1) / 10
CLUSTERS = "an effect of sites without any is found (5 % allowed)"
IMPUTATION = "a 95 % interval holds the effect though outcomes are missing"
SPENDING = "an effect without any is found at one of three looks (5 % allowed)"
LISTS = "lists of arms"
LAWS: list[Law] = [
    *(
        Law(CLUSTERS, f"{sites} sites, ICC {icc}", partial(alarms, sites=sites, icc=icc), high=0.06,
            few=60 * (sites == 8 and icc == 0.05), wide=(0.0, 0.15))
        for sites in (8, 12, 30) for icc in (0.01, 0.05, 0.1)
    ),
    *(
        Law(CLUSTERS, f"{sites} sites, ICC 0.05, adjusted", partial(alarms, sites=sites, icc=0.05, adjusted=True),
            high=0.06)
        for sites in (8, 12, 30)
    ),
    *(
        Law(CLUSTERS, f"{sites} sites, ICC {icc}, sites ignored", partial(alarms, sites=sites, icc=icc,
            is_clustered=False))
        for sites in (8, 30) for icc in (0.01, 0.1)
    ),
    *(
        Law(IMPUTATION, f"{kind}, {'imputed' if is_imputed else 'complete cases'}",
            partial(covers, is_imputed=is_imputed, is_binary=kind == "proportion"), draws=700,
            low=COVERAGE[0] if is_imputed else -np.inf, high=COVERAGE[1] if is_imputed else np.inf)
        for kind in ("mean", "proportion") for is_imputed in (True, False)
    ),
    *(
        Law(SPENDING, spending, partial(stops, spending=spending), high=0.055, draws=2000)
        for spending in ("obrien-fleming", "pocock")
    ),
    Law(LISTS, "largest difference of the arms, 100 participants in blocks", imbalance, high=3.0, draws=10_000, few=50),
    Law(LISTS, "arms foretold by the one with fewer", foretold, high=FORETOLD, draws=10_000, few=50, wide=(0.5, 0.72)),
    Law(LISTS, "largest difference of the arms, 12 sites in two strata", uneven_sites, high=1.0, draws=10_000, few=50),
]  # fmt: skip
