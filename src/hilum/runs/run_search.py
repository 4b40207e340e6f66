"""The trials of a search as they are trained: the study chooses them, and gives up those that are hopeless."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from hilum import errors
from hilum.errors import MEMORY_ERRORS, HilumError, PlanError, ResourceError, UsageError
from hilum.files.storage import atomic, csv_text
from hilum.lazy import pandas as pd
from hilum.planning import PlannedTraining, plan_checks, plan_file, search_domains
from hilum.planning.search_domains import Room, Space
from hilum.runs import _training_order, run_folder, search_trials, training_jobs
from hilum.runs._run_minutes import SearchLength
from hilum.runs._run_trainings import SEARCH, FinishedTraining, RunTraining, TrialResult
from hilum.runs._training_order import SEARCH_RESULT
from hilum.runs.search_trials import TRIED, SearchProgress, SearchResult
from hilum.runs.training_jobs import TrainingJob
from hilum.training import checkpoint_files, search_study
from hilum.training.checkpoint_files import VALIDATION
from hilum.training.processes import Ranks
from hilum.training.search_study import (
    COMPLETE,
    IMPOSSIBLE,
    PRUNED,
    HopelessError,
    SearchStudy,
    SearchTrial,
    StudyTrial,
)
from hilum.training.training_state import CommandClock, Moment, TrainingOutcome
from hilum.values import PlainValue, Plan
from hilum.work_state import log

STUDY = "study.db"


def refuse_unsearchable(plan: Plan, validating: int) -> None:
    """UsageError where no search could tell luck from skill; ResourceError where nothing could choose its trials.

    validating: as `PlannedTraining.fewest_that_select` counts them
    """
    chosen = plan_checks.checked_settings(plan)
    if not chosen.search.is_on:
        return
    search_study.refuse_without_optuna()
    if validating < (fewest := checkpoint_files.fewest_cases(1)):
        whom = "case" if chosen.split.inner_folds else "patient"
        validation_cases = errors.count_phrase(validating, f"validation {whom}")
        problem = f"{validation_cases}: of fewer than {fewest} nothing can be told from luck"
        remedy = f"Give more {whom}s, or leave out --tune (with --all nothing selects)"
        raise UsageError(problem, "--tune", remedy)
    if Ranks.here().count > 1:
        problem = "trials are given up by one process, and others would wait for it"
        raise UsageError(problem, "--tune", "Search in one process, then train its plan.yaml in several")


@dataclass(frozen=True, eq=False)
class SearchTrials:
    """The trials before a training, with the study that chooses them.

    main:  the training whose plan they vary
    out:   its folder
    clock: of the run
    room:  what a plan must fit
    ready: preprocessing that was done before
    """

    planned: PlannedTraining
    main: RunTraining
    out: Path
    clock: CommandClock
    room: Room
    ready: set[str] = field(default_factory=set)

    def resume(self) -> list[FinishedTraining]:
        """The trials of an earlier session; none of a search that begins, whose plan and space are kept now."""
        if not (plan := self.out / SEARCH / "plan.yaml").is_file():
            atomic.write_text(plan, plan_file.plan_text(replace(self.main.plan, data="")), overwrite=True)
        with self._study() as study:
            if "began" not in study.facts:
                study.keep("began", self.clock.seconds)
            self._log(study)
            return self._since(study, 0, self._ask_next(study)) if study.done else []

    def fit_trial(self, training: RunTraining, job: TrainingJob) -> list[FinishedTraining]:
        """One trial, from its checkpoint where there is one, until it is over or hopeless.

        Returned with what cannot be tried after it; the last one says which trial is asked for next.
        """
        with self._study() as study:
            if training.plan["training.seed"] != self.main.plan["training.seed"]:  # one is trained once more
                repeated = training_jobs.fit_job(job, self._clock_of(study, job), lambda decisions: None)
                numbers = checkpoint_files.read_validation(repeated.checkpoint)
                _slim(job.out)
                return [FinishedTraining(training, repeated, trial=TrialResult(None, numbers))]
            done_before = len(study.done)
            outcome = self._fit_asked(study, job)
            first, *others = self._since(study, done_before, self._ask_next(study))
            return [replace(first, training=training, outcome=outcome), *others]

    def result(self, search: SearchProgress) -> SearchResult:
        """The result of the search, written down."""
        folder = self.out / SEARCH
        with self._study() as study:
            result = replace(search.result, importances=study.importances)
        for subfolder in folder.glob("*_*"):  # a killed session may have left some whole
            _slim(subfolder)
        csv_text.write_table(pd.DataFrame(list(result.rows)), search_trials.read_trials_table(self.out))
        result.write(folder)
        log.info("%s: %s", self.main.what, result.statement)
        return result

    def finish(self, result: SearchResult) -> FinishedTraining:
        """The search once it is over, whose result the training follows."""
        over = replace(self.main, name=self.main.below(SEARCH), role=SEARCH_RESULT, share=0.0)
        return FinishedTraining(over, None, decided=result.plan_decisions)

    def _study(self) -> SearchStudy:
        """A study that has kept its own space goes by that, one that was killed while it was made by the plan's."""
        path = self.out / SEARCH / STUDY
        if not self._space and not path.is_file():
            raise PlanError("everything was set by hand, so that there is nothing to try", "--tune", "Leave it out")
        return SearchStudy(path, self._space, int(self.main.plan["training.seed"]))

    @cached_property
    def _space(self) -> Space:
        """Space of values that may be tried."""
        return search_domains.search_space(self.main.plan, self.room, of_fold=bool(self.planned.folds))

    def _length(self, study: SearchStudy) -> SearchLength:
        inner = self.planned.settings.split.inner_folds
        began, folds = float(study.facts["began"]), len(self.planned.numbers)
        return SearchLength.from_settings(self.main.settings, began, folds, max(1, inner))

    def _log(self, study: SearchStudy) -> None:
        length = self._length(study)
        length_in_words = f"{length.steps} steps" if length.seconds is None else f"{length.seconds:.0f} s"
        many = f"{length.trials} trials" if length.trials is not None else "trials"
        log.info(
            "%s: first a search by %s of %s each, of %s", self.main.what, many, length_in_words, ", ".join(study.space)
        )

    def _ask_next(self, study: SearchStudy) -> tuple[int, Plan] | None:
        """Number and plan of the next trial, where time is left; those that cannot be followed are impossible."""
        while study.done[0].state == COMPLETE:  # else nothing can be compared with the plan
            seconds = [float(one.facts.get("seconds", 0.0)) for one in study.done if one.state == COMPLETE]
            if not self._length(study).has_room(len(study.done), max(seconds), self.clock.seconds):
                break
            asked = study.next()
            try:
                return asked.number, search_domains.apply_choices(self.main.plan, asked.choices, study.space, self.room)
            except (PlanError, ResourceError) as error:
                facts = {"changed": {}, TRIED: search_domains.choice_words(asked.choices, study.space)}
                study.finish(asked, IMPOSSIBLE, None, {**facts, "why": str(error), "seconds": 0.0, "steps": 0})
        return None

    def _since(self, study: SearchStudy, number: int, asked: tuple[int, Plan] | None) -> list[FinishedTraining]:
        """The trials that are over, from a number on; after the last one another is asked for."""
        *done, last = study.done[number:]
        return [*(self._finish_trial(study, one, None) for one in done), self._finish_trial(study, last, asked)]

    def _finish_trial(
        self, study: SearchStudy, one_tried: StudyTrial, asked: tuple[int, Plan] | None
    ) -> FinishedTraining:
        """A trial that is over, with the numbers that its training has left."""
        plan = self.main.plan
        if one_tried.state == COMPLETE:
            plan = search_domains.apply_choices(plan, one_tried.choices, study.space, self.room)
        training = _training_order.trial_training(self.planned, self.main, one_tried.number, plan)
        folder_of_trial = self.out / SEARCH / Path(training.name).name
        best = folder_of_trial / "checkpoints" / "best"
        numbers = checkpoint_files.read_validation(best) if one_tried.state == COMPLETE else {}
        return FinishedTraining(training, None, trial=TrialResult(one_tried, numbers, asked))

    def _fit_asked(self, study: SearchStudy, job: TrainingJob) -> TrainingOutcome | None:
        """Train the trial that is asked for; None where it was given up, or cannot be trained."""
        asked, began, looks = study.next(), self.clock.seconds, list[float]()
        plan = search_domains.apply_choices(self.main.plan, asked.choices, study.space, self.room)
        outcome, state, value = None, IMPOSSIBLE, None
        facts: dict[str, PlainValue] = {"changed": search_domains.changed_values(self.main.plan, plan)}
        facts |= {TRIED: search_domains.choice_words(asked.choices, study.space), "why": ""}
        self._prepare(job)
        try:
            outcome = training_jobs.fit_job(
                job, self._clock_of(study, job), lambda decisions: None, look=_judge(asked, looks)
            )
        except HopelessError:
            state, steps = PRUNED, int(run_folder.checkpoint_state(job.out).get("step", 0))
            facts["value_at_last"] = looks[-1]
        except (HilumError, *MEMORY_ERRORS) as error:
            impossible = isinstance(error, HilumError) or errors.is_out_of_memory(error)
            if asked.number == 0 or not impossible:  # the plan itself cannot be trained, or the fault is no trial's
                raise
            steps, facts["why"] = 0, str(error).strip().partition("\n")[0]
        else:
            steps, metric = outcome.steps, self.main.settings.training.selection
            value = search_trials.selection_metric(self.main, checkpoint_files.read_validation(outcome.checkpoint))
            if math.isfinite(value):
                state = COMPLETE
            else:
                facts["why"] = f"its {metric} is not a number"
            log.info("trial %d: %s %.4f with %s", asked.number, metric, value, facts[TRIED])
        study.finish(asked, state, value, {**facts, "seconds": self.clock.seconds - began, "steps": steps})
        _slim(job.out)
        return outcome

    def _prepare(self, job: TrainingJob) -> None:
        """Prepare what is needed once, outside of the time of the trial that is the first to need it."""
        key = json.dumps(job.settings.preprocessing.settings, sort_keys=True, default=list)
        if key not in self.ready:
            job.prepare()
            self.ready.add(key)

    def _clock_of(self, study: SearchStudy, job: TrainingJob) -> CommandClock:
        """The clock of a trial: when it must end was decided when it began."""
        seconds = self._length(study).seconds
        if seconds is None:
            return replace(self.clock, deadline=None)
        return replace(
            self.clock, deadline=run_folder.checkpoint_state(job.out).get("deadline") or self.clock.seconds + seconds
        )


def _judge(asked: SearchTrial, looks: list[float]) -> Callable[[Moment], None]:
    """Ends a trial that is hopeless by a look at the validation cases."""

    def look(moment: Moment) -> None:
        if moment.validation is None:
            return
        looks.append(moment.validation)
        if asked.is_hopeless(moment.step / moment.steps, moment.validation):
            raise HopelessError

    return look


def _slim(folder: Path) -> None:
    """Keep of a finished training what is compared, and its log; weights would fill the disk."""
    files = ("log.csv", f"checkpoints/best/{VALIDATION}", "checkpoints/last/state.json")
    for path in [file for file in folder.rglob("*") if file.is_file()]:
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
