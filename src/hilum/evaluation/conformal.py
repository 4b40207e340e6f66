"""Sets and intervals with a promised coverage (conformal prediction), and settings with a promised risk.

Those of the mean of several networks, each trained without its fold, are of CV+.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.errors import UsageError
from hilum.lazy import stats
from hilum.values import Floats, StatedSettings

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

Method = Literal["lac", "aps", "raps", "contiguous"]
Truths = NDArray[np.bool_]
# Of each of several networks scores that rise, each with what it counts.
Steps = tuple[tuple[tuple[float, float], ...], ...]
# What RAPS adds for each class, and the number of first classes for which it adds nothing.
RAPS = 0.01, 1
SET_METHODS: tuple[Method, ...] = get_args(Method)
# Where the surer a network is of a class, the worse that scores, so that the likeliest is in each set: else the sets of
# the surest cases would be empty.
NEVER_EMPTY: tuple[Method, ...] = ("aps", "raps")
# The group of whoever has no threshold of his own.
EVERYONE = "all"
# Patients of a group below whom nothing is promised of it alone: the thresholds of fewer vary too much.
FEWEST_OF_GROUP = 20
# From which sureness on a case is answered, the strictest first, at last each case; and where sequences of tests start.
SURE_FROM = [*(1 / (1 + np.exp(-np.arange(9.875, -2.0, -0.125)))).tolist(), 0.0]
STARTS = 8
# Patients with an answer whose error rate is believed, and the most that are looked at for when a test would pass.
FEWEST_ANSWERED, MOST_ANSWERED = 20, 10_000_000
# Sums of shares of patients are equal up to this.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Conformal:
    """The thresholds of sets or intervals, as cases that did not train have found them.

    method:     by which answers are scored
    level:      the coverage that they promise
    by:         what the groups are, within each of which it holds
    n:          {group: patients}, also of groups that have no threshold because these are too few
    thresholds: {group: the worst score that is still in}; infinite where nothing can be left out
    exact:      whether these cases had decided nothing else; the coverage is approximate otherwise
    crossed:    {group: what `cross_steps` made} of folds that each scored what they had not seen, for sets of their
                mean; where it is not known what each says the thresholds decide
    """

    method: str
    level: float
    by: str
    n: Mapping[str, int]
    thresholds: Mapping[str, float]
    exact: bool
    crossed: Mapping[str, Steps] = field(default_factory=dict)

    @classmethod
    def from_record(cls, settings: StatedSettings) -> Conformal:
        """Make a threshold from plain values."""
        limits = {str(key): _number(one) for key, one in settings["thresholds"].items()}
        counts = {str(key): int(one) for key, one in settings["n"].items()}
        method = str(settings["method"])
        by = str(settings["by"])
        level = float(settings["level"])
        crossed = {
            str(group): tuple(tuple((_number(score), float(share)) for score, share in one) for one in steps)
            for group, steps in settings.get("crossed", {}).items()
        }
        return cls(method, level, by, counts, limits, bool(settings["exact"]), crossed)

    @property
    def settings(self) -> dict[str, PlainValue]:
        """Plain values from which `from_record` makes an equal one; an infinite threshold is None."""
        limits = {key: _plain(one) for key, one in self.thresholds.items()}
        settings: dict[str, PlainValue] = {"method": self.method, "level": self.level, "by": self.by, "n": dict(self.n)}
        settings |= {"thresholds": limits, "exact": self.exact}
        if self.crossed:
            settings["crossed"] = {
                group: [[[_plain(score), share] for score, share in one] for one in steps]
                for group, steps in self.crossed.items()
            }
        return settings

    def threshold(self, group: str) -> float:
        """Threshold of a group, or of everyone; infinite for a group of which nothing is known."""
        return self.thresholds.get(group, self.thresholds.get(EVERYONE, math.inf))

    @property
    def lacking(self) -> str:
        """The groups with too few patients for a threshold, and how many are needed, in words; empty without any.

        Of groups whose names begin with a preposition, as those of findings do.
        """
        thresholds = [
            f"{errors.count_phrase(people, 'patient')} {group}"
            for group, people in self.n.items()
            if group not in self.thresholds
        ]
        if thresholds:
            return f"{', '.join(thresholds)}, {fewest_for_group(self.level)} needed{' of each' * (len(thresholds) > 1)}"
        return ""

    def steps(self, group: str, networks: int) -> Steps | None:
        """The folds' scores of a group, or of everyone; None unless there are so many folds."""
        steps = self.crossed.get(group, self.crossed.get(EVERYONE))
        return None if steps is None or len(steps) != networks else steps


def _number(value: Any) -> float:
    return math.inf if value is None else float(value)


def _plain(number: float) -> float | None:
    return None if math.isinf(number) else number


def class_scores(
    probabilities: ArrayLike, method: Method = "lac", *, draws: ArrayLike | None = None, raps: tuple[float, int] = RAPS
) -> Floats:
    """(cases, classes) how badly each class goes with each case's probabilities, (cases, classes); less is better.

    lac:        1 less the probability of the class, which gives the smallest sets; Sadinle et al., arXiv:1609.00451
    aps:        sum of all probabilities down to that of the class; Romano et al., arXiv:2006.02544
    raps:       the same, and a penalty for each class beyond the first; Angelopoulos et al., arXiv:2009.14193
    contiguous: of grades in order: LAC after filling the gaps, a grade being as probable as the less probable of
                the best grades on either side, itself among them. Sets by these scores have no gaps
    draws:      (cases,) uniform numbers, for the randomised scores of APS and RAPS; without them nothing is random
    raps:       the penalty for a class, and the number of first classes without one
    NaN where a probability is NaN.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    if method == "lac":
        return 1 - chances
    if method == "contiguous":
        below = np.maximum.accumulate(chances, axis=1)
        above = np.maximum.accumulate(chances[:, ::-1], axis=1)[:, ::-1]
        return 1 - np.minimum(below, above)
    order = np.argsort(-chances, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(chances, order, axis=1), axis=1)
    if method == "raps":
        sums += raps[0] * np.maximum(0, np.arange(1, chances.shape[1] + 1) - raps[1])
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores if draws is None else scores - chances * np.asarray(draws)[:, None]


def conformal_threshold(scores: ArrayLike, level: float, patients: ArrayLike | None = None) -> tuple[float, int]:
    """The score that a share `level` of new cases does not exceed, and the number of patients that it comes from.

    scores:   (cases,) of the calibration cases; NaN counts as worse than any
    patients: (cases,) whose case it is; without them each case is another patient's
    Infinite for fewer patients than 1 / (1 - level) - 1: then nothing can be left out.
    With one case a patient the coverage follows a beta-binomial law; Vovk, arXiv:1209.2673.
    """
    if not 0 < level < 1:
        raise UsageError(f"a coverage of {level:g}", "conformal_threshold", "Give more than 0 and less than 1")
    values = np.asarray(scores, dtype=np.float64)
    values = np.where(np.isnan(values), np.inf, values)
    shares, people = patient_shares(len(values), patients)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(shares[order]) >= level * (people + 1) - ROUNDING
    return (float(values[order][np.argmax(reached)]) if reached.any() else math.inf), people


def mondrian_thresholds(
    scores: ArrayLike, groups: ArrayLike, level: float, patients: ArrayLike | None = None
) -> dict[Any, tuple[float, int]]:
    """{group: its threshold and its patients}, so that the coverage holds within each group.

    groups: (cases,) the class of each case, or a covariate; who has none is not here, and is left without threshold
    Vovk et al., Algorithmic Learning in a Random World (Mondrian conformal predictors), doi:10.1007/b106715
    """
    values = np.asarray(scores)
    named = np.asarray(groups)
    owners = None if patients is None else np.asarray(patients)
    thresholds = {}
    for group in np.unique(named).tolist():
        is_in_group = named == group
        thresholds[group] = conformal_threshold(
            values[is_in_group], level, None if owners is None else owners[is_in_group]
        )
    return thresholds


def widest_threshold(thresholds: Mapping[str, float]) -> float:
    """The threshold for a case whose group is not known."""
    return max(thresholds.values(), default=math.inf)


def prediction_sets(scores: ArrayLike, thresholds: ArrayLike, *, never_empty: bool = False) -> Truths:
    """(cases, classes) which classes are in each case's set; a score that is no number leaves its class in.

    thresholds:  one for all, or one a class, (classes,), or one a case, (cases, 1)
    never_empty: whether the class with the least score is in however high that is: by the methods of `NEVER_EMPTY`
    """
    scores_of_classes = np.asarray(scores, dtype=np.float64)
    is_in_set = ~(scores_of_classes > np.asarray(thresholds, dtype=np.float64))
    if never_empty:
        np.put_along_axis(is_in_set, np.argmin(scores_of_classes, axis=-1, keepdims=True), True, axis=-1)
    return is_in_set


def value_scores(predicted: ArrayLike, reference: ArrayLike, deviation: ArrayLike = 1.0) -> Floats:
    """Number of deviations between references and predictions; without deviations in the unit of the values.

    An interval is the prediction less and plus the threshold times the deviation. Lei et al., arXiv:1604.04173
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return cast(
            "Floats", np.abs(np.asarray(predicted, dtype=np.float64) - np.asarray(reference)) / np.asarray(deviation)
        )


def quantile_scores(low: ArrayLike, high: ArrayLike, reference: ArrayLike) -> Floats:
    """Distance of the references from predicted quantiles, negative inside; the threshold widens both ends.

    Conformalised quantile regression; Romano et al., arXiv:1905.03222
    """
    true = np.asarray(reference)
    return cast("Floats", np.maximum(np.asarray(low) - true, true - np.asarray(high)))


def ordered_ends(low: float, high: float) -> tuple[float, float]:
    """The ends of an interval; where the lower would lie above the upper one, the point midway between them twice.

    They pass each other where quantiles were predicted too wide, so that the threshold is negative, and are narrow in
    one case. Nothing would be covered in it; a point covers no less.
    """
    middle = (low + high) / 2
    return (middle, middle) if low > high else (low, high)


def time_scores(predicted: ArrayLike, observed: ArrayLike) -> Floats:
    """Ratio of predicted to observed times; a bound is the prediction over the threshold.

    observed: time until the event or the last visit. Nobody's event is earlier, so that a lower bound on it is one on
              the time of the event too, whatever ends an observation; Candès et al., arXiv:2103.09672
    """
    with np.errstate(divide="ignore"):
        return np.asarray(predicted, dtype=np.float64) / np.asarray(observed, dtype=np.float64)


def setting_controlled_on_average(
    losses: ArrayLike, risk: float, patients: ArrayLike | None = None, *, largest: float = 1.0
) -> int:
    """The first setting whose expected loss in a new case is at most `risk`; -1 where none is known to be.

    losses:  (cases, settings) of calibration cases, each 0 to `largest`, the settings in the order in which losses fall
    Conformal risk control; Angelopoulos et al., arXiv:2208.02814
    """
    means, people = _risks(losses, patients)
    return _first(is_controlled(means * people, people, risk, largest=largest))


def is_controlled(
    losses: ArrayLike, people: int, risk: float, delta: float | None = None, *, largest: float = 1.0
) -> Truths:
    """(settings,) whether the expected loss in a new patient is at most `risk`.

    losses: (settings,) sum of what each patient loses, 0 to `largest` (1 where there is a delta), the settings in the
            order in which losses fall or rise
    delta:  None: it is on average over draws of patients; else with a confidence of 1 - delta, by the binomial law
            where nobody loses a part (tolerance limits of Wilks, doi:10.1214/aoms/1177731788), else as
            `setting_controlled_with_confidence`
    """
    sums = np.asarray(losses, dtype=np.float64)
    if delta is None:
        return np.asarray(sums + largest <= risk * (people + 1) + ROUNDING)
    is_exact = bool((np.abs(sums - sums.round()) < ROUNDING).all())
    return np.asarray(_p_of_errors(sums / max(1, people), people, risk, is_exact) <= delta)


def fewest_for_control(risk: float, delta: float | None = None) -> int:
    """Fewest patients that control a risk: with fewer no setting is known to, though it be wrong for none.

    delta: as of `setting_controlled_with_confidence`; None on average
    """
    if delta is None:
        return math.ceil(1 / risk - 1 - ROUNDING)
    return math.ceil(math.log(delta) / math.log(1 - risk) - ROUNDING)


def fewest_for_group(level: float) -> int:
    """Fewest patients that a group needs for a promise of its own, and for a threshold that leaves anything out."""
    return max(FEWEST_OF_GROUP, fewest_for_control(1 - level))


def setting_controlled_with_confidence(
    losses: ArrayLike, risk: float, delta: float, patients: ArrayLike | None = None
) -> int:
    """The first setting whose risk is at most `risk`, with a confidence of 1 - delta; -1 where none is known to be.

    losses: (cases, settings), each 0 to 1, the settings in the order in which losses fall: they are tested from the
            last one on, until a p-value of Hoeffding and Bentkus exceeds delta
    Learn then Test; Angelopoulos et al., arXiv:2110.01052
    """
    means, people = _risks(losses, patients)
    return _first(_p_values(means, people, risk) <= delta)


def least_sureness(
    sureness: ArrayLike, case_errors: ArrayLike, risk: float, delta: float, patients: ArrayLike | None = None
) -> float:
    """Least sureness at which the mean error of answers is at most `risk`, with a confidence of 1 - delta.

    sureness:    (cases,) 0 to 1; NaN is no answer
    case_errors: (cases,) of calibration cases, each 0 to 1
    0 where all may be answered, infinite where no sureness is known to do. Learn then Test on the cases that each of
    `SURE_FROM` would answer, from eight of these downwards until one fails, each sequence at an eighth of delta. The
    unit is a patient with an answer; Angelopoulos et al., arXiv:2110.01052, Geifman and El-Yaniv, arXiv:1705.08500
    """
    means, people, exact = _answer_errors(sureness, case_errors, patients)
    p = _p_of_errors(means, people, risk, exact)
    holds = (people > 0) & (p <= delta / STARTS)
    threshold = math.inf
    for start in range(0, len(SURE_FROM), len(SURE_FROM) // STARTS):
        end = next((place for place in range(start, len(SURE_FROM)) if not holds[place]), len(SURE_FROM))
        threshold = min(threshold, SURE_FROM[end - 1]) if end > start else threshold
    return threshold


def cases_to_answer(
    sureness: ArrayLike, case_errors: ArrayLike, risk: float, delta: float, patients: ArrayLike | None = None
) -> int | None:
    """Number of cases from about which `least_sureness` would let answers pass, if more of them are like these.

    0 where no number would do, because even the surest answers are wrong more often than `risk`; None without any
    answer. A sequence whose first test 20 patients or more reach is believed before those that fewer do.
    """
    means, people, exact = _answer_errors(sureness, case_errors, patients)
    firsts = slice(0, None, len(SURE_FROM) // STARTS)
    many = np.unique(np.geomspace(1, MOST_ANSWERED, 2000).round())
    needed = []
    for mean, n, is_exact in zip(means[firsts], people[firsts], exact[firsts], strict=True):
        is_rough = n < FEWEST_ANSWERED
        expected = (n * mean + 1) / (n + 2) if is_rough else mean  # one in two of two more: none of few is no rate
        passes = _p_of_errors(expected, many, risk, is_exact) <= delta / STARTS
        if n and expected < risk and passes.any():
            cases = math.ceil(max(n, many[np.argmax(passes)]) * len(np.asarray(case_errors)) / n)
            needed.append((is_rough, cases))
    return min(needed, default=(False, 0))[1] if people.any() else None


def _answer_errors(
    sureness: ArrayLike, case_errors: ArrayLike, patients: ArrayLike | None
) -> tuple[Floats, NDArray[np.intp], Truths]:
    """Mean error of answers from each of `SURE_FROM` on, their patients, and whether these are independent trials."""
    sure = np.nan_to_num(np.asarray(sureness, dtype=np.float64), nan=-1.0)
    wrong = np.asarray(case_errors)
    owners = None if patients is None else np.asarray(patients)
    binary = bool(np.isin(wrong, (0, 1)).all())
    means = []
    people = []
    exact = []
    for least in SURE_FROM:
        answered = sure >= least
        mean, count = _risks(wrong[answered][:, None], None if owners is None else owners[answered])
        means.append(float(mean[0]))
        people.append(count)
        exact.append(binary and count == answered.sum())
    return np.array(means), np.array(people, dtype=np.intp), np.array(exact)


def _p_of_errors(means: Floats, people: Any, risk: float, exact: Any) -> Floats:
    """P values by the binomial law where errors are independent trials, else by Hoeffding and Bentkus."""
    trials = stats.binom.cdf(np.round(people * means), people, risk)
    return np.asarray(np.where(exact, trials, _p_values(means, people, risk)))


def _p_values(means: Floats, people: Any, risk: float) -> Floats:
    """P values by Hoeffding and Bentkus that losses of 0 to 1 with these means have an expectation above `risk`."""
    low = np.minimum(means, risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(a > 0, a * np.log(a / b), 0.0) for a, b in ((low, risk), (1 - low, 1 - risk))]
    bentkus = math.e * stats.binom.cdf(np.ceil(people * means - ROUNDING), people, risk)
    return np.asarray(np.minimum(np.exp(-people * sum(parts)), bentkus))


def _first(holds: Truths) -> int:
    """The first from which on all hold; -1 where the last does not."""
    until = int(np.argmin(holds[::-1])) if not holds.all() else len(holds)
    return len(holds) - until if until else -1


def patient_shares(cases: int, patients: ArrayLike | None) -> tuple[Floats, int]:
    """(cases,) what each case counts, in sum 1 a patient, and the patients."""
    if patients is None:
        return np.ones(cases), cases
    people, owner, count = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    return 1 / count[owner], len(people)


def _risks(losses: ArrayLike, patients: ArrayLike | None) -> tuple[Floats, int]:
    """(settings,) mean loss over patients, and the patients."""
    values = np.asarray(losses, dtype=np.float64)
    shares, people = patient_shares(len(values), patients)
    return shares @ values / max(1, people), people


# Scores of a network that a model carries: of more the next larger ones stand for them, which makes sets no smaller.
MOST_STEPS = 64


def cross_steps(scores: ArrayLike, folds: ArrayLike, networks: int, patients: ArrayLike | None = None) -> Steps:
    """Steps that sets and intervals of the mean of so many networks need.

    scores: (n,) of calibration cases by the network that has not seen them; NaN counts as worse than any
    folds:  (n,) the number of that network, from 0
    """
    fold_scores = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=np.inf, posinf=np.inf)
    numbers = np.asarray(folds)
    shares, _ = patient_shares(len(fold_scores), patients)
    return tuple(_steps(fold_scores[numbers == one], shares[numbers == one]) for one in range(networks))


def cross_sets(steps: Steps, candidates: ArrayLike, level: float) -> Truths:
    """(...) which candidates are in the set; candidates: (networks, ...) their scores by each of the networks."""
    offered = np.asarray(candidates, dtype=np.float64)
    better = np.zeros(offered.shape[1:])
    for step, offer in zip(steps, offered, strict=True):
        reached = np.cumsum([0.0, *(share for _, share in step)])
        better += reached[np.searchsorted([score for score, _ in step], offer, side="left")]
    return np.isnan(offered).any(axis=0) | (better < level * (count_scored_patients(steps) + 1) - ROUNDING)


def cross_interval(
    steps: Steps, low: ArrayLike, high: ArrayLike, widths: ArrayLike, level: float
) -> tuple[float, float]:
    """The ends of an interval, infinite with too few patients, and both midway where they would pass each other.

    low, high: (networks,) what each says of a new case: one value, or its quantiles
    widths:    (networks,) by which a score is multiplied, an error bar or 1
    """
    above = cross_lower_bound(steps, -np.asarray(high), level, widths)
    return ordered_ends(cross_lower_bound(steps, low, level, widths), -above)


def cross_lower_bound(steps: Steps, values: ArrayLike, level: float, widths: ArrayLike = 1.0) -> float:
    """The lower end alone, which negative scores may move above the values; minus infinity with too few patients.

    values: (networks,) what each says of a new case; widths: (networks,) by which a score is multiplied, or 1
    """
    folds = zip(steps, np.asarray(values), np.broadcast_to(np.asarray(widths), len(steps)), strict=True)
    rows = [(value - score * wide, share) for own, value, wide in folds for score, share in own]
    downwards, shares = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    return -_first_reached(-downwards, shares, level * (count_scored_patients(steps) + 1))


def count_scored_patients(steps: Steps) -> int:
    """The patients whose cases were scored."""
    return round(sum(share for own in steps for _, share in own))


def cross_bound(steps: Steps, level: float) -> float:
    """The coverage that is surely held: 2 level - 1 less what few patients cost; Barber et al., theorem 4."""
    people = count_scored_patients(steps)
    networks = len(steps)
    if people < networks:
        return 0.0
    lost = min(2 * (1 - 1 / networks) / (people / networks + 1), (1 - networks / people) / (networks + 1))
    return max(0.0, 2 * level - 1 - lost)


def _steps(scores: Floats, shares: Floats) -> tuple[tuple[float, float], ...]:
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(len(order), MOST_STEPS) or 1)
    return tuple((float(scores[part[-1]]), float(shares[part].sum())) for part in parts if len(part))


def _first_reached(ends: Floats, shares: Floats, count: float) -> float:
    """The first of the ends, from the smallest on, by which so much is counted; infinite where it is never."""
    order = np.argsort(ends, kind="stable")
    is_reached = np.cumsum(shares[order]) >= count - ROUNDING
    return float(ends[order][np.argmax(is_reached)]) if is_reached.any() else math.inf
