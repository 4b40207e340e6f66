"""`audit`: whether the events of a node are as they were recorded, and these events as a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter import service
from isocenter.errors import FormatError, IntegrityError, UsageError
from isocenter.files import parse_json, written
from isocenter.keywords import takes
from isocenter.options import ExportAuditOptions, VerifyAuditOptions
from isocenter.verbs.serve import need_extra

if TYPE_CHECKING:
    from isocenter.service import Database

FORMATS = ("jsonl", "atna")


@dataclass(frozen=True)
class AuditCheck:
    """Events that follow one another as they were sealed.

    events:   how many
    head:     the hash of the last
    unsealed: how many the node has recorded since, which it seals within seconds where it runs
    """

    events: int
    head: str
    unsealed: int = 0

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {"schema": "isocenter.audit_check", "version": 1, **vars(self)}

    def __repr__(self) -> str:
        rest = f"; {self.unsealed} more are not sealed yet" if self.unsealed else ""
        return f"{self.events} events are as they were recorded; the hash of the last is {self.head}{rest}"


@takes(VerifyAuditOptions)
def verify_audit(options: VerifyAuditOptions) -> AuditCheck:
    """Check that no event of the audit was changed, removed, added or moved since it was sealed.

    Raises IntegrityError with the first sequence that is wrong, UsageError for what is neither.
    """
    need_extra("audit")
    path = Path(options.place)
    if path.is_dir():
        with _opened(path) as database:
            unsealed = service.unsealed_count(database)
            verdict = service.verified(
                ((one, service.canonical(one)) for one in service.sealed_events(database)), options.head
            )
    else:
        unsealed, verdict = 0, service.verified(_lines(path), options.head)
    if verdict.wrong is not None:
        problem = f"event {verdict.wrong} {verdict.problem}; {verdict.events} events before it are as they were"
        remedy = "Compare with an earlier export, or with the heads in node.jsonl and in syslog"
        raise IntegrityError(problem, str(options.place), remedy)
    return AuditCheck(verdict.events, verdict.head.hash, unsealed)


@takes(ExportAuditOptions)
def export_audit(options: ExportAuditOptions) -> int:
    """Write the sealed events of a node into a file, one a line; how many there are.

    Raises UsageError for another format, a folder without a node, or a file that is there already.
    """
    need_extra("audit")
    if options.format not in FORMATS:
        raise UsageError(f"there is no format {options.format!r}", "--format", f"Choose one of {', '.join(FORMATS)}")
    line_of = service.canonical if options.format == "jsonl" else service.atna_message
    count = 0
    with (
        _opened(Path(options.node)) as database,
        written(Path(options.out), overwrite=options.overwrite) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for event in service.sealed_events(database):
            file.write(f"{line_of(event)}\n")
            count += 1
    return count


@contextmanager
def _opened(folder: Path) -> Iterator[Database]:
    """The database of a node, which may be running. Raises UsageError where there is none."""
    database = service.node_database(folder)
    try:
        yield database
    finally:
        database.close()


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], str] | None]:
    """The events of a file; None for a line that is none, to the byte."""
    try:
        with path.open("rb") as file:
            for line in file:
                yield _event(line)
    except OSError as error:
        remedy = "Give a node's folder, or an export"
        raise UsageError(f"cannot be read: {error.strerror}", str(path), remedy) from error


def _event(line: bytes) -> tuple[dict[str, Any], str] | None:
    try:
        text = line.decode()
        event = parse_json(text)
    except (ValueError, FormatError):
        return None
    # The same values may be written in several ways, of which the node writes one.
    is_ours = isinstance(event, dict) and f"{service.canonical(event)}\n" == text
    return (event, text[:-1]) if is_ours else None
