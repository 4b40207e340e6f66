"""Drafted text: sentences of a template, in which every value is that of a row, and the flow of cases as a diagram."""

from __future__ import annotations

from collections.abc import Mapping

from isocenter.documents.answers import Answer, Answered, Document
from isocenter.documents.guidelines import PLACEHOLDER
from isocenter.documents.pages import value_words
from isocenter.errors import counted
from isocenter.evaluation import Metrics
from isocenter.report import Block, Paragraph, Section, figures, sentence
from isocenter.studies import flow_of_arms

ARMS = "flow arms"  # the look-up of the arms of a trial
FLOW = "Flow of cases"  # the subject of the item whose counts the diagram shows


def drafted(document: Document, metrics: Metrics) -> list[Section]:
    """The sections of the draft; an item with anything missing writes no sentence."""
    sections = list[Section]()
    answers = {answer.lookup: answer.value for one in document.answered for answer in one.answers}
    if answers.get(ARMS):
        sections.append(Section("Flow of participants", [flow_of_arms(answers[ARMS])]))
    for name in dict.fromkeys(one.item.section for one in document.answered if one.item.sentence):
        blocks: list[Block] = []
        for one in document.answered:
            if one.item.section != name or one.state in ("missing", "not applicable"):
                continue
            blocks.append(Paragraph(sentence_of(one, metrics)))
            if one.item.subject == FLOW and (picture := _flow(one)) is not None:
                blocks.append(picture)
        if blocks:
            sections.append(Section(f"Draft: {name}", blocks))
    return sections


def sentence_of(answered: Answered, metrics: Metrics) -> str:
    """The item's sentence, with the words of its answers in place of its look-ups."""
    words: dict[str, list[str]] = {}
    for answer in answered.answers:
        words.setdefault(answer.lookup, []).append(value_words(answer.value, metrics, briefly=True).rstrip("."))
    text = PLACEHOLDER.sub(lambda match: "; ".join(words[match[1]]), answered.item.sentence)
    return sentence(text)


def _flow(answered: Answered) -> figures.Figure | None:
    """The diagram, from the rows of the item alone."""
    counts = _counts(answered.answers)
    parts = {name: counts[name] for name in ("train", "val", "test") if name in counts}
    # With folds a case is in several parts.
    if not {"used", "excluded"} <= set(counts) or sum(parts.values()) > counts["used"]:
        return None
    used, excluded = counts["used"], counts["excluded"]
    names = {"train": "Training", "val": "Validation", "test": "Test"}
    steps = [
        (f"Found: {counted(used + excluded, 'case')}", f"Could not be used: {excluded}"),
        (f"In a part: {counted(used, 'case')}", ""),
    ]
    return figures.flow_of_cases(
        steps,
        [f"{names[name]}: {number}" for name, number in parts.items()],
        FLOW,
        caption="Every number is that of a row of this document; those found are the used and the excluded ones.",
    )


def _counts(answers: tuple[Answer, ...]) -> Mapping[str, int]:
    counts = {}
    for answer in answers:
        if answer.pointer == "count:distinct=case":
            counts["used"] = int(answer.value)
        elif answer.pointer.startswith("count:split="):
            counts[answer.pointer.removeprefix("count:split=").partition(";")[0]] = int(answer.value)
        elif answer.pointer == "/excluded_cases":
            counts["excluded"] = int(answer.value)
    return counts
