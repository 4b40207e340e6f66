"""The side of the command that runs as a job: it takes its turn, says how far it is, and notes how it ended."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import platformdirs

from hilum import work_state
from hilum.errors import HilumError, UsageError
from hilum.files.storage import cache, file_lock
from hilum.jobs import job_record, workspace
from hilum.values import plain_values

if TYPE_CHECKING:
    from pydantic import JsonValue

    from hilum.jobs.job_record import JobState
    from hilum.jobs.workspace import Workspace

# s between two records of one piece of work; the last, and validations, are always written.
OFTEN_S = 0.4
# How a shell states that SIGHUP, Ctrl-C and SIGTERM ended a command.
BY_SIGNAL = (129, 130, 143)


# The folder of the job that this process is; None for a command that a person started.
_own: ContextVar[Path | None] = ContextVar("own", default=None)
# What programs need of the system; no data of patients lie there.
SYSTEM = ("/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/bin", "/opt")
SETTINGS = ("localtime", "mime.types", "ssl", "fonts", "os-release", "resolv.conf", "hosts", "nsswitch.conf")
OPENING = frozenset({"open", "os.listdir", "os.scandir", "sqlite3.connect"})


@contextmanager
def run_as_job(codes: list[int]) -> Iterator[None]:
    """Within, a command that is a job reports its progress; at the end its record says how it ended.

    codes: gets the exit code last
    Raises UsageError where the job runs already, or was stopped before it began.
    """
    named = os.environ.pop(work_state.JOB, "")  # what this command starts is no job
    if not named:
        yield
        return
    folder = Path(named)
    # A shell that starts a server in the background has Ctrl-C ignored, and each process would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    own_workspace = workspace.Workspace.of_job(folder)
    own = file_lock.Holder.here()
    with own_workspace.hold():
        job = job_record.read_job(folder)
        is_ours = job.state == "waiting" or (job.process is not None and job.process.process == own.process)
        if job.is_over or job.is_stopping or not is_ours:
            raise UsageError(
                "was stopped" if job.is_stopping else f"is {job.state}",
                job.id,
                "Start the command again as another job",
            )
        job_record.write_job(folder, replace(job, state="running", process=own, began=job_record.now()))
    handler, token = ProgressFile(folder), _own.set(folder)
    work_state.progress.addHandler(handler)
    work_state.progress.setLevel(logging.DEBUG)
    work_state.progress.propagate = False
    room = Path(tempfile.mkdtemp(prefix="hilum-"))  # in the system's own: names of sockets in it must be short
    if job.roots:
        confine_to([*job.roots, str(own_workspace.folder)], room)
    alarm = None if job.limit_s is None else threading.Timer(job.limit_s, os.kill, (own.process, signal.SIGINT))
    if alarm is not None:
        alarm.daemon = True
        alarm.start()
    try:
        yield
    finally:
        if alarm is not None:
            alarm.cancel()
        _own.reset(token)
        shutil.rmtree(room, ignore_errors=True)
        work_state.progress.removeHandler(handler)
        work_state.progress.setLevel(logging.NOTSET)
        with suppress(OSError, HilumError):  # a full disk: whoever reads the job sees that its process is gone
            _note_end(own_workspace, folder, codes[-1] if codes else 1)


def _note_end(own_workspace: Workspace, folder: Path, code: int) -> None:
    with own_workspace.hold():
        job = job_record.read_job(folder)
        is_stopped = code != 0 and (job.is_stopping or code in BY_SIGNAL)
        state: JobState = "done" if code == 0 else "stopped" if is_stopped else "failed"
        problem = job_record.last_line(folder / job_record.ERRORS) if state == "failed" else ""
        job_record.write_job(folder, replace(job, state=state, code=code, problem=problem, ended=job_record.now()))
    own_workspace.start_next()


def keep_words(text: str) -> None:
    """Keep the words of a result, which a person reads, beside its record; nothing for a command of a person."""
    if (folder := _own.get()) is not None:
        with suppress(OSError):
            (folder / job_record.WORDS).write_text(text, encoding="utf-8", errors="backslashreplace")


class ProgressFile(logging.Handler):
    """Writes progress into the job's folder, a record a line. A full disk costs lines, and never the work."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path, self.began, self.written = folder / job_record.PROGRESS, time.monotonic(), dict[str, float]()

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line, where the last of the same work is not of just now."""
        progress = cast("dict[str, JsonValue]", vars(record)["progress"])
        what, at = str(progress["what"]), time.monotonic()
        is_needed = progress["done"] == progress["of"] or progress.get("validation") is not None
        if not is_needed and at - self.written.get(what, -OFTEN_S) < OFTEN_S:
            return
        self.written[what] = at
        line = json.dumps(plain_values.as_json({"at": round(at - self.began, 2), **progress}))
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


# A command confined to some folders: what a table, a plan or a link leads it to open elsewhere is refused.


def confine_to(roots: Sequence[str], room: Path) -> None:
    """From now on this process opens and lists only what lies below the roots, and what Python and the system need.

    room: where temporary files go
    It cannot be undone. Code of others that opens files without Python is not seen.
    """
    tempfile.tempdir = os.environ["TMPDIR"] = str(room)
    allowed = tuple(dict.fromkeys(os.path.realpath(str(one)) for one in (*roots, room, *_needed())))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPENING or not arguments or not isinstance(arguments[0], str | bytes):
            return
        real = os.path.realpath(os.fsdecode(arguments[0]))
        if not any(real == one or real.startswith(f"{one}{os.sep}") for one in allowed):
            reason = "lies outside the folders that are allowed (--root)"
            raise PermissionError(errno.EACCES, reason, os.fsdecode(arguments[0]))

    sys.addaudithook(refuse)


def _needed() -> Iterator[str]:
    yield from SYSTEM
    yield from (f"/etc/{name}" for name in SETTINGS)
    yield from (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *filter(None, sys.path))
    yield from (str(Path(__file__).parents[2]), str(cache.cache_folder()))
    yield from (platformdirs.user_cache_dir(), platformdirs.user_config_dir())
