"""`privacy.json` of a run: what its weights tell of a person, and which other numbers stem from training cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import TypedDict

from hilum.files.storage import atomic
from hilum.runs import run_folder
from hilum.runs.run_folder import RunFolder
from hilum.runtime import record_files
from hilum.training.privacy_accounting import BudgetRow, BudgetState
from hilum.values.record_schema import RecordSchema


class NoiselessNumber(TypedDict):
    """A number that no noise was added to."""

    what: str
    cases: str
    how: str


class PrivacyRecord(TypedDict):
    """The budget of a training with noise: a row for all steps of one noise, and the numbers without any."""

    rows: list[BudgetRow]
    outside: list[NoiselessNumber]


PRIVACY, SCHEMA = "privacy.json", RecordSchema("hilum.privacy", PrivacyRecord)
# Numbers of a run that no noise was added to, whose cases they come from, and how. What is there depends on the plan.
TRAINED, VALIDATED = "training cases", "validation cases"
ALWAYS = (
    ("plan.yaml", TRAINED, "grid, intensities, classes and sizes follow from measurements of the cases, without noise"),
    ("model.json: fingerprint", TRAINED, "counts, ranges and medians, without noise"),
    ("log.csv", TRAINED, "losses of batches, the metric of some cases, without noise; it stays in the run"),
    ("split.csv, data.json", TRAINED, "who they are and hashes of their images; they stay in the run"),
)
FROM_VALIDATION = (
    ("choice of the checkpoint", VALIDATED, "the best of several by its metric, without noise"),
    ("temperature, thresholds, sets", VALIDATED, "fitted to predictions of cases that the network did not train on"),
    ("gate", VALIDATED, "features of one half of the patients stand for training images, the other half judges them"),
)
WITHOUT_VALIDATION = (("thresholds", TRAINED, "every case trained: what predictions decide comes from training cases"),)


def privacy_texts(folder: Path) -> dict[str, str]:
    """{file name: text} of what a run states of its privacy, for its package; empty without a budget."""
    file = folder / PRIVACY
    return {PRIVACY: file.read_text(encoding="utf-8")} if file.is_file() else {}


def write_privacy(folder: Path, rows: Sequence[BudgetRow], outside: Sequence[tuple[str, str, str]]) -> None:
    """Write `privacy.json`, whole.

    rows:    those of each site's budget, as `PrivacyBudget.rows` states them
    outside: each number that no noise was added to: what, from whom, how
    """
    numbers = [NoiselessNumber(what=what, cases=cases, how=how) for what, cases, how in outside]
    with atomic.write_whole(folder / PRIVACY, overwrite=True) as partial:
        record_files.write_json(partial, SCHEMA, PrivacyRecord(rows=list(rows), outside=numbers))


def rows_of_training(folder: Path) -> list[BudgetRow]:
    """What the training in a folder has spent until its last checkpoint; nothing where it has no budget."""
    spent: BudgetState | None = run_folder.checkpoint_state(folder).get("privacy")
    return [] if spent is None else spent["rows"]


def write_privacy_of_run(run: RunFolder) -> None:
    """Write it for a run that has trained with a privacy budget; nothing for others."""
    if rows := rows_of_training(run.folder(run.folds[0])):
        is_validated = bool(run.cases("val", run.folds[0]))
        write_privacy(run.out, rows, (*ALWAYS, *(FROM_VALIDATION if is_validated else WITHOUT_VALIDATION)))
