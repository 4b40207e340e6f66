"""The record of a job, and the files beside it: how far it is, what it says, its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, TypeAdapter, ValidationError

from hilum.errors import IntegrityError
from hilum.files.storage import atomic, structured_text
from hilum.files.storage.file_lock import Holder
from hilum.runtime import record_files

JobState = Literal["waiting", "running", "done", "failed", "stopped"]
SCHEMA = "hilum.job"
RECORD, PROGRESS, ERRORS, RESULT, WORDS = "job.json", "progress.jsonl", "errors.txt", "result.json", "words.txt"
# Of the end of a file that only its last lines are wanted of.
LAST_BYTES = 1 << 16


@dataclass(frozen=True)
class CommandJob:
    """A command that waits, runs or has ended.

    id:        its number in the workspace, and the command: "0003-train"
    words:     of the command, as "study size"
    arguments: of the command line, after `hilum`
    shell:     the command as a person types it; python: the same as a call
    door:      who asked for it: studio, mcp
    is_long:   waits until fewer than `--parallel` of its kind run
    out:       folder or file of its results; empty where it writes none
    roots:     folders below which alone it may read and write; empty for all
    limit_s:   s after which it is stopped as by Ctrl-C; None for no limit
    process:   that runs it
    code:      its exit code
    problem:   why it failed
    """

    id: str
    words: str
    arguments: tuple[str, ...]
    shell: str
    python: str
    door: str
    is_long: bool
    out: str
    state: JobState
    created: str
    roots: tuple[str, ...] = ()
    limit_s: float | None = None
    began: str = ""
    ended: str = ""
    is_stopping: bool = False
    process: Holder | None = None
    code: int | None = None
    problem: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("done", "failed", "stopped")

    def settled(self, folder: Path) -> CommandJob:
        """The job as it is, where its process has died without a word: done where its result is whole."""
        if self.state != "running" or self.process is None or not self.process.is_dead:
            return self
        state: JobState = "stopped" if self.is_stopping else "failed"
        if (result := read_result(folder)) is not None and "error" not in result:
            state = "done"
        problem = "" if state != "failed" else last_line(folder / ERRORS) or "was killed, and left no word"
        return replace(self, state=state, problem=problem, ended=self.ended or now())


def now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _adapter() -> TypeAdapter[CommandJob]:
    return TypeAdapter(CommandJob)


def read_job(folder: Path) -> CommandJob:
    """The job in a folder, as it is now. IntegrityError for a damaged record, and for one of another version."""
    record = record_files.read_json(folder / RECORD, SCHEMA)
    try:
        job = _adapter().validate_python(
            {name: one for name, one in record.items() if name not in ("schema", "version")}
        )
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise IntegrityError(problem, str(folder / RECORD), "Delete its folder") from error
    return job.settled(folder)


def write_job(folder: Path, job: CommandJob) -> None:
    """Write the record, whole or not at all."""
    with atomic.write_whole(folder / RECORD, overwrite=True) as partial:
        record_files.write_json(partial, SCHEMA, asdict(job))


def read_result(folder: Path) -> dict[str, JsonValue] | None:
    """The record that the command printed; None where there is no whole one."""
    try:
        result = structured_text.load_json(folder / RESULT)
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def read_text_end(path: Path) -> str:
    """The end of a text; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LAST_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_line(path: Path) -> str:
    """The last line of a text that is not empty."""
    return next((line.strip() for line in reversed(read_text_end(path).splitlines()) if line.strip()), "")


def read_progress(folder: Path, start: int = 0) -> tuple[list[Mapping[str, JsonValue]], int]:
    """The records of progress from a byte on, and the byte after the last whole one."""
    try:
        with (folder / PROGRESS).open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")
    except OSError:
        return [], start
    lines = whole.splitlines() if newline else []
    return [record for line in lines if (record := _progress(line))], start + len(whole) + len(newline)


def _progress(line: bytes) -> dict[str, JsonValue] | None:
    try:
        record = structured_text.parse_json(line.decode(errors="replace"))
    except ValueError:  # a disk that was full cut it short
        return None
    return record if isinstance(record, dict) else None
