"""Agreement of voxels' probabilities, and of the Dice that they expect, with references."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from hilum.belief import certainties, voxel_belief, voxel_calibration
from hilum.belief.covering_results import MISSED
from hilum.belief.prediction_sets import HIGH, LOW
from hilum.belief.voxel_belief import TIMES_AS_LARGE, SampledVoxels
from hilum.belief.voxel_calibration import NEAR, VoxelCalibration
from hilum.evaluation import Metric, Seed, Table, calibration, intervals, regression
from hilum.evaluation.calibration import Gaps
from hilum.evaluation.classification import BINS
from hilum.evaluation.intervals import IntervalScale
from hilum.evaluation.metric import BEFORE
from hilum.files.storage import structured_text
from hilum.values import Array, Estimate, Floats, Prediction, Row
from hilum.values.table_cells import PlainCell
from hilum.values.voxel_images import ReferenceMap

EXPECTED = "expected_dice"
GAPS = "near_gaps"
ECE = "ece_near"
VOLUME = "summed_volume_error"
CORRELATIONS: Mapping[str, Callable[..., Floats]] = {"pearson": regression.pearson, "spearman": regression.spearman}
_ERRORS = (
    Metric(ECE, "ECE near edges", "less", is_of_belief=True),
    Metric(VOLUME, "Relative error of the summed probability", "less", is_of_belief=True),
)
VOXEL_METRICS = (
    *_ERRORS,
    *(replace(one.ending(BEFORE), may_judge=True) for one in _ERRORS),
    Metric(EXPECTED, "Expected Dice", is_of_belief=True),
    Metric(MISSED, "Missed by the covering mask", "less", is_of_belief=True),
    Metric(TIMES_AS_LARGE, "Size of the covering mask to the reference's", "aim", aim=1.0, is_of_belief=True),
    Metric(f"{EXPECTED}_bias", "Expected less true Dice", "aim", aim=0.0, is_of_belief=True),
    *(
        Metric(f"{EXPECTED}_{name}", f"Expected and true Dice, {name.capitalize()}", is_of_belief=True)
        for name in CORRELATIONS
    ),
)
SCALES: Mapping[str, IntervalScale] = {"pearson": "correlation", "spearman": "rank correlation"}
DIGITS_OF_GAPS = 7


def voxel_columns(
    prediction: Prediction,
    reference: ReferenceMap,
    structures: Mapping[str, tuple[int, ...]],
    probable: VoxelCalibration,
    covers_from: Mapping[str, float] | None,
) -> dict[str, dict[str, PlainCell]]:
    """{structure: columns} of a case: the Dice expected, the error of its summed probability, and the gaps of `ECE`.

    reference: the reference map; of a structure that is unknown there is nothing
    covers_from: of covering masks, of which there is what they miss; None without
    A gap is that of a bin, the mean of probability less truth over the voxels within `NEAR` of an edge of the
    reference; of the predictions before calibration too. Without a sample of voxels there is the expected Dice alone.
    """
    rows: dict[str, dict[str, PlainCell]] = {name: {} for name in structures}
    for name in prediction.confidence.expected.keys() & rows:
        rows[name][EXPECTED] = prediction.confidence.expected[name]
    for side, ends in (
        ((LOW, prediction.confidence.low), (HIGH, prediction.confidence.high)) if reference.voxels is None else ()
    ):
        for name in ends.keys() & rows:
            end = certainties.finite_end(ends[name])
            rows[name][f"volume_predicted_{side}"] = np.nan if end is None else end
    voxels = SampledVoxels.from_prediction(
        prediction, reference, "", tuple(structures.values()), exclusive=probable.exclusive
    )
    if voxels is None:
        return rows
    near = voxel_calibration.is_near_edge(reference.values, prediction.geometry)[tuple(voxels.places.T)]
    sides = {"": probable}
    if probable.moves:
        sides[BEFORE] = probable.plain
    for side, columns in sides.items():
        chances = voxels.probabilities(columns)
        for index, (name, error) in enumerate(
            zip(structures, voxel_belief.volume_errors(voxels, chances), strict=True)
        ):
            rows[name][f"{VOLUME}{side}"] = error
            gaps = _gaps(chances[near, index], voxels.true[near, index], voxels.weights[near])
            rows[name][f"{GAPS}{side}"] = json.dumps([round(gap, DIGITS_OF_GAPS) for gap in gaps.tolist()])
    covering = voxel_belief.covering_mask_columns(
        voxels, voxels.probabilities(probable), covers_from or {}, tuple(structures)
    )
    return {name: {**row, **covering.get(name, {})} for name, row in rows.items()}


def _gaps(chances: Floats, true: Array, weights: Array) -> Floats:
    """(bins,) of equal width, as in `ece`; their sizes add up to the error of the case."""
    bin_of_voxel = np.minimum((chances * BINS).astype(np.intp), BINS - 1)
    return np.bincount(bin_of_voxel, weights * (chances - true), BINS) / max(float(weights.sum()), 1.0)


def voxel_rows(table: Table, *, seed: Seed) -> list[Row]:
    """The calibration error of voxels near edges, and bias and correlation of the expected Dice."""
    labels = {str(label): own for label, own in table.groupby("label", sort=False)}
    rows = [row for side in ("", BEFORE) for row in _near_rows(labels, f"{GAPS}{side}", f"{ECE}{side}", seed)]
    if EXPECTED not in table:
        return rows
    scored = table[table[EXPECTED].notna() & table["dice"].notna()]
    means = scored.groupby(["case", "patient"], sort=False)[["dice", EXPECTED]].mean().reset_index()
    parts = {"all": means, **{str(label): own for label, own in scored.groupby("label", sort=False)}}
    for label, part in parts.items():
        apart = intervals.bootstrap(part[EXPECTED] - part["dice"], part["patient"], seed=seed, exact=False)
        rows.append(Row(f"{EXPECTED}_bias", label, apart))
    for name in CORRELATIONS:
        rows += [Row(f"{EXPECTED}_{name}", label, _correlation(name, own, seed)) for label, own in parts.items()]
    return rows


def _correlation(name: str, table: Table, seed: Seed) -> Estimate:
    expected = table[EXPECTED].to_numpy(float)
    dice = table["dice"].to_numpy(float)

    def statistic(weights: Floats) -> Floats:
        """The correlation, for each weighting."""
        return CORRELATIONS[name](expected, dice, weights)

    return intervals.bootstrap_statistic(statistic, table["patient"], seed=seed, exact=False, scale=SCALES[name])


def _near_rows(labels: Mapping[str, Table], column: str, metric: str, seed: Seed) -> Iterator[Row]:
    """Gaps are averaged over cases, which weigh alike, before their sizes are added; over all labels their mean."""
    where = f"{BINS} bins of what lies within {NEAR:g} mm of an edge (or as many voxels, where their size is unknown)"
    of_labels = {label: own[own[column].notna()] for label, own in labels.items() if column in own}
    of_labels = {label: own for label, own in of_labels.items() if len(own)}
    if not of_labels:
        return
    gaps_of_label = {label: _gaps_of(own, column) for label, own in of_labels.items()}
    values = {label: float(np.abs(gaps.values).sum()) for label, gaps in gaps_of_label.items()}
    most = max(len(own) for own in of_labels.values())
    mean = float(np.mean([*values.values()]))
    joined = Gaps.join([*gaps_of_label.values()])
    yield Row(metric, "all", calibration.binned_error_estimate(mean, joined, n=most, seed=seed, expectation=where))
    for label, gaps in gaps_of_label.items():
        count = len(of_labels[label])
        yield Row(
            metric, label, calibration.binned_error_estimate(values[label], gaps, n=count, seed=seed, expectation=where)
        )


def _gaps_of(table: Table, column: str) -> Gaps:
    """Gaps over the cases of a label, which weigh alike."""
    who, owner = np.unique(table["patient"].to_numpy(), return_inverse=True)
    gaps = np.array([structured_text.parse_json(text) for text in table[column]]) / len(table)
    added = np.zeros((len(who), gaps.shape[1]))
    np.add.at(added, owner, gaps)
    shares = np.bincount(owner)[:, None] / len(table)
    return Gaps(who, added, np.broadcast_to(shares, added.shape), np.zeros(gaps.shape[1]))
