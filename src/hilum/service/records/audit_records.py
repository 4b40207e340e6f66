"""The audit: who did what to what, each event a row in the transaction of what it reports; so neither is there alone.

Events are sealed one after another, each with the hash of the one before, so that a change shows. Writers only add
rows; the keeper alone numbers and hashes them, a moment later. So no writer waits for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, select, update
from typing_extensions import TypedDict

from hilum import errors
from hilum.service.objects.journal import Happened
from hilum.service.records.actor import NODE, Actor
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import AUDIT, STUDIES
from hilum.values.plain_values import PlainValue

# What became of it; refused: for want of a right.
SUCCESS, FAILURE, REFUSED = "success", "failure", "refused"
LONGEST = 1000  # letters of a text that may come from outside
CONFIGURATION = "configuration"


class AuditEvent(TypedDict):
    """An event of the audit: who did what with which object of which patient; at: seconds since 1970.

    sequence, previous, hash: of one that is sealed: its place, and the hashes of the one before and of itself
    """

    sequence: int
    at: float
    node: str
    actor: str
    role: str
    address: str
    action: str
    object: str
    patient: str
    outcome: str
    detail: Mapping[str, PlainValue]
    previous: str
    hash: str


def record_event(
    connection: Connection,
    action: str,
    thing: str,
    *,
    actor: Actor = NODE,
    patient: str | None = None,
    outcome: str = SUCCESS,
    study: str | None = None,
    detail: Mapping[str, PlainValue] | None = None,
) -> None:
    """Write an event, without identity, in the transaction of what it reports.

    thing:   what it was done to: the key of a study or job, a path of the API, the name of an account or section
    patient: pseudonym; that of a study is known from its row
    study:   its key
    detail:  what else is known, as JSON
    """
    of_study = None if study is None else select(STUDIES.c.patient).where(STUDIES.c.study == study).scalar_subquery()
    cleaned = {name: _clean(value) for name, value in (detail or {}).items()}
    row = {
        "at": DatabaseClock(),
        "actor": _text(actor.account),
        "role": actor.role,
        "address": _text(actor.address),
        "action": action,
        "object": _text(thing),
        "patient": of_study if patient is None else patient,
        "outcome": outcome,
        "detail": cleaned if study is None else {"study": study, **cleaned},
    }
    connection.execute(insert(AUDIT).values(row))


def record_change(connection: Connection, thing: str, old: Any, new: Any, who: Actor = NODE) -> None:
    """Write that a section of the settings, an account or a token is new, another, or gone; old, new: None for none."""
    record_event(connection, CONFIGURATION, thing, actor=who, detail={"old": old, "new": new})


def record_lines(database: Database, lines: Sequence[Happened]) -> None:
    """Write the events of receivers, which reach no database; a line that is read twice is one event."""
    with database.write() as connection:
        ids = [line.id for line in lines]
        lines_known = set(connection.execute(select(AUDIT.c.line).where(AUDIT.c.line.in_(ids))).scalars())
        rows = {
            line.id: {
                "line": line.id,
                "at": line.at,
                "actor": _text(line.account),
                "role": "service",
                "address": _text(line.address),
                "action": line.action,
                "object": _text(line.thing),
                "outcome": line.outcome,
                "detail": {"reason": _text(line.reason)} if line.reason else {},
            }
            for line in lines
            if line.id not in lines_known
        }
        if rows:
            connection.execute(insert(AUDIT), list(rows.values()))


def record_settings(database: Database, settings: Mapping[str, PlainValue]) -> list[str]:
    """An event for each section of the settings that is another than the last time; their names.

    settings: {section: values as JSON}; none of them is a secret, as these come from the environment
    """
    written = and_(AUDIT.c.action == CONFIGURATION, AUDIT.c.object.in_([f"[{name}]" for name in settings]))
    changed = list[str]()
    with database.write() as connection:
        before = connection.execute(select(AUDIT.c.object, AUDIT.c.detail).where(written).order_by(AUDIT.c.event))
        recorded = {row.object: row.detail["new"] for row in before}
        for name, value in settings.items():
            new, old = _clean(value), recorded.get(f"[{name}]")
            if new != old:
                record_change(connection, f"[{name}]", old, new)
                changed.append(name)
    return changed


def _clean(value: Any) -> Any:
    """A value of JSON whose texts every database, and UTF-8, can hold."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): _clean(one) for key, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value


def _text(text: str) -> str:
    """Text from outside: bounded, in letters that move no cursor, none of them half a pair of UTF-16."""
    return errors.printable_text(text[:LONGEST]).encode("utf-8", "replace").decode("utf-8")


# What an event states; the other columns are the database's own.
COLUMNS = (
    *("sequence", "at", "node", "actor", "role", "address", "action", "object", "patient", "outcome", "detail"),
    *("previous", "hash"),
)
NAMES = frozenset(COLUMNS)
FIRST = "0" * 64  # the hash before the first event
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
AT_ONCE = 1000  # events that are sealed in one transaction, and that a reader holds


@dataclass(frozen=True)
class AuditHead:
    """The last sealed event. Whoever keeps its hash elsewhere sees later whether an event up to it is another."""

    sequence: int = 0
    hash: str = FIRST


def canonical_text(event: AuditEvent) -> str:
    """An event as JSON that is the same wherever it is written; its hash is made of this text, without the hash."""
    return ENCODER.encode(event)


def event_hash(text: str) -> str:
    """The SHA-256 of an event without its hash. text: of the whole event, as `canonical_text` gives it"""
    # Keys are sorted: a hash within `detail` stands before, and what follows holds no quotes that are not escaped.
    before, _, after = text.rpartition(',"hash":')
    without = f"{before},{after.partition(',')[2]}"
    # What no UTF-8 can hold was written by somebody else, and has no hash that fits.
    return hashlib.sha256(without.encode("utf-8", "replace")).hexdigest()


def last_sealed_head(database: Database) -> AuditHead:
    """The last sealed event of a node."""
    with database.read() as connection:
        return sealed_head(connection)


def sealed_head(connection: Connection) -> AuditHead:
    """The last sealed event that a connection sees."""
    newest = select(AUDIT.c.sequence, AUDIT.c.hash).where(AUDIT.c.sequence.is_not(None))
    row = connection.execute(newest.order_by(AUDIT.c.sequence.desc()).limit(1)).first()
    return AuditHead() if row is None else AuditHead(row.sequence, row.hash)


def seal_events(database: Database, node: str) -> int:
    """Number the events that are not sealed yet, and hash each with the one before; return their number.

    node: its name, which becomes part of the events
    The keeper alone does so. Of two that seal at once, one fails: no number is given twice.
    """
    unsealed = select(AUDIT).where(AUDIT.c.sequence.is_(None)).order_by(AUDIT.c.event)
    with database.read() as connection:  # a transaction that writes would keep others waiting, mostly for nothing
        if connection.execute(unsealed.limit(1)).first() is None:
            return 0
    is_this = AUDIT.c.event == bindparam("this")
    written = update(AUDIT).where(is_this, AUDIT.c.sequence.is_(None))
    written = written.values({name: bindparam(f"new_{name}") for name in ("sequence", "node", "previous", "hash")})
    done = 0
    while True:
        last = last_sealed_head(database)
        with database.write() as connection:
            rows = connection.execute(unsealed.limit(AT_ONCE)).all()
            if rows:
                connection.execute(written, list(_seal_rows(rows, last, node)))
        done += len(rows)
        if len(rows) < AT_ONCE:
            return done


def _seal_rows(rows: Sequence[Row[Any]], last: AuditHead, node: str) -> Iterator[dict[str, int | str]]:
    """Columns that sealing writes into rows."""
    for row in rows:
        links: dict[str, int | str] = {"sequence": last.sequence + 1, "node": node, "previous": last.hash}
        event = cast("AuditEvent", {**{name: row._mapping[name] for name in COLUMNS}, **links})
        last = AuditHead(last.sequence + 1, event_hash(canonical_text(event)))
        yield {"this": row.event, "new_hash": last.hash, **{f"new_{name}": value for name, value in links.items()}}


def sealed_events(database: Database) -> Iterator[AuditEvent]:
    """The sealed events of a node in their order."""
    ordered = select(*(AUDIT.c[name] for name in COLUMNS)).order_by(AUDIT.c.sequence).limit(AT_ONCE)
    last = -1
    while True:
        # A portion at a time: a log of years neither fills the memory nor holds a transaction open.
        rows = database.rows(ordered.where(AUDIT.c.sequence > last))
        yield from (cast("AuditEvent", dict(zip(COLUMNS, row, strict=True))) for row in rows)
        if len(rows) < AT_ONCE:
            return
        last = rows[-1].sequence


def unsealed_count(database: Database) -> int:
    """The number of events that the keeper has not sealed yet."""
    counted = select(func.count()).select_from(AUDIT).where(AUDIT.c.sequence.is_(None))
    with database.read() as connection:
        return int(connection.execute(counted).scalar_one())


@dataclass(frozen=True)
class AuditVerdict:
    """The result of a check of events.

    events: how many are as they were sealed, from the first on
    head:   the last of these
    wrong:  the sequence of the first that is not, if any; problem: what is wrong with it
    """

    events: int
    head: AuditHead
    wrong: int | None = None
    problem: str = ""


def verify_events(events: Iterable[tuple[AuditEvent, str] | None], expected: str | None = None) -> AuditVerdict:
    """Check that events follow one another from the first, each as it was when it was sealed.

    events:   each with its text as `canonical_text` gives it; None stands for what is no event
    expected: a hash that has to be among theirs, else the end is missing, or all was written anew
    """
    last, is_met = AuditHead(), expected in (None, FIRST)
    for event in events:
        number = last.sequence + 1
        if event is None or (problem := _problem(*event, last)):
            return AuditVerdict(
                last.sequence, last, number, problem if event else "is no event as the node writes them"
            )
        last = AuditHead(number, str(event[0]["hash"]))
        is_met = is_met or last.hash == expected
    if not is_met:
        problem = "is missing, or the events were written anew: none of them has the hash of the head"
        return AuditVerdict(last.sequence, last, last.sequence + 1, problem)
    return AuditVerdict(last.sequence, last)


def _problem(event: AuditEvent, text: str, last: AuditHead) -> str:
    """Why an event cannot be the one behind the last."""
    if event.keys() != NAMES:
        return "has other columns than the events of a node"
    if event["sequence"] != last.sequence + 1:
        return "is missing, or not in its place"
    if event["previous"] != last.hash:
        return "does not name the hash of the one before"
    return "" if event["hash"] == event_hash(text) else "was changed after it was sealed"
