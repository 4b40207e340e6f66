"""Ask the advisory service about the lowest versions that pyproject.toml allows, and about those of constraints.txt.

`python tests/audit_dependencies.py` ends with 1 where a version has a known vulnerability. Where the service cannot be
reached, it states that nothing was audited, and ends with 0: without a network nothing else can be tried.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?>=([\w.]+)$")
PINNED = re.compile(r"([A-Za-z0-9._-]+)===?([\w.]+)$")
LONGEST_S = 600


def floors(project: Mapping[str, Any]) -> list[str]:
    """The lowest version of each dependency that has one, as name==version."""
    named = [*project["dependencies"], *(one for own in project["optional-dependencies"].values() for one in own)]
    return _pins(FLOOR, named)


def pinned(constraints: str) -> list[str]:
    """The versions of constraints.txt, as name==version."""
    return _pins(PINNED, constraints.splitlines())


def _pins(form: re.Pattern[str], lines: Iterable[str]) -> list[str]:
    return sorted({f"{match[1]}=={match[2]}" for line in lines if (match := form.match(line.strip()))})


def answer(pins: Sequence[str]) -> tuple[str, str]:
    """What pip-audit writes about these versions, and the last line of its errors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(pins), encoding="utf-8")
        asked = [sys.executable, "-m", "pip_audit", "--requirement", str(path), "--no-deps", "--disable-pip"]
        asked += ["--progress-spinner", "off", "--format", "json"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        except subprocess.TimeoutExpired:
            return "", f"no answer within {LONGEST_S} s"
    return done.stdout, next(iter(done.stderr.strip().splitlines()[-1:]), "")


def judged(name: str, pins: Sequence[str], text: str, error: str = "") -> tuple[list[str], bool]:
    """Lines about these versions, and whether one of them is known to be vulnerable."""
    try:
        known = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        known = []
    # What an index does not have is no answer: a mirror without advisories skips everything, and finds nothing.
    audited = [one for one in known if "skip_reason" not in one]
    if not audited:
        why = "the service knows none of them" if known else error or "no answer"
        return [f"{name}: NOTHING WAS AUDITED, because the advisory service cannot be reached ({why})"], False
    lines = [
        f"{name}: {one['name']} {one['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none'}"
        for one in audited
        for flaw in one["vulns"]
    ]
    number = f"{name}: {len(audited)} of {len(pins)} versions audited, {len(lines)} vulnerabilities"
    return [*lines, number], bool(lines)


def main() -> int:
    """Audit both lists; 1 where a version is known to be vulnerable."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {
        "floors of pyproject.toml": floors(project),
        "constraints.txt": pinned((ROOT / "constraints.txt").read_text(encoding="utf-8")),
    }
    outcomes = [judged(name, pins, *answer(pins)) for name, pins in lists.items()]
    sys.stdout.writelines(f"{line}\n" for lines, _ in outcomes for line in lines)
    return int(any(vulnerable for _, vulnerable in outcomes))


if __name__ == "__main__":
    sys.exit(main())
