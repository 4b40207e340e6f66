"""Warnings that a person accepts of one version of a case: they come back when its image or reference changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from hilum.files.storage import hashing
from hilum.layouts.dataset_table import AT
from hilum.quality.image_descriptors import ImageLook
from hilum.values import Case, CaseFacts, Cohort, Problem, grouping

# Hexadecimal digits of the version of a case.
DIGITS = 8


def apply_acceptances(problems: Sequence[Problem], cohort: Cohort, looks: Mapping[str, ImageLook]) -> Iterator[Problem]:
    """The problems, each acceptable warning with what accepts it; it is a note for the cases where it is accepted."""
    cases = {case.id: case for case in cohort.dataset}
    facts = {case.id: case for case in cohort.fingerprint.cases}
    versions = dict[str, str]()
    for problem in problems:
        named = [case for case in problem.cases if case in facts and case in looks]
        if problem.severity != "warning" or not problem.kind or len(named) < len(problem.cases):
            yield problem
            continue
        for case in named:
            if case not in versions:
                versions[case] = _case_version(cases[case], facts[case], looks[case])
        standings = grouping.by_key((_standing(problem, cases[case], versions[case]), case) for case in named)
        for (severity, stated), alike in standings.items():
            accepts = tuple(f"{problem.kind}{AT}{versions[case]}" for case in alike)
            what = f"{problem.what.rstrip('.')}{stated}"
            yield replace(problem, severity=severity, what=what, cases=tuple(alike), accepts=accepts)


def _standing(problem: Problem, case: Case, version: str) -> tuple[Literal["warning", "note"], str]:
    """The severity of a warning for one case, and what is said of its acceptance."""
    if f"{problem.kind}{AT}{version}" in case.accepted:
        return "note", " (a person accepts it)"
    is_of_other_version = any(text.partition(AT)[0] == problem.kind for text in case.accepted)
    return "warning", " (accepted for another version of image or reference)" if is_of_other_version else ""


def _case_version(case: Case, facts: CaseFacts, look: ImageLook) -> str:
    """Digits that change with the voxels of the image, the files of the case and what is stated of it."""
    total = hashlib.sha256(look.digest.encode())
    for file in sorted(hashing.file_hash(path) for path in case.files if path.is_file()):
        total.update(file.encode())
    for name, summary in sorted(facts.references.items()):
        if isinstance(summary, str | int | float | tuple | Mapping):
            total.update(f"{name} {summary}".encode())
    return total.hexdigest()[:DIGITS]
