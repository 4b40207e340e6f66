"""What a network says of lengths and offsets is said along its own axes: it comes back along those of the image."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.runtime.windows.averaging import MirroredNetwork
from hilum.tasks.detection import question
from hilum.tasks.detection.answering import PRIOR
from hilum.tasks.detection.question import Detection
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image

TASK = Detection(("block",), 3, 4.0, 0.2, threshold=0.5)
SIZE = (12, 16, 20)
BOX = np.array([3, 4, 6, 7, 10, 14], dtype=float)


def knowing(batch: np.ndarray) -> dict[str, np.ndarray]:
    """In place of a network: what is true of the bright block of each window, on the window's own axes."""
    outputs = []
    for window in batch[:, 0]:
        where = np.argwhere(window > (window.min() + window.max()) / 2)
        rows = torch.tensor([[0.0, *where.min(axis=0), *(where.max(axis=0) + 1)]])
        truth = question.box_target(rows, 1, window.shape)
        heat = truth.heat.clamp(0.001, 0.98)
        outputs.append(torch.cat([torch.log(heat / (1 - heat)) - PRIOR, truth.lengths / 4, truth.offsets / 4]).numpy())
    return {"boxes": np.stack(outputs)}


def block(affine: np.ndarray) -> Image:
    pixels = np.zeros((1, *SIZE), np.float32)
    pixels[0, 3:7, 4:10, 6:14] = 1
    return Image(pixels, Geometry(SIZE, affine), channels=("0",))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("spacing", [None, (2.0, 1.0, 1.0)])
def test_a_box_comes_back_onto_an_image_whose_axes_run_another_way(order, spacing):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(order)] * np.array([-1.0, 1.0, -1.0])
    preparing = Preprocessing(3, ("0",), (Normalisation("zscore"),), spacing=spacing, smallest=(24, 24, 24))
    model = Model(TASK, preparing, Inference((24, 24, 24)), Networks(knowing, {"name": "unet"}))
    boxes = model.predict(block(affine)).boxes
    sure = boxes.at(boxes.scores > 0.5)
    # On a coarser grid an edge can lie a voxel off.
    assert_allclose(sure.corners, [BOX], atol=0.01 if spacing is None else 1.01)


def test_mirrored_views_agree_about_where_the_centre_is():
    """The block lies askew in the window; each view says of every voxel how far the centre is, in its own direction."""
    window = np.zeros((1, 1, 12, 12, 12), np.float32)
    window[0, 0, 2:6, 3:9, 1:4] = 1
    single = knowing(window)["boxes"]
    mirrored = MirroredNetwork(knowing, TASK.average, (0, 1, 2), None, {}, {"boxes": 3})(window)["boxes"]
    weight = single[:, :1] > -3
    assert weight.sum() > 4
    # A centre on an edge between voxels is in the next voxel, seen from either side: offsets differ by none of that.
    assert_allclose(np.where(weight, mirrored[:, 4:], 0), np.where(weight, single[:, 4:], 0), atol=1e-5)
    wrong = MirroredNetwork(knowing, TASK.average, (0, 1, 2), None, {})(window)["boxes"]
    assert abs(np.where(weight, wrong[:, 4:] - single[:, 4:], 0)).max() > 0.1
