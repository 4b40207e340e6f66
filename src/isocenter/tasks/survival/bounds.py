"""A lower bound of the time of the event, by the times of cases that did not train.

Nobody's event is earlier than the last visit, so that a bound of the observed time is one of the event's, whatever
censors: Candès et al., arXiv:2103.09672. Where nothing that ends an observation has to do with the patient, a sharper
one comes from those who would have been observed long enough: Sesia and Svetnik, arXiv:2412.09729.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from isocenter.belief import Certainty, Found, assured_each, crossed_each
from isocenter.evaluation import EVERYONE, Steps, cross_lower_bound, time_scores
from isocenter.tasks.survival.scores import event_of
from isocenter.values import Case, Floats

# The name of the bound among a prediction's intervals.
TIME = "time"
# What a lower bound is of, and the method of the thresholds of each.
BOUNDS = {"observed": "ratio", "event": "event_ratio"}
# Of training cases, who are still observed at the time beyond which a bound of the event's time says nothing.
STILL_OBSERVED = 0.5
SESIA = "arXiv:2412.09729"
ASSUMED = (
    "; a bound of the event's time, up to {:g}, by those who would have been observed until then, if nothing that ends "
    "an observation has to do with the patient"
)
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class LowerBound:
    """A lower bound of times, of the kind that a person chose.

    kind:     one of `BOUNDS`
    horizons: rising times by which probabilities are stated
    followed: the share of training cases who would still be observed if nobody had the event
    """

    kind: str
    horizons: Sequence[float]
    followed: Steps

    @property
    def latest(self) -> float:
        """What a bound of the event's time never exceeds: the last horizon that half would reach, or the first."""
        return max(
            (one for one in self.horizons if self.followed.before(one) >= STILL_OBSERVED), default=self.horizons[0]
        )

    def found(self, certainty: Certainty, usual: ArrayLike, cases: Sequence[Case], *, exact: bool) -> Found:
        """With the threshold of these cases. usual: (cases,) the time that each is expected to reach"""
        times, happened = np.array([event_of(case) for case in cases], dtype=np.float64).T
        kept = np.ones(len(times), dtype=bool)
        if self.kind == "event":
            kept, times = self._observed(times, happened > 0), np.minimum(times, self.latest)
        scores = time_scores(np.asarray(usual)[kept], times[kept]), np.array([case.patient for case in cases])[kept]
        found, made = assured_each(certainty, BOUNDS[self.kind], EVERYONE, {EVERYONE: scores}, exact=exact)
        if self.kind == "event":
            words = ASSUMED.format(self.latest)
            made = {name: replace(one, because=one.because + words, source=SESIA) for name, one in made.items()}
        return found, made

    def stated(self, certainty: Certainty, usual: float, risks: Sequence[float]) -> dict[str, float]:
        """The bound under its name, by what each of several folds says, or by the threshold; none before it is found.

        usual: the time that the case is expected to reach
        risks: (folds,) uncalibrated, by each of the folds whose mean the model is
        """
        if certainty.conformal is None:
            return {}
        conformal = certainty.conformal
        steps = conformal.steps(EVERYONE, len(risks))
        if steps is None:
            low = usual / conformal.threshold(EVERYONE)
        else:
            low = float(np.exp(cross_lower_bound(steps, -np.array(risks, dtype=np.float64), conformal.level)))
        return {TIME: min(low, self.latest) if conformal.method == BOUNDS["event"] else low}

    def reached(self, times: Floats, happened: Floats, low: Floats) -> Floats:
        """(cases,) 1 where the time reaches its bound, else 0.

        Of a bound of the event's time censored cases tell nothing: each event before its bound also counts for those
        who were no longer observed by then.
        """
        if self.kind != "event":
            return (times >= low).astype(np.float64)
        return np.asarray(1 - happened * (times < low) / np.maximum(self.followed.before(times), TINY))

    def _observed(self, times: Floats, happened: np.ndarray) -> np.ndarray:
        """(cases,) who is under observation at `latest`, where the time, as far as that, is known of everyone.

        Whoever had the event before is drawn with the probability of being observed so long that training cases tell.
        """
        chance = float(self.followed.before(self.latest)) / np.maximum(self.followed.before(times), TINY)
        drawn = np.random.default_rng(0).random(len(times)) < chance
        return np.asarray((times >= self.latest) | (happened & drawn))


def crossed_bound(certainty: Certainty, risks: ArrayLike, cases: Sequence[Case], folds: Sequence[int]) -> Found:
    """With what a bound of the observed time by the mean of folds rests on.

    risks: (cases,) uncalibrated, of the fold that has not seen the case
    """
    logs = -np.asarray(risks) - np.log([event_of(case)[0] for case in cases])
    people = np.array([case.patient for case in cases])
    return crossed_each(certainty, {EVERYONE: (logs, np.asarray(folds), people)}, max(folds) + 1)
