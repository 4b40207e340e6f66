"""Baselines: the cases of a site with which later ones of a model are compared, frozen by a person."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from isocenter.service.monitoring.cases import newest
from isocenter.service.records.actor import Actor
from isocenter.service.records.audit import record
from isocenter.service.records.database import Clock
from isocenter.service.records.tables import baselines


def baseline_of(connection: Connection, version: str) -> Row[Any] | None:
    """The row of the baseline that counts for a model; None where none was frozen."""
    wanted = select(baselines).where(baselines.c.model_hash == version).order_by(baselines.c.n.desc())
    return connection.execute(wanted.limit(1)).first()


def freeze(connection: Connection, model: str, version: str, wanted: int, who: Actor) -> bool:
    """Have the newest cases of a version be its baseline; False where there are fewer than wanted."""
    count, first, last = newest(connection, version, wanted)
    if count < wanted:
        return False
    own = {"model": model, "model_hash": version, "cases": count, "first_at": first, "last_at": last}
    made = insert(baselines).values(**own, frozen_at=Clock(), frozen_by=who.account)
    n = connection.execute(made.returning(baselines.c.n)).scalar_one()
    record(connection, "baseline frozen", model, actor=who, detail={"n": n, "version": version, "cases": count})
    return True
