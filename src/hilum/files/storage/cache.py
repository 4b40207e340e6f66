"""The folder for what can be made again, and the others that the system keeps for each user."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import platformdirs

from hilum.errors import UsageError
from hilum.files.storage import atomic
from hilum.work_state import log

VARIABLE = "HILUM_CACHE"
REMEDY = f"The cache holds what can be made again: set {VARIABLE} to a folder that can be written to"
APPLICATION = "hilum"


def cache_folder() -> Path:
    """The folder named by HILUM_CACHE, else the user's cache folder; without a home one in the temporary folder.

    Raises UsageError where that belongs to somebody else.
    """
    setting = os.environ.get(VARIABLE)
    return Path(setting) if setting else _user_cache() or _temporary(Path(tempfile.gettempdir()), os.getuid())


@lru_cache
def _temporary(root: Path, user: int) -> Path:
    """The folder of a user without a home, which nobody else can read; its note is given once."""
    folder = root / f"hilum-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise UsageError(atomic.unwritable_error(error, folder).problem, str(folder), REMEDY) from error
    # Anybody may put a folder of this name there first, and would then see the images, or change them.
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != user or state.st_mode & 0o077:
        raise UsageError("is not a folder of this user's own, which the cache has to be", str(folder), REMEDY)
    log.warning("this user has no home folder: the cache lies in %s (%s names another folder)", folder, VARIABLE)
    return folder


@contextmanager
def write_cache_entry(path: Path) -> Iterator[Path]:
    """A path to write an entry of the cache to, as `write_whole` gives it.

    An entry that another process has finished in the meantime stays: others may be reading it.
    Raises UsageError, which names the variable that chooses another folder, where the cache cannot be written, and
    ResourceError where its disk is full.
    """
    try:
        with atomic.write_whole(path, keep=True) as partial:
            yield partial
    except UsageError as error:
        raise UsageError(error.problem, error.where, REMEDY) from error


def user_folder(of: Callable[..., str]) -> Path | None:
    """The folder that a function of platformdirs names, which need not exist; None for a user without a home."""
    try:
        folder = of(APPLICATION, appauthor=False)
    except RuntimeError:  # neither HOME nor the list of users has a home
        return None
    return None if folder.startswith("~") else Path(folder)  # older versions leave the word as it is


def _user_cache() -> Path | None:
    """The user's cache folder."""
    return user_folder(platformdirs.user_cache_dir)


def user_configuration() -> Path | None:
    """The user's configuration folder."""
    return user_folder(platformdirs.user_config_dir)
