"""The verbs of a change of a model: parse, call, print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import Device, Given, Json, Overwrite, Seed, Threads, reads_data
from isocenter.cli.shell import PartlyFailedError, default_out, show

PASSWORD = "ISOCENTER_PASSWORD"  # noqa: S105 - the name of a variable
Plan = Annotated[Path, typer.Option(metavar="FILE", help="The agreed plan of changes: change-plan.toml.")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder for the results; by default ./change-<name>.")]


@reads_data
def check(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The package that is in use.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The package that shall take its place.")],
    plan: Plan,
    data: Annotated[Path, typer.Option(metavar="DATA", help="The locked set. A ledger beside it counts the looks.")],
    approved: Annotated[
        Path | None, typer.Option(metavar="PACKAGE", help="The approved package, where OLD is a changed one.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run of NEW, whose patients must not be in the locked set.")
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
    given: Given = None,
) -> None:
    """Check that NEW changed as planned, and is as good on the locked set."""
    result = isocenter.check_change(
        old,
        new,
        plan=plan,
        data=data,
        approved=approved,
        run=run,
        out=out or default_out("change", new),
        overwrite=overwrite,
        device=device,
        threads=threads,
        seed=seed,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    if not result.is_allowed:
        remedy = "Keep the old model, or agree on another plan"
        raise PartlyFailedError(f"the change is {result.verdict}", str(new), remedy)


def propose(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="The package that is in use.")],
    plan: Plan,
    monitored: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder that `monitor` wrote.")],
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Propose to train anew where a trigger of the plan has fired. Nothing is trained."""
    result = isocenter.propose_change(
        package, plan=plan, monitored=monitored, out=out or default_out("change", package), overwrite=overwrite
    )
    show(result, result.as_record() if json else None)


Node = Annotated[Path, typer.Argument(metavar="NODE", help="The folder of a node.")]
New = Annotated[Path, typer.Argument(metavar="PACKAGE", help="The package that is new.")]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model in the node's settings, where there are several.")
]
Checked = Annotated[
    Path, typer.Option(metavar="FILE", help="change.json, or its folder, that allows just this change.")
]


def shadow(node: Node, package: New, model: Model = None, json: Json = False) -> None:
    """Let PACKAGE answer in shadow. Its answers are compared and not sent."""
    result = isocenter.shadow_change(node, package, model=model)
    show(result, result.as_record() if json else None)


def promote(node: Node, package: New, check: Checked, model: Model = None, json: Json = False) -> None:
    """Ask that PACKAGE answers from now on. Two persons approve it at the node."""
    result = isocenter.promote_change(node, package, check=check, model=model)
    show(result, result.as_record() if json else None)


def split(
    node: Node,
    package: New,
    check: Checked,
    share: Annotated[float, typer.Option(metavar="SHARE", help="Share of the patients that PACKAGE answers: 0.2.")],
    until: Annotated[str, typer.Option(metavar="DATE", help="First day on which it answers nobody, as 2026-03-01.")],
    model: Model = None,
    json: Json = False,
) -> None:
    """Ask that PACKAGE answers a share of the patients. Two persons approve it at the node."""
    result = isocenter.split_change(node, package, check=check, share=share, until=until, model=model)
    show(result, result.as_record() if json else None)


def rollback(
    node: Node,
    because: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the audit.")],
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Account at the node of who asks. The password is asked for.")
    ] = None,
    change: Annotated[
        int | None, typer.Option(metavar="N", help="Number of the change to end, as in status; by default the last.")
    ] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Take back the last change of what answers. The package before answers again."""
    password = os.environ.get(PASSWORD) if account is not None else None
    if account is not None and password is None:
        password = typer.prompt("Password", hide_input=True, err=True)
    result = isocenter.roll_back_change(
        node, because=because, model=model, change=change, account=account, password=password
    )
    show(result, result.as_record() if json else None)


def status(node: Node, json: Json = False) -> None:
    """Show which packages answer at NODE, which wait, and how they compare."""
    result = isocenter.change_status(node)
    show(result, result.as_record() if json else None)
