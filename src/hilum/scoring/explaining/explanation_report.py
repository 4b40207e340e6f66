"""The page of explanations: verdicts of the methods first, then what the cohort looks at, then each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from hilum import errors
from hilum.explanation.faithfulness import FEWEST
from hilum.report import Block, Details, Paragraph, ReportPage, Section, Table, page_blocks, wording
from hilum.report.page_blocks import Gallery, Link
from hilum.scoring.explaining.cohort_explanation import CaseExplanation
from hilum.scoring.explaining.kept_tests import Records
from hilum.values.explanation_records import PlaceFinding, TestedFigure
from hilum.values.plain_values import PlainValue

MOST_CASES = 20
# Of findings, after Holm. Two methods of four agree on a place in none of 10 networks that see no mark, and in 40 of 40
# that see one; a single method may favour a place by how it samples (bench/findings/explanations.md).
LEVEL, AGREEING = 0.05, 2
NOTHING = "No map favours borders, corners, burned-in letters or places of one answer more than chance would."
PLACES = {"border": "borders in maps", "corner": "corners in maps", "text": "burned-in letters in maps"}
VERDICTS = {True: "passed", False: "failed", None: "not judged"}
MEASURED = {
    "randomisation": "Like maps of randomised weights",
    "deletion": "Deletion",
    "insertion": "Insertion",
    "stability": "Stability",
    "infidelity": "Infidelity",
    "sensitivity": "Sensitivity",
    "pointing": "Peak inside",
    "energy": "Evidence inside",
    "area": "Area marked",
}


def explanation_page(
    explained_cases: Sequence[CaseExplanation],
    records: Records,
    refused: Mapping[str, str],
    findings: Sequence[PlaceFinding],
    facts: Mapping[str, PlainValue],
    more: Sequence[Section] = (),
) -> str:
    """HTML of the cases; records: {method: what its tests found}; more: sections about all of them"""
    table, record = Link("explanations.csv", "explanations.csv"), Link("explanations.json", "explanations.json")
    sections = [Section("Can these maps be believed?", method_blocks(records, refused), [record])]
    sections += [Section("What all maps look at", findings_blocks(findings), [record])] if findings else []
    sections += more
    cases: list[Block] = [block for one in explained_cases[:MOST_CASES] for block in _case_blocks(one)]
    if len(explained_cases) > MOST_CASES:
        cases.append(Paragraph(f"{len(explained_cases) - MOST_CASES} more have their files only."))
    sections.append(Section("Cases", cases, [table]))
    lead = f"{errors.count_phrase(len(explained_cases), 'case')}: what the model's answers rest on."
    verdict = f"{verdict_sentence(records)} {findings_sentence([one for one in findings if one['kind'] in PLACES])}"
    return page_blocks.render_page(ReportPage("Explanations", [], sections, facts, lead=lead, verdict=verdict.strip()))


def _case_blocks(explained_case: CaseExplanation) -> list[Block]:
    """The pictures of a case; those of single images and of disagreement are folded."""
    blocks: list[Block] = [
        Paragraph(explained_case.case),
        Gallery(explained_case.figures, small=len(explained_case.figures) > 2),
    ]
    if explained_case.details:
        blocks.append(Details("Each image, and where members disagree", [Gallery(explained_case.details, small=True)]))
    return blocks


def verdict_sentence(records: Records) -> str:
    """A sentence on the methods that passed."""
    judged = {name: bool(one["passed"]) for name, one in records.items() if one.get("passed") is not None}
    if not judged:
        return (
            f"A verdict on a method takes tests on {FEWEST} cases of this model, and no method has so many: whether "
            "these maps can be believed is not known."
        )
    passed = [name for name, fine in judged.items() if fine]
    if not passed:
        methods = errors.count_phrase(len(judged), "method")
        return f"None of {methods} passed its tests on this model: its maps cannot be believed."
    return f"{errors.list_phrase(passed)} passed {'its' if len(passed) == 1 else 'their'} tests on this model."


def method_blocks(records: Records, refused: Mapping[str, str]) -> list[Block]:
    """A table of the verdicts, the figures behind them, and why other methods cannot be."""
    blocks: list[Block] = []
    if records:
        rows = [[name, VERDICTS[one.get("passed")], one.get("because", "")] for name, one in records.items()]
        blocks.append(Table(["Method", "Tests", "Because"], rows))
        shown = [name for name in MEASURED if any(name in one for one in records.values())]
        figures = [
            [name, *(_cell(cast("TestedFigure | None", one.get(measure))) for measure in shown)]
            for name, one in records.items()
        ]
        blocks.append(
            Details("Figures of the tests", [Table(["Method", *(MEASURED[name] for name in shown)], figures)])
        )
    if refused:
        table = Table(["Method", "Reason"], [list(one) for one in refused.items()])
        blocks.append(Details("Methods that cannot explain this model", [table]))
    return blocks or [Paragraph("No method was tested.")]


def findings_blocks(findings: Sequence[PlaceFinding]) -> list[Block]:
    """The table of where the cohort's evidence lies, against the share of the image; folded if nothing stands out."""
    sentence, table = findings_sentence(findings), findings_table(findings)
    return [Paragraph(sentence), table] if sentence else [Paragraph(NOTHING), Details("What was looked for", [table])]


def findings_sentence(findings: Sequence[PlaceFinding]) -> str:
    """Sentences on places with more evidence than by chance: where methods agree, then where one stands alone."""
    methods = list(dict.fromkeys(str(one["method"]) for one in findings))
    methods_at: dict[str, list[str]] = {}
    for finding in findings:
        if finding["p"] < LEVEL:
            methods_at.setdefault(place_words(finding), []).append(str(finding["method"]))
    fewest = min(AGREEING, len(methods))
    agreed = [f"{place} ({errors.list_phrase(by)})" for place, by in methods_at.items() if len(by) >= fewest]
    single = [f"{place} ({errors.list_phrase(by)})" for place, by in methods_at.items() if len(by) < fewest]
    sentences = [f"Maps hold more evidence than chance would put there: {'; '.join(agreed)}."] if agreed else []
    if single:
        sentences.append(
            f"By one of {len(methods)} methods only, which may be how that method samples: {'; '.join(single)}."
        )
    return " ".join(sentences)


def place_words(finding: PlaceFinding) -> str:
    """The place of a finding, and the answer whose maps lie there, for people."""
    kind, target = str(finding["kind"]), str(finding["target"])
    return f"{PLACES[kind]} of {target}" if kind in PLACES else f"places that maps of {target} share"


def findings_table(findings: Sequence[PlaceFinding]) -> Table:
    """A row a kind of place and method."""
    rows = [
        [
            place_words(one),
            f"{one['method']}",
            wording.share_text(one["share"]),
            wording.share_text(one["area"]),
            wording.p_text(one["p"]),
            one["cases"],
        ]
        for one in findings
    ]
    columns = ["Place", "Method", "Share of evidence", "Share of area", "p after Holm", "Cases"]
    return Table(columns, rows)


def _cell(measured: TestedFigure | None) -> str:
    if not measured or measured.get("value") is None:
        return ""
    ends = [measured.get("low"), measured.get("high")]
    interval = "" if None in ends else f" ({ends[0]:.2f} to {ends[1]:.2f})"
    return f"{measured['value']:.2f}{interval}"
