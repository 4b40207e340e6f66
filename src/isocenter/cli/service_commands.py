"""The verbs of a node: parse, call, print."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import Json
from isocenter.cli.shell import say, show

Config = Annotated[Path | None, typer.Option(metavar="FILE", help="File with the node's settings: node.toml.")]
Folder = Annotated[Path | None, typer.Option(metavar="FOLDER", help="The node's folder; by default ./node.")]


def serve(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="MODEL", help="Runs, packages or foreign models.")
    ] = None,
    config: Config = None,
    folder: Folder = None,
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="Part of the node to run: all, receiver, keeper, worker or web.")
    ] = "all",
    check: Annotated[
        bool, typer.Option("--check", help="Check settings, models and ports, and start nothing.")
    ] = False,
) -> None:
    """Run a DICOM node. Studies come in, MODEL answers them, answers go out."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = isocenter.serve(*(models or []), config=config, folder=folder, role=role, check=check)
    if check:
        say(f"{config or 'the settings'}, the models and the ports are in order")
        return
    with node:
        if not node.settings.models:
            say("no model is given: studies are kept but not answered", err=True)
        say(f"ready: {', '.join(node.places)}")
        node.wait(stop)


def route(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A folder of DICOM files, or a UID in the node.")],
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="MODEL", help="Models, in addition to those of --config.")
    ] = None,
    config: Config = None,
    folder: Folder = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every condition of every rule for every series.")
    ] = False,
    json: Json = False,
) -> None:
    """Show which series of STUDY the rules take, and why."""
    result = isocenter.route(study, *(models or []), config=config, folder=folder)
    if explain and not json:
        say(result.explained())
        return
    show(result, result.as_record() if json else None)
