"""DINOv2's vision transformers, with and without registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter.networks.layouts.layout import Content, Layout
from isocenter.networks.layouts.timm_vit import converted, vit_size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# The largest has other layers, which the shapes that are looked at do not show.
GIANT = "blocks.0.mlp.w12.weight"


def renamed(content: Content, network: Module) -> Mapping[str, Tensor]:
    """The tensors by timm's names; positions as the network has them."""
    return converted(content, network)


def size(content: Content) -> dict[str, Any]:
    """The settings of timm's transformer."""
    registers = content["register_tokens"].shape[1] if "register_tokens" in content else 0
    which = "giant" if GIANT in content else "small"
    model = f"vit_{which}_patch14_{'reg4_' if registers else ''}dinov2"
    settings = vit_size(content, model)
    return {**settings, "settings": {**settings["settings"], **({"reg_tokens": registers} if registers else {})}}


LAYOUT = Layout(
    "dinov2",
    "DINOv2: vision transformers of natural images without labels, and networks trained further by its program",
    lambda content: {"mask_token", "pos_embed", "blocks.0.ls1.gamma"} <= set(content),
    renamed,
    "timm",
    2,
    size,
    "Apache-2.0",
    "Apache-2.0",
    "Oquab et al., TMLR 2024, arXiv:2304.07193; with registers Darcet et al., ICLR 2024, arXiv:2309.16588",
    "features equal those of timm's transformer under these names",
)
