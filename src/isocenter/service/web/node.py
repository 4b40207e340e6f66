"""Routes of the node itself: what it is, its models, its peers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Column, func, select

from isocenter.files import parse_json
from isocenter.service.dicom.sending import PeerError, echo
from isocenter.service.records.deployments import current
from isocenter.service.records.tables import deliveries, jobs, studies
from isocenter.service.routing.facts import SeriesFacts
from isocenter.service.routing.rules import rules_of, study_answers, study_routing
from isocenter.service.speaking import spoken_to
from isocenter.service.stored import LOG
from isocenter.service.web.access import KEEPING, ROLES, roles
from isocenter.service.web.shapes import (
    EchoShape,
    Listing,
    LogShape,
    ModelShape,
    NodeShape,
    PeerShape,
    Problem,
    UntakenShape,
)
from isocenter.service.web.web_node import Node, WebError, WebNode

router = APIRouter(prefix="/api", tags=["node"])
ECHO_S = 10.0
# Studies of which is said why rules did not take their series; bytes of the log that are looked at, and lines of it.
NEWEST, LOG_BYTES, MOST_TROUBLES = 10, 1 << 17, 20
TROUBLES = ("warning", "error", "critical")


@router.get("/node", dependencies=[roles(*ROLES)])
def get_node(node: Node) -> NodeShape:
    """Get the name of the node, and how much lies in it."""
    counts = {"studies": studies.c.state, "jobs": jobs.c.state, "deliveries": deliveries.c.state}
    dicom = node.settings.dicom
    return NodeShape(
        name=node.settings.node.name,
        version=version("isocenter"),
        ae_title=dicom.ae_title,
        dicom=f"{dicom.host}:{dicom.port}",
        dicom_over_tls=None if dicom.tls is None else f"{dicom.host}:{dicom.tls.port}",
        text=node.settings.node.text,
        free_gb=free_bytes(node) / 1e9,
        untaken=list(_untaken(node)),
        troubles=_troubles(node),
        **{name: {state: n for (state,), n in counted_by(node, column).items()} for name, column in counts.items()},
    )


@router.get("/models", dependencies=[roles(*ROLES)])
def list_models(node: Node) -> Listing[ModelShape]:
    """The models that rules may name."""
    models = node.models
    rules = rules_of(node.settings, models)
    with node.database.read() as connection:
        folders = {name: current(connection, name) or node.settings.models[name].path for name in models}
    rows = [
        ModelShape(
            name=name,
            path=str(folders[name]),
            hash=one.hash,
            modality=one.modality,
            task=one.task,
            rules=[rule.name for rule in rules if rule.model == name],
        )
        for name, one in models.items()
    ]
    return Listing[ModelShape](schema="isocenter.models", rows=rows)


@router.get("/peers", dependencies=[roles(*ROLES)])
def list_peers(node: Node) -> Listing[PeerShape]:
    """The systems that the node knows."""
    return Listing[PeerShape](
        schema="isocenter.peers", rows=[PeerShape(**peer.model_dump()) for peer in node.settings.peers]
    )


@router.post("/peers/{name}/echo", dependencies=[roles(*KEEPING)], responses={502: {"model": Problem}})
def echo_peer(node: Node, name: str) -> EchoShape:
    """Ask a peer by C-ECHO whether it is there."""
    peer = next((peer for peer in node.settings.peers if peer.name == name), None)
    if peer is None:
        raise WebError(404, "there is no such peer", name, "See /api/peers")
    began = time.monotonic()
    try:
        echo(node.settings.dicom.ae_title, spoken_to(peer), idle_s=ECHO_S)
    except PeerError as error:
        raise WebError(502, error.problem, error.where, error.remedy) from error
    return EchoShape(peer=name, seconds=time.monotonic() - began)


def _untaken(node: WebNode) -> Iterator[UntakenShape]:
    """Series of the newest studies that a rule did not take, and why."""
    with node.database.read() as connection:
        complete = select(studies).where(studies.c.complete_at.is_not(None), studies.c.state != "receiving")
        newest = connection.execute(complete.order_by(studies.c.complete_at.desc()).limit(NEWEST)).all()
    if not newest:
        return
    rules = rules_of(node.settings, node.models)
    for study in newest:
        models = node.models_of(study)
        found = node.index.series_of(study.study)
        contents = {one.series: one.inputs_hash for one in found}
        answers, _ = study_answers(node.database, study.study, rules, models, contents)
        for row in study_routing(rules, models, [SeriesFacts.of_row(one) for one in found], answers).rows:
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
            trouble = LogShape.model_validate(parse_json(line.decode()))
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


def counted_by(node: WebNode, *columns: Column[Any]) -> dict[tuple[str, ...], int]:
    """{values of the columns: rows of their table}; what has no value is not counted."""
    with node.database.read() as connection:
        is_stated = (column.is_not(None) for column in columns)
        rows = connection.execute(select(*columns, func.count()).where(*is_stated).group_by(*columns))
        return {tuple(map(str, values)): count for *values, count in rows}
