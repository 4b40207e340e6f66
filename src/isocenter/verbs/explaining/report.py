"""The page of explanations: verdicts of the methods first, then each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isocenter.errors import counted, listed
from isocenter.report import Block, Gallery, Page, Paragraph, Section, Table, render
from isocenter.verbs.explaining.cohort import Made

MOST_CASES = 50


def explanation_page(
    made: Sequence[Made], records: Mapping[str, Mapping[str, Any]], refused: Mapping[str, str], facts: Mapping[str, Any]
) -> str:
    """HTML of the cases; records: {method: what its tests found}"""
    sections = [Section("Can these maps be believed?", verdict_blocks(records, refused))]
    sections += [Section(one.case, [Gallery(one.figures, small=len(one.figures) > 2)]) for one in made[:MOST_CASES]]
    if len(made) > MOST_CASES:
        sections.append(Section("More cases", [Paragraph(f"{len(made) - MOST_CASES} more have their files only.")]))
    return render(
        Page(
            "Explanations",
            [],
            sections,
            facts,
            lead=f"{counted(len(made), 'case')}: what the model's answers rest on.",
            verdict=verdict_sentence(records),
        )
    )


def verdict_sentence(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Which methods passed, in words."""
    tested = {name: bool(record.get("passed")) for name, record in records.items()}
    if not tested:
        return "No method was tested on this model: believe no map."
    passed = [name for name, fine in tested.items() if fine]
    if not passed:
        return f"None of {counted(len(tested), 'method')} passed its tests on this model: believe no map."
    return f"{listed(passed)} passed {'its' if len(passed) == 1 else 'their'} tests on this model."


def verdict_blocks(records: Mapping[str, Mapping[str, Any]], refused: Mapping[str, str]) -> list[Block]:
    """A table of the tests, and why other methods cannot be."""
    blocks: list[Block] = []
    if records:
        rows = [
            [name, "passed" if one.get("passed") else "failed", one.get("because", "")] for name, one in records.items()
        ]
        blocks.append(Table(["Method", "Tests", "Because"], rows))
    if refused:
        blocks.append(Table(["Method", "Cannot explain this model because"], [list(one) for one in refused.items()]))
    return blocks or [Paragraph("No method was tested.")]
