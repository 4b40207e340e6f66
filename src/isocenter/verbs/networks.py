"""`networks`: the families of network that a plan may name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from isocenter import networks
from isocenter.errors import IsocenterError
from isocenter.files import cache_folder, written
from isocenter.lazy import pandas as pd
from isocenter.report import InNotebook

HEADINGS = ("name", "answers for", "axes", "image", "parameters", "multiply-adds", "paper")
ANSWERS = {"boxes": "boxes", "dense": "every voxel", "objects": "objects", "vector": "the image"}
NOTE = "Numbers are of the network that a plan builds for one channel of such an image on a processor."

log = logging.getLogger("isocenter")


def list_networks() -> tuple[str, ...]:
    """The names for `network.name` in a plan."""
    return networks.names()


@dataclass(frozen=True)
class NetworkTable(InNotebook):
    """Every family in two and in three axes: what it answers, how large it is, where it was published."""

    members: tuple[networks.Member, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One record a family and number of axes."""
        return [asdict(member) for member in self.members]

    @property
    def table(self) -> pd.DataFrame:
        """The same rows as a DataFrame."""
        return pd.DataFrame(self.rows)

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        return {"schema": "isocenter.networks", "version": 1, "rows": self.rows}

    def __str__(self) -> str:
        lines = [HEADINGS, *(_line(member) for member in self.members)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
        table = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*(line.rstrip() for line in table), NOTE])


def describe_networks() -> NetworkTable:
    """What each family is good for, found by building it without memory or arithmetic.

    Ours are built once for each state of their files and libraries and kept in the cache folder; those of other
    packages each time, because here it is not known which files they follow from.
    """
    ours = networks.ours()
    others = [name for name in networks.names() if name not in ours]
    members = [*_kept(ours), *(networks.members(others) if others else ())]
    return NetworkTable(tuple(sorted(members, key=lambda member: (member.name, member.axes))))


@dataclass(frozen=True)
class Kept:
    """The members of our families, and what they followed from."""

    made_with: str
    members: tuple[networks.Member, ...]


def _kept(families: Sequence[str]) -> tuple[networks.Member, ...]:
    """The members as they are kept, or else new ones, which are then kept."""
    path, now, file = cache_folder() / "networks.json", networks.made_with(families), TypeAdapter(Kept)
    try:
        kept = file.validate_json(path.read_bytes())
        if kept.made_with == now:
            return kept.members
    except (OSError, ValueError) as error:  # none yet, or one that somebody cut off
        log.debug("%s: %s", path, error)
    fresh = Kept(now, networks.members(families))
    try:
        with written(path, overwrite=True) as partial:
            partial.write_bytes(file.dump_json(fresh))
    except IsocenterError as error:  # the answer is the same, and next time it will take as long
        log.warning("%s", error)
    return fresh.members


def _line(member: networks.Member) -> tuple[str, ...]:
    return (
        member.name,
        ", ".join(ANSWERS[task] for task in member.tasks),
        str(member.axes),
        " x ".join(str(n) for n in member.reference),
        _short(member.parameters),
        _short(member.multiply_adds),
        member.paper,
    )


def _short(number: int) -> str:
    """ "2.3 M", "15.3 G"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
