"""Wishes of a person for a plan, and the plan that is made for the data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import PlanError, ResourceError, UsageError
from hilum.files.storage import hashing
from hilum.planning import (
    PlannedTraining,
    plan_changes,
    plan_checks,
    plan_result,
    planner,
    training_memory,
    typed_sections,
)
from hilum.planning.plan_file import GROUPS
from hilum.planning.plan_inputs import Wishes
from hilum.planning.plan_result import (
    COVARIATES,
    EVERYTHING,
    FURTHER,
    LEAVE,
    LEAVE_OUT,
    LESIONS,
    NO_TILES,
    TOO_LARGE,
    WARNED,
)
from hilum.planning.rules import (
    group_rules,
    learning_rules,
    objective_rules,
    privacy_rules,
    site_rules,
    split_rules,
)
from hilum.planning.rules.learning_rules import TAKEN
from hilum.planning.rules.preprocessing_rules import ShortcutRetest
from hilum.planning.rules.site_rules import FOLDS_BY
from hilum.planning.rules.split_rules import Parts
from hilum.planning.training_memory import Machine
from hilum.quality import dataset_examination, synthetic_images
from hilum.quality.dataset_examination import Examination
from hilum.reading import ReadingOptions, alignment, dataset_reading
from hilum.reading.dataset_reading import Data
from hilum.runs import initial_weights
from hilum.runs.initial_weights import WeightSource
from hilum.runtime import hardware, proportion
from hilum.runtime.preprocessing.coarse_mask import NO_TISSUE
from hilum.runtime.proportion import MOST_TIMES, UNLIKE_SPACING, Looking
from hilum.tasks import task_catalogue
from hilum.values import BY_HAND, CaseFacts, Dataset, Decision, Fingerprint, Geometry, PlainValue, Plan, Problem
from hilum.values.dataset_fingerprint import Shortcut
from hilum.values.plan_decisions import Assignments
from hilum.work_state import log

# Of a training that nobody set a time for.
USUAL_MINUTES = 60.0
# How often a plan is made anew without cases out of all proportion, until the same ones stay out.
MOST_PLANS = 3
# By its suffix `train` knows a plan from data.
PLAN_SUFFIXES = (".yaml", ".yml")
POSITIVE = "task.positive"


@dataclass(frozen=True)
class PlanRequest:
    """The wishes of a person for a plan; None where nobody decided.

    minutes:     from a command's start to the finished model
    everything:  train on all cases but a set's own test part
    folds:       cross-validation in so many parts; 0 for one test part
    device_memory: GiB of a GPU that need not be here
    device_because: why a plan that is followed has this device; empty where there is no such plan
    assignments: {"section.name": value} set by hand
    source:      the model whose weights training starts from
    further:     paths of data sets that are learnt from with the first
    leave_out:   a run whose validation, calibration and test patients are left out
    lesions:     structures of masks without which cases exist
    watch:       called while cases are read, with how many are and with all
    elsewhere:   whether other sites may know structures that no case here knows
    """

    minutes: float | None = None
    device: str | None = None
    threads: int | None = None
    seed: int | None = None
    task: str | None = None
    everything: bool = False
    folds: int | None = None
    assignments: Assignments = field(default_factory=dict)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    device_memory: float | None = None
    device_because: str = ""
    source: WeightSource | None = None
    further: tuple[str, ...] = ()
    leave_out: str | None = None
    lesions: Sequence[str] = ()
    watch: Callable[[int, int], None] | None = None
    elsewhere: bool = False

    def number(self, name: str, otherwise: int | None) -> int:
        """A number set by hand that decides before there is a plan; the plan refuses another kind of value."""
        value = self.assignments.get(name)
        return value if isinstance(value, int) and value >= 0 else otherwise or 0

    @property
    def task_settings(self) -> dict[str, PlainValue]:
        """Settings of the task that were set by hand, by which cases are made; the plan refuses what cannot be."""
        names = [name for name in self.assignments if name.startswith("task.")]
        settings = {name.removeprefix("task."): self.assignments[name] for name in names}
        return {**settings, "pairs": self.number("task.pairs", None) or None}

    def number_between(self, name: str, low: float, high: float) -> float | None:
        """A number set by hand; None where nobody set it, or the plan refuses it."""
        value = self.assignments.get(name)
        return float(value) if isinstance(value, int | float) and low <= value < high else None

    @property
    def effective_request(self) -> PlanRequest:
        """The request with values set by hand in place of flags of the same names, so that all rules follow them."""
        kinds: dict[str, Any] = {"minutes": int | float, "device": str, "threads": int}
        values = {name: self.assignments.get(f"training.{name}") for name in kinds}
        return replace(self, **{name: one for name, one in values.items() if isinstance(one, kinds[name])})

    @property
    def terms(self) -> Sequence[str] | None:
        """The objectives set by hand; None where nobody set them, or the plan refuses them."""
        value = self.assignments.get("objectives.terms")
        return value if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value) else None

    @property
    def spacing(self) -> Sequence[float] | None:
        """The spacing of the grid in mm, set by hand; None where nobody set it, or the plan refuses it."""
        value = self.assignments.get("preprocessing.spacing")
        if isinstance(value, list | tuple) and all(isinstance(n, int | float) and 0 < n < math.inf for n in value):
            return value
        return None


def positive_among(assignments: Mapping[str, PlainValue], positive: str | None) -> dict[str, PlainValue]:
    """Values set by hand with the positive class, where it is stated; UsageError where it is stated twice."""
    if positive is None:
        return dict(assignments)
    if POSITIVE in assignments:
        raise UsageError(f"conflicts with --set {POSITIVE}", "--positive", "Give one of the two")
    return {**assignments, POSITIVE: positive}


def positive_class_sentences(plan: Plan) -> tuple[str, ...]:
    """A sentence on each positive class that nobody stated: the reason, and the flag that decides otherwise."""
    chosen = {name: one for name, one in plan.sections["task"].items() if name.rpartition(".")[2] == "positive"}
    return tuple(
        f"Positive is {errors.list_phrase(one.value if isinstance(one.value, list) else [one.value])}: {one.because}."
        for one in chosen.values()
        if one.value is not None and one.because != BY_HAND
    )


def plan_from_request(data: Data, request: PlanRequest) -> PlannedTraining:
    """The data read and looked through, and the plan that was asked for; see `plan` for what it raises."""
    _refuse_impossible(request)
    request = request.effective_request
    examination, numbered, chosen, machine = examine_data(data, request)
    if (column := request.assignments.get(FOLDS_BY)) is not None:
        asked = request.number("split.folds", request.folds) or None
        count = site_rules.count_folds(examination.dataset, column, asked, examination.twins)
        request = replace(request, folds=count)
    plan_made, remaining = _plan_of_proportionate(request, examination, numbered, chosen, machine)
    if request.source is None:
        return plan_made
    return _as_source(
        request.source, request, plan_made, lambda one: plan_examined(one, remaining, numbered, chosen, machine)
    )


def plan_of_examined(examination: Examination, numbered: str, request: PlanRequest) -> PlannedTraining:
    """The plan for data that a command has looked through by itself; see `plan` for what it raises.

    numbered: why its label maps are taken for numbered objects, as in `examine_data`
    """
    _refuse_impossible(request)
    device, machine = _device_and_machine(request)
    planned, _ = _plan_of_proportionate(request, _of_task(examination, request), numbered, device, machine)
    return planned


def _plan_of_proportionate(
    request: PlanRequest, examination: Examination, numbered: str, chosen: Decision, machine: Machine
) -> tuple[PlannedTraining, Examination]:
    """The plan without cases out of all proportion, and the examination without them."""
    plan_made, left_out = plan_examined(request, examination, numbered, chosen, machine), list[Problem]()
    for _ in range(MOST_PLANS):  # without such cases the grid, and with it their windows, may be another
        large = [] if request.reading.allow_large else oversized_case_errors(plan_made, examination.fingerprint)
        large += bare_slide_errors(plan_made.plan, examination.fingerprint)
        if {one.cases for one in large} == {one.cases for one in left_out}:
            break
        left_out = large
        plan_made = plan_examined(request, examination.without(large), numbered, chosen, machine)
    return plan_made, examination.without(left_out) if left_out else examination


def _as_source(
    source: WeightSource,
    request: PlanRequest,
    planned_run: PlannedTraining,
    plan: Callable[[PlanRequest], PlannedTraining],
) -> PlannedTraining:
    """The plan with the source's network, grid and intensities, as far as the task can use them; a person's wish wins.

    planned_run: without regard to the source
    plan: for other wishes
    """
    taken = source.decisions_for(planned_run.plan)
    if request.assignments.get("network.name", taken.get("network.name")) != taken.get("network.name"):
        taken = {name: value for name, value in taken.items() if not name.startswith("network.")}
    taken = {name: value for name, value in taken.items() if name not in request.assignments}
    network = {name: value for name, value in taken.items() if name.startswith("network.")}
    for wishes in filter(None, (taken, network if network != taken else {})):
        try:
            like = plan(replace(request, assignments={**wishes, **request.assignments}))
        except (PlanError, ResourceError) as error:
            log.info("%s of %s cannot be used here: %s", ", ".join(wishes), source.name, error)
            continue
        because = f"{TAKEN}{source.name}: features learnt so are used as they were learnt"
        reasons = {name: Decision(like.plan[name], because) for name in wishes}
        return replace(like, plan=learning_rules.with_transfer(like.plan.with_decisions(reasons)))
    return replace(planned_run, plan=learning_rules.with_transfer(planned_run.plan))


def plan_examined(
    request: PlanRequest, examination: Examination, numbered: str, chosen: Decision, machine: Machine
) -> PlannedTraining:
    """The plan that was asked for, for cases that were looked through; the rest as `examine_data` gives it."""
    usable, seed = examination.dataset, request.number("training.seed", request.seed)
    made_of, parted = split_cases(examination, request)
    if request.assignments.get(WARNED) == LEAVE:
        made_of = tuple(split_rules.without_warned(usable, one, examination.warned_cases) for one in made_of)
    parts, ids = made_of[0], plan_result.training_ids(made_of[0])
    training = examination.fingerprint.only(ids)
    asked = request.assignments.get("network.context")
    plan_made = planner.make_plan(
        usable,
        training,
        parted["method"],
        machine,
        Wishes(
            chosen,
            USUAL_MINUTES if request.minutes is None else request.minutes,
            seed,
            request.number("split.folds", request.folds),
            request.task,
            network=request.assignments.get("network.name"),
            head=request.assignments.get("task.head"),
            terms=request.terms,
            target=() if request.terms else tuple(request.assignments.get("objectives.target") or ()),
            context=asked,
            modality_dropout=request.number_between("training.modality_dropout", 0, 1),
            spacing=request.spacing,
            reduction=request.number_between("preprocessing.reduction", 1, math.inf),
            configurations=request.assignments.get("search.configurations"),
            apart=alignment.is_apart(request.reading.align),
        ),
        _retest(examination, ids, seed),
    )
    plan_made = plan_made.with_decision("split.calibration", parted["calibration"])
    if numbered:
        because = f"the label maps number single objects: {numbered}"
        plan_made = plan_made.with_decision("task.name", Decision(plan_made["task.name"], because))
    if request.minutes is None:
        plan_made = plan_made.with_decision("training.minutes", Decision(USUAL_MINUTES, "no other time was asked for"))
    folds = made_of if plan_made["split.folds"] else ()
    shared = plan_changes.shared_by_folds(plan_made) if folds else plan_made
    plan_made = _by_hand(shared, request.assignments, usable, training, machine)
    by_threshold = [name for name, _ in plan_made if name.endswith("group_thresholds")]
    for name in (GROUPS, "training.protected", *by_threshold):
        group_rules.refuse_groups(plan_made[name], usable, ids, name)
    if plan_made["objectives.domain"] is not None:
        site_rules.refuse_sites([case for case in usable if case.id in ids], plan_made["objectives.domain"], "--domain")
    task = plan_checks.checked_settings(plan_made).task
    alignment.refuse_dense(task, request.reading.align)
    plan_made = split_rules.with_inner_folds(plan_made, task, usable, parts)
    root = "" if usable.root is None else str(usable.root)
    # Covariates are kept without folds too: whoever adds them to the plan needs them for the encoding of each.
    further: dict[str, Any] = {EVERYTHING: request.everything or None, FURTHER: list(request.further) or None}
    further |= {LEAVE_OUT: request.leave_out, COVARIATES: asked, LESIONS: list(request.lesions) or None}
    options = {**request.reading.chosen_options, **{name: one for name, one in further.items() if one is not None}}
    plan_made = replace(plan_made, data=root, data_hash=hashing.dataset_hash(usable), options=options)
    return PlannedTraining(plan_made, examination, parts, folds=folds)


def oversized_case_errors(planned_run: PlannedTraining, every: Fingerprint) -> list[Problem]:
    """An error for each case that would take far more windows than the training cases, by the grid of the plan.

    every: the facts of all cases, also of those that were left out of the plan for this reason
    """
    chosen, facts = plan_checks.checked_settings(planned_run.plan), {one.id: one for one in every.cases}
    looking = Looking(chosen.preprocessing, chosen.inference.patch, chosen.inference.overlap)
    grids = {name: _grid(one) for name, one in facts.items()}
    large = dict[str, int]()
    for parts in planned_run.folds or (planned_run.parts,):
        large |= proportion.disproportionate_cases(looking, grids, plan_result.training_ids(parts))
    usual = Fingerprint(tuple(one for one in facts.values() if one.id not in large))
    return [_too_large(facts[name], windows, usual) for name, windows in large.items()]


def bare_slide_errors(plan: Plan, every: Fingerprint) -> list[Problem]:
    """An error for each slide that has no tile of tissue, where slides become bags of such."""
    if "tiles" not in plan.sections or plan["preprocessing.tissue"] == "none":
        return []
    bare = [one.id for one in every.cases if one.tissue == 0]
    remedy = "Look at it; --set preprocessing.tissue=none takes all of it"
    return [Problem.error(f"{name}: {NO_TISSUE}", (name,), NO_TILES, remedy) for name in bare]


def _grid(facts: CaseFacts) -> Geometry:
    grid = Geometry.of_spacing(facts.shape, facts.steps) if facts.physical else Geometry.of_pixels(facts.shape)
    return replace(grid, unit=facts.unit)


def _too_large(facts: CaseFacts, windows: int, usual: Fingerprint) -> Problem:
    """The error about one case; usual: the others."""
    steps, steps_of_case = np.median(usual.steps, axis=0), np.array(facts.steps)
    what = f"it would take {windows:,} windows, more than {MOST_TIMES} times as many as any that trains"
    if facts.physical and (np.maximum(steps_of_case / steps, steps / steps_of_case) >= UNLIKE_SPACING).any():
        spacings = [" x ".join(f"{step:.4g}" for step in each) for each in (steps_of_case, steps)]
        what += f": spacing {spacings[0]} {facts.unit} where the others have {spacings[1]}, a wrong header is likely"
    remedy = "Correct its header, or keep it by --allow-large"
    return Problem.error(f"{facts.id}: {what}", (facts.id,), TOO_LARGE, remedy)


def _refuse_impossible(request: PlanRequest) -> None:
    """UsageError or PlanError for what can be refused before the data are read."""
    if request.minutes is not None and not 0 < request.minutes < math.inf:
        raise UsageError(f"{request.minutes:g} minutes", "--minutes", "Give more than 0")
    if request.seed is not None:
        typed_sections.check_value("training.seed", request.seed)
    folds = request.number("split.folds", request.folds)
    if request.everything and (folds or request.assignments.get(FOLDS_BY)):
        raise UsageError("every case trains, so no fold is left to test", "--all", "Leave out --all or --folds")
    if request.everything and request.number("split.calibration", 0):
        problem = "every case trains, so that none is left to calibrate"
        raise UsageError(problem, "split.calibration", "Leave out --all, or give 0")
    on_paper = request.device_memory is not None
    if on_paper:
        _refuse_no_gpu(request)
    plan_checks.check_wishes(request.assignments, folds=folds, device="cpu" if on_paper else request.device or "auto")


def _refuse_no_gpu(request: PlanRequest) -> None:
    """UsageError for memory of anything but a GPU that is named, or of an impossible size."""
    device, memory = request.device or "auto", request.device_memory or 0.0
    if not re.fullmatch(r"cuda:\d+", device):
        problem = f"{memory:g} GiB are those of a GPU, and the device is {device}"
        raise UsageError(problem, "--device-memory", "Name one, as in --device cuda:0")
    if not 0 < memory < math.inf:
        raise UsageError(f"{memory:g} GiB", "--device-memory", "Give more than 0")


def examine_data(data: Data, request: PlanRequest) -> tuple[Examination, str, Decision, Machine]:
    """The data set looked through, with the cases that teach this kind of problem something; where to compute.

    And why its label maps are taken for numbered objects; nothing where they are not, or that was asked for.
    """
    device, machine = _device_and_machine(request)

    def opened(needs: Collection[str]) -> Dataset:
        places = [data, *request.further]
        dataset = dataset_reading.open_for_task(request.task, places, request.reading, needs, request.task_settings)
        return replace(dataset, lesions=frozenset(request.lesions))

    _, examination, numbered = dataset_reading.open_and_examine(
        opened,
        request.task,
        machine.threads,
        watch=request.watch,
    )
    examination = _of_task(examination, request)
    if request.leave_out is not None:
        examination = initial_weights.without_held_out(examination, Path(request.leave_out), machine.threads)
    return examination, numbered, device, machine


def _device_and_machine(request: PlanRequest) -> tuple[Decision, Machine]:
    """Where to compute, and what there is of it."""
    if request.device_memory is None:
        device = hardware.announced_device(request.device or "auto", because=request.device_because)
    else:
        because = f"asked for, with {request.device_memory:g} GiB of memory, which need not be on this machine"
        device = Decision(request.device, because)
    machine = training_memory.this_machine(device.value, request.threads, request.device_memory)
    return device, machine


def _of_task(examination: Examination, request: PlanRequest) -> Examination:
    """The cases that teach this kind of problem something; DatasetError where nothing should be trained on them."""
    dataset_reading.refuse_unfit(examination, request.task, elsewhere=request.elsewhere)
    kind = task_catalogue.kind_for_dataset(examination.dataset, request.task)
    usable = dataset_reading.keep_referenced(examination.dataset, kind)
    return examination.of_task(usable, kind.needs)


def _by_hand(
    plan: Plan, assignments: Mapping[str, PlainValue], dataset: Dataset, training: Fingerprint, machine: Machine
) -> Plan:
    """The plan with what was set by hand, refused where it cannot be followed, and the memory that it then takes.

    Names of covariates are left as they are: the training cases have decided which columns there are.
    """
    others = {name: value for name, value in assignments.items() if name != "network.context"}
    if not others:
        return plan
    plan = objective_rules.with_objective_settings(plan_changes.with_settings(plan, others), dataset, training)
    plan = privacy_rules.with_units(plan, dataset, training)
    plan_checks.checked_settings(plan)
    return plan_changes.with_predicted_memory(plan, training, machine)


def split_cases(examination: Examination, request: PlanRequest) -> tuple[tuple[Parts, ...], dict[str, Decision]]:
    """The parts of the cases, of one split or of each fold, and the decisions of section "split" on them."""
    dataset = examination.dataset
    if not (synthetic := synthetic_images.synthetic_training_images(dataset)):
        return _split_real_cases(examination, request)
    real = replace(examination, dataset=dataset.only({case.id for case in dataset} - synthetic))
    splits, decisions = _split_real_cases(real, request)
    splits, method = split_rules.with_synthetic_images(splits, decisions["method"], synthetic, examination.twins)
    return splits, {**decisions, "method": method}


def _split_real_cases(examination: Examination, request: PlanRequest) -> tuple[tuple[Parts, ...], dict[str, Decision]]:
    """The same of a data set without synthetic images."""
    dataset, twins = examination.dataset, examination.twins
    folds = request.number("split.folds", request.folds)
    seed = request.number("split.seed", request.number("training.seed", request.seed))
    cases = examination.fingerprint.cases
    volumes = any(case.components and sum(size > 1 for size in case.shape) > 2 for case in cases)
    if not folds:
        assigned = request.assignments.get("split.calibration")
        calibration = None if assigned is None else request.number("split.calibration", None)
        every = request.everything
        parts, decisions = split_rules.split_dataset(
            dataset, seed=seed, everything=every, twins=twins, volumes=volumes, calibration=calibration
        )
        return (parts,), decisions
    by = request.assignments.get(FOLDS_BY)
    sites = () if by is None else tuple(site_rules.cases_by_site(dataset, by).values())
    splits = split_rules.split_folds(dataset, folds, seed=seed, twins=twins, volumes=volumes, undivided_groups=sites)
    method = split_rules.folds_decision(dataset, splits, seed, volumes=volumes, by=by or "")
    none = Decision(0, "each fold tests cases that it has not seen")
    return splits, {"method": method, "calibration": none}


def _retest(examination: Examination, training: set[str], seed: int) -> ShortcutRetest:
    """The shortcuts that tell the classes apart, and a test of what the training cases show after preprocessing."""

    def after(aspect: str, border: float, shape: Sequence[int] | None) -> Sequence[Shortcut]:
        return dataset_examination.retest_shortcuts(
            examination, aspect=aspect, border=border, shape=shape, ids=training, seed=seed
        )

    patients = {case.patient for case in examination.dataset if case.id in training}
    return ShortcutRetest(examination.shortcuts, examination.unmeasured, len(patients), after)
