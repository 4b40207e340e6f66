"""Risks and survival in reports: pictures, charts, findings, and a guess beside them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from isocenter.belief import TIME, finite
from isocenter.evaluation import Table
from isocenter.report import Figure, figures, number
from isocenter.tasks.properties import stated_image
from isocenter.tasks.survival.scores import Outcomes, moments, overview_figures, survival_column, time_axis
from isocenter.tasks.task import Guess, Task
from isocenter.values import Case, Finding, Prediction

MEDIAN = "median_survival"
FOLLOWED = "Predicted chance of no event over time; upright line: how long the patient was followed"


class SurvivalPictures(Task):
    """Pictures and charts of a survival; horizons and unit are those of `Survival`."""

    horizons: tuple[float, ...]
    unit: str

    @property
    @abstractmethod
    def is_absolute(self) -> bool:
        """Whether chances are known, and not only risks beside one another."""

    @abstractmethod
    def outcomes(self, table: Table) -> Outcomes:
        """Risks, times and events of a table of cases."""

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image with the risk and the outcome in the caption, and the survival curve where it is known."""
        values, known = values_of(prediction), case.references.get("event")
        caption = f"Risk {number(values['risk'], places=2)}"
        if known is not None:
            caption += f"; {'event' if known[1] else 'last contact'} at {known[0]:g} {self.unit}".rstrip()
        drawn = [figures.contours(stated_image(case), None, None, (), title=case.id, caption=caption)]
        if not self.is_absolute:
            return drawn
        when = moments(self.horizons[-1])
        last, happened = known or (None, False)
        chance = [values[survival_column(time)] for time in when]
        axis = time_axis(self.unit)
        curve = figures.survival_curve(when, chance, case.id, axis=axis, last=last, happened=happened, caption=FOLLOWED)
        return [*drawn, curve]

    def overview(self, table: Table) -> list[Figure]:
        """Survival by predicted risk, and calibration at the last horizon."""
        return overview_figures(self.outcomes(table))

    def guess(self, table: Table) -> Guess:
        """The same risk for every case."""
        return Guess(table.assign(risk=0.0), {"": "giving every case the same risk"}, ("uno_c",))

    def rank(self, table: Table) -> list[str]:
        """Case ids by the error of their curves; those who were censored before the last horizon lie between."""
        known = table["event"].to_numpy(bool) | (table["time"].to_numpy(float) >= self.horizons[-1])
        ranked = table[known].sort_values("brier", kind="stable")["case"].tolist()
        half = len(ranked) // 2
        return [*ranked[:half], *table[~known]["case"].tolist(), *ranked[half:]]

    def results(self, prediction: Prediction) -> list[Finding]:
        """The risk, the probability of the event by each horizon, the median where it is reached, and a lower bound."""
        values, low = values_of(prediction), finite(prediction.confidence.low.get(TIME))
        made = [Finding("Log of the cumulative hazard", value=values["risk"], unit="1")]
        for horizon in self.horizons:
            if (chance := values.get(survival_column(horizon))) is not None:
                made.append(Finding(self._event_by(horizon), probability=1 - chance))
        if MEDIAN in values:
            made.append(Finding("Median survival", value=values[MEDIAN], unit=self.unit))
        if low is not None:
            made.append(Finding("Time of the event", unit=self.unit, low=low))
        return [replace(one, group="survival") for one in made]

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The names of the events by each horizon, whose probabilities a model of relative risks does not know."""
        return tuple(map(self._event_by, self.horizons)) if self.is_absolute else ()

    def _event_by(self, horizon: float) -> str:
        return f"Event by {horizon:g} {self.unit}".rstrip()


def values_of(prediction: Prediction) -> Mapping[str, float]:
    """The numbers of a prediction, by their columns."""
    assert prediction.values is not None  # noqa: S101 - `decode` always gives them
    return prediction.values
