"""A document as a page: its score, the gaps that weigh most, and every item with the place of its evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from isocenter import tasks
from isocenter.documents.answers import MOST_GAPS, Answer, Answered, Document
from isocenter.documents.lookups import looked_up
from isocenter.documents.subject import COMPLEMENT, Subject
from isocenter.errors import counted
from isocenter.evaluation import Metrics
from isocenter.report import (
    Block,
    Page,
    Paragraph,
    Section,
    Table,
    interval_text,
    number,
    p_text,
    sentence,
    setting_text,
    value_text,
)
from isocenter.values import Estimate

DRAFT = "Draft for a responsible person to complete"
COLUMNS = ("item", "what is asked", "state", "answer", "where it lies")
SHARES, GAP_SHARES = (0.08, 0.2, 0.1, 0.36, 0.26), (0.1, 0.4, 0.5)
HASH = 12  # digits of a SHA-256 on a page; documents.json has all
LONG_DECIMAL = re.compile(r"-?\d+\.\d{4,}(?:e-?\d+)?")
MOST_PARTS = 8  # parts of a value that a page spells out; its record has all
WHOLE_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def page_of(document: Document, subject: Subject, *, before: Sequence[Section] = ()) -> Page:
    """The page of a document. before: sections between the gaps and the items."""
    guideline, answered = document.guideline, document.answered
    subject_name, metrics = subject.folder.resolve().name, metrics_of(subject)
    sections = [Section("Gaps that weigh most", _gaps(document)), *before]
    names = list(dict.fromkeys(one.item.section for one in answered))
    for name in names:
        rows = [row for one in answered if one.item.section == name for row in _rows(one, metrics)]
        sections.append(Section(name or "Items", [Table(COLUMNS, rows, shares=SHARES)]))
    facts = {
        "edition": guideline.edition,
        "source": guideline.source,
        "licence": guideline.licence,
        "looked at": guideline.seen or "not stated",
        "subject": subject_name,
    }
    return Page(
        guideline.title,
        sections=sections,
        notes=[
            f"From {day}: {duty}" if day[:4].isdigit() else f"{duty}: {day}"
            for duty, day in (guideline.dates or {}).items()
        ],
        lead=f"{DRAFT}. Of {subject_name}; {guideline.edition}.",
        verdict=score_sentence(document),
        facts=facts,
    )


def metrics_of(subject: Subject) -> Metrics:
    """The metrics of the subject's kind of problem, by whose words figures are called."""
    found = looked_up("plan task.name | scored name | model task.name", subject, {})
    name = str(found[0].value) if isinstance(found, list) else ""
    return tasks.kind(name).metrics if name in tasks.names() else Metrics()


def score_sentence(document: Document) -> str:
    """ "24 of 44 items are measured, 3 stated, 16 missing; 1 does not apply." """
    score, total = document.score, len(document.answered)
    applying = total - score["not_applicable"]
    text = (
        f"{score['measured']} of {counted(applying, 'item')} {'is' if score['measured'] == 1 else 'are'} measured, "
        f"{score['stated']} stated, {score['missing']} missing"
    )
    if score["not_applicable"]:
        text += f"; {score['not_applicable']} {'does' if score['not_applicable'] == 1 else 'do'} not apply"
    return f"{text}."


def _gaps(document: Document) -> list[Block]:
    gaps = document.gaps
    if not gaps:
        return [Paragraph("No item is missing.")]
    rows = [[one.item.name, one.item.subject, _remedies(one)] for one in gaps[:MOST_GAPS]]
    blocks: list[Block] = [Table(("item", "what is asked", "what fills it"), rows, shares=GAP_SHARES)]
    if len(gaps) > MOST_GAPS:
        blocks.append(Paragraph(f"{len(gaps) - MOST_GAPS} more are missing: see the items below."))
    return blocks


def _remedies(answered: Answered) -> str:
    missing = [one.because for one in answered.answers if one.state == "missing"]
    return sentence("; ".join(dict.fromkeys(missing)))


def _rows(answered: Answered, metrics: Metrics) -> list[list[str]]:
    """A row for each answer; the item's number and subject stand on the first."""
    rows = []
    for index, answer in enumerate(answered.answers):
        head = [answered.item.name, answered.item.subject] if index == 0 else ["", ""]
        rows.append([*head, answer.state, answer_text(answer, metrics), place_text(answer)])
    return rows


def place_text(answer: Answer) -> str:
    """Record, pointer and the first digits of the record's SHA-256."""
    if not answer.record:
        return ""
    return f"{answer.record} {answer.pointer} ({answer.sha256[:HASH]})"


def answer_text(answer: Answer, metrics: Metrics) -> str:
    """An answer in words: the value with its name and reason, who stated it, or what would fill it."""
    if answer.state in ("missing", "not applicable"):
        return sentence(answer.because)
    if answer.state == "stated":
        return f"{sentence(str(answer.value))} ({answer.because}.)"
    text = value_words(answer.value, metrics)
    name = name_of(answer.pointer)
    text = f"{name}: {text}" if name and not (is_figure(answer.value) or is_group(answer.value)) else text
    return sentence(f"{text}. {sentence(answer.because)}" if answer.because else text)


def value_words(value: Any, metrics: Metrics, *, briefly: bool = False) -> str:
    """A value of a record: a figure with its interval, a group by its columns, or the value itself.

    briefly: without how an interval was made
    """
    if is_figure(value):
        return figure_words(value, metrics, briefly=briefly)
    if isinstance(value, Mapping) and {"id", "text", "tests", "problems"} <= set(value):
        return _traced_words(value)
    if isinstance(value, Mapping):
        return _group_words(value) if is_group(value) else _parts_words(value, metrics)
    if isinstance(value, list) and len(value) > MOST_PARTS and isinstance(value[0], Mapping):
        return f"{len(value)} entries"
    if isinstance(value, list) and any(isinstance(one, Mapping | str) for one in value):
        return "; ".join(value_words(one, metrics, briefly=briefly).rstrip(".") for one in value)
    if isinstance(value, str) and LONG_DECIMAL.fullmatch(value):  # of a table, whose cells are texts
        return number(float(value))
    if isinstance(value, str) and value in {metric.name for metric in metrics}:
        return metrics.of(value).words
    return WHOLE_HASH.sub(lambda match: f"{match[0][:HASH]}...", setting_text(value))


def _parts_words(value: Mapping[str, Any], metrics: Metrics) -> str:
    parts = [f"{key}: {value_words(part, metrics)}" for key, part in value.items() if part not in ("", None, [], {})]
    return ", ".join(parts) or "none"


def _traced_words(row: Mapping[str, Any]) -> str:
    """A requirement or a control with its source, its risk, its code, and its tests with their results."""
    tests = ", ".join(f"{test} ({result})" for test, result in row["tests"].items())
    problems = f". It does not hold: {'; '.join(row['problems'])}" if row["problems"] else ""
    about = f"{row['text']} From {row['source']}; risk {row['risk']}. Code: {', '.join(row['code'])}"
    return f"{about}. Tests: {tests}{problems}"


def _group_words(row: Mapping[str, Any]) -> str:
    """A row of `weak_groups.csv`: the group, its error, that of the others, and whether the difference is sure."""
    errors = [
        number(float(row[name])) if row[name] not in ("", None) else "undefined" for name in ("error", "elsewhere")
    ]
    adjusted = row.get("p_adjusted")
    sure = f"p {p_text(float(adjusted))} after Holm" if adjusted not in ("", None) else str(row.get("judged", ""))
    attribute = str(row["attribute"]).removeprefix("image: ")
    return f"{attribute} {row['group']}: mean error {errors[0]}, {errors[1]} elsewhere (n = {row.get('n')}; {sure})"


def is_group(value: Any) -> bool:
    """Whether a value is a row of `weak_groups.csv`."""
    return isinstance(value, Mapping) and {"attribute", "group", "error"} <= set(value)


def is_figure(value: Any) -> bool:
    """Whether a value is a row of a summary."""
    return isinstance(value, Mapping) and {"metric", "label", "value", "low", "high"} <= set(value)


def figure_words(row: Mapping[str, Any], metrics: Metrics, *, briefly: bool = False) -> str:
    """ "AUROC of PNEUMONIA 0.862 (95 % interval 0.509 to 0.971, 27 cases of 15 patients; patient bootstrap)".

    A row of `groups.csv` begins with its group. briefly: without cases and method
    """
    estimate = estimate_of(row)
    group = f"{row['attribute']} {row['group']}: " if row.get("group") else ""
    label = "" if row["label"] in ("all", "") else f" of {row['label']}"
    text = f"{group}{metrics.of(str(row['metric'])).words}{label} {value_text(estimate)}"
    if briefly:
        return f"{text} ({interval_text(estimate)})"
    cases = f", {counted(estimate.n, 'case')}" if estimate.n else ""
    people = f" of {counted(estimate.patients, 'patient')}" if estimate.patients else ""
    method = "" if estimate.low is None or not estimate.method else f"; {estimate.method}"
    return f"{text} ({interval_text(estimate)}{cases}{people}{method})"


def estimate_of(row: Mapping[str, Any]) -> Estimate:
    """The estimate of a row of a summary, in JSON or in a table."""

    def decimal(name: str) -> float | None:
        return None if row.get(name) in (None, "") else float(row[name])

    value = decimal("value")
    return Estimate(
        float("nan") if value is None else value,
        decimal("low"),
        decimal("high"),
        float(row.get("level") or 0.95),
        int(float(row.get("n") or 0)),
        int(float(row.get("patients") or 0)),
        str(row.get("unit") or ""),
        str(row.get("method") or ""),
    )


def name_of(pointer: str) -> str:
    """Name of what a pointer leads to: `task.classes`, "cases with split test", "column"."""
    if pointer.startswith("count:"):
        parts = dict(part.split("=", 1) for part in pointer.removeprefix("count:").split(";") if part)
        counted_rows = {"case": "cases", "patient": "patients"}.get(parts.pop("distinct", ""), "rows")
        return " with ".join([counted_rows, *([", ".join(" ".join(part) for part in parts.items())] if parts else [])])
    if pointer.startswith(COMPLEMENT):
        return f"1 less {name_of(pointer.removeprefix(COMPLEMENT))}"
    if "@" in pointer and not pointer.startswith("/"):
        return pointer.rpartition("@")[0]
    steps = [step for step in pointer.split("/")[1:] if step not in ("value", "because", "rows", "decisions")]
    return ".".join(steps)
