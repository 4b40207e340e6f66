"""The description of a family of networks: its build function, settings, outputs and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# One entry a stage and axis: by which factor the stage reduces the axis.
Strides = Sequence[Sequence[int]]
# The settings of a family by their names in its `build`: numbers, words, and lists and groups of these.
SizeValue = bool | int | float | str | None | Sequence["SizeValue"] | Mapping[str, "SizeValue"]
NetworkSize = Mapping[str, SizeValue]
# The family's settings, the reason for them and its source.
Sized = tuple[NetworkSize, str, str]
SizeFor = Callable[[Sequence[int], Strides, str], Sized]
# Settings that say how wide a network is.
WIDTHS = ("width", "widest")
# In the setting `encoder` of families that pool: the encoder whose given weights stand still.
FROZEN = "frozen"
# In place of a method of context fusion, for a family with a single method of its own.
OWN = "own"


class FusionSettings(TypedDict, total=False):
    """How covariates enter: settings of `ContextFusion`."""

    method: str
    narrow: int
    sparsity: float
    courses: Sequence[int]


@dataclass(frozen=True)
class PublishedWeights:
    """Published weights of a family.

    fetch:   (channels, size) to {name: tensor}; ValueError for a size without published weights
    address: of the server, which is checked first; empty for the hub of Hugging Face
    """

    fetch: Callable[[int, NetworkSize], Mapping[str, Tensor]]
    address: str = ""


@dataclass(frozen=True)
class Family:
    """A family of networks. Each line of `NETWORKS`, and each entry point `hilum.networks`, names one.

    build:         class or top-level function that makes a module from `channels`, `spatial_dims`, the heads `dense`
                   and `vectors` (each {head: number of channels}, as far as the family has them) and the settings.
                   The module's `forward(images, context=None)` returns {head: tensor}. Its file travels with a model
    size_for:      (patch, strides, device) to settings for such images, the reason and its source; without it the
                   defaults of `build` are used
    paper:         of the family's publication
    preset:        settings that distinguish the family from another one with the same `build`
    preset_reason: effect of the preset, for the plan
    answers:       kinds of its heads: "dense" (every voxel, also maps of boxes and objects), "vector" (whole image),
                   "boxes" or "objects" where it has nothing else
    axes:          numbers of axes of its images, and `otherwise` the remedy for other images
    takes_context: methods of context fusion, the default first; (OWN,) for a single method of its own, and empty for a
                   family without covariates. `build` gets their number as setting `context`, and the method with its
                   options as `fusion`
    takes_gaps:    whether it leaves out missing frames, which are NaN; the plan sets its `frames`
    in_voxels:     whether `build` needs the setting `unit`, the voxels of a length of 1
    sees_targets:  whether `forward` has an argument `targets` in training, for a second stage. Without targets it does
                   the same amount of work, because memory is planned so
    synthesises:   whether it makes images out of noise: `build` gets the settings `classes` and `labels` of the head,
                   `forward` the level and the class as its context, and a mask as further channels
    has_loss:      whether the module has `loss(outputs, targets, heads)`, which replaces the task's loss
    rate:          {"dense" or "vector": (factor of the usual learning rate, measured reason)}
    size_of:       (voxels of a length of 1) to further settings and the reason
    published:     published weights
    translated:    name of a tensor in others' files of weights to our name
    search_order:  rank among the families that a search tries; 0 for families that it leaves out
    features:      dotted name of the part of the module whose output is the deepest map, for `networks.features`; a
                   negative number counts from the end. Empty for a family whose features are not known
    grid_features: the same of the deepest map that lies in the image, where the output of `features` is a vector
    attention:     dotted name of the part that holds the layers of attention, each a
                   `transformer_blocks.SelfAttention`, MONAI's or timm's, for `compute_attention`; its
                   module has `spread(rollout, images)`, and where only some of its settings have such layers, the
                   reason `without_rollout`. Empty for a family whose answer for the whole image does not come by
                   attention among all of its patches
    blocks:        names of the classes behind whose outputs `network.dropout` leaves out channels; empty for a family
                   whose setting `dropout` lies where its paper has dropout, None for one that has neither
    prompts:       how it takes what a person points at: "coordinates", as the context (batch, prompts, points, 3) of x,
                   y and kind; its module has `encode(images)` and `answer(encoded, context)`. Empty for a family that
                   takes none
    slicewise:     whether a volume is its slices to it, so that weights of pictures hold for volumes
    pools:         whether its images are bags of tiles, (batch, channels, tiles, rows, columns), each seen alone: the
                   module is a `bag_pooling.TileBag`, whose `encoded` of tiles and `pooled` of their features may be
                   called apart, and whose second input is the tiles' places
    without_onnx:  why the family cannot be exported; empty for one that can
    In training a network may have the further output `+`, (batch,), which is added to the loss of each sample.
    """

    build: Callable[..., Module]
    size_for: SizeFor | None = None
    paper: str = ""
    preset: NetworkSize = field(default_factory=dict)
    preset_reason: str = ""
    answers: frozenset[str] = frozenset({"dense", "vector"})
    axes: tuple[int, ...] = (1, 2, 3)
    otherwise: str = ""
    takes_context: tuple[str, ...] = ()
    takes_gaps: bool = False
    in_voxels: bool = False
    sees_targets: bool = False
    synthesises: bool = False
    has_loss: bool = False
    rate: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    size_of: Callable[[float], tuple[NetworkSize, str]] | None = None
    published: PublishedWeights | None = None
    translated: Callable[[str], str] = str
    search_order: int = 0
    features: str = ""
    grid_features: str = ""
    attention: str = ""
    blocks: tuple[str, ...] | None = ()
    prompts: str = ""
    slicewise: bool = False
    pools: bool = False
    without_onnx: str = ""

    def variant(self, paper: str, preset: NetworkSize, reason: str = "", **changes: Any) -> Family:
        """Another family that shares this one's `build`; a search leaves it out unless the changes say otherwise."""
        changes = {"search_order": 0, **changes}
        return replace(self, paper=paper, preset=preset, preset_reason=reason, **changes)

    @property
    def fusion_methods(self) -> tuple[str, ...]:
        """The methods of context fusion that a plan can choose from; empty without a choice."""
        return tuple(method for method in self.takes_context if method != OWN)


def widen_settings(size: NetworkSize, factor: float) -> dict[str, SizeValue]:
    """The settings of a network so many times as wide."""
    return {**size, **{name: round(factor * width) for name in WIDTHS if isinstance(width := size.get(name), int)}}
