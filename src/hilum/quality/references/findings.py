"""Findings: several names for each case, each present or absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hilum.quality.references import classes
from hilum.report import Figure
from hilum.report.figures import cohort_figures
from hilum.values import (
    Case,
    Cohort,
    Fingerprint,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
)
from hilum.values.reference_kind import ReferenceStrata

KIND = "findings"


def _answers(summary: Any) -> Mapping[str, str]:
    return {name: str(bool(present)) for name, present in summary.items()}


def _record(summary: Any) -> dict[str, bool]:
    return {name: bool(present) for name, present in summary.items()}


def _count(fingerprint: Fingerprint) -> Mapping[str, Sequence[int]]:
    """{finding: (cases that have it, cases that lack it)}"""
    return {name: list(counts) for name, counts in fingerprint.findings.items()}


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    """Findings that all cases that train have, or none."""
    findings = cohort.training.findings
    for name in [label.name for label in cohort.dataset.classes.get(KIND, ())] or list(findings):
        present, absent = findings.get(name, (0, 0))
        if not (present and absent):
            yield Problem.warning(
                f"finding {name}: {present} of the cases that train have it and {absent} do not",
                (),
                "it cannot be learnt, and the plan leaves it out",
                "Add cases with and without it, or leave out its column",
            )


def _strata(cases: Sequence[Case]) -> Mapping[str, Sequence[str]]:
    findings_of = {case.id: case.references[KIND] for case in cases if KIND in case.references}
    return {case: [str(name) for name, present in own.items() if present] for case, own in findings_of.items()}


def _lines(cohort: Cohort) -> Mapping[str, str]:
    findings = cohort.fingerprint.findings
    declared = [label.name for label in cohort.dataset.classes.get(KIND, ()) if label.name in findings]
    counts = {name: findings[name] for name in declared or findings}
    text = ", ".join(f"{name} {present} of {present + absent}" for name, (present, absent) in counts.items())
    return {"findings": text} if findings else {}


def _charts(cohort: Cohort) -> Iterator[Figure]:
    findings = cohort.summaries(KIND).items()
    present = {case: [name for name, there in known.items() if there] for case, known in findings}
    if counts := classes.split_balance(cohort, present):
        yield cohort_figures.class_balance(counts, "Findings", caption="Cases that have each; a case can have several.")


FINDINGS = ReferenceKind(
    KIND,
    ReferenceFacts(answers=_answers, recorded=_record, counted=_count),
    ReferenceChecks(cohort=_cohort_problems),
    ReferenceStrata(_strata),
    ReferenceWords("findings", "finding {name} can be told", _lines, _charts),
)
