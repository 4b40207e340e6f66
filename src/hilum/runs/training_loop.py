"""The trainings of a run within its minutes, one after the other; then calibration, gate and scores of their models.

Decisions that fall while trainings run stand in the log, and in the plan of their run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, cast

import numpy as np
from typing_extensions import TypedDict

from hilum import errors
from hilum.files.storage import atomic
from hilum.planning import plan_changes, plan_checks, plan_file, plan_result
from hilum.planning.plan_changes import ENDED_EARLY, FOLD_BATCHES, FOLD_SCALES, FOLD_SEARCHES
from hilum.planning.plan_result import SCALE
from hilum.report import wording
from hilum.runs import (
    _run_minutes,
    _training_order,
    foresight,
    gate,
    run_end,
    run_folder,
    search_trials,
    training_jobs,
    tuning,
)
from hilum.runs._case_costs import SecondsPerCase
from hilum.runs._run_minutes import UNCUT, Cuts, Minutes, RunStages
from hilum.runs._run_trainings import NETWORKS, SEARCH, FinishedTraining, Leaving, RunTraining
from hilum.runs._training_order import MOST_UNSEEN
from hilum.runs.run_end import TrainedRun
from hilum.runs.run_folder import RunFolder
from hilum.runs.run_search import SearchTrials
from hilum.runs.training_jobs import FittedTraining, TrainingJob
from hilum.runs.tuning import UnseenPredictions
from hilum.runtime import Model, ensemble, hardware, model_assembly, model_files, record_files
from hilum.scoring.case_scoring import EVALUATION, MOST_KEPT, OUT_OF_FOLD, SHOWN, ScoredCases
from hilum.scoring.image_subsets import Subsets
from hilum.tasks import Task, fitting
from hilum.training.session_length import SeveralNetworks
from hilum.training.training_state import TrainingOutcome
from hilum.values import Case, Decision, Plan
from hilum.values.record_schema import RecordSchema
from hilum.work_state import log

if TYPE_CHECKING:
    from torch.nn import Module


class TrainingRow(TypedDict):
    """A training of a run; seconds and steps of one that is finished."""

    name: str
    role: str
    state: str
    seconds: NotRequired[float]
    steps: NotRequired[int]


class TrainingsRecord(TypedDict):
    """The trainings of a run, in their order."""

    rows: list[TrainingRow]


TRAININGS, SCHEMA = "trainings.json", RecordSchema("hilum.trainings", TrainingsRecord)
# Best, median and worst cases, whose pictures are drawn.
GROUPS_SHOWN = 3


def train_by_plan(run: RunFolder) -> TrainedRun:
    """Train what the plan asks for, calibrate, and score each case by a model that has not seen it.

    What an earlier session has done is not done again. Where the set has its own test part the mean of the folds is
    scored on it, else each fold on its own cases.
    """
    stages, unseen = RunStages(run.clock), UnseenPredictions()
    stages.mark_end("reading and planning")
    loop = TrainingLoop(run, stages)
    loop.fit_all()
    stages.mark_end("training")
    run, fits = loop.run, loop.fits("model")

    cuts = loop.cuts(max(len(one.outcomes) for one in fits))
    fits, inner = ([one.with_cuts(cuts) for one in own] for own in (fits, loop.fits("unseen")))
    task = plan_checks.checked_settings(run.plan).task
    found = tuning.tune_models(unseen, fits, task, inner)
    stages.mark_end("calibration and thresholds")
    found = gate.add_gates(run, unseen, fits, found)
    unseen.outputs.close()  # a score asks for each case once
    stages.mark_end("gate")

    facts = dict[str, str]()
    if any(one.further for one in fits):
        facts["networks"] = write_mean(run.out, fits, replace(found.models[0], task=found.task))
    predictions = found.out_of_fold(unseen, fits)
    cases = [case for case in run.dataset if case.id in predictions.owners]
    folder = OUT_OF_FOLD if run.own_test else EVALUATION
    scored = run_end.score_run_cases(run, predictions, cases, folder, predictions.folds, cuts)
    if (controls := loop.fits("control")) and cuts.end is None:
        run_end.score_control(run, tuning.tune_out_of_fold(controls, task), cases)
    if run.made.folds and scored is not None:
        facts |= fold_facts(run, scored, fits, found.task)
        if run.own_test:
            mean = model_files.load(run.out, fits[0].job.settings.training.device)
            mean = replace(mean, request=replace(mean.request, overlap=cuts.overlap, samples_prompts=True))
            scored, cases = run_end.score_run_cases(run, mean, run.own_test, cuts=cuts), run.own_test
    stages.mark_end("testing")

    plan, plans = run.plan.with_decisions(found.decisions), [one.job.plan for one in fits]
    outcomes = [one.outcome for one in fits]
    if run.made.folds:
        plan = with_searches(with_reasons(plan, plans, outcomes), plans)
    elif outcomes[0].stopped:
        plan = _add_stop_reason(plan, outcomes[0].stopped)
    return TrainedRun(plan, scored, outcomes, facts, stages.seconds, cut_short(cuts, fits, scored, cases))


def cut_short(
    cuts: Cuts, fits: Sequence[FittedTraining], scored: ScoredCases | None, cases: Sequence[Case]
) -> list[str]:
    """Sentences on what was left out after training, because the minutes ended; cases: that were to be scored."""
    job, done, notes = fits[0].job, 0 if scored is None else scored.table["case"].nunique(), list[str]()
    if cuts.end is not None:
        deciding = errors.count_phrase(len(replace(job, cuts=UNCUT).tuning), "case")
        notes = [f"{len(job.tuning)} of {deciding} decided on calibration and thresholds"]
        notes += [f"{done} of {errors.count_phrase(len(cases), 'test case')} were scored"]
    if cuts.overlap is not None and (cuts.end is None or done or job.tuning):
        planned = job.settings.inference.overlap
        notes.append(f"windows overlapped by {cuts.overlap:g} in place of {planned:g} after training")
    if not cuts.subsets:
        notes.append("cases were not scored with images left out")
    if (seen := fits[0].outcome.windows) is not None:
        around = f"{errors.count_phrase(seen, 'window')} of each case, around a structure"
        notes.append(f"validation looked at {around}: what is called elsewhere did not count there")
    if not notes:
        return []
    return [f"the minutes were few: {errors.list_phrase(notes)}; `hilum evaluate` scores all cases as planned"]


@dataclass(eq=False)
class TrainingLoop:
    """The one loop over trainings: what `next_training` says is fitted, and what it came to is kept.

    run:      its plan is the one that the trainings to come go by
    stages:   of the run, whose search ends here
    minutes:  None where the plan fixes the steps, and until the first training
    is_dealt: whether what the minutes allow has been decided
    searches: {fold: its trials}
    costs:    {configuration, or "": what a case costs by its model, of fresh weights first, half-trained later}
    """

    run: RunFolder
    stages: RunStages
    finished: list[FinishedTraining] = field(default_factory=list)
    minutes: Minutes | None = None
    is_dealt: bool = False
    searches: dict[int | None, SearchTrials] = field(default_factory=dict)
    costs: dict[str, SecondsPerCase] = field(default_factory=dict)

    def fit_all(self) -> None:
        """Ask what comes next, and take that step, until nothing does."""
        while (training := _training_order.next_training(self.run.made, self.finished, self.minutes)) is not None:
            self.take_step(training)
        self._decide_networks()

    def take_step(self, training: RunTraining) -> None:
        """Fit what comes next; before the first that is of no search deal the minutes instead, which may change it."""
        if training.role.is_of_search:
            self._search(training)
        elif not self.is_dealt:
            self._deal()
        else:
            self._fit_next(training)

    def fits(self, leaves: Leaving, below: str = "") -> list[FittedTraining]:
        """The trainings in a folder of the run that leave this, each with the networks that join it."""
        return [
            FittedTraining(
                training_jobs.job_for_training(self.run, one.training),
                one.model_outcome,
                [other.model_outcome for other in self.finished if other.training.joins == one.training.name],
            )
            for one in self.finished
            if one.training.role.leaves == leaves and one.training.name.startswith(below)
        ]

    def _search(self, training: RunTraining) -> None:
        """A trial before a training, or the result of all; of a single training the plan of the run changes by it."""
        run, fold = self.run, training.fold
        if fold not in self.searches:
            planned = run.made if fold is None else run.made.of_fold(fold)
            trials = SearchTrials(
                run.made, _training_order.training_of(run.made, {}, fold), run.folder(fold), run.clock, planned.room
            )
            self.searches[fold], result = trials, search_trials.read_search_result(run.folder(fold))
            self.finished += trials.resume() if result is None else [trials.finish(result)]
        elif not training.role.trains:
            result = self.searches[fold].result(_training_order.search_progress(run.made, self._done, fold))
            self.finished.append(self.searches[fold].finish(result))
        else:
            self.finished += self.searches[fold].fit_trial(training, training_jobs.job_for_training(run, training))
        if fold is None and self.finished and (decided := self.finished[-1].decided):
            self._decide(decided)

    def _deal(self) -> None:
        """Measure what follows training, and give up what the minutes do not allow, unless an earlier session did."""
        self.is_dealt = True
        if self.finished:
            self.stages.mark_end("search")
        run = self.run
        mains = [_training_order.training_of(run.made, self._done, fold) for fold in run.folds]
        self.minutes = minutes_of_run(run, mains, 1 + _training_order.wants_control(run.made))
        if any(run_folder.checkpoint_state(run.place(one.name)) for one in mains):
            return
        hardware.use_threads(mains[0].settings.training.threads)
        job = training_jobs.job_for_training(run, mains[0])
        usual = _run_minutes.case_of_mean_size([*job.val, *job.train], run.examination.fingerprint)
        expected = foresight.foresee(job, usual, run.clock, None if self.minutes is None else self.minutes.minutes)
        run_end.write_environment(run, run.plan, expected=expected)
        if self.minutes is None:
            return
        self.minutes = replace(self.minutes, began=expected["first_step_s"])
        fresh, has_start = partial(self._fresh, mains[0].fold), run.start is not None
        decided, self.costs[""] = _run_minutes.cut_plan_to_minutes(
            self.minutes, mains[0], fresh, run.made.room, now=run.clock.seconds, is_given=has_start
        )
        if decided:
            self._decide(decided)
            log_decisions("training", decided)

    def _fit_next(self, training: RunTraining) -> None:
        """Fit what comes next, within its deadline; the plan's steps decide where there is none."""
        if training.role.repeats:
            self._decide_networks()
        run, out = self.run, self.run.place(training.name)
        self._note(training)
        job, state = training_jobs.job_for_training(run, training), run_folder.checkpoint_state(out)
        clock = replace(run.clock, turn=run.clock.seconds if state.get("turn") is None else state["turn"])
        if training.role.shares_plan and not (out.parent / "plan.yaml").is_file():
            _write_stage_plan(training.plan, out.parent)
        if training.plan["preprocessing.cascade"] is not None:
            job = replace(job, marked=training_jobs.write_low_resolution_marks(run, training))
        recount = None
        if self.minutes is not None and not training.role.repeats:
            due = partial(_run_minutes.training_deadline, training, tuple(self.finished), float(clock.turn or 0.0))
            if (deadline := state.get("deadline")) is None:
                deadline = due(self.minutes.end(self._costs(training)))
            clock = replace(clock, deadline=deadline)
            recount = partial(self._recount_deadline, training, due) if training.role.recounts else None
        decided = self._take_decisions if training.role.decides else partial(log_decisions, training.what)
        outcome = training_jobs.fit_job(job, clock, decided, recount, several=self._several(training))
        self.finished.append(self._finish(training, outcome))
        self._note()
        if training.role.shares_plan and training.record["fold"] == cast("int", training.record["folds"]) - 1:
            self._reason_stages(out.parent)

    def _finish(self, training: RunTraining, outcome: TrainingOutcome) -> FinishedTraining:
        """A training that has ended, by its last state."""
        state = run_folder.checkpoint_state(self.run.place(training.name))
        # Where further networks share its minutes, the time of one of these begins with its first step.
        began = state["share"]["began"] if state["share"] else state["turn"]
        by_clock = state["deadline"] is not None
        costs = self._costs(training) if by_clock and self._counts_networks(training) else None
        return FinishedTraining(training, outcome, state["seconds"] - began, self.run.clock.seconds, by_clock, costs)

    def _configuration(self, training: RunTraining) -> str:
        """The configuration that a training is compared by, or nothing."""
        return training.name.split("/")[1] if _training_order.compares_configurations(self.run.made) else ""

    def _costs(self, training: RunTraining) -> SecondsPerCase:
        """Costs of a case by a network like that of a training, as far as they are known by now.

        In a later session they are those of a network that has ended, else of one that has learnt nothing.
        """
        assert self.minutes is not None  # noqa: S101 - asked where minutes decide
        planned, name = self.run.made, self._configuration(training)
        if name not in self.costs:
            ended = [one for one in self.finished if one.training.role.leaves == "model"]
            if ended:
                model = model_files.load(ended[-1].model_outcome.checkpoint, planned.settings.training.device)
                self.costs[name] = self.minutes.costs(model)
            else:
                plan = _training_order.configuration_plan(planned, name) if name else planned.plan_of(training.fold)
                self.costs[name] = self.minutes.fresh_costs(self._fresh(training.fold, plan))
        return self.costs[name]

    def _recount_deadline(self, training: RunTraining, due: Callable[[float], float], half_trained: Module) -> float:
        """s after the command's start by which a training must end, if this is its network half-way."""
        assert self.minutes is not None  # noqa: S101 - asked where minutes decide
        second = _run_minutes.model_with_weights(half_trained, training.settings)
        costs = self.minutes.costs(self._whole(second, training.fold, training.plan))
        self.costs[self._configuration(training)] = costs
        return due(self.minutes.end(costs, self.run.clock.seconds))

    def _fresh(self, fold: int | None, plan: Plan) -> Model:
        """The model of a plan, with weights that have learnt nothing."""
        return self._whole(_run_minutes.fresh_model(plan_checks.checked_settings(plan)), fold, plan)

    def cuts(self, networks: int) -> Cuts:
        """What is done without now that all training has ended; networks: that predict each case."""
        if self.minutes is None:
            return UNCUT
        if (costs := self.costs.get("")) is None:
            return self.minutes.cuts_of_gates
        extra = max(1, networks // self.minutes.networks)
        return self.minutes.cuts(costs.of_networks(extra), self.run.clock.seconds)

    def _whole(self, second: Model, fold: int | None, plan: Plan) -> Model:
        """A model with a first stage that has learnt nothing: it takes as long as a trained one."""
        if plan["preprocessing.cascade"] is None:
            return second
        first = plan_checks.checked_settings(_training_order.first_stage_plan(self.run.made, plan, fold))
        return model_assembly.with_first_stage(second, _run_minutes.fresh_model(first))

    def _counts_networks(self, training: RunTraining) -> bool:
        """Whether the number of networks follows from the time that this training takes."""
        plan = self.run.plan
        is_open = training.role.decides and NETWORKS in plan and plan[NETWORKS] is None
        return is_open and not _training_order.why_single_network(self.run.made, training, by_clock=True)

    def _several(self, training: RunTraining) -> SeveralNetworks | None:
        """The networks for every voxel that may share the time of the first; None where it has it all."""
        if self.minutes is None or "" not in self.costs or training.settings.training.epochs:
            return None
        return self.minutes.several(self.costs[""]) if self._counts_networks(training) else None

    def _decide_networks(self) -> None:
        """Write down the number of networks as soon as it is known."""
        planned, plan = self.run.made, self.run.plan
        if not _training_order.compares_configurations(planned) and NETWORKS in plan and plan[NETWORKS] is None:
            self._decide({NETWORKS: _training_order.networks_decision(planned, self._done, self.minutes)})

    def _take_decisions(self, decisions: Mapping[str, Decision]) -> None:
        """Take the decisions of a single training into the plan of the run, and log them."""
        self._decide(decisions)
        log_decisions("training", decisions)

    def _decide(self, decisions: Mapping[str, Decision]) -> None:
        self.run = replace(self.run, made=replace(self.run.made, plan=self.run.plan.with_decisions(decisions)))
        self.run.write_plan(self.run.plan)

    def _reason_stages(self, folder: Path) -> None:
        """State in the plan of the networks at low resolution what they were trained with, once all have ended."""
        of_folder = [one for one in self.finished if self.run.place(one.training.name).parent == folder]
        plans, outcomes = [one.training.plan for one in of_folder], [one.model_outcome for one in of_folder]
        _write_stage_plan(with_reasons(plan_file.read_plan(folder / "plan.yaml"), plans, outcomes), folder)

    @property
    def _done(self) -> dict[str, FinishedTraining]:
        """{name: training that has ended}."""
        return {one.training.name: one for one in self.finished}

    def _note(self, running: RunTraining | None = None) -> None:
        """Keep in `trainings.json` what each training came to, and which one runs."""
        rows = list[TrainingRow]()
        for outcome in self.finished:
            training, seconds = outcome.training, round(outcome.seconds, 1)
            rows.append(TrainingRow(name=training.name, role=training.role.name, state="finished", seconds=seconds))
            if outcome.outcome is not None:
                rows[-1]["steps"] = outcome.outcome.steps
        if running is not None:
            rows.append(TrainingRow(name=running.name, role=running.role.name, state="running"))
        record_files.write_json(self.run.out / TRAININGS, SCHEMA, TrainingsRecord(rows=rows))


def _write_stage_plan(plan: Plan, folder: Path) -> None:
    text = plan_file.plan_text(plan_result.with_relative_data(plan, folder))
    atomic.write_text(folder / "plan.yaml", text, overwrite=True)


def minutes_of_run(run: RunFolder, mains: Sequence[RunTraining], trainings: int) -> Minutes | None:
    """The minutes of a run, with what follows its trainings; None where the plan fixes the steps.

    mains:     the trainings of the model
    trainings: of each part, 2 with a control
    """
    jobs, first = [training_jobs.job_for_training(run, one) for one in mains], mains[0]
    chosen = first.settings.training
    if chosen.minutes is None or not run_folder.minutes_decide(chosen, run.place(first.name)):
        return None
    preprocessing, folds = first.settings.preprocessing, len(jobs)
    tested = sum(len(job.test) for job in jobs)
    of_model = [(tested, 1), (len(run.own_test), folds)]
    has_gate, unseen = first.settings.guard.gate, sum(len(job.unseen) for job in jobs)
    looking, others = zip(*(gate.split_for_gate(run, job) for job in jobs), strict=True)
    # Of the first fold the gate looks at the unseen cases too.
    looked = [*others, jobs[0].test if folds > 1 else ()] if has_gate else []
    deciding = [own for job, own in zip(jobs, others, strict=True) if job.calibration or job.tuning is job.val]
    predicting = trainings * unseen + (sum(map(len, deciding)) + len(jobs[0].unseen)) * has_gate
    return Minutes(
        chosen.minutes,
        _run_minutes.case_of_mean_size(
            [*jobs[0].val, *jobs[0].train], run.examination.fingerprint, spaced=preprocessing.spacing is not None
        ),
        trainings * (unseen + sum(len(job.tuning) + len(job.calibration) for job in jobs))
        + _by_inner_folds(jobs[0])
        + trainings * _by_mean(jobs),
        [*of_model, *[(tested, 1)] * (trainings - 1)],
        sum(map(len, looked)),
        [*map(len, looking)] if has_gate else (),
        _run_minutes.covariates_seconds(mains)
        + _run_minutes.fitting_seconds(first.settings.task, chosen.minutes, folds),
        int(first.plan[NETWORKS] or 1 if NETWORKS in first.plan else 1),
        0 if jobs[0].is_dense else predicting,  # how many outputs for every voxel fit into the memory is not known yet
        pictured=GROUPS_SHOWN * SHOWN,
        kept=MOST_KEPT,
        subsets=of_model * max(0, len(Subsets.from_preprocessing(preprocessing).wanted) - 1),
    )


def _by_inner_folds(job: TrainingJob) -> int:
    """Number of predictions by inner folds: of validation cases too where these align the networks."""
    count, aligns = job.settings.split.inner_folds, fitting.needs_alignment(job.settings.task)
    unseen = min(len(job.train), count * MOST_UNSEEN) if job.is_dense else len(job.train)
    return (unseen if count else 0) + count * aligns * len(job.tuning)


def _by_mean(jobs: Sequence[TrainingJob]) -> int:
    """Number of predictions by a single network that it takes to bring folds to the zero of their mean."""
    aligns = len(jobs) > 1 and fitting.needs_alignment(jobs[0].settings.task)
    return len(jobs) * sum(len(job.tuning) for job in jobs) if aligns else 0


def write_mean(out: Path, fits: Sequence[FittedTraining], model: Model) -> str:
    """The networks of a run, or of each of its folds, as one model, which `load` then takes in place of the first.

    model: with the task that they have in common
    Returns their number in words.
    """
    checkpoints = [one.checkpoint for own in fits for one in own.outcomes]
    ends = list(accumulate(len(own.outcomes) for own in fits))
    folds = [[*range(end - len(own.outcomes), end)] for own, end in zip(fits, ends, strict=True)]
    ensemble.write_members(checkpoints, model, {"folds": folds} if len(folds) > 1 else {}, out)
    log.info("the model is the mean of %s", errors.count_phrase(len(checkpoints), "network"))
    return f"{len(checkpoints)}, whose mean is the model"


def fold_facts(run: RunFolder, scored: ScoredCases, fits: Sequence[FittedTraining], task: Task) -> dict[str, str]:
    """The primary metric of each fold's cases, how far the folds lie apart, and beside a test part that of all."""
    primary, seed = str(run.plan["evaluation.primary"]), int(run.plan["training.seed"])
    named, values = task.metrics.metric_named(primary).words, list[float]()
    for fitted in fits:
        of_fold = scored.table[scored.table["case"].isin({case.id for case in fitted.job.test})]
        rows = task.summary(of_fold, seed=seed) if len(of_fold) else ()
        values.append(next((row.estimate.value for row in rows if row.metric == primary), float("nan")))
    facts = {f"{named}, fold {fold}": f"{value:.4f}" for fold, value in enumerate(values)}
    finite = np.array([value for value in values if np.isfinite(value)])
    if len(finite) > 1:
        spread = f"mean {finite.mean():.4f}, SD {finite.std(ddof=1):.4f}, {finite.min():.4f} to {finite.max():.4f}"
        facts[f"{named} over folds"] = spread
    overall = [row for row in scored.rows if row.metric == primary][:1] if run.own_test else []
    return facts | {f"{wording.row_name(row, scored.metrics)} out of fold": str(row.estimate) for row in overall}


EARLY_STOP = "training.early_stop"
# {decision: its line in the log}, in the order in which they are logged.
DECIDED = {
    "network.size": "{what} with a narrower network: {because}",
    "training.compute": "{what} is computed {value}: {because}",
    "training.batch": "{what} in steps of {value}: {because}",
    "inference.flips": "{what}: no window is mirrored in prediction: {because}",
    "training.steps": "{what} for {value} steps: {because}",
}


def log_decisions(what: str, decisions: Mapping[str, Decision]) -> None:
    """Log what was decided while this training ran."""
    for name, line in DECIDED.items():
        if (decision := decisions.get(name)) is not None:
            log.info(line.format(what=what, value=decision.value, because=decision.because))


def _add_stop_reason(plan: Plan, why: str) -> Plan:
    """The plan with why trainings ended early, after the reason why they may."""
    early = plan.decision(EARLY_STOP)
    because = f"{plan_changes.reason_before_run(early)}{ENDED_EARLY} {why}"
    return plan.with_decision(EARLY_STOP, replace(early, because=because))


def with_reasons(plan: Plan, plans: Sequence[Plan], outcomes: Sequence[TrainingOutcome]) -> Plan:
    """The plan with what holds of folds: steps and batch of each, what ended one early, whose intensities count.

    plans: of each fold
    """
    if plan["training.steps"] is None:
        counts = ", ".join(str(outcome.steps) for outcome in outcomes)
        because = f"a probe in each fold turned the minutes into steps: {counts}"
        plan = plan.with_decision("training.steps", Decision(None, because))
        fastest = f"a probe in each fold found the fastest: {', '.join(outcome.compute for outcome in outcomes)}"
        plan = plan.with_decision("training.compute", Decision(None, fastest))
    if any(outcome.batch for outcome in outcomes):
        batch = plan.decision("training.batch")
        counts = ", ".join(str(outcome.batch or batch.value) for outcome in outcomes)
        because = f"{plan_changes.reason_before_run(batch)}{FOLD_BATCHES} {counts}"
        plan = plan.with_decision("training.batch", Decision(batch.value, because, batch.source))
    if any(own[SCALE] != plan[SCALE] for own in plans):
        scale = plan.decision(SCALE)
        because = f"{plan_changes.reason_before_run(scale)}{FOLD_SCALES}"
        plan = plan.with_decision(SCALE, replace(scale, because=because))
    stopped = [f"fold {fold}: {outcome.stopped}" for fold, outcome in enumerate(outcomes) if outcome.stopped]
    return _add_stop_reason(plan, "; ".join(stopped)) if stopped else plan


def with_searches(plan: Plan, plans: Sequence[Plan]) -> Plan:
    """The plan with what each fold's own search has put in the place of a decision.

    plans: of each fold
    """
    for name, planned in plan:
        decisions = {fold: one.decision(name) for fold, one in enumerate(plans)}
        changed = {fold: decision for fold, decision in decisions.items() if decision.source.startswith(SEARCH)}
        if changed:
            values = ", ".join(f"{decision.value} in fold {fold}" for fold, decision in changed.items())
            because = f"{plan_changes.reason_before_run(planned)}{FOLD_SEARCHES} {values}"
            plan = plan.with_decision(name, Decision(planned.value, because, planned.source))
    return plan
