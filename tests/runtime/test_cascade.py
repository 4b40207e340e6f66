"""A network that is shown what another one has marked in the same image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from numpy.testing import assert_allclose, assert_array_equal

from hilum.runtime import Model, Preprocessing, model_assembly, predicted_memory
from hilum.runtime import cascade as runtime_cascade
from hilum.runtime.bundle.network import AfterLabels
from hilum.runtime.cascade import LabelledInput, LabelSource, StackedSource
from hilum.runtime.inference import Inference
from hilum.runtime.preprocessing import preprocessing as room
from hilum.runtime.torch_networks import Networks
from hilum.runtime.windows import averaging
from hilum.runtime.windows.fixed_views import FixedViews
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image, Label, Prediction
from trained import OBLIQUE

AS_THEY_ARE = Normalisation("window", -1e3, 1e3)
BEYOND = (Label(1, "beyond"),)
SHAPE = (26, 31, 22)


def segmentation(*labels: Label):
    plain = [{"value": one.value, "name": one.name} for one in labels]
    return task_catalogue.build_task({"name": "segmentation", "labels": plain, "loss": "ce", "tolerance": 1.0})


def sloping(normal: np.ndarray, affine: np.ndarray = OBLIQUE) -> Image:
    """mm beyond a plane through the middle of the image, which resampling between its edges keeps exactly."""
    geometry = Geometry(SHAPE, affine)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    middle = geometry.to_world((np.array(SHAPE) - 1) / 2)
    return Image(((geometry.to_world(index) - middle) @ normal).astype(np.float32)[None], geometry)


def beyond(batch: np.ndarray) -> Mapping[str, np.ndarray]:
    """Marks what lies beyond the plane."""
    return {"mask": np.concatenate([-batch[:, :1], batch[:, :1]], axis=1)}


def model(run, channels=1, labels=BEYOND, **prepared) -> Model:
    preparation = Preprocessing(3, ("0",), (AS_THEY_ARE,), **{"smallest": (16, 16, 16), **prepared})
    network = {"name": "unet", "channels": channels, "spatial_dims": 3, "size": {}}
    return Model(segmentation(*labels), preparation, Inference((16, 16, 16)), Networks(run, network))


@settings(max_examples=15, deadline=None)
@given(
    some.floats(1.5, 3.0),  # beyond the last voxel of a coarser grid, half of one, labels are a guess
    some.tuples(*[some.floats(0.7, 1.6)] * 3),
    # Of a plane along the axes a whole layer of voxels decides at once.
    some.tuples(*[some.floats(-1, 1)] * 3).filter(
        lambda one: np.linalg.norm(one) > 0.3 and np.sort(np.abs(one))[1] > 0.1
    ),
    some.permutations(range(3)),
)
def test_labels_of_a_coarse_grid_come_to_lie_where_they_belong_on_a_fine_one(factor, spacing, normal, axes):
    """Nothing moves by a part of a voxel, of whichever grid: what was marked ends at the plane."""
    towards = np.array(normal) / np.linalg.norm(normal)
    affine = OBLIQUE[:, [*axes, 3]]
    image, seen = sloping(towards, affine), []

    def second(batch: np.ndarray) -> Mapping[str, np.ndarray]:
        seen.append(batch.copy())
        return beyond(batch)

    first = model(beyond, spacing=spacing, reduction=factor)
    after = model(second, 2, spacing=spacing, cascade=factor)
    grid = after.preprocessing.open_image(image, "sloping")[1]
    assume(grid.padded_shape == grid.shape)  # what lies beyond the image is background, on whichever side of the plane
    model_assembly.with_first_stage(after, first).predict(image)
    away, marked = np.concatenate(seen).swapaxes(0, 1).reshape(2, -1)
    # A voxel of the image is marked as a whole, and one of the fine grid by the larger part of those around it.
    reach = 0.5 * np.abs(affine[:3, :3].T @ towards).sum() + 0.5 * np.dot(spacing, np.abs(towards))
    wrong = (marked > 0) != (away > 0)
    assert np.abs(away[wrong]).max(initial=0) <= reach
    near = np.abs(away) < reach
    assert abs(np.mean(marked[near]) - np.mean(away[near] > 0)) < 0.1


def test_a_large_image_is_shown_with_its_labels_part_by_part_as_it_would_be_whole(monkeypatch):
    image = sloping(np.array([0.6, 0.0, 0.8]))
    numbers = (np.indices(SHAPE).sum(axis=0) // 9 % 4).astype(np.uint8)
    prepared = model(beyond, spacing=(0.7, 1.6, 1.1), smallest=(8, 8, 40), cascade=2.0).preprocessing
    labelled = LabelledInput(prepared, partial(LabelSource, numbers))
    whole, trace = labelled(image, "image")
    monkeypatch.setattr(room, "STREAMED_BYTES", 0)
    parts, _ = labelled.open_image(image, "image")
    assert isinstance(parts, StackedSource)
    assert parts.shape == whole.shape
    for shares in ((0, 1), (0.2, 0.7), (0.55, 1)):
        region = tuple(slice(int(n * shares[0]), max(1, int(n * shares[1]))) for n in trace.padded_shape)
        part = parts[(slice(0, 2), *region)]
        assert_array_equal(part[1], whole[(1, *region)])
        assert_allclose(part[0], whole[(0, *region)], atol=1e-4)


def test_labels_are_shown_by_their_place_among_the_models_whatever_their_values_are():
    labels = (Label(7, "one"), Label(2, "other"))
    data = np.array([[0, 7], [2, 7]], dtype=np.uint8)
    prediction = Prediction(Geometry.of_pixels((2, 2)), data=data, labels=labels)
    made = runtime_cascade.label_numbers(prediction, labels)
    assert_array_equal(np.asarray(made), [[0, 1], [2, 1]])
    assert_array_equal(made.reader()((slice(1, 2), slice(0, 2))), [[2, 1]])


def test_each_label_becomes_a_channel_of_the_network():
    class Kept(torch.nn.Module):
        def forward(self, images):
            return {"mask": images}

    numbers = torch.tensor([[0.0, 1.0], [3.0, 2.0]])[None, None]
    image = torch.full((1, 1, 2, 2), 5.0)
    seen = AfterLabels(Kept(), 3)(torch.cat([image, numbers], dim=1))["mask"][0]
    assert seen.tolist() == [[[5, 5], [5, 5]], [[0, 1], [0, 0]], [[0, 0], [0, 1]], [[0, 0], [1, 0]]]


def test_in_a_mirrored_view_what_was_marked_on_the_left_is_marked_on_the_right():
    task = segmentation(Label(1, "left kidney"), Label(2, "right kidney"))

    def repeats(batch: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"mask": np.stack([8.0 * (batch[:, -1] == number) for number in range(3)], axis=1)}

    image = sloping(np.array([1.0, 0, 0]), np.diag([1.0, 1.0, 1.0, 1.0]))
    _, trace = LabelledInput(
        model(repeats, 2, cascade=2.0).preprocessing, partial(LabelSource, np.zeros(SHAPE, np.uint8))
    )(image, "image")
    batch = np.random.default_rng(0).integers(0, 3, (1, 2, 4, 4, 4)).astype(np.float32)
    seen = averaging.mirror_views(repeats, task, (0, 1), trace, 0, labelled=True, views=FixedViews())
    assert_array_equal(seen(batch)["mask"].argmax(axis=1), batch[:, -1])
    blind = averaging.mirror_views(repeats, task, (0, 1), trace, 0, views=FixedViews())
    assert (blind(batch)["mask"].argmax(axis=1) != batch[:, -1]).any()


def test_both_stages_go_on_with_fewer_windows_where_memory_runs_out():
    cascade = predicted_memory.with_smaller_batches(
        model_assembly.with_first_stage(model(beyond, 2, cascade=2.0), model(beyond))
    )
    assert type(cascade.networks.run).__name__ == type(cascade.first.networks.run).__name__ == "SmallerBatches"


@pytest.mark.parametrize("factor", [1.0, 0.5, np.inf])
def test_a_first_grid_that_shows_no_more_of_an_image_is_refused(factor):
    with pytest.raises(Exception, match="Give a number above 1"):
        model(beyond, cascade=factor)
