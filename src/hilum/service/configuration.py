"""The settings of a node: `node.toml`, read strictly, an error with its line."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hilum.deidentification.confidentiality_profile import ConfidentialityProfile
from hilum.errors import HilumError, UsageError
from hilum.files.dicom.writing import dicom_answers
from hilum.files.storage import structured_text
from hilum.files.storage.structured_text import TomlTable
from hilum.service import default_ports
from hilum.values.advice_lines import AdviceLine

AE_LETTERS = 16  # PS3.5 6.2, value representation AE
SEE = "See the page on `hilum serve` for every key"
TOKEN = "HILUM_TOKEN"  # noqa: S105 - the name of a variable
Priority = Literal["emergency", "urgent", "routine", "background"]
PersonRole = Literal["viewer", "radiologist", "administrator"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)  # the most urgent first
Severity = Literal["warning", "urgent"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
ALERT = "monitor:"  # before the severity of alerts of which somebody is notified
Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
MOST_CONNECTIONS = 500  # over HTTP at once: a process may have 1024 files open


def _title(text: str) -> str:
    if not 0 < len(text.strip()) <= AE_LETTERS or not text.isascii() or not text.isprintable() or "\\" in text:
        raise ValueError("an AE title has 1 to 16 ASCII letters, and no backslash")
    return text.strip()


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w .()+-]{1,64}", text):
        raise ValueError("a name has 1 to 64 letters, digits, spaces and . ( ) + - _")
    return text


def _host(text: str) -> str:
    # An empty one, and *, mean every address to a socket, and no address to whoever asks who can reach it.
    if not re.fullmatch(r"[\w.:%-]+", text):
        raise ValueError("a host is a name or an address; 0.0.0.0 is every address of this machine")
    return text


def _uid_root(text: str) -> str:
    if not re.fullmatch(r"[0-2](\.(0|[1-9]\d*)){1,8}", text) or len(text) > 24:
        raise ValueError("a root of UIDs is digits and dots, at most 24 of them, such as 2.25")
    return text


def _hours(text: str) -> str:
    hours = re.fullmatch(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", text)
    if hours is None or max(text[:5], text[6:]) > "24:00":
        raise ValueError('hours are written as "07:00-19:00"')
    return text


def _kind(text: str) -> str:
    if text not in dicom_answers.ANSWERS:
        raise ValueError(f"there is no answer {text!r}; the kinds are {', '.join(dicom_answers.ANSWERS)}")
    return text


def _profile_options(options: list[str]) -> list[str]:
    try:
        ConfidentialityProfile(frozenset(options))
    except UsageError as error:
        raise ValueError(error.problem) from error
    return options


AeTitle = Annotated[str, AfterValidator(_title)]
Name = Annotated[str, AfterValidator(_name)]
Hours = Annotated[str, AfterValidator(_hours)]
Kind = Annotated[str, AfterValidator(_kind)]
Host = Annotated[str, AfterValidator(_host)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]  # user and password come from the environment
# A receiver of HL7; with the colon it is no name of a peer, and the records hold 64 letters of one.
HostPort = Annotated[str, Field(pattern=r"^[\w.-]{1,58}:[1-9]\d{0,4}$")]
# The FHIR server as a peer.
FHIR = "fhir"
# What an attribute or a fact has to be: equal, a regular expression after `~`, any of several, or a closed range.
Wish = str | bool | int | float | list[str] | tuple[float, float]


class NodeFileSection(BaseModel):
    """A table of the file: no key but those that are listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MisfitError(ValueError):
    """A value that another section does not go with. place: its keys in the file."""

    def __init__(self, problem: str, *place: str | int) -> None:
        super().__init__(problem)
        self.place = tuple(map(str, place))


class NodeSection(NodeFileSection):
    """Who the node is, and where it keeps everything."""

    name: Name = "radiology"
    folder: Path = Path("node")
    uid_root: Annotated[str, AfterValidator(_uid_root)] = "2.25"
    text: Annotated[str, Field(pattern=r"^[^\\\p{C}]{0,50}$")] = "For research use only"  # LO, behind "Segmentation, "
    min_free_gb: Annotated[float, Field(ge=0)] = 5


class Tls(NodeFileSection):
    """A second port, for associations under TLS; `clients` are the authorities that sign what peers show."""

    port: Port
    certificate: Path
    key: Path
    clients: Path | None = None


class PeerTls(NodeFileSection):
    """Associations that we open under TLS: who signs what the peer shows, and what we show, if anything."""

    authorities: Path
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate needs its key, and a key its certificate")
        return self


class DicomSection(NodeFileSection):
    """Receiver of studies; idle_s and max_object_mb bound what one association may take."""

    ae_title: AeTitle = "HILUM"
    host: Host = "127.0.0.1"
    port: Port = default_ports.DICOM
    receivers: Count = 1
    max_associations: Count = 32
    max_object_mb: Count = 4096
    idle_s: Positive = 60
    sync: Literal["object", "association", "commit"] = "association"
    tls: Tls | None = None


class HttpTls(NodeFileSection):
    """Certificate that the node shows to whoever speaks HTTPS with it."""

    certificate: Path
    key: Path


class HttpSection(NodeFileSection):
    """Address of the API and DICOMweb, under TLS or not; max_requests bounds what is answered at once.

    url: the address in links that others are sent, where it is not that of the listener, such as behind a proxy
    """

    host: Host = "127.0.0.1"
    port: Port = default_ports.HTTP
    url: Url | None = None
    max_requests: Annotated[int, Field(ge=1, le=MOST_CONNECTIONS)] = 100
    tls: HttpTls | None = None

    @property
    def scheme(self) -> str:
        """Scheme of every address."""
        return "http" if self.tls is None else "https"

    @property
    def public_address(self) -> str:
        """The address in links that others are sent."""
        return (self.url or f"{self.scheme}://{self.host}:{self.port}").rstrip("/")


class QueueSection(NodeFileSection):
    """Queue of jobs; memory_gb is that of models which stay loaded."""

    workers: Annotated[int, Field(ge=0)] = 1
    memory_gb: Positive = 8
    attempts: Count = 3
    lease_s: Positive = 60
    job_timeout_s: Positive = 1800


class DatabaseSection(NodeFileSection):
    """`sqlite` is a file in the node's folder; a password comes from HILUM_DATABASE_PASSWORD alone."""

    url: Annotated[str, Field(pattern=r"^(sqlite|postgresql://[^:@/]+@[^:@]+(:\d+)?/\w+)$")] = "sqlite"


class StudySection(NodeFileSection):
    """When a study counts as complete: so long after its last object."""

    complete_after_s: Annotated[float, Field(ge=0)] = 30


class PeerSection(NodeFileSection):
    """Another system.

    may:    what it may ask of us: to store, to commit what it has stored, to order jobs by workitems
    priors: whether it is asked for the earlier study of a patient: by QIDO-RS where it has a dicomweb, else by C-FIND
    commit: whether it is asked to commit what we send
    reject: whether it is told to reject results that were superseded
    deidentify: options by which identity is taken out of what is sent to it; without the key the node does not start
    """

    name: Name
    ae_title: AeTitle
    host: Host
    port: Port
    may: list[Literal["store", "commit", "order"]] = ["store", "commit"]
    priors: bool = False
    commit: bool = True
    reject: bool = False
    dicomweb: Url | None = None
    deidentify: Annotated[list[str], AfterValidator(_profile_options)] | None = None
    tls: PeerTls | None = None


class CovariateSource(NodeFileSection):
    """Source of a covariate: a code at the FHIR server, or an attribute of the images by its DICOM keyword.

    unit: in which the model was trained
    """

    source: Annotated[str, Field(pattern=r"^(fhir:Observation\?code=[^&\s]+|dicom:[A-Z][A-Za-z0-9]+)$")]
    unit: str | None = None

    @property
    def keyword(self) -> str:
        """The DICOM keyword; empty of a FHIR server."""
        return self.source.partition("dicom:")[2]


def _source(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


class StopRule(NodeFileSection):
    """A limit beyond which a model stops answering, until two people agree that it goes on. One watch a rule.

    bound:       an audited figure lies below its [[bound]]
    calls, above: the finding that is called in more than this share of the answers
    seconds_p95: s that 95 % of the jobs take at most
    refused:     the share of jobs without an answer
    days:        of whose jobs it is
    """

    bound: bool = False
    calls: str | None = None
    above: Annotated[float, Field(ge=0, lt=1)] | None = None
    seconds_p95: Positive | None = None
    refused: Annotated[float, Field(ge=0, lt=1)] | None = None
    days: Positive = 7

    @model_validator(mode="after")
    def _names_one_watch(self) -> Self:
        watches = [self.bound or None, self.calls, self.seconds_p95, self.refused]
        if sum(one is not None for one in watches) != 1:
            raise ValueError("a stop rule names one watch: bound, calls, seconds_p95 or refused")
        if (self.calls is None) != (self.above is None):
            raise ValueError("calls needs above, the share of answers, and above needs calls")
        return self


class ModelSection(NodeFileSection):
    """A model that rules name: whatever `load` takes.

    codes:       a file of codes of its names, which stand before those that it has
    allow_large: also for images out of all proportion to its own
    card:        the address of its model card
    covariates:  {name: source} of those beside age, sex and the scanner
    answers:     kinds of DICOM objects that state its results; without any a SEG and a report
    explain:     "auto" adds a map of what each answer rests on, by the best method that passed its tests on the model
    align:       how images of a rule on several series are brought onto the grid of the first, or of the series behind
                 a colon; apart: views of an exam, each by itself
    sr_class:    of its reports: Comprehensive 3D SR, or the older Comprehensive SR
    advice:      lines of which the first that holds for an answer stands in every result
    acceptance:  the folder that `hilum accept` wrote: its conditions hold; require_acceptance: without one that
                 accepts the package that answers, nothing is answered
    stop:        limits beyond which it stops answering, until two people agree
    """

    path: Path
    codes: Path | None = None
    allow_large: bool = False
    card: Url | None = None
    covariates: dict[str, Annotated[CovariateSource, BeforeValidator(_source)]] = {}
    answers: list[Kind] = []
    explain: Literal["none", "auto"] = "none"
    align: Annotated[str, Field(pattern="^(world|register|apart)(:.+)?$")] | None = None
    sr_class: Literal["comprehensive-3d", "comprehensive"] = "comprehensive-3d"
    advice: list[AdviceLine] = []
    acceptance: Path | None = None
    require_acceptance: bool = False
    stop: list[StopRule] = []


class InsideAnswer(NodeFileSection):
    """Predict within another answer: the box that holds a label, with a margin."""

    rule: str
    label: str
    margin_mm: Annotated[float, Field(ge=0)] = 0


class OnlyIfAnswer(NodeFileSection):
    """Predict where another answer states a finding that is probable enough."""

    rule: str
    finding: str
    at_least: Annotated[float, Field(ge=0, le=1)] = 0.5


class PriorSection(NodeFileSection):
    """The newest earlier study of the patient that the same rule answered, with which an answer is compared.

    within_days, least_days: before the new study
    lesions: structures of which each piece is one, followed from study to study
    wait_h:  after an answer, in which an earlier study that comes makes it anew, once
    limit_s: that an answer waits for the earlier study of a peer
    """

    within_days: Count = 730
    least_days: Annotated[int, Field(ge=0)] = 1
    lesions: list[str] = []
    wait_h: Positive = 24
    limit_s: Positive = 300


class RoutingRule(NodeFileSection):
    """Rule: the series that a model answers, where the answers go, and of which outcomes peers are told.

    only_ordered: in studies that a workitem names
    """

    name: Name
    model: str
    when: dict[str, Wish] = {}
    unless: dict[str, Wish] = {}
    series: dict[str, dict[str, Wish]] = {}
    take: Literal["all", "best"] = "all"
    priority: Priority = "routine"
    only_ordered: bool = False
    hours: Hours = "00:00-24:00"
    send: list[str] = []
    tell: list[Literal["answered", "found", "abstained", "refused", "failed"]] = ["answered"]
    inside: InsideAnswer | None = None
    only_if: OnlyIfAnswer | None = None
    prior: PriorSection | None = None

    @model_validator(mode="after")
    def _can_hold(self) -> RoutingRule:
        for wishes in (self.when, self.unless, *self.series.values()):
            for key, wish in wishes.items():
                if isinstance(wish, tuple) and wish[0] > wish[1]:
                    raise ValueError(f"{key}: no number lies between {wish[0]:g} and {wish[1]:g}")
                for text in wish if isinstance(wish, list) else [wish]:
                    if isinstance(text, str) and text.startswith("~"):
                        try:
                            re.compile(text[1:])
                        except re.error as error:
                            raise ValueError(f"{key}: {text!r} is not a regular expression: {error}") from error
        return self


class FhirSection(NodeFileSection):
    """A FHIR server: covariates come from it, and with `send` the reports of all rules go to it.

    patient_system: the address that it has for the PatientIDs of DICOM
    """

    base: Url
    version: Literal["R5", "R4B"] = "R5"
    send: bool = True
    patient_system: str = ""


class Hl7Section(NodeFileSection):
    """Receivers of HL7 v2 by MLLP, to which the reports of all rules go."""

    send: list[HostPort] = []


class UrgencyRule(NodeFileSection):
    """The priority of a study with a finding: from a probability on, or from a value on in the finding's unit (ml)."""

    finding: Annotated[str, Field(min_length=1)]
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    value: float | None = None
    priority: Priority

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.probability is None) == (self.value is None):
            raise ValueError("give either probability or value, from which on the finding has this priority")
        return self


class NoticeRecipient(NodeFileSection):
    """Whom a notice reaches: of studies of the priority `when`, or a more urgent one; "monitor:urgent": of alerts.

    after_min: minutes that the recipient has to acknowledge it, before it goes to the next one of the list
    """

    when: Priority | Literal["monitor:warning", "monitor:urgent"]
    by: Literal["webhook", "smtp"]
    to: str
    after_min: Annotated[float, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        fields, words = {
            "webhook": (r"https?://[^\s@]+", "the URL of a webhook, without user and password"),
            "smtp": (r"[^\s@,;<>]+@[^\s@,;<>]+", "one e-mail address"),
        }[self.by]
        if not re.fullmatch(fields, self.to):
            raise ValueError(f"to is not {words}")
        return self

    @property
    def of_alerts(self) -> bool:
        """Whether it is about alerts of monitoring, not about studies."""
        return self.when.startswith(ALERT)

    @property
    def recipient(self) -> str:
        """Its name in the records, which holds no address."""
        return f"{self.by} {hashlib.sha256(self.to.encode()).hexdigest()[:12]}"


class SmtpSection(NodeFileSection):
    """The server that takes e-mail; user:password comes from HILUM_SMTP_CREDENTIALS."""

    host: Host
    port: Port = 25
    sender: Annotated[str, Field(pattern=r"^[^\s@,;<>]+@[^\s@,;<>]+$")]
    tls: Literal["none", "starttls", "always"] = "starttls"


class WatchSection(NodeFileSection):
    """A folder whose files are taken in once they have not changed for 5 s."""

    folder: Path


class FrontSection(NodeFileSection):
    """An Orthanc whose feed of changes is followed."""

    orthanc: Url


class OhifSection(NodeFileSection):
    """A released build of the OHIF viewer, served with the node's studies at the root of a port of its own."""

    folder: Path
    port: Port = default_ports.VIEWER


class PageSection(NodeFileSection):
    """The page that people read and correct on.

    memory_gb: of images that are kept for it; reasons: for which a result may be rejected, beside free text
    send:      peers that get what people correct, beside those of the rule that made it
    """

    memory_gb: Positive = 2
    reasons: list[Annotated[str, Field(min_length=1, max_length=200)]] = [
        "wrong structure",
        "missed finding",
        "false finding",
        "wrong outline",
        "poor image",
    ]
    send: list[str] = []


class AuditSection(NodeFileSection):
    """Other places of the heads of the audit: a server of syslog (RFC 5424 over TCP)."""

    syslog: HostPort | None = None


class BlindReadsSection(NodeFileSection):
    """Number of results sampled each week to be read with the answer hidden: half called, half not."""

    per_week: Count = 20


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError) as error:  # a name with ".." is a ValueError, a folder an OSError
        raise ValueError(f"{text!r} is no time zone, such as Europe/Berlin") from error
    return text


class SiteSection(NodeFileSection):
    """Where the node stands. zone: of its weekends, days and months"""

    zone: Annotated[str, AfterValidator(_zone)] = "UTC"


class MonitorSection(NodeFileSection):
    """Settings by which the answers are watched.

    baseline_cases: of each model, with which later ones are compared; an administrator freezes them
    false_alarms_per_year: at most, of all watches of the node together
    by: attributes to whose levels a change is traced
    audit: without this section nothing is sampled to be read blind
    """

    baseline_cases: Annotated[int, Field(ge=20)] = 300
    false_alarms_per_year: Positive = 4
    by: list[Annotated[str, Field(pattern=r"^[A-Za-z]\w*(:[\d.]+)*$")]] = ["station", "software", "sex", "age:40:60"]
    audit: BlindReadsSection | None = None


class AlertKind(NodeFileSection):
    """Alerts that are meant: of a kind, or of any; of a severity, or a higher one."""

    kind: Literal["input", "output", "concept", "operation", "performance"] | None = None
    severity: Severity = "warning"

    def holds(self, kind: str, severity: str) -> bool:
        """Whether an alert is meant."""
        return self.kind in (None, kind) and SEVERITIES.index(self.severity) <= SEVERITIES.index(severity)


class SafetyRule(NodeFileSection):
    """Effect of an alert on a model's next jobs, until a person undoes it.

    then: "warn" lets the jobs' reason name the alert; "abstain" has them end without an answer; "stop" has them wait;
          "halt" too, until two people agree; "rollback" gives them to the package before
    """

    when: AlertKind = AlertKind()
    then: Literal["warn", "abstain", "rollback", "stop", "halt"]
    model: str


class BoundSection(NodeFileSection):
    """Bound that an audited figure of every model must not fall below."""

    metric: Literal["sensitivity", "specificity", "ppv", "npv"]
    label: Annotated[str, Field(min_length=1)]
    at_least: Annotated[float, Field(ge=0, le=1)]


class RetentionSection(NodeFileSection):
    """What a node deletes; without this section nothing goes.

    images_days, results_days: after a study's last object came, its objects go; its results and its identity
    quota_gb:    of objects and results; the oldest go until it holds
    keep:        rules whose studies stay; keep_judged: whether those stay that a person corrected
    """

    images_days: Positive | None = None
    results_days: Positive | None = None
    quota_gb: Positive | None = None
    keep: list[str] = []
    keep_judged: bool = True

    @model_validator(mode="after")
    def _objects_first(self) -> Self:
        if self.results_days is not None and (self.images_days is None or self.images_days > self.results_days):
            raise ValueError("results_days needs images_days, of no more days: images go first")
        return self


class OidcSection(NodeFileSection):
    """An OpenID provider, with which persons log in; the secret of the node comes from HILUM_OIDC_SECRET.

    roles:  {role: value of the claim that gives it}
    claim:  where the provider lists what a person is; below another claim with a dot between
    scopes: what it is asked for besides `openid`, so that it states the name and this claim
    """

    issuer: Url
    client_id: Annotated[str, Field(min_length=1)]
    roles: dict[PersonRole, str]
    claim: Annotated[str, Field(min_length=1)] = "groups"
    scopes: list[Annotated[str, Field(pattern=r"^[!-~]+$")]] = ["profile"]

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        address = urlsplit(self.issuer)
        if address.scheme != "https" and not is_loopback(address.hostname or ""):
            raise ValueError("the issuer is reached without TLS, and whoever is between could log in as anybody")
        if not self.roles:
            raise ValueError("roles names no role, and nobody could log in")
        return self


class NodeSettings(NodeFileSection):
    """All of `node.toml`; a file that says nothing gives a node on loopback. file: the one that was read, if any"""

    file: Path | None = None
    node: NodeSection = NodeSection()
    dicom: DicomSection = DicomSection()
    http: HttpSection = HttpSection()
    queue: QueueSection = QueueSection()
    database: DatabaseSection = DatabaseSection()
    study: StudySection = StudySection()
    peers: list[PeerSection] = []
    models: dict[Name, ModelSection] = {}
    rules: list[RoutingRule] = []
    fhir: FhirSection | None = None
    hl7: Hl7Section = Hl7Section()
    urgent: list[UrgencyRule] = []
    notify: list[NoticeRecipient] = []
    smtp: SmtpSection | None = None
    watch: WatchSection | None = None
    front: FrontSection | None = None
    ohif: OhifSection | None = None
    page: PageSection = PageSection()
    audit: AuditSection = AuditSection()
    oidc: OidcSection | None = None
    site: SiteSection = SiteSection()
    monitor: MonitorSection = MonitorSection()
    safety: list[SafetyRule] = []
    bound: list[BoundSection] = []
    retention: RetentionSection | None = None

    @model_validator(mode="after")
    def _agrees(self) -> NodeSettings:
        for problem, *place in (*self._misfits_of_rules(), *self._misfits()):
            raise MisfitError(str(problem), *place)
        return self

    def _misfits_of_rules(self) -> Iterator[tuple[str | int, ...]]:
        """What is wrong with names of peers and rules, and its place."""
        peers, rules = [peer.name for peer in self.peers], [rule.name for rule in self.rules]
        for what, names in (("peer", peers), ("rule", rules)):
            for n, name in enumerate(names):
                if name in names[:n]:
                    yield f"two {what}s are called {name}", f"{what}s", n, "name"
        for n, rule in enumerate(self.rules):
            of_rule = f"rule {rule.name!r}"
            if rule.model not in self.models:
                yield f"{of_rule} names the model {rule.model!r}, which does not exist", "rules", n, "model"
            if unknown := ", ".join(sorted(set(rule.send) - set(peers))):
                yield f"{of_rule} sends to {unknown}, which is not a listed peer", "rules", n, "send"
            for key, other in (("inside", rule.inside), ("only_if", rule.only_if)):
                if other is not None and (other.rule not in rules or other.rule == rule.name):
                    yield f"{of_rule} waits for {other.rule!r}, which is not another rule", "rules", n, key
        if unknown := ", ".join(sorted(set(self.page.send) - set(peers))):
            yield f"{unknown} is not a listed peer", "page", "send"
        if self.fhir is not None and FHIR in peers:
            yield f"a peer is called {FHIR}, which is the server of [fhir]", "peers", peers.index(FHIR), "name"

    def _misfits(self) -> Iterator[tuple[str | int, ...]]:
        """What else of a section does not go with another one, and its place."""
        if double := ", ".join(sorted({name for name in self.hl7.send if self.hl7.send.count(name) > 1})):
            yield f"{double} is named twice", "hl7", "send"
        for name, model in self.models.items():
            if self.fhir is None and not all(source.keyword for source in model.covariates.values()):
                needed = "come by FHIR, and there is no [fhir] with its base"
                yield f"covariates of the model {name!r} {needed}", "models", name, "covariates"
            if model.require_acceptance and model.acceptance is None:
                yield f"the model {name!r} needs the folder of its acceptance", "models", name, "require_acceptance"
            if any(rule.bound for rule in model.stop) and not self.bound:
                yield "a stop rule names no watch: there is no [[bound]]", "models", name, "stop"
        names = {rule.name for rule in self.rules}
        if self.retention is not None and (unknown := ", ".join(sorted(set(self.retention.keep) - names))):
            yield f"retention keeps studies of {unknown}, which is not a rule", "retention", "keep"
        for n, safety in enumerate(self.safety):
            if safety.model not in self.models:
                yield f"safety names the model {safety.model!r}, which does not exist", "safety", n, "model"
        for n, notify in enumerate(self.notify):
            ranks = [PRIORITIES.index(one.priority) for one in self.urgent]
            if notify.by == "smtp" and self.smtp is None:
                yield "notify by smtp needs the section smtp, with host and sender", "notify", n, "by"
            if not notify.of_alerts and min(ranks, default=len(PRIORITIES)) > PRIORITIES.index(notify.when):
                yield (
                    f"notify waits for a priority of {notify.when}, which no rule of [[urgent]] gives",
                    "notify",
                    n,
                    "when",
                )
        ports: dict[tuple[str, ...], int] = {("dicom",): self.dicom.port, ("http",): self.http.port}
        ports |= {("dicom", "tls"): self.dicom.tls.port} if self.dicom.tls is not None else {}
        ports |= {("ohif",): self.ohif.port} if self.ohif is not None else {}
        taken = set[tuple[str, int]]()
        for keys, port in ports.items():
            place = (self.dicom.host if keys[0] == "dicom" else self.http.host, port)
            if port and place in taken:
                yield f"two ports are {port}: dicom, dicom.tls, http and ohif need one each", *keys, "port"
            taken.add(place)
        if not self.peers and not is_loopback(self.dicom.host):
            yield f"dicom.host {self.dicom.host} is open to others, and no peer is listed", "dicom", "host"

    def place(self, *keys: str | int) -> str:
        """File, line and table of a key, as errors name it; empty without a file or for a model that it lacks."""
        text = self.file.read_text(encoding="utf-8") if self.file is not None and self.file.is_file() else ""
        is_stated = keys[0] != "models" or str(keys[1]) in text
        return _place(self.file, text, keys) if text and is_stated else ""

    @contextmanager
    def locate_errors(self, *keys: str | int) -> Iterator[None]:
        """Name file, line and table of a key in front of what an error says of it, as a UsageError."""
        try:
            yield
        except HilumError as error:
            where = ": ".join(filter(None, [self.place(*keys), error.where]))
            raise UsageError(error.problem, where, error.remedy) from error

    @property
    def folder(self) -> Path:
        """The node's folder."""
        return self.node.folder

    @property
    def report_to(self) -> list[str]:
        """Peers that get the findings of every job as a report: the FHIR server, and receivers of HL7."""
        return [*([FHIR] if self.fhir is not None and self.fhir.send else []), *self.hl7.send]

    @property
    def database_url(self) -> str:
        """The place of the records, without a password."""
        return f"sqlite:///{self.folder / 'node.sqlite'}" if self.database.url == "sqlite" else self.database.url


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(
    path: Path | None = None, models: Sequence[Path] = (), folder: Path | None = None, **changes: Any
) -> NodeSettings:
    """The settings of a file, of models that are named by their folders, and of a node folder.

    changes: keys of sections that are set otherwise, such as dicom={"port": 0}; a list takes the place of the file's
    Relative paths in the file count from its folder. Raises UsageError with the line of the file.
    """
    content: TomlTable = {}
    text = ""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", str(path), "Check --config") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"is not TOML: {error}", str(path), "Correct the file") from error
    if "file" in content:
        raise UsageError("file: there is no such key", _place(path, text, ["file"]), SEE)
    for section, keys in changes.items():
        content[section] = {**content.get(section, {}), **keys} if isinstance(keys, Mapping) else keys
    if folder is not None:
        content["node"] = {**content.get("node", {}), "folder": str(folder.absolute())}
    paths = {model.absolute().name: model.absolute() for model in models}
    for model in models:
        if paths[model.absolute().name] != model.absolute():
            problem = f"two models are called {model.absolute().name}"
            raise UsageError(problem, str(model), "Rename a folder, or name them in node.toml")
    if paths:
        content["models"] = {**content.get("models", {}), **{name: {"path": str(path)} for name, path in paths.items()}}
    try:
        settings = NodeSettings.model_validate(content)
    except ValidationError as error:
        problems = dict[str, str]()  # of a value of several kinds the first one's words
        # An unknown key says more than what is missing, of which it may be another writing.
        for one in sorted(error.errors(), key=lambda one: str(one["type"]) != "extra_forbidden"):
            cause = one.get("ctx", {}).get("error")
            keys = [str(part) for part in (cause.place if isinstance(cause, MisfitError) else one["loc"])]
            problems.setdefault(_place(path, text, keys), _words(one, keys))
        (where, problem), *others = problems.items()
        raise UsageError("; ".join([problem, *map(": ".join, others)]), where, SEE) from error
    if path is not None:
        settings = settings.model_copy(update={"file": path.absolute()})
    return _absolute(settings, path.absolute().parent if path is not None else Path.cwd())


def _place(path: Path | None, text: str, keys: Sequence[str | int]) -> str:
    """File, line and table of a key of the text of a file, such as `node.toml, line 8, [dicom]`."""
    names = [str(key) for key in keys]
    table = ".".join(names[:2] if names[:1] == ["models"] else names[:1])
    table = f"[[{table}]]" if names[1:] and names[1].isdigit() else f"[{table}]" if table else ""
    line = f"{path}, line {structured_text.line_of_key(text, names)}" if path is not None else ""
    return ", ".join(part for part in (line, table) if part) or "serve"


def _words(error: Any, keys: Sequence[str]) -> str:
    """What is wrong with a key: of an unknown one also the nearest that there is."""
    path = ".".join(keys) or "the file"
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg'].removeprefix('Value error, ')}"
    known = sorted(_section_at(keys[:-1]).model_fields.keys() - {"file"})
    near = get_close_matches(keys[-1], known, n=1, cutoff=0.5)
    which = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
    return f"{path}: there is no such key, {which}"


def _section_at(keys: Sequence[str]) -> type[NodeFileSection]:
    """The class of the table at a place of the file; names of models and numbers of lists lead no deeper."""
    section: type[NodeFileSection] = NodeSettings
    for key in keys:
        if key in section.model_fields:
            section = next(_sections_of(section.model_fields[key].annotation), section)
    return section


def _sections_of(annotation: Any) -> Iterator[type[NodeFileSection]]:
    if isinstance(annotation, type) and issubclass(annotation, NodeFileSection):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_of(part)


def _absolute(settings: NodeSettings, base: Path) -> NodeSettings:
    """The same with paths that do not depend on the working folder."""
    tls = settings.dicom.tls
    if tls is not None:
        clients = None if tls.clients is None else base / tls.clients
        tls = tls.model_copy(update={"certificate": base / tls.certificate, "key": base / tls.key, "clients": clients})
    models = {
        name: one.model_copy(
            update={
                "path": base / one.path,
                "codes": one.codes and base / one.codes,
                "acceptance": one.acceptance and base / one.acceptance,
            }
        )
        for name, one in settings.models.items()
    }
    watch = settings.watch and WatchSection(folder=base / settings.watch.folder)
    ohif = settings.ohif and settings.ohif.model_copy(update={"folder": base / settings.ohif.folder})
    node = settings.node.model_copy(update={"folder": base / settings.node.folder})
    dicom, peers = settings.dicom.model_copy(update={"tls": tls}), [_absolute_peer(one, base) for one in settings.peers]
    http = settings.http
    if http.tls is not None:
        files = {name: base / file for name, file in http.tls.model_dump().items()}
        http = http.model_copy(update={"tls": HttpTls(**files)})
    changed = {"node": node, "dicom": dicom, "http": http, "peers": peers, "models": models, "watch": watch}
    changed |= {"ohif": ohif}
    return settings.model_copy(update=changed)


def _absolute_peer(peer: PeerSection, base: Path) -> PeerSection:
    if peer.tls is None:
        return peer
    files = {name: base / file for name, file in peer.tls.model_dump().items() if file is not None}
    return peer.model_copy(update={"tls": peer.tls.model_copy(update=files)})
