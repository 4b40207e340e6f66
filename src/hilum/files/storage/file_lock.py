"""A lock on what one process writes over hours: a file beside it that names its holder, broken where that is dead."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import psutil

from hilum.errors import UsageError
from hilum.files.storage import atomic, structured_text

# s by which two readings of one start may differ.
SAME_START = 1.0
LOOK_S = 0.05  # between two looks at the lock of another
# How systems refuse a second name of a file where the file system has none.
UNSUPPORTED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    host:    name of the machine
    process: its number there
    started: s between the start of the machine and its own, because numbers are given again; no clock that is set
             in between moves it
    since:   when the lock was taken
    """

    host: str
    process: int
    started: float
    since: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        process = psutil.Process()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(platform.node(), process.pid, _start_time(process), now)

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended; of a process on another machine nothing is known."""
        if self.host != platform.node():
            return False
        try:
            process = psutil.Process(self.process)
            # A process that was killed and whose parent did not look holds nothing any more.
            return abs(_start_time(process) - self.started) > SAME_START or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def _start_time(process: psutil.Process) -> float:
    return cast(float, process.create_time() - psutil.boot_time())


@contextmanager
def hold_lock(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Nobody else writes `path` until the end: a file `.NAME.lock` beside it says who does.

    wait_s: until another process has ended, where each of several takes a moment
    It lies beside, and not within, because a folder that is written anew takes the place of the old one as a whole.
    Raises UsageError, which names the holder, where another process has it, and where the lock cannot be written.
    """
    absolute = path.absolute()
    lock_file, holder = absolute.with_name(f".{absolute.name}.lock"), Holder.here()
    created = [folder for folder in absolute.parents if not folder.exists()]
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        _take(lock_file, holder, path, wait_s)
    except OSError as error:
        raise atomic.unwritable_error(error, path) from error
    try:
        yield
    finally:
        if _holder(lock_file) == holder:
            lock_file.unlink(missing_ok=True)
        for folder in created:  # the innermost first; one in which something was written stays
            with suppress(OSError):
                folder.rmdir()


def _take(lock_file: Path, holder: Holder, path: Path, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    # Linked with its content, so that nobody ever reads half a lock.
    draft = lock_file.with_name(f"{lock_file.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text(json.dumps(asdict(holder)), encoding="utf-8")
        while True:
            with suppress(FileExistsError):
                _link(draft, lock_file)
                return
            other = _holder(lock_file)
            if other is None or other.is_dead:
                _break(lock_file, other)
            elif time.monotonic() < until:
                time.sleep(LOOK_S)
            else:
                raise _holder_error(other, lock_file, path, is_short=wait_s > 0)
    finally:
        draft.unlink(missing_ok=True)


def _link(draft: Path, lock_file: Path) -> None:
    """A second name of a file, or where the file system has none (exFAT, some network drives) a copy.

    Raises FileExistsError where there is a file of this name.
    """
    try:
        os.link(draft, lock_file)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        with lock_file.open("x", encoding="utf-8") as copy:
            copy.write(draft.read_text(encoding="utf-8"))


def _break(lock_file: Path, dead: Holder | None) -> None:
    """Remove the lock of a dead holder, and no other that has been taken since."""
    aside = lock_file.with_name(f"{lock_file.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        lock_file.rename(aside)
        if _holder(aside) != dead:
            with suppress(FileExistsError):
                _link(aside, lock_file)
        aside.unlink()


def _holder(lock_file: Path) -> Holder | None:
    """Who holds the lock; None where there is none, or none that can be read."""
    try:
        return Holder(**structured_text.load_json(lock_file))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _holder_error(holder: Holder, lock_file: Path, path: Path, *, is_short: bool) -> UsageError:
    problem = f"process {holder.process} on {holder.host} has been writing it since {holder.since}"
    remedy = "Try again when it has ended" if is_short else "Wait until it ends"
    if holder.host == platform.node():
        return UsageError(problem, str(path), remedy if is_short else f"{remedy}, or choose another --out")
    return UsageError(problem, str(path), f"{remedy}; if it has died there, delete {lock_file}")
