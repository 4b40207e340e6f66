"""The start and the end of the command line: one line and an exit code for whatever happened.

A killed process cannot say anything itself, and the shell says no more than "Killed": a small process that outlives
ours says what we were at.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, TextIO, cast

import typer

from hilum import errors, work_state
from hilum.cli import terminal
from hilum.cli.terminal import PartlyFailedError, app
from hilum.errors import HilumError, UsageError, WorkerLostError
from hilum.jobs import job_process
from hilum.work_state import BEGUN

if TYPE_CHECKING:
    from pydantic import JsonValue

# By which batch systems and containers end a program, and by which a closed terminal does; Windows lacks the latter.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
SHELL = Path("/bin/sh")
# Keeps the last line that it hears, and says it where the end was not "done".
KEEP = 'while IFS= read -r line; do last=$line; done; [ "$last" = done ] || printf "%s\\n" "$last" >&2'
# By which torch names a line of its own code.
TRIGGERED = re.compile(r"\s*\(Triggered internally at .*?\)")
AGAIN = "Close other programs or give fewer --threads; leave the case out if it is the only one that fails"


class _Lines(logging.Formatter):
    """Log lines for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone, with a traceback where it has one."""
        return errors.printable_text(super().format(record))


def main() -> None:
    """Run, and turn every failure into one line and an exit code."""
    # Threads that wait by sleeping: a fifth faster where another program takes a core, a tenth slower on a machine of
    # one's own (bench/findings/speed.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _replace_unknown_letters()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("hilum").setLevel(logging.INFO if terminal.is_first_process() else logging.ERROR)
    codes = list[int]()
    warnings.showwarning = _say_warning
    try:
        with job_process.run_as_job(codes) if terminal.is_first_process() else nullcontext():
            codes.append(_run_command())
    except HilumError as error:
        codes.append(_end(error, 2))
    sys.exit(codes[-1])


def _replace_unknown_letters() -> None:
    """Print a question mark for a letter that the terminal's encoding lacks: no work is lost over a minus sign."""
    for stream in (sys.stdout, sys.stderr):
        # What wrote to a file that is no terminal may have left it in a state that cannot be set anew.
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):
                stream.reconfigure(errors="replace")


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a library's warning as a sentence: where in its code it arose says nothing to whoever reads a terminal."""
    text = " ".join(TRIGGERED.sub("", str(message)).split())
    parts = Path(filename).parts
    library = next((after for before, after in pairwise(parts) if before == "site-packages"), "hilum")
    logging.getLogger("hilum").info(f"a note from {library.removesuffix('.py')}: {text.rstrip('.')}.")


def _run_command() -> int:
    """Exit code of the command, whose last line is printed."""
    ended: list[int] = []
    try:
        with (
            _ending_as_ctrl_c(ended),
            work_state.time_command(),
            report_death(sys.argv[1:] if terminal.is_first_process() else []),
        ):
            code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == 130:  # how typer says that Ctrl-C was pressed
            raise KeyboardInterrupt
    except typer.Exit as done:
        code = done.exit_code
    except (KeyboardInterrupt, typer.Abort) as stop:
        # typer takes a file that ends too early for the end of what a person types.
        defect = stop.__cause__ if isinstance(stop.__cause__, EOFError) else None
        stopped = _stop_line(sys.argv[1:]) if terminal.is_first_process() else ""
        code = _end(stopped, 128 + ended[0] if ended else 130) if defect is None else _end(*_unforeseen(defect))
    except HilumError as error:
        # Of several processes all meet these alike.
        is_shown = terminal.is_first_process() or not isinstance(error, UsageError | WorkerLostError)
        code = _end(error if is_shown else "", 2 if isinstance(error, UsageError) else 1)
    except Exception as error:  # the last resort: whatever it is, one line and an exit code
        code = _end(*_unforeseen(error))
    return code if isinstance(code, int) else 0


@contextmanager
def _ending_as_ctrl_c(ended: list[int]) -> Iterator[None]:
    """A signal by which others end a program stops it as Ctrl-C does; a second SIGTERM ends it at once.

    ended: gets its number where it came
    """
    # Under torchrun it means that another process has died.
    if "TORCHELASTIC_RUN_ID" in os.environ or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        ended.append(number)
        # A terminal that is closed tells each program, and the shell tells it once more.
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        _leave_lost_terminal()
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so a shell script starts what it runs in the background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]  # nohup has one ignored
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _leave_lost_terminal() -> None:
    """Send output nowhere where the terminal is gone: each word would be an error that costs the results."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        for stream in (1, 2):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(nowhere.fileno(), stream)


def _stop_line(words: list[str]) -> str:
    """The last line after Ctrl-C or a signal: a training keeps what it had, and predictions those that were done.

    words: of the command line
    """
    name = "".join(words[:1])
    afresh = "Run the command again"
    if name in ("predict", "explain", "embed"):
        afresh = "Give another --out for the rest, or --overwrite to start again"
    return f"hilum {name}".rstrip() + f": stopped. {resume_command(words) or afresh}."


def _unforeseen(error: Exception) -> tuple[str, int]:
    """The last line and the exit code for what no part of hilum answered."""
    if message := getattr(error, "format_message", None):  # of typer's own parser, whose classes are private
        within = getattr(getattr(error, "ctx", None), "command_path", "hilum")
        problem = message().rstrip(".")
        return f"{within}: {problem}{'' if problem.endswith('?') else '.'} See `{within} --help`.", 2
    if isinstance(error, OSError):
        where, reason = error.filename or "hilum", error.strerror or str(error)
        return f"{where}: {reason}. Check the path and the free space on its disk.", 1
    if errors.is_out_of_memory(error):
        return (
            "hilum: there is not enough memory. Give smaller patches or batches with --set, or "
            "use a machine with more memory.",
            1,
        )
    terminal.say("".join(traceback.format_exception(error)), err=True)
    kind = type(error).__name__
    return f"hilum: an internal error ({kind}: {error}). Please report it with the lines above.", 1


def _end(failure: HilumError | str, code: int) -> int:
    """Print the last line, and with `--json` the one document that a program reads; one that was shown stays it."""
    if line := " ".join(str(failure).split()):
        terminal.say(line, err=True)
        if "--json" in sys.argv and terminal.is_first_process() and not isinstance(failure, PartlyFailedError):
            terminal.say(json.dumps(_failure_record(failure, code)))
    return code


def _failure_record(failure: HilumError | str, code: int) -> dict[str, JsonValue]:
    """The error as a record, as docs/errors.md describes it; a line without parts is the problem as a whole."""
    parts = {"where": "hilum", "problem": str(failure), "remedy": ""}
    if isinstance(failure, HilumError):
        parts = {"where": failure.where, "problem": failure.problem, "remedy": failure.remedy}
    return {"schema": "hilum.error", "version": 1, "error": {**parts, "code": code}}


@contextmanager
def report_death(words: Sequence[str]) -> Iterator[None]:
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
        work_state.work.addHandler(reports)
        work_state.work.setLevel(logging.DEBUG)
        work_state.work.propagate = False
        try:
            yield
        finally:
            work_state.work.removeHandler(reports)
            work_state.work.setLevel(logging.NOTSET)
            reports.send("done")


def resume_command(words: Sequence[str]) -> str:
    """The command that continues a training which ended early, with the name of its run where the command gives one.

    Empty for a command that cannot continue, and where it ended before there was a run.
    words: of the command line
    """
    if not words or words[0] not in ("train", "pretrain", "demo"):
        return ""
    given = [one for flag, one in pairwise(words) if flag in ("--out", "--resume")]
    if given:
        run = given[-1]
    elif words[0] == "demo":
        run = "demo"
    elif len(words) > 1 and not words[1].startswith("-"):
        run = str(terminal.default_out(words[0], Path(words[1])))
    else:
        return "`hilum train --resume RUN` continues a run that had started"
    return f"`hilum train --resume {shlex.quote(run)}` continues the run" if Path(run).is_dir() else ""


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
            stdin = cast("IO[str]", self.shell.stdin)
            stdin.write(errors.printable_text(" ".join(line.split())) + "\n")
            stdin.flush()

    @property
    def last_words(self) -> str:
        """The line to print should the program die now."""
        at, verb = errors.list_phrase(self.cases), f"hilum {self.words[0]}"
        remedy = resume_command(self.words) or (AGAIN if at else "Run the command again")
        where = (
            f"{at}: {verb} was killed or crashed while it processed this" if at else f"{verb}: was killed or crashed"
        )
        return f"{where}, most often because memory ran out. {remedy}."
