"""The audit: who did what to what, each event a row in the transaction of what it reports.

So neither is there without the other. `chain.py` says how rows are sealed, after which no change of them goes unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from isocenter.errors import printable
from isocenter.service.objects.received import Happened
from isocenter.service.records.actor import NODE, Actor
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.tables import audit, studies

# What became of it; refused: for want of a right.
SUCCESS, FAILURE, REFUSED = "success", "failure", "refused"
LONGEST = 1000  # letters of a text that may come from outside
CONFIGURATION = "configuration"


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
    """Write an event, without identity, in the transaction of what it reports.

    thing:   what it was done to: the key of a study or job, a path of the API, the name of an account or section
    patient: pseudonym; that of a study is known from its row
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


def record_change(connection: Connection, thing: str, old: Any, new: Any, who: Actor = NODE) -> None:
    """Write that a section of the settings, an account or a token is new, another, or gone; old, new: None for none."""
    record(connection, CONFIGURATION, thing, actor=who, detail={"old": old, "new": new})


def record_lines(database: Database, lines: Sequence[Happened]) -> None:
    """Write the events of receivers, which reach no database; a line that is read twice is one event."""
    with database.write() as connection:
        ids = [line.id for line in lines]
        known = set(connection.execute(select(audit.c.line).where(audit.c.line.in_(ids))).scalars())
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
            if line.id not in known
        }
        if rows:
            connection.execute(insert(audit), list(rows.values()))


def record_settings(database: Database, settings: Mapping[str, Any]) -> list[str]:
    """An event for each section of the settings that is another than the last time; their names.

    settings: {section: values as JSON}; none of them is a secret, as these come from the environment
    """
    written = (audit.c.action == CONFIGURATION, audit.c.object.in_([f"[{name}]" for name in settings]))
    changed = list[str]()
    with database.write() as connection:
        before = connection.execute(select(audit.c.object, audit.c.detail).where(*written).order_by(audit.c.event))
        known = {row.object: row.detail["new"] for row in before}
        for name, value in settings.items():
            new, old = _cleaned(value), known.get(f"[{name}]")
            if new != old:
                record_change(connection, f"[{name}]", old, new)
                changed.append(name)
    return changed


def _cleaned(value: Any) -> Any:
    """A value of JSON whose texts every database, and UTF-8, can hold."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list | tuple) else value


def _text(text: str) -> str:
    """Text from outside: bounded, in letters that move no cursor, none of them half a pair of UTF-16."""
    return printable(text[:LONGEST]).encode("utf-8", "replace").decode("utf-8")
