"""Packages on their way into a node: copied into its folder, checked, and what routing asks of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sqlalchemy import Connection

from isocenter.errors import UsageError
from isocenter.runtime import PACKAGED, digest, unpacked, verify
from isocenter.service.exchange.covariates import check_covariates
from isocenter.service.records.deployments import MANIFEST, PACKAGES, Package, live_package
from isocenter.service.routing.rules import rules_of
from isocenter.service.settings import Settings
from isocenter.service.stored import stored_models
from isocenter.service.work.warm_models import WarmModels


def stored_package(settings: Settings, model: str, given: Path) -> Package:
    """A package that can answer for a model of the node, as a copy in the node's folder that nobody else changes.

    Raises UsageError for what is no package, or cannot follow the node's rules, IntegrityError for one that is not what
    its manifest says.
    """
    with unpacked(given) as folder:
        if not (folder / PACKAGED).is_dir():
            raise UsageError("is no package", str(given), "Pack the run: isocenter package RUN")
        verify(folder)
        place = settings.folder / PACKAGES / digest(folder / MANIFEST)
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            part = place.with_name(f".{place.name}.{os.getpid()}")
            try:
                shutil.copytree(folder, part)
                part.rename(place)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    verify(place)
    section = settings.models[model].model_copy(update={"path": place})
    loaded, facts = WarmModels({model: section}, settings.queue.memory_gb, "cpu")[model]
    check_covariates(model, section.covariates, loaded.networks.context)
    rules_of(settings, {**stored_models(settings.folder), model: facts})  # refuses what no series could fulfil
    return Package(model, place, place.name, facts)


def answering_package(connection: Connection, settings: Settings, model: str) -> Package:
    """The package that answers for a model now: the one that is live, else that of the settings. Raises as above."""
    return live_package(connection, model) or stored_package(settings, model, settings.models[model].path)
