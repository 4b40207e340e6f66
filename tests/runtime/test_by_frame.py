"""What changes over the frames of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage

import hilum
from hilum.runtime import Model, Preprocessing, label_measurements, prediction_layers
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Geometry, Image, Label, Prediction

VENTRICLE = (Label(1, "ventricle"),)


def ball(radius: float) -> tuple[np.ndarray, Image]:
    away = np.sqrt(sum((grid - 15.5) ** 2 for grid in np.indices((32, 32, 32))))
    return (away < radius).astype(np.uint8), Image(away[None], Geometry((32, 32, 32), np.eye(4)))


def test_a_ball_whose_radius_falls_to_0_8_ejects_half_its_volume():
    frames = [label_measurements.measure_labels(*(ball(r)[0], VENTRICLE, ball(r)[1])) for r in (15.0, 13.5, 12.0, 13.5)]
    [row] = prediction_layers.size_changes(frames)
    assert row["label"] == "ventricle"
    assert row["largest_volume_ml"] == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.02)
    assert row["ejection_fraction_percent"] == pytest.approx(100 * (1 - 0.8**3), abs=1)


def test_of_areas_it_is_the_fractional_area_change_and_of_nothing_it_is_not_known():
    flat = Image(np.zeros((1, 8, 8)), Geometry.of_spacing((8, 8), (1, 1)))
    half = np.zeros((8, 8), np.uint8)
    half[:4] = 1
    [row] = prediction_layers.size_changes(
        [label_measurements.measure_labels(mask, VENTRICLE, flat) for mask in (half, half // 2)]
    )
    assert row["fractional_area_change_percent"] == 100
    [nothing] = prediction_layers.size_changes([label_measurements.measure_labels(0 * half, VENTRICLE, flat)] * 2)
    assert np.isnan(nothing["fractional_area_change_percent"])


def predicted_clip(task: dict, outputs: Callable[[Array], dict[str, Array]], counts: Sequence[int], folder: Path):
    """What a model makes of a clip with so many bright squares in each frame: the result, its tables and its files."""
    pixels = np.zeros((1, len(counts), 24, 48), np.float32)
    for frame, count in enumerate(counts):
        for place in range(count):
            pixels[0, frame, 6:12, 4 + 12 * place : 10 + 12 * place] = 1
    clip = Image(pixels, Geometry.of_spacing((24, 48), (1, 1)), times=tuple(0.1 * n for n in range(len(counts))))
    hilum.write(clip, folder / "clip.nii.gz")
    prepares = Preprocessing(2, ("0",), (Normalisation("range", 0, 1, 0.0, 1.0),))
    model = Model(
        task_catalogue.build_task(task),
        prepares,
        Inference((24, 48)),
        Networks(outputs, {"name": "none", "channels": 1}),
    )
    result = hilum.predict(model, folder / "clip.nii.gz", out=folder / "out")
    assert not result.failures
    return result.table, folder / "out"


def test_boxes_of_a_clip_are_those_of_each_frame(tmp_path):
    def outputs(batch: Array) -> dict[str, Array]:
        blurred = np.stack([ndimage.gaussian_filter(one, (0, 2, 2)) for one in batch])
        nothing = np.zeros_like(batch)
        return {"boxes": np.concatenate([20 * blurred - 8, nothing + 1, nothing + 1, nothing, nothing], axis=1)}

    task = {"name": "detection", "classes": ["cell"], "axes": 2, "typical": 6.0, "suppression": 0.5, "threshold": 0.3}
    table, out = predicted_clip(task, outputs, (1, 3, 0), tmp_path)
    assert table.groupby("frame")["label"].count().tolist() == [1, 3, 0]
    assert table["time_s"].tolist() == pytest.approx([0, 0.1, 0.1, 0.1, 0.2])
    assert [path.name for path in out.iterdir() if path.suffix == ".gz"] == []


def test_single_objects_of_a_clip_have_their_numbers_in_each_frame_and_are_not_followed(tmp_path):
    def outputs(batch: Array) -> dict[str, Array]:
        return {"instances": np.concatenate([20 * batch - 10, batch], axis=1)}

    task = {"name": "instances", "steps": [1.0, 1.0], "reach": 3.0, "smallest": 0.0, "inside": 0.5, "prominence": 0.2}
    table, out = predicted_clip(task, outputs, (1, 3, 2), tmp_path)
    assert table["count"].tolist() == [1, 3, 2]
    measured = pd.read_csv(out / "measurements.csv")
    assert measured["frame"].tolist() == [0, 1, 1, 1, 2, 2]
    numbers = hilum.read(out / "clip.nii.gz")
    assert [int(frame.max()) for frame in numbers.data[0]] == [1, 3, 2]
    assert [label.name for label in numbers.labels] == ["object 1", "object 2", "object 3"]


def test_a_clip_has_the_label_maps_of_all_parts_of_its_frames():
    numbers, marks = np.zeros((2, 4, 4), np.uint8), np.ones((2, 4, 4), np.uint8)
    flat, objects = Geometry.of_pixels((4, 4)), (Label(1, "object 1"),)
    frames = []
    for one, other in zip(numbers, marks, strict=True):
        first, second = Prediction(flat, data=one, labels=objects), Prediction(flat, data=other, labels=VENTRICLE)
        parts = {"instances": first, "segmentation": second}
        frames.append(Prediction(flat, data=one, labels=objects, parts=parts))
    clip = Image(np.zeros((1, 2, 4, 4)), flat, times=(0.0, 0.1))
    [(whole, _, _), (part, found, labels)] = prediction_layers.predict_frames(
        clip, lambda _, number: frames[number]
    ).label_maps
    assert (whole, part, labels) == ("", "segmentation", VENTRICLE)
    assert_array_equal(found, marks)


@pytest.mark.parametrize(("filled", "answers"), [((0, 0, 0), False), ((0, 1, 0), True)])
def test_a_clip_has_an_answer_where_one_of_its_frames_is_not_blank(filled, answers):
    pixels = np.zeros((1, 3, 8, 8), np.float32)
    pixels[0, :, 2:4, 2:4] = np.reshape(filled, (3, 1, 1))
    prepares = Preprocessing(2, ("0",), (Normalisation("range", 0, 1, 0.0, 1.0),))
    task = {"name": "segmentation", "labels": [{"value": 1, "name": "spot"}], "loss": "ce", "tolerance": 1.0}
    network = {"name": "none", "channels": 1}
    model = Model(task_catalogue.build_task(task), prepares, Inference((8, 8)), Networks(lambda batch: {
        "mask": np.concatenate([np.full_like(batch, 0.5), batch], axis=1)
    }, network))  # fmt: skip
    clip = Image(pixels, Geometry.of_spacing((8, 8), (1, 1)), times=(0.0, 0.1, 0.2))
    assert (model.predict(clip).abstained is None) == answers
