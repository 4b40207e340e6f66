"""The page of threats to a node, made of `docs/threats.toml`, whose tests `hilum document trace` looks for.

python docs/write_threats.py        # writes docs/concepts/threats.md
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "threats.toml"
PAGE = Path(__file__).parent / "concepts" / "threats.md"
KINDS = ("Spoofing", "Tampering", "Repudiation", "Disclosure", "Denial of service", "Elevation")
HEAD = """# Threats to a node

`python docs/write_threats.py` writes this page from `docs/threats.toml`.

Each way into and out of a node, by STRIDE: spoofing, tampering, repudiation, information disclosure, denial of service,
elevation of privilege. A row is a threat, what holds it, and the test that shows it; `hilum document trace` checks
that the tests are there. A kind that a table lacks has no threat of its own there. What files may do to the program
that opens them stands in `SECURITY.md`.
"""
TAIL = """## What nothing here holds

Whoever has the machine's root, the database's password or the patient key has the patients. Disks and backups are not
encrypted by the node. A peer without TLS is known by a title that anybody can write. A node that listens on loopback
alone believes every program of its machine.
"""


def page() -> str:
    """The page: a table for each way, its threats in the order of STRIDE."""
    ways = tomllib.loads(SOURCE.read_text(encoding="utf-8"))["ways"]
    return "\n".join([HEAD, *map(section, ways), TAIL])


def section(way: Mapping[str, Any]) -> str:
    """A way in or out, and its threats."""
    rows = [row(one) for one in sorted(way["threats"], key=lambda one: KINDS.index(one["kind"]))]
    table = ["| threat | what holds it |", "|---|---|", *rows]
    return "\n\n".join([f"## {way['name']}", way["about"], "\n".join(table)]) + "\n"


def row(threat: Mapping[str, Any]) -> str:
    """A threat as a line of the table."""
    tests = ", ".join(f"`{one}`" for one in threat["tests"])
    return f"| **{threat['kind']}: {threat['threat']}** | {threat['held_by']} ({tests}) |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
