"""The messages of a writer of the inbox to the keeper, one line of JSON each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, Self

from isocenter.files import parse_json

Way = Literal["store", "stow", "watch", "front", "found"]


@dataclass(frozen=True)
class Line:
    """A line of a journal; at: s since 1970."""

    @property
    def line(self) -> bytes:
        """The line, ended."""
        return json.dumps({"kind": type(self).__name__, **vars(self)}).encode() + b"\n"

    @classmethod
    def of(cls, values: dict[str, object]) -> Self:
        """Make an object from the names and values of a line; lists become tuples."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class Received(Line):
    """An object that is kept, or set aside.

    path:  of the file, from the node's folder
    bytes: of the file
    peer:  who sent it: an AE title, or a name of ours
    way:   by C-STORE, by STOW-RS, from a watched folder, from Orthanc in front, or found without a row
    """

    study: str
    series: str
    instance: str
    sop_class: str
    syntax: str
    path: str
    bytes: int
    peer: str
    at: float
    way: Way = "store"

    @property
    def is_aside(self) -> bool:
        """Whether another object with the same UID was there first."""
        return self.path.startswith("aside/")


@dataclass(frozen=True)
class CommitmentRequest(Line):
    """A peer asks whether objects are safe here: N-ACTION, PS3.4 J.3.2.

    classes, instances: their UIDs, in pairs
    reply:              where the association waits for the answer, from the inbox; empty where none does
    """

    transaction: str
    peer: str
    classes: tuple[str, ...]
    instances: tuple[str, ...]
    at: float
    reply: str = ""


@dataclass(frozen=True)
class CommitmentReport(Line):
    """A peer's answer about objects of ours: N-EVENT-REPORT, PS3.4 J.3.3; UIDs that are safe, and that are not."""

    transaction: str
    peer: str
    committed: tuple[str, ...]
    failed: tuple[str, ...]
    at: float


@dataclass(frozen=True)
class Happened(Line):
    """An event for the audit, from a process that may be at work while the records are away.

    id:      its own, by which it is one event however often the line is read
    account: the AE title of a peer
    thing:   what it was done to
    reason:  why it was refused, if so
    """

    id: str
    action: str
    thing: str
    account: str
    address: str
    at: float
    outcome: str = "success"
    reason: str = ""


KINDS = {kind.__name__: kind for kind in (Received, CommitmentRequest, CommitmentReport, Happened)}


def parse_line(line: bytes) -> Line | None:
    """The line's value; None where it is damaged, as by a power cut."""
    try:
        values = parse_json(line.decode())
        return KINDS[values.pop("kind")].of(values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
