"""Entries of the cache whose files are compared with their checksums before anything reads them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from isocenter.errors import IntegrityError
from isocenter.files import cached
from isocenter.runtime.record_files import seal, verify

log = logging.getLogger("isocenter")


def sealed_entry(place: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `place` of the cache, whole: as it lies there, or else filled by `fill`.

    fill: writes the entry's files into the empty folder that it is given
    A damaged entry is deleted and made again, which one line of the log says. Where another process makes the same
    entry, the one that was finished first stays.
    Raises UsageError where the cache cannot be written, ResourceError where its disk is full, and what `fill` raises.
    """
    if place.exists() and not _is_whole(place):
        _remove(place)
    if not place.exists():
        with cached(place) as partial:
            partial.mkdir()
            fill(partial)
            seal(partial)
    return place


def _is_whole(place: Path) -> bool:
    try:
        verify(place)
    except IntegrityError as error:
        log.warning("%s: %s. This entry of the cache is deleted and made again", error.where, error.problem)
        return False
    return True


def _remove(place: Path) -> None:
    """Delete an entry in one step for whoever looks at the same time; a writer's leftovers are swept by their name."""
    aside = place.with_name(f".{place.name}.damaged.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        place.rename(aside)
    except FileNotFoundError:  # another process has met the same damage
        return
    shutil.rmtree(aside, ignore_errors=True)
