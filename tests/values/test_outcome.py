"""Outcomes of cases: four words, and what is said of many."""

from __future__ import annotations

import pandas as pd
import pytest

from hilum.errors import DatasetError, FormatError, MemoryShortageError, OutputError
from hilum.reading import verb_results
from hilum.values import Problem, case_outcome
from hilum.values.case_outcome import CaseOutcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(FormatError, "refused"), (DatasetError, "refused"), (OutputError, "failed"), (MemoryShortageError, "failed")],
)
def test_an_input_is_refused_and_work_fails(error, outcome):
    assert case_outcome.error_outcome(error("it is odd", "image.png", "Look")) == outcome


def test_a_sentence_counts_every_outcome_and_says_why_there_is_no_answer():
    alike = [CaseOutcome(str(n), "abstained", "out of proportion") for n in range(26)]
    assert case_outcome.outcome_sentence(alike) == "26 images: 0 answered, 26 abstained: out of proportion"
    mixed = [
        *alike[:2],
        CaseOutcome("a", "answered"),
        *(CaseOutcome(r, "refused", r) for r in ("x", "y", "x", "z", "w")),
    ]
    words = "8 images: 1 answered, 2 abstained: out of proportion, 5 refused: x (2); y (1); z (1); 1 other reason"
    assert case_outcome.outcome_sentence(mixed) == words


def test_rows_and_errors_of_cases_are_one_outcome_each():
    table = pd.DataFrame({"case": ["a", "a", "b"], "abstained": ["", "", "too dark"]})
    problems = [
        Problem.of_case("c", OutputError("is not finite", "c.png", "Look")),
        Problem("error", "without T1 alone: is missing", ("a",)),
        Problem("warning", "odd", ("b",)),
    ]
    assert verb_results.case_outcomes(table, problems) == [
        CaseOutcome("a", "answered"),
        CaseOutcome("b", "abstained", "too dark"),
        CaseOutcome("c", "failed", "is not finite"),
    ]
    assert verb_results.case_outcomes(table[["case"]], []) == [
        CaseOutcome("a", "answered"),
        CaseOutcome("b", "answered"),
    ]
