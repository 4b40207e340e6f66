"""MONAI's RetinaNet for volumes, trained as in MONAI's detection of lung nodules.

Lin et al., ICCV 2017, arXiv:1708.02002; adaptive training sample selection assigns anchors to boxes (Zhang et al.,
CVPR 2020, arXiv:1912.02424), and hard negatives are mined (monai.apps.detection; arXiv:2211.02701).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from hilum.lazy import monai

# Blocks of each stage, by the name of the residual network.
BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
# As in MONAI's tutorial on nodules: candidate cells a level of each box, sampled anchors of an image, the share of them
# with a box, the fewest without one, and the size of the pool of hard negatives, in multiples of these.
CANDIDATES = 4
TAUGHT = 64
WITH_BOX = 0.3
FEWEST_WITHOUT = 16
POOL = 20
# Where the smooth L1 loss becomes linear.
BEND = 1 / 9


class Monai:
    """The interface of MONAI's detector.

    steps: voxels from cell to cell of each level, per axis
    each:  anchors of a cell
    """

    backwards = False

    def __init__(self, steps: Sequence[Sequence[int]], each: int) -> None:
        self.steps: Sequence[Sequence[int]] = steps
        self.each = each
        # MONAI's anchors are about the centre of a cell.
        self.first: Sequence[Sequence[int]] = [[step // 2 for step in level] for level in steps]

    def features(self, detector: Any, images: Tensor) -> Sequence[Tensor]:
        """The levels of the pyramid for (batch, channels, *spatial) images."""
        return list(detector.network.feature_extractor(images).values())

    def heads(self, detector: Any) -> tuple[Any, Any]:
        """The heads for classes and for boxes."""
        return detector.network.classification_head, detector.network.regression_head

    def loss(
        self, detector: Any, truth: list[dict[str, Tensor]], outputs: tuple[Tensor, Tensor], anchors: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The two losses by name."""
        named = {detector.cls_key: outputs[0], detector.box_reg_key: outputs[1]}
        cells = [len(level) // self.each for level in anchors]
        losses: dict[str, Tensor] = detector.compute_loss(named, truth, [torch.cat(list(anchors))] * len(truth), cells)
        # Without any box MONAI's loss of boxes is a constant on the CPU.
        return {name: loss if loss.requires_grad else outputs[1].sum() * 0 for name, loss in losses.items()}


def monai_detector(
    classes: int,
    channels: int,
    shapes: Sequence[Sequence[float]],
    strides: Sequence[Sequence[int]],
    model: str,
    width: int,
    inside: int,
    layers: Sequence[int],
) -> tuple[nn.Module, Monai]:
    """The detector, and its interface.

    shapes:  voxels per axis of each anchor of the finest level
    strides: factors by which the stem reduces each axis; each further level halves all axes
    The other settings are those of `retinanet.volume_detector`.
    Raises ValueError for a model that does not exist.
    """
    if model not in BLOCKS:
        raise ValueError(f"there is no model {model!r} for volumes: choose one of {', '.join(BLOCKS)}")
    stem: Any = tuple(math.prod(along) for along in zip(*strides, strict=True))
    kernel: Any = tuple(7 if step > 1 else 3 for step in stem)
    library: Any = monai  # its parts are attributes only once all of it is imported
    body = library.networks.nets.resnet.ResNet(
        "basic",
        list(BLOCKS[model]),
        [width * 2**stage for stage in range(4)],
        n_input_channels=channels,
        conv1_t_size=kernel,
        conv1_t_stride=stem,
        no_max_pool=True,
        feed_forward=False,
    )
    body.maxpool = nn.Identity()  # the pyramid goes through every layer, also this one
    names = {f"layer{n}": str(n - layers[0]) for n in layers}
    widths = [width * 2 ** (n - 1) for n in layers]
    pyramid = library.networks.blocks.backbone_fpn_utils
    features = pyramid.BackboneWithFPN(body, names, widths, inside, 3)
    features.fpn.extra_blocks = None
    steps = [[step * 2 ** (n - 1) for step in stem] for n in layers]
    detection = library.apps.detection
    networks = detection.networks
    network = networks.retinanet_network.RetinaNet(3, classes, len(shapes), features, size_divisible=steps[-1])
    scales = [2**number for number in range(len(layers))]
    anchors = detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape(scales, shapes)
    detector = networks.retinanet_detector.RetinaNetDetector(network, anchors)
    detector.set_atss_matcher(CANDIDATES, center_in_gt=False)
    detector.set_hard_negative_sampler(TAUGHT, WITH_BOX, min_neg=FEWEST_WITHOUT, pool_size=POOL)
    # As functions: modules that only a loss calls do not belong to the network.
    del detector.cls_loss_func, detector.box_loss_func
    detector.cls_loss_func = binary_cross_entropy_with_logits
    detector.box_loss_func = partial(smooth_l1_loss, beta=BEND)
    return detector, Monai(steps, len(shapes))
