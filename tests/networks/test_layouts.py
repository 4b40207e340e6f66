"""Files of other programs' weights, written under the names that these give them, with random numbers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from hilum.errors import IntegrityError, PlanError
from hilum.networks import factory, weight_loading
from hilum.networks.layouts import weight_layout
from hilum.networks.layouts.weight_layout import LAYOUTS
from hilum.values import Dense, Head, Vector
from matrices import thinned

torch.set_num_threads(1)

HEADS: dict[str, Head] = {"class": Vector(2)}
MASK: dict[str, Head] = {"mask": Dense(2)}
PARTS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
TINY = {"embed_dim": 64, "depth": 2, "num_heads": 1, "img_size": 32}
PLANNED: dict[str, Any] = {
    "features": [4, 8],
    "kernels": [[1, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2]],
    "decoder_convolutions": [1],
    "deep_supervision": 0,
}


def resnet() -> nn.Module:
    """torchvision's, of one block a stage, with running means that are not those of a fresh network."""
    torch.manual_seed(0)
    made = ResNet(Bottleneck, [1, 1, 1, 1])
    made.fc = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        made(torch.randn(2, 3, 32, 32))
    return made.eval()


def as_sequence(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """RadImageNet's names."""
    split = {name.partition("."): value for name, value in weights.items()}
    return {f"backbone.{PARTS[part]}.{rest}": value for (part, _, rest), value in split.items()}


def prefixed(prefix: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {f"{prefix}{name}": value for name, value in weights.items()}


def loaded(path: Path, size: Mapping[str, Any] | None = None) -> tuple[nn.Module, weight_loading.LoadedWeights]:
    """Our network of the size that the file shows, with the file's weights."""
    layout, content = weight_loading.known_layout(path) or pytest.fail("no layout fits")
    size = {**(layout.size(content) or pytest.fail("no size")), **(size or {})}
    ours = factory.build(layout.family, 3, 2, HEADS, size).eval()
    return ours, factory.load_pretrained(ours, layout.family, size, path, minimum=1.0, groups=of_head(ours))


def of_head(module: nn.Module) -> dict[str, str]:
    return {name: "head" if name.startswith("vectors") else "encoder" for name in module.state_dict()}


@pytest.mark.parametrize(
    ("name", "under"),
    thinned(
        1,
        [
            ("radimagenet", as_sequence),
            ("medclip", prefixed("vision_model.model.")),
            ("biovil", prefixed("encoder.encoder.")),
            ("openclip", prefixed("visual.trunk.")),
        ],
    ),
)
def test_a_resnet_under_the_names_of_a_program_has_the_features_of_torchvisions(tmp_path, name, under):
    theirs = resnet()
    others = {"text.transformer.weight": torch.ones(2, 2), "logit_scale": torch.ones(())}
    torch.save({**under(theirs.state_dict()), **others}, tmp_path / "weights.bin")
    ours, made = loaded(tmp_path / "weights.bin")
    assert made.layout is not None and made.layout.name == name
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.body(images), theirs(images), atol=1e-5, rtol=1e-5)
    rows = {row.name: row for row in made.rows}
    assert rows["body.conv1.weight"].source == next(iter(under({"conv1.weight": torch.ones(1)})))
    assert {row.how for row in made.rows if row.group == "encoder"} == {"copied"}
    assert rows["vectors.class.weight"].how == "fresh"


def test_radimagenets_weights_fit_volumes_by_name_where_the_family_is_one_of_torchvisions_resnets(tmp_path):
    torch.save(as_sequence(resnet().state_dict()), tmp_path / "ResNet50.pt")
    ours = factory.build("timm", 1, 2, HEADS, {"model": "resnet50", "settings": {"layers": [1, 1, 1, 1]}})
    made = factory.load_pretrained(ours, "timm", {}, tmp_path / "ResNet50.pt")
    assert {row.how for row in made.rows if row.name == "body.conv1.weight"} == {"channels"}


def vit(model: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    made = timm.create_model(model, pretrained=False, num_classes=0, **{**TINY, **more})
    return made.eval()


def as_dinov2(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"mask_token": torch.zeros(1, 64), **weights}


def as_registers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Facebook's: positions of the class token too, which timm has added to the token."""
    given = dict(weights)
    positions = torch.cat([torch.zeros(1, 1, 64), given.pop("pos_embed")], dim=1)
    return {
        "mask_token": torch.zeros(1, 64),
        "register_tokens": given.pop("reg_token"),
        "pos_embed": positions,
        **given,
    }


def as_mae(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    more = {"mask_token": torch.zeros(1, 1, 32), "decoder_embed.weight": torch.ones(32, 64)}
    return {"model": {**weights, **more, "decoder_blocks.0.norm1.weight": torch.ones(32)}}


VITS = [
    ("dinov2", "vit_small_patch14_dinov2", {"patch_size": 8}, as_dinov2),
    ("dinov2", "vit_small_patch14_reg4_dinov2", {"patch_size": 8}, as_registers),
    ("mae", "vit_base_patch16_224", {"patch_size": 8}, as_mae),
    ("openclip", "vit_base_patch16_224", {"patch_size": 8}, prefixed("visual.trunk.")),
]


@pytest.mark.parametrize(("name", "model", "more", "under"), VITS, ids=[f"{one[0]} {one[1]}" for one in VITS])
def test_a_transformer_under_the_names_of_a_program_has_the_features_of_timms(tmp_path, name, model, more, under):
    theirs = vit(model, **more)
    torch.save(under(theirs.state_dict()), tmp_path / "weights.pth")
    ours, made = loaded(tmp_path / "weights.pth")
    assert made.layout is not None and made.layout.name == name
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.body(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_positions_are_interpolated_by_timm_to_another_grid(tmp_path):
    torch.save(as_dinov2(vit("vit_small_patch14_dinov2", patch_size=8).state_dict()), tmp_path / "weights.pth")
    layout, content = weight_loading.known_layout(tmp_path / "weights.pth") or pytest.fail("no layout fits")
    size = layout.size(content) or {}
    size = {**size, "settings": {**size["settings"], "img_size": 48}}
    _, made = loaded(tmp_path / "weights.pth", size)
    [row] = [row for row in made.rows if row.name == "body.pos_embed"]
    assert (row.how, row.source, row.shape) == ("interpolated", "pos_embed", (1, 37, 64))


def on_our_axes(volumes: Tensor) -> Tensor:
    """(batch, channels, slice, row, column) with the axes in our order."""
    return volumes.permute(0, 1, 4, 3, 2)


def unet(family: str, seed: int, *, reverse: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    repeats = {"plain_conv_unet": {"convolutions": [1, 1]}, "residual_encoder_unet": {"blocks": [1, 1]}}[family]
    turned = {name: [one[::-1] for one in PLANNED[name]] for name in ("kernels", "strides")} if reverse else {}
    return factory.build(family, 1, 3, MASK, {**PLANNED, **turned, **repeats}).eval()


@pytest.mark.parametrize(
    ("name", "family"), [("nnunet", "plain_conv_unet"), ("nnunet_residual", "residual_encoder_unet")]
)
def test_the_shapes_of_nnunets_weights_show_the_size_of_its_network(tmp_path, name, family):
    theirs = unet(family, 0)
    repeated = {f"decoder.encoder.{key.removeprefix('encoder.')}": one for key, one in theirs.state_dict().items()}
    torch.save({"network_weights": {**theirs.state_dict(), **repeated}}, tmp_path / "checkpoint_final.pth")
    layout, content = weight_loading.known_layout(tmp_path / "checkpoint_final.pth") or pytest.fail("no layout fits")
    assert (layout.name, layout.family) == (name, family)
    size = layout.size(content) or {}
    ours = factory.build(family, 1, 3, MASK, size).eval()
    factory.load_pretrained(ours, family, size, tmp_path / "checkpoint_final.pth", minimum=1.0)
    images = torch.randn(1, 1, 4, 16, 16)
    with torch.no_grad():
        expected = on_our_axes(theirs(images)["mask"])
        torch.testing.assert_close(ours(on_our_axes(images))["mask"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_decoder", [True, False])
def test_nnssls_plan_says_where_encoder_and_stem_lie(tmp_path, with_decoder):
    theirs = unet("residual_encoder_unet", 0)
    moved = {}
    for key, value in theirs.state_dict().items():
        if key.startswith("encoder."):
            moved[key.replace("encoder.stages.", "net.levels.").replace("encoder.stem.", "net.first.")] = value
        elif with_decoder:
            moved[key] = value
    plan = {"key_to_encoder": "net.levels", "key_to_stem": "net.first", "pretrain_num_input_channels": 1}
    torch.save({"network_weights": moved, "nnssl_adaptation_plan": plan}, tmp_path / "checkpoint.pth")
    layout, content = weight_loading.known_layout(tmp_path / "checkpoint.pth") or pytest.fail("no layout fits")
    assert layout.name == "nnssl"
    size = layout.size(content) or {}
    assert size["features"] == [4, 8]
    ours = unet("residual_encoder_unet", 1, reverse=True)
    factory.load_pretrained(ours, "residual_encoder_unet", size, tmp_path / "checkpoint.pth")
    images = torch.randn(1, 1, 4, 16, 16)
    with torch.no_grad():
        for one, other in zip(ours.encoder(on_our_axes(images)), theirs.encoder(images), strict=True):
            torch.testing.assert_close(one, on_our_axes(other), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("dynamic_network_architectures") is None,
    reason="dynamic_network_architectures is not installed: nnU-Net's own modules are not compared",
)
def test_our_residual_encoder_has_the_names_and_features_of_nnunets_own(tmp_path):
    architectures = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    theirs = architectures.ResidualEncoderUNet(
        1, 2, [4, 8], nn.Conv3d, PLANNED["kernels"], PLANNED["strides"], [1, 1], 2, [1], True, nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True},
    ).eval()  # fmt: skip
    plan = {"key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stem"}
    torch.save({"network_weights": theirs.state_dict(), "nnssl_adaptation_plan": plan}, tmp_path / "weights.pth")
    ours = unet("residual_encoder_unet", 1, reverse=True)
    factory.load_pretrained(ours, "residual_encoder_unet", {}, tmp_path / "weights.pth", minimum=1.0)
    images = torch.randn(1, 1, 4, 16, 16)
    with torch.no_grad():
        for one, other in zip(ours.encoder(on_our_axes(images)), theirs.encoder(images), strict=True):
            torch.testing.assert_close(one, on_our_axes(other), atol=1e-5, rtol=1e-5)


def test_every_layout_states_its_licences_its_paper_and_a_family_of_ours():
    layouts = weight_layout.weight_layouts()
    assert [layout.name for layout in layouts] == [*LAYOUTS]
    assert all(layout.licence and layout.licence_of_weights and layout.proof for layout in layouts)
    assert all("arXiv" in layout.citation or "doi" in layout.citation for layout in layouts)
    assert {layout.family for layout in layouts} <= set(factory.family_names())


def test_weights_of_volumes_are_refused_for_a_network_of_pictures(tmp_path):
    size = {"blocks": [1, 1], "width": 4}
    volumes, pictures = (factory.build("resnet", 1, axes, HEADS, size) for axes in (3, 2))
    torch.save(volumes.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(PlanError, match="for images of 3 axes, and this network has 2"):
        factory.load_pretrained(pictures, "resnet", size, tmp_path / "weights.pt")


def test_a_file_that_is_cut_is_refused(tmp_path):
    torch.save(resnet().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    with pytest.raises(IntegrityError, match="holds no weights"):
        weight_loading.known_layout(tmp_path / "cut.pth")


def test_too_little_of_the_encoder_is_refused_with_what_lacks_and_what_was_not_used(tmp_path):
    small, large = ({"blocks": [1] * count, "width": 4} for count in (1, 3))
    torch.save(factory.build("resnet", 1, 2, HEADS, small).state_dict(), tmp_path / "weights.pt")
    ours = factory.build("resnet", 1, 2, HEADS, large)
    groups = of_head(ours)
    with pytest.raises(PlanError, match=r"only \d+ of the encoder's \d+ tensors.*lacking: body\..*not used: .*minimum"):
        factory.load_pretrained(ours, "resnet", large, tmp_path / "weights.pt", groups=groups, minimum=0.5)
    made = factory.load_pretrained(ours, "resnet", large, tmp_path / "weights.pt", groups=groups, minimum=0.1)
    assert sum(row.how == "copied" for row in made.rows) > 5
