"""`change` at a node: a new package in shadow, for a share of the patients, in place of the old one; and back."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.lazy import pandas as pd
from hilum.options.node import (
    ChangeStatusOptions,
    PromoteChangeOptions,
    RollBackChangeOptions,
    ShadowChangeOptions,
    SplitChangeOptions,
)
from hilum.report import InNotebook
from hilum.service import deploying, node_folder
from hilum.service.monitoring import change_comparison
from hilum.service.records import actor, deployments, record_database
from hilum.service.records.accounts import Accounts
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.values.table_cells import TableRow
from hilum.verbs import change, serve

if TYPE_CHECKING:
    from hilum.service.configuration import NodeSettings
    from hilum.service.records.actor import Actor
    from hilum.service.records.record_database import Database

CHANGING = ("radiologist", "administrator")
COLUMNS = ("n", "model", "mode", "state", "package", "share", "until", "began", "ended", "approved_by", "because")
TIMES = ("until", "began", "ended")
FIGURES = ("n", "metric", "arm", "source", "value", "low", "high", "cases")


class NodeChangesRecord(RecordHead):
    """The packages of a node, oldest first, and the figures by which they compare."""

    done: str
    rows: list[TableRow]
    figures: list[TableRow]


CHANGES_SCHEMA = RecordSchema("hilum.node_changes", NodeChangesRecord)


@dataclass(frozen=True, eq=False)
class NodeChanges(InNotebook):
    """The packages that answered at a node, answer, or are to, and how a shadow or the arms of a split compare.

    table:   a row a change, oldest first
    figures: a row a figure; low and high hold at every look
    done:    what was done just now, in words
    """

    table: pd.DataFrame
    figures: pd.DataFrame
    done: str = ""

    def as_record(self) -> NodeChangesRecord:
        """The record for `--json`."""
        rows, figures = (one.to_dict("records") for one in (self.table, self.figures))
        return CHANGES_SCHEMA.record_of(self, rows=rows, figures=figures)

    def __repr__(self) -> str:
        lines = [self.done] if self.done else []
        for row in self.table.to_dict("records"):
            share = f" of {row['share']:.0%} of the patients until {row['until'][:10]}" if row["mode"] == "arm" else ""
            package = f"{row['package'][:12]} for {row['model']}"
            lines.append(f"{row['n']}: {row['mode']}{share}, {row['state']}: {package}, {row['because']}")
            own = self.figures[self.figures["n"] == row["n"]].to_dict("records")
            lines += [f"   {_in_words(one)}" for one in own if row["state"] == "in force"]
        return "\n".join(lines or ["no package of the node was changed"])


@keywords.takes(ShadowChangeOptions)
def shadow_change(options: ShadowChangeOptions) -> NodeChanges:
    """Have a package answer beside the one in use; its answers are compared with those that are sent, and not kept.

    It answers jobs that are done while nothing else waits, so that no answer comes later.
    Raises UsageError for what is no package, IntegrityError for one that is not what its manifest says.
    """
    return _ask(options.node, options.package, options.model, "shadow", "asked for")


@keywords.takes(PromoteChangeOptions)
def promote_change(options: PromoteChangeOptions) -> NodeChanges:
    """Ask that a package takes the place of the one in use: two persons, one a radiologist, approve it at the node.

    Once both have approved, it answers from the next study on, without a restart. Studies that began keep theirs.
    check: the folder of `change check`, whose verdict is reached anew from its plan, its rows and both packages
    Raises UsageError for a check of other packages or another verdict, IntegrityError for a record that no check of
    this machine has written, and as `shadow_change`.
    """
    return _ask(options.node, options.package, options.model, "live", "promoted", check=Path(options.check))


@keywords.takes(SplitChangeOptions)
def split_change(options: SplitChangeOptions) -> NodeChanges:
    """Ask that a package answers a share of the patients, and the one in use the others; approved as `promote_change`.

    share: of patients, chosen by a keyed hash so that one person always has one arm
    until: first day on which it answers nobody any more, as 2026-03-01; it ends before where a bound of harm is crossed
    """
    try:
        day = datetime.strptime(options.until, "%Y-%m-%d").astimezone().timestamp()
    except ValueError as error:
        raise UsageError(f"{options.until!r} is no day", "--until", "Write it as 2026-03-01") from error
    if day <= datetime.now().timestamp():
        raise UsageError(f"{options.until} is over, or has begun", "--until", "Give a later day")
    return _ask(
        options.node,
        options.package,
        options.model,
        "arm",
        "split",
        check=Path(options.check),
        share=options.share,
        until=day,
    )


@keywords.takes(RollBackChangeOptions)
def roll_back_change(options: RollBackChangeOptions) -> NodeChanges:
    """Take back the last change of what answers: a split ends, or the package before answers again.

    account, password: of a radiologist or an administrator; not needed at a node without accounts
    Jobs that wait for the package that goes are done by the one that answers again.
    Raises UsageError for an account that may not, IntegrityError where the package before is not what was written.
    """
    with _open_node(options.node) as (database, settings):
        who = _person(database, options.account, options.password)
        with database.write() as connection:
            if options.change is not None:
                done = deployments.end_change(connection, options.change, who, options.because)
            else:
                done = deployments.roll_back(connection, _model(settings, options.model), who, options.because)
        return _status(database, done)


@keywords.takes(ChangeStatusOptions)
def change_status(options: ChangeStatusOptions) -> NodeChanges:
    """The packages of a node and their changes, with figures of those that go on. node: its folder"""
    with _open_node(options.node) as (database, _):
        return _status(database)


def _ask(
    node: str | Path,
    package: str | Path,
    model: str | None,
    mode: Any,
    because: str,
    *,
    check: Path | None = None,
    **columns: Any,
) -> NodeChanges:
    with _open_node(node) as (database, settings):
        name = _model(settings, model)
        if mode != "shadow" and not Accounts(database).exist():
            problem, remedy = "has no account, and a change needs two persons", "Start it with HILUM_ADMIN_PASSWORD"
            raise UsageError(problem, str(node), f"{remedy}, and make accounts")
        new = deploying.store_package(settings, name, Path(package))
        with database.read() as connection:
            own = deploying.answering_package(connection, settings, name)
        if check is not None:
            columns["check_hash"] = change.confirm_check(check, own.folder, new.folder)
        with database.write() as connection:
            by = {"user": getpass.getuser()}
            n = deployments.ask_for_change(
                connection, new, mode, package_asked=own, because=because, detail=by, **columns
            )
        waits = (
            "" if mode == "shadow" else f": it waits for two persons, one a radiologist, at /api/changes/{n}/approve"
        )
        return _status(database, f"change {n} is noted{waits}")


def _model(settings: NodeSettings, model: str | None) -> str:
    names = list(settings.models)
    if model is None and len(names) == 1:
        return names[0]
    if model not in names:
        problem = (
            f"the node has {errors.count_phrase(len(names), 'model')}"
            if model is None
            else f"there is no model {model!r}"
        )
        raise UsageError(problem, "--model", f"Name one of {', '.join(names) or 'none: the node has no model'}")
    return model


def _person(database: Database, account: str | None, password: str | None) -> Actor:
    """Who asks. Raises UsageError for a person without the right, or with a wrong password."""
    accounts = Accounts(database)
    if not accounts.exist():
        return actor.ANYONE
    row = next((row for row in accounts.rows() if row.account == account), None)
    if account is None or password is None or row is None or not accounts.is_password(account, password, "node"):
        raise UsageError("account or password is wrong", "--account", "Give an account of the node, and its password")
    if row.role not in CHANGING:
        raise UsageError(f"the role of this account is {row.role}", account, f"Ask a person who is {CHANGING[0]}")
    return actor.Actor(account, row.role, "node")


@contextmanager
def _open_node(node: str | Path) -> Iterator[tuple[Database, NodeSettings]]:
    serve.refuse_missing_extra("change")
    folder = Path(node).absolute()  # workers run elsewhere
    with closing(record_database.node_database(folder)) as database:
        yield database, node_folder.node_settings(folder)


def _status(database: Database, done: str = "") -> NodeChanges:
    with database.read() as connection:
        found = change_comparison.change_rows(connection)
    rows = [
        {**one, **{name: _time(one[name]) for name in TIMES}, "approved_by": _approvals(one["approvals"])}
        for one in found
    ]
    figures = [{"n": one["n"], **figure} for one in found for figure in one["figures"]]
    table, numbers = pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(figures, columns=list(FIGURES))
    return NodeChanges(_with_none(table), _with_none(numbers), done)


def _with_none(table: pd.DataFrame) -> pd.DataFrame:
    """The table with None where a cell is not known, as JSON has it."""
    return table.astype(object).where(table.notna(), None)


def _approvals(approvals: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['account']} ({one['role']})" for one in approvals)


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _in_words(figure: Mapping[str, Any]) -> str:
    """A figure in a line, as in `dice_liver .981 (.962 to .99), 140 cases`."""
    name = " ".join(filter(None, [figure["metric"], figure["source"], figure["arm"]]))
    if figure["value"] is None:
        return f"{name}: too few to judge"
    ends = "" if figure["low"] is None else f" ({figure['low']:.3f} to {figure['high']:.3f})"
    return f"{name} {figure['value']:.3f}{ends}, {errors.count_phrase(figure['cases'], 'case')}"
