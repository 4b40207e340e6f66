"""What takes seconds to make, and which tests of any file only read, is made by one of the workers for all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that the first of the workers that asks for it has filled; the others wait and read the same."""
    root = _of_all_workers(folders) / name
    with FileLock(f"{root}.lock"):
        if not (root / "done").exists():
            root.mkdir()
            make(root)
            (root / "done").touch()
    return root


def _of_all_workers(folders: pytest.TempPathFactory) -> Path:
    """The folder of a session: pytest-xdist gives each worker one of its own in it."""
    own = folders.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
