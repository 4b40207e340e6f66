"""Layouts of ResNets: RadImageNet's, MedCLIP's and BioViL's, by torchvision's names, which timm's and ours have too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hilum.networks.layouts import weight_layout
from hilum.networks.layouts.weight_layout import Content, WeightLayout
from hilum.networks.network_family import SizeValue

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


# (content, network or None) to the tensors by torchvision's names.
Renaming = Callable[[Content, "Module | None"], dict[str, "Tensor"]]
STAGES = 4
# {(bottleneck, blocks of each stage): timm's name}
MODELS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


def is_resnet(weights: Content) -> bool:
    """Whether weights by torchvision's names are those of a ResNet."""
    return {"conv1.weight", "layer1.0.conv1.weight"} <= set(weights)


def resnet_size(weights: Content) -> dict[str, SizeValue]:
    """The settings of `timm` for weights by torchvision's names."""
    bottleneck = "layer1.0.conv3.weight" in weights
    blocks = tuple(weight_layout.count_parts(weights, f"layer{stage}.") for stage in range(1, STAGES + 1))
    if model := MODELS.get((bottleneck, blocks)):
        return {"model": model}
    return {"model": "resnet50" if bottleneck else "resnet18", "settings": {"layers": list(blocks)}}


# Number of a part in the sequence: torchvision's name.
PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def convert_radimagenet(content: Content, network: Module | None) -> dict[str, Tensor]:
    """The tensors by torchvision's names."""
    parts = {name.partition("."): value for name, value in weight_layout.without_prefix(content, "backbone.").items()}
    return {f"{PARTS[part]}.{rest}": value for (part, _, rest), value in parts.items() if part in PARTS}


def _under(prefix: str) -> Renaming:
    """The tensors of an image encoder, which has torchvision's names under this prefix."""

    def renamed(content: Content, network: Module | None) -> dict[str, Tensor]:
        return weight_layout.without_prefix(content, prefix)

    return renamed


def _layout(name: str, what: str, renamed: Renaming, licence: str, of_weights: str, citation: str) -> WeightLayout:
    """The layout of a ResNet. renamed: gives the tensors by torchvision's names."""
    return WeightLayout(
        name,
        what,
        lambda content: is_resnet(renamed(content, None)),
        renamed,
        "timm",
        2,
        lambda content: resnet_size(renamed(content, None)),
        licence,
        of_weights,
        citation,
        "features equal those of torchvision's network under these names",
    )


RADIMAGENET = _layout(
    "radimagenet",
    "RadImageNet: ResNets of radiological images",
    convert_radimagenet,
    "MIT",
    "MIT",
    "Mei et al., Radiology: Artificial Intelligence 2022, doi:10.1148/ryai.210315",
)
MEDCLIP = _layout(
    "medclip",
    "MedCLIP: the ResNet of chest radiographs and reports",
    _under("vision_model.model."),
    "not verified: see its repository",
    "not verified; trained on MIMIC-CXR and CheXpert, whose terms apply",
    "Wang et al., EMNLP 2022, arXiv:2210.10163",
)
BIOVIL = _layout(
    "biovil",
    "BioViL and BioViL-T: the ResNet of chest radiographs and reports",
    _under("encoder.encoder."),
    "MIT",
    "MIT, for research; trained on MIMIC-CXR, whose terms apply",
    "Boecking et al., ECCV 2022, arXiv:2204.09817; Bannur et al., CVPR 2023, arXiv:2301.04558",
)
