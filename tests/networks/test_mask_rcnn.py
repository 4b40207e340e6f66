"""Objects outlined one by one: what is proposed, pooled and rendered, beside torchvision's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file
from scipy import ndimage
from torchvision.models.detection import MaskRCNN as Torchvisions
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import MultiScaleRoIAlign, nms, roi_align

from hilum.errors import PlanError
from hilum.evaluation import instances
from hilum.networks import factory, mask_rcnn
from hilum.networks.mask_rcnn import OF_A_BOX
from hilum.planning import training_memory
from hilum.planning.training_memory import Machine
from hilum.runtime import predicted_memory
from hilum.tasks.instances.answering import HEAD, ObjectDecoder
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.values import Dense

torch.set_num_threads(1)

TASK = InstanceSegmentation((1.0, 1.0), 6.0)
SMALL = {"inside": 16, "hidden": 32, "outline": [16], "anchor": 8.0, "proposals": 60, "objects": 20, "samples": 32}
SIDE = 64
PLACES = [[(16, 14, 9), (16, 33, 9), (46, 40, 11)], [(20, 44, 10), (44, 20, 11), (44, 43, 11)]]


def built(channels: int = 1, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build("mask_rcnn", channels, 2, TASK.heads, {**SMALL, **size})


def discs(places: list[tuple[float, float, float]], side: int = SIDE) -> np.ndarray:
    """(side, side) numbers; what several cover is the first's."""
    numbers, grid = np.zeros((side, side), dtype=np.int32), np.indices((side, side))
    for number, (row, column, radius) in enumerate(places, start=1):
        numbers[(np.hypot(grid[0] - row, grid[1] - column) < radius) & (numbers == 0)] = number
    return numbers


def smears() -> tuple[torch.Tensor, torch.Tensor]:
    """(2, 1, side, side) pictures of bright discs, some of which touch, and their numbers."""
    numbers = torch.from_numpy(np.stack([discs(one) for one in PLACES]))
    noise = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return (numbers > 0)[:, None] * 2.0 - 1.0 + 0.2 * noise, numbers


@pytest.fixture(scope="module")
def taught() -> tuple[torch.nn.Module, list[float]]:
    """A network that has seen the same two smears again and again, and its losses; tests only ask it."""
    network, (images, numbers) = built(), smears()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        loss = network.loss(network(images, targets=numbers), numbers, TASK.heads)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return network.eval(), losses


def test_every_weight_learns_and_every_voxel_is_answered_for():
    network, (images, numbers) = built(), smears()
    network.loss(network(images, targets=numbers), numbers, TASK.heads).backward()
    untouched = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert untouched == []
    assert network.eval()(images)[HEAD].shape == (2, 2, SIDE, SIDE)


def test_a_picture_without_an_object_teaches_that_there_is_none():
    network, (images, numbers) = built(), smears()
    outputs = network(images, targets=torch.zeros_like(numbers))
    anything, places, kinds, moves, masks = outputs[f"{HEAD}/losses"][0].tolist()
    assert min(anything, kinds) > 0
    assert (places, moves, masks) == (0, 0, 0)


@pytest.mark.whole
def test_the_loss_falls_and_the_objects_are_found(taught):
    network, losses = taught
    images, numbers = smears()
    assert np.mean(losses[-5:]) < 0.4 * losses[0]
    with torch.inference_mode():
        outputs = network(images)[HEAD].numpy()
    for said, truth in zip(outputs, numbers.numpy(), strict=True):
        found = ObjectDecoder(0.5, 0.2, smallest=10)(1 / (1 + np.exp(-said[0])), said[1])
        assert instances.instance_overlap(found, truth).ap((0.5,)) == 1


@pytest.mark.whole
def test_boxes_scores_and_masks_are_those_that_torchvision_finds_with_the_same_weights(taught):
    own, (images, _) = taught[0], smears()
    heads = own.roi_heads
    theirs = Torchvisions(
        own.backbone,
        min_size=SIDE,
        max_size=SIDE,
        image_mean=[0.0],
        image_std=[1.0],
        rpn_anchor_generator=own.rpn.anchor_generator,
        rpn_head=own.rpn.head,
        rpn_pre_nms_top_n_test=own.proposals,
        rpn_post_nms_top_n_test=own.proposals,
        box_head=heads.box_head,
        box_predictor=heads.box_predictor,
        box_score_thresh=own.surest,
        box_nms_thresh=own.overlap,
        box_detections_per_img=own.objects,
        mask_head=heads.mask_head,
        mask_predictor=heads.mask_predictor,
    ).eval()
    with torch.inference_mode():
        found, expected = own.look(own.propose(images)), theirs(list(images))
        rendered = mask_rcnn.paste_masks(found.masks, found.boxes, (SIDE, SIDE))
    for boxes, scores, masks, other in zip(found.boxes, found.scores, rendered, expected, strict=True):
        count = int((scores > 0).sum())
        assert count == len(other["boxes"]) > 0
        assert_allclose(boxes[:count], other["boxes"], atol=1e-3)
        assert_allclose(scores[:count], other["scores"], atol=1e-5)
        for one, its in zip(masks[:count] > 0.5, other["masks"][:, 0] > 0.5, strict=True):
            if its.sum() > 200:  # theirs lie on whole voxels, and are one wider, which changes small ones
                assert (one & its).sum() / (one | its).sum() > 0.8


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.2, 0.8))
def test_of_boxes_that_overlap_those_stay_that_stay_one_after_the_other(seed, count, threshold):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 20, (count, 2))
    boxes = torch.tensor(np.concatenate([low, low + rng.uniform(1, 15, (count, 2))], axis=1), dtype=torch.float32)
    live = torch.from_numpy(rng.uniform(size=count) < 0.9)
    kept = mask_rcnn.kept_boxes(boxes[None], live[None], threshold)[0]
    there = torch.nonzero(live)[:, 0]
    scores = torch.arange(count, 0, -1, dtype=torch.float32)
    assert kept.nonzero()[:, 0].tolist() == sorted(there[nms(boxes[there], scores[there], threshold)].tolist())


def test_features_of_a_box_are_those_that_torchvision_pools_from_the_level_of_its_size():
    torch.manual_seed(0)
    levels = [torch.randn(2, 3, 256 // step, 192 // step) for step in (4, 8, 16, 32)]
    low = torch.rand(2, 40, 2) * torch.tensor([150.0, 200.0])
    boxes = torch.cat([low, torch.minimum(low + torch.rand(2, 40, 2) ** 3 * 256, torch.tensor([192.0, 256.0]))], dim=2)
    boxes[0, :2] = torch.tensor([[0.0, 0.0, 192.0, 256.0], [180.0, 250.0, 192.0, 256.0]])
    names = [str(n) for n in range(4)]
    theirs = MultiScaleRoIAlign(names, 7, 2)(dict(zip(names, levels, strict=True)), list(boxes), [(256, 192)] * 2)
    assert_allclose(mask_rcnn.roi_features(levels, boxes, 7), theirs, atol=1e-5)


def test_the_boxes_of_objects_reach_from_edge_to_edge_and_what_is_a_speck_is_none():
    numbers = torch.zeros(20, 30, dtype=torch.int32)
    numbers[3:9, 10:14], numbers[15, 20:22], numbers[12:20, 0:2] = 7, 8, 9
    found = mask_rcnn.torchvision_targets(numbers, enlarge=2)
    assert found["numbers"].tolist() == [7, 9]
    assert found["boxes"].tolist() == [[20, 6, 28, 18], [0, 24, 4, 40]]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_what_a_mask_should_be_is_what_is_pooled_of_the_whole_mask(seed):
    rng = np.random.default_rng(seed)
    numbers = torch.from_numpy(discs([(*rng.uniform(5, 40, 2), rng.uniform(3, 15)) for _ in range(3)], 48))
    low = rng.uniform(0, 30, (6, 2))
    boxes = torch.tensor(np.concatenate([low, low + rng.uniform(2, 18, (6, 2))], axis=1), dtype=torch.float32)
    own = torch.from_numpy(rng.integers(1, 4, 6))
    whole = (numbers == own[:, None, None]).float()[:, None]
    rois = torch.cat([torch.arange(6.0)[:, None], boxes], dim=1)
    assert_allclose(
        mask_rcnn.box_masks(numbers, own, boxes, 28), roi_align(whole, rois, 28, 1.0, 2, aligned=True)[:, 0], atol=1e-4
    )


def test_a_mask_is_rendered_where_it_was_looked_at():
    numbers = torch.from_numpy(discs([(20.5, 30.5, 9.0)]))
    truth = mask_rcnn.torchvision_targets(numbers)
    masks = mask_rcnn.box_masks(numbers, truth["numbers"], truth["boxes"], 28)
    rendered = mask_rcnn.paste_masks(masks[None], truth["boxes"][None], (SIDE, SIDE))[0, 0] > 0.5
    assert_array_equal(rendered.numpy(), numbers.numpy() > 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_what_was_rendered_is_parted_again_into_the_same_discs_however_they_touch_and_overlap(seed):
    rng, places = np.random.default_rng(seed), []
    for _ in range(60):
        row, column, radius = *rng.uniform(0, SIDE, 2), rng.uniform(4, 12)
        if all(np.hypot(row - r, column - c) > 0.75 * (radius + other) for r, c, other in places):
            places.append((row, column, radius))
    numbers = discs(places)
    depth, holds = (one[0].numpy() for one in mask_rcnn.owner_depths(torch.from_numpy(numbers).long()[None]))
    found = ObjectDecoder(0.5, 0.2)(holds.astype(np.float32), depth)
    assert_array_equal(found > 0, holds)
    assert (holds | (numbers == 0)).mean() > 0.99  # strips between others that are all border
    whole = [number for number in np.unique(numbers[holds]) if _has_one_inside(numbers, depth, number)]
    for number in whole:
        own = holds & (numbers == number)
        assert len(np.unique(found[own])) == 1
        assert not (found[~own] == found[own][0]).any()
    assert len(whole) > 0.8 * len(places)


def _has_one_inside(numbers: np.ndarray, depth: np.ndarray, number: int) -> bool:
    """Whether others leave of an object one piece that touches none of them."""
    return ndimage.label((numbers == number) & (depth > 0))[1] == 1


def test_a_voxel_of_two_objects_is_the_surer_ones_and_no_voxel_is_surer_than_its_object():
    masks = torch.ones(1, 2, 28, 28)
    boxes, scores = torch.tensor([[[10.0, 10, 30, 30], [24.0, 10, 50, 30]]]), torch.tensor([[0.9, 0.4]])
    logit, depth = mask_rcnn.render_objects(masks, boxes, scores, (40, 60))[0][0]
    inside = logit.sigmoid()
    assert inside[20, 20] == pytest.approx(0.9, abs=1e-4)
    assert inside[20, 27] == pytest.approx(0.9, abs=1e-4)
    assert inside[20, 40] == pytest.approx(0.4, abs=1e-4)
    assert inside[5, 5] == pytest.approx(0.01, abs=1e-4)
    maps = inside.numpy(), depth.numpy()
    assert [ObjectDecoder(least, 0.2)(*maps).max() for least in (0.3, 0.5)] == [2, 1]


def test_a_second_sight_of_an_object_is_none_and_half_a_one_beside_it_is():
    masks, scores = torch.ones(1, 2, 28, 28), torch.tensor([[0.9, 0.8]])
    for second, count in ((14.0, 1), (24.0, 2)):  # 4 and 14 voxels of 20 are left of it
        boxes = torch.tensor([[[10.0, 10, 30, 30], [second, 10, second + 20, 30]]])
        logit, depth = mask_rcnn.render_objects(masks, boxes, scores, (40, 60))[0][0]
        assert ObjectDecoder(0.5, 0.2)(logit.sigmoid().numpy(), depth.numpy()).max() == count


def test_weights_of_torchvisions_network_fit_but_for_the_classes(tmp_path):
    theirs = Torchvisions(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 91)
    save_file(theirs.state_dict(), tmp_path / "coco.safetensors")
    size = {"body": "resnet18", "inside": 256, "hidden": 1024, "outline": [256] * 4}
    own = factory.build("mask_rcnn", 1, 2, TASK.heads, size)
    said = factory.load_pretrained(own, "mask_rcnn", size, tmp_path / "coco.safetensors").words
    assert "the first convolution adapted from 3 to 1 channels" in said
    names = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    fresh = [f"roi_heads.{name}.{kind}" for name in names for kind in ("weight", "bias")]
    assert said.endswith(f"fresh: {', '.join(fresh)}")
    assert torch.equal(own.roi_heads.mask_head[3][0].weight, theirs.roi_heads.mask_head[3][0].weight)
    assert factory.family_of("mask_rcnn").published is not None


def test_volumes_and_heads_that_are_no_objects_are_refused_by_name():
    with pytest.raises(PlanError, match="unet does so in volumes"):
        factory.build("mask_rcnn", 1, 3, TASK.heads, SMALL)
    with pytest.raises(PlanError, match="segments instances only"):
        factory.build("mask_rcnn", 1, 2, {"mask": Dense(2)}, SMALL)
    with pytest.raises(PlanError, match="cannot be"):
        built(body="transformer")


def test_the_plan_makes_anchors_of_the_size_of_the_objects_and_enlarges_small_ones():
    sizes = {unit: mask_rcnn.settings_for_unit(unit)[0] for unit in (3.0, 5.0, 12.0)}
    assert [one["enlarge"] for one in sizes.values()] == [2, 2, 1]
    assert [one["anchor"] for one in sizes.values()] == [6.0, 10.0, 12.0]
    size, because, _ = factory.size_for("mask_rcnn", (128, 128), [], "cpu", TASK.heads)
    assert size["anchor"] == 6.0
    assert "objects about 12 voxels across" in because


def test_memory_is_counted_before_anything_runs():
    architecture = {"name": "mask_rcnn", "channels": 1, "spatial_dims": 2, "size": SMALL, "context": None}
    machine = Machine("cpu", 1, 8.0, 8.0, False)
    small, large = (
        training_memory.predict_peak(
            TASK, {**architecture, "size": {**SMALL, "samples": n}}, (SIDE, SIDE), 2, machine, half=False
        ).kept
        for n in (32, 512)
    )
    assert 0 < small < large
    assert predicted_memory._alive(built().eval(), (1, 1, SIDE, SIDE))
    assert built().eval()(torch.zeros(1, 1, 48, 80))[HEAD].shape == (1, 2, 48, 80)
    assert OF_A_BOX == 7
