from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.networks.context_fusion import (
    COURSE_FEATURES,
    ContextFusion,
    CourseReduction,
    CovariateAttention,
    CovariateReduction,
    Film,
)
from hilum.tasks.detection.question import Detection
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.values import Dense, Geometry, Head, Vector
from matrices import only, thinned

torch.set_num_threads(1)

ENTRIES = 5
DENSE = ("unet", "unet_slices", "segresnet")
SMALL = {
    "alexnet": {"widths": [4, 8, 8, 8, 8], "hidden": 16, "cells": 2, "stem_stride": 1, "dropout": 0.0},
    "clip_resnet": {"blocks": [1, 1], "width": 8, "dropout": 0.0, "frames": 1},
    "convnext": {"blocks": [1, 1], "width": 8, "kernel": 3, "stem_stride": 2},
    "densenet": {"blocks": [2, 2], "growth": 4, "width": 8, "dropout": 0.0},
    "efficientnet": {"stages": [[1, 3, 8, 1, 1], [2, 5, 8, 2, 2]], "width": 0.25, "last": 64, "dropout": 0.0},
    "inception": {"blocks": [1, 1, 1], "width": 8, "stem_stride": 1, "dropout": 0.0},
    "lenet": {"maps": [2, 4], "hidden": [16, 8]},
    "mobilenet": {"stages": [[1, 8, 1, 1], [2, 8, 2, 2]], "width": 0.25, "last": 16, "dropout": 0.0},
    "resnet": {"blocks": [1, 1], "width": 8, "dropout": 0.0},
    "segresnet": {"strides": [[1, 1], [2, 2]], "width": 8, "dropout": 0.0},
    "timm": {"model": "resnet10t", "dropout": 0.0},
    "unet": {"strides": [[1, 1], [2, 2]], "width": 8, "blocks": [1, 2], "light_decoder": True},
    "unet_slices": {"strides": [[1, 1], [2, 2]], "width": 8, "axis": 0},
    "vgg": {"convolutions": [1, 1], "width": 8, "dropout": 0.0},
    "vit": {"token": 4, "image": [32, 32], "layers": 1, "width": 16, "heads": 2},
}
PAIRS = [(name, method) for name in SMALL for method in factory.family_of(name).fusion_methods]
# One family of each method, and the method of each of ours that is built otherwise.
SOME = [
    ("resnet", "concatenate"),
    ("resnet", "film"),
    ("unet", "attention"),
    ("unet_slices", "film"),
    ("vit", "tokens"),
]
BEGINS_UNTOLD = [(name, method) for name, method in PAIRS if method in ("film", "attention")]


def built(name: str, method: str, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    heads: dict[str, Head] = {"mask": Dense(2)} if name in DENSE else {"class": Vector(3)}
    axes = 3 if name == "unet_slices" else 2
    return factory.build(name, 1, axes, heads, SMALL[name], ENTRIES, {"method": method, **more})


def shown(name: str, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (4, 32, 32) if name == "unet_slices" else (32, 32)
    return torch.randn(count, 1, *shape, generator=generator), torch.randn(count, ENTRIES, generator=generator)


def answer(network: torch.nn.Module, *given: torch.Tensor) -> torch.Tensor:
    return next(iter(network(*given).values()))


@pytest.mark.parametrize(("name", "method"), only(SOME, BEGINS_UNTOLD))
def test_a_family_that_is_told_begins_as_the_one_that_is_not(name, method):
    told = built(name, method).eval()
    heads: dict[str, Head] = {"mask": Dense(2)} if name in DENSE else {"class": Vector(3)}
    untold = factory.build(name, 1, 3 if name == "unet_slices" else 2, heads, SMALL[name]).eval()
    untold.load_state_dict({key: one for key, one in told.state_dict().items() if "telling" not in key})
    images, context = shown(name)
    torch.testing.assert_close(answer(told, images, context), answer(untold, images))


@pytest.mark.parametrize(("name", "method"), only(SOME, PAIRS))
def test_what_is_told_comes_to_count_and_every_weight_of_it_learns(name, method):
    network = built(name, method)
    images, context = shown(name, 4)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):  # at first no way back leads beyond weights of 0
        optimiser.zero_grad()
        (answer(network, images, context) - context.sum()).square().mean().backward()
        still = [key for key, one in network.named_parameters() if "telling" in key and one.grad is None]
        optimiser.step()
    assert still == []
    network.eval()
    assert not torch.allclose(answer(network, images, context), answer(network, images, -context))


@pytest.mark.parametrize(("name", "method"), only(SOME, PAIRS))
def test_a_network_that_is_told_is_not_run_without(name, method):
    with pytest.raises(ValueError, match="each image needs 5 covariates"):
        built(name, method)(shown(name)[0])


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([Film, CovariateAttention]),
    st.integers(1, 6),
    st.integers(1, 9),
    st.lists(st.integers(1, 4), max_size=3),
    st.integers(0, 99),
)
def test_features_of_any_shape_are_at_first_what_they_were(kind, entries, maps, spatial, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, maps, *spatial, generator=generator)
    told = torch.randn(2, entries, generator=generator)
    torch.testing.assert_close(kind(entries, maps)(features, told), features)


def test_film_scales_and_shifts_each_map_by_what_its_last_layer_says():
    film = Film(1, 2)
    with torch.no_grad():
        film.affine.bias.copy_(torch.tensor([1.0, -1.0, 0.5, 3.0]))  # scales, then shifts
    images = torch.tensor([[[1.0, 2.0], [4.0, 5.0]]])
    torch.testing.assert_close(film(images, torch.zeros(1, 1)), torch.tensor([[[2.5, 4.5], [3.0, 3.0]]]))


def test_places_of_an_image_ask_for_different_things():
    asking = CovariateAttention(3, 4)
    with torch.no_grad():
        asking.taken.weight.normal_(generator=torch.Generator().manual_seed(0))
    images, told = torch.randn(1, 4, 2, 3), torch.randn(1, 3)
    added = asking(images, told) - images
    assert (added[..., 0, 0] - added[..., 1, 2]).abs().max() > 1e-4
    turned = asking(images.flip(-1), told).flip(-1)  # who asks does not know where it is
    torch.testing.assert_close(turned, images + added)


def test_the_cost_of_many_entries_is_the_summed_length_of_their_weights():
    narrow = CovariateReduction(3, 2, 0.5)
    assert narrow.cost().item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        narrow.weigh.weight.copy_(torch.tensor([[3.0, 0.0, 5.0], [4.0, 0.0, 12.0]]))
    assert narrow.cost().item() == pytest.approx(0.5 * (5 + 13), abs=1e-5)
    with pytest.raises(ValueError, match="0 or more"):
        ContextFusion(3, {0: 2}, narrow=-1)


@pytest.mark.parametrize("name", ["resnet", "unet", "unet_slices", "vit"])
def test_many_entries_cost_something_while_a_network_learns_and_nothing_afterwards(name):
    network = built(name, factory.family_of(name).fusion_methods[0], narrow=2, sparsity=0.1)
    images, context = shown(name)
    with torch.no_grad():
        network.get_submodule("plane.telling.narrow" if name == "unet_slices" else "telling.narrow").weigh.weight.fill_(
            1
        )
    expected = 0.1 * ENTRIES * np.sqrt(2)
    assert_allclose(network(images, context)["+"].detach(), [expected] * 2, rtol=1e-5)
    assert "+" not in network.eval()(images, context)


def test_what_tells_nothing_loses_its_weights_and_what_tells_keeps_them():
    generator = torch.Generator().manual_seed(0)
    told = torch.randn(200, 40, generator=generator)
    wanted = 2 * told[:, 0]
    torch.manual_seed(0)
    narrow, last = CovariateReduction(40, 4, 0.05), torch.nn.Linear(4, 1)
    optimiser = torch.optim.AdamW([*narrow.parameters(), *last.parameters()], lr=1e-2, weight_decay=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        ((last(narrow(told))[:, 0] - wanted).square().mean() + narrow.cost()).backward()
        optimiser.step()
    lengths = narrow.weigh.weight.detach().norm(dim=0)
    assert lengths[0] > 20 * lengths[1:].max()


def test_a_way_that_a_family_does_not_have_is_refused_with_those_that_it_has():
    with pytest.raises(PlanError, match=r"unet cannot take covariates by 'concatenate'.*Choose film or attention"):
        built("unet", "concatenate")
    with pytest.raises(PlanError, match="takes no covariates"):
        factory.build("vnet", 1, 2, {"mask": Dense(2)}, {"strides": [[1, 1], [2, 2]], "width": 4}, ENTRIES)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("name", "method"), thinned(1, [("resnet", "attention"), ("unet", "film"), ("unet_slices", "film")])
)
def test_onnxruntime_is_told_too(name, method, tmp_path):
    network = built(name, method)
    with torch.no_grad():
        for key, one in network.named_parameters():
            if "telling" in key:
                one.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    network.eval()
    path, inputs = tmp_path / "network.onnx", ["images", "context"]
    axes = {one: {0: "batch"} for one in inputs}
    torch.onnx.export(network, shown(name), path, dynamo=False, input_names=inputs, dynamic_axes=axes)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images, context = shown(name, 3)
    [found] = session.run(None, {"images": images.numpy(), "context": context.numpy()})
    assert_allclose(found, answer(network, images, context).detach(), atol=1e-4)


# Families of boxes and of objects: covariates scale and shift the maps of their pyramids.
LEVELS = {"inside": 32, "layers": [1, 2]}
STAGES = {"strides": [[1, 1], *[[2, 2]] * 4], "width": 8, "widest": 16, "inside": 8}
OF_OBJECTS: dict[str, dict] = {
    "faster_rcnn": {**LEVELS, "deep": 32, "samples": 64},
    "fcos": LEVELS,
    "mask_rcnn": {"inside": 16, "hidden": 32, "outline": [16], "anchor": 8.0, "proposals": 60, "samples": 32},
    "pyramid": STAGES,
    "retinanet": LEVELS,
    "yolox": STAGES,
}
BOXES, OBJECTS = Detection(("cell", "clump"), 2, 16.0), InstanceSegmentation((1.0, 1.0), 6.0)


def finding(name: str, entries: int = ENTRIES, **fusion: object) -> torch.nn.Module:
    torch.manual_seed(0)
    heads = (OBJECTS if name == "mask_rcnn" else BOXES).heads
    return factory.build(name, 1, 2, heads, OF_OBJECTS[name], entries, {"method": "film", **fusion})


def lost(network: torch.nn.Module, name: str, images: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
    """The loss of one object in each of two images."""
    family, truth = factory.family_of(name), torch.tensor([[[1.0, 8, 8, 24, 24]]] * 2)
    if name == "mask_rcnn":
        truth = torch.zeros(2, 32, 32, dtype=torch.int32)
        truth[:, 8:24, 8:24] = 1
    outputs = network(images, *context, **({"targets": truth} if family.sees_targets else {}))
    if not family.has_loss:
        return sum(one.square().mean() for one in outputs.values())
    loss = network.loss(outputs, truth, (OBJECTS if name == "mask_rcnn" else BOXES).heads)
    return loss + outputs.get("+", torch.zeros(1)).mean()


@pytest.mark.parametrize("name", OF_OBJECTS)
def test_what_finds_objects_begins_as_without_covariates_and_each_level_learns_them(name):
    told, untold, (images, context) = finding(name), finding(name, 0), shown("resnet")
    untold.load_state_dict({key: one for key, one in told.state_dict().items() if "telling" not in key})
    with torch.no_grad():
        torch.testing.assert_close(told.eval()(images, context), untold.eval()(images))
    narrowed = finding(name, narrow=2, sparsity=0.1)
    for part in (one for one in narrowed.modules() if isinstance(one, Film)):
        torch.nn.init.normal_(part.affine.weight, std=0.1, generator=torch.Generator().manual_seed(3))
    lost(narrowed, name, images, context).backward()
    grads = {key: one.grad for key, one in narrowed.named_parameters() if "telling" in key}
    assert [key for key, grad in grads.items() if grad is None] == []
    assert grads["telling.narrow.weigh.weight"].any()
    with pytest.raises(ValueError, match="each image needs 5 covariates"):
        told(images)


@pytest.mark.parametrize("name", OF_OBJECTS)
def test_another_covariate_makes_another_loss_of_the_same_image(name):
    network, (images, _) = finding(name, 1), shown("resnet")
    for part in (one for one in network.modules() if isinstance(one, Film)):
        torch.nn.init.normal_(part.affine.weight, std=0.1, generator=torch.Generator().manual_seed(3))
    losses = []
    for value in (1.0, 1.0, -1.0):
        torch.manual_seed(1)  # the second stages sample what they learn from
        losses.append(lost(network, name, images, torch.full((2, 1), value)).item())
    assert losses[0] == losses[1] != losses[2]


def two_discs(count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures of a bright and a dim disc, the box of one of them, and the number that says of which."""
    grid, images, boxes = np.indices((32, 32)) + 0.5, [], []
    numbers = rng.integers(2, size=count)
    for number in numbers:
        centres, bright = [(rng.uniform(8, 24), column) for column in (8.0, 24.0)], rng.integers(2)
        away = [np.hypot(grid[0] - row, grid[1] - column) for row, column in centres]
        images.append([rng.normal(0, 0.2, (32, 32)) + 3.0 * (away[bright] < 4) + 1.5 * (away[1 - bright] < 4)])
        row, column = centres[bright if number else 1 - bright]
        boxes.append([[0, row - 4, column - 4, row + 4, column + 4]])
    objects = (images, boxes, 2 * numbers[:, None] - 1)
    images, boxes, context = (torch.tensor(np.array(one), dtype=torch.float32) for one in objects)
    return images, boxes, context


@pytest.mark.whole
@pytest.mark.parametrize(("entries", "least", "most"), [(0, 30, 70), (1, 95, 100)])
def test_which_of_two_discs_has_the_box_is_told_by_a_covariate_alone(entries, least, most):
    task, rng = Detection(("disc",), 2, 8.0), np.random.default_rng(0)
    size = {"strides": [[1, 1], *[[2, 2]] * 3], "width": 16, "widest": 32, "inside": 32}
    torch.manual_seed(0)
    network = factory.build("yolox", 1, 2, task.heads, size, entries, {"method": "film"})
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(150):
        images, boxes, context = two_discs(8, rng)
        loss = network.loss(network(images, *[context][:entries]), boxes, task.heads)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    images, boxes, context = two_discs(100, np.random.default_rng(9))
    with torch.no_grad():
        outputs = network.eval()(images, *[context][:entries])["boxes"].numpy()
    hits, whole = 0, (slice(0, 32), slice(0, 32))
    for output, [box] in zip(outputs, boxes.numpy(), strict=True):
        found = task.decode([(whole, {"boxes": output})], Geometry.of_pixels((32, 32))).boxes
        surest = found.corners[int(np.argmax(found.scores))]
        hits += bool(np.abs(surest.reshape(2, 2).mean(axis=0) - box[1:].reshape(2, 2).mean(axis=0)).max() < 4)
    assert least <= hits <= most


COURSES = (2, 10)  # of which each has two entries a stretch


@pytest.mark.parametrize("name", only({name for name, _ in SOME}, SMALL))
def test_every_family_hears_what_was_read_along_time(name):
    heads: dict[str, Head] = {"mask": Dense(2)} if name in DENSE else {"class": Vector(3)}
    entries = 2 * COURSES[0] * COURSES[1] + ENTRIES
    told = {"method": factory.family_of(name).fusion_methods[0], "courses": COURSES}
    torch.manual_seed(0)
    network = factory.build(name, 1, 3 if name == "unet_slices" else 2, heads, SMALL[name], entries, told).train()
    images, rest = shown(name)
    context = torch.cat([torch.randn(2, entries - ENTRIES), rest], dim=1).requires_grad_()
    found = answer(network, images, context)
    for one in network.modules():  # scaling and asking begin with nothing, and pass nothing back
        if isinstance(one, Film):
            torch.nn.init.normal_(one.affine.weight)
    found = answer(network, images, context)
    found.square().sum().backward()
    assert (context.grad[:, : entries - ENTRIES].abs().sum(dim=0) > 0).all()


def test_hearing_tells_when_something_was_read():
    torch.manual_seed(0)
    hearing = CourseReduction(1, 32)
    early, late = torch.zeros(1, 64), torch.zeros(1, 64)
    early[0, 4], late[0, 24] = 3.0, 3.0
    assert hearing(early).shape == (1, COURSE_FEATURES)
    assert (hearing(early) - hearing(late)).abs().max() > 0.01


def test_many_other_entries_are_brought_down_and_courses_are_not():
    telling = ContextFusion(200 + 20, {}, "concatenate", narrow=4, courses=(1, 10))
    assert telling.features == COURSE_FEATURES + 4
    assert telling.narrow is not None
    assert telling.narrow.weigh.in_features == 200
    assert telling(torch.randn(3, 220)).shape == (3, COURSE_FEATURES + 4)
    assert ContextFusion(20, {}, narrow=4, courses=(1, 10)).features == COURSE_FEATURES
    assert ContextFusion(0, {}, courses=(1, 10)).features == 0
