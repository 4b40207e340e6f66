"""Packages on their way into a node: copied into its folder, checked, with their gates and what routing asks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sqlalchemy import Connection

from hilum.errors import UsageError
from hilum.runtime import model_record, record_files
from hilum.runtime.guard.image_gate import Guard
from hilum.runtime.model_parts import ModelParts
from hilum.runtime.package.package_contents import PACKAGED
from hilum.service import node_folder
from hilum.service.configuration import NodeSettings
from hilum.service.exchange import fhir_covariates
from hilum.service.model_facts import ModelFacts
from hilum.service.records import deployments
from hilum.service.records.deployments import MANIFEST, PACKAGES, DeployedPackage
from hilum.service.records.record_database import Database
from hilum.service.routing import routing_rules
from hilum.service.work.warm_models import WarmModels


def store_package(settings: NodeSettings, model: str, source: Path) -> DeployedPackage:
    """A package that can answer for a model of the node, as a copy in the node's folder that nobody else changes.

    Raises UsageError for what is no package, or cannot follow the node's rules, IntegrityError for one that is not what
    its manifest says.
    """
    with record_files.unpack(source) as folder:
        if not (folder / PACKAGED).is_dir():
            raise UsageError("is no package", str(source), "Pack the run: hilum package RUN")
        record_files.verify_seal(folder)
        target = settings.folder / PACKAGES / record_files.file_digest(folder / MANIFEST)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            part = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                shutil.copytree(folder, part)
                part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    record_files.verify_seal(target)
    facts = _facts(settings, model, target)
    routing_rules.rules_of(
        settings, {**node_folder.stored_models(settings.folder), model: facts}
    )  # refuses what no series could fulfil
    return DeployedPackage(model, target, target.name, facts)


def refresh_packages(settings: NodeSettings, database: Database) -> None:
    """Read the packages that changes made answer once more, because another file of codes makes another model of them.

    Raises UsageError for settings that name a package that no change made live, though a change says which one answers.
    """
    for model, section in settings.models.items():
        with database.read() as connection:
            packages = deployments.open_packages(connection, model)
            if not packages:
                continue
            with record_files.unpack(section.path) as folder:
                manifest = folder / MANIFEST
                is_known = manifest.is_file() and deployments.was_live(
                    connection, model, record_files.file_digest(manifest)
                )
        if not is_known:
            problem = f"names a package that no change made live; hilum change status {settings.folder} shows them"
            raise UsageError(problem, f"models.{model}.path", "Name one that was live, and promote the other one")
        for n, package in packages.items():
            facts = _facts(settings, model, package.folder)
            if facts.hash != package.facts.hash:
                with database.write() as connection:
                    deployments.note_facts(connection, n, facts)


def _facts(settings: NodeSettings, model: str, folder: Path) -> ModelFacts:
    """The facts of a package under the settings of a model. Raises what loading raises."""
    section = settings.models[model].model_copy(update={"path": folder})
    loaded, facts = WarmModels({model: section}, settings.queue.memory_gb, "cpu")[model]
    fhir_covariates.refuse_covariate_sources(model, section.covariates, loaded.networks.context)
    write_model_gate(settings.folder, facts.hash, loaded.guard)
    return facts


def answering_package(connection: Connection, settings: NodeSettings, model: str) -> DeployedPackage:
    """The package that answers for a model now: the one that is live, else that of the settings. Raises as above."""
    return deployments.deployed_package(connection, model) or store_package(
        settings, model, settings.models[model].path
    )


# The folder, in which each version of a model has one of its own, and the record there.
GATES, RECORD, SCHEMA = "gates", "gate.json", "hilum.node_gate"


def write_model_gate(folder: Path, version: str, gate: Guard | None) -> None:
    """Keep the gate of a version of a model in a node's folder; nothing of a model without.

    version: hash of the model, so that what is there already is the same
    """
    target = folder / GATES / version
    if gate is None or target.exists():
        return
    part = target.with_name(f".{version}.{os.getpid()}")
    part.mkdir(parents=True)
    try:
        gate_parts = ModelParts(guard=gate)
        gate_parts.write(part)
        record_files.write_json(part / RECORD, SCHEMA, gate_parts.settings)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_model_gate(folder: Path, version: str) -> Guard | None:
    """The gate of a version of a model; None where it has none. Raises IntegrityError for a changed one."""
    gate_folder = folder / GATES / version
    if gate_folder.is_dir():
        return model_record.read_parts(record_files.read_json(gate_folder / RECORD, SCHEMA), gate_folder).guard
    return None
