"""Whether a node answers the scanners of a site: its keeper, a worker and its couriers in a folder of their own, once.

A study of each scanner goes the way that it will go later: by the rules, through the model, to the peers of the rule.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import select

from hilum.errors import HilumError, UsageError
from hilum.monitoring.acceptance_plan import AcceptanceRow
from hilum.runtime import record_files
from hilum.service import _delivering
from hilum.service._courier import Couriers
from hilum.service._keeper import Keeper
from hilum.service.acceptances import MANIFEST
from hilum.service.configuration import NodeSettings, PeerSection
from hilum.service.dicom import asking, dicom_listening
from hilum.service.objects import object_store
from hilum.service.objects.object_store import ObjectStore
from hilum.service.records import migration
from hilum.service.records.record_database import Database
from hilum.service.records.tables import ANSWERS, DELIVERIES, JOBS, STUDIES
from hilum.service.routing import routing_rules
from hilum.service.work.warm_models import WarmModels
from hilum.service.work.worker import JobWorker
from hilum.values import ANSWERED
from hilum.values.case_outcome import ABSTAINED

# The column of a site's cases by which scanners are told apart.
SCANNER = "scanner"
TAKEN, IN_TIME, READ_BACK = "series_taken", "answered_in_time", "results_read_back"
WANTED = {TAKEN: "a rule takes its series", IN_TIME: "it is answered in time", READ_BACK: "the peer has every result"}


def model_of_package(settings: NodeSettings, manifest: str) -> str:
    """The name in the settings of a package, by the SHA-256 of its manifest. UsageError where none is it."""
    for name, section in settings.models.items():
        with record_files.unpack(section.path) as folder:
            if (folder / MANIFEST).is_file() and record_files.file_digest(folder / MANIFEST) == manifest:
                return name
    where = str(settings.file or "the settings")
    raise UsageError("names no model that is this package", where, "Name it under [models]")


def check_scanners(
    settings: NodeSettings, model: str, studies: Mapping[str, tuple[str, Sequence[Path]]], folder: Path
) -> Iterator[AcceptanceRow]:
    """A row for each check on a study of each scanner.

    studies: {scanner: (StudyInstanceUID, files)}; folder: an empty one

    The model is not accepted yet and no rule has stopped it: both are left out here. An answer may take as long as the
    model's stop rule allows 95 %, else as long as the queue allows.
    """
    stops = [one.seconds_p95 for one in settings.models[model].stop if one.seconds_p95 is not None]
    most = min([*stops, settings.queue.job_timeout_s])
    own = settings.models[model].model_copy(update={"acceptance": None, "require_acceptance": False, "stop": []})
    changes = {
        "node": settings.node.model_copy(update={"folder": folder}),
        "database": type(settings.database)(),
        "study": type(settings.study)(complete_after_s=0),
        "models": {**settings.models, model: own},
    }
    settings = settings.model_copy(update=changes)
    with closing(migration.migrate_database(settings.database_url)) as database:
        warm = WarmModels(settings.models, settings.queue.memory_gb)
        facts = {name: warm[name][1] for name in settings.models}
        rules = routing_rules.rules_of(settings, facts)
        keeper = Keeper(settings, database, rules, facts)
        worker, couriers = JobWorker(settings, database, rules, "accept"), Couriers(settings, database)
        worker.warm()
        for scanner, (study, paths) in studies.items():
            seconds = _answer_study(settings, keeper, worker, paths)
            yield from _study_checks(couriers, model, scanner, study, seconds, most)


def _answer_study(settings: NodeSettings, keeper: Keeper, worker: JobWorker, paths: Sequence[Path]) -> dict[str, float]:
    """{job: seconds} until each job on a study that is received now was finished."""
    with closing(ObjectStore(settings.folder, "accept")) as store:
        for path in paths:
            with store.open_part() as part:
                part.write(path.read_bytes())
                store.keep(part, "accept")
    seconds = dict[str, float]()
    while True:
        keeper.round()
        job = worker.jobs.claim(worker.name)
        if job is None:
            return seconds
        began = time.monotonic()
        worker.finish_job(job)
        seconds[job.job] = seconds.get(job.job, 0.0) + time.monotonic() - began


def _study_checks(
    couriers: Couriers, model: str, scanner: str, study: str, seconds: Mapping[str, float], most: float
) -> Iterator[AcceptanceRow]:
    settings, key = couriers.settings, object_store.uid_key(study)
    mine = _rows(couriers.database, select(JOBS).where(JOBS.c.study == key, JOBS.c.model == model))
    reasons = _rows(couriers.database, select(STUDIES.c.reason).where(STUDIES.c.study == key))
    rules = ", ".join(sorted({job.rule for job in mine}))
    untaken = next((row.reason for row in reasons if row.reason), "no rule takes a series of it")
    yield _check_row(TAKEN, rules or model, scanner, bool(mine), f"taken by {rules}" if rules else untaken)
    for job in mine:
        took = seconds.get(job.job, 0.0)
        words = f"{job.outcome or job.state} after {took:.1f} s, {most:g} s are allowed"
        words += f": {job.reason}" if job.reason else ""
        yield _check_row(IN_TIME, model, scanner, job.outcome in (ANSWERED, ABSTAINED) and took <= most, words)
    sent = dict.fromkeys(name for rule in settings.rules if rule.model == model for name in rule.send)
    for name in sent if mine else ():
        holds, words = _read_back(couriers, couriers.peers[name], [job.job for job in mine], study)
        yield _check_row(READ_BACK, name, scanner, holds, words)


def _read_back(couriers: Couriers, peer: PeerSection, jobs: Sequence[str], study: str) -> tuple[bool, str]:
    """Send what waits for a peer, then ask it for each object; (whether it has all, in words)."""
    while couriers.deliver(peer.name):
        pass
    both = DELIVERIES.join(ANSWERS, (DELIVERIES.c.job == ANSWERS.c.job) & (DELIVERIES.c.name == ANSWERS.c.name))
    columns = DELIVERIES.c.state, DELIVERIES.c.reason, DELIVERIES.c.sent_as
    query = select(*columns, ANSWERS.c.sop_instance_uid).select_from(both)
    chosen = query.where(DELIVERIES.c.peer == peer.name, DELIVERIES.c.job.in_(jobs))
    rows = [row for row in _rows(couriers.database, chosen) if row.sop_instance_uid]
    reasons = [row.reason for row in rows if row.reason]
    try:
        found = sum(_holds(couriers.us, peer, row.sent_as or row.sop_instance_uid) for row in rows)
    except (HilumError, OSError, ValueError) as error:
        return False, f"{len(rows)} results, and it cannot be asked: {getattr(error, 'problem', error)}"
    return bool(rows) and found == len(rows), "; ".join([f"{found} of {len(rows)} results", *dict.fromkeys(reasons)])


def _holds(us: str, peer: PeerSection, instance: str) -> bool:
    """Whether a peer has an object: by QIDO-RS where it has DICOMweb, else by C-FIND."""
    asked = {"SOPInstanceUID": instance}
    if peer.dicomweb is None:
        found = asking.find_records(us, dicom_listening.peer_of_settings(peer), asked, "IMAGE")
        return any(one.get("SOPInstanceUID") == instance for one in found)
    with _delivering.open_peer_session(peer.name) as session:
        kinds = {"Accept": "application/dicom+json"}
        answer = session.get(f"{peer.dicomweb.rstrip('/')}/instances", params=asked, headers=kinds, timeout=30)
        return answer.ok and bool(answer.content) and instance in answer.text


def _check_row(metric: str, label: str, scanner: str, holds: bool, found: str) -> AcceptanceRow:
    """One check on a study of a scanner. label: the rule of a series, the model of an answer, the peer of results"""
    wanted = f"{WANTED[metric]} ({label})"
    return AcceptanceRow(metric, label, float(holds), None, None, 1, 1, SCANNER, scanner, wanted, found, holds)


def _rows(database: Database, query: Any) -> Sequence[Any]:
    return database.rows(query)
