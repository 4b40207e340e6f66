"""Every command, made of the options of its verb: what it takes, what it calls, its page of help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

import isocenter
from isocenter import keywords
from isocenter.cli import dialogue, terminal
from isocenter.cli.terminal import app
from isocenter.errors import UsageError
from isocenter.jobs import job_process
from isocenter.keywords import Flag, Keyword
from isocenter.options import images, models, node, records, training


@dataclass(frozen=True)
class Command:
    """One command.

    words:    on the command line: "plan", or "study size" of a group
    options:  of the verb, whose fields are the flags
    verb:     of Python, by default that of the same name; or a function that takes its options
    named_by: the option by which a folder of results is called, by default the first
    is_json:  whether the result can be printed as JSON
    ends:     refuses, once the result is shown, what it says against going on
    forms:    {property of the result: switch that prints it in place of the result}
    """

    words: str
    options: type
    verb: str | Callable[..., Any] = ""
    named_by: str = ""
    is_json: bool = True
    ends: Callable[[Any, Any], None] | None = None
    forms: Mapping[str, Flag] = field(default_factory=dict)

    @property
    def keywords(self) -> Mapping[str, Keyword]:
        """The options that have a flag, by name, and the switches of the forms."""
        options = {name: one for name, one in keywords.keywords_of(self.options).items() if one.flag.text}
        return options | {name: Keyword(name, bool, False, flag, is_place=False) for name, flag in self.forms.items()}

    @property
    def text(self) -> str:
        """The sentence of the options."""
        return (self.options.__doc__ or "").partition("\n")[0]

    def result(self, values: Mapping[str, Any]) -> Any:
        """Result of the verb for these options."""
        verb = self.verb if callable(self.verb) else getattr(isocenter, self.verb or self.words)
        return verb(**values)

    def run(self, typed: Mapping[str, Any], *, as_json: bool) -> None:
        """Call the verb with what was typed, and show what it returns."""
        known = self.keywords
        values = {name: _value(known[name], one) for name, one in typed.items() if one not in (None, [])}
        if "out" in known and "out" not in values:
            values |= self._chosen_out(known["out"].flag.path, values)
        forms = [name for name in self.forms if values.pop(name)]
        if len(forms) > 1:
            switches = ", ".join(known[name].command_line_name for name in forms)
            raise UsageError("are two forms of the result", switches, "Give one of them")
        result = self.result(values)
        if result is not None:
            job_process.keep_words(str(getattr(result, forms[0]) if forms else result))
            terminal.show(getattr(result, forms[0]) if forms else result, result.as_record() if as_json else None)
        if self.ends is not None:
            self.ends(result, values)

    def _chosen_out(self, pattern: str, values: Mapping[str, Any]) -> dict[str, Path]:
        """The path of results where none is given, as an option; none where there is nothing to call it by."""
        source = values.get(self.named_by) or values.get(next(iter(self.keywords)))
        if not pattern or source is None:
            return {}
        name = terminal.name_without_suffixes(Path(source[0] if isinstance(source, list) else source))
        return {"out": Path(self.fill(pattern).replace("<name>", name))}

    def fill(self, text: str) -> str:
        """A text in which the command stands for its own name."""
        return text.replace("<verb>", self.words.split()[0])

    @property
    def function(self) -> Callable[..., None]:
        """A function with a parameter for each flag, as typer takes it."""

        def called(**typed: Any) -> None:
            as_json = bool(typed.pop("json", False))
            self.run(typed, as_json=as_json)

        parameters = [self._parameter(one) for one in self.keywords.values()]
        if self.is_json:
            place = next((n + 1 for n, one in enumerate(parameters) if one.name == "overwrite"), len(parameters))
            parameters.insert(place, _parameter("json", bool, typer.Option("--json", help=JSON), False))
        called.__name__, called.__doc__ = self.words.split()[-1], self.text
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    def _parameter(self, keyword: Keyword) -> inspect.Parameter:
        flag, default = keyword.flag, keyword.default
        kind, texts = _kind(keyword), {"help": self.fill(flag.help), "metavar": flag.metavar or None}
        if keyword.is_required:
            default = None if flag.path else inspect.Parameter.empty
        elif isinstance(default, tuple):
            default = None
        if keyword.command_line_name == flag.metavar:
            return _parameter(keyword.name, kind, typer.Argument(**texts), default)  # type: ignore[arg-type]
        name = (
            f"{keyword.command_line_name}/--no{keyword.command_line_name[1:]}"
            if kind is bool and default is None
            else keyword.command_line_name
        )
        option = typer.Option(name, min=flag.least, max=flag.most, **texts)  # type: ignore[arg-type]
        return _parameter(keyword.name, kind, option, default)


JSON = "Print the result as one JSON document."


def _parameter(name: str, kind: Any, info: Any, default: Any) -> inspect.Parameter:
    optional = kind if default is not None else kind | None
    annotation = Annotated[optional, info]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _kind(keyword: Keyword) -> Any:
    """The type that a word is read as: a path, a number or a text, and a list where a flag repeats."""
    flag, members = keyword.flag, set(_members(keyword.kind))
    kind = str if flag.read else next((one for one in (Path, bool, int, float) if one in members), str)
    if flag.values > 1:
        return tuple[(kind,) * flag.values]  # type: ignore[misc]
    return list[kind] if flag.repeats else kind  # type: ignore[valid-type]


def _members(kind: Any) -> Iterator[Any]:
    """The types that a type is made of."""
    if get_origin(kind) is Literal:
        yield str
    elif isinstance(kind, UnionType) or get_origin(kind) is not None:
        for one in get_args(kind):
            yield from _members(one)
    else:
        yield kind


def _value(keyword: Keyword, typed: Any) -> Any:
    """The value in Python of what was typed."""
    return typed if keyword.flag.read is None else keyword.flag.read(typed)


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
        group = ctx.parent.command.commands[ctx.info_name]
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


PLAN_FORMS = {
    "prose": Flag("Print the reasons as prose.", name="--explain"),
    "all_decisions": Flag("Print also the decisions that have their defaults."),
}
ROUTE_FORMS = {"explained": Flag("Show every condition of every rule for every series.", name="--explain")}
# In the order in which help lists them, groups last.
COMMANDS = (
    Command("check", training.CheckOptions, ends=terminal.refuse_data),
    Command("plan", training.PlanOptions, forms=PLAN_FORMS),
    Command("train", training.TrainOptions),
    Command("pretrain", training.PretrainOptions),
    Command("evaluate", training.EvaluateOptions, named_by="data", ends=terminal.fail_if),
    Command("compare", training.CompareOptions),
    Command("ensemble", training.EnsembleOptions),
    Command("predict", models.PredictOptions, named_by="inputs", ends=terminal.fail_if),
    Command("explain", models.ExplainOptions, named_by="inputs", ends=terminal.fail_if),
    Command("embed", models.EmbedOptions, named_by="inputs", ends=terminal.fail_if),
    Command("package", models.PackageOptions),
    Command("compress", models.CompressOptions, ends=terminal.refuse_unmet),
    Command("calibrate", models.CalibrateOptions),
    Command("adopt", models.AdoptOptions),
    Command("convert", images.ConvertOptions, ends=terminal.fail_if),
    Command("enhance", images.EnhanceOptions, named_by="inputs", ends=terminal.fail_if),
    Command("deidentify", images.DeidentifyOptions, ends=terminal.fail_if),
    Command("reconstruct", images.ReconstructOptions, named_by="inputs", ends=terminal.fail_if),
    Command("register", images.RegisterOptions, named_by="moving"),
    Command("register frames", images.RegisterFramesOptions, "register_frames"),
    Command("view", images.ViewOptions, is_json=False),
    Command("serve", node.ServeOptions, dialogue.serve_until_signal, is_json=False),
    Command("route", node.RouteOptions, forms=ROUTE_FORMS),
    Command("monitor", node.MonitorOptions),
    Command("feedback", node.FeedbackOptions),
    Command("feedback import", node.ImportLabelsOptions, "import_labels"),
    Command("feedback next", node.NextLabelsOptions, "next_labels"),
    Command("document", records.DocumentOptions),
    Command("document verify", records.VerifyDocumentsOptions, "verify_documents", ends=terminal.refuse_outdated),
    Command("document trace", records.TraceRequirementsOptions, "trace_requirements", ends=terminal.refuse_untraced),
    Command("networks", models.NetworksOptions, "describe_networks"),
    Command("networks weights", models.WeightsOptions, "describe_weights"),
    Command("cache", training.CacheOptions, "describe_cache"),
    Command("demo", training.DemoOptions, dialogue.show_demo, is_json=False),
    Command("backup", node.BackupOptions),
    Command("restore", node.RestoreOptions),
    Command("audit verify", node.VerifyAuditOptions, "verify_audit"),
    Command("audit export", node.ExportAuditOptions, dialogue.export_and_count, is_json=False),
    Command("change check", records.CheckChangeOptions, "check_change", named_by="new", ends=terminal.refuse_change),
    Command("change propose", records.ProposeChangeOptions, "propose_change"),
    Command("change shadow", node.ShadowChangeOptions, "shadow_change"),
    Command("change split", node.SplitChangeOptions, "split_change"),
    Command("change promote", node.PromoteChangeOptions, "promote_change"),
    Command("change rollback", node.RollBackChangeOptions, dialogue.ask_and_roll_back),
    Command("change status", node.ChangeStatusOptions, "change_status"),
    Command("study size", records.StudySizeOptions, "study_size"),
    Command("study plan", records.StudyPlanOptions, "study_plan"),
    Command("study lock", records.StudyLockOptions, "study_lock"),
    Command("study randomise", records.StudyRandomiseOptions, "study_randomise"),
    Command("study assign", records.StudyAssignOptions, "study_assign"),
    Command("study analyse", records.StudyAnalyseOptions, "study_analyse"),
    Command("study before-after", records.StudyBeforeAfterOptions, "study_before_after"),
)
# Groups without a verb of their own.
GROUPS = {
    "audit": "Check and export the events of a node.",
    "change": "Change a model inside an agreed plan.",
    "study": "Size, plan, run and analyse a study of a model in use.",
}


def add_commands() -> None:
    """Give the command line every command, those of a group under its name."""
    texts = GROUPS | {one.words: one.text for one in COMMANDS}
    groups = {
        name: typer.Typer(name=name, cls=CommandGroup, help=texts[name], add_completion=False, rich_markup_mode=None)
        for name in dict.fromkeys(one.words.split()[0] for one in COMMANDS if " " in one.words)
    }
    for command in COMMANDS:
        words = command.words.split()
        groups.get(words[0], app).command(words[-1], cls=VerbCommand)(command.function)
    for one in groups.values():
        app.add_typer(one)


add_commands()

__all__ = ["COMMANDS", "app"]
