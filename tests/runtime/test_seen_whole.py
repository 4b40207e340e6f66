from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import DatasetError
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Geometry, Image

VOLUME = {
    "name": "regression",
    "targets": ["volume"],
    "units": {},
    "mean": {"volume": 5.0},
    "deviation": {"volume": 2.0},
}
AGE = {"age": {"median": 50, "mean": 50, "deviation": 10, "missing": 0}}


def measuring(**network):
    """Says the mean of what it sees, and adds the context that it is told."""

    def run(batch, *context):
        sums = [one.sum(axis=1) for one in context]
        return {"value": (batch.mean(axis=(1, 2, 3)) + sum(sums))[:, None].astype(np.float32)}

    prepared = Preprocessing(2, ("0",), (Normalisation("zscore"),))
    return Model(
        task_catalogue.build_task(VOLUME), prepared, Inference((8, 8)), Networks(run, {"name": "resnet", **network})
    )


def picture(*shape):
    pixels = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    return Image(pixels, Geometry.of_pixels(shape), channels=("0",))


def test_a_number_for_an_image_that_is_seen_in_parts_is_given_with_a_warning():
    assert not measuring().predict(picture(8, 6)).notes
    [note] = measuring().predict(picture(12, 8)).notes
    assert "12 x 8 voxels" in note
    assert "wrong for what the size of something decides" in note


def test_a_covariate_of_a_case_or_one_that_is_given_is_told_the_network():
    model, image = measuring(context=AGE), picture(8, 8)
    found = model.predict(Case("a", "a", {"": image}, covariates={"age": 70}))
    assert found.values["volume"] == pytest.approx(5 + 2 * 2, abs=1e-5)
    assert model.predict(image, covariates={"age": 40}).values["volume"] == pytest.approx(5 - 2, abs=1e-5)


def test_each_frame_of_a_clip_is_seen_with_the_covariates_of_its_case():
    labels = {"name": "segmentation", "labels": [{"value": 1, "name": "x"}], "loss": "dice+ce", "tolerance": 2.0}
    task = task_catalogue.build_task(labels)

    def run(batch, context):
        """The label where pixel and age are high together, or low."""
        high = batch[:, 0] * context[:, :1, None]
        return {next(iter(task.heads)): np.stack([-high, high], axis=1).astype(np.float32)}

    prepared = Preprocessing(2, ("0",), (Normalisation("zscore"),))
    model = Model(task, prepared, Inference((8, 8)), Networks(run, {"name": "unet", "context": AGE}))
    pixels = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    clip = Image(pixels, Geometry.of_pixels((8, 8)), channels=("0",), times=(0.0, 0.1, 0.2))
    old, young = (model.predict(Case("a", "a", {"": clip}, covariates={"age": age})).data for age in (70, 30))
    assert old.shape == (3, 8, 8)
    assert np.array_equal(old, 1 - young) and 0 < old.mean() < 1
    assert np.array_equal(old[1], model.predict(clip.frame(1), covariates={"age": 70}).data)


@pytest.mark.parametrize("covariates", [None, {"weight": 70}])
def test_without_the_covariates_that_it_was_trained_with_a_model_refuses(covariates):
    with pytest.raises(DatasetError, match="trained with age beside the image"):
        measuring(context=AGE).predict(picture(8, 8), covariates=covariates)


def test_frames_of_a_stream_have_no_covariates_and_are_refused():
    with pytest.raises(DatasetError, match="trained with age"):
        list(measuring(context=AGE).stream([picture(8, 8)]))
