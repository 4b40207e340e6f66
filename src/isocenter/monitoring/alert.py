"""Alerts: what a person has to look at, one a cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from isocenter.lazy import pandas as pd
from isocenter.monitoring.drift import Drift
from isocenter.monitoring.performance import AUDITED, Performance
from isocenter.monitoring.stream import CONCEPT, INPUT, OPERATION, OUTPUT
from isocenter.values import Estimate

WARNING, URGENT, OPEN = "warning", "urgent", "open"
ACTIONS = {
    INPUT: "Look at new images of the scope, and at what changed at the scanner",
    OUTPUT: "Compare with new labels; recalibrate if the patients have changed",
    CONCEPT: "Do not rely on the probabilities; read a random share of studies blind",
    OPERATION: "Look at the log of the node",
}


@dataclass(frozen=True)
class Bound:
    """Bound that an audited figure must not fall below."""

    metric: str
    label: str
    at_least: float


def bound_name(metric: str, label: str) -> str:
    """Name of the alert of a bound."""
    return f"{metric} of {label}"


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


def alerts(drifts: Sequence[Drift], figures: Sequence[Performance], bounds: Sequence[Bound] = ()) -> list[Alert]:
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
        scope, action = "; ".join(row.scope for row in levels), ACTIONS[kind]
        at, since = min(row.alarm_at for row in rings), min(row.since for row in rings)
        words = "; ".join(dict.fromkeys(filter(None, because)))
        made.append(Alert(0, at, severity, first.watch, kind, scope, since, OPEN, action, words))
    for bound in bounds:
        for row in figures:
            if not row.scope and (row.metric, row.label, row.source) == (bound.metric, bound.label, AUDITED):
                made += _below(row, bound, row.estimate)
    ordered = sorted(made, key=lambda one: one.at)
    return [replace(one, alert=number) for number, one in enumerate(ordered, start=1)]


def _below(row: Performance, bound: Bound, estimate: Estimate) -> list[Alert]:
    if estimate.high is None or estimate.high >= bound.at_least:
        return []
    words = f"audited {row.metric} {estimate.value:.3f}, at most {estimate.high:.3f}; the bound is {bound.at_least:g}"
    name, action = bound_name(row.metric, row.label), "Stop relying on the model until its cause is found"
    return [Alert(0, row.until, URGENT, name, "performance", "", row.since, OPEN, action, words)]


def alert_table(rows: Sequence[Alert]) -> pd.DataFrame:
    """The rows as `alerts.csv` has them."""
    return pd.DataFrame([vars(row) for row in rows], columns=list(Alert.__dataclass_fields__))
