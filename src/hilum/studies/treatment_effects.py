"""Effects of an arm: adjusted differences of participants or of clusters, hazard ratios, pooled over imputations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.evaluation import survival
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.lazy import mice, special, stats, statsmodels_hazards
from hilum.lazy import pandas as pd
from hilum.values import Floats

# Nearest participants from whom a value is taken. Morris et al., BMC Med Res Methodol 2014, doi:10.1186/1471-2288-14-75
DONORS = 10
# Cycles before the first imputation, and between two of them.
CYCLES = 5
# Of a participant with a covariate of its own the residual says nothing.
LARGEST_LEVERAGE = 1 - 1e-6
NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Effect:
    """A difference, new less control, its variance, and the degrees of freedom of the law of their ratio.

    most: the largest difference that there can be
    rank: z of an exact or a log-rank test, where the arms are separated, so that there is no variance
    """

    difference: float
    variance: float
    degrees: float
    method: str
    most: float = np.inf
    rank: float | None = None

    @property
    def z(self) -> float:
        """The z statistic with the same p-value."""
        chance = max(stats.t.sf(abs(self.statistic), self.degrees), 1e-300)
        return float(np.sign(self.statistic) * -special.ndtri(chance))

    @property
    def statistic(self) -> float:
        """The difference in standard errors."""
        return self.difference / float(np.sqrt(self.variance)) if self.rank is None else self.rank

    def interval(self, level: float) -> tuple[float, float]:
        half = float(stats.t.ppf((1 + level) / 2, self.degrees)) * float(np.sqrt(self.variance))
        return max(self.difference - half, -self.most), min(self.difference + half, self.most)

    def test(self, level: float = 0.95) -> DifferenceTest:
        """The test of no difference, with the interval of this level."""
        p = 2 * float(stats.t.sf(abs(self.statistic), self.degrees))
        return DifferenceTest(self.difference, *self.interval(level), self.statistic, p, self.method)


def cluster_test(
    outcome: ArrayLike, arm: ArrayLike, cluster: ArrayLike, covariates: ArrayLike | None = None
) -> DifferenceTest:
    """The difference of two arms to which whole clusters, such as hospitals, were allocated.

    outcome:    (participants,) a number each; 0 and 1 for a proportion
    arm:        (participants,) two values, of which the larger is the new arm
    cluster:    (participants,) whose cluster it is
    covariates: (participants, n) for which the difference is adjusted
    A t test of the means of clusters, of which each counts the same, with clusters less 2 degrees of freedom, and one
    less for each covariate that is the same within clusters. It holds its level with few clusters of unequal sizes
    (bench/claims/trials.py).
    Hayes and Moulton, Cluster Randomised Trials 2017, chapter 10; doi:10.4324/9781315370286
    Raises UsageError for other than two arms, a cluster in both, fewer than two clusters an arm, and no variance.
    """
    values = np.unique(np.asarray(arm))
    if len(values) != 2:
        raise UsageError(f"{len(values)} arms", "cluster_test", "Give two")
    given = np.zeros((len(np.asarray(arm)), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    given = given.reshape(len(given), -1)
    return cluster_effect(np.asarray(outcome, dtype=np.float64), np.asarray(arm) == values[1], cluster, given).test()


def cluster_effect(outcome: Floats, is_new: np.ndarray, cluster: ArrayLike, covariates: Floats) -> Effect:
    """The effect of `cluster_test`."""
    names, owner = np.unique(np.asarray(cluster), return_inverse=True)
    if not np.isfinite(outcome).all() or not np.isfinite(covariates).all():
        raise UsageError("an outcome or a covariate is missing", "cluster_test", "Leave them out, or impute them")
    sizes = np.bincount(owner)
    share = np.bincount(owner, is_new) / sizes
    if ((share > 0) & (share < 1)).any():
        name = names[np.flatnonzero((share > 0) & (share < 1))[0]]
        raise UsageError(f"cluster {name} is in both arms", "cluster_test", "Correct the column of arms")
    if min((share == 0).sum(), (share == 1).sum()) < 2:
        problem = "one cluster an arm: its effect cannot be told from that of the arm"
        raise UsageError(problem, "cluster_test", "Give two clusters or more in each arm")
    own = np.stack([np.bincount(owner, column) / sizes for column in covariates.T], 1) if covariates.size else None
    outcome = outcomes = _refused_without_spread(outcome)
    kept = np.ones((len(names), 1))
    if own is not None:
        within = np.abs(covariates - own[owner]).max(axis=0) > NO_SPREAD
        centred = covariates[:, within] - covariates[:, within].mean(axis=0)
        # With the arms in the model, so that the adjustment takes nothing of the effect with it.
        both = np.column_stack([np.ones(len(outcome)), is_new, centred])
        outcome = outcome - centred @ _solve(both, outcome)[0][2:]
        kept = np.column_stack([kept, own[:, ~within]])
    means = np.bincount(owner, outcome) / sizes
    table = np.column_stack([kept[:, :1], share, kept[:, 1:] - kept[:, 1:].mean(axis=0)])
    coefficients, inverse, rank = _solve(table, means)
    free = len(names) - rank
    if free < 1:
        raise UsageError(f"{rank - 2} covariates of {len(names)} clusters", "cluster_test", "Give fewer covariates")
    variance = float(((means - table @ coefficients) ** 2).sum()) / free * inverse[1, 1]
    return _varying(Effect(float(coefficients[1]), variance, free, "t test of means of clusters", _most(outcomes)))


def participant_effect(outcome: Floats, is_new: np.ndarray, covariates: Floats) -> Effect:
    """The difference of means or proportions by least squares on the arm and covariates, with HC3 errors.

    MacKinnon and White, J Econom 1985, doi:10.1016/0304-4076(85)90158-7; of covariates in trials: Lin, Ann Appl Stat
    2013, doi:10.1214/12-AOAS583
    """
    outcome = _refused_without_spread(outcome)
    centred = covariates - covariates.mean(axis=0) if covariates.size else covariates
    table = np.column_stack([np.ones(len(outcome)), is_new, centred])
    coefficients, inverse, rank = _solve(table, outcome)
    leverage = np.minimum(np.einsum("ij,jk,ik->i", table, inverse, table), LARGEST_LEVERAGE)
    scaled = (outcome - table @ coefficients) / (1 - leverage)
    row = table @ inverse[1]
    if len(outcome) <= rank or min(is_new.sum(), (~is_new.astype(bool)).sum()) < 2:
        raise UsageError("too few participants for the covariates", "analysis", "Plan fewer covariates or strata")
    arms = [outcome[is_new.astype(bool) == side] for side in (False, True)]
    if not any(np.ptp(arm) > NO_SPREAD for arm in arms):
        difference = float(arms[1][0] - arms[0][0])
        chance = stats.fisher_exact(np.diag([len(arms[0]), len(arms[1])])).pvalue
        z = -float(special.ndtri(chance / 2))
        method = "Fisher's exact test of known outcomes; no interval: all outcomes of an arm are alike"
        return Effect(difference, np.nan, np.inf, method, rank=float(np.copysign(z, difference)))
    variance = float((row**2 * scaled**2).sum())
    method = "least squares, HC3 errors, t"
    return _varying(Effect(float(coefficients[1]), variance, len(outcome) - rank, method, _most(outcome)))


def _solve(table: Floats, outcome: Floats) -> tuple[Floats, Floats, int]:
    """(coefficients, inverse of the cross product, rank); columns that follow from others share their coefficient."""
    inverse = np.linalg.pinv(table.T @ table, hermitian=True)
    return inverse @ (table.T @ outcome), inverse, int(np.linalg.matrix_rank(table))


def _most(outcomes: Floats) -> float:
    """The largest difference of two arms: that of proportions is 1."""
    return 1.0 if np.isin(outcomes, (0.0, 1.0)).all() else np.inf


def _refused_without_spread(outcome: Floats) -> Floats:
    if np.ptp(outcome) <= NO_SPREAD:
        problem = f"an endpoint without variance: all outcomes are {outcome[0]:g}"
        raise UsageError(problem, "analysis", "Check the column: nothing can be tested by it")
    return outcome


def _varying(effect: Effect) -> Effect:
    if not effect.variance > NO_SPREAD**2:
        raise UsageError("outcomes have no variance within the arms", "analysis", "Check the column")
    return effect


def pool_effects(effects: Sequence[Effect]) -> Effect:
    """One effect of several imputations by Rubin's rules, with the degrees of Barnard and Rubin.

    Biometrika 1999, doi:10.1093/biomet/86.4.948
    """
    if without := [one for one in effects if one.rank is not None]:
        return without[0]
    first = effects[0]
    number = len(effects)
    differences = np.array([one.difference for one in effects])
    within = float(np.mean([one.variance for one in effects]))
    between = (1 + 1 / number) * float(differences.var(ddof=1)) if number > 1 else 0.0
    if between <= NO_SPREAD * within:
        return first
    lost = between / (within + between)
    share = (first.degrees + 1) / (first.degrees + 3) if np.isfinite(first.degrees) else 1.0
    observed = share * first.degrees * (1 - lost)
    old = (number - 1) / lost**2
    method = f"{first.method}; {number} imputations by chained equations, Rubin's rules"
    return Effect(float(differences.mean()), within + between, 1 / (1 / old + 1 / observed), method, first.most)


def impute_missing(table: pd.DataFrame, number: int, seed: int) -> list[pd.DataFrame]:
    """The table completed so often by chained equations with predictive mean matching; once where nothing is missing.

    table: numbers, NaN where missing; each column is predicted by all others
    Raises UsageError for a column of which nothing is known.
    """
    empty = [str(name) for name in table if table[name].isna().all()]
    if empty:
        raise UsageError(f"{empty[0]} is missing in all participants", "imputation", "Leave it out of the plan")
    if not table.isna().any(axis=None):
        return [table]
    plain = table.set_axis([f"x{place}" for place in range(table.shape[1])], axis=1).reset_index(drop=True)
    fewest_known = int(plain.notna().sum().min())
    # Where one column alone has gaps, its draws do not depend on each other.
    cycles = CYCLES if int(table.isna().any().sum()) > 1 else 1
    found = []
    with warnings.catch_warnings(record=True):  # columns that follow from others share their coefficient
        chain = mice.MICEData(plain.astype(float), k_pmm=min(DONORS, fewest_known), rng=np.random.default_rng(seed))
        chain.update_all(cycles)
        for _ in range(number):
            chain.update_all(cycles)
            found.append(pd.DataFrame(chain.data[plain.columns].to_numpy(), columns=table.columns, index=table.index))
    return found


Truths = np.ndarray
# Of the longest direction of the covariates, what a further one has at least.
NO_LENGTH = 1e-9
# Of a log hazard ratio that the events hold: a larger error is of a likelihood without a maximum.
LARGEST_ERROR = 10.0


def hazard_effect(times: Floats, happened: Truths, is_new: Truths, covariates: Floats) -> Effect:
    """The log hazard ratio, new over control, adjusted for covariates; ties by Efron. Else the log-rank test, and why.

    times:    (participants,) to the event, or to the last contact; happened: (participants,) whether it was the event
    Cox, J R Stat Soc B 1972, doi:10.1111/j.2517-6161.1972.tb00899.x; Efron, J Am Stat Assoc 1977; where a likelihood
    has no maximum: Bryson and Johnson, Technometrics 1981, doi:10.1080/00401706.1981.10487680
    Raises UsageError where nobody had the event.
    """
    if not happened.any():
        raise UsageError("nobody had the event", "analysis", "Follow them longer")
    for own, other, is_own in (("the new arm", "the control", is_new), ("the control", "the new arm", ~is_new)):
        if times[happened & ~is_own].min(initial=np.inf) > times[is_own].max(initial=-np.inf):
            when = f" while anybody in {own} was followed" * bool(happened[~is_own].any())
            return _rank_effect(times, happened, is_new, f"nobody in {other} had the event{when}")
    centred = covariates - covariates.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    known = left[:, lengths > NO_LENGTH * max(float(lengths.max(initial=0.0)), 1.0)] * np.sqrt(len(times))
    if happened.sum() <= known.shape[1] + 1:
        return _rank_effect(times, happened, is_new, f"{happened.sum()} events for {known.shape[1]} covariates")
    table = np.column_stack([is_new.astype(float), known])
    with warnings.catch_warnings(record=True):  # what does not converge is seen by its error below
        found = statsmodels_hazards.PHReg(times, table, status=happened.astype(int), ties="efron").fit()
    ratio = float(found.params[0])
    error = float(found.bse[0])
    if not (np.isfinite(ratio) and 0 < error < LARGEST_ERROR):
        return _rank_effect(times, happened, is_new, "the covariates tell the events apart")
    return Effect(ratio, error**2, np.inf, "log hazard ratio, Cox, ties by Efron")


def _rank_effect(times: Floats, happened: Truths, is_new: Truths, because: str) -> Effect:
    z, _ = survival.logrank_test(times, happened, is_new)
    return Effect(np.nan, np.nan, np.inf, f"log-rank; no hazard ratio: {because}", rank=z)


def kaplan_meier_median(times: Floats, happened: Truths) -> float | None:
    """The time until which half of the people had the event, by Kaplan-Meier; None where fewer had it."""
    curve = survival.kaplan_meier(times, happened)
    reached = np.flatnonzero(curve.values <= 0.5)
    return float(curve.times[reached[0]]) if len(reached) else None
