"""The verb of documents: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import Json, Out, Overwrite
from isocenter.cli.shell import PartlyFailedError, default_out, show
from isocenter.documents import REQUIREMENTS
from isocenter.errors import UsageError


def document(
    subject: Annotated[
        Path | None, typer.Argument(metavar="SUBJECT", help="A run, a package, a node's folder or a study.")
    ] = None,
    names: Annotated[
        str, typer.Option("--for", metavar="NAME,...", help="Documents, as claim,model-card; all: each that suits.")
    ] = "all",
    facts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="facts.toml: what a person states, with name and day.")
    ] = None,
    format: Annotated[str, typer.Option(metavar="FORMAT,...", help="html, docx, pdf and json, as html,docx.")] = "html",
    out: Out = None,
    overwrite: Overwrite = False,
    verify: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Check the documents of FOLDER against --against.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="SUBJECT", help="Subject whose records --verify reads anew.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Trace requirements, promises and hazards to code, tests and results.")
    ] = False,
    requirements: Annotated[
        Path, typer.Option(metavar="FILE", help="Requirements that --trace reads, in a project with pyproject.toml.")
    ] = REQUIREMENTS,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Results of tests for --trace, as pytest --junitxml writes them."),
    ] = None,
    json: Json = False,
) -> None:
    """Fill guidelines, cards and files from the records of SUBJECT."""
    if (junit is not None and not trace) or (trace and subject is not None):
        raise UsageError("belong together, without a subject", "--trace --junit", "Give --trace --requirements FILE")
    if trace:
        made = isocenter.trace_requirements(requirements, junit=junit, out=out, overwrite=overwrite)
        show(made, made.as_record() if json else None)
        if made.broken:
            row = made.broken[0]
            problem = f"{len(made.broken)} do not hold; the first: {row.id}: {row.problems[0]}"
            raise PartlyFailedError(problem, str(requirements), "Add the test, the code or the control that is missing")
        return
    if verify is not None:
        if against is None or subject is not None:
            raise UsageError("needs --against SUBJECT, and no other subject", "--verify", "Give both folders")
        result = isocenter.verify_documents(verify, against=against)
        show(result, result.as_record() if json else None)
        if result.broken:
            first = result.broken[0]
            remedy = "Write the documents anew, or restore the records"
            raise PartlyFailedError(f"{len(result.broken)} no longer hold; the first: {first}", str(verify), remedy)
        return
    if subject is None:
        raise UsageError("there is nothing to document", "document", "Give a run, a package, a node or a study")
    filled = isocenter.document(
        subject,
        names=names,
        facts=facts,
        formats=format,
        out=out or default_out("document", subject),
        overwrite=overwrite,
    )
    show(filled, filled.as_record() if json else None)
