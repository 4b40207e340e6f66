"""A node's database in figures: how much it was used, by which models, and how the work ended. No identity is read."""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from isocenter.errors import IntegrityError
from isocenter.evaluation import intervals

NODE, DATABASE = "node.json", "node.sqlite"
SETTINGS = "settings.json"  # of a node whose database is a server
# Of an incident: harm to public health, a death, a serious decline, one of these that could have been, none of them.
KINDS = ("public threat", "death", "decline", "possible", "none")
# Days within which a manufacturer reports: 21 CFR 803.50 and 803.53, and Article 87 of Regulation (EU) 2017/745.
FDA_DAYS, FDA_WORK_DAYS = 30, 5
EU_DAYS = {"public threat": 2, "death": 10, "decline": 10, "possible": 15}
Query = Callable[[str], Sequence[tuple[Any, ...]]]


def record_from_file(folder: Path) -> dict[str, Any]:
    """The figures of a node whose database is a file in its folder, which is opened for reading only.

    Raises IntegrityError for a file that is no node's database.
    """
    path = folder / DATABASE
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            known = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return node_record(lambda query: database.execute(query).fetchall(), known)
    except sqlite3.DatabaseError as error:
        raise IntegrityError(f"is no database of a node ({error})", str(path), "Give the node's folder") from error


def node_record(query: Query, tables: Collection[str]) -> dict[str, Any]:
    """The figures of a node, of all its time until now; a part that a table would tell is left out.

    query: asks the database; known: its tables
    """
    exposure = _exposure(query)
    opinions = _opinions(query)
    return {
        "exposure": exposure,
        "rates": _rates(exposure, opinions),
        **_models(query),
        **_images(query),
        **_sent(query),
        **opinions,
        **(_incidents(query) if "incidents" in tables else {}),
        **(_monitoring(query) if {"alerts", "outcomes", "deployments"} <= {*tables} else {}),
        **_audit(query),
    }


def _exposure(query: Query) -> dict[str, Any]:
    """Studies and jobs, how these ended, and how long they took."""
    [(studies,)] = query("SELECT count(*) FROM studies")
    [(first, last)] = query("SELECT min(created_at), max(created_at) FROM jobs")
    outcomes: dict[str, int] = dict(query("SELECT coalesce(outcome, 'open'), count(*) FROM jobs GROUP BY 1 ORDER BY 1"))
    times = query("SELECT done_at - started_at FROM jobs WHERE outcome = 'answered' AND started_at IS NOT NULL")
    seconds = [one for (one,) in times if one is not None]
    return {
        "studies": studies,
        "jobs": sum(outcomes.values()),
        "outcomes": outcomes,
        "failed": outcomes.get("failed", 0),
        "from": _day(first),
        "to": _day(last),
        "median_seconds": round(statistics.median(seconds), 3) if seconds else None,
    }


def _models(query: Query) -> dict[str, Any]:
    """Each version of each model with its jobs and days, and how often a model was followed by another version."""
    wanted = (
        "SELECT model, model_hash, count(*), min(created_at), max(created_at) FROM jobs "
        "GROUP BY model, model_hash ORDER BY model, min(created_at)"
    )
    models = [
        {"model": model, "sha256": sha256, "jobs": jobs, "from": _day(first), "to": _day(last)}
        for model, sha256, jobs, first, last in query(wanted)
    ]
    return {"models": models, "changes": len(models) - len({one["model"] for one in models})}


def _images(query: Query) -> dict[str, Any]:
    wanted = "SELECT coalesce({0}, 'not stated'), count(*) FROM series GROUP BY 1 ORDER BY 1"
    columns = {"modalities": "modality", "manufacturers": "manufacturer", "scanners": "model"}
    return {name: dict(query(wanted.format(column))) for name, column in columns.items()}


def _sent(query: Query) -> dict[str, Any]:
    deliveries: dict[str, int] = dict(query("SELECT state, count(*) FROM deliveries GROUP BY 1 ORDER BY 1"))
    [(notices, acknowledged)] = query("SELECT count(*), count(acknowledged_at) FROM notices")
    return {"deliveries": deliveries, "notices": {"sent": notices, "acknowledged": acknowledged}}


def _audit(query: Query) -> dict[str, Any]:
    """Count each action in the audit, and the sealed rows; nothing is read of who acted."""
    actions = query("SELECT action, outcome, count(*) FROM audit GROUP BY 1, 2 ORDER BY 1, 2")
    [(sealed,)] = query("SELECT count(hash) FROM audit")
    counts: dict[str, dict[str, int]] = {}
    for action, outcome, count in actions:
        counts.setdefault(action, {})[outcome] = count
    return {"audit": {"rows": sum(count for *_, count in actions), "sealed": sealed, "actions": counts}}


def _opinions(query: Query) -> dict[str, Any]:
    """Last verdicts on each result, by model too, and the time that people looked at it; nothing before the first."""
    last = "feedback IN (SELECT max(feedback) FROM feedback GROUP BY judged)"
    verdicts = {"accepted": 0, "corrected": 0, "rejected": 0}
    verdicts |= dict(query(f"SELECT verdict, count(*) FROM feedback WHERE {last} GROUP BY 1"))  # noqa: S608 - our own words
    judged = sum(verdicts.values())
    if not judged:
        return {}
    joined = f"feedback JOIN jobs ON judged = job WHERE {last} GROUP BY 1, 2 ORDER BY 1, 2"
    by_model: dict[str, dict[str, int]] = {}
    for model, verdict, count in query(f"SELECT model, verdict, count(*) FROM {joined}"):  # noqa: S608
        by_model.setdefault(model, {})[verdict] = count
    reasons = query(
        f"SELECT reason, count(*) FROM feedback WHERE {last} AND verdict <> 'accepted' GROUP BY 1 ORDER BY 1"  # noqa: S608
    )
    times = [one for (one,) in query("SELECT seconds FROM feedback WHERE seconds IS NOT NULL")]
    share = verdicts["accepted"] / judged
    agreement = {"judged": judged, **verdicts, "share": share, "by_model": by_model, "reasons": dict(reasons)}
    return {"agreement": agreement, **({"reading": {"seconds": statistics.median(times)}} if times else {})}


def _monitoring(query: Query) -> dict[str, Any]:
    """Alerts of monitoring, outcomes by their source, and the packages that answered for models, each with its days."""
    alerts = query("SELECT at, severity, watch, scope, state, because FROM alerts ORDER BY n")
    names = ("at", "severity", "watch", "scope", "state", "because")
    rows = [dict(zip(names, (_day(at), *others), strict=True)) for at, *others in alerts]
    sources = query("SELECT source, count(*) FROM outcomes GROUP BY 1 ORDER BY 1")
    deployed = query("SELECT model, mode, hash, began, ended, because FROM deployments ORDER BY n")
    packages = [
        {"model": model, "mode": mode, "sha256": sha256, "from": _day(began), "to": _day(ended), "because": because}
        for model, mode, sha256, began, ended, because in deployed
    ]
    is_open = [row["state"] in ("open", "acknowledged") for row in rows]
    return {
        "alerts": {"total": len(rows), "open": sum(is_open), "rows": rows},
        "known_outcomes": dict(sources),
        "deployments": packages,
    }


def _rates(exposure: Mapping[str, Any], opinions: Mapping[str, Any]) -> dict[str, Any]:
    """{what went wrong: its share among the jobs that ended, or among judged results, with its exact interval}."""
    outcomes = exposure["outcomes"]
    ended = sum(count for outcome, count in outcomes.items() if outcome != "open")
    counts = {name: (outcomes.get(name, 0), ended) for name in ("failed", "abstained", "refused")}
    if opinions:
        counts["rejected"] = opinions["agreement"]["rejected"], opinions["agreement"]["judged"]
    made = {name: intervals.clopper_pearson(count, n) for name, (count, n) in counts.items() if n}
    return {name: {"value": one.value, "low": one.low, "high": one.high, "n": one.n} for name, one in made.items()}


def _incidents(query: Query) -> dict[str, Any]:
    """Incidents, each with the days on which reports are due; open until cause, action and its check are stated."""
    names = ("incident", "known_on", "kind", "harm", "version", "cause", "action", "checked")
    found = query(f"SELECT {', '.join(names)} FROM incidents ORDER BY incident")  # noqa: S608
    rows = [dict(zip(names, one, strict=True)) for one in found]
    for row in rows:
        row["open"] = not (row["cause"] and row["action"] and row["checked"])
        row["due"] = due_days(row["kind"], date.fromisoformat(row["known_on"]))
    return {"incidents": {"total": len(rows), "open": sum(row["open"] for row in rows), "rows": rows}}


def due_days(kind: str, known: date) -> dict[str, str]:
    """{authority and its rule: the last day}; work days are those from Monday to Friday, holidays are not known."""
    if kind not in EU_DAYS:
        return {"none": "no single report is due; it counts for trends"}
    last, work_days = known, 0
    while work_days < FDA_WORK_DAYS:
        last += timedelta(days=1)
        work_days += last.weekday() < 5
    return {
        f"FDA, {FDA_DAYS} days": (known + timedelta(days=FDA_DAYS)).isoformat(),
        f"FDA, {FDA_WORK_DAYS} work days where an action must prevent an unreasonable risk": last.isoformat(),
        f"EU, {EU_DAYS[kind]} days": (known + timedelta(days=EU_DAYS[kind])).isoformat(),
    }


def _day(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()


def node_text(record: Mapping[str, Any]) -> str:
    """The record as text, whose SHA-256 stands in the rows."""
    return json.dumps({"schema": "isocenter.node", "version": 1, **record}, indent=1) + "\n"
