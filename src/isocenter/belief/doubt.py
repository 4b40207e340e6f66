"""Agreement of a model's doubt with its errors: error detection, and risk against coverage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from isocenter.evaluation import (
    BY_EPISTEMIC,
    Metric,
    Seed,
    Table,
    aurc,
    auroc,
    bootstrap_statistic,
    entropy,
    excess_aurc,
)
from isocenter.lazy import pandas as pd
from isocenter.values import Floats, Row

DOUBTS = ("total", "epistemic")
# By the whole uncertainty; by the epistemic part they have the same names with an end.
DOUBT_METRICS: tuple[Metric, ...] = (
    Metric("error_detection", "Error detection (AUROC)", is_of_belief=True, may_judge=False),
    Metric("aurc", "Area under risk-coverage", "less", is_of_belief=True, may_judge=False),
    Metric("excess_aurc", "Excess area under risk-coverage", "less", is_of_belief=True, may_judge=False),
)


class Doubted(NamedTuple):
    """Answers of a table of cases: {"total", "epistemic": (answers,)}, the loss of each, and whose they are."""

    doubts: Mapping[str, Floats]
    loss: Floats
    patients: np.ndarray

    @classmethod
    def of(cls, table: Table) -> Doubted:
        """Wrong calls count 1, masks what their mean Dice lacks to 1; without doubts where nobody stated any.

        Of findings the entropy of each is its doubt: the columns of a case are those of all its findings.
        """
        columns = {name: table[name] for name in DOUBTS if name in table}
        if "probability" in table:
            chance = table["probability"].to_numpy(float)
            columns = {"total": pd.Series(np.asarray(entropy([chance, 1 - chance]), float), table.index)}
        if {"predicted", "reference"} <= set(table):
            loss = (table["predicted"] != table["reference"]).where(table["reference"].notna()).astype(float)
            rows, patients = pd.DataFrame({**columns, "loss": loss}), table["patient"]
        elif "dice" in table and columns:
            each = table.assign(loss=1 - table["dice"]).groupby("case", sort=False)
            rows, patients = each[[*columns, "loss"]].mean(), each["patient"].first()
        else:
            return cls({}, np.empty(0), np.empty(0))
        known = rows.notna().all(axis=1).to_numpy()
        numbers = {str(name): rows[name].to_numpy(float)[known] for name in rows}
        return cls(numbers, numbers.pop("loss"), patients.to_numpy(str)[known])


def doubt_rows(table: Table, *, seed: Seed) -> Iterator[Row]:
    """AUROC of the doubt against being wrong, and the area under risk-coverage, above that of the best order too."""
    doubts, loss, patients = Doubted.of(table)
    for name, doubt in doubts.items() if len(loss) else ():
        end = "" if name == "total" else BY_EPISTEMIC
        if np.isin(loss, (0, 1)).all():
            area = partial(auroc, doubt, loss > 0)
            estimate = bootstrap_statistic(area, patients, strata=loss, seed=seed, compares=True)
            yield Row(f"error_detection{end}", "all", estimate)
        for metric, figure in (("aurc", aurc), ("excess_aurc", excess_aurc)):
            estimate = bootstrap_statistic(partial(figure, doubt, loss), patients, seed=seed, exact=False)
            yield Row(f"{metric}{end}", "all", estimate)
