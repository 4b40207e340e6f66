"""Case after case: what is made of each, and which of them failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from isocenter.errors import IsocenterError, UsageError
from isocenter.values import Case, Problem
from isocenter.verbs.evaluation import Audited
from isocenter.verbs.reading import tracked

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Looked:
    """What a further look at the cases came to.

    problems: errors are cases that it lacks
    files:    that were written of single cases
    """

    audited: Audited
    problems: Sequence[Problem] = ()
    files: Sequence[Path] = ()


def each_case(
    cases: Sequence[Case], made_of: Callable[[Case], T], what: str, made: list[T] | None = None
) -> tuple[list[T], list[Problem]]:
    """What is made of each case, and an error for each case that failed; the rest goes on.

    what: is done, for the bar of progress
    made: takes what is made as it comes, for whoever keeps it after Ctrl-C
    Raises UsageError, because what was asked for then suits no case.
    """
    made, failed = list[T]() if made is None else made, list[Problem]()
    with tracked(what) as tracker:
        for number, case in enumerate(cases):
            tracker(number, len(cases))
            try:
                made.append(made_of(case))
            except UsageError:
                raise
            except IsocenterError as error:
                failed.append(Problem("error", f"{case.id}: {error.problem}", (case.id,), remedy=error.remedy))
        tracker(len(cases), len(cases))
    return made, failed
