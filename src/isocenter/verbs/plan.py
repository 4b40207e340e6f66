"""`plan`: how a model for these data would be trained, and why."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isocenter.errors import UsageError
from isocenter.files import dataset_hash, write_text
from isocenter.planning import (
    Machine,
    Parts,
    Retest,
    Room,
    Wishes,
    check_wishes,
    folds_decision,
    for_fold,
    make_plan,
    overview,
    plan_text,
    prose,
    settings,
    shared_by_folds,
    split,
    split_folds,
    this_machine,
    with_memory,
    with_settings,
)
from isocenter.quality import Examination, retested
from isocenter.tasks import kind_for, needs_of
from isocenter.values import Dataset, Decision, Fingerprint, Plan, Shortcut, Split
from isocenter.verbs.reading import (
    READING,
    announced_device,
    looked_through,
    open_dataset,
    refuse_taken,
    refuse_unfit,
    with_references,
)

# Of a training that nobody set a time for.
USUAL_MINUTES = 60.0


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan with the data that it was made for; prints its decisions with their reasons.

    parts: {case id: part}, with folds those of the first
    folds: the parts of each fold; empty where there is one test part
    """

    plan: Plan
    examination: Examination
    parts: Mapping[str, Split]
    out: Path | None = field(default=None)
    folds: tuple[Parts, ...] = ()

    def of_fold(self, number: int) -> Planned:
        """The plan and parts of one fold: every statistic in it is of that fold's training cases."""
        parts = self.folds[number]
        fingerprint = self.examination.fingerprint.only(_training(parts))
        return replace(self, plan=for_fold(self.plan, self.examination.dataset, fingerprint), parts=parts)

    def __repr__(self) -> str:
        return "\n".join([overview(self.plan), *([f"\nwritten: {self.out}"] if self.out else [])])

    def with_memory_of(self, edited: Plan) -> Plan:
        """An edited plan for these cases with its peak of memory predicted anew; ResourceError if it does not fit."""
        machine = this_machine(edited["training.device"], edited["training.threads"])
        return with_memory(edited, self.examination.fingerprint.only(_training(self.parts)), machine)

    @property
    def shortcuts(self) -> tuple[Shortcut, ...]:
        """What tells the classes apart in what the network sees: after the plan's preprocessing."""
        found = self.examination.shortcuts
        if not any(one.standing for one in found):
            return found
        aspect, border, shape = (self.plan[f"preprocessing.{name}"] for name in ("aspect", "border", "shape"))
        return retested(self.examination, aspect=aspect, border=border, shape=shape)

    @property
    def explained(self) -> str:
        """The reasons as prose, a paragraph for each section."""
        return prose(self.plan)

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        decisions = [
            {"name": name, "value": one.value, "because": one.because, "source": one.source} for name, one in self.plan
        ]
        return {"schema": "isocenter.plan", "version": 1, "data_hash": self.plan.data_hash, "rows": decisions}


def plan(
    data: str | Path | Dataset,
    *,
    minutes: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    task: str | None = None,
    everything: bool = False,
    folds: int = 0,
    assignments: Mapping[str, Any] | None = None,
    **given: Any,
) -> Planned:
    """Every choice that training on `data` would make, each with its reason.

    minutes:     from a command's start to the finished model; 60 where None
    out:         a .yaml file to edit and train from; nothing is written without it
    assignments: {"section.name": value} set by hand
    everything:  train on all cases but a set's own test part
    folds:       cross-validation in so many parts; 0 for one test part
    Raises what `check` raises, DatasetError where the data should not be trained on, PlanError for an impossible value.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"{minutes} minutes", "--minutes", "Give more than 0")
    if out is not None:
        refuse_taken(Path(out), overwrite)
    seed = _wanted(assignments, "training.seed", seed)
    folds = _wanted(assignments, "split.folds", folds)
    if everything and folds:
        raise UsageError("every case trains, so no fold is left to test", "--all", "Leave out --all or --folds")
    check_wishes(assignments or {}, folds=folds, device=device)
    dataset = open_dataset(data, given, needs=needs_of(task))
    chosen = announced_device(device)
    machine = this_machine(chosen.value, threads)
    examination = looked_through(dataset, machine.threads)
    refuse_unfit(examination)
    usable = with_references(examination.dataset, kind_for(examination.dataset, task))
    examination = replace(examination, dataset=usable, problems=usable.problems)
    drawn = _wanted(assignments, "split.seed", seed)
    made_of, decision = _parted(usable, examination.twins, folds, seed=drawn, everything=everything)
    parts = made_of[0]
    training = examination.fingerprint.only(_training(parts))
    made = make_plan(
        usable,
        training,
        decision,
        machine,
        Wishes(
            chosen,
            USUAL_MINUTES if minutes is None else minutes,
            seed,
            folds,
            task,
            network=(assignments or {}).get("network.name"),
            context=(assignments or {}).get("network.context"),
            modality_dropout=_share(assignments, "training.modality_dropout"),
        ),
        _retest(examination, _training(parts), seed),
    )
    if minutes is None:
        made = made.with_decision("training.minutes", Decision(USUAL_MINUTES, "no other time was asked for"))
    decided = {"network.context"}  # names of columns, of which the training cases have told the rest
    others = {name: value for name, value in (assignments or {}).items() if name not in decided}
    made = _by_hand(shared_by_folds(made) if folds else made, others, training, machine)
    kept = {key: given[key] for key in READING if given.get(key)}
    place = "" if dataset.root is None else str(dataset.root)
    made = replace(
        made, data=place, data_hash=dataset_hash(usable), options=kept | ({"everything": True} if everything else {})
    )
    target = Path(out) if out is not None else None
    if target is not None:
        write_text(target, plan_text(relative_to(made, target.parent)), overwrite=overwrite)
    return Planned(made, examination, parts, target, made_of if folds else ())


def _by_hand(made: Plan, assignments: Mapping[str, Any] | None, training: Fingerprint, machine: Machine) -> Plan:
    """With what was set by hand, refused where it cannot be followed, and the memory that it then takes."""
    if not assignments:
        return made
    made = with_settings(made, assignments)
    settings(made)
    return with_memory(made, training, machine)


def _wanted(assignments: Mapping[str, Any] | None, name: str, otherwise: int) -> int:
    """A number set by hand that decides before there is a plan; another value is refused with the others."""
    value = (assignments or {}).get(name)
    return value if isinstance(value, int) and value >= 0 else otherwise


def _share(assignments: Mapping[str, Any] | None, name: str) -> float | None:
    """The same of a share; None where nobody set it."""
    value = (assignments or {}).get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value < 1 else None


def _parted(
    dataset: Dataset, twins: tuple[frozenset[str], ...], folds: int, *, seed: int, everything: bool
) -> tuple[tuple[Parts, ...], Decision]:
    if not folds:
        parts, decision = split(dataset, seed=seed, everything=everything, twins=twins)
        return (parts,), decision
    made = split_folds(dataset, folds, seed=seed, twins=twins)
    return made, folds_decision(dataset, made, seed)


def _retest(examination: Examination, training: set[str], seed: int) -> Retest | None:
    """What still tells the classes of the training cases apart; None where nothing does as they are."""
    if not any(one.standing and one.removable for one in examination.shortcuts):
        return None

    def retest(aspect: str, border: float, shape: Sequence[int] | None) -> Sequence[Shortcut]:
        return retested(examination, aspect=aspect, border=border, shape=shape, ids=training, seed=seed)

    return retest


def _training(parts: Parts) -> set[str]:
    return {case for case, part in parts.items() if part == "train"}


def fewest_that_select(made: Planned) -> int:
    """Validation cases, of folds those of the one that has fewest."""
    return min(list(parts.values()).count("val") for parts in made.folds or (made.parts,))


def room_of(made: Planned) -> Room:
    """What a plan for the training cases must fit."""
    machine = this_machine(made.plan["training.device"], made.plan["training.threads"])
    return Room(made.examination.fingerprint.only(_training(made.parts)), machine)


def relative_to(made: Plan, folder: Path) -> Plan:
    """The plan with its data path relative to the folder that it will lie in."""
    if not made.data:
        return made
    try:
        return replace(made, data=Path(os.path.relpath(made.data, folder.resolve())).as_posix())
    except ValueError:  # another drive on Windows has no relative path
        return made
