"""Atomic writing, which leaves a whole file or none."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hilum.errors import HilumError, ResourceError, UsageError

# A temporary folder of this age belongs to a writer that was killed: nothing here takes a day to write.
ABANDONED_S = 24 * 3600
# What NumPy says, without a number of the system, where a disk takes fewer bytes than it was given.
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written|problem writing element")


@contextmanager
def write_whole(path: Path, *, overwrite: bool = False, keep: bool = False) -> Iterator[Path]:
    """A path in the folder of `path` to write to (a file or a folder); renamed to `path` when all went well.

    keep: what another process has written at `path` in the meantime stays, because others read it already
    The temporary name keeps the suffix, because writers choose by it. What is left after a failure is removed, and what
    was there before stays.
    Raises UsageError where `path` exists already and `overwrite` is not set or where it cannot be written,
    ResourceError where the disk is full.
    """
    if path.exists() and not overwrite and not keep:
        raise UsageError("exists already", str(path), "Choose another name or give --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise unwritable_error(error, path) from error
    older: Path | None = None
    try:
        yield room / path.name
        if path.is_dir() and not (room / path.name).is_dir():
            raise UsageError("is a folder, and a file was to be written", str(path), "Choose another name")
        if path.exists() and not overwrite and not keep:
            problem = "was written by another process in the meantime"
            raise UsageError(problem, str(path), "Choose another name or give --overwrite")
        if path.is_dir() and not keep:  # only with overwrite: a folder cannot be replaced in one step
            older = room / "replaced"
            path.rename(older)
        try:
            (room / path.name).replace(path)
        except OSError:  # how the system refuses to replace a folder that holds something
            if not (keep and path.is_dir()):
                raise
    except OSError as error:
        raise unwritable_error(error, path) from error
    finally:
        if older is not None and older.exists() and not path.exists():  # stopped, or failed, between the two steps
            older.rename(path)
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def name_errors_after(out: Path, partial: Path) -> Iterator[None]:
    """An error within names what was to be written: a person knows nothing of the place where it was being made."""
    try:
        yield
    except HilumError as error:
        raise error.stating(where=error.where.replace(str(partial), str(out))) from error


def sweep_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in `folder` more than a day ago."""
    for room in folder.glob(".*.partial"):
        with suppress(FileNotFoundError):  # its writer lives and was just done
            if time.time() - room.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(room, ignore_errors=True)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write text as UTF-8, whole or not at all; bytes of names that are no UTF-8 are spelled out."""
    with write_whole(path, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def unwritable_error(error: OSError, path: Path) -> UsageError | ResourceError:
    """The error for a path that the system refuses to write."""
    if error.errno is None and SHORT_WRITE.search(str(error)):
        return unwritable_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path)
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(f"cannot be written: {reason}", str(path), "Free some space or choose another disk")
    return UsageError(f"cannot be written: {reason}", str(path), "Choose a folder that can be written to")
