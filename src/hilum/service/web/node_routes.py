"""Routes of the node itself: what it is, models and peers, health without a word of patients, metrics, the audit."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, cast

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import AwareDatetime
from sqlalchemy import Column, and_, case, func, or_, select
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hilum.errors import HilumError, ResourceError
from hilum.files.storage import structured_text
from hilum.service import node_folder
from hilum.service.configuration import SEVERITIES
from hilum.service.dicom import dicom_listening, sending
from hilum.service.dicom.sending import PeerError
from hilum.service.node_folder import ALIVE, LOG
from hilum.service.records import alert_records, deployments
from hilum.service.records.actor import Actor
from hilum.service.records.audit_records import COLUMNS, REFUSED
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.tables import AUDIT, DELIVERIES, INSTANCES, JOBS, STUDIES
from hilum.service.routing import routing_rules
from hilum.service.routing.routing_facts import SeriesFacts
from hilum.service.web import access, response_shapes, web_node
from hilum.service.web.access import ACTOR, ADMINISTRATORS, ANYBODY, KEEPING, ROLES, Who
from hilum.service.web.response_shapes import (
    ContactShape,
    EchoShape,
    EventShape,
    Listing,
    LiveShape,
    LogShape,
    ModelShape,
    NodeShape,
    PartShape,
    PeerShape,
    Problem,
    ReadyShape,
    UntakenShape,
)
from hilum.service.web.web_node import Limit, Node, WebError, WebNode

router = APIRouter(prefix="/api", tags=["node"])
ECHO_S = 10.0
# Studies whose senders were heard last. Studies of which is said why rules did not take their series; bytes of the log
# that are looked at, and lines of it.
LATEST = 100
NEWEST, LOG_BYTES, MOST_TROUBLES = 10, 1 << 17, 20
TROUBLES = ("warning", "error", "critical")


@router.get("/node", dependencies=[access.require_roles(ROLES)])
def get_node(node: Node) -> NodeShape:
    """Get the name of the node, and how much lies in it."""
    counts = {"studies": STUDIES.c.state, "jobs": JOBS.c.state, "deliveries": DELIVERIES.c.state}
    dicom = node.settings.dicom
    return NodeShape(
        name=node.settings.node.name,
        version=version("hilum"),
        ae_title=dicom.ae_title,
        dicom=f"{dicom.host}:{dicom.port}",
        dicom_over_tls=None if dicom.tls is None else f"{dicom.host}:{dicom.tls.port}",
        text=node.settings.node.text,
        free_gb=free_bytes(node) / 1e9,
        contacts=_contacts(node),
        untaken=list(_untaken(node)),
        troubles=_troubles(node),
        **{name: {state: n for (state,), n in count_rows_by(node, column).items()} for name, column in counts.items()},
    )


@router.get("/models", dependencies=[access.require_roles(ROLES)])
def list_models(node: Node) -> Listing[ModelShape]:
    """The models that rules may name."""
    models = node.models
    rules = routing_rules.rules_of(node.settings, models)
    with node.database.read() as connection:
        folders = {
            name: deployments.live_folder(connection, name) or node.settings.models[name].path for name in models
        }
    rows = [
        ModelShape(
            name=name,
            path=str(folders[name]),
            hash=one.hash,
            modality=one.modality,
            task=one.task,
            gate=one.gate,
            is_gated=one.is_gated,
            model_version=one.version,
            rules=[rule.name for rule in rules if rule.model == name],
        )
        for name, one in models.items()
    ]
    return Listing[ModelShape](schema="hilum.models", rows=rows)


@router.get("/peers", dependencies=[access.require_roles(ROLES)])
def list_peers(node: Node) -> Listing[PeerShape]:
    """The systems that the node knows."""
    return Listing[PeerShape](
        schema="hilum.peers", rows=[PeerShape(**peer.model_dump()) for peer in node.settings.peers]
    )


@router.post("/peers/{name}/echo", dependencies=[access.require_roles(KEEPING)], responses={502: {"model": Problem}})
def echo_peer(node: Node, name: str) -> EchoShape:
    """Ask a peer by C-ECHO whether it is there."""
    peer = next((peer for peer in node.settings.peers if peer.name == name), None)
    if peer is None:
        raise WebError(404, "there is no such peer", name, "See /api/peers")
    began = time.monotonic()
    try:
        sending.send_echo(node.settings.dicom.ae_title, dicom_listening.peer_of_settings(peer), idle_s=ECHO_S)
    except PeerError as error:
        raise WebError(502, error.problem, error.where, error.remedy) from error
    return EchoShape(peer=name, seconds=time.monotonic() - began)


def _contacts(node: WebNode) -> list[ContactShape]:
    """The last contact with each peer, what waits for it, and the newest reason why something has not arrived."""
    newest = select(STUDIES.c.study).order_by(STUDIES.c.received_at.desc()).limit(LATEST)
    received = select(INSTANCES.c.peer, func.max(INSTANCES.c.received_at)).where(INSTANCES.c.study.in_(newest))
    waits = func.sum(case((DELIVERIES.c.state == "waiting", 1), else_=0))
    sent = select(DELIVERIES.c.peer, func.max(DELIVERIES.c.sent_at), waits).group_by(DELIVERIES.c.peer)
    is_late = and_(DELIVERIES.c.reason.is_not(None), DELIVERIES.c.state.in_(("waiting", "aside")))
    late = select(DELIVERIES.c.peer, DELIVERIES.c.reason).where(is_late).order_by(DELIVERIES.c.next_at)
    with node.database.read() as connection:
        came = dict(connection.execute(received.group_by(INSTANCES.c.peer)).tuples().all())
        went = {peer: (at, count) for peer, at, count in connection.execute(sent)}
        errors = dict(connection.execute(late).tuples().all())
    titles = {peer.name: peer.ae_title for peer in node.settings.peers} | dict.fromkeys(node.settings.report_to, "")
    contacts = list[ContactShape]()
    for name, title in titles.items():
        at, waiting = went.get(name, (None, 0))
        last = max(filter(None, (came.get(title), came.get(name), at)), default=None)
        contacts.append(ContactShape(peer=name, last_contact=last, waiting=waiting, last_error=errors.get(name)))
    return contacts


def _untaken(node: WebNode) -> Iterator[UntakenShape]:
    """Series of the newest studies that a rule did not take, and why."""
    with node.database.read() as connection:
        complete = select(STUDIES).where(STUDIES.c.complete_at.is_not(None), STUDIES.c.state != "receiving")
        newest = connection.execute(complete.order_by(STUDIES.c.complete_at.desc()).limit(NEWEST)).all()
    if not newest:
        return
    rules = routing_rules.rules_of(node.settings, node.models)
    for study in newest:
        models = node.models_of(study)
        found = node.index.series_of(study.study)
        contents = {one.series: one.inputs_hash for one in found}
        answers, _ = routing_rules.study_answers(node.database, study.study, rules, models, contents)
        for row in routing_rules.study_routing(rules, models, [SeriesFacts.of_row(one) for one in found], answers).rows:
            if not row.taken:
                fails = [one.failure for one in row.conditions if not one.holds]
                yield UntakenShape(study=study.uid, series=row.uid, rule=row.rule, fails=fails)


def _troubles(node: WebNode) -> list[LogShape]:
    """The newest warnings and errors of the log, the newest first."""
    try:
        with (node.folder / LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - LOG_BYTES))
            lines = log.read().splitlines()
    except OSError:  # nothing was logged yet
        return []
    found = list[LogShape]()
    for line in reversed(lines):
        try:
            trouble = LogShape.model_validate(structured_text.parse_json(line.decode()))
        except ValueError:  # the first may be cut
            continue
        if trouble.level in TROUBLES:
            found.append(trouble)
        if len(found) == MOST_TROUBLES:
            break
    return found


def free_bytes(node: WebNode) -> int:
    """Free bytes of the disk that the node's folder lies on."""
    return shutil.disk_usage(node.folder).free


def count_rows_by(node: WebNode, *columns: Column[Any]) -> dict[tuple[str, ...], int]:
    """{values of the columns: rows of their table}; what has no value is not counted."""
    with node.database.read() as connection:
        is_stated = (column.is_not(None) for column in columns)
        rows = connection.execute(select(*columns, func.count()).where(*is_stated).group_by(*columns))
        return {tuple(map(str, values)): count for *values, count in rows}


health_router = APIRouter(prefix="/health", tags=["health"], dependencies=[access.require_roles(ANYBODY)])
SILENT_S = 60.0
# Threads of its own: where all others answer someone, who asks whether the node is ready does not wait for them.
THREADS = CapacityLimiter(2)


@health_router.get("/live")
async def live() -> LiveShape:
    """The web process answers."""
    return LiveShape()


@health_router.get("/ready", responses={503: {"model": ReadyShape}})
async def ready(node: Node, response: Response) -> ReadyShape:
    """Database, disk and processes of the node work: it may be sent studies."""
    parts = await to_thread.run_sync(node_parts, node, limiter=THREADS)
    is_ready = all(part.ok for part in parts)
    response.status_code = 200 if is_ready else 503
    return ReadyShape(ready=is_ready, parts=parts)


def node_parts(node: WebNode) -> list[PartShape]:
    """Whether each part of the node works, and if not, why."""
    return [_database(node), _disk(node), *_roles(node)]


def seconds_silent(node: WebNode) -> dict[str, float]:
    """{process: seconds since it last said that it is alive}; none where they say nothing.

    By the clock that stamps the signs, which is another machine's where the folder is: this process signs each second.
    """
    folder = node.folder / ALIVE
    if not folder.is_dir():
        return {}
    signed = {path.name: path.stat().st_mtime for path in sorted(folder.iterdir())}
    return {name: max(signed.values()) - at for name, at in signed.items()}


def _database(node: WebNode) -> PartShape:
    try:
        node.database.now()
    except ResourceError:  # its words name the machine
        return PartShape(part="database", ok=False, problem="it does not answer")
    return PartShape(part="database", ok=True)


def _disk(node: WebNode) -> PartShape:
    min_free_gb = node.settings.node.min_free_gb
    if free_bytes(node) < min_free_gb * 1e9:
        return PartShape(part="disk", ok=False, problem=f"less than {min_free_gb:g} GB are free")
    return PartShape(part="disk", ok=True)


def _roles(node: WebNode) -> Iterator[PartShape]:
    silent = seconds_silent(node)
    if not any(name.startswith("keeper") for name in silent):  # what comes in would lie there unseen
        yield PartShape(part="keeper", ok=False, problem="it is not running")
    for role, seconds in silent.items():
        is_silent = seconds > SILENT_S
        yield PartShape(part=role, ok=not is_silent, problem=f"silent for {seconds:.0f} s" if is_silent else None)


metrics_router = APIRouter(tags=["metrics"], dependencies=[access.require_roles(KEEPING)])


@metrics_router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
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
            "studies": (STUDIES.c.state,),
            "jobs": (JOBS.c.state,),
            "deliveries": (DELIVERIES.c.state, DELIVERIES.c.peer),
        }
        counts |= {f"{name}_outcomes": (table.c.outcome,) for name, table in (("study", STUDIES), ("job", JOBS))}
        for name, columns in counts.items():
            labels = [column.name for column in columns]
            text = f"{name.replace('_', ' ').capitalize()} in the records"
            family = GaugeMetricFamily(f"hilum_{name}", text, labels=labels)
            for values, count in count_rows_by(node, *columns).items():
                family.add_metric(values, count)
            yield family
        yield from _monitoring(node)
        yield GaugeMetricFamily("hilum_free_bytes", "Free bytes of the disk", value=free_bytes(node))
        yield _family("oldest", "Seconds that the oldest has waited", "what", _ages(node))
        yield _family("silence", "Seconds since a process last said that it is alive", "role", seconds_silent(node))


def _monitoring(node: WebNode) -> Iterator[GaugeMetricFamily]:
    """The evidence of watches, alerts that stand, and performance, by the last round of monitoring."""
    with node.database.read() as connection:
        stands = Counter(row.severity for row in alert_records.standing_alerts(connection))
    alerts = GaugeMetricFamily("hilum_alerts", "Alerts of monitoring that stand", labels=["severity"])
    for severity in SEVERITIES:
        alerts.add_metric([severity], stands[severity])
    yield alerts
    rows = node_folder.last_monitoring_round(node.folder)["rows"]
    text = "Natural logarithm of the evidence that cases have changed; an alarm is given at the limit of the watch"
    names = ["model", "watch", "scope"]
    evidence = GaugeMetricFamily("hilum_watch_log_evidence", text, labels=names)
    limit = GaugeMetricFamily("hilum_watch_limit", "Log evidence at which a watch gives its alarm", labels=names)
    for row in rows:
        for drift in row["drift"]:
            if drift["log_evidence"] is not None:
                evidence.add_metric([row["model"], drift["watch"], drift["scope"]], drift["log_evidence"])
                limit.add_metric([row["model"], drift["watch"], drift["scope"]], cast("float", drift["limit"]))
    yield from (evidence, limit)
    words = "Performance in the last window: audited, reported or estimated"
    figures = GaugeMetricFamily("hilum_performance", words, labels=["model", "metric", "label", "source"])
    for row in rows:
        rows_known = [one for one in row["performance"] if not one["scope"] and one["value"] is not None]
        last = {(one["metric"], one["label"], one["source"]): one["value"] for one in rows_known}
        for labels, value in last.items():
            figures.add_metric([row["model"], *labels], cast("float", value))
    yield figures


def _family(name: str, text: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"hilum_{name}_seconds", text, labels=[label])
    for value, seconds in values.items():
        family.add_metric([value], seconds)
    return family


def _ages(node: WebNode) -> dict[str, float]:
    oldest = {
        "receiving study": (STUDIES.c.received_at, STUDIES.c.state == "receiving"),
        "waiting job": (JOBS.c.created_at, JOBS.c.state == "waiting"),
        "waiting delivery": (DELIVERIES.c.created_at, DELIVERIES.c.state == "waiting"),
    }
    with node.database.read() as connection:
        ages = {
            what: connection.execute(select(DatabaseClock() - func.min(at)).where(state)).scalar()
            for what, (at, state) in oldest.items()
        }
    return {what: max(0.0, seconds or 0.0) for what, seconds in ages.items()}


audit_router = APIRouter(prefix="/api/audit", tags=["audit"])
Word = Annotated[str | None, Query(max_length=64)]


@audit_router.get("", dependencies=[access.require_roles(ADMINISTRATORS)])
def list_audit(
    node: Node,
    who: Who,
    limit: Limit = 100,
    after: Annotated[int | None, Query(ge=1)] = None,
    action: Word = None,
    account: Word = None,
    patient: Word = None,
    study: Word = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> Listing[EventShape]:
    """Sealed events, the newest first. after: the sequence behind which older ones follow; study: its key or UID."""
    key, times = study and web_node.study_key(study), [at and at.timestamp() for at in (since, until)]
    names = ("action", "account", "patient", "study", "after", "since", "until")
    filters = dict(zip(names, (action, account, patient, key, after, *times), strict=True))
    node.record("audit read", "/api/audit", who, detail={name: value for name, value in filters.items() if value})
    of_these = [AUDIT.c.sequence.is_not(None) if after is None else AUDIT.c.sequence < after]
    of_these += [] if action is None else [AUDIT.c.action == action]
    of_these += [] if account is None else [AUDIT.c.actor == account]
    of_these += [] if patient is None else [AUDIT.c.patient == patient]
    of_these += [] if key is None else [or_(AUDIT.c.object == key, AUDIT.c.detail["study"].as_string() == key)]
    of_these += [AUDIT.c.at >= times[0]] if times[0] else []
    of_these += [AUDIT.c.at < times[1]] if times[1] else []
    rows = select(*(AUDIT.c[name] for name in COLUMNS)).where(*of_these).order_by(AUDIT.c.sequence.desc())
    with node.database.read() as connection:
        events = [EventShape.model_validate(row._mapping) for row in connection.execute(rows.limit(limit))]
    return Listing[EventShape](schema="hilum.audit", rows=events)


STATUSES = (401, 403)
LOGIN = "/api/login"  # whoever fails there has an event of their own
DOTTED = re.compile(r"\d+(\.\d+)+")  # as UIDs are, of which the audit has none
AGAIN = {"Retry-After": "30"}  # s


class Refusals:
    """Writes every answer 401 and 403 of an application into the audit; without that the answer is 503."""

    def __init__(self, app: ASGIApp, node: WebNode) -> None:
        self.app, self.node = app, node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        is_replaced = False

        async def sent(message: Message) -> None:
            nonlocal is_replaced
            is_refusal = message["type"] == "http.response.start" and message["status"] in STATUSES
            if is_refusal and not scope["path"].startswith(LOGIN):
                try:
                    await to_thread.run_sync(partial(self._record, scope, message["status"]))
                except HilumError as error:
                    is_replaced = True
                    body = response_shapes.problem_of(
                        scope["path"], error.problem, "the request", "Send it again later"
                    )
                    await JSONResponse(body, 503, AGAIN)(scope, receive, send)
            if not is_replaced:
                await send(message)

        await self.app(scope, receive, sent)

    def _record(self, scope: Scope, status: int) -> None:
        nobody = Actor("", "", (scope.get("client") or ("",))[0])
        who = scope.get("state", {}).get(ACTOR, nobody)
        thing = f"{scope['method']} {DOTTED.sub('{uid}', scope['path'])}"
        self.node.record("refusal", thing, who, outcome=REFUSED, detail={"status": status})
