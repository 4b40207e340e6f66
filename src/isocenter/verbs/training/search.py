"""A search before a training: short trainings of other plans, judged by validation cases; its result edits the plan.

It trains a job by its training and validation cases, and looks at no test case. The first trial is the plan as it
stands. Another plan takes its place only where it is better beyond chance, twice: over the validation cases, with as
much doubt as there were trials; and once more from another seed, with nothing left to choose. Where there are inner
folds the second time decides alone: over all training cases, by networks that have not seen them.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from isocenter.errors import (
    MEMORY_ERRORS,
    IsocenterError,
    PlanError,
    ResourceError,
    UsageError,
    counted,
    is_out_of_memory,
)
from isocenter.files import write_table, write_text
from isocenter.lazy import pandas as pd
from isocenter.planning import Room, changed, plan_text, read_plan, settings, space, tried, words
from isocenter.runs import SEARCH, SearchLength
from isocenter.runtime import read_json, write_json
from isocenter.training import (
    COMPLETE,
    IMPOSSIBLE,
    PRUNED,
    SURE,
    VALIDATION,
    Clock,
    HopelessError,
    Moment,
    Ranks,
    Study,
    Trial,
    Tried,
    fewest_cases,
    joined_numbers,
    refuse_without_optuna,
    share_better,
    sure_of_best,
    validation_of,
)
from isocenter.values import Case, Decision, Plan
from isocenter.verbs.training.fit import Job, fit
from isocenter.verbs.training.run_folder import state_of

log = logging.getLogger("isocenter")
STUDY, RESULT, BASE, TABLE, SCHEMA = "study.db", "result.json", "plan.yaml", "trials.csv", "isocenter.search"
# Keys of result.json and of the facts of a trial, on disk.
STATEMENT = TRIED = "said"
TPE = "Bergstra et al., NeurIPS 2011"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    changed:   {decision: what is better than planned, and why}; empty where the plan stays
    statement: the same in a sentence
    rows:      {column: cell} of every trial, in order
    """

    changed: Mapping[str, Decision]
    statement: str
    rows: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def decided(self) -> dict[str, Decision]:
        """What the plan gets by it; whoever trains by that plan does not search again."""
        over = "the search is over, and what it has found stands in this plan"
        return {**self.changed, **dict.fromkeys(("search.minutes", "search.trials"), Decision(None, over))}


def refuse_unsearchable(plan: Plan, validating: int) -> None:
    """UsageError where no search could tell luck from skill; ResourceError where nothing could choose its trials.

    validating: as `fewest_that_select` counts them
    """
    chosen = settings(plan)
    if not chosen.search.is_on:
        return
    refuse_without_optuna()
    if validating < (fewest := fewest_cases(1)):
        whom = "case" if chosen.split.inner_folds else "patient"
        problem = f"{counted(validating, f'validation {whom}')}: of fewer than {fewest} nothing can be told from luck"
        remedy = f"Give more {whom}s, or leave out --tune (with --all nothing selects)"
        raise UsageError(problem, "--tune", remedy)
    if Ranks.here().count > 1:
        problem = "trials are given up by one process, and others would wait for it"
        raise UsageError(problem, "--tune", "Search in one process, then train its plan.yaml in several")


def searched(job: Job, clock: Clock, room: Room, *, folds: int = 0, inner: Sequence[Job] = ()) -> SearchResult:
    """Search before a job, from where a killed session left it.

    clock: of the run
    room:  what a plan must fit
    folds: with how many others the minutes of the search are shared
    inner: trainings without a part of the training cases each, over all of which the best trial is confirmed
    """
    out = job.out / SEARCH
    if (out / RESULT).is_file():
        return _read(out / RESULT)
    job = replace(job, plan=_base(job, out))
    with Study(out / STUDY, _space(job, room, bool(folds)), int(job.plan["training.seed"])) as study:
        if "began" not in study.facts:
            study.keep("began", clock.seconds)
        length = SearchLength.of(job.plan, float(study.facts["began"]), max(1, folds), max(1, len(inner)))
        result = _Search(job, study, clock, length, room, inner).result()
    for folder in out.glob("*_*"):  # a killed session may have left some whole
        _slim(folder)
    write_table(pd.DataFrame(list(result.rows)), out / TABLE)
    write_json(out / RESULT, SCHEMA, _record(result))
    log.info("%s: %s", job.what, result.statement)
    return result


@dataclass(frozen=True, eq=False)
class _Search:
    """A search that runs.

    job:   the training whose plan every trial is compared with
    inner: as of `searched`
    ready: preprocessing that was done before
    """

    job: Job
    study: Study
    clock: Clock
    length: SearchLength
    room: Room
    inner: Sequence[Job] = ()
    ready: set[str] = field(default_factory=set)

    def result(self) -> SearchResult:
        """Try until no time is left, then judge the best trial."""
        self._log()
        while self.length.has_room(len(self.study.done), self._longest, self.clock.seconds):
            self._try()
            if self.study.done[0].state != COMPLETE:  # nothing can be compared with the plan
                break
        return self._judged()

    def _log(self) -> None:
        steps, seconds, trials = self.length.steps, self.length.seconds, self.length.trials
        each = f"{steps} steps" if seconds is None else f"{seconds:.0f} s"
        many = f"{trials} trials" if trials is not None else "trials"
        log.info("%s: first a search by %s of %s each, of %s", self.job.what, many, each, ", ".join(self.study.space))

    @property
    def _longest(self) -> float:
        complete = (trial for trial in self.study.done if trial.state == COMPLETE)
        return max((float(trial.facts.get("seconds", 0.0)) for trial in complete), default=0.0)

    @property
    def _metric(self) -> str:
        return self.job.settings.training.selection

    def _try(self) -> None:
        """One trial, from its checkpoint where there is one, until it is over or hopeless."""
        trial, began = self.study.next(), self.clock.seconds
        facts: dict[str, Any] = {"changed": {}, TRIED: words(trial.choices, self.study.space)}
        try:
            plan = tried(self.job.plan, trial.choices, self.study.space, self.room)
        except (PlanError, ResourceError) as error:
            self.study.finish(trial, IMPOSSIBLE, **facts, why=str(error), seconds=0.0, steps=0)
            return
        facts["changed"], looks = changed(self.job.plan, plan), list[float]()
        job = self._trial_job(self.job, plan, f"trial_{trial.number:03}", f"trial {trial.number}")
        self._prepare(job)
        try:
            outcome = fit(job, self._clock_of(job), lambda decisions: None, look=_judge(trial, looks))
        except HopelessError:
            steps, seconds = int(state_of(job.out).get("step", 0)), self.clock.seconds - began
            self.study.finish(trial, PRUNED, **facts, seconds=seconds, steps=steps, value_at_last=looks[-1])
        except (IsocenterError, *MEMORY_ERRORS) as error:
            impossible = isinstance(error, IsocenterError) or is_out_of_memory(error)
            if trial.number == 0 or not impossible:  # the plan itself cannot be trained, or the fault is no trial's
                raise
            seconds, why = self.clock.seconds - began, str(error).strip().partition("\n")[0]
            self.study.finish(trial, IMPOSSIBLE, **facts, why=why, seconds=seconds, steps=0)
        else:
            value = _value(job, validation_of(outcome.checkpoint))
            state, why = (COMPLETE, "") if math.isfinite(value) else (IMPOSSIBLE, f"its {self._metric} is not a number")
            seconds = self.clock.seconds - began
            self.study.finish(trial, state, value, **facts, why=why, seconds=seconds, steps=outcome.steps)
            log.info("trial %d: %s %.4f with %s", trial.number, self._metric, value, facts[TRIED])
        _slim(job.out)

    def _trial_job(self, job: Job, plan: Plan, name: str, what: str) -> Job:
        if self.length.steps is not None:
            plan = plan.with_decision("training.steps", Decision(self.length.steps, "as many as each trial has"))
        return replace(job, out=self.job.out / SEARCH / name, plan=plan, what=f"{self.job.what}, {what}")

    def _prepare(self, job: Job) -> None:
        """What has to be prepared once, outside of the time of the trial that is the first to need it."""
        key = json.dumps(job.settings.preprocessing.settings, sort_keys=True, default=list)
        if key not in self.ready:
            job.prepared()
            self.ready.add(key)

    def _clock_of(self, job: Job) -> Clock:
        """The clock of a trial: when it must end was decided when it began."""
        if self.length.seconds is None:
            return replace(self.clock, deadline=None)
        deadline = state_of(job.out).get("deadline") or self.clock.seconds + self.length.seconds
        return replace(self.clock, deadline=deadline)

    def _judged(self) -> SearchResult:
        """Whether the best trial takes the plan's place."""
        done, metric, count = self.study.done, self._metric, len(self.job.val)
        own, rows = done[0], list(_rows(done))

        def stays(statement: str) -> SearchResult:
            return SearchResult({}, f"Searched: {statement}: the plan stays", rows)

        if own.state != COMPLETE:
            return stays(f"nothing can be compared with the plan's own trial ({own.facts.get('why', '')})")
        if len(done) == 1:
            took = float(own.facts["seconds"])
            return stays(f"the plan's own trial took {took:.0f} s and leaves no time for another and its confirmation")
        others = [trial for trial in done[1:] if trial.state == COMPLETE]
        best = max(others, key=lambda trial: trial.value or float("-inf"), default=own)
        gone = sum(trial.state == PRUNED for trial in done)
        all_of = f"{counted(len(done), 'trial')} ({gone} given up early)"
        assert own.value is not None and best.value is not None  # noqa: S101 - both are complete
        if best.value <= own.value:
            highest = f"{metric} of the plan's own trial on {count} validation cases, {own.value:.4f}, is the highest"
            return stays(f"{highest} of {all_of}")
        led = (
            f"trial {best.number} of {all_of} reached {metric} {best.value:.4f} on {count} validation cases, "
            f"the plan's own {own.value:.4f}"
        )
        if not self.inner:  # these alone decide, and so many trials were chosen from by them
            ours, theirs = (_numbers(self.job.out / SEARCH / f"trial_{trial.number:03}") for trial in (best, own))
            tried = len(done) - 1
            share, needed = self._share_better(self.job.val, ours, theirs, tried), sure_of_best(tried)
            led += f", and was better in {100 * share:.1f} % of bootstrap draws"
            if share < needed:
                return stays(f"{led}; {100 * needed:.1f} % are asked of the best")
        again, planned = self._again(best), self._again(own)
        sure = self._share_better(self._confirming, again[1], planned[1], 1)
        unseen = f" on {counted(len(self._confirming), 'training case')} in inner folds" * bool(self.inner)
        repeated = (
            f"once more from another seed{unseen} {again[0]:.4f} against {planned[0]:.4f}, "
            f"better in {100 * sure:.0f} % of draws"
        )
        if again[0] <= planned[0] or sure < SURE:
            return stays(f"{led}; but {repeated}")
        return self._replaced(best, f"{led}; {repeated}", rows)

    def _replaced(self, best: Tried, because: str, rows: Sequence[Mapping[str, Any]]) -> SearchResult:
        """The best trial in the plan's place."""
        plan = tried(self.job.plan, best.choices, self.study.space, self.room)
        edited = {
            name: Decision(own.value, because, f"{SEARCH}/{TABLE}, trial {best.number}; chosen by TPE, {TPE}")
            for name, own in plan
            if own.value != self.job.plan[name]
        }
        return SearchResult(edited, f"Searched: {because}. It has {words(best.choices, self.study.space)}", rows)

    def _share_better(
        self, cases: Sequence[Case], ours: Mapping[str, Any], planned: Mapping[str, Any], tried: int
    ) -> float:
        patients, seed = [case.patient for case in cases], int(self.job.plan["training.seed"])
        return share_better(self.job.settings.task.teaching, ours, planned, patients, seed=seed, tried=tried)

    def _again(self, trial: Tried) -> tuple[float, Mapping[str, Any]]:
        """A trial trained once more from another seed: its metric, and the numbers behind it, of `_confirming`."""
        plan = tried(self.job.plan, trial.choices, self.study.space, self.room)
        seed = Decision(int(self.job.plan["training.seed"]) + 1, "another than that of the trials")
        plan, name, what = plan.with_decision("training.seed", seed), f"again_{trial.number:03}", "once more"
        folds = {f"{name}_fold_{number}": own for number, own in enumerate(self.inner)}
        parts = []
        for place, own in (folds or {name: self.job}).items():
            job = self._trial_job(own, plan, place, f"trial {trial.number} {what}")
            outcome = fit(job, self._clock_of(job), lambda decisions: None)
            parts.append(validation_of(outcome.checkpoint))
            _slim(job.out)
        joined = joined_numbers(parts) if all(parts) else {}
        return _value(self.job, joined), joined

    @property
    def _confirming(self) -> list[Case]:
        """The cases by which the best trial is compared with the plan once more, in the order of their numbers."""
        return [case for job in (self.inner or (self.job,)) for case in job.val]


def result_in(folder: Path) -> SearchResult | None:
    """The result of the search before the training in this folder; None where there was none."""
    place = folder / SEARCH / RESULT
    return _read(place) if place.is_file() else None


def trials_in(folder: Path) -> Path:
    """The table of the trials of such a search."""
    return folder / SEARCH / TABLE


def _base(job: Job, out: Path) -> Plan:
    """The plan as it stood when the search began, which is what every trial is compared with."""
    place = out / BASE
    if not place.is_file():
        write_text(place, plan_text(replace(job.plan, data="")), overwrite=True)
    return replace(read_plan(place), data=job.plan.data)


def _space(job: Job, room: Room, of_fold: bool) -> Any:
    """What may be tried; a study that has kept its own goes by that, one that was killed while it was made by this."""
    domains = space(job.plan, room, of_fold=of_fold)
    if not domains and not (job.out / SEARCH / STUDY).is_file():
        raise PlanError("everything was set by hand, so that there is nothing to try", "--tune", "Leave it out")
    return domains


def _judge(trial: Trial, looks: list[float]) -> Callable[[Moment], None]:
    """Ends a trial that is hopeless by a look at the validation cases."""

    def look(moment: Moment) -> None:
        if moment.validation is None:
            return
        looks.append(moment.validation)
        if trial.is_hopeless(moment.step / moment.steps, moment.validation):
            raise HopelessError

    return look


def _value(job: Job, numbers: Mapping[str, Any]) -> float:
    """The metric of these numbers; NaN where there are none, because no validation had a metric that is a number."""
    return float(job.settings.task.teaching.selection(numbers)) if numbers else math.nan


def _numbers(folder: Path) -> Mapping[str, Any]:
    return validation_of(folder / "checkpoints" / "best")


def _slim(folder: Path) -> None:
    """Of a training that is over what is compared stays, and its log; weights would fill the disk."""
    kept = ("log.csv", f"checkpoints/best/{VALIDATION}", "checkpoints/last/state.json")
    for path in [file for file in folder.rglob("*") if file.is_file()]:
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def _rows(done: Sequence[Tried]) -> Iterator[dict[str, Any]]:
    for trial in done:
        yield {
            "trial": trial.number,
            "state": "the plan" if trial.number == 0 else trial.state,
            "value": trial.value if trial.state == COMPLETE else trial.facts.get("value_at_last"),
            "steps": trial.facts.get("steps", 0),
            "seconds": round(float(trial.facts.get("seconds", 0.0)), 1),
            "tried": trial.facts.get(TRIED, ""),
            "changed": json.dumps(trial.facts.get("changed", {})),
            "why": trial.facts.get("why", ""),
        }


def _record(result: SearchResult) -> dict[str, Any]:
    edited = {name: asdict(decision) for name, decision in result.changed.items()}
    return {STATEMENT: result.statement, "changed": edited, "rows": list(result.rows)}


def _read(path: Path) -> SearchResult:
    record = read_json(path, SCHEMA)
    edited = {name: Decision(**decision) for name, decision in record["changed"].items()}
    return SearchResult(edited, record[STATEMENT], record["rows"])
