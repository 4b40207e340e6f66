"""A node's database in figures: how much it was used, by which models, and how the work ended. No identity is read."""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from isocenter.errors import IntegrityError

NODE, DATABASE = "node.json", "node.sqlite"


def node_record(folder: Path) -> dict[str, Any]:
    """The figures of a node in its folder, of all its time until now; a part that a table would tell is left out.

    The database is opened for reading only, so that a node may work meanwhile.
    Raises IntegrityError for a file that is no node's database.
    """
    path = folder / DATABASE
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return {
                "exposure": _exposure(database),
                **_models(database),
                **_images(database),
                **_sent(database),
                **_audit(database),
            }
    except sqlite3.DatabaseError as error:
        raise IntegrityError(f"is no database of a node ({error})", str(path), "Give the node's folder") from error


def _exposure(database: sqlite3.Connection) -> dict[str, Any]:
    """Studies and jobs, how these ended, and how long they took."""
    [(studies,)] = _rows(database, "SELECT count(*) FROM studies")
    [(first, last)] = _rows(database, "SELECT min(created_at), max(created_at) FROM jobs")
    outcomes = dict(_rows(database, "SELECT coalesce(outcome, 'open'), count(*) FROM jobs GROUP BY 1 ORDER BY 1"))
    times = _rows(database, "SELECT done_at - started_at FROM jobs WHERE outcome = 'result' AND started_at IS NOT NULL")
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


def _models(database: sqlite3.Connection) -> dict[str, Any]:
    """Each version of each model with its jobs and days, and how often a model was followed by another version."""
    query = (
        "SELECT model, model_hash, count(*), min(created_at), max(created_at) FROM jobs "
        "GROUP BY model, model_hash ORDER BY model, min(created_at)"
    )
    models = [
        {"model": model, "sha256": sha256, "jobs": jobs, "from": _day(first), "to": _day(last)}
        for model, sha256, jobs, first, last in _rows(database, query)
    ]
    return {"models": models, "changes": len(models) - len({one["model"] for one in models})}


def _images(database: sqlite3.Connection) -> dict[str, Any]:
    query = "SELECT coalesce({0}, 'not stated'), count(*) FROM series GROUP BY 1 ORDER BY 1"
    columns = {"modalities": "modality", "manufacturers": "manufacturer", "scanners": "model"}
    return {name: dict(_rows(database, query.format(column))) for name, column in columns.items()}


def _sent(database: sqlite3.Connection) -> dict[str, Any]:
    deliveries = dict(_rows(database, "SELECT state, count(*) FROM deliveries GROUP BY 1 ORDER BY 1"))
    [(notices, acknowledged)] = _rows(database, "SELECT count(*), count(acknowledged_at) FROM notices")
    return {"deliveries": deliveries, "notices": {"sent": notices, "acknowledged": acknowledged}}


def _audit(database: sqlite3.Connection) -> dict[str, Any]:
    """How often each action stands in the audit, and how many rows are sealed; of who acted nothing is read."""
    actions = _rows(database, "SELECT action, outcome, count(*) FROM audit GROUP BY 1, 2 ORDER BY 1, 2")
    [(sealed,)] = _rows(database, "SELECT count(hash) FROM audit")
    counts: dict[str, dict[str, int]] = {}
    for action, outcome, count in actions:
        counts.setdefault(action, {})[outcome] = count
    return {"audit": {"rows": sum(count for *_, count in actions), "sealed": sealed, "actions": counts}}


def _rows(database: sqlite3.Connection, query: str) -> Sequence[tuple[Any, ...]]:
    return database.execute(query).fetchall()


def _day(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()


def node_text(record: dict[str, Any]) -> str:
    """The record as text, whose SHA-256 stands in the rows."""
    return json.dumps({"schema": "isocenter.node", "version": 1, **record}, indent=1) + "\n"
