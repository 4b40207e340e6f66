"""Plans for survival from its training cases: horizons, intervals, censoring, and the baseline after training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isocenter.belief import interval_decisions
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import Steps, calibration_slope, censoring, kaplan_meier
from isocenter.tasks.shared import one_answer_length
from isocenter.tasks.survival.curves import HALVINGS, LEAST, MODELS, MOST, Known
from isocenter.tasks.survival.scores import moments, survival_column
from isocenter.tasks.task import Origin
from isocenter.values import Case, Dataset, Decision, Fingerprint, Floats, Prediction

# Cox's partial likelihood of a batch compares each event with those of the batch who are still at risk.
EVENTS_A_BATCH, MOST_A_BATCH = 24, 128
# Shares of the training events after which the horizons lie.
HORIZONS = (0.25, 0.5, 0.75)
# Intervals of discrete time, each with at least so many training events.
MOST_BINS, EVENTS_A_BIN = 10, 5
CANDES = "arXiv:2103.09672"
# Steps of a curve that a plan and a model keep, and the digits of each: more would not be seen.
MOST_STEPS, DIGITS = 100, 6
LATER = "it is set on the validation cases after training; where every case trains, "
BY_TRAINING = {"baseline": "on the training cases", "slope": "it is 1", "median_risk": "on the training cases"}
KVAMME = "arXiv:1907.00825"
GENSHEIMER = "doi:10.7717/peerj.6257"
UNO = "doi:10.1002/sim.4154"
CROWSON = "doi:10.1177/0962280213497434"
VAN_HOUWELINGEN = "doi:10.1002/1097-0258(20001230)19:24<3401::AID-SIM554>3.0.CO;2-2"
# Within which a slope is believed: less would make all risks alike, more a certainty of a guess.
SLOPES = (0.05, 3.0)


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of a survival for these training cases; DatasetError where fewer than two had the event."""
    times, happened = fingerprint.events()
    had = np.sort(times[happened])
    if len(np.unique(had)) < 2:
        raise DatasetError(
            f"{counted(len(had), 'event')} among {counted(len(times), 'training case')}, at "
            f"{counted(len(np.unique(had)), 'time')}: no case has it before another",
            str(dataset.root or dataset.name),
            "Give cases of whom at least two had the event, at different times",
        )
    share = f"{len(had)} of {counted(len(times), 'training case')} had the event"
    edges = interval_edges(had)
    scale, last, followed = rounded(float(np.median(had)), 2), float(times.max()), censoring(times, happened)
    return {
        "model": Decision("cox", f"{share}: it learns how risks compare, and not how they change with time", KVAMME),
        "horizons": Decision(
            horizons(had, followed), "by then a quarter, half and three quarters of the training events had happened"
        ),
        "unit": Decision(None, "no file states it: state it with --set task.unit=days"),
        "scale": Decision(scale, "the median time of the training events is what counts as 1 for the network"),
        "edges": Decision(
            edges,
            f"the model hazards asks for intervals, and each of these {len(edges)} holds as many training events",
            GENSHEIMER,
        ),
        "followed": Decision(
            last, f"that is the longest of {counted(len(times), 'training time')}, and nothing is predicted beyond it"
        ),
        "censoring": Decision(
            curve(followed, "share"),
            f"{len(times) - len(had)} training cases are censored: cases that were followed longer count for them too",
            UNO,
        ),
        "event_free": Decision(
            curve(kaplan_meier(times, happened), "share"), "on average the predicted curves of other cases are this one"
        ),
        **{name: Decision(None, LATER + instead) for name, instead in BY_TRAINING.items()},
        "hazard_factor": Decision(None, "`isocenter calibrate` finds it of a model whose curves need no baseline"),
        "bound": Decision("observed", "a lower bound of the observed time holds whatever ends an observation", CANDES),
        **interval_decisions(),
    }


def horizons(had: Floats, followed: Steps) -> list[float]:
    """Quantiles of the rising times of events, of two digits if those tell them apart, while anybody is followed."""
    latest = had[followed.at(had) > 0].max(initial=had[0])
    exact = np.minimum(np.quantile(had, HORIZONS, method="inverted_cdf"), latest)
    for digits in range(2, DIGITS):
        short = sorted({min(rounded(float(one), digits), float(latest)) for one in exact})
        if len(short) == len(np.unique(exact)) and short[-1] >= had[0]:
            return short
    return [float(one) for one in np.unique(exact)]


def interval_edges(had: Floats) -> list[float]:
    """Ends of intervals that hold as many of the rising times of events each; the last is the last event."""
    bins = int(np.clip(len(had) // EVENTS_A_BIN, 2, MOST_BINS))
    ends = np.quantile(had, np.arange(1, bins + 1) / bins, method="inverted_cdf")
    return [float(one) for one in np.unique(ends)]  # not rounded: the last event lies in the last interval


def decisions(fingerprint: Fingerprint, *, in_batches: bool) -> dict[str, Decision]:
    """The network, the sampling, and the metrics that select and judge; in_batches: cases compare within a batch."""
    made = {
        "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
        "training.sampling": Decision(
            "natural", "risks are those of the training cases: cases with the event are not drawn more often"
        ),
        **one_answer_length(
            "a time says little about a case, and in more epochs the network memorises times",
            "chance decides much of what one network learns from few events, and less of the mean of their outputs",
            cases=len(fingerprint),
            batch=batch(fingerprint).value,
        ),
        "training.selection": Decision(
            "harrell_c", "the validation cases are few, and every pair of them that can be compared counts alike"
        ),
        "evaluation.primary": Decision("uno_c", "Harrell's c would depend on who was censored when", UNO),
    }
    return made | ({"training.batch": batch(fingerprint)} if in_batches else {})


def batch(fingerprint: Fingerprint) -> Decision:
    """The cases of a step for Cox's partial likelihood: so many that a batch has events to compare."""
    _, happened = fingerprint.events()
    cases, events = len(happened), int(happened.sum())
    wanted = math.ceil(EVENTS_A_BATCH * cases / max(1, events))
    chosen = min(wanted, MOST_A_BATCH, max(cases, 2))
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


def calibrated(
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
    events, people = np.asarray(happened, dtype=bool), counted(np.size(times), "case")
    trained, other_people = origin == "training", origin == "site"
    multiplied = 1.0 if trained else slope(times, events, ratio)
    shares = kaplan_meier(times, events) if event_free is None else steps_of(event_free, "share")
    ratios = multiplied * np.asarray(ratio, dtype=float)
    hazard = baseline(shares, ratios)
    fits = f"so the log hazard ratios of {people} fit their times; {events.sum()} had the event"
    known = people if event_free is None else "the training cases"
    equal = f"with it the mean survival of {people} is that of {known}"
    if trained:
        fits = "every case trains, and a slope that fits the times of cases that trained would be too large"
        equal += ", at a slope of 1, because every case trains"
    if other_people:
        times_as_high = _of_site(hazard.at(times) * np.exp(np.clip(ratios, -MOST, MOST)), events)
        hazard = replace(hazard, values=times_as_high * hazard.values)
        equal = f"that of {known}, times {times_as_high:.3g}: {events.sum()} of {people} had the event"
    return {
        "task.slope": Decision(multiplied, fits, "" if trained else VAN_HOUWELINGEN),
        "task.baseline": Decision(curve(hazard, "hazard"), equal, CROWSON if other_people else ""),
    }


def _of_site(reached: Floats, events: np.ndarray) -> float:
    """How many times as high as at training the hazard of other people is: their events by those expected of them.

    The course over time stays: a site may have followed its patients for less long. Few events say little: one event
    that was expected is added to both.
    reached: cumulative hazards by the time of each
    """
    return rounded(float((events.sum() + 1) / (reached.sum() + 1)))


def site_factor(
    values: Sequence[Mapping[str, float]], times: ArrayLike, happened: ArrayLike, last: float, known: Known
) -> Decision:
    """How many times as high as at training the cumulative hazards of other people are, of a model without a baseline.

    values: of `Survival.decode`, of each case; last: the horizon until which they state survival
    known: what their hazards are multiplied by already
    """
    when, until = moments(last), np.minimum(np.asarray(times, dtype=float), last)
    events = np.asarray(happened, dtype=bool) & (np.asarray(times) <= last)
    chances = np.array([[own[survival_column(one)] for one in when] for own in values])
    hazards = -np.log(np.maximum(chances, LEAST))
    reached = np.array([np.interp(one, when, own) for one, own in zip(until, hazards, strict=True)])
    because = f"{events.sum()} of {counted(len(until), 'case')} had the event by {last:g}, where "
    because += f"{reached.sum():.3g} were expected to"
    factor = rounded(known.hazard_factor * _of_site(reached, events))
    return Decision(factor, f"{because}; their course over time stays that of the training cases", CROWSON)


def with_zero_of(
    predictions: Sequence[Prediction], theirs: Sequence[Prediction], ours: Sequence[Prediction]
) -> list[Prediction]:
    """Predictions of another network whose log hazard ratios have the zero of the model's.

    theirs, ours: of the same cases, by that network and by the model
    A partial likelihood says how cases compare: each network's ratios have a zero of their own. Means of the same cases
    differ by that and by what the networks disagree about, not by which cases they are.
    """
    risk, raw = (float(np.mean(own) - np.mean(other)) for own, other in zip(_risks(ours), _risks(theirs), strict=True))
    return [
        replace(
            prediction,
            values={**(prediction.values or {}), "risk": one + risk},
            confidence=replace(prediction.confidence, uncalibrated={"risk": other + raw}),
        )
        for prediction, one, other in zip(predictions, *_risks(predictions), strict=True)
    ]


def _risks(predictions: Sequence[Prediction]) -> tuple[list[float], list[float]]:
    """The risks, and those before calibration."""
    risks = [float((one.values or {})["risk"]) for one in predictions]
    return risks, [float(one.confidence.uncalibrated["risk"]) for one in predictions]


def slope(times: ArrayLike, happened: ArrayLike, ratio: ArrayLike) -> float:
    """By what log hazard ratios of cases that did not train are multiplied to be theirs; 1 where they cannot tell.

    A network that has learnt its training cases by heart states ratios that are too extreme. Few events say little: the
    log hazard ratio of a standard deviation has a prior about 0, of 1.
    """
    slope = float(calibration_slope(ratio, times, happened, penalty=1.0))
    return rounded(float(np.clip(slope, *SLOPES))) if math.isfinite(slope) else 1.0


def baseline(event_free: Steps, ratio: ArrayLike) -> Steps:
    """The cumulative hazard with which the mean survival of cases with these log hazard ratios is a known one.

    event_free: the share of people to whom the event has not happened, by Kaplan and Meier; for 0, half of that before
    The ratios are of cases that did not train. Breslow's estimate would take times and ratios of the same cases: of
    the training cases, whose ratios are too extreme, or of the validation cases alone, who are few.
    """
    relative, shares = np.exp(np.clip(np.asarray(ratio, dtype=float), -MOST, MOST)), event_free.values
    wanted = np.where(shares > 0, shares, np.concatenate([[event_free.start], shares[:-1]]) / 2)
    # The mean falls as the hazard rises: halved until it is known, between none and what even the safest die of.
    low, high = np.zeros(len(wanted)), -np.log(wanted) / relative.min(initial=np.inf)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = np.exp(-middle[:, None] * relative).mean(axis=1) > wanted
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return Steps(event_free.times, np.maximum.accumulate(high), 0.0)


def curve(steps: Steps, name: str) -> dict[str, list[float]]:
    """A curve as a plan keeps it: {"time", name}."""
    few = steps.thinned(MOST_STEPS)
    return {
        "time": [rounded(float(one)) for one in few.times],
        name: [rounded(float(one)) for one in few.values],
    }


def steps_of(kept: Mapping[str, Sequence[float]], name: str) -> Steps:
    """The curve of which `curve` made what is kept."""
    return Steps(np.array(kept["time"], dtype=float), np.array(kept[name], dtype=float))


def rounded(value: float, digits: int = DIGITS) -> float:
    """The value with so many significant digits."""
    return float(f"{value:.{digits}g}")


def check_settings(settings: Mapping[str, Any]) -> None:
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
    if not steps_of(settings["censoring"], "share").at(furthest) > 0:
        problem = f"no training case was followed beyond {furthest:g}"
        raise PlanError(problem, "task.horizons", "Give earlier times")


def _check_curve(name: str, given: Mapping[str, Sequence[float]], key: str) -> None:
    times, values = given.get("time", ()), given.get(key, ())
    rising = _rise(times, above=0.0)
    sound = all(0 <= one < math.inf for one in values)
    ordered = sorted(values, reverse=key == "share") == list(values)
    if set(given) != {"time", key} or len(times) != len(values) or not (rising and sound and ordered):
        raise PlanError(f"it is not a curve of {key} over time", f"task.{name}", "Plan again")


def _rise(values: Sequence[float], *, above: float) -> bool:
    before = [above, *values[:-1]] if values else []
    return all(low < high < math.inf for low, high in zip(before, values, strict=True))
