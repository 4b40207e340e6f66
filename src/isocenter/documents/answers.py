"""The rows of a document: each item with its state, its value, and where the value lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from isocenter.documents.facts import FACTS, Fact
from isocenter.documents.guidelines import Guideline, Item, applies
from isocenter.documents.lookups import Absent, looked_up
from isocenter.documents.subject import Evidence, Subject

State = Literal["measured", "stated", "missing", "not applicable"]
STATES: tuple[State, ...] = ("measured", "stated", "missing", "not applicable")
MOST_GAPS = 10


@dataclass(frozen=True)
class Answer:
    """One row of documents.json: a value of one item.

    record, pointer, sha256: where a measured or stated value lies
    because: the reason that the record gives, who stated it, why it does not apply, or what would fill it
    needed:  whether the item needs it
    lookup:  the look-up that it answers
    """

    document: str
    item: str
    part: str
    section: str
    subject: str
    state: State
    value: Any = None
    record: str = ""
    pointer: str = ""
    sha256: str = ""
    because: str = ""
    needed: bool = True
    lookup: str = ""


@dataclass(frozen=True)
class Answered:
    """One item with its answers; its state is that of the worst answer that it needs."""

    item: Item
    answers: tuple[Answer, ...]

    @property
    def state(self) -> State:
        """Missing before stated before measured."""
        states = {one.state for one in self.answers if one.needed}
        order: tuple[State, ...] = ("not applicable", "missing", "stated", "measured")
        return next(state for state in order if state in states)


@dataclass(frozen=True)
class Document:
    """A list with the answers of one subject."""

    guideline: Guideline
    answered: tuple[Answered, ...]

    @property
    def score(self) -> dict[str, Any]:
        """{document, measured, stated, missing, not_applicable}: numbers of items, parts counted one by one."""
        counts = {state.replace(" ", "_"): sum(one.state == state for one in self.answered) for state in STATES}
        return {"document": self.guideline.name, **counts}

    @property
    def gaps(self) -> list[Answered]:
        """Missing answers, the weightiest first, then in the order of the list."""
        missing = [one for one in self.answered if one.state == "missing"]
        return sorted(missing, key=lambda one: -one.item.weight)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of documents.json."""
        return [
            {key: value for key, value in asdict(row).items() if key not in ("needed", "lookup")}
            for one in self.answered
            for row in one.answers
        ]


def document_of(guideline: Guideline, subject: Subject, facts: Mapping[str, Fact], facts_sha256: str = "") -> Document:
    """Every item of a list, answered from the records of a subject and from what a person states."""
    answered = tuple(_answered(guideline.name, item, subject, facts, facts_sha256) for item in guideline.items)
    return Document(guideline, answered)


def _answered(document: str, item: Item, subject: Subject, facts: Mapping[str, Fact], facts_sha256: str) -> Answered:
    head = (document, item.number, item.part, item.section, item.subject)
    if not applies(item.when, subject):
        return Answered(item, (Answer(*head, "not applicable", because=item.otherwise or f"only where: {item.when}"),))
    answers: list[Answer] = []
    for text in item.evidence:
        needed, found = not text.startswith("?"), looked_up(text, subject, facts)
        if isinstance(found, Absent):
            if needed:
                answers.append(Answer(*head, "missing", because=found.remedy, lookup=text))
        elif isinstance(found, Fact):
            because = f"stated by {found.by} on {found.on}{f': {found.so}' if found.so else ''}"
            pointer = f"/{found.key}/value"
            answers.append(Answer(*head, "stated", found.value, FACTS, pointer, facts_sha256, because, needed, text))
        else:
            answers += [_measured(head, one, needed, text) for one in found]
    return Answered(item, tuple(answers))


def _measured(head: Sequence[str], found: Evidence, needed: bool, lookup: str) -> Answer:
    document, item, part, section, subject = head
    return Answer(
        document, item, part, section, subject, "measured",
        found.value, found.record, found.pointer, found.sha256, found.because, needed, lookup,
    )  # fmt: skip
