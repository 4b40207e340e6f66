"""Figures for the findings: one section and one JSON file a part."""

from __future__ import annotations

import datetime
import json
import math
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from environment import ROOT
from machine import described

PAGES, RESULTS = ROOT / "bench" / "findings", ROOT / "bench" / "results"


def record(
    part: str, title: str, table_markdown: str, data: dict[str, Any], *, pages: Path = PAGES, results: Path = RESULTS
) -> None:
    """Write `<part>.json` among the results and the part's section of its page, with machine, command and commit.

    The section stands between `<!-- bench:<part> -->` and `<!-- /bench:<part> -->`; a new part gets a page of its own.
    """
    command = " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *map(shlex.quote, sys.argv[1:])])
    measured = {"part": part, "title": title, "machine": described(), "command": command, **_when(), **data}
    figures, page = results / f"{part}.json", page_of(part, pages)
    for folder in (pages, results):
        folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps(_plain(measured), indent=1, default=str, allow_nan=False)
    figures.write_text(record + "\n", encoding="utf-8")
    # System and version of Python stand in the record.
    machine = re.sub(rf", {platform.system()}, Python [\d.]+", "", measured["machine"])
    origin = f"By `{command}` on {measured['day']}. Machine: {machine}."
    section = f"## {title}\n\n{origin}\n\n{table_markdown.strip()}\n"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# {title}\n"
    page.write_text(replaced(text, part, section), encoding="utf-8")


def measured_cell(out: Path, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A cell's figures, seconds and day: from `out/cells.jsonl` where it ended before, else measured now."""
    path = out / "cells.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {line["name"]: line["row"] for line in lines}
    if name not in known:
        began = time.monotonic()
        known[name] = {**measure(), "seconds": round(time.monotonic() - began), "day": _today()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "row": known[name]}) + "\n")
    print(name, row_words(known[name]), flush=True)
    return known[name]


def row_words(row: dict[str, Any]) -> str:
    """The figures of a cell in a line, each after its name."""
    return "; ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )


def page_of(part: str, folder: Path = PAGES) -> Path:
    """The page that holds the part's section; `<part>.md` where no page does."""
    mark = f"<!-- bench:{part} -->"
    holding = [page for page in sorted(folder.glob("*.md")) if mark in page.read_text(encoding="utf-8")]
    if len(holding) > 1:
        raise ValueError(f"the section of {part} stands on {' and '.join(page.name for page in holding)}")
    return holding[0] if holding else folder / f"{part}.md"


def known(part: str) -> dict[str, Any]:
    """The record of a part; empty where there is none yet."""
    figures = RESULTS / f"{part}.json"
    return json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}


def replaced(text: str, part: str, section: str) -> str:
    """The page with the part's section exchanged, or added at the end."""
    start, end = f"<!-- bench:{part} -->", f"<!-- /bench:{part} -->"
    new = f"{start}\n{section}{end}"
    if start not in text:
        return f"{text.rstrip()}\n\n{new}\n"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"the page has the marks of {part} more than once, or only one of them")
    return re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: new, text, flags=re.DOTALL)


def _plain(value: Any) -> Any:
    """A number that is none becomes null, which JSON has; where the checkout lies is nobody's business."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value.replace(str(ROOT), ".")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def commit() -> str:
    """The commit that is measured, with a mark where files differ from it."""
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def code() -> str:
    """Our source as it is measured: alike for two commits that differ elsewhere, with a mark where it is changed."""
    asked = ("git", "rev-parse", "--short=10", "HEAD:src"), ("git", "status", "--porcelain", "--", "src")
    tree, changed = (subprocess.run(one, cwd=ROOT, capture_output=True, text=True, check=False).stdout for one in asked)
    return f"{tree.strip() or 'unknown'}{'-dirty' * bool(changed.strip())}"


def _when() -> dict[str, str]:
    return {"day": _today(), "commit": commit()}


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
