"""Figures of a change that goes on: of a package in shadow, and of the two arms of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, select

from isocenter.monitoring import (
    AUDITED,
    RATES,
    REPORTED,
    Stream,
    followed_difference,
    followed_mean,
    followed_ratio,
    parts_of_rate,
)
from isocenter.service.monitoring.cases import CALLED, INCLUSION, PROBABILITY, cases
from isocenter.service.records.actor import NODE
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.deployments import ARM, SHADOW, end_change, is_in_force, is_of_arm, state_of
from isocenter.service.records.tables import approvals, deployments, jobs, shadow_answers, studies
from isocenter.service.settings import Bound
from isocenter.service.work.shadowing import SHARES
from isocenter.values import Estimate

NEW, OLD, DIFFERENCE = "new", "old", "difference"
SHOWN_S = 30 * 86400.0  # after its end, in which figures of a change are shown


@dataclass(frozen=True)
class Figure:
    """A figure of a change. metric: as in `differences`, or a rate; arm: of a split, empty of a shadow

    source: of a rate, audited (drawn at random and read blind) or reported
    """

    metric: str
    arm: str
    estimate: Estimate
    source: str = ""

    def as_row(self) -> dict[str, Any]:
        """Row for the API and tables; what is not known is None."""
        ends = {name: getattr(self.estimate, name) for name in ("value", "low", "high")}
        known = {name: end if end is not None and np.isfinite(end) else None for name, end in ends.items()}
        return {"metric": self.metric, "arm": self.arm, "source": self.source, "cases": self.estimate.n, **known}


def figures_of(connection: Connection, change: Row[Any]) -> list[Figure]:
    """The figures of a shadow or a split, of each patient the first case; none of a live package, or before it began.

    Each interval holds at every look, on its own.
    """
    if change.began is None or change.mode not in (SHADOW, ARM):
        return []
    return _of_shadow(connection, change) if change.mode == SHADOW else list(_of_arms(connection, change))


def change_rows(connection: Connection, *where: ColumnElement[bool]) -> list[dict[str, Any]]:
    """Changes with their approvals and figures, oldest first, as plain values; times are s since 1970.

    Of what ended more than 30 days ago the figures are left out: all its cases would be read for each look.
    """
    long_ago = float(connection.execute(Clock().select()).scalar_one()) - SHOWN_S
    found = connection.execute(select(deployments).where(*where).order_by(deployments.c.n)).all()
    given_approvals = connection.execute(select(approvals).order_by(approvals.c.at)).all()
    columns = ("n", "model", "mode", "share", "until", "asked_at", "began", "ended", "because")
    return [
        {
            **{name: row._mapping[name] for name in columns},
            **{"package": row.manifest, "state": state_of(row), "check": row.check_hash},
            "approvals": [
                {"account": one.account, "role": one.role, "at": one.at} for one in given_approvals if one.n == row.n
            ],
            "figures": [
                one.as_row()
                for one in (figures_of(connection, row) if row.ended is None or row.ended > long_ago else ())
            ],
        }
        for row in found
    ]


def end_harmful(database: Database, bounds: Sequence[Bound]) -> list[str]:
    """End splits whose new arm lies below a bound of harm; why, in words.

    A rate from reported labels ends one as an audited one does: to end it is the safe side.
    """
    ended = list[str]()
    with database.read() as connection:
        arms = connection.execute(select(deployments).where(deployments.c.mode == ARM, is_in_force())).all()
        found = {arm.n: figures_of(connection, arm) for arm in arms if bounds}
    for n, figures in found.items():
        crossed = [
            f"the {one.source} {bound.metric} of {bound.label} in the new arm is at most {one.estimate.high:.3f}; "
            f"the bound is {bound.at_least:g}"
            for bound in bounds
            for one in figures
            if (one.metric, one.arm) == (f"{bound.metric}_{bound.label}", NEW)
            and one.estimate.high is not None
            and one.estimate.high < bound.at_least
        ]
        if crossed:
            with database.write() as connection:
                end_change(connection, n, NODE, crossed[0])
            ended.append(crossed[0])
    return ended


def _of_shadow(connection: Connection, change: Row[Any]) -> list[Figure]:
    joined = shadow_answers.join(jobs, jobs.c.job == shadow_answers.c.job).join(
        studies, studies.c.study == jobs.c.study
    )
    query = select(shadow_answers.c.differences, studies.c.patient, jobs.c.study).select_from(joined)
    query = query.where(shadow_answers.c.n == change.n, shadow_answers.c.done_at.is_not(None))
    values, counted = defaultdict[str, list[float]](list), set[tuple[str, str]]()
    for row in connection.execute(query.order_by(shadow_answers.c.done_at)):
        for metric, value in (row.differences or {}).items():
            key = (metric, row.patient or row.study)
            if key not in counted:
                counted.add(key)
                values[metric].append(value)
    return [
        Figure(metric, "", followed_mean(own, least=0.0 if metric.startswith(SHARES) else -1.0))
        for metric, own in sorted(values.items())
    ]


def _of_arms(connection: Connection, change: Row[Any]) -> Iterator[Figure]:
    """Shares, probabilities and rates of both arms; the old arm is every other patient of the model meanwhile."""
    until = min((one for one in (change.ended, change.until) if one is not None), default=None)
    table = cases(connection, change.began, until)
    table = table[table["model"] == change.model]
    if not len(table):
        return
    stream = Stream.of(table)
    is_new = np.asarray(stream.text("version") == change.hash)
    # A study that began before the split keeps the old package, also of a patient of the new arm.
    is_old = ~is_new & np.array([not is_of_arm(one, change) for one in stream.patients])
    arms = {NEW: stream.only(is_new), OLD: stream.only(is_old)}
    columns = {"abstained": {name: (one.text("abstained") != "").astype(float) for name, one in arms.items()}}
    for finding in stream.findings:
        columns[f"{CALLED}{finding}"] = {name: one.calls(finding) for name, one in arms.items()}
        columns[f"{PROBABILITY}{finding}"] = {
            name: one.numbers(f"{PROBABILITY}{finding}") for name, one in arms.items()
        }
    for metric, values in columns.items():
        own = {name: values[name][_first(arms[name], np.isfinite(values[name]))] for name in values}
        if not any(map(len, own.values())):
            continue
        for name, kept in own.items():
            yield Figure(metric, name, followed_mean(kept))
        yield Figure(metric, DIFFERENCE, followed_difference(own[NEW], own[OLD]))
    for name, arm in arms.items():
        for finding in stream.findings:
            yield from _rates(arm, name, finding)


def _rates(stream: Stream, arm: str, finding: str) -> Iterator[Figure]:
    """The rates of an arm where labels came, in the order in which they did."""
    calls, truths, chance = stream.calls(finding), stream.outcomes(finding), stream.numbers(INCLUSION)
    is_known = np.isfinite(calls) & np.isfinite(truths)
    for source, is_own in ((AUDITED, is_known & (chance > 0)), (REPORTED, is_known & ~np.isfinite(chance))):
        chosen = _first(stream, is_own, stream.text("reference_at"))
        weights = 1 / chance[chosen] if source == AUDITED else np.ones(len(chosen))
        for metric in RATES if len(chosen) else ():
            over, hits = parts_of_rate(metric, calls[chosen], truths[chosen])
            yield Figure(f"{metric}_{finding}", arm, followed_ratio(hits, over, weights), source)


def _first(stream: Stream, chosen: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """(patients,) places of the first case of each patient among those that are kept, in the order given."""
    places = np.flatnonzero(chosen)
    if order is not None:
        places = places[np.argsort(order[places], kind="stable")]
    _, first = np.unique(stream.patients[places], return_index=True)
    return places[np.sort(first)]
