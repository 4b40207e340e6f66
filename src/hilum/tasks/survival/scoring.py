"""The scores of survival: discrimination of risks, and errors and calibration by the horizons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hilum.belief.prediction_sets import SET_METRICS
from hilum.evaluation import CaseValues, Metrics, Seed, Table, intervals, survival
from hilum.evaluation.significance import paired_tests
from hilum.evaluation.survival import D_CALIBRATION, SURVIVAL_METRICS, Steps
from hilum.lazy import pandas as pd
from hilum.report import Figure, wording
from hilum.report.figures import slice_figures, survival_figures
from hilum.tasks import properties
from hilum.tasks.shared import binary_scores
from hilum.tasks.survival import answering
from hilum.tasks.survival.answering import AT_TIME, SURVIVAL, TIME_LOW, SurvivalAnswering
from hilum.tasks.task import BlindGuess
from hilum.values import Case, Estimate, Floats, Prediction, Row

METRICS = Metrics((*SURVIVAL_METRICS, *SET_METRICS, D_CALIBRATION), "time", "brier").mark_audited(
    audited=("harrell_c", "uno_c", "coverage"), calibration="calibration_slope"
)
# Groups by predicted risk in which calibration is looked at, each with at least so many cases.
MOST_GROUPS = 5
CASES_A_GROUP = 10
# What the censoring weights of the training cases add up to, as a share of the cases: within the first two the error is
# stated with that share, beyond them it would be far too small or too large. Nearer to 1 they may be off by chance.
LEAST_WEIGHT = 0.5
MOST_WEIGHT = 1.5
NEAR = 0.1
CHANCE = 3.0
FOLLOWED = "Predicted chance of no event over time; upright line: how long the patient was followed"


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Predictions and outcomes of the cases.

    risk:      (cases,); times, happened, patients: (cases,)
    survival:  (cases, horizons) probability of no event by each horizon; NaN where the model gives none
    at_time:   (cases,) the same by each one's own time, or the last horizon where that is earlier
    errors:    (cases,) squared error of the survival curve, integrated until the last horizon
    horizons:  rising times; unit: in which they are counted, empty where it is unknown
    followed:  the censoring of the training cases
    threshold: the median risk of the cases that decided after training; None where it is not known
    """

    risk: Floats
    times: Floats
    happened: np.ndarray
    patients: np.ndarray
    survival: Floats
    at_time: Floats
    errors: Floats
    horizons: Sequence[float]
    unit: str
    followed: Steps
    threshold: float | None

    @classmethod
    def from_table(
        cls, table: Table, horizons: Sequence[float], unit: str, followed: Steps, threshold: float | None
    ) -> Outcomes:
        """The outcomes in rows with risk, time, event, patient, survival by each horizon, and brier.

        Of a model that has other horizons (beside which it is compared) survival is known by those in common, and the
        whole curve only where the last is one of them.
        """
        columns = [answering.survival_column(horizon) for horizon in horizons]
        survival_columns = [str(name) for name in table if str(name).startswith(SURVIVAL) and name != AT_TIME]
        if survival_columns[-1:] != columns[-1:]:
            table = table.assign(**{AT_TIME: np.nan, "brier": np.nan})
        return cls(
            table["risk"].to_numpy(float),
            table["time"].to_numpy(float),
            table["event"].to_numpy(bool),
            table["patient"].to_numpy(str),
            table.reindex(columns=columns).to_numpy(float),
            table[AT_TIME].to_numpy(float) if AT_TIME in table else np.full(len(table), np.nan),
            table["brier"].to_numpy(float),
            horizons,
            unit,
            followed,
            threshold,
        )

    def name_horizon(self, horizon: float) -> str:
        """The horizon with its unit."""
        return f"{horizon:g} {self.unit}".strip()


class SurvivalScoring(SurvivalAnswering):
    """The scores of a survival, and what reports show of them."""

    median_risk: float | None
    weighed: Mapping[str, Sequence[float]] | None

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case: time, event, risk, survival by each horizon, median survival, brier (integrated)."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            time, event = answering.time_and_event(case)
            values = answering.prediction_columns(prediction)
            rows.append(
                {
                    "case": case.id,
                    "patient": case.patient,
                    "label": "all",
                    "time": time,
                    "event": event,
                    **self.outputs(prediction),
                    AT_TIME: survival_at(values, time, self.horizons[-1]),
                    "brier": case_error(values, time, event, self.horizons[-1], self._follow_up_curve),
                }
            )
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Uno's c, Harrell's c, integrated Brier score; then AUC, Brier score and calibration by each horizon."""
        return [
            *survival_summary_rows(self.outcomes(table), seed=seed),
            *bound_rows(table, self._bound.is_reached, seed=seed),
        ]

    def rank(self, table: Table) -> list[str]:
        """Case ids by the error of their curves; those who were censored before the last horizon lie between."""
        decided = table["event"].to_numpy(bool) | (table["time"].to_numpy(float) >= self.horizons[-1])
        ranked = table[decided].sort_values("brier", kind="stable")["case"].tolist()
        half = len(ranked) // 2
        return [*ranked[:half], *table[~decided]["case"].tolist(), *ranked[half:]]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image with the risk and the outcome in the caption, and the survival curve where it is known."""
        values = answering.prediction_columns(prediction)
        reference = case.references.get("event")
        caption = f"Risk {wording.number_text(values['risk'], places=2)}"
        if reference is not None:
            caption += f"; {'event' if reference[1] else 'last contact'} at {reference[0]:g} {self.unit}".rstrip()
        pictures = [
            slice_figures.contours(properties.first_image(case), None, None, (), title=case.id, caption=caption)
        ]
        if not self.is_absolute:
            return pictures
        when = answering.comparison_times(self.horizons[-1])
        last, happened = reference or (None, False)
        chance = [values[answering.survival_column(time)] for time in when]
        axis = time_axis_label(self.unit)
        curve = survival_figures.survival_curve(
            when, chance, case.id, axis=axis, last=last, happened=happened, caption=FOLLOWED
        )
        return [*pictures, curve]

    def overview(self, table: Table) -> list[Figure]:
        """Survival by predicted risk, and calibration at the last horizon."""
        return overview_figures(self.outcomes(table))

    def case_values(self, table: Table) -> Sequence[CaseValues]:
        """Values of which discrimination and errors by the horizons are made."""
        return survival_error_values(self.outcomes, table)

    def guess(self, table: Table) -> BlindGuess:
        """The same risk for every case."""
        return BlindGuess(table.assign(risk=0.0), {"": "giving every case the same risk"}, ("uno_c",))

    def outcomes(self, table: Table) -> Outcomes:
        if self.weighed not in (None, self.censoring):  # these errors stand for other people than those beside them
            table = table.assign(brier=math.nan)
        return Outcomes.from_table(table, self.horizons, self.unit, self._follow_up_curve, self.median_risk)


def survival_at(values: Mapping[str, float], time: float, last: float) -> float:
    """The probability of no event by a time, or by the last horizon where that is earlier; NaN where none is stated."""
    if answering.survival_column(last) not in values:
        return math.nan
    when = answering.comparison_times(last)
    return float(np.interp(time, when, [values[answering.survival_column(one)] for one in when]))


def case_error(values: Mapping[str, float], time: float, event: bool, last: float, followed: Steps) -> float:
    """Squared error of the curve of a case, integrated until the last horizon; NaN where none is stated."""
    if answering.survival_column(last) not in values:
        return math.nan
    when = answering.comparison_times(last)
    curve = [[values[answering.survival_column(one)] for one in when]]
    return float(survival.integrate_errors(survival.brier_errors(curve, [time], [event], followed, when), when)[0])


def survival_summary_rows(outcomes: Outcomes, *, seed: Seed) -> list[Row]:
    """Uno's c first; then what holds by each horizon."""
    return [
        *_overall(outcomes, seed),
        *_distribution(outcomes),
        *(row for n in range(len(outcomes.horizons)) for row in _by(outcomes, n, seed)),
    ]


def _overall(outcomes: Outcomes, seed: Seed) -> Iterator[Row]:
    risk = outcomes.risk
    times = outcomes.times
    happened = outcomes.happened
    last = outcomes.horizons[-1]
    uno = partial(survival.uno_c, risk, times, happened, outcomes.followed, last)
    c = partial(survival.harrell_c, risk, times, happened)
    note = f"; events before {outcomes.name_horizon(last)}, censoring of the training cases"
    early = _if_fewer(happened & (times < last))
    events = _if_fewer(happened)
    yield Row("uno_c", "all", _interval(uno, outcomes, seed, note, strata=early, compares=True))
    yield Row("harrell_c", "all", _interval(c, outcomes, seed, strata=events, compares=True))
    error = _mean_error(outcomes, outcomes.errors, answering.comparison_times(last), seed)
    same = _of_everybody(outcomes)
    note = (
        f"; until {outcomes.name_horizon(last)}; one curve for everybody (Kaplan-Meier of these cases) has {same:.3f}"
    )
    yield Row("integrated_brier", "all", binary_scores.with_note(error, note))
    note = "; 1 is calibrated, less where risks are too extreme; Cox, with the risk alone"
    slope = partial(survival.calibration_slope, risk, times, happened)
    yield Row("calibration_slope", "all", _interval(slope, outcomes, seed, note, strata=events))


def _distribution(outcomes: Outcomes) -> Iterator[Row]:
    """Whether predicted survival at the times of events is as often high as low; nothing without probabilities."""
    if not np.isfinite(outcomes.at_time).all():
        return
    last = outcomes.horizons[-1]
    early = outcomes.happened & (outcomes.times <= last)
    shares, p = survival.d_calibration(outcomes.at_time, early, patients=outcomes.patients)
    words = ", ".join(f"{100 * share:.0f}" for share in shares)
    method = f"none: p of a chi-squared test, its variance less what censoring hides; {words} % of cases"
    method += f" by tenths of predicted survival, until {outcomes.name_horizon(last)}"
    people = len(np.unique(outcomes.patients))
    yield Row(D_CALIBRATION.name, "all", Estimate(p, n=len(outcomes.times), patients=people, method=method))


def _by(outcomes: Outcomes, index: int, seed: Seed) -> Iterator[Row]:
    risk = outcomes.risk
    times = outcomes.times
    happened = outcomes.happened
    horizon = outcomes.horizons[index]
    survival_shares = outcomes.survival[:, index]
    label = outcomes.name_horizon(horizon)
    area = partial(survival.dynamic_auc, risk, times, happened, outcomes.followed, horizon)
    early = happened & (times <= horizon)
    later = times > horizon
    had = int(early.sum())
    free = int(later.sum())
    counts = f"; {had} with the event by then, {free} without, {len(times) - had - free} censored before"
    # Who is censored before is on no side of the curve, and resampled with the larger one: the smaller one is counted.
    sides = early if had < free else later
    yield Row("dynamic_auc", label, _interval(area, outcomes, seed, counts, strata=sides, compares=True))
    if np.isnan(survival_shares).any():
        return
    errors = survival.brier_errors(survival_shares[:, None], times, happened, outcomes.followed, [horizon])[:, 0]
    yield Row("brier", label, binary_scores.with_note(_mean_error(outcomes, errors, np.array([horizon]), seed), counts))
    ratio = partial(survival.expected_over_observed, 1 - survival_shares, times, happened, horizon)
    yield Row("expected_over_observed", label, _interval(ratio, outcomes, seed))


def _mean_error(outcomes: Outcomes, errors: Floats, when: Floats, seed: Seed) -> Estimate:
    """The mean of weighted errors until the last of these moments, if the weights make up for these cases' censoring.

    They are those of the training cases: of cases who were followed for less long they are too small in sum, and so is
    the error; of nobody who was followed for so long they make nothing.
    """
    words, why = _reservations(outcomes, when)
    if not why:
        return binary_scores.with_note(intervals.bootstrap(errors, outcomes.patients, seed=seed), words)
    people = len(np.unique(outcomes.patients))
    return Estimate(float("nan"), n=len(outcomes.times), patients=people, method=f"none: {why}")


def _reservations(outcomes: Outcomes, when: Floats) -> tuple[str, str]:
    """A note on the weights that make up for these cases' censoring, and why they cannot; as a rule both are empty."""
    times = outcomes.times
    happened = outcomes.happened
    last = float(when[-1])
    if not ((times > last).any() or not survival.kaplan_meier(times, happened).at(last) > 0):
        return "", f"no case was followed beyond {outcomes.name_horizon(last)}"
    weights = survival.censoring_weights(times, happened, outcomes.followed, when)
    integrals = survival.integrate_errors(weights, when) if len(when) > 1 else weights[:, 0]
    total = float(integrals.mean())
    error = float(integrals.std() / np.sqrt(len(integrals)))
    if abs(total - 1) <= max(NEAR, CHANCE * error) and LEAST_WEIGHT <= total <= MOST_WEIGHT:
        return "", ""
    why = f"the censoring weights of the training cases add up to {100 * total:.0f} % of these cases"
    return f"; {why}", "" if LEAST_WEIGHT <= total <= MOST_WEIGHT else why


def _interval(
    statistic: Callable[[Floats], Floats],
    outcomes: Outcomes,
    seed: Seed,
    note: str = "",
    *,
    strata: np.ndarray | None = None,
    compares: bool = False,
) -> Estimate:
    """Patients resampled within strata; without, all alike, so that the number of events varies from draw to draw."""
    estimate = intervals.bootstrap_statistic(
        statistic, outcomes.patients, strata=strata, seed=seed, exact=False, compares=compares
    )
    return binary_scores.with_note(estimate, note)


def _if_fewer(events: np.ndarray) -> np.ndarray | None:
    """The events as a stratum of their own where they are fewer than the other cases; else None.

    A concordance compares an event with whoever is at risk then, other events among them: where few are censored, these
    few are no sample that it rests on.
    """
    return events if 2 * events.sum() < len(events) else None


def _of_everybody(outcomes: Outcomes) -> float:
    """The integrated Brier score of the Kaplan-Meier curve of these cases."""
    when = answering.comparison_times(outcomes.horizons[-1])
    curve = survival.kaplan_meier(outcomes.times, outcomes.happened).at(when)
    everybody = np.tile(curve, (len(outcomes.times), 1))
    errors = survival.brier_errors(everybody, outcomes.times, outcomes.happened, outcomes.followed, when)
    return float(survival.integrate_errors(errors, when).mean())


def survival_error_values(outcomes: Callable[[Table], Outcomes], table: Table) -> list[CaseValues]:
    """Values of which the integrated Brier score is made; none where these cases have no such score."""
    outcomes_of_table = outcomes(table)
    if _reservations(outcomes_of_table, answering.comparison_times(outcomes_of_table.horizons[-1]))[1]:
        return []
    return paired_tests.column_values(
        table[["case", "patient", "label"]].assign(integrated_brier=outcomes_of_table.errors), METRICS
    )


def overview_figures(outcomes: Outcomes) -> list[Figure]:
    """Survival by predicted risk, and calibration where there are probabilities and enough cases."""
    cases = len(outcomes.times)
    outcomes = _by_patient(outcomes)
    pictures = [_by_risk(outcomes, counts_patients=len(outcomes.times) < cases)]
    if not np.isnan(outcomes.survival[:, -1]).any() and len(outcomes.times) >= 2 * CASES_A_GROUP:
        pictures += _calibration(outcomes)
    return pictures


def _by_patient(outcomes: Outcomes) -> Outcomes:
    """Each patient once, with the mean of what is predicted of the images; all cases where a patient's times differ.

    Curves and their bands count people: who counts several times makes them look surer than they are.
    """
    people, first, owner = np.unique(outcomes.patients, return_index=True, return_inverse=True)
    times = outcomes.times[first]
    happened = outcomes.happened[first]
    if (times[owner] != outcomes.times).any() or (happened[owner] != outcomes.happened).any():
        return outcomes

    def mean(values: Floats) -> Floats:
        """The mean of each patient's rows."""
        sums = np.zeros((len(people), *values.shape[1:]))
        np.add.at(sums, owner, values)
        return sums / np.bincount(owner).reshape(-1, *[1] * (values.ndim - 1))

    return replace(
        outcomes,
        risk=mean(outcomes.risk),
        times=times,
        happened=happened,
        patients=people,
        survival=mean(outcomes.survival),
        at_time=mean(outcomes.at_time),
        errors=mean(outcomes.errors),
    )


def _by_risk(outcomes: Outcomes, *, counts_patients: bool) -> Figure:
    times = outcomes.times
    happened = outcomes.happened
    groups = {"all cases": np.ones(len(times), dtype=bool)}
    p = float("nan")
    caption = "No median risk is known: one group."
    if outcomes.threshold is not None:
        high = outcomes.risk > outcomes.threshold
        groups = {name: side for name, side in (("lower risk", ~high), ("higher risk", high)) if side.any()}
        _, p = survival.logrank_test(times, happened, high)
        caption = "Parted at the median risk that the model was given after training."
    if counts_patients:
        caption += " A patient with several images counts once, by the mean of their risks."
    if len(np.unique(outcomes.patients)) < len(times):  # who counts several times makes any difference look sure
        caption += " Several cases, with times of their own, are of one patient: the curves are not tested, and their"
        caption += " bands too narrow."
    elif np.isfinite(p):
        caption += f" Log-rank test: p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."
    curves = {}
    for name, side in groups.items():
        low, high_end = survival.kaplan_meier_band(times[side], happened[side])
        curve = survival.kaplan_meier(times[side], happened[side])
        curves[name] = survival_figures.SurvivalCurve(
            curve.times, curve.values, low.values, high_end.values, times[side][~happened[side]]
        )
    ticks = survival_figures.time_ticks(float(times.max()))
    counts = {name: survival.people_at_risk(times[side], ticks).tolist() for name, side in groups.items()}
    return survival_figures.kaplan_meier_plot(
        curves, ticks, counts, "Survival by predicted risk", axis=time_axis_label(outcomes.unit), caption=caption
    )


def _calibration(outcomes: Outcomes) -> list[Figure]:
    """Predicted against observed by the last horizon, in groups of predicted risk that were followed for so long."""
    horizon = outcomes.horizons[-1]
    chance = 1 - outcomes.survival[:, -1]
    groups = min(MOST_GROUPS, len(chance) // CASES_A_GROUP)
    points = []
    for members in np.array_split(np.argsort(chance, kind="stable"), groups):
        times = outcomes.times[members]
        happened = outcomes.happened[members]
        if (
            survival.people_at_risk(times, horizon) or survival.kaplan_meier(times, happened).at(horizon) == 0
        ):  # else nobody knows the frequency
            points.append((float(chance[members].mean()), *_frequency(times, happened, horizon)))
    title = f"Can the probabilities by {outcomes.name_horizon(horizon)} be believed?"
    return [survival_figures.observed_against_predicted(points, title)] if points else []


def _frequency(times: Floats, happened: np.ndarray, horizon: float) -> tuple[float, float, float]:
    """The share who had the event by then, with its interval: the exact one where nobody or everybody had it."""
    observed = 1 - float(survival.kaplan_meier(times, happened).at(horizon))
    if observed in (0.0, 1.0):
        people = (
            int(survival.people_at_risk(times, horizon)) if not observed else int((happened & (times <= horizon)).sum())
        )
        exact = intervals.clopper_pearson(round(observed) * people, people) if people else None
        return (observed, exact.low or 0.0, exact.high or 0.0) if exact else (observed, 0.0, 1.0)
    low, high = (1 - float(end.at(horizon)) for end in survival.kaplan_meier_band(times, happened))
    return observed, high, low


def time_axis_label(unit: str) -> str:
    """The words under an axis of time."""
    return f"time ({unit})" if unit else "time, in the unit of the data"


def bound_rows(table: Table, reached: Callable[[Floats, Floats, Floats], Floats], *, seed: Seed) -> Iterator[Row]:
    """Rows on how often times reach their lower bound, of cases that have one.

    reached: (times, events, bounds) to 1 where it does, 0 where not, or what each case adds to the mean of these
    """
    rows = table[table[TIME_LOW].notna()] if TIME_LOW in table else table.iloc[:0]
    if len(rows):
        held = reached(*(rows[name].to_numpy(float) for name in ("time", "event", TIME_LOW)))
        owners = rows["patient"].to_numpy(str)
        all_or_none = bool(np.isin(held, (0, 1)).all())
        yield Row(
            "coverage",
            "all",
            intervals.proportion(held > 0, owners, seed=seed)
            if all_or_none
            else intervals.bootstrap(held, owners, seed=seed),
        )
