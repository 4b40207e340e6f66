"""A list of items that a document must answer, as one TOML file says it, and the rows that answer them."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, Literal, Required, cast

from typing_extensions import TypedDict

from hilum import errors
from hilum.documents import _lookups, tracing
from hilum.documents._lookups import Absent
from hilum.documents.fact_file import FACTS, QUESTIONS, Fact
from hilum.documents.subjects import DocumentSubject, RecordedValue
from hilum.errors import UsageError
from hilum.files.storage.structured_text import TomlTable
from hilum.report import wording
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.values.table_cells import TableRow

SUBJECTS = ("run", "package", "result")  # of a list that names none
# How far a list was compared with the text that it names, and what its page says of it.
Comparison = Literal["source", "second hand", "not compared", "our own"]
COMPARISONS: dict[Comparison, str] = {
    "source": "Compared item by item with the text on {seen}",
    "second hand": "Compared with what others write about the text on {seen}, not with the text: check it before use",
    "not compared": "Written from knowledge of the text and not compared with it: check it before use",
    "our own": "A list of our own, of no text",
}

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Item:
    """One item, or one part of an item.

    number:    as the source numbers it
    subject:   what is asked, in our own words
    evidence:  look-ups, all of which it needs but those that begin with `?`
    when:      condition under which it applies; `otherwise` is the reason why it does not
    weight:    3 for what decides whether a reader can believe or use the model, 1 for form
    element:   path in a file of another schema
    sentence:  of a draft, with look-ups in braces, which are then its evidence
    each:      "hazards", "incidents" or "advice" (a node's lines): the item stands for each, with its fields in braces
    judgement: the fact by which a person answers what no record can judge: what records hold is evidence then
    """

    number: str
    section: str
    subject: str
    evidence: tuple[str, ...]
    part: str = ""
    when: str = ""
    otherwise: str = ""
    weight: int = 2
    element: str = ""
    sentence: str = ""
    each: str = ""
    judgement: str = ""

    @property
    def name(self) -> str:
        """The number with its part: "5a"."""
        return f"{self.number}{self.part}"

    @property
    def asks(self) -> list[str]:
        """Keys of facts that it may take."""
        words = [one.split() for text in self.evidence for one in text.removeprefix("?").split("|")]
        return [arguments[0] for kind, *arguments in words if kind == "fact"]


@dataclass(frozen=True)
class Guideline:
    """A reporting guideline, a model card or a section of a law.

    edition, source, licence: which text, where it lies, and under which licence
    compared: how far its items were compared with that text; seen: the day on which they were
    subjects: kinds of subject for which `all` writes it
    dates: {duty: day from which it holds}, of laws
    superseded_by: the newer edition of the text, where there is one
    """

    name: str
    title: str
    edition: str
    source: str
    licence: str
    compared: Comparison
    items: tuple[Item, ...]
    seen: str = ""
    subjects: tuple[str, ...] = SUBJECTS
    dates: Mapping[str, str] | None = None
    superseded_by: str = ""

    @property
    def comparison(self) -> str:
        """How far it was compared with the text, as a sentence without its full stop."""
        return COMPARISONS[self.compared].format(seen=self.seen)

    @property
    def numbers(self) -> list[str]:
        """The numbers of its items, each once."""
        return list(dict.fromkeys(item.number for item in self.items))

    def for_subject(self, subject: DocumentSubject) -> Guideline:
        """The list for a subject: what stands for each hazard, incident or line of advice of a node is written out."""
        made = list[Item]()
        for each, group in groupby(self.items, key=lambda item: item.each):
            items = list(group)
            made += _written_out(items, _entries(each, subject)) if each else items
        return replace(self, items=tuple(made))


def _entries(source: str, subject: DocumentSubject) -> Sequence[Mapping[str, PlainValue]]:
    if source == "hazards":
        return tracing.read_hazards()
    if source == "advice":
        models = subject.find("settings", "/models")
        named = {} if models is None else models.value
        return [
            {"model": name, "say": line["say"], "when": line["when"] or "nothing else"}
            for name, section in named.items()
            for line in section.get("advice", ())
        ]
    incidents = subject.find("node", "/incidents/rows")
    return [] if incidents is None else incidents.value


def _written_out(items: Sequence[Item], entries: Sequence[Mapping[str, PlainValue]]) -> Iterator[Item]:
    """All items of an entry before those of the next."""
    for index, entry in enumerate(entries):
        places = {"place": index, **entry}
        for item in items:
            texts = ("number", "subject", "when", "section")
            filled = {name: getattr(item, name).format_map(places) for name in texts}
            yield replace(item, **filled, evidence=tuple(one.format_map(places) for one in item.evidence), each="")


@cache
def guideline_names() -> tuple[str, ...]:
    """The names of all lists."""
    folder = files("hilum.documents").joinpath("lists")
    return tuple(sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")))


@cache
def read_guideline(name: str) -> Guideline:
    """The list of this name; UsageError for an unknown one, or for a file that says something unknown."""
    if name not in guideline_names():
        raise UsageError(f"there is no document {name!r}", "--for", errors.nearest_remedy(name, guideline_names()))
    text = files("hilum.documents").joinpath(f"lists/{name}.toml").read_text(encoding="utf-8")
    return parse_guideline(name, tomllib.loads(text))


def parse_guideline(name: str, table: TomlTable) -> Guideline:
    """A list from its table."""
    head = ({one.name for one in fields(Guideline)} - {"name"}) | {"kind", "judgement"}
    known = {one.name for one in fields(Item)}
    unknown = (set(table) - head) | {key for row in table["items"] for key in set(row) - known}
    if unknown:
        raise UsageError(f"unknown {', '.join(sorted(unknown))}", f"lists/{name}.toml", "Use the fields of Item")
    items = tuple(_item(name, row, table.get("judgement", "")) for row in table["items"])
    for item_name, count in Counter(one.name for one in items).items():
        if count > 1:
            raise UsageError(f"{item_name} stands {count} times", f"lists/{name}.toml", "Give each item its own number")
    _refuse_comparison(name, table)
    stated = {key: one for key, one in table.items() if key not in ("items", "subjects", "kind", "judgement")}
    return Guideline(name=name, items=items, subjects=tuple(table.get("subjects", SUBJECTS)), **stated)


def _refuse_comparison(name: str, table: TomlTable) -> None:
    """UsageError for an unknown comparison, or for one with a text that has no day."""
    compared = table.get("compared", "")
    if compared not in COMPARISONS:
        raise UsageError(
            f"compared is {compared!r}, which is not known", f"lists/{name}.toml", f"Use {', '.join(COMPARISONS)}"
        )
    is_dated = re.fullmatch(r"\d{4}-\d{2}-\d{2}", table.get("seen", ""))
    if (compared in ("source", "second hand")) != bool(is_dated):
        raise UsageError(
            f"compared is {compared!r} and seen is {table.get('seen', '')!r}",
            f"lists/{name}.toml",
            "Give the day of the comparison as seen, and none where nothing was compared",
        )


def _item(name: str, row: TomlTable, judgement: str) -> Item:
    """An item of a row. judgement: the fact that judges all items of the list of which records are evidence"""
    evidence: Sequence[str] = row.get("evidence") or PLACEHOLDER.findall(row["sentence"])
    has_records = any(map(_lookups.reads_records, evidence))
    by = row.get("judgement", judgement if has_records else "")
    judges = [f"?fact {by}"] * bool(by)
    item = Item(**{**row, "number": str(row["number"]), "evidence": (*evidence, *judges), "judgement": by})
    for text in item.evidence:
        _lookups.refuse_unknown(text, f"lists/{name}.toml, item {item.name}")
    if by and not has_records:
        raise UsageError(
            f"{item.name} asks for a judgement, and no record is evidence for it",
            f"lists/{name}.toml",
            "Name a look-up of a record, or leave judgement out: a person states it",
        )
    for key in item.asks:
        if key not in QUESTIONS and "{" not in key:
            raise UsageError(
                f"{item.name} asks for {key!r}", f"lists/{name}.toml", "Add its question to questions.toml"
            )
    return item


def condition_holds(condition: str, subject: DocumentSubject) -> bool:
    """Whether a condition holds for the subject; what cannot be known is taken to hold.

    `task NAME,...`, `record NAME`, `subject KIND,...`, `set LOOK-UP` (the value exists, and is neither none nor false);
    `not` before any of them
    """
    if not condition:
        return True
    words = condition.split()
    if words[0] == "not":
        return not condition_holds(" ".join(words[1:]), subject)
    match words[0]:
        case "task":
            found = _lookups.look_up("plan task.name | model task.name", subject, {})
            return isinstance(found, Absent) or str(cast("Sequence[RecordedValue]", found)[0].value) in words[1].split(
                ","
            )
        case "record":
            return subject.path_of(words[1]) is not None
        case "subject":
            return subject.kind in words[1].split(",")
        case "set":
            found = _lookups.look_up(" ".join(words[1:]), subject, {})
            if not isinstance(found, list):
                return False
            return not found[0].pointer.endswith("/because") and found[0].value not in (False, "none", 0)
    raise UsageError(f"{condition!r} is not a condition", "documents/lists", "Use task, record, subject or set")


# evidence: figures of a record, from which a person has to conclude; planned: what a plan says, which nobody measured.
State = Literal["measured", "evidence", "planned", "stated", "missing", "not applicable"]
STATES: tuple[State, ...] = ("measured", "evidence", "planned", "stated", "missing", "not applicable")
MOST_GAPS = 10


class AnswerRow(TypedDict):
    """A value of one item: where it lies in a record, and the reason that stands there."""

    document: str
    item: str
    part: str
    section: str
    subject: str
    state: State
    value: PlainValue
    record: str
    pointer: str
    sha256: str
    because: str


class DocumentsRecord(RecordHead, total=False):
    """The answers of documents, and how many items of each are in each state.

    records: {path: SHA-256} of what was read; pages: {name: SHA-256} of what was written
    """

    records: dict[str, str]
    scores: Required[list[TableRow]]
    rows: Required[list[AnswerRow]]
    pages: dict[str, str]


SCHEMA = RecordSchema("hilum.documents", DocumentsRecord)


@dataclass(frozen=True)
class ItemAnswer:
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
class AnsweredItem:
    """One item with its answers; its state is that of the worst answer that it needs."""

    item: Item
    answers: tuple[ItemAnswer, ...]

    @property
    def state(self) -> State:
        """Missing before evidence before planned, stated and measured; what a person has judged is stated."""
        states = {one.state for one in self.answers if one.needed}
        judged = f"?fact {self.item.judgement}"
        if "missing" not in states and any(one.state == "stated" and one.lookup == judged for one in self.answers):
            return "stated"
        order: tuple[State, ...] = ("not applicable", "missing", "evidence", "planned", "stated", "measured")
        return next(state for state in order if state in states)


@dataclass(frozen=True)
class Document:
    """A list with the answers of one subject."""

    guideline: Guideline
    answered: tuple[AnsweredItem, ...]

    @property
    def counts(self) -> dict[str, int]:
        """{state: number of its items}, parts counted one by one."""
        return {state.replace(" ", "_"): sum(one.state == state for one in self.answered) for state in STATES}

    @property
    def score(self) -> TableRow:
        """The document and its counts."""
        return {"document": self.guideline.name, **self.counts}

    @property
    def gaps(self) -> list[AnsweredItem]:
        """Missing answers, the weightiest first, then in the order of the list."""
        missing = [one for one in self.answered if one.state == "missing"]
        return sorted(missing, key=lambda one: -one.item.weight)

    @property
    def rows(self) -> list[AnswerRow]:
        """The rows of documents.json; values are words and numbers."""
        rows = [{**vars(row), "value": plain_value(row.value)} for one in self.answered for row in one.answers]
        return [cast("AnswerRow", {key: row[key] for key in AnswerRow.__annotations__}) for row in rows]


def plain_value(value: Any) -> Any:
    """A value of a record as a word or a number: what has parts is written out, each with its name."""
    return wording.setting_text(value) if isinstance(value, Mapping | list | tuple) else value


def fill_guideline(
    guideline: Guideline, subject: DocumentSubject, facts: Mapping[str, Fact], facts_sha256: str = ""
) -> Document:
    """Every item of a list, answered from the records of a subject and from what a person states."""
    answered = tuple(_answer_item(guideline.name, item, subject, facts, facts_sha256) for item in guideline.items)
    return Document(guideline, answered)


def _answer_item(
    document: str, item: Item, subject: DocumentSubject, facts: Mapping[str, Fact], facts_sha256: str
) -> AnsweredItem:
    head = (document, item.number, item.part, item.section, item.subject)
    if not condition_holds(item.when, subject):
        return AnsweredItem(
            item, (ItemAnswer(*head, "not applicable", because=item.otherwise or f"only where: {item.when}"),)
        )
    answers: list[ItemAnswer] = []
    for text in item.evidence:
        needed, found = not text.startswith("?"), _lookups.look_up(text, subject, facts)
        if isinstance(found, Absent):
            if needed:
                answers.append(ItemAnswer(*head, "missing", because=found.remedy, lookup=text))
        elif isinstance(found, Fact):
            because = f"stated by {found.by} on {found.on}{f': {found.so}' if found.so else ''}"
            pointer = f"/{found.key}/value"
            answers.append(
                ItemAnswer(*head, "stated", found.value, FACTS, pointer, facts_sha256, because, needed, text)
            )
        else:
            for one in found:
                state: State = "evidence" if item.judgement else "planned" if subject.is_planned(one) else "measured"
                answers.append(_recorded_answer(head, one, needed, text, state))
    return AnsweredItem(item, tuple(answers))


def _recorded_answer(head: Sequence[str], found: RecordedValue, needed: bool, lookup: str, state: State) -> ItemAnswer:
    document, item, part, section, subject = head
    return ItemAnswer(
        document, item, part, section, subject, state,
        found.value, found.record, found.pointer, found.sha256, found.because, needed, lookup,
    )  # fmt: skip
