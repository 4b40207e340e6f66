"""The record of a model compared with the types of what it describes, before anything is built from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from isocenter.errors import IntegrityError, IsocenterError, MemoryShortageError, is_out_of_memory
from isocenter.runtime.foreign import KIND, NNUNetPreprocessing
from isocenter.runtime.model import Inference
from isocenter.runtime.preprocessing import Preprocessing

# Sections that are names with values, whatever these are.
SECTIONS = ("task", "network", "record")
# What building a task, a network or a preprocessing raises of values that no writer of ours gives.
BUILDING_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextmanager
def built_from(record: Mapping[str, Any], place: Path) -> Iterator[None]:
    """A model is built within from this record, whose types are looked at first.

    place: the model's folder, which errors name
    Raises IntegrityError where record and weights are no model, MemoryShortageError where it needs too much memory.
    """
    _refuse_other_types(record, place)
    try:
        yield
    except IsocenterError:
        raise
    except BUILDING_ERRORS as error:
        if is_out_of_memory(error):
            remedy = "Free some, or choose --device cpu"
            raise MemoryShortageError("takes more memory than there is", str(place), remedy) from error
        raise IntegrityError(f"weights and record do not fit ({error})", str(place), "Get the model again") from error


def _refuse_other_types(record: Mapping[str, Any], place: Path) -> None:
    for section in SECTIONS:
        if not isinstance(record.get(section), Mapping):
            raise _malformed(place, f"{section!r} holds no names with values")
    preprocessing, origin = record.get("preprocessing"), record["record"]
    is_nnunet = isinstance(preprocessing, Mapping) and preprocessing.get("kind") == KIND
    held: dict[str, tuple[Any, Any]] = {
        "preprocessing": (NNUNetPreprocessing if is_nnunet else Preprocessing, preprocessing),
        "inference": (Inference, record.get("inference")),
        "limits": (list[str], origin.get("limits", [])),
    }
    # Of the images that trained, for each axis; a model of another program has none.
    members = origin.get("members") if isinstance(origin.get("members"), list) else []
    for place_of, own in (("", origin), *((f"members.{n}.", one) for n, one in enumerate(members))):
        images = (own.get("fingerprint") or {}) if isinstance(own, Mapping) else own
        held[f"{place_of}fingerprint"] = (dict[str, Any], images)
        if isinstance(images, Mapping):
            per_axis = dict[str, list[float]] | None
            held |= {f"{place_of}{name}": (per_axis, images.get(name)) for name in ("shape", "spacing", "largest")}
    for section, (kind, value) in held.items():
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            entry = ".".join(str(part) for part in (section, *first["loc"]))
            raise _malformed(place, f"{entry}: {first['msg']}, not {first['input']!r:.50}") from error


def _malformed(place: Path, problem: str) -> IntegrityError:
    return IntegrityError(
        f"its record is not that of a model: {problem}", str(place), "Get the model again from its maker"
    )
