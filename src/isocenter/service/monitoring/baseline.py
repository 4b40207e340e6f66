"""Baselines: the cases of a site with which later ones of a model are compared, frozen by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, Row, insert, select

from isocenter.monitoring import SiteTest, Stream, tests_of_features
from isocenter.service.monitoring.cases import cases, features_of, newest
from isocenter.service.records.actor import Actor
from isocenter.service.records.audit import record
from isocenter.service.records.database import Clock
from isocenter.service.records.tables import baselines

if TYPE_CHECKING:
    from isocenter.runtime import Guard


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


def baseline_stream(connection: Connection, baseline: Row[Any], gate: Guard | None) -> Stream:
    """The cases of a baseline. gate: as in `cases`."""
    return Stream.of(cases(connection, _before(baseline), baseline.last_at, baseline.model_hash, gate))


def site_of(connection: Connection, baseline: Row[Any], known: Stream, gate: Guard | None) -> list[SiteTest]:
    """Whether the cases of a baseline are like those that calibrated its model; nothing where that cannot be known.

    known: the cases of the baseline
    """
    seen = features_of(connection, _before(baseline), baseline.last_at, baseline.model_hash)
    if gate is None or not (len(gate.calibrated) and seen):
        return []
    lacking = np.full(gate.calibrated.shape[1], np.nan)
    features = np.stack([seen.get(case, lacking) for case in known.text("case").tolist()])
    # A worker keeps features as float16: else how they were rounded would tell the groups apart.
    return tests_of_features(gate.calibrated.astype(np.float16), features, known.patients)


def _before(baseline: Row[Any]) -> float:
    """The time just before its first case was done (s since 1970)."""
    return float(np.nextafter(baseline.first_at, 0.0))
