from __future__ import annotations

import socket

import pytest
import timm
import torch

from hilum.networks import factory, network_parts, transformer_blocks, vit
from hilum.values import Vector

torch.set_num_threads(1)


def backbone(**size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build("timm", 2, 2, {"class": Vector(3)}, size).eval()


def test_building_a_backbone_opens_no_connection(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert backbone(model="resnet10t")(torch.randn(1, 2, 64, 64))["class"].shape == (1, 3)


# A plain one, one whose head is wider than its features, one without convolutions.
@pytest.mark.parametrize(
    ("model", "settings"),
    [("resnet10t", {}), ("mobilenetv3_small_050", {}), ("vit_tiny_patch16_224", {"img_size": 64})],
)
def test_the_answer_is_a_linear_layer_on_what_timm_pools(model, settings):
    network = backbone(model=model, settings=settings)
    theirs = timm.create_model(model, in_chans=2, num_classes=0, **settings).eval()
    theirs.load_state_dict(network.body.state_dict())
    images = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images)["class"], network.vectors["class"](theirs(images)))


# Maps with channels first, and with channels last.
@pytest.mark.parametrize(
    ("model", "settings"), [("resnet10t", {}), ("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": [1, 1]})]
)
@torch.no_grad()
def test_the_deepest_map_has_its_channels_first_and_its_mean_is_what_is_pooled(model, settings):
    network, images = backbone(model=model, settings=settings), torch.randn(2, 2, 64, 64)
    family = factory.family_of("timm")
    seen = network_parts.compute_features(network, images, at=family.grid_features)
    assert seen.deepest.shape[2] == seen.deepest.shape[3] > 1
    torch.testing.assert_close(seen.pooled, network_parts.compute_features(network, images, at=family.features).pooled)


def test_small_images_are_enlarged_first():
    small, large = backbone(model="resnet10t", enlarge=3), backbone(model="resnet10t")
    large.load_state_dict(small.state_dict())
    flat = torch.full((1, 2, 32, 32), 0.7)  # an even image is even at any size
    torch.testing.assert_close(small(flat)["class"], large(torch.full((1, 2, 96, 96), 0.7))["class"])
    size, because, _ = factory.size_for("timm", (28, 28), [[1, 1]], "cpu")
    assert size["enlarge"] == 4
    assert "enlarged 4 times" in because


SMALL_VIT = {"img_size": 48, "depth": 2, "embed_dim": 48, "num_heads": 3}


def rolled(network: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, transformer_blocks.AttendedOutputs]:
    family = factory.family_of("timm")
    assert transformer_blocks.without_rollout(network, family.attention) == ""
    seen = transformer_blocks.compute_attention(network, images, at=family.attention)
    return vit.attention_rollout(torch.stack(list(seen.weights), dim=1)), seen


# A class token; a mean over the patches, with the position in the attention itself; a distilled one; rotary positions.
@pytest.mark.parametrize(
    ("model", "settings", "prefix"),
    [
        ("vit_tiny_patch16_224", SMALL_VIT, 1),
        ("vit_base_patch16_224_miil", SMALL_VIT | {"global_pool": "avg", "reg_tokens": 2}, 3),
        ("vit_base_patch16_224", SMALL_VIT | {"dynamic_img_size": True, "dynamic_img_pad": True}, 1),
        ("deit_tiny_distilled_patch16_224", SMALL_VIT, 2),
        ("vit_relpos_small_patch16_224", SMALL_VIT, 0),
        ("beit_base_patch16_224", SMALL_VIT, 1),
        ("eva02_tiny_patch14_224", SMALL_VIT | {"patch_size": 16}, 1),
    ],
)
@torch.no_grad()
def test_the_attention_of_timms_transformers_is_shares_of_all_patches_and_their_answers_stay(model, settings, prefix):
    network, images = backbone(model=model, settings=settings), torch.randn(2, 2, 48, 48)
    before = network(images)["class"]
    flow, seen = rolled(network, images)
    assert flow.shape == (2, 9 + prefix, 9 + prefix)
    for shares in (flow, *seen.weights):
        torch.testing.assert_close(shares.sum(dim=-1), torch.ones(shares.shape[:-1]))
    torch.testing.assert_close(seen.outputs["class"], before)
    assert torch.equal(network(images)["class"], before)  # and no weights are computed any more
    rollout = seen.spread_rollout(flow)
    assert rollout.shape == (2, 1, 48, 48)
    by_mean = network.body.global_pool == "avg"
    pooled = flow[:, prefix:] if by_mean else flow[:, : max(1, prefix if "distilled" in model else 1)]
    torch.testing.assert_close(rollout.sum(dim=(1, 2, 3)), pooled[:, :, prefix:].sum(dim=2).mean(dim=1))


def test_the_rollout_of_timms_transformer_is_that_of_ours_with_its_weights(tmp_path):
    network, images = backbone(model="vit_tiny_patch16_224", settings=SMALL_VIT), torch.randn(2, 2, 48, 48)
    torch.save(network.body.state_dict(), tmp_path / "weights.pt")
    size = {"token": 16, "image": [48, 48], "layers": 2, "width": 48, "heads": 3}
    ours = factory.build("vit", 2, 2, {"class": Vector(3)}, size).eval()
    factory.load_pretrained(ours, "vit", size, tmp_path / "weights.pt")
    flow, seen = rolled(network, images)
    torch.testing.assert_close(seen.spread_rollout(flow), ours.attention_rollout(images), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("enlarge", [1, 2])
@torch.no_grad()
def test_a_key_that_every_query_asks_for_has_the_mass_where_its_patch_lies(enlarge):
    network = backbone(model="vit_tiny_patch16_224", enlarge=enlarge, settings=SMALL_VIT | {"depth": 1})
    body, [block] = network.body, network.body.blocks
    for part in (body.cls_token, body.pos_embed, body.patch_embed.proj.weight, *block.attn.qkv.parameters()):
        part.zero_()
    body.patch_embed.proj.weight[0] = 1.0  # a bright patch differs from the others, and so does its key
    query, key = block.attn.qkv.bias[:48], block.attn.qkv.weight[48:96]
    query.fill_(3.0)
    key[:, 0] = 3.0
    images, side = torch.zeros(1, 2, 48 // enlarge, 48 // enlarge), 16 // enlarge
    images[:, :, side + 2 : 2 * side - 2, 2 * side + 2 : -2] = 1.0
    flow, seen = rolled(network, images)
    rollout = seen.spread_rollout(flow)
    # The other half of what the class token has is its own, by the shortcut.
    assert float(rollout[:, :, side : 2 * side, 2 * side :].sum()) == pytest.approx(0.5, abs=0.01)
    assert float(rollout.sum()) <= 0.5001


def test_gradients_reach_the_attention_of_timms_transformers():
    network, images = backbone(model="vit_tiny_patch16_224", settings=SMALL_VIT), torch.randn(1, 2, 48, 48)
    _, seen = rolled(network, images.requires_grad_())
    slopes = torch.autograd.grad(seen.outputs["class"][:, 0].sum(), list(seen.weights))
    assert all(one.shape == (1, 3, 10, 10) and one.abs().sum() > 0 for one in slopes)


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        ("resnet10t", {}, "is not computed by attention"),
        ("vit_base_patch16_siglip_224", SMALL_VIT, "pooled by 'map'"),
        ("vit_tiny_patch16_224", SMALL_VIT | {"attn_layer": "diff"}, "other attention than one softmax"),
    ],
)
def test_a_backbone_whose_attention_cannot_be_rolled_out_says_why(model, settings, reason):
    family = factory.family_of("timm")
    assert reason in transformer_blocks.without_rollout(backbone(model=model, settings=settings), family.attention)
