"""torchvision's residual networks with a feature pyramid, and their published weights.

He et al., CVPR 2016, arXiv:1512.03385; Lin et al., CVPR 2017, arXiv:1612.03144. For pictures. Building a network never
downloads weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from hilum.networks import context_fusion, pyramid
from hilum.networks.network_family import Family, PublishedWeights, SizeFor
from hilum.networks.pyramid import LevelPredictions

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings, NetworkSize


MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "wide_resnet50_2")
SILENT = -12.0  # the logit of a chance of 6e-6
STAGES = 4  # of a residual network; the first has a quarter of the image's resolution
# Address of torchvision's weights.
PUBLISHED_AT = "https://download.pytorch.org"
# Layers that were plain convolutions when weights were published, and are nested in others since torchvision 0.13.
ONCE_BARE = (
    (r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
)
# The maps of a pyramid, numbered from its finest.
OF_A_LEVEL = re.compile(r"(.*backbone\.fpn\.(?:inner|layer)_blocks\.)(\d+)(\..*)")


def resnet_pyramid(
    channels: int, model: str, inside: int, layers: Sequence[int], coarser: int, *, pooled: bool = False
) -> BackboneWithFPN:
    """(batch, channels, *spatial) to (batch, inside, *coarse) of each level, from "0", the finest, on.

    model:   of torchvision; its normalisation layers learn, because weights may be untrained
    inside:  feature maps of every level
    layers:  consecutive stages of the network that are levels, from 1 to 4; stage n reduces the image by 2^(n+1)
    coarser: further levels: 0, or the 2 of RetinaNet
    pooled:  whether one more level follows, every second cell of the coarsest: that of Faster R-CNN
    Raises ValueError for settings that make no network.
    """
    if model not in MODELS:
        raise ValueError(f"there is no model {model!r}: choose one of {', '.join(MODELS)}")
    refuse_stage_gaps(layers)
    if coarser not in (0, 2):
        raise ValueError(f"coarser is 0 or 2, not {coarser}")
    body = getattr(torchvision.models, model)(weights=None)
    if channels != body.conv1.in_channels:
        body.conv1 = nn.Conv2d(channels, body.conv1.out_channels, 7, 2, 3, bias=False)
    widths = [body.inplanes // 2 ** (STAGES - n) for n in layers]
    more = LastLevelP6P7(inside, inside) if coarser else LastLevelMaxPool()
    backbone = BackboneWithFPN(
        body, {f"layer{n}": str(n - layers[0]) for n in layers}, widths, inside, extra_blocks=more
    )
    if not coarser and not pooled:
        backbone.fpn.extra_blocks = None
    return backbone


def refuse_stage_gaps(layers: Sequence[int]) -> None:
    """ValueError where these are not consecutive stages."""
    stages = list(layers)
    if not stages or stages != list(range(stages[0], stages[-1] + 1)) or stages[0] < 1 or stages[-1] > STAGES:
        raise ValueError(f"layers are consecutive stages from 1 to {STAGES}, not {stages}")


def level_steps(layers: Sequence[int], more: int) -> list[list[int]]:
    """Voxels from cell to cell on each axis, of each level; more: levels after those of the network's stages."""
    return [[2 ** (n + 1)] * 2 for n in range(layers[0], layers[-1] + 1 + more)]


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[NetworkSize, str]:
    """A network for the device, with levels as coarse as the patch allows; and the reason."""
    slow = device == "cpu"
    last = max(1, min(len(strides) - 2, STAGES - 1 if slow else STAGES))
    model = "resnet18" if slow else "resnet50"
    size = {"model": model, "inside": 64 if slow else 256, "layers": list(range(1, last + 1))}
    levels = f"{last} level{'s' * (last > 1)} from a quarter of the image's resolution on"
    return size, f"patch {tuple(patch)}: {levels}; {model} for the {device}"


def fetch_weights(weights: Any, size: Mapping[str, Any], first: int) -> dict[str, Tensor]:
    """Published weights of a detector on resnet50 and a pyramid of 256 maps, downloaded, with our numbers of levels.

    weights: as torchvision names them; first: the stage that is that network's finest level
    Raises ValueError where none fit the settings.
    """
    if (size.get("model"), size.get("inside")) != ("resnet50", 256):
        raise ValueError("torchvision's weights are of model resnet50 with 256 maps inside")
    published = weights.get_state_dict(check_hash=True, progress=False, weights_only=True)
    return {
        detector_tensor_name(name): value
        for name, value in renumber_levels(published, first, size["layers"][0]).items()
    }


def detector_tensor_name(name: str) -> str:
    """A tensor of torchvision's detectors by our name."""
    for once, now in ONCE_BARE:
        name = re.sub(once, now, name)
    return f"detector.{name}"


def renumber_levels(weights: Mapping[str, Tensor], first: int, own: int) -> dict[str, Tensor]:
    """Weights of a pyramid whose finest level is stage `first`, by the names of one where it is stage `own`."""
    named = {}
    for name, value in weights.items():
        level = OF_A_LEVEL.fullmatch(name)
        if level is None:
            named[name] = value
        elif (number := int(level[2]) + first - own) >= 0:
            named[f"{level[1]}{number}{level[3]}"] = value
    return named


def level_anchors(generator: Any, sizes: Iterable[Sequence[int]], steps: Sequence[Sequence[int]], like: Tensor) -> Any:
    """[(cells * anchors, 4 or 6)] edges of the anchors of each level, by the generator of torchvision or MONAI.

    sizes: cells per axis of each level; steps: voxels from cell to cell; like: a tensor of the device
    """
    generator.set_cell_anchors(torch.float32, like.device)
    return generator.grid_anchors([list(size) for size in sizes], steps)


class LevelDetector(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}, by a library's detector.

    In training each level has the output `head/level`, (batch, outputs, *coarse), for the library's loss. In prediction
    the levels become one map, at each voxel that with the largest logit.

    detector: of a library, with all weights
    steps:    voxels from cell to cell of each level, per axis
    unit:     voxels of a length or an offset of 1
    inside:   feature maps of every level
    context:  number of covariates, which scale and shift these maps; fusion: settings of `ContextFusion`
    """

    # Of images: the maps of each level, (batch, inside, *coarse), finest first.
    levels_of: Callable[[Tensor], Sequence[Tensor]]
    # Of the maps of a level: (batch, outputs, *coarse), as the library's loss takes them.
    outputs_of: Callable[[Tensor], Tensor]
    # Of a level's number, its outputs and (cells * anchors, 2 * axes) edges of its anchors: the boxes.
    predict_level: Callable[[int, Tensor, Tensor], LevelPredictions]

    def __init__(
        self,
        name: str,
        classes: int,
        unit: float,
        detector: nn.Module,
        steps: Sequence[Sequence[int]],
        inside: int,
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.classes = classes
        self.unit = unit
        self.steps = steps
        self.detector: Any = detector
        self.coarsest = nn.Identity()  # where others see its features
        self.telling = context_fusion.pyramid_fusion(len(steps), inside, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        *finer, coarsest = self.levels_of(images)
        features = self.telling.modulate_levels((*finer, self.coarsest(coarsest)), self.telling(context))
        outputs = [self.outputs_of(maps) for maps in features]
        if self.training:
            levels = {f"{self.name}/{number}": maps for number, maps in enumerate(outputs)}
            return {**levels, **self.telling.penalties(images)}
        anchors = self.anchors_of(outputs)
        predicted = [self.predict_level(n, maps, anchors[n]) for n, maps in enumerate(outputs)]
        return {self.name: pyramid.merge_levels(predicted, images.shape[2:], self.unit)}

    def trained_levels(self, outputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs of each level, of `forward` in training."""
        return [outputs[f"{self.name}/{level}"] for level in range(len(self.steps))]

    def anchors_of(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """(cells * anchors, 2 * axes) edges of each level, in the library's order of axes."""
        sizes = [maps.shape[2:] for maps in outputs]
        anchors: list[Tensor] = level_anchors(self.detector.anchor_generator, sizes, self.steps, outputs[0])
        return anchors


def boxes_by_library(boxes: Tensor, *, backwards: bool = True, first: int = 0) -> list[dict[str, Tensor]]:
    """The true boxes of each image as torchvision and MONAI take them.

    boxes:     (batch, n, 1 + 2 * axes) class, low and high edges in voxels; those of a negative class are none
    backwards: whether the last axis comes first
    first:     number of the first class
    """
    return [
        {"boxes": pyramid.reverse_axes(edges, 1) if backwards else edges, "labels": kinds + first}
        for edges, kinds in map(pyramid.unpadded_boxes, boxes)
    ]


def silence_ignored(logits: Tensor, anchors: Tensor, boxes: Tensor, *, backwards: bool = True) -> Tensor:
    """The logits, with those of anchors in regions to be ignored so low that a loss learns nothing of them.

    logits:    (batch, anchors, classes)
    anchors:   (anchors, 2 * axes) edges
    boxes:     (batch, n, 1 + 2 * axes) class, low and high edges in voxels; class -2 is a region to be ignored
    backwards: whether the last axis comes first in `anchors`
    """
    if not bool((boxes[..., 0] == -2).any()):
        return logits
    edges = pyramid.reverse_axes(anchors, 1) if backwards else anchors
    low, high = edges.chunk(2, dim=1)
    unknown = torch.stack([pyramid.in_ignored_regions((low + high) / 2, own) for own in boxes])
    return logits.masked_fill(unknown[..., None], SILENT)


def detector_family(
    build: Callable[..., nn.Module], size_for: SizeFor, paper: str, weights: Any, first: int, **more: Any
) -> Family:
    """A family of torchvision's detectors for pictures.

    weights: published ones, from COCO, as torchvision names them; first: the stage that is their finest level
    more:    further fields of the family
    """

    def published(channels: int, size: NetworkSize) -> dict[str, Tensor]:
        return fetch_weights(weights, size, first)

    fields: dict[str, Any] = {"axes": (2,), "translated": detector_tensor_name, "blocks": ("BasicBlock",), **more}
    fields |= {"answers": frozenset({"boxes"}), "takes_context": ("film",), "in_voxels": True, "has_loss": True}
    return Family(build, size_for, paper, published=PublishedWeights(published, PUBLISHED_AT), **fields)
