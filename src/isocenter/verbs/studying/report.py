"""The page of a study's results: the answer, the flow of participants, and every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isocenter.report import Block, Page, Paragraph, Section, Table, number, p_text
from isocenter.studies import flow_of_arms

COLUMNS = ("endpoint", "who", "missing outcomes", "difference", "interval", "p", "p adjusted", "verdict")
VERDICTS = {
    "superior": "is better than",
    "non-inferior": "is not worse by the margin than",
    "inferior": "is worse than",
    "not shown": "is shown to be neither better nor worse than",
}
SECTIONS = {
    "primary": "Primary endpoints",
    "sensitivity": "Sensitivity analyses",
    "secondary": "Secondary endpoints",
    "subgroups": "Subgroups",
    "exploratory": "Exploratory: not in the plan",
}


def answer(results: Mapping[str, Any]) -> str:
    """The verdicts of the primary endpoints in words."""
    parts = []
    for row in results["tests"]:
        if row["role"] == "primary":
            values = f"{_difference(row)} ({_interval(row)}, p {p_text(row['p'])})"
            parts.append(f"{row['second']} {VERDICTS[row['verdict']]} {row['first']} in {row['endpoint']}: {values}.")
    if not results["look"]["planned"]:
        parts.append("The looks of the plan were spent before: all of this is exploratory.")
    return " ".join(parts)


def page_of_results(results: Mapping[str, Any], flow: Mapping[str, Any]) -> Page:
    """The page."""
    sections = [Section("Flow of participants", [flow_of_arms(flow["arms"]), *_losses(flow)])]
    for role, title in SECTIONS.items():
        rows = [row for row in results["tests"] if _section(row) == role]
        if rows:
            cells = [_cells(row) for row in rows]
            sections.append(Section(title, [Table(COLUMNS, cells), Paragraph(_methods(rows))]))
    arms = [row["arm"] for row in flow["arms"]]
    baseline = [[row["characteristic"], *(_characteristic(row[arm]) for arm in arms)] for row in results["baseline"]]
    sections.append(Section("What each arm began with", [Table(("", *arms), baseline, "Mean (SD), or share")]))
    return Page(
        results["title"],
        lead=results["question"],
        verdict=answer(results),
        sections=sections,
        facts={name: results[name] for name in ("locked", "plan_sha256", "data_sha256", "analysed")},
    )


def _losses(flow: Mapping[str, Any]) -> list[Block]:
    if isinstance(flow["losses"], str):
        return [Paragraph("The primary outcome of nobody is missing.")]
    rows = [[row["arm"], row["reason"], row["participants"]] for row in flow["losses"]]
    return [Table(("arm", "why the primary outcome is missing", "participants"), rows)]


def _section(row: Mapping[str, Any]) -> str:
    if not row["planned"]:
        return "exploratory"
    return "subgroups" if row["role"] in ("subgroup", "interaction") else str(row["role"])


def _cells(row: Mapping[str, Any]) -> list[Any]:
    named = row["endpoint"] if row["label"] == "all" else f"{row['endpoint']}, {row['label']}"
    people = f"{row['population']} ({', '.join(f'{arm} {n}' for arm, n in row['n'].items())})"
    p = [None if row[name] is None else p_text(row[name]) for name in ("p", "p_adjusted")]
    if row["role"] == "interaction":
        return [f"{named}: interaction", people, row["missing"], None, None, *p, None]
    return [named, people, row["missing"], _difference(row), _interval(row), *p, row["verdict"]]


def _difference(row: Mapping[str, Any]) -> str:
    if "hazard_ratio" in row:
        return f"hazard ratio {number(row['hazard_ratio']['value'])}"
    return number(row["difference"], signed=True)


def _interval(row: Mapping[str, Any]) -> str:
    level = f"{100 * row['level']:.1f} % interval" if row["level"] < 0.9995 else "interval by the bound of the look"
    ends = row.get("hazard_ratio", row)
    return f"{level} {number(ends['low'])} to {number(ends['high'])}"


def _methods(rows: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(str(row["method"]) for row in rows))


def _characteristic(cell: Mapping[str, Any]) -> str:
    if "mean" not in cell:
        return str(cell["n"])
    return "unknown" if cell["n"] == 0 else f"{number(cell['mean'])} ({number(cell['sd'])})"
