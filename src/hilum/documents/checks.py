"""Checks of documents: statements against the records that contradict them, and rows against the records they name."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hilum.documents import _lookups, guidelines, subjects
from hilum.documents.fact_file import FACTS, Fact
from hilum.documents.guidelines import SCHEMA, STATES, AnswerRow, DocumentsRecord
from hilum.documents.subjects import DocumentSubject, RecordedValue
from hilum.errors import IntegrityError, UsageError
from hilum.monitoring import change_plan
from hilum.runtime import record_files

# Words before or after a claim that turn it round: "no external validation was done", "external validation is planned".
DENIED = re.compile(
    r"\b(no|not|never|without|lacks?|lacking|nor|neither|none|yet to|planned|future)\b[^.;]*$", re.IGNORECASE
)
DENIED_AFTER = re.compile(r"^\W*(?:\w+ +){0,3}(?:not|never|planned|lacking|missing|pending)\b", re.IGNORECASE)
# An answer that says no: "None: one hospital took part", "It was never tested elsewhere".
NONE = re.compile(r"^\W*(?:none|nothing|no (?:further )?limitations?)\b", re.IGNORECASE)
NO = re.compile(r"^\W*(?:none|no|nothing|n/a)\b|^[^,;.]*\b(?:no|not|never|without|planned|future)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """What claims something, and the record that would have to bear it out.

    words:   by which any statement claims it
    against: the evidence that speaks against it; None where nothing does
    answers: facts of which each answer that does not say no claims it, whatever its words
    denials: facts of which each answer that says no does
    """

    words: re.Pattern[str] | None
    against: Callable[[DocumentSubject], RecordedValue | None]
    answers: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()

    def in_statement(self, fact: Fact) -> Iterator[str]:
        """The parts of a statement that claim it."""
        if fact.key in self.answers and not NO.search(fact.value):
            yield fact.value
        if fact.key in self.denials and NONE.match(fact.value):
            yield fact.value
        for match in () if self.words is None else self.words.finditer(fact.value):
            if not (DENIED.search(fact.value[: match.start()]) or DENIED_AFTER.search(fact.value[match.end() :])):
                yield match[0]


def refuse_contradictions(facts: Mapping[str, Fact], subject: DocumentSubject, where: Path) -> None:
    """UsageError for the first fact that a record contradicts."""
    for fact in facts.values():
        for claim in CLAIMS:
            for words in claim.in_statement(fact):
                if (evidence := claim.against(subject)) is not None:
                    raise UsageError(
                        f"{fact.key} states {words!r}, but {evidence.record} {evidence.pointer} is "
                        f"{str(evidence.value)!r}",
                        str(where),
                        "Correct the statement, or give the subject whose records bear it out",
                    )


def refuse_planned_changes(subject: DocumentSubject) -> None:
    """PlanError where the subject has a plan of changes that a check could not execute."""
    path = subject.path_of("change_plan")
    if path is not None:
        metrics = {one.value["metric"] for one in _lookups.evaluation_figures(subject)}
        change_plan.refuse_change_plan(subject.record(path)[0], metrics, str(subject.folder / path))


def _find_evidence(text: str, subject: DocumentSubject) -> RecordedValue | None:
    found = _lookups.look_up(text, subject, {})
    return found[0] if isinstance(found, list) else None


def _same_source(subject: DocumentSubject) -> RecordedValue | None:
    """Cases that test were chosen among the cases that train: the same sites."""
    method = _find_evidence("plan split.method", subject)
    reason = _find_evidence("because split.method", subject)
    return reason if method is not None and method.value in ("sampled", "folds") else None


def _excluded_cases(subject: DocumentSubject) -> RecordedValue | None:
    """A run that left cases out, or a check that names cases which cannot be used."""
    count = subject.find("run", "/excluded_cases")
    if count is not None and count.value:
        return count
    rows = subject.find("check", "/rows")
    if rows is None:
        return None
    path = rows.record
    errors = [place for place, row in enumerate(rows.value) if row["severity"] == "error" and row["cases"]]
    return subject.at(path, f"/rows/{errors[0]}/what") if errors else None


def _unknown_patients(subject: DocumentSubject) -> RecordedValue | None:
    reason = _find_evidence("because split.method", subject)
    return reason if reason is not None and "patients unknown" in str(reason.value) else None


def _pretrained_weights(subject: DocumentSubject) -> RecordedValue | None:
    found = _find_evidence("plan network.pretrained", subject)
    return None if found is None or found.pointer.endswith("/because") else found


def _against_the_result(subject: DocumentSubject) -> RecordedValue | None:
    """What the verdict counts against the model."""
    found = subject.find("run", "/verdict/against")
    return found if found is not None and found.value else None


def _uneven(subject: DocumentSubject) -> RecordedValue | None:
    """A group in which the model errs surely more."""
    path = subject.path_of("weak_groups")
    if path is None:
        return None
    for index, row in enumerate(subject.record(path)[0], 1):
        if row.get("judged") == "yes" and float(row.get("p_adjusted") or 1) < 0.05:
            return subject.at(path, f"group@{index}")
    return None


def _no_gain(subject: DocumentSubject) -> RecordedValue | None:
    """A comparison or a trial in which no gain was shown."""
    for name in ("comparison", "results"):
        found = subject.find(name, "/tests")
        for index, row in enumerate(found.value if found is not None and isinstance(found.value, list) else []):
            is_judged = row.get("role") in (None, "primary")  # of a trial what it was planned for
            if found is not None and is_judged and row.get("verdict") not in (None, "superior"):
                return subject.at(found.record, f"/tests/{index}/verdict")
    return None


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b(?:{one})\w*" for one in patterns), re.IGNORECASE)


CLAIMS = (
    Claim(
        _words(r"external(?:ly)?[ -](?:validat|test|evaluat)", "independent (?:site|hospital|cent)"),
        _same_source,
        answers=("external_testing",),
    ),
    Claim(None, _against_the_result, denials=("limitations",)),
    Claim(
        _words("(?:no|zero|without) (?:exclusion|case was excluded|cases were excluded|excluded case)"), _excluded_cases
    ),
    Claim(
        _words("(?:split|separated|partitioned|divided) by (?:patient|person|people)", "patient-level split"),
        _unknown_patients,
    ),
    Claim(
        _words("trained from scratch", "random(?:ly)? initiali[sz]", "no (?:pre-?trained|foundation)"),
        _pretrained_weights,
    ),
    Claim(_words("equal(?:ly)? (?:well )?(?:in|across|for) all", "no (?:bias|difference between)"), _uneven),
    Claim(_words("superior to", "outperforms", "better than"), _no_gain),
)


RECORD = "documents.json"


@dataclass(frozen=True)
class BrokenRow:
    """A row, or a record as a whole, that no longer holds.

    where: document and item, or the path of the record
    """

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def broken_rows(folder: Path, subject: DocumentSubject) -> list[BrokenRow]:
    """List what no longer holds: changed values, changed or missing records, and rows that the folder itself changed.

    A value that still stands in a record that changed elsewhere does not hold either: its SHA-256 is part of the row.
    Raises IntegrityError where documents.json is missing or is none.
    """
    written = record_files.read_json(folder / RECORD, SCHEMA)
    broken = [BrokenRow(path, problem) for path, problem in _changed_records(written["records"], subject).items()]
    for row in written["rows"]:
        where = f"{row['document']} {row['item']}{row['part']}"
        if row["state"] not in STATES:
            broken.append(BrokenRow(where, f"{row['state']!r} is no state"))
        elif row["state"] in ("measured", "evidence", "planned"):
            broken += [BrokenRow(where, problem) for problem in _check_recorded(row, subject)]
        elif row["state"] == "stated":
            broken += [BrokenRow(where, problem) for problem in _check_stated(row, folder)]
    broken += _wrong_scores(written)
    return broken


def _wrong_scores(written: DocumentsRecord) -> list[BrokenRow]:
    """Scores that do not follow from the rows."""
    states: dict[str, dict[tuple[str, str], set[str]]] = {}
    for row in written["rows"]:
        states.setdefault(row["document"], {}).setdefault((row["item"], row["part"]), set()).add(row["state"])
    broken = []
    for score in written["scores"]:
        name = str(score["document"])
        items = states.pop(name, {})
        missing = sum("missing" in one for one in items.values())
        apart = sum("not applicable" in one for one in items.values())
        rest = len(items) - missing - apart
        answered = sum(cast("int", score[state]) for state in ("measured", "evidence", "planned", "stated"))
        if (score["missing"], score["not_applicable"], answered) != (missing, apart, rest):
            broken.append(BrokenRow(name, "its score does not follow from its rows"))
    return [*broken, *(BrokenRow(name, "has no score") for name in states)]


def _changed_records(records: Mapping[str, str], subject: DocumentSubject) -> dict[str, str]:
    """{path: problem} of records that are not what they were when the documents were written."""
    problems = {}
    for path, sha256 in records.items():
        try:
            _, now = subject.record(path)
        except IntegrityError as error:
            problems[path] = error.problem
        else:
            if now != sha256:
                problems[path] = "is not the record that was documented (its SHA-256 differs)"
    return problems


def _check_recorded(row: AnswerRow, subject: DocumentSubject) -> list[str]:
    try:
        now = subject.at(row["record"], row["pointer"])
    except IntegrityError as error:
        return [f"{row['record']} {error.problem}"]
    pointer = f"{row['record']} {row['pointer']}"
    value = guidelines.plain_value(now.value)
    if value != row["value"] or type(value) is not type(row["value"]):
        return [f"{pointer} was {subjects.short_json(row['value'])}, now it is {subjects.short_json(value)}"]
    if now.sha256 != row["sha256"]:
        return [f"{pointer} is unchanged, but the record is not"]
    return []


def _check_stated(row: AnswerRow, folder: Path) -> list[str]:
    file = folder / FACTS
    if not file.is_file() or record_files.file_digest(file) != row["sha256"]:
        return [f"{FACTS} is not the file that was documented"]
    try:
        value = subjects.value_at_pointer(tomllib.loads(file.read_text(encoding="utf-8")), row["pointer"])
    except (KeyError, ValueError):
        return [f"{FACTS} has nothing at {row['pointer']}"]
    return [] if value == row["value"] else [f"{FACTS} {row['pointer']} states something else"]
