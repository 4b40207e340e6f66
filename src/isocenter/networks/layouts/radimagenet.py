"""RadImageNet's ResNets from 1.35 million radiological images: a torchvision network as a sequence of parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.networks.layouts.layout import Content, Layout, without_prefix
from isocenter.networks.layouts.torchvision_resnet import is_resnet, resnet_size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# Number of a part in the sequence: torchvision's name.
PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def renamed(content: Content, network: Module | None = None) -> dict[str, Tensor]:
    """The tensors by torchvision's names."""
    parts = {name.partition("."): value for name, value in without_prefix(content, "backbone.").items()}
    return {f"{PARTS[part]}.{rest}": value for (part, _, rest), value in parts.items() if part in PARTS}


LAYOUT = Layout(
    "radimagenet",
    "RadImageNet: ResNets of radiological images",
    lambda content: is_resnet(renamed(content)),
    renamed,
    "timm",
    2,
    lambda content: resnet_size(renamed(content)),
    "MIT",
    "MIT",
    "Mei et al., Radiology: Artificial Intelligence 2022, doi:10.1148/ryai.210315",
    "features equal those of torchvision's network under these names",
)
