"""The tools of agents: every command but those of a person at a terminal, and the jobs that they start."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import anyio
import mcp_types as types
from pydantic.json_schema import JsonSchemaValue

from hilum.doors import agent_answers, job_desk, keyword_schema
from hilum.doors.agent_answers import Patients
from hilum.doors.job_desk import JobDesk
from hilum.errors import HilumError, UsageError
from hilum.jobs import CommandJob, JobRequest, job_record
from hilum.options.command_index import COMMANDS, Command, CommandValues
from hilum.values import grouping

# Clients give up after a minute.
LONGEST_WAIT_S, LOOK_S = 50.0, 0.1
# s for which a short command is waited for before its job is named, and beyond the minutes that a training may take.
ANSWER_S, GRACE_S = 45.0, 60.0
MOST_ARGUMENTS = 1 << 20
USUAL_MINUTES = 60.0
JOB_SCHEMA: JsonSchemaValue = {
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
class AgentDesk(JobDesk):
    """What agents may ask for.

    patients: those that the tables of these folders name
    """

    patients: Patients = field(default_factory=Patients)

    def agent_request(self, command: Command, arguments: CommandValues) -> JobRequest:
        """The job of a call. UsageError for what only a person may do; the patients of its tables are noted."""
        request, values = self.request(command, arguments), dict(arguments)
        if values.get("trust"):
            raise UsageError("lets a file run code", "trust", "A person gives it at a terminal")
        roles = _role_columns(values)
        columns = [*([str(values["patient"])] if values.get("patient") else []), *roles.get("patient", [])]
        given = [name for name, keyword in command.keywords.items() if keyword.is_path]
        places = [values[name] for name in given if isinstance(values.get(name), str)]
        paths = [self.paths.start / self.paths.find(place) for place in places]
        for path in paths:
            self.patients.learn(path, columns)
        tables = [table for path in paths for table in ([path] if path.is_file() else sorted(path.glob("*.*")))]
        for role, named in roles.items():
            for column in named:
                self.patients.refuse_role(role, column, tables)
        return request

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

    async def call(self, name: str, arguments: CommandValues, progress: Progress) -> types.CallToolResult:
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
            request = await anyio.to_thread.run_sync(self.agent_request, command, arguments)
            job = await anyio.to_thread.run_sync(self.workspace.add, request)
            if not command.is_long:
                job = await self._wait(job, ANSWER_S, progress)
        except HilumError as error:
            hidden = error.stating(problem=self.patients.hide(error.problem), where=self.patients.hide(error.where))
            return agent_answers.refusal(hidden)
        return agent_answers.job_answer(self.workspace, job, self.patients)

    async def _answer_of_job(self, name: str, arguments: CommandValues, progress: Progress) -> types.CallToolResult:
        job_desk.refuse_misfit(name, WAIT_SCHEMA if name == "job_wait" else JOB_SCHEMA, arguments)
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
                done, of = cast("float", last.get("done") or 0), cast("float | None", last.get("of"))
                await progress(float(done), of, self.patients.hide(str(last.get("what"))))
            if (now := await anyio.to_thread.run_sync(job_record.read_job, folder)) != job:
                job = now
                await anyio.to_thread.run_sync(self.workspace.start_next)
        return job


def _role_columns(values: CommandValues) -> dict[str, list[str]]:
    """{role: columns} as a call names them: column={"patient": "mrn"}, or "patient=mrn"."""
    column = values.get("column") or {}
    if isinstance(column, Mapping):
        return {str(role): [str(name)] for role, name in column.items()}
    pairs = [pair.partition("=") for text in job_desk.as_list(column) for pair in str(text).split(",")]
    return grouping.by_key((role.strip(), name.strip()) for role, _, name in pairs)


def _tool(command: Command) -> types.Tool:
    hints = types.ToolAnnotations(
        title=f"hilum {command.words}",
        read_only_hint=command.reads,
        destructive_hint=command.seals,
        idempotent_hint=command.reads,
        open_world_hint=False,
    )
    ending = " It takes long: the answer names a job, for job_wait." if command.is_long else ""
    return types.Tool(
        name=command.name,
        title=f"hilum {command.words}",
        description=command.text + ending,
        input_schema=keyword_schema.command_schema(command),
        annotations=hints,
    )


def _job_tool(name: str, text: str, schema: JsonSchemaValue, hints: types.ToolAnnotations) -> types.Tool:
    return types.Tool(name=name, description=text, input_schema=schema, annotations=hints)
