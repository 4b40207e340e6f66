"""The record of a monitoring: what `monitor.json` holds."""

from __future__ import annotations

from typing_extensions import TypedDict

from hilum.values.record_schema import RecordHead, RecordSchema

# The cases of a stream; "from" and "to" are the times of the first and the last.
StreamFacts = TypedDict(
    "StreamFacts",
    {
        "cases": int,
        "from": str,
        "to": str,
        "labels": int,
        "reference_cases": int,
        "run_length": float,
        "by": str | None,
        "changes": dict[str, str],
    },
    total=False,
)


class SiteTestRow(TypedDict):
    """A test whether the site is what the model was made on."""

    against: str
    of: str
    test: str
    distance: float | None
    p: float | None
    patients: int
    known: int
    left_out: str


class BoundRow(TypedDict):
    """A figure that is reported, and the least that it must be."""

    bound: str
    at_least: float
    state: str
    because: str
    reported: str


class AlertRow(TypedDict):
    """An alert of a watch, and what a person did about it."""

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


class MonitoringRecord(RecordHead, StreamFacts):
    """A model in use: whether anything has changed, of what the site is, and the alerts."""

    verdict: str
    site_verdict: str
    site: list[SiteTestRow]
    notes: list[str]
    bounds: list[BoundRow]
    alerts: list[AlertRow]
    out: str | None


MONITORED = "monitor.json"
MONITORED_SCHEMA = RecordSchema("hilum.monitor", MonitoringRecord)
