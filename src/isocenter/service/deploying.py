"""Packages on their way into a node: copied into its folder, checked, with their gates and what routing asks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sqlalchemy import Connection

from isocenter.errors import UsageError
from isocenter.runtime import PACKAGED, Guard, Parts, digest, read_json, read_parts, unpacked, verify, write_json
from isocenter.service.exchange.covariates import check_covariates
from isocenter.service.records.database import Database
from isocenter.service.records.deployments import (
    MANIFEST,
    PACKAGES,
    Package,
    live_package,
    note_facts,
    open_packages,
    was_live,
)
from isocenter.service.routing.facts import ModelFacts
from isocenter.service.routing.rules import rules_of
from isocenter.service.settings import Settings
from isocenter.service.stored import stored_models
from isocenter.service.work.warm_models import WarmModels


def stored_package(settings: Settings, model: str, source: Path) -> Package:
    """A package that can answer for a model of the node, as a copy in the node's folder that nobody else changes.

    Raises UsageError for what is no package, or cannot follow the node's rules, IntegrityError for one that is not what
    its manifest says.
    """
    with unpacked(source) as folder:
        if not (folder / PACKAGED).is_dir():
            raise UsageError("is no package", str(source), "Pack the run: isocenter package RUN")
        verify(folder)
        target = settings.folder / PACKAGES / digest(folder / MANIFEST)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            part = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                shutil.copytree(folder, part)
                part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    verify(target)
    facts = _facts(settings, model, target)
    rules_of(settings, {**stored_models(settings.folder), model: facts})  # refuses what no series could fulfil
    return Package(model, target, target.name, facts)


def refresh_packages(settings: Settings, database: Database) -> None:
    """Read the packages that changes made answer once more, because another file of codes makes another model of them.

    Raises UsageError for settings that name a package that no change made live, though a change says which one answers.
    """
    for model, section in settings.models.items():
        with database.read() as connection:
            packages = open_packages(connection, model)
            if not packages:
                continue
            with unpacked(section.path) as folder:
                manifest = folder / MANIFEST
                is_known = manifest.is_file() and was_live(connection, model, digest(manifest))
        if not is_known:
            problem = f"names a package that no change made live; isocenter change status {settings.folder} shows them"
            raise UsageError(problem, f"models.{model}.path", "Name one that was live, and promote the other one")
        for n, package in packages.items():
            facts = _facts(settings, model, package.folder)
            if facts.hash != package.facts.hash:
                with database.write() as connection:
                    note_facts(connection, n, facts)


def _facts(settings: Settings, model: str, folder: Path) -> ModelFacts:
    """The facts of a package under the settings of a model. Raises what loading raises."""
    section = settings.models[model].model_copy(update={"path": folder})
    loaded, facts = WarmModels({model: section}, settings.queue.memory_gb, "cpu")[model]
    check_covariates(model, section.covariates, loaded.networks.context)
    write_gate(settings.folder, facts.hash, loaded.guard)
    return facts


def answering_package(connection: Connection, settings: Settings, model: str) -> Package:
    """The package that answers for a model now: the one that is live, else that of the settings. Raises as above."""
    return live_package(connection, model) or stored_package(settings, model, settings.models[model].path)


# The folder, in which each version of a model has one of its own, and the record there.
GATES, RECORD, SCHEMA = "gates", "gate.json", "isocenter.node_gate"


def write_gate(folder: Path, version: str, gate: Guard | None) -> None:
    """Keep the gate of a version of a model in a node's folder; nothing of a model without.

    version: hash of the model, so that what is there already is the same
    """
    target = folder / GATES / version
    if gate is None or target.exists():
        return
    part = target.with_name(f".{version}.{os.getpid()}")
    part.mkdir(parents=True)
    try:
        gate_parts = Parts(guard=gate)
        gate_parts.write(part)
        write_json(part / RECORD, SCHEMA, gate_parts.settings)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_gate(folder: Path, version: str) -> Guard | None:
    """The gate of a version of a model; None where it has none. Raises IntegrityError for a changed one."""
    gate_folder = folder / GATES / version
    return read_parts(read_json(gate_folder / RECORD, SCHEMA), gate_folder).guard if gate_folder.is_dir() else None
