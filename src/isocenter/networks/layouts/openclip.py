"""OpenCLIP's image encoders that are networks of timm, as that of BiomedCLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter.networks.layouts.layout import Content, Layout, without_prefix
from isocenter.networks.layouts.timm_vit import KERNEL, converted, vit_size
from isocenter.networks.layouts.torchvision_resnet import is_resnet, resnet_size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

PREFIX = "visual.trunk."


def renamed(content: Content, network: Module) -> Mapping[str, Tensor]:
    """The tensors of the image encoder by timm's names."""
    return converted(without_prefix(content, PREFIX), network)


def size(content: Content) -> dict[str, Any] | None:
    """The settings of a transformer or a ResNet; other networks of timm do not show their name."""
    weights = without_prefix(content, PREFIX)
    if KERNEL in weights and "blocks.0.norm1.weight" in weights:
        return vit_size(weights, "vit_base_patch16_224")
    return resnet_size(weights) if is_resnet(weights) else None


LAYOUT = Layout(
    "openclip",
    "OpenCLIP and BiomedCLIP: image encoders that are networks of timm",
    lambda content: any(name.startswith(PREFIX) for name in content),
    renamed,
    "timm",
    2,
    size,
    "MIT",
    "as its authors state; of BiomedCLIP MIT, for research",
    "Ilharco et al., doi:10.5281/zenodo.5143773; BiomedCLIP: Zhang et al., arXiv:2303.00915",
    "features equal those of timm's transformer under these names",
)
