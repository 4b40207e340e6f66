"""A small process that outlives ours: where the system kills us, or a library crashes, it says what we were at.

A killed process cannot say anything itself, and the shell says no more than "Killed".
"""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from isocenter.at_work import BEGUN, work
from isocenter.cli.shell import default_out
from isocenter.errors import listed, printable

SHELL = Path("/bin/sh")
# Keeps the last line that it hears, and says it where the end was not "done".
KEEP = 'while IFS= read -r line; do last=$line; done; [ "$last" = done ] || printf "%s\\n" "$last" >&2'
AGAIN = "Close other programs or give fewer --threads; leave the case out if it is the only one that fails"


@contextmanager
def witnessed(words: Sequence[str]) -> Iterator[None]:
    """Whatever kills this process within leaves one line on standard error: where, what, and what to do.

    words: of the command line
    """
    if not SHELL.exists() or not words or words[0].startswith("-") or "--help" in words:
        yield
        return
    # In a session of its own: what ends this process from outside, Ctrl-C among it, is not meant for the witness.
    command = [str(SHELL), "-c", KEEP]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, encoding="utf-8") as shell:  # noqa: S603
        reports = _Reports(shell, words)
        work.addHandler(reports)
        work.setLevel(logging.DEBUG)
        work.propagate = False
        try:
            yield
        finally:
            work.removeHandler(reports)
            work.setLevel(logging.NOTSET)
            reports.send("done")


def resumption(words: Sequence[str]) -> str:
    """How a training that ended early continues, by the name of its run where the command gives one.

    Empty for a command that cannot continue, and where it ended before there was a run.
    words: of the command line
    """
    if not words or words[0] not in ("train", "demo"):
        return ""
    given = [one for flag, one in pairwise(words) if flag in ("--out", "--resume")]
    if given:
        run = given[-1]
    elif words[0] == "demo":
        run = "demo"
    elif len(words) > 1 and not words[1].startswith("-"):
        run = str(default_out(words[0], Path(words[1])))
    else:
        return "`isocenter train --resume RUN` continues a run that had started"
    return f"`isocenter train --resume {shlex.quote(run)}` continues the run" if Path(run).is_dir() else ""


class _Reports(logging.Handler):
    """Sends the crash reporter, whenever it changes, the line to print should nothing follow."""

    def __init__(self, shell: subprocess.Popen[str], words: Sequence[str]) -> None:
        super().__init__()
        self.shell, self.words, self.cases = shell, words, Counter[str]()
        self.send(self.last_words)

    def emit(self, record: logging.LogRecord) -> None:
        """Note that work on a case has begun or ended."""
        case = str(getattr(record, "case", ""))
        self.cases[case] += 1 if record.msg == BEGUN else -1  # a case can be read and waited for at a time
        self.cases += Counter()  # without those that nobody is at
        self.send(self.last_words)

    def send(self, line: str) -> None:
        """Hand the reporter a line."""
        with suppress(OSError):  # a witness that is gone costs nothing but its words
            self.shell.stdin.write(printable(" ".join(line.split())) + "\n")  # type: ignore[union-attr]
            self.shell.stdin.flush()  # type: ignore[union-attr]

    @property
    def last_words(self) -> str:
        """The line to print should the program die now."""
        at, verb = listed(self.cases), f"isocenter {self.words[0]}"
        remedy = resumption(self.words) or (AGAIN if at else "Run the command again")
        where = (
            f"{at}: {verb} was killed or crashed while it processed this" if at else f"{verb}: was killed or crashed"
        )
        return f"{where}, most often because memory ran out. {remedy}."
