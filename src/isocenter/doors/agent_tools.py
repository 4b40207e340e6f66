"""The tools of agents: every command but those of a person at a terminal, and the jobs that they start."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from jsonschema import Draft202012Validator

from isocenter.doors import agent_answers, keyword_schema
from isocenter.doors.agent_answers import Patients
from isocenter.doors.allowed_paths import AllowedPaths
from isocenter.errors import IsocenterError, UsageError
from isocenter.jobs import CommandJob, JobRequest, Workspace, job_record
from isocenter.options.command_index import COMMANDS, Command
from isocenter.planning import plan_file

# Clients give up after a minute.
LONGEST_WAIT_S, LOOK_S = 50.0, 0.1
# s for which a short command is waited for before its job is named, and beyond the minutes that a training may take.
ANSWER_S, GRACE_S = 45.0, 60.0
MOST_ARGUMENTS = 1 << 20
USUAL_MINUTES = 60.0
JOB_SCHEMA: dict[str, Any] = {
    "$schema": keyword_schema.DIALECT,
    "type": "object",
    "properties": {"job": {"type": "string", "description": "The id that the tool answered with."}},
    "required": ["job"],
    "additionalProperties": False,
}
SECONDS = {
    "type": "number",
    "minimum": 0,
    "maximum": LONGEST_WAIT_S,
    "default": LONGEST_WAIT_S,
    "description": "Seconds to wait at most.",
}
WAIT_SCHEMA = JOB_SCHEMA | {"properties": JOB_SCHEMA["properties"] | {"seconds": SECONDS}}
Progress = Callable[[float, float | None, str], Awaitable[None]]


@dataclass(frozen=True)
class AgentDesk:
    """What agents may ask for: in this workspace, below these folders, trainings of so many minutes.

    patients: those that the tables of these folders name
    """

    workspace: Workspace
    paths: AllowedPaths
    minutes_limit: float = 60.0
    patients: Patients = field(default_factory=Patients)

    def list_tools(self) -> list[types.Tool]:
        """All tools, each with the schema of its arguments."""
        commands = [_tool(one) for one in COMMANDS if not one.is_own]
        watching = types.ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)
        ending = types.ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
        return [
            *commands,
            _job_tool("job_status", "Say how far a job is, and what it came to.", JOB_SCHEMA, watching),
            _job_tool("job_wait", "Wait until a job has ended, or so many seconds.", WAIT_SCHEMA, watching),
            _job_tool("job_stop", "Stop a job as Ctrl-C does. A training can be resumed.", JOB_SCHEMA, ending),
        ]

    async def call(self, name: str, arguments: Mapping[str, Any], progress: Progress) -> types.CallToolResult:
        """Answer a call. What is refused, or goes wrong, is an answer too."""
        try:
            whole = json.dumps(arguments, default=str)
            if len(whole) > MOST_ARGUMENTS:
                raise UsageError("are too long", f"the arguments of {name[:80]}", "Name a file in their place")
            if "\\u0000" in whole:
                raise UsageError("hold a byte that no path can", f"the arguments of {name[:80]}", "Leave it out")
            if name in ("job_status", "job_wait", "job_stop"):
                return await self._answer_of_job(name, arguments, progress)
            command = next((one for one in COMMANDS if one.name == name and not one.is_own), None)
            if command is None:
                raise UsageError("there is no such tool", name[:80], "Ask for the list of tools")
            request = await anyio.to_thread.run_sync(self.request, command, arguments)
            job = await anyio.to_thread.run_sync(self.workspace.add, request)
            if not command.is_long:
                job = await self._wait(job, ANSWER_S, progress)
        except IsocenterError as error:
            hidden = error.stating(problem=self.patients.hide(error.problem), where=self.patients.hide(error.where))
            return agent_answers.refusal(hidden)
        return agent_answers.job_answer(self.workspace, job, self.patients)

    def request(self, command: Command, arguments: Mapping[str, Any]) -> JobRequest:
        """The job of a call. UsageError for arguments that do not fit, and for all that an agent may not do."""
        _refuse_misfit(command.name, keyword_schema.command_schema(command), arguments)
        values = {name: one for name, one in arguments.items() if one is not None}
        if values.get("trust"):
            raise UsageError("lets a file run code", "trust", "A person gives it at a terminal")
        for name, one in values.items():
            if keyword_schema.is_path(command.keywords[name]):
                values[name] = self.paths.find(one) if isinstance(one, str) else one
                values[name] = [self.paths.find(str(part)) for part in one] if isinstance(one, list) else values[name]
        self.paths.refuse_arguments(command, values)
        for name, keyword in command.keywords.items():
            if name in values and keyword_schema.is_path(keyword) and isinstance(values[name], str):
                columns = [str(values["patient"])] if values.get("patient") else []
                self.patients.learn(self.paths.start / values[name], [*columns, *_patient_columns(values)])
        if "minutes" in command.keywords and command.is_long:
            values["minutes"] = self._minutes(values)
        if "out" in command.keywords and "out" not in values and (out := command.default_out(values)) is not None:
            values["out"] = str(self._free_name(out))
        limit = 60 * self.minutes_limit + GRACE_S if "minutes" in values and command.is_long else None
        return JobRequest(
            command.words,
            command.json_arguments(values),
            command.shell_line(values),
            command.python_call(values),
            "mcp",
            command.is_long,
            str(values.get("out") or ""),
            tuple(map(str, self.paths.roots)),
            limit,
        )

    def _minutes(self, values: Mapping[str, Any]) -> float:
        """Minutes of a training. UsageError for more than an agent may take, by a plan or a setting too."""
        settings = values.get("assignments") or {}
        if not isinstance(settings, Mapping):
            settings = dict(str(one).partition("=")[::2] for one in _listed(settings))
        stated = [values.get("minutes"), settings.get("training.minutes")]
        kept = f"{values['resume']}/plan.yaml" if values.get("resume") else str(values.get("data") or "")
        if kept.endswith((".yaml", ".yml")) and (self.paths.start / kept).is_file():
            stated.append(plan_file.read_plan(self.paths.start / kept)["training.minutes"])
        try:
            asked = [float(one) for one in stated if one is not None]
        except (TypeError, ValueError) as error:
            raise UsageError("is no number", "training.minutes", "Give minutes") from error
        for minutes in asked:
            if not minutes <= self.minutes_limit:
                problem = f"{minutes:g} minutes are more than the {self.minutes_limit:g} that an agent may take"
                raise UsageError(problem, "minutes", "Ask a person to start it, or with a higher --minutes-limit")
        return asked[0] if asked else min(USUAL_MINUTES, self.minutes_limit)

    def _free_name(self, out: Path) -> Path:
        """The name of results, with a number where it is taken: nothing is overwritten."""
        number, name = 1, out
        while (self.paths.start / name).exists():
            number += 1
            name = out.with_name(f"{out.stem}-{number}{out.suffix}")
        return name

    async def _answer_of_job(self, name: str, arguments: Mapping[str, Any], progress: Progress) -> types.CallToolResult:
        _refuse_misfit(name, WAIT_SCHEMA if name == "job_wait" else JOB_SCHEMA, arguments)
        await anyio.to_thread.run_sync(self.workspace.start_next)
        job = await anyio.to_thread.run_sync(self.workspace.job, arguments["job"])
        if name == "job_stop":
            job = await anyio.to_thread.run_sync(self.workspace.stop, job.id)
        if name == "job_wait":
            job = await self._wait(job, float(arguments.get("seconds", LONGEST_WAIT_S)), progress)
        return agent_answers.job_answer(self.workspace, job, self.patients)

    async def _wait(self, job: CommandJob, seconds: float, progress: Progress) -> CommandJob:
        """The job once it has ended, or after so many seconds; meanwhile progress is told."""
        until, place = time.monotonic() + seconds, 0
        folder = self.workspace.job_folder(job.id)
        while not job.is_over and time.monotonic() < until:
            await anyio.sleep(LOOK_S)
            records, place = job_record.read_progress(folder, place)
            if records:
                last = records[-1]
                await progress(float(last.get("done") or 0), last.get("of"), self.patients.hide(str(last.get("what"))))
            if (now := await anyio.to_thread.run_sync(job_record.read_job, folder)) != job:
                job = now
                await anyio.to_thread.run_sync(self.workspace.start_next)
        return job


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _patient_columns(values: Mapping[str, Any]) -> list[str]:
    """Columns that a call says to name patients: column={"patient": "mrn"}, or "patient=mrn"."""
    column = values.get("column") or {}
    if isinstance(column, Mapping):
        return [str(one) for role, one in column.items() if role == "patient"]
    pairs = [pair.partition("=") for text in _listed(column) for pair in str(text).split(",")]
    return [name.strip() for role, _, name in pairs if role.strip() == "patient"]


def _refuse_misfit(name: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """UsageError for arguments that a schema does not allow."""
    error = next(iter(Draft202012Validator(schema).iter_errors(arguments)), None)
    if error is not None:
        where = ".".join([name, *map(str, error.absolute_path)])
        known = ", ".join(schema["properties"])
        raise UsageError(error.message[:300], where, f"The arguments are {known}")


def _tool(command: Command) -> types.Tool:
    hints = types.ToolAnnotations(
        title=f"isocenter {command.words}",
        read_only_hint=command.reads,
        destructive_hint=command.seals,
        idempotent_hint=command.reads,
        open_world_hint=False,
    )
    ending = " It takes long: the answer names a job, for job_wait." if command.is_long else ""
    return types.Tool(
        name=command.name,
        title=f"isocenter {command.words}",
        description=command.text + ending,
        input_schema=keyword_schema.command_schema(command),
        annotations=hints,
    )


def _job_tool(name: str, text: str, schema: dict[str, Any], hints: types.ToolAnnotations) -> types.Tool:
    return types.Tool(name=name, description=text, input_schema=schema, annotations=hints)
