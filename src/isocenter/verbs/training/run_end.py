"""The end of a run: what was measured, what speaks against it, and the report, whose file marks a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isocenter.errors import counted
from isocenter.files import write_text, written
from isocenter.lazy import pandas as pd
from isocenter.planning import settings
from isocenter.report import Section
from isocenter.runtime import environment, write_json
from isocenter.training import Outcome
from isocenter.values import Case, Plan, Split
from isocenter.verbs.evaluation import Predictor, Scored, score, with_subsets
from isocenter.verbs.training.memory_record import memory_record, memory_words
from isocenter.verbs.training.run_folder import REPORT, Begun
from isocenter.verbs.training.run_report import report

# The loss of a fold is a running mean over this share of its steps.
SMOOTH_SHARE = 20
ENVIRONMENT = "environment.json"
EVALUATION, OUT_OF_FOLD = "evaluation", "out_of_fold"


def evaluated(
    run: Begun,
    model: Predictor,
    cases: Sequence[Case],
    parts: Mapping[str, Split],
    folder: str = EVALUATION,
    folds: Mapping[str, int] = {},
) -> Scored | None:
    """The cases scored, and what was measured written into a folder of the run; None without cases.

    folds: {case id: the fold that scores it}, where there are several
    """
    if not cases:
        return None
    known, seed = run.dataset.patients_known, int(run.plan["training.seed"])
    scored = score(model, cases, parts, seed=seed, patients_known=known, folds=folds)
    preprocessing = settings(run.plan).preprocessing
    scored = with_subsets(scored, model, preprocessing, cases, seed=seed, patients_known=known)
    with written(run.out / folder, overwrite=True) as partial:  # a killed run may have left one
        partial.mkdir()
        scored.write(partial)
    return scored


def notes_of(run: Begun, scored: Scored | None, stopped: Sequence[str]) -> list[str]:
    """What a reader must know before any figure.

    stopped: why trainings ended early
    """
    notes = []
    if not run.dataset.patients_known:
        split = "" if scored is None else ", split by case: leakage cannot be excluded"
        notes.append(f"Patients unknown{split}.")
    for one in run.made.shortcuts:  # those that are left after preprocessing
        if one.standing:
            alone = f"{one.what} by {one.name} alone ({one.figure} {one.auc})"
            notes.append(f"Shortcut: {alone}; the figures may rest on it.")
    leaking = len(run.dataset) - len(run.cases_in_a_part)
    if leaking:
        notes.append(f"{counted(leaking, 'case')} left out of training: nearly the same image is held out.")
    left_out = {case for one in run.examination.problems if one.severity == "error" for case in one.cases}
    if left_out:
        notes.append(f"{counted(len(left_out), 'case')} could not be used, left out: see Data.")
    if scored is None:
        notes.append("Every case was trained on: nothing is estimated.")
    elif lost := [one for one in scored.problems if one.severity == "error"]:
        notes.append(f"{counted(len(lost), 'test case')} could not be scored: see Data.")
    return [*notes, *(f"{why[0].upper()}{why[1:]}." for why in stopped)]


def write_environment(run: Begun, plan: Plan, outcomes: Sequence[Outcome] = ()) -> dict[str, Any]:
    """`environment.json` with the memory that the run has taken so far, and how fast it was trained."""
    record = {**environment(), **memory_record(plan), "training": [speed_record(one) for one in outcomes]}
    write_json(run.out / ENVIRONMENT, "isocenter.environment", record)
    return record


def training_log(folders: Sequence[Path]) -> pd.DataFrame:
    """`log.csv` of a training; of folds a row a step with their mean loss, and a loss and a metric for each."""
    logs = [pd.read_csv(folder / "log.csv") for folder in folders]
    if len(logs) == 1:
        return logs[0]
    means = pd.concat(logs).groupby("step")[["seconds", "loss", "learning_rate"]].mean()
    for fold, one in enumerate(logs):
        of_fold = one.set_index("step")
        smooth = of_fold["loss"].rolling(max(1, len(one) // SMOOTH_SHARE), min_periods=1, center=True).mean()
        means[f"fold {fold} loss"], means[f"fold {fold}"] = smooth, of_fold["validation"]
    return means.reset_index()


def write_report(
    run: Begun,
    plan: Plan,
    scored: Scored | None,
    notes: Sequence[str],
    *,
    outcomes: Sequence[Outcome],
    log: pd.DataFrame,
    minutes: float,
    facts: Mapping[str, Any],
    more: Sequence[Section] = (),
) -> None:
    """`report.html`, and before it the measured memory.

    outcomes: of the training, or of each fold
    facts:    more of them, such as the figures of each fold
    more:     sections about what went before the training
    """
    record = write_environment(run, plan, outcomes)
    waiting = sum(one.waiting for one in outcomes) / len(outcomes)
    page = report(
        f"Training on {run.dataset.name}",
        f"{counted(len(run.dataset), 'case')}; {plan.decision('split.method').because}.",
        primary=str(plan["evaluation.primary"]),
        scored=scored,
        notes=notes,
        facts={
            **facts,
            "data hash": plan.data_hash,
            "read as": run.dataset.layout,
            "patients": run.dataset.patients,
            "model": f"weights: {outcomes[0].because}" if len(outcomes) == 1 else _mean_of(len(outcomes)),
            "registered": plan["evaluation.registered"],
            "seed": plan["training.seed"],
            "minutes": f"{minutes:.1f}",
            "waiting for data": f"{100 * waiting:.1f} % of the training",
            **speed_of(outcomes),
            "peak memory": memory_words(record),
        },
        views=f"{EVALUATION}/",
        plan=plan,
        log=log,
        problems=(*run.examination.problems, *(scored.problems if scored is not None else ())),
        environment=environment(),
        by=_by(run, len(outcomes)),
        more=more,
    )
    write_text(run.out / REPORT, page, overwrite=True)


def speed_record(outcome: Outcome) -> dict[str, Any]:
    """How steps were computed, how long they took, and their share of the machine's peak where it was measured."""
    record: dict[str, Any] = {"compute": outcome.compute, "share_waiting": outcome.waiting}
    if (work := outcome.work) is not None:
        record |= {"step_seconds": work.step, "step_operations": work.operations}
        record |= {"peak_operations_a_second": work.peak, "peak_by": work.what, "share_of_peak": work.reached}
    return record


def speed_of(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """How fast the steps were beside what the machine can do, of a training or of the first fold; for the facts."""
    work = outcomes[0].work
    if work is None or work.reached is None:
        return {}
    return {"a step": f"{work.step:.3f} s, computed {outcomes[0].compute}", "of the machine's peak": str(work)}


def _by(run: Begun, folds: int) -> str:
    """Which of a run's models scored the cases."""
    if folds == 1:
        return ""
    if run.own_test:
        return f"The cases were scored by the mean of {folds} folds, none of which had seen them."
    return (
        f"Each case was scored by the one of {folds} folds that had not seen it; "
        "the model of this run is their mean, which has seen all of them. The figures estimate how good the model of "
        "one fold is: of the mean nothing is known here. Those that set cases against each other, such as AUROC, are "
        "means over the folds, because the scores of different models make no common order."
    )


def _mean_of(folds: int) -> str:
    return f"mean of {folds} folds, which count alike: no validation case is common to them"
