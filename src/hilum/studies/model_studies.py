"""Sizes of studies of models: AUROCs of one or two models, readers by two modalities, data to develop one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from hilum.errors import UsageError
from hilum.evaluation.significance.auroc_tests import ReaderVariances
from hilum.lazy import optimize, special, stats
from hilum.studies import _study_design
from hilum.studies._study_design import Design, DesignInput, Inputs
from hilum.values import Floats

# An AUROC has a variance from so many cases of each class on.
FEWEST_OF_CLASS = 2


def expected_area_covariance(first: float, second: float, correlation: float, prevalence: float) -> float:
    """Covariance of the AUROCs of two models on the same cases, times the number of cases.

    correlation: of their scores, which are normal with one spread in both kinds of case; 1 gives a model's variance
    """
    # Two positives above a negative of their own: the chance of Bamber's second moment, the same for two negatives.
    ends = special.ndtri([first, second])
    law = stats.multivariate_normal(cov=[[1.0, correlation / 2], [correlation / 2, 1.0]])
    return float((law.cdf(ends) - first * second) / (prevalence * (1 - prevalence)))


def expected_area_variance(area: float, prevalence: float) -> float:
    """Variance of an AUROC, times the number of cases."""
    return expected_area_covariance(area, area, 1.0, prevalence)


def _gap(inputs: Inputs) -> float:
    return float(inputs["expected"] - inputs["at_least"] + (inputs["margin"] or 0.0))


def _area_refuse(inputs: Inputs) -> None:
    if inputs["expected"] is not None and _gap(inputs) <= 0:
        raise _study_design.no_effect_error("at_least" if inputs["margin"] is None else "at_least less the margin")
    if inputs["at_least"] - (inputs["margin"] or 0.0) < 0.5:
        raise UsageError("an AUROC to beat below 0.5 is worse than chance", "--set at_least", "Give 0.5 or more")


def _area_power(inputs: Inputs, n: float) -> float:
    expected, least, share, alpha = (inputs[name] for name in ("expected", "at_least", "prevalence", "alpha"))
    if n * min(share, 1 - share) < FEWEST_OF_CLASS:
        return 0.0
    if inputs["correlation"] is None:
        null = expected_area_variance(least - (inputs["margin"] or 0.0), share)
        return _study_design.normal_power(
            _gap(inputs), n, alpha, math.sqrt(null), math.sqrt(expected_area_variance(expected, share))
        )
    # Both models have the same AUROC under the null hypothesis: that between the two.
    same = (expected + least) / 2
    null = 2 * expected_area_variance(same, share) * (1 - inputs["correlation"])
    one = expected_area_variance(expected, share)
    other = expected_area_variance(least, share)
    apart = one + other - 2 * inputs["correlation"] * math.sqrt(one * other)
    return _study_design.normal_power(
        _gap(inputs), n, alpha, math.sqrt(apart if inputs["margin"] is not None else null), math.sqrt(apart)
    )


def _area_simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The z statistic of AUROCs of normal scores, with DeLong's variance."""
    expected = inputs["expected"]
    least = inputs["at_least"]
    correlated = inputs["correlation"]
    shifts = np.sqrt(2) * special.ndtri([expected, least])
    shared = 0.0 if correlated is None else _score_correlation(expected, least, correlated, inputs["prevalence"])
    null = (least if correlated is None else 0.0) - (inputs["margin"] or 0.0)
    found = np.zeros((draws, len(sizes)))
    for draw in range(draws):
        truth = random.random(sizes[-1]) < inputs["prevalence"]
        noise = random.standard_normal((2, sizes[-1]))
        noise[1] = shared * noise[0] + np.sqrt(1 - shared**2) * noise[1]
        scores = noise + shifts[:, None] * truth
        for look, n in enumerate(sizes):
            found[draw, look] = _area_statistic(scores[: 1 if correlated is None else 2, :n], truth[:n], null)
    return found


def _score_correlation(first: float, second: float, correlation: float, prevalence: float) -> float:
    """The correlation of scores whose AUROCs have this one."""
    spread = math.sqrt(expected_area_variance(first, prevalence) * expected_area_variance(second, prevalence))

    def apart(shared: float) -> float:
        return expected_area_covariance(first, second, shared, prevalence) / spread - correlation

    return float(optimize.brentq(apart, -1e-6, 1.0)) if apart(1.0) > 0 else 1.0


def _area_statistic(scores: Floats, truth: np.ndarray, null: float) -> float:
    """The distance of an AUROC, or of the difference of two, from the null hypothesis in standard errors."""
    if min(truth.sum(), (~truth).sum()) < 2:
        return 0.0
    above = np.stack([_share_below(one[truth], one[~truth]) for one in scores])
    below = np.stack([1 - _share_below(one[~truth], one[truth]) for one in scores])
    if len(scores) == 2:
        above, below = above[:1] - above[1:], below[:1] - below[1:]
    variance = above.var(ddof=1) / above.size + below.var(ddof=1) / below.size
    error = math.sqrt(max(variance, 1e-12))
    area = float(above.mean())
    if len(scores) == 2:
        return (area - null) / error
    # On the logit scale: a high AUROC has a small variance, so that the plain test finds too much.
    area = min(max(area, 1e-6), 1 - 1e-6)
    return float((special.logit(area) - special.logit(null)) * area * (1 - area) / error)


def _share_below(scores: Floats, others: Floats) -> Floats:
    """Share of the other scores that lie below each score."""
    return np.searchsorted(np.sort(others), scores) / len(others)


AUROC = Design(
    "auroc",
    {
        "expected": DesignInput("fraction", "the AUROC that is expected"),
        "at_least": DesignInput("fraction", "the AUROC to beat; with correlation that of the other model", needed=True),
        "prevalence": DesignInput("fraction", "share of cases with the disease", needed=True),
        "correlation": DesignInput("share", "of the AUROCs of two models on the same cases"),
        "margin": DesignInput("fraction", "how much lower than at_least the AUROC may be (non-inferiority)"),
    },
    "z test of an AUROC, or of the difference of two, whose variance is that of normal scores",
    "Bamber, J Math Psychol 1975, doi:10.1016/0022-2496(75)90001-2; "
    "Obuchowski, Stat Methods Med Res 1998, doi:10.1177/096228029800700405",
    _area_power,
    _area_refuse,
    effect=("expected", lambda inputs: (inputs["at_least"] - (inputs["margin"] or 0.0), 1.0)),
    simulation=_area_simulated,
)


def pilot_inputs(pilot: ReaderVariances) -> dict[str, float]:
    """The inputs that a pilot gives.

    The mean square of readers by modalities holds the chance of cases too, which shrinks with their number.
    """
    between = max(pilot.between, 0.0)
    return {
        "interaction": max(pilot.interaction - pilot.own + between, 0.0),
        "own": max(pilot.own, between),
        "between": between,
        "pilot_cases": pilot.cases,
    }


def _variances(inputs: Inputs, cases: float) -> tuple[float, float, float]:
    """Mean square of readers by modalities, Var less Cov1 and Cov2 less Cov3, with so many cases."""
    scale = inputs["pilot_cases"] / cases
    own = inputs["own"] * scale
    between = inputs["between"] * scale
    return inputs["interaction"] + own - between, own, between


def _reader_power(inputs: Inputs, n: float) -> float:
    """Power by the noncentral t distribution with Hillis' degrees of freedom."""
    readers = inputs["readers"]
    if n < 2 * FEWEST_OF_CLASS:
        return 0.0
    square, _, between = _variances(inputs, n)
    total = square + readers * between
    error = (2 / readers * total) ** 0.5
    if not square > 0:
        return float(special.ndtr(abs(inputs["difference"]) / error - stats.norm.isf(inputs["alpha"] / 2)))
    free = total**2 / (square**2 / (readers - 1))
    return float(stats.nct.sf(stats.t.isf(inputs["alpha"] / 2, free), free, abs(inputs["difference"]) / error))


def _reader_refuse(inputs: Inputs) -> None:
    if inputs["readers"] < 2:
        raise UsageError("one reader does not show how readers differ", "--set readers", "Plan two readers or more")
    if inputs["difference"] == 0:
        raise _study_design.no_effect_error("no difference")
    if inputs["own"] < inputs["between"]:
        problem = "own is below between: a reader's difference varies less than what two readers share"
        raise UsageError(problem, "--set own", "Give own, Var less Cov1, at least as large as between, Cov2 less Cov3")
    if not inputs["own"] + inputs["interaction"] > 0:
        raise UsageError("no variance at all", "--set own", "Give the variances of a pilot in which readers differ")


def _reader_simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """Readers' differences by the model of Obuchowski and Rockette, tested, as the z of the same p-value."""
    readers = inputs["readers"]
    shown = []
    for n in sizes:
        square, _, between = _variances(inputs, n)
        shared = np.sqrt(2 * between) * random.standard_normal((draws, 1))
        apart = abs(inputs["difference"]) + shared + np.sqrt(2 * square) * random.standard_normal((draws, readers))
        seen = apart.var(axis=1, ddof=1) / 2
        total = seen + readers * between
        free = total**2 / (seen**2 / (readers - 1))
        chance = stats.t.sf(apart.mean(axis=1) / np.sqrt(2 / readers * total), free)
        shown.append(-special.ndtri(np.clip(chance, 1e-300, 1.0)))
    return np.stack(shown, axis=1)


MRMC = Design(
    "mrmc",
    {
        "difference": DesignInput("number", "the difference of the modalities' mean AUROCs"),
        "readers": DesignInput("count", "readers, each of whom reads every case by both modalities", needed=True),
        "interaction": DesignInput(
            "nonnegative", "variance of readers by modalities, without that of cases", needed=True
        ),
        "own": DesignInput("nonnegative", "Var less Cov1 of the pilot's AUROCs", needed=True),
        "between": DesignInput("nonnegative", "Cov2 less Cov3 of the pilot's AUROCs", needed=True),
        "pilot_cases": DesignInput("count", "cases of the pilot", needed=True),
    },
    "F test of Obuchowski and Rockette with Hillis' degrees of freedom, readers and cases random; variances of cases "
    "are the pilot's, times its cases over n",
    "Hillis, Obuchowski and Berbaum, Acad Radiol 2011, doi:10.1016/j.acra.2010.09.007",
    _reader_power,
    _reader_refuse,
    effect=("difference", lambda inputs: (0.0, 0.5)),
    simulation=_reader_simulated,
    is_clustered=False,
    beyond="Plan more readers, or give a larger difference or less power",
)


# Of the overall risk, and between R² as it seems and as it is.
PRECISION = 0.05
OPTIMISM = 0.05
Z = 1.959964


def _largest(inputs: Inputs) -> float:
    """The largest R² of Cox and Snell that a model can have at this prevalence."""
    share = inputs["prevalence"]
    null = share * math.log(share) + (1 - share) * math.log(1 - share)
    return 1 - math.exp(2 * null)


def _number(inputs: Inputs) -> float:
    """The largest of three sizes: of the shrinkage, of the optimism in R², and of the precision of the overall risk."""
    r2 = inputs["r2"]
    parameters = inputs["parameters"]
    share = inputs["prevalence"]
    shrinkages = inputs["shrinkage"], r2 / (r2 + OPTIMISM * _largest(inputs))
    of_shrinkage = (parameters / ((one - 1) * math.log(1 - r2 / one)) for one in shrinkages)
    return cast(float, max(*of_shrinkage, (Z / PRECISION) ** 2 * share * (1 - share)))


def _refuse(inputs: Inputs) -> None:
    largest = _largest(inputs)
    if not inputs["r2"] < min(largest, inputs["shrinkage"]):
        problem = f"r2 is {inputs['r2']:g}, and at this prevalence and shrinkage it is below "
        raise UsageError(
            f"{problem}{min(largest, inputs['shrinkage']):.3f}", "--set r2", "Give R² as Cox and Snell define it"
        )


def _power(inputs: Inputs, n: float) -> float:
    raise UsageError("prediction-model has no power", "--set", "Leave out n, power and looks")


PREDICTION_MODEL = Design(
    "prediction-model",
    {
        "r2": DesignInput("fraction", "the R² of Cox and Snell that the model is expected to have", needed=True),
        "parameters": DesignInput("count", "parameters that are fitted", needed=True),
        "prevalence": DesignInput("fraction", "share of participants with the outcome", needed=True),
        "shrinkage": DesignInput("fraction", "shrinkage of the parameters that is accepted", 0.9),
    },
    "the largest n of three: for the shrinkage, for an optimism of 0.05 in R², for the overall risk to 0.05",
    "Riley et al., BMJ 2020, doi:10.1136/bmj.m441",
    _power,
    _refuse,
    number=_number,
    events=lambda inputs: float(inputs["prevalence"]),
    is_clustered=False,
    beyond="Plan fewer parameters, or give a larger r2",
)
