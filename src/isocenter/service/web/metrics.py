"""Metrics for Prometheus: how many of each state, how old the oldest, how much room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from isocenter.service.records.alerts import standing
from isocenter.service.records.database import Clock
from isocenter.service.records.tables import deliveries, jobs, studies
from isocenter.service.settings import SEVERITIES
from isocenter.service.stored import last_look
from isocenter.service.web.access import KEEPING, roles
from isocenter.service.web.health import silences
from isocenter.service.web.node import counted_by, free_bytes
from isocenter.service.web.web_node import Node, WebNode

router = APIRouter(tags=["metrics"], dependencies=[roles(*KEEPING)])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(node: Node) -> Response:
    """Figures of the node as it is now."""
    registry = CollectorRegistry()
    registry.register(_Figures(node))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Figures(Collector):
    """Read from the records at each request: any process may have changed them."""

    def __init__(self, node: WebNode) -> None:
        self.node = node

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All figures."""
        node = self.node
        counts = {
            "studies": (studies.c.state,),
            "jobs": (jobs.c.state,),
            "deliveries": (deliveries.c.state, deliveries.c.peer),
        }
        counts |= {f"{name}_outcomes": (table.c.outcome,) for name, table in (("study", studies), ("job", jobs))}
        for name, columns in counts.items():
            labels = [column.name for column in columns]
            text = f"{name.replace('_', ' ').capitalize()} in the records"
            family = GaugeMetricFamily(f"isocenter_{name}", text, labels=labels)
            for values, count in counted_by(node, *columns).items():
                family.add_metric(values, count)
            yield family
        yield from _monitoring(node)
        yield GaugeMetricFamily("isocenter_free_bytes", "Free bytes of the disk", value=free_bytes(node))
        yield _family("oldest", "Seconds that the oldest has waited", "what", _ages(node))
        yield _family("silence", "Seconds since a process last said that it is alive", "role", silences(node))


def _monitoring(node: WebNode) -> Iterator[GaugeMetricFamily]:
    """The evidence of watches, alerts that stand, and performance, by the last round of monitoring."""
    with node.database.read() as connection:
        stands = Counter(row.severity for row in standing(connection))
    alerts = GaugeMetricFamily("isocenter_alerts", "Alerts of monitoring that stand", labels=["severity"])
    for severity in SEVERITIES:
        alerts.add_metric([severity], stands[severity])
    yield alerts
    rows = last_look(node.folder)["rows"]
    text = "Natural logarithm of the evidence that cases have changed; an alarm is given at the limit of the watch"
    names = ["model", "watch", "scope"]
    evidence = GaugeMetricFamily("isocenter_watch_log_evidence", text, labels=names)
    limit = GaugeMetricFamily("isocenter_watch_limit", "Log evidence at which a watch gives its alarm", labels=names)
    for row in rows:
        for one in row["drift"]:
            if one["log_evidence"] is not None:
                evidence.add_metric([row["model"], one["watch"], one["scope"]], one["log_evidence"])
                limit.add_metric([row["model"], one["watch"], one["scope"]], one["limit"])
    yield from (evidence, limit)
    words = "Performance in the last window: audited, reported or estimated"
    figures = GaugeMetricFamily("isocenter_performance", words, labels=["model", "metric", "label", "source"])
    for row in rows:
        known = [one for one in row["performance"] if not one["scope"] and one["value"] is not None]
        last = {(one["metric"], one["label"], one["source"]): one["value"] for one in known}
        for labels, value in last.items():
            figures.add_metric([row["model"], *labels], value)
    yield figures


def _family(name: str, text: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"isocenter_{name}_seconds", text, labels=[label])
    for value, seconds in values.items():
        family.add_metric([value], seconds)
    return family


def _ages(node: WebNode) -> dict[str, float]:
    oldest = {
        "receiving study": (studies.c.received_at, studies.c.state == "receiving"),
        "waiting job": (jobs.c.created_at, jobs.c.state == "waiting"),
        "waiting delivery": (deliveries.c.created_at, deliveries.c.state == "waiting"),
    }
    with node.database.read() as connection:
        ages = {
            what: connection.execute(select(Clock() - func.min(at)).where(state)).scalar()
            for what, (at, state) in oldest.items()
        }
    return {what: max(0.0, seconds or 0.0) for what, seconds in ages.items()}
