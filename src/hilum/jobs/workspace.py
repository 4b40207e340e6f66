"""A folder of jobs: asked for, started in order, stopped, listed. Each is a process that outlives its server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import psutil

from hilum import work_state
from hilum.errors import HilumError, UsageError
from hilum.files.storage import file_lock
from hilum.files.storage.file_lock import Holder
from hilum.jobs import job_record
from hilum.jobs.job_record import ERRORS, RESULT, CommandJob
from hilum.runtime import record_files

JOBS, SETTINGS, SCHEMA = "jobs", "workspace.json", "hilum.workspace"
# s for which the others are waited for: each holds the jobs for some milliseconds.
WAIT_S = 30.0
ID = re.compile(r"\d{4,}-[a-z-]+")
# Processes of this server's jobs: without a look at them they would stay in the system's table.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class JobRequest:
    """A command that shall run: its fields are those of a `CommandJob`."""

    words: str
    arguments: Sequence[str]
    shell: str = ""
    python: str = ""
    door: str = ""
    is_long: bool = True
    out: str = ""
    roots: Sequence[str] = ()
    limit_s: float | None = None


@dataclass(frozen=True)
class Workspace:
    """A folder in which commands run as jobs; results without another place lie in it.

    parallel: number of long commands that run at a time; the others wait, in the order in which they were asked for
    """

    folder: Path
    parallel: int = 1

    @classmethod
    def open(cls, folder: Path, parallel: int = 1) -> Workspace:
        """The workspace, made where it is new. UsageError where it cannot be written."""
        workspace = cls(folder.absolute(), parallel)
        with workspace.hold():
            workspace.jobs_folder.mkdir(exist_ok=True)
            record_files.write_json(workspace.jobs_folder / SETTINGS, SCHEMA, {"parallel": parallel})
        workspace.start_next()
        return workspace

    @classmethod
    def of_job(cls, folder: Path) -> Workspace:
        """The workspace in which a job lies."""
        settings = record_files.read_json(folder.parent / SETTINGS, SCHEMA)
        return cls(folder.parent.parent, int(settings["parallel"]))

    @property
    def jobs_folder(self) -> Path:
        """Where the jobs lie."""
        return self.folder / JOBS

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Nobody else changes a job within."""
        with file_lock.hold_lock(self.jobs_folder, WAIT_S):
            yield

    def job_folder(self, job: str) -> Path:
        """The folder of a job. UsageError where there is none."""
        if not ID.fullmatch(job) or not (self.jobs_folder / job).is_dir():
            raise UsageError("there is no such job", job, "Give one that the list of jobs has")
        return self.jobs_folder / job

    def job(self, job: str) -> CommandJob:
        """A job as it is now."""
        return job_record.read_job(self.job_folder(job))

    def list_jobs(self) -> tuple[list[CommandJob], list[HilumError]]:
        """All jobs, the oldest first, and what is wrong with records that cannot be read."""
        jobs, problems = list[CommandJob](), list[HilumError]()
        folders = (one for one in self.jobs_folder.iterdir() if ID.fullmatch(one.name))
        for folder in sorted(folders, key=lambda one: (int(one.name.partition("-")[0]), one.name)):
            try:
                jobs.append(job_record.read_job(folder))
            except HilumError as error:
                problems.append(error.stating(where=folder.name))
        return jobs, problems

    def add(self, request: JobRequest) -> CommandJob:
        """Keep a command as a job, and start it where it is its turn."""
        with self.hold():
            numbers = [int(one.name.partition("-")[0]) for one in self.jobs_folder.iterdir() if ID.fullmatch(one.name)]
            name = f"{max(numbers, default=0) + 1:04d}-{request.words.replace(' ', '-')}"
            fields = vars(request) | {"arguments": tuple(request.arguments), "roots": tuple(request.roots)}
            job = CommandJob(id=name, state="waiting", created=job_record.now(), **fields)
            (self.jobs_folder / name).mkdir()
            job_record.write_job(self.jobs_folder / name, job)
        self.start_next()
        return self.job(name)

    def start_next(self) -> None:
        """Note which jobs have ended, and start those whose turn it is."""
        _started[:] = [one for one in _started if one.poll() is None]
        with self.hold():
            jobs, _ = self.list_jobs()
            running = sum(job.state == "running" and job.is_long for job in jobs)
            taken = {job.out for job in jobs if job.state == "running" and job.out}
            for job in jobs:
                if job.state != "waiting" or job.out in taken or (job.is_long and running >= self.parallel):
                    continue
                running += job.is_long
                self._start(job)

    def _start(self, job: CommandJob) -> None:
        """Start the process of a job, of which its record says so before it can begin."""
        folder = self.jobs_folder / job.id
        command = [sys.executable, "-P", "-m", "hilum", *job.arguments]  # no module comes from the workspace
        environment = os.environ | {work_state.JOB: str(folder), "PYTHONUNBUFFERED": "1"}
        try:
            with (folder / RESULT).open("wb") as result, (folder / ERRORS).open("ab") as errors:
                process = subprocess.Popen(  # noqa: S603 - our own command
                    command, stdin=subprocess.DEVNULL, stdout=result, stderr=errors, cwd=self.folder, env=environment,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            problem = f"cannot be started: {error.strerror}"
            job_record.write_job(folder, replace(job, state="failed", problem=problem, ended=job_record.now()))
            return
        _started.append(process)
        holder = replace(Holder.here(), process=process.pid, started=_start_of(process.pid))
        job_record.write_job(folder, replace(job, state="running", process=holder, began=job_record.now()))

    def stop(self, name: str) -> CommandJob:
        """Stop a job as the first Ctrl-C does: a training keeps its state. A second stop ends it at once."""
        folder = self.job_folder(name)
        with self.hold():
            job = job_record.read_job(folder)
            if job.state == "waiting":
                job_record.write_job(folder, replace(job, state="stopped", ended=job_record.now()))
            elif job.state == "running" and job.process is not None:
                job_record.write_job(folder, replace(job, is_stopping=True))
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(job.process.process, signal.SIGINT)
        self.start_next()
        return self.job(name)


def _start_of(process: int) -> float:
    """s between the start of the machine and that of a process."""
    try:
        return cast(float, psutil.Process(process).create_time() - psutil.boot_time())
    except psutil.Error:  # it has ended already
        return 0.0
