"""Maps lie where the cause lies, on the source's own grid, and say what is known of hand-made networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import ndimage

from explanation.looking import Bright, Linear, model, spot
from hilum.explanation import answer_maps, explanation_methods
from hilum.explanation.case_on_grid import CaseOnGrid, ExplainedScalar, ExplainedWindow, UnfitError
from hilum.networks import factory
from hilum.runtime.torch_networks import Differentiable, TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.scoring.explaining import cohort_explanation
from hilum.tasks import task_catalogue
from hilum.values import Geometry, Image, Vector

# The first axis runs to the head, the second to the left, the third backwards, with unlike voxels and a slight turn.
TURNED = np.array([[0, -1.5, 0.1, 40.0], [0.05, 0.1, -3.0, 20.0], [0.8, 0, 0.1, -7.0], [0, 0, 0, 1.0]])
SPOT = ["cam", "gradcam", "gradcam++", "integrated_gradients", "occlusion", "rise"]


@pytest.mark.parametrize("name", SPOT)
def test_the_peak_lies_where_the_cause_lies_in_a_turned_anisotropic_volume_that_is_cropped_and_resampled(name):
    of = model(Bright(3), (16, 16, 16), spacing=(1.6, 1.6, 1.6), crop="content")
    image = spot((30, 16, 9), (22, 4, 2), TURNED)
    image.pixels[:, :3] = 0.0  # a constant border, which is cut away
    [method] = explanation_methods.named_methods(name)
    made = answer_maps.explain_case(of, image, method, target="bright")
    assert made.data.shape == image.geometry.shape
    assert made.data.dtype == np.float32
    smooth = ndimage.gaussian_filter(made.data, 1.0)
    peak = np.array(np.unravel_index(int(smooth.argmax()), smooth.shape))
    away = np.linalg.norm((peak - [22, 4, 2]) * image.geometry.steps)
    # Masks and blocks are coarser than voxels.
    assert away < (8.0 if name in ("occlusion", "rise") else 3.0)


def test_where_nothing_is_resampled_a_map_lies_exactly_on_its_voxels():
    weights = np.zeros((1, 12, 12, 12))
    image = spot((12, 7, 9), (8, 2, 5), np.array([[0, 1.0, 0, 0], [0, 0, -1.0, 9], [-1.0, 0, 0, 12], [0, 0, 0, 1]]))
    of = model(Linear(weights + 1.0), (12, 12, 12))
    made = answer_maps.explain_case(
        of, image, explanation_methods.named_methods("integrated_gradients")[0], target="bright"
    )
    # The score is the sum of all voxels, so each has its own value as its share, but for edges that go on.
    inside = (slice(1, -1),) * 3
    assert_allclose(made.data[inside], image.data[0][inside], rtol=1e-4)


def test_integrated_gradients_of_a_linear_network_are_its_weights_times_the_image():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(1, 8, 8))
    image = spot((8, 8), (5, 2))
    of = model(Linear(weights), (8, 8))
    made = answer_maps.explain_case(
        of, image, explanation_methods.named_methods("integrated_gradients")[0], target="bright"
    )
    assert_allclose(made.data, (weights * image.data)[0], rtol=1e-4, atol=1e-6)
    score = (weights * image.data).sum()
    assert_allclose(made.data.sum(), score, rtol=1e-4)


def test_smoothgrad_of_a_linear_network_is_the_size_of_its_weights():
    weights = np.random.default_rng(1).normal(size=(1, 8, 8))
    made = answer_maps.explain_case(
        model(Linear(weights), (8, 8)), spot((8, 8), (5, 2)), explanation_methods.named_methods("smoothgrad")[0]
    )
    assert_allclose(made.data, abs(weights[0]), rtol=1e-4)


def test_occlusion_does_not_favour_the_border_where_nothing_is_more_than_chance():
    outer, inner = [], []
    border = np.ones((28, 28), dtype=bool)
    border[2:-2, 2:-2] = False
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = spot((28, 28), (14, 14))
        image.pixels[:] = rng.random(image.pixels.shape)
        made = answer_maps.explain_case(
            model(Linear(rng.normal(size=(1, 28, 28))), (28, 28)),
            image,
            explanation_methods.named_methods("occlusion")[0],
        )
        evidence = made.data.clip(min=0)
        outer.append(evidence[border].mean())
        inner.append(evidence[~border].mean())
    assert np.mean(outer) == pytest.approx(np.mean(inner), rel=0.2)  # 1.3 times where fewer blocks hide it


def test_a_map_is_of_the_class_that_the_model_calls_unless_another_is_asked_about():
    weights = np.zeros((1, 8, 8))
    weights[0, 5, 2] = 1.0
    of, image = model(Linear(weights), (8, 8)), spot((8, 8), (5, 2))
    [method] = explanation_methods.named_methods("integrated_gradients")
    assert answer_maps.explain_case(of, image, method).target == "bright"
    other = answer_maps.explain_case(of, image, method, target="calm")
    assert_allclose(other.data, 0.0)


def test_a_volume_of_several_windows_has_one_map_in_which_the_cause_stands_out():
    of = model(Bright(3), (8, 8, 8))
    image = spot((20, 8, 14), (16, 4, 3))
    made = answer_maps.explain_case(of, image, explanation_methods.named_methods("gradcam")[0], target="bright")
    assert np.unravel_index(int(made.data.argmax()), made.data.shape)[0] in (15, 16, 17)
    assert (made.data[:10] == 0).all()


def test_members_are_averaged_and_their_disagreement_is_a_map():
    first, second = (np.random.default_rng(n).normal(size=(1, 8, 8)) for n in (1, 2))
    of, image = model(Linear(first), (8, 8)), spot((8, 8), (5, 2))
    run = AveragedNetwork((of.networks.run, TorchNetwork(Linear(second).eval())), of.task.average, (0.75, 0.25))
    made = answer_maps.explain_case(
        of.with_run(run), image, explanation_methods.named_methods("integrated_gradients")[0], target="bright"
    )
    assert_allclose(made.data, (0.75 * first + 0.25 * second)[0] * image.data[0], rtol=1e-4, atol=1e-5)
    apart = abs((first - second)[0] * image.data[0]) * np.sqrt(0.75 * 0.25)
    assert_allclose(made.disagreement, apart, rtol=1e-3, atol=1e-5)
    pictures = cohort_explanation.map_pictures(
        made, image, explanation_methods.named_methods("integrated_gradients")[0], None, failed=False
    )
    assert list(pictures) == ["integrated_gradients", "integrated_gradients_disagreement"]


def test_the_disagreement_on_several_images_is_that_of_the_sum_of_their_maps():
    first, second = (np.random.default_rng(n).normal(size=(1, 8, 8)).repeat(2, axis=0) for n in (1, 2))
    of = model(Linear(first), (8, 8), channels=("T1", "T2"))
    image = Image(spot((8, 8), (5, 2)).data.repeat(2, axis=0), Geometry.of_pixels((8, 8)), channels=("T1", "T2"))
    run = AveragedNetwork((of.networks.run, TorchNetwork(Linear(second).eval())), of.task.average, (0.5, 0.5))
    made = answer_maps.explain_case(
        of.with_run(run), image, explanation_methods.named_methods("integrated_gradients")[0], target="bright"
    )
    # Both images have the same map: members differ about their sum twice as much as about one.
    apart = abs((first - second) * image.data).sum(axis=0) * 0.5
    assert_allclose(made.disagreement, apart, rtol=1e-3, atol=1e-5)


def test_the_answer_of_several_tasks_as_a_whole_is_their_answers_for_voxels_and_for_the_image():
    parts = {"segmentation": {"labels": [{"value": 1, "name": "lesion"}], "loss": "dice+ce", "tolerance": 2.0},
             "classification": {"classes": ["benign", "malignant"], "smoothing": 0.0}}  # fmt: skip
    settings = {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}
    task = task_catalogue.build_task({"name": "segmentation+classification", **settings})
    generator = torch.Generator().manual_seed(0)
    outputs = {"segmentation_mask": torch.randn((1, 2, 4, 4), generator=generator)}
    outputs["classification_class"] = torch.tensor([[0.5, 2.0]])
    whole = ExplainedScalar(task).at(outputs)
    assert float(whole(outputs)) == pytest.approx(float(task.saliency(outputs)))
    surer = outputs | {"classification_class": torch.tensor([[0.5, 3.0]])}
    assert float(whole(surer) - whole(outputs)) == pytest.approx(1.0)
    # Of a target of the whole image no voxel is asked about.
    assert ExplainedScalar(task, "classification:benign").at(outputs).places is None


def test_the_weights_of_the_model_stay_as_they_are_and_get_no_gradients():
    module = Bright(2)
    of, image = model(module, (8, 8)), spot((8, 8), (5, 2))
    before = {name: one.clone() for name, one in module.state_dict().items()}
    for method in explanation_methods.named_methods("gradcam,gradcam++,cam,scorecam,smoothgrad"):
        answer_maps.explain_case(of, image, method)
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())
    assert all(one.grad is None for one in module.parameters())
    assert not module.training
    assert not any(part._forward_hooks for part in module.modules())


def test_a_subject_has_gradients_by_its_image_and_its_score_is_the_logit_of_the_target():
    weights = np.random.default_rng(1).normal(size=(1, 8, 8))
    of, image = model(Linear(weights), (8, 8)), spot((8, 8), (5, 2))
    grid = CaseOnGrid.from_case(of, image, "bright", Differentiable.from_networks(of.networks))
    [subject] = grid.subjects(grid.fullest_window())
    given = subject.image.clone().requires_grad_()
    subject.score(given).sum().backward()
    assert_allclose(given.grad[0].numpy(), weights, rtol=1e-6)
    assert_allclose(float(subject.score(subject.image)), (weights * image.data).sum(), rtol=1e-5)


def test_fewer_images_of_a_large_window_go_through_the_network_at_once():
    network = {"width": 16, "widest": 64, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    module = factory.build("unet", 1, 3, {"class": Vector(2)}, network).eval()
    small, large = (
        ExplainedWindow(torch.empty(1).expand(1, 1, n, n, n), None, None, None, module=module) for n in (16, 128)
    )
    assert small.at_once() == small.at_once(for_gradients=True) == 8
    assert large.at_once(for_gradients=True) == 1 <= large.at_once() < 8


def test_a_method_that_cannot_explain_a_model_says_why():
    of, image = model(Bright(2), (8, 8)), spot((8, 8), (5, 2))
    with pytest.raises(
        UnfitError, match="attention cannot explain this model: its answer is not computed by attention"
    ):
        answer_maps.explain_case(of, image, explanation_methods.named_methods("attention")[0])


@pytest.mark.parametrize(
    ("timm", "refused"),
    [("vit_tiny_patch16_224", ""), ("swinv2_tiny_window8_256", "attend within windows that change")],
)
def test_attention_of_a_backbone_is_a_map_where_all_patches_attend_to_each_other_and_else_refused(timm, refused):
    # Where the gradient of no head is positive for any patch the map is empty, and rightly: of six heads one is.
    sizes = {"depth": 1, "embed_dim": 24, "num_heads": 6} if "vit" in timm else {"embed_dim": 24, "depths": [1, 1]}
    size = {"model": timm, "settings": {"img_size": 64, **sizes}}
    module = factory.build("timm", 1, 2, {"class": Vector(2)}, size)
    of, image = model(module, (64, 64), name="timm"), spot((64, 64), (40, 20))
    for method in explanation_methods.named_methods("attention,attention_gradients"):
        if refused:
            with pytest.raises(UnfitError, match=refused):
                answer_maps.explain_case(of, image, method)
        else:
            made = answer_maps.explain_case(of, image, method).data
            assert made.shape == (64, 64)
            assert np.isfinite(made).all() and made.max() > 0


def test_attention_of_a_network_on_several_grids_is_a_map_and_its_gradients_are_refused():
    size = {"blocks": [1, 1, 1], "width": 8, "convolved": 1, "head": 8, "patch": [32, 32], "stem_stride": 2}
    module = factory.build("coatnet", 1, 2, {"class": Vector(2)}, size)
    of, image = model(module, (32, 32), name="coatnet"), spot((32, 32), (20, 10))
    plain, weighed = explanation_methods.named_methods("attention,attention_gradients")
    made = answer_maps.explain_case(of, image, plain).data
    assert made.shape == (32, 32)
    assert np.isfinite(made).all() and made.max() > 0
    with pytest.raises(UnfitError, match="lies on several grids"):
        answer_maps.explain_case(of, image, weighed)


def test_gradcam_is_the_deepest_maps_weighed_by_their_mean_gradients_as_worked_out_by_hand():
    torch.manual_seed(0)
    module = Bright(2)
    module.body = torch.nn.Sequential(torch.nn.Conv2d(1, 5, 3, padding=1), torch.nn.ReLU(inplace=True))
    module.vectors = torch.nn.ModuleDict({"class": torch.nn.Linear(5, 2)})
    of, image = model(module, (8, 8)), spot((8, 8), (5, 2))
    deepest = module.body(torch.from_numpy(image.data[None])).detach()
    weights = module.vectors["class"].weight[1] / 64  # the mean over the voxels, then the linear layer
    by_hand = (weights.reshape(1, 5, 1, 1) * deepest).sum(dim=1).relu()[0]
    made = answer_maps.explain_case(of, image, explanation_methods.named_methods("gradcam")[0], target="bright")
    assert_allclose(made.data, by_hand.detach().numpy(), rtol=1e-5, atol=1e-8)
    whole = answer_maps.explain_case(of, image, explanation_methods.named_methods("cam")[0], target="bright").data
    bias = module.vectors["class"].bias[1].item()
    assert_allclose(whole, ((weights.reshape(1, 5, 1, 1) * 64 * deepest).sum(dim=1)[0] + bias).detach(), rtol=1e-4)


def test_an_error_that_names_another_place_keeps_its_kind_its_reason_and_its_words():
    error = UnfitError("rollout", "its windows do not see each other")
    other = error.stating(where="run/explained")
    assert (type(other), other.reason, other.where) == (UnfitError, error.reason, "run/explained")
    assert str(other) == str(error).replace("--method", "run/explained")
    assert error.where == "--method"
