"""Held-out patients of a run, which a network must not see that the run is to start from."""

from __future__ import annotations

from pathlib import Path

from isocenter.errors import DatasetError, UsageError, counted
from isocenter.files import read_text_table
from isocenter.planning import FURTHER, read_plan
from isocenter.quality import Examination, duplicates_among
from isocenter.reading import ReadingOptions, looked_through, open_for, pairs_of
from isocenter.values import Dataset, Problem

# The parts of a run that must stay unseen.
HELD_OUT = ("val", "calibration", "test")


def without_held_out(examination: Examination, run: Path, threads: int) -> Examination:
    """The examination without the patients that a run holds out, and without images nearly the same as theirs.

    Raises UsageError for a folder that is no run, DatasetError where nothing is left or the run's data are gone.
    """
    held = _held_out(run)
    looks = {f"{run.name}: {name}": look for name, look in looked_through(held, threads).looks.items()}
    seen = {name for name, alike in duplicates_among(looks, examination.looks).items() if alike}
    people = {case.patient for case in held} if held.patients_known and examination.dataset.patients_known else set()
    left = tuple(case.id for case in examination.dataset if case.id in seen or case.patient in people)
    if len(left) == len(examination.dataset):
        raise DatasetError("every case is of a patient that the run holds out", str(run), "Give further data")
    if not left:
        return examination
    what = f"{counted(len(left), 'case')} of patients that {run.name} holds out, or nearly the same images"
    because = "they are left out, so that figures of that run stay those of new patients"
    problem = Problem("warning", what, left, because)
    return examination.without([problem])


def _held_out(run: Path) -> Dataset:
    """The cases that a run holds out, read again from where they lie."""
    if not (run / "plan.yaml").is_file() or not (run / "split.csv").is_file():
        raise UsageError("is no run, so nobody knows what it holds out", str(run), "Give the folder of a run")
    plan, table = read_plan(run / "plan.yaml"), read_text_table(run / "split.csv")
    wanted = set(table.loc[table["split"].isin(HELD_OUT), "case"])
    places = [run / plan.data, *plan.options.get(FURTHER, ())]
    dataset = open_for(plan["task.name"], places, ReadingOptions.of_plan(plan.options), pairs=pairs_of(plan)).only(
        wanted
    )
    if {case.id for case in dataset} != wanted:
        problem = f"{counted(len(wanted - {case.id for case in dataset}), 'case')} that it holds out cannot be found"
        raise DatasetError(problem, str(run), "Restore its data as they were")
    return dataset
