"""The page of what files state of themselves, made of the rows beside the reader of each format and layout.

python docs/write_stated_facts.py        # writes docs/stated-facts.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from hilum.files import file_formats, measurement_file
from hilum.layouts import layout
from hilum.layouts.layout import LAYOUTS
from hilum.values import FactOutcome, FactRule, grouping

PAGE = Path(__file__).parent / "stated-facts.md"
HEAD = """# What a file states of itself

`python docs/write_stated_facts.py` writes this page from the rows beside each reader, of which tests read an example each.
A note is a line of `check`, `plan` and `train`, one for each kind with the number of cases; `convert` prints those of
its image.

| files | read | named in a note | refused |
|---|---|---|---|
"""


def fact_rules() -> tuple[FactRule, ...]:
    """The rows of all formats, of measurements, and of layouts with files of their own."""
    of_formats = [rule for name in file_formats.FORMATS for rule in file_formats.load_format(name).facts]
    of_layouts = [rule for name in LAYOUTS for rule in layout.load_layout(name).facts]
    return tuple(dict.fromkeys((*of_formats, *measurement_file.FACTS, *of_layouts)))


def page() -> str:
    """The page: a line for each kind of file."""
    return f"{HEAD}{''.join(rows())}"


def rows() -> Iterator[str]:
    """A line for each kind of file."""
    by_source = grouping.by_key((rule.source, rule) for rule in fact_rules())
    for source, rules in by_source.items():
        cells = ["; ".join(rule.fact for rule in rules if rule.outcome == outcome) for outcome in get_args(FactOutcome)]
        yield f"| {source} | {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
