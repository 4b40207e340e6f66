"""Results of a verb: its folder, refused before work begins and whole or absent at its end, and its failed cases."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hilum.errors import DatasetError, UsageError
from hilum.files.storage import atomic, file_lock
from hilum.lazy import pandas as pd
from hilum.values import ANSWERED, Problem
from hilum.values.case_outcome import ABSTAINED, CaseOutcome
from hilum.values.record_schema import FailedCase


def refuse_missing(path: Path) -> None:
    """UsageError where there is nothing to work on."""
    if not path.exists():
        raise UsageError("there is no such file or folder", str(path), "Check the path")


def refuse_taken(out: Path, overwrite: bool, marks: tuple[str, ...] = ()) -> None:
    """UsageError where `out` cannot become what the verb writes.

    marks: files that an older folder of ours holds; another folder is never replaced, whatever was asked for
    """
    if out.exists() and not overwrite:
        raise UsageError("exists already", str(out), "Choose another --out, or give --overwrite")
    if out.exists() and out.is_dir() != bool(marks):
        kind = "folder" if out.is_dir() else "file"
        raise UsageError(f"is a {kind}, so it is not overwritten", str(out), "Choose another --out")
    if out.is_dir() and any(out.iterdir()) and not all((out / mark).is_file() for mark in marks):
        raise UsageError(f"holds no {marks[0]}, so it is not overwritten", str(out), "Choose another --out")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"cannot be written: {above} is not a folder to write into", str(out), "Choose another --out")


@contextmanager
def result_folder(out: Path, overwrite: bool, marks: tuple[str, ...]) -> Iterator[Path]:
    """An empty folder to write into, which becomes `out` when all went well; no other process writes it meanwhile."""
    refuse_taken(out, overwrite, marks)
    with file_lock.hold_lock(out), atomic.write_whole(out, overwrite=overwrite) as partial:
        partial.mkdir()
        with atomic.name_errors_after(out, partial):
            yield partial


def failures_among(problems: Iterable[Problem]) -> list[Problem]:
    """The errors, each of which stands for a case without a result."""
    return [problem for problem in problems if problem.severity == "error"]


def case_outcomes(table: pd.DataFrame, problems: Iterable[Problem]) -> list[CaseOutcome]:
    """The outcome of each case: of those with rows by `abstained`, then of those without because of an error."""
    reasons = table.drop_duplicates("case").set_index("case").get("abstained", pd.Series(dtype=str)).fillna("")
    cases = [str(case) for case in table["case"].drop_duplicates()]
    by_case = {str(case): str(reason) for case, reason in reasons.items() if reason}
    outcomes = [CaseOutcome(one, ABSTAINED if one in by_case else ANSWERED, by_case.get(one, "")) for one in cases]
    for one in failures_among(problems):
        named, _, reason = one.what.partition(": ")
        if not {*one.cases} & {*cases}:  # else of something further about a case that has a result
            outcomes.append(CaseOutcome(next(iter(one.cases), named), one.outcome, reason or one.what))
    return outcomes


def failed_rows(failures: Sequence[Problem]) -> list[FailedCase]:
    """`failed` of a verb's `--json`: case, problem and remedy of each."""
    return [FailedCase(case=next(iter(one.cases), None), problem=one.what, remedy=one.remedy) for one in failures]


def no_result_error(verb: str, done: str, problems: Iterable[Problem]) -> DatasetError:
    """The error of a verb all of whose cases failed, with what was wrong with the first; done: as "predicted"."""
    first = next(iter(failures_among(problems)), Problem.error("there is no case", remedy="Give images"))
    return DatasetError(f"no case could be {done}; the first: {first.what}", verb, first.remedy)
