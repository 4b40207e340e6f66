"""Our SAM beside segment-anything 1.0, with the same random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from segment_anything import sam_model_registry
from torch import Tensor
from torch.nn.functional import interpolate

from hilum.errors import UsageError
from hilum.networks import factory
from hilum.networks.layouts import sam_weights, weight_layout
from hilum.networks.weight_loading import FRESH
from hilum.values import Dense
from sam_models import FEATURES, SIDE, WIDTH, adapter_of, small_sam

torch.set_num_threads(1)
HEADS = {"mask": Dense(2)}


def ours(content: Mapping[str, Tensor], heads: int = 2, **size: Any) -> Any:
    """Our network with these weights."""
    settings = {**sam_weights.sam_size(content), **size}
    network = factory.build("sam", 3, 2, {"mask": Dense(heads)}, settings)
    network.load_state_dict(sam_weights.convert_sam(content))
    return network.eval()


@torch.inference_mode()
def test_encoded_images_and_masks_of_points_and_boxes_are_those_of_segment_anything():
    theirs = small_sam()
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    points, kinds = torch.tensor([[[30.0, 40.0], [60.0, 70.0]]]), torch.tensor([[1, 0]])
    box = torch.tensor([[10.0, 20.0, 70.0, 90.0]])
    expected = theirs.image_encoder(images)
    asked = {  # what is given there, and here: a point without a box has one more, which is none
        "points": ((points, kinds), None, [[30, 40, 1], [60, 70, 0], [0, 0, -1], [0, 0, -2]]),
        "box": (None, box, [[10, 20, 2], [70, 90, 3]]),
        "both": ((points, kinds), box, [[30, 40, 1], [60, 70, 0], [10, 20, 2], [70, 90, 3]]),
    }
    for choose in ("first", "best"):
        network = ours(theirs.state_dict(), choose=choose)
        encoded = network.encode(images)
        assert (encoded.features - expected).abs().max() <= 1e-4 * expected.abs().max()
        for given, frame, context in asked.values():
            sparse, dense = theirs.prompt_encoder(given, frame, None)
            masks, overlaps = theirs.mask_decoder(
                image_embeddings=expected,
                image_pe=theirs.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=choose == "best",
            )
            best = masks[:, [int(overlaps.argmax())]]
            enlarged = interpolate(best, (SIDE, SIDE), mode="bilinear", align_corners=False)
            found = network.answer(encoded, torch.tensor([[context]], dtype=torch.float32))["mask"]
            assert (found - enlarged).abs().max() <= 1e-4 * (enlarged.max() - enlarged.min())


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "blocks"),
    [
        ("vit_b", 768, 12, 12, [2, 5, 8, 11]),
        ("vit_l", 1024, 24, 16, [5, 11, 17, 23]),
        ("vit_h", 1280, 32, 16, [7, 15, 23, 31]),
    ],
)
def test_the_size_of_each_published_model_is_read_off_its_shapes(name, width, depth, heads, blocks):
    with torch.device("meta"):
        weights = sam_model_registry[name]().state_dict()
        size = sam_weights.sam_size(weights)
        expected = {"width": width, "depth": depth, "heads": heads, "global_blocks": blocks}
        expected |= {"window": 14, "image": 1024, "patch": 16}
        assert {key: size[key] for key in expected} == expected
        network = factory.build("sam", 3, 2, HEADS, size)
    assert weight_layout.recognise_layout(weights) is sam_weights.SAM
    converted = sam_weights.convert_sam(weights)
    assert {name: one.shape for name, one in network.state_dict().items()} == {
        name: one.shape for name, one in converted.items()
    }


def test_an_adapter_adds_products_of_low_rank_to_queries_and_values_alone():
    base, adapter = small_sam().state_dict(), adapter_of(small_sam(2, masks=4))
    merged = sam_weights.with_adapter(base, adapter, SIDE, "adapter")
    for block in range(3):
        name = f"image_encoder.blocks.{block}.attn.qkv.weight"
        query, value = (adapter[f"w_b_{n:03d}"] @ adapter[f"w_a_{n:03d}"] for n in (2 * block, 2 * block + 1))
        change = torch.cat([query, torch.zeros(WIDTH, WIDTH), value])
        assert torch.allclose(merged[name], base[name] + change, atol=1e-6)
    assert torch.equal(merged["mask_decoder.mask_tokens.weight"], adapter["mask_decoder.mask_tokens.weight"])
    assert "w_a_000" not in merged
    assert torch.equal(base["image_encoder.pos_embed"], merged["image_encoder.pos_embed"])


@torch.inference_mode()
def test_at_another_size_the_positions_are_interpolated_and_every_mask_is_that_of_segment_anything():
    side = SIDE // 2
    theirs, adapter = small_sam(3, side, masks=4), adapter_of(small_sam(2, side, masks=4))
    merged = sam_weights.with_adapter(small_sam().state_dict(), adapter, side, "adapter")
    assert merged["image_encoder.pos_embed"].shape == (1, 4, 4, WIDTH)
    assert merged["image_encoder.blocks.2.attn.rel_pos_h"].shape == (7, WIDTH // 3)
    assert torch.equal(
        merged["image_encoder.blocks.0.attn.rel_pos_h"],
        small_sam().state_dict()["image_encoder.blocks.0.attn.rel_pos_h"],
    )
    theirs.load_state_dict(merged)
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    sparse, dense = theirs.prompt_encoder(None, None, None)
    masks, _ = theirs.mask_decoder.predict_masks(
        theirs.image_encoder(images), theirs.prompt_encoder.get_dense_pe(), sparse, dense
    )
    enlarged = interpolate(masks, (side, side), mode="bilinear", align_corners=False)
    found = ours(merged, heads=5)(images)["mask"]
    assert (found - enlarged).abs().max() <= 1e-4 * enlarged.abs().max()


def test_an_adapter_to_another_size_is_refused():
    base, adapter = small_sam().state_dict(), adapter_of(small_sam(2))
    fewer = {name: one for name, one in adapter.items() if name not in ("w_a_005", "w_b_005", "w_a_004", "w_b_004")}
    narrow = {name: one[:, :40] if name.startswith("w_a") else one for name, one in adapter.items()}
    for wrong, words in ((fewer, "2 blocks"), (narrow, "of 40"), (base, "no adapter")):
        with pytest.raises(UsageError, match=words):
            sam_weights.with_adapter(base, wrong, SIDE, "adapter")


@torch.inference_mode()
def test_a_volume_is_its_slices_and_a_grey_image_three_equal_channels():
    size = {"image": 32, "width": 24, "depth": 1, "heads": 2, "global_blocks": [], "features": 16, "feed_forward": 8}
    volume = factory.build("sam", 1, 3, {"mask": Dense(3), "edge": Dense(1)}, {**size, "axis": 1}).eval()
    picture = factory.build("sam", 3, 2, {"mask": Dense(3), "edge": Dense(1)}, size).eval()
    picture.load_state_dict(volume.state_dict())
    images = torch.randn(2, 1, 20, 3, 37)  # no multiples of a token
    outputs = volume(images)
    assert outputs["mask"].shape == (2, 3, 20, 3, 37) and outputs["edge"].shape == (2, 1, 20, 3, 37)
    of_slice = picture(images[:, :, :, 1].expand(-1, 3, -1, -1))
    assert all(torch.allclose(outputs[name][:, :, :, 1], of_slice[name], atol=1e-5) for name in outputs)


def test_a_training_on_volumes_begins_with_all_weights_of_a_model_of_pictures(tmp_path):
    torch.save(small_sam().state_dict(), tmp_path / "sam.pth")
    size = sam_weights.sam_size(small_sam().state_dict())
    network = factory.build("sam", 1, 3, {"mask": Dense(3)}, {**size, "axis": 2})
    loaded = factory.load_pretrained(network, "sam", size, tmp_path / "sam.pth")
    assert loaded.layout is sam_weights.SAM
    assert not [row.name for row in loaded.rows if row.how == FRESH]
    more = factory.build("sam", 1, 2, {"mask": Dense(6)}, size)  # more classes than SAM has masks: these begin anew
    fresh = [
        row.name for row in factory.load_pretrained(more, "sam", size, tmp_path / "sam.pth").rows if row.how == FRESH
    ]
    assert {name.split(".")[1] for name in fresh} == {
        "mask_tokens",
        "output_hypernetworks_mlps",
        "iou_prediction_head",
    }
    assert more.mask_decoder.mask_tokens.weight.shape == (6, FEATURES)


def test_classes_are_learnt_without_a_prompt_and_prompts_move_the_other_weights():
    torch.manual_seed(0)
    size = {"image": 32, "patch": 8, "width": 32, "depth": 2, "heads": 2, "global_blocks": [1], "features": 32}
    network = factory.build("sam", 1, 2, HEADS, {**size, "feed_forward": 32, "tokens": 4})
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    target = torch.stack([((y - cy) ** 2 + (x - cx) ** 2 < 49).long() for cy, cx in ((8, 9), (22, 20))])
    images, losses = target[:, None].float() + 0.1 * torch.randn(2, 1, 32, 32), []
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(network(images)["mask"], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    optimiser.zero_grad()
    context = torch.tensor([[[[8.0, 9, 1], [20, 3, 0], [0, 0, -1]], [[2, 2, 2], [15, 16, 3], [0, 0, -2]]]])
    network(images, context)["mask"].square().mean().backward()
    moved = {name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert {name for name, _ in network.prompt_encoder.named_parameters(prefix="prompt_encoder")} <= moved
