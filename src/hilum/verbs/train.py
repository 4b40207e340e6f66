"""`train`: from a folder, or from an edited plan, to a model that has been evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from hilum import errors, keywords, work_state
from hilum.errors import MEMORY_ERRORS, IntegrityError, MemoryShortageError, PlanError, UsageError
from hilum.evaluation import Metrics, case_tables
from hilum.evaluation.case_tables import SummaryRecord
from hilum.files.storage import atomic, file_lock
from hilum.lazy import pandas as pd
from hilum.options.training import TrainOptions
from hilum.planning import PlannedTraining, PlanSettings, plan_checks, plan_file
from hilum.planning.rules.painting_rules import SHARE
from hilum.planning.rules.site_rules import FOLDS_BY
from hilum.quality import synthetic_images
from hilum.reading import dataset_reading, verb_results
from hilum.reading.dataset_reading import Data
from hilum.reading.images_of_maps import NO_IMAGE
from hilum.report import InNotebook, wording
from hilum.runs import (
    configuration_results,
    covariate_baseline,
    distributed,
    foresight,
    initial_weights,
    plan_request,
    privacy_record,
    run_end,
    run_folder,
    run_report,
    run_search,
    search_trials,
    teacher_models,
    training_loop,
    validation_course,
)
from hilum.runs.covariate_baseline import CovariateShare
from hilum.runs.plan_request import PLAN_SUFFIXES, POSITIVE, USUAL_MINUTES, PlanRequest
from hilum.runs.run_end import TrainedRun
from hilum.runs.run_folder import CHANGES, MARKS, START, RunFolder
from hilum.runtime import torch_networks
from hilum.runtime.model_files import REPORT
from hilum.runtime.parallel import dask_cluster
from hilum.scoring import case_scoring, data_record, model_verdict, other_versions
from hilum.scoring.case_scoring import EVALUATION
from hilum.scoring.model_verdict import Verdict
from hilum.training import weight_transfer
from hilum.training.training_state import CommandClock
from hilum.values import PlainValue, Row
from hilum.verbs import plan
from hilum.work_state import log

# Weights that the family of the network has published.
PUBLISHED = "auto"
# Flags that set a decision of the plan, as a person typed them.
FLAGS = {
    "training.deterministic": "--deterministic",
    SHARE: "--any-contrast",
    "objectives.terms": "--objective",
    "search.minutes": "--tune",
    "network.pretrained": "--pretrained",
    "network.context": "--covariates",
    "evaluation.groups": "--groups",
    FOLDS_BY: "--folds-by",
    "objectives.unlabelled": "--unlabelled",
    "objectives.target": "--target",
    "objectives.domain": "--domain",
    POSITIVE: "--positive",
}


class RunRecord(SummaryRecord):
    """The figures of a run, where it lies, and how long it trained."""

    out: str
    report: str
    steps: int
    minutes: float
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Run(InNotebook):
    """A finished run; prints its headline and where everything lies."""

    out: Path
    rows: tuple[Row, ...]
    primary: str
    steps: int
    minutes: float
    notes: tuple[str, ...] = ()
    folds: int = 0
    headline: tuple[Row, ...] = ()
    verdict: Verdict = field(default_factory=Verdict)
    metrics: Metrics = field(default_factory=Metrics)
    positives: tuple[str, ...] = ()

    @property
    def report(self) -> Path:
        """The page."""
        return self.out / REPORT

    @property
    def table(self) -> pd.DataFrame:
        """Every figure, a row each: metric, label, value, low, high, n, patients, unit, method."""
        return pd.DataFrame(case_tables.rows_to_json(self.rows)["rows"])

    def as_record(self) -> RunRecord:
        """The record for `--json`."""
        facts = {"out": str(self.out), "report": str(self.report), "steps": self.steps, "minutes": self.minutes}
        judged = {"notes": list(self.notes), "verdict": self.verdict.as_record()}
        return cast("RunRecord", {**case_tables.rows_to_json(self.rows), **facts, **judged})

    def __repr__(self) -> str:
        headline = [wording.row_words(row, self.metrics) for row in self.headline]
        length = f"{self.steps} steps" if self.folds < 2 else f"{self.folds} folds of up to {self.steps} steps"
        judged = [str(self.verdict), *self.verdict.against]
        return "\n".join([*headline, *self.positives, *judged, f"{length} in {self.minutes:.1f} min", str(self.report)])


@keywords.takes(TrainOptions)
@distributed.in_all_processes
def train(options: TrainOptions) -> Run:
    """Check, plan, prepare, train, evaluate and report, within `minutes` from now (60 unless a plan says otherwise).

    out:           the run's folder, made anew
    everything:    train on every case but a set's own test part; nothing selects
    tune:          so many of the minutes for trials of other decisions, before the training; needs the extra "tune"
    unlabelled:    data of which only the images are seen, by an objective that `objectives.terms` names; of `data`
                   itself the cases without a reference
    target:        the same, of the place where the model shall work; the plan chooses how it learns from them
    end_now:       a run that is resumed trains no further: its best weights so far are calibrated and evaluated
    domain:        the column that states the place of each case of `data`, for an objective that looks at places
    deterministic: two runs on one machine are alike to the bit; needs a number of steps, from a plan or by hand
    scheduler:     address of a dask scheduler whose workers read and prepare the cases; the training itself is here
    Where torchrun has started several processes, they share every batch; the result is that of one process.
    Raises what `check` and `plan` raise; UsageError for a wrong combination of arguments.
    """
    assignments = {
        **({"training.deterministic": True} if options.deterministic else {}),
        **({"search.minutes": options.tune} if options.tune is not None else {}),
        **({"network.pretrained": absolute_path(options.pretrained)} if options.pretrained is not None else {}),
        **{
            f"objectives.{name}": [absolute_path(path) for path in paths]
            for name, paths in (("unlabelled", options.unlabelled), ("target", options.target))
            if paths
        },
        **({"objectives.domain": options.domain} if options.domain is not None else {}),
        **plan.decisions_by_hand(options),
    }
    request = replace(keywords.narrow_options(options, PlanRequest), assignments=assignments)
    data = dataset_reading.path_for_workers(options.data, options.scheduler)
    resume = dataset_reading.path_for_workers(options.resume, options.scheduler)
    with dask_cluster.spread_over(options.scheduler):
        return make_run(
            data, request, start=options.start, out=options.out, overwrite=options.overwrite, resume=resume,
            end_now=options.end_now,
        )  # fmt: skip


def make_run(
    data: Data | None,
    request: PlanRequest,
    *,
    start: str | Path | None,
    out: str | Path | None,
    overwrite: bool,
    resume: str | Path | None,
    end_now: bool = False,
) -> Run:
    """The run that was asked for, made or finished; the arguments are those of `train`."""
    began = work_state.command_start()
    if (data is None) == (resume is None):
        raise UsageError(
            "give either data or a run to resume",
            "train",
            "Call `hilum train DATA` or `hilum train --resume RUN`",
        )
    if end_now and resume is None:
        raise UsageError("ends a run that was begun", "--end-now", "Give it with --resume RUN")
    if resume is not None:
        _refuse_with_resume(request, {"from": start, "out": out, "overwrite": overwrite or None})
        verb_results.refuse_missing(Path(resume))
        with file_lock.hold_lock(Path(resume)):
            run = run_folder.resume_run(Path(resume), began, accepts_changes=request.reading.accept == CHANGES)
            return _finish(run_folder.end_trainings(run) if end_now else run)
    assert data is not None  # noqa: S101 - seen to above
    if out is None:
        raise UsageError("a run needs a folder to be written into", "train", "Give out=FOLDER")
    verb_results.refuse_taken(Path(out), overwrite, MARKS)
    with (
        file_lock.hold_lock(Path(out)),
        initial_weights.open_weight_source(None if start is None else Path(start)) as source,
    ):
        is_timed = request.assignments.get("training.steps") is None
        watch = None
        if is_timed:
            watch = foresight.watched_reading(request.effective_request.minutes or USUAL_MINUTES, CommandClock(began))
        made = _make_plan(data, replace(request, source=source, watch=watch))
        if start is not None:
            examination = other_versions.beside_run(made.examination, Path(start))
            for problem in examination.problems[len(made.examination.problems) :]:
                log.info("%s%s", problem.what, f": {errors.list_phrase(problem.cases)}" if problem.cases else "")
            made = replace(made, examination=examination)
        weights = None if source is None else source.weights
        # Before the minutes are spent.
        for sentence in (*made.left_out, *made.warned_sentences, *plan_request.positive_class_sentences(made.plan)):
            log.info("%s", sentence)
        run_search.refuse_unsearchable(made.plan, made.fewest_that_select)
        chosen = plan_checks.checked_settings(made.plan)
        weight_transfer.refuse_no_source(chosen, weights)
        pretrained_file = None if chosen.network.pretrained in (None, PUBLISHED) else Path(chosen.network.pretrained)
        files = [file for file in (pretrained_file, weights) if file is not None]
        if files:  # refused before the folder is there
            weight_transfer.load_initial_weights(
                torch_networks.build_module(chosen.task, chosen.architecture), chosen, weights
            )
        if start is None and chosen.network.pretrained is None:
            _refuse_no_start(chosen)
        teacher = teacher_models.distillation_of(chosen)
        lineage = data_record.trace_lineage(
            [Path(place) for place in (pretrained_file, start) if place is not None],
            [] if teacher is None else [Path(teacher.teacher)],
        )
        return _finish(run_folder.new_run(Path(out), made, CommandClock(began), weights, lineage))


def _refuse_no_start(chosen: PlanSettings) -> None:
    """PlanError for an objective that pulls weights towards their start, where they start from nothing."""
    if needing := [name for name, objective in chosen.terms.items() if objective.needs.start]:
        problem = f"{needing[0]} pulls weights towards those of another network, and none is given"
        raise PlanError(problem, "objectives.terms", f"Give --from MODEL or --pretrained, or leave out {needing[0]}")


def absolute_path(path: str | Path) -> str:
    """A file is found again from any folder; "auto" is no file."""
    return PUBLISHED if str(path) == PUBLISHED else str(Path(path).resolve())


def _refuse_with_resume(request: PlanRequest, others: Mapping[str, Path | PlainValue]) -> None:
    """A resumed run follows its own plan: what would change it is refused, by the name of its flag."""
    names = ("minutes", "device", "threads", "seed", "task", "folds")
    values = {**{name: getattr(request, name) for name in names}, "all": request.everything or None, **others}
    given = [f"--{name}" for name, value in values.items() if value is not None]
    given += ["--lesions"] if request.lesions else []
    given += ["--leave-out"] if request.leave_out is not None else []
    own = () if request.reading.accept != CHANGES else ("accept",)
    given += [f"--{name.replace('_', '-')}" for name in request.reading.chosen_options if name not in own]
    given += [FLAGS.get(name, f"--set {name}") for name in request.assignments]
    if given:
        remedy = "Leave it out: a run keeps the plan that it started with"
        raise UsageError(f"{', '.join(given)} cannot be given with a run to resume", "train", remedy)


def _make_plan(data: Data, request: PlanRequest) -> PlannedTraining:
    """The plan that is followed: an edited one, or one that is made for the data."""
    path = dataset_reading.path_of_data(data)
    if path is not None and path.suffix.lower() in PLAN_SUFFIXES:
        return run_folder.planned_from(path, request)
    return plan_request.plan_from_request(data, request)


def _finish(run: RunFolder) -> Run:
    """Prepare, train, evaluate, report; an error of the system, or of memory, becomes one line."""
    try:
        run_end.write_environment(run, run.plan)
        run = configuration_results.choose_configuration(run)
        finished = _report(run, training_loop.train_by_plan(run))
        shutil.rmtree(run.out / START, ignore_errors=True)
        return finished
    except FileNotFoundError as error:
        remedy = "Restore the data as they were: `hilum train --resume` continues"
        raise IntegrityError("was deleted while the run trained", str(error.filename or run.out), remedy) from error
    except MEMORY_ERRORS as error:
        if errors.is_out_of_memory(error):
            resumed = f"`hilum train --resume {run.out}` continues from the last checkpoint"
            less = f"--set training.batch=N below {run.plan['training.batch']}, or a smaller patch"
            remedy = f"Close other programs: {resumed}. Or start again with less at once: {less}"
            raise MemoryShortageError("memory ran out while it trained", str(run.out), remedy) from error
        if isinstance(error, OSError):  # of the system: all that is read raises errors of ours
            raise atomic.unwritable_error(error, Path(error.filename or run.out)) from error
        raise


def _report(run: RunFolder, done: TrainedRun) -> Run:
    """The plan with all that was decided, the notes and the report."""
    done = replace(done, plan=run.made.of_cases(done.plan))
    share = CovariateShare() if done.scored is None else covariate_baseline.write_covariate_share(run)
    minutes = run.clock.seconds / 60
    names = {fold: "" if fold is None else f"fold {fold}" for fold in run.folds}
    searches = {
        name: found
        for fold, name in names.items()
        if (found := search_trials.read_search_result(run.folder(fold))) is not None
    }
    ended = [outcome.stopped for outcome in done.outcomes if outcome.stopped]
    notes = run_end.run_notes(run, done.scored, done.plan, [*ended, *run_end.unseen_cases_notes(run, done), *done.cuts])
    notes += [f"{f'{name}: ' * bool(name)}{result.statement}." for name, result in searches.items()]
    notes += configuration_results.configuration_notes(run)
    run.write_plan(done.plan)
    log = run_end.average_fold_logs([run.folder(fold) for fold in run.folds])
    primary, scored = str(done.plan["evaluation.primary"]), done.scored
    limit = validation_course.epoch_limit_sentence(
        done.plan, len(run.cases("train", run.folds[0])), int(log["step"].max())
    )
    verdict = model_verdict.verdict_on_scores(
        scored,
        seed=int(done.plan["training.seed"]),
        patients_known=run.dataset.patients_known,
        training=validation_course.training_length_sentences(log, run_report.selection_metric_namer(done.plan), limit),
        notes=notes,
        covariates=share.gains(primary),
        unseen=f"{NO_IMAGE} {model_verdict.NOTHING_ESTIMATED}" if run.dataset.painted else "",
        simulated=synthetic_images.is_simulated(run.dataset),
    )
    privacy_record.write_privacy_of_run(run)
    run_end.write_notes(run.out, notes, scored, verdict, minutes=minutes, problems=run.examination.problems)
    case_scoring.write_verdict(
        run.out / EVALUATION,
        verdict.as_record(),
        primary,
        plan_file.preregistered_margin(done.plan),
        **plan_file.recipe_digest(done.plan),
    )
    tables = [path for fold in run.folds if (path := search_trials.read_trials_table(run.folder(fold))).is_file()]
    sections = [
        *run_report.search_sections(searches, done.plan, [path.relative_to(run.out).as_posix() for path in tables]),
        *configuration_results.configuration_sections(run.out),
    ]
    transfer = weight_transfer.transfer_statement(run.folder(run.folds[0]))
    facts = {"transfer": transfer} if transfer else {}
    finished = replace(done, facts={**share.facts, **done.facts, **facts})
    run_end.write_run_report(
        run, finished, notes, log=log, minutes=minutes, searches=sections, compared=share.sections, verdict=verdict
    )
    rows = () if scored is None else tuple(scored.rows)
    headline = () if scored is None else tuple(model_verdict.headline_rows(rows, primary, scored.task))
    steps = max(outcome.steps for outcome in done.outcomes)
    metrics = Metrics() if scored is None else scored.metrics
    positives = plan_request.positive_class_sentences(done.plan)
    return Run(
        run.out, rows, primary, steps, minutes, tuple(notes), len(run.made.folds), headline, verdict, metrics, positives
    )
