"""timm's vision transformers: their settings by the shapes of their weights, and timm's own conversion of weights."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter.networks.layouts.layout import count_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

KERNEL, POSITIONS = "patch_embed.proj.weight", "pos_embed"
# Features of a head of attention; ViT-H and ViT-g have other numbers of heads.
HEAD, HEADS = 64, {1280: 16, 1536: 24}


def vit_size(weights: Mapping[str, Any], model: str, before: int = 1) -> dict[str, Any]:
    """The settings of `timm` for weights by timm's names.

    model:  timm's name of a network of this kind, whose other settings hold
    before: positions that are not those of patches
    """
    kernel, width = weights[KERNEL], int(weights[KERNEL].shape[0])
    side = math.isqrt(int(weights[POSITIONS].shape[1]) - before) if POSITIONS in weights else 0
    patch = int(kernel.shape[-1])
    settings: dict[str, Any] = {
        "patch_size": patch,
        "embed_dim": width,
        "depth": count_of(weights, "blocks."),
        "num_heads": HEADS.get(width, max(1, width // HEAD)),
        "dynamic_img_size": True,
        "dynamic_img_pad": True,
    }
    if side:
        settings["img_size"] = side * patch
    if "blocks.0.mlp.fc1.weight" in weights:
        settings["mlp_ratio"] = weights["blocks.0.mlp.fc1.weight"].shape[0] / width
    return {"model": model, "settings": settings}


def converted(weights: Mapping[str, Any], network: Module) -> Mapping[str, Tensor]:
    """The weights by timm's names, by timm's own function where the network is one of timm's transformers."""
    theirs = importlib.import_module("timm.models.vision_transformer")  # loads torch, and is seldom needed
    bodies = [one for one in network.modules() if isinstance(one, theirs.VisionTransformer)]
    copied = dict(weights)  # timm's function takes away what it has converted
    return theirs.checkpoint_filter_fn(copied, bodies[0]) if bodies else copied
