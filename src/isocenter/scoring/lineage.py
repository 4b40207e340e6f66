"""Cases seen by the models that a training starts from or learns from: they are no new patients to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isocenter.errors import counted
from isocenter.files import read_text_table
from isocenter.runtime import package_record, unpacked
from isocenter.scoring.data_record import DATA_RECORD, DataRecord, read_data_record

# Folders from a file of weights up to its run: best, checkpoints, fold_k, the run.
ABOVE = 4
# The fold whose weights a training takes from a run of several; a run of one training calls it so too.
FIRST = "0"


@dataclass(frozen=True)
class Lineage:
    """The earlier models that a training starts from or learns from.

    seen:    hashes of the cases that trained or selected earlier models
    unknown: names of files of weights that no run or package explains
    """

    seen: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()


def lineage_of(starts: Sequence[Path], teachers: Sequence[Path] = ()) -> Lineage:
    """The lineage of models or files of weights from which one training starts.

    teachers: models whose answers it learns; those of all folds answer, so that what any of them has seen counts
    Raises UsageError where there is nothing, IntegrityError for a damaged record.
    """
    each = [*(_of_one(start) for start in starts), *(_of_one(one, every_fold=True) for one in teachers)]
    seen = frozenset().union(*(one.seen for one in each))
    return Lineage(seen, tuple(name for one in each for name in one.unknown))


def _of_one(start: Path, *, every_fold: bool = False) -> Lineage:
    if start.is_file() and start.suffix == ".zip":
        with unpacked(start) as folder:
            return _of_one(folder, every_fold=every_fold)
    for place in (start, *list(start.resolve().parents)[:ABOVE]):
        if (place / DATA_RECORD).is_file() and (place / "split.csv").is_file():
            return _of_run(place, start, every_fold=every_fold)
        if (place / "isocenter" / "model.json").is_file():
            return Lineage(frozenset(package_record(place)["record"]["trained"]))
    return Lineage(unknown=(start.name,))


def _of_run(run: Path, start: Path, *, every_fold: bool) -> Lineage:
    """The lineage of a run; of folds one network is taken, the first or that of the folder that was given, or all."""
    record, table = read_data_record(run), read_text_table(run / "split.csv")
    numbers = [part.removeprefix("fold_") for part in start.resolve().relative_to(run.resolve()).parts[:1]]
    fold = next((number for number in numbers if number in set(table["fold"])), FIRST)
    own = table if every_fold else table[table["fold"] == fold]
    used = own.loc[own["split"].isin(["train", "val"]), "case"].unique()
    return Lineage(frozenset(record.hashes(used)) | record.inherited, record.unknown)


def lineage_notes(record: DataRecord, tested: Sequence[str]) -> list[str]:
    """Notes against figures on these cases, where an earlier model has seen them."""
    notes, seen = [], record.inherited_among(tested)
    if seen:
        notes.append(
            f"{len(seen)} of {counted(len(tested), 'test case')} had trained or selected a model that this one "
            "started or learnt from: the figures say little about new patients."
        )
    for name in record.unknown:
        notes.append(f"Training started or learnt from {name}: which cases that had seen is not known.")
    return notes
