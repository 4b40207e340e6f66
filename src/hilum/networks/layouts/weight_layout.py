"""Layouts: by which a file of another program's weights is recognised, and how its tensors are called here.

A new one is its `WeightLayout` in a file of this folder and its line in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from hilum import plugins
from hilum.networks.network_family import NetworkSize

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


# What a file of weights holds, as it was read.
Content = Mapping[str, Any]


@dataclass(frozen=True)
class WeightLayout:
    """The weights of another program.

    name:    in lists and records
    what:    the program and its networks, in a line
    fits:    whether a file's content is of this layout
    renamed: (content, network) to {name: tensor}, by names that families know or translate; network: which gets the
             weights, for tensors whose shape follows it
    family:  of ours that has these layers
    axes:    of its images
    size:    content to that family's settings; None where the content does not show them
    licence: of the program's code, and of the weights that its authors publish
    citation: of the paper
    proof:   what a test compares, in a sentence
    """

    name: str
    what: str
    fits: Callable[[Content], bool]
    renamed: Callable[[Content, Module], Mapping[str, Tensor]]
    family: str
    axes: int
    size: Callable[[Content], NetworkSize | None]
    licence: str
    licence_of_weights: str
    citation: str
    proof: str


def without_prefix(weights: Content, prefix: str) -> dict[str, Tensor]:
    """Tensors under the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def count_parts(weights: Content, prefix: str) -> int:
    """The number of parts "<prefix>0.", "<prefix>1." and so on."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)}
    return len([number for number in numbers if number.isdecimal()])


# {name: the `WeightLayout` of a file of this folder}; the first that fits is taken.
LAYOUTS: dict[str, str] = {
    "nnssl": "hilum.networks.layouts.nnunet_weights:NNSSL",
    "nnunet": "hilum.networks.layouts.nnunet_weights:PLAIN",
    "nnunet_residual": "hilum.networks.layouts.nnunet_weights:RESIDUAL",
    "radimagenet": "hilum.networks.layouts.resnets:RADIMAGENET",
    "medclip": "hilum.networks.layouts.resnets:MEDCLIP",
    "biovil": "hilum.networks.layouts.resnets:BIOVIL",
    "sam": "hilum.networks.layouts.sam_weights:SAM",
    "openclip": "hilum.networks.layouts.vision_transformers:OPENCLIP",
    "dinov2": "hilum.networks.layouts.vision_transformers:DINOV2",
    "mae": "hilum.networks.layouts.vision_transformers:MAE",
}


@cache
def weight_layouts() -> tuple[WeightLayout, ...]:
    """Every layout."""
    return tuple(plugins.load_target(target) for target in LAYOUTS.values())


def recognise_layout(content: Content) -> WeightLayout | None:
    """The layout of a file's content; None for plain weights by name."""
    return next((layout for layout in weight_layouts() if layout.fits(content)), None)
