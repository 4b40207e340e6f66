"""A search before a training: short trainings of other plans, judged by validation cases; an edited plan is its end.

It is given a job, and with it training and validation cases: no test case can be seen from here. The first trial is the
plan as it stands. What was found takes its place only where it is better beyond chance, twice: over the validation
cases, with as much doubt as there were trials; and once more from another seed, with nothing left to choose.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isocenter.errors import IsocenterError, PlanError, ResourceError, UsageError, counted
from isocenter.files import write_text
from isocenter.lazy import pandas as pd
from isocenter.planning import Room, changed, plan_text, read_plan, settings, space, tried, words
from isocenter.runtime import read_json, write_json
from isocenter.training import (
    COMPLETE,
    FEWEST_CASES,
    FEWEST_STEPS,
    IMPOSSIBLE,
    PRUNED,
    SURE,
    VALIDATION,
    Clock,
    HopelessError,
    Moment,
    Outcome,
    Ranks,
    Study,
    Trial,
    Tried,
    draws_for,
    refuse_without_optuna,
    share_better,
    sure_of_best,
    validation_of,
)
from isocenter.values import Decision, Plan
from isocenter.verbs.training.fit import Job, fit, prepared
from isocenter.verbs.training.run_folder import SEARCH, state_of

log = logging.getLogger("isocenter")
STUDY, RESULT, BASE, TABLE, SCHEMA = "study.db", "result.json", "plan.yaml", "trials.csv", "isocenter.search"
# What was found and the plan are trained once more each.
CONFIRMING = 2
# Of a search by minutes a trial has this share, or LONGER s where that leaves time for FEW trials: of much shorter
# trainings little can be told, and with more of them luck grows faster than what is found.
MANY, FEW, LONGER = 16, 6, 60.0
# Of the steps of the training, where they are set and those of a trial are not.
STEPS_SHARE = 4
TPE = "Bergstra et al., NeurIPS 2011"


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to.

    changed: {decision: what is better than planned, and why}; empty where the plan stays
    said:    the same in a sentence
    rows:    {column: cell} of every trial, in order
    """

    changed: Mapping[str, Decision]
    said: str
    rows: Sequence[Mapping[str, Any]] = field(default=())

    def applied(self, plan: Plan) -> Plan:
        """The plan, edited; who trains by it again does not search again."""
        over = "the search is over, and what it has found stands in this plan"
        searched = {name: Decision(None, over) for name in ("search.minutes", "search.trials")}
        for name, decision in {**self.changed, **searched}.items():
            plan = plan.with_decision(name, decision)
        return plan


@dataclass(frozen=True)
class Length:
    """How long a search and its trials are.

    seconds: of a trial; None where its steps decide
    steps:   of a trial; None where its seconds decide
    trials:  how many; None until `ends`, s of the run's clock
    """

    seconds: float | None
    steps: int | None
    trials: int | None
    ends: float | None

    def has_room(self, done: int, longest: float, now: float) -> bool:
        """Whether another trial fits, beside those that confirm what was found.

        longest: s of the longest trial so far
        """
        if not done:
            return True
        if self.trials is not None:
            return done < self.trials
        return now + (1 + CONFIRMING) * max(longest, self.seconds or 0.0) <= (self.ends or 0.0)


def refuse_unsearchable(plan: Plan, validating: int) -> None:
    """UsageError where no search could tell luck from skill; ResourceError where nothing could choose its trials.

    validating: validation cases, of folds those of the one that has fewest
    """
    if not settings(plan).search.is_on:
        return
    refuse_without_optuna()
    if validating < FEWEST_CASES:
        problem = (
            f"{counted(validating, 'validation case')}: of fewer than {FEWEST_CASES} nothing can be told from luck"
        )
        raise UsageError(problem, "--tune", "Give more cases, or leave out --tune (with --all nothing selects)")
    if Ranks.here().count > 1:
        problem = "trials are given up by one process, and others would wait for it"
        raise UsageError(problem, "--tune", "Search in one process, then train its plan.yaml in several")


def searched(job: Job, clock: Clock, room: Room, *, folds: int = 0) -> Found:
    """Search beside a job, from where a killed session left it.

    clock: of the run; folds: with how many others the minutes of the search are shared
    """
    out = job.out / SEARCH
    if (out / RESULT).is_file():
        return _read(out / RESULT)
    base = _base(job, out)
    job = replace(job, plan=base)
    with Study(out / STUDY, _space(job, room, bool(folds)), int(base["training.seed"])) as study:
        if "began" not in study.facts:
            study.keep("began", clock.seconds)
        length = length_of(base, float(study.facts["began"]), max(1, folds))
        _say(job, study, length)
        ready: set[str] = set()
        while length.has_room(len(study.done), _longest(study), clock.seconds):
            _try(job, study, clock, length, room, ready)
            if study.done[0].state != COMPLETE:  # nothing can be compared with the plan
                break
        found = _judged(job, study, clock, length, room)
    for folder in out.glob("*_*"):  # a killed session may have left some whole
        _slim(folder)
    pd.DataFrame(list(found.rows)).to_csv(out / TABLE, index=False)
    write_json(out / RESULT, SCHEMA, _record(found))
    log.info("%s: %s", job.what, found.said)
    return found


def found_in(folder: Path) -> Found | None:
    """What the search came to that went before the training in this folder; None where there was none."""
    place = folder / SEARCH / RESULT
    return _read(place) if place.is_file() else None


def length_of(plan: Plan, began: float, folds: int) -> Length:
    """began: s of the run's clock at which the search began; folds: that share its minutes"""
    chosen = settings(plan)
    search, training = chosen.search, chosen.training
    budget = None if search.minutes is None else 60 * search.minutes / folds
    ends = None if search.trials is not None or budget is None else began + budget
    steps = search.steps
    if steps is None and training.steps is not None:
        steps = max(FEWEST_STEPS, training.steps // STEPS_SHARE)
    if steps is not None:
        return Length(None, min(steps, training.steps or steps), search.trials, ends)
    assert budget is not None and training.minutes is not None and search.minutes is not None  # noqa: S101 - as checked
    if search.trials is not None:
        return Length(budget / (search.trials + CONFIRMING), None, search.trials, None)
    each = max(budget / (MANY + CONFIRMING), min(LONGER, budget / FEW))
    return Length(min(each, 60 * (training.minutes - search.minutes) / folds), None, None, ends)


def _base(job: Job, out: Path) -> Plan:
    """The plan as it stood when the search began, which is what every trial is compared with."""
    place = out / BASE
    if not place.is_file():
        write_text(place, plan_text(replace(job.plan, data="")), overwrite=True)
    return replace(read_plan(place), data=job.plan.data)


def _space(job: Job, room: Room, of_fold: bool) -> Any:
    """What may be tried; of a study that was begun its own is taken."""
    if (job.out / SEARCH / STUDY).is_file():
        return {}
    found = space(job.plan, room, of_fold=of_fold)
    if not found:
        raise PlanError("everything was set by hand, so that there is nothing to try", "--tune", "Leave it out")
    return found


def _say(job: Job, study: Study, length: Length) -> None:
    each = f"{length.steps} steps" if length.seconds is None else f"{length.seconds:.0f} s"
    many = f"{length.trials} trials" if length.trials is not None else "trials"
    log.info("%s: searched before by %s of %s each, of %s", job.what, many, each, ", ".join(study.space))


def _longest(study: Study) -> float:
    return max((float(one.facts.get("seconds", 0.0)) for one in study.done if one.state == COMPLETE), default=0.0)


def _try(job: Job, study: Study, clock: Clock, length: Length, room: Room, ready: set[str]) -> None:
    """One trial, from its checkpoint where there is one, until it is over or hopeless."""
    trial = study.next()
    began = clock.seconds
    try:
        plan = tried(job.plan, trial.choices, study.space, room)
    except (PlanError, ResourceError) as error:
        said = words(trial.choices, study.space)
        study.finish(trial, IMPOSSIBLE, changed={}, said=said, why=str(error), seconds=0.0, steps=0)
        return
    facts: dict[str, Any] = {"changed": changed(job.plan, plan), "said": words(trial.choices, study.space)}
    one = _job(job, plan, length, f"trial_{trial.number:03}", f"trial {trial.number}")
    _prepare(one, ready)
    looks: list[float] = []
    try:
        outcome = fit(one, _clock(one, clock, length), lambda decisions: None, look=_judge(trial, looks))
    except HopelessError:
        steps = int(state_of(one.out).get("step", 0))
        study.finish(trial, PRUNED, **facts, seconds=clock.seconds - began, steps=steps, value_at_last=looks[-1])
    except IsocenterError as error:
        if trial.number == 0:  # the plan itself cannot be trained
            raise
        study.finish(trial, IMPOSSIBLE, **facts, why=str(error), seconds=clock.seconds - began, steps=0)
    else:
        value, why = _value(one, outcome), ""
        state = COMPLETE if math.isfinite(value) else IMPOSSIBLE
        if state == IMPOSSIBLE:
            why = f"its {_metric(job)} is no number"
        study.finish(trial, state, value, **facts, why=why, seconds=clock.seconds - began, steps=outcome.steps)
        log.info("trial %d: %s %.4f with %s", trial.number, _metric(job), value, facts["said"])
    _slim(one.out)


def _judge(trial: Trial, looks: list[float]) -> Callable[[Moment], None]:
    """Ends a trial that is hopeless by a look at the validation cases."""

    def look(moment: Moment) -> None:
        if moment.validation is None:
            return
        looks.append(moment.validation)
        if trial.is_hopeless(moment.step / moment.steps, moment.validation):
            raise HopelessError

    return look


def _job(job: Job, plan: Plan, length: Length, name: str, what: str) -> Job:
    if length.steps is not None:
        plan = plan.with_decision("training.steps", Decision(length.steps, "as many as each trial has"))
    return replace(job, out=job.out / SEARCH / name, plan=plan, what=f"{job.what}, {what}")


def _prepare(job: Job, ready: set[str]) -> None:
    """What has to be prepared once, outside of the time of the trial that is the first to need it."""
    key = json.dumps(job.settings.preprocessing.settings, sort_keys=True, default=list)
    if key not in ready:
        prepared([*job.train, *job.val], job.settings, job.plan.options, job.marked)
        ready.add(key)


def _clock(job: Job, clock: Clock, length: Length) -> Clock:
    """By which a training ends; as it was planned when it began."""
    if length.seconds is None:
        return replace(clock, deadline=None)
    return replace(clock, deadline=state_of(job.out).get("deadline") or clock.seconds + length.seconds)


def _value(job: Job, outcome: Outcome) -> float:
    return float(job.settings.task.selection(validation_of(outcome.checkpoint)))


def _numbers(folder: Path) -> Mapping[str, Any]:
    return validation_of(folder / "checkpoints" / "best")


def _metric(job: Job) -> str:
    return job.settings.training.selection


def _slim(folder: Path) -> None:
    """Of a training that is over what is compared stays, and its log; weights would fill the disk."""
    kept = ("log.csv", f"checkpoints/best/{VALIDATION}", "checkpoints/last/state.json")
    for path in [one for one in folder.rglob("*") if one.is_file()]:
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def _judged(job: Job, study: Study, clock: Clock, length: Length, room: Room) -> Found:
    """Whether the best trial takes the plan's place."""
    done = study.done
    own, others = done[0], [one for one in done[1:] if one.state == COMPLETE]
    rows, metric, count = list(_rows(done)), _metric(job), len(job.val)
    if own.state != COMPLETE:
        why = own.facts.get("why", "")
        return Found({}, f"Searched: nothing can be compared with the plan's own trial ({why}): the plan stays", rows)
    if len(done) == 1:
        took = float(own.facts["seconds"])
        said = f"Searched: the plan's own trial took {took:.0f} s, no time was left for another: the plan stays"
        return Found({}, said, rows)
    best = max(others, key=lambda one: one.value or float("-inf"), default=own)
    gone = sum(one.state == PRUNED for one in done)
    all_of = f"{counted(len(done), 'trial')} ({gone} given up early)"
    assert own.value is not None and best.value is not None  # noqa: S101 - both are complete
    if best.value <= own.value:
        said = (
            f"Searched: {metric} of the plan's own trial on {count} validation cases, {own.value:.4f}, is the highest"
        )
        return Found({}, f"{said} of {all_of}: the plan stays", rows)
    share, needed = _share(job, best, own, len(done) - 1), sure_of_best(len(done) - 1)
    led = (
        f"trial {best.number} of {all_of} reached {metric} {best.value:.4f} on {count} validation cases, "
        f"the plan's own {own.value:.4f}, and was better in {100 * share:.1f} % of bootstrap draws"
    )
    if share < needed:
        return Found({}, f"Searched: {led}; {100 * needed:.1f} % are asked of the best: the plan stays", rows)
    again, planned = (_again(job, study, clock, length, room, one) for one in (best, own))
    sure = share_better(job.settings.task, again[1], planned[1], int(job.plan["training.seed"]))
    once_more = (
        f"once more from another seed {again[0]:.4f} against {planned[0]:.4f}, better in {100 * sure:.0f} % of draws"
    )
    if again[0] <= planned[0] or sure < SURE:
        return Found({}, f"Searched: {led}; but {once_more}: the plan stays", rows)
    because = f"{led}; {once_more}"
    plan = tried(job.plan, best.choices, study.space, room)
    edited = {
        name: Decision(one.value, because, f"{SEARCH}/{TABLE}, trial {best.number}; chosen by TPE, {TPE}")
        for name, one in plan
        if one.value != job.plan[name]
    }
    return Found(edited, f"Searched: {because}. It has {words(best.choices, study.space)}", rows)


def _share(job: Job, best: Tried, own: Tried, others: int) -> float:
    ours, planned = (_numbers(job.out / SEARCH / f"trial_{one.number:03}") for one in (best, own))
    return share_better(job.settings.task, ours, planned, int(job.plan["training.seed"]), draws_for(others))


def _again(
    job: Job, study: Study, clock: Clock, length: Length, room: Room, one: Tried
) -> tuple[float, Mapping[str, Any]]:
    """A trial trained once more from another seed: its metric, and the numbers behind it."""
    plan = tried(job.plan, one.choices, study.space, room)
    seed = Decision(int(job.plan["training.seed"]) + 1, "another than that of the trials")
    name, what = f"again_{one.number:03}", f"trial {one.number} once more"
    other = _job(job, plan.with_decision("training.seed", seed), length, name, what)
    outcome = fit(other, _clock(other, clock, length), lambda decisions: None)
    value = _value(other, outcome)
    _slim(other.out)
    return value, _numbers(other.out)


def _rows(done: Sequence[Tried]) -> Iterator[dict[str, Any]]:
    for one in done:
        value = one.value if one.state == COMPLETE else one.facts.get("value_at_last")
        yield {
            "trial": one.number,
            "state": "the plan" if one.number == 0 else one.state,
            "value": value,
            "steps": one.facts.get("steps", 0),
            "seconds": round(float(one.facts.get("seconds", 0.0)), 1),
            "tried": one.facts.get("said", ""),
            "changed": json.dumps(one.facts.get("changed", {})),
            "why": one.facts.get("why", ""),
        }


def _record(found: Found) -> dict[str, Any]:
    edited = {
        name: {"value": one.value, "because": one.because, "source": one.source} for name, one in found.changed.items()
    }
    return {"said": found.said, "changed": edited, "rows": list(found.rows)}


def _read(path: Path) -> Found:
    record = read_json(path, SCHEMA)
    edited = {name: Decision(**one) for name, one in record["changed"].items()}
    return Found(edited, record["said"], record["rows"])
