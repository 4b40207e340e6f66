"""Parts of a model that were found after training, on disk: settings in its record, arrays beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from safetensors.numpy import load

from isocenter.errors import IntegrityError
from isocenter.runtime.directions import Directions
from isocenter.runtime.guard import Guard, with_guard
from isocenter.runtime.record_files import digest
from isocenter.runtime.uncertainty.laplace import Laplace

if TYPE_CHECKING:
    from isocenter.runtime.model import Model


class Kind(NamedTuple):
    """A part of a model: its file, what it is, and what makes it of its settings and arrays."""

    file: str
    what: str
    of: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


# {name in a model's record, and of the field of `Model`: its kind}
PARTS: Mapping[str, Kind] = {
    "guard": Kind("guard.safetensors", "gate", Guard.of),
    "laplace": Kind("laplace.safetensors", "posterior", Laplace.of),
    "directions": Kind("directions.safetensors", "directions", Directions.of),
}
PART_FILES = tuple(kind.file for kind in PARTS.values())


def write_parts(parts: Mapping[str, Any], folder: Path) -> None:
    """The arrays of parts, as `Model.parts` has them, into an existing folder."""
    for name, part in parts.items():
        (folder / PARTS[name].file).write_bytes(part.content)


def files_of(record: Mapping[str, Any]) -> list[str]:
    """The files of the parts that a model's record names."""
    return [kind.file for name, kind in PARTS.items() if record.get(name)]


def read_parts(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The parts that a model's record names.

    Raises IntegrityError for a file that is missing, or is not the one that the record names.
    """
    return {name: _read(record[name], folder / kind.file, kind) for name, kind in PARTS.items() if record.get(name)}


def with_parts(model: Model, record: Mapping[str, Any], folder: Path) -> Model:
    """The model with the parts that its record names."""
    parts = read_parts(record, folder)
    guard = parts.pop("guard", None)
    return with_guard(replace(model, **parts), guard)


def _read(settings: Mapping[str, Any], path: Path, kind: Kind) -> Any:
    remedy = "Get the model again from its maker"
    if not path.is_file():
        raise IntegrityError("is missing", str(path), remedy)
    try:
        if digest(path) != settings["sha256"]:
            raise IntegrityError(f"is not the {kind.what} of this model (its SHA-256 differs)", str(path), remedy)
        return kind.of(settings, load(path.read_bytes()))
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"holds no {kind.what} ({error})", str(path), remedy) from error
