"""From the values of a form or of a call to a job: checked, kept below the roots, with a name for its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from pydantic.json_schema import JsonSchemaValue

from hilum.doors import keyword_schema
from hilum.doors.allowed_paths import AllowedPaths
from hilum.errors import UsageError
from hilum.jobs import JobRequest, Workspace
from hilum.options.command_index import Command, CommandValues
from hilum.planning import plan_file

USUAL_MINUTES = 60.0
# s that a training may end later than its minutes.
GRACE_S = 60.0


@dataclass(frozen=True)
class JobDesk:
    """What may be asked for at a door: in this workspace, below these folders.

    minutes_limit: of a training; None for no limit
    """

    workspace: Workspace
    paths: AllowedPaths
    door: str
    minutes_limit: float | None = None

    def request(self, command: Command, arguments: CommandValues) -> JobRequest:
        """The job of a call. UsageError for arguments that do not fit, and for a path outside."""
        refuse_misfit(command.name, keyword_schema.command_schema(command), arguments)
        values = {name: one for name, one in arguments.items() if one is not None}
        for name, one in values.items():
            if command.keywords[name].is_path:
                values[name] = self.paths.find(one) if isinstance(one, str) else one
                values[name] = [self.paths.find(str(part)) for part in one] if isinstance(one, list) else values[name]
        self.paths.refuse_arguments(command, values)
        limit = None
        if self.minutes_limit is not None and "minutes" in command.keywords and command.is_long:
            values["minutes"] = self._minutes(values, self.minutes_limit)
            limit = 60 * self.minutes_limit + GRACE_S
        if "out" in command.keywords and "out" not in values and (out := command.default_out(values)) is not None:
            values["out"] = str(self._free_name(out))
        elif "overwrite" in command.keywords and values.get("out") and not values.get("resume"):
            self._refuse_taken(str(values["out"]))
        return JobRequest(
            command.words,
            command.json_arguments(values),
            command.shell_line(values),
            command.python_call(values),
            self.door,
            command.is_long,
            str(values.get("out") or values.get("resume") or ""),
            tuple(map(str, self.paths.roots)),
            limit,
        )

    def _minutes(self, values: CommandValues, most: float) -> float:
        """Minutes of a training. UsageError for more than an agent may take, by a plan or a setting too."""
        settings = values.get("assignments") or {}
        if not isinstance(settings, Mapping):
            settings = dict(str(one).partition("=")[::2] for one in as_list(settings))
        stated = [values.get("minutes"), settings.get("training.minutes")]
        kept = f"{values['resume']}/plan.yaml" if values.get("resume") else str(values.get("data") or "")
        if kept.endswith((".yaml", ".yml")) and (self.paths.start / kept).is_file():
            stated.append(plan_file.read_plan(self.paths.start / kept)["training.minutes"])
        try:
            asked = [float(one) for one in stated if one is not None]
        except (TypeError, ValueError) as error:
            raise UsageError("is no number", "training.minutes", "Give minutes") from error
        for minutes in asked:
            if not minutes <= most:
                problem = f"{minutes:g} minutes are more than the {most:g} that an agent may take"
                raise UsageError(problem, "minutes", "Ask a person to start it, or with a higher --minutes-limit")
        return asked[0] if asked else min(USUAL_MINUTES, most)

    def _refuse_taken(self, out: str) -> None:
        """UsageError for results that are there, or that a job writes: a command may replace its own, no door does."""
        promised = {job.out for job in self.workspace.list_jobs()[0] if not job.is_over}
        if out in promised or (self.paths.start / out).exists():
            raise UsageError("is there already, and nothing is overwritten here", out, "Choose another out")

    def _free_name(self, out: Path) -> Path:
        """The name of results, with a number where it is taken: nothing is overwritten."""
        number, name = 1, out
        promised = {job.out for job in self.workspace.list_jobs()[0] if not job.is_over}
        while (self.paths.start / name).exists() or str(name) in promised:
            number += 1
            name = out.with_name(f"{out.stem}-{number}{out.suffix}")
        return name


def as_list(value: Any) -> list[Any]:
    """A value that may be one or several, as several."""
    return value if isinstance(value, list) else [value]


def refuse_misfit(name: str, schema: JsonSchemaValue, arguments: CommandValues) -> None:
    """UsageError for arguments that a schema does not allow."""
    error = next(iter(Draft202012Validator(schema).iter_errors(arguments)), None)
    if error is not None:
        where = ".".join([name, *map(str, error.absolute_path)])
        known = ", ".join(schema["properties"])
        # Of an option of several types what a number of its type breaks says more than that it is none of them.
        plain = next((one for one in error.context or () if one.validator != "type"), error)
        raise UsageError(plain.message[:300], where, f"The arguments are {known}")
