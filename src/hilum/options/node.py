"""Options of the verbs of a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from hilum.errors import UsageError
from hilum.options.shared_flags import RESULTS, Models, Node, Out, Overwrite, Seed
from hilum.values import PlainValue, Setting

if TYPE_CHECKING:
    from pandas import DataFrame

Config = Annotated[str | Path | None, Setting("File with the node's settings: node.toml.", "FILE")]
Folder = Annotated[str | Path | None, Setting("The node's folder; by default ./node.", "FOLDER")]
Since = Annotated[str | None, Setting("First day, as 2026-03-01.", "DATE")]
Rule = Annotated[str | None, Setting("Whose results: those of a rule, or of another product.", "NAME")]


def _bounds(texts: Sequence[str]) -> list[tuple[str, str, float]]:
    return [_bound(one) for one in texts]


def _bound(text: str) -> tuple[str, str, float]:
    metric, _, rest = text.partition(":")
    label, _, value = rest.rpartition(":")
    try:
        return metric, label, float(value)
    except ValueError as error:
        remedy = "Give metric:label:value, such as ppv:nodule:0.6"
        raise UsageError(f"{text!r} is no bound", "--bound", remedy) from error


@dataclass(frozen=True)
class ServeOptions:
    """Run a DICOM node. Studies come in, MODEL answers them, answers go out.

    node, dicom, http, queue, database, study, fhir, hl7: keys of sections of node.toml that are set otherwise, as in
    dicom={"port": 0}; peers, rules: in place of those of the file
    """

    models: Annotated[str | Path | Sequence[str | Path], Models] = ()
    _: KW_ONLY
    config: Config = None
    folder: Folder = None
    role: Annotated[str, Setting("Part of the node to run: all, receiver, keeper, worker, web or monitor.", "ROLE")] = (
        "all"
    )
    check: Annotated[bool, Setting("Check settings, models and ports, and start nothing.")] = False
    node: Mapping[str, PlainValue] | None = None
    dicom: Mapping[str, PlainValue] | None = None
    http: Mapping[str, PlainValue] | None = None
    queue: Mapping[str, PlainValue] | None = None
    database: Mapping[str, PlainValue] | None = None
    study: Mapping[str, PlainValue] | None = None
    peers: Sequence[Mapping[str, PlainValue]] | None = None
    rules: Sequence[Mapping[str, PlainValue]] | None = None
    fhir: Mapping[str, PlainValue] | None = None
    hl7: Mapping[str, PlainValue] | None = None


@dataclass(frozen=True)
class RouteOptions:
    """Show which series of STUDY the rules take, and why."""

    study: Annotated[str | Path, Setting("A folder of DICOM files, or a UID in the node.", "STUDY")]
    models: Annotated[
        str | Path | Sequence[str | Path], Setting("Models, in addition to those of --config.", "MODEL", repeats=True)
    ] = ()
    _: KW_ONLY
    config: Config = None
    folder: Folder = None


@dataclass(frozen=True)
class FeedbackOptions:
    """Write what people judged on a node as a data set."""

    node: Node
    _: KW_ONLY
    out: Annotated[str | Path, RESULTS]
    since: Since = None
    rule: Rule = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class ImportLabelsOptions:
    """Keep labels that came later as outcomes of NODE's results."""

    node: Node
    table: Annotated[
        str | Path | DataFrame, Setting("The labels: study, label or value, at, source; CSV or Parquet.", "TABLE")
    ]
    _: KW_ONLY
    rule: Rule = None


@dataclass(frozen=True)
class NextLabelsOptions:
    """Choose the cases of NODE to label next."""

    node: Node
    count: Annotated[int, Ge(1), Setting("Number of cases to choose.", "COUNT")]
    _: KW_ONLY
    out: Annotated[str | Path, RESULTS]
    method: Annotated[str, Setting("How they are chosen: random, uncertainty or typical.", "NAME")] = "random"
    locked: Annotated[str | Path | None, Setting("A locked test set, of whose patients no case is chosen.", "DATA")] = (
        None
    )
    rule: Rule = None
    seed: Seed = 0
    overwrite: Overwrite = False


@dataclass(frozen=True)
class MonitorOptions:
    """Watch a model in use: drift, performance, alerts."""

    table: Annotated[
        str | Path | DataFrame,
        Setting("A node's folder; or cases that a model answered, CSV or Parquet.", "NODE|TABLE"),
    ]
    _: KW_ONLY
    reference: Annotated[
        str | Path | DataFrame | None,
        Setting("The baseline of a table; what a site is compared with when it goes live.", "TABLE"),
    ] = None
    since: Since = None
    until: Annotated[str | None, Setting("First day that no longer counts.", "DATE")] = None
    by: Annotated[str | None, Setting("Attributes to trace a change to: station,software,age:40:60.", "GROUPS")] = None
    run_length: Annotated[
        float | None, Gt(1), Setting("Cases between false alarms of all watches; by default 10,000.", "N")
    ] = None
    bounds: Annotated[
        Sequence[tuple[str, str, float]],
        Setting(
            "Least audited value: sensitivity:nodule:0.8. Repeatable.",
            "M:LABEL:V",
            "--bound",
            repeats=True,
            read=_bounds,
        ),
    ] = ()
    out: Out = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class VerifyAuditOptions:
    """Check that no event was changed, removed, added or moved."""

    place: Annotated[str | Path, Setting("A node's folder, or a file that `export` has written as jsonl.", "NODE|FILE")]
    _: KW_ONLY
    head: Annotated[
        str | None, Setting("A hash that the node stated before: shows whether the end was cut off.", "HASH")
    ] = None


@dataclass(frozen=True)
class ExportAuditOptions:
    """Write the events into a file."""

    node: Node
    _: KW_ONLY
    out: Annotated[str | Path, Setting("File for the events, one a line.", "FILE")]
    format: Annotated[str, Setting("jsonl, which `verify` checks, or atna: XML by DICOM PS3.15 A.5.", "NAME")] = "jsonl"
    overwrite: Overwrite = False


@dataclass(frozen=True)
class BackupOptions:
    """Write NODE into one tar, also while it runs."""

    node: Node
    _: KW_ONLY
    out: Annotated[str | Path, Setting("File for the backup.", "FILE.tar")]
    without_images: Annotated[bool, Setting("Leave out the images that were received.")] = False
    overwrite: Overwrite = False


@dataclass(frozen=True)
class InventoryOptions:
    """List every model in use at NODE."""

    node: Node
    _: KW_ONLY
    also: Annotated[str | Path | None, Setting("Table of other products, and of what no record states.", "TABLE")] = (
        None
    )
    out: Out = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class RestoreOptions:
    """Make a node of a backup, once all of it is verified."""

    file: Annotated[str | Path, Setting("What `backup` has written.", "FILE.tar")]
    _: KW_ONLY
    folder: Annotated[str | Path, Setting("Folder for the node, new or empty.", "NODE")]
    database: Annotated[str | None, Setting("An empty database of PostgreSQL: postgresql://USER@HOST/NAME.", "URL")] = (
        None
    )


Package = Annotated[str | Path, Setting("The package that is new.", "PACKAGE")]
ModelName = Annotated[str | None, Setting("The model in the node's settings, where there are several.", "NAME")]
Checked = Annotated[str | Path, Setting("change.json, or its folder, that allows just this change.", "FILE")]


@dataclass(frozen=True)
class ShadowChangeOptions:
    """Let PACKAGE answer in shadow. Its answers are compared and not sent."""

    node: Node
    package: Package
    _: KW_ONLY
    model: ModelName = None


@dataclass(frozen=True)
class PromoteChangeOptions:
    """Ask that PACKAGE answers from now on. Two persons approve it at the node."""

    node: Node
    package: Package
    _: KW_ONLY
    check: Checked
    model: ModelName = None


@dataclass(frozen=True)
class SplitChangeOptions:
    """Ask that PACKAGE answers a share of the patients. Two persons approve it at the node."""

    node: Node
    package: Package
    _: KW_ONLY
    check: Checked
    share: Annotated[float, Gt(0), Lt(1), Setting("Share of the patients that PACKAGE answers: 0.2.", "SHARE")]
    until: Annotated[str, Setting("First day on which it answers nobody, as 2026-03-01.", "DATE")]
    model: ModelName = None


@dataclass(frozen=True)
class RollBackChangeOptions:
    """Take back the last change of what answers. The package before answers again.

    password: of the account; the command line asks for it
    """

    node: Node
    _: KW_ONLY
    because: Annotated[str, Setting("The reason, for the audit.", "TEXT")]
    account: Annotated[str | None, Setting("Account at the node of who asks. The password is asked for.", "NAME")] = (
        None
    )
    change: Annotated[int | None, Setting("Number of the change to end, as in status; by default the last.", "N")] = (
        None
    )
    model: ModelName = None
    password: str | None = None


@dataclass(frozen=True)
class ChangeStatusOptions:
    """Show which packages answer at NODE, which wait, and how they compare."""

    node: Node
