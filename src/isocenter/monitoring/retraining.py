"""Triggers of a plan of changes: what of a monitoring speaks for training anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isocenter.errors import counted
from isocenter.monitoring.change_plan import ChangePlan
from isocenter.monitoring.stream import CONCEPT


def fired(plan: ChangePlan, monitored: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(trigger, evidence) of each trigger of the plan that a `monitor.json` bears out."""
    alerts = monitored["alerts"]
    for trigger, kind in (("bound", "performance"), ("concept", CONCEPT)):
        for alert in alerts if plan.retrain.get(trigger) else ():
            if alert["kind"] == kind:
                yield trigger, f"alert {alert['alert']} of {alert['at']}: {alert['because']}"
    wanted, labels = plan.retrain.get("labels"), monitored["labels"]
    if wanted and labels >= wanted:
        yield "labels", f"{counted(labels, 'labelled case')}, {wanted} are asked for"
