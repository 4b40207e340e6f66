"""The report of a run or of an evaluation: headline, pictures, plan, data, environment on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.errors import counted
from isocenter.lazy import pandas as pd
from isocenter.planning import registered
from isocenter.report import (
    Block,
    ByLabel,
    Decisions,
    Details,
    Estimates,
    Facts,
    Figure,
    Gallery,
    Link,
    Page,
    Paragraph,
    Problems,
    Section,
    Table,
    figures,
    metric_name,
    number,
    render,
)
from isocenter.tasks import kind
from isocenter.values import Plan, Problem, Row
from isocenter.verbs.evaluation import Scored, view_name
from isocenter.verbs.training.search import SearchResult

REGISTERED = "evaluation.registered"
# Labels beside the row over all of them that stand in the headline.
MOST_LABELS = 4
# Metrics that stand side by side on a page.
MOST_COLUMNS = 7
BY_IMAGES = (
    "A case may lack images: the cases that have them were scored with these alone as well. A case that lacks one of "
    "them is not in that row, so rows may be of unlike cases."
)
SEARCH_COLUMNS = ("Trial", "", "Steps", "s", "Tried")
JUDGED = (
    "Each trial is a short training, judged by the validation cases alone; the first is the plan as it stands. The "
    "best of many values is too good, so that none of them is an estimate."
)
TRAINING_VARIES = (
    "Intervals say how far a figure could lie from that of all such patients. They hold for what was trained here: "
    "how far another, from another seed, would come out differently is not in them."
)


@dataclass(frozen=True, eq=False)
class RunReport:
    """The report of a run, an evaluation or an ensemble.

    primary:  the metric of the headline; if the plan registered it before training, all others are exploratory
    views:    folder of the viewers' pages, relative to the report
    by:       which model scored which case, where that is not plain, in a sentence
    searches: sections about searches before the training
    members:  sections about other models on the same cases
    """

    title: str
    lead: str
    primary: str
    scored: Scored | None
    notes: Sequence[str]
    facts: Mapping[str, Any]
    views: str
    plan: Plan | None = None
    log: pd.DataFrame | None = None
    problems: Sequence[Problem] = ()
    environment: Mapping[str, Any] | None = None
    by: str = ""
    searches: Sequence[Section] = ()
    members: Sequence[Section] = ()

    @property
    def html(self) -> str:
        """The page."""
        headline = [] if self.scored is None else _headline(self.scored.rows, self.primary)
        notes = [*self.notes, *_changed(self.plan)]
        names = {} if self.scored is None else self.scored.metric_names
        return render(Page(self.title, headline, list(self._sections()), self.facts, notes, self.lead, names))

    def _sections(self) -> Iterator[Section]:
        if self.scored is not None:
            yield _results(self.scored, self.primary, self.plan, self.by)
        yield from self.members
        if self.scored is not None:
            yield _cases(self.scored, self.primary, self.views)
        if self.log is not None and len(self.log):
            yield Section("Training", [figures.training_curves(self.log)])
        yield from self.searches
        if self.plan is not None:
            yield Section("Plan", [Paragraph("Every choice, its reason and its source."), Decisions(self.plan)])
        yield Section("Data", [Problems(self.problems)])
        if self.environment is not None:
            plain = {key: value for key, value in self.environment.items() if not isinstance(value, Mapping)}
            yield Section("Environment", [Facts({**plain, **self.environment.get("versions", {})})])


def _headline(rows: Sequence[Row], primary: str) -> list[Row]:
    """The primary metric over all labels, then by label where they are few."""
    overall, *by_label = _first(rows, primary) or [rows[0]]
    return [overall, *(by_label if len(by_label) <= MOST_LABELS else ())]


def _first(rows: Sequence[Row], primary: str) -> list[Row]:
    """The rows of the primary metric; those by label only where they do not repeat the first."""
    chosen = [row for row in rows if row.metric == primary]
    return [row for row in chosen if row is chosen[0] or row.estimate.value != chosen[0].estimate.value]


def _tables(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in tables of few metrics each; one that is defined for no label is in none."""
    known = {row.metric for row in rows if np.isfinite(row.estimate.value)}
    metrics = [metric for metric in dict.fromkeys(row.metric for row in rows) if metric in known]
    tables = -(-len(metrics) // MOST_COLUMNS)
    for part in np.array_split(np.array(metrics), max(1, tables)):
        yield [row for row in rows if row.metric in part]


def _changed(plan: Plan | None) -> Iterator[str]:
    """What was registered before training and is no longer so."""
    if plan is not None and REGISTERED in plan and plan[REGISTERED] != registered(plan):
        yield "The plan's metric, rule or tolerances are not those registered before training: all is exploratory."


def _results(scored: Scored, primary: str, plan: Plan | None, by: str) -> Section:
    by_label = [row for row in scored.rows if row.label != "all"]
    others = [row for row in scored.rows if row.label == "all" and row.metric != primary]
    blocks: list[Block] = [
        Paragraph(f"{_promise(metric_name(primary, scored.metric_names), plan)} {by}".strip()),
        Estimates(_first(scored.rows, primary), "Primary"),
    ]
    if others:
        blocks.append(Estimates(others, "Exploratory"))
    if scored.subsets:
        blocks += [Paragraph(BY_IMAGES), Estimates(_by_images(scored, primary), "By images")]
    blocks.append(Paragraph(" ".join([*_opened(scored), TRAINING_VARIES])))
    if by_label:
        blocks += [ByLabel(rows, _level_of(rows)) for rows in _tables(by_label)]
        blocks.append(Details("How each of these was made", [Estimates(by_label)]))
    if scored.overview:
        blocks.append(Gallery(list(scored.overview)))
    return Section("Results", blocks)


def _by_images(scored: Scored, primary: str) -> list[Row]:
    """The primary metric over all labels, a row for each subset of the images."""
    return [
        replace((_first(rows, primary) or list(rows))[0], label=" + ".join(images)) for images, rows in scored.subsets
    ]


def _promise(primary: str, plan: Plan | None) -> str:
    """Whether the primary metric, given as papers spell it, was named before training."""
    if plan is None or REGISTERED not in plan:
        return f"{primary} is the model's primary metric; nothing tells that it was named beforehand."
    if plan[REGISTERED] != registered(plan):
        return "What was registered before training has been changed since: every figure is exploratory."
    promised = f"SHA\N{NON-BREAKING HYPHEN}256 {str(plan[REGISTERED])[:16]}\N{HORIZONTAL ELLIPSIS}"
    return (
        f"{primary} was named primary before training{_registered_with(plan)} ({promised}). "
        "All other figures are exploratory."
    )


def _registered_with(plan: Plan) -> str:
    """What was fixed together with the primary metric, as the kind of problem says."""
    *others, last = ["", *kind(plan["task.name"]).traits.registers.values()]
    named = [", ".join(name for name in others if name), last]
    return f", with its {' and '.join(name for name in named if name)}" if last else ""


def _opened(scored: Scored) -> Iterator[str]:
    if scored.openings:
        times = "for the first time" if scored.openings == 1 else f"{scored.openings} times"
        yield f"These test cases have been opened {times} on this machine."
    if scored.openings > 1:
        yield "Whoever chose a model by such a look has no test left."


def _level_of(rows: Sequence[Row]) -> str:
    few = any("unreliable" in row.estimate.method for row in rows)
    level = next((row.estimate.level for row in rows if row.estimate.low is not None), 0.95)
    return f"By label, with the {100 * level:.0f} % interval" + ("; * unreliable: fewer than ten" * few)


def _cases(scored: Scored, primary: str, views: str) -> Section:
    values = _of_cases(scored, primary)
    pictures = [
        _titled(figure, word, case, values.get(case)) for word, case, drawn, _ in scored.shown for figure in drawn
    ]
    links = [
        [word, case, values.get(case, ""), Link("open in the slice viewer", f"{views}{view_name(place)}")]
        for place, (word, case, _, _) in enumerate(scored.shown)
    ]
    cases = counted(int(scored.table["case"].nunique()), "case")
    return Section(
        "Best, median and worst cases",
        [
            Paragraph(f"Ranked among {cases}."),
            Gallery(pictures),
            Table(["", "case", "score", "viewer"], links),
        ],
    )


def _of_cases(scored: Scored, primary: str) -> dict[str, str]:
    """{case: its score in words}, the mean over its labels; what is of a single case where the primary is not."""
    metric = next((name for name in (primary, scored.of_a_case) if name in scored.table), None)
    if metric is None:
        return {}
    means = scored.table.groupby("case")[metric].mean()
    words = {str(case): number(float(value)) for case, value in means.items() if np.isfinite(value)}
    return {case: f"{metric_name(metric, scored.metric_names)} {value}" for case, value in words.items()}


def _titled(figure: Figure, word: str, case: str, score: str | None) -> Figure:
    parts = [part for part in (score, figure.caption) if part]
    return replace(figure, title=f"{word}: {case}", caption=". ".join(parts))


def search_sections(results: Mapping[str, SearchResult], plan: Plan) -> list[Section]:
    """A section with every trial of each search, in a picture and a table; none without a search.

    results: {fold in words: result of its search}; "" where there are no folds
    """
    if not results:
        return []
    metric = metric_name(str(plan["training.selection"]), kind(plan["task.name"]).traits.metric_names)
    blocks: list[Block] = [Paragraph(JUDGED)]
    for where, result in results.items():
        named = f"{where}: {result.statement}" if where else result.statement
        blocks += [Paragraph(f"{named}."), _trials(result, metric, where), _trial_table(result, metric)]
    return [Section("Search", blocks)]


def _trials(result: SearchResult, metric: str, where: str) -> Gallery:
    known = [row for row in result.rows if row["value"] is not None]
    axes = ("trial", f"{metric} of the validation cases")
    title = f"Trials{f' of {where}' if where else ''}"
    return Gallery(
        [figures.scatter([row["trial"] for row in known], [row["value"] for row in known], title, axes=axes)]
    )


def _trial_table(result: SearchResult, metric: str) -> Table:
    cells = [
        [
            row["trial"],
            row["state"],
            row["steps"],
            row["seconds"],
            f"{row['tried']}{': ' * bool(row['why'])}{row['why']}",
            "" if row["value"] is None else number(float(row["value"])),
        ]
        for row in result.rows
    ]
    return Table([*SEARCH_COLUMNS, metric], cells)
