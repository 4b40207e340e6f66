"""A run's folder: begun from a plan, before anything is trained, or found again as it was left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isocenter.errors import IntegrityError, UsageError
from isocenter.files import dataset_hash, write_text, written
from isocenter.planning import plan_text, read_plan, registered, settings, with_settings
from isocenter.quality import Examination
from isocenter.runtime import BEFORE, choose_device, read_json
from isocenter.tasks import needs_of
from isocenter.training import FEWER, STATE_SCHEMA, recover
from isocenter.values import Case, Dataset, Decision, Plan, Split
from isocenter.verbs.evaluation import read_split, split_table, write_data_record
from isocenter.verbs.plan import Planned, relative_to
from isocenter.verbs.plan import plan as make
from isocenter.verbs.reading import looked_through, open_dataset, refuse_unfit, with_references

log = logging.getLogger("isocenter")
REPORT = "report.html"
# What a reader must know before any figure: a package says it again.
NOTES = "run.json"
# The training without the covariates beside one that is told them.
IMAGE_ONLY = "image_only"
# Where a search lies that went before a training: in the run's folder, or in that of a fold.
SEARCH = "search"
# What tells a run's folder from any other.
MARKS = ("plan.yaml", "split.csv")


@dataclass(frozen=True, eq=False)
class Begun:
    """All that training needs: the run's folder, the plan, the cases and who is in which part.

    spent: s of earlier sessions
    """

    out: Path
    made: Planned
    spent: float = 0.0

    @property
    def plan(self) -> Plan:
        return self.made.plan

    @property
    def dataset(self) -> Dataset:
        return self.made.examination.dataset

    @property
    def examination(self) -> Examination:
        return self.made.examination

    def cases(self, part: Split, fold: int | None = None) -> list[Case]:
        """The cases of a part, of one fold or of the whole run."""
        parts = self.made.parts if fold is None else self.made.folds[fold]
        return [case for case in self.dataset if parts.get(case.id) == part]

    @property
    def cases_in_a_part(self) -> set[str]:
        """Ids of the cases that train, select or test; others have a twin that is held out."""
        return set(self.made.parts) | {case.id for case in self.own_test}

    @property
    def own_test(self) -> list[Case]:
        """With folds, the cases of the set's own test part, which no fold has seen."""
        return [case for case in self.dataset if self.dataset.splits.get(case.id) == "test"] if self.made.folds else []

    def fold_folder(self, fold: int) -> Path:
        return self.out / f"fold_{fold}"

    def write_plan(self, plan: Plan) -> None:
        write_text(self.out / "plan.yaml", plan_text(relative_to(plan, self.out)), overwrite=True)


def begin(out: Path, made: Planned) -> Begun:
    """The run's folder with what was decided, before anything is trained; an older one is replaced."""
    dataset = made.examination.dataset
    if made.plan.data and Path(made.plan.data).resolve().is_relative_to(out.resolve()):
        raise UsageError("holds the data, so no run is written over it", str(out), "Choose another --out")
    because = "SHA-256 over primary metric, operating point, tolerances, prevalence and horizons, before the first step"
    plan = made.plan.with_decision("evaluation.registered", Decision(registered(made.plan), because))
    made = replace(made, plan=plan)
    with written(out, overwrite=True) as partial:
        partial.mkdir()
        split_table(dataset, made.parts, made.folds).to_csv(partial / "split.csv", index=False)
        looks = made.examination.looks
        write_data_record(partial, dataset, {name: look.digest for name, look in looks.items()})
        write_text(partial / "plan.yaml", plan_text(relative_to(plan, out)))
    return Begun(out, made)


def planned_from(
    path: Path, flags: Mapping[str, Any], assignments: Mapping[str, Any], given: Mapping[str, Any]
) -> Planned:
    """An edited plan decides; a flag beside it decides over the plan, and is recorded as set by hand."""
    if not path.is_file():
        raise UsageError("there is no such plan", str(path), "Check the path")
    edited = read_plan(path)
    if flags["task"] not in (None, edited["task.name"]):
        raise UsageError(f"is a plan for {edited['task.name']}", str(path), "Plan anew for another --task")
    by_flag = {
        f"training.{key}": flags[key] for key in ("minutes", "device", "threads", "seed") if flags[key] is not None
    }
    if flags["device"] is not None:
        by_flag["training.device"] = choose_device(flags["device"]).value
    if flags["folds"] is not None:
        by_flag["split.folds"] = flags["folds"]
    if flags["minutes"] is not None and not {**edited_values(edited), **assignments}["training.deterministic"]:
        steps = Decision(None, "--minutes was given: a probe turns them into steps when training starts")
        edited = edited.with_decision("training.steps", steps)
    edited = with_settings(edited, {**by_flag, **assignments})
    settings(edited)  # refuses what cannot be followed before the data are read
    options = {**edited.options, **{key: value for key, value in given.items() if value}}
    everything = bool(options.pop("everything", False) or flags["everything"])
    source = Path(path.parent, edited.data)
    drawn = {"split.seed": edited["split.seed"]} if edited_values(edited).get("split.seed") is not None else {}
    made = make(
        source,
        minutes=edited["training.minutes"] or 60.0,
        device=edited["training.device"],
        threads=edited["training.threads"],
        seed=int(edited["training.seed"]),
        everything=everything,
        folds=int(edited["split.folds"]),
        task=edited["task.name"],
        assignments=drawn,
        **options,
    )
    if made.plan.data_hash != edited.data_hash:
        log.warning("%s: the data are not those that were planned for; the run records what they are now", path)
    edited = edited.with_decision("split.method", made.plan.decision("split.method"))  # drawn again, by this seed
    if flags["minutes"] is not None and edited.decision("training.batch").because.endswith(FEWER):
        edited = edited.with_decision("training.batch", made.plan.decision("training.batch"))
    edited = made.with_memory_of(edited)  # refused before training, not in its middle
    found: dict[str, Any] = {key: getattr(made.plan, key) for key in ("data", "data_hash", "options")}
    return replace(made, plan=replace(edited, **found))


def edited_values(plan: Plan) -> dict[str, Any]:
    """{"section.name": value}"""
    return {name: decision.value for name, decision in plan}


def resumed(out: Path) -> Begun:
    """A run as it was left: its plan with the steps already decided, its split, its data if they are unchanged."""
    if not (out / "plan.yaml").is_file():
        raise UsageError("holds no run", str(out), "Give the folder of a run that was begun")
    if (out / REPORT).is_file():
        raise UsageError("is a finished run", str(out), "Train anew with another --out")
    for folder in (out, *_trainings_within(out)):
        for name in ("last", "best"):
            recover(folder / "checkpoints" / name)
    plan = read_plan(out / "plan.yaml")
    options = dict(plan.options)
    options.pop("everything", None)
    dataset = open_dataset(out / plan.data, options, needs=needs_of(plan["task.name"]))
    examination = looked_through(dataset, int(plan["training.threads"]))
    refuse_unfit(examination)
    usable = with_references(examination.dataset, settings(plan).task)
    examination = replace(examination, dataset=usable, problems=usable.problems)
    if dataset_hash(usable) != plan.data_hash:
        raise IntegrityError("the data have changed since the run began", str(out), "Train anew with another --out")
    parts, folds = _parts(out, int(plan["split.folds"]))
    spent = max(float(state_of(folder).get("seconds", 0.0)) for folder in (out, *_trainings_within(out)))
    made = Planned(replace(plan, data=str(out / plan.data)), examination, parts, folds=folds)
    return Begun(out, made, spent)


def _trainings_within(out: Path) -> list[Path]:
    """The folders of folds, of what goes before in a cascade, of what is trained beside it, and of trials."""
    beside = out / IMAGE_ONLY
    folds = sorted(out.glob("fold_*"))
    trials = [trial for folder in (out, *folds) for trial in sorted((folder / SEARCH).glob("*_*"))]
    others = [folder for place in (out / BEFORE, beside) for folder in sorted(place.glob("fold_*"))]
    return [*folds, *others, *([beside] if beside.is_dir() else []), *trials]


def state_of(folder: Path) -> dict[str, Any]:
    """The state of the last checkpoint of a training; nothing where there is none."""
    place = folder / "checkpoints" / "last" / "state.json"
    return read_json(place, STATE_SCHEMA) if place.is_file() else {}


def _parts(out: Path, folds: int) -> tuple[dict[str, Split], tuple[dict[str, Split], ...]]:
    """The parts of `split.csv`, those of the first fold and those of each."""
    table = read_split(out / "split.csv")
    by_fold: list[dict[str, Split]] = []
    for fold in range(max(1, folds)):
        rows = table[table["fold"] == str(fold)]
        by_fold.append(dict(zip(rows["case"], rows["split"], strict=True)))
    return by_fold[0], tuple(by_fold) if folds else ()
