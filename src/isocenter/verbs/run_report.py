"""The report of a run or of an evaluation: headline, pictures, plan, data, environment on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from isocenter.report import (
    Block,
    Decisions,
    Details,
    Estimates,
    Facts,
    Gallery,
    Link,
    Page,
    Paragraph,
    Problems,
    Section,
    Table,
    figures,
    render,
)
from isocenter.values import Plan, Problem, Row
from isocenter.verbs.scoring import Scored, view_name


def report(
    title: str,
    lead: str,
    *,
    primary: str,
    scored: Scored | None,
    notes: Sequence[str],
    facts: Mapping[str, Any],
    views: str,
    plan: Plan | None = None,
    log: pd.DataFrame | None = None,
    problems: Sequence[Problem] = (),
    environment: Mapping[str, Any] | None = None,
) -> str:
    """One HTML page. views: folder of the viewers' pages, relative to the report."""
    sections = []
    if scored is not None:
        sections += [_results(scored), _cases(scored, views)]
    if log is not None and len(log):
        sections.append(Section("Training", [figures.training_curves(log)]))
    if plan is not None:
        sections.append(Section("Plan", [Paragraph("Every choice, its reason and its source."), Decisions(plan)]))
    sections.append(Section("Data", [Problems(problems)]))
    if environment is not None:
        plain = {key: value for key, value in environment.items() if not isinstance(value, Mapping)}
        sections.append(Section("Environment", [Facts({**plain, **environment.get("versions", {})})]))
    headline = [] if scored is None else _headline(scored.rows, primary)
    return render(Page(title, headline, sections, facts, notes, lead))


def _headline(rows: Sequence[Row], primary: str) -> list[Row]:
    """The primary metric over all labels, then by label."""
    chosen = [row for row in rows if row.metric == primary]
    return chosen[:5] or list(rows[:1])


def _results(scored: Scored) -> Section:
    overall = [row for row in scored.rows if row.label == "all"]
    by_label = [row for row in scored.rows if row.label != "all"]
    blocks: list[Block] = [Estimates(overall, "Over all labels; the method says what the interval resamples.")]
    if by_label:
        blocks.append(Details("By label", [Estimates(by_label)]))
    if scored.overview:
        blocks.append(Gallery(list(scored.overview)))
    return Section("Results", blocks)


def _cases(scored: Scored, views: str) -> Section:
    pictures = [replace(figure, title=f"{word}: {case}") for word, case, drawn, _ in scored.shown for figure in drawn]
    links = [
        [word, case, Link("open in the slice viewer", f"{views}{view_name(number)}")]
        for number, (word, case, _, _) in enumerate(scored.shown)
    ]
    return Section("Best, median and worst cases", [Gallery(pictures), Table(["", "case", "viewer"], links)])
