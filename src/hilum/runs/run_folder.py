"""The folder of a run: written from a plan before anything is trained, or read again as it was left."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from hilum import errors
from hilum.errors import HilumError, IntegrityError, PlanError, ResourceError, UsageError
from hilum.files.storage import atomic, csv_text, hashing
from hilum.layouts import OWN_TABLE, dataset_table
from hilum.lazy import pandas as pd
from hilum.networks import network_family
from hilum.planning import PlannedTraining, plan_changes, plan_checks, plan_file, plan_result
from hilum.planning.plan_file import GROUPS
from hilum.planning.plan_result import COVARIATES, EVERYTHING, FURTHER, LEAVE_OUT, LESIONS, WARNED
from hilum.planning.plan_sections import TrainingSettings
from hilum.planning.rules import learning_rules, objective_rules, privacy_rules, split_rules
from hilum.planning.rules.site_rules import FOLDS_BY
from hilum.quality.dataset_examination import Examination
from hilum.reading import ReadingOptions, alignment, dataset_reading, image_pairs
from hilum.reading.reading_options import ALLOW_LARGE
from hilum.runs import initial_weights, plan_request, split_changes, teacher_models
from hilum.runs._run_minutes import AS_STEPS
from hilum.runs._run_trainings import MORE, NETWORKS
from hilum.runs.initial_weights import UnlabelledImages
from hilum.runs.plan_request import USUAL_MINUTES, PlanRequest
from hilum.runtime import hardware, record_files
from hilum.runtime.model_files import REPORT
from hilum.scoring import case_scoring, data_record
from hilum.scoring.data_record import DataRecord, Lineage
from hilum.tasks import task_catalogue
from hilum.training import checkpoint_files
from hilum.training.checkpoint_files import STATE_SCHEMA
from hilum.training.length.step_probe import FEWER, NARROWER
from hilum.training.training_state import CommandClock
from hilum.transforms import channel_stack
from hilum.values import BY_HAND, Case, Dataset, Decision, Image, Plan, Split
from hilum.work_state import log

# Notes for a reader before any figure; a package repeats them.
NOTES = "run.json"
# The weights to start from, until the run is finished: every fold and every further network begins from them.
START = "start"
# Files by which the folder of a run is known.
PLAN, SPLIT = "plan.yaml", "split.csv"
MARKS = (PLAN, SPLIT)
CALIBRATION, PARTS = "split.calibration", "split.parts"
# What of a plan may be changed while a run waits to be resumed: it decides nothing about the model but its time.
FREE = ("training.minutes", "training.device", "training.threads")
# The word by which `--accept` goes on with other changes, and the end of the reason of what was changed so.
CHANGES, AFTER = "changes", ", after the training had begun"


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run that trains: its folder, its plan, its cases with their parts, and its clock.

    clock: of this command, with the seconds of earlier sessions
    start: weights of another model to start from
    unlabelled: images of which training sees nothing else
    """

    out: Path
    made: PlannedTraining
    clock: CommandClock
    start: Path | None = None
    unlabelled: UnlabelledImages = field(default_factory=UnlabelledImages)

    @property
    def plan(self) -> Plan:
        """The plan that the run follows."""
        return self.made.plan

    @property
    def dataset(self) -> Dataset:
        """All usable cases."""
        return self.made.examination.dataset

    @property
    def examination(self) -> Examination:
        """Examination of the cases."""
        return self.made.examination

    @property
    def folds(self) -> Sequence[int | None]:
        """Numbers of the folds; (None,) where one training has its own test part."""
        return self.made.numbers

    def cases(self, part: Split, fold: int | None = None) -> list[Case]:
        """The cases of a part, of one fold or of the whole run."""
        parts = self.made.parts_of(fold)
        return [case for case in self.dataset if parts.get(case.id) == part]

    def cases_of(self, ids: Sequence[str]) -> list[Case]:
        """The cases of these ids, in their order."""
        by_id = {case.id: case for case in self.dataset}
        return [by_id[case] for case in ids]

    @property
    def cases_in_a_part(self) -> set[str]:
        """Ids of the cases that train, select or test; others have a twin that is held out."""
        return set(self.made.parts) | {case.id for case in self.own_test}

    @property
    def tested_cases(self) -> list[str]:
        """Ids of the cases that are tested, by any fold."""
        return [case.id for fold in self.folds for case in self.cases("test", fold)]

    @property
    def own_test(self) -> list[Case]:
        """Cases of the set's own test part, which no fold has seen."""
        return [case for case in self.dataset if self.dataset.splits.get(case.id) == "test"] if self.made.folds else []

    def folder(self, fold: int | None) -> Path:
        """Folder of a training: `fold_k`, or the run's own folder."""
        return self.out if fold is None else self.out / f"fold_{fold}"

    def place(self, name: str) -> Path:
        """The folder of a training by its name below the run."""
        return self.out / name

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.yaml`, an older one replaced."""
        text = plan_file.plan_text(plan_result.with_relative_data(self.made.of_cases(plan), self.out))
        atomic.write_text(self.out / PLAN, text, overwrite=True)


def new_run(
    out: Path, planned: PlannedTraining, clock: CommandClock, start: Path | None = None, lineage: Lineage | None = None
) -> RunFolder:
    """Write the folder of a run before anything is trained; an older one is replaced.

    start:   weights, which are copied: whoever resumes the run need not have them any more
    lineage: of these weights
    """
    dataset = planned.examination.dataset
    if planned.plan.data and Path(planned.plan.data).resolve().is_relative_to(out.resolve()):
        raise UsageError("holds the data, so no run is written over it", str(out), "Choose another --out")
    if planned.plan.data and not Path(planned.plan.data).exists():  # a table in memory: the run keeps it
        planned = replace(planned, plan=replace(planned.plan, data=str(out / OWN_TABLE)))
    planned, unlabelled = initial_weights.with_unlabelled(teacher_models.with_teacher(planned))
    because = (
        "SHA-256 over primary metric, margin, compared groups, operating point, tolerances, prevalence and horizons, "
        "before the first step"
    )
    plan = planned.plan.with_decision(
        "evaluation.preregistered", Decision(plan_file.preregistration_digest(planned.plan), because)
    )
    split = case_scoring.split_table(dataset, planned.parts, planned.folds)
    because = "SHA-256 over who trains, selects and tests, before the first step"
    plan = plan.with_decision(PARTS, Decision(_digest_of_parts(split), because))
    for name in changed_decisions(plan):  # in the run whose plan this one is
        plan = plan.with_decision(name, replace(plan.decision(name), because=BY_HAND))
    planned = replace(planned, plan=plan)
    with atomic.write_whole(out, overwrite=True) as partial:
        partial.mkdir()
        csv_text.write_table(split, partial / SPLIT)
        dataset_table.write_dataset_table(dataset, partial, out)
        alignment.write_alignment(dataset, ReadingOptions.of_plan(planned.plan.options).align, partial)
        if len(pairs := image_pairs.pairs_table(dataset, planned.parts)):
            csv_text.write_table(pairs, partial / "pairs.csv")
        looks = planned.examination.looks
        digests, origin = {name: look.digest for name, look in looks.items()}, lineage or Lineage()
        of_cases = (dataset, replace(dataset, cases=unlabelled.cases))
        own, shown = ({one for each in data_record.image_hashes(some).values() for one in each} for some in of_cases)
        began_with = split_changes.parts_by_fold(split)
        seen = {*origin.seen, *shown - own}
        data_record.write_data_record(partial, dataset, digests, seen, origin.unknown, began_with)
        if start is not None:
            (partial / START).mkdir()
            shutil.copyfile(start, partial / START / start.name)
        run = RunFolder(out, planned, clock, None if start is None else out / START / start.name, unlabelled)
        if notes := data_record.lineage_notes(data_record.read_data_record(partial), run.tested_cases):
            method = plan.decision("split.method")
            plan = plan.with_decision("split.method", replace(method, because=f"{method.because}. {' '.join(notes)}"))
        atomic.write_text(partial / PLAN, plan_file.plan_text(plan_result.with_relative_data(plan, out)))
    return replace(run, made=replace(planned, plan=plan))


def planned_from(path: Path, request: PlanRequest) -> PlannedTraining:
    """An edited plan decides; what is requested with it decides over the plan, and is recorded as set by hand."""
    if not path.is_file():
        raise UsageError("there is no such plan", str(path), "Check the path")
    request = request.effective_request
    edited = plan_changes.untrained_plan(plan_file.read_plan(path))
    if request.task not in (None, edited["task.name"]):
        raise UsageError(f"is a plan for {edited['task.name']}", str(path), "Plan again for another --task")
    edited = _apply_request(edited, request)
    plan_checks.checked_settings(edited)  # refuses what cannot be followed before the data are read
    # A plan of before there were such cases has none.
    calibration = edited.decision(CALIBRATION) if CALIBRATION in edited else Decision(0, BY_HAND)
    by_hand = calibration.because == BY_HAND
    options = {
        "split.seed": edited["split.seed"],
        CALIBRATION: calibration.value if by_hand else None,
        "network.context": edited.options.get(COVARIATES),
        **{name: edited[name] for name in (GROUPS, FOLDS_BY, WARNED) if name in edited},
    }
    plan_of_run = plan_request.plan_from_request(
        Path(path.parent, edited.data),
        PlanRequest(
            minutes=edited["training.minutes"] or USUAL_MINUTES,
            device=edited["training.device"],
            device_because=f"the plan says so ({edited.decision('training.device').because})",
            threads=edited["training.threads"],
            seed=int(edited["training.seed"]),
            task=edited["task.name"],
            everything=bool(edited.options.get(EVERYTHING) or request.everything),
            folds=int(edited["split.folds"]),
            assignments={name: value for name, value in options.items() if value is not None},
            reading=ReadingOptions.of_plan(edited.options).overridden(request.reading),
            further=tuple(edited.options.get(FURTHER, ())),
            leave_out=edited.options.get(LEAVE_OUT),
            lesions=request.lesions or tuple(edited.options.get(LESIONS, ())),
        ),
    )
    if plan_of_run.plan.data_hash != edited.data_hash:
        log.warning("%s: the data are not those that were planned for; the run records what they are now", path)
    by_site = () if options.get(FOLDS_BY) is None else ("split.folds",)
    for name in ("split.method", *by_site, *(() if by_hand else (CALIBRATION,))):  # sampled again, by this seed
        edited = edited.with_decision(name, plan_of_run.plan.decision(name))
    if request.minutes is not None:
        edited = _for_other_minutes(edited, plan_of_run.plan)
    if request.source is not None:
        edited = learning_rules.with_transfer(edited)
    task, dataset = plan_checks.checked_settings(edited).task, plan_of_run.examination.dataset
    edited = split_rules.with_inner_folds(edited, task, dataset, plan_of_run.parts)
    edited = objective_rules.with_objective_settings(edited, dataset, plan_of_run.room.fingerprint)
    edited = privacy_rules.with_units(edited, dataset, plan_of_run.room.fingerprint)
    edited = plan_of_run.with_memory_of(edited)  # refused before training, not in its middle
    now = plan_of_run.plan
    return replace(plan_of_run, plan=replace(edited, data=now.data, data_hash=now.data_hash, options=now.options))


def _apply_request(edited: Plan, request: PlanRequest) -> Plan:
    """The edited plan with what was requested with it."""
    values = {
        "training.minutes": request.minutes,
        "training.device": None if request.device is None else hardware.choose_device(request.device).value,
        "training.threads": request.threads,
        "training.seed": request.seed,
        "split.folds": request.folds,
    }
    by_hand = {**{name: value for name, value in values.items() if value is not None}, **request.assignments}
    if request.minutes is not None and not by_hand.get("training.deterministic", edited["training.deterministic"]):
        steps = Decision(None, "--minutes was given: a probe turns them into steps when training starts")
        edited = edited.with_decision("training.steps", steps)
    return plan_changes.with_settings(edited, by_hand)


def _for_other_minutes(edited: Plan, planned: Plan) -> Plan:
    """An edited plan of which the minutes of an earlier run decide nothing any more.

    planned: anew for the same data; what has been set by hand since, such as the family, still counts
    """
    before = {
        "training.batch": (FEWER, planned["training.batch"]),
        "inference.flips": (AS_STEPS, edited["augmentation.flips"]),
        "network.size": (NARROWER, network_family.widen_settings(edited["network.size"], 2)),
    }
    for name, (words, value) in before.items():
        if edited.decision(name).because.endswith(words):
            edited = edited.with_decision(name, replace(planned.decision(name), value=value))
    name = "training.networks"
    if name in edited and edited.decision(name).because != BY_HAND:
        edited = edited.with_decision(name, planned.decision(name))
    return edited


def resume_run(out: Path, began: float, *, elsewhere: bool = False, accepts_changes: bool = False) -> RunFolder:
    """A run as it was left: its plan with the steps already decided, its split, its data if they are unchanged.

    began: time.monotonic() of the command
    elsewhere: whether other sites may know structures that no case here knows
    accepts_changes: whether it goes on by a plan and a split that were edited since; the plan then says so
    Raises PlanError, with the names, for other edits than those of `FREE`, and for a split that no run may have.
    """
    if not (out / PLAN).is_file():
        raise UsageError("holds no run", str(out), "Give the folder of a run that was started")
    if (out / REPORT).is_file():
        raise UsageError("is a finished run", str(out), "Train again with another --out")
    checkpoint_files.recover_run(out)
    plan = plan_changes.untrained_plan(plan_file.read_plan(out / PLAN))  # written before the report, which ends a run
    _refuse_other_machine(out, plan)
    changed = _changes_since_begin(out, plan)
    if changed and not accepts_changes:
        problem = f"edited since the run began: {errors.list_phrase(changed.values())}"
        remedy = f"Undo it, train again with another --out, or go on with it: --accept {CHANGES}"
        raise PlanError(problem, str(out), remedy)
    name = str(plan["task.name"])
    dataset = dataset_reading.open_for_plan(plan, [out / plan.data, *plan.options.get(FURTHER, ())])
    record = data_record.read_data_record(out)
    named = data_record.name_as_in_run(dataset, record)
    threads = int(plan["training.threads"])
    examination = dataset_reading.examine_cases(named, threads, kinds=task_catalogue.needed_references(name))
    dataset_reading.refuse_unfit(examination, name, elsewhere=elsewhere)
    task = plan_checks.checked_settings(plan).task
    usable = dataset_reading.keep_referenced(examination.dataset, task)
    examination = examination.of_task(usable, task.needs)
    if (held_out := plan.options.get(LEAVE_OUT)) is not None:
        examination = initial_weights.without_held_out(examination, Path(held_out), threads)
    parts, folds = _parts(out, int(plan["split.folds"]))
    planned = PlannedTraining(replace(plan, data=str(out / plan.data)), examination, parts, folds=folds)
    if not plan.options.get(ALLOW_LARGE):
        large = plan_request.oversized_case_errors(planned, examination.fingerprint)
        planned = replace(planned, examination=examination.without(large))
    if hashing.dataset_hash(planned.examination.dataset) != plan.data_hash:
        raise IntegrityError("the data have changed since the run began", str(out), "Train again with another --out")
    for name in changed:
        decision = _accepted_split(out, record, planned) if name == PARTS else Decision(plan[name], f"{BY_HAND}{AFTER}")
        planned = replace(planned, plan=planned.plan.with_decision(name, decision))
    planned, unlabelled = initial_weights.with_unlabelled(teacher_models.with_teacher(planned))
    states = (record_files.read_json(path, STATE_SCHEMA) for path in out.rglob("checkpoints/last/state.json"))
    spent = max((float(state["seconds"]) for state in states), default=0.0)
    run = RunFolder(out, planned, CommandClock(began, spent), next((out / START).glob("*"), None), unlabelled)
    if changed:
        run.write_plan(run.plan)
    return run


def _changes_since_begin(out: Path, plan: Plan) -> dict[str, str]:
    """{decision: its name, or that of the file} of what was edited since a run wrote it, but for what may be."""
    edited = [name for name in plan_file.edited_decisions(out / PLAN) if name not in FREE]
    changed = {name: f"{name} of {PLAN}" for name in edited}
    if plan[PARTS] not in (None, _digest_of_parts(csv_text.read_text_table(out / SPLIT))):
        changed[PARTS] = SPLIT
    return changed


def _accepted_split(out: Path, record: DataRecord, planned: PlannedTraining) -> Decision:
    """The digest of an edited split, because of the cases that moved; PlanError for a split that no run may have."""
    split, dataset = csv_text.read_text_table(out / SPLIT), planned.examination.dataset
    parts = split_changes.parts_by_fold(split)
    split_changes.refuse_unfit_parts(record.parts, parts, dataset, str(out / SPLIT))
    moves = split_changes.moves_phrase(record.parts, parts, dataset)
    return Decision(_digest_of_parts(split), f"{BY_HAND}: {moves}{AFTER}")


def _digest_of_parts(split: pd.DataFrame) -> str:
    """SHA-256 over the part of each case, in each fold, however the table is sorted and saved."""
    rows = sorted(zip(split["case"].astype(str), split["fold"].astype(str), split["split"].astype(str), strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def changed_decisions(plan: Plan) -> dict[str, str]:
    """{decision that was changed by hand after the training had begun: its name, of a split the cases that moved}."""
    changed = {}
    for name, decision in plan:
        if decision.because.endswith(AFTER):
            moves = decision.because.removesuffix(AFTER).removeprefix(BY_HAND).removeprefix(": ")
            changed[name] = f"{SPLIT} ({moves})" if name == PARTS else name
    return changed


def _refuse_other_machine(out: Path, plan: Plan) -> None:
    """ResourceError, before the data are read, where this machine lacks the run's device, with how it goes on here."""
    try:
        hardware.choose_device(plan["training.device"])
    except ResourceError as error:
        remedy = f"Resume it where that is, or write another into training.device of {out / 'plan.yaml'}"
        raise ResourceError(error.problem, str(out), remedy) from error


def end_trainings(run: RunFolder) -> RunFolder:
    """The run, whose trainings that have begun are over; what follows them, as calibration and evaluation, is left.

    UsageError where nothing has been learnt yet, and for folds: all of them make the model.
    """
    if run.made.folds:
        raise UsageError("each fold of a cross-validation is trained to its end", "--end-now", "Resume without it")
    if not checkpoint_state(run.out):
        raise UsageError("has learnt nothing yet", str(run.out), "Resume it without --end-now")
    for state in run.out.rglob("checkpoints/last/state.json"):
        checkpoint_files.end_training(state.parents[2])
    if NETWORKS not in run.plan:
        return run
    begun = 1 + sum(bool(checkpoint_state(one)) for one in (run.out / MORE).glob("*"))
    plan = run.plan.with_decision(NETWORKS, Decision(begun, "so many had begun when a person ended the training"))
    run.write_plan(plan)
    return replace(run, made=replace(run.made, plan=plan))


def checkpoint_state(folder: Path) -> dict[str, Any]:
    """The state of the last checkpoint of a training; nothing where there is none."""
    file = folder / "checkpoints" / "last" / "state.json"
    return record_files.read_json(file, STATE_SCHEMA) if file.is_file() else {}


def minutes_decide(chosen: TrainingSettings, folder: Path) -> bool:
    """Whether the minutes decide how long a training lasts, be it that an earlier session has made steps of them."""
    return chosen.minutes is not None and (chosen.steps is None or checkpoint_state(folder).get("deadline") is not None)


def _parts(out: Path, folds: int) -> tuple[dict[str, Split], tuple[dict[str, Split], ...]]:
    """The parts of `split.csv`, those of the first fold and those of each."""
    table = csv_text.read_text_table(out / SPLIT)
    by_fold: list[dict[str, Split]] = []
    for fold in range(max(1, folds)):
        rows = table[table["fold"] == str(fold)]
        by_fold.append(dict(zip(rows["case"], rows["split"], strict=True)))
    return by_fold[0], tuple(by_fold) if folds else ()


# As many as selection has at most; each is predicted several times by every backend.
MOST = 20
NAMED = {"val": "validation", "train": "training"}


@dataclass(frozen=True)
class ValidationImages:
    """Cases to be read one at a time, and in words which ones they are, without their names.

    cases: none where they cannot be had; `description` has the reason
    """

    description: str
    cases: Sequence[Case] = ()

    def __iter__(self) -> Iterator[Image]:
        return (channel_stack.stack_images(case.images, case.id) for case in self.cases)


class OwnCases(NamedTuple):
    """The cases of a run, named as in it, with `split.csv` and the record of their contents."""

    dataset: Dataset
    split: pd.DataFrame
    record: DataRecord

    def unchanged(self, part: str) -> list[Case]:
        """Those of a part whose files are what they were."""
        ids, contents = set(self.split.loc[self.split["split"] == part, "case"]), self.record.contents
        return [one for one in self.dataset if one.id in ids and contents.get(one.id) == hashing.content_hash(one)]


def read_own_cases(run: Path, plan: Plan) -> OwnCases:
    """The data of a run, read once more; raises what reading raises."""
    dataset = dataset_reading.open_for_plan(plan, [run / plan.data, *plan.options.get(FURTHER, ())])
    record = data_record.read_data_record(run)
    table = csv_text.read_text_table(run / SPLIT)
    return OwnCases(data_record.name_as_in_run(dataset, record), table, record)


def validation_images(run: Path, plan: Plan) -> ValidationImages:
    """Cases that selected the model, or trained it where none did, and whose files are unchanged."""
    if not plan.data:
        return ValidationImages("the run's data are at the sites that trained it")
    try:
        own = read_own_cases(run, plan)
    except (HilumError, OSError):
        return ValidationImages("the run's data could not be read again")
    table = own.split
    part = next((one for one in NAMED if one in set(table["split"])), "val")
    ids = set(table.loc[table["split"] == part, "case"])
    same = own.unchanged(part)
    if not same:
        return ValidationImages(f"the run's {NAMED[part]} cases are not what they were")
    chosen = same[:MOST]
    return ValidationImages(f"{len(chosen)} of {errors.count_phrase(len(ids), f'{NAMED[part]} case')}", chosen)
