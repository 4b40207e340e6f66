"""Worker processes: a library that crashes, or a system that kills, ends one case and not the work."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from isocenter.errors import WorkerLostError
from isocenter.runtime.parallel import worker_main as worker

T = TypeVar("T")
R = TypeVar("R")

# Cases are worked on side by side: the libraries beneath must not take all cores for each of them.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


# What pickling raises for functions and values that another process cannot know.
PICKLING_ERRORS = (pickle.PickleError, AttributeError, RecursionError, TypeError, ValueError)


class UnknownError(Exception):
    """A function or an argument that another process cannot know: of a script, or of a prompt."""


class Worker:
    """One process; its calls come one after the other."""

    def __init__(self) -> None:
        # As a script, and not as a module of this package: it imports what its calls need and no more.
        self.process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-P", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )
        with suppress(OSError):  # one that could not start is lost at its first call
            self._send(pickle.dumps(sys.path))

    def call(self, function: Callable[[T], R], argument: T, where: str) -> R:
        """The function's result, or what it raised.

        where: what is worked on, for the error
        Raises WorkerLostError where the process died, UnknownError for what cannot be sent to it.
        """
        try:
            asked = pickle.dumps((function, argument))
        except PICKLING_ERRORS as error:
            raise UnknownError(str(error)) from error
        try:
            self._send(len(asked).to_bytes(8, "little") + asked)
            kind, value = pickle.load(self.process.stdout)  # type: ignore[arg-type]  # noqa: S301 - by our own child
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise WorkerLostError(*_death(self.process, where)) from error
        match kind:
            case "unknown":
                raise UnknownError(value)
            case "raised":
                raise value
            case _:
                return value

    def end(self) -> None:
        """Kill it: between calls it has nothing to lose."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _send(self, content: bytes) -> None:
        stdin: Any = self.process.stdin
        stdin.write(content)
        stdin.flush()


def _death(process: subprocess.Popen[bytes], where: str) -> tuple[str, str, str]:
    """The death of a process: problem, where, remedy."""
    code = process.wait()
    if code >= 0:
        return f"the process that read it ended with code {code}", where, "Look at its lines above"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if name == "SIGKILL":
        remedy = "Close other programs or give fewer --threads; if it is this case alone, leave it out"
        return f"the process that read it was killed ({name}): most often memory ran out", where, remedy
    return f"the process that read it crashed ({name})", where, "The file may be damaged: get it again, or leave it out"
