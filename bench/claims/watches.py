"""Watches of a model in use: how often they alarm without a change, and after how many cases with one.

Each stream has a reference of its own: a watch that took one frozen sample for the distribution would keep its rate for
most references, and break it for others.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from claims.law import Law, Random

from hilum.monitoring import e_detectors

# The chance of an alarm is at most CASES / RUN_LENGTH.
CASES, RUN_LENGTH = 200, 500
LIMIT = CASES / RUN_LENGTH
# Delays: at the run length of a node, after so many cases without a change; streams end after so many cases with one.
LONG, BEFORE, AFTER = 10_000, 200, 600


def normal(random: Random, cases: int, columns: int = 1) -> np.ndarray:
    return random.normal(size=(cases, columns))


def tied(random: Random, cases: int) -> np.ndarray:
    """Four values, of which one is rare."""
    return random.choice(4, size=(cases, 1), p=[0.6, 0.27, 0.1, 0.03]).astype(np.float64)


def heavy(random: Random, cases: int) -> np.ndarray:
    return random.standard_cauchy(size=(cases, 1))


def lacking(random: Random, cases: int) -> np.ndarray:
    """A third of the values are missing."""
    return np.where(random.random((cases, 1)) < 1 / 3, np.nan, random.normal(size=(cases, 1)))


SIMULATED = {
    "normal": normal,
    "tied": tied,
    "heavy-tailed": heavy,
    "a third missing": lacking,
    "32 features": partial(normal, columns=32),
}


def alarms(random: Random, reference: int, kind: str) -> float:
    """Whether a watch alarms although nothing has changed."""
    simulate = SIMULATED[kind]
    return float(
        e_detectors.watch_values(simulate(random, reference), simulate(random, CASES), run_length=RUN_LENGTH).alarm
        is not None
    )


def alarms_of_people(random: Random, reference: int) -> float:
    """The same where each patient comes one to five times, and is alike each time."""
    times = random.integers(1, 6, size=CASES)
    people = np.repeat(np.arange(CASES), times)[:CASES]
    values = normal(random, CASES)[people] + 0.2 * normal(random, CASES)
    own = normal(random, reference) + 0.2 * normal(random, reference)
    return float(e_detectors.watch_values(own, values, run_length=RUN_LENGTH, patients=people).alarm is not None)


def alarms_by_week(random: Random, reference: int) -> float:
    """The same where weekends are other days by 1.5 SD."""
    weekends = [(np.arange(cases) // 10 % 7 >= 5).astype(np.int64) for cases in (reference, CASES)]
    own, values = (normal(random, len(days)) + 1.5 * days[:, None] for days in weekends)
    return float(
        e_detectors.watch_values(own, values, run_length=RUN_LENGTH, strata=(weekends[0], weekends[1])).alarm
        is not None
    )


def alarms_of_calibration(random: Random) -> float:
    """Whether the watch of outcomes alarms where inputs change in each case, but probabilities hold."""
    p = 1 / (1 + np.exp(-np.linspace(-3, 3, CASES) - random.normal(size=CASES)))
    outcomes = random.random(CASES) < p
    return float(e_detectors.watch_calibration(p, outcomes, run_length=RUN_LENGTH).alarm is not None)


def delay(random: Random, shift: float = 0.0, spread: float = 1.0) -> float:
    """Cases until the alarm after a change; NaN after an alarm before it."""
    values = normal(random, BEFORE + AFTER)
    values[BEFORE:] = values[BEFORE:] * spread + shift
    alarm = e_detectors.watch_values(normal(random, 300), values, run_length=LONG).alarm
    return _counted(alarm)


def delay_of_concept(random: Random, log_odds: float) -> float:
    """Labels until the alarm after the log-odds of the outcome have moved."""
    logits = random.normal(size=BEFORE + AFTER)
    moved = logits + np.where(np.arange(BEFORE + AFTER) < BEFORE, 0.0, log_odds)
    outcomes = random.random(len(logits)) < 1 / (1 + np.exp(-moved))
    alarm = e_detectors.watch_calibration(1 / (1 + np.exp(-logits)), outcomes, run_length=LONG).alarm
    return _counted(alarm)


def _counted(alarm: int | None) -> float:
    if alarm is None:
        return AFTER
    return alarm - BEFORE + 1 if alarm >= BEFORE else np.nan


def within(study: Law, limit: float) -> Law:
    """Whether the delay is at most the limit: the median is where half of the streams are."""
    return Law(
        study.claim, f"{study.cell}: within {limit:.0f}", lambda random: _at_most(study.study(random), limit),
        low=0.5, draws=study.draws, few=study.few,
    )  # fmt: skip


def _at_most(number: float, limit: float) -> float:
    return np.nan if np.isnan(number) else float(number <= limit)


CALM = f"no change: a watch alarms within {CASES} cases at a run length of {RUN_LENGTH}"
PROMPT = f"a change after {BEFORE} cases, run length {LONG}, reference of 300: half of the streams alarm in time"
LAWS: list[Law] = [
    *(
        Law(CALM, f"{kind}, reference of {reference}", partial(alarms, reference=reference, kind=kind), high=LIMIT,
            few=20 * (kind == "tied"))
        for kind in SIMULATED for reference in (60, 300)
    ),
    *(
        Law(CALM, f"{name}, reference of {reference}", partial(study, reference=reference), high=LIMIT)
        for name, study in (("patients who come again", alarms_of_people), ("weekends that differ", alarms_by_week))
        for reference in (60, 300)
    ),
    Law(CALM, "outcomes, while inputs change", alarms_of_calibration, high=LIMIT),
    *(
        within(Law(PROMPT, cell, study, draws=200), limit)
        for cell, study, limit in (
            ("1 SD", partial(delay, shift=1.0), 25),
            ("0.5 SD", partial(delay, shift=0.5), 90),
            ("doubled variance", partial(delay, spread=np.sqrt(2)), 110),
            ("one log-odds of concept", partial(delay_of_concept, log_odds=1.0), 130),
        )
    ),
]  # fmt: skip
