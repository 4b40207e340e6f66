"""What commands have found out about files, kept for the next one: texts by key in one SQLite file of the cache.

Nothing here stops a command: where the cache cannot be used, one line is logged and files are read anew. An entry is
compressed text with a checksum, never a pickle.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hilum.errors import UsageError
from hilum.files.storage import cache
from hilum.work_state import log

R = TypeVar("R")
FOLDER, FILE = "examined", "entries.sqlite"
# Of the file; one of another version is replaced.
VERSION = 1
# Of all entries, and of each beside its content.
LIMIT_BYTES, OVERHEAD = 1 << 30, 200
# s between two writes, for which another command is waited, and after which a use is noted anew.
FLUSH_S, WAIT_S, USED_S = 1.0, 5.0, 24 * 3600
# ns within which a second change may leave a file's times as they are: where times are ns, and where they are coarse.
TICK_NS, COARSE_NS, COARSE_TICK_NS = 50_000_000, 10_000_000, 2_500_000_000
TABLE = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, content BLOB, bytes INTEGER, used REAL)"
OLDEST = "DELETE FROM entries WHERE used <= (SELECT used FROM entries ORDER BY used LIMIT 1 OFFSET ?)"


class Caching(NamedTuple):
    """How what was kept is used.

    is_used:  whether it is read and written
    verified: not empty: what is kept of a file by its size and times is not trusted; another text for each command
    """

    is_used: bool = False
    verified: str = ""


# Commands that read data sets use it; whoever calls a function of ours by itself does not.
UNUSED = Caching()
_CACHING: ContextVar[Caching] = ContextVar("caching", default=UNUSED)


def current_caching() -> Caching:
    """How the command that is running uses what was kept."""
    return _CACHING.get()


@contextmanager
def caching_as(caching: Caching) -> Iterator[None]:
    """Use what was kept in this way."""
    before = _CACHING.set(caching)
    try:
        yield
    finally:
        _CACHING.reset(before)


class FileIdentity(NamedTuple):
    """What the system records of a file and what changes with it."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Identity of an existing file."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    @property
    def is_settled(self) -> bool:
        """Whether a change from now on would show: not of a file that was written just now, or in the future."""
        tick = TICK_NS if self.changed_ns % COARSE_NS else COARSE_TICK_NS
        return time.time_ns() - self.changed_ns > tick


def file_key(path: Path) -> str:
    """Key of what is kept of a file; its name, which may name a patient, cannot be read from it."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def kept_text(key: str) -> str | None:
    """What was kept under a key; None for nothing, also where the entry is damaged."""
    store = _store() if current_caching().is_used else None
    return None if store is None else store.read(key)


def keep_text(key: str, text: str) -> None:
    """Keep a text under a key; it is on disk soon, at the latest after `write_pending`."""
    store = _store() if current_caching().is_used else None
    if store is not None:
        store.write(key, text)


def write_pending() -> None:
    """Write what is new to disk now."""
    if current_caching().is_used and (store := _store()) is not None:
        store.flush()


def _store() -> Store | None:
    try:
        return _opened(cache.cache_folder() / FOLDER / FILE, os.getpid())
    except UsageError as error:
        _warn_once(f"{error.where}: {error.problem}")
        return None


@lru_cache(maxsize=4)
def _opened(path: Path, process: int) -> Store:
    del process  # a connection must not cross a fork
    return Store(path)


@lru_cache(maxsize=16)
def _warn_once(why: str) -> None:
    log.warning("what is known of files cannot be kept (%s): they are read anew", why)


@dataclass
class Store:
    """Texts by key in one file, which several commands use at once; those that were not used longest go first.

    limit: bytes of all entries
    """

    path: Path
    limit: int = LIMIT_BYTES
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _pending: dict[str, bytes] = field(default_factory=dict)
    _connection: sqlite3.Connection | None = None
    _is_broken: bool = False
    _written: float = 0.0

    def read(self, key: str) -> str | None:
        """The text; None where there is none, or it is damaged."""
        query = "SELECT content, used FROM entries WHERE key = ?"
        content, used = self._pending.get(key), time.time()
        if content is None:
            rows: list[Any] = self._run(lambda connection: connection.execute(query, (key,)).fetchall(), [])
            [(content, used)] = rows or [(None, used)]
        if content is None:
            return None
        try:
            text = zlib.decompress(content).decode()
        except (zlib.error, UnicodeDecodeError, TypeError):
            log.info("%s holds a damaged entry: it is made anew", self.path)
            return None
        if time.time() - used > USED_S:
            self._pending[key] = content
        return text

    def write(self, key: str, text: str) -> None:
        """Keep a text; it is on disk after a second at the latest, where more is written, or after `flush`."""
        self._pending[key] = zlib.compress(text.encode(), 1)
        if time.monotonic() - self._written > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is pending in one short transaction, for which other commands wait."""
        pending, self._pending, self._written = self._pending, {}, time.monotonic()
        rows = [(key, one, len(one) + OVERHEAD, time.time()) for key, one in pending.items()]
        if rows:
            self._run(lambda connection: self._insert(connection, rows), None)

    def _insert(self, connection: sqlite3.Connection, rows: list[tuple[str, bytes, int, float]]) -> None:
        connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
        [(count, size)] = connection.execute("SELECT count(*), sum(bytes) FROM entries")
        if size > self.limit:  # a tenth more goes, so that this is rare
            connection.execute(OLDEST, (min(count - 1, int(count * (1.1 - self.limit / size))),))

    def _run(self, work: Callable[[sqlite3.Connection], R], otherwise: R) -> R:
        """The result of work on the file, on a new one where it is damaged; `otherwise` where it cannot be used."""
        with self._lock:
            for _ in () if self._is_broken else range(2):
                try:
                    if self._connection is None or not self.path.exists():  # it may have been emptied
                        self._connection = self._connected()
                    with self._connection:
                        return work(self._connection)
                except (sqlite3.OperationalError, OSError) as error:  # no room, no right, or locked for long
                    _warn_once(f"{self.path}: {getattr(error, 'strerror', None) or error}")
                    break
                except sqlite3.DatabaseError as error:
                    log.info("%s: %s: it is made anew", self.path, error)
                    self._connection = None
                    remove_entries(self.path.parent)
            self._is_broken, self._connection = True, None
            return otherwise

    def _connected(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.parent.chmod(0o700)
        connection = sqlite3.connect(self.path, timeout=WAIT_S, check_same_thread=False)
        [(version,)] = connection.execute("PRAGMA user_version")
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"of version {version}, and not {VERSION}")
        connection.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            connection.execute(TABLE)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        return connection


def remove_entries(folder: Path) -> None:
    """Remove the file, and the journal of a command that was killed."""
    for file in folder.glob(f"{FILE}*"):
        file.unlink(missing_ok=True)
