"""The messages of receivers and keeper: each writer has a folder in `inbox/` with its part files and a journal.

A message is one line of JSON. A writer locks its folder for as long as it lives. The keeper reads what is new, and
removes what it has read and the folders of writers that are gone; to a peer whose association is still open it answers
by two files in the folder of its server.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from hilum.files.storage import structured_text

Way = Literal["store", "stow", "watch", "front", "found"]


@dataclass(frozen=True)
class JournalLine:
    """A line of a journal; at: s since 1970."""

    @property
    def line(self) -> bytes:
        """The line, ended."""
        return json.dumps({"kind": type(self).__name__, **vars(self)}).encode() + b"\n"

    @classmethod
    def from_values(cls, values: dict[str, object]) -> Self:
        """Make an object from the names and values of a line; lists become tuples."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class Received(JournalLine):
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
class CommitmentRequest(JournalLine):
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
class CommitmentReport(JournalLine):
    """A peer's answer about objects of ours: N-EVENT-REPORT, PS3.4 J.3.3; UIDs that are safe, and that are not."""

    transaction: str
    peer: str
    committed: tuple[str, ...]
    failed: tuple[str, ...]
    at: float


@dataclass(frozen=True)
class Happened(JournalLine):
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


def parse_line(line: bytes) -> JournalLine | None:
    """The line's value; None where it is damaged, as by a power cut."""
    try:
        values = structured_text.parse_json(line.decode())
        return KINDS[values.pop("kind")].from_values(values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


LOCK, JOURNAL = "lock", "journal-"
LARGEST = 4 << 20  # bytes of a journal before the next is begun, so that those that are read can go


class Journal:
    """The folder of one writer, and its lines."""

    def __init__(self, inbox: Path, name: str) -> None:
        while True:
            self.folder = inbox / f"{name}-{uuid.uuid4().hex[:12]}"
            self.folder.mkdir(parents=True)
            self._lock = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if os.fstat(self._lock).st_nlink:  # a keeper may have taken the folder for one that was left
                break
            os.close(self._lock)
        self._writing = threading.Lock()
        self._number = self._size = 0
        self._file = self._begun()

    def append(self, line: JournalLine) -> None:
        """Write a line; it survives the death of this process. Raises OSError, after which nothing of it is there."""
        data = line.line
        with self._writing:
            if self._size >= LARGEST:
                os.close(self._file)
                self._number, self._size = self._number + 1, 0
                self._file = self._begun()
            if os.write(self._file, data) < len(data):  # the disk is full
                os.ftruncate(self._file, self._size)
                raise OSError(errno.ENOSPC, "half a line could be written", str(self.folder))
            self._size += len(data)

    def close(self) -> None:
        """Let the keeper have the folder."""
        os.close(self._file)
        os.close(self._lock)

    def _begun(self) -> int:
        return os.open(self.folder / f"{JOURNAL}{self._number:08}", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)


def read_journals(inbox: Path, read: Mapping[str, int], most: int = -1) -> tuple[list[JournalLine], dict[str, int]]:
    """Lines that are new, oldest first for each writer, and how far each journal is read now.

    read: {journal: bytes} of the last time; at first nothing
    most: about how many bytes of a journal are read; what follows is for the next time
    A request for commitment may come before the line of an object that another receiver took: read once more before it
    is refused.
    """
    lines, now = [], {}
    for path in _journals(inbox):
        name = path.relative_to(inbox).as_posix()
        with path.open("rb") as file:
            file.seek(read.get(name, 0))
            complete = [raw for raw in file.readlines(most) if raw.endswith(b"\n")]  # the last may be half written
        now[name] = read.get(name, 0) + sum(map(len, complete))
        lines += [line for raw in complete if (line := parse_line(raw[:-1])) is not None]
    return lines, now


def forget_journals(inbox: Path, read: Mapping[str, int]) -> int:
    """Remove journals that are read and followed by another, and the folders of writers that are gone.

    How many writers were gone: what they kept and could not write down is found by `files_without_row`.
    """
    gone = 0
    for folder in _folders(inbox):
        *ended, last = [path for path in _journals(inbox) if path.parent == folder] or [folder / LOCK]
        unread = [path for path in ended if not _is_read(path, inbox, read)]
        for path in set(ended) - set(unread):
            path.unlink()
        with _take_lock(folder) as is_gone:
            if is_gone and not unread and _is_read(last, inbox, read):
                shutil.rmtree(folder)
                gone += 1
    return gone


def _is_read(journal: Path, inbox: Path, read: Mapping[str, int]) -> bool:
    """Whether all whole lines are read; half a line at the end of a dead writer's stays unread for ever."""
    return journal.read_bytes().rfind(b"\n") < read.get(journal.relative_to(inbox).as_posix(), 0)


@contextmanager
def _take_lock(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock; false where its writer does, or is just making it."""
    with ExitStack() as stack:
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            yield False
        else:
            yield True


def _folders(inbox: Path) -> list[Path]:
    return sorted(path for path in inbox.iterdir() if path.is_dir()) if inbox.is_dir() else []


def _journals(inbox: Path) -> list[Path]:
    return [path for folder in _folders(inbox) for path in sorted(folder.glob(f"{JOURNAL}*"))]


LOOK_S = 0.05


@dataclass(frozen=True)
class ReplyFile:
    """The place of one answer: with `.open` beside it while the peer is there, and `.answer` until the peer has it."""

    place: Path

    @classmethod
    def begun(cls, folder: Path) -> ReplyFile:
        """A place for an answer in a writer's folder, which somebody waits for from now on."""
        reply = cls(folder / f"reply-{uuid.uuid4().hex}")
        reply._open.touch()
        return reply

    @property
    def _open(self) -> Path:
        return self.place.with_suffix(".open")

    @property
    def _answer(self) -> Path:
        return self.place.with_suffix(".answer")

    def come(self) -> list[str] | None:
        """The answer, once the keeper has given it."""
        try:
            return list(structured_text.parse_json(self._answer.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def close(self, *, is_delivered: bool = False) -> None:
        """Wait no longer. is_delivered: the peer has the answer."""
        if is_delivered:
            self._answer.unlink(missing_ok=True)
        self._open.unlink(missing_ok=True)

    def give(self, answer: Collection[str], wait_s: float) -> bool:
        """Whether the peer got the answer on its association; false where that is closed, or takes longer."""
        if not self._open.exists():
            return False
        partial = self.place.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(sorted(answer)), encoding="utf-8")
            partial.rename(self._answer)
        except OSError:  # the disk is full, or who waited has died
            return False
        until = time.monotonic() + wait_s
        while self._answer.exists() and self._open.exists() and time.monotonic() < until:
            time.sleep(LOOK_S)
        try:
            self._answer.unlink()
        except FileNotFoundError:  # it was taken away because the peer has it
            return True
        return False
