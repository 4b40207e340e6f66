"""How much of each structure masks of likely voxels miss, by sampled voxels of cases that did not train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.tasks.segmentation.targets import Truth
from isocenter.tasks.segmentation.unseen_voxels import Voxels
from isocenter.tasks.segmentation.voxel_calibration import Believed
from isocenter.tasks.shared import COVERS_FROM, place_of
from isocenter.values import Case, Floats, Prediction

# Columns of cases, and their metrics.
MISSED, TIMES = "covering_missed", "covering_size"


def missed_shares(
    predictions: Sequence[Prediction], cases: Sequence[Case], truth: Truth, names: Sequence[str], believed: Believed
) -> dict[str, tuple[Floats, np.ndarray]]:
    """{structure: ((cases, limits) share of it less probable than each of `COVERS_FROM`, patients)}, where it is.

    A structure of which no voxel was sampled lies far from whatever was marked: it counts as missed.
    """
    shares: dict[str, list[Floats]] = {name: [] for name in names}
    patients: dict[str, list[str]] = {name: [] for name in names}
    nothing = np.append(np.ones(len(COVERS_FROM) - 1), 0.0)
    for made, case in zip(predictions, cases, strict=True):
        drawn, known = truth.of(case)
        voxels = Voxels.of(made, (drawn, known), case.patient, truth.structures, exclusive=believed.exclusive)
        chances = None if voxels is None else voxels.probabilities(believed)
        for place, (name, values) in enumerate(zip(names, truth.structures, strict=True)):
            there = place_of(values, drawn) if known is None else place_of(values, drawn) & known
            if not there.any():
                continue
            own = None if voxels is None or chances is None else share_below(voxels, chances, place, COVERS_FROM)
            shares[name].append(nothing if own is None else own)
            patients[name].append(case.patient)
    limits = len(COVERS_FROM)
    return {name: (np.array(own).reshape(-1, limits), np.array(patients[name])) for name, own in shares.items()}


def share_below(voxels: Voxels, chances: Floats, place: int, limits: Any) -> Floats | None:
    """(limits,) share of a structure that is less probable than each of them; None without a voxel of it.

    chances: (n, structures)
    """
    true = np.asarray(voxels.true[:, place], dtype=bool)
    if not true.any():
        return None
    own = np.where(np.isnan(chances[true, place]), -1.0, chances[true, place])  # what is no number is in no mask
    order = np.argsort(own, kind="stable")
    sums = np.append(0.0, np.cumsum(np.asarray(voxels.weights, dtype=np.float64)[true][order]))
    return np.asarray(sums[np.searchsorted(own[order], limits)] / sums[-1])


def covering_columns(voxels: Voxels, chances: Floats, least: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    """{structure: columns}: the share of it that its covering mask misses, and how many times as large that is."""
    made: dict[str, dict[str, float | None]] = {}
    for place, (name, limit) in enumerate(least.items()):
        share = share_below(voxels, chances, place, [limit])
        size = float(voxels.weights @ voxels.true[:, place])
        covered = float(voxels.weights @ (chances[:, place] >= limit))
        made[name] = {MISSED: None if share is None else float(share[0]), TIMES: covered / size if size else None}
    return made
