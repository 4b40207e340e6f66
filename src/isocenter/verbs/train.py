"""`train`: from a folder, or from an edited plan, to a model that has been evaluated."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isocenter.at_work import command_began
from isocenter.errors import MEMORY_ERRORS, IntegrityError, MemoryShortageError, PlanError, UsageError, is_out_of_memory
from isocenter.evaluation import Metrics, rows_to_json
from isocenter.files import locked, unwritable
from isocenter.keywords import takes
from isocenter.lazy import pandas as pd
from isocenter.options import TrainOptions
from isocenter.planning import Planned, Settings, recipe, registered_margin, settings
from isocenter.reading import Data, path_of, refuse_missing, refuse_taken
from isocenter.report import InNotebook, in_words
from isocenter.runs import (
    MARKS,
    PLAN_SUFFIXES,
    POSITIVE,
    REPORT,
    START,
    USUAL_MINUTES,
    CovariateShare,
    PlanRequest,
    RunFolder,
    Trained,
    configuration_notes,
    configuration_sections,
    configured,
    covariates_stated,
    distillation_of,
    epoch_limit,
    in_all_processes,
    less_than_one_pass,
    new_run,
    notes_of,
    planned,
    planned_from,
    positives_chosen,
    refuse_unsearchable,
    result_in,
    resumed_run,
    search_sections,
    selecting,
    source_of,
    trained,
    training_length,
    training_log,
    trials_in,
    watched_reading,
    write_environment,
    write_notes,
    write_report,
)
from isocenter.runtime import build_module
from isocenter.scoring import EVALUATION, Verdict, headline_rows, lineage_of, verdict_of, write_verdict
from isocenter.training import Clock, initialise, refuse_no_source, transfer_statement
from isocenter.values import Row
from isocenter.verbs.plan import by_hand

log = logging.getLogger("isocenter")
# Weights that the family of the network has published.
PUBLISHED = "auto"
# Flags that set a decision of the plan, as a person typed them.
FLAGS = {
    "training.deterministic": "--deterministic",
    "objectives.terms": "--objective",
    "search.minutes": "--tune",
    "network.pretrained": "--pretrained",
    "network.context": "--covariates",
    "evaluation.groups": "--groups",
    "objectives.unlabelled": "--unlabelled",
    POSITIVE: "--positive",
}


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
        return pd.DataFrame(rows_to_json(self.rows)["rows"])

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        facts = {"out": str(self.out), "report": str(self.report), "steps": self.steps, "minutes": self.minutes}
        return {**rows_to_json(self.rows), **facts, "notes": list(self.notes), "verdict": self.verdict.as_record()}

    def __repr__(self) -> str:
        headline = [in_words(row, self.metrics) for row in self.headline]
        length = f"{self.steps} steps" if self.folds < 2 else f"{self.folds} folds of up to {self.steps} steps"
        judged = [str(self.verdict), *self.verdict.against]
        return "\n".join([*headline, *self.positives, *judged, f"{length} in {self.minutes:.1f} min", str(self.report)])


@takes(TrainOptions)
@in_all_processes
def train(options: TrainOptions) -> Run:
    """Check, plan, prepare, train, evaluate and report, within `minutes` from now (60 unless a plan says otherwise).

    out:           the run's folder, made anew
    everything:    train on every case but a set's own test part; nothing selects
    tune:          so many of the minutes for trials of other decisions, before the training; needs the extra "tune"
    unlabelled:    data of which only the images are seen, by an objective that `objectives.terms` names; of `data`
                   itself the cases without a reference
    deterministic: two runs on one machine are alike to the bit; needs a number of steps, from a plan or by hand
    Where torchrun has started several processes, they share every batch; the result is that of one process.
    Raises what `check` and `plan` raise; UsageError for a wrong combination of arguments.
    """
    assignments = {
        **({"training.deterministic": True} if options.deterministic else {}),
        **({"search.minutes": options.tune} if options.tune is not None else {}),
        **({"network.pretrained": absolute(options.pretrained)} if options.pretrained is not None else {}),
        **({"objectives.unlabelled": [absolute(path) for path in options.unlabelled]} if options.unlabelled else {}),
        **by_hand(options),
    }
    request = PlanRequest(
        options.minutes,
        options.device,
        options.threads,
        options.seed,
        options.task,
        options.everything,
        options.folds,
        assignments,
        options.reading,
    )
    return run_for(
        options.data, request, start=options.start, out=options.out, overwrite=options.overwrite, resume=options.resume
    )


def run_for(
    data: Data | None,
    request: PlanRequest,
    *,
    start: str | Path | None,
    out: str | Path | None,
    overwrite: bool,
    resume: str | Path | None,
) -> Run:
    """The run that was asked for, made or finished; the arguments are those of `train`."""
    began = command_began()
    if (data is None) == (resume is None):
        raise UsageError(
            "give either data or a run to resume",
            "train",
            "Call `isocenter train DATA` or `isocenter train --resume RUN`",
        )
    if resume is not None:
        _refuse_with_resume(request, {"from": start, "out": out, "overwrite": overwrite or None})
        refuse_missing(Path(resume))
        with locked(Path(resume)):
            return _finished(resumed_run(Path(resume), began))
    assert data is not None  # noqa: S101 - seen to above
    if out is None:
        raise UsageError("a run needs a folder to be written into", "train", "Give out=FOLDER")
    refuse_taken(Path(out), overwrite, MARKS)
    with locked(Path(out)), source_of(None if start is None else Path(start)) as source:
        is_timed = request.assignments.get("training.steps") is None
        watch = watched_reading(request.wished.minutes or USUAL_MINUTES, Clock(began)) if is_timed else None
        made, weights = (
            _planned(data, replace(request, source=source, watch=watch)),
            None if source is None else source.weights,
        )
        for sentence in positives_chosen(made.plan):  # before the minutes are spent
            log.info("%s", sentence)
        refuse_unsearchable(made.plan, made.fewest_that_select)
        chosen = settings(made.plan)
        refuse_no_source(chosen, weights)
        pretrained_file = None if chosen.network.pretrained in (None, PUBLISHED) else Path(chosen.network.pretrained)
        files = [file for file in (pretrained_file, weights) if file is not None]
        if files:  # refused before the folder is there
            initialise(build_module(chosen.task, chosen.architecture), chosen, weights)
        if start is None and chosen.network.pretrained is None:
            _refuse_no_start(chosen)
        teacher = distillation_of(chosen)
        lineage = lineage_of(
            [Path(place) for place in (pretrained_file, start) if place is not None],
            [] if teacher is None else [Path(teacher.teacher)],
        )
        return _finished(new_run(Path(out), made, Clock(began), weights, lineage))


def _refuse_no_start(chosen: Settings) -> None:
    """PlanError for an objective that draws weights towards their start, where they start from nothing."""
    if needing := [name for name, objective in chosen.terms.items() if objective.needs.start]:
        problem = f"{needing[0]} draws weights towards those of another network, and none is given"
        raise PlanError(problem, "objectives.terms", f"Give --from MODEL or --pretrained, or leave out {needing[0]}")


def absolute(path: str | Path) -> str:
    """A file is found again from any folder; "auto" is no file."""
    return PUBLISHED if str(path) == PUBLISHED else str(Path(path).resolve())


def _refuse_with_resume(request: PlanRequest, others: Mapping[str, object]) -> None:
    """A resumed run follows its own plan: what would change it is refused, by the name of its flag."""
    names = ("minutes", "device", "threads", "seed", "task", "folds")
    values = {**{name: getattr(request, name) for name in names}, "all": request.everything or None, **others}
    given = [f"--{name}" for name, value in values.items() if value is not None]
    given += ["--leave-out"] if request.leave_out is not None else []
    given += [f"--{name.replace('_', '-')}" for name in request.reading.chosen]
    given += [FLAGS.get(name, f"--set {name}") for name in request.assignments]
    if given:
        remedy = "Leave it out: a run keeps the plan that it started with"
        raise UsageError(f"{', '.join(given)} cannot be given with a run to resume", "train", remedy)


def _planned(data: Data, request: PlanRequest) -> Planned:
    """The plan that is followed: an edited one, or one that is made for the data."""
    path = path_of(data)
    if path is not None and path.suffix.lower() in PLAN_SUFFIXES:
        return planned_from(path, request)
    return planned(data, request)


def _finished(run: RunFolder) -> Run:
    """Prepare, train, evaluate, report; an error of the system, or of memory, becomes one line."""
    try:
        write_environment(run, run.plan)
        run = configured(run)
        finished = _reported(run, trained(run))
        shutil.rmtree(run.out / START, ignore_errors=True)
        return finished
    except FileNotFoundError as error:
        remedy = "Restore the data as they were: `isocenter train --resume` continues"
        raise IntegrityError("was deleted while the run trained", str(error.filename or run.out), remedy) from error
    except MEMORY_ERRORS as error:
        if is_out_of_memory(error):
            resumed = f"`isocenter train --resume {run.out}` continues from the last checkpoint"
            less = f"--set training.batch=N below {run.plan['training.batch']}, or a smaller patch"
            remedy = f"Close other programs: {resumed}. Or start again with less at once: {less}"
            raise MemoryShortageError("memory ran out while it trained", str(run.out), remedy) from error
        if isinstance(error, OSError):  # of the system: all that is read raises errors of ours
            raise unwritable(error, Path(error.filename or run.out)) from error
        raise


def _reported(run: RunFolder, done: Trained) -> Run:
    """The plan with all that was decided, the notes and the report."""
    done = replace(done, plan=run.made.of_cases(done.plan))
    share = CovariateShare() if done.scored is None else covariates_stated(run)
    minutes = run.clock.seconds / 60
    names = {fold: "" if fold is None else f"fold {fold}" for fold in run.folds}
    searches = {name: found for fold, name in names.items() if (found := result_in(run.folder(fold))) is not None}
    ended = [outcome.stopped for outcome in done.outcomes if outcome.stopped]
    notes = notes_of(run, done.scored, done.plan, [*ended, *less_than_one_pass(run, done), *done.cuts])
    notes += [f"{f'{name}: ' * bool(name)}{result.statement}." for name, result in searches.items()]
    notes += configuration_notes(run)
    run.write_plan(done.plan)
    log = training_log([run.folder(fold) for fold in run.folds])
    primary, scored = str(done.plan["evaluation.primary"]), done.scored
    limit = epoch_limit(done.plan, len(run.cases("train", run.folds[0])), int(log["step"].max()))
    verdict = verdict_of(
        scored,
        seed=int(done.plan["training.seed"]),
        patients_known=run.dataset.patients_known,
        training=training_length(log, selecting(done.plan), limit),
        notes=notes,
        covariates=share.gains(primary),
    )
    write_notes(run.out, notes, scored, verdict, minutes=minutes, problems=run.examination.problems)
    write_verdict(run.out / EVALUATION, verdict.as_record(), primary, registered_margin(done.plan), **recipe(done.plan))
    tables = [path for fold in run.folds if (path := trials_in(run.folder(fold))).is_file()]
    sections = [
        *search_sections(searches, done.plan, [path.relative_to(run.out).as_posix() for path in tables]),
        *configuration_sections(run.out),
    ]
    transfer = transfer_statement(run.folder(run.folds[0]))
    facts = {"transfer": transfer} if transfer else {}
    finished = replace(done, facts={**share.facts, **done.facts, **facts})
    write_report(
        run, finished, notes, log=log, minutes=minutes, searches=sections, compared=share.sections, verdict=verdict
    )
    rows = () if scored is None else tuple(scored.rows)
    headline = () if scored is None else tuple(headline_rows(rows, primary, scored.task))
    steps = max(outcome.steps for outcome in done.outcomes)
    metrics = Metrics() if scored is None else scored.metrics
    positives = positives_chosen(done.plan)
    return Run(
        run.out, rows, primary, steps, minutes, tuple(notes), len(run.made.folds), headline, verdict, metrics, positives
    )
