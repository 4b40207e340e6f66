"""Every command, made of the options of its verb: what it takes, what it calls, its page of help."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

import hilum
from hilum import errors
from hilum.cli import terminal
from hilum.cli.terminal import app
from hilum.errors import UsageError
from hilum.jobs import job_process
from hilum.options.command_index import COMMANDS, GROUPS, Command, CommandValues
from hilum.values import Setting, setting_fields

PASSWORD = "HILUM_PASSWORD"  # noqa: S105 - the name of a variable


# Verbs that speak, ask or wait at the terminal while they work.


def serve_until_signal(**options: Any) -> None:
    """A node until a signal ends it, or nothing but a look at its settings."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = hilum.serve(**options)
    if options["check"]:
        for warning in node.warnings:
            terminal.say(f"warning: {warning}", err=True)
        terminal.say(f"{options.get('config') or 'the settings'}, the models and the ports are in order")
        return
    with node:
        if not node.settings.models:
            terminal.say("no model is given: studies are kept but not answered", err=True)
        terminal.say(f"ready: {', '.join(node.places)}")
        node.wait(stop)


def show_demo(**options: Any) -> None:
    """The demonstration, which prints its own lines."""
    hilum.demo(**options, say=terminal.say)


def export_and_count(**options: Any) -> None:
    """The events in a file, and their number."""
    terminal.say(f"{errors.count_phrase(hilum.export_audit(**options), 'event')} in {options['out']}")


def ask_and_roll_back(**options: Any) -> object:
    """A change taken back, once the account's password is known."""
    if "account" in options:
        password = os.environ.get(PASSWORD)
        options["password"] = typer.prompt("Password", hide_input=True, err=True) if password is None else password
    return hilum.roll_back_change(**options)


def join_and_ask(**options: Any) -> object:
    """A site of a federation, where a person is shown the plan and may refuse it."""

    def agrees(plan: str) -> bool:
        terminal.say(plan, err=True)
        return typer.confirm("Take part by this plan?", err=True)

    return hilum.join_federation(**options, ask=agrees)


def serve_agents(**options: Any) -> None:
    """Tools for agents until their end is closed, or Ctrl-C."""
    hilum.mcp(**options, say=terminal.say)


def serve_studio(**options: Any) -> None:
    """The page until Ctrl-C; its address is the first line."""
    hilum.studio(**options, say=terminal.say)


# What refuses, once a result is shown, what it says against going on.
ENDS: Mapping[str, Callable[[Any, Any], None]] = {
    "check": terminal.refuse_data,
    "evaluate": terminal.fail_if,
    "predict": terminal.fail_if,
    "explain": terminal.fail_if,
    "embed": terminal.fail_if,
    "compress": terminal.refuse_unmet,
    "convert": terminal.fail_if,
    "enhance": terminal.fail_if,
    "deidentify": terminal.fail_if,
    "reconstruct": terminal.fail_if,
    "document verify": terminal.refuse_outdated,
    "document trace": terminal.refuse_untraced,
    "change check": terminal.refuse_change,
    "accept": terminal.refuse_acceptance,
    "doctor": terminal.refuse_machine,
}
# Commands that speak, ask or wait at the terminal, in place of their verb.
DIALOGUES: Mapping[str, Callable[..., Any]] = {
    "studio": serve_studio,
    "mcp": serve_agents,
    "serve": serve_until_signal,
    "demo": show_demo,
    "audit export": export_and_count,
    "change rollback": ask_and_roll_back,
    "federation join": join_and_ask,
}
JSON = "Print the result as one JSON document."


def run_command(command: Command, typed: CommandValues, *, as_json: bool) -> None:
    """Call the verb with what was typed, and show what it returns."""
    known = command.keywords
    values = {name: _value(known[name], one) for name, one in typed.items() if one not in (None, [])}
    if "out" in known and "out" not in values and (out := command.default_out(values)) is not None:
        values["out"] = out
    forms = [name for name in command.forms if values.pop(name)]
    if len(forms) > 1:
        switches = ", ".join(known[name].command_line_name for name in forms)
        raise UsageError("are two forms of the result", switches, "Give one of them")
    verb = DIALOGUES.get(command.words) or getattr(hilum, command.verb or command.words)
    result = verb(**values)
    if result is not None:
        shown = getattr(result, forms[0]) if forms else result
        job_process.keep_words(str(shown))
        terminal.show(shown, result.as_record() if as_json else None)
    if (end := ENDS.get(command.words)) is not None:
        end(result, values)


def typed_function(command: Command) -> Callable[..., None]:
    """A function with a parameter for each flag, as typer takes it."""

    def called(**typed: Any) -> None:
        as_json = bool(typed.pop("json", False))
        run_command(command, typed, as_json=as_json)

    parameters = [_flag_parameter(command, one) for one in command.keywords.values()]
    if command.is_json:
        place = next((n + 1 for n, one in enumerate(parameters) if one.name == "overwrite"), len(parameters))
        parameters.insert(place, _parameter("json", bool, typer.Option("--json", help=JSON), False))
    called.__name__, called.__doc__ = command.words.split()[-1], command.text
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # of any function
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


def _flag_parameter(command: Command, keyword: Setting) -> inspect.Parameter:
    kind, default, limits = _kind(keyword), keyword.default, keyword.limits
    texts = {"help": command.fill(keyword.help), "metavar": keyword.metavar or None}
    if keyword.is_required:
        default = None if keyword.path else inspect.Parameter.empty
    elif isinstance(default, tuple):
        default = None
    if keyword.command_line_name == keyword.metavar:
        return _parameter(keyword.attribute, kind, typer.Argument(**cast("Any", texts)), default)
    name = keyword.command_line_name
    name = f"{name}/--no{name[1:]}" if kind is bool and default is None else name
    option = typer.Option(name, min=limits.get("least"), max=limits.get("most"), **cast("Any", texts))
    return _parameter(keyword.attribute, kind, option, default)


def _parameter(name: str, kind: Any, info: Any, default: Any) -> inspect.Parameter:
    optional = kind if default is not None else kind | None
    annotation = Annotated[optional, info]  # type: ignore[valid-type]  # a type of the running program
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _kind(keyword: Setting) -> Any:
    """The type that a word is read as: a number or a text, which becomes a path later; a list where it repeats."""
    members = list(setting_fields.parts_of(keyword.type))
    is_text = keyword.read is not None or keyword.is_path
    kind = str if is_text else next((one for one in (bool, int, float) if one in members), str)
    if keyword.values > 1:
        return tuple[(kind,) * keyword.values]  # type: ignore[misc]  # a type of the running program
    return list[kind] if keyword.repeats else kind  # type: ignore[valid-type]  # a type of the running program


def _value(keyword: Setting, typed: Any) -> Any:
    """The value in Python of what was typed. Raises UsageError for an empty path, as of a variable that is not set."""
    if keyword.read is not None:
        return keyword.read(typed)
    keyword.refuse_empty_path(typed)
    if not keyword.is_path:
        return typed
    return Path(typed) if isinstance(typed, str) else [Path(word) for word in typed]


class VerbCommand(TyperCommand):
    """A command whose help names neither types of Python nor bounds that nobody meets."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] MODEL INPUT...`"""
        return ["[OPTIONS]", *(_placeholder(one) for one in self.get_params(ctx) if _is_argument(one))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Two lists: what is given by its place, and what is given by a flag."""
        shown = self.get_params(ctx)
        arguments = [(_placeholder(one), _text(one)) for one in shown if _is_argument(one)]
        help_records = [(one, one.get_help_record(ctx)) for one in shown if not _is_argument(one)]
        flags = [(record[0], _text(one)) for one, record in help_records if record is not None]
        for title, rows in (("Arguments", arguments), ("Options", flags)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        group = ctx.parent.command.get_command(ctx.parent, ctx.info_name)
        if isinstance(group, CommandGroup):
            group.format_commands(ctx, formatter)


class CommandGroup(TyperGroup):
    """Commands under one name. Where a verb has this name too, it gets every line whose first word names no command."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands without the verb of the group's name."""
        return [name for name in self.commands if name != self.name]

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of one of the commands, or of the verb."""
        verb = self.commands.get(str(self.name))
        if verb is None or (args and args[0] in self.list_commands(parent)):
            return super().make_context(info_name, args, parent=parent, **extra)
        return verb.make_context(info_name, args, parent=parent, **extra)


def _text(parameter: Any) -> str:
    text, value = str(parameter.help or ""), parameter.default
    # Without a value the text itself says what holds; a switch is off.
    if parameter.required or value in (None, "") or value is False or not getattr(parameter, "show_default", True):
        return text
    return f"{text}  [default: {f'{value:g}' if isinstance(value, float) else value}]"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _placeholder(argument: Any) -> str:
    """DATA, [DATA] where it can be left out, MODEL... where there may be several."""
    name = str(argument.metavar or argument.name)
    return f"{name if argument.required else f'[{name}]'}{'...' if argument.nargs != 1 else ''}"


class CommandList(TyperGroup):
    """All commands. Each is made when it is asked for: a command line names one of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        first_words = [one.words.split()[0] for one in COMMANDS]
        groups = [one.words.split()[0] for one in COMMANDS if " " in one.words]
        single = [word for word in first_words if word not in groups]
        names: dict[str, Any] = dict.fromkeys([*single, *groups])
        self.commands = names  # of which the nearest to a wrong one is suggested

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands as help lists them, groups last."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or the group, of a name."""
        return _make_command(cmd_name) if cmd_name in self.commands else None


@cache
def _make_command(name: str) -> Any:
    """A command, or all of a group under its name."""
    commands = [one for one in COMMANDS if one.words.split()[0] == name]
    text = GROUPS.get(name) or next(one.text for one in commands if one.words == name)
    made = typer.Typer(name=name, cls=CommandGroup, help=text, add_completion=False, rich_markup_mode=None)
    for command in commands:
        made.command(command.words.split()[-1], cls=VerbCommand)(typed_function(command))
    is_group = any(" " in command.words for command in commands)
    return typer.main.get_group(made) if is_group else typer.main.get_command(made)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(hilum.__version__)
        raise typer.Exit


@app.callback(cls=CommandList)
def hilum_itself(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train, test and use medical-imaging models: from a folder of images to a report and a package."""


__all__ = ["app"]
