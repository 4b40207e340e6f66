"""The verbs of a change of a model: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import Device, Given, Json, Overwrite, Seed, Threads, reads_data
from isocenter.cli.shell import PartlyFailedError, default_out, show

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
