"""A search in a report: every trial in a picture and in a table, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping

from isocenter.report import Block, Gallery, Paragraph, Section, Table, figures, metric_name, number
from isocenter.verbs.training.search import Found

COLUMNS = ("Trial", "", "Steps", "s", "Tried")
JUDGED = (
    "Each trial is a short training, judged by the validation cases alone; the first is the plan as it stands. The "
    "best of many values is too good, so that none of them is an estimate."
)


def search_sections(found: Mapping[str, Found], metric: str) -> list[Section]:
    """found: {where: what a search came to}; of a run without folds it is nowhere in particular"""
    if not found:
        return []
    blocks: list[Block] = [Paragraph(JUDGED)]
    for where, one in found.items():
        said = f"{where}: {one.said}" if where else one.said
        blocks += [Paragraph(f"{said}."), _picture(one, metric, where), _table(one, metric)]
    return [Section("Search", blocks)]


def _picture(found: Found, metric: str, where: str) -> Gallery:
    known = [row for row in found.rows if row["value"] is not None]
    axes = ("trial", f"{metric_name(metric)} of the validation cases")
    title = f"Trials{f' of {where}' if where else ''}"
    return Gallery(
        [figures.scatter([row["trial"] for row in known], [row["value"] for row in known], title, axes=axes)]
    )


def _table(found: Found, metric: str) -> Table:
    cells = [
        [
            row["trial"],
            row["state"],
            row["steps"],
            row["seconds"],
            f"{row['tried']}{': ' * bool(row['why'])}{row['why']}",
            "" if row["value"] is None else number(float(row["value"])),
        ]
        for row in found.rows
    ]
    return Table([*COLUMNS, metric_name(metric)], cells)
