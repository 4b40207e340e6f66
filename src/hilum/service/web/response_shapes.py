"""The shapes of what the API answers, and the words that a page shows; `/openapi.json` says them to programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, JsonValue

from hilum.report import wording
from hilum.service.configuration import Priority
from hilum.service.routing.routing_rules import RuleCondition
from hilum.values.finding_records import FindingRow

RowType = TypeVar("RowType")
INFERENCE = "/v2"  # below it lie the paths of the Open Inference Protocol


def _time(seconds: Any) -> Any:
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int | float) else seconds


# What OpenAPI states of answers, by their status.
Responses = dict[int | str, dict[str, Any]]
Time = Annotated[datetime, BeforeValidator(_time)]


class Listing(BaseModel, Generic[RowType]):
    """A list: what its rows are, in which version of their shape."""

    schema_: str = Field(alias="schema")
    version: int = 1
    rows: list[RowType]


class Problem(BaseModel):
    """Problem: what went wrong, where, and what to do."""

    problem: str
    where: str
    remedy: str


class InferenceProblem(Problem):
    """The same with one sentence, as clients of the Open Inference Protocol read it."""

    error: str


def problem_of(path: str, problem: str, where: str, remedy: str) -> dict[str, str]:
    """Shape of a problem in the answer to a path: a `Problem`, of that protocol an `InferenceProblem`."""
    error = {"error": f"{problem}. {remedy}"} if path.startswith(f"{INFERENCE}/") else {}
    return {**error, "problem": problem, "where": where, "remedy": remedy}


class DeliveryShape(BaseModel):
    """An answer on its way to a peer: waiting, sent, committed or aside; reason: why it has not arrived.

    sent_as: the SOP Instance UID under which the peer has it, where that is not the answer's own
    """

    peer: str
    state: str
    reason: str | None
    attempts: int
    sent_as: str | None


class AnswerShape(BaseModel):
    """A file of a result."""

    kind: str
    name: str
    sop_instance_uid: str | None
    deliveries: list[DeliveryShape]


class JobShape(BaseModel):
    """A model on series of a study; series and study as UIDs."""

    job: str
    study: str
    rule: str
    model: str
    state: str
    outcome: str | None
    reason: str | None
    series: list[str]
    attempts: int
    created_at: Time
    done_at: Time | None
    answers: list[AnswerShape]


class StudyShape(BaseModel):
    """A study, by its StudyInstanceUID, with all that was made of it.

    people: patients, where it shows several
    objects_gone_at, results_gone_at: when retention deleted its objects, and its results with its identity
    """

    study: str
    state: str
    revision: int
    instances: int
    received_at: Time
    outcome: str | None
    reason: str | None
    people: list[str]
    objects_gone_at: Time | None
    results_gone_at: Time | None
    jobs: list[JobShape]


class WorklistShape(BaseModel):
    """A study to be read, by its StudyInstanceUID; because: the finding that gives the priority, or why none does.

    finding: what a result states of it first, the most urgent result's, as it stands; job: of that result
    is_corrected: whether a person has corrected that
    verdict: what a person made of any result of it last
    outcome: of the study; reason: why it has no answer, or what of that is lacking
    """

    study: str
    priority: Priority
    because: str
    received_at: Time
    state: str
    patient: str
    modality: str
    description: str
    finding: str
    job: str | None
    verdict: str | None
    outcome: str | None
    reason: str
    is_corrected: bool


class NoticeShape(BaseModel):
    """A notice of an urgent finding; study as UID, deliveries to its recipients in turn.

    is_corrected: whether a person has corrected the result since, so that the finding may no longer stand
    """

    notice: str
    study: str
    job: str
    finding: str
    is_corrected: bool
    priority: str
    created_at: Time
    acknowledged_at: Time | None
    deliveries: list[DeliveryShape]


class IncidentShape(BaseModel):
    """Incident of a result; study as UID, at: when account changed it last."""

    incident: int
    study: str | None
    kind: str
    harm: str
    version: str
    known_on: str
    cause: str
    action: str
    checked: str
    account: str
    at: Time


class RoutedShape(BaseModel):
    """A rule on a series, which is taken or not, and why."""

    series: str
    rule: str
    role: str
    taken: bool
    conditions: list[RuleCondition]


class ModelShape(BaseModel):
    """A model of the node, and the rules that use it.

    modality: empty where it takes any
    gate:     on what it refuses images; is_gated: whether distances from its training images decide
    model_version: as results state it beside the name
    """

    name: str
    path: str
    hash: str
    modality: str
    task: str
    gate: str
    is_gated: bool
    model_version: str
    rules: list[str]


class PeerShape(BaseModel):
    """Another system that the node knows."""

    name: str
    ae_title: str
    host: str
    port: int
    may: list[str]
    commit: bool
    dicomweb: str | None


class EchoShape(BaseModel):
    """A peer that has answered a C-ECHO."""

    peer: str
    seconds: float


class UntakenShape(BaseModel):
    """A series that a rule did not take, by UIDs; fails: the conditions that do not hold, in words."""

    study: str
    series: str
    rule: str
    fails: list[str]


class LogShape(BaseModel):
    """A warning or an error of the node's log, which names no patient."""

    at: Time
    process: str
    level: str
    message: str


class ContactShape(BaseModel):
    """A peer that the node sends to or receives from: last_contact: newest object in either direction; what waits."""

    peer: str
    last_contact: Time | None
    waiting: int
    last_error: str | None


class NodeShape(BaseModel):
    """The node itself, where it receives (over TLS too, if so), and how much lies in it.

    contacts: with each peer, the FHIR server and each receiver of HL7
    untaken: series of the newest studies that rules did not take; troubles: the newest warnings and errors
    """

    name: str
    version: str
    ae_title: str
    dicom: str
    dicom_over_tls: str | None
    text: str
    free_gb: float
    studies: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    contacts: list[ContactShape]
    untaken: list[UntakenShape]
    troubles: list[LogShape]


class AsideShape(BaseModel):
    """An object that was set aside; study, sop_instance_uid: of the object that came first, where there is one."""

    n: int
    study: str | None
    sop_instance_uid: str | None
    reason: str
    at: Time | None


class ApprovalShape(BaseModel):
    """A person's approval of a change, and the role that the person had."""

    account: str
    role: str
    at: Time


class ChangeFigureShape(BaseModel):
    """A figure of a shadow or an arm; low and high hold at every look. arm: empty of a shadow; source: of a rate."""

    metric: str
    arm: str
    source: str
    cases: int | None
    value: float | None
    low: float | None
    high: float | None


class ChangeShape(BaseModel):
    """A package that answers for a model, did, or is to. package: SHA-256 of its manifest.json; check: of change.json

    mode: shadow, live or arm; state: waiting, in force or ended
    """

    n: int
    model: str
    package: str
    mode: str
    state: str
    share: float | None
    until: Time | None
    asked_at: Time
    began: Time | None
    ended: Time | None
    because: str
    check: str | None
    approvals: list[ApprovalShape]
    figures: list[ChangeFigureShape]


class EventShape(BaseModel):
    """An event of the audit, as it is sealed; patient: a pseudonym."""

    sequence: int
    at: Time
    node: str
    actor: str
    role: str
    address: str
    action: str
    object: str
    patient: str | None
    outcome: str
    detail: dict[str, JsonValue]
    previous: str
    hash: str


class PartShape(BaseModel):
    """A part of the node that has to work before it may be sent studies."""

    part: str
    ok: bool
    problem: str | None = None


class ReadyShape(BaseModel):
    """Whether the node may be sent studies."""

    ready: bool
    parts: list[PartShape]


class LiveShape(BaseModel):
    """Answer that the web process lives."""

    live: bool = True


class LoginShape(BaseModel):
    """Login of a node; needed: false where only this machine is served, and everybody has all rights."""

    needed: bool
    password: bool
    openid: str | None


class MeShape(BaseModel):
    """Who asks, and what a page sends as X-CSRF-Token with every change; account is empty where none is needed."""

    account: str
    role: str
    csrf: str


class AccountShape(BaseModel):
    """A person; password: only where the node has made it just now; openid: whether a provider vouches for it."""

    account: str
    role: str
    openid: bool
    ended: bool
    created_at: Time
    password: str | None = None


class TokenShape(BaseModel):
    """A token of a machine; secret: itself, only where it was made just now."""

    token: str
    name: str
    role: str
    account: str
    created_at: Time
    ends_at: Time
    ended: bool
    secret: str | None = None


class AlertShape(BaseModel):
    """An alert of monitoring. actor, reason: of the person who took it up or closed it, or why it was cleared.

    state: open, acknowledged, closed, or cleared after three quiet windows
    """

    n: int
    model: str
    at: Time
    severity: str
    watch: str
    kind: str
    scope: str
    since: Time
    state: str
    because: str
    action: str
    actor: str | None
    reason: str | None
    ended_at: Time | None


class HoldShape(BaseModel):
    """Hold of an alert on a model: warn, abstain, rollback or stop, until a person undoes it; halt, until two do.

    undone_by: who did; of a halt that stands the one who has agreed
    """

    n: int
    model: str
    action: str
    alert: int
    because: str
    since: Time
    undone_at: Time | None
    undone_by: str | None


class BaselineShape(BaseModel):
    """A baseline: collecting, proposed once there are enough cases, or frozen; wanted: cases of one."""

    state: str
    cases: int
    wanted: int
    frozen_at: Time | None
    frozen_by: str | None


class WatchedShape(BaseModel):
    """A version of a model as monitoring sees it; rows as in `drift.csv`, `performance.csv` and `site.csv`.

    version: its hash; model_version: as results state it
    site_verdict: whether the baseline is like the cases that calibrated the model; empty where that is not known
    cases: since the watches have begun; problem: why it cannot be watched
    bounds: whether audited figures keep each; changes: {time: software that was new}
    """

    model: str
    version: str
    model_version: str
    verdict: str
    baseline: BaselineShape
    cases: int
    run_length: float
    problem: str
    drift: list[dict[str, JsonValue]]
    performance: list[dict[str, JsonValue]]
    site_verdict: str
    site: list[dict[str, JsonValue]]
    bounds: list[dict[str, JsonValue]]
    changes: dict[str, str]


class MonitorShape(BaseModel):
    """Result of the last round of monitoring; holds: those that stand."""

    verdict: str
    at: Time | None
    models: list[WatchedShape]
    holds: list[HoldShape]


def shown_name(value: Any) -> str:
    """A PatientName as people write it: "Doe^John^^Dr" is "Doe, John"; of several spellings the first. PS3.5 6.2.1"""
    first = next((group for group in attribute_text(value).split("=") if group.strip("^ ")), "")
    family, *others = [part.strip() for part in first.split("^")]
    return ", ".join(filter(None, [family, " ".join(filter(None, others[:2]))]))


def shown_date(value: Any) -> str:
    """20240131 as 2024-01-31; anything else as it is."""
    words = attribute_text(value)
    return f"{words[:4]}-{words[4:6]}-{words[6:8]}" if len(words) == 8 and words.isdigit() else words


def attribute_text(attribute: Any) -> str:
    """One text of an attribute, which may have several values or none."""
    values = attribute if isinstance(attribute, list) else [attribute]
    return " ".join(str(value) for value in values if value is not None).strip()


def shown_finding(row: FindingRow) -> str:
    """A finding in a few words: its name with its number or probability; empty for one that is absent."""
    value, probability = row.get("value"), row.get("probability")
    if value is False or row.get("called") is False:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{row['concept']}: {wording.number_text(value, row.get('unit') or '')}" if value else ""
    if isinstance(probability, int | float):
        return f"{row['concept']}: {100 * probability:.0f} %"
    return str(row["concept"])
