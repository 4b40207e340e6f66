"""The image-only control: the same network, trained as long on the same cases, without the covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from isocenter.errors import IsocenterError
from isocenter.evaluation import case_table
from isocenter.files import written
from isocenter.runtime import Context
from isocenter.values import Case, Decision, Plan, Split
from isocenter.verbs.evaluation.fold import Fold
from isocenter.verbs.evaluation.scoring import EVALUATION, Predictor, Scored, rows_of, summed_up
from isocenter.verbs.reading.progress import tracked
from isocenter.verbs.training.fit import Job
from isocenter.verbs.training.run_folder import IMAGE_ONLY, RunFolder

WHAT = "without the covariates"
BECAUSE = "trained for comparison with what the covariates add"


def is_wanted(run: RunFolder, tested: Sequence[Case]) -> bool:
    """Whether a control is trained too: where the plan says so, and something is tested."""
    plan = run.plan
    planned = "evaluation.image_only" in plan and plan["evaluation.image_only"]
    return bool(
        planned and Context.of(plan["network.context"]).names and tested and plan["preprocessing.cascade"] is None
    )


def without_covariates(plan: Plan, *, timed: bool) -> Plan:
    """The same plan, but for the covariates of patients.

    timed: minutes decide, so that this training finds its own number of steps for them
    """
    of_images = Context.of(plan["network.context"]).of_images
    values: dict[str, object] = {"network.context": of_images.settings or None, "evaluation.image_only": False}
    if not len(of_images):
        values |= {"network.context_fusion": None, "network.narrow": None, "network.sparsity": 0.0}
    values |= {"training.steps": None, "training.compute": None} if timed else {}
    for name, value in values.items():
        plan = plan.with_decision(name, Decision(value, BECAUSE)) if name in plan else plan
    return plan


def image_job(job: Job, plan: Plan, run: RunFolder, *, timed: bool) -> Job:
    """The control of a job; plan: the job's with what was decided while it trained."""
    out = run.out / IMAGE_ONLY if job.out == run.out else run.out / IMAGE_ONLY / job.out.name
    record = {**job.record, "untold": BECAUSE}
    return replace(job, out=out, plan=without_covariates(plan, timed=timed), record=record, what=f"{job.what} {WHAT}")


def evaluated_control(
    run: RunFolder,
    model: Predictor,
    cases: Sequence[Case],
    parts: Mapping[str, Split],
    folds: Mapping[str, Fold] = {},
) -> Scored | None:
    """The cases that the model was scored on, into a folder that `compare` takes; None where none could be scored.

    folds: {case id: the fold that scores it}, where there are several
    """
    rows = predicted_rows(model, cases, parts, folds, WHAT)
    if not rows:
        return None
    table = case_table(rows)
    seed, known = int(run.plan["training.seed"]), run.dataset.patients_known
    summary = summed_up(model.task, table, seed=seed, patients_known=known)
    scored = Scored(table, summary, task=model.task)
    with written(run.out / IMAGE_ONLY / EVALUATION, overwrite=True) as partial_folder:
        partial_folder.mkdir()
        scored.write(partial_folder)
    return scored


def predicted_rows(
    model: Predictor, cases: Sequence[Case], parts: Mapping[str, Split], folds: Mapping[str, Fold], what: str
) -> list[dict[str, Any]]:
    """The rows of all cases that a model can predict, of one that is compared with others.

    what: it is, in words
    """
    rows = list[dict[str, Any]]()
    with tracked(f"predicting and scoring {what}") as tracker:
        for done, case in enumerate(cases, start=1):
            with suppress(IsocenterError):  # it is named where the model is scored, and left out of both
                rows += rows_of(model.predict(case), case, model.task, parts.get(case.id, "test"), folds.get(case.id))
            tracker(done, len(cases))
    return rows
