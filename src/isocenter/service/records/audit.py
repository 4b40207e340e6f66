"""The audit: who did what to what, each event a row that its successors vouch for.

A row is written in the transaction of what it reports, so that neither is there without the other. The keeper then
seals rows one after another: it numbers them, and writes into each the hash of the one before. So no writer waits for
another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from isocenter.errors import printable
from isocenter.service.records.actor import NODE, Actor
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.tables import audit, studies

# The hash before the first row.
NOTHING = "0" * 64
# Outcomes of what was tried; refused: for want of a right.
SUCCESS, FAILURE, REFUSED = "success", "failure", "refused"
# What an event states, in the order of the table.
COLUMNS = tuple(column.name for column in audit.c if column.name != "event")
# Rows that are sealed in one transaction, and of which a reader holds so many.
AT_ONCE = 1000
# Letters of a text that may come from outside.
LONGEST = 1000


def record(
    connection: Connection,
    action: str,
    thing: str,
    *,
    actor: Actor = NODE,
    patient: str | None = None,
    outcome: str = SUCCESS,
    study: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write an event in the transaction of what it reports, without identity.

    thing:   what it was done to: the key of a study or job, a path of the API, the name of an account or section
    patient: pseudonym; of a study it is known from its row
    study:   its key
    detail:  what else is known, as JSON
    """
    of_study = None if study is None else select(studies.c.patient).where(studies.c.study == study).scalar_subquery()
    stated = {name: _cleaned(value) for name, value in (detail or {}).items()}
    row = {
        "at": Clock(),
        "actor": _text(actor.account),
        "role": actor.role,
        "address": _text(actor.address),
        "action": action,
        "object": _text(thing),
        "patient": of_study if patient is None else patient,
        "outcome": outcome,
        "detail": stated if study is None else {"study": study, **stated},
    }
    connection.execute(insert(audit).values(row))


def _cleaned(value: Any) -> Any:
    """A value of JSON whose texts every database and UTF-8 can hold."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list | tuple) else value


def _text(text: str) -> str:
    """Text from outside: bounded, in letters that move no cursor, none of them half a pair of UTF-16."""
    return printable(text[:LONGEST]).encode("utf-8", "replace").decode("utf-8")


def canonical(row: Mapping[str, Any]) -> str:
    """A row as the text of which its hash is made, if it is without one."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(row: Mapping[str, Any]) -> str:
    """The SHA-256 of a row without its hash."""
    text = canonical({name: value for name, value in row.items() if name != "hash"})
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Head:
    """The last sealed event: whoever keeps its hash elsewhere can tell later whether an event before it was changed."""

    sequence: int = 0
    hash: str = NOTHING


def head(database: Database) -> Head:
    """The last sealed event of a node."""
    newest = select(audit.c.sequence, audit.c.hash).where(audit.c.sequence.is_not(None))
    with database.read() as connection:
        row = connection.execute(newest.order_by(audit.c.sequence.desc()).limit(1)).first()
    return Head() if row is None else Head(row.sequence, row.hash)


def seal(database: Database, node: str) -> int:
    """Number the rows that are not sealed yet, and hash each with the one before it; how many there were.

    node: its name, which becomes part of the rows
    Called by the keeper alone. Of two that seal at once, one fails: no number is given twice.
    """
    unsealed = select(audit).where(audit.c.sequence.is_(None)).order_by(audit.c.event)
    with database.read() as connection:  # a transaction that writes would keep others waiting, mostly for nothing
        if connection.execute(unsealed.limit(1)).first() is None:
            return 0
    sealed = update(audit).where(audit.c.event == bindparam("this"), audit.c.sequence.is_(None))
    places = {name: bindparam(f"new_{name}") for name in ("sequence", "node", "previous", "hash")}
    done = 0
    while True:
        last = head(database)
        with database.write() as connection:
            rows = connection.execute(unsealed.limit(AT_ONCE)).all()
            values = list(_sealed(rows, last, node))
            if values:
                connection.execute(sealed.values(places), values)
        done += len(rows)
        if len(rows) < AT_ONCE:
            return done


def _sealed(rows: Sequence[Row[Any]], last: Head, node: str) -> Iterator[dict[str, Any]]:
    """What sealing writes into rows."""
    for row in rows:
        stated = {name: row._mapping[name] for name in COLUMNS if name != "hash"}
        own = {"sequence": last.sequence + 1, "node": node, "previous": last.hash}
        last = Head(last.sequence + 1, hash_of({**stated, **own}))
        yield {"this": row.event, "new_hash": last.hash, **{f"new_{name}": value for name, value in own.items()}}


def sealed_rows(database: Database) -> Iterator[dict[str, Any]]:
    """The sealed events of a node in their order."""
    ordered = select(*(audit.c[name] for name in COLUMNS)).order_by(audit.c.sequence)
    last = 0
    while True:
        # A portion at a time, so that a log of years neither fills the memory nor holds a transaction open.
        with database.read() as connection:
            rows = connection.execute(ordered.where(audit.c.sequence > last).limit(AT_ONCE)).all()
        yield from (dict(row._mapping) for row in rows)
        if len(rows) < AT_ONCE:
            return
        last = rows[-1].sequence


def unsealed_count(database: Database) -> int:
    """The number of events that the keeper has not sealed yet."""
    with database.read() as connection:
        counted = select(func.count()).select_from(audit).where(audit.c.sequence.is_(None))
        return int(connection.execute(counted).scalar_one())


@dataclass(frozen=True)
class Verdict:
    """What a check of events has found.

    events: how many are as they were written
    wrong:  the first sequence that is not, if any; problem: what is wrong with it
    """

    events: int
    wrong: int | None = None
    problem: str = ""


def verified(rows: Iterable[Mapping[str, Any] | None], expected_head: str | None = None) -> Verdict:
    """Check that events follow one another from the first, each as it was when it was sealed.

    rows:          None stands for what is no event
    expected_head: a hash that has to be among theirs, else the end is cut off, or all was written anew
    """
    last, seen = Head(), expected_head in (None, NOTHING)
    for row in rows:
        wrong = last.sequence + 1
        if row is None or row.keys() != set(COLUMNS):
            return Verdict(last.sequence, wrong, "it is no event as the node writes them")
        if row["sequence"] != wrong:
            return Verdict(last.sequence, wrong, f"in its place stands {row['sequence']!r}")
        if row["previous"] != last.hash:
            return Verdict(last.sequence, wrong, "it does not name the hash of the event before")
        if row["hash"] != hash_of(row):
            return Verdict(last.sequence, wrong, "it was changed after it was sealed")
        last = Head(wrong, row["hash"])
        seen = seen or last.hash == expected_head
    if not seen:
        return Verdict(last.sequence, last.sequence + 1, "no event has the hash of the head: events are missing here")
    return Verdict(last.sequence)
