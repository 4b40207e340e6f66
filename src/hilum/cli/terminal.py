"""The command line itself, and what all its verbs do with a result."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hilum import errors
from hilum.errors import HilumError
from hilum.options import command_index
from hilum.options.command_index import CommandValues
from hilum.values import plain_values

if TYPE_CHECKING:
    from hilum.values import Problem

app = typer.Typer(
    name="hilum",
    help="Train, test and use medical-imaging models.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class PartlyFailedError(HilumError):
    """The work is done and shown, and a part of it failed, or what it found forbids to go on."""


def fail_if(result: Any, values: CommandValues) -> None:
    """Exit with 1 where a part of the work failed, once the rest is done."""
    problems: Sequence[Problem] = result.failures
    if problems:
        first = problems[0]
        problem = f"{len(problems)} failed; the first: {first.what}"
        raise PartlyFailedError(problem, ", ".join(first.cases), first.remedy)


def refuse_data(result: Any, values: CommandValues) -> None:
    """Exit with 1 for data on which nothing can be trained."""
    if not result.passed:
        fatal = result.examination.fatal[0]
        raise PartlyFailedError(fatal.what, str(values["data"]), fatal.remedy)


def refuse_change(result: Any, values: CommandValues) -> None:
    """Exit with 1 for a change that the plan does not allow."""
    if not result.is_allowed:
        remedy = "Keep the old model, or agree on another plan"
        raise PartlyFailedError(f"the change is {result.verdict}", str(values["new"]), remedy)


def refuse_acceptance(result: Any, values: CommandValues) -> None:
    """Exit with 1 for a model that was not accepted."""
    if not result.is_accepted:
        remedy = "Keep it from patients, or agree on another model"
        raise PartlyFailedError(f"the model is {result.verdict}", str(values["model"]), remedy)


def refuse_machine(result: Any, values: CommandValues) -> None:
    """Exit with 1 for a machine on which the main job cannot run."""
    if not result.is_ready:
        first = result.obstacles[0]
        raise PartlyFailedError(first.found, first.what, first.remedy)


def refuse_untraced(result: Any, values: CommandValues) -> None:
    """Exit with 1 for requirements that nothing shows."""
    if result.broken:
        first = result.broken[0]
        problem = f"{len(result.broken)} do not hold; the first: {first.id}: {first.problems[0]}"
        remedy = "Add the test, the code or the control that is missing"
        raise PartlyFailedError(problem, str(values["requirements"]), remedy)


def refuse_unmet(result: Any, values: CommandValues) -> None:
    """Exit with 1 for a target that nothing meets."""
    if result.unmet:
        raise PartlyFailedError(result.unmet, "--target", "Ask for less, or try other --methods")


def refuse_outdated(result: Any, values: CommandValues) -> None:
    """Exit with 1 for rows of documents whose records say something else."""
    if result.broken:
        problem = f"{len(result.broken)} no longer hold; the first: {result.broken[0]}"
        raise PartlyFailedError(problem, str(values["folder"]), "Write the documents anew, or restore the records")


def show(result: object, record: object) -> None:
    """Print a result, or its record as JSON, in which what is no number is null."""
    if is_first_process():
        say(str(result) if record is None else json.dumps(plain_values.as_json(record), default=str, allow_nan=False))


def say(text: str, *, err: bool = False) -> None:
    """Print text, of which names may come from strangers' files."""
    typer.echo(errors.printable_text(text), err=err)


def default_out(verb: str, path: Path) -> Path:
    """The folder that a verb writes by default: ./<verb>-<name>."""
    return Path(f"{verb}-{command_index.name_without_suffixes(path)}")


def is_first_process() -> bool:
    """Whether this process says what is done: of several that torchrun has begun only the first."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"
