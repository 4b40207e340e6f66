"""Turned and scaled views of a window: undone they show the window, and answers that they would harm refuse them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import PlanError
from hilum.runtime import Model, Preprocessing, model_assembly
from hilum.runtime.inference import Inference, ModelRequest
from hilum.runtime.torch_networks import Networks
from hilum.runtime.windows import fixed_views
from hilum.runtime.windows.fixed_views import FixedViews
from hilum.tasks import task_catalogue
from hilum.tasks.segmentation.question import Segmentation
from hilum.transforms.intensity import Normalisation
from hilum.values import Dense, Geometry, Image, Label
from packages import segmenting

SHAPE = (24, 20, 16)
CUBES = np.ones(3)


def ball(scale: float = 1.0) -> np.ndarray:
    """(1, 1, 24, 20, 16) a smooth ball off the centre."""
    places = np.indices(SHAPE) - np.array([13.0, 9.0, 8.0]).reshape(3, 1, 1, 1)
    return scale * np.exp(-(places**2).sum(axis=0) / 18)[None, None].astype(np.float32)


@pytest.mark.parametrize("number", range(4))
def test_a_view_that_is_undone_is_the_window(number: int):
    view = FixedViews(4, turn=20.0).of_grid(CUBES, scaled=True)[number]
    changed = view.change(ball(), labelled=False)
    assert np.abs(changed - ball()).max() > 0.02
    assert_allclose(view.undo(changed, ball()), ball(), atol=0.08)  # it was read linearly twice


def test_the_second_of_a_pair_is_the_opposite_of_the_first():
    first, second = FixedViews(2, turn=20.0, gamma=0.4).of_grid(np.ones(2), scaled=False)
    assert_allclose(first.matrix @ second.matrix, np.eye(2), atol=1e-12)
    assert first.gamma * second.gamma == pytest.approx(1)
    assert not np.allclose(first.matrix, np.eye(2))


def test_a_turn_is_one_in_mm_and_thick_slices_are_turned_in_their_planes():
    steps = np.array([1.0, 1.5, 6.0])
    for view in FixedViews(4, turn=25.0).of_grid(steps, scaled=True):
        in_mm = view.matrix * steps[:, None] / steps
        assert_allclose(in_mm[2], [0, 0, 1])
        assert_allclose(in_mm[:2, 2], 0)
        size = np.sqrt(np.linalg.det(in_mm[:2, :2]))
        assert 0.9 <= size <= 1.1
        assert_allclose(in_mm[:2, :2] @ in_mm[:2, :2].T, size**2 * np.eye(2), atol=1e-12)


def test_gamma_keeps_the_range_of_a_channel_and_labels_stay_labels():
    batch = np.concatenate([ball(7.0), np.round(3 * ball())], axis=1)
    view = FixedViews(1, turn=10.0, gamma=0.5).of_grid(CUBES, scaled=True)[0]
    changed = view.change(batch, labelled=True)
    assert set(np.unique(changed[:, 1])) <= {0, 1, 2, 3}
    assert 0 <= changed[:, 0].min() < changed[:, 0].max() <= batch[:, 0].max()
    plain = replace(view, gamma=1.0).change(batch, labelled=True)
    assert (changed[:, 0] >= plain[:, 0] - 1e-6).all() == (view.gamma < 1)


def bright(batch: np.ndarray) -> dict[str, np.ndarray]:
    """A network that takes what is bright for the structure, whatever the direction."""
    return {"mask": np.concatenate([0 * batch, 40 * (batch - 0.5)], axis=1)}


def looking(views: int, task: Segmentation | None = None) -> Model:
    task = task or Segmentation((Label(1, "ball"),))
    preprocessing = Preprocessing(3, ("T1",), (Normalisation("window", -5.0, 5.0),))
    architecture = {"name": "unet", "channels": 1, "spatial_dims": 3, "size": {}}
    return Model(task, preprocessing, Inference(SHAPE, views=views, turn=15.0), Networks(bright, architecture))


def test_the_mean_of_views_of_a_network_without_direction_is_what_it_says_of_the_window():
    image = Image(ball()[0], Geometry(SHAPE, np.eye(4)), channels=("T1",))
    masks = [np.asarray(looking(views).predict(image).data) for views in (0, 4)]
    assert masks[0].sum() > 50
    assert (masks[0] != masks[1]).sum() <= 0.1 * masks[0].sum()
    without = looking(4).predict(image, ModelRequest(mirror=False))
    assert_array_equal(np.asarray(without.data), masks[0])
    states = model_assembly.with_uncertainty(looking(2), "tta").predict(image, ModelRequest(maps=True))
    assert states.maps


def test_views_with_a_sided_answer_or_another_than_masks_are_refused():
    with pytest.raises(PlanError, match="'kidney left' has a side"):
        fixed_views.refuse_views(segmenting().task, 4)
    registration = task_catalogue.build_task({"name": "registration"})
    with pytest.raises(PlanError, match="a registration answers otherwise"):
        fixed_views.refuse_views(registration, 1)
    fixed_views.refuse_views(registration, 0)


def test_boxes_and_objects_have_no_such_views():
    for head in (Dense(7, lengths=3, offsets=3), Dense(4, heights=1)):
        task = type("Other", (Segmentation,), {"heads": {"it": head}, "name": "other"})((Label(1, "a"),))
        with pytest.raises(PlanError, match="a other answers otherwise"):
            fixed_views.refuse_views(task, 2)
