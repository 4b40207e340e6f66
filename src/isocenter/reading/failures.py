"""Cases that a verb could do nothing with: which, as rows of its record, and as an error where all failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from isocenter.errors import DatasetError
from isocenter.values import Problem


def failures_among(problems: Iterable[Problem]) -> list[Problem]:
    """The errors, each of which stands for a case without a result."""
    return [problem for problem in problems if problem.severity == "error"]


def failed_rows(failures: Sequence[Problem]) -> list[dict[str, Any]]:
    """`failed` of a verb's `--json`: case, problem and remedy of each."""
    return [{"case": next(iter(one.cases), None), "problem": one.what, "remedy": one.remedy} for one in failures]


def no_result(verb: str, done: str, problems: Iterable[Problem]) -> DatasetError:
    """The error of a verb all of whose cases failed, with what was wrong with the first; done: as "predicted"."""
    first = next(iter(failures_among(problems)), Problem("error", "there is no case", remedy="Give images"))
    return DatasetError(f"no case could be {done}; the first: {first.what}", verb, first.remedy)
