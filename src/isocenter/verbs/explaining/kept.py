"""What tests found of the methods on a model, kept beside it: in a run's folder, in a package's `isocenter/`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isocenter.errors import IntegrityError
from isocenter.runtime import (
    EXPLANATIONS,
    EXPLANATIONS_SCHEMA,
    PACKAGED,
    Model,
    read_json,
    seal,
    unpacked,
    write_json,
)

Records = Mapping[str, Mapping[str, Any]]


def kept_records(path: Path | None, model: Model) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """{method: what its tests found} and {method: why it could not explain} of this model.

    Both are empty where it was not tested, or another model was.
    """
    if path is None or not path.exists():
        return {}, {}
    with unpacked(path) as folder:
        place = _place(folder)
        if not place.is_file():
            return {}, {}
        try:
            record = read_json(place, EXPLANATIONS_SCHEMA)
        except IntegrityError:
            return {}, {}
    same = record.get("weights_sha256") == model.record.get("weights_sha256")
    return (dict(record.get("methods") or {}), dict(record.get("refused") or {})) if same else ({}, {})


def is_kept(path: Path | None) -> bool:
    """Whether what tests find can be kept beside a model: it is a folder that can be written."""
    return path is not None and path.is_dir() and os.access(path, os.W_OK)


def keep(path: Path | None, model: Model, records: Records, refused: Mapping[str, str]) -> None:
    """Beside the model, where that can be; refused: {method: why it cannot explain the model}."""
    if path is None or not is_kept(path):
        return
    place, judged = _place(path), {name: one for name, one in records.items() if one.get("passed") is not None}
    content = {"weights_sha256": model.record.get("weights_sha256"), "methods": judged, "refused": dict(refused)}
    write_json(place, EXPLANATIONS_SCHEMA, content)
    if place.parent.name == PACKAGED:
        seal(path)


def kept_content(folder: Path) -> dict[str, Any]:
    """What is kept in a run's folder, for its package."""
    place = _place(folder)
    return read_json(place, EXPLANATIONS_SCHEMA) if place.is_file() else {}


def _place(folder: Path) -> Path:
    inside = folder / PACKAGED
    return (inside if inside.is_dir() else folder) / EXPLANATIONS
