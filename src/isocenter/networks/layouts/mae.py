"""Masked autoencoders: vision transformers, of whose weights the decoder is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter.networks.layouts.layout import Content, Layout
from isocenter.networks.layouts.timm_vit import converted, vit_size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def encoder(content: Content) -> dict[str, Any]:
    """The tensors of the encoder alone."""
    return {name: value for name, value in content.items() if not name.startswith("decoder_") and name != "mask_token"}


def renamed(content: Content, network: Module) -> Mapping[str, Tensor]:
    """The tensors of the encoder by timm's names."""
    return converted(encoder(content), network)


LAYOUT = Layout(
    "mae",
    "MAE: vision transformers that restored masked images",
    lambda content: {"mask_token", "pos_embed", "decoder_embed.weight", "blocks.0.norm1.weight"} <= set(content),
    renamed,
    "timm",
    2,
    lambda content: vit_size(encoder(content), "vit_base_patch16_224"),
    "CC-BY-NC-4.0",
    "CC-BY-NC-4.0: not for commercial use",
    "He et al., CVPR 2022, arXiv:2111.06377",
    "features equal those of timm's transformer under these names",
)
