"""Folders of ours on disk, also in the cache or in one archive: JSON and safetensors, with SHA-256 of each file.

Nothing in them can run code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast, overload

from safetensors import SafetensorError
from typing_extensions import TypedDict

from hilum import work_state
from hilum.errors import HilumError, IntegrityError, UsageError
from hilum.files.storage import atomic, cache, packed_files, structured_text
from hilum.lazy import safetensors_torch
from hilum.values import plain_values
from hilum.values.record_schema import R, RecordSchema
from hilum.work_state import log

if TYPE_CHECKING:
    from torch import Tensor


class ManifestRecord(TypedDict):
    """SHA-256 of each file of a folder, by its path in it."""

    sha256: dict[str, str]


MANIFEST, MANIFEST_SCHEMA = "manifest.json", RecordSchema("hilum.manifest", ManifestRecord)
# Files of Python, macOS and Windows that nobody added on purpose.
LEFT = re.compile(r"__pycache__|(^|/)(\.DS_Store|\._[^/]*|Thumbs\.db|desktop\.ini)$")
VERSION = 1


@overload
def write_json(path: Path, schema: RecordSchema[R], record: R, *, indent: int | None = 1) -> None: ...
@overload
def write_json(path: Path, schema: str, record: Mapping[str, Any], *, indent: int | None = 1) -> None: ...
def write_json(path: Path, schema: str, record: object, *, indent: int | None = 1) -> None:
    """A record with its schema and version; not a number becomes null. indent: None for one line."""
    text = json.dumps({"schema": schema, "version": VERSION, **plain_values.as_json(record)}, indent=indent)
    path.write_text(text + "\n", encoding="utf-8")


@overload
def read_json(path: Path, schema: RecordSchema[R]) -> R: ...
@overload
def read_json(path: Path, schema: str) -> Any: ...
def read_json(path: Path, schema: str) -> object:
    """The record of this schema; IntegrityError for a damaged one, another one or one of another version."""
    try:
        record = structured_text.load_json(path)
        is_ours = record["schema"] == schema and isinstance(record["version"], int)
    except FileNotFoundError as error:
        raise IntegrityError("is missing", str(path), "Get the folder again, whole") from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"is not a record of the kind {schema} ({error})", str(path), "Get the folder again"
        ) from error
    if not is_ours:
        raise IntegrityError(
            f"is not a record of the kind {schema}", str(path), "Give the folder that was written for it"
        )
    if record["version"] != VERSION:
        problem = f"was written by another version (record {record['version']}, known {VERSION})"
        raise IntegrityError(problem, str(path), "Use the version of hilum that wrote it")
    return cast(object, record)


def seal_folder(folder: Path, *, apart: Collection[str] = ()) -> None:
    """Write the manifest: the SHA-256 of every file of the folder. It detects change, it does not prove origin.

    apart: names of files that may change later
    """
    left = {MANIFEST, *apart}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in left)
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    write_json(folder / MANIFEST, MANIFEST_SCHEMA, ManifestRecord(sha256=digests))


def amend_record(folder: Path, name: str, schema: RecordSchema[R], record: R) -> None:
    """Write a record into a sealed folder, and its SHA-256 into the manifest: both, or neither where one cannot be.

    Files that were changed or added are not vouched for: they stay what they were.
    """
    listed = read_json(folder / MANIFEST, MANIFEST_SCHEMA)["sha256"]
    with (
        work_state.finish_despite_interrupt(),
        atomic.write_whole(folder / name, overwrite=True) as file,
        atomic.write_whole(folder / MANIFEST, overwrite=True) as manifest,
    ):
        write_json(file, schema, record)
        digests = dict(sorted({**listed, name: file_digest(file)}.items()))
        write_json(manifest, MANIFEST_SCHEMA, ManifestRecord(sha256=digests))


def verify_seal(folder: Path, needed: Collection[str] = ()) -> None:
    """IntegrityError where a file of a sealed folder is missing or is not what was written.

    needed: files that the manifest must list, because they are going to be read
    """
    listed = read_json(folder / MANIFEST, MANIFEST_SCHEMA).get("sha256")
    if not isinstance(listed, dict) or not set(needed) <= set(listed):
        raise IntegrityError(
            f"does not list {', '.join(needed) or 'any file'}", str(folder / MANIFEST), "Get the folder again, whole"
        )
    for name, expected in listed.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise IntegrityError(f"lists {name}, outside its folder", str(folder / MANIFEST), "Do not use this model")
        if not path.is_file():
            raise IntegrityError("is missing", str(path), "Get the folder again, whole")
        if file_digest(path) != expected:
            raise IntegrityError(
                "is not the file that was written (its SHA-256 differs)",
                str(path),
                "Get the model again from its maker",
            )


def added_files(folder: Path) -> list[str]:
    """Names of files in a sealed folder that its manifest does not list; not those that systems leave in any folder."""
    listed = set(read_json(folder / MANIFEST, MANIFEST_SCHEMA)["sha256"])
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    names = (path.relative_to(folder) for path in files)
    return sorted(name.as_posix() for name in names if name.as_posix() not in listed and not LEFT.search(str(name)))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises OSError where the system refuses to write."""
    path.touch()
    mode = path.stat().st_mode & 0o777  # of every file that is written here; the library's own is for its owner alone
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        safetensors_torch.save_file(plain, path)
        path.chmod(mode)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))  # it gives the system's reason in words only
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """IntegrityError for anything but safetensors; a pickle is never opened."""
    try:
        return safetensors_torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(
            f"holds no safetensors ({error})", str(path), "Weights are read from safetensors only: get the model again"
        ) from error


def join_digests(digests: Sequence[str]) -> str:
    """One digest of several."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def digest_of_files(paths: Sequence[Path]) -> str:
    """The SHA-256 of a file, or one digest of several."""
    digests = [file_digest(path) for path in paths]
    return digests[0] if len(digests) == 1 else join_digests(digests)


def sealed_entry(entry: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `place` of the cache, whole: as it lies there, or else filled by `fill`.

    fill: writes the entry's files into the empty folder that it is given
    A damaged entry is deleted and made again, which one line of the log says. Where another process makes the same
    entry, the one that was finished first stays.
    Raises UsageError where the cache cannot be written, ResourceError where its disk is full, and what `fill` raises.
    """
    if entry.exists() and not _is_whole(entry):
        _remove(entry)
    if not entry.exists():
        with cache.write_cache_entry(entry) as partial:
            partial.mkdir()
            fill(partial)
            seal_folder(partial)
    return entry


def _is_whole(entry: Path) -> bool:
    try:
        verify_seal(entry)
    except IntegrityError as error:
        log.warning("%s: %s. This entry of the cache is deleted and made again", error.where, error.problem)
        return False
    return True


def _remove(entry: Path) -> None:
    """Delete an entry in one step for whoever looks at the same time; a writer's leftovers are swept by their name."""
    aside = entry.with_name(f".{entry.name}.damaged.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        entry.rename(aside)
    except FileNotFoundError:  # another process has met the same damage
        return
    shutil.rmtree(aside, ignore_errors=True)


def write_zip(folder: Path, path: Path) -> None:
    """The folder and all in it, under its own name, as MONAI's specification has it."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            # Without the time of writing, the same package is the same file.
            entry = zipfile.ZipInfo((folder.name / file.relative_to(folder)).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)


@contextmanager
def unpack(path: Path) -> Iterator[Path]:
    """The folder of a run or a package; a zip is unpacked for as long as it is needed.

    Raises UsageError where there is nothing or another file, IntegrityError for a zip that is not to be unpacked.
    """
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise UsageError("there is no such model", str(path), "Give a run's folder or a package")
    if not zipfile.is_zipfile(path):
        raise UsageError("is not a model", str(path), "Give a run's folder, a package's folder or its .zip")
    with tempfile.TemporaryDirectory(prefix="hilum-") as room:
        folder = _extract(path, Path(room))
        try:
            yield folder
        except HilumError as error:  # a person knows the zip, and not where it was unpacked
            raise error.stating(where=error.where.replace(str(folder), str(path))) from error


def _extract(path: Path, room: Path) -> Path:
    """The package's folder in the room."""
    try:
        packed_files.refuse_growth(path)
        with packed_files.open_zip(path) as archive:
            _refuse_harm(archive.infolist(), path)
            archive.extractall(room)
    except ValueError as error:
        raise IntegrityError(f"is not a complete package ({error})", str(path), "Do not use this package") from error
    tops = [room, *sorted(one for one in room.iterdir() if one.is_dir())]
    folders = [top for top in tops if (top / MANIFEST).is_file()]
    if len(folders) != 1:
        raise UsageError("holds no package", str(path), "Give what `hilum package` wrote")
    return folders[0]


def _refuse_harm(entries: list[zipfile.ZipInfo], path: Path) -> None:
    """IntegrityError for names that lead out of the folder, and links."""
    remedy = "Do not use this package"
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in entry.filename:
            raise IntegrityError(f"holds {entry.filename}, outside its folder", str(path), remedy)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise IntegrityError(f"holds {entry.filename}, which is not a regular file", str(path), remedy)
