"""`feedback`: what people said of a node's results, as a data set to check and train with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from isocenter import service
from isocenter.errors import UsageError, counted
from isocenter.keywords import takes
from isocenter.lazy import pandas as pd
from isocenter.options import FeedbackOptions
from isocenter.reading import refuse_taken, result_folder
from isocenter.report import InNotebook
from isocenter.verbs.serve import need_extra

MARKS = ("dataset.csv", "verdicts.csv")


@dataclass(frozen=True, eq=False)
class Feedback(InNotebook):
    """Verdicts of people, and the data set of what they accepted or corrected.

    table:    a row a result: case, patient, verdict, reason and what else was said
    cases:    of the data set; left_out: {case: why it is not in it}
    """

    table: pd.DataFrame
    cases: int
    left_out: Mapping[str, str]
    out: Path

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        counts = {str(name): int(n) for name, n in self.table["verdict"].value_counts().items()}
        record = {"cases": self.cases, "verdicts": counts, "left_out": dict(self.left_out), "out": str(self.out)}
        return {"schema": "isocenter.feedback", "version": 1, **record}

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{n} {name}" for name, n in self.as_record()["verdicts"].items())
        return f"{self.out}: {counted(self.cases, 'case')} of {counted(len(self.table), 'judged result')} ({verdicts})"


@takes(FeedbackOptions)
def feedback(options: FeedbackOptions) -> Feedback:
    """Write the results that people accepted or corrected on a node's page as a data set.

    rule:  whose results, or the product's that sent them; needed where people judged several
    Of each result the last verdict counts. Images and masks hold no patient's header; patients are pseudonyms.
    Raises UsageError for a folder that is no node's, and DatasetError where nothing can be used.
    """
    need_extra("feedback")
    node, target = Path(options.node), Path(options.out)
    refuse_taken(target, options.overwrite, MARKS)
    at = None if options.since is None else _seconds(options.since)
    database = service.node_database(node)
    try:
        judged = service.of_one_source(service.opinions(database, node, at), options.rule, str(node))
        with result_folder(target, options.overwrite, MARKS) as partial:
            written = service.write_data_set(judged, database, node, partial)
            table = pd.read_csv(partial / "verdicts.csv", keep_default_na=False)
    finally:
        database.close()
    return Feedback(table, written.cases, written.left_out, target)


def _seconds(day: str) -> float:
    try:
        return datetime.strptime(day, "%Y-%m-%d").astimezone().timestamp()
    except ValueError as error:
        raise UsageError(f"{day!r} is no day", "--since", "Write it as 2026-03-01") from error
