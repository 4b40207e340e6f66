"""Frame after frame: the same results as one by one, and nothing that grows."""

from __future__ import annotations

import gc
import tracemalloc

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hilum.errors import GeometryError
from hilum.files import file_formats
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.prediction_layers import STEPS, Latency
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Geometry, Image


def brighter(channels: tuple[str, ...] = ("0",), window: tuple[int, int] = (32, 32)) -> Model:
    """Marks what is brighter than the middle of the range."""
    labels = [{"value": 1, "name": "bright"}]
    task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 1})
    prepares = Preprocessing(2, channels, (Normalisation("range", 0, 255, 0.5, 1),) * len(channels))

    def run(batch: Array) -> dict[str, Array]:
        grey = batch.mean(axis=1, keepdims=True)
        return {"mask": np.concatenate([-grey, grey], axis=1)}

    return Model(task, prepares, Inference(window, 0.25, 4), Networks(run, {"name": "none", "channels": len(channels)}))


def clip(count: int, size: tuple[int, int] = (48, 40)):
    rng = np.random.default_rng(0)
    return (rng.integers(0, 255, (1, *size)).astype(np.uint8) for _ in range(count))


def test_each_frame_gets_the_result_that_it_gets_alone_and_is_timed():
    model = brighter()
    stream = model.stream(clip(5))
    for frame, prediction in zip(clip(5), stream, strict=True):
        single = model.predict(Image(frame, Geometry.of_pixels(frame.shape[1:])))
        assert_array_equal(prediction.data, single.data)
        assert 0.2 < prediction.data.mean() < 0.8
    assert stream.latency.count == 5
    assert 0 < stream.latency.p50 <= stream.latency.p99 <= stream.latency.longest


def test_memory_does_not_grow_with_the_number_of_frames():
    # A frame is far larger than what else lives in the process and is counted too: threads, caches, the garbage's own.
    stream = brighter(window=(240, 160)).stream(clip(60, (240, 160)))
    sizes = []
    tracemalloc.start()
    try:
        for number, _ in enumerate(stream):
            if number in (20, 59):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 3 * 240 * 160  # three frames' pixels; 39 frames came between


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[int, ...]]:
    """The shape of each frame of a clip that was decoded."""
    shapes, plain = [], cv2.cvtColor

    def counted(frame, *given):
        shapes.append(frame.shape)
        return plain(frame, *given)

    monkeypatch.setattr(cv2, "cvtColor", counted)
    return shapes


@pytest.fixture
def brightening(tmp_path) -> Image:
    """A clip of 20 frames."""
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (40, 48))
    for number in range(20):
        writer.write(np.full((48, 40, 3), 12 * number, np.uint8))
    writer.release()
    return file_formats.read(tmp_path / "a.avi")


def test_the_frames_of_a_clip_are_decoded_once_each_in_order(brightening, decoded):
    stream = brighter(("R", "G", "B")).stream(brightening)
    marked = [bool(prediction.data.all()) for prediction in stream]
    assert marked == [12 * number > 127 for number in range(20)]
    assert len(decoded) == 20


def test_of_a_clip_that_is_one_case_no_frame_is_decoded_twice(brightening, decoded):
    prediction = brighter(("R", "G", "B")).predict(brightening)
    assert [bool(frame.data.all()) for frame in prediction.frames] == [12 * number > 127 for number in range(20)]
    assert len(decoded) == 20


def test_an_image_without_frames_is_no_clip():
    with pytest.raises(GeometryError, match="has no frames"):
        list(brighter().stream(Image(np.zeros((1, 8, 8)), Geometry.of_pixels((8, 8)))))


def test_percentiles_of_latency_are_right_within_one_percent_and_take_no_room():
    seconds = np.random.default_rng(0).lognormal(-4, 1, 5000)
    latency = Latency()
    for one in seconds:
        latency.add(float(one))
    for share in (50, 99):
        assert latency.percentile(share) == pytest.approx(np.percentile(seconds, share), rel=0.012)
    assert latency.longest == seconds.max()
    assert len(latency._steps) == STEPS
    latency.add(0.0)
    assert latency.count == 5001
