"""Cases seen by the models from whose weights a training starts: they are no new patients to it."""

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
    """The earlier models from which weights come.

    seen:    hashes of the cases that trained or selected earlier models
    unknown: names of files of weights that no run or package explains
    """

    seen: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()


def lineage_of(starts: Sequence[Path]) -> Lineage:
    """The lineage of models or files of weights from which one training starts.

    Raises UsageError where there is nothing, IntegrityError for a damaged record.
    """
    each = [_of_one(start) for start in starts]
    seen = frozenset().union(*(one.seen for one in each))
    return Lineage(seen, tuple(name for one in each for name in one.unknown))


def _of_one(start: Path) -> Lineage:
    if start.is_file() and start.suffix == ".zip":
        with unpacked(start) as folder:
            return _of_one(folder)
    for place in (start, *list(start.resolve().parents)[:ABOVE]):
        if (place / DATA_RECORD).is_file() and (place / "split.csv").is_file():
            return _of_run(place, start)
        if (place / "isocenter" / "model.json").is_file():
            return Lineage(frozenset(package_record(place)["record"]["trained"]))
    return Lineage(unknown=(start.name,))


def _of_run(run: Path, start: Path) -> Lineage:
    """The lineage of a run; of folds one network is taken: the first, or that of the folder that was given."""
    record, table = read_data_record(run), read_text_table(run / "split.csv")
    numbers = [part.removeprefix("fold_") for part in start.resolve().relative_to(run.resolve()).parts[:1]]
    fold = next((number for number in numbers if number in set(table["fold"])), FIRST)
    used = table.loc[(table["fold"] == fold) & table["split"].isin(["train", "val"]), "case"]
    return Lineage(frozenset(record.hashes(used)) | record.inherited, record.unknown)


def lineage_notes(record: DataRecord, tested: Sequence[str]) -> list[str]:
    """What speaks against figures on these cases, where an earlier model has seen them."""
    notes, seen = [], record.inherited_among(tested)
    if seen:
        notes.append(
            f"{len(seen)} of {counted(len(tested), 'test case')} had trained or selected the model whose weights this "
            "one started from: the figures say little about new patients."
        )
    for name in record.unknown:
        notes.append(f"Training started from {name}: which cases its weights had seen is not known.")
    return notes
