"""The answers of every kind of problem as tensors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hilum.prediction.case_prediction import PredictionOutcome
from hilum.service.work import answer_tensors
from hilum.service.work.answer_tensors import FINDINGS, VoxelProbabilityFiles
from hilum.tasks.classification.question import Classification
from hilum.tasks.detection.question import Detection
from hilum.tasks.findings.question import Findings
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.tasks.multitask import Multitask
from hilum.tasks.regression.question import Regression
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Geometry, Label

GEOMETRY = Geometry((12, 10), np.diag([0.5, 0.5, 1.0]))
MARKS = Segmentation((Label(1, "a"), Label(2, "b")))
GRADES = Classification(("low", "high"))
KINDS = [
    MARKS,
    GRADES,
    Findings(("bleed", "clot")),
    Regression(("age",), {"age": "a"}, {"age": 50.0}, {"age": 9.0}, noise="gaussian"),
    Detection(("cell",), 2, 8.0),
    InstanceSegmentation((1.0, 1.0), 6.0),
    Multitask({"lesion": MARKS, "grade": GRADES}),
]


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.name)
def test_a_kind_gives_the_outputs_that_are_stated_of_it(task, tmp_path):
    random, stated = np.random.default_rng(0), answer_tensors.output_axes(task, 2)
    region = tuple(slice(0, size) for size in GEOMETRY.shape)
    slabs = list[tuple]()  # of voxels, and of the whole image, which has no region
    for place, is_dense in ((region, True), ((), False)):
        heads = {head: own.count for head, own in task.heads.items() if own.is_dense == is_dense}
        shape = GEOMETRY.shape if is_dense else ()
        arrays = {head: random.normal(size=(count, *shape)).astype(np.float32) for head, count in heads.items()}
        slabs += [(place, arrays)] if arrays else []
    taken = VoxelProbabilityFiles(task, GEOMETRY.shape, tmp_path, tuple(stated))
    for place, arrays in slabs if taken.receiver is not None else ():
        taken.receiver(place, task.probabilities(arrays))
    prediction = task.decode(slabs, GEOMETRY)
    done = PredictionOutcome([], [], prediction, findings=task.results(prediction), found=True)
    made = {
        one.name: one
        for one in answer_tensors.tensors_of(
            SimpleNamespace(task=task, record={}, sha256="ab" * 32, gate="no gate", unfinished_training=""), done, taken
        )
    }
    assert {name: len(one.shape) for name, one in made.items()} == stated
    assert all(len(one.names) in (0, one.shape[0]) for one in made.values())
    assert b'"hilum.findings"' in made[FINDINGS].data
