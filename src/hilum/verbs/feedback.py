"""`feedback`: what people said of a node's results, as a data set to check and train with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.lazy import pandas as pd
from hilum.options.node import FeedbackOptions
from hilum.reading import verb_results
from hilum.report import InNotebook
from hilum.service.reading import feedback_dataset
from hilum.service.records import record_database
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.verbs import serve

MARKS = ("dataset.csv", "verdicts.csv")


class FeedbackRecord(RecordHead):
    """Cases that were written, verdicts by kind, and studies that were left out, with the reason."""

    cases: int
    verdicts: dict[str, int]
    left_out: dict[str, str]
    out: str


FEEDBACK_SCHEMA = RecordSchema("hilum.feedback", FeedbackRecord)


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

    def as_record(self) -> FeedbackRecord:
        """The record for `--json`."""
        counts = {str(name): int(n) for name, n in self.table["verdict"].value_counts().items()}
        return FEEDBACK_SCHEMA.record_of(self, verdicts=counts)

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{n} {name}" for name, n in self.as_record()["verdicts"].items())
        results = errors.count_phrase(len(self.table), "judged result")
        return f"{self.out}: {errors.count_phrase(self.cases, 'case')} of {results} ({verdicts})"


@keywords.takes(FeedbackOptions)
def feedback(options: FeedbackOptions) -> Feedback:
    """Write the results that people accepted or corrected on a node's page as a data set.

    rule:  whose results, or the product's that sent them; needed where people judged several
    Of each result the last verdict counts. Images and masks hold no patient's header; patients are pseudonyms.
    Raises UsageError for a folder that is no node's, and DatasetError where nothing can be used.
    """
    serve.refuse_missing_extra("feedback")
    node, target = Path(options.node), Path(options.out)
    verb_results.refuse_taken(target, options.overwrite, MARKS)
    at = None if options.since is None else _seconds(options.since)
    with closing(record_database.node_database(node)) as database:
        judged = feedback_dataset.opinions_of_one_source(
            feedback_dataset.last_opinions(database, node, at), options.rule, str(node)
        )
        with verb_results.result_folder(target, options.overwrite, MARKS) as partial:
            written = feedback_dataset.write_data_set(judged, database, node, partial)
            table = pd.read_csv(partial / "verdicts.csv", keep_default_na=False)
    return Feedback(table, written.cases, written.left_out, target)


def _seconds(day: str) -> float:
    try:
        return datetime.strptime(day, "%Y-%m-%d").astimezone().timestamp()
    except ValueError as error:
        raise UsageError(f"{day!r} is no day", "--since", "Write it as 2026-03-01") from error
