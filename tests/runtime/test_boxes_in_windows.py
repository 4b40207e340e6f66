"""Boxes of a picture larger than the window: each is found once, where it lies, also where windows meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from hilum.evaluation import box_matching
from hilum.networks import faster_rcnn, pyramid
from hilum.networks.pyramid import LevelPredictions
from hilum.runtime.windows import slide
from hilum.tasks.detection import question
from hilum.tasks.detection.answering import PRIOR
from hilum.tasks.detection.question import Detection
from hilum.values import Geometry

torch.set_num_threads(1)

UNIT, WINDOW, SIZE = 12.0, 64, (150, 182)
TASK = Detection(("cell",), 2, UNIT)


def true_boxes() -> np.ndarray:
    """Boxes of several sizes all over the picture, so that windows cut some of them at every side."""
    rng = np.random.default_rng(0)
    centres = [(row, column) for row in range(16, 140, 27) for column in range(16, 170, 29)]
    halves = rng.uniform(4, 11, (len(centres), 2))
    middle = np.array(centres) + rng.uniform(-2, 2, (len(centres), 2))
    return np.concatenate([middle - halves, middle + halves], axis=1)


def of_centres(boxes: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """As `unet` and `pyramid` are taught: Gaussians, and lengths all over them."""
    truth = question.box_target(torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1), 1, (WINDOW, WINDOW))
    logits = torch.logit(truth.heat, eps=0.02) - PRIOR
    return torch.cat([logits, truth.lengths / UNIT, truth.offsets / UNIT])


def of_levels(boxes: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """As `yolox`, `retinanet` and `fcos` answer: cells near a box's middle know it, those of the level for its size."""
    levels = []
    for number, step in enumerate((4, 8)):
        cells = WINDOW // step
        logits, ends = torch.full((1, 1, cells, cells), -4.0), torch.zeros(1, 4, cells, cells)
        for box in boxes:
            if (float((box[2:] - box[:2]).max()) > 14) == bool(number):
                centre = (box[:2] + box[2:]) / 2
                row, column = (centre / step).round().long().clamp(0, cells - 1).tolist()
                for near in np.ndindex(3, 3):
                    place = tuple(np.clip(np.array(near) - 1 + (row, column), 0, cells - 1))
                    sure = 2.5 if near == (1, 1) else -1.0
                    if sure > logits[(0, 0, *place)]:
                        logits[(0, 0, *place)] = sure
                        moved = box + torch.from_numpy(rng.normal(0, 0.5, 4)).float()
                        ends[(0, slice(None), *place)] = moved
        low, high = ends.chunk(2, dim=1)
        levels.append(LevelPredictions(logits, (low + high) / 2, high - low, [step, step], [0, 0]))
    return pyramid.merge_levels(levels, (WINDOW, WINDOW), UNIT)[0]


def of_two_stages(boxes: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """As `faster_rcnn` renders what it found: cut at the edges of a window, a little apart in each, of other scores."""
    seen = boxes.clamp(0, WINDOW)
    share = (seen[:, 2:] - seen[:, :2]).prod(dim=1) / (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    seen = seen[share > 0.4] + torch.from_numpy(rng.normal(0, 0.5, (int((share > 0.4).sum()), 4))).float()
    scores = torch.from_numpy(rng.uniform(0.6, 0.99, len(seen))).float()
    kinds = torch.zeros(len(seen), dtype=torch.long)
    return faster_rcnn.render_boxes(seen.clamp(0, WINDOW), kinds, scores, 1, (WINDOW, WINDOW), UNIT)


@pytest.mark.parametrize("speak", [of_centres, of_levels, of_two_stages])
def test_each_box_of_a_picture_larger_than_the_window_is_found_once_where_it_lies(speak):
    boxes, rng = true_boxes(), np.random.default_rng(1)

    def network(windows: np.ndarray) -> dict[str, np.ndarray]:
        """What a network would say that sees all boxes whose middle is in its window: voxels hold where they lie."""
        answers = []
        for window in windows:
            here = boxes - np.tile(window[:, 0, 0], 2)
            middle = (here[:, :2] + here[:, 2:]) / 2
            near = here if speak is of_two_stages else here[((middle >= 0) & (middle < WINDOW)).all(axis=1)]
            answers.append(speak(torch.from_numpy(near).float(), rng).numpy())
        return {"boxes": np.stack(answers)}

    image = np.stack(np.indices(SIZE)).astype(np.float32)
    slabs = slide.slide_windows(network, image, (WINDOW, WINDOW), merge=TASK.merge)
    found = TASK.decode(slabs, Geometry.of_pixels(SIZE)).boxes
    sure = found.at(found.scores >= 0.3)
    overlap = box_matching.box_iou(sure.corners, boxes)
    assert len(sure) == len(boxes)
    assert (overlap.argmax(axis=1)[overlap.argmax(axis=0)] == np.arange(len(boxes))).all()
    assert overlap.max(axis=0).min() > 0.6
    if speak is of_centres:
        assert_allclose(np.sort(sure.corners, axis=0), np.sort(boxes, axis=0), atol=0.05)
