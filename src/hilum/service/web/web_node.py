"""The node as every route sees it: its settings, records and objects."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import Column, ColumnElement, Connection, Row, Table, select, tuple_

from hilum.errors import HilumError
from hilum.service import node_folder
from hilum.service.configuration import NodeSettings
from hilum.service.model_facts import ModelFacts
from hilum.service.objects import dicom_json, object_store
from hilum.service.objects.dicom_json import Addition, Conditions
from hilum.service.objects.journal import Received
from hilum.service.objects.object_store import ObjectStore
from hilum.service.reading.sliced_volumes import VolumeCache
from hilum.service.records import audit_records, deployments
from hilum.service.records.accounts import Accounts
from hilum.service.records.actor import Actor
from hilum.service.records.job_queue import GOING, Jobs
from hilum.service.records.record_database import Database
from hilum.service.records.study_index import StudyIndex
from hilum.service.records.tables import STUDIES
from hilum.service.records.workitem_records import Workitems
from hilum.service.routing import routing_rules
from hilum.service.web.inference.computing import ModelProcess
from hilum.service.web.openid import Provider

UID = r"^[0-9.]{1,64}$"
KEY = r"^[0-9a-f]{32}$"
# A parameter's name that a header may repeat; others may hold anything.
PARAMETER = re.compile(r"[\w. ]{1,64}", re.ASCII)
MOST_ROWS = 1000
# How long a search waits for the rows of objects that were just stored, and between two looks (s).
ENTERED_S, LOOK_S = 2.0, 0.02
FRESH_S = 0.5  # of what is known of the worklist
# Log-ins that are looked at, and that wait, at once; how many of one address may fail within so long (s).
LOG_INS_AT_ONCE, MOST_WAITING, MOST_FAILURES, WINDOW_S = 4, 16, 30, 60.0
OPEN_S = 1800.0  # without a request for it, after which a study counts as closed


class Arrivals:
    """Objects that this process has just stored and of which the keeper may not have written the rows.

    Of each study the last one, the oldest first: the keeper reads the journal of a process in its order.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def add(self, received: Received) -> None:
        """An object that now has its final name."""
        study, now = object_store.uid_key(received.study), time.monotonic()
        with self._lock:
            self._last.pop(study, None)
            self._last[study] = (received.path, now)
            while (oldest := next(iter(self._last))) != study and now - self._last[oldest][1] > ENTERED_S:
                del self._last[oldest]

    def wait(self, index: StudyIndex) -> None:
        """Until those that have come by now have their rows; not longer than two seconds after they came."""
        with self._lock:
            waiting = dict(self._last)
        while waiting:
            for study, (path, since) in list(waiting.items()):
                if index.has_row(study, path) or time.monotonic() - since > ENTERED_S:
                    del waiting[study]
                    self._forget(study, path)
            if waiting:
                time.sleep(LOOK_S)

    def _forget(self, study: str, path: str) -> None:
        """Unless a further object of the study has come meanwhile."""
        with self._lock:
            if self._last.get(study, ("", 0.0))[0] == path:
                del self._last[study]


class WorklistDigest:
    """A digest of the worklist, made once for all who wait for its changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digest, self._at = "", 0.0

    def digest(self, state: Callable[[], str]) -> str:
        """Digest of what `made` gives; not asked for again within half a second."""
        with self._lock:
            if time.monotonic() - self._at > FRESH_S:
                self._digest = hashlib.sha256(state().encode()).hexdigest()
                self._at = time.monotonic()
            return self._digest


class StudyOpenings:
    """Studies that people have had open of late, so that all slices of a study are one event of the audit."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def is_new(self, *what: str) -> bool:
        """Whether this was not opened within half an hour; whoever has it open keeps it so."""
        now = time.monotonic()
        with self._lock:
            self._last = {one: at for one, at in self._last.items() if now - at < OPEN_S}
            is_new = what not in self._last
            self._last[what] = now
        return is_new

    def forget(self, *what: str) -> None:
        """Forget an opening that was none."""
        with self._lock:
            self._last.pop(what, None)


Found = TypeVar("Found")


class LogIns:
    """Log-ins, which anybody may try: few at a time, in threads of their own, and few failures from one address."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOG_INS_AT_ONCE, "log-in")
        self._lock, self._pending = threading.Lock(), 0
        self._window, self._failed = 0, Counter[str]()

    async def run(self, address: str, look: Callable[[], Found]) -> Found:
        """Run what looks at a log-in, and fails by an error. Raises WebError 429 or 503 in place of it."""
        failed = self._count_try(address)
        try:
            found = await asyncio.wrap_future(self._threads.submit(look))
        finally:
            with self._lock:
                self._pending -= 1
        with self._lock:
            failed[address] -= 1
        return found

    def _count_try(self, address: str) -> Counter[str]:
        """Count a log-in before it is looked at, so that of many at once only the first are."""
        window, since = divmod(time.monotonic(), WINDOW_S)
        with self._lock:
            if window != self._window:
                self._window, self._failed = int(window), Counter()
            if self._failed[address] >= MOST_FAILURES:
                raise _refused_log_in(429, "too many log-ins from this address have failed", WINDOW_S - since)
            if self._pending >= LOG_INS_AT_ONCE + MOST_WAITING:
                raise _refused_log_in(503, "too many log in at once", 5)
            self._pending += 1
            self._failed[address] += 1
            return self._failed


def _refused_log_in(status: int, problem: str, wait: float) -> WebError:
    seconds = f"{wait:.0f}"
    return WebError(status, problem, "the login", f"Wait {seconds} s", {"Retry-After": seconds})


@dataclass(frozen=True, eq=False)
class WebNode:
    """A node as the web process sees it. stopping: set once it is to stop, for answers that have no end"""

    settings: NodeSettings
    database: Database
    store: ObjectStore
    stopping: threading.Event = field(default_factory=threading.Event)
    changes: WorklistDigest = field(default_factory=WorklistDigest)
    arrivals: Arrivals = field(default_factory=Arrivals)
    openings: StudyOpenings = field(default_factory=StudyOpenings)
    log_ins: LogIns = field(default_factory=LogIns)
    computing: ModelProcess = field(init=False)
    accounts: Accounts = field(init=False)
    volumes: VolumeCache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "accounts", Accounts(self.database))
        object.__setattr__(self, "computing", ModelProcess(self.settings))
        object.__setattr__(self, "volumes", VolumeCache(self.settings.page.memory_gb * 1e9))

    @cached_property
    def provider(self) -> Provider | None:
        """Provider with which persons log in; None where the settings name none."""
        return None if self.settings.oidc is None else Provider(self.settings.oidc)

    @property
    def folder(self) -> FilePath:
        """Folder of the node."""
        return self.settings.folder

    @property
    def index(self) -> StudyIndex:
        """The tables of studies."""
        return StudyIndex(self.database)

    @property
    def models(self) -> dict[str, ModelFacts]:
        """The facts of the models that answer now."""
        return self.models_of(None)

    def models_of(self, study: Row[Any] | None) -> dict[str, ModelFacts]:
        """The facts of the models that answer a study."""
        with self.database.read() as connection:
            return deployments.models_of(connection, node_folder.stored_models(self.folder), study)

    @property
    def workitems(self) -> Workitems:
        """Orders of jobs."""
        return Workitems(self.database, routing_rules.rules_of(self.settings, self.models))

    @property
    def jobs(self) -> Jobs:
        """The queue."""
        return Jobs(self.database, self.settings.queue.lease_s, self.settings.queue.attempts)

    def record(self, action: str, thing: str, who: Actor, **details: Any) -> None:
        """An event of the audit that changes nothing else; details: as of `record`. Raises ResourceError."""
        with self.database.write() as connection:
            audit_records.record_event(connection, action, thing, actor=who, **details)

    def record_opening(self, action: str, study: str, who: Actor) -> None:
        """An event of the audit for the first of many requests about a study. study: its key. Raises ResourceError."""
        what = (action, study, who.account, who.address)
        if self.openings.is_new(*what):
            try:
                self.record(action, study, who, study=study)
            except HilumError:
                self.openings.forget(*what)
                raise


class WebError(HilumError):
    """A request that is answered with a status of its own."""

    def __init__(
        self, status: int, problem: str, where: str, remedy: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(problem, where, remedy)
        self.args = (status, problem, where, remedy, headers)
        self.status, self.headers = status, dict(headers or {})


async def _node(request: Request) -> WebNode:
    node: WebNode = request.app.state.node
    return node


Node = Annotated[WebNode, Depends(_node)]


def refuse_gone(node: WebNode, study: str, where: str, *, results: bool = False) -> None:
    """Raise WebError 410 where retention has deleted the objects of a study, or its results. study: its key"""
    row = node.index.row_of(study)
    if row is None:
        return
    are_gone = row.objects_gone_at is not None
    is_gone = row.results_gone_at is not None or (are_gone and row.state == GOING) if results else are_gone
    if is_gone or (row.state == GOING and not results):
        what = "results" if results else "images"
        raise WebError(410, f"the {what} of the study were deleted by retention", where, "Have the images sent again")


def wait_for_rows(node: Node) -> None:
    """Wait for the rows of what was just stored, so that it is found at once."""
    node.arrivals.wait(node.index)


StudyName = Annotated[
    str,
    Path(pattern=r"^([0-9.]{1,64}|[0-9a-f]{32})$", description="StudyInstanceUID, or the study's key in the records"),
]
Uid = Annotated[str, Path(pattern=UID)]
JobName = Annotated[str, Path(pattern=KEY)]

Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]


class PageRequest(BaseModel):
    """Rows of a long list that are asked for: `limit` of them, behind the row that `after` names."""

    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100
    after: Annotated[str | None, Field(pattern=r"^[0-9a-f.]{1,64}$")] = None
    state: str | None = None


def dicomweb_url(request: Request) -> str:
    """Address under which the client reaches DICOMweb, as it names the node."""
    return f"{request.url.scheme}://{request.url.netloc}/dicomweb"


def query_conditions(request: Request, options: Collection[str]) -> tuple[Conditions, list[str]]:
    """(the attributes that a query asks for, with their conditions; its parameters that name none, but for options).

    Raises WebError for an attribute that is asked for twice.
    """
    conditions: Conditions = {}
    unknown = list[str]()
    for name, value in request.query_params.multi_items():
        if name in options:
            continue
        addition = dicom_json.add_condition(conditions, name, value)
        if addition is Addition.REPEATED:
            raise WebError(400, "an attribute is asked for twice", "the query", "Give each once, and UIDs as a list")
        if addition is Addition.UNKNOWN:
            unknown.append(name)
    return conditions, unknown


def ignored_words(names: Sequence[str]) -> list[str]:
    """The words of a warning on parameters that a service does not know, and ignores: PS3.18 8.3."""
    shown = [name for name in dict.fromkeys(names) if PARAMETER.fullmatch(name)]
    others = len(set(names)) - len(shown)
    listed = [*shown, *([f"{others} that cannot be written here"] if others else [])]
    return [f"these parameters are not known, and were ignored: {', '.join(listed)}"] if listed else []


def warning_headers(warnings: Sequence[str]) -> dict[str, str]:
    """The header of an answer with warnings, PS3.18 8.3.4; empty without any."""
    return {"Warning": "; ".join(f"299 hilum: {warning}" for warning in warnings)} if warnings else {}


def study_key(name: str) -> str:
    """The key of a study that is named by key or by UID."""
    return name if re.fullmatch(KEY, name) else object_store.uid_key(name)


def page_rows(
    connection: Connection, table: Table, order: Sequence[Column[Any]], page: PageRequest, *where: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    """Rows of a page, oldest first. order: a time that never changes, and the key. WebError where `after` is no row."""
    conditions = list(where)
    if page.state is not None:
        conditions.append(table.c.state == page.state)
    if page.after is not None:
        key = study_key(page.after) if table is STUDIES else page.after
        last = connection.execute(select(*order).where(order[-1] == key)).first()
        if last is None:
            raise WebError(
                422, "names no row of this list", f"after={page.after}", "Give the last row of the page before"
            )
        conditions.append(tuple_(*order) > tuple_(*last))
    return connection.execute(select(table).where(*conditions).order_by(*order).limit(page.limit)).all()
