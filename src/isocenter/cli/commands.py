"""Every verb as a command, in the order in which help lists them, and the page of help of a verb."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from isocenter.cli.change_commands import check as change_check
from isocenter.cli.change_commands import promote, propose, rollback, shadow, split, status
from isocenter.cli.document_commands import document
from isocenter.cli.images import convert, register, view
from isocenter.cli.model_commands import adopt, calibrate, embed, explain, networks, package, predict
from isocenter.cli.service_commands import export, feedback, monitor, route, serve, verify
from isocenter.cli.shell import app
from isocenter.cli.study_commands import analyse, assign, lock, randomise, size
from isocenter.cli.study_commands import plan as study_plan
from isocenter.cli.train_commands import check, compare, demo, ensemble, evaluate, plan, pretrain, train


class Verb(TyperCommand):
    """A command whose help names neither types of Python nor bounds that nobody meets."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] MODEL INPUT...`"""
        return ["[OPTIONS]", *(_placeholder(one) for one in self.get_params(ctx) if _is_argument(one))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Two lists: what is given by its place, and what is given by a flag."""
        shown = self.get_params(ctx)
        arguments = [(_placeholder(one), self._text(one)) for one in shown if _is_argument(one)]
        records = [(one, one.get_help_record(ctx)) for one in shown if not _is_argument(one)]
        flags = [(record[0], self._text(one)) for one, record in records if record is not None]
        for title, rows in (("Arguments", arguments), ("Options", flags)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _text(self, parameter: Any) -> str:
        text = str(parameter.help or "").replace("<verb>", self.name or "")
        value = parameter.default
        # Without a value the text itself says what holds; a switch is off.
        if parameter.required or value is None or value is False or not getattr(parameter, "show_default", True):
            return text
        return f"{text}  [default: {f'{value:g}' if isinstance(value, float) else value}]"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _placeholder(argument: Any) -> str:
    """DATA, [DATA] where it can be left out, MODEL... where there may be several."""
    name = str(argument.metavar or argument.name)
    return f"{name if argument.required else f'[{name}]'}{'...' if argument.nargs != 1 else ''}"


for verb in (
    check,
    plan,
    train,
    pretrain,
    evaluate,
    compare,
    ensemble,
    predict,
    explain,
    embed,
    package,
    calibrate,
    adopt,
    convert,
    register,
    view,
    serve,
    route,
    monitor,
    feedback,
    document,
    networks,
    demo,
):
    app.command(cls=Verb)(verb)

# Groups of commands: their help, and of each command its function.
for name, text, commands in (
    ("audit", "Check and export the events of a node.", (verify, export)),
    (
        "change",
        "Change a model inside an agreed plan.",
        (change_check, propose, shadow, split, promote, rollback, status),
    ),
    (
        "study",
        "Size, plan, run and analyse a study of a model in use.",
        (size, study_plan, lock, randomise, assign, analyse),
    ),
):
    group = typer.Typer(name=name, help=text, add_completion=False, rich_markup_mode=None)
    for command in commands:
        group.command(cls=Verb)(command)
    app.add_typer(group)

__all__ = ["app"]
