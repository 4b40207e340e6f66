"""Commands with a switch of their own: it prints a result in another form, or chooses between verbs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

import isocenter
from isocenter.cli.shell import PartlyFailedError, say
from isocenter.documents import REQUIREMENTS
from isocenter.errors import UsageError, counted
from isocenter.keywords import Flag, keywords_of
from isocenter.options import (
    DemoOptions,
    DocumentOptions,
    ExportAuditOptions,
    FeedbackOptions,
    ImportLabelsOptions,
    NextLabelsOptions,
    PlanOptions,
    RegisterFramesOptions,
    RegisterOptions,
    RollBackChangeOptions,
    RouteOptions,
    ServeOptions,
    TraceRequirementsOptions,
    VerifyDocumentsOptions,
)

# What one of the verbs of a command needs, and another does without.
Moving = Annotated[str | Path | None, Flag("The image that is laid on it; none with --frames.", "MOVING")]
Transform = Annotated[
    str | None, Flag("Kind of transform: rigid, affine or deformable (the default; of frames rigid).", "KIND")
]
Subject = Annotated[str | Path | None, Flag("A run, a package, a node's folder or a study.", "SUBJECT")]
PASSWORD = "ISOCENTER_PASSWORD"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class Shown:
    """A result that is printed in another form than its own."""

    result: Any
    text: str

    def as_record(self) -> Mapping[str, Any]:
        """The record for `--json`."""
        record: Mapping[str, Any] = self.result.as_record()
        return record

    def __str__(self) -> str:
        return self.text


def given(values: object, kind: type) -> dict[str, Any]:
    """{keyword: value} of the options of a verb among those of a command; None is left to the verb."""
    names = [one.name for one in fields(kind)]
    return {name: value for name in names if (value := getattr(values, name, None)) is not None}


def given_to(form: str, values: object, kind: type, *switches: str) -> dict[str, Any]:
    """`given`, for one form of a command; UsageError for flags that only another of its forms takes.

    switches: what chooses the form, beside the options of its verb
    """
    # The command line itself chooses a folder of results.
    taken = {"out", *switches, *(one.name for one in fields(kind))}
    command: type = type(values)
    others = {name: one for name, one in keywords_of(command).items() if one.flag.text and name not in taken}
    unused = [one.typed for name, one in others.items() if getattr(values, name) != one.default]
    if unused:
        raise UsageError(f"is not for {form}", ", ".join(unused), "Leave it out: nothing would use it")
    return given(values, kind)


@dataclass(frozen=True)
class PlanCommand(PlanOptions):
    __doc__ = PlanOptions.__doc__

    _: KW_ONLY
    explain: Annotated[bool, Flag("Print the reasons as prose.")] = False
    all_decisions: Annotated[bool, Flag("Print also the decisions that have their defaults.")] = False


def plan(values: PlanCommand) -> object:
    """The plan, as a table or in prose."""
    if values.explain and values.all_decisions:
        raise UsageError("are two forms of the plan", "--explain, --all-decisions", "Give one of them")
    made = isocenter.plan(**given(values, PlanOptions))
    if values.explain:
        return Shown(made, made.explained)
    return Shown(made, made.all_decisions) if values.all_decisions else made


@dataclass(frozen=True)
class RegisterCommand(RegisterOptions):
    __doc__ = RegisterOptions.__doc__

    moving: Moving = None  # type: ignore[assignment]
    _: KW_ONLY
    transform: Transform = None  # type: ignore[assignment]
    frames: Annotated[bool, Flag("Lay the frames of the series FIXED on one another: motion.csv.")] = False
    labels_frame: Annotated[
        int, Flag("With --frames: number of the frame on which --labels were drawn, from 1 on.", "N")
    ] = 1
    to: Annotated[str, Flag("What frames are laid on: first, or mean of all.", "NAME")] = "first"


def register(values: RegisterCommand) -> object:
    """One image laid on another, or the frames of one."""
    if values.frames == (values.moving is not None):
        raise UsageError("one image and --frames, or two images", "register", "Give FIXED and MOVING, or a series")
    if values.frames:
        options = given_to("register --frames", values, RegisterFramesOptions, "fixed", "frames")
        return isocenter.register_frames(series=values.fixed, **options)
    return isocenter.register(**given_to("two images", values, RegisterOptions))


def serve(values: ServeOptions) -> None:
    """A node until a signal ends it, or nothing but a look at its settings."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = isocenter.serve(**given(values, ServeOptions))
    for warning in node.warnings if values.check else ():
        say(f"warning: {warning}", err=True)
    if values.check:
        say(f"{values.config or 'the settings'}, the models and the ports are in order")
        return
    with node:
        if not node.settings.models:
            say("no model is given: studies are kept but not answered", err=True)
        say(f"ready: {', '.join(node.places)}")
        node.wait(stop)


@dataclass(frozen=True)
class RouteCommand(RouteOptions):
    __doc__ = RouteOptions.__doc__

    _: KW_ONLY
    explain: Annotated[bool, Flag("Show every condition of every rule for every series.")] = False


def route(values: RouteCommand) -> object:
    """The series that the rules take, or every condition."""
    result = isocenter.route(**given(values, RouteOptions))
    return Shown(result, result.explained()) if values.explain else result


@dataclass(frozen=True)
class FeedbackCommand(FeedbackOptions):
    __doc__ = FeedbackOptions.__doc__

    _: KW_ONLY
    table: Annotated[
        Path | None, Flag("Take in labels that came later, and write no data set.", "TABLE", "--import")
    ] = None
    count: Annotated[int | None, Flag("Choose N cases to label next, and write no data set.", "N", "--next")] = None
    method: Annotated[str, Flag("How --next chooses: random, uncertainty or typical.", "NAME")] = "random"
    locked: Annotated[Path | None, Flag("A locked test set, of whose patients --next chooses no case.", "DATA")] = None


def feedback(values: FeedbackCommand) -> object:
    """A data set of what people judged; or labels that came later; or the cases to label next."""
    if values.table is not None and values.count is not None:
        raise UsageError("--import and --next are two commands", "--next", "Give one of them, then the other")
    if values.table is not None:
        return isocenter.import_labels(**given_to("feedback --import", values, ImportLabelsOptions))
    if values.count is not None:
        return isocenter.next_labels(**given_to("feedback --next", values, NextLabelsOptions))
    return isocenter.feedback(**given_to("feedback without --next", values, FeedbackOptions))


@dataclass(frozen=True)
class DocumentCommand(DocumentOptions):
    __doc__ = DocumentOptions.__doc__

    subject: Subject = None  # type: ignore[assignment]
    _: KW_ONLY
    folder: Annotated[Path | None, Flag("Check the documents of FOLDER against --against.", "FOLDER", "--verify")] = (
        None
    )
    against: Annotated[Path | None, Flag("Subject whose records --verify reads anew.", "SUBJECT")] = None
    trace: Annotated[bool, Flag("Trace requirements, promises and hazards to code, tests and results.")] = False
    requirements: Annotated[
        Path, Flag("Requirements that --trace reads, in a project with pyproject.toml.", "FILE")
    ] = REQUIREMENTS
    junit: Annotated[Path | None, Flag("Results of tests for --trace, as pytest --junitxml writes them.", "FILE")] = (
        None
    )


def document(values: DocumentCommand) -> object:
    """Documents; or their records read anew; or requirements traced."""
    if values.trace:
        return isocenter.trace_requirements(**given_to("document --trace", values, TraceRequirementsOptions, "trace"))
    if values.folder is not None:
        options = given_to("document --verify", values, VerifyDocumentsOptions)
        if values.against is None:
            raise UsageError("needs --against SUBJECT", "--verify", "Give both folders")
        return isocenter.verify_documents(**options)
    options = given_to("document without --trace or --verify", values, DocumentOptions)
    if values.subject is None:
        raise UsageError("there is nothing to document", "document", "Give a run, a package, a node or a study")
    return isocenter.document(**options)


def refuse_broken(result: Any, values: Mapping[str, Any]) -> None:
    """Refuse requirements that nothing shows, and rows of documents whose records say something else."""
    broken = getattr(result, "broken", ())
    if broken and values.get("trace"):
        problem = f"{len(broken)} do not hold; the first: {broken[0].id}: {broken[0].problems[0]}"
        remedy = "Add the test, the code or the control that is missing"
        raise PartlyFailedError(problem, str(values.get("requirements", REQUIREMENTS)), remedy)
    if broken:
        remedy = "Write the documents anew, or restore the records"
        problem = f"{len(broken)} no longer hold; the first: {broken[0]}"
        raise PartlyFailedError(problem, str(values["folder"]), remedy)


@dataclass(frozen=True)
class NetworksCommand:
    """List the network families that a plan may name."""

    _: KW_ONLY
    weights: Annotated[bool, Flag("List the programs whose weights `train --from` reads, with licences.")] = False


def networks(values: NetworksCommand) -> object:
    """The families, or the programs whose weights can be read."""
    return isocenter.describe_weights() if values.weights else isocenter.describe_networks()


def demo(values: DemoOptions) -> None:
    """The demonstration, which prints its own lines."""
    isocenter.demo(**given(values, DemoOptions), say=say)


def export(values: ExportAuditOptions) -> None:
    """The events in a file, and their number."""
    say(f"{counted(isocenter.export_audit(**given(values, ExportAuditOptions)), 'event')} in {values.out}")


def rollback(values: RollBackChangeOptions) -> object:
    """A change taken back, once the account's password is known."""
    asked = given(values, RollBackChangeOptions)
    if values.account is not None:
        password = os.environ.get(PASSWORD)
        asked["password"] = typer.prompt("Password", hide_input=True, err=True) if password is None else password
    return isocenter.roll_back_change(**asked)
