"""torchvision's ResNets, whose names timm's and ours have too, by the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isocenter.networks.layouts.layout import count_of

STAGES = 4
# {(bottleneck, blocks of each stage): timm's name}
MODELS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


def is_resnet(weights: Mapping[str, Any]) -> bool:
    """Whether weights by torchvision's names are those of a ResNet."""
    return {"conv1.weight", "layer1.0.conv1.weight"} <= set(weights)


def resnet_size(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `timm` for weights by torchvision's names."""
    bottleneck = "layer1.0.conv3.weight" in weights
    blocks = tuple(count_of(weights, f"layer{stage}.") for stage in range(1, STAGES + 1))
    if model := MODELS.get((bottleneck, blocks)):
        return {"model": model}
    return {"model": "resnet50" if bottleneck else "resnet18", "settings": {"layers": list(blocks)}}
