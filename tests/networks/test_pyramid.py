"""Families that answer with boxes: on a coarse grid, and by a loss of their own."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.errors import PlanError
from hilum.evaluation import box_matching
from hilum.networks import factory, yolox
from hilum.networks.pyramid import ADDED
from hilum.networks.yolox import Predictions
from hilum.tasks.detection.answering import PRIOR
from hilum.tasks.detection.question import Detection
from hilum.values import Dense, Geometry, Vector
from matrices import thinned

torch.set_num_threads(1)

FAMILIES = ("pyramid", "yolox")
SMALL = {"width": 8, "widest": 16, "inside": 8}


def task_of(axes: int) -> Detection:
    return Detection(("cell", "clump"), axes, 16.0)


def built(name: str, axes: int = 2, channels: int = 1, **size: int) -> torch.nn.Module:
    torch.manual_seed(0)
    strides = [[1] * axes, *[[2] * axes] * 4]
    return factory.build(name, channels, axes, task_of(axes).heads, {"strides": strides, **SMALL, **size})


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("axes", [2, 3])
def test_a_family_answers_for_every_voxel_of_the_image_and_every_weight_learns(name, axes):
    network, images = built(name, axes), torch.randn(2, 1, *[32, 48, 16][:axes])
    outputs = network(images)
    sum(one.float().square().mean() for one in outputs.values()).backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    assert network.eval()(images)["boxes"].shape == (2, 2 + 2 * axes, *images.shape[2:])


def test_a_pyramid_says_in_training_on_its_coarse_grid_what_it_says_afterwards_on_that_of_the_image():
    network, images = built("pyramid"), torch.randn(1, 1, 32, 48)
    layer = network.lengths["boxes"]
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor([1.0, 2.0, 0.5, -0.5])
    coarse = network(images)["boxes"]
    assert coarse.shape == (1, 6, 8, 12)  # a fourth as fine
    assert_allclose(coarse.detach()[0, 2:, 3, 5], [0.25, 0.5, 0.125, -0.125])
    assert_allclose(network.eval()(images)["boxes"].detach()[0, 2:, 13, 22], [1.0, 2.0, 0.5, -0.5], rtol=1e-6)


def test_both_decode_with_the_same_prior_as_the_task():
    assert pytest.approx(PRIOR) == ADDED


def test_what_is_sure_beyond_doubt_stays_a_number_in_half_the_bits():
    network, images = built("yolox").eval(), torch.randn(1, 1, 32, 32)
    for layer in (*network.of_kinds, *network.of_places):
        layer.bias.data.fill_(30.0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(images)["boxes"].isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_other_outputs_than_boxes_are_refused_by_name(name):
    size = {"strides": [[1, 1], [2, 2], [2, 2]]}
    for head in (Dense(9), Vector(3)):
        with pytest.raises(PlanError, match="boxes only"):
            factory.build(name, 1, 2, {"class": head}, size)
    with pytest.raises(PlanError, match="finest"):
        factory.build(name, 1, 2, task_of(2).heads, {**size, "finest": 3})


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_onnxruntime_gives_the_same_answer_for_another_batch(name, tmp_path):
    network, images = built(name), torch.randn(2, 1, 32, 48)
    network(images)  # running means that are not those of a fresh network
    plain = _Plain(network).eval()
    options = {"dynamo": False, "input_names": ["images"], "dynamic_axes": {"images": {0: "batch"}}}
    torch.onnx.export(plain, (images,), tmp_path / "network.onnx", **options)
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    others = torch.randn(3, 1, 32, 48)
    [given_back] = session.run(None, {"images": others.numpy()})
    assert_allclose(given_back, plain(others).detach().numpy(), atol=1e-4)


class _Plain(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)["boxes"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_file_of_a_family_makes_the_same_network_alone(name, tmp_path, monkeypatch):
    path, function = factory.builder_source(name)
    (tmp_path / "travelled.py").write_bytes(path.read_bytes())
    spec = importlib.util.spec_from_file_location("travelled", tmp_path / "travelled.py")
    travelled = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "travelled", travelled)
    spec.loader.exec_module(travelled)
    network, images = built(name).eval(), torch.randn(1, 1, 32, 32)
    size = {"strides": [[1, 1], *[[2, 2]] * 4], **SMALL}
    again = getattr(travelled, function)(1, 2, dense={"boxes": 6}, **size).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(network(images)["boxes"], again(images)["boxes"])


def said_of(boxes: torch.Tensor, sure: float = 4.0, size: int = 8, step: int = 4) -> Predictions:
    """What a grid of answers says of which each knows the box whose centre is nearest to it, and its class."""
    axis = torch.arange(size) + 0.5
    places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).flatten(0, 1) * step
    centres, lengths = (boxes[:, 1:3] + boxes[:, 3:]) / 2, boxes[:, 3:] - boxes[:, 1:3]
    nearest = (places[:, None] - centres).norm(dim=-1).argmin(dim=1)
    logits = torch.full((len(places), 3), -sure)
    logits[:, 0] = sure
    logits[torch.arange(len(places)), 1 + boxes[nearest, 0].long()] = sure
    return Predictions(logits, centres[nearest], lengths[nearest], places, torch.full_like(places, float(step)))


def test_answers_that_know_a_box_speak_of_it_and_as_many_as_overlap_it_well():
    boxes = torch.tensor([[0.0, 2, 2, 14, 14], [1.0, 16, 18, 30, 28]])
    said = said_of(boxes)
    chosen, which = yolox.assign_boxes(said, boxes)
    assert_allclose(said.centres[chosen], ((boxes[:, 1:3] + boxes[:, 3:]) / 2)[which])
    # Each of the ten that overlap best has the whole box, so that ten are wanted.
    assert torch.bincount(which).tolist() == [10, 10]


def test_without_boxes_or_answers_near_them_nobody_speaks():
    said = said_of(torch.tensor([[0.0, 2, 2, 14, 14]]))
    for boxes in (torch.zeros(0, 5), torch.tensor([[0.0, 400, 400, 410, 410]])):
        assert [len(one) for one in yolox.assign_boxes(said, boxes)] == [0, 0]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_no_answer_speaks_of_two_boxes_and_all_that_speak_are_near(seed, count):
    draws = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=draws) * 24
    boxes = torch.cat([torch.zeros(count, 1), low, low + 1 + 7 * torch.rand(count, 2, generator=draws)], dim=1)
    said = said_of(boxes, sure=float(torch.randn((), generator=draws)))
    chosen, which = yolox.assign_boxes(said, boxes)
    assert len(chosen) == len(chosen.unique()) >= 1
    away = (said.places[chosen] - (boxes[which, 1:3] + boxes[which, 3:]) / 2).abs()
    assert (away <= torch.maximum((boxes[which, 3:] - boxes[which, 1:3]) / 2, 2.5 * said.steps[chosen])).all()


def test_overlap_is_that_of_torchvision():
    low = torch.rand(2, 50, 2) * 10
    one, other = torch.cat([low, low + 1 + torch.rand(2, 50, 2) * 8], dim=-1)
    assert_allclose(yolox._overlap(one, other), torchvision.ops.box_iou(one, other).diagonal(), rtol=1e-5)


def test_the_loss_of_an_empty_image_is_that_of_calling_nothing():
    network = built("yolox")
    outputs = network(torch.randn(1, 1, 32, 32))
    loss = network.loss(outputs, torch.full((1, 2, 5), -1.0), task_of(2).heads)
    loss.backward()
    assert 0 < float(loss.detach()) < 0.02 * (64 + 16 + 4)


@pytest.mark.parametrize("axes", thinned(1, [2, 3]))
def test_a_box_is_learnt_by_heart_and_decoded_by_the_task(axes):
    task, shape = task_of(axes), (32, 48, 32)[:axes]
    low, high = (8.0, 20.0, 6.0)[:axes], (20.0, 38.0, 24.0)[:axes]
    boxes = torch.tensor([[[1.0, *low, *high]]])
    images = torch.zeros(1, 1, *shape)
    images[(0, 0, *(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))] = 1.0
    network = built("yolox", axes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(60):
        loss = network.loss(network(images), boxes, task.heads)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        [array] = network.eval()(images)["boxes"].numpy()
    found = task.decode([(tuple(slice(0, n) for n in shape), {"boxes": array})], Geometry.of_pixels(shape)).boxes
    assert found.names[0] == "clump"
    assert box_matching.box_iou(found.corners[:1], np.array([[*low, *high]]))[0, 0] > task.overlap
