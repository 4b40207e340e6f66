"""A plan with the data that it was made for: the parts of the cases, the plan of each fold, what a plan must fit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from hilum import errors
from hilum.lazy import pandas as pd
from hilum.planning import plan_changes, plan_checks, plan_text, training_memory
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules.split_rules import Parts
from hilum.planning.search_domains import Room
from hilum.quality import dataset_examination, shortcut_tests
from hilum.quality.dataset_examination import Examination
from hilum.report import InNotebook
from hilum.values import Plan, Split, plan_decisions, record_schema
from hilum.values.dataset_fingerprint import Shortcut
from hilum.values.record_schema import RecordHead, RecordSchema, StatedDecision

# The options of a plan that are no reading options: it trains on every case; the covariates that were asked for.
EVERYTHING = "everything"
COVARIATES = "covariates"
# Of a training without references: paths of further data sets, and of a run whose held-out patients it must not see.
FURTHER = "further"
LEAVE_OUT = "leave_out"
# Of a training on masks: structures of which a person says that cases without them exist.
LESIONS = "lesions"
# The decision on cases that a warning names, and its word for leaving them out.
WARNED = "split.warned"
LEAVE = "leave"
FURTHER_OPTIONS = (EVERYTHING, COVARIATES, FURTHER, LEAVE_OUT, LESIONS)
# What each fold takes from its own training cases. The grid is common, because the folds become one model whose outputs
# are averaged voxel by voxel, and so are labels and tolerances, by which it is scored.
SCALE = "preprocessing.normalisation"
STATISTICS = ("counts", "weights", "prior_shift", "several", "event_free")
OWN = (*(f"task.{name}" for name in STATISTICS), "network.context", SCALE)


class DecisionRow(StatedDecision):
    """A decision of a plan, by its name "section.decision"."""

    name: str


class PlanRecord(RecordHead):
    """The decisions of a plan; data_hash: of the contents that were planned for."""

    data_hash: str
    rows: list[DecisionRow]


PLAN_SCHEMA = RecordSchema("hilum.plan", PlanRecord)
# Why a case that is out of all proportion is left out.
TOO_LARGE = "it is left out: its prediction would take more time than all others"
# Why a slide without a tile of tissue is left out.
NO_TILES = "a bag has none"


def count_in_cases(plan: Plan) -> Plan:
    """The plan with reasons that count cases in place of patients; a class may be called "patient", and stays."""
    for name, decision in plan:
        if (because := plan_decisions.patients_as_cases(decision.because)) != decision.because:
            plan = plan.with_decision(name, replace(decision, because=because))
    return plan


@dataclass(frozen=True, eq=False)
class PlannedTraining(InNotebook):
    """A plan with the data that it was made for; prints its decisions with their reasons.

    parts: {case id: part}, with folds those of the first
    folds: the parts of each fold; empty where there is one test part
    """

    plan: Plan
    examination: Examination
    parts: Mapping[str, Split]
    out: Path | None = field(default=None)
    folds: tuple[Parts, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", self.of_cases(self.plan))

    def of_cases(self, plan: Plan) -> Plan:
        """The plan, its reasons in cases where nobody knows whose they are: no patients are counted then."""
        return plan if self.examination.dataset.patients_known else count_in_cases(plan)

    def of_fold(self, number: int) -> PlannedTraining:
        """The plan and parts of one fold: every statistic in it is of that fold's training cases."""
        parts = self.folds[number]
        fingerprint = self.examination.fingerprint.only(training_ids(parts))
        asked = self.plan.options.get(COVARIATES)
        plan = plan_changes.plan_for_fold(self.plan, self.examination.dataset, fingerprint, asked)
        return replace(self, plan=plan, parts=parts)

    def plan_of(self, fold: int | None) -> Plan:
        """The plan that a fold follows: that of the run, with the statistics of its own training cases."""
        if fold is None:
            return self.plan
        of_fold = self.of_fold(fold).plan
        names = [name for name in of_fold.names if any(plan_decisions.names_decision(name, option) for option in OWN)]
        methods, of_all = ([channel["method"] for channel in one[SCALE]] for one in (of_fold, self.plan))
        if methods != of_all:  # one model, one kind of scale
            names = [name for name in names if name != SCALE]
        return self.plan.with_decisions({name: of_fold.decision(name) for name in names})

    @property
    def numbers(self) -> Sequence[int | None]:
        """Numbers of the folds; (None,) where one training has its own test part."""
        return range(len(self.folds)) if self.folds else (None,)

    def parts_of(self, fold: int | None) -> Parts:
        """The parts of a fold, or those of the one training."""
        return self.parts if fold is None else self.folds[fold]

    @cached_property
    def settings(self) -> PlanSettings:
        """The settings that the plan decides."""
        return plan_checks.checked_settings(self.plan)

    @cached_property
    def room(self) -> Room:
        """The training cases and the machine that a plan must fit."""
        machine = training_memory.this_machine(self.plan["training.device"], self.plan["training.threads"])
        return Room(self.examination.fingerprint.only(training_ids(self.parts)), machine)

    @property
    def fewest_that_select(self) -> int:
        """Validation patients, of folds those of the one that has fewest; with inner folds validation cases.

        The cases of one patient are no independent evidence; with inner folds they only choose what training cases
        confirm.
        """
        confirmed = self.settings.split.inner_folds
        owners = {case.id: case.id if confirmed else case.patient for case in self.examination.dataset}
        return min(
            len({owners[case] for case, part in parts.items() if part == "val"})
            for parts in self.folds or (self.parts,)
        )

    def __repr__(self) -> str:
        return self._show(plan_text.plan_overview(self.plan))

    @property
    def all_decisions(self) -> str:
        """The plan as text with every decision, those that have their defaults too."""
        return self._show(plan_text.plan_overview(self.plan, whole=True))

    def _show(self, text: str) -> str:
        lines = [
            *self.left_out,
            *self.warned_sentences,
            *shortcut_tests.shortcut_notes(self.shortcuts),
            *([f"written: {self.out}"] if self.out else []),
        ]
        return "\n".join([text, *(f"\n{line}" for line in lines)])

    @property
    def warned_cases(self) -> frozenset[str]:
        """Ids of usable cases that a warning names which a person could accept."""
        return self.examination.warned_cases

    @property
    def leaves_warned_out(self) -> bool:
        """Whether warned cases neither train nor select."""
        return WARNED in self.plan and self.plan[WARNED] == LEAVE

    @property
    def warned_sentences(self) -> list[str]:
        """How many warned cases train all the same, or are left out; none where there are no such cases."""
        parts = [part for one in self.folds or (self.parts,) for part in one.items()]
        used = {case for case, part in parts if part != "test"} & self.warned_cases
        # With folds a case that is left out of training tests one of them all the same.
        tested = {case for case, part in parts if part == "test"} if not self.folds else set()
        own_test = {case for case, part in self.examination.dataset.splits.items() if part == "test"}
        lost = self.warned_cases - used - tested - own_test
        trained = errors.count_phrase(len(used), "case with a warning trains", "cases with a warning train")
        trained = f"{trained} or {'selects' if len(used) == 1 else 'select'} all the same"
        which = "it" if len(used) == 1 else "them"
        hint = f"(--warned leave leaves {which} out; `hilum check DATA` says why)"
        left = errors.count_phrase(len(lost), "case with a warning", "cases with a warning")
        return [
            *([f"{trained}: {errors.list_phrase(sorted(used))} {hint}."] if used else []),
            *(
                [f"{left} left out of training: {errors.list_phrase(sorted(lost))} ({WARNED})."]
                if lost and self.leaves_warned_out
                else []
            ),
        ]

    @property
    def left_out(self) -> list[str]:
        """The cases that are in no part because they cannot be used, in sentences; why the plan itself excludes one."""
        faults = [one for one in self.examination.problems if one.severity == "error"]
        by_plan = [one for one in faults if one.why in (TOO_LARGE, NO_TILES)]
        lost = {case for one in faults for case in one.cases} - {case.id for case in self.examination.dataset}
        names = sorted(lost - {case for one in by_plan for case in one.cases})
        of_all = errors.count_phrase(len(self.examination.dataset) + len(lost), "case")
        listed = f"{len(names)} of {of_all} left out: {errors.list_phrase(names)} (`hilum check DATA` says why)."
        return [*([listed] if names else []), *(f"left out: {one.what}. {one.remedy}." for one in by_plan)]

    def with_memory_of(self, edited: Plan) -> Plan:
        """An edited plan for these cases with its peak of memory predicted anew; ResourceError if it does not fit."""
        machine = training_memory.this_machine(edited["training.device"], edited["training.threads"])
        return plan_changes.with_predicted_memory(
            edited, self.examination.fingerprint.only(training_ids(self.parts)), machine
        )

    @property
    def shortcuts(self) -> tuple[Shortcut, ...]:
        """The shortcuts in what the network sees: those that were found, until they are shown to be gone."""
        shortcuts = self.examination.shortcuts
        if not any(one.standing for one in shortcuts):
            return shortcuts
        aspect, border, shape = (self.plan[f"preprocessing.{name}"] for name in ("aspect", "border", "shape"))
        return dataset_examination.retest_shortcuts(self.examination, aspect=aspect, border=border, shape=shape)

    @property
    def explained(self) -> str:
        """Every decision with its reason and source, a line each."""
        return plan_text.decision_lines(self.plan)

    @property
    def table(self) -> pd.DataFrame:
        """The decisions, a row each: name, value, because, source."""
        return pd.DataFrame(self.as_record()["rows"])

    def as_record(self) -> PlanRecord:
        """The record for `--json`."""
        decisions = [DecisionRow(name=name, **record_schema.decision_record(one)) for name, one in self.plan]
        return PlanRecord(schema=PLAN_SCHEMA, version=1, data_hash=self.plan.data_hash, rows=decisions)


def with_relative_data(plan: Plan, folder: Path) -> Plan:
    """The plan with its data path relative to the folder that it will lie in."""
    if not plan.data:
        return plan
    try:
        return replace(plan, data=Path(os.path.relpath(plan.data, folder.resolve())).as_posix())
    except ValueError:  # another drive on Windows has no relative path
        return plan


def training_ids(parts: Parts) -> set[str]:
    """Ids of the training cases."""
    return {case for case, part in parts.items() if part == "train"}
