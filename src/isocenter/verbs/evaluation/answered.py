"""The cases that a model answers, and how wrong its answers are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isocenter.evaluation import Table, bootstrap, proportion, resampling
from isocenter.lazy import pandas as pd
from isocenter.tasks import Task
from isocenter.values import Row

ANSWERED, ABSTAINED = "answered", "abstained"


def case_errors(task: Task, table: Table) -> dict[str, float]:
    """{case: how wrong its answer is, 0 to 1}: 1 less the mean Dice, or the share of labels that are called wrongly.

    Without a case whose answer can be neither right nor wrong, such as a number.
    """
    each: dict[str, list[float]] = {}
    for own in task.scoring.tables(table).values():
        wrong = None
        if "dice" in own:
            wrong = (1 - own["dice"]).where(own["dice"].notna(), 0.0)
        elif {"predicted", "reference"} <= set(own) and not pd.api.types.is_numeric_dtype(own["reference"]):
            known = own["reference"].notna() & own["predicted"].notna()
            wrong = (own["predicted"] != own["reference"])[known].astype(float)
        if wrong is not None:
            for case, error in wrong.groupby(own["case"].astype(str).loc[wrong.index]).mean().items():
                each.setdefault(str(case), []).append(float(error))
    return {case: float(np.mean(errors)) for case, errors in each.items()}


def answered_rows(task: Task, table: Table, *, seed: int) -> Iterator[Row]:
    """The share of cases with an answer, the error of these, and figures of these alone; nothing where all have one."""
    if ABSTAINED not in table or not (is_refused := table[ABSTAINED].fillna("") != "").any():
        return
    cases = table.drop_duplicates("case")
    yield Row(ANSWERED, "all", proportion(~is_refused[cases.index], cases["patient"].to_numpy(str), seed=seed))
    own = table[~is_refused]
    if not len(own):
        return
    errors = case_errors(task, own)
    people = dict(zip(own["case"].astype(str), own["patient"].astype(str), strict=True))
    if errors:
        estimate = bootstrap(list(errors.values()), [people[case] for case in errors], seed=seed)
        yield Row(f"error_{ANSWERED}", "all", estimate)
    for row in task.scoring.summary(own, seed=resampling(own, seed)):
        if row.metric in task.scoring.metrics and row.label == "all":
            yield Row(f"{row.metric}_{ANSWERED}", row.label, row.estimate)
