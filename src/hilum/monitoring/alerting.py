"""Alerts: what a person has to look at, one for each kind of change and each bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilum.lazy import pandas as pd
from hilum.monitoring.case_stream import CONCEPT, INPUT, OPERATION, OUTPUT
from hilum.monitoring.drift_detection import Drift
from hilum.monitoring.performance_figures import AUDITED, REPORTED, Performance
from hilum.values import Estimate

WARNING = "warning"
URGENT = "urgent"
OPEN = "open"
HELD = "held"
CROSSED = "crossed"
NOT_JUDGED = "not judged"
ACTIONS = {
    INPUT: "Look at new images of the scope, and ask whether anything changed at the scanner",
    OUTPUT: "Compare with new labels; recalibrate if the patients have changed",
    CONCEPT: "Do not rely on the probabilities; read a random share of studies blind",
    OPERATION: "Look at the log of the node",
}


@dataclass(frozen=True)
class AuditBound:
    """Bound that an audited figure must not fall below."""

    metric: str
    label: str
    at_least: float


def bound_name(metric: str, label: str) -> str:
    """Name of the alert of a bound."""
    return f"{metric} of {label}"


@dataclass(frozen=True)
class BoundState:
    """Whether audited figures keep a bound.

    state:    held, crossed or not judged
    reported: the first figure of cases that were not audited that crosses it, in words; else empty
    """

    bound: str
    at_least: float
    state: str
    because: str
    reported: str = ""


@dataclass(frozen=True)
class Alert:
    """One row of `alerts.csv`."""

    alert: int
    at: str
    severity: str
    watch: str
    kind: str
    scope: str
    since: str
    state: str
    action: str
    because: str


def find_alerts(
    drifts: Sequence[Drift], figures: Sequence[Performance], bounds: Sequence[AuditBound] = ()
) -> list[Alert]:
    """One alert for all watches of a kind that ring, at the first; and one for each bound that an audit is below.

    The watch with the most evidence names it. Its scope is the level, or levels, that carry the evidence.
    """
    made = list[Alert]()
    for kind in (CONCEPT, INPUT, OUTPUT, OPERATION):
        rings = [row for row in drifts if row.kind == kind and row.alarm_at and not row.scope]
        if not rings:
            continue
        first = max(rings, key=lambda row: row.log_evidence - row.limit)
        levels = [row for row in drifts if row.watch == first.watch and row.scope and row.alarm_at]
        others = sorted(row.watch for row in rings if row is not first)
        because = [first.because, *(row.because for row in (*levels, *rings))]
        because += [f"also {', '.join(others)}"] if others else []
        severity = URGENT if any(row.is_urgent for row in rings) else WARNING
        scope = "; ".join(row.scope for row in levels)
        action = ACTIONS[kind]
        at = min(row.alarm_at for row in rings)
        since = min(row.since for row in rings)
        words = "; ".join(dict.fromkeys(filter(None, because)))
        made.append(Alert(0, at, severity, first.watch, kind, scope, since, OPEN, action, words))
    for bound in bounds:
        made += (
            _below(row, bound, row.estimate)
            for row in _figures_of_bound(figures, bound, AUDITED)
            if _is_below(row, bound)
        )
    ordered = sorted(made, key=lambda one: one.at)
    return [replace(one, alert=number) for number, one in enumerate(ordered, start=1)]


def bound_states(figures: Sequence[Performance], bounds: Sequence[AuditBound]) -> list[BoundState]:
    """The state of each bound: crossed where the interval of any window is below it, else by the last window."""
    made = list[BoundState]()
    for bound in bounds:
        audited, reported = (_figures_of_bound(figures, bound, source) for source in (AUDITED, REPORTED))
        below = [row for row in audited if _is_below(row, bound)]
        outside = [row for row in reported if _is_below(row, bound)]
        state = CROSSED if below else NOT_JUDGED
        because = "no case was audited"
        for row in (below or [row for row in audited if row.estimate.high is not None] or audited)[-1:]:
            because = _in_words(row)
            if not below and row.estimate.high is None:
                because = f"{because}, {row.estimate.method.removeprefix('none: ')}"
            elif not below and row.estimate.value < bound.at_least:
                because = f"{because} may lie on either side"
            elif not below:
                state = HELD
        name = bound_name(bound.metric, bound.label)
        made.append(BoundState(name, bound.at_least, state, because, _in_words(outside[0]) if outside else ""))
    return made


def reported_bounds_words(states: Sequence[BoundState]) -> list[str]:
    """What a verdict says of bounds that figures of cases that were not audited cross."""
    return [
        f"reported, not audited: {one.bound} {one.reported}, bound {one.at_least:g}" for one in states if one.reported
    ]


def _figures_of_bound(figures: Sequence[Performance], bound: AuditBound, source: str) -> list[Performance]:
    """The figures of all cases that a bound is of, from one source."""
    wanted = (bound.metric, bound.label, source, "")
    return [row for row in figures if (row.metric, row.label, row.source, row.scope) == wanted]


def _is_below(row: Performance, bound: AuditBound) -> bool:
    return row.estimate.high is not None and row.estimate.high < bound.at_least


def _in_words(row: Performance) -> str:
    one = row.estimate
    days = f"from {row.since} to {row.until}"
    ends = "" if one.low is None or one.high is None else f" ({one.low:.3f} to {one.high:.3f})"
    return days if np.isnan(one.value) else f"{one.value:.3f}{ends} {days}"


def _below(row: Performance, bound: AuditBound, estimate: Estimate) -> Alert:
    words = f"audited {row.metric} {estimate.value:.3f}, at most {estimate.high:.3f}; the bound is {bound.at_least:g}"
    name = bound_name(row.metric, row.label)
    action = "Stop relying on the model until its cause is found"
    return Alert(0, row.until, URGENT, name, "performance", "", row.since, OPEN, action, words)


def alert_table(rows: Sequence[Alert]) -> pd.DataFrame:
    """The rows as `alerts.csv` has them."""
    return pd.DataFrame([vars(row) for row in rows], columns=list(Alert.__dataclass_fields__))
