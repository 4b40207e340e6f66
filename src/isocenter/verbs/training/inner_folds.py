"""Inner folds: each training case predicted by a network that has not seen it; what is found after training needs many.

The networks are those of the plan, each trained without its part of the training cases. The validation cases choose
their checkpoints, as they choose the main network's; the part itself chooses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isocenter.files import write_table
from isocenter.lazy import pandas as pd
from isocenter.planning import split_folds
from isocenter.tasks import needs_alignment
from isocenter.values import Case, Decision, Plan
from isocenter.verbs.training.fit import MOST_UNSEEN, Job, evenly
from isocenter.verbs.training.run_folder import INNER, RunFolder

SPLIT = "split.csv"


def fold_by_case(run: RunFolder, job: Job, count: int) -> dict[str, int]:
    """{case id: fold} of the training cases of a job, by patient."""
    training = replace(run.dataset.only({case.id for case in job.train}), splits={})
    folds = split_folds(training, count, seed=job.settings.training.seed, twins=run.examination.twins)
    return {case: number for number, parts in enumerate(folds) for case, part in parts.items() if part == "test"}


def predicted_by_folds(job: Job) -> int:
    """How many predictions inner folds make of its cases: of validation cases too where these align the networks."""
    count, aligns = job.settings.split.inner_folds, needs_alignment(job.settings.task)
    unseen = min(len(job.train), count * MOST_UNSEEN) if job.is_dense else len(job.train)
    return (unseen if count else 0) + count * aligns * len(job.tuning)


def inner_jobs(run: RunFolder, job: Job, plan: Plan, *, timed: bool) -> list[Job]:
    """The trainings beside that of a job, none where its plan has no inner folds; `test` is what each has not seen.

    plan:  the job's with what was decided while it trained
    timed: minutes decide, so that each finds its own number of steps for them
    """
    count = job.settings.split.inner_folds
    if not count:
        return []
    if timed:
        plan = plan.with_decision("training.steps", Decision(None, "a probe turns this fold's minutes into steps"))
    job = replace(job, plan=plan)
    folds = fold_by_case(run, job, count)
    place = job.out / INNER
    if not (place / SPLIT).is_file():
        place.mkdir(parents=True, exist_ok=True)
        write_table(pd.DataFrame(sorted(folds.items()), columns=["case", "fold"]), place / SPLIT)
    parts = [[case for case in job.train if folds[case.id] == number] for number in range(count)]
    return [_without(job, number, part) for number, part in enumerate(parts)]


def _without(job: Job, number: int, part: Sequence[Case]) -> Job:
    unseen = {case.id for case in part}
    return replace(
        job,
        out=job.out / INNER / f"fold_{number}",
        train=[case for case in job.train if case.id not in unseen],
        # Label maps take their time: so many of each fold, from all over it, are enough.
        test=evenly(part, MOST_UNSEEN) if job.is_dense else part,
        record={**job.record, "inner_fold": number},
        what=f"{job.what}, inner fold {number}",
    )
