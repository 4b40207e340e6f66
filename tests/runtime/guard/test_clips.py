"""A clip gets one answer for all of its frames, or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.runtime import Model, Preprocessing
from hilum.runtime.guard import image_gate, image_observation
from hilum.runtime.guard.image_gate import Answering, Guard
from hilum.runtime.guard.image_observation import Observation
from hilum.runtime.inference import Inference
from hilum.runtime.model_parts import ModelParts
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Confidence, Geometry, Image, Prediction

GRID = Geometry.of_pixels((16, 16))


def guard(level: float, least: float | None = None) -> Guard:
    """A gate of pictures of noise; least: how sure an answer has to be, None: not at all."""
    rng = np.random.default_rng(0)
    still = Image(np.zeros((1, 16, 16), np.float32), GRID)
    noise = [rng.normal(size=(1, 16, 16)).astype(np.float32) for _ in range(60)]
    seen = [
        Observation(
            image_observation.header_facts(still), pixels.reshape(1, -1), image_observation.window_composition(pixels)
        )
        for pixels in noise
    ]
    made = image_gate.fit_guard(seen[:30], seen[30:], level, exact=True)
    assert made is not None
    return replace(made, answers=None if least is None else Answering(0.1, 0.1, least, 50))


def clip(*frames: float) -> Prediction:
    """Frames with these p-values of the gate."""
    each = tuple(
        Prediction(GRID, confidence=Confidence(gate_p=p), abstained="it is odd" if p < 0.05 else None) for p in frames
    )
    return Prediction(GRID, frames=each)


def test_a_clip_is_refused_with_its_oddest_frame_by_the_joint_p_value():
    odd = guard(0.05).of_frames(clip(0.5, 0.01, 0.5), [1.0, 1.0, 1.0])
    assert odd.abstained == "it is odd" and odd.confidence.gate_p == pytest.approx(0.03)
    chance = guard(0.05).of_frames(clip(0.5, 0.02, 0.5), [1.0, 1.0, 1.0])
    assert chance.abstained is None and chance.confidence.gate_p == pytest.approx(0.06)


@pytest.mark.parametrize("level", [0.0, 0.05])
def test_a_clip_with_a_frame_that_is_not_sure_enough_gets_no_answer(level):
    """Also where the gate alone would have refused the frame, which the joint p-value of the clip forgives."""
    careful = guard(level, least=0.8)
    refused = careful.of_frames(clip(0.5, 0.5, 0.02), [0.9, 0.85, 0.6])
    assert refused.abstained is not None and refused.abstained.startswith("frame 2: the answer is not sure enough")
    assert careful.of_frames(clip(0.5, 0.5, 0.02), [0.9, 0.85, 0.8]).abstained is None


@pytest.mark.parametrize(("least", "refused"), [(None, False), (0.0, False), (0.5, True)])
def test_a_model_of_still_images_gives_a_clip_no_answer_where_its_frames_get_none(least, refused):
    """Of its masks no Dice is expected, so that none is sure."""
    task = task_catalogue.build_task(
        {"name": "segmentation", "labels": [{"value": 1, "name": "bright"}], "loss": "ce", "tolerance": 1}
    )
    prepared = Preprocessing(2, ("0",), (Normalisation("range", 0, 1, 0.5, 1),))

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {"mask": np.concatenate([-batch, batch], axis=1)}

    pixels = np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32)
    clip = Image(pixels, GRID, times=(0.0, 0.1, 0.2))
    predicted = Model(
        task, prepared, Inference((16, 16)), Networks(run, {"name": "none"}), parts=ModelParts(guard=guard(0.0, least))
    ).predict(clip)
    assert len(predicted.frames) == 3
    assert (predicted.abstained is not None) == refused
