"""A gate on disk: its settings are part of a model's record, its arrays a file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from isocenter.errors import IntegrityError
from isocenter.runtime.guard.guard import Guard
from isocenter.runtime.record_files import digest

GUARD = "guard.safetensors"


def write_guard(guard: Guard | None, folder: Path) -> None:
    """The arrays of a gate into an existing folder; nothing where there is none."""
    if guard is not None:
        (folder / GUARD).write_bytes(guard.content)


def read_guard(record: Mapping[str, Any], folder: Path) -> Guard | None:
    """The gate of a model's record; None where it has none, as that of an older version.

    Raises IntegrityError for a file that is missing, or is not the one that the record names.
    """
    settings, path = record.get("guard"), folder / GUARD
    if settings is None:
        return None
    remedy = "Get the model again from its maker"
    if not path.is_file():
        raise IntegrityError("is missing", str(path), remedy)
    try:
        if digest(path) != settings["sha256"]:
            raise IntegrityError("is not the gate of this model (its SHA-256 differs)", str(path), remedy)
        return Guard.of(settings, load(path.read_bytes()))
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"holds no gate ({error})", str(path), remedy) from error
