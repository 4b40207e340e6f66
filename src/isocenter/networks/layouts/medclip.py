"""MedCLIP's ResNet, of chest radiographs and their reports, which lies among the weights of its text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.networks.layouts.layout import Content, Layout, without_prefix
from isocenter.networks.layouts.torchvision_resnet import is_resnet, resnet_size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

PREFIX = "vision_model.model."


def renamed(content: Content, network: Module | None = None) -> dict[str, Tensor]:
    """The tensors of the image encoder by torchvision's names."""
    return without_prefix(content, PREFIX)


LAYOUT = Layout(
    "medclip",
    "MedCLIP: the ResNet of chest radiographs and reports",
    lambda content: is_resnet(renamed(content)),
    renamed,
    "timm",
    2,
    lambda content: resnet_size(renamed(content)),
    "not verified: see its repository",
    "not verified; trained on MIMIC-CXR and CheXpert, whose terms apply",
    "Wang et al., EMNLP 2022, arXiv:2210.10163",
    "features equal those of torchvision's network under these names",
)
