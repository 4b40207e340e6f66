"""The record of a model: its types are checked before anything is built from it.

Parts that are found after training have their settings in it, and their arrays in files beside the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from hilum import errors
from hilum.errors import HilumError, IntegrityError, MemoryShortageError, PlanError
from hilum.runtime import record_files
from hilum.runtime.guard.image_gate import Guard
from hilum.runtime.inference import Inference
from hilum.runtime.model_parts import PART_FILES, ImageDirections, ModelParts
from hilum.runtime.model_schema import Fields, ModelOrigin, ModelRecord
from hilum.runtime.part_settings import PartSettings, PartsRecord
from hilum.runtime.preprocessing import nnunet_preprocessing, square_preprocessing
from hilum.runtime.preprocessing.nnunet_preprocessing import NNUNetPreprocessing
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.runtime.preprocessing.protocol import PreprocessingKind
from hilum.runtime.preprocessing.square_preprocessing import SquarePreprocessing
from hilum.runtime.uncertainty.uncertainty_methods import Laplace

if TYPE_CHECKING:
    from hilum.runtime.model_assembly import Model


class PartKind(NamedTuple):
    """A part of a model: what it is, and what makes it of its settings and arrays."""

    what: str
    of: Callable[..., Guard | Laplace | ImageDirections]


# {name of a part in a model's record: its kind}
KINDS: Mapping[str, PartKind] = {
    "guard": PartKind("gate", Guard.from_record),
    "laplace": PartKind("posterior", Laplace.from_record),
    "directions": PartKind("directions", ImageDirections.from_record),
}


def part_files(record: PartsRecord) -> list[str]:
    """The files of the parts that a model's record names."""
    return [file for name, file in PART_FILES.items() if record.get(name)]


def read_parts(record: PartsRecord, folder: Path) -> ModelParts:
    """The parts that a model's record names.

    Raises IntegrityError for a file that is missing, or is not the one that the record names.
    """
    stated = cast("Mapping[str, PartSettings]", record)
    files = {name: file for name, file in PART_FILES.items() if stated.get(name)}
    return ModelParts(**{name: _read_part(stated[name], folder / file, KINDS[name]) for name, file in files.items()})


def with_recorded_parts(model: Model, record: PartsRecord, folder: Path) -> Model:
    """The model with the parts that its record names."""
    parts = read_parts(record, folder)
    return replace(model, parts=parts).with_guard(parts.guard)


def _read_part(settings: PartSettings, path: Path, kind: PartKind) -> Any:
    remedy = "Get the model again from its maker"
    if not path.is_file():
        raise IntegrityError("is missing", str(path), remedy)
    try:
        if record_files.file_digest(path) != settings["sha256"]:
            raise IntegrityError(f"is not the {kind.what} of this model (its SHA-256 differs)", str(path), remedy)
        return kind.of(settings, load(path.read_bytes()))
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"holds no {kind.what} ({error})", str(path), remedy) from error


# Kinds of preprocessing by the entry "kind" of a record; ours has none.
PREPROCESSING_KINDS: Mapping[str, type[Preprocessing | NNUNetPreprocessing | SquarePreprocessing]] = {
    str(None): Preprocessing,
    nnunet_preprocessing.KIND: NNUNetPreprocessing,
    square_preprocessing.KIND: SquarePreprocessing,
}

# Sections that are names with values, whatever these are.
SECTIONS = ("task", "network", "record")
# What building a task, a network or a preprocessing raises of values that no writer of ours gives.
BUILDING_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextmanager
def refuse_malformed(record: ModelRecord, where: Path) -> Iterator[None]:
    """A model is built within from this record, whose types are looked at first.

    where: the model's folder, which errors name
    Raises IntegrityError where record and weights are no model, MemoryShortageError where it needs too much memory.
    """
    _refuse_other_types(record, where)
    try:
        yield
    except HilumError:
        raise
    except BUILDING_ERRORS as error:
        if errors.is_out_of_memory(error):
            remedy = "Free some, or choose --device cpu"
            raise MemoryShortageError("takes more memory than there is", str(where), remedy) from error
        raise IntegrityError(f"weights and record do not fit ({error})", str(where), "Get the model again") from error


def _refuse_other_types(record: ModelRecord, where: Path) -> None:
    for section in SECTIONS:
        if not isinstance(record.get(section), Mapping):
            raise _malformed_record(where, f"{section!r} holds no names with values")
    preprocessing, origin = record.get("preprocessing"), record["record"]
    kind_of_steps = str(preprocessing.get("kind")) if isinstance(preprocessing, Mapping) else ""
    held: dict[str, tuple[Any, Any]] = {
        "preprocessing": (PREPROCESSING_KINDS.get(kind_of_steps, Preprocessing), preprocessing),
        "inference": (Inference, record.get("inference")),
        "limits": (list[str], origin.get("limits", [])),
    }
    # Of the images that trained, for each axis; a model of another program has none.
    stated = origin.get("members")
    members: list[ModelOrigin] = stated if isinstance(stated, list) else []
    for place_of, record_of_place in (("", origin), *((f"members.{n}.", one) for n, one in enumerate(members))):
        images = (record_of_place.get("fingerprint") or {}) if isinstance(record_of_place, Mapping) else record_of_place
        held[f"{place_of}fingerprint"] = (dict, images)
        if isinstance(images, Mapping):
            per_axis = dict[str, list[float]] | None
            held |= {f"{place_of}{name}": (per_axis, images.get(name)) for name in ("shape", "spacing", "largest")}
    for section, (kind, value) in held.items():
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            entry = ".".join(str(part) for part in (section, *first["loc"]))
            raise _malformed_record(where, f"{entry}: {first['msg']}, not {first['input']!r:.50}") from error


def _malformed_record(where: Path, problem: str) -> IntegrityError:
    return IntegrityError(
        f"its record is not that of a model: {problem}", str(where), "Get the model again from its maker"
    )


def preprocessing_of(settings: Fields) -> PreprocessingKind:
    """Read a model's record; PlanError for a kind that is not known here."""
    kind = str(settings.get("kind"))
    if kind not in PREPROCESSING_KINDS:
        raise PlanError(f"there is no preprocessing of the kind {kind!r}", "preprocessing", "Update hilum")
    return PREPROCESSING_KINDS[kind].from_settings(settings)
