"""Incidents: what went wrong with results, why, what was done, and how that was checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from isocenter.service.records.actor import Actor
from isocenter.service.records.audit import record
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.tables import incidents, studies


@dataclass(frozen=True, eq=False)
class Incidents:
    """The table of incidents."""

    database: Database

    def rows(self, most: int) -> Sequence[Row[*tuple[Any, ...]]]:
        """Incidents with the UID of their study, the newest first."""
        joined = incidents.outerjoin(studies, incidents.c.study == studies.c.study)
        columns = [column for column in incidents.c if column.name != "study"]
        wanted = select(*columns, studies.c.uid.label("study")).select_from(joined)
        with self.database.read() as connection:
            return connection.execute(wanted.order_by(incidents.c.incident.desc()).limit(most)).all()

    def add(self, stated: Mapping[str, Any], who: Actor) -> int:
        """Keep a new incident; its number."""
        with self.database.write() as connection:
            row = {**stated, "account": who.account, "at": Clock()}
            [number] = connection.execute(insert(incidents).values(row)).inserted_primary_key or (0,)
            detail = {"kind": stated["kind"], "stated": sorted(name for name, value in stated.items() if value)}
            record(connection, "incident", str(number), actor=who, study=stated.get("study"), detail=detail)
        return int(number)

    def change(self, number: int, stated: Mapping[str, Any], who: Actor) -> bool:
        """State more of an incident, or something else; False where there is no such incident.

        The audit names what was changed, and not its words, which may name a person.
        """
        here = incidents.c.incident == number
        with self.database.write() as connection:
            row = connection.execute(select(incidents).where(here)).first()
            if row is None:
                return False
            changed = {name: value for name, value in stated.items() if value != row._mapping[name]}
            if changed:
                values = {**changed, "account": who.account, "at": Clock()}
                connection.execute(update(incidents).where(here).values(values))
                detail = {"changed": sorted(changed)}
                record(connection, "incident", str(number), actor=who, study=row.study, detail=detail)
        return True
