"""Labels of a node's cases: those that came later, and what to label next or again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors, keywords
from hilum.errors import DatasetError
from hilum.evaluation import ALL
from hilum.evaluation.significance.weakness import WeakGroup
from hilum.files.storage import csv_text, hashing
from hilum.lazy import pandas as pd
from hilum.monitoring import labelling
from hilum.monitoring.change_plan import LEDGER
from hilum.options.node import ImportLabelsOptions, NextLabelsOptions
from hilum.reading import ReadingOptions, dataset_reading, verb_results
from hilum.report import InNotebook
from hilum.service import node_folder
from hilum.service.reading import feedback_dataset, imported_labels
from hilum.service.records import record_database
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.verbs import serve

NEXT, RELABEL, GROUPS = "next.csv", "relabel.csv", "label_groups.csv"
NEXT_COLUMNS = ["rank", "case", "method", "score", "because", "study"]
DOUBTED_COLUMNS = ["case", "label", "reference", "probable", "probability_reference", "probability_probable"]
CORRECTED, DOUBTED = "corrected answers", "doubted labels"
ABSENCE: Sequence[str] = ("absent", "present")
SHOWN = 5


class NextLabelsRecord(RecordHead):
    """Cases to label next, the worthiest first, how many labels may be wrong, and groups in which more are."""

    next: list[str]
    doubted: int
    findings: list[str]
    out: str


NEXT_SCHEMA = RecordSchema("hilum.next_labels", NextLabelsRecord)


@dataclass(frozen=True, eq=False)
class NextLabels(InNotebook):
    """Cases to label next, and again.

    table: `next.csv`; doubted: `relabel.csv`; groups: (corrected answers or doubted labels, group of people), tested
    """

    table: pd.DataFrame
    doubted: pd.DataFrame
    groups: Sequence[tuple[str, WeakGroup]]
    out: Path

    @property
    def findings(self) -> list[str]:
        """Groups of people in which answers are corrected, or labels doubted, more often; a sentence each."""
        return [
            f"{kind}: more often where {one.attribute} is {one.group} ({one.error:.0%} of "
            f"{errors.count_phrase(one.n, 'case')}, {one.elsewhere:.0%} elsewhere; p {one.p_adjusted:.2g} after Holm)"
            for kind, one in self.groups
            if one.is_found
        ]

    def as_record(self) -> NextLabelsRecord:
        """The record for `--json`."""
        return NEXT_SCHEMA.record_of(self, next=self.table["case"].tolist(), doubted=len(self.doubted))

    def __repr__(self) -> str:
        first = ", ".join(self.table["case"][:SHOWN])
        more = ", ..." if len(self.table) > SHOWN else ""
        lines = [f"{self.out}: {errors.count_phrase(len(self.table), 'case')} to label next ({first}{more})"]
        if len(self.doubted):
            lines += [f"{errors.count_phrase(len(self.doubted), 'label')} may be wrong: see {RELABEL}"]
        return "\n".join([*lines, *self.findings])


@keywords.takes(ImportLabelsOptions)
def import_labels(options: ImportLabelsOptions) -> imported_labels.ImportedLabels:
    """Keep labels that came later, from pathology, registries or reports, as reported outcomes of a node's results.

    table: CSV or Parquet: study, label or value, at, source
    rule:  to whose results alone they belong
    A label counts for the day of its study. Raises UsageError for a folder that is no node's, DatasetError for a table
    without these columns.
    """
    serve.refuse_missing_extra("import_labels")
    node = Path(options.node)
    with closing(record_database.node_database(node)) as database:
        models = node_folder.stored_models(node)
        return imported_labels.import_outcomes(database, models, options.table, rule=options.rule)


@keywords.takes(NextLabelsOptions)
def next_labels(options: NextLabelsOptions) -> NextLabels:
    """Choose the cases of a node to label next, and list labels that may be wrong.

    out:    folder for next.csv, relabel.csv and label_groups.csv
    Raises UsageError for a folder that is no node's, for an unknown method and for one that this model cannot serve,
    DatasetError for a locked set that does not state its patients.
    """
    serve.refuse_missing_extra("next_labels")
    node, target = Path(options.node), Path(options.out)
    verb_results.refuse_taken(target, options.overwrite, (NEXT, RELABEL))
    kept_away = frozenset() if options.locked is None else _patients(Path(options.locked))
    with closing(record_database.node_database(node)) as database:
        answered = imported_labels.answered_cases(database, node, node_folder.stored_models(node), options.rule)
    table, patients = answered.table, answered.table["patient"].tolist()
    chosen = labelling.next_cases(
        options.count,
        options.method,
        answered.is_labelled,
        is_open=[patient not in kept_away for patient in patients],
        uncertainty=answered.uncertainty,
        features=answered.features,
        seed=options.seed,
    )
    names = [feedback_dataset.case_name(job) for job in table["case"]]
    rows = [
        [rank, names[one.case], options.method, one.score, one.because, table["study"].iloc[one.case]]
        for rank, one in enumerate(chosen, 1)
    ]
    doubted = pd.DataFrame(list(_doubted_rows(answered)), columns=["place", *DOUBTED_COLUMNS])
    places, asked = set(doubted["place"]), _asked_again(answered)
    flags = {CORRECTED: answered.corrected, DOUBTED: {place: place in places for place in asked}}
    groups = labelling.groups_with_worse_labels(flags, patients, answered.attributes, seed=options.seed)
    made = NextLabels(pd.DataFrame(rows, columns=NEXT_COLUMNS), doubted[DOUBTED_COLUMNS], groups, target)
    with verb_results.result_folder(target, options.overwrite, (NEXT, RELABEL)) as partial:
        csv_text.write_table(made.table, partial / NEXT)
        csv_text.write_table(made.doubted, partial / RELABEL)
        columns = ["labels", *WeakGroup.__dataclass_fields__]
        stated = [{"labels": kind, **asdict(one)} for kind, one in groups]
        csv_text.write_table(pd.DataFrame(stated, columns=columns), partial / GROUPS)
    return made


def _patients(locked: Path) -> frozenset[str]:
    """Pseudonyms of the patients of a locked test set. locked: the set, or its ledger"""
    data = locked.with_name(locked.name.removesuffix(LEDGER))
    dataset = dataset_reading.open_dataset(data, ReadingOptions(), references=False)
    if not dataset.patients_known:
        raise DatasetError("does not state its patients", str(data), "Give a set with a column `patient`")
    named = {case.patient for case in dataset if case.patient is not None}
    # A table may hold the number itself, of which the node has the pseudonym.
    return frozenset(named | {hashing.pseudonym_of_number(patient) for patient in named})


def _asked_again(answered: imported_labels.AnsweredCases) -> list[int]:
    """Places of the cases with a label and a probability."""
    has_both = np.isfinite(answered.references) & np.isfinite(answered.chances)
    return [] if answered.questions.are_numbers else np.flatnonzero(has_both.any(axis=1)).tolist()


def _doubted_rows(answered: imported_labels.AnsweredCases) -> Iterator[list[Any]]:
    """Rows of `relabel.csv`, each with the place of its case."""
    labels, asked_again = answered.questions.labels, _asked_again(answered)
    references, chances = answered.references[asked_again], answered.chances[asked_again]
    if answered.questions.is_exclusive:
        labels_of_cases = [int(row.argmax()) if 1 in row else -1 for row in np.nan_to_num(references)]
        questions = [(ALL, labels, chances, labels_of_cases)]
    else:
        numbers = np.nan_to_num(references, nan=-1).astype(int)
        both = [np.stack([1 - p, p], axis=1) for p in chances.T]
        questions = [(label, ABSENCE, both[n], numbers[:, n].tolist()) for n, label in enumerate(labels)]
    for label, classes, p, labels_of_cases in questions:
        for doubt in labelling.doubted_labels(p, labels_of_cases):
            case = feedback_dataset.case_name(answered.table["case"].iloc[asked_again[doubt.case]])
            named = [label, classes[doubt.reference], classes[doubt.probable]]
            yield [asked_again[doubt.case], case, *named, doubt.probability_reference, doubt.probability_probable]
