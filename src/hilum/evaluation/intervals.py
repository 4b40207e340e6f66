"""Confidence intervals: bootstrap over patients, exact and score intervals of proportions and medians."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import _weighting
from hilum.evaluation.regression import NORMAL_95
from hilum.lazy import special, stats
from hilum.values import Estimate, Floats, dataset_cases
from hilum.values.estimate import BootstrapDraws, FigureRecipe

LEVEL = 0.95
DRAWS = 2000
# Fewer people than this say too little about those who were not examined (coverage: bench/claims/coverage.py).
FEW_PATIENTS = 10
# On which an interval is symmetric, where not percentiles bound it: the logit of a share, Fisher's z of a correlation.
IntervalScale = Literal["share", "correlation", "rank correlation"]
# How far from its ends a figure lies at least on its scale: nearer by is rounding.
EDGE = 1e-9
# How far the weights of draws go from equal ones where ranks are resampled, and at least of too few people to resample.
STEP = 0.25
# Weights that are held at once: 32 MB of float64.
CHUNK = 4_000_000

Integers = NDArray[np.integer[Any]]
# (draws, images) how often each image counts -> (draws,) the figure under each weighting.
Statistic = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Resampling:
    """The way patients are resampled: by a seed, within the model that scored them, with or without the draws kept.

    models:      {patient: the model that scored its images}, where several did, such as the folds of a run. A figure
                 that compares scores of different images is then made for each model, and their unweighted mean is
                 stated: what one model calls 0.6 another calls 0.4, so that their scores have no common order.
    keeps_draws: whether estimates keep the figure of each draw, for `difference`
    draws:       how often
    keeps_recipe: whether estimates keep their statistic, so that others can make it of some of the people
    Forman and Scholz, SIGKDD Explor 2010, doi:10.1145/1882471.1882479; Airola et al., Comput Stat Data Anal 2011,
    doi:10.1016/j.csda.2010.11.018
    """

    seed: int = 0
    models: Mapping[Any, Any] = field(default_factory=dict)
    keeps_draws: bool = False
    draws: int = DRAWS
    keeps_recipe: bool = False

    def __post_init__(self) -> None:
        _weighting.refuse_no_draws(self.draws)

    @classmethod
    def from_seed(cls, seed: Seed) -> Resampling:
        """A plain number is a seed without models, whose draws nobody keeps."""
        return seed if isinstance(seed, cls) else cls(int(cast("int", seed)))

    def with_draws(self, draws: int | None) -> Resampling:
        """The same, so often; None: as often as it says itself."""
        return self if draws is None else replace(self, draws=draws)

    def models_of(self, patients: NDArray[Any]) -> Integers | None:
        """(patients,) index of the model that scored each; None where one model scored them all or one is unknown."""
        owners = patients.tolist()
        if not self.models or not all(patient in self.models for patient in owners):
            return None
        models = np.asarray(np.unique([str(self.models[patient]) for patient in owners], return_inverse=True)[1])
        return models if models.max(initial=0) > 0 else None


# Where a seed is asked for, a Resampling may stand in for it, as a Generator may in NumPy.
Seed: TypeAlias = "int | Resampling"


def difference(first: Estimate, second: Estimate) -> Estimate:
    """The second figure less the first, both of the same cases, with a 95 % interval.

    Both must have kept their draws, by the same seed: then both resampled the same patients, and what is easy or
    hard about a patient cancels out. With few patients the interval is widened as in `bootstrap`.
    """
    value = second.value - first.value
    figure = Estimate(value, level=LEVEL, n=first.n, patients=first.patients, unit=first.unit)
    draws = first.draws
    other = second.draws
    if not np.isfinite(value):
        return replace(figure, method="none: one of both is undefined")
    if draws is None or other is None or first.n != second.n or not np.array_equal(draws.strata, other.strata):
        return replace(figure, method="none: the two were not resampled together")
    differences = other.figures - draws.figures
    differences = differences[np.isfinite(differences)]
    if not len(differences) or np.ptp(differences) <= 1e-12:
        return replace(figure, method="none: all draws are equal")
    few = f"; unreliable: {errors.count_phrase(draws.fewest, 'patient')}" if draws.fewest < FEW_PATIENTS else ""
    tail = tail_share(draws.fewest, draws.models)
    low, high = np.quantile(differences, [tail, 1 - tail]).tolist()
    return replace(figure, low=low, high=high, method=f"paired patient bootstrap{few}")


def independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """The second figure less the first, of other people, with the interval that both intervals make together.

    Zou and Donner, Stat Med 2008, doi:10.1002/sim.3095
    """
    value = second.value - first.value
    figure = Estimate(value, level=LEVEL, n=first.n + second.n, patients=first.patients + second.patients)
    if first.low is None or first.high is None or second.low is None or second.high is None or not np.isfinite(value):
        return replace(figure, unit=first.unit, method="none: one of both has no interval")
    low = value - np.hypot(second.value - second.low, first.high - first.value)
    high = value + np.hypot(second.high - second.value, first.value - first.low)
    return replace(figure, low=float(low), high=float(high), unit=first.unit, method="from both intervals")


def bonferroni(estimate: Estimate, number: int) -> Estimate:
    """The estimate with the interval that it has as one of so many of which all hold at once in 95 % (Bonferroni).

    The own interval of what stands out among many, such as the worst of 40 conditions, leaves 0 out by chance.
    """
    if number < 2 or estimate.low is None or estimate.high is None:
        return estimate
    tails = (1 - LEVEL) / 2 / np.array([1, number])
    free = max((estimate.patients or 2) - 1, 1)
    single, wide = stats.t.isf(tails, free).tolist()
    low, high = (estimate.value + wide / single * (end - estimate.value) for end in (estimate.low, estimate.high))
    return replace(estimate, low=low, high=high, method=f"{estimate.method}; one of {number}, all at once")


def bootstrap(
    scores: ArrayLike, patients: ArrayLike, *, seed: Seed, draws: int | None = None, unit: str = "", exact: bool = True
) -> Estimate:
    """Mean score with a 95 % percentile interval that resamples patients, not images, widened where they are few.

    scores:   (images,) one score each; NaN is undefined, left out and counted in `method`
    patients: (images,) whose image it is
    unit:     empty for a ratio in 0..1, which alone gets an exact bound where all scores are 0 or all are 1
    exact:    False for numbers without a unit that are no such ratio, as a log loss, which is 0 at best and has no end
    Field and Welsh, J R Stat Soc B 2007, doi:10.1111/j.1467-9868.2007.00593.x
    """
    values, owners = _check_aligned(scores, patients)
    defined = np.isfinite(values)
    values = values[defined]
    owners = owners[defined]
    left_out = "" if defined.all() else f"; {np.count_nonzero(~defined)} undefined left out"
    if not len(values):
        return Estimate(float("nan"), unit=unit, method=f"none: no defined score{left_out}")
    if _are_of_pairs(owners):
        return _of_pairs(values, owners, Resampling.from_seed(seed).with_draws(draws), unit, left_out)
    people, owner = np.unique(owners, return_inverse=True)
    sums = np.bincount(owner, values)
    counts = np.bincount(owner).astype(np.float64)

    def mean(weights: Floats) -> Floats:
        """The mean score, for each weighting of the patients."""
        return np.asarray((weights @ sums) / (weights @ counts))

    strata = np.zeros(len(people), dtype=np.intp)
    exact = exact and unit == "" and bool(np.isin(values, (0.0, 1.0)).all())
    how = Resampling.from_seed(seed).with_draws(draws)
    recipe = FigureRecipe(mean, people, strata, np.stack([sums, counts]))
    return _estimate(recipe, n=len(values), unit=unit, how=how, exact=exact, note=left_out)


def _are_of_pairs(patients: NDArray[Any]) -> bool:
    """Whether some images are pairs of two patients' images."""
    return any(len(dataset_cases.people_of_patient(str(one))) > 1 for one in np.unique(patients))


def _weights_of_pairs(patients: NDArray[Any]) -> tuple[NDArray[Any], Callable[[Floats], Floats]]:
    """The people of pairs, and what makes (draws, pairs) weights of (draws, people).

    A pair counts by the product of its two patients' draws, because pairs that share a patient are alike. This is the
    pigeonhole bootstrap of Owen, Ann Appl Stat 2007, doi:10.1214/07-AOAS122
    """
    ends = [dataset_cases.people_of_patient(str(one)) for one in patients]
    people, places = np.unique([one for own in ends for one in (own[0], own[-1])], return_inverse=True)
    first, second = places.reshape(-1, 2).T
    of_one = np.array([len(own) == 1 for own in ends])

    def weights(draws: Floats) -> Floats:
        """Weights: how often each pair counts."""
        return np.where(of_one, draws[:, first], draws[:, first] * draws[:, second])

    return people, weights


def _of_pairs(values: Floats, patients: NDArray[Any], how: Resampling, unit: str, note: str) -> Estimate:
    """The mean score of pairs; a draw in which no pair has both of its patients is left out."""
    people, weights = _weights_of_pairs(patients)

    def mean(draws: Floats) -> Floats:
        """The mean score, for each weighting of the people."""
        values_of_draws = weights(draws)
        return _weighting.ratio_or_nan(values_of_draws @ values, values_of_draws.sum(axis=1))

    recipe = FigureRecipe(mean, people, np.zeros(len(people), dtype=np.intp))
    estimate = _estimate(recipe, n=len(values), unit=unit, how=how, exact=False, note=note)
    return replace(estimate, method=estimate.method.replace("patient bootstrap", "pigeonhole bootstrap of patients"))


def bootstrap_statistic(
    statistic: Statistic,
    patients: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    seed: Seed,
    draws: int | None = None,
    unit: str = "",
    exact: bool = True,
    compares: bool = False,
    scale: IntervalScale | None = None,
    labels: Mapping[str, NDArray[Any]] | None = None,
    ratios: Floats | None = None,
) -> Estimate:
    """A figure that is no mean (AUROC, F1), with the interval of `bootstrap`.

    statistic: (draws, images) weights to (draws,) figures, so that nothing is sorted anew for each draw
    patients:  (images,) whose image it is
    strata:    (images,) the class; a patient is resampled among those with the same rarest class, so that
               every draw holds every class. Draws in which the figure is undefined are left out.
               A figure that is always biased (ECE) gets no true interval this way: `calibration_error`
    exact:     whether a perfect 1 or 0 is a proportion of independent trials, as it is not for MCC
    compares:  whether it sets the score of one image against that of another (AUROC, average precision), which only
               scores of one model allow: where `seed` names several models, it is made for each of them
    scale:     on which the interval is symmetric, because percentiles miss figures near an end on one side; None: a
               share (of pairs) for what compares, else percentiles. UsageError for a figure outside of its scale
    labels:    of a mean over labels {label: (images,) whether its figure rests on the image}: the interval is as wide
               as one of so few patients as the rarest label has, because what hardly occurs hardly varies in draws
    ratios:    (2, ratios, images) what each adds to the sums of a figure that is a mean of ratios, for its recipe
    """
    owners = np.asarray(patients)
    people, owner = np.unique(owners, return_inverse=True)
    groups = np.zeros(len(people), dtype=np.intp) if strata is None else rarest_classes(np.asarray(strata), owner)
    of_pairs = None
    if _are_of_pairs(owners):
        people, of_pairs = _weights_of_pairs(owners)
        groups = np.zeros(len(people), dtype=np.intp)

    def over_people(weights: Floats) -> Floats:
        """The statistic, for each weighting of the patients."""
        return statistic(weights[:, owner] if of_pairs is None else of_pairs(weights))

    how = Resampling.from_seed(seed).with_draws(draws)
    recipe = FigureRecipe(over_people, people, groups)
    if ratios is not None and of_pairs is None:
        sums = [[np.bincount(owner, one, len(people)) for one in part] for part in ratios]
        recipe = replace(recipe, ratios=np.asarray(sums))
    models = how.models_of(people) if compares else None
    scale = scale or ("share" if compares else None)
    note = ""
    rare = min(((len(np.unique(owners[own])), label) for label, own in (labels or {}).items()), default=None)
    if models is not None:
        recipe, note = _over_models(recipe, models)
    return _estimate(
        recipe, n=len(owners), unit=unit, how=how, exact=exact, note=note, models=models, scale=scale, rare=rare
    )


def patient_weights(
    patients: ArrayLike, *, strata: ArrayLike | None = None, seed: Seed, draws: int | None = None
) -> Iterator[Floats]:
    """(some draws, images) how often each image counts where patients are resampled, as in `bootstrap_statistic`."""
    people, owner = np.unique(np.asarray(patients), return_inverse=True)
    groups = np.zeros(len(people), dtype=np.intp) if strata is None else rarest_classes(np.asarray(strata), owner)
    for weights in sample_weightings(groups, Resampling.from_seed(seed).with_draws(draws), width=len(owner)):
        yield weights[:, owner]


def wilson(successes: int, n: int, *, level: float = LEVEL) -> Estimate:
    """A proportion of independent trials with its score interval; the exact one where all or none succeeded.

    Wilson, J Am Stat Assoc 1927, doi:10.1080/01621459.1927.10502953
    """
    _refuse_impossible(successes, n, level)
    if successes in (0, n):
        return clopper_pearson(successes, n, level=level)
    share = successes / n
    z = float(stats.norm.ppf((1 + level) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, float(centre - half), float(centre + half), level=level, n=n, patients=n, method="Wilson")


def proportion(successes: ArrayLike, patients: ArrayLike, *, seed: Seed) -> Estimate:
    """Share of images that succeeded (accuracy, sensitivity): Wilson's interval where each is another patient's.

    successes: (images,) truths; several images of a patient are not independent, and are bootstrapped
    """
    values, owners = _check_aligned(_weighting.require_truths(successes, "successes"), patients)
    people = len(np.unique(owners))
    how = Resampling.from_seed(seed)
    if not 1 < people == len(values) or how.keeps_draws or how.keeps_recipe:  # Wilson's interval has neither
        return bootstrap(values, owners, seed=seed)
    few = f"; unreliable: {people} patients" if people < FEW_PATIENTS else ""
    estimate = wilson(int(values.sum()), people)
    return replace(estimate, method=estimate.method + few)


def clopper_pearson(successes: int, n: int, *, level: float = LEVEL) -> Estimate:
    """A proportion of independent trials with its exact interval, which is never too narrow.

    Clopper and Pearson, Biometrika 1934, doi:10.1093/biomet/26.4.404
    """
    _refuse_impossible(successes, n, level)
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.isf(tail, successes + 1, n - successes)) if successes < n else 1.0
    return Estimate(successes / n, low, high, level=level, n=n, patients=n, method="exact (Clopper-Pearson)")


def median(scores: ArrayLike, patients: ArrayLike, *, unit: str = "", level: float = LEVEL) -> Estimate:
    """Median score with the exact interval between order statistics; a bootstrap of medians is too rough.

    scores: (images,) NaN is left out; with several images of one patient there is no interval
    David and Nagaraja, Order Statistics 2003, section 7.1
    """
    _weighting.refuse_impossible_level(level)
    values, owners = _check_aligned(scores, patients)
    owners = owners[np.isfinite(values)]
    values = np.sort(values[np.isfinite(values)])
    n = len(values)
    people = len(np.unique(owners))
    if not n:
        return Estimate(float("nan"), unit=unit, method="none: no defined score")
    figure = Estimate(float(np.median(values)), level=level, n=n, patients=people, unit=unit)
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5))
    if people < n:
        return replace(figure, method="none: several scores of one patient")
    if rank < 1:
        return replace(figure, method=f"none: {n} scores are too few for a median")
    low, high = float(values[rank - 1]), float(values[n - rank])
    return replace(figure, low=low, high=high, method="exact (order statistics)")


def _over_models(recipe: FigureRecipe, models: Integers) -> tuple[FigureRecipe, str]:
    """The recipe of a figure's mean over the models, and the end of its method's words.

    A model for whose people it is undefined is left out.
    """
    statistic = recipe.statistic
    members = [models == model for model in range(int(models.max()) + 1)]
    defined = [own for own in members if np.isfinite(statistic(own[None].astype(np.float64))[0])]

    def mean(weights: Floats) -> Floats:
        """The mean over the models that have the statistic, for each weighting."""
        values = np.reshape([statistic(weights * own) for own in defined], (-1, len(weights)))
        is_finite = np.isfinite(values)
        return _weighting.ratio_or_nan(np.where(is_finite, values, 0.0).sum(axis=0), is_finite.sum(axis=0))

    lost = f", undefined in {len(members) - len(defined)} of {len(members)}" if len(defined) < len(members) else ""
    note = f"; mean over {len(defined)} folds{lost}: of one fold's model, not of their mean"
    return replace(recipe, statistic=mean), note


def _estimate(
    recipe: FigureRecipe,
    *,
    n: int,
    unit: str,
    how: Resampling,
    exact: bool,
    note: str = "",
    models: Integers | None = None,
    scale: IntervalScale | None = None,
    rare: tuple[int, str] | None = None,
) -> Estimate:
    """The figure of all people, and the spread over people resampled within their strata, and within their model.

    rare: the label with the fewest people, after their number
    """
    statistic = recipe.statistic
    strata = recipe.strata
    people = len(strata)
    fewest = int(np.bincount(strata).min(initial=len(strata)))
    group = "" if fewest == people else " in the smallest group"
    if rare is not None and rare[0] < fewest:
        fewest = rare[0]
        group = f" with {rare[1]}"
    count = 1
    trials = fewest
    if models is not None:
        cells = np.zeros((int(models.max()) + 1, int(strata.max()) + 1), dtype=np.intp)
        np.add.at(cells, (models, strata), 1)
        count = len(cells)
        trials = int(cells.min(axis=1).sum())
        strata = np.asarray(np.unique(models * cells.shape[1] + strata, return_inverse=True)[1])
    value = float(statistic(np.ones((1, people)))[0]) if people else float("nan")
    kept_recipe = recipe if how.keeps_recipe else None
    figure = Estimate(value, level=LEVEL, n=n, patients=people, unit=unit, recipe=kept_recipe)
    if not np.isfinite(value):
        return replace(figure, method=f"none: undefined for these cases{note}")
    if people < 2:
        return replace(figure, method=f"none: one patient{note}")
    few = f"; unreliable: {errors.count_phrase(fewest, 'patient')}{group}" * (fewest < FEW_PATIENTS)
    figures = np.concatenate([statistic(weights) for weights in sample_weightings(strata, how, width=n)])
    if how.keeps_draws:
        figure = replace(figure, draws=BootstrapDraws(figures, fewest, strata, count))
    figures = figures[np.isfinite(figures)]
    inside = scale is not None and _is_within(scale, value, figures)
    if not len(figures) or np.ptp(figures) <= 1e-12:
        return _degenerate(figure, trials, exact and trials > 0, few + note)
    # The line of a correlation has a slope too.
    tail = tail_share(fewest, 2 * count if scale == "correlation" else count)
    kind = ""
    low, high = np.quantile(figures, [tail, 1 - tail]).tolist()
    if inside and tail > 0 and scale == "share":
        low, high = _logit(value, float(figures.std(ddof=1)), tail)
        kind = ", logit"
    elif inside and tail > 0:
        weighted = (1 + STEP * (weights - 1) for weights in sample_weightings(strata, how, width=n))
        small = np.concatenate([statistic(weights) for weights in weighted])
        error = float(np.arctanh(small).std(ddof=1)) / STEP
        low, high = _fisher(value, error, figures if scale == "correlation" else None, tail)
        kind = ", Fisher's z"
    lost = f"; {how.draws - len(figures)} of {how.draws} draws undefined" if len(figures) < how.draws else ""
    return replace(figure, low=low, high=high, method=f"patient bootstrap{kind}{few}{note}{lost}")


def interval_of_draws(figure: Estimate, draws: Floats, groups: int) -> Estimate:
    """A figure with the interval of draws that were made elsewhere, each patient within one of so many groups."""
    people = figure.patients or figure.n
    defined = draws[np.isfinite(draws)]
    few = f"; unreliable: {errors.count_phrase(people, 'patient')}" * (people < FEW_PATIENTS)
    if not len(defined) or np.ptp(defined) <= 1e-12:
        return _degenerate(figure, people, figure.unit == "" and people > 0, few)
    tail = tail_share(people, groups)
    low, high = np.quantile(defined, [tail, 1 - tail]).tolist()
    return replace(figure, low=low, high=high, method=f"patient bootstrap within {groups} sites{few}")


def _is_within(scale: IntervalScale, value: float, figures: Floats) -> bool:
    """Whether a figure lies between the ends of its scale. Raises UsageError where it or a draw of it is outside."""
    least = 0.0 if scale == "share" else -1.0
    found = np.append(figures, value)
    if found.min() < least - EDGE or found.max() > 1 + EDGE:
        problem = f"a figure of {found.min():g} to {found.max():g} on the scale of a {scale}, {least:g} to 1"
        raise UsageError(problem, "intervals", "State another scale, or none")
    return least + EDGE < value < 1 - EDGE


def _logit(share: float, error: float, tail: float) -> tuple[float, float]:
    """The interval of a share with this standard error: symmetric about its logit, so that it ends within 0 and 1.

    Pepe, The Statistical Evaluation of Medical Tests 2003, section 5.2.2 (coverage: bench/laws.py)
    """
    middle = special.logit(share)
    half = float(stats.norm.isf(tail)) * error / (share * (1 - share))
    return float(special.expit(middle - half)), float(special.expit(middle + half))


def _fisher(value: float, error: float, figures: Floats | None, tail: float) -> tuple[float, float]:
    """The interval of a correlation: symmetric about Fisher's z, its inverse hyperbolic tangent.

    error:   the standard error of z by small steps from equal weights
    figures: of whole draws, which vary as heavy tails do; None for ranks, whose draws have ties that people have not
    Fisher, Metron 1921 (coverage: bench/laws.py)
    """
    if figures is not None:
        within = figures[np.abs(figures) < 1 - EDGE]  # of draws of two people it is 1, whatever the others are
        error = max(error, float(np.arctanh(within).std(ddof=1))) if len(within) > 1 else error
    middle = float(np.arctanh(value))
    half = float(stats.norm.isf(tail)) * error
    return float(np.tanh(middle - half)), float(np.tanh(middle + half))


@lru_cache(maxsize=1024)  # of the same people every figure has the same
def tail_share(patients: int, models: int = 1) -> float:
    """Share of draws beyond each end: less than 2.5 %, because draws from few patients vary too little.

    models: within each of which so many patients in all are resampled, so that each takes a degree of freedom

    Expanded percentiles: Hesterberg, Am Stat 2015, doi:10.1080/00031305.2015.1089789, section 5.3;
    without them a 95 % interval holds the truth in 89 % of studies with 10 patients, with them in 93 %
    (bench/claims/coverage.py)
    """
    free = patients - models
    if free < 1:
        return 0.0
    return float(stats.norm.sf(np.sqrt(patients / free) * stats.t.isf((1 - LEVEL) / 2, free)))


def _degenerate(figure: Estimate, trials: int, exact: bool, note: str) -> Estimate:
    """The estimate where every draw gives the same figure.

    All scores 1 means that `trials` independent people (for AUROC: disjoint pairs, one of each class) succeeded.
    """
    if exact and round(figure.value, 12) in (0.0, 1.0):
        bound = clopper_pearson(trials if figure.value > 0.5 else 0, trials)
        return replace(figure, low=bound.low, high=bound.high, method=f"{bound.method}, by patient{note}")
    return replace(figure, method=f"none: all draws are equal{note}")


def sample_weightings(strata: Integers, how: Resampling, *, width: int) -> Iterator[Floats]:
    """(some draws, people) how often each was sampled, with replacement from its own stratum.

    width: images that a statistic spreads each draw over, so that memory stays within bounds
    """
    at_once = max(1, CHUNK // width)
    if how.draws <= at_once and how.draws * len(strata) <= CHUNK // 2:
        yield _all_weightings(strata.astype(np.intp).tobytes(), how.seed, how.draws)
    else:
        yield from _sample(strata, how.seed, how.draws, at_once)


@lru_cache(maxsize=4)  # of the same people every figure is resampled anew
def _all_weightings(strata: bytes, seed: int, draws: int) -> Floats:
    [weights] = _sample(np.frombuffer(strata, np.intp), seed, draws, draws)
    weights.setflags(write=False)
    return weights


def _sample(strata: Integers, seed: int, draws: int, at_once: int) -> Iterator[Floats]:
    random = np.random.default_rng(seed)
    people = len(strata)
    # In the order of their first people: of two classes, either is then sampled alike as the positive one.
    members = [np.flatnonzero(strata == stratum) for stratum in dict.fromkeys(strata.tolist())]
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        rows_of_members = [own[random.integers(len(own), size=(rows, len(own)))] for own in members]
        flat = np.hstack(rows_of_members) + people * np.arange(rows)[:, None]
        yield np.bincount(flat.ravel(), minlength=rows * people).reshape(rows, people).astype(np.float64)


def rarest_classes(classes: NDArray[Any], owner: Integers) -> Integers:
    """(people,) each patient's rarest class, counted in people."""
    names, label = np.unique(classes, return_inverse=True)
    has = np.zeros((int(owner.max(initial=-1)) + 1, len(names)), dtype=bool)
    has[owner, label] = True
    rarest = np.where(has, has.sum(axis=0), len(has) + 1).argmin(axis=1)
    return np.asarray(np.unique(rarest, return_inverse=True)[1])


def _check_aligned(scores: ArrayLike, patients: ArrayLike) -> tuple[Floats, NDArray[Any]]:
    values = np.asarray(scores, dtype=np.float64)
    owners = np.asarray(patients)
    if not _weighting.have_same_cases(values, owners):
        problem = f"scores of shape {values.shape} for patients of shape {owners.shape}"
        raise UsageError(problem, "intervals", "Give one score and one patient for each image")
    return values, owners


def _refuse_impossible(successes: int, n: int, level: float) -> None:
    _weighting.refuse_impossible_level(level)
    if not 0 <= successes <= n or n < 1:
        raise UsageError(f"{successes} successes in {n} trials", "intervals", "Give 0 <= successes <= n and n >= 1")


def figure_of_differences(
    estimate: Estimate, differences: Floats, patients: ArrayLike, *, seed: Seed, side: Literal[-1, 0, 1] = 0
) -> Estimate:
    """The RMSE, or the lower (-1) or upper (1) limit of agreement, with the interval of bootstrap-t from 10 patients.

    differences: (images,) predicted less reference
    The spread of few patients is mostly too small, and so is that of its draws: percentiles end below the truth. Here
    each draw counts by its own standard error. Hall, Ann Stat 1988, doi:10.1214/aos/1176350933
    """
    people, owner = np.unique(np.asarray(patients), return_inverse=True)
    if estimate.low is None or len(people) < FEW_PATIENTS:
        return estimate
    moved = abs(side)
    times = side * NORMAL_95 or 1.0
    middle = moved * float(differences.mean())
    sums = np.stack([np.bincount(owner, (differences - middle) ** power) for power in range(3)], axis=1)

    def judged(weights: Floats) -> Floats:
        """(2, draws) figures and their standard errors, by what each patient moves them."""
        count, total, squares = (weights @ sums).T
        mean = moved * total / count
        variance = squares / count - mean**2
        slope = times / (2 * np.sqrt(variance))
        slopes = np.stack([slope * (mean**2 - variance) - moved * mean, moved - 2 * slope * mean, slope], axis=1)
        standard_errors = np.sqrt((weights * (slopes @ sums.T) ** 2).sum(axis=1)) / count
        return np.stack([middle + mean + times * np.sqrt(variance * count / (count - moved)), standard_errors])

    with np.errstate(invalid="ignore", divide="ignore"):
        [value], [error] = judged(np.ones((1, len(people))))
        draws = sample_weightings(np.zeros(len(people), dtype=np.intp), Resampling.from_seed(seed), width=len(owner))
        figures, standard_errors = np.concatenate([judged(weights) for weights in draws], axis=1)
        apart = (figures - value) / standard_errors
    below, above = np.quantile(apart[np.isfinite(apart)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = estimate.method.replace("bootstrap", "bootstrap-t", 1)
    return replace(estimate, low=float(value - above * error), high=float(value - below * error), method=method)
