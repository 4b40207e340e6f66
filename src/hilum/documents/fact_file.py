"""facts.toml: what a person states, with name and day, and the questions that are still open."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

from hilum.documents import tracing
from hilum.documents.tracing import SEVERITIES
from hilum.errors import UsageError

FACTS = "facts.toml"
# What a spreadsheet computes, and what a browser takes for an element; + and @ begin texts on a page, too.
FORMULA, ELEMENT = re.compile(r"^\s*="), re.compile(r"<\s*[/!?A-Za-z]")


@dataclass(frozen=True)
class Fact:
    """Statement of a person: the text, who states it, and on which day. so: what follows from it"""

    key: str
    value: str
    by: str
    on: date
    so: str = ""


class _Questions(Mapping[str, str]):
    """{key: question} of documents/questions.toml and of each hazard, read at the first look."""

    def __getitem__(self, key: str) -> str:
        return _questions()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_questions())

    def __len__(self) -> int:
        return len(_questions())


@cache
def _questions() -> dict[str, str]:
    questions = tomllib.loads(files("hilum.documents").joinpath("questions.toml").read_text(encoding="utf-8"))
    levels = ", ".join(SEVERITIES)
    for hazard in tracing.read_hazards():
        harm = f"{hazard['hazard']}. {hazard['harm']} Begin with one of {levels}; proposed: {hazard['severity']}."
        questions[f"severity_{hazard['id']}"] = f"How severe is the harm? {harm}"
        questions[f"residual_{hazard['id']}"] = (
            f"Is the risk that is left acceptable, by which criterion? {hazard['hazard']}."
        )
    return questions


QUESTIONS: Mapping[str, str] = _Questions()


def read_facts(path: Path, today: date) -> dict[str, Fact]:
    """{key: Fact}; UsageError names the first key that is unknown, incomplete, from the future, or no plain text."""
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            "there is no such file", str(path), "Write it from the facts.toml of an older folder"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not TOML ({error})", str(path), "Write each as key = { value, by, on }") from error
    return {key: _fact(key, entry, str(path), today) for key, entry in written.items()}


def _fact(key: str, entry: object, where: str, today: date) -> Fact:
    if key not in QUESTIONS:
        near = get_close_matches(key, list(QUESTIONS), n=1)
        remedy = f"Write {near[0]}" if near else "Use a key of the facts.toml that document writes"
        raise UsageError(f"{key!r} is no fact that a document asks for", where, remedy)
    form = f'Write {key} = {{ value = "...", by = "name", on = {today} }}'
    if not isinstance(entry, dict) or set(entry) != {"value", "by", "on"}:
        raise UsageError(f"{key} needs value, by and on, and nothing else", where, form)
    value, by, on = entry["value"], entry["by"], entry["on"]
    if isinstance(on, str):
        try:
            on = date.fromisoformat(on)
        except ValueError:
            on = None
    if not isinstance(on, date) or type(on) is not date:
        raise UsageError(f"{key}: {entry['on']!r} is no day", where, form)
    if on > today:
        raise UsageError(f"{key}: {on} lies in the future", where, "Give the day on which it was stated")
    for name, text in (("value", value), ("by", by)):
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"{key}: {name} is no text", where, form)
        if FORMULA.search(text) or ELEMENT.search(text):
            raise UsageError(f"{key}: {name} holds HTML or a formula", where, "Write plain text")
    return Fact(key, value, by, on)


def facts_text(asked: Iterable[str], facts: Mapping[str, Fact]) -> str:
    """facts.toml: what was stated, then each open question, commented out."""
    lines = ["# What no record can know. Remove the # of a line, answer, and give the file to --facts.", ""]
    for fact in facts.values():
        entry = f"value = {_quote(fact.value)}, by = {_quote(fact.by)}, on = {fact.on}"
        lines += [f"# {QUESTIONS[fact.key]}", f"{fact.key} = {{ {entry} }}", ""]
    for key in dict.fromkeys(asked):
        if key not in facts:
            lines += [f"# {QUESTIONS[key]}", f'# {key} = {{ value = "", by = "", on = }}', ""]
    return "\n".join(lines)


def _quote(text: str) -> str:
    """A basic string of TOML: as in JSON, but DEL is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
