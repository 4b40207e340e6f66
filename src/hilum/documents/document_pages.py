"""A document as it is read: a page with score and gaps, drafted text, a card as XML, and PDF by Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hilum import errors
from hilum.documents import _lookups
from hilum.documents.guidelines import MOST_GAPS, PLACEHOLDER, AnsweredItem, Document, ItemAnswer
from hilum.documents.subjects import COMPLEMENT, DocumentSubject
from hilum.evaluation import Metrics
from hilum.report import Block, Paragraph, ReportPage, Section, Table, page_blocks, wording
from hilum.report.figures import cohort_figures
from hilum.studies import trial_analysis
from hilum.tasks import task_catalogue
from hilum.values import Estimate

DRAFT = "Draft for a responsible person to complete"
COLUMNS = ("item", "what is asked", "state", "answer", "where it lies")
AS_ABOVE = "as above"  # of the further answers to an item
SHARES, GAP_SHARES = (0.08, 0.2, 0.13, 0.35, 0.24), (0.1, 0.4, 0.5)
HASH = 12  # digits of a SHA-256 on a page; documents.json has all
LONG_DECIMAL = re.compile(r"-?\d+\.\d{4,}(?:e-?\d+)?")
MOST_PARTS = 8  # parts of a value that a page spells out; its record has all
WHOLE_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def compose_document_page(
    document: Document, subject: DocumentSubject, *, before: Sequence[Section] = ()
) -> ReportPage:
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
        "compared": guideline.comparison,
        "subject": subject_name,
    }
    return ReportPage(
        guideline.title,
        sections=sections,
        notes=[
            *([f"This edition was superseded: use {guideline.superseded_by}"] if guideline.superseded_by else []),
            *(
                f"From {day}: {duty}" if day[:4].isdigit() else f"{duty}: {day}"
                for duty, day in (guideline.dates or {}).items()
            ),
        ],
        lead=f"{DRAFT}. {guideline.comparison}. Of {subject_name}; {guideline.edition}.",
        verdict=score_sentence(document),
        facts=facts,
    )


def metrics_of(subject: DocumentSubject) -> Metrics:
    """The metrics of the subject's kind of problem, by whose words figures are called."""
    found = _lookups.look_up("plan task.name | scored name | model task.name", subject, {})
    name = str(found[0].value) if isinstance(found, list) else ""
    return task_catalogue.task_class(name).metrics if name in task_catalogue.task_names() else Metrics()


def score_sentence(document: Document) -> str:
    """ "24 of 44 items are measured, 2 judgements with evidence, 3 stated, 16 missing; 1 does not apply." """
    score, total = document.counts, len(document.answered)
    applying = total - score["not_applicable"]
    items = errors.count_phrase(applying, "item")
    text = (
        f"{score['measured']} of {items} {'is' if score['measured'] == 1 else 'are'} measured, "
        + (f"{score['planned']} planned, " if score["planned"] else "")
        + f"{score['stated']} stated, {score['missing']} missing"
    )
    if score["evidence"]:
        text += f"; {errors.count_phrase(score['evidence'], 'judgement')} that a person has to state, from the evidence"
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


def _remedies(answered: AnsweredItem) -> str:
    missing = [one.because for one in answered.answers if one.state == "missing"]
    return wording.as_sentence("; ".join(dict.fromkeys(missing)))


def _rows(answered: AnsweredItem, metrics: Metrics) -> list[list[str]]:
    """A row for each answer; the item's subject stands on the first."""
    rows = []
    for index, answer in enumerate(answered.answers):
        subject = answered.item.subject if index == 0 else AS_ABOVE
        rows.append([answered.item.name, subject, answer.state, answer_text(answer, metrics), place_text(answer)])
    return rows


def place_text(answer: ItemAnswer) -> str:
    """Record, pointer and the first digits of the record's SHA-256; why no record holds it, in words."""
    if answer.state == "not applicable":
        return "does not apply"
    if not answer.record:
        return "not measured" if _lookups.reads_records(answer.lookup) else "not stated"
    return f"{answer.record} {answer.pointer.removeprefix(COMPLEMENT)} ({answer.sha256[:HASH]})"


def answer_text(answer: ItemAnswer, metrics: Metrics) -> str:
    """An answer in words: the value with its name and reason, who stated it, or what would fill it."""
    if answer.state in ("missing", "not applicable"):
        return wording.as_sentence(answer.because)
    if answer.state == "stated":
        return f"{wording.as_sentence(str(answer.value))} ({answer.because}.)"
    if answer.lookup.split()[:1] == ["bound"]:
        return wording.as_sentence(f"{probability_words(float(answer.value))}. {wording.as_sentence(answer.because)}")
    text = recorded_value_words(answer.value, metrics)
    name = pointer_name(answer.pointer)
    text = f"{name}: {text}" if name and not (is_figure(answer.value) or is_group(answer.value)) else text
    return wording.as_sentence(f"{text}. {wording.as_sentence(answer.because)}" if answer.because else text)


def probability_words(bound: float) -> str:
    """ "at most 14 %, about 1 in 7": the upper end of a chance, for a reader who is to judge it."""
    if bound <= 0:
        return "none was seen"
    percent = f"{100 * bound:.0f}" if bound >= 0.01 else f"{100 * bound:.1g}"
    return f"at most {percent} %, about 1 in {max(1, round(1 / bound))}"


def recorded_value_words(value: Any, metrics: Metrics, *, briefly: bool = False) -> str:
    """A value of a record: a figure with its interval, a group by its columns, or the value itself.

    briefly: without how an interval was made
    """
    if is_figure(value):
        return figure_words(value, metrics, briefly=briefly)
    if isinstance(value, Mapping) and {"id", "text", "tests", "problems"} <= set(value):
        return _traced_words(value)
    if is_rate(value):
        return _rate_words(value)
    if isinstance(value, Mapping):
        return _group_words(value) if is_group(value) else _parts_words(value, metrics)
    if isinstance(value, list) and len(value) > MOST_PARTS and isinstance(value[0], Mapping):
        return f"{len(value)} entries"
    if isinstance(value, float) and LONG_DECIMAL.fullmatch(repr(value)):
        return wording.number_text(value)
    if isinstance(value, list) and any(isinstance(one, float) for one in value) and len(value) <= MOST_PARTS:
        return ", ".join(recorded_value_words(one, metrics) for one in value)
    if isinstance(value, list) and any(isinstance(one, Mapping | str) for one in value):
        return "; ".join(recorded_value_words(one, metrics, briefly=briefly).rstrip(".") for one in value)
    if isinstance(value, str) and LONG_DECIMAL.fullmatch(value):  # of a table, whose cells are texts
        return wording.number_text(float(value))
    if isinstance(value, str) and value in {metric.name for metric in metrics}:
        return metrics.metric_named(value).words
    return WHOLE_HASH.sub(lambda match: f"{match[0][:HASH]}...", wording.setting_text(value))


def _parts_words(value: Mapping[str, Any], metrics: Metrics) -> str:
    parts = list[str]()
    for key, part in value.items():
        if part in ("", None, [], {}):
            continue
        words = recorded_value_words(part, metrics)
        is_nested = isinstance(part, Mapping) and not (is_rate(part) or is_figure(part) or is_group(part))
        parts.append(f"{key} ({words})" if is_nested else f"{key}: {words}")
    return ", ".join(parts) or "none"


def _rate_words(row: Mapping[str, Any]) -> str:
    """ "0.083 (95 % interval 0.010 to 0.270, n = 24)", of a share without the name of a metric."""
    estimate = estimate_from_row(row)
    number = f", n = {estimate.n}" if estimate.n else ""
    return f"{wording.value_text(estimate)} ({wording.interval_text(estimate)}{number})"


def _traced_words(row: Mapping[str, Any]) -> str:
    """A requirement or a control with its source, its risk, its code, and its tests with their results."""
    tests = ", ".join(f"{test} ({result})" for test, result in row["tests"].items())
    problems = f". It does not hold: {'; '.join(row['problems'])}" if row["problems"] else ""
    about = f"{row['text']} From {row['source']}; risk {row['risk']}. Code: {', '.join(row['code'])}"
    return f"{about}. Tests: {tests}{problems}"


def _group_words(row: Mapping[str, Any]) -> str:
    """A row of `weak_groups.csv`: the group, its error, that of the others, and whether the difference is sure."""
    mean_error, elsewhere = (
        wording.number_text(float(row[name])) if row[name] not in ("", None) else "undefined"
        for name in ("error", "elsewhere")
    )
    adjusted = row.get("p_adjusted")
    sure = (
        f"p {wording.p_text(float(adjusted))} after Holm" if adjusted not in ("", None) else str(row.get("judged", ""))
    )
    attribute = str(row["attribute"]).removeprefix("image: ")
    return f"{attribute} {row['group']}: mean error {mean_error}, {elsewhere} elsewhere (n = {row.get('n')}; {sure})"


def is_group(value: Any) -> bool:
    """Whether a value is a row of `weak_groups.csv`."""
    return isinstance(value, Mapping) and {"attribute", "group", "error"} <= set(value)


def is_rate(value: Any) -> bool:
    """Whether a value is an estimate without the name of its metric."""
    if not isinstance(value, Mapping) or not {"value", "low", "high"} <= set(value):
        return False
    return "metric" not in value and isinstance(value["value"], int | float)


def is_figure(value: Any) -> bool:
    """Whether a value is a row of a summary."""
    return isinstance(value, Mapping) and {"metric", "label", "value", "low", "high"} <= set(value)


def figure_words(row: Mapping[str, Any], metrics: Metrics, *, briefly: bool = False) -> str:
    """ "AUROC of PNEUMONIA 0.862 (95 % interval 0.509 to 0.971, 27 cases of 15 patients; patient bootstrap)".

    A row of `groups.csv` begins with its group. briefly: without cases and method
    """
    estimate = estimate_from_row(row)
    group = f"{row['attribute']} {row['group']}: " if row.get("group") else ""
    label = "" if row["label"] in ("all", "") else f" of {row['label']}"
    text = f"{group}{metrics.metric_named(str(row['metric'])).words}{label} {wording.value_text(estimate)}"
    if briefly:
        return f"{text} ({wording.interval_text(estimate)})"
    cases = f", {errors.count_phrase(estimate.n, 'case')}" if estimate.n else ""
    people = f" of {errors.count_phrase(estimate.patients, 'patient')}" if estimate.patients else ""
    method = "" if estimate.low is None or not estimate.method else f"; {estimate.method}"
    return f"{text} ({wording.interval_text(estimate)}{cases}{people}{method})"


def estimate_from_row(row: Mapping[str, Any]) -> Estimate:
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


def pointer_name(pointer: str) -> str:
    """Name of what a pointer leads to: `task.classes`, "cases with split test", "column"."""
    if pointer.startswith("count:"):
        parts = dict(part.split("=", 1) for part in pointer.removeprefix("count:").split(";") if part)
        counted_rows = {"case": "cases", "patient": "patients"}.get(parts.pop("distinct", ""), "rows")
        return " with ".join([counted_rows, *([", ".join(" ".join(part) for part in parts.items())] if parts else [])])
    if pointer.startswith(COMPLEMENT):
        return f"1 less {pointer_name(pointer.removeprefix(COMPLEMENT))}"
    if "@" in pointer and not pointer.startswith("/"):
        return pointer.rpartition("@")[0]
    steps = [step for step in pointer.split("/")[1:] if step not in ("value", "because", "rows", "decisions")]
    return ".".join(steps)


ARMS = "flow arms"  # the look-up of the arms of a trial
FLOW = "Flow of cases"  # the subject of the item whose counts the diagram shows


def draft_sections(document: Document, metrics: Metrics) -> list[Section]:
    """The sections of the draft; an item with anything missing writes no sentence."""
    sections = list[Section]()
    answers = {answer.lookup: answer.value for one in document.answered for answer in one.answers}
    if answers.get(ARMS):
        sections.append(Section("Flow of participants", [trial_analysis.flow_diagram(answers[ARMS])]))
    for name in dict.fromkeys(one.item.section for one in document.answered if one.item.sentence):
        blocks: list[Block] = []
        for one in document.answered:
            if one.item.section != name or one.state in ("missing", "not applicable"):
                continue
            blocks.append(Paragraph(draft_sentence(one, metrics)))
            if one.item.subject == FLOW and (picture := _flow(one)) is not None:
                blocks.append(picture)
        if blocks:
            sections.append(Section(f"Draft: {name}", blocks))
    return sections


def draft_sentence(answered: AnsweredItem, metrics: Metrics) -> str:
    """The item's sentence, with the words of its answers in place of its look-ups."""
    words: dict[str, list[str]] = {}
    for answer in answered.answers:
        value = method_name(answer.value)
        words.setdefault(answer.lookup, []).append(recorded_value_words(value, metrics, briefly=True).rstrip("."))
    text = PLACEHOLDER.sub(lambda match: "; ".join(words[match[1]]), answered.item.sentence)
    return wording.as_sentence(text)


def method_name(value: Any) -> Any:
    """The name of a method in place of its settings, which the tables list; of several images each name once."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "method" in one for one in value):
        return [*dict.fromkeys(one["method"] for one in value)]
    # A figure has a method too, that of its interval; it is not what a figure says.
    return value["method"] if isinstance(value, Mapping) and "method" in value and not is_figure(value) else value


def _flow(answered: AnsweredItem) -> page_blocks.Figure | None:
    """The diagram, from the rows of the item alone."""
    counts = _counts(answered.answers)
    parts = {name: counts[name] for name in ("train", "val", "test") if name in counts}
    # With folds a case is in several parts.
    if not {"used", "excluded"} <= set(counts) or sum(parts.values()) > counts["used"]:
        return None
    used, excluded = counts["used"], counts["excluded"]
    names = {"train": "Training", "val": "Validation", "test": "Test"}
    steps = [
        (f"Found: {errors.count_phrase(used + excluded, 'case')}", f"Could not be used: {excluded}"),
        (f"In a part: {errors.count_phrase(used, 'case')}", ""),
    ]
    return cohort_figures.flow_of_cases(
        steps,
        [f"{names[name]}: {number}" for name, number in parts.items()],
        FLOW,
        caption="Every number is that of a row of this document; those found are the used and the excluded ones.",
    )


def _counts(answers: tuple[ItemAnswer, ...]) -> Mapping[str, int]:
    counts = {}
    for answer in answers:
        if answer.pointer == "count:distinct=case":
            counts["used"] = int(answer.value)
        elif answer.pointer.startswith("count:split="):
            counts[answer.pointer.removeprefix("count:split=").partition(";")[0]] = int(answer.value)
        elif answer.pointer == "/excluded_cases":
            counts["excluded"] = int(answer.value)
    return counts


# The namespace and the root element of a list that has elements.
ROOTS: Mapping[str, tuple[str, str]] = {"chai": ("https://mc.chai.org/v0.2/schema.xsd", "AppliedModelCard")}


def card_xml(document: Document, metrics: Metrics) -> str:
    """The XML; an optional element that is missing is left out, a required one says that it is not stated."""
    namespace, name = ROOTS[document.guideline.name]
    root = Element(name, xmlns=namespace)
    for one in document.answered:
        *path, last = one.item.element.removesuffix("?").split("/")
        if one.state == "missing" and one.item.element.endswith("?"):
            continue
        parent = root
        for step in path:
            found = parent.find(step)
            parent = SubElement(parent, step) if found is None else found
        if last == "Results":
            _add_results(SubElement(parent, last), one)
            continue
        texts = [answer_text(answer, metrics) for answer in _known_answers(one)]
        if texts and one.state == "missing":
            texts.append("The rest is not stated.")
        if last == "Keyword":
            texts = [str(answer.value) for answer in _known_answers(one)]
        for text in texts if last == "Keyword" else [" ".join(texts) or "Not stated."]:
            SubElement(parent, last).text = errors.printable_text(text)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _known_answers(answered: AnsweredItem) -> Sequence[ItemAnswer]:
    return [one for one in answered.answers if one.state not in ("missing", "not applicable")]


def _add_results(parent: Element, answered: AnsweredItem) -> None:
    """A result for each answer; the schema asks for one at least."""
    results: list[tuple[str, Any]] = [(_label(one), one.value) for one in _known_answers(answered)]
    for label, value in results or [("Not stated", None)]:
        result = SubElement(parent, "MetricResult")
        SubElement(result, "Label").text = errors.printable_text(label)
        SubElement(result, "ValueJson").text = json.dumps(value, ensure_ascii=False)


def _label(answer: ItemAnswer) -> str:
    """ "auroc, PNEUMONIA"; of a row of another table its group, or its place."""
    if is_figure(answer.value):
        return ", ".join(str(answer.value[key]) for key in ("metric", "label"))
    if isinstance(answer.value, Mapping) and "group" in answer.value:
        return f"{answer.value.get('attribute', 'group')}: {answer.value['group']}"
    return answer.pointer
