"""A list of items that a document must answer, as one TOML file says it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from isocenter.documents.facts import QUESTIONS
from isocenter.documents.lookups import Absent, looked_up
from isocenter.documents.subject import Subject
from isocenter.documents.tracing import hazards
from isocenter.errors import UsageError

FIELDS = {
    "number",
    "part",
    "section",
    "subject",
    "evidence",
    "when",
    "otherwise",
    "weight",
    "element",
    "sentence",
    "each",
}
HEAD = {"title", "edition", "source", "licence", "seen", "items", "subjects", "kind", "dates"}
SUBJECTS = ("run", "package", "result")  # of a list that names none


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
    each:      "hazards" or "incidents": the item stands for each of them, with its fields in braces
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
    seen:  day on which it was looked at
    subjects: kinds of subject for which `all` writes it
    dates: {duty: day from which it holds}, of laws
    """

    name: str
    title: str
    edition: str
    source: str
    licence: str
    items: tuple[Item, ...]
    seen: str = ""
    subjects: tuple[str, ...] = SUBJECTS
    dates: Mapping[str, str] | None = None

    @property
    def numbers(self) -> list[str]:
        """The numbers of its items, each once."""
        return list(dict.fromkeys(item.number for item in self.items))

    def of(self, subject: Subject) -> Guideline:
        """The list for a subject: what stands for each hazard, or for each incident of a node, is written out."""
        made = list[Item]()
        for each, group in groupby(self.items, key=lambda item: item.each):
            items = list(group)
            made += _written_out(items, _entries(each, subject)) if each else items
        return replace(self, items=tuple(made))


def _entries(source: str, subject: Subject) -> Sequence[Mapping[str, Any]]:
    if source == "hazards":
        return hazards()
    incidents = subject.find("node", "/incidents/rows")
    return [] if incidents is None else incidents.value


def _written_out(items: Sequence[Item], entries: Sequence[Mapping[str, Any]]) -> Iterator[Item]:
    """All items of an entry before those of the next."""
    for index, entry in enumerate(entries):
        fields = {"place": index, **entry}
        for item in items:
            texts = ("number", "subject", "when", "section")
            filled = {name: getattr(item, name).format_map(fields) for name in texts}
            yield replace(item, **filled, evidence=tuple(one.format_map(fields) for one in item.evidence), each="")


@cache
def guideline_names() -> tuple[str, ...]:
    """The names of all lists."""
    folder = files("isocenter.documents").joinpath("lists")
    return tuple(sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")))


@cache
def guideline(name: str) -> Guideline:
    """The list of this name; UsageError for an unknown one, or for a file that says something unknown."""
    if name not in guideline_names():
        raise UsageError(f"there is no document {name!r}", "--for", f"Use {', '.join(guideline_names())} or all")
    text = files("isocenter.documents").joinpath(f"lists/{name}.toml").read_text(encoding="utf-8")
    return guideline_from(name, tomllib.loads(text))


def guideline_from(name: str, table: Mapping[str, Any]) -> Guideline:
    """A list from its table."""
    unknown = (set(table) - HEAD) | {key for row in table["items"] for key in set(row) - FIELDS}
    if unknown:
        raise UsageError(f"unknown {', '.join(sorted(unknown))}", f"lists/{name}.toml", "Use the fields of Item")
    return Guideline(
        name,
        table["title"],
        table["edition"],
        table["source"],
        table["licence"],
        tuple(_item(name, row) for row in table["items"]),
        table.get("seen", ""),
        tuple(table.get("subjects", SUBJECTS)),
        table.get("dates"),
    )


def _item(name: str, row: Mapping[str, Any]) -> Item:
    evidence: Sequence[str] = row.get("evidence") or PLACEHOLDER.findall(row["sentence"])
    item = Item(**{**row, "number": str(row["number"]), "evidence": tuple(evidence)})
    for key in item.asks:
        if key not in QUESTIONS and "{" not in key:
            raise UsageError(
                f"{item.name} asks for {key!r}", f"lists/{name}.toml", "Add its question to questions.toml"
            )
    return item


def applies(condition: str, subject: Subject) -> bool:
    """Whether a condition holds for the subject; what cannot be known is taken to hold.

    `task NAME,...`, `record NAME`, `subject KIND,...`, `set LOOK-UP` (the value exists, and is neither none nor false);
    `not` before any of them
    """
    if not condition:
        return True
    words = condition.split()
    if words[0] == "not":
        return not applies(" ".join(words[1:]), subject)
    match words[0]:
        case "task":
            found = looked_up("plan task.name | model task.name", subject, {})
            return isinstance(found, Absent) or str(found[0].value) in words[1].split(",")  # type: ignore[index]
        case "record":
            return subject.path_of(words[1]) is not None
        case "subject":
            return subject.kind in words[1].split(",")
        case "set":
            found = looked_up(" ".join(words[1:]), subject, {})
            if not isinstance(found, list):
                return False
            return not found[0].pointer.endswith("/because") and found[0].value not in (False, "none", 0)
    raise UsageError(f"{condition!r} is not a condition", "documents/lists", "Use task, record, subject or set")
