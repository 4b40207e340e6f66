"""Rows with intervals from the table of cases: for each figure the row over all labels, then a row a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from isocenter.errors import DatasetError
from isocenter.evaluation.intervals import Seed, bootstrap, bootstrap_statistic
from isocenter.evaluation.metric import Metric
from isocenter.evaluation.table import ALL, Table
from isocenter.evaluation.weighting import ratio
from isocenter.values import Estimate, Floats, Row

# Of one case and label, in voxels; their sums over cases make the pooled figures.
COUNTS = ("voxels_both", "voxels_predicted", "voxels_reference")
POOLED_METRICS = (Metric("dice_pooled", "Dice, pooled"), Metric("iou_pooled", "IoU, pooled"))


def mean_rows(table: Table, units: Mapping[str, str], *, seed: Seed) -> list[Row]:
    """Mean of each metric named in `units`; undefined scores are left out and counted.

    "all" is the unweighted mean over the labels of their means, so that a label seldom scored counts like any other.
    """
    return [row for metric, unit in units.items() for row in _mean_rows(table, metric, unit, seed)]


def pooled_rows(table: Table, *, seed: Seed) -> list[Row]:
    """Dice and IoU of the voxels of all cases together, in which large structures count more.

    Needs the columns voxels_both, voxels_predicted and voxels_reference; raises DatasetError without them.
    """
    absent = [name for name in COUNTS if name not in table]
    if absent:
        raise DatasetError(f"no column {absent[0]}", "table of cases", "Count voxels when the cases are scored")
    parts = [(ALL, table), *((str(label), own) for label, own in table.groupby("label", sort=False))]
    figures = (("dice_pooled", _dice), ("iou_pooled", _iou))
    return [Row(metric, label, _pooled(figure, own, seed)) for metric, figure in figures for label, own in parts]


def _mean_rows(table: Table, metric: str, unit: str, seed: Seed) -> Iterator[Row]:
    labels = [label for label in dict.fromkeys(table["label"]) if label != ALL]
    yield Row(metric, ALL, _mean_over_labels(table, metric, unit, seed))
    for label in labels:
        own = table[table["label"] == label]
        yield Row(metric, label, bootstrap(own[metric], own["patient"], seed=seed, unit=unit))


def _mean_over_labels(table: Table, metric: str, unit: str, seed: Seed) -> Estimate:
    """Mean over labels of their means; a case is drawn with all its labels."""
    wide = table.pivot(index=["case", "patient"], columns="label", values=metric).dropna(axis=1, how="all")
    if wide.shape[1] < 2:  # one label: its own mean
        return bootstrap(table[metric], table["patient"], seed=seed, unit=unit)
    defined = wide.notna().to_numpy()
    scores = wide.fillna(0.0).to_numpy(dtype=np.float64)

    def mean(weights: Floats) -> Floats:
        """The mean over the labels, for each weighting."""
        return ratio(weights @ scores, weights @ defined).mean(axis=-1)

    exact = unit == "" and bool(np.isin(scores[defined], (0.0, 1.0)).all())
    owners = wide.index.get_level_values("patient").to_numpy()
    estimate = bootstrap_statistic(mean, owners, seed=seed, unit=unit, exact=exact)
    missing = len(table) - int(defined.sum())
    note = f"; {missing} undefined left out" if missing else ""
    return replace(estimate, n=int(defined.any(axis=1).sum()), method=estimate.method + note)


def _pooled(figure: Callable[[Floats, Floats, Floats], Floats], table: Table, seed: Seed) -> Estimate:
    counts = table[list(COUNTS)].to_numpy(dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        """The figure of all voxels, for each weighting."""
        both, predicted, reference = np.moveaxis(weights @ counts, -1, 0)
        return figure(both, predicted, reference)

    estimate = bootstrap_statistic(statistic, table["patient"], seed=seed, exact=False)
    return replace(estimate, n=int(table["case"].nunique()))


def _dice(both: Floats, predicted: Floats, reference: Floats) -> Floats:
    return ratio(2 * both, predicted + reference)


def _iou(both: Floats, predicted: Floats, reference: Floats) -> Floats:
    return ratio(both, predicted + reference - both)
