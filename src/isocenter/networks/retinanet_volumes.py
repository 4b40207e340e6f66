"""MONAI's RetinaNet for volumes, with the way of teaching that MONAI's detection of lung nodules has.

Lin et al., ICCV 2017, arXiv:1708.02002; which anchors are taught is found anew for each box (Zhang et al., CVPR 2020,
arXiv:1912.02424), and of those without a box the hard ones are (monai.apps.detection; arXiv:2211.02701).
This file needs torch and MONAI, whose import takes seconds: it is imported where a volume is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from isocenter.lazy import monai

# Of each stage of a residual network by name, and whether its blocks narrow in between.
BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
# As MONAI's tutorial on nodules has it: places a level that may speak of a box, anchors of an image that are taught,
# the share of them with a box, those without at least, and from how many times as many the hardest are drawn.
CANDIDATES, TAUGHT, WITH_BOX, FEWEST_WITHOUT, POOL = 4, 64, 0.3, 16, 20
# From here on a shift counts linearly.
BEND = 1 / 9


class Monai:
    """How MONAI's detector is spoken to.

    steps: voxels from cell to cell of each level, per axis
    each:  anchors of a cell
    """

    backwards = False

    def __init__(self, steps: Sequence[Sequence[int]], each: int) -> None:
        self.steps: Sequence[Sequence[int]] = steps
        self.each = each
        # MONAI's anchors stand in the middle of what a cell is long.
        self.first: Sequence[Sequence[int]] = [[step // 2 for step in level] for level in steps]

    def features(self, detector: Any, images: Tensor) -> Sequence[Tensor]:
        """The levels of the pyramid for (batch, channels, *spatial) images."""
        return list(detector.network.feature_extractor(images).values())

    def heads(self, detector: Any) -> tuple[Any, Any]:
        """The two heads, for classes and for boxes."""
        return detector.network.classification_head, detector.network.regression_head

    def loss(
        self, detector: Any, truth: list[dict[str, Tensor]], said: tuple[Tensor, Tensor], anchors: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The two losses by name."""
        outputs = {detector.cls_key: said[0], detector.box_reg_key: said[1]}
        places = [len(level) // self.each for level in anchors]
        lost: dict[str, Tensor] = detector.compute_loss(outputs, truth, [torch.cat(list(anchors))] * len(truth), places)
        # Without any box MONAI's loss of places is a number of no network and of the processor.
        return {name: one if one.requires_grad else said[1].sum() * 0 for name, one in lost.items()}


def detector_of(
    classes: int,
    channels: int,
    shapes: Sequence[Sequence[float]],
    strides: Sequence[Sequence[int]],
    model: str,
    width: int,
    inside: int,
    layers: Sequence[int],
) -> tuple[nn.Module, Monai]:
    """The detector, and how it is spoken to.

    shapes:  voxels per axis of each anchor of the finest level
    strides: by which factor each of several stages reduces each axis: that of the first level is their product up to
             the stem, and each further level halves all axes
    The other settings are those of `RetinaNet`.
    Raises ValueError for what cannot be.
    """
    if model not in BLOCKS:
        raise ValueError(f"there is no model {model!r} for volumes: choose one of {', '.join(BLOCKS)}")
    stem: Any = tuple(math.prod(one) for one in zip(*strides, strict=True))
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
    body.maxpool = nn.Identity()  # the pyramid asks every layer, this one too
    names = {f"layer{n}": str(n - layers[0]) for n in layers}
    widths, pyramid = [width * 2 ** (n - 1) for n in layers], library.networks.blocks.backbone_fpn_utils
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
    # As functions: a module that only a loss calls is none of the network's.
    del detector.cls_loss_func, detector.box_loss_func
    detector.cls_loss_func = binary_cross_entropy_with_logits
    detector.box_loss_func = partial(smooth_l1_loss, beta=BEND)
    return detector, Monai(steps, len(shapes))
