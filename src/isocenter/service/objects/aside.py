"""Objects that were set aside, and their exchange with the one that came first."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isocenter.files import load_json

ASIDE, LOCK = "aside", "lock"


@dataclass(frozen=True)
class Aside:
    """An object in `aside/<number>/`.

    first: path of the object with the same UID that is kept, from the node's folder; None where there is none
    at:    s since 1970
    """

    number: int
    reason: str
    first: str | None
    at: float | None
    path: Path


def set_aside(folder: Path, path: Path, name: str, reason: Mapping[str, object]) -> Path:
    """Link a file into a new folder `aside/<n>/`, with the reason beside it; the new path.

    The reason names no patient.
    """
    (folder / ASIDE).mkdir(exist_ok=True)
    taken = [int(entry.name) for entry in os.scandir(folder / ASIDE) if entry.name.isdecimal()]
    for number in itertools.count(max(taken, default=0) + 1):
        place = folder / ASIDE / str(number)
        try:
            place.mkdir()
        except FileExistsError:  # another process was first
            continue
        break
    os.link(path, place / name)
    record = {"schema": "isocenter.aside", "version": 1, "at": time.time(), **reason}
    (place / "reason.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return place / name


@contextmanager
def setting_aside(folder: Path) -> Iterator[None]:
    """No other process of the node sets anything aside meanwhile."""
    (folder / ASIDE).mkdir(exist_ok=True)
    with (folder / ASIDE / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_asides(folder: Path) -> list[Aside]:
    """Objects that lie aside, by number; a folder that is just being made is left out."""
    asides = []
    for place in (folder / ASIDE).glob("[0-9]*"):
        objects = sorted(place.glob("*.dcm"))
        try:
            stated = load_json(place / "reason.json")
        except (OSError, ValueError):
            continue
        if objects and place.name.isdecimal() and isinstance(stated, dict):
            reason, first, at = (stated.get(name) for name in ("reason", "first", "at"))
            asides.append(Aside(int(place.name), str(reason), first, at, objects[0]))
    return sorted(asides, key=lambda aside: aside.number)


def exchange(folder: Path, aside: Aside) -> None:
    """Give an object the place of the one that came first, which goes aside instead: none is lost on the way."""
    if aside.first is None:
        return
    kept = folder / aside.first
    waiting = aside.path.with_suffix(".kept")
    waiting.unlink(missing_ok=True)  # of an exchange that was broken off
    os.link(kept, waiting)
    aside.path.replace(kept)
    waiting.replace(aside.path)
