"""The record of the last round of monitoring of a node, which its page shows."""

from __future__ import annotations

from typing_extensions import TypedDict

from hilum.monitoring.monitoring_record import BoundRow, SiteTestRow
from hilum.values.record_schema import RecordHead, RecordSchema


class DriftRow(TypedDict):
    """A watch: the evidence of a change, and when its alarm came."""

    watch: str
    kind: str
    scope: str
    cases: int
    log_evidence: float | None
    limit: float | None
    alarm_at: str
    since: str
    because: str


# A figure of the cases of a time, with its interval.
PerformanceRow = TypedDict(
    "PerformanceRow",
    {
        "from": str,
        "to": str,
        "scope": str,
        "metric": str,
        "label": str,
        "value": float | None,
        "low": float | None,
        "high": float | None,
        "n": int,
        "patients": int,
        "source": str,
        "method": str,
    },
)


class WatchedVersionRecord(TypedDict):
    """A version of a model that is watched; problem: why it cannot be."""

    model: str
    version: str
    baseline: str
    cases: int
    run_length: float
    problem: str
    drift: list[DriftRow]
    performance: list[PerformanceRow]
    site_verdict: str
    site: list[SiteTestRow]
    bounds: list[BoundRow]
    changes: dict[str, str]


class NodeMonitorRecord(RecordHead):
    """The last round of monitoring; at: seconds since 1970; null before the first."""

    at: float | None
    rows: list[WatchedVersionRecord]


NODE_MONITOR_SCHEMA = RecordSchema("hilum.node_monitor", NodeMonitorRecord)
