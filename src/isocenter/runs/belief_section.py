"""The section of a report on how far results can be believed: sets, calibration, and what that changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter

import numpy as np

from isocenter.belief import DOUBT_METRICS, Doubted
from isocenter.evaluation import BEFORE, BY_EPISTEMIC, Table, risk_coverage
from isocenter.report import Block, ByLabel, Details, Gallery, Paragraph, Section, figures, share_text
from isocenter.scoring import ANSWERED, Scored
from isocenter.tasks import leaves
from isocenter.values import Plan, Row

TITLE = "Can it be believed?"
NOW, FORMER = "as stated", "before calibration"
# Of the cases, by their mistakes instead of by the model's doubt.
PERFECT = "perfect order"
# The columns of the first table; the rest is folded away.
MOST_COLUMNS = 10
OF_CLASSES = "temperature"
OF_DOUBT = frozenset(one.name for one in DOUBT_METRICS)
HOW = (
    "A calibrated model has temperature and slope 1, intercept 0, and errors by bins (ECE) no larger than chance makes "
    "them. The part How each figure was made states the errors that a perfect model would have with as many cases."
)
FOUND = ("calibration", "conformal")


def belief_section(scored: Scored, plan: Plan | None) -> Iterator[Section]:
    """The section; none for a kind of problem without such figures."""
    if scored.task is None:
        return
    blocks = list[Block]()
    for part, own_task in leaves(scored.task).items():
        belief = [
            one.name.removesuffix(BEFORE) for one in own_task.metrics if one.is_of_belief and one.name not in OF_DOUBT
        ]
        metrics = list(dict.fromkeys(belief))
        finite = [row for row in rows_of_part(scored.rows, part) if np.isfinite(row.estimate.value)]
        placed = [(_place(row, metrics), row) for row in finite]
        placed = sorted((pair for pair in placed if pair[0] < len(metrics)), key=itemgetter(0))
        own_rows, first = ([row for place, row in placed if place < most] for most in (len(metrics), MOST_COLUMNS))
        if first:
            blocks += [Paragraph(f"{part.capitalize()}: {why}" if part else why) for why in _reasons(plan, part)]
            blocks += _tables(first, [row for row in own_rows if row not in first])
        if part in scored.parts:  # else these cases say nothing of it
            doubts = [row for row in finite if row.metric.removesuffix(BY_EPISTEMIC) in OF_DOUBT]
            blocks += _doubts(doubts, scored.parts[part][1])
    blocks += _answered(scored.rows)
    if blocks:
        blocks += [] if scored.shift is None else [Paragraph(scored.shift.note)]
        has_classes = any(row.metric == OF_CLASSES for row in scored.rows)
        yield Section(TITLE, [*blocks, *([Paragraph(HOW)] if has_classes else [])])


def _answered(rows: Sequence[Row]) -> Iterator[Block]:
    """Share of cases that get an answer, and the error of the answers."""
    estimates = {row.metric: row.estimate for row in rows if row.label == "all"}
    share, error = estimates.get(ANSWERED), estimates.get(f"error_{ANSWERED}")
    if share is None:
        return
    sentence = f"{share_text(share.value, 1)} of the cases get an answer"
    if error is not None:
        ends = "" if error.low is None else f" ({error.low:.3f} to {error.high:.3f})"
        sentence += f"; the mean error of these is {error.value:.3f}{ends}, and summary.json has their other figures"
    yield Paragraph(f"{sentence}.")


def _place(row: Row, metrics: Sequence[str]) -> int:
    """The place of a row's metric among these; their number where it is none of them."""
    name = row.metric.removesuffix(BEFORE)
    return metrics.index(name) if name in metrics else len(metrics)


def rows_of_part(rows: Sequence[Row], part: str) -> list[Row]:
    """The rows of a task, without its name; all rows where there is one task."""
    if not part:
        return list(rows)
    lead = f"{part}: "
    return [replace(row, label=row.label.removeprefix(lead)) for row in rows if row.label.startswith(lead)]


def _reasons(plan: Plan | None, part: str) -> list[str]:
    """Reasons for the calibration and for thresholds of sets and intervals, as the plan has them."""
    names = [f"task.{part}.{name}" if part else f"task.{name}" for name in FOUND]
    reasons = [plan.decision(name).because for name in names if name in plan and plan[name] is not None] if plan else []
    return [f"{because[0].upper()}{because[1:]}." for because in reasons]


def _tables(first: Sequence[Row], others: Sequence[Row]) -> Iterator[Block]:
    """Over all labels now and before side by side; by label, and further figures, folded away."""
    overall = [_named(row) for row in first if row.label == "all"] or [_named(row) for row in first]
    yield ByLabel(overall, "", "probabilities")
    by_label = [row for row in first if row.label != "all" and not row.metric.endswith(BEFORE)]
    folded = list[Block]()
    if by_label and any(row.label == "all" for row in first):
        folded.append(ByLabel(by_label, "By label, as stated", "label"))
    if others:
        folded.append(ByLabel([row for row in others if not row.metric.endswith(BEFORE)], "Further figures", "label"))
    if folded:
        yield Details("More on the probabilities", folded)


def _doubts(rows: Sequence[Row], table: Table) -> Iterator[Block]:
    """Whether doubt finds mistakes, and how risk falls with the share of cases that is answered."""
    if not rows:
        return
    named = [
        replace(row, metric=row.metric.removesuffix(BY_EPISTEMIC), label="epistemic" if by_epistemic else "total")
        for row in rows
        for by_epistemic in [row.metric.endswith(BY_EPISTEMIC)]
    ]
    yield ByLabel(named, "Do mistakes lie where the model doubts?", "by uncertainty")
    doubted = Doubted.of(table)
    orders = {**doubted.doubts, PERFECT: doubted.loss}
    curves = {name: risk_coverage(doubt, doubted.loss) for name, doubt in orders.items()}
    title, caption = "What is answered, and how wrong that is", f"{PERFECT.capitalize()}: the worst mistakes last."
    yield Gallery([figures.risk_coverage(curves, title, caption=caption)])


def _named(row: Row) -> Row:
    """A row of the table of now and before, which has the metric's name without the end."""
    former = row.metric.endswith(BEFORE)
    label = FORMER if former else NOW
    where = label if row.label == "all" else f"{row.label}, {label}"
    return replace(row, metric=row.metric.removesuffix(BEFORE), label=where)
