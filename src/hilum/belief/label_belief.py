"""Answers of several labels, each present or absent: calibration, thresholds of calls, and sets of both answers.

A copy of what decodes travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from hilum.belief import certainties, prediction_sets
from hilum.belief.certainties import ABSENT, BY_PRESENCE, PRESENT, Certainty
from hilum.belief.covering_results import Belief, UnseenCases
from hilum.belief.operating_points import Calls
from hilum.evaluation import conformal
from hilum.evaluation.calibration_fit import USUAL_SPREAD, UnseenOutputs
from hilum.values import Decision, Floats, Prediction
from hilum.values.covariate_values import CovariateValues


def groups_of_finding(finding: str) -> tuple[str, str]:
    """The groups of patients within each of whom sets of a finding hold: those who have it, and those who do not."""
    return f"with {finding}", f"without {finding}"


def label_sets(
    certainty: Certainty, probabilities: Mapping[str, float], each: Floats | None = None
) -> dict[str, tuple[str, ...]]:
    """{finding: present, absent, or both where it stays undecided}; without thresholds of both a finding has none.

    each: (folds, findings) probabilities by each of the folds whose mean the model is, uncalibrated
    """
    guarantee = certainty.conformal
    if guarantee is None:
        return {}
    sets = {}
    for index, (name, chance) in enumerate(probabilities.items()):
        groups = groups_of_finding(name)
        if not all(group in guarantee.thresholds for group in groups):
            continue
        in_set = conformal.prediction_sets([1 - chance, chance], [guarantee.threshold(group) for group in groups])
        if each is not None:
            steps = [guarantee.steps(group, len(each)) for group in groups]
            folds = zip(steps, (1 - each[:, index], each[:, index]), strict=True)
            crossed = [conformal.cross_sets(one, score, guarantee.level) for one, score in folds if one is not None]
            in_set = in_set if None in steps else np.array(crossed)
        if not in_set.any():  # where neither is ruled in, the likelier answer: that covers no less
            in_set = np.array([chance, 1 - chance]) >= 0.5
        sets[name] = tuple(compress((PRESENT, ABSENT), in_set))
    return sets


@dataclass(frozen=True)
class LabelBelief(Belief):
    """Labels that do not exclude each other; of its rows outputs are (cases, labels) probabilities of presence.

    truth of rows: (cases, labels) 1 where present, 0 where absent, NaN where it is not known
    calls:         thresholds of the labels, and by groups of people
    """

    certainty: Certainty
    names: tuple[str, ...]
    calls: Calls

    @property
    def by_covariates(self) -> Callable[[Prediction, CovariateValues], Prediction] | None:
        """The thresholds of the patient's group; None where no group has its own."""
        return self.calls.grouped.state_thresholds if self.calls.grouped.levels else None

    @property
    def takes_temperature(self) -> bool:
        """Where none is found yet."""
        return self.certainty.takes_temperature

    def outputs(self, rows: UnseenCases) -> UnseenOutputs:
        """Logarithms of the odds of the labels."""
        odds = certainties.log_odds(rows.outputs)
        return UnseenOutputs(odds, rows.truth, rows.patients, self.names, "labels", spread=USUAL_SPREAD)

    def calibrate(self, rows: UnseenCases) -> dict[str, Decision]:
        """A calibration, and then thresholds by the rule of the operating point."""
        if self.certainty.calibration is not None and not self.calls.is_open:
            return {}
        unseen = self.outputs(rows)
        certainty, decisions = certainties.add_calibration(self.certainty, unseen)
        chances = certainties.chances_from_log_odds(certainty.calibrator.odds(unseen.logs, self.names))
        columns = {name: (chances[:, place], rows.truth[:, place]) for place, name in enumerate(self.names)}
        return {**decisions, **self.calls.find_thresholds(columns, rows)}

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """Thresholds of each label, of those who have it and of others."""
        if self.certainty.conformal is not None:
            return {}
        chances = certainties.chances_from_log_odds(
            self.certainty.calibrator.odds(certainties.log_odds(rows.outputs), self.names)
        )
        scores = {name: (own, rows.patients[known]) for name, own, known in self._chance_errors(chances, rows)}
        return prediction_sets.find_conformal_thresholds(self.certainty, "lac", BY_PRESENCE, scores, exact=exact)

    def sets_of_folds(self, rows: UnseenCases) -> dict[str, Decision]:
        """The scores of folds, of groups that have a threshold."""
        guarantee = self.certainty.conformal
        if guarantee is None or not guarantee.thresholds:
            return {}
        scored = [one for one in self._chance_errors(rows.outputs, rows) if one[0] in guarantee.thresholds]
        scores = {name: (own, rows.folds[known], rows.patients[known]) for name, own, known in scored}
        return prediction_sets.add_fold_scores(guarantee, scores, int(rows.folds.max()) + 1)

    def _chance_errors(self, chances: Floats, rows: UnseenCases) -> Iterator[tuple[str, Floats, NDArray[np.bool_]]]:
        """Each group of each label, how far from the truth the chance is in its cases, and which these are."""
        for index, name in enumerate(self.names):
            for group, side in zip(groups_of_finding(name), (1, 0), strict=True):
                is_on_side = rows.truth[:, index] == side
                yield group, np.abs(side - chances[:, index])[is_on_side], is_on_side
