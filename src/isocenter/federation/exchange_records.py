"""The files in which a job says what was exchanged: one row a message, each row holding the hash of the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from isocenter.errors import IntegrityError
from isocenter.files.storage import atomic, csv_text
from isocenter.files.storage.csv_text import CsvWriter

# In a job's folder.
FEDERATION, EXCHANGES, TRAFFIC, ROUNDS = "federation", "exchanges.jsonl", "traffic.csv", "rounds.csv"
TRAFFIC_COLUMNS = ("round", "site", "direction", "kind", "bytes", "seconds")
ROUND_COLUMNS = ("round", "site", "steps", "seconds", "loss", "weight", "norm", "state")
SERVER = "server"
TO_SITE, TO_SERVER = "to site", "to server"


@dataclass(eq=False)
class ExchangeRecords:
    """The files below `federation/` of a job, to which rows are added as things happen.

    out: that folder; None until there is one, when rows wait
    """

    out: Path | None = None
    head: str = ""
    _waiting: list[tuple[str, Sequence[str], Sequence[Any]]] = field(default_factory=list)
    _lines: list[dict[str, Any]] = field(default_factory=list)

    def open(self, out: Path) -> None:
        """Write from now on into this folder, first what has waited; an older chain goes on."""
        out.mkdir(parents=True, exist_ok=True)
        if (path := out / EXCHANGES).is_file():
            whole, newline, torn = path.read_text(encoding="utf-8").rpartition("\n")
            if torn:  # a kill cut it short
                atomic.write_text(path, whole + newline, overwrite=True)
            self.head = verify_exchanges(path)
        self.out = out
        for line in self._lines:
            self._chain(line)
        for name, columns, row in self._waiting:
            self._add(name, columns, row)
        self._lines, self._waiting = [], []

    def note_message(self, number: int, site: str, direction: str, kind: str, encoded: bytes, seconds: float) -> None:
        """A message that has travelled, or of a simulation would have."""
        self._add(TRAFFIC, TRAFFIC_COLUMNS, (number, site, direction, kind, len(encoded), round(seconds, 3)))
        ends = (SERVER, site) if direction == TO_SITE else (site, SERVER)
        line = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "round": number,
            "from": ends[0],
            "to": ends[1],
            "kind": kind,
            "bytes": len(encoded),
            "sha256": hashlib.sha256(encoded).hexdigest(),
        }
        self._lines.append(line) if self.out is None else self._chain(line)

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
            self._waiting.append((name, columns, row))
            return
        is_new = not (self.out / name).is_file()
        with (self.out / name).open("a", encoding="utf-8") as file:
            CsvWriter(file, columns if is_new else None).add(row)

    def _chain(self, line: dict[str, Any]) -> None:
        assert self.out is not None  # noqa: S101 - asked once there is a folder
        text = json.dumps({**line, "before": self.head})
        with (self.out / EXCHANGES).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        self.head = hashlib.sha256(text.encode()).hexdigest()


def verify_exchanges(path: Path) -> str:
    """The hash of the last line of a whole chain; IntegrityError names the first line that does not follow."""
    head = ""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            is_next = json.loads(text)["before"] == head
        except (ValueError, KeyError, TypeError):
            is_next = False
        if not is_next:
            raise IntegrityError(f"line {number} does not follow the one before", str(path), "Restore the file")
        head = hashlib.sha256(text.encode()).hexdigest()
    return head
