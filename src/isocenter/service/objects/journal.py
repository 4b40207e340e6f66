"""The messages of receivers and keeper: each writer has a folder in `inbox/` with its part files and a journal.

A writer locks its folder for as long as it lives. The keeper reads what is new, and removes what it has read and the
folders of writers that are gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from isocenter.service.objects.received import Line, parse_line

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

    def append(self, line: Line) -> None:
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


def read_journals(inbox: Path, read: Mapping[str, int], most: int = -1) -> tuple[list[Line], dict[str, int]]:
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
            whole = [raw for raw in file.readlines(most) if raw.endswith(b"\n")]  # the last may be half written
        now[name] = read.get(name, 0) + sum(map(len, whole))
        lines += [line for raw in whole if (line := parse_line(raw[:-1])) is not None]
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
        with _taken(folder) as is_gone:
            if is_gone and not unread and _is_read(last, inbox, read):
                shutil.rmtree(folder)
                gone += 1
    return gone


def _is_read(journal: Path, inbox: Path, read: Mapping[str, int]) -> bool:
    """Whether all whole lines are read; half a line at the end of a dead writer's stays unread for ever."""
    return journal.read_bytes().rfind(b"\n") < read.get(journal.relative_to(inbox).as_posix(), 0)


@contextmanager
def _taken(folder: Path) -> Iterator[bool]:
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
