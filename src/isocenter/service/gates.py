"""Gates of a node's models as files in its folder, which monitoring reads without loading a network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from isocenter.runtime import Guard, Parts, read_json, read_parts, write_json

# The folder, in which each version of a model has one of its own, and the record there.
GATES, RECORD, SCHEMA = "gates", "gate.json", "isocenter.node_gate"


def write_gate(folder: Path, version: str, gate: Guard | None) -> None:
    """Keep the gate of a version of a model in a node's folder; nothing of a model without.

    version: hash of the model, so that what is there already is the same
    """
    place = folder / GATES / version
    if gate is None or place.exists():
        return
    part = place.with_name(f".{version}.{os.getpid()}")
    part.mkdir(parents=True)
    try:
        kept = Parts(guard=gate)
        kept.write(part)
        write_json(part / RECORD, SCHEMA, kept.settings)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_gate(folder: Path, version: str) -> Guard | None:
    """The gate of a version of a model; None where it has none. Raises IntegrityError for a changed one."""
    place = folder / GATES / version
    return read_parts(read_json(place / RECORD, SCHEMA), place).guard if place.is_dir() else None
