"""Objects that were set aside, and their exchange with the one that came first."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from isocenter.files import load_json
from isocenter.service.objects.store import ASIDE


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


def read_asides(folder: Path) -> list[Aside]:
    """What lies aside, by number; a folder that is just being made is left out."""
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
