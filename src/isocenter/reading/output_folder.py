"""The files and folders of a verb: refused before the work begins, whole or not there when it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isocenter.errors import UsageError
from isocenter.files import locked, named_as, written


def refuse_missing(path: Path) -> None:
    """UsageError where there is nothing to work on."""
    if not path.exists():
        raise UsageError("there is no such file or folder", str(path), "Check the path")


def refuse_taken(out: Path, overwrite: bool, marks: tuple[str, ...] = ()) -> None:
    """UsageError where `out` cannot become what the verb writes.

    marks: files that an older folder of ours holds; another folder is never replaced, whatever was asked for
    """
    if out.exists() and not overwrite:
        raise UsageError("exists already", str(out), "Choose another --out, or give --overwrite")
    if out.exists() and out.is_dir() != bool(marks):
        kind = "folder" if out.is_dir() else "file"
        raise UsageError(f"is a {kind}, so it is not overwritten", str(out), "Choose another --out")
    if out.is_dir() and any(out.iterdir()) and not all((out / mark).is_file() for mark in marks):
        raise UsageError(f"holds no {marks[0]}, so it is not overwritten", str(out), "Choose another --out")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"cannot be written: {above} is not a folder to write into", str(out), "Choose another --out")


@contextmanager
def result_folder(out: Path, overwrite: bool, marks: tuple[str, ...]) -> Iterator[Path]:
    """An empty folder to write into, which becomes `out` when all went well; no other process writes it meanwhile."""
    refuse_taken(out, overwrite, marks)
    with locked(out), written(out, overwrite=overwrite) as partial:
        partial.mkdir()
        with named_as(out, partial):
            yield partial
