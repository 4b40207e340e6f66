"""Metrics for Prometheus: how many of each state, how old the oldest, how much room."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from isocenter.service.records.database import Clock
from isocenter.service.records.tables import deliveries, jobs, studies
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
        yield GaugeMetricFamily("isocenter_free_bytes", "Free bytes of the disk", value=free_bytes(node))
        yield _family("oldest", "Seconds that the oldest has waited", "what", _ages(node))
        yield _family("silence", "Seconds since a process last said that it is alive", "role", silences(node))


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
