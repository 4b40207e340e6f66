"""One training of a run: its cases, prepared; its network, trained, alone or with other processes."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from typing_extensions import TypedDict

from hilum import errors, work_state
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.planning import PlanSettings, plan_checks, training_memory
from hilum.planning.rules import site_rules
from hilum.planning.rules.cascade_rules import CROSS_FITS
from hilum.quality import references
from hilum.reading import ReadingOptions
from hilum.reading.reading_options import ALLOW_LARGE
from hilum.report import progress_tracking, wording
from hilum.report.progress_tracking import Tracker
from hilum.runs import _run_trainings, _training_order, teacher_models
from hilum.runs._run_minutes import UNCUT, Cuts
from hilum.runs._run_trainings import RunTraining
from hilum.runs._training_order import MOST_UNSEEN
from hilum.runs.run_folder import RunFolder
from hilum.runtime import Context, Model, cascade, ensemble, hardware, model_assembly, model_files, record_files
from hilum.runtime.model_files import BEFORE
from hilum.runtime.model_schema import ModelOrigin
from hilum.runtime.package.package_contents import WEIGHTS
from hilum.tasks import Task, fitting, properties
from hilum.tasks.task import Origin
from hilum.training import checkpoint_files, recipe
from hilum.training.data import prepared_store
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.processes import Ranks
from hilum.training.session_length import Decided, Length, Recount, SeveralNetworks
from hilum.training.training_state import COLUMNS, CommandClock, Moment, TrainingOutcome
from hilum.values import BY_HAND, Case, Plan, Problem, Split
from hilum.values.record_schema import RecordSchema
from hilum.work_state import log

# Between two pictures of the table (s), and how many characters wide its curves are.
LIVE_SECONDS, CURVE = 0.25, 24
BLOCKS = "▁▂▃▄▅▆▇█"


# Structures that are contoured and have no voxel on the grid of the network, of a training that has any.


class ResampledRow(TypedDict):
    """A warning about labels that a coarser grid lost."""

    what: str
    cases: list[str]
    why: str
    remedy: str


class ResampledRecord(TypedDict):
    """Warnings of the preparation of a training's cases."""

    rows: list[ResampledRow]


RESAMPLED, SCHEMA = "resampled.json", RecordSchema("hilum.resampled", ResampledRecord)


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """One training: a whole run, a fold of it, a stage of a cascade, a control or a trial of a search.

    out:    where its log and its checkpoints are written
    record: goes into the model: data hash, versions
    what:   its name while it runs
    start:  weights of another model to start from
    marked: {case id: file with the labels of the first stage of a cascade}; None without a first stage
    test:   cases that it never sees
    calibration: cases that it never sees, and that choose nothing: guarantees come from them
    fold:   its number; None where the run has one training
    unlabelled: cases of which it sees nothing but the image
    places: {case id: number of its place} of those that train, labelled or not
    cuts:   what is done without after it
    """

    out: Path
    plan: Plan
    train: Sequence[Case]
    val: Sequence[Case]
    record: ModelOrigin
    what: str = "training"
    start: Path | None = None
    marked: Mapping[str, Path] | None = None
    test: Sequence[Case] = ()
    calibration: Sequence[Case] = ()
    fold: int | None = None
    unlabelled: Sequence[Case] = ()
    places: Mapping[str, int] = field(default_factory=dict)
    cuts: Cuts = UNCUT

    @cached_property  # to check them is to build the network, though without memory
    def settings(self) -> PlanSettings:
        """The settings that its plan decides."""
        return plan_checks.checked_settings(self.plan)

    @property
    def whole_record(self) -> ModelOrigin:
        """Record of its model, with the metric that judges it and the machine that trains it."""
        primary, machine = self.plan["evaluation.primary"], hardware.machine_environment()
        return {**self.record, "primary": primary, "environment": machine}

    @property
    def fewest(self) -> int | None:
        """Samples that a batch keeps where there is time for few steps; None: no clock changes what was asked for.

        Nor does it under a privacy budget: the noise of a step is the same for few samples as for many.
        """
        if self.settings.privacy.epsilon is not None:
            return None
        if self.plan.decision("training.batch").because == BY_HAND or self.plan["training.deterministic"]:
            return None
        compared = (objective.fewest for objective in self.settings.terms.values())
        return max(properties.fewest_samples(self.settings.task, self.train), *compared)

    @property
    def is_crossed(self) -> bool:
        """Whether a fold gets what is found after training from the other folds, by the cases that those have not seen.

        Not where outputs of several networks have no scale in common: there its own validation cases decide.
        """
        parts = properties.leaf_tasks(self.settings.task).values()
        return self.fold is not None and bool(self.test) and all(one.tuned_on == ("val",) for one in parts)

    @property
    def tuning(self) -> Sequence[Case]:
        """The cases whose predictions decide what the task leaves open until then; none of a fold that is crossed."""
        if self.is_crossed:
            return ()
        parts: Mapping[Split, Sequence[Case]] = {"train": self.train, "val": self.val}
        part = fitting.deciding_part(self.settings.task, parts)
        return () if part is None else self.cuts.of(parts[part])

    @property
    def origin(self) -> Origin:
        """Whether the cases that decide trained; those of a crossed fold are other folds' cases, which did not."""
        return "unseen" if self.is_crossed or self.val else "training"

    @property
    def unseen(self) -> Sequence[Case]:
        """The cases that a fold has not seen: they decide for other folds, and set sets of the mean of all."""
        if self.fold is None:
            return ()
        # Label maps take their time: so many of each fold, from all over it, are enough.
        return self.cuts.of(_run_trainings.evenly(self.test, MOST_UNSEEN) if self.is_dense else self.test)

    @property
    def is_dense(self) -> bool:
        """Whether a result has values at every voxel."""
        return any(head.is_dense for head in self.settings.task.heads.values())

    def prepare(self) -> tuple[list[PreparedCase], list[PreparedCase]]:
        """Its training and its validation cases as the network sees them."""
        reading = ReadingOptions.of_plan(self.plan.options)
        cases = prepare_cases([*self.train, *self.val], self.settings, reading, self.marked)
        train = with_groups(cases[: len(self.train)], self.train, self.settings)
        return [replace(one, place=self.places[one.id]) for one in train], cases[len(self.train) :]

    def prepared_unlabelled(self) -> list[PreparedCase]:
        """Its unlabelled cases as the network sees them."""
        reading = ReadingOptions.of_plan(self.plan.options)
        if not self.unlabelled:
            return []
        cases = prepare_cases(self.unlabelled, self.settings, reading, with_targets=False)
        return [replace(one, place=self.places[one.id]) for one in cases]


def job_of_undivided_run(run: RunFolder) -> TrainingJob:
    """The training of a run that has one, without folds, stages and search."""
    return job_for_training(run, _training_order.training_of(run.made, {}, None))


def job_for_training(run: RunFolder, training: RunTraining) -> TrainingJob:
    """A training with its cases, and with what its model records of them."""
    fingerprint = run.examination.fingerprint.only({case.id for case in run.cases("train", training.fold)})
    record: ModelOrigin = {
        "data_hash": run.plan.data_hash,
        "patients_known": run.dataset.patients_known,
        "fingerprint": {**fingerprint.summary, "references": references.count_references(fingerprint)},
    }
    if run.plan.options.get(ALLOW_LARGE):  # its own cases are predicted, whatever their part
        record["fingerprint"]["largest"] = run.examination.fingerprint.largest
    if training.role.leaves == "unseen":
        _write_inner_split(run, training)
    parts = {name: run.cases_of(ids) for name, ids in training.cases.items()}
    unlabelled, left_out = run.unlabelled.shown_to(training.cases["train"], {case.id for case in run.dataset})
    if run.unlabelled.cases:
        of_target = sum(case.id in run.unlabelled.target for case in unlabelled)
        record["unlabelled"] = {"cases": len(unlabelled), "of_target": of_target, "left_out": left_out}
    column = training.plan["objectives.domain"]
    sites = {} if column is None else site_rules.sites_of_cases(list(run.dataset), column, "--domain")
    return TrainingJob(
        run.place(training.name),
        training.plan,
        parts["train"],
        parts["val"],
        {**record, **training.record},
        what=training.what,
        start=run.start if training.role.starts_given else None,
        test=parts["test"],
        calibration=parts["calibration"],
        fold=training.fold,
        unlabelled=unlabelled,
        places=run.unlabelled.places(parts["train"], column, sorted({*sites.values()} - {UNKNOWN})),
    )


def _write_inner_split(run: RunFolder, training: RunTraining) -> None:
    """Write the inner fold of every training case, also where few of a part are predicted."""
    file = run.place(training.name).parent / "split.csv"
    if file.is_file():
        return
    main = _training_order.training_of(run.made, {}, training.fold)
    folds = _training_order.fold_by_case(run.made, main, run.made.settings.split.inner_folds)
    file.parent.mkdir(parents=True, exist_ok=True)
    csv_text.write_table(pd.DataFrame(sorted(folds.items()), columns=["case", "fold"]), file)


def write_low_resolution_marks(run: RunFolder, second: RunTraining) -> dict[str, Path]:
    """{case id: file with the labels that the networks at low resolution mark} of what trains and selects.

    A training case is marked by the network that has not seen it, others by the mean of all.
    """
    before, device = run.place(second.name) / BEFORE, second.settings.training.device
    parts = _training_order.fold_by_case(run.made, second, CROSS_FITS)
    cases = run.cases_of([*second.cases["train"], *second.cases["val"]])
    places = {case.id: before / "marked" / f"{_digest(case)}.b2nd" for case in cases}
    missing = [case for case in cases if not places[case.id].is_file()]
    models: dict[int | None, Model] = {}
    with progress_tracking.track_progress("marking cases at low resolution") as tracker:
        for case in tracker.over(missing):
            number = parts.get(case.id)
            if number not in models:
                models[number] = model_files.load(before, device, fold=number)
            labels = cascade.label_numbers(models[number].predict(case), models[number].task.labels)
            prepared_store.keep_label_numbers(np.asarray(labels), places[case.id])
    return places


def _digest(case: Case) -> str:
    """A name that no file system, and no reader of it, could take amiss."""
    return hashlib.sha256(case.id.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FittedTraining:
    """A training that has ended, and the networks whose mean with its own is its model.

    further: of other seeds or slices, and members that a training has left
    """

    job: TrainingJob
    outcome: TrainingOutcome
    further: Sequence[TrainingOutcome] = ()

    @property
    def outcomes(self) -> list[TrainingOutcome]:
        """Its own, then the further ones."""
        return [self.outcome, *self.further]

    @property
    def model(self) -> Model:
        """Its network, or the mean of its networks, with windows as the minutes allow."""
        model = mean_of_trainings([self])
        return replace(model, request=replace(model.request, overlap=self.job.cuts.overlap, samples_prompts=True))

    def with_cuts(self, cuts: Cuts) -> FittedTraining:
        """The same, which does without some of what follows."""
        return replace(self, job=replace(self.job, cuts=cuts, calibration=cuts.of(self.job.calibration)))


def mean_of_trainings(fits: Sequence[FittedTraining]) -> Model:
    """All networks of some trainings as one model."""
    checkpoints = [one.checkpoint for own in fits for one in own.outcomes]
    device = fits[0].job.settings.training.device
    if len(checkpoints) == 1:
        return model_files.load(checkpoints[0], device)
    networks = [model_files.load(one, "cpu") for one in checkpoints]
    mean = ensemble.averaged_model(networks, networks[0].task, networks[0].inference)
    return model_assembly.with_uncertainty(
        ensemble.place_on_device(mean, [one / WEIGHTS for one in checkpoints], device)
    )


def fit_job(
    job: TrainingJob,
    clock: CommandClock,
    decided: Decided,
    recount: Recount | None = None,
    look: Callable[[Moment], None] = lambda moment: None,
    several: SeveralNetworks | None = None,
) -> TrainingOutcome:
    """Prepare the cases and train; goes on from the last checkpoint where there is one.

    decided: takes what a probe, or the speed that was measured since, decided: steps, validations, how to compute
    recount: returns half-way the second by which training must end; None where the steps are fixed
    look:    takes every moment; what it raises ends the training
    several: further networks that may share the time; None where the training has it all
    """
    chosen, ranks = job.settings, Ranks.here()
    hardware.choose_device(chosen.training.device)  # refuses one that this machine lacks
    if (outcome := checkpoint_files.finished_outcome(job.out, chosen)) is not None:
        return outcome
    ranks.part(chosen.training.batch)  # refused before the cases are prepared
    train, val = job.prepare()
    lost = warn_lost_structures([*train, *val], chosen.task)
    for problem in lost:
        log.warning("%s: %s", problem.what, errors.list_phrase(problem.cases))
    if chosen.training.steps is not None and clock.deadline is None:
        log.info("%s for %d steps, as the plan says: the minutes do not count", job.what, chosen.training.steps)
    ranks.agree(Errand(job, clock))
    with show_training(
        job.what, wording.metric_namer(chosen.task.metrics.metric_named(chosen.training.selection))
    ) as shown:

        def watch(moment: Moment) -> None:
            shown(moment)
            look(moment)

        outcome = recipe.train_network(
            chosen,
            train,
            val,
            job.out,
            length=Length(clock, decided, recount, job.fewest, several),
            record=job.whole_record,
            start=job.start,
            unlabelled=job.prepared_unlabelled(),
            watch=watch,
        )
    write_resampled(lost, job.out)
    return outcome


@dataclass(frozen=True, eq=False)
class Errand:
    """A training that the first of several processes asks the others to take part in."""

    job: TrainingJob
    clock: CommandClock


def join_trainings(ranks: Ranks) -> Any:
    """Take part in every training that the first process starts; returns what that process comes to in the end."""
    while isinstance(asked := ranks.agree(None), Errand):
        train, val = asked.job.prepare()
        recipe.train_network(
            asked.job.settings,
            train,
            val,
            asked.job.out,
            length=Length(asked.clock, fewest=asked.job.fewest),
            record={},
            start=asked.job.start,
            unlabelled=asked.job.prepared_unlabelled(),
        )
    return asked


def prepare_cases(
    cases: Sequence[Case],
    chosen: PlanSettings,
    reading: ReadingOptions,
    marked: Mapping[str, Path] | None = None,
    *,
    with_targets: bool = True,
    what: str = "preparing cases",
) -> list[PreparedCase]:
    """The cases as the network sees them.

    marked: as in `TrainingJob`
    with_targets: whether targets are made of the references
    """
    with progress_tracking.track_progress(what) as tracker:
        return prepared_store.prepare_all(
            cases,
            chosen.preprocessing,
            chosen.task if with_targets else None,
            reading=reading.decisive,
            context=Context.from_settings(chosen.network.context),
            columns=Context.from_settings([one.columns_read or {} for one in chosen.terms.values()]),
            marked=marked,
            taught=teacher_models.teacher_answers(cases, chosen),
            threads=chosen.training.threads,
            memory=int(
                training_memory.cached_memory(hardware.available_host_memory())
                / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            ),
            progress=tracker,
        )


def warn_lost_structures(cases: Sequence[PreparedCase], task: Task) -> list[Problem]:
    """One warning for each structure that prepared cases have lost, with these cases."""
    of_structure = defaultdict[str, list[str]](list)
    for case in cases:
        for key in case.lost:
            if name := _structure_name(key, task):
                of_structure[name].append(case.id)
    return [
        Problem.warning(
            f"{name} was contoured and has no voxel on the grid of the network",
            tuple(own),
            "it is smaller than the voxels of that grid, and the case teaches that it is not there",
            "Choose a finer grid (--set preprocessing.spacing=...), or leave the case out",
        )
        for name, own in sorted(of_structure.items())
    ]


def write_resampled(problems: Sequence[Problem], folder: Path) -> None:
    """Keep the warnings with a training, for the report; nothing is written without any."""
    if problems:
        rows = [ResampledRow(what=one.what, cases=[*one.cases], why=one.why, remedy=one.remedy) for one in problems]
        record_files.write_json(folder / RESAMPLED, SCHEMA, ResampledRecord(rows=rows))


def read_resampled(folders: Sequence[Path]) -> Iterator[Problem]:
    """The warnings of trainings, each once."""
    cases = defaultdict[Problem, dict[str, None]](dict)
    for path in (folder / RESAMPLED for folder in folders):
        for row in record_files.read_json(path, SCHEMA)["rows"] if path.is_file() else ():
            cases[Problem.warning(row["what"], (), row["why"], row["remedy"])] |= dict.fromkeys(row["cases"])
    for problem, ids in cases.items():
        yield Problem(problem.severity, problem.what, tuple(ids), problem.why, problem.remedy)


def _structure_name(key: str, task: Task) -> str:
    """The name of a structure by its number among the task's, "<part>_<number>" in a task of parts."""
    part, _, number = key.rpartition("_")
    targets = properties.part_or_whole(task, part).saliency_targets
    return targets[int(number) - 1] if int(number) <= len(targets) else ""


def with_groups(
    prepared_cases: Sequence[PreparedCase], cases: Sequence[Case], chosen: PlanSettings
) -> list[PreparedCase]:
    """Training cases with the group of people that each is of, where training looks at groups."""
    protected = chosen.training.protected
    if chosen.training.fairness == "none" or protected is None:
        return list(prepared_cases)
    names = dict.fromkeys(name for case in cases for name in case.covariates)
    covariates = {name: [case.covariates.get(name) for case in cases] for name in names}
    [groups] = group_attributes.groups_by_attribute(covariates, protected).values()
    return [replace(one, group=str(group)) for one, group in zip(prepared_cases, groups, strict=True)]


# The progress of a training on standard error: a table that moves in a terminal, else a line now and then.


@dataclass
class TrainingWatch:
    """Tells how a training goes; call it with every moment.

    metric: the name of a figure of the validation cases
    live:   the table in a terminal; None for lines in the log
    """

    what: str
    metric: Callable[[float], str]
    live: Live | None = None
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    first: Moment | None = None
    last_line: float = field(default_factory=time.monotonic)

    def __call__(self, moment: Moment) -> None:
        self.first = self.first or moment
        self.losses.append(moment.loss)
        if moment.validation is not None:
            self.scores.append(moment.validation)
        columns = {name: getattr(moment, name) for name in COLUMNS}
        work_state.report_progress(self.what, moment.step, moment.steps, self.seconds_left(moment), **columns)
        often = Tracker.quiet_seconds if self.live is None else LIVE_SECONDS
        if time.monotonic() - self.last_line < often and moment.step < moment.steps:
            return
        self.last_line = time.monotonic()
        if self.live is not None:
            self.live.update(self.table(moment), refresh=True)
        elif moment.seconds - self.first.seconds > 1:  # of what took a moment nothing needs a line
            log.info("%s: %s", self.what, self.line(moment))

    def line(self, moment: Moment) -> str:
        """The state of the training in words."""
        reached = f"{100 * moment.reached:.0f} % of the machine's peak, " if moment.reached is not None else ""
        score = f", {self.metric(self.scores[-1])} {self.scores[-1]:.4f} of the validation cases" if self.scores else ""
        return (
            f"step {moment.step} of {moment.steps}, loss {moment.loss:.3f}{score}, "
            f"learning rate {moment.learning_rate:.2g}, {100 * moment.waiting:.0f} % waiting for data, "
            f"{reached}{self.seconds_left(moment):.0f} s left"
        )

    def seconds_left(self, moment: Moment) -> float:
        """s, at the speed since the first moment that was seen."""
        if self.first is None or moment.step <= self.first.step:
            return 0.0
        seconds_a_step = (moment.seconds - self.first.seconds) / (moment.step - self.first.step)
        return seconds_a_step * (moment.steps - moment.step)

    def table(self, moment: Moment) -> Table:
        """The same as a table with the course of loss and metric."""
        table = Table(title=self.what, title_justify="left", show_edge=False, pad_edge=False)
        named = self.metric(self.scores[-1] if self.scores else 0.0)
        for name in ("step", "loss", "", named, "", "learning rate", "waiting", "left"):
            table.add_column(name, no_wrap=True)
        table.add_row(
            f"{moment.step}/{moment.steps}",
            f"{moment.loss:.3f}",
            sparkline(self.losses, CURVE),
            f"{self.scores[-1]:.4f}" if self.scores else "",
            sparkline(self.scores, CURVE),
            f"{moment.learning_rate:.2g}",
            f"{100 * moment.waiting:.0f} %",
            f"{self.seconds_left(moment):.0f} s",
        )
        return table


@contextmanager
def show_training(what: str, metric: Callable[[float], str]) -> Iterator[Callable[[Moment], None]]:
    """A table that moves, in a terminal; else a line now and then in the log."""
    if not sys.stderr.isatty():
        yield TrainingWatch(what, metric)
        return
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield TrainingWatch(what, metric, live)


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of values as blocks between their lowest and highest; neighbours are averaged where they are many."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return ""
    means = np.array([part.mean() for part in np.array_split(finite, min(width, len(finite)))])
    span = float(means.max() - means.min())
    heights = np.zeros(len(means)) if span == 0 else (means - means.min()) / span
    return "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights.tolist())
