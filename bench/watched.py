"""One run of a program: how long it took and how much memory its whole process tree held."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

# The first look at the memory, and how many times longer the pause after a look is than the look: watching takes 2 %
# of one core at the most.
PAUSE_SECONDS, PAUSE_TIMES = 0.05, 50
# A share that counts pages held by several processes once is slow to ask for; one look in so many.
SHARES_EVERY = 4
MIB = 2**20


@dataclass
class Watch:
    """Looks at a process tree until told to stop.

    rss: MiB, the sum over the processes; pages that several share count several times
    pss: MiB, pages that several share count once; 0 where the system does not tell
    """

    root: int
    rss: float = 0.0
    pss: float = 0.0
    processes: int = 1
    _stop: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        looks = 0
        while True:
            began = time.thread_time()  # on a busy machine a look takes longer, but costs no more
            tree = _tree(self.root)
            self.processes = max(self.processes, len(tree))
            self.rss = max(self.rss, sum(_rss(process) for process in tree) / MIB)
            if looks % SHARES_EVERY == 1:
                self.pss = max(self.pss, sum(_pss(process) for process in tree) / MIB)
            looks += 1
            if self._stop.wait(max(PAUSE_SECONDS, PAUSE_TIMES * (time.thread_time() - began))):
                return

    def stop(self) -> None:
        self._stop.set()


@dataclass(frozen=True)
class Watched:
    """What one run took. A program that was ended because it took too long has `late`.

    peak_mib: the fair figure: exact for one process; for several the sum in which shared pages count once
    """

    seconds: float
    peak_mib: float
    peak_rss_mib: float
    peak_pss_mib: float
    processes: int
    cpu_seconds: float
    returncode: int
    late: bool = False


def watched(
    command: list[str],
    *,
    environment: dict[str, str],
    folder: Path,
    log: Path,
    cores: int,
    at_most: float | None,
    first_core: int = 0,
) -> Watched:
    """Runs a command in a session of its own; standard output and error go to `log.out` and `log.err`.

    cores: the program may use so many cores from number `first_core` on, its children too (Linux)
    at_most: seconds after which the whole session is ended
    Raises OSError where the command cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    between = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launched.py"))]
    read, write = os.pipe()
    with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
        launcher = subprocess.Popen(
            [*between, str(write), str(first_core), str(cores), *command],
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            pass_fds=[write],
        )
    os.close(write)
    with os.fdopen(read) as pipe:
        first = pipe.readline()
        if not first.strip().isdigit():
            launcher.wait()
            raise OSError(json.loads(first)["refused"] if first.strip() else "the launcher ended")
        return _until_the_end(int(first), pipe, launcher, at_most)


def _until_the_end(session: int, pipe: IO[str], launcher: subprocess.Popen[bytes], at_most: float | None) -> Watched:
    watch, late = Watch(session), threading.Event()
    looking = threading.Thread(target=watch.look, daemon=True)
    looking.start()
    clock = threading.Timer(at_most or 0, lambda: (late.set(), _end(session)))
    try:
        if at_most:
            clock.start()
        found = json.loads(pipe.readline())
    finally:
        clock.cancel()
        watch.stop()
        _end(session)  # workers that outlived their parent, or all of it when the bench itself is interrupted
        launcher.wait()
        looking.join()
    # The system's own maximum of the first process is exact, where looks may miss a short peak.
    own = found["peak"] / MIB
    fair = max(watch.pss, own) if watch.processes > 1 and watch.pss else max(watch.rss, own)
    memory = (fair, max(watch.rss, own), watch.pss)
    return Watched(found["seconds"], *memory, watch.processes, found["cpu"], found["code"], late.is_set())


def _end(session: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)


def _tree(root: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(root)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _pss(process: psutil.Process) -> int:
    try:
        return int(getattr(process.memory_full_info(), "pss", 0))
    except (psutil.Error, OSError):
        return 0
