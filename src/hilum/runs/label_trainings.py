"""Short cross-fitted trainings for a check of labels: each case is predicted by a network that has not seen it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hilum.errors import DatasetError
from hilum.quality.dataset_examination import Examination
from hilum.runs import plan_request, run_folder, training_loop
from hilum.runs.plan_request import PlanRequest
from hilum.scoring.auditing import label_ranking
from hilum.scoring.auditing.label_ranking import LabelRanking
from hilum.training.training_state import CommandClock

# Trainings, each without another part of the cases. More leave each too few of the minutes.
FOLDS = 3
# A gate refuses images that nobody asks about here.
WITHOUT_GATE = {"guard.gate": False}


def rank_by_training(examination: Examination, numbered: str, request: PlanRequest, *, began: float) -> LabelRanking:
    """Train within the minutes of `request`, and rank all references by models that have not seen their cases.

    numbered: why label maps are taken for numbered objects, as in `plan_request.examine_data`
    began:    time.monotonic() from which the minutes count
    A split that the set has by itself is left aside: its test cases may be labelled wrongly too. What is trained is
    kept nowhere. Raises what `plan` and `train` raise; DatasetError where the minutes score no case.
    """
    whole = replace(examination, dataset=replace(examination.dataset, splits={}))
    asked = replace(request, folds=FOLDS, assignments={**WITHOUT_GATE, **request.assignments})
    planned = plan_request.plan_of_examined(whole, numbered, asked)
    with tempfile.TemporaryDirectory(prefix="hilum-check-") as folder:
        run = run_folder.new_run(Path(folder) / "run", planned, CommandClock(began))
        done = training_loop.train_by_plan(run)
    if done.scored is None:
        problem = f"{request.minutes:g} minutes are too few to train and to score a case"
        raise DatasetError(problem, "--minutes", "Give more minutes")
    task = done.scored.task or planned.settings.task
    return label_ranking.rank_labels(
        task, done.scored.table, seed=int(done.plan["training.seed"]), notes=tuple(done.cuts)
    )
