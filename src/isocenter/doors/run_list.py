"""The runs below a workspace, each with its verdict and its primary metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from isocenter.files.storage import structured_text

# Files by which the folder of a run is known, and those of what it came to.
MARKS = ("plan.yaml", "split.csv")
SUMMARY, REPORT = "evaluation/summary.json", "report.html"


@dataclass(frozen=True)
class ListedRun:
    """A run in a list: its folder, what its figures support, and the primary metric; empty where it is unfinished."""

    name: str
    verdict: str = ""
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    report: str = ""
    finished: float = 0.0


def list_runs(workspace: Path) -> list[dict[str, Any]]:
    """The runs of a workspace as records, the newest first."""
    folders = [one for one in workspace.iterdir() if one.is_dir() and all((one / mark).is_file() for mark in MARKS)]
    runs = [_listed_run(one, _time_of(one / SUMMARY), (one / REPORT).is_file()) for one in folders]
    return [asdict(one) for one in sorted(runs, key=lambda one: (one.finished, one.name), reverse=True)]


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@lru_cache(maxsize=1000)
def _listed_run(folder: Path, finished: float, has_report: bool) -> ListedRun:
    report = f"{folder.name}/{REPORT}" if has_report else ""
    try:
        summary: Mapping[str, Any] = structured_text.load_json(folder / SUMMARY)
        rows, primary = list(summary["rows"]), summary.get("primary")
        row = next((one for one in rows if one["metric"] == primary), rows[0])
        answer = str(summary.get("verdict", {}).get("answer", ""))
        estimate = {name: row.get(name) for name in ("value", "low", "high")}
        return ListedRun(folder.name, answer, str(row["metric"]), report=report, finished=finished, **estimate)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):  # unfinished, or of another version
        return ListedRun(folder.name, report=report, finished=finished)
