"""Detectors of torchvision and MONAI as families: what they say is what the libraries say of the same weights."""

from __future__ import annotations

import re
import urllib.error
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose
from torchvision.models.detection.image_list import ImageList

from hilum.errors import PlanError, ResourceError
from hilum.evaluation import box_matching
from hilum.networks import factory, faster_rcnn, pyramid, resnet_pyramid, weight_loading
from hilum.networks.faster_rcnn import FasterRcnn
from hilum.networks.pyramid import ADDED, LevelPredictions
from hilum.runtime.bundle.network import EveryHead
from hilum.runtime.package import onnx_export
from hilum.tasks.detection.question import Detection
from hilum.values import Dense, Geometry, Vector
from matrices import thinned

torch.set_num_threads(1)

SMALL: dict[str, dict] = {
    "retinanet": {"inside": 32, "layers": [1, 2]},
    "fcos": {"inside": 32, "layers": [1, 2]},
    "faster_rcnn": {"inside": 32, "layers": [1, 2], "deep": 32, "samples": 64},
}
LEVELS = ("retinanet", "fcos")
UNIT = 16.0


def task_of(axes: int = 2) -> Detection:
    return Detection(("cell", "clump"), axes, UNIT)


def built(name: str, axes: int = 2, channels: int = 1, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build(name, channels, axes, task_of(axes).heads, {**SMALL[name], **size})


def truth(boxes: list[list[float]]) -> torch.Tensor:
    """(1, n + 1, 5) boxes of one image, and one that is none."""
    return torch.tensor([[*boxes, [-1.0] * len(boxes[0])]])


def lost(network: torch.nn.Module, images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    truth = {"targets": boxes} if isinstance(network, FasterRcnn) else {}
    return network.loss(network(images, **truth), boxes, task_of().heads)


def found_in(network: torch.nn.Module, images: torch.Tensor, task: Detection):
    """The boxes of the first image as the task decodes them."""
    shape = tuple(images.shape[2:])
    with torch.no_grad():
        array = network.eval()(images)["boxes"][0].numpy()
    return task.decode([(tuple(slice(0, n) for n in shape), {"boxes": array})], Geometry.of_pixels(shape)).boxes


def bare(detector: torch.nn.Module, size: int) -> torch.nn.Module:
    """torchvision's own detector without its resizing and normalising, that gives every box."""
    detector.transform = torchvision.models.detection.transform.GeneralizedRCNNTransform(
        size, size, [0.0], [1.0], fixed_size=(size, size), _skip_resize=True
    )
    detector.score_thresh, detector.nms_thresh, detector.topk_candidates = 0.0, 1.0, 10**6
    detector.detections_per_img = 10**6
    return detector.eval()


@pytest.mark.parametrize("name", thinned(1, SMALL))
def test_a_family_answers_for_every_voxel_and_every_weight_learns(name):
    network, images = built(name, channels=2), torch.randn(2, 2, 32, 48)
    boxes = torch.cat([truth([[1.0, 4, 6, 20, 22]]), truth([[0.0, 10, 12, 25, 30]])])
    lost(network, images, boxes).backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    assert network.eval()(images)["boxes"].shape == (2, 2 + 4, 32, 48)


@pytest.mark.parametrize("name", LEVELS)
def test_in_the_voxel_of_a_cell_stands_the_box_that_torchvision_is_surest_of_there(name):
    network, images = built(name).eval(), torch.randn(1, 1, 64, 64)
    for weight in network.parameters():  # fresh heads say of all places the same
        weight.data += 0.02 * torch.randn_like(weight)
    with torch.no_grad():
        array = network(images)["boxes"][0]
        theirs = bare(network.detector, 64)([images[0]])[0]
    best = int(theirs["scores"].argmax())
    sure = (array[:2] + ADDED).sigmoid()
    kind, row, column = (int(one) for one in np.unravel_index(int(sure.argmax()), sure.shape))
    assert kind == int(theirs["labels"][best])
    assert_allclose(sure[kind, row, column], theirs["scores"][best], rtol=1e-4)
    lengths, offsets = array[2:, row, column].split(2)
    centre = offsets * UNIT + torch.tensor([row + 0.5, column + 0.5])
    edges = torch.cat([centre - lengths * UNIT / 2, centre + lengths * UNIT / 2])[[1, 0, 3, 2]]
    assert_allclose(edges.clamp(0, 64), theirs["boxes"][best], atol=1e-2)


@pytest.mark.parametrize("name", [*SMALL, "yolox"])
def test_nothing_is_learnt_of_a_region_that_is_to_be_ignored(name):
    torch.manual_seed(0)
    network = factory.build(
        name, 1, 2, task_of().heads, SMALL.get(name, {"strides": [[1, 1], [2, 2], [2, 2], [2, 2]]})
    ).train()
    images, box = torch.randn(1, 1, 64, 64), [1.0, 10, 20, 30, 44]
    lost(network, images, truth([[-2.0, 0, 0, 64, 64]])).backward()
    assert not any(bool(weight.grad.any()) for weight in network.parameters() if weight.grad is not None)
    losses = []
    for further in ([], [[-2.0, 70, 70, 90, 90]]):  # beyond the image it changes nothing
        torch.manual_seed(1)  # the two stages sample what they learn from
        losses.append(float(lost(network, images, truth([box, *further])).detach()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_is_that_of_torchvision(name):
    network, images = built(name), torch.randn(1, 1, 64, 64)
    network.train()
    torch.manual_seed(1)  # the two stages sample what they learn from
    mine = lost(network, images, truth([[1.0, 10, 20, 30, 44], [0.0, 40, 8, 60, 30]]))
    theirs = bare(network.detector, 64).train()
    boxes = torch.tensor([[20.0, 10, 44, 30], [8.0, 40, 30, 60]])
    kinds = torch.tensor([1, 0]) + (name == "faster_rcnn")  # whose first class is the background
    torch.manual_seed(1)
    said = theirs([images[0]], [{"boxes": boxes, "labels": kinds}])
    assert_allclose(mine.detach(), sum(one.detach() for one in said.values()), rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_an_image_without_boxes_has_a_loss(name):
    network = built(name)
    loss = lost(network, torch.randn(1, 1, 32, 32), torch.full((1, 2, 5), -1.0))
    loss.backward()
    assert float(loss.detach()) > 0


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.whole
def test_discs_are_learnt_by_heart_and_decoded_by_the_task(name):
    network, task = built(name), task_of()
    boxes = [[1.0, 3, 4, 19, 20], [0.0, 24, 22, 44, 42]]
    row, column = np.indices((48, 48)) + 0.5
    image = np.zeros((48, 48), np.float32)
    for kind, *(top, left, bottom, right) in boxes:
        inside = np.hypot(row - (top + bottom) / 2, column - (left + right) / 2) < (bottom - top) / 2
        image[inside] = 2 if kind else -2
    images = torch.from_numpy(image)[None, None]
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(100 if name == "faster_rcnn" else 20):
        loss = lost(network, images, truth(boxes))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    for part in network.modules():  # so few steps leave running means behind
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
    network.train()
    lost(network, images, truth(boxes))
    found = found_in(network, images, task)
    assert set(found.names[:2]) == {"cell", "clump"}
    overlap = box_matching.box_iou(found.corners[:2], np.array([one[1:] for one in boxes]))
    assert overlap.max(axis=0).min() > 0.5


@pytest.mark.whole
def test_onnxruntime_gives_the_same_answer_for_other_batches(tmp_path):  # as it does of the others in test_detecting
    record = onnx_export.write_onnx(
        EveryHead([built("fcos")], {"boxes": "outputs"}), (1, 32, 48), tmp_path / "network.onnx"
    )
    assert record["exported"], record
    assert record["largest_difference"] < 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_what_cannot_be_is_refused(name):
    for head in (Dense(9), Vector(3)):
        with pytest.raises(PlanError, match="boxes only"):
            factory.build(name, 1, 2, {"class": head}, {})
    for size, said in (({"model": "resnet9"}, "choose one of resnet18"), ({"layers": [2, 4]}, "consecutive stages")):
        with pytest.raises(PlanError, match=said):
            factory.build(name, 1, 2, task_of().heads, size)


def test_levels_give_at_each_voxel_the_box_of_the_surest_and_centres_stay_true_between_cells():
    coarse = torch.full((1, 1, 4, 4), -4.0)
    coarse[0, 0, 1, 2] = 3.0
    fine = torch.full((1, 1, 8, 8), -5.0)
    centres = torch.tensor([6.0, 17.0]).reshape(1, 2, 1, 1)
    levels = [
        LevelPredictions(fine, torch.zeros(1, 2, 8, 8), torch.ones(1, 2, 8, 8), [4, 4], [0, 0]),
        LevelPredictions(coarse, centres.expand(1, 2, 4, 4), torch.full((1, 2, 4, 4), 10.0), [8, 8], [0, 0]),
    ]
    [array] = pyramid.merge_levels(levels, (32, 32), 5.0)
    assert_allclose(array[0, 8, 16] + ADDED, 3.0, rtol=1e-6)
    assert_allclose(array[1:3, 8, 16], [2.0, 2.0])
    for row, column in ((8, 16), (10, 13), (30, 31)):  # the last lies beyond every cell
        assert_allclose(array[3:, row, column] * 5.0, [6 - row - 0.5, 17 - column - 0.5], atol=1e-5)


def test_what_two_stages_find_is_rendered_and_decoded_again():
    network, images = built("faster_rcnn").eval(), torch.randn(1, 1, 64, 96)
    network.detector.roi_heads.box_predictor.cls_score.weight.data *= 20  # fresh heads are sure of nothing
    with torch.no_grad():
        features = network.detector.backbone(images)
        sizes = [(64, 96)]
        proposals, _ = network.detector.rpn(ImageList(images, sizes), features)
        [theirs], _ = network.detector.roi_heads(features, proposals, sizes)
    assert len(theirs["scores"]) > 10
    found = found_in(network, images, replace(task_of(), suppression=1.0))
    edges, kinds = theirs["boxes"][:, [1, 0, 3, 2]].numpy(), theirs["labels"].numpy() - 1
    for name, box, score in zip(found.names, found.corners, found.scores, strict=True):
        own = np.flatnonzero((kinds == task_of().classes.index(name)) & (abs(edges - box).max(axis=1) < 1e-3))
        assert len(own)
        assert_allclose(theirs["scores"][own].max(), score, atol=1e-4)
    # Only what lies in the core of a surer one has no top of its own.
    assert len(found) > 0.5 * len(edges)


def test_the_second_stage_looks_into_every_level_of_the_network():
    network = built("faster_rcnn")
    assert network.detector.roi_heads.box_roi_pool.featmap_names == ["0", "1"]
    assert list(network.detector.backbone(torch.randn(2, 1, 32, 32))) == ["0", "1", "pool"]


def test_boxes_of_which_two_windows_say_a_little_apart_are_one_between():
    boxes, kind = torch.tensor([[10.0, 12, 26, 30]]), torch.tensor([0])
    rendered = [
        faster_rcnn.render_boxes(boxes + shift, kind, torch.tensor([0.9]), 2, (48, 48), UNIT) for shift in (-0.8, 0.8)
    ]
    task = task_of()
    array = (0.5 * (rendered[0] + rendered[1])).numpy()
    found = task.decode([((slice(0, 48), slice(0, 48)), {"boxes": array})], Geometry.of_pixels((48, 48))).boxes
    assert len(found) == 1
    assert_allclose(found.corners, boxes, atol=0.5)
    assert 0.7 < found.scores[0] <= 0.9


def test_two_stages_ask_for_the_truth_and_say_that_they_have_no_onnx(tmp_path):
    network = built("faster_rcnn")
    with pytest.raises(ValueError, match="true boxes"):
        network(torch.randn(1, 1, 32, 32))
    family = factory.family_of("faster_rcnn")
    assert family.sees_targets
    refused, one = family.without_onnx, EveryHead([network], {"boxes": "outputs"})
    record = onnx_export.write_onnx(one, (1, 32, 32), tmp_path / "network.onnx", refused=refused)
    assert not record["exported"]
    assert "number of its proposals differs" in record["because"]


@pytest.mark.parametrize("name", ["fcos", "faster_rcnn"])
def test_those_for_pictures_alone_name_the_one_for_volumes(name):
    with pytest.raises(PlanError, match="choose retinanet"):
        factory.build(name, 1, 3, task_of(3).heads, {})


def in_volumes() -> torch.nn.Module:
    torch.manual_seed(0)
    size = {"strides": [[2, 2, 1]], "width": 8, "inside": 8}
    return factory.build("retinanet", 1, 3, Detection(("node", "vessel"), 3, 8.0).heads, size)


def test_in_volumes_it_is_as_monai_says_and_its_loss_is_monais():
    network, images = in_volumes(), torch.randn(1, 1, 24, 32, 16)
    boxes = [[1.0, 3, 4, 2, 13, 12, 10], [0.0, 12, 18, 5, 20, 30, 13]]
    network.train()
    torch.manual_seed(1)  # which anchors without a box are taught is random
    mine = network.loss(network(images), truth(boxes), {})
    mine.backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    told = {"boxes": truth(boxes)[0, :2, 1:], "labels": torch.tensor([1, 0])}
    torch.manual_seed(1)
    said = network.detector(images, [told])
    assert_allclose(mine.detach(), sum(one.detach() for one in said.values()), rtol=1e-5)

    for weight in network.parameters():  # fresh heads say of all places the same
        weight.data += 0.05 * torch.randn_like(weight)
    network.eval()
    network.detector.set_box_selector_parameters(0.0, 50, 1.0, 100)
    with torch.no_grad():
        array, [theirs] = network(images)["boxes"][0], network.detector(images)
    best = int(theirs["labels_scores"].argmax())
    sure = (array[:2] + ADDED).sigmoid()
    kind, *voxel = (int(one) for one in np.unravel_index(int(sure.argmax()), sure.shape))
    assert kind == int(theirs["labels"][best])
    assert_allclose(sure.max(), theirs["labels_scores"][best], rtol=1e-4)
    lengths, offsets = (8.0 * array[(slice(2, None), *voxel)]).split(3)
    centre = offsets + torch.tensor(voxel) + 0.5
    edges = torch.cat([centre - lengths / 2, centre + lengths / 2])
    size = torch.tensor([24.0, 32, 16] * 2)
    assert_allclose(torch.minimum(edges.clamp(min=0), size), theirs["boxes"][best], atol=1e-2)


@pytest.mark.whole
def test_onnxruntime_gives_the_same_answer_for_volumes(tmp_path):
    record = onnx_export.write_onnx(
        EveryHead([in_volumes()], {"boxes": "outputs"}), (1, 8, 16, 16), tmp_path / "network.onnx"
    )
    assert record["exported"], record


def test_a_volume_without_boxes_has_a_loss():
    network = in_volumes()
    loss = network.loss(network(torch.randn(2, 1, 16, 16, 8)), torch.full((2, 1, 7), -1.0), {})
    loss.backward()
    assert float(loss.detach()) > 0


@pytest.mark.whole
def test_nothing_is_learnt_of_a_volume_that_is_to_be_ignored():
    network = in_volumes().train()
    region = torch.tensor([[[-2.0, 0, 0, 0, 32, 32, 32]]])
    network.loss(network(torch.randn(1, 1, 32, 32, 32)), region, task_of(3).heads).backward()
    assert not any(bool(weight.grad.any()) for weight in network.parameters() if weight.grad is not None)


def test_balls_are_learnt_by_heart_and_decoded_by_the_task():
    network, task = in_volumes(), Detection(("node", "vessel"), 3, 8.0)
    boxes = [[0.0, 2, 4, 2, 12, 14, 12], [1.0, 12, 20, 3, 20, 28, 11]]
    places = np.stack(np.indices((24, 32, 16)) + 0.5, axis=-1)
    volume = np.zeros((24, 32, 16), np.float32)
    for kind, *ends in boxes:
        low, high = np.array(ends[:3]), np.array(ends[3:])
        volume[(((places - (low + high) / 2) / (high - low) * 2) ** 2).sum(axis=-1) < 1] = 2 if kind else -2
    images = torch.from_numpy(volume)[None, None]
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = network.loss(network(images), truth(boxes), task.heads)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    found = found_in(network, images, task)
    assert set(found.names[:2]) == {"node", "vessel"}
    assert (
        box_matching.box_iou(found.corners[:2], np.array([one[1:] for one in boxes])).max(axis=0).min() > task.overlap
    )


def test_a_volume_of_no_known_model_is_refused():
    with pytest.raises(PlanError, match="for volumes: choose one of resnet10"):
        factory.build("retinanet", 1, 3, task_of(3).heads, {"model": "resnet50"})


OF_COCO = {"model": "resnet50", "inside": 256}
PUBLISHED = {
    "fcos": (torchvision.models.detection.fcos_resnet50_fpn, {"layers": [2, 3, 4], "coarser": 2}),
    "faster_rcnn": (torchvision.models.detection.fasterrcnn_resnet50_fpn, {"layers": [1, 2, 3, 4], "deep": 1024}),
    "retinanet": (torchvision.models.detection.retinanet_resnet50_fpn_v2, {"layers": [2, 3, 4]}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_weights_fit_all_but_what_tells_of_classes(name, monkeypatch):
    theirs, more = PUBLISHED[name]
    size = {**OF_COCO, **more}
    with torch.device("meta"):
        network = factory.build(name, 3, 2, task_of().heads, size)
        given = theirs(weights=None, weights_backbone=None).state_dict()
    monkeypatch.setattr(weight_loading, "_silence", lambda address: "")
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", lambda self, **asked: given)
    said = factory.load_pretrained(network, name, size, "auto").words
    fresh = said.partition("fresh: ")[2].split(", ")
    assert said.startswith(f"{len([one for one in network.state_dict().values() if one.ndim]) - len(fresh)} of ")
    assert all("cls_logits" in one or "box_predictor" in one for one in fresh), fresh


@pytest.mark.parametrize("name", PUBLISHED)
def test_of_other_networks_than_the_published_there_are_none(name, monkeypatch):
    assert factory.family_of(name).published is not None
    monkeypatch.setattr(weight_loading, "_silence", lambda address: "")
    with pytest.raises(PlanError, match="of model resnet50"):
        factory.load_pretrained(built(name), name, {"model": "resnet18", **SMALL[name]}, "auto")


def test_where_torchvisions_weights_cannot_be_fetched_it_is_said_from_where(monkeypatch):
    with torch.device("meta"):
        size = {**OF_COCO, **PUBLISHED["fcos"][1]}
        network = factory.build("fcos", 3, 2, task_of().heads, size)

    def refuse(self: object, **asked: object) -> None:
        raise urllib.error.URLError("no way there")

    monkeypatch.setattr(weight_loading, "_silence", lambda address: f"{address} does not answer")
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(ResourceError, match=r"download\.pytorch\.org does not answer.*--pretrained FILE"):
        factory.load_pretrained(network, "fcos", size, "auto")


def test_a_file_of_the_older_names_fits_a_detector_of_the_same_levels(tmp_path):
    theirs, mine = (
        built("faster_rcnn"),
        factory.build("faster_rcnn", 1, 2, Detection(("a", "b", "c"), 2, UNIT).heads, SMALL["faster_rcnn"]),
    )
    bare = {key: re.sub(r"(_blocks\.\d)\.0\.", r"\1.", key) for key in theirs.detector.state_dict()}
    older = {
        bare[key].replace("rpn.head.conv.0.0.", "rpn.head.conv."): value
        for key, value in theirs.detector.state_dict().items()
    }
    assert "rpn.head.conv.weight" in older
    torch.save(older, tmp_path / "detector.pth")
    said = factory.load_pretrained(mine, "faster_rcnn", SMALL["faster_rcnn"], tmp_path / "detector.pth").words
    assert all("box_predictor" in one for one in said.partition("fresh: ")[2].split(", "))
    name = "backbone.fpn.layer_blocks.1.0.weight"
    assert torch.equal(mine.detector.state_dict()[name], theirs.detector.state_dict()[name])


def test_levels_are_taken_by_the_stage_that_they_stand_on():
    given = {f"backbone.fpn.inner_blocks.{number}.weight": torch.tensor(number) for number in range(3)}
    found = resnet_pyramid.renumber_levels(given, first=2, own=1)
    assert found == {f"backbone.fpn.inner_blocks.{number + 1}.weight": torch.tensor(number) for number in range(3)}
