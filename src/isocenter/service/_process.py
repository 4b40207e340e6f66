"""One process of a node, by its role: `python -m isocenter.service ROLE SETTINGS NAME`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from requests import Response

from isocenter.errors import FormatError, IsocenterError, ResourceError, UsageError
from isocenter.files.storage import atomic, structured_text
from isocenter.service import (
    _courier,
    _delivering,
    _keeper,
    _node_threads,
    acceptances,
    deploying,
    model_facts,
    monitoring_rounds,
    node_folder,
)
from isocenter.service._delivering import REDIRECTS, HttpSession
from isocenter.service.configuration import NodeSettings
from isocenter.service.dicom import dicom_listening, receiver
from isocenter.service.exchange import fhir_covariates
from isocenter.service.model_facts import ModelFacts
from isocenter.service.node_folder import ALIVE, MODELS, REFUSED, WRONG_USE, JsonLines
from isocenter.service.objects import multipart
from isocenter.service.objects.object_store import ObjectStore
from isocenter.service.records import audit_records, record_database, workitem_records
from isocenter.service.routing import routing_rules
from isocenter.service.web import server
from isocenter.service.work import warm_models, worker
from isocenter.work_state import log

BEAT_S, LOOK_S = 1.0, 0.1
# What is done before a node starts, and ends by itself.
ONCE = ("describe", "try")
# A file counts when it has not changed for so long; between two looks at a folder or a feed; and after a failure (s).
SETTLED_S, SOURCE_LOOK_S, AGAIN_S = 5.0, 1.0, 10.0
CHUNK, CHANGES, TIMEOUT_S = 1 << 20, 100, 60
GONE = 404
POSITION = "front.json"
# "user:password" of the Orthanc in front; no secret stands in a file.
CREDENTIALS = "ISOCENTER_FRONT_CREDENTIALS"


def run_role(role: str, file: Path, name: str) -> None:
    """The work of a role until SIGTERM, or until whoever has begun this process is gone. file: of its settings."""
    settings, stop = node_folder.stored_settings(file), threading.Event()
    logger = logging.getLogger("isocenter")
    logger.setLevel(logging.INFO)
    logger.addHandler(JsonLines(settings.folder, name))
    # What libraries find odd they say with the value, which may be a patient's.
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    if role not in ONCE:
        for number_of in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number_of, lambda *_: stop.set())
        threading.Thread(target=_until_orphaned, args=(stop,), daemon=True).start()
    ROLES[role](settings, name, stop)


def _receiver(settings: NodeSettings, name: str, stop: threading.Event) -> None:
    @cache
    def orders() -> workitem_records.Workitems:
        keeper_settings = node_folder.settings_of_part(settings, "rules", "urgent", "models")
        rules = routing_rules.rules_of(keeper_settings, node_folder.stored_models(settings.folder))
        return workitem_records.Workitems(record_database.open_database(settings.database_url), rules)

    node_receiver = receiver.Receiver(dicom_listening.listener_settings(settings), settings.folder, name, orders)
    _beating(settings, name, stop)
    node_receiver.serve(stop)


def _run_keeper(settings: NodeSettings, name: str, stop: threading.Event) -> None:
    database = record_database.open_database(settings.database_url)
    models = node_folder.stored_models(settings.folder)
    rules = routing_rules.rules_of(settings, models)
    with record_database.only_keeper(database) as hold:
        sealing = _node_threads.AuditSealing(settings, database)
        changed = audit_records.record_settings(database, settings.model_dump(mode="json", exclude={"file"}))
        sealing.start(stop)
        if changed:
            logging.getLogger("isocenter").info("settings are new or have changed: %s", ", ".join(changed))
        couriers = _courier.Couriers(settings, database)
        keeper = _keeper.Keeper(settings, database, rules, models, couriers.hear)
        couriers.start(stop)
        ways_in = start_intake(settings, stop)
        keeper.keep(stop, _sign(settings, name).touch, hold)
        until = time.monotonic() + worker.DRAIN_S
        for thread in (*couriers.threads, *ways_in):
            thread.join(max(0.0, until - time.monotonic()))
        sealing.finish(until)


def _worker(settings: NodeSettings, name: str, stop: threading.Event) -> None:
    # What an answer is and where it goes the keeper's settings say, whichever machine works on it.
    settings = node_folder.settings_of_part(settings, "rules", "fhir", "hl7", "urgent", "notify", "http")
    database = record_database.open_database(settings.database_url)
    models = node_folder.stored_models(settings.folder)
    owner = os.environ.get("ISOCENTER_NODE", "")
    job_worker = worker.JobWorker(
        settings, database, routing_rules.rules_of(settings, models), f"{owner}/{name}", models
    )
    job_worker.warm()
    _beating(settings, name, stop)
    # A keeper is refused where another node keeps the database: none of that one's jobs may be claimed here.
    while not stop.is_set() and not any((settings.folder / ALIVE).glob("keeper-*")):
        stop.wait(LOOK_S)
    job_worker.work(stop)


def _web(settings: NodeSettings, name: str, stop: threading.Event) -> None:
    settings = node_folder.settings_of_part(
        settings, "rules", "urgent", "models", "peers", "queue", "fhir", "hl7", "oidc", "page", "monitor"
    )
    server.run_web(settings, stop, lambda port: _beating(settings, name, stop))


def _monitor(settings: NodeSettings, name: str, stop: threading.Event) -> None:
    settings = node_folder.settings_of_part(settings, "monitor", "safety", "bound", "notify", "models", "http")
    _beating(settings, name, stop)
    monitoring_rounds.Rounds(settings, record_database.open_database(settings.database_url)).watch(stop)


def _describe(settings: NodeSettings, name: str, stop: threading.Event) -> None:
    """Facts of every model, for those who route. Raises UsageError for a rule that its model cannot follow."""
    facts = _try(settings, name, stop)
    routing_rules.rules_of(settings, facts)  # refuses what no series could fulfil
    database = record_database.open_database(settings.database_url)
    deploying.refresh_packages(settings, database)
    database.close()
    rows = [asdict(one) for one in facts.values()]
    with atomic.write_whole(settings.folder / MODELS, overwrite=True) as partial:
        partial.write_text(json.dumps({"schema": "isocenter.models", "version": 1, "rows": rows}), encoding="utf-8")


def _try(settings: NodeSettings, name: str, stop: threading.Event) -> dict[str, ModelFacts]:
    """Facts of every model. Raises what loading raises."""
    del name, stop
    models = warm_models.WarmModels(settings.models, settings.queue.memory_gb)
    acceptances.refuse_unaccepted(settings)
    for name, one in settings.models.items():
        with settings.locate_errors("models", name, "path"):
            model, facts = models[name]
        with settings.locate_errors("models", name, "covariates"):
            fhir_covariates.refuse_covariate_sources(name, one.covariates, model.networks.context)
        for rule in one.stop:
            if rule.calls is not None:
                where = settings.place("models", name, "stop") or "stop"
                model_facts.refuse_unstated_findings(rule.calls, "probability", where, {name: facts})
        deploying.write_model_gate(settings.folder, facts.hash, model.guard)
    return {name: models[name][1] for name in settings.models}


ROLES: Mapping[str, Callable[[NodeSettings, str, threading.Event], object]] = {
    "receiver": _receiver,
    "keeper": _run_keeper,
    "worker": _worker,
    "web": _web,
    "monitor": _monitor,
    "describe": _describe,
    "try": _try,
}


def _sign(settings: NodeSettings, name: str) -> Path:
    return settings.folder / ALIVE / name


def _beating(settings: NodeSettings, name: str, stop: threading.Event) -> None:
    """A sign of life every second."""
    sign = _sign(settings, name)

    def beat() -> None:
        while not stop.wait(BEAT_S):
            sign.touch()

    sign.touch()
    threading.Thread(target=beat, name="sign of life", daemon=True).start()


def _until_orphaned(stop: threading.Event) -> None:
    """Stop once the other end of the input is closed: by the death of the process that has begun this one."""
    while os.read(0, 1):
        pass
    stop.set()


def run_process() -> int:
    """Exit 2 for what trying again cannot mend."""
    role, file, name = sys.argv[1:4]
    try:
        run_role(role, Path(file), name)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_USE
    except IsocenterError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


# Further ways in: a folder that is watched, and an Orthanc whose changes are followed.


@dataclass(eq=False)
class WatchedFolder:
    """Takes in every DICOM file of a folder once; the files stay where they are.

    seen: {path: ((bytes, time of change), since when it is so)}, as the last look found them; None once it was taken
    """

    folder: Path
    store: ObjectStore
    seen: dict[Path, tuple[tuple[int, int], float | None]] = field(default_factory=dict)

    def look(self) -> int:
        """Take in what has come to rest; how many objects that were.

        Rest is that two looks find the same: the clock that stamps files may be another machine's.
        """
        before, self.seen, taken = self.seen, {}, 0
        for path in sorted(self.folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # somebody has just moved it
                continue
            state, now = (status.st_size, status.st_mtime_ns), time.monotonic()
            last, since = before.get(path, (None, None))
            if last != state:
                since = now
            elif since is not None and now - since >= SETTLED_S:
                taken, since = taken + self._take(path), None
            self.seen[path] = (state, since)
        return taken

    def _take(self, path: Path) -> bool:
        try:
            with self.store.open_part() as part, path.open("rb") as file:
                while data := file.read(CHUNK):
                    part.write(data)
                self.store.keep(part, "watch", "watch")
        except FormatError:
            log.info("a file of the watched folder is not a DICOM object with its UIDs")
            return False
        except (FileNotFoundError, PermissionError) as error:
            log.warning("a file of the watched folder cannot be read: %s", error.strerror)
            return False
        return True


@dataclass(eq=False)
class OrthancFront:
    """Follows the changes of an Orthanc, and fetches each series that has come to rest there by WADO-RS.

    url: of the Orthanc; place: the file that keeps how far its changes are known
    """

    url: str
    store: ObjectStore
    place: Path

    def look(self) -> int:
        """Fetch what is new, in the order of the changes; how many objects that were. Raises ResourceError."""
        try:
            return sum(self._fetch_series(*uids) for uids in self._changes())
        except (OSError, ValueError, TypeError, KeyError, FormatError) as error:
            remedy = f"Is it running, and {CREDENTIALS} right?"
            raise ResourceError(f"the Orthanc does not answer: {type(error).__name__}", self.url, remedy) from error

    def _changes(self) -> Iterator[tuple[str, str]]:
        """Study and series UIDs of series that are new; a change is passed once its series was fetched."""
        self._begin_again()
        while True:
            since = self._last_change
            page = self._json(f"changes?since={since}&limit={CHANGES}")
            for change in page["Changes"]:
                if change["ChangeType"] == "StableSeries" and (uids := self._uids(change["ID"])) is not None:
                    yield uids
                self._note(change["Seq"])
            if page["Done"]:
                return

    @property
    def _last_change(self) -> int:
        """The number of the last change that is known."""
        return int(structured_text.load_json(self.place)["last"]) if self.place.exists() else 0

    def _note(self, last: int) -> None:
        with atomic.write_whole(self.place, overwrite=True) as partial:
            partial.write_text(json.dumps({"last": last}), encoding="utf-8")

    def _begin_again(self) -> None:
        """Follow an Orthanc from its first change that has fewer than are known: its database was made anew."""
        counts = self._last_change
        if counts > int(self._json("changes?last").get("Last", counts)):
            log.warning("the Orthanc counts its changes anew: all of its series are fetched again")
            self._note(0)

    def _uids(self, key: str) -> tuple[str, str] | None:
        """Study and series UID of a series; None where it is no longer there."""
        try:
            series = self._json(f"series/{key}")
            study = self._json(f"studies/{series['ParentStudy']}")
        except OSError as error:  # requests' errors are of this kind
            if getattr(getattr(error, "response", None), "status_code", None) == GONE:
                return None
            raise
        return study["MainDicomTags"]["StudyInstanceUID"], series["MainDicomTags"]["SeriesInstanceUID"]

    def _json(self, path: str) -> Any:
        return self._got(path).json()

    def _got(self, path: str, **how: Any) -> Response:
        """An answer with content. Raises ResourceError for a redirect: our password and its images are for one host."""
        answer = self._session.get(f"{self.url.rstrip('/')}/{path}", timeout=TIMEOUT_S, **how)
        if answer.status_code in REDIRECTS:
            answer.close()
            raise ResourceError("redirects to another address", self.url, "Give that one as front.orthanc")
        answer.raise_for_status()
        return answer

    @cached_property
    def _session(self) -> HttpSession:
        return _delivering.open_http_session(CREDENTIALS)

    def _fetch_series(self, study: str, series: str) -> int:
        """Keep the objects of a series."""
        path = f"dicom-web/studies/{study}/series/{series}"
        with self._got(path, headers={"Accept": multipart.AS_STORED}, stream=True) as answer:
            parts = answer.iter_content(CHUNK)
            return multipart.keep_objects(answer.headers.get("Content-Type", ""), parts, self.store, "front")


def start_intake(settings: NodeSettings, stop: threading.Event) -> list[threading.Thread]:
    """A thread for each further way in that the settings name."""
    ways: list[Callable[[], int]] = []
    if settings.watch is not None or settings.front is not None:
        store = ObjectStore(settings.folder, "intake", sync=settings.dicom.sync, min_free_gb=settings.node.min_free_gb)
        if settings.watch is not None:
            ways.append(WatchedFolder(settings.watch.folder, store).look)
        if settings.front is not None:
            ways.append(OrthancFront(settings.front.orthanc, store, settings.folder / POSITION).look)
    pauses = {"rest_s": SOURCE_LOOK_S, "idle_s": 0.0, "again_s": AGAIN_S}
    threads = [
        threading.Thread(target=_node_threads.repeat_step, args=(look, stop, "intake"), kwargs=pauses, daemon=True)
        for look in ways
    ]
    for thread in threads:
        thread.start()
    return threads
