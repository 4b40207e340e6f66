"""The vocabulary by which a list says where the evidence of an item lies.

`plan KEY`, `because KEY`       a decision of the plan, or its reason
`summary METRIC [LABEL]`        a figure with its interval; `primary` is the primary metric
`figures METRIC...`             these figures for every label
`bound above|below METRIC`      the upper end of a figure's interval, or 1 less its lower end, of the worst label
`entries RECORD KEY`            each entry of a list in a JSON record
`class`                         the safety class that follows from the worst severity that a person states
`count RECORD [COLUMN=VALUE] [distinct=COLUMN]`  rows of a table
`lines RECORD [COLUMN=VALUE] [most=N]`           rows of a table, each a value
`RECORD KEY`                    a value of a JSON record, as `check passed` or `environment versions.torch`
`fact KEY`                      what a person states in facts.toml
`command TEXT`                  nothing that a record can hold today: the text says what fills it
`A | B` takes the first that exists. A leading `?` marks evidence that an item shows but does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hilum import errors
from hilum.documents import subjects, tracing
from hilum.documents.fact_file import QUESTIONS, Fact
from hilum.documents.subjects import COMPLEMENT, PLACES, DocumentSubject, RecordedValue
from hilum.documents.tracing import SEVERITIES
from hilum.errors import UsageError


@dataclass(frozen=True)
class Absent:
    """Evidence that does not exist, and the command or the key that would fill it."""

    remedy: str


Found = list[RecordedValue] | Fact | Absent
NODE_RECORD = "node"
MOST_LINES = 10  # of a table in a document; its record holds all


def look_up(text: str, subject: DocumentSubject, facts: Mapping[str, Fact]) -> Found:
    """Look up what the subject or a person knows; the first of several alternatives that exists.

    Raises UsageError for a look-up that is not in the vocabulary.
    """
    found: Found = Absent("")
    remedies = []
    for part in text.removeprefix("?").split("|"):
        found = _single(part.split(), subject, facts)
        if not isinstance(found, Absent):
            return found
        remedies.append(found.remedy)
    return Absent(", or ".join(dict.fromkeys(filter(None, remedies))) or "the documents of the model's run answer it")


def refuse_unknown(text: str, where: str) -> None:
    """UsageError for a look-up that is not in the vocabulary. where: the list and its item"""
    known = {*LOOKUPS, *PLACES, "fact", "class", "command"}
    for part in text.removeprefix("?").split("|"):
        name = (part.split() or [""])[0]
        if name not in known and not name.startswith("{"):
            raise UsageError(f"{part.strip()!r} is not a look-up", where, errors.nearest_remedy(name, sorted(known)))


def reads_records(text: str) -> bool:
    """Whether a look-up reads a record, and not only what a person states or a command would write."""
    words = [part.split() for part in text.removeprefix("?").split("|")]
    return any(name not in ("fact", "class", "command") for name, *_ in words)


def _single(words: list[str], subject: DocumentSubject, facts: Mapping[str, Fact]) -> Found:
    name, arguments = words[0], words[1:]
    if name == "fact":
        return facts.get(arguments[0]) or Absent(f"state {arguments[0]} in facts.toml: {QUESTIONS[arguments[0]]}")
    if name == "class":
        return _class(facts)
    if name == "command":
        return Absent(" ".join(arguments))
    if name in LOOKUPS:
        return LOOKUPS[name](subject, arguments)
    if name in PLACES and arguments:
        found = subject.find(name, subjects.pointer_to(*" ".join(arguments).split(".")))
        return [found] if found is not None and not is_blank(found.value) else Absent(command_for_record(name, subject))
    raise UsageError(
        f"{' '.join(words)!r} is not a look-up", "documents/lists", f"Use {', '.join(LOOKUPS)} or a record"
    )


def command_for_record(name: str, subject: DocumentSubject) -> str:
    """The command that writes a record; of a study what a person writes, and nothing for records that no study has."""
    if subject.kind == "study" and name not in ("results", "flow"):
        return "write it into the study's file, and plan the study anew" if name in ("study", "registry") else ""
    if name == NODE_RECORD and subject.kind == "node":
        return "the node keeps no record of it"
    command = PLACES[name][1]
    if not command.startswith("hilum "):
        return command
    return f"run {command if ' train ' in command else command.replace('RUN', subject.folder.resolve().name)}"


def is_blank(value: Any) -> bool:
    """Whether a value says nothing: null, an empty text or an empty list."""
    return value is None or value in ("", [], {})


def _plan(subject: DocumentSubject, arguments: list[str]) -> Found:
    """A decision with its reason; one whose value is null still says by its reason what was not done."""
    found = _decision(subject, arguments[0], "value")
    if found is None:
        return Absent(command_for_record("plan", subject))
    reason = _decision(subject, arguments[0], "because")
    if is_blank(found.value):
        return [reason] if reason is not None else Absent(command_for_record("plan", subject))
    because = "" if reason is None else str(reason.value)
    return [RecordedValue(found.value, found.record, found.pointer, found.sha256, because)]


def _because(subject: DocumentSubject, arguments: list[str]) -> Found:
    found = _decision(subject, arguments[0], "because")
    return Absent(command_for_record("plan", subject)) if found is None else [found]


def _decision(subject: DocumentSubject, key: str, part: str) -> RecordedValue | None:
    """The plan of a run, or what a package keeps of it."""
    return subject.find("plan", subjects.pointer_to(*key.split("."), part)) or subject.find(
        "model", subjects.pointer_to("decisions", key, part)
    )


def evaluation_figures(subject: DocumentSubject) -> list[RecordedValue]:
    """Every figure of the evaluation, as a run or a package has them."""
    for name, pointer in (("summary", "/rows"), ("model", "/evaluation")):
        rows = subject.find(name, pointer)
        if rows is not None and rows.value:
            return [
                RecordedValue(row, rows.record, f"{pointer}/{place}", rows.sha256)
                for place, row in enumerate(rows.value)
            ]
    return []


def primary_of_subject(subject: DocumentSubject) -> str | None:
    """The primary metric."""
    for name, pointer in (("summary", "/primary"), ("model", "/record/primary")):
        if (found := subject.find(name, pointer)) is not None:
            return str(found.value)
    return None


def _summary(subject: DocumentSubject, arguments: list[str]) -> Found:
    metric = primary_of_subject(subject) if arguments[0] == "primary" else arguments[0]
    label = " ".join(arguments[1:]) or "all"
    rows = [
        one for one in evaluation_figures(subject) if one.value["metric"] == metric and one.value["value"] is not None
    ]
    exact = [one for one in rows if one.value["label"] == label]
    return exact[:1] or rows[:1] or Absent(command_for_record("summary", subject))


def _figures(subject: DocumentSubject, arguments: list[str]) -> Found:
    named = [primary_of_subject(subject) if one == "primary" else one for one in arguments]
    rows = [
        one for one in evaluation_figures(subject) if one.value["metric"] in named and one.value["value"] is not None
    ]
    return rows or Absent(command_for_record("summary", subject))


def _bound(subject: DocumentSubject, arguments: list[str]) -> Found:
    """The end of an interval that bounds a chance from above, of the label for which it is largest."""
    side, metric = arguments
    rows = [one for one in evaluation_figures(subject) if one.value["metric"] == metric]
    if not rows:
        return Absent(command_for_record("summary", subject))
    name, sign = ("high", "") if side == "above" else ("low", COMPLEMENT)
    ends = [
        replace(
            subject.at(one.record, f"{sign}{one.pointer}/{name}"),
            because=f"the {100 * (one.value.get('level') or 0.95):g} % interval of {metric}{of} is {interval}",
        )
        for one in rows
        if one.value[name] is not None
        for of in [f" of {one.value['label']}" * (one.value["label"] != "all")]
        for interval in [" to ".join(f"{one.value[end]:.3g}" for end in ("low", "high") if one.value[end] is not None)]
    ]
    return (
        [max(ends, key=lambda one: one.value)] if ends else Absent(f"{metric} has no interval: evaluate more patients")
    )


def _entries(subject: DocumentSubject, arguments: list[str]) -> Found:
    found = subject.find(arguments[0], pointer := subjects.pointer_to(*arguments[1].split(".")))
    if found is None or not isinstance(found.value, list | dict) or not found.value:
        return Absent(command_for_record(arguments[0], subject))
    steps = found.value if isinstance(found.value, dict) else range(len(found.value))
    return [subject.at(found.record, f"{pointer}{subjects.pointer_to(step)}") for step in steps]


def _class(facts: Mapping[str, Fact]) -> Found:
    """The severity that decides, with the class of IEC 62304:2006+A1:2015 and the level of its second edition.

    A without harm, B with harm that is not serious, C with serious harm or death. The draft of the second edition asks
    for the higher level of rigour where harm is possible at all.
    """
    stated = {
        key: SEVERITIES.index(level)
        for key, fact in facts.items()
        if key.startswith("severity_") and (level := fact.value.split()[0].strip(".,:;").lower()) in SEVERITIES
    }
    missing = [key for one in tracing.read_hazards() if (key := f"severity_{one['id']}") not in stated]
    if missing:
        remedy = f"state {missing[0]} in facts.toml, beginning with one of {', '.join(SEVERITIES)}"
        return Absent(f"{remedy}; {len(missing)} of {len(tracing.read_hazards())} hazards have no such severity")
    key = max(stated, key=lambda one: stated[one])
    level = SEVERITIES[stated[key]]
    letter = "A" if level == "negligible" else "B" if level == "minor" else "C"
    return replace(
        facts[key], so=f"class {letter}; rigour level {'I' if letter == 'A' else 'II'} by the second edition"
    )


def _count(subject: DocumentSubject, arguments: list[str]) -> Found:
    path = subject.path_of(arguments[0])
    if path is None:
        return Absent(command_for_record(arguments[0], subject))
    return [subject.at(path, f"count:{';'.join(arguments[1:])}")]


def _lines(subject: DocumentSubject, arguments: list[str]) -> Found:
    path = subject.path_of(arguments[0])
    if path is None:
        return Absent(command_for_record(arguments[0], subject))
    conditions = dict(one.split("=", 1) for one in arguments[1:])
    most = int(conditions.pop("most", MOST_LINES))
    rows = subject.record(path)[0]
    kept = [place for place, row in enumerate(rows, 1) if all(row.get(k) == v for k, v in conditions.items())]
    columns = ",".join(rows[0]) if rows else ""
    return [subject.at(path, f"{columns}@{place}") for place in kept[:most]] or Absent(
        command_for_record(arguments[0], subject)
    )


LOOKUPS: Mapping[str, Callable[[DocumentSubject, list[str]], Found]] = {
    "plan": _plan,
    "because": _because,
    "summary": _summary,
    "figures": _figures,
    "bound": _bound,
    "entries": _entries,
    "count": _count,
    "lines": _lines,
}
