"""The program of a worker process: calls come in on standard input, results leave on standard output, both as pickles.

Only the process that started it sends calls.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO


def answer_calls() -> None:
    """Answer calls until standard input ends: then whoever started this process is done, or dead."""
    # Ctrl-C, and a terminal that is closed, are answered by the process that a person started.
    for number in (getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)):
        signal.signal(number, signal.SIG_IGN)
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not stand between two answers
    sys.path[:] = pickle.load(calls)  # noqa: S301 - by our own parent
    while (asked := _next(calls)) is not None:
        try:
            answers.write(_answer(asked))
            answers.flush()
        except BrokenPipeError:
            return


def _next(calls: BinaryIO) -> bytes | None:
    try:
        size = int.from_bytes(calls.read(8), "little")
        return calls.read(size) or None
    except KeyboardInterrupt:
        return None


def _answer(asked: bytes) -> bytes:
    """("result" | "raised" | "unknown", value) as a pickle."""
    function: Callable[[Any], Any] | None = None
    try:
        function, argument = pickle.loads(asked)  # noqa: S301 - by our own parent
        return pickle.dumps(("result", function(argument)))
    except Exception as error:  # the border of the process: whatever the call raises is the parent's to judge
        if function is None:  # it belongs to a script that this process does not know
            return pickle.dumps(("unknown", repr(error)))
        return _pickle_error(error)


def _pickle_error(error: Exception) -> bytes:
    try:
        return pickle.dumps(("raised", error))
    except (pickle.PickleError, AttributeError, RecursionError, TypeError, ValueError):
        return pickle.dumps(("raised", RuntimeError(repr(error))))


if __name__ == "__main__":
    answer_calls()
