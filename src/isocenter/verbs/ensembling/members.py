"""The members of an ensemble: runs that answer one question, and the parts of the data that none of them has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import UsageError, counted
from isocenter.evaluation import Table
from isocenter.files import read_text_table
from isocenter.planning import read_plan
from isocenter.reading import VOXELS, refuse_missing
from isocenter.runs import MARKS as OF_A_RUN
from isocenter.runs import REPORT
from isocenter.runtime import MEMBERS, Inference, Model, averaged_model, checkpoints_of, load
from isocenter.scoring import DataRecord, read_data_record
from isocenter.tasks import Task, rows_in, settings_of, untuned
from isocenter.values import BY_HAND, SPLITS, Case, Geometry, Plan, Region, Split

# {case id: part}
Parts = Mapping[str, Split]
APART = "Train all on the same parts: --set split.seed=N beside each --seed, or data with a test part of their own"
WHERE = "ensemble"
ALIKE = "Train the members from one plan: isocenter train PLAN.yaml --seed N, with split.seed set in it"
# Voxels an axis of the noise by which it is seen whether two tasks decode alike.
NOISE = 6


@dataclass(frozen=True, eq=False)
class Member:
    """A finished run.

    checkpoints: of the models that it is the mean of, one but for a run of folds
    split:       `split.csv`
    """

    name: str
    run: Path
    plan: Plan
    checkpoints: tuple[Path, ...]
    models: tuple[Model, ...]
    split: Table
    data: DataRecord

    @property
    def task(self) -> Task:
        """The task that its models answer."""
        return self.models[0].task

    @property
    def by_hand(self) -> dict[str, Any]:
        """{setting of the task: value} that somebody set by hand: no validation case decides these."""
        return {
            name.removeprefix("task."): one.value
            for name, one in self.plan
            if name.startswith("task.") and one.because == BY_HAND
        }

    @property
    def is_of_folds(self) -> bool:
        """Whether its models are those of folds, each of which selects on cases of its own."""
        return len(set(self.split["fold"]) - {""}) > 1

    def patients(self, *parts: Split) -> set[str]:
        """Whose cases were in one of these parts of any fold."""
        return set(self.split.loc[self.split["split"].isin(parts), "patient"])

    @property
    def held_out(self) -> set[str]:
        """Patients that it was neither trained nor selected on."""
        return self.patients("test") - self.patients("train", "val", "calibration")


def member(run: Path, name: str) -> Member:
    """The run with its models, in the machine's memory.

    Raises UsageError for what is no finished run, or one that cannot be averaged.
    """
    refuse_missing(run)
    trained_here = (run / "checkpoints").is_dir() or any(run.glob("fold_*"))  # perhaps to several networks
    if (run / MEMBERS).is_dir() and not trained_here:
        raise UsageError("is an ensemble itself", str(run), "Give the runs that it was made of")
    if not all((run / mark).is_file() for mark in OF_A_RUN):
        remedy = "Give folders that `isocenter train` wrote: a package does not know who tested it"
        raise UsageError("holds no run", str(run), remedy)
    if not (run / REPORT).is_file():
        raise UsageError("is not finished", str(run), f"Finish it with `isocenter train --resume {run}`")
    checkpoints = tuple(checkpoints_of(run))
    models = tuple(load(one, "cpu") for one in checkpoints)
    if any(one.first is not None for one in models):
        problem = "is a cascade, whose networks see what their own first stage marked"
        raise UsageError(problem, str(run), "Give runs that were trained with --set preprocessing.cascade=none")
    split = read_text_table(run / "split.csv")
    return Member(name, run, read_plan(run / "plan.yaml"), checkpoints, models, split, read_data_record(run))


def as_one(members: Sequence[Member]) -> Model:
    """All members as one model that is not tuned yet, each counting alike; UsageError for what cannot be averaged."""
    for other in members[1:]:
        refuse_unlike((members[0].name, other.name), members[0].models[0], other.models[0])
    first, models = members[0], [model for one in members for model in one.models]
    kept = {name for name, value in first.by_hand.items() if all(one.by_hand.get(name) == value for one in members)}
    inference = common_windows([one.inference for one in models])
    counts = tuple(1 / len(members) / len(one.models) for one in members for _ in one.models)
    try:
        return averaged_model(
            models, untuned(first.task, kept), inference, None if len(set(counts)) == 1 else counts, WHERE
        )
    except UsageError as error:
        raise UsageError("its members preprocess images differently", WHERE, ALIKE) from error


def parts_of_all(members: Sequence[Member]) -> dict[str, Split]:
    """{case id: part}: the first of train, val and calibration for which any member used its patient, else "test".

    A case that some member left out altogether, because its twin is held out, is in none.
    Raises UsageError where a patient that one member held out trained another, or patients are not the same.
    """
    owners = _owners(members)  # whose cases they are has to be known before it is asked who leaks
    for tester in members:
        for other in members:
            if leaking := tester.held_out & other.patients("train"):
                problem = f"{counted(len(leaking), 'test patient')} of {tester.name} trained {other.name}"
                raise UsageError(problem, WHERE, APART)
    used = {part: set[str]().union(*(one.patients(part) for one in members)) for part in SPLITS}
    known = set.intersection(*(set(one.split["case"]) for one in members))
    return {
        case: next(part for part in SPLITS if patient in used[part])
        for case, patient in owners.items()
        if case in known or patient in used["train"]
    }


def _owners(members: Sequence[Member]) -> dict[str, str]:
    """{case id: patient}; UsageError where members disagree."""
    owners: dict[str, str] = {}
    for own in members:
        for case, patient in zip(own.split["case"], own.split["patient"], strict=True):
            if owners.setdefault(case, patient) != patient:
                problem = f"{own.name} assigns some case to another patient than {members[0].name}"
                raise UsageError(problem, WHERE, "Train all members with the same --patient")
    return owners


def same_data(members: Sequence[Member]) -> None:
    """UsageError where members were trained on other data than the first, or read them otherwise."""
    first = members[0]
    for other in members[1:]:
        if other.plan.data_hash != first.plan.data_hash:
            problem = f"{other.name} was trained on other data than {first.name} (their hashes differ)"
            raise UsageError(problem, WHERE, "Give runs on the same, unchanged data")
        if differing := [key for key in VOXELS if other.plan.options.get(key) != first.plan.options.get(key)]:
            problem = f"{other.name} read the data with other options than {first.name}: {', '.join(differing)}"
            raise UsageError(problem, WHERE, "Train all members with the same flags of reading")


def by_content(members: Sequence[Member], cases: Sequence[Case], hashes: Mapping[str, str]) -> None:
    """UsageError where a case is no longer what a member was trained with.

    hashes: {case id: hash} of what is there now
    """
    for own in members:
        known = own.data.contents
        changed = [case.id for case in cases if known.get(case.id, hashes[case.id]) != hashes[case.id]]
        if changed:
            problem = f"{counted(len(changed), 'case')} changed since {own.name} was trained"
            raise UsageError(problem, WHERE, "Restore the data as they were, or train the members anew")


def refuse_unlike(names: tuple[str, str], first: Model, other: Model) -> None:
    """UsageError for a model whose outputs cannot be averaged with the first's, with what differs.

    names: of both, the first's first
    """
    ours, theirs = first.task, other.task
    if (ours.name, ours.labels, ours.heads) != (theirs.name, theirs.labels, theirs.heads):
        problem = f"{names[1]} answers another question than {names[0]}: {_question(theirs)}, not {_question(ours)}"
        raise UsageError(problem, WHERE, "Give runs of one kind of problem with the same classes")
    refuse_differing(names, seen_by(first), seen_by(other))
    ours, theirs = untuned(ours), untuned(theirs)
    if not decode_alike(ours, theirs, first.preprocessing.ndim):
        settings = [{f"task.{key}": value for key, value in settings_of(task).items()} for task in (ours, theirs)]
        refuse_differing(names, *settings)


def seen_by(model: Model) -> dict[str, Any]:
    """{"section.name": value} of what members must have in common to be averaged window by window, and judged alike.

    Intensities are not among it: members that differ in a window, a mean and a deviation are brought to one scale.
    """
    prepared = {key: value for key, value in model.preprocessing.settings.items() if key != "normalisation"}
    windows = model.inference.settings
    return {
        **{f"preprocessing.{key}": value for key, value in prepared.items()},
        **{f"inference.{key}": windows[key] for key in ("patch", "left_right")},
        "network.context": model.networks.architecture.get("context") or None,
        "evaluation.primary": model.record.get("primary"),
    }


def refuse_differing(names: tuple[str, str], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """UsageError where values differ, with both."""
    differing = [f"{key} is {theirs.get(key)}, not {value}" for key, value in ours.items() if theirs.get(key) != value]
    if differing:
        raise UsageError(f"{names[1]} differs from {names[0]}: {'; '.join(differing)}", WHERE, ALIKE)


def decode_alike(first: Task, other: Task, ndim: int) -> bool:
    """Whether two tasks with the same heads make the same result of the same outputs, which are noise here."""
    rng, spatial = np.random.default_rng(0), (NOISE,) * ndim
    dense = {name: (head.count, *spatial) for name, head in first.heads.items() if head.is_dense}
    whole = {name: (head.count,) for name, head in first.heads.items() if head.is_vector}
    arrays = {name: rng.normal(0, 2, shape).astype(np.float32) for name, shape in {**dense, **whole}.items()}
    everywhere: Region = tuple(slice(0, size) for size in spatial)
    parts: list[tuple[Region, list[str]]] = [(everywhere, [*dense]), ((), [*whole])]
    slabs = [(region, {name: arrays[name] for name in names}) for region, names in parts if names]
    grid = Geometry(spatial, np.eye(ndim + 1))
    rows = [rows_in(task.outputs(task.decode(slabs, grid))) for task in (first, other)]
    ours, theirs = (task.probabilities(arrays) for task in (first, other))
    return all(np.allclose(ours[key], theirs[key], atol=1e-6) for key in ours) and _equal(*rows)


def _equal(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows say the same, but for rounding."""
    if [list(row) for row in ours] != [list(row) for row in theirs]:
        return False
    pairs = [(row[key], other[key]) for row, other in zip(ours, theirs, strict=True) for key in row]
    return all(a == b or (isinstance(a, float) and bool(np.isclose(a, b, equal_nan=True))) for a, b in pairs)


def common_windows(each: Sequence[Inference]) -> Inference:
    """The windows for all members: the largest overlap, the fewest at once, the mirrored views that all have."""
    flips = tuple(axis for axis in each[0].flips if all(axis in one.flips for one in each))
    overlap, batch = max(one.overlap for one in each), min(one.batch for one in each)
    return replace(each[0], overlap=overlap, batch=batch, flips=flips)


def _question(task: Task) -> str:
    return f"{task.name} of {', '.join(label.name for label in task.labels)}"
