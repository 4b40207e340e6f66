"""The files below a folder, with those of folders that lie elsewhere and are linked to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(root: Path) -> Iterator[Path]:
    """Every file that is not hidden, folder by folder in the order of their names; each real folder once.

    A link to a folder inside of `root` or around it is passed over: its files come under their own names, or never end.
    """
    home = root.resolve()
    seen: set[Path] = set()
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and _is_new(Path(place, name), home, seen)
        )
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
