"""How a label map is scored: one row a case and label, and what the rows come to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from isocenter.errors import counted
from isocenter.evaluation import (
    Table,
    mean_rows,
    metric_columns,
    overlaps,
    pooled_rows,
    proportion,
    surface_distance,
    volume_unit,
)
from isocenter.values import MM, MM3_PER_ML, SERIES_UNITS, Array, Estimate, Geometry, Label, Row

# With the unit in the name where it is not mm or ml: a distance that counts pixels must not be read as mm.
OF_SERIES = {f"_{unit}": unit for unit in SERIES_UNITS}
DISTANCES, VOLUMES = ("hd95", "assd", "nsd"), ("volume_error", "false_positive_volume")
METRICS = frozenset(
    {
        *("dice", "iou", "sensitivity", "precision", "detected", "dice_pooled", "iou_pooled"),
        *(f"{name}{unit}" for name in DISTANCES for unit in ("", "_pixels", *OF_SERIES)),
        *(f"{name}{unit}" for name in VOLUMES for unit in ("", "_mm2", "_voxels", *OF_SERIES)),
    }
)


def case_rows(
    predicted: Array,
    truth: Array,
    labels: Sequence[Label],
    geometry: Geometry,
    tolerances: Mapping[str, float],
) -> Iterator[dict[str, Any]]:
    """The scores of each label of two label maps (*spatial) on one grid.

    geometry:   without a physical size distances count pixels and volumes voxels, and their columns say so; of a series
                both are in the unit of its axis
    tolerances: {label: mm} of `nsd`
    """
    spacing, voxel, unit = geometry.spacing, voxel_in_unit(geometry), geometry.unit
    steps = geometry.affine[:-1, :-1] if spacing is not None and geometry.is_sheared else spacing
    found = overlaps(predicted, truth, [label.value for label in labels])
    pixels = "_pixels" if spacing is None else "" if unit == MM else f"_{unit}"
    amount = "_voxels" if spacing is None else {1: f"_{unit}", 2: "_mm2"}.get(len(spacing), "")
    for label in labels:
        overlap = found[label.value]
        surface = surface_distance(predicted == label.value, truth == label.value, steps)
        yield {
            "label": label.name,
            "dice": overlap.dice,
            "iou": overlap.iou,
            "sensitivity": overlap.sensitivity,
            "precision": overlap.precision,
            f"hd95{pixels}": surface.hd95,
            f"assd{pixels}": surface.assd,
            f"nsd{pixels}": surface.nsd(tolerances[label.name]),
            f"volume_error{amount}": overlap.volume_error(voxel),
            f"false_positive_volume{amount}": overlap.false_positive_volume(voxel),
            "detected": overlap.detected,
            "voxels_both": overlap.both,
            "voxels_predicted": overlap.predicted,
            "voxels_reference": overlap.reference,
        }


def summary_rows(table: Table, tolerance: Mapping[str, float] | float, *, seed: int) -> list[Row]:
    """Means by metric, over all labels first, then pooled; the method says what stands for what cannot be measured."""
    metrics = [name for name in metric_columns(table) if not name.startswith("voxels_")]
    rows = mean_rows(table, {metric: unit_of(metric) for metric in metrics}, seed=seed)
    rows = [_as_proportion(row, table, seed) if row.metric == "detected" else row for row in rows]
    return [_explained(row, table, tolerance) for row in rows] + pooled_rows(table, seed=seed)


def unit_of(metric: str) -> str:
    """The unit of a column of `case_rows`; none of a ratio."""
    for ending, unit in {"_pixels": "pixels", "_voxels": "voxels", "_mm2": "mm²", **OF_SERIES}.items():
        if metric.endswith(ending):
            return "" if metric.startswith("nsd") else unit
    return {"hd95": "mm", "assd": "mm", "volume_error": "ml", "false_positive_volume": "ml"}.get(metric, "")


def voxel_in_unit(geometry: Geometry) -> float:
    """The volume of a voxel in `volume_unit`: 1 where those are counted."""
    unit = volume_unit(geometry)
    if geometry.voxel_volume is None or unit == "voxels":
        return 1.0
    return geometry.voxel_volume / (MM3_PER_ML if unit == "ml" else 1.0)


def _explained(row: Row, table: Table, tolerance: Mapping[str, float] | float) -> Row:
    name = next((one for one in DISTANCES if row.metric.startswith(one)), row.metric)
    own = table if row.label == "all" else table[table["label"] == row.label]
    if name.startswith("false_positive_volume"):
        return replace(row, estimate=_on_empty(row.estimate, int((own["voxels_reference"] == 0).sum())))
    notes = []
    if name == "nsd":
        notes.append(f"tolerance {_said(tolerance, row.label)} {_tolerance_unit(row.metric)}")
    one_missing = int(((own["voxels_predicted"] > 0) != (own["voxels_reference"] > 0)).sum())
    if name in DISTANCES and one_missing:
        worst = "0" if name == "nsd" else "the image's diagonal"
        notes.append(f"{one_missing} with one side empty counted as {worst}")
    estimate = replace(row.estimate, method="; ".join([row.estimate.method, *notes]))
    return replace(row, estimate=estimate)


def _tolerance_unit(metric: str) -> str:
    return next((unit for ending, unit in {"_pixels": "pixels", **OF_SERIES}.items() if metric.endswith(ending)), MM)


def _as_proportion(row: Row, table: Table, seed: int) -> Row:
    """Of one label, found or not is a proportion; the mean over labels is none."""
    own = table[(table["label"] == row.label) & table["detected"].notna()]
    if own.empty:
        return row
    estimate = proportion(own["detected"], own["patient"], seed=seed)
    left = int((table["label"] == row.label).sum()) - len(own)
    note = f"; {counted(left, 'empty reference')} left out" if left else ""
    return replace(row, estimate=replace(estimate, method=estimate.method + note))


def _on_empty(estimate: Estimate, empty: int) -> Estimate:
    """The method says of how many references; all others were left out by intent."""
    if not empty:
        return replace(estimate, method="none: no reference is empty")
    method = re.sub(r"; \d+ undefined left out", "", estimate.method)
    return replace(estimate, method=f"{method}; of {counted(empty, 'empty reference')}")


def _said(tolerance: Mapping[str, float] | float, label: str) -> str:
    if not isinstance(tolerance, Mapping):
        return f"{tolerance:g}"
    if label in tolerance:
        return f"{tolerance[label]:g}"
    low, high = min(tolerance.values()), max(tolerance.values())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
