"""`privacy.json` of a run: what its weights tell of a person, and which other numbers stem from training cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import TypedDict

from isocenter.runs import run_folder
from isocenter.runs.run_end import TrainedRun
from isocenter.runs.run_folder import RunFolder
from isocenter.runtime import record_files
from isocenter.training.privacy_accounting import BudgetRow
from isocenter.values.record_schema import RecordSchema


class NoiselessNumber(TypedDict):
    """A number that no noise was added to."""

    what: str
    cases: str
    how: str


class PrivacyRecord(TypedDict):
    """The budget of a training with noise: a row for all steps of one noise, and the numbers without any."""

    rows: list[BudgetRow]
    outside: list[NoiselessNumber]


PRIVACY, SCHEMA = "privacy.json", RecordSchema("isocenter.privacy", PrivacyRecord)
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


def outside_rows(*, validated: bool) -> list[NoiselessNumber]:
    """Each number that no noise was added to: what, from whom, how."""
    rows = (*ALWAYS, *(FROM_VALIDATION if validated else WITHOUT_VALIDATION))
    return [NoiselessNumber(what=what, cases=cases, how=how) for what, cases, how in rows]


def privacy_texts(folder: Path) -> dict[str, str]:
    """{file name: text} of what a run states of its privacy, for its package; empty without a budget."""
    file = folder / PRIVACY
    return {PRIVACY: file.read_text(encoding="utf-8")} if file.is_file() else {}


def write_privacy(folder: Path, rows: Sequence[BudgetRow], *, validated: bool) -> None:
    """Write `privacy.json`; rows: those of each site's budget, as `PrivacyBudget.rows` states them."""
    record = PrivacyRecord(rows=list(rows), outside=outside_rows(validated=validated))
    record_files.write_json(folder / PRIVACY, SCHEMA, record)


def write_privacy_of_run(run: RunFolder, done: TrainedRun) -> None:
    """Write it for a finished run with a privacy budget; nothing for others."""
    spent = run_folder.checkpoint_state(run.folder(run.folds[0])).get("privacy")
    if spent is not None and done.outcomes:
        write_privacy(run.out, spent["rows"], validated=bool(run.cases("val", run.folds[0])))
