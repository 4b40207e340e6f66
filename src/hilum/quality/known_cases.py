"""Looks at cases, kept: what a case is made of as a key, and what was found in it as text, for later commands."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from datetime import date
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np

from hilum import plugins
from hilum.errors import DatasetError, HilumError
from hilum.files import file_formats
from hilum.files.file_formats import FORMATS
from hilum.files.storage import hashing, kept
from hilum.files.storage.kept import Caching, FileIdentity
from hilum.quality.image_descriptors import ImageLook
from hilum.quality.mask_placement import MaskPlacement
from hilum.report import Figure
from hilum.runtime import hardware
from hilum.values import BoundingBoxes, Case, CaseFacts, Image, LazyMapping, Problem

# What was measured in a case, and what is odd about it.
Measured = tuple[tuple[CaseFacts, ImageLook] | None, list[Problem]]
# Packages that read, measure and draw: of another version they may do it otherwise.
PACKAGES = ("hilum", "numpy", "scipy", "nibabel", "pydicom", "pillow", "tifffile", "matplotlib")
GROUPS = ("hilum.formats", "hilum.references")
# Formats whose headers may name another file: one that is so small may be a header alone.
NAMING, HEADER_BYTES = ("nrrd", "metaimage", "mif"), 1 << 16
KEPT: Mapping[str, type] = {
    one.__name__: one for one in (CaseFacts, ImageLook, MaskPlacement, Problem, BoundingBoxes, Figure)
}
# Bytes that a look takes at most beside the stored voxels.
BESIDE = 400 * 2**20


class UnknowableError(Exception):
    """Something of which nobody can say whether it is the same in another command."""


class Looked(NamedTuple):
    """The outcome of a look at a case, its key, empty where it cannot be kept, and the hashes of its files."""

    outcome: Measured
    key: str = ""
    hashes: Mapping[Path, tuple[FileIdentity, str]] = {}


def known_look(case: Case) -> tuple[str, Measured] | None:
    """Key and outcome of a look at these files, of which none has changed since; None where nobody knows them."""
    try:
        key = case_key(case, lambda path: hashing.known_hash(path, FileIdentity.of(path)))
    except (UnknowableError, OSError):
        return None
    outcome = _kept_look(case, key)
    return None if outcome is None else (key, outcome)


def look_at(measure: Callable[[Case], Measured], caching: Caching, case: Case) -> Looked:
    """Look at a case, or find by the contents of its files that it was looked at before.

    Files that change meanwhile are read once more. Raises DatasetError where they then change again.
    """
    changed: Path | None = None
    with kept.caching_as(caching):
        for _ in range(2):
            before = _identities(case)
            looked = _look_at(measure, case)
            after = _identities(case)
            changed = next((path for path in case.files if before.get(path) != after.get(path)), None)
            if changed is None:
                return looked
    remedy = "Wait until it is written, then run the command again"
    raise DatasetError("changed while it was read", str(changed), remedy)


def _identities(case: Case) -> dict[Path, FileIdentity]:
    """The identities of the files that are there."""
    return {path: FileIdentity.of(path) for path in case.files if path.exists()}


def _look_at(measure: Callable[[Case], Measured], case: Case) -> Looked:
    hashes: dict[Path, tuple[FileIdentity, str]] = {}

    def hash_of(path: Path) -> str | None:
        identity = FileIdentity.of(path)
        if not identity.is_settled:  # what was written just now may change unseen
            return None
        hashes[path] = identity, hashing.file_hash(path)
        return hashes[path][1]

    try:
        key = case_key(case, hash_of)
    except (UnknowableError, OSError):
        return Looked(measure(case), hashes=hashes)
    return Looked(_kept_look(case, key) or measure(case), key, hashes)


def keep_look(case: Case, looked: Looked) -> None:
    """Keep what a look found; nothing of a case that cannot be used, or whose findings name a place."""
    for path, known in looked.hashes.items():
        hashing.take_hash(path, *known)
    measured, problems = looked.outcome
    text = "\n".join(f"{one.what}\n{one.why}\n{one.remedy}" for one in problems)
    is_own = all(one.cases in ((), (case.id,)) for one in problems)
    if looked.key and measured is not None and is_own and not any(str(path.parent) in text for path in looked.hashes):
        nameless = [replace(one, cases=("",) if one.cases else ()) for one in problems]
        with suppress(UnknowableError):  # a kind of reference of another package
            kept.keep_text(looked.key, json.dumps(_plain((replace(measured[0], id=""), measured[1], nameless), [])))


def _kept_look(case: Case, key: str) -> Measured | None:
    """What was found in a case with this key, in its name; None where nothing is kept, or it is damaged."""
    match _kept(key):
        case (CaseFacts() as facts, ImageLook() as look, list() as problems):
            named = [replace(one, cases=(case.id,) if one.cases else ()) for one in problems]
            return (replace(facts, id=case.id), look), named
        case _:
            return None


def kept_figure(keys: Sequence[str], made_from: Any, draw: Callable[[], Figure]) -> Figure:
    """The figure of cases with these keys; drawn where it is not kept.

    keys:      empty ones are of cases that cannot be known again
    made_from: all else that decides what it shows
    """
    if not (all(keys) and kept.current_caching().is_used):
        return draw()
    key = _hash([_code(), *keys, _plain(made_from, [])])
    if not isinstance(figure := _kept(key), Figure):
        figure = draw()
        kept.keep_text(key, json.dumps(_plain(figure, [])))
    return figure


def fitting_threads(threads: int, cases: Sequence[Case], memory: float) -> int:
    """The number of cases that are looked at side by side: as asked for, or so many that the largest fit into memory.

    memory: bytes
    """
    largest = sorted(cases, key=lambda case: sum(path.stat().st_size for path in case.files if path.is_file()))
    needs = sorted(map(look_bytes, largest[-2 * threads :]), reverse=True) if threads > 1 else []
    return next((count for count in range(threads, 1, -1) if sum(needs[:count]) <= memory), 1)


def look_bytes(case: Case) -> float:
    """Bytes of memory that a look at a case takes, by the headers of its images."""
    try:
        return sum(image_bytes(case.images[name], len(case.references)) for name in case.images)
    except (HilumError, OSError):  # whoever looks at the case says so
        return 0.0


def image_bytes(image: Image, maps: int) -> float:
    """Bytes of memory that a look at an image takes, with so many label maps on its grid."""
    stored = math.prod(image.shape) * image.dtype.itemsize
    return float(stored + maps * math.prod(image.geometry.shape) + min(BESIDE, 8 * stored))


def case_key(case: Case, hash_of: Callable[[Path], str | None]) -> str:
    """What a case is made of: the contents of its files, how each is read, and this version of the program.

    hash_of: None of a file whose contents are not known
    Raises UnknowableError for a case of no file, and one of which that cannot be said.
    """
    if not (case.files and kept.current_caching().is_used):
        raise UnknowableError(case.id)
    paths = list(case.files)
    loaders = _plain([case.images, case.references, case.known], paths)
    files = [path for path in dict.fromkeys(paths) if path.is_file()]
    files += [one for path in files for one in _companion_files(path) if one not in files]
    contents = [(path.name, hash_of(path)) for path in files]
    if any(known is None for _, known in contents):
        raise UnknowableError(case.id)
    return _hash([_code(), case.id, case.key, loaders, contents])


def _hash(made_from: Any) -> str:
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _companion_files(path: Path) -> Iterator[Path]:
    """Files that belong to another one by their names, such as a table of labels, or the voxels of a header.

    Raises UnknowableError for a header that may name any file.
    """
    suffix, folder = file_formats.suffix_of(path), path.parent
    if any(suffix in FORMATS[one].suffixes for one in NAMING) and path.stat().st_size < HEADER_BYTES:
        raise UnknowableError(path.name)
    if suffix and suffix not in FORMATS["dicom"].suffixes:
        names = _listing(folder, folder.stat().st_mtime_ns).get(path.name[: -len(suffix)], ())
        yield from (folder / name for name in names)


@lru_cache(maxsize=64)
def _listing(folder: Path, modified_ns: int) -> Mapping[str, list[str]]:
    """{what stands before a dot of a name: the names of files}; modified_ns: of the folder, for which this holds."""
    names: dict[str, list[str]] = {}
    for file in sorted(one for one in folder.iterdir() if one.is_file()):
        for dot in re.finditer(r"\.", file.name):
            names.setdefault(file.name[: dot.start()], []).append(file.name)
    return names


@lru_cache(maxsize=1)
def _code() -> str:
    """This version of the program, as it lies on disk, and of what it reads with."""
    files = [(str(file), file.stat()) for file in sorted(Path(__file__).parents[1].rglob("*.py"))]
    own = [(name, status.st_size, status.st_mtime_ns) for name, status in files]
    points = [point for group in GROUPS for point in plugins.entry_points_of(group).values()]
    others = [(one.value, one.dist.version if one.dist else "") for one in points]
    return _hash([own, others, hardware.package_versions(PACKAGES)])


def _plain(value: Any, paths: list[Path]) -> Any:
    """A value as JSON holds it, from which alone the same comes out again; paths that it names are added to the list.

    Raises UnknowableError for what another command could not compare.
    """

    def each(values: Iterable[Any]) -> list[Any]:
        return [_plain(one, paths) for one in values]

    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic() | Enum() | date() | re.Pattern():
            return value.item() if isinstance(value, np.generic) else {"word": str(value)}
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case Path():
            paths.append(value)
            return {"path": value.name}
        case np.ndarray() if not value.dtype.hasobject:
            content = base64.b64encode(value.tobytes()).decode()
            return {"array": [value.dtype.str, list(value.shape), content]}
        case list():
            return each(value)
        case tuple():
            return {"tuple": each(value)}
        case set() | frozenset():
            return {"set": sorted(each(value), key=json.dumps)}
        case LazyMapping() | Mapping():
            loaders = value.loaders if isinstance(value, LazyMapping) else value
            return {"map": [each(pair) for pair in loaders.items()]}
        case partial():
            return {"call": each((value.func, value.args, value.keywords))}
        case FunctionType() | type() if "<" not in value.__qualname__:
            return {"function": f"{value.__module__}.{value.__qualname__}"}
        case MethodType() | BuiltinMethodType():
            return {"method": [_plain(value.__self__, paths), value.__name__]}
    if not is_dataclass(value):
        raise UnknowableError(type(value).__name__)
    known = {one.name: _plain(getattr(value, one.name), paths) for one in fields(value) if one.compare}
    return {type(value).__name__: known}


def _kept(key: str) -> Any:
    """The value that was kept under a key; None where there is none, or it is damaged."""
    try:
        return _value(json.loads(kept.kept_text(key) or "null"))
    except (ValueError, TypeError, KeyError, HilumError):
        return None


def _value(plain: Any) -> Any:
    """The value of which `_plain` made this."""
    if isinstance(plain, list):
        return [_value(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    [(kind, content)] = plain.items()
    match kind:
        case "bytes":
            return base64.b64decode(content)
        case "array":
            dtype, shape, text = content
            return np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape).copy()
        case "tuple":
            return tuple(_value(content))
        case "map":
            return dict(_value(content))
        case _:
            return KEPT[kind](**{name: _value(one) for name, one in content.items()})
