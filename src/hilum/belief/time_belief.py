"""Answers that are times to an event: a lower bound of the time, by the times of cases that did not train.

Nobody's event is earlier than the last visit, so that a bound of the observed time is one of the event's, whatever
censors: Candès et al., arXiv:2103.09672. Where nothing that ends an observation has to do with the patient, a sharper
one comes from those who would have been observed long enough: Sesia and Svetnik, arXiv:2412.09729.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilum.belief import prediction_sets
from hilum.belief.certainties import Certainty
from hilum.belief.covering_results import Belief, UnseenCases
from hilum.evaluation import conformal
from hilum.evaluation.conformal import EVERYONE
from hilum.evaluation.survival import Steps
from hilum.values import Decision, Floats

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
class TimeLowerBound:
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
        """Longest time that a bound may state: the last horizon that half would reach, or the first."""
        return max(
            (one for one in self.horizons if self.followed.before(one) >= STILL_OBSERVED), default=self.horizons[0]
        )

    def state_bound(self, certainty: Certainty, usual: float, risks: Sequence[float]) -> dict[str, float]:
        """The bound under its name, by what each of several folds says, or by the threshold; none before it is found.

        usual: the time that the case is expected to reach
        risks: (folds,) uncalibrated, by each of the folds whose mean the model is
        """
        if certainty.conformal is None:
            return {}
        guarantee = certainty.conformal
        steps = guarantee.steps(EVERYONE, len(risks))
        if steps is None:
            low = usual / guarantee.threshold(EVERYONE)
        else:
            low = float(np.exp(conformal.cross_lower_bound(steps, -np.array(risks, dtype=np.float64), guarantee.level)))
        return {TIME: min(low, self.latest) if guarantee.method == BOUNDS["event"] else low}

    def is_reached(self, times: Floats, happened: Floats, low: Floats) -> Floats:
        """(cases,) 1 where the time reaches its bound, else 0.

        Of a bound of the event's time censored cases tell nothing: each event before its bound also counts for those
        who were no longer observed by then.
        """
        if self.kind != "event":
            return (times >= low).astype(np.float64)
        return np.asarray(1 - happened * (times < low) / np.maximum(self.followed.before(times), TINY))


@dataclass(frozen=True, eq=False)
class TimeBelief(Belief):
    """Times to an event; of its rows outputs are (cases, 2) the risk, uncalibrated, and the time that is expected.

    truth of rows: (cases, 2) the time, and 1 where the event happened then, 0 where the case was censored
    """

    certainty: Certainty
    bound: TimeLowerBound

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """The threshold of a lower bound of the observed time, and so of the event's."""
        if self.certainty.conformal is not None:
            return {}
        kind = self.bound.kind
        latest = self.bound.latest
        times, happened = np.array(rows.truth, dtype=np.float64).T
        is_kept = np.ones(len(times), dtype=bool)
        if kind == "event":
            is_kept = self._is_observed(times, happened > 0)
            times = np.minimum(times, latest)
        scores = conformal.time_scores(rows.outputs[is_kept, 1], times[is_kept]), rows.patients[is_kept]
        decisions = prediction_sets.find_conformal_thresholds(
            self.certainty, BOUNDS[kind], EVERYONE, {EVERYONE: scores}, exact=exact
        )
        if kind != "event":
            return decisions
        words = ASSUMED.format(latest)
        return {name: replace(one, because=one.because + words, source=SESIA) for name, one in decisions.items()}

    def sets_of_folds(self, rows: UnseenCases) -> dict[str, Decision]:
        """The scores of folds; a bound of the event's time goes by its threshold."""
        if self.certainty.conformal is None or self.bound.kind == "event":
            return {}
        logs = -rows.outputs[:, 0] - np.log(rows.truth[:, 0])
        return prediction_sets.add_fold_scores(
            self.certainty.conformal, {EVERYONE: (logs, rows.folds, rows.patients)}, int(rows.folds.max()) + 1
        )

    def _is_observed(self, times: Floats, happened: np.ndarray) -> np.ndarray:
        """(cases,) who is under observation at `latest`, where the time, as far as that, is known of everyone.

        Whoever had the event before is sampled with the probability of being observed so long that training cases tell.
        """
        chance = float(self.bound.followed.before(self.bound.latest)) / np.maximum(
            self.bound.followed.before(times), TINY
        )
        is_sampled = np.random.default_rng(0).random(len(times)) < chance
        return np.asarray((times >= self.bound.latest) | (happened & is_sampled))
