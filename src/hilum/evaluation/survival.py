"""Figures of predicted times to an event, with censoring.

times:    (cases,) to the event, or to the last contact
happened: (cases,) whether it was the event; the others are censored then
Figures take `weights`, (..., cases) how often each case counts, and give one number a weighting: (...).
Where both fall on one time, an event comes before a censoring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import UsageError
from hilum.evaluation import _weighting, classification, conformal
from hilum.evaluation.classification import BRIER
from hilum.evaluation.intervals import CHUNK, LEVEL
from hilum.evaluation.metric import Metric
from hilum.lazy import stats
from hilum.values import Floats

Truths = NDArray[np.bool_]
# Of Newton's method for a slope: steps of at most 1, after which one that still moves has no end. A hazard whose
# logarithm is beyond 50 is like a certain one.
NEWTON_STEPS = 25
CONVERGED = 1e-6
LARGEST_LOG = 50.0
# Of predicted survival, as in the paper on D-calibration.
GROUPS = 10
# Of the variance that a direction of these would have without censoring, the share that has to be left.
LEAST_KNOWN = 0.1
SURVIVAL_METRICS = (
    Metric("uno_c", "Uno's c", least=0.0, most=1.0),
    Metric("harrell_c", "Harrell's c", least=0.0, most=1.0),
    Metric("integrated_brier", "Integrated Brier score", "less", least=0.0, most=1.0),
    Metric("calibration_slope", better="aim", aim=1.0),
    Metric("dynamic_auc", "AUC, cumulative/dynamic", least=0.0, most=1.0),
    BRIER,
    Metric("expected_over_observed", better="aim", aim=1.0),
)
# The p-value of a test: small where survival is not calibrated, and else anything.
D_CALIBRATION = Metric("d_calibration", "D-calibration, p", "aim", is_of_belief=True, may_judge=False)


@dataclass(frozen=True, eq=False)
class Steps:
    """A function of time that holds its value from one step to the next.

    times:  (steps,) rising; values: (..., steps) from each of them on
    start:  before the first
    """

    times: Floats
    values: Floats
    start: float = 1.0

    def at(self, when: ArrayLike) -> Floats:
        """(..., *when) at these times, a step at the time itself included."""
        return self._after(np.searchsorted(self.times, np.asarray(when), side="right"))

    def before(self, when: ArrayLike) -> Floats:
        """(..., *when) just before these times."""
        return self._after(np.searchsorted(self.times, np.asarray(when), side="left"))

    def thin(self, most: int) -> Steps:
        """The same with at most so many steps, evenly chosen among those that change it; the last stays."""
        changing = np.flatnonzero(np.diff(self.values, prepend=self.start))
        if len(changing) > most:
            changing = changing[np.linspace(0, len(changing) - 1, most).round().astype(np.intp)]
        return Steps(self.times[changing], self.values[..., changing], self.start)

    def _after(self, steps: NDArray[np.intp]) -> Floats:
        first = np.full((*self.values.shape[:-1], 1), self.start)
        return np.asarray(np.concatenate([first, self.values], axis=-1)[..., steps])


def kaplan_meier(times: ArrayLike, happened: ArrayLike, weights: Floats | None = None) -> Steps:
    """The share of people to whom the event has not happened yet.

    Kaplan and Meier, J Am Stat Assoc 1958, doi:10.1080/01621459.1958.10501452
    """
    moments, died, _, at_risk = _counts(*_check(times, happened), weights)
    return Steps(moments, np.cumprod(1 - _share(died, at_risk), axis=-1))


def censoring_curve(times: ArrayLike, happened: ArrayLike) -> Steps:
    """The share of people who would still be followed if nobody had the event: Kaplan-Meier of the censoring."""
    moments, died, left, at_risk = _counts(*_check(times, happened), None)
    return Steps(moments, np.cumprod(1 - _share(left, at_risk - died)))


def kaplan_meier_band(times: ArrayLike, happened: ArrayLike) -> tuple[Steps, Steps]:
    """The lower and the upper end of the 95 % interval of `kaplan_meier`, at each time by itself.

    By the logarithm of the cumulative hazard, so that it stays within 0..1; variance by Greenwood.
    Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, 2002, section 1.4
    """
    moments, died, _, at_risk = _counts(*_check(times, happened), None)
    survival = np.cumprod(1 - _share(died, at_risk))
    left = at_risk - died
    variance = np.cumsum(_share(died, at_risk * left))
    hazard = -np.log(np.where(survival > 0, survival, 1.0))
    width = float(stats.norm.ppf((1 + LEVEL) / 2)) * _share(np.sqrt(variance), hazard)
    low, high = (np.where(survival > 0, np.exp(-hazard * np.exp(sign * width)), 0.0) for sign in (1, -1))
    return Steps(moments, low), Steps(moments, high)


def people_at_risk(times: ArrayLike, when: ArrayLike) -> NDArray[np.intp]:
    """(*when,) people who are followed, and without the event, just before these times."""
    last = np.sort(np.asarray(times, dtype=np.float64))
    return np.asarray(len(last) - np.searchsorted(last, np.asarray(when), side="left"))


def logrank_test(times: ArrayLike, happened: ArrayLike, group: ArrayLike) -> tuple[float, float]:
    """z, above 0 where the `group` (truths) has more events than expected, and p of the log-rank test.

    NaN where nobody of one side was followed when somebody of the other had the event.

    Mantel, Cancer Chemother Rep 1966
    """
    last, events = _check(times, happened)
    members = _weighting.require_truths(group, "group")
    if members.all() or not members.any() or not events.any():
        return float("nan"), float("nan")
    x, y = (stats.CensoredData.right_censored(last[side], ~events[side]) for side in (members, ~members))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = stats.logrank(x, y)
    return float(found.statistic), float(found.pvalue)


def harrell_c(risk: ArrayLike, times: ArrayLike, happened: ArrayLike, weights: Floats | None = None) -> Floats:
    """Among pairs of whom it is known who had the event first, the share in which he had the higher risk.

    risk: (cases,) ties count half
    It depends on who was censored when: with other censoring it converges to another number (`uno_c`).
    NaN where there is no such pair. Harrell et al., JAMA 1982, doi:10.1001/jama.1982.03320430047030
    """
    last, events = _check(times, happened)
    return _concordance(_numbers(risk, last), last, events, events.astype(np.float64), weights)


def uno_c(
    risk: ArrayLike,
    times: ArrayLike,
    happened: ArrayLike,
    followed: Steps,
    horizon: float,
    weights: Floats | None = None,
) -> Floats:
    """`harrell_c` as it would be without censoring: of events before the horizon, by inverse probability of censoring.

    followed: `censoring_curve`, of training cases where the risk was learnt from them
    Each event counts 1 / followed(just before)²; NaN where no pair is known.
    Uno et al., Stat Med 2011, doi:10.1002/sim.4154
    """
    last, events = _check(times, happened)
    counted = events & (last < horizon)
    importance = np.zeros(len(last))
    importance[counted] = _inverse(followed.before(last[counted])) ** 2
    return _concordance(_numbers(risk, last), last, events, importance, weights)


def dynamic_auc(
    risk: ArrayLike,
    times: ArrayLike,
    happened: ArrayLike,
    followed: Steps,
    horizon: float,
    weights: Floats | None = None,
) -> Floats:
    """Chance that who has the event by the horizon has a higher risk than who has not (cumulative/dynamic AUC).

    Those who are censored before it are made up for by the others: `followed` as for `uno_c`.
    Uno et al., J Am Stat Assoc 2007, doi:10.1198/016214507000000149
    """
    last, events = _check(times, happened)
    had = events & (last <= horizon)
    is_known = had | (last > horizon)
    if not is_known.any():
        return np.full(_weighting.case_weights(weights, len(last)).shape[:-1], np.nan)
    importance = np.ones(len(last))
    importance[had] = _inverse(followed.before(last[had]))
    counted = (_weighting.case_weights(weights, len(last)) * importance)[..., is_known]
    return classification.auroc(_numbers(risk, last)[is_known], had[is_known], counted)


def brier_errors(
    survival: ArrayLike, times: ArrayLike, happened: ArrayLike, followed: Steps, moments: ArrayLike
) -> Floats:
    """(cases, moments) squared error of each case's survival probability, weighted for the censoring: mean over cases.

    survival: (cases, moments) the probability that the event has not happened by then
    followed: as for `uno_c`
    Graf et al., Stat Med 1999, doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5
    """
    last, events = _check(times, happened)
    chance = np.asarray(survival, dtype=np.float64)
    when = np.asarray(moments, dtype=np.float64)
    if chance.shape != (len(last), len(when)):
        problem = f"survival of {chance.shape} for {len(last)} cases at {len(when)} times"
        raise UsageError(problem, "survival", "Give one probability for each case and time")
    had = events[:, None] & (last[:, None] <= when)
    return np.where(had, chance, 1 - chance) ** 2 * censoring_weights(last, events, followed, when)


def censoring_weights(times: ArrayLike, happened: ArrayLike, followed: Steps, moments: ArrayLike) -> Floats:
    """(cases, moments) how many cases each counts for by each moment, so that those who were censored before count 0.

    followed: as for `uno_c`
    Their mean over cases is 1, but for chance, where the cases are censored as `followed` says.
    """
    last, events = _check(times, happened)
    when = np.asarray(moments, dtype=np.float64)
    had = events[:, None] & (last[:, None] <= when)
    alive = last[:, None] > when
    # Of those without the event by then the weight is that of the moment, whatever comes later.
    of_events = _inverse(followed.before(last))
    of_rest = _inverse(followed.at(when))
    return np.where(had, of_events[:, None], np.where(alive, of_rest, 0.0))


def integrate_errors(errors: ArrayLike, moments: ArrayLike) -> Floats:
    """(cases,) mean over time of (cases, moments) errors, by trapezoids: their mean is the integrated Brier score."""
    when = np.asarray(moments, dtype=np.float64)
    return np.asarray(np.trapezoid(np.asarray(errors), when, axis=-1) / (when[-1] - when[0]))


def expected_over_observed(
    chance: ArrayLike, times: ArrayLike, happened: ArrayLike, horizon: float, weights: Floats | None = None
) -> Floats:
    """Mean predicted chance of the event by the horizon, over its frequency by Kaplan-Meier; 1 is calibrated.

    NaN where nobody was followed for so long and not all had the event: their curve says nothing of what came later.
    Van Calster et al., BMC Med 2019, doi:10.1186/s12916-019-1466-7 (calibration in the large)
    """
    last, events = _check(times, happened)
    count = _weighting.case_weights(weights, len(last))
    expected = _weighting.ratio_or_nan(count @ _numbers(chance, last), count.sum(axis=-1))
    free = kaplan_meier(last, events, count).at(horizon)
    is_known = (count @ (last >= horizon) > 0) | (free == 0)
    return np.where(is_known, _weighting.ratio_or_nan(expected, 1 - free), np.nan)


def calibration_slope(
    risk: ArrayLike, times: ArrayLike, happened: ArrayLike, weights: Floats | None = None, penalty: float = 0.0
) -> Floats:
    """The coefficient of the predicted log hazards in Cox's model: 1 is calibrated, less where they are too extreme.

    risk:    (cases,) log hazards
    penalty: of half the squared log hazard ratio of a standard deviation of risk, for few events
    NaN where nobody had the event, all risks are alike, or no finite slope is the likeliest. Ties by Breslow.
    Van Houwelingen, Stat Med 2000, doi:10.1002/1097-0258(20001230)19:24<3401::AID-SIM554>3.0.CO;2-2
    """
    last, events = _check(times, happened)
    order = np.argsort(last, kind="stable")
    first = np.searchsorted(last[order], last[order], side="left")  # who is at risk then, in this order, and all after
    numbers = _numbers(risk, last)[order]
    count = _weighting.case_weights(weights, len(last))[..., order]
    spread = float(numbers.std())
    if spread == 0:
        return np.full(count.shape[:-1], np.nan)
    scaled = (numbers - numbers.mean()) / spread
    had = count * events[order]
    slope = np.zeros(count.shape[:-1])
    step = np.ones(count.shape[:-1])
    for _ in range(NEWTON_STEPS):
        relative = count * np.exp(np.clip(slope[..., None] * scaled, -LARGEST_LOG, LARGEST_LOG))
        moments = (relative, relative * scaled, relative * scaled**2)
        alive, linear, square = (np.cumsum(one[..., ::-1], axis=-1)[..., ::-1][..., first] for one in moments)
        mean = _share(linear, alive)
        gradient = (had * (scaled - mean)).sum(axis=-1) - penalty * slope
        curvature = (had * (_share(square, alive) - mean**2)).sum(axis=-1) + penalty
        step = np.clip(_weighting.ratio_or_nan(gradient, curvature), -1.0, 1.0)
        slope = slope + step
    return np.asarray(np.where(abs(step) < CONVERGED, slope / spread, np.nan))


def d_calibration(
    survival: ArrayLike, happened: ArrayLike, groups: int = GROUPS, *, patients: ArrayLike | None = None
) -> tuple[Floats, float]:
    """(groups,) share of cases by their predicted survival at their own time, which is uniform, and the p that it is.

    survival: (cases,) probability of no event until the event, or until the last visit of those without
    patients: (cases,) whose, where patients have several, whose cases count as one: they share what happened
    Who is followed no longer is spread over all probabilities below, which says less of the shares than an event does:
    their covariance is that of multinomial counts less what each such spread hides, by the law of total variance.
    Directions of which little is known do not count. NaN where that is all, as where nobody was followed for long.
    Haider et al., JMLR 2020, arXiv:1811.11347, whose p is that of counted events: with censoring it is far too large.
    """
    chance = np.clip(np.asarray(survival, dtype=np.float64), 0.0, 1.0)
    events = _weighting.require_truths(happened, "happened")
    shares, people = conformal.patient_shares(len(chance), patients)
    group_of = np.eye(groups)[np.minimum((chance * groups).astype(int), groups - 1)]
    below = np.clip(chance[:, None] - np.arange(groups) / groups, 0.0, 1 / groups)
    left = np.divide(below, chance[:, None], out=group_of.copy(), where=chance[:, None] > 0)
    counts = shares @ np.where(events[:, None], group_of, left)
    hidden = left[~events] * shares[~events, None]
    full = people * (np.eye(groups) / groups - 1 / groups**2)
    sizes, turned = np.linalg.eigh(full - np.diag(hidden.sum(axis=0)) + hidden.T @ left[~events])
    enough = sizes > LEAST_KNOWN * people / groups
    squared = ((counts - people / groups) @ turned[:, enough]) ** 2
    p = float(stats.chi2.sf(np.sum(squared / sizes[enough]), enough.sum())) if enough.any() else float("nan")
    return counts / max(1, people), p


def _concordance(risk: Floats, times: Floats, happened: Truths, importance: Floats, weights: Floats | None) -> Floats:
    """Weighted share of right pairs; importance: (cases,) what each event counts, 0 for what is none."""
    count = _weighting.case_weights(weights, len(times))
    right, comparable = (np.zeros(count.shape[:-1]) for _ in range(2))
    first = np.flatnonzero(importance)
    for start in range(0, len(first), step := max(1, CHUNK // len(times))):
        block = first[start : start + step]
        # Who was censored at the time of an event had it later.
        later = (times > times[block, None]) | ((times == times[block, None]) & ~happened)
        credit = later * ((risk < risk[block, None]) + 0.5 * (risk == risk[block, None]))
        pairs = count[..., block] * importance[block]
        right += (pairs * (count @ credit.T)).sum(axis=-1)
        comparable += (pairs * (count @ later.T.astype(np.float64))).sum(axis=-1)
    return _weighting.ratio_or_nan(right, comparable)


def _counts(times: Floats, happened: Truths, weights: Floats | None) -> tuple[Floats, Floats, Floats, Floats]:
    """The (moments,) that occur; (..., moments) with the event, censored, and followed until then."""
    order = np.argsort(times, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(times[order])) + 1])
    count = _weighting.case_weights(weights, len(times))[..., order]
    died = np.add.reduceat(count * happened[order], starts, axis=-1)
    everybody = np.add.reduceat(count, starts, axis=-1)
    still = np.cumsum(everybody[..., ::-1], axis=-1)[..., ::-1]
    return times[order][starts], died, everybody - died, still


def _check(times: ArrayLike, happened: ArrayLike) -> tuple[Floats, Truths]:
    last = np.asarray(times, dtype=np.float64)
    events = _weighting.require_truths(happened, "happened")
    if not _weighting.have_same_cases(last, events) or not len(last) or not (np.isfinite(last) & (last > 0)).all():
        problem = f"times of {last.shape} for events of {events.shape}, or a time that is not above 0"
        raise UsageError(problem, "survival", "Give one time and one event for each case")
    return last, events


def _numbers(values: ArrayLike, times: Floats) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != times.shape or np.isnan(numbers).any():
        problem = f"predictions of {numbers.shape} for times of {times.shape}, or one that is NaN"
        raise UsageError(problem, "survival", "Give one number for each case")
    return numbers


def _inverse(followed: Floats) -> Floats:
    """1 over the share that is still followed; NaN where nobody is, which no weight makes up for."""
    return _weighting.ratio_or_nan(1.0, followed)


def _share(part: Floats, total: Floats) -> Floats:
    """part / whole; 0 where nobody is left."""
    return np.asarray(np.divide(part, total, out=np.zeros(np.shape(total)), where=total > 0))
