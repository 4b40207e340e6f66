"""Lines of advice: which holds for an answer, and which are refused before any."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hilum.errors import UsageError
from hilum.values import Finding, advice_lines
from hilum.values.advice_lines import AdviceLine, AdviceWords, AdvisedAnswer
from hilum.values.finding import CHANGE

SCALE = ("none", "mild", "moderate", "severe")
LINES = tuple(
    AdviceLine(when=when, say=say)
    for when, say in [
        ("abstained", "repeat the image"),
        ("grade >= moderate", "refer"),
        ("called nodule and nodule >= 2 ml", "CT within 4 weeks"),
        ("nodule long axis > 8 mm", "CT within 3 months"),
        ("change nodule >= 20 %", "biopsy"),
        ("probability effusion >= 0.8", "puncture"),
        ("set includes effusion", "ultrasound"),
        ("", "rescreen in 12 months"),
    ]
)
WORDS = AdviceWords(SCALE, (*SCALE, "effusion"), {"nodule": "ml", "long axis": "mm", "count": ""}, compares=True)


def said(*findings: Finding, is_abstained: bool = False) -> str | None:
    line = advice_lines.choose_line(LINES, AdvisedAnswer(findings, SCALE, is_abstained))
    return None if line is None else line.say


def of_nodule(ml: float, *further: Finding, unit: str = "ml") -> tuple[Finding, ...]:
    return Finding("nodule", ml, unit, group="nodule", label=1), *further


def grade(name: str) -> Finding:
    return Finding(name, probability=0.6, group="grade", called=True, possible=(name,))


def test_the_first_line_that_holds_is_said_of_each_kind_of_condition():
    assert said(*of_nodule(0.0), grade("severe")) == "refer"
    assert said(*of_nodule(0.0), grade("mild")) == "rescreen in 12 months"
    assert said(*of_nodule(2.0), grade("mild")) == "CT within 4 weeks"
    axis = Finding("long axis", 9.0, "mm", group="nodule", label=1)
    assert said(*of_nodule(1.0, axis)) == "CT within 3 months"
    narrow = Finding("long axis", 5.0, "mm", group="nodule", label=1)
    assert said(*of_nodule(1.0, narrow, Finding(CHANGE, 25.0, "%", group="nodule"))) == "biopsy"
    assert said(*of_nodule(1.0, narrow, Finding(CHANGE, 25.0, "%", group="liver"))) == "rescreen in 12 months"
    assert said(*of_nodule(0.0), Finding("effusion", False, probability=0.8)) == "puncture"
    open_set = Finding("effusion", False, probability=0.2, possible=("present", "absent"))
    assert said(*of_nodule(0.0), open_set) == "ultrasound"


def test_a_case_without_an_answer_gets_the_line_about_that_and_never_the_last():
    assert said(is_abstained=True) == "repeat the image"
    assert advice_lines.choose_line(LINES[1:], AdvisedAnswer((), SCALE, is_abstained=True)) is None


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        (of_nodule(3.0, unit="voxels"), "asks for ml, and the answer is in voxels"),
        ((), "states no number 'nodule long axis'"),
    ],
)
def test_an_answer_without_the_number_or_in_another_unit_gets_no_line_that_is_less_urgent(findings, words):
    with pytest.raises(UsageError, match=words):
        said(*findings)


@pytest.mark.parametrize("when", ["grade", "nodule 2 ml", "change nodule <= -20", "nodule >= two ml", "called "])
def test_what_is_no_condition_is_refused_with_the_forms_that_there_are(when):
    with pytest.raises(ValidationError, match="is no condition: write grade >= WORD"):
        AdviceLine(when=when, say="x")


def test_a_name_with_and_in_it_stands_in_quotes():
    [first, second] = AdviceLine(when='"cup and disc" >= 0.6 and called glaucoma', say="x").comparisons
    assert (first.name, first.limit, second.name) == ("cup and disc", 0.6, "glaucoma")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([("grade >= modrate", "refer")], "states no grade 'modrate'. Name one of none, mild, moderate, severe"),
        ([("nodule >= 2 mm", "CT")], "the model states nodule in ml. Write it in ml"),
        ([("called polyp", "CT")], "states no called 'polyp'"),
        ([("change nodule <= -20 %", "CT")], "states no change 'nodule'. Leave the line out"),
        ([("abstained", "a"), ("grade >= mild", "b")], "no line covers an answer for which none holds: abstained"),
        ([("", "rescreen")], "no line covers a case from which the model abstains"),
        ([("abstained", "again"), ("", "rescreen"), ("grade >= mild", "refer")], "'refer' is never said"),
    ],
)  # fmt: skip
def test_lines_that_never_hold_and_answers_that_none_covers_are_refused(lines, words):
    given = [AdviceLine(when=when, say=say) for when, say in lines]
    with pytest.raises(UsageError, match=words):
        advice_lines.refuse_lines(given, AdviceWords(WORDS.grades, WORDS.findings, WORDS.units), "node.toml")


def test_lines_that_fit_are_taken_and_what_is_said_is_a_called_answer_with_its_code():
    advice_lines.refuse_lines(LINES, WORDS, "node.toml")
    line = AdviceLine.model_validate(
        {"say": "refer", "code": {"scheme": "SCT", "value": "3457005", "meaning": "Patient referral"}}
    )
    finding = advice_lines.advice_finding(line)
    assert (finding.concept, finding.group, finding.called, finding.code.value) == ("refer", "advice", True, "3457005")
