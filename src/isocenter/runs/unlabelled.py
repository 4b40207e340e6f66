"""Unlabelled images of a run: looked through once; each training leaves out those of people that it must not see."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError, IntegrityError, counted
from isocenter.files import content_hash
from isocenter.planning import Planned, training_ids
from isocenter.quality import Examination, duplicates_among
from isocenter.reading import ReadingOptions, looked_through, open_dataset
from isocenter.tasks import suffices
from isocenter.values import Case, Dataset, Decision

log = logging.getLogger("isocenter")
UNLABELLED, HASH = "objectives.unlabelled", "objectives.unlabelled_hash"
# Roles of columns of a table that are not references.
ROLES = ("image", "patient", "case")


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Images of which a training sees nothing else.

    patients: {id of an unlabelled case: cases of the run that show the same person}
    alike:    {id of an unlabelled case: cases of the run that show nearly the same image}
    """

    cases: tuple[Case, ...] = ()
    patients: Mapping[str, frozenset[str]] = field(default_factory=dict)
    alike: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def shown_to(self, training: Collection[str], every: Collection[str]) -> tuple[list[Case], dict[str, int]]:
        """The cases for a training on cases of these ids, and how many are left out for which reason.

        every: ids of all cases of the run: what does not train may be validated, calibrated or tested on
        """
        held = set(every) - set(training)
        shown = {case.id for case in self.cases if held & self.patients.get(case.id, frozenset())}
        alike = {case.id for case in self.cases if held & self.alike.get(case.id, frozenset())} - shown
        kept = [case for case in self.cases if case.id not in shown | alike]
        return kept, {"patients": len(shown), "near_duplicates": len(alike)}


def with_unlabelled(made: Planned) -> tuple[Planned, Unlabelled]:
    """The unlabelled images that a plan names, and the plan with the hash of their contents.

    Raises DatasetError for images of other dimensions or channels than those that train, or where a training is left
    none, IntegrityError where they are not those that the plan was followed with.
    """
    paths = [Path(path) for path in made.plan[UNLABELLED]]
    if not paths:
        return made, Unlabelled()
    reading, where = ReadingOptions.of_plan(made.plan.options), ", ".join(map(str, paths))
    opened = [_opened(path, made, reading) for path in paths]
    looked = [looked_through(dataset, int(made.plan["training.threads"])) for dataset in opened]
    for path, examination in zip(paths, looked, strict=True):
        _refuse_unlike(path, examination, made.examination)
    cases = tuple(case for examination in looked for case in examination.dataset)
    every = {case.id for case in made.examination.dataset}
    own = {name: look for name, look in made.examination.looks.items() if name in every}
    others = {name: look for one in looked for name, look in one.looks.items()}
    found = Unlabelled(cases, _same_patients(looked, made), duplicates_among(own, others))
    left_out = []
    for number in made.numbers:
        kept, without = found.shown_to(training_ids(made.parts_of(number)), every)
        if not kept:
            problem = "no unlabelled image is left without those of people who validate, calibrate or test"
            raise DatasetError(problem, where, "Give images of other people")
        left_out.append(without)
    total = hashlib.sha256("".join(sorted(map(content_hash, cases))).encode()).hexdigest()
    if (before := made.plan[HASH]) not in (None, total):
        raise IntegrityError("the unlabelled images have changed since the run began", where, "Restore them")
    plan = made.plan.with_decision(HASH, Decision(total, _because(len(cases), left_out)))
    if before is None:
        log.info("%s: %s", where, plan.decision(HASH).because)
    return replace(made, plan=plan), found


def _because(count: int, left_out: Sequence[Mapping[str, int]]) -> str:
    """The reason of the hash: how many images there are, and how many each training leaves out."""
    people, copies = (", ".join(str(one[key]) for one in left_out) for key in ("patients", "near_duplicates"))
    folds = " in each fold" if len(left_out) > 1 else ""
    return (
        f"SHA-256 over {counted(count, 'unlabelled image')}; training leaves out {people} of patients and {copies} "
        f"near duplicates of cases that validate, calibrate or test{folds}"
    )


def _opened(path: Path, made: Planned, reading: ReadingOptions) -> Dataset:
    """The images of a path, without references; of the data of the run those of its cases that have none."""
    task = made.settings.task
    if made.plan.data and path.resolve() == Path(made.plan.data).resolve():
        whole = open_dataset(path, reading, needs=task.needs)
        lacking = {case.id for case in whole if not suffices(task, case.references)}
        if not lacking:
            problem = "all cases have a reference, and of the data that train only the others are unlabelled images"
            raise DatasetError(problem, str(path), "Give --unlabelled another folder, or leave it out")
        dataset = whole.only(lacking)
    else:
        columns = {role: name for role, name in reading.columns.items() if role.partition(":")[0] in ROLES}
        others: dict[str, Any] = {"labels": None, "class_rule": None, "order": None, "layout": None}
        dataset = open_dataset(path, replace(reading, column=columns or None, **others), references=False)
    named = {case.id: f"{path}: {case.id}" for case in dataset}
    images = tuple(replace(case, references={}) for case in dataset)
    return replace(dataset, cases=images, splits={}, problems=()).renamed(named)


def _refuse_unlike(path: Path, found: Examination, own: Examination) -> None:
    """DatasetError for images that the network of the run could not see."""
    if not len(found.dataset):
        problems = "; ".join(problem.what for problem in found.problems[:1]) or "no case lacks a reference"
        raise DatasetError(f"holds no unlabelled image ({problems})", str(path), "Give images")
    for what, known in (
        ("dimensions", lambda facts: len(facts.shape)),
        ("channels", lambda facts: len(facts.channels)),
    ):
        wanted = {known(facts) for facts in own.fingerprint.cases}
        for facts in found.fingerprint.cases:
            if known(facts) not in wanted:
                problem = f"has {known(facts)} {what}, and images that train have {', '.join(map(str, sorted(wanted)))}"
                raise DatasetError(problem, facts.id, "Leave it out of the unlabelled images")


def _same_patients(looked: Sequence[Examination], made: Planned) -> dict[str, frozenset[str]]:
    """{id of an unlabelled case: cases of its patient}, where both data sets know their patients, or are one."""
    own = made.examination.dataset
    of_patient: dict[str, set[str]] = {}
    for case in own:
        of_patient.setdefault(case.patient, set()).add(case.id)
    pairs = ((case, one.dataset) for one in looked for case in one.dataset)
    return {
        case.id: frozenset(of_patient.get(case.patient, ()))
        for case, dataset in pairs
        if dataset.root == own.root or (dataset.patients_known and own.patients_known)
    }
