"""One process of a node, by its role: `python -m hilum.service ROLE SETTINGS NAME`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from hilum.errors import HilumError, UsageError
from hilum.files.storage import atomic
from hilum.service import (
    _courier,
    _intake,
    _keeper,
    _node_threads,
    acceptances,
    deploying,
    model_facts,
    monitoring_rounds,
    node_folder,
)
from hilum.service.configuration import NodeSettings
from hilum.service.dicom import dicom_listening, receiver
from hilum.service.exchange import fhir_covariates
from hilum.service.model_facts import ModelFacts
from hilum.service.node_folder import ALIVE, MODELS, REFUSED, WRONG_USE, JsonLines
from hilum.service.records import audit_records, record_database, workitem_records
from hilum.service.routing import routing_rules
from hilum.service.web import server
from hilum.service.work import warm_models, worker

BEAT_S, LOOK_S = 1.0, 0.1
# What is done before a node starts, and ends by itself.
ONCE = ("describe", "try")


def run_role(role: str, file: Path, name: str) -> None:
    """The work of a role until SIGTERM, or until whoever has begun this process is gone. file: of its settings."""
    settings, stop = node_folder.stored_settings(file), threading.Event()
    logger = logging.getLogger("hilum")
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
            logging.getLogger("hilum").info("settings are new or have changed: %s", ", ".join(changed))
        couriers = _courier.Couriers(settings, database)
        keeper = _keeper.Keeper(settings, database, rules, models, couriers.hear)
        couriers.start(stop)
        ways_in = _intake.start_intake(settings, stop)
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
    owner = os.environ.get("HILUM_NODE", "")
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
        partial.write_text(json.dumps({"schema": "hilum.models", "version": 1, "rows": rows}), encoding="utf-8")


def _try(settings: NodeSettings, name: str, stop: threading.Event) -> dict[str, ModelFacts]:
    """Facts of every model. Raises what loading raises."""
    del name, stop
    models = warm_models.WarmModels(settings.models, settings.queue.memory_gb)
    acceptances.check_required_acceptances(settings)
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
    except HilumError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0
