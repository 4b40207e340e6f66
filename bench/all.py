"""Every comparison one after the other, or those that are named: `make bench`, `make bench PART=reading`.

    python bench/all.py [PART...] [--small] [--resume]

A part that fails does not stop the others; what failed is said at the end, in words, and the exit is then 1. Each part
leaves what it printed in `.bench/log/<part>.txt`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from environment import PLACE, ROOT
from recorded import code

HERE = Path(__file__).resolve().parent
FINISHED = PLACE / "finished.json"
# The longest come last, so that a machine which is taken away has done most parts.
LAST = ("training_steps", "time_to_dice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts()))
    parser.add_argument("--small", action="store_true", help="a trial of each, which records nothing")
    parser.add_argument("--resume", action="store_true", help="leave out what was finished with this very source")
    given = parser.parse_args()
    unknown = sorted(set(given.parts) - set(parts()))
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}, only {', '.join(parts())}")
    PLACE.mkdir(exist_ok=True)
    outcomes = {}
    for part in given.parts or parts():
        before = _finished().get(part, {})
        if given.resume and before.get("code") == code():
            outcomes[part] = f"left out: finished on {before['day']} with this source"
            continue
        outcomes[part] = _run(part, given.small)
    print("\n".join(["", *(f"{part}: {outcome}" for part, outcome in outcomes.items())]))
    sys.exit(any(outcome.startswith("failed") for outcome in outcomes.values()))


def parts() -> list[str]:
    """The files of bench/ that record a comparison, in the order in which they run."""
    recording = [file.stem for file in HERE.glob("*.py") if is_part(file.read_text(encoding="utf-8"))]
    return sorted(recording, key=lambda part: (LAST.index(part) + 1 if part in LAST else 0, part))


def is_part(text: str) -> bool:
    return "from beside import" in text and re.search(r"^\s+record\($|^\s+record\(\S", text, re.MULTILINE) is not None


def _run(part: str, small: bool) -> str:
    """What came of it, in words."""
    print(f"=== {part}", flush=True)
    log = PLACE / "log" / f"{part}.txt"
    log.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    command = [sys.executable, str(HERE / f"{part}.py"), "--small" if small else "--record"]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
            last = line.strip() or last
    minutes = (time.monotonic() - began) / 60
    if process.wait():
        return f"failed after {minutes:.1f} min: {last}"
    if not small:
        done: dict[str, Any] = {"code": code(), "day": datetime.datetime.now(datetime.UTC).date().isoformat()}
        FINISHED.write_text(json.dumps({**_finished(), part: done}))
    return f"done in {minutes:.1f} min"


def _finished() -> dict[str, Any]:
    return dict(json.loads(FINISHED.read_text())) if FINISHED.is_file() else {}


if __name__ == "__main__":
    main()
