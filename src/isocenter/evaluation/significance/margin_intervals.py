"""Intervals of differences that hold their level at a margin, where one model is truly worse: of means, calls, areas.

How often each would wrongly show that a model is not inferior: bench/margins.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.evaluation.significance.outcome import LEVEL, NOTHING
from isocenter.lazy import special, stats
from isocenter.values import Floats

Interval = tuple[float, float] | None
# Of fewer patients the intervals of skewed means are too narrow at a margin. At 2.5 % on one side, of models whose Dice
# has a longer tail by the margin, 4.9 % of 7 patients, 3.5 % of 20 and 3.2 % of 50 are called non-inferior by
# mistake, and 4.0 and 3.8 % of 20 and 50 patients with two images each (bench/margins.py). Up to one and a half times
# the level is held to be robust: Bradley, Br J Math Stat Psychol 1978, doi:10.1111/j.2044-8317.1978.tb00581.x
FEWEST_FOR_MARGINS = 50
# Halvings of an interval of width 2 down to rounding.
HALVINGS = 50


def too_few_for_margins(patients: int, fewest: int = FEWEST_FOR_MARGINS) -> str:
    """Why no margin can be tested by an interval that needs more patients; empty where there are enough."""
    return f"its interval holds its level from {fewest} patients on, and these are {patients}" * (patients < fewest)


def exchange_interval(sums: Floats, cases: Floats, drawn: NDArray[np.integer[Any]]) -> Interval:
    """The differences of means by which one model may be moved without the exchange of models showing any.

    sums:  (patients,) each patient's sum of differences; cases: (patients,) how many
    drawn: (draws, patients) which patients are exchanged; with all 2**n the interval is exact for differences that lie
           evenly about their mean, and absent where even all exchanges are too few for its level
    The means of such subsets of patients: Hartigan, J Am Stat Assoc 1969, doi:10.1080/01621459.1969.10501057
    """
    both = np.asarray(drawn @ np.stack([sums, cases], axis=1), dtype=np.float64)
    both = both[both[:, 1] > 0]
    means, beyond = np.sort(both[:, 0] / both[:, 1]), int((1 - LEVEL) / 2 * (len(both) + 1))
    if not beyond or means[-beyond] - means[beyond - 1] <= NOTHING:
        return None
    return float(means[beyond - 1]), float(means[-beyond])


def score_interval(gained: float, lost: float, cases: float) -> tuple[float, float]:
    """The difference of two shares of right calls of the same cases.

    gained, lost: cases that only the second, or only the first, calls right; need not be whole numbers, so that those
                  of patients with several cases can be divided by their design effect
    Tango, Stat Med 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B
    """
    return _score_end(gained, lost, cases), -_score_end(lost, gained, cases)


def design_effect(differences: Floats, owner: np.ndarray) -> float:
    """By how much the variance of a mean grows because a patient's cases are alike; 1 where each has one.

    Where no case differs it is as large as can be. Rao and Scott, Biometrics 1992, doi:10.2307/2532311
    """
    apart, people = differences - differences.mean(), int(owner.max()) + 1
    if people == len(differences) or people < 2:
        return len(differences) / people
    of_cases = float((apart**2).sum())
    if of_cases <= NOTHING:
        return len(differences) / people
    return max(1.0, float((np.bincount(owner, apart) ** 2).sum()) * people / (people - 1) / of_cases)


def area_interval(areas: Floats, covariance: Floats, people: int) -> Interval:
    """The difference of two AUROCs by their own intervals, each symmetric about its logit, and how they go together.

    Absent where an AUROC is 0 or 1, which has no variance. Student's law of the patients less one for each AUROC.
    Zou, Psychol Methods 2007, doi:10.1037/1082-989X.12.4.399; Pepe, The Statistical Evaluation of Medical Tests 2003,
    section 5.2.2
    """
    if people < 3 or not np.isfinite(covariance).all() or not ((areas > 0) & (areas < 1)).all():
        return None
    errors = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
    half = float(stats.t.isf((1 - LEVEL) / 2, people - 2)) * errors / (areas * (1 - areas))
    below = areas - special.expit(special.logit(areas) - half)
    above = special.expit(special.logit(areas) + half) - areas
    alike = float(covariance[0, 1] / errors.prod()) if errors.min() > NOTHING else 0.0
    ends = [np.sqrt(max(a**2 + b**2 - 2 * alike * a * b, 0.0)) for a, b in ((below[1], above[0]), (above[1], below[0]))]
    difference = float(areas[1] - areas[0])
    return (difference - float(ends[0]), difference + float(ends[1])) if max(ends) > NOTHING else None


def _score_end(gained: float, lost: float, cases: float) -> float:
    """The lower end: the least difference that the score test does not refuse."""
    deviate = float(stats.norm.ppf((1 + LEVEL) / 2))
    low, high = -1.0, (gained - lost) / cases
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # The likeliest share of cases that only the first calls right, if the shares differ by this.
        slope = (2 * cases - gained + lost) * middle - gained - lost
        only_first = (np.sqrt(slope**2 + 8 * cases * lost * middle * (1 - middle)) - slope) / (4 * cases)
        variance = cases * (2 * only_first + middle * (1 - middle))
        is_refused = gained - lost - cases * middle > deviate * max(variance, 0.0) ** 0.5
        low, high = (middle, high) if is_refused else (low, middle)
    return float(high)
