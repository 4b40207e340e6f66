"""The end of a run: what was measured, what speaks against it, and the report, whose file marks a finished run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NotRequired, cast

from pydantic import JsonValue
from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import HilumError, IntegrityError
from hilum.evaluation import case_tables
from hilum.evaluation.fairness.group_attributes import NONE
from hilum.files.storage import atomic
from hilum.lazy import pandas as pd
from hilum.lazy import torch
from hilum.planning import plan_checks, plan_file
from hilum.planning.plan_file import GROUPS
from hilum.planning.rules import normalisation_rules
from hilum.planning.rules.site_rules import FOLDS_BY
from hilum.quality import shortcut_tests
from hilum.reading.images_of_maps import NO_IMAGE
from hilum.report import Section, progress_tracking, wording
from hilum.runs import _run_minutes, run_folder, training_jobs
from hilum.runs._run_minutes import UNCUT, Cuts
from hilum.runs._run_trainings import IMAGE_ONLY
from hilum.runs.run_folder import NOTES, RunFolder
from hilum.runs.run_report import RunReport
from hilum.runs.tuning import OutOfFold
from hilum.runtime import hardware, record_files
from hilum.runtime.hardware import MachineRecord
from hilum.runtime.model_files import REPORT
from hilum.scoring import case_scoring, data_record, image_subsets, model_verdict
from hilum.scoring.answered_cases import ScoringFold
from hilum.scoring.auditing import all_audits, fidelity_audit
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import EVALUATION, AuditInput, FoldPredictor, Outcomes, ScoredCases
from hilum.scoring.model_verdict import Verdict
from hilum.tasks import task_settings
from hilum.training.training_state import CommandClock, TrainingOutcome
from hilum.training.weight_transfer import PROTOTYPES
from hilum.values import Case, Decision, PlainValue, Plan, Problem
from hilum.values.record_schema import RecordSchema, VerdictRecord
from hilum.values.table_cells import PlainCell

# The loss of a fold is a running mean over this share of its steps.
SMOOTH_SHARE = 20
ENVIRONMENT = "environment.json"
PREDICTED = "training.memory"


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """The result of the trainings of a run.

    plan:     with all that was decided
    scored:   what was measured; None where every case was trained on
    outcomes: of the training, or of each fold
    facts:    the figures of each fold, for the report
    seconds:  {stage: s that it took}
    cuts:     sentences on what was left out because the minutes ended
    """

    plan: Plan
    scored: ScoredCases | None
    outcomes: Sequence[TrainingOutcome]
    facts: Mapping[str, PlainValue] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    cuts: Sequence[str] = ()


def scored_in_time(
    clock: CommandClock, cuts: Cuts, model: FoldPredictor, folds: Mapping[str, ScoringFold], cases: Sequence[Case]
) -> Outcomes:
    """One case after the other, as long as another one ends in time."""
    each, began = cuts.scoring, clock.seconds
    for number, case in enumerate(cases):
        if not cuts.allows(clock.seconds, each):
            return
        yield from ((number, outcome) for _, outcome in case_scoring.measure_here(model, folds, [case]))
        each = (clock.seconds - began) / (number + 1)


def score_run_cases(
    run: RunFolder,
    model: FoldPredictor,
    cases: Sequence[Case],
    folder: str = EVALUATION,
    folds: Mapping[str, ScoringFold] = {},
    cuts: Cuts = UNCUT,
) -> ScoredCases | None:
    """The cases scored, and what was measured written into a folder of the run; None without cases, or time for one.

    folds: {case id: the fold that scores it}, where there are several
    cuts:  what is done without because the minutes end
    A case whose files are not what they were when the run began is left out, and named among the problems. Raises
    IntegrityError where that is every one.
    """
    if not cases or not cuts.allows(run.clock.seconds, cuts.scoring):
        return None
    record = data_record.read_data_record(run.out)
    changed = {case.id for case in cases} & (set() if record is None else record.changed_cases(cases))
    if len(changed) == len(cases):
        remedy = "Restore the data as they were: `hilum train --resume` goes on"
        raise IntegrityError("every case that it tests has changed since it began", str(run.out), remedy)
    cases = [case for case in cases if case.id not in changed]
    patients_known, seed = run.dataset.patients_known, int(run.plan["training.seed"])
    outcomes = None if cuts.end is None else partial(scored_in_time, run.clock, cuts, model, folds)
    scored = case_scoring.score_cases(
        model,
        cases,
        {},
        folds=folds,
        outcomes=outcomes,
        again=cuts.end is None,
        seed=seed,
        patients_known=patients_known,
    )
    preprocessing = plan_checks.checked_settings(run.plan).preprocessing
    if cuts.end is None and cuts.subsets:
        scored = image_subsets.with_subsets(
            scored, model, preprocessing, cases, folds, seed=seed, patients_known=patients_known
        )
    if changed:
        what = f"changed or deleted since the run began, so not scored: {errors.list_phrase(sorted(changed))}"
        problem = Problem.error(what, tuple(sorted(changed)), remedy="Evaluate them by `hilum evaluate`")
        scored = replace(scored, problems=(*scored.problems, problem))
    planned = (run.plan[GROUPS] or NONE) if GROUPS in run.plan else None
    audit = AuditInput(
        scored,
        model,
        cases,
        seed,
        patients_known,
        folds,
        AuditOptions(sites=run.plan[FOLDS_BY]),
        planned=planned,
        preregistered=plan_file.preregistered_groups(run.plan),
    )
    if cuts.end is None:
        audit = replace(audit, scored=fidelity_audit.with_recovery(audit))
    scored = all_audits.run_audits(audit)
    with atomic.write_whole(run.out / folder, overwrite=True) as partial_folder:  # a killed run may have left one
        partial_folder.mkdir()
        scored.write(partial_folder)
    return scored


def score_control(run: RunFolder, model: OutOfFold, cases: Sequence[Case]) -> None:
    """Score the cases that the model was scored on into a folder that `compare` takes; none where none can be."""
    rows = predict_rows(model, cases, "without the covariates")
    if not rows:
        return
    table = case_tables.case_table(rows)
    seed, patients_known = int(run.plan["training.seed"]), run.dataset.patients_known
    summary = case_scoring.summarise_table(model.task, table, seed=seed, patients_known=patients_known)
    with atomic.write_whole(run.out / IMAGE_ONLY / EVALUATION, overwrite=True) as partial_folder:
        partial_folder.mkdir()
        ScoredCases(table, summary, task=model.task).write(partial_folder)


def predict_rows(model: OutOfFold, cases: Sequence[Case], what: str) -> list[dict[str, PlainCell]]:
    """The rows of all cases that can be predicted, by models that are compared with others.

    what: they are, in words
    """
    rows = list[dict[str, PlainCell]]()
    with progress_tracking.track_progress(f"predicting and scoring {what}") as tracker:
        for case in tracker.over(cases):
            with suppress(HilumError):  # it is named where the model is scored, and left out of both
                rows += case_scoring.case_table_rows(
                    model.predict(case), case, model.task, "test", model.folds.get(case.id)
                )
    return rows


def run_notes(run: RunFolder, scored: ScoredCases | None, plan: Plan, stopped: Sequence[str]) -> list[str]:
    """Notes for a reader before any figure.

    plan:    with all that was decided after training
    stopped: why trainings ended early, or were too short
    """
    notes = [*task_settings.unkept_rules(plan_checks.checked_settings(plan).task, plan.sections["task"])]
    if not run.dataset.patients_known:
        split = "" if scored is None else ", split by case: leakage cannot be excluded"
        notes.append(f"Patients unknown{split}.")
    if scored is not None:
        notes += data_record.lineage_notes(data_record.read_data_record(run.out), run.tested_cases)
        notes += scored.notes
    if changed := run_folder.changed_decisions(plan):
        split = ": cases that test the model now may have trained it" if run_folder.PARTS in changed else ""
        notes.append(f"Changed by hand after the training had begun{split}: {errors.list_phrase(changed.values())}.")
    if paths := plan["objectives.target"]:
        seen = errors.count_phrase(len(run.unlabelled.target), "image")
        places = ", ".join(Path(path).name for path in paths)
        notes.append(f"Training saw {seen} of the target without labels ({places}): test it there on others.")
    notes += shortcut_tests.shortcut_notes(run.made.shortcuts)  # those that are left after preprocessing
    notes += _warned_notes(run, scored, plan)
    unused = {case.id for case in run.dataset} - run.cases_in_a_part
    leaking = len(unused - run.made.warned_cases if run.made.leaves_warned_out else unused)
    if leaking:
        notes.append(f"{errors.count_phrase(leaking, 'case')} left out of training: nearly the same image is held out.")
    notes += run.made.left_out
    if run.dataset.painted:
        notes.append(NO_IMAGE)
    elif scored is None and not run.tested_cases:
        notes.append("Every case was trained on: nothing is estimated.")
    problems = () if scored is None else scored.problems
    if lost := {case for one in problems if one.severity == "error" for case in one.cases}:
        notes.append(f"{errors.count_phrase(len(lost), 'test case')} could not be scored: see Data.")
    return [*notes, *(f"{why[0].upper()}{why[1:]}." for why in stopped)]


def _warned_notes(run: RunFolder, scored: ScoredCases | None, plan: Plan) -> list[str]:
    """Cases with a warning that train or were left out, and the primary figure with and without those that test."""
    notes, warned = run.made.warned_sentences, run.made.warned_cases
    if scored is None or scored.task is None or not len(scored.table):
        return notes
    is_warned = scored.table["case"].isin(warned)
    count, cases = scored.table["case"][is_warned].nunique(), scored.table["case"].nunique()
    if not count:
        return notes
    counted = f"{count} of {errors.count_phrase(cases, 'test case')} with a warning"
    if count == cases:
        return [*notes, f"{counted}: see Data."]
    seed, primary = int(plan["training.seed"]), str(plan["evaluation.primary"])
    fewer = case_scoring.summarise_table(
        scored.task, scored.table[~is_warned], seed=seed, patients_known=run.dataset.patients_known
    )
    both = [model_verdict.headline_rows(rows, primary, scored.task)[0] for rows in (scored.rows, fewer)]
    with_them, without = (wording.row_words(row, scored.metrics) for row in both)
    return [*notes, f"{counted}: {with_them} with them, {without} without."]


class ExcludedCase(TypedDict):
    """A case that no training saw, and the reason."""

    case: str
    why: str


class NotesRecord(TypedDict):
    """What was noticed about a finished run, with the verdict on its figures."""

    notes: list[str]
    of_figures: list[str]
    minutes: float | None
    verdict: VerdictRecord
    excluded_cases: NotRequired[int]
    excluded: NotRequired[list[ExcludedCase]]


NOTES_SCHEMA = RecordSchema("hilum.run", NotesRecord)


def write_notes(
    folder: Path,
    notes: Sequence[str],
    scored: ScoredCases | None,
    verdict: Verdict,
    *,
    minutes: float | None = None,
    problems: Sequence[Problem] | None = None,
) -> None:
    """The notes of a model's folder, with the verdict.

    problems: of the data; each case that one of them excludes is counted, and stated with the reason
    Notes of the figures alone stand by themselves too: they say nothing of an ensemble that the model is a part of.
    """
    of_figures = [] if scored is None else scored.notes
    verdict_record = verdict.as_record()
    record = NotesRecord(notes=[*notes], of_figures=[*of_figures], minutes=minutes, verdict=verdict_record)
    if problems is not None:
        reasons = {case: one.what for one in problems if one.severity == "error" for case in one.cases}
        record["excluded_cases"] = len(reasons)
        record["excluded"] = [ExcludedCase(case=case, why=why) for case, why in sorted(reasons.items())]
    record_files.write_json(folder / NOTES, NOTES_SCHEMA, record)


def unseen_cases_notes(run: RunFolder, done: TrainedRun) -> list[str]:
    """Notes that some training cases were never seen, of the training or of each fold that was so short."""
    short = list[str]()
    if plan_checks.checked_settings(done.plan).transfer.mode == PROTOTYPES:  # its one step takes all cases
        return short
    for fold, outcome in zip(run.folds, done.outcomes, strict=True):
        batch = outcome.batch or int(done.plan["training.batch"])
        cases, samples = len(run.cases("train", fold)), outcome.steps * batch
        if samples < cases:
            where = "" if fold is None else f" in fold {fold}"
            steps, all_cases = errors.count_phrase(outcome.steps, "step"), errors.count_phrase(cases, "training case")
            what = f"{steps} with a batch of {batch} show {samples} of {all_cases}{where}"
            short.append(f"{what}: not even one pass over them, so give more --minutes")
    return short


class MemoryRecord(TypedDict):
    """GiB: the most that a run took, on the device too, and what its plan predicted."""

    peak_memory_gib: float
    peak_device_memory_gib: NotRequired[float]
    predicted_memory_gib: NotRequired[JsonValue]


class SpeedRecord(TypedDict):
    """How the steps of a training were computed; seconds and operations where they were measured."""

    compute: str
    share_waiting: float
    step_seconds: NotRequired[float]
    step_operations: NotRequired[float]
    peak_operations_a_second: NotRequired[float | None]
    peak_by: NotRequired[str]
    share_of_peak: NotRequired[float | None]


class FirstStep(TypedDict):
    """Until the first step."""

    first_step_s: float
    memory_gib: float


class EnvironmentRecord(MachineRecord):
    """The machine of a run, the memory and the seconds that it took."""

    peak_memory_gib: NotRequired[float]
    peak_device_memory_gib: NotRequired[float]
    predicted_memory_gib: NotRequired[JsonValue]
    training: NotRequired[list[SpeedRecord]]
    seconds: NotRequired[dict[str, float]]
    expected: NotRequired[FirstStep]
    came: NotRequired[FirstStep]


ENVIRONMENT_SCHEMA = RecordSchema("hilum.environment", EnvironmentRecord)


def write_environment(
    run: RunFolder, plan: Plan, done: TrainedRun | None = None, expected: FirstStep | None = None
) -> EnvironmentRecord:
    """`environment.json` with the memory that the run has taken so far, and how long it was trained and how fast.

    expected: until the first step, as `foresee` states it; it stays, and what came beside it
    """
    outcomes, seconds = ((), {}) if done is None else (done.outcomes, done.seconds)
    known = {**hardware.machine_environment(), **memory_record(plan)}
    record = cast("EnvironmentRecord", {**known, "training": [speed_record(one) for one in outcomes]})
    record["seconds"] = {name: round(one, 1) for name, one in seconds.items()}
    file = run.out / ENVIRONMENT
    if expected is None and file.is_file():
        expected = record_files.read_json(file, ENVIRONMENT_SCHEMA).get("expected")
    if expected:
        record["expected"] = expected
    if done is not None and expected:
        first = min(float(pd.read_csv(run.folder(fold) / "log.csv")["seconds"].iloc[0]) for fold in run.folds)
        memory = hardware.peak_memory() / 2**30 * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        record["came"] = FirstStep(first_step_s=round(first, 1), memory_gib=round(memory, 2))
    record_files.write_json(file, ENVIRONMENT_SCHEMA, record)
    return record


def average_fold_logs(folders: Sequence[Path]) -> pd.DataFrame:
    """`log.csv` of a training; of folds a row a step with their mean losses, and a loss and metrics for each."""
    logs = [pd.read_csv(folder / "log.csv") for folder in folders]
    if len(logs) == 1:
        return logs[0]
    common = [name for name in logs[0].columns if name not in ("step", "validation", "training_metric")]
    means = pd.concat(logs).groupby("step")[common].mean()
    for fold, rows in enumerate(logs):
        of_fold = rows.set_index("step")
        smooth = of_fold["loss"].rolling(max(1, len(rows) // SMOOTH_SHARE), min_periods=1, center=True).mean()
        means[f"fold {fold} loss"], means[f"fold {fold}"] = smooth, of_fold["validation"]
        means[f"fold {fold} training_metric"] = of_fold["training_metric"]
    return means.reset_index()


def gate_sentence(gate: Decision) -> str:
    """A sentence on what the model refuses images, from the plan's decision `guard.gate`."""
    words = gate.because if gate.value else f"no gate: every image gets an answer ({gate.because})"
    return f"{words[:1].upper()}{words[1:].removesuffix('.')}."


def write_run_report(
    run: RunFolder,
    done: TrainedRun,
    notes: Sequence[str],
    *,
    log: pd.DataFrame,
    minutes: float,
    searches: Sequence[Section] = (),
    compared: Sequence[Section] = (),
    verdict: Verdict,
) -> None:
    """Write `report.html`, and before it the measured memory.

    searches: sections about searches before the training
    compared: sections about other models on the same cases
    verdict:  what the figures support
    """
    plan = done.plan
    scored = done.scored
    outcomes = done.outcomes
    chosen = plan_checks.checked_settings(done.plan).preprocessing
    record = write_environment(run, plan, done)
    waiting = sum(one.waiting for one in outcomes) / len(outcomes)
    page = RunReport(
        f"Training on {run.dataset.name}",
        f"{errors.count_phrase(len(run.dataset), 'case')}: {plan.decision('split.method').because.partition(';')[0]}. "
        f"{gate_sentence(plan.decision('guard.gate'))}",
        primary=str(plan["evaluation.primary"]),
        scored=scored,
        notes=notes,
        facts={
            **done.facts,
            "data hash": plan.data_hash,
            "read as": run.dataset.layout,
            "patients": run.dataset.patients,
            "model": f"weights: {outcomes[0].because}" if len(outcomes) == 1 else _mean_of(len(outcomes)),
            "preregistered": plan["evaluation.preregistered"],
            "seed": plan["training.seed"],
            "minutes": f"{minutes:.1f}",
            "of these": _run_minutes.stages_in_words(done.seconds),
            "waiting for data": f"{100 * waiting:.1f} % of the training",
            **speed_facts(outcomes),
            "peak memory": memory_words(record),
        },
        views=f"{EVALUATION}/",
        plan=plan,
        log=log,
        logs=[(run.folder(fold) / "log.csv").relative_to(run.out).as_posix() for fold in run.folds],
        problems=(
            *run.examination.problems,
            *training_jobs.read_resampled([run.folder(fold) for fold in run.folds]),
            *normalisation_rules.constant_problems(run.examination.fingerprint, chosen.channels, chosen.normalisation),
            *(scored.problems if scored is not None else ()),
        ),
        environment=hardware.machine_environment(),
        by=_by(run, len(outcomes)),
        searches=searches,
        members=compared,
        knowing=run.dataset.knowing,
        verdict=verdict,
    )
    atomic.write_text(run.out / REPORT, page.html, overwrite=True)


def speed_record(outcome: TrainingOutcome) -> SpeedRecord:
    """Record of how steps were computed and how long they took; their share of the machine's peak where measured."""
    record = SpeedRecord(compute=outcome.compute, share_waiting=outcome.waiting)
    if (work := outcome.work) is not None:
        record |= {"step_seconds": work.step, "step_operations": work.operations}
        record |= {"peak_operations_a_second": work.peak, "peak_by": work.what, "share_of_peak": work.reached_share}
    return record


def speed_facts(outcomes: Sequence[TrainingOutcome]) -> dict[str, str]:
    """The speed of the steps beside what the machine can do, of a training or of the first fold; for the facts."""
    work = outcomes[0].work
    if work is None or work.reached_share is None:
        return {}
    return {"a step": f"{work.step:.3f} s, computed {outcomes[0].compute}", "of the machine's peak": str(work)}


def _by(run: RunFolder, folds: int) -> str:
    """A sentence on which of a run's models scored the cases."""
    if folds == 1:
        return ""
    if run.own_test:
        return f"The cases were scored by the mean of {folds} folds, none of which had seen them."
    return (
        f"Each case was scored by the one of {folds} folds that had not seen it; "
        "the model of this run is their mean, which has seen all of them. The figures estimate how good the model of "
        "one fold is: the mean itself was not scored. Those that set cases against each other, such as AUROC, are "
        "means over the folds, because the scores of different models make no common order."
    )


def _mean_of(folds: int) -> str:
    return f"mean of {folds} folds, which count alike: no validation case is common to them"


def peak_device_memory(device: str) -> float | None:
    """GiB: the most that tensors have held on the device; None where it has no memory of its own."""
    return float(torch.cuda.max_memory_allocated(device)) / 2**30 if device.startswith("cuda") else None


def memory_record(plan: Plan) -> MemoryRecord:
    """GiB measured, and predicted where the plan does; for `environment.json`."""
    on_device = peak_device_memory(str(plan["training.device"]))
    record = MemoryRecord(peak_memory_gib=round(hardware.peak_memory() / 2**30, 3))
    if on_device is not None:
        record["peak_device_memory_gib"] = round(on_device, 3)
    if PREDICTED in plan:
        record["predicted_memory_gib"] = plan[PREDICTED]
    return record


def memory_words(record: MemoryRecord | EnvironmentRecord) -> str:
    """The peak memory in words, for the report's facts."""
    measured = f"{record['peak_memory_gib']:.2f} GiB"
    if "peak_device_memory_gib" in record:
        measured += f", on the device {record['peak_device_memory_gib']:.2f} GiB"
    predicted = record.get("predicted_memory_gib")
    return measured if predicted is None else f"{measured} (predicted: {predicted} GiB)"
