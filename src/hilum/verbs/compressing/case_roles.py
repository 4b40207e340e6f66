"""The roles of cases in a compression: some give ranges, some judge layers, and others, unseen, state the price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.errors import UsageError
from hilum.files.storage import csv_text, hashing
from hilum.runtime import Model
from hilum.scoring import data_record
from hilum.scoring.case_selection import SPLIT
from hilum.scoring.data_record import DataRecord
from hilum.values import Case, Dataset, dataset_cases

# Training cases that gave no ranges, by which layers are judged.
MOST_JUDGING = 16
UNSEEN = ("val", "calibration")


@dataclass(frozen=True)
class CaseRoles:
    """Cases by what they do.

    ranges:   training cases that give the ranges of activations
    judging:  further training cases, by which harmful layers are found
    deciding: cases that decided nothing of a variant, by which it is accepted or not
    which:    the deciding ones in words
    """

    ranges: Sequence[Case]
    judging: Sequence[Case]
    deciding: Sequence[Case]
    which: str
    patients_known: bool

    @property
    def parts(self) -> str:
        """ "32 training cases give ranges, 20 validation and calibration cases decide"."""
        given = errors.count_phrase(len(self.ranges), "training case gives", "training cases give")
        decide = errors.count_phrase(len(self.deciding), f"{self.which} decides", f"{self.which}s decide")
        return f"{given} ranges, {decide}" if self.ranges else decide


def assign_roles(model: Model, dataset: Dataset, run: Path | None, *, samples: int, seed: int) -> CaseRoles:
    """The roles of the labelled cases of a data set for a model.

    run:     its folder; None for a package, which knows its training cases by their hashes
    samples: training cases to be sampled for the ranges; 0 where they stay as they are
    Raises UsageError where too few cases are left for either.
    """
    where = str(dataset.root or dataset.name)
    if run is not None and (run / SPLIT).is_file():
        trained, deciding, which = _of_run(dataset, run)
    elif model.record.get("trained"):
        trained, deciding, which = _of_package(model, dataset)
    else:
        trained, deciding, which = _by_column(dataset, where)
    people = set()
    if dataset.patients_known:
        people = {one for case in trained for one in dataset_cases.people_of_patient(case.patient)}
    deciding = [case for case in deciding if people.isdisjoint(dataset_cases.people_of_patient(case.patient))]
    if not deciding:
        problem = "no labelled case is left that did not train, select or test the model"
        raise UsageError(problem, where, "Give labelled cases that it has not seen")
    if len(trained) < samples:
        given = errors.count_phrase(len(trained), "training case")
        raise UsageError(
            f"{given} of the model for {samples} samples", where, f"Give --samples {max(1, len(trained))}, or more data"
        )
    order = np.random.default_rng(seed).permutation(len(trained))
    in_order = [trained[number] for number in order]
    judging = in_order[samples : samples + MOST_JUDGING] if samples else []
    return CaseRoles(in_order[:samples], judging, deciding, which, dataset.patients_known)


def _of_run(dataset: Dataset, run: Path) -> tuple[list[Case], list[Case], str]:
    """Training and deciding cases of a run: by `split.csv` its own, and others that nothing of it has seen."""
    table, record = csv_text.read_text_table(run / SPLIT), data_record.read_data_record(run)
    parts = {str(name): set(rows["split"]) for name, rows in table.groupby("case")}
    own = {case.id for case in dataset if record.contents.get(case.id) == hashing.content_hash(case)} & set(parts)
    trained = [case for case in dataset if case.id in own and "train" in parts[case.id]]
    unseen = [case for case in dataset if case.id in own and parts[case.id] <= set(UNSEEN)]
    others = dataset.only({case.id for case in dataset} - own)
    seen = record.trained_cases(others, {name: {"train"} for name in parts})
    new = [case for case in others if case.id not in seen and dataset.splits.get(case.id) != "test"]
    words = "validation or calibration case" if unseen else "case that the model has not seen"
    return trained, unseen or new, words


def _of_package(model: Model, dataset: Dataset) -> tuple[list[Case], list[Case], str]:
    """The same of a package, whose record has hashes, and no names."""
    trained, tested = (
        _seen(dataset, hashes or ()) for hashes in (model.record.get("trained"), model.record.get("tested"))
    )
    new = [case for case in dataset if case.id not in trained | tested and dataset.splits.get(case.id) != "test"]
    return [case for case in dataset if case.id in trained], new, "case that the model has not seen"


def _seen(dataset: Dataset, hashes: Sequence[str]) -> set[str]:
    known = {one: one for one in hashes}  # of whatever kind: no two kinds are alike
    return DataRecord(known, {}, known).trained_cases(dataset, {one: {"train"} for one in known})


def _by_column(dataset: Dataset, where: str) -> tuple[list[Case], list[Case], str]:
    """The same of a model of which nobody knows what trained it, as the data's column `split` has it."""
    if "train" not in dataset.splits.values():
        problem = "does not state which cases trained the model, and the model does not either"
        raise UsageError(problem, where, "Add a column split with train and val to its table")
    by_part = {part: [case for case in dataset if dataset.splits.get(case.id) == part] for part in ("train", *UNSEEN)}
    return by_part["train"], [*by_part["val"], *by_part["calibration"]], "validation or calibration case"
