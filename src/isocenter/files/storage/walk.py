"""The files below a folder, with those of folders that lie elsewhere and are linked to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from isocenter.errors import DatasetError

# Folders that file systems keep for themselves, at the top of a disk.
OF_SYSTEMS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})


def files_below(root: Path) -> Iterator[Path]:
    """Every file that is not hidden, folder by folder in the order of their names; each real folder once.

    A link to a folder inside of `root` or around it is passed over: its files come under their own names, or never end.
    Raises DatasetError for a folder that cannot be listed: cases would be missing without a word.
    """
    home = root.resolve()
    seen: set[Path] = set()
    for place, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        folders[:] = sorted(name for name in folders if _is_meant(name) and _is_new(Path(place, name), home, seen))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _is_new(folder: Path, home: Path, seen: set[Path]) -> bool:
    """Whether a folder is to be entered; notes it as seen."""
    real = folder.resolve()
    if folder.is_symlink() and (real.is_relative_to(home) or home.is_relative_to(real)):
        return False
    if real in seen:
        return False
    seen.add(real)
    return True


def _is_meant(name: str) -> bool:
    return not name.startswith(".") and name not in OF_SYSTEMS


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a folder that somebody deletes meanwhile is no longer there
        raise DatasetError(
            f"the folder cannot be listed ({error.strerror})",
            str(error.filename),
            "Give yourself the right to read it, or choose a folder without it",
        ) from error
