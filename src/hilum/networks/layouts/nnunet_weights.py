"""Layouts of the checkpoints of nnU-Net, which TotalSegmentator shares, and of nnssl (OpenMind, self-supervised).

Their names are those of our families. nnssl's have a plan that says where encoder and stem lie in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hilum.networks.layouts import weight_layout
from hilum.networks.layouts.weight_layout import Content, WeightLayout
from hilum.networks.network_family import SizeValue

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


# Parameters that nnU-Net's modules hold a second time under another name.
AGAIN = re.compile(r"\.all_modules\.|^decoder\.encoder\.")
# What wrapping a network for several devices or for a compiler puts before its names.
WRAPPED = ("module.", "_orig_mod.")
STEM = "encoder.stem.convs.0.conv.weight"


def without_repeats(weights: Content) -> dict[str, Tensor]:
    """Each parameter of a network of nnU-Net once, under the name of the layer that it belongs to."""
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        for prefix in WRAPPED:
            name = name.removeprefix(prefix)  # noqa: PLW2901 - the same name, unwrapped
        if not AGAIN.search(name):
            named[name] = tensor
    return named


def planned_size(weights: Content) -> dict[str, SizeValue] | None:
    """The settings of our family for weights by our names; None where there is no decoder, which shows the strides.

    What is used without a weight is nnU-Net's usual: leaky activations, after normalisation.
    """
    count = weight_layout.count_parts(weights, "encoder.stages.")
    is_residual = STEM in weights
    first = "encoder.stages.{}.blocks.0.conv1.conv.weight" if is_residual else "encoder.stages.{}.0.convs.0.conv.weight"
    repeated = "encoder.stages.{}.blocks." if is_residual else "encoder.stages.{}.0.convs."
    named = [first.format(stage) for stage in range(count)]
    rising = [f"decoder.transpconvs.{place}.weight" for place in range(count - 1)]
    if count < 2 or not {*named, *rising} <= set(weights):
        return None
    kernels = [weights[name] for name in named]
    ups = [weights[name] for name in rising]
    axes = kernels[0].ndim - 2
    return {
        "features": [int(one.shape[0]) for one in kernels],
        "kernels": [list(one.shape[2:]) for one in kernels],
        "strides": [[1] * axes, *(list(one.shape[2:]) for one in reversed(ups))],
        "blocks" if is_residual else "convolutions": [
            weight_layout.count_parts(weights, repeated.format(stage)) for stage in range(count)
        ],
        "decoder_convolutions": [
            weight_layout.count_parts(weights, f"decoder.stages.{place}.convs.") for place in range(count - 1)
        ],
        "bias": first.format(0).replace(".weight", ".bias") in weights,
        "norm": "batch" if any(name.endswith(".running_mean") for name in weights) else "instance",
        "deep_supervision": max(0, count - 3),
    }


def reorder_axes(weights: Mapping[str, Tensor], transpose: Any = None) -> dict[str, Tensor]:
    """Kernels of volumes with the axes (column, row, slice), where nnU-Net has (slice, row, column).

    transpose: nnU-Net's `transpose_forward`, the order in which its network takes these axes
    """
    order = [0, 1, 2] if transpose is None else [int(axis) for axis in transpose]
    ours = [0, 1, *(2 + order.index(2 - axis) for axis in range(3))]
    return {name: value.permute(ours).contiguous() if value.ndim == 5 else value for name, value in weights.items()}


def _weights(content: Content) -> dict[str, Tensor]:
    weights = content.get("network_weights")
    if not isinstance(weights, Mapping):
        return {}
    arguments = content.get("init_args")
    plans = arguments.get("plans") if isinstance(arguments, Mapping) else None
    transpose = plans.get("transpose_forward") if isinstance(plans, Mapping) else None
    return reorder_axes(without_repeats(weights), transpose)


def rename_tensors(content: Content, network: Module) -> dict[str, Tensor]:
    """The tensors by our names, which are nnU-Net's."""
    return _weights(content)


def _layout(name: str, what: str, family: str, *, residual: bool, citation: str) -> WeightLayout:
    def fits(content: Content) -> bool:
        weights = content.get("network_weights")
        names = set(without_repeats(weights)) if isinstance(weights, Mapping) else set()
        return (STEM in names) == residual and any(one.startswith("encoder.stages.") for one in names)

    return WeightLayout(
        name,
        what,
        fits,
        rename_tensors,
        family,
        3,
        lambda content: planned_size(_weights(content)),
        "Apache-2.0",
        "as whoever trained it states; TotalSegmentator's own tasks Apache-2.0, some of its others not for commerce; "
        "nnInteractive CC BY-NC-SA 4.0",
        citation,
        "settings that are read from the shapes give the same outputs, on axes in our order",
    )


PAPER = "Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z"
PLAIN = _layout("nnunet", "nnU-Net v2: plain U-Nets", "plain_conv_unet", residual=False, citation=PAPER)
RESIDUAL = _layout(
    "nnunet_residual",
    "nnU-Net v2: U-Nets with a residual encoder",
    "residual_encoder_unet",
    residual=True,
    citation=f"{PAPER}; MICCAI 2024, arXiv:2404.09556",
)


PLAN = "nnssl_adaptation_plan"
WEIGHTS = "network_weights"
FIRST_CONVOLUTION = "encoder.stages.0.blocks.0.conv1.conv.weight"


def nnssl_weights(content: Content) -> dict[str, Tensor]:
    """The tensors of encoder and stem by our names, and those of the decoder where it has nnU-Net's."""
    plan = content[PLAN]
    pretrained = content[PLAN].get("pretrain_plan")
    transpose = pretrained.get("transpose_forward") if isinstance(pretrained, Mapping) else None
    weights = reorder_axes(without_repeats(content[WEIGHTS]), transpose)
    parts = {"encoder.stages.": f"{plan['key_to_encoder']}.", "encoder.stem.": f"{plan['key_to_stem']}."}
    encoder = {
        f"{ours}{name}": value
        for ours, at in parts.items()
        for name, value in weight_layout.without_prefix(weights, at).items()
    }
    decoder = {name: value for name, value in weights.items() if name.startswith("decoder.")}
    return {**decoder, **encoder}


def nnssl_size(content: Content) -> dict[str, SizeValue] | None:
    """The settings of the network; without a decoder those of ResEncL, whose stages each halve all axes."""
    weights = nnssl_weights(content)
    if (settings := planned_size(weights)) is not None:
        return settings
    count = weight_layout.count_parts(weights, "encoder.stages.")
    axes = weights[FIRST_CONVOLUTION].ndim - 2
    first = [weights[f"encoder.stages.{stage}.blocks.0.conv1.conv.weight"] for stage in range(count)]
    return {
        "features": [int(one.shape[0]) for one in first],
        "kernels": [list(one.shape[2:]) for one in first],
        "strides": [[1] * axes, *([2] * axes for _ in range(count - 1))],
        "blocks": [weight_layout.count_parts(weights, f"encoder.stages.{stage}.blocks.") for stage in range(count)],
        "decoder_convolutions": [1] * (count - 1),
        "deep_supervision": max(0, count - 3),
    }


def is_nnssl(content: Content) -> bool:
    """Whether it has a plan, and an encoder of residual blocks where this says."""
    plan = content.get(PLAN)
    if not isinstance(plan, Mapping) or not isinstance(content.get(WEIGHTS), Mapping):
        return False
    if not {"key_to_encoder", "key_to_stem"} <= set(plan):
        return False
    return {STEM, FIRST_CONVOLUTION} <= set(nnssl_weights(content))


def convert_nnssl(content: Content, network: Module) -> dict[str, Tensor]:
    """The tensors by our names."""
    return nnssl_weights(content)


NNSSL = WeightLayout(
    "nnssl",
    "nnssl (OpenMind): residual U-Nets of volumes of the head without labels",
    is_nnssl,
    convert_nnssl,
    "residual_encoder_unet",
    3,
    nnssl_size,
    "Apache-2.0",
    "CC-BY-4.0 for the checkpoints of its authors; of others as the page of each states",
    "Wald et al., ICCV 2025, arXiv:2412.17041",
    "features equal those of our residual encoder under these names, on axes in our order",
)
