"""The probability that an object is a true one, by how surely its voxels are inside and by its size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from isocenter.belief import log_odds, rows_of_many, spread_of_many
from isocenter.errors import counted
from isocenter.evaluation import UNCALIBRATED, Calibrator, InstanceOverlap, Seed, Table, Unseen, instance_overlap
from isocenter.files import parse_json
from isocenter.tasks.instances.decode import Numbers
from isocenter.tasks.instances.promises import hits
from isocenter.values import Array, Confidence, Floats, Prediction, Row

OBJECT = "object"
# Columns of cases and of predictions, in the order of the objects: a score each; of cases also whether it is right.
SCORES, RIGHT = "scores", "right"
# Of a case the numbers of its objects, their scores as the network states them, and their sizes.
Objects = tuple[Numbers, Floats, Floats]


def network_scores(numbers: Numbers, inside: Array) -> Floats:
    """(objects,) mean probability of inside of the voxels of each, numbered 1, 2, ..."""
    flat = numbers.reshape(-1)
    counts = np.bincount(flat)[1:]
    return np.asarray(np.bincount(flat, np.asarray(inside, dtype=np.float64).reshape(-1))[1:] / counts)


def object_sizes(numbers: Numbers, voxel: float) -> Floats:
    """(objects,) size of each; voxel: of one, in the unit of a task."""
    return np.bincount(numbers.reshape(-1))[1:] * voxel


def confidence_of(names: Sequence[str], scores: Floats, sizes: Floats, calibrator: Calibrator) -> Confidence:
    """The calibrated scores of objects, and those of the network where that changed something."""
    given = dict(zip(names, scores.tolist(), strict=True))
    if calibrator.method == "none":
        return Confidence(scores=given)
    odds = calibrator.odds(log_odds(scores)[:, None], (OBJECT,), np.log(sizes))[:, 0]
    stated = np.exp(-np.logaddexp(0.0, -odds)).tolist()
    return Confidence(scores=dict(zip(names, stated, strict=True)), uncalibrated=given)


def objects_of(prediction: Prediction, voxel: float) -> Objects:
    """Those of a prediction, as it was decoded; voxel: as in `object_sizes`."""
    numbers, known = np.asarray(prediction.data), prediction.confidence
    scores = np.array([*(known.uncalibrated or known.scores).values()], dtype=np.float64)
    return numbers, scores, object_sizes(numbers, voxel)


def unseen_objects(objects: Sequence[Objects], references: Sequence[Array], patients: Sequence[str]) -> Unseen:
    """The scores of objects as the network gave them, their sizes, and which of them are right."""
    right = [is_right(instance_overlap(own, truth)) for (own, _, _), truth in zip(objects, references, strict=True)]
    scores, sizes = (np.concatenate([one[place] for one in objects]) for place in (1, 2))
    owners = np.repeat(np.array(patients), [len(one) for one in right])
    truth = np.concatenate(right).astype(np.float64)[:, None]
    spread = spread_of_many(owners)
    return Unseen(log_odds(scores)[:, None], truth, owners, (OBJECT,), "labels", spread=spread, sizes=np.log(sizes))


def is_right(overlap: InstanceOverlap) -> np.ndarray:
    """(objects,) whether each overlaps an object of the reference enough to be one."""
    right = np.zeros(len(overlap.predicted), dtype=bool)
    right[hits(overlap)[0]] = True
    return right


def score_columns(overlap: InstanceOverlap, confidence: Confidence) -> Mapping[str, str | None]:
    """As JSON what objects score, whether they are right, and what they scored before; nothing without scores."""
    if len(confidence.scores) != len(overlap.predicted):
        return {}
    before = confidence.uncalibrated
    return {
        SCORES: in_json(confidence.scores),
        RIGHT: json.dumps(is_right(overlap).astype(int).tolist()),
        UNCALIBRATED: in_json(before) if before else None,
    }


def in_json(scores: Mapping[str, float]) -> str:
    """Scores in the order of the objects, as a column has them: unrounded, since 0.9999997 is not certain."""
    return json.dumps(list(scores.values()))


def object_calibration_rows(table: Table, *, seed: Seed) -> Iterator[Row]:
    """How often objects of a score are right, now and before calibration; nothing where there is no object."""
    if SCORES not in table:
        return
    own = table[table[SCORES].notna()]
    scores, right = ([np.array(parse_json(cell), dtype=float) for cell in own[name]] for name in (SCORES, RIGHT))
    if not sum(map(len, scores)):
        return
    cells = zip(own[UNCALIBRATED], scores, strict=True)
    before = [np.array(parse_json(cell), dtype=float) if isinstance(cell, str) else now for cell, now in cells]
    owners = np.repeat(own["patient"].to_numpy(str), [len(one) for one in scores])
    all_scores, images = np.concatenate(scores), sum(len(one) > 0 for one in scores)
    note = f"; {counted(len(all_scores), OBJECT)}"
    truth, former = np.concatenate(right), np.concatenate(before)
    yield from rows_of_many("all", all_scores, truth, owners, before=former, cases=images, note=note, seed=seed)
