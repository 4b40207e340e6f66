"""`audit`: whether the events of a node are as they were recorded, and these events as a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from hilum import keywords
from hilum.errors import FormatError, IntegrityError, UsageError
from hilum.files.storage import atomic, structured_text
from hilum.options.node import ExportAuditOptions, VerifyAuditOptions
from hilum.service.exchange import atna
from hilum.service.records import audit_records, record_database
from hilum.service.records.audit_records import AuditEvent
from hilum.values import record_schema
from hilum.verbs import serve

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

    def as_record(self) -> dict[str, JsonValue]:
        """The record for `--json`: its fields."""
        return {"schema": "hilum.audit_check", "version": 1, **record_schema.plain_fields(self)}

    def __repr__(self) -> str:
        rest = f"; {self.unsealed} more are not sealed yet" if self.unsealed else ""
        return f"{self.events} events are as they were recorded; the hash of the last is {self.head}{rest}"


@keywords.takes(VerifyAuditOptions)
def verify_audit(options: VerifyAuditOptions) -> AuditCheck:
    """Check that no event of the audit was changed, removed, added or moved since it was sealed.

    Raises IntegrityError with the first sequence that is wrong, UsageError for what is neither.
    """
    serve.refuse_missing_extra("audit")
    path = Path(options.place)
    if path.is_dir():
        with closing(record_database.node_database(path)) as database:
            unsealed = audit_records.unsealed_count(database)
            verdict = audit_records.verify_events(
                ((one, audit_records.canonical_text(one)) for one in audit_records.sealed_events(database)),
                options.head,
            )
    else:
        unsealed, verdict = 0, audit_records.verify_events(_lines(path), options.head)
    if verdict.wrong is not None:
        problem = f"event {verdict.wrong} {verdict.problem}; {verdict.events} events before it are as they were"
        remedy = "Compare with an earlier export, or with the heads in node.jsonl and in syslog"
        raise IntegrityError(problem, str(options.place), remedy)
    return AuditCheck(verdict.events, verdict.head.hash, unsealed)


@keywords.takes(ExportAuditOptions)
def export_audit(options: ExportAuditOptions) -> int:
    """Write the sealed events of a node into a file, one a line, and return their number.

    Raises UsageError for another format, a folder without a node, or a file that is there already.
    """
    serve.refuse_missing_extra("audit")
    if options.format not in FORMATS:
        raise UsageError(f"there is no format {options.format!r}", "--format", f"Choose one of {', '.join(FORMATS)}")
    line_of = audit_records.canonical_text if options.format == "jsonl" else atna.atna_message
    count = 0
    with (
        closing(record_database.node_database(Path(options.node))) as database,
        atomic.write_whole(Path(options.out), overwrite=options.overwrite) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for event in audit_records.sealed_events(database):
            file.write(f"{line_of(event)}\n")
            count += 1
    return count


def _lines(path: Path) -> Iterator[tuple[AuditEvent, str] | None]:
    """The events of a file; None for a line that is none, to the byte."""
    try:
        with path.open("rb") as file:
            for line in file:
                yield _event(line)
    except OSError as error:
        remedy = "Give a node's folder, or an export"
        raise UsageError(f"cannot be read: {error.strerror}", str(path), remedy) from error


def _event(line: bytes) -> tuple[AuditEvent, str] | None:
    try:
        text = line.decode()
        event = structured_text.parse_json(text)
    except (ValueError, FormatError):
        return None
    # The same values may be written in several ways, of which the node writes one.
    if not isinstance(event, dict) or f"{audit_records.canonical_text(cast('AuditEvent', event))}\n" != text:
        return None
    return cast("AuditEvent", event), text[:-1]
