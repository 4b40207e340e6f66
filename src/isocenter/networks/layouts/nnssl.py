"""nnssl's self-supervised networks (OpenMind): weights with a plan that says where encoder and stem lie in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter.networks.layouts.layout import Content, Layout, count_of, without_prefix
from isocenter.networks.layouts.nnunet import STEM, on_our_axes, planned_size, without_repeats

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

PLAN, WEIGHTS = "nnssl_adaptation_plan", "network_weights"
FIRST = "encoder.stages.0.blocks.0.conv1.conv.weight"


def weights_of(content: Content) -> dict[str, Tensor]:
    """The tensors of encoder and stem by our names, and those of the decoder where it has nnU-Net's."""
    plan, pretrained = content[PLAN], content[PLAN].get("pretrain_plan")
    transpose = pretrained.get("transpose_forward") if isinstance(pretrained, Mapping) else None
    weights = on_our_axes(without_repeats(content[WEIGHTS]), transpose)
    parts = {"encoder.stages.": f"{plan['key_to_encoder']}.", "encoder.stem.": f"{plan['key_to_stem']}."}
    encoder = {
        f"{ours}{name}": value for ours, at in parts.items() for name, value in without_prefix(weights, at).items()
    }
    decoder = {name: value for name, value in weights.items() if name.startswith("decoder.")}
    return {**decoder, **encoder}


def size(content: Content) -> dict[str, Any] | None:
    """The settings of the network; without a decoder those of ResEncL, whose stages each halve all axes."""
    weights = weights_of(content)
    if (settings := planned_size(weights)) is not None:
        return settings
    count, axes = count_of(weights, "encoder.stages."), weights[FIRST].ndim - 2
    first = [weights[f"encoder.stages.{stage}.blocks.0.conv1.conv.weight"] for stage in range(count)]
    return {
        "features": [int(one.shape[0]) for one in first],
        "kernels": [list(one.shape[2:]) for one in first],
        "strides": [[1] * axes, *([2] * axes for _ in range(count - 1))],
        "blocks": [count_of(weights, f"encoder.stages.{stage}.blocks.") for stage in range(count)],
        "decoder_convolutions": [1] * (count - 1),
        "deep_supervision": max(0, count - 3),
    }


def fits(content: Content) -> bool:
    """Whether it has a plan, and an encoder of residual blocks where this says."""
    plan = content.get(PLAN)
    if not isinstance(plan, Mapping) or not isinstance(content.get(WEIGHTS), Mapping):
        return False
    if not {"key_to_encoder", "key_to_stem"} <= set(plan):
        return False
    return {STEM, FIRST} <= set(weights_of(content))


def renamed(content: Content, network: Module) -> dict[str, Tensor]:
    """The tensors by our names."""
    return weights_of(content)


LAYOUT = Layout(
    "nnssl",
    "nnssl (OpenMind): residual U-Nets of volumes of the head without labels",
    fits,
    renamed,
    "residual_encoder_unet",
    3,
    size,
    "Apache-2.0",
    "CC-BY-4.0 for the checkpoints of its authors; of others as the page of each states",
    "Wald et al., ICCV 2025, arXiv:2412.17041",
    "features equal those of our residual encoder under these names, on axes in our order",
)
