"""Promises on label maps from cases that did not train: covering masks, and intervals of volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.belief import COVERS_FROM, MISSED, Certainty, Found, assured_covering, assured_each, crossed_each
from isocenter.evaluation import value_scores
from isocenter.tasks.segmentation.targets import Truth
from isocenter.tasks.segmentation.unseen_voxels import Voxels
from isocenter.tasks.segmentation.voxel_calibration import SIZES, Believed
from isocenter.tasks.shared import place_of
from isocenter.values import Array, Case, Decision, Deferred, Floats, Geometry, Prediction

# A column of cases, and its metric.
TIMES = "covering_size"
# A label map to the tidied one; None where nothing tidies it.
Settled = Callable[[Array | Deferred, Geometry], Array | None]
# Outputs of all folds for each voxel, beyond which what each of them says of a volume is not looked at.
MOST_CHANNELS = 64


def promised(
    certainty: Certainty,
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    truth: Truth,
    believed: Believed,
    settled: Settled,
    *,
    exact: bool,
) -> tuple[Certainty, dict[str, Decision]]:
    """With thresholds of covering masks and of intervals of volumes; those that are set stay.

    settled: a volume is that of the tidied mask, which these predictions may have been made without
    """
    made, names = dict[str, Decision](), believed.names[believed.exclusive :]
    if certainty.risk is not None and certainty.covering is None:
        missed = missed_shares(predictions, cases, truth, names, believed)
        certainty, made = assured_covering(certainty, missed, exact=exact)
    if certainty.conformal is None and (scores := volume_scores(predictions, cases, truth, names, believed, settled)):
        certainty, decisions = assured_each(certainty, "doubt", "label", scores, exact=exact)
        made |= decisions
    return certainty, made


def volume_scores(
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    truth: Truth,
    names: Sequence[str],
    believed: Believed,
    settled: Settled,
) -> dict[str, tuple[Floats, np.ndarray]]:
    """{structure: ((cases,) how many times its doubtful voxels its volume is off, patients)}, of whole references."""
    rows, whole = _volumes_off(predictions, cases, truth, believed, settled)
    patients = np.array([cases[place].patient for place in whole])
    return {name: (own, patients) for name, own in zip(names, np.array(rows).T, strict=True)} if rows else {}


def crossed_volumes(
    certainty: Certainty,
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    folds: Sequence[int],
    truth: Truth,
    believed: Believed,
) -> Found:
    """With what intervals of volumes by the mean of folds rest on; nothing where they would take much memory.

    Nor where no thresholds are found, by which a fold alone goes.
    """
    networks, plain = max(folds) + 1, believed.plain
    if certainty.conformal is None or networks * len(believed.names) > MOST_CHANNELS:
        return certainty, {}
    rows, whole = _volumes_off(predictions, cases, truth, plain)
    if {folds[place] for place in whole} != set(folds):
        return certainty, {}
    numbers, patients = np.array(folds)[whole], np.array([cases[place].patient for place in whole])
    columns = zip(believed.names[believed.exclusive :], np.array(rows).T, strict=True)
    return crossed_each(certainty, {name: (own, numbers, patients) for name, own in columns}, networks)


def _volumes_off(
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    truth: Truth,
    believed: Believed,
    settled: Settled | None = None,
) -> tuple[list[Floats], list[int]]:
    """(structures,) how many times its doubtful voxels each volume is off, and the places of cases that tell it."""
    rows, whole = list[Floats](), list[int]()
    for place, (made, case) in enumerate(zip(predictions, cases, strict=True)):
        drawn, known = truth.of(case)
        stated = sizes_of(made, drawn, case.patient, truth, believed, settled) if known is None else None
        if stated is not None:
            sizes = [float(np.count_nonzero(place_of(values, drawn))) for values in truth.structures]
            rows.append(value_scores(stated[0], sizes, stated[1]))
            whole.append(place)
    return rows, whole


def sizes_of(
    made: Prediction, drawn: Array, patient: str, truth: Truth, believed: Believed, settled: Settled | None = None
) -> Floats | None:
    """(2, structures) voxels of each mask, and voxels that are expected to be wrong; None where nothing tells.

    Of a prediction that was made before its task was calibrated, the sampled voxels tell of the second.
    """
    if made.untuned is not None and SIZES in made.untuned:
        return np.asarray(made.untuned[SIZES])
    voxels = Voxels.of(made, (drawn, None), patient, truth.structures, exclusive=believed.exclusive)
    if voxels is None:
        return None
    mask = np.asarray(made.data)
    tidied = None if settled is None else settled(mask, made.geometry)
    mask = mask if tidied is None else tidied
    marked = np.array([float(np.count_nonzero(place_of(values, mask))) for values in truth.structures])
    if believed.maps:  # the map was made before calibrated outputs were chosen to make it
        mapped = voxels.mapped_by(believed, truth.structures)
        marked = (marked + voxels.weights @ (mapped.marked * 1.0 - voxels.marked)).clip(0.0)
        voxels = mapped
    return np.stack([marked, voxels.weights @ np.abs(voxels.marked - voxels.probabilities(believed))])


def missed_shares(
    predictions: Sequence[Prediction], cases: Sequence[Case], truth: Truth, names: Sequence[str], believed: Believed
) -> dict[str, tuple[Floats, np.ndarray]]:
    """{structure: ((cases, limits) share of it less probable than each of `COVERS_FROM`, patients)}, where it is.

    A structure without any sampled voxel lies far from whatever was marked: it counts as missed, and so do its voxels
    where the network did not look.
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
    beyond = float(voxels.beyond[place])
    if not true.any() and not beyond:
        return None
    own = np.where(np.isnan(chances[true, place]), -1.0, chances[true, place])  # what is no number is in no mask
    order = np.argsort(own, kind="stable")
    sums = np.append(0.0, np.cumsum(np.asarray(voxels.weights, dtype=np.float64)[true][order]))
    # Where the network did not look only a mask of the whole image holds anything.
    below = sums[np.searchsorted(own[order], limits)] + beyond * (np.asarray(limits) > 0)
    return np.asarray(below / (sums[-1] + beyond))


def in_order(covers_from: Mapping[str, float] | None, names: Sequence[str]) -> dict[str, float] | None:
    """Thresholds of covering masks in the order of the structures, whichever they were written in."""
    return None if covers_from is None else {name: covers_from.get(name, 0.0) for name in names}


def covering_columns(
    voxels: Voxels, chances: Floats, least: Mapping[str, float], names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """{structure: columns}: the share of it that its covering mask misses, and how many times as large that is.

    names: of the structures, in the order of their columns
    """
    made: dict[str, dict[str, float | None]] = {}
    for name, limit in least.items():
        place = names.index(name)
        share = share_below(voxels, chances, place, [limit])
        size = float(voxels.weights @ voxels.true[:, place]) + float(voxels.beyond[place])
        covered = float(voxels.weights @ (chances[:, place] >= limit))
        made[name] = {MISSED: None if share is None else float(share[0]), TIMES: covered / size if size else None}
    return made
