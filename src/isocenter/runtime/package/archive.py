"""Packages as one file: written whole, and unpacked where nothing in it can do harm."""

from __future__ import annotations

import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from isocenter.errors import IntegrityError, IsocenterError, UsageError
from isocenter.files import opened_zip, refuse_growth
from isocenter.runtime.record_files import MANIFEST


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
def unpacked(path: Path) -> Iterator[Path]:
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
    with tempfile.TemporaryDirectory(prefix="isocenter-") as room:
        folder = _extracted(path, Path(room))
        try:
            yield folder
        except IsocenterError as error:  # a person knows the zip, and not where it was unpacked
            raise error.stating(where=error.where.replace(str(folder), str(path))) from error


def _extracted(path: Path, room: Path) -> Path:
    """The package's folder in the room."""
    try:
        refuse_growth(path)
        with opened_zip(path) as archive:
            _refuse_harm(archive.infolist(), path)
            archive.extractall(room)
    except ValueError as error:
        raise IntegrityError(f"is not a complete package ({error})", str(path), "Do not use this package") from error
    tops = [room, *sorted(one for one in room.iterdir() if one.is_dir())]
    folders = [top for top in tops if (top / MANIFEST).is_file()]
    if len(folders) != 1:
        raise UsageError("holds no package", str(path), "Give what `isocenter package` wrote")
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
