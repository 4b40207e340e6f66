"""The folder for what can be made again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from isocenter.errors import UsageError
from isocenter.files.storage.atomic import written

VARIABLE = "ISOCENTER_CACHE"


def cache_folder() -> Path:
    """The folder named by ISOCENTER_CACHE, else the user's cache folder."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_dir("isocenter", appauthor=False))


@contextmanager
def cached(path: Path) -> Iterator[Path]:
    """A path to write an entry of the cache to, as `written` gives it.

    An entry that another process has finished in the meantime stays: others may be reading it.
    Raises UsageError, which names the variable that chooses another folder, where the cache cannot be written, and
    ResourceError where its disk is full.
    """
    try:
        with written(path, keep=True) as partial:
            yield partial
    except UsageError as error:
        remedy = f"The cache holds what can be made again: set {VARIABLE} to a folder that can be written to"
        raise UsageError(error.problem, error.where, remedy) from error
