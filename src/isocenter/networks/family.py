"""The value that describes a family of networks: how it is built, what it answers and what it can be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# (patch, strides, device) to the family's settings, the reason and its source.
SizeFor = Callable[[Sequence[int], Sequence[Sequence[int]], str], tuple[Mapping[str, Any], str, str]]
# In place of the methods of context fusion, for a family that has one of its own and leaves no choice.
OWN = "own"


@dataclass(frozen=True)
class Published:
    """Weights that others have published for a family.

    fetch:   (channels, size) to {name: tensor}; ValueError for a size of which there are none
    address: asked first whether anybody answers there; empty for the hub of Hugging Face
    """

    fetch: Callable[[int, Mapping[str, Any]], Mapping[str, Tensor]]
    address: str = ""


@dataclass(frozen=True)
class Family:
    """A family of networks. Each line of `NETWORKS`, and each entry point `isocenter.networks`, names one.

    build:         makes a module whose `forward(images, context=None)` gives {head: tensor}, of `channels`,
                   `spatial_dims`, the settings, and the heads that the family answers: `dense` and `vectors`, each
                   {head: number of channels}. A top-level class or function of the one file that travels with a model
    size_for:      (patch, strides, device) to settings for such images, the reason and its source; without it the
                   defaults of `build` hold
    paper:         where the family was published
    preset:        settings that make it another family than the one whose `build` it shares
    preset_reason: what the preset does, for the plan
    answers:       the heads that it has: "dense" (every voxel, maps of boxes and objects among them), "vector" (the
                   whole image), "boxes" or "objects" where it answers with nothing else
    axes:          of the images that it is for, and `otherwise` what to choose for others
    takes_context: methods by which it takes covariates, the usual one first; (OWN,) for its own without a choice,
                   and empty for a family that sees images only. `build` finds their number as `context` among the
                   settings, and the method with its options as `fusion`
    takes_gaps:    whether it leaves out frames that are missing, which come as NaN; its setting `frames` is the plan's
    in_voxels:     whether `build` has to know how many voxels a length of 1 is long, as setting `unit`
    sees_targets:  whether `forward` takes `targets` in training, for a second stage that is taught with them. Without
                   targets it does as much work as with them, because memory is counted so
    has_loss:      whether the module has `loss(outputs, targets, heads)`, which takes the place of the task's
    rate:          {"dense" or "vector": (factor of the usual learning rate, what was measured)}
    size_of:       (voxels that a length of 1 is long) to more settings and the reason
    published:     weights that others have published
    translated:    name of a tensor in others' files of weights to our name
    search_order:  place among the families that a search tries; 0 for a family that it leaves out
    without_onnx:  why it cannot be exported, for one that cannot
    While it trains a network may give, beside its heads, `+`: (batch,) that is added to the loss of each sample.
    """

    build: Callable[..., Module]
    size_for: SizeFor | None = None
    paper: str = ""
    preset: Mapping[str, Any] = field(default_factory=dict)
    preset_reason: str = ""
    answers: frozenset[str] = frozenset({"dense", "vector"})
    axes: tuple[int, ...] = (1, 2, 3)
    otherwise: str = ""
    takes_context: tuple[str, ...] = ()
    takes_gaps: bool = False
    in_voxels: bool = False
    sees_targets: bool = False
    has_loss: bool = False
    rate: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    size_of: Callable[[float], tuple[Mapping[str, Any], str]] | None = None
    published: Published | None = None
    translated: Callable[[str], str] = str
    search_order: int = 0
    without_onnx: str = ""

    @property
    def fusion_methods(self) -> tuple[str, ...]:
        """The methods of context fusion among which a plan can choose; empty where there is no choice."""
        return tuple(method for method in self.takes_context if method != OWN)
