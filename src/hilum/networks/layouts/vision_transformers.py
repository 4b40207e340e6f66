"""Layouts of vision transformers: DINOv2's, masked autoencoders' and OpenCLIP's, by timm's names.

Settings follow from the shapes of weights; timm's own function converts them. OpenCLIP's may be a ResNet too.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from hilum.networks.layouts import resnets, weight_layout
from hilum.networks.layouts.weight_layout import Content, WeightLayout
from hilum.networks.network_family import SizeValue

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


KERNEL = "patch_embed.proj.weight"
POSITIONS = "pos_embed"
# Features of a head of attention; ViT-H and ViT-g have other numbers of heads.
HEAD = 64
HEADS = {1280: 16, 1536: 24}


def vit_size(weights: Content, model: str, before: int = 1) -> dict[str, SizeValue]:
    """The settings of `timm` for weights by timm's names.

    model:  timm's name of a network of this kind, whose other settings hold
    before: positions that are not those of patches
    """
    kernel = weights[KERNEL]
    width = int(weights[KERNEL].shape[0])
    side = math.isqrt(int(weights[POSITIONS].shape[1]) - before) if POSITIONS in weights else 0
    patch = int(kernel.shape[-1])
    settings: dict[str, SizeValue] = {
        "patch_size": patch,
        "embed_dim": width,
        "depth": weight_layout.count_parts(weights, "blocks."),
        "num_heads": HEADS.get(width, max(1, width // HEAD)),
        "dynamic_img_size": True,
        "dynamic_img_pad": True,
    }
    if side:
        settings["img_size"] = side * patch
    if "blocks.0.mlp.fc1.weight" in weights:
        settings["mlp_ratio"] = weights["blocks.0.mlp.fc1.weight"].shape[0] / width
    return {"model": model, "settings": settings}


def convert_to_timm(weights: Content, network: Module) -> Mapping[str, Tensor]:
    """The weights by timm's names, by timm's own function where the network is one of timm's transformers."""
    theirs = importlib.import_module("timm.models.vision_transformer")  # loads torch, and is seldom needed
    bodies = [one for one in network.modules() if isinstance(one, theirs.VisionTransformer)]
    copied = dict(weights)  # timm's function takes away what it has converted
    return theirs.checkpoint_filter_fn(copied, bodies[0]) if bodies else copied


# The largest has other layers, which the shapes that are looked at do not show.
GIANT = "blocks.0.mlp.w12.weight"


def convert_dinov2(content: Content, network: Module) -> Mapping[str, Tensor]:
    """The tensors by timm's names; positions as the network has them."""
    return convert_to_timm(content, network)


def dinov2_size(content: Content) -> dict[str, SizeValue]:
    """The settings of timm's transformer."""
    registers = content["register_tokens"].shape[1] if "register_tokens" in content else 0
    which = "giant" if GIANT in content else "small"
    model = f"vit_{which}_patch14_{'reg4_' if registers else ''}dinov2"
    settings = vit_size(content, model)
    own = cast("Mapping[str, SizeValue]", settings["settings"])
    return {**settings, "settings": {**own, **({"reg_tokens": registers} if registers else {})}}


DINOV2 = WeightLayout(
    "dinov2",
    "DINOv2: vision transformers of natural images without labels, and networks trained further by its program",
    lambda content: {"mask_token", "pos_embed", "blocks.0.ls1.gamma"} <= set(content),
    convert_dinov2,
    "timm",
    2,
    dinov2_size,
    "Apache-2.0",
    "Apache-2.0",
    "Oquab et al., TMLR 2024, arXiv:2304.07193; with registers Darcet et al., ICLR 2024, arXiv:2309.16588",
    "features equal those of timm's transformer under these names",
)


def mae_encoder(content: Content) -> dict[str, Tensor]:
    """The tensors of the encoder alone."""
    return {name: value for name, value in content.items() if not name.startswith("decoder_") and name != "mask_token"}


def convert_mae(content: Content, network: Module) -> Mapping[str, Tensor]:
    """The tensors of the encoder by timm's names."""
    return convert_to_timm(mae_encoder(content), network)


MAE = WeightLayout(
    "mae",
    "MAE: vision transformers that restored masked images",
    lambda content: {"mask_token", "pos_embed", "decoder_embed.weight", "blocks.0.norm1.weight"} <= set(content),
    convert_mae,
    "timm",
    2,
    lambda content: vit_size(mae_encoder(content), "vit_base_patch16_224"),
    "CC-BY-NC-4.0",
    "CC-BY-NC-4.0: not for commercial use",
    "He et al., CVPR 2022, arXiv:2111.06377",
    "features equal those of timm's transformer under these names",
)

OPENCLIP_PREFIX = "visual.trunk."


def convert_openclip(content: Content, network: Module) -> Mapping[str, Tensor]:
    """The tensors of the image encoder by timm's names."""
    return convert_to_timm(weight_layout.without_prefix(content, OPENCLIP_PREFIX), network)


def openclip_size(content: Content) -> dict[str, SizeValue] | None:
    """The settings of a transformer or a ResNet; other networks of timm do not show their name."""
    weights = weight_layout.without_prefix(content, OPENCLIP_PREFIX)
    if KERNEL in weights and "blocks.0.norm1.weight" in weights:
        return vit_size(weights, "vit_base_patch16_224")
    return resnets.resnet_size(weights) if resnets.is_resnet(weights) else None


OPENCLIP = WeightLayout(
    "openclip",
    "OpenCLIP and BiomedCLIP: image encoders that are networks of timm",
    lambda content: any(name.startswith(OPENCLIP_PREFIX) for name in content),
    convert_openclip,
    "timm",
    2,
    openclip_size,
    "MIT",
    "as its authors state; of BiomedCLIP MIT, for research",
    "Ilharco et al., doi:10.5281/zenodo.5143773; BiomedCLIP: Zhang et al., arXiv:2303.00915",
    "features equal those of timm's transformer under these names",
)
