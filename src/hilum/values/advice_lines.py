"""Lines of advice on an answer: of lines with conditions on what the model states, the first that holds is said.

A condition is comparisons joined by `and`: `grade >= WORD`, `called NAME`, `probability NAME >= 0.8`, `NAME >= 2 ml`,
`change NAME <= -20 %`, `set includes NAME`, `abstained`. A name with `and` in it stands in double quotes.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from hilum import errors
from hilum.errors import UsageError
from hilum.values.finding import CHANGE, Finding
from hilum.values.voxel_images import Code

ADVICE = "advice"
SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip
_SIGN, _NUMBER, _NAME = r"(?P<sign>>=|<=|>|<|=)", r"(?P<number>[-+]?\d+(?:\.\d+)?)", r"\"?(?P<name>[^\"<>=]+?)\"?"
KINDS = {
    "abstained": re.compile("abstained"),
    "called": re.compile(rf"called {_NAME}"),
    "set": re.compile(rf"set includes {_NAME}"),
    "grade": re.compile(rf"grade ?{_SIGN} ?(?P<word>.+)"),
    "probability": re.compile(rf"probability {_NAME} ?{_SIGN} ?{_NUMBER}"),
    "change": re.compile(rf"change {_NAME} ?{_SIGN} ?{_NUMBER} ?%"),
    "value": re.compile(
        rf"(?!(?:called|set|grade|probability|change)\b){_NAME} ?{_SIGN} ?{_NUMBER}(?: ?(?P<unit>\S+))?"
    ),
}
_AND = re.compile(r" and (?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)")
MOVE, COVER = "Move it to the end", 'Add { when = "abstained", say = "..." } and, as the last line, { say = "..." }'
FORMS = "grade >= WORD, called NAME, probability NAME >= 0.8, NAME >= 2 ml, change NAME <= -20 %, set includes NAME"


@dataclass(frozen=True)
class AdviceWords:
    """What a model states, by which conditions are checked before it answers anything.

    grades:   its classes in order, where they have one
    findings: what it calls or states with a probability
    units:    {what it states as a number: its unit; "" where that is not known before}
    compares: whether answers are compared with an earlier study
    """

    grades: Sequence[str] = ()
    findings: Sequence[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    compares: bool = False


@dataclass(frozen=True)
class AdvisedAnswer:
    """What conditions are applied to: the findings of an answer, or that there is none."""

    findings: Sequence[Finding]
    grades: Sequence[str] = ()
    is_abstained: bool = False


@dataclass(frozen=True)
class AdviceComparison:
    """One comparison of a condition, as `KINDS` has it. text: as it is written"""

    kind: str
    text: str
    name: str = ""
    sign: str = ""
    limit: float = 0.0
    unit: str = ""
    word: str = ""

    @classmethod
    def from_text(cls, text: str) -> AdviceComparison:
        """Raises ValueError for what is no comparison."""
        for kind, pattern in KINDS.items():
            if (match := pattern.fullmatch(text)) is not None:
                parts = {key: value.strip() for key, value in match.groupdict().items() if value is not None}
                limit = float(parts.pop("number", 0))
                return cls(kind, text, limit=limit, **parts)
        raise ValueError(f"{text!r} is no condition: write {FORMS} or abstained, joined by `and`")

    def holds(self, answer: AdvisedAnswer) -> bool:
        """Whether it holds. Raises UsageError where the answer states no such number, or in another unit."""
        if answer.is_abstained or self.kind == "abstained":
            return answer.is_abstained and self.kind == "abstained"
        named = [one for one in answer.findings if self.name in (one.concept, f"{one.group} {one.concept}")]
        numbers, limit = list[float](), self.limit
        match self.kind:
            case "called":
                return any(map(_is_called, named))
            case "set":  # of a class all that are not ruled out, of a finding whether it is there
                sets = [(one.possible, one in named) for one in answer.findings if one.possible]
                return any(self.name in one or (is_named and "present" in one) for one, is_named in sets)
            case "grade":
                limit = answer.grades.index(self.word)
                called = [one.concept for one in answer.findings if one.called]
                numbers = [answer.grades.index(one) for one in called if one in answer.grades]
            case "probability":
                numbers = [one.probability for one in named if one.probability is not None]
            case "change":
                changes = [one for one in answer.findings if (one.concept, one.group) == (CHANGE, self.name)]
                numbers = [one.value for one in changes if _is_number(one)]
            case _:
                numbers = self._numbers(named, answer)
        return any(SIGNS[self.sign](one, limit) for one in numbers)

    def _numbers(self, named: Sequence[Finding], answer: AdvisedAnswer) -> list[float]:
        """The numbers that are compared; none of a structure that is not there. Raises as `holds`."""
        numbers = [one for one in named if _is_number(one)]
        if odd := next((one for one in numbers if _plain(one.unit) != _plain(self.unit)), None):
            problem = f"{self.text!r} asks for {self.unit or 'no unit'}, and the answer is in {odd.unit or 'none'}"
            raise UsageError(problem, ADVICE, "Give the unit of the answer")
        is_empty = any(one.value == 0 and self.name.startswith(f"{one.concept} ") for one in answer.findings)
        if not numbers and not is_empty:
            raise UsageError(f"{self.text!r}: the answer states no number {self.name!r}", ADVICE, "See its problems")
        return [one.value for one in numbers]

    def refuse_unstated(self, words: AdviceWords, where: str) -> None:
        """Raise UsageError where a model with these words never states what is compared, or in another unit."""
        stated: Mapping[str, Sequence[str]] = {
            "called": [*words.findings, *words.units],
            "set": words.findings,
            "probability": words.findings,
            "value": [*words.units],
            "change": [*words.units] if words.compares else [],
            "grade": words.grades,
        }
        if self.kind not in stated:
            return
        names, asked = stated[self.kind], self.word or self.name
        fits = [one for one in names if asked == one or (self.kind == "value" and asked.endswith(f" {one}"))]
        if not fits:
            what = f"{self.text!r} holds for no answer of the model: it states no {self.kind} {asked!r}"
            remedy = f"Name one of {errors.list_phrase(names)}" if names else "Leave the line out"
            raise UsageError(what, where, remedy)
        unit = words.units.get(fits[0], "")
        if self.kind == "value" and unit and _plain(unit) != _plain(self.unit):
            raise UsageError(f"{self.text!r}: the model states {asked} in {unit}", where, f"Write it in {unit}")


class AdviceLine(BaseModel):
    """One line: what is said where its condition holds; without a condition it holds for every answer.

    code: of what is said, in DICOM's words
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    say: str
    when: str = ""
    code: Code | None = None

    @field_validator("when")
    @classmethod
    def _understood(cls, when: str) -> str:
        split_condition(when)
        return when

    @cached_property
    def comparisons(self) -> tuple[AdviceComparison, ...]:
        """Those that `and` joins; none of a line for every answer."""
        return split_condition(self.when)

    def holds(self, answer: AdvisedAnswer) -> bool:
        """Whether it holds; without a condition never of a case that has no answer. Raises as `AdviceComparison`."""
        return all(one.holds(answer) for one in self.comparisons) and bool(self.comparisons or not answer.is_abstained)


def split_condition(when: str) -> tuple[AdviceComparison, ...]:
    """The comparisons of a condition. Raises ValueError for what is none."""
    return tuple(AdviceComparison.from_text(text.strip()) for text in _AND.split(when) if when)


def refuse_lines(lines: Sequence[AdviceLine], words: AdviceWords, where: str) -> None:
    """Raise UsageError for a condition that no answer meets, lines after the last, and answers that no line covers."""
    if not lines:
        return
    for comparison in (one for line in lines for one in line.comparisons):
        comparison.refuse_unstated(words, where)
    last = next((place for place, line in enumerate(lines) if not line.when), None)
    if last is not None and last < len(lines) - 1:
        raise UsageError(f"{lines[last + 1].say!r} is never said: a line without `when` is before it", where, MOVE)
    gaps = [] if last is not None else [f"an answer for which none holds: {', '.join(one.when for one in lines)}"]
    if not any([one.kind for one in line.comparisons] == ["abstained"] for line in lines):
        gaps.append("a case from which the model abstains")
    if gaps:
        raise UsageError(f"no line covers {', nor '.join(gaps)}", where, COVER)


def choose_line(lines: Sequence[AdviceLine], answer: AdvisedAnswer) -> AdviceLine | None:
    """The first line that holds; None where none does. Raises as `AdviceComparison`."""
    return next((line for line in lines if line.holds(answer)), None)


def advice_finding(line: AdviceLine) -> Finding:
    """What is said, as reports state it: the called one of what may be advised."""
    return Finding(line.say, codes=() if line.code is None else (line.code,), group=ADVICE, called=True)


def _is_called(finding: Finding) -> bool:
    if finding.called is not None:
        return finding.called
    return finding.box is not None or finding.value is True or (_is_number(finding) and finding.value > 0)


def _is_number(finding: Finding) -> bool:
    value = finding.value
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(unit: str) -> str:
    """A unit as people write it, in one way; UCUM's of a plain number is none."""
    return unit.casefold().replace("²", "2").replace("³", "3").removeprefix("1")
