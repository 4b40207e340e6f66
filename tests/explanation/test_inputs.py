"""What goes into a network beside one still image: clips, colours, covariates, mirrored views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import foreign_bundles
import foreign_folders
import hilum
from explanation.looking import Bright, Linear, model, spot
from hilum.explanation import answer_maps, explanation_methods
from hilum.explanation.case_on_grid import CaseOnGrid, UnfitError
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Differentiable, Networks, TorchNetwork
from hilum.scoring.explaining.cohort_explanation import Explainer
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Geometry, Image

AGE = {"age": {"median": 50.0, "mean": 50.0, "deviation": 10.0, "missing": 0.0}}
SEX = {"sex": {"levels": {"f": 0.5, "m": 0.5}, "missing": 0.0}}


class Informed(nn.Module):
    """The class "bright" is 3 times the standardised age, and nothing of the image."""

    def forward(self, images, context=None):
        score = 3 * context[:, 0] + 0 * images.flatten(1).sum(dim=1)
        return {"class": torch.stack([torch.zeros_like(score), score], dim=1)}


class Marking(nn.Module):
    """Each voxel is of the structure where it is bright."""

    def forward(self, images, context=None):
        return {"mask": torch.cat([torch.full_like(images, 0.5), images], dim=1)}


class FrameByFrame(nn.Module):
    """The class "bright" is how bright the middle one of three frames is, through a map of each frame."""

    def __init__(self):
        super().__init__()
        self.coarsest = nn.Identity()

    def forward(self, images, context=None):
        maps = self.coarsest((images.reshape(-1, 1, *images.shape[2:]) - 0.5).relu())
        score = maps.flatten(1).mean(dim=1).reshape(-1, 3) @ torch.tensor([0.0, 1.0, 0.0])
        return {"class": torch.stack([torch.zeros_like(score), score], dim=1)}


def test_the_deepest_maps_of_frames_lie_each_on_its_frame_and_a_mask_for_all_of_them_is_refused():
    of = model(FrameByFrame(), (8, 8), frames=3, name="clip_resnet")
    image = Image(np.full((1, 9, 8, 8), 0.4, dtype=np.float32), Geometry((8, 8), np.eye(3)))
    image.pixels[0, :, 2, 5] = 1.0  # of every frame
    for name in ("gradcam", "gradcam++"):
        made = answer_maps.explain_case(of, image, explanation_methods.named_methods(name)[0], target="bright")
        assert [tuple(map(int, place)) for place in np.argwhere(made.data)] == [(4, 2, 5)]
    with pytest.raises(UnfitError, match="its deepest maps are of single frames"):
        answer_maps.explain_case(of, image, explanation_methods.named_methods("scorecam")[0], target="bright")


def test_one_map_for_all_frames_of_a_clip_is_refused_as_the_method_s_own_fault():
    of = model(Bright(2), (8, 8), frames=3)
    image = Image(np.ones((1, 9, 8, 8), dtype=np.float32), Geometry((8, 8), np.eye(3)))
    with pytest.raises(UnfitError, match="gradcam cannot explain this model: it has one map for all frames"):
        answer_maps.explain_case(of, image, explanation_methods.named_methods("gradcam")[0], target="bright")


def test_a_clip_has_a_map_a_frame_on_the_frames_that_the_network_looks_at():
    weights = np.zeros((3, 8, 8))
    weights[1, 2, 5] = 1.0  # of the middle one of the three frames
    of = model(Linear(weights), (8, 8), frames=3)
    pixels = np.random.default_rng(0).uniform(0.5, 1, (1, 9, 8, 8)).astype(np.float32)
    image = Image(pixels, Geometry((8, 8), np.eye(3)))
    for name in ("integrated_gradients", "occlusion"):
        made = answer_maps.explain_case(of, image, explanation_methods.named_methods(name)[0], target="bright")
        assert made.data.shape == (9, 8, 8)
        assert np.unravel_index(int(abs(made.data).argmax()), made.data.shape)[0] == 4
        assert_allclose(made.data[[0, 1, 2, 3, 5, 6, 7, 8]], 0, atol=1e-6)


def test_a_clip_whose_frames_are_predicted_one_by_one_is_explained_so():
    task = task_catalogue.build_task(
        {"name": "segmentation", "labels": [{"value": 1, "name": "ball"}], "loss": "dice+ce", "tolerance": 2.0}
    )
    preprocessing = Preprocessing(2, ("0",), (Normalisation("range", 0, 1),))
    of = Model(
        task, preprocessing, Inference((12, 12)), Networks(TorchNetwork(Marking().eval()), {"name": "unet", "size": {}})
    )
    frames = np.stack([spot((12, 12), (3 + 3 * n, 6)).data[0] for n in range(3)])
    image = Image(frames[None], Geometry((12, 12), np.eye(3)))
    made = answer_maps.explain_case(
        of, image, explanation_methods.named_methods("integrated_gradients")[0], target="ball"
    )
    assert made.data.shape == (3, 12, 12)
    assert (
        answer_maps.explain_case(of, image, explanation_methods.named_methods("integrated_gradients")[0]).target
        == "ball"
    )  # its only structure
    for n, one in enumerate(made.data):
        assert set(zip(*np.nonzero(one > one.max() / 2), strict=True)) == {
            (row, column) for row in range(2 + 3 * n, 5 + 3 * n) for column in (5, 6, 7)
        }


def test_a_colour_picture_has_one_map():
    weights = np.ones((3, 8, 8))
    of = model(Linear(weights), (8, 8), channels=("R", "G", "B"))
    image = Image(np.random.default_rng(0).uniform(0, 1, (3, 8, 8)).astype(np.float32), Geometry((8, 8), np.eye(3)))
    image = replace(image, channels=("R", "G", "B"))
    made = answer_maps.explain_case(of, image, explanation_methods.named_methods("occlusion")[0], target="bright")
    assert made.data.shape == (8, 8)
    assert made.images == {}


def test_each_covariate_has_a_bar_of_what_the_score_loses_without_it():
    of = model(Informed(), (8, 8))
    of = replace(
        of, networks=replace(of.networks, architecture={**of.networks.architecture, "context": {**AGE, **SEX}})
    )
    case = Case("a", "a", {"image": spot((8, 8), (4, 4))}, covariates={"age": 70.0, "sex": "f"})
    bars = CaseOnGrid.from_case(of, case, "bright", Differentiable.from_networks(of.networks)).covariates()
    assert set(bars) == {"age", "sex"}
    assert bars["age"] == pytest.approx(6.0)  # two deviations above the mean, at which a missing age stands
    assert bars["sex"] == pytest.approx(0.0)
    made = Explainer.from_methods(of, explanation_methods.named_methods("occlusion"), by_name=True, target="bright")(
        case
    )
    assert dict(made.covariates) == bars
    assert dict(made.explanations[0].covariates) == bars


def test_a_model_that_averages_mirrored_views_is_explained_in_all_of_them():
    weights = np.zeros((1, 8, 8))
    weights[0, 1, 2] = 1.0
    of = model(Linear(weights), (8, 8))
    image = Image(np.ones((1, 8, 8), dtype=np.float32), Geometry((8, 8), np.eye(3)))
    both = replace(of, inference=Inference((8, 8), flips=(0,)))
    made = answer_maps.explain_case(
        both, image, explanation_methods.named_methods("integrated_gradients")[0], target="bright"
    ).data
    assert_allclose([made[1, 2], made[6, 2]], 0.5, rtol=1e-4)
    assert_allclose(made.sum(), 1.0, rtol=1e-4)


def test_a_model_of_another_program_is_explained_by_what_needs_no_family_and_refuses_the_rest(tmp_path):
    of, image = hilum.load(foreign_bundles.bundle(tmp_path / "liver")), foreign_bundles.image()
    of = replace(of, inference=replace(of.inference, overlap=0.0))
    made = answer_maps.explain_case(
        of, image, explanation_methods.named_methods("integrated_gradients")[0], target="liver"
    )
    assert made.data.shape == image.geometry.shape
    assert np.isfinite(made.data).all()
    assert made.data.any()
    for name in ("gradcam", "attention"):
        with pytest.raises(UnfitError, match=f"{name} cannot explain this model"):
            answer_maps.explain_case(of, image, explanation_methods.named_methods(name)[0], target="liver")


def test_a_volume_of_another_program_with_turned_axes_has_its_map_on_its_own_grid(tmp_path):
    folder = foreign_folders.result_folder(tmp_path, "3d_fullres", patch=(8, 16, 16), transpose=(2, 0, 1))
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    noise = np.random.default_rng(3).normal(90, 30, size=(1, 18, 16, 10)).astype(np.float32)
    of, image = hilum.load(folder, "cpu"), Image(noise, Geometry((18, 16, 10), affine))
    of = replace(of, inference=replace(of.inference, overlap=0.0, flips=()))
    made = answer_maps.explain_case(of, image, explanation_methods.named_methods("gradcam")[0])
    assert made.data.shape == image.geometry.shape
    assert np.isfinite(made.data).all()
