"""The decisions for these data, in few lines; the whole plan folded away under them."""

from __future__ import annotations

from collections.abc import Iterator

from isocenter.planning import is_silent, paragraphs, sentences_of
from isocenter.report import Block, Decisions, Details, Facts, Paragraph, Section
from isocenter.training import NARROWER
from isocenter.values import BY_HAND, Decision, Plan

MOST_LINES = 10
# Decisions that follow from the data, those that a reader asks for first.
OF_THE_DATA = (
    "task.classes",
    "task.labels",
    "task.findings",
    "task.targets",
    "split.method",
    "preprocessing.spacing",
    "preprocessing.shape",
    "preprocessing.normalisation",
    "network.name",
    "network.context",
    "network.pretrained",
    "training.patch",
    "training.batch",
    "training.steps",
    "training.sampling",
    "task.loss",
    "augmentation.flips",
    "inference.overlap",
)


def decided_section(plan: Plan) -> Section:
    """What a person set, then what the minutes and the data decided, at most ten; the whole plan on a click."""
    shown = list(_chosen(plan))[:MOST_LINES]
    made = _made(plan)
    off = [name for name in plan.names if name not in made]
    whole: list[Block] = [Decisions(made.items())]
    if off:
        whole.append(Paragraph(f"Off or not set: {', '.join(off)}."))
    folded = Details(f"The whole plan: {len(made)} decisions, each with its reason and source", whole)
    return Section("Decided for the training data", [Facts(paragraphs(plan, shown)), folded])


def _chosen(plan: Plan) -> Iterator[str]:
    """By hand; then by the clock, which no reader of the plan could have expected; then by the data."""
    known = _made(plan)
    for name, decision in known.items():
        if decision.because.startswith(BY_HAND):
            yield name
    if (size := known.get("network.size")) and size.because.endswith(NARROWER):
        yield "network.size"
    for name in OF_THE_DATA:
        if name in known and not known[name].because.startswith(BY_HAND):
            yield name


def _made(plan: Plan) -> dict[str, Decision]:
    """The decisions that say more than none, off or no."""
    sentences = sentences_of(plan)
    return {name: decision for name, decision in plan if not is_silent(decision, sentences.get(name))}
