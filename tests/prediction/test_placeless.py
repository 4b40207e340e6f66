"""What counts as an answer: anything about the whole image, and what is marked in any frame of a clip."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.prediction import case_prediction
from hilum.prediction.case_prediction import CaseRequest
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Geometry, Image

VALUE = {"name": "regression", "targets": ["score"], "units": {}, "mean": {"score": 0.0}, "deviation": {"score": 1.0}}
MASK = {"name": "segmentation", "labels": [{"value": 1, "name": "bright"}], "loss": "dice+ce", "tolerance": 2.0}


def zero(batch):
    return {"value": np.zeros((len(batch), 1), np.float32)}


def bright(batch):
    return {"mask": np.concatenate([3 - batch, batch - 3], axis=1)}


@pytest.mark.parametrize(
    ("settings", "run", "spots", "found"),
    [
        pytest.param(VALUE, zero, (False,), True, id="a value of exactly 0"),
        pytest.param(MASK, bright, (False,), False, id="an empty mask"),
        pytest.param(MASK, bright, (False, True, False), True, id="a spot in one frame"),
        pytest.param(MASK, bright, (False, False), False, id="a clip without a spot"),
    ],
)
def test_a_value_of_0_and_a_frame_in_which_something_is_seen_are_answers(settings, run, spots, found):
    frames = np.random.default_rng(0).normal(size=(1, len(spots), 16, 16)).clip(-2, 2).astype(np.float32)
    for number, spot in enumerate(spots):
        frames[0, number, 4:8, 4:8] += 1000 * spot
    pixels = frames if len(spots) > 1 else frames[:, 0]
    image = Image(pixels, Geometry.of_pixels((16, 16)), channels=("0",))
    prepared = Preprocessing(2, ("0",), (Normalisation("zscore"),))
    model = Model(
        task_catalogue.build_task(settings),
        prepared,
        Inference((16, 16)),
        Networks(run, {"name": "none", "channels": 1}),
    )
    done = case_prediction.compute_case(model, Case("a", "a", {"image": image}), image, CaseRequest())()
    assert done.found is found
