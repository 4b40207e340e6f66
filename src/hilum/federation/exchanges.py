"""Messages between server and sites, how they are carried, and the files that say what was exchanged.

A carrier carries: what is learnt is decided by the server and the sites.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from hilum import errors
from hilum.errors import HilumError, IntegrityError
from hilum.files.storage import atomic, csv_text, structured_text
from hilum.files.storage.csv_text import CsvWriter
from hilum.values import plain_values

Arrays = Mapping[str, np.ndarray]
# What a message states beside arrays, by the stage of the federation that it is of.
Facts = Mapping[str, Any]
# In the header of a safetensors file: what is no array. Its length stands in the first bytes.
METADATA = "__metadata__"
MESSAGE = "message"
LENGTH = 8
# A header beyond this is none of ours.
LONGEST_HEADER = 1 << 27


@dataclass(frozen=True, eq=False)
class SiteMessage:
    """One message; kind: which stage of the federation it is of."""

    kind: str
    facts: Facts = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)

    @property
    def encoded(self) -> bytes:
        """The bytes that travel: nothing in them can run code."""
        text = json.dumps({"kind": self.kind, "facts": plain_values.as_json(self.facts)}, allow_nan=False)
        whole = {name: np.ascontiguousarray(one) for name, one in self.arrays.items()}
        return bytes(safetensors_numpy.save(whole, metadata={MESSAGE: text}))


def decode_message(encoded: bytes, where: str) -> SiteMessage:
    """The message in these bytes, of which nothing is believed; IntegrityError where there is none."""
    try:
        length = int.from_bytes(encoded[:LENGTH], "little")
        if not 0 < length <= min(LONGEST_HEADER, len(encoded) - LENGTH):
            raise ValueError("its header is cut short")
        header = structured_text.parse_json(encoded[LENGTH : LENGTH + length].decode())
        content = structured_text.parse_json(header[METADATA][MESSAGE])
        arrays = safetensors_numpy.load(encoded)
        kind = content["kind"]
        facts = content["facts"]
        if not isinstance(kind, str) or not isinstance(facts, dict):
            raise ValueError("it names no stage")
        return SiteMessage(kind, facts, arrays)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        problem = f"sent what is no message of a federation ({error})"
        raise IntegrityError(problem, where, "Ask who sends there") from error


# In a job's folder.
FEDERATION = "federation"
EXCHANGES = "exchanges.jsonl"
TRAFFIC = "traffic.csv"
ROUNDS = "rounds.csv"
TRAFFIC_COLUMNS = ("round", "site", "direction", "kind", "bytes", "seconds")
ROUND_COLUMNS = ("round", "site", "steps", "seconds", "loss", "weight", "norm", "state")
SERVER = "server"
ERROR = "error"
WORDS = ("problem", "where", "remedy")
# The name of a site is also that of a folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TO_SITE = "to site"
TO_SERVER = "to server"


@dataclass(eq=False)
class ExchangeRecords:
    """The files below `federation/` of a job, to which rows are added as things happen.

    out: that folder; None until there is one, when rows wait
    """

    out: Path | None = None
    head: str = ""
    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def open(self, out: Path) -> None:
        """Write from now on into this folder, first what has waited; an older chain goes on."""
        out.mkdir(parents=True, exist_ok=True)
        if (path := out / EXCHANGES).is_file():
            whole, newline, torn = path.read_text(encoding="utf-8").rpartition("\n")
            if torn:  # a kill cut it short
                atomic.write_text(path, whole + newline, overwrite=True)
            self.head = verify_exchanges(path)
        self.out = out
        for write in self._waiting:
            write()
        self._waiting.clear()

    def note_message(self, number: int, site: str, direction: str, kind: str, encoded: bytes, seconds: float) -> None:
        """A message that has travelled, or of a simulation would have."""
        self._add(TRAFFIC, TRAFFIC_COLUMNS, (number, site, direction, kind, len(encoded), round(seconds, 3)))
        ends = (SERVER, site) if direction == TO_SITE else (site, SERVER)
        what: dict[str, str | int] = {
            "round": number,
            "from": ends[0],
            "to": ends[1],
            "kind": kind,
            "bytes": len(encoded),
        }
        now = datetime.now(UTC).isoformat(timespec="seconds")
        digest = hashlib.sha256(encoded).hexdigest()
        self._chain({"when": now, **what, "sha256": digest})

    def note_round(self, row: Sequence[Any]) -> None:
        """What a site did in a round."""
        self._add(ROUNDS, ROUND_COLUMNS, row)

    def drop_rounds(self, done: int) -> None:
        """Drop the rows of rounds after the last whole one, which are made once more."""
        if self.out is None or not (path := self.out / ROUNDS).is_file():
            return
        rows = csv_text.read_text_table(path)
        with atomic.write_whole(path, overwrite=True) as partial:
            csv_text.write_table(rows[rows["round"].astype(int) <= done], partial)

    def _add(self, name: str, columns: Sequence[str], row: Sequence[Any]) -> None:
        if self.out is None:
            self._waiting.append(lambda: self._add(name, columns, row))
            return
        is_new = not (self.out / name).is_file()
        with (self.out / name).open("a", encoding="utf-8") as file:
            CsvWriter(file, columns if is_new else None).add(row)

    def _chain(self, line: dict[str, str | int]) -> None:
        if self.out is None:
            self._waiting.append(lambda: self._chain(line))
            return
        text = json.dumps({**line, "before": self.head})
        with (self.out / EXCHANGES).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        self.head = hashlib.sha256(text.encode()).hexdigest()


def verify_exchanges(path: Path) -> str:
    """The hash of the last line of a whole chain; IntegrityError names the first line that does not follow."""
    head = ""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            is_next = structured_text.parse_json(text)["before"] == head
        except (ValueError, KeyError, TypeError):
            is_next = False
        if not is_next:
            raise IntegrityError(f"line {number} does not follow the one before", str(path), "Restore the file")
        head = hashlib.sha256(text.encode()).hexdigest()
    return head


@dataclass(frozen=True, eq=False)
class Answer:
    """What a site did with a message: its own, or why there is none, after so many s."""

    message: SiteMessage | None
    error: HilumError | None = None
    seconds: float = 0.0

    @property
    def facts(self) -> Facts:
        """Those of its message; none without one."""
        return {} if self.message is None else self.message.facts


def error_message(error: HilumError) -> SiteMessage:
    """The answer of a site that has none, because of an error."""
    return SiteMessage(ERROR, {"class": type(error).__name__, **{name: getattr(error, name) for name in WORDS}})


def read_error(facts: Facts) -> HilumError:
    """The error that was sent: a class of ours, whatever it names."""
    kind: type[HilumError] = IntegrityError
    named = getattr(errors, str(facts.get("class")), None)
    if isinstance(named, type) and issubclass(named, HilumError):
        kind = named
    return kind(*(str(facts.get(name)) for name in WORDS))


def read_answer(encoded: bytes, site: str, seconds: float) -> Answer:
    """The answer of a site in these bytes."""
    try:
        message = decode_message(encoded, site)
    except HilumError as error:
        return Answer(None, error, seconds)
    return Answer(None, read_error(message.facts), seconds) if message.kind == ERROR else Answer(message, None, seconds)


class Carrier(Protocol):
    """What carries messages to sites and back."""

    @property
    def sites(self) -> Sequence[str]:
        """The names of the sites, sorted."""

    @property
    def takes_turns(self) -> bool:
        """Whether sites compute one after the other."""

    def ask(self, message: SiteMessage, number: int, records: ExchangeRecords) -> Iterator[tuple[str, Answer]]:
        """What each site does with a message, in any order; number: of the round."""


@dataclass(frozen=True, eq=False)
class LocalCarrier:
    """Sites of one process, which take turns. Messages become bytes and messages again: what arrives would travel.

    parties: {site: its answer to a message, or the HilumError why there is none}
    """

    parties: Mapping[str, Callable[[SiteMessage], SiteMessage]]
    takes_turns: bool = True

    @property
    def sites(self) -> Sequence[str]:
        """The names of the sites, sorted."""
        return sorted(self.parties)

    def ask(self, message: SiteMessage, number: int, records: ExchangeRecords) -> Iterator[tuple[str, Answer]]:
        """What each site does with a message, one after the other by name; number: of the round."""
        return ((site, self._ask_one(site, message, number, records)) for site in self.sites)

    def _ask_one(self, site: str, message: SiteMessage, number: int, records: ExchangeRecords) -> Answer:
        began = time.monotonic()
        try:
            sent = message.encoded
            records.note_message(number, site, TO_SITE, message.kind, sent, time.monotonic() - began)
            returned = self.parties[site](decode_message(sent, "server"))
            done = time.monotonic()
            encoded = returned.encoded
            records.note_message(number, site, TO_SERVER, message.kind, encoded, time.monotonic() - done)
            return Answer(decode_message(encoded, site), seconds=done - began)
        except HilumError as error:
            return Answer(None, error, time.monotonic() - began)
