"""The verbs of a node: parse, call, print."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import Json, Out, Overwrite
from isocenter.cli.shell import default_out, say, show
from isocenter.errors import UsageError, counted

Config = Annotated[Path | None, typer.Option(metavar="FILE", help="File with the node's settings: node.toml.")]
Folder = Annotated[Path | None, typer.Option(metavar="FOLDER", help="The node's folder; by default ./node.")]


def serve(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="MODEL", help="Runs, packages or foreign models.")
    ] = None,
    config: Config = None,
    folder: Folder = None,
    role: Annotated[
        str,
        typer.Option(metavar="ROLE", help="Part of the node to run: all, receiver, keeper, worker, web or monitor."),
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


def feedback(
    node: Annotated[Path, typer.Argument(metavar="NODE", help="The folder of a node.")],
    since: Annotated[str | None, typer.Option(metavar="DATE", help="First day, as 2026-03-01.")] = None,
    rule: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose results: those of a rule, or of another product.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--import", metavar="TABLE", help="Take in labels that came later, and write no data set."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--next", metavar="N", help="Choose N cases to label next, and write no data set."),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="How --next chooses: random, uncertainty or typical.")
    ] = "random",
    locked: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="A locked test set, of whose patients --next chooses no case."),
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write what people judged on a node as a data set."""
    folder = out or default_out("feedback", node)
    if count is None and (locked is not None or method != "random"):
        raise UsageError("--method and --locked say how --next chooses", "--next", "Give --next N")
    if table is not None and count is not None:
        raise UsageError("--import and --next are two commands", "--next", "Give one of them, then the other")
    if table is not None:
        taken = isocenter.import_labels(node, table, rule=rule)
        show(taken, taken.as_record() if json else None)
    elif count is not None:
        chosen = isocenter.next_labels(
            node, count, method=method, locked=locked, rule=rule, out=folder, overwrite=overwrite
        )
        show(chosen, chosen.as_record() if json else None)
    else:
        result = isocenter.feedback(node, out=folder, since=since, rule=rule, overwrite=overwrite)
        show(result, result.as_record() if json else None)


def monitor(
    table: Annotated[
        Path,
        typer.Argument(metavar="NODE|TABLE", help="A node's folder; or cases that a model answered, CSV or Parquet."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="The baseline of a table; what a site is compared with when it goes live."),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="First day, as 2026-03-01.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="First day that no longer counts.")] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="GROUPS", help="Attributes to trace a change to: station,software,age:40:60."),
    ] = None,
    run_length: Annotated[
        float | None,
        typer.Option(metavar="N", help="Cases between false alarms of all watches; by default 10,000."),
    ] = None,
    bound: Annotated[
        list[str] | None,
        typer.Option(metavar="M:LABEL:V", help="Least audited value: sensitivity:nodule:0.8. Repeatable."),
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Watch a model in use: drift, performance, alerts."""
    bounds = [_bound(one) for one in bound or ()]
    result = isocenter.monitor(
        table,
        reference=reference,
        since=since,
        until=until,
        by=by,
        run_length=run_length,
        bounds=bounds,
        out=out or default_out("monitor", table),
        overwrite=overwrite,
    )
    show(result, result.as_record() if json else None)


def verify(
    place: Annotated[
        Path, typer.Argument(metavar="NODE|FILE", help="A node's folder, or a file that `export` has written as jsonl.")
    ],
    head: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A hash that the node stated before: shows whether the end was cut off."),
    ] = None,
    json: Json = False,
) -> None:
    """Check that no event was changed, removed, added or moved."""
    result = isocenter.verify_audit(place, head=head)
    show(result, result.as_record() if json else None)


def export(
    node: Annotated[Path, typer.Argument(metavar="NODE", help="The node's folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File for the events, one a line.")],
    format: Annotated[
        str, typer.Option(metavar="NAME", help="jsonl, which `verify` checks, or atna: XML by DICOM PS3.15 A.5.")
    ] = "jsonl",
    overwrite: Overwrite = False,
) -> None:
    """Write the events into a file."""
    say(f"{counted(isocenter.export_audit(node, out=out, format=format, overwrite=overwrite), 'event')} in {out}")


def _bound(text: str) -> tuple[str, str, float]:
    metric, _, rest = text.partition(":")
    label, _, value = rest.rpartition(":")
    try:
        return metric, label, float(value)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no bound", "--bound", "Give metric:label:value, such as ppv:nodule:0.6"
        ) from error
