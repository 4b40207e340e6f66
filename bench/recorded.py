"""Figures into the page of benchmarks: one section and one JSON file a part."""

from __future__ import annotations

import datetime
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from environment import ROOT
from machine import described

PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "benchmarks"


def record(part: str, title: str, table_markdown: str, data: dict[str, Any], *, page: Path = PAGE) -> None:
    """Writes `docs/benchmarks/<part>.json` and the part's section of the page, with machine, command and commit.

    The section stands between `<!-- bench:<part> -->` and `<!-- /bench:<part> -->`; a new one goes to the end.
    """
    command = " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *map(shlex.quote, sys.argv[1:])])
    measured = {"part": part, "title": title, "machine": described(), "command": command, **_when(), **data}
    figures = page.parent / FIGURES.name / f"{part}.json"
    figures.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_told(measured), indent=1, default=str, allow_nan=False)
    figures.write_text(text + "\n", encoding="utf-8")
    said = f"By `{command}`. Machine: {measured['machine']}."
    section = f"## {title}\n\n{said}\n\n{table_markdown.strip()}\n"
    page.write_text(replaced(page.read_text(encoding="utf-8"), part, section), encoding="utf-8")


def known(part: str) -> dict[str, Any]:
    """What was recorded of a part before; nothing where it never was."""
    figures = FIGURES / f"{part}.json"
    return json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}


def replaced(text: str, part: str, section: str) -> str:
    """The page with the part's section exchanged, or added at the end."""
    begin, end = f"<!-- bench:{part} -->", f"<!-- /bench:{part} -->"
    new = f"{begin}\n{section}{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n{new}\n"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the page has the marks of {part} more than once, or one of them alone")
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: new, text, flags=re.DOTALL)


def _told(value: Any) -> Any:
    """A number that is none becomes null, which JSON has; where the checkout lies is nobody's business."""
    if isinstance(value, dict):
        return {str(key): _told(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
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
    return {"day": datetime.datetime.now(datetime.UTC).date().isoformat(), "commit": commit()}
