"""Survival: the time to an event, where not everybody was followed until it happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from hilum import errors
from hilum.belief import Certainty, prediction_sets
from hilum.belief.certainties import INTERVALS
from hilum.belief.time_belief import BOUNDS
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import Metrics, survival
from hilum.evaluation.survival import Steps
from hilum.tasks.shared import grid_and_length
from hilum.tasks.survival import answering, hazard_models
from hilum.tasks.survival.answering import DIGITS
from hilum.tasks.survival.hazard_models import HALVINGS, LEAST, LOSSES, MODELS, MOST, HazardConstants
from hilum.tasks.survival.scoring import METRICS, SurvivalScoring
from hilum.tasks.task import Origin, Outputs, Uncertain
from hilum.values import (
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Floats,
    Head,
    Label,
    Merge,
    Prediction,
    Setting,
    SettingsGroup,
    Split,
    Target,
    Vector,
    setting_fields,
)
from hilum.values.setting_fields import StatedSettings

if TYPE_CHECKING:
    from torch import Tensor


# Cox's partial likelihood of a batch compares each event with those of the batch who are still at risk.
EVENTS_A_BATCH = 24
MOST_A_BATCH = 128
# Shares of the training events after which the horizons lie.
HORIZONS = (0.25, 0.5, 0.75)
# Intervals of discrete time, each with at least so many training events.
MOST_BINS = 10
EVENTS_A_BIN = 5
CANDES = "arXiv:2103.09672"
# Steps of a curve that a plan and a model keep: more would not be seen.
MOST_STEPS = 100
LATER = "it is set on the validation cases after training; where every case trains, "
BY_TRAINING = {"baseline": "on the training cases", "slope": "it is 1", "median_risk": "on the training cases"}
KVAMME = "arXiv:1907.00825"
GENSHEIMER = "doi:10.7717/peerj.6257"
UNO = "doi:10.1002/sim.4154"
CROWSON = "doi:10.1177/0962280213497434"
VAN_HOUWELINGEN = "doi:10.1002/1097-0258(20001230)19:24<3401::AID-SIM554>3.0.CO;2-2"
# Within which a slope is believed: less would make all risks alike, more a certainty of a guess.
SLOPES = (0.05, 3.0)


def _unit(unit: Any) -> str:
    """The unit of times of a plan, which may know none."""
    return str(unit or "")


@dataclass(frozen=True)
class Survival(SurvivalScoring):
    """The time to an event, predicted as risk and as the probability that it has not happened by the horizons.

    The risk is the logarithm of the cumulative hazard at the last horizon: comparable between models, higher is sooner.

    model:       "cox" (partial likelihood), "hazards" (discrete time) or "weibull" (accelerated failure time)
    horizons:    rising times by which probabilities are stated; the last bounds what is scored
    scale:       the time that counts as 1 for the network
    edges:       ends of the intervals of discrete time
    followed:    the longest time of a training case: nothing is predicted beyond it
    censoring:   {"time", "share"} of training cases who would still be followed if nobody had the event
    unit:        in which times are counted; empty where it is unknown
    event_free:  {"time", "share"} of training cases to whom the event had not happened
    baseline:    {"time", "hazard"} cumulative, of a log hazard ratio of 0; None until it is estimated after training
    certainty:   the lower bound of times that is to hold, and what makes it so
    bound:       what the lower bound of times is of: "observed", valid whatever censors, or "event", if nothing that
                 ends an observation has to do with the patient
    slope:       what log hazard ratios are multiplied by; median_risk: of validation cases; None as the baseline
    hazard_factor: what cumulative hazards of a model without a baseline are multiplied by, of a site; None until then
    weighed:     the censoring by which its tables weigh errors, where another model's has taken its place
    """

    model: Annotated[str, Setting(choices=tuple(MODELS))]
    horizons: Annotated[tuple[float, ...], Setting(preregistered="horizons", compared=True)]
    scale: float
    edges: tuple[float, ...]
    followed: float
    censoring: Annotated[Mapping[str, Sequence[float]], Setting(read=hazard_models.plain_curve, compared=True)]
    unit: Annotated[str, Setting(read=_unit)] = ""
    baseline: Annotated[Mapping[str, Sequence[float]] | None, Setting(read=hazard_models.plain_curve, tuned=True)] = (
        None
    )
    median_risk: Annotated[float | None, Setting(tuned=True)] = None
    event_free: Annotated[Mapping[str, Sequence[float]] | None, Setting(read=hazard_models.plain_curve)] = None
    slope: Annotated[float | None, Setting(tuned=True)] = None
    bound: Annotated[str, Setting(choices=tuple(BOUNDS), noun="bound of the time")] = "observed"
    hazard_factor: Annotated[float | None, Setting(tuned=True)] = None
    weighed: Annotated[Mapping[str, Sequence[float]] | None, Setting(is_kept=False)] = field(
        default=None, compare=False
    )
    certainty: Annotated[Certainty, SettingsGroup(INTERVALS)] = field(default_factory=Certainty)
    name: ClassVar[str] = "survival"
    needs: ClassVar[frozenset[str]] = frozenset({"event"})
    merge: ClassVar[Merge] = "mean"
    selects_by: ClassVar[str] = "harrell_c"
    uncertainty: ClassVar[Uncertain] = "values"
    tuned_on: ClassVar[tuple[Split, ...]] = ("val", "train")
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Model, horizons and censoring for these training cases; DatasetError where fewer than two had the event."""
        times, happened = fingerprint.events()
        had = np.sort(times[happened])
        if len(np.unique(had)) < 2:
            raise DatasetError(
                f"{errors.count_phrase(len(had), 'event')} among {errors.count_phrase(len(times), 'training case')}, "
                f"at {errors.count_phrase(len(np.unique(had)), 'time')}: no case has it before another",
                str(dataset.root or dataset.name),
                "Give cases of whom at least two had the event, at different times",
            )
        share = f"{len(had)} of {errors.count_phrase(len(times), 'training case')} had the event"
        edges = interval_edges(had)
        scale = answering.round_significant(float(np.median(had)), 2)
        last = float(times.max())
        followed = survival.censoring_curve(times, happened)
        training_times = errors.count_phrase(len(times), "training time")
        return {
            "model": Decision(
                "cox", f"{share}: it learns how risks compare, and not how they change with time", KVAMME
            ),
            "horizons": Decision(
                choose_horizons(had, followed),
                "by then a quarter, half and three quarters of the training events had happened",
            ),
            "unit": Decision(None, "no file states it: state it with --set task.unit=days"),
            "scale": Decision(scale, "the median time of the training events is what counts as 1 for the network"),
            "edges": Decision(
                edges,
                f"the model hazards asks for intervals, and each of these {len(edges)} holds as many training events",
                GENSHEIMER,
            ),
            "followed": Decision(
                last,
                f"that is the longest of {training_times}, and nothing is predicted beyond it",
            ),
            "censoring": Decision(
                curve_to_plain(followed, "share"),
                f"{len(times) - len(had)} training cases are censored: cases that were followed longer count for "
                "them too",
                UNO,
            ),
            "event_free": Decision(
                curve_to_plain(survival.kaplan_meier(times, happened), "share"),
                "on average the predicted curves of other cases are this one",
            ),
            **{name: Decision(None, LATER + instead) for name, instead in BY_TRAINING.items()},
            "hazard_factor": Decision(None, "`hilum calibrate` finds it of a model whose curves need no baseline"),
            "bound": Decision(
                "observed", "a lower bound of the observed time holds whatever ends an observation", CANDES
            ),
            **prediction_sets.interval_decisions(),
        }

    def check_and_fill(self) -> Survival:
        """Fill the weights of its tables; PlanError names the setting that cannot be."""
        check_settings(setting_fields.plain_settings(self))
        return replace(self, weighed=self.censoring)

    @property
    def heads(self) -> Mapping[str, Head]:
        """One vector of numbers: sizes count, because a large structure may be a hazard."""
        return {"event": Vector(len(self.labels), holds="numbers")}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The meaning of the network's outputs."""
        return tuple(Label(value, name) for value, name in enumerate(self._hazard_model.outputs(self.edges)))

    def compared_cases(self, cases: Sequence[Case]) -> int | None:
        """Cases of a partial likelihood with an event, each compared with the other cases of a batch."""
        return event_count(cases) if self._hazard_model.relative else None

    @property
    def channels_when_mirrored(self) -> tuple[int, ...]:
        """The outputs stay as they are when left and right change sides."""
        return tuple(range(len(self.labels)))

    @property
    def uncertain_quantity(self) -> Callable[[Any], Any]:
        """The log of the cumulative hazard by the last horizon."""
        return partial(hazard_models.log_hazard, self.model, self.horizons[-1], self._constants)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, two kinds of c to select and judge, for Cox a large batch."""
        decisions = {
            "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
            "training.sampling": Decision(
                "natural", "risks are those of the training cases: cases with the event are not sampled more often"
            ),
            **grid_and_length.decide_epochs_and_networks(
                "a time says little about a case, and in more epochs the network memorises times",
                "chance decides much of what one network learns from few events, and less of the mean of their outputs",
                cases=len(fingerprint),
                batch=decide_batch(fingerprint).value,
            ),
            "training.selection": Decision(
                "harrell_c", "the validation cases are few, and every pair of them that can be compared counts alike"
            ),
            "evaluation.primary": Decision("uno_c", "Harrell's c would depend on who was censored when", UNO),
        }
        return decisions | ({"training.batch": decide_batch(fingerprint)} if self._hazard_model.relative else {})

    def under(self, sampling: str) -> dict[str, Decision]:
        """Nothing; PlanError where cases are sampled otherwise than they come."""
        if sampling != "natural":
            problem = f"cases with a time have no classes that could be {sampling}"
            raise PlanError(problem, "training.sampling", "Give natural")
        return {}

    def target(self, case: Case) -> Target:
        """(2,) time, and 1 where the event happened then, 0 where the case was censored."""
        return Target(self.heads["event"], np.array(answering.time_and_event(case), dtype=np.float32))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Minus the log likelihood of the model; target: (batch, 2) time and event."""
        return LOSSES[self.model](outputs["event"].float(), target.float(), self._constants)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, outputs) of the network, and (batch, 2) time and event."""
        return {"outputs": outputs["event"].float(), "target": target.float()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Harrell's c of the validation cases; where no two of them can be compared, minus the loss."""
        outputs = collected["outputs"]
        target = collected["target"]
        risks = [self._risk(one) for one in outputs.cpu().numpy().astype(float)]
        concordance = math.nan
        if np.isfinite(risks).all():
            concordance = float(survival.harrell_c(risks, *target.cpu().numpy().T))
        return concordance if math.isfinite(concordance) else -float(self.loss({"event": outputs}, target))

    def fit_settings(
        self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin
    ) -> dict[str, Decision]:
        """Slope, baseline and median risk of these cases; origin: as `calibrate_hazards` has it.

        All belong to one network's weights: those of a plan of another training are estimated anew.
        """
        times, happened = np.array([answering.time_and_event(case) for case in cases], dtype=float).T
        if not happened.any():
            return {}
        task = self
        decisions = dict[str, Decision]()
        risks = np.array([answering.prediction_columns(prediction)["risk"] for prediction in predictions])
        if self._hazard_model.relative:
            ratios = (risks - self._risk(np.zeros(1))) / self._constants.slope
            decisions = calibrate_hazards(times, happened, ratios, self.event_free, origin=origin)
            task = replace(task, slope=decisions["task.slope"].value, baseline=decisions["task.baseline"].value)
            risks = task._constants.slope * ratios + task._risk(np.zeros(1))
        elif origin == "site":
            decision = site_factor(
                list(map(answering.prediction_columns, predictions)),
                times,
                happened,
                self.horizons[-1],
                self._constants,
            )
            decisions["task.hazard_factor"] = decision
            risks = risks + np.log(decision.value / self._constants.hazard_factor)
        middle = answering.round_significant(float(np.median(risks)))
        because = f"half of {errors.count_phrase(len(cases), 'case')} have a higher one: curves are parted there"
        return {**decisions, "task.median_risk": Decision(middle, because)}

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) a number that rises with the risk."""
        return hazard_models.rising_risk(self.model, outputs["event"], target)


def choose_horizons(had: Floats, followed: Steps) -> list[float]:
    """Quantiles of the rising times of events, of two digits if those tell them apart, while anybody is followed."""
    latest = had[followed.at(had) > 0].max(initial=had[0])
    exact = np.minimum(np.quantile(had, HORIZONS, method="inverted_cdf"), latest)
    for digits in range(2, DIGITS):
        short = sorted({min(answering.round_significant(float(one), digits), float(latest)) for one in exact})
        if len(short) == len(np.unique(exact)) and short[-1] >= had[0]:
            return short
    return [float(one) for one in np.unique(exact)]


def interval_edges(had: Floats) -> list[float]:
    """Ends of intervals that hold as many of the rising times of events each; the last is the last event."""
    bins = int(np.clip(len(had) // EVENTS_A_BIN, 2, MOST_BINS))
    ends = np.quantile(had, np.arange(1, bins + 1) / bins, method="inverted_cdf")
    return [float(one) for one in np.unique(ends)]  # not rounded: the last event lies in the last interval


def decide_batch(fingerprint: Fingerprint) -> Decision:
    """The cases of a step for Cox's partial likelihood: so many that a batch has events to compare."""
    _, happened = fingerprint.events()
    cases = len(happened)
    events = int(happened.sum())
    cases_needed = math.ceil(EVENTS_A_BATCH * cases / max(1, events))
    chosen = min(cases_needed, MOST_A_BATCH, max(cases, 2))
    expected = chosen * events / max(1, cases)
    because = (
        f"an event is compared with the cases of its batch alone, and {chosen} cases of which {events} in {cases} had "
        f"the event hold about {expected:.0f}"
    )
    if expected < EVENTS_A_BATCH:
        because += f", fewer than the {EVENTS_A_BATCH} that were wanted"
    return Decision(chosen, because, KVAMME)


def event_count(cases: Sequence[Case]) -> int:
    """The number of cases whose event is known to have happened."""
    return sum(bool(case.references["event"][1]) for case in cases if "event" in case.references)


def calibrate_hazards(
    times: ArrayLike,
    happened: ArrayLike,
    ratio: ArrayLike,
    event_free: Mapping[str, Sequence[float]] | None,
    *,
    origin: Origin = "unseen",
) -> dict[str, Decision]:
    """Slope and baseline by the log hazard ratios of cases; event_free: as `Survival` keeps it.

    origin: where every case trains, cases that did: the network knows their times, and a slope by them would exceed 1;
            of another site those of people who may have the event more or less often
    """
    events = np.asarray(happened, dtype=bool)
    people = errors.count_phrase(np.size(times), "case")
    trained = origin == "training"
    other_people = origin == "site"
    multiplied = 1.0 if trained else fit_slope(times, events, ratio)
    shares = (
        survival.kaplan_meier(times, events) if event_free is None else answering.curve_from_plain(event_free, "share")
    )
    ratios = multiplied * np.asarray(ratio, dtype=float)
    hazard = fit_baseline(shares, ratios)
    fits = f"so the log hazard ratios of {people} fit their times; {events.sum()} had the event"
    known_baseline = people if event_free is None else "the training cases"
    equal = f"with it the mean survival of {people} is that of {known_baseline}"
    if trained:
        fits = "every case trains, and a slope that fits the times of cases that trained would be too large"
        equal += ", at a slope of 1, because every case trains"
    if other_people:
        times_as_high = _of_site(hazard.at(times) * np.exp(np.clip(ratios, -MOST, MOST)), events)
        hazard = replace(hazard, values=times_as_high * hazard.values)
        equal = f"that of {known_baseline}, times {times_as_high:.3g}: {events.sum()} of {people} had the event"
    return {
        "task.slope": Decision(multiplied, fits, "" if trained else VAN_HOUWELINGEN),
        "task.baseline": Decision(curve_to_plain(hazard, "hazard"), equal, CROWSON if other_people else ""),
    }


def _of_site(reached: Floats, events: np.ndarray) -> float:
    """Ratio of other people's hazard to that at training: their events by those expected of them.

    The course over time stays: a site may have followed its patients for less long. Few events say little: one event
    that was expected is added to both.
    reached: cumulative hazards by the time of each
    """
    return answering.round_significant(float((events.sum() + 1) / (reached.sum() + 1)))


def site_factor(
    values: Sequence[Mapping[str, float]], times: ArrayLike, happened: ArrayLike, last: float, curve: HazardConstants
) -> Decision:
    """Ratio of other people's cumulative hazards to those at training, of a model without a baseline.

    values: of `Survival.decode`, of each case; last: the horizon until which they state survival
    curve: what their hazards are multiplied by already
    """
    when = answering.comparison_times(last)
    until = np.minimum(np.asarray(times, dtype=float), last)
    events = np.asarray(happened, dtype=bool) & (np.asarray(times) <= last)
    chances = np.array([[own[answering.survival_column(one)] for one in when] for own in values])
    hazards = -np.log(np.maximum(chances, LEAST))
    reached = np.array([np.interp(one, when, own) for one, own in zip(until, hazards, strict=True)])
    because = f"{events.sum()} of {errors.count_phrase(len(until), 'case')} had the event by {last:g}, where "
    because += f"{reached.sum():.3g} were expected to"
    factor = answering.round_significant(curve.hazard_factor * _of_site(reached, events))
    return Decision(factor, f"{because}; their course over time stays that of the training cases", CROWSON)


def fit_slope(times: ArrayLike, happened: ArrayLike, ratio: ArrayLike) -> float:
    """Factor by which log hazard ratios of cases that did not train become theirs; 1 where they cannot tell.

    A network that has learnt its training cases by heart states ratios that are too extreme. Few events say little: the
    log hazard ratio of a standard deviation has a prior about 0, of 1.
    """
    slope = float(survival.calibration_slope(ratio, times, happened, penalty=1.0))
    return answering.round_significant(float(np.clip(slope, *SLOPES))) if math.isfinite(slope) else 1.0


def fit_baseline(event_free: Steps, ratio: ArrayLike) -> Steps:
    """The cumulative hazard with which the mean survival of cases with these log hazard ratios is a known one.

    event_free: the share of people to whom the event has not happened, by Kaplan and Meier; for 0, half of that before
    The ratios are of cases that did not train. Breslow's estimate would take times and ratios of the same cases: of
    the training cases, whose ratios are too extreme, or of the validation cases alone, who are few.
    """
    relative = np.exp(np.clip(np.asarray(ratio, dtype=float), -MOST, MOST))
    shares = event_free.values
    levels = np.where(shares > 0, shares, np.concatenate([[event_free.start], shares[:-1]]) / 2)
    # The mean falls as the hazard rises: halved until it is known, between none and what even the safest die of.
    low, high = np.zeros(len(levels)), -np.log(levels) / relative.min(initial=np.inf)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = np.exp(-middle[:, None] * relative).mean(axis=1) > levels
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return Steps(event_free.times, np.maximum.accumulate(high), 0.0)


def curve_to_plain(steps: Steps, name: str) -> dict[str, list[float]]:
    """A curve as a plan keeps it: {"time", name}."""
    few = steps.thin(MOST_STEPS)
    return {
        "time": [answering.round_significant(float(one)) for one in few.times],
        name: [answering.round_significant(float(one)) for one in few.values],
    }


def check_settings(settings: StatedSettings) -> None:
    """PlanError names the setting that cannot be."""
    last = settings["followed"]
    for name in ("scale", "followed"):
        if not 0 < settings[name] < math.inf:
            raise PlanError(f"{settings[name]} is not a time", f"task.{name}", "Give a number above 0")
    for name in ("horizons", "edges"):
        if not settings[name] or not _rise(settings[name], above=0.0):
            problem = f"{list(settings[name])} are not rising times"
            raise PlanError(problem, f"task.{name}", "Give one time or several, above 0, each once")
    furthest = settings["horizons"][-1]
    if furthest > last:
        problem = f"no training case was followed for {furthest:g}: the longest for {last:g}"
        raise PlanError(problem, "task.horizons", f"Give times up to {last:g}")
    if MODELS[settings["model"]].discrete and furthest > settings["edges"][-1]:
        problem = f"{furthest:g} lies beyond the last interval, which ends at {settings['edges'][-1]:g}"
        raise PlanError(problem, "task.horizons", "Give earlier times, or another task.edges")
    for name, key in (("censoring", "share"), ("event_free", "share"), ("baseline", "hazard")):
        if settings[name] is not None:
            _check_curve(name, settings[name], key)
    for name in ("slope", "hazard_factor"):
        if settings[name] is not None and not 0 < settings[name] < math.inf:
            raise PlanError(f"a {name} of {settings[name]}", f"task.{name}", "Give a number above 0")
    if settings["censoring"] is None:
        raise PlanError("there are no weights for censored cases", "task.censoring", "Plan again")
    if not answering.curve_from_plain(settings["censoring"], "share").at(furthest) > 0:
        problem = f"no training case was followed beyond {furthest:g}"
        raise PlanError(problem, "task.horizons", "Give earlier times")


def _check_curve(name: str, curve: Mapping[str, Sequence[float]], key: str) -> None:
    times = curve.get("time", ())
    values = curve.get(key, ())
    rising = _rise(times, above=0.0)
    sound = all(0 <= one < math.inf for one in values)
    ordered = sorted(values, reverse=key == "share") == list(values)
    if set(curve) != {"time", key} or len(times) != len(values) or not (rising and sound and ordered):
        raise PlanError(f"it is not a curve of {key} over time", f"task.{name}", "Plan again")


def _rise(values: Sequence[float], *, above: float) -> bool:
    before = [above, *values[:-1]] if values else []
    return all(low < high < math.inf for low, high in zip(before, values, strict=True))
