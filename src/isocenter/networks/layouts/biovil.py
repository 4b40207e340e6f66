"""BioViL's and BioViL-T's ResNet, of chest radiographs and their reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.networks.layouts.layout import Content, Layout, without_prefix
from isocenter.networks.layouts.torchvision_resnet import is_resnet, resnet_size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

PREFIX = "encoder.encoder."


def renamed(content: Content, network: Module | None = None) -> dict[str, Tensor]:
    """The tensors of the image encoder by torchvision's names."""
    return without_prefix(content, PREFIX)


LAYOUT = Layout(
    "biovil",
    "BioViL and BioViL-T: the ResNet of chest radiographs and reports",
    lambda content: is_resnet(renamed(content)),
    renamed,
    "timm",
    2,
    lambda content: resnet_size(renamed(content)),
    "MIT",
    "MIT, for research; trained on MIMIC-CXR, whose terms apply",
    "Boecking et al., ECCV 2022, arXiv:2204.09817; Bannur et al., CVPR 2023, arXiv:2301.04558",
    "features equal those of torchvision's network under these names",
)
