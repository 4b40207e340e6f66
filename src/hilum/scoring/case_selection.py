"""The cases of a data set on which a model is scored, and what speaks against the figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hilum import errors
from hilum.errors import UsageError
from hilum.files.storage import csv_text, hashing
from hilum.lazy import pandas as pd
from hilum.runtime import Model
from hilum.scoring import data_record
from hilum.scoring.data_record import DataRecord
from hilum.values import Dataset, Split, dataset_cases
from hilum.values.dataset_cases import SPLITS

TEST, ALL, SPLIT = "test", "all", "split.csv"
BY_CONTENT = (
    "by the hashes of their files and voxels; near-duplicates (of another size, compressed, brighter) were not looked "
    "for, because a model keeps no descriptors of its images: hilum check DATA --beside TRAINING_DATA names them"
)
NOT_LOOKED_FOR = "not looked for: the model does not state which images trained it"
OVER_FOLDS = (
    "Each case was scored by the fold that had not seen it, with thresholds, calibration and post-processing that were "
    "found on cases which this fold does not test. The figures estimate how good the model of one fold is, not their "
    "mean; those that set cases against each other are means over the folds."
)


@dataclass(frozen=True)
class CaseChoice:
    """The cases that are scored, with the reason.

    parts: {case id: part}; which: in words; notes: what a reader must know
    folds: {case id: the fold that has not seen it}, empty where one model scores all
    is_own: whether they are cases of the run's own data
    search: how images that trained the model were looked for among other data; empty for the run's own
    """

    parts: Mapping[str, Split]
    which: str
    notes: Sequence[str] = ()
    folds: Mapping[str, int] = field(default_factory=dict)
    is_own: bool = False
    search: str = ""


def choose_cases(model: Model, dataset: Dataset, run: Path | None, split: str | None) -> CaseChoice:
    """Choose the cases to score: the run's test cases of its own data (by content), else all that did not train it.

    Raises UsageError for an unknown split, or where nothing is left.
    """
    if split not in (None, *SPLITS, ALL):
        raise UsageError(f"there is no split {split!r}", "--split", f"Choose one of {', '.join((*SPLITS, ALL))}")
    if run is not None and (run / SPLIT).is_file():
        table, record = csv_text.read_text_table(run / SPLIT), data_record.read_data_record(run)
    else:  # a package knows hashes, and no names; of other models nobody knows what trained them
        trained = list(model.record.get("trained", ()))
        hashes = {one: one for one in trained}  # of whatever kind: no two kinds are alike
        record = DataRecord(hashes, {}, hashes)
        table = pd.DataFrame({"case": trained, "patient": "", "split": "train", "fold": ""})
    if len(table) and _is_own(dataset, table, record):
        return replace(_of_own(model, table, split, str(run), record), is_own=True)
    choice = _of_other(dataset, table, record, split, _patients_of(table, model))
    return replace(choice, search=BY_CONTENT if len(table) else NOT_LOOKED_FOR)


def training_patients(model: Model, run: Path) -> set[str]:
    """The patients who trained or selected a model; nobody where they are not known, as of a package."""
    return _patients_of(csv_text.read_text_table(run / SPLIT), model) if (run / SPLIT).is_file() else set()


def _patients_of(table: pd.DataFrame, model: Model) -> set[str]:
    is_known = model.record.get("patients_known", False)
    trained = table.loc[table["split"] != TEST, "patient"] if is_known else ()
    return {person for one in trained for person in dataset_cases.people_of_patient(one)} - {""}


def _is_own(dataset: Dataset, table: pd.DataFrame, record: DataRecord) -> bool:
    """Whether every case of the run is here, with the same contents."""
    ids = set(table["case"])
    ours = dataset.only(ids)
    if len(ours) < len(ids):
        return False
    return all(hashing.content_hash(case) == record.contents.get(case.id) for case in ours)


def _of_own(model: Model, table: pd.DataFrame, split: str | None, where: str, record: DataRecord) -> CaseChoice:
    wanted_part = split or "test"
    notes = []
    if not model.record.get("patients_known", False):
        notes.append("Patients unknown, split by case: leakage cannot be excluded.")
    words = f"{'' if wanted_part == ALL else 'the '}{wanted_part} cases of the run's own data"
    folds = sorted(set(table["fold"]) - {""}, key=int)
    if len(folds) > 1 and wanted_part == TEST and "" not in set(table["fold"]):
        tested = table[table["split"] == "test"]
        owner = dict(zip(tested["case"], tested["fold"].astype(int), strict=True))
        return CaseChoice(
            dict.fromkeys(owner, "test"),
            words,
            [*notes, *data_record.lineage_notes(record, list(owner)), OVER_FOLDS],
            owner,
        )
    splits: dict[str, Split] = dict(zip(table["case"], table["split"], strict=True))
    if len(folds) > 1:  # every case of a fold has trained the others
        splits = dict(zip(table["case"], table["fold"].map(lambda fold: "train" if fold else "test"), strict=True))
    if wanted_part == TEST:
        notes += data_record.lineage_notes(record, [case for case, part in splits.items() if part == TEST])
    elif wanted_part == "calibration":
        notes.append(
            "These cases set the thresholds of sets and intervals, so how often these hold here is no independent test."
        )
    else:
        some = "Some of these" if wanted_part == ALL else "These"
        notes.append(f"{some} cases were used in training: the figures say nothing about new patients.")
    return CaseChoice(_part(splits, wanted_part, where), words, notes)


def _of_other(
    dataset: Dataset, table: pd.DataFrame, record: DataRecord, split: str | None, people: Collection[str]
) -> CaseChoice:
    """people: who trained the model, where patients are known"""
    splits = {case.id: dataset.splits.get(case.id, "test") for case in dataset}
    splits_of_table = {str(name): set(rows["split"]) for name, rows in table.groupby("case")}
    wanted_part, words = split or "all", f"{split or 'all'} cases of other data than the run's"
    if split is None and "test" in dataset.splits.values():
        wanted_part, words = "test", "the set's own test part"
    parts = _part(splits, wanted_part, str(dataset.root or dataset.name))
    trained = record.trained_cases(dataset.only(set(parts)), splits_of_table)
    if not trained:
        return CaseChoice(parts, words, _people(dataset, parts, people))
    cases = errors.count_phrase(len(trained), "case that trained this model", "cases that trained this model")
    if split is not None:
        note = f"{cases} (by content) among them: the figures say nothing about new patients."
        return CaseChoice(parts, words, [note])
    left = {name: part for name, part in parts.items() if name not in trained}
    if not left:
        remedy = "Give other cases, or --split all to score them nevertheless"
        raise UsageError(f"holds only {cases}", str(dataset.root or dataset.name), remedy)
    note = f"{cases} (by content, whatever their names) left out."
    return CaseChoice(left, words, [note, *_people(dataset, left, people)])


def _people(dataset: Dataset, parts: Collection[str], trained: Collection[str]) -> list[str]:
    """The note on patients who have new images here, and trained the model with others.

    They are not left out: another hospital may have numbered its patients in the same way.
    """
    same = same_name_note(dataset.only(set(parts)), trained)
    return [f"{same} the figures say too little about new patients."] if same else []


def same_name_note(dataset: Dataset, trained: Collection[str]) -> str:
    """The number of patients with the name of one who trained the model, as the start of a note; empty for none."""
    people = set()
    if dataset.patients_known:
        people = {one for case in dataset for one in dataset_cases.people_of_patient(case.patient)}
    if not (count := len(people.intersection(trained))):
        return ""
    same = errors.count_phrase(count, "patient has the name", "patients have the names")
    return f"{same} of patients with whose images this model was trained: if they are the same,"


def _part(parts: Mapping[str, Split], name: str, where: str) -> dict[str, Split]:
    chosen = {case: part for case, part in parts.items() if name in ("all", part)}
    if not chosen:
        raise UsageError(f"there is no {name} case", where, "Choose another --split")
    return chosen
