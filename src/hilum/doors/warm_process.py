"""A process that stays warm, so that a plan's change is shown at once: it imports once, and reads each file once.

It answers one line of JSON for another. What goes wrong in it costs an answer, and never the page's server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

from hilum.errors import HilumError, ResourceError, UsageError
from hilum.files.storage import structured_text

# s within which an answer has to come: large data are read at the first.
LONGEST_S = 600.0


@dataclass
class WarmProcess:
    """The process, as its owner sees it; started at the first question, and again where it has died.

    module: that answers, run as a program
    folder: its working folder
    """

    module: str
    folder: Path
    _process: subprocess.Popen[bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, what: str, **values: Any) -> Any:
        """Its answer. UsageError with the words of what it refuses, ResourceError where it dies."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                command = [sys.executable, "-P", "-m", self.module]
                self._process = subprocess.Popen(  # noqa: S603
                    command,
                    cwd=self.folder,
                    start_new_session=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            process: Any = self._process
            try:
                process.stdin.write(json.dumps({"what": what, "values": values}).encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline() if select([process.stdout], [], [], LONGEST_S)[0] else b""
                answer = structured_text.parse_json(line.decode())
            except (OSError, ValueError) as error:
                process.kill()
                raise ResourceError("did not answer", what, "Try it again; look into the data's files") from error
        if "error" in answer:
            raise UsageError(*answer["error"])
        return answer["answer"]

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


Answers = Mapping[str, Callable[..., Any]]


def answer_lines(known: Answers) -> None:
    """Answer each line of standard input, until it is closed. known: {what is asked: its answer}"""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin.buffer:
        question = structured_text.parse_json(line.decode())
        try:
            answer = {"answer": known[question["what"]](**question["values"])}
        except HilumError as error:
            answer = {"error": (error.problem, error.where, error.remedy)}
        except Exception as error:  # a library's fault is an answer too
            answer = {"error": (f"{type(error).__name__}: {error}", question["what"], "Give other values")}
        answers.write(json.dumps(answer, default=str).encode() + b"\n")
        answers.flush()
