"""The values of each case that make a metric, and the tests that fit them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from isocenter.errors import UsageError
from isocenter.evaluation.significance.areas import FEW_FOR_DELONG, delong
from isocenter.evaluation.significance.outcome import Test
from isocenter.evaluation.significance.paired_tests import mcnemar, permutation, wilcoxon
from isocenter.evaluation.table import ALL, PROBABILITY, Table, metric_columns
from isocenter.values import Floats

Kind = Literal["area", "share", "mean"]
# The tests that fit each kind, the usual one first.
FITTING: Mapping[Kind, tuple[str, ...]] = {
    "area": ("delong", "permutation"),
    "share": ("mcnemar", "permutation"),
    "mean": ("permutation", "wilcoxon"),
}
# The worst value of a case by metric; distances, volumes and errors in a unit have none.
WORST: Mapping[str, float] = {
    **dict.fromkeys(("dice", "iou", "sensitivity", "precision", "detected", "nsd", "nsd_pixels", "nsd_voxels"), 0.0),
    **dict.fromkeys(("cldice", "centreline_recall", "centreline_precision", "f1"), 0.0),
    **dict.fromkeys(("pq", "rq", "sq", "aji", "ap", "ap50", "ap75"), 0.0),
    **dict.fromkeys(("brier", "rps"), 1.0),
}


@dataclass(frozen=True, eq=False)
class CaseValues:
    """The numbers of which one figure of one label is made: an AUROC, a share of right calls, or a mean.

    cases, patients: (rows,) ids; values: (rows,) scores, 1 for a right call and 0 for a wrong one, or numbers
    positive:        (rows,) truths, of an AUROC alone
    worst:           the worst number that a case can have; None where there is none
    """

    metric: str
    label: str
    kind: Kind
    cases: np.ndarray
    patients: np.ndarray
    values: Floats
    positive: np.ndarray | None = None
    worst: float | None = None

    def of(self, rows: np.ndarray) -> CaseValues:
        """The values of some rows, given as truths."""
        truth = None if self.positive is None else self.positive[rows]
        own = {name: getattr(self, name)[rows] for name in ("cases", "patients", "values")}
        return replace(self, **own, positive=truth)


def column_values(table: Table) -> list[CaseValues]:
    """The case values of every column of figures in a table of cases: means of its labels, and of these means.

    A column of nothing but 0 and 1 is a share, unless that of the other model is none. Rows without a figure are left
    out.
    """
    return [made for metric in metric_columns(table) for made in _of_column(table, metric)]


def fitting_tests(first: CaseValues, second: CaseValues) -> tuple[str, ...]:
    """The names of the tests that fit the numbers of both models, the usual one first, whichever model is the first."""
    if "area" in (first.kind, second.kind):
        few = len(np.unique(first.patients)) < FEW_FOR_DELONG
        return FITTING["area"][::-1] if few else FITTING["area"]
    # One model's Dice may be 0 in every case: it is no share of right calls unless the other's is one too.
    return FITTING[first.kind if first.kind == second.kind else "mean"]


def case_test(name: str, first: CaseValues, second: CaseValues, *, seed: int) -> Test:
    """The test of this name of two models' numbers of the same cases. Raises UsageError for one that does not fit."""
    fitting = fitting_tests(first, second)
    if name not in fitting:
        raise UsageError(f"{name} does not fit {first.metric}", "test", f"Choose {' or '.join(fitting)}")
    if not np.array_equal(first.cases, second.cases):
        raise UsageError(f"{first.metric} of other cases", "test", "Give both models of the same cases")
    own, other, patients = first.values, second.values, first.patients
    if name == "permutation":
        return permutation(own, other, first.positive, patients, worst=first.worst, seed=seed)
    if first.positive is not None:
        return delong(own, other, first.positive, patients)
    return (mcnemar if name == "mcnemar" else wilcoxon)(own, other, patients)


def _of_column(table: Table, metric: str) -> list[CaseValues]:
    known = table[table[metric].notna()]
    labels = list(dict.fromkeys(known["label"]))
    made = [_made(metric, str(label), known[known["label"] == label]) for label in labels if label != ALL]
    if len(labels) == 1:
        return [*made, _made(metric, ALL, known)]
    # The mean of the labels' means, as one of all rows: each counts by how many its label has.
    share = known["label"].map(len(known) / (len(labels) * known["label"].value_counts()))
    return [*made, _made(metric, ALL, known.assign(**{metric: known[metric].astype(float) * share}))] if labels else []


def _made(metric: str, label: str, table: Table) -> CaseValues:
    values = table[metric].to_numpy(dtype=np.float64)
    kind: Kind = "share" if np.isin(values, (0.0, 1.0)).all() else "mean"
    # Of three classes or more, the squared errors of all are summed.
    several = metric == "brier" and sum(str(name).startswith(PROBABILITY) for name in table) > 2
    worst = 2.0 if several else WORST.get(metric)
    ids = (table["case"].to_numpy(str), table["patient"].to_numpy(str))
    return CaseValues(metric, label, kind, *ids, values, worst=worst)
