"""Families of network behind one factory. A new family is one file beside this one and its line in `NETWORKS`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from isocenter.errors import PlanError
from isocenter.networks.catalogue import REFERENCE, Member, halvings, member
from isocenter.networks.channels_last import channels_last, memory_order, ordered, plain
from isocenter.networks.weights import take_over
from isocenter.values import Dense, Head, Vector

if TYPE_CHECKING:
    from torch.nn import Module

NETWORKS = {
    "alexnet": "isocenter.networks.alexnet:build",
    "attention_unet": "isocenter.networks.attention_unet:build",
    "cbam_resnet": "isocenter.networks.resnet:build_cbam",
    "cbam_unet": "isocenter.networks.unet:build_cbam",
    "clip_resnet": "isocenter.networks.resnet:build_clips",
    "convnext": "isocenter.networks.convnext:build",
    "deeplab": "isocenter.networks.deeplab:build",
    "densenet": "isocenter.networks.densenet:build",
    "efficientnet": "isocenter.networks.efficientnet:build",
    "faster_rcnn": "isocenter.networks.faster_rcnn:build",
    "fcos": "isocenter.networks.fcos:build",
    "grouped_unet": "isocenter.networks.unet:build_grouped",
    "inception": "isocenter.networks.inception:build",
    "inflated_resnet": "isocenter.networks.inflated_resnet:build",
    "lenet": "isocenter.networks.lenet:build",
    "mask_rcnn": "isocenter.networks.mask_rcnn:build",
    "mednext": "isocenter.networks.mednext:build",
    "mobilenet": "isocenter.networks.mobilenet:build",
    "multiscale_unet": "isocenter.networks.multiscale_unet:build",
    "plain_conv_unet": "isocenter.networks.nnunet:build_plain",
    "pseudo3d_resnet": "isocenter.networks.resnet:build_pseudo3d",
    "pyramid": "isocenter.networks.pyramid:build",
    "residual_encoder_unet": "isocenter.networks.nnunet:build_residual",
    "resnet": "isocenter.networks.resnet:build",
    "resnet_slices": "isocenter.networks.resnet_slices:build",
    "resnext": "isocenter.networks.resnet:build_resnext",
    "retinanet": "isocenter.networks.retinanet:build",
    "se_resnet": "isocenter.networks.resnet:build_se",
    "se_unet": "isocenter.networks.unet:build_se",
    "segresnet": "isocenter.networks.segresnet:build",
    "separable_unet": "isocenter.networks.unet:build_separable",
    "swin_unetr": "isocenter.networks.swin_unetr:build",
    "timm": "isocenter.networks.backbone:build",
    "unet": "isocenter.networks.unet:build",
    "unet_plus_plus": "isocenter.networks.unet_plus_plus:build",
    "unet_slices": "isocenter.networks.unet:build_slices",
    "unetr": "isocenter.networks.unetr:build",
    "vgg": "isocenter.networks.vgg:build",
    "vit": "isocenter.networks.vit:build",
    "vnet": "isocenter.networks.vnet:build",
    "yolox": "isocenter.networks.pyramid:build_yolox",
}


def names() -> tuple[str, ...]:
    """Our families, and those that other packages add under the entry point `isocenter.networks`."""
    return tuple(sorted({*NETWORKS, *(point.name for point in entry_points(group="isocenter.networks"))}))


def build(
    name: str, channels: int, spatial_dims: int, heads: Mapping[str, Head], size: Mapping[str, Any], context: int = 0
) -> Module:
    """A network whose `forward(images, context=None)` gives `{head: tensor}`.

    images:  (batch, channels, *spatial)
    size:    the family's own settings (width, strides, blocks, ...)
    context: entries of a vector (batch, context) that it is given beside the images; 0 for none
    While it trains it may add to the loss of each sample what it gives as `+`, (batch,), beside its heads.
    A family that is defined by its loss has `loss(outputs, targets, heads)`, which then takes the place of the task's;
    while it trains its outputs may be whatever that needs. Where what it looks at next depends on what there is, as in
    a network of two stages, it says `sees_targets = True`, and `forward(images, context=None, targets=None)` is given
    them in training; without targets it does as much as a step with them, because memory is counted so.
    A file whose families answer with boxes says `BOXES = True`, one for objects told apart `OBJECTS = True`, and
    `IN_VOXELS = True` one that has to know how many voxels a length of 1 is long: that is then its setting `unit`.
    Raises PlanError for an unknown name, a head or a context that the family cannot have, a size that it does not know.
    """
    module, function = _found(name)
    if spatial_dims not in (1, 2, 3):
        raise PlanError(f"there is no network in {spatial_dims} dimensions", "preprocessing.ndim", "Choose 1 to 3")
    for key, head in heads.items():
        if not isinstance(head, Dense | Vector):
            raise PlanError(f"{name} has no output of the kind of {key!r} ({head})", "network.name", "Choose another")
    if getattr(module, "BOXES", False) and not all(isinstance(head, Dense) and head.lengths for head in heads.values()):
        raise PlanError(f"{name} answers with boxes alone", "network.name", "Choose unet or resnet")
    if getattr(module, "OBJECTS", False) and not all(isinstance(one, Dense) and one.heights for one in heads.values()):
        raise PlanError(f"{name} tells single objects apart, and nothing else", "network.name", "Choose unet or resnet")
    dense = {key: head.channels for key, head in heads.items() if isinstance(head, Dense)}
    vectors = {key: head.size for key, head in heads.items() if isinstance(head, Vector)}
    try:
        return getattr(module, function)(channels, spatial_dims, dense, vectors, sized(name, heads, size, context))
    except (TypeError, ValueError, RuntimeError) as error:  # torch refuses sizes with a RuntimeError
        if context and isinstance(error, TypeError) and "'context'" in str(error):
            remedy = "Choose a family that takes them, such as resnet or vit, or leave the covariates out"
            raise PlanError(f"{name} sees images alone, no covariates", "network.context", remedy) from error
        remedy = "Correct network.size, or plan anew with another --set network.name"
        raise PlanError(f"{name} cannot be built: {error}", "network.size", remedy) from error


def sized(name: str, heads: Mapping[str, Head], size: Mapping[str, Any], context: int) -> dict[str, Any]:
    """A family's settings with what the task adds: the entries of a `context`, and the `unit` of boxes in voxels."""
    module, _ = _found(name)
    units = [head.unit for head in heads.values() if isinstance(head, Dense)]
    unit = {"unit": units[0]} if units and getattr(module, "IN_VOXELS", False) else {}
    return {**size, **unit, **({"context": context} if context else {})}


def size_for(
    name: str,
    patch: Sequence[int],
    strides: Sequence[Sequence[int]],
    device: str,
    heads: Mapping[str, Head] | None = None,
) -> tuple[Mapping[str, Any], str, str]:
    """The family's own settings for images of this patch, the reason and its source.

    strides: by which factor each of several stages may reduce each axis, so that `patch` stays whole
    heads:   where they say how long what is looked for is, a family that has use for it says in its function
             `size_of(unit)` what follows: further settings, and the reason
    A family's file says it in its function `size_for` (`size_for_slices` beside `build_slices`); without one it is
    built with its own defaults. Its paper is `PAPER` (`PAPER_SLICES` beside `build_slices`, where it is another).
    Raises PlanError for an unknown name.
    """
    module, function = _found(name)
    # One file may hold several families, told apart by what follows `build`.
    which = function.removeprefix("build") if function.startswith("build") else ""
    chosen = getattr(module, f"size_for{which}", None)
    if chosen is None:
        return {}, "the family's own defaults", ""
    size, because, paper = chosen(patch, strides, device)
    units = [one.unit for one in (heads or {}).values() if isinstance(one, Dense) and (one.lengths or one.heights)]
    if units and (by_unit := getattr(module, f"size_of{which}", None)) is not None:
        more, why = by_unit(max(units))
        size, because = {**size, **more}, f"{because}; {why}"
    return size, because, paper


def pretrained(module: Module, name: str, size: Mapping[str, Any], source: str | Path, inflation: str = "mean") -> str:
    """Take over weights, as far as names and shapes agree, into a module that `build` made; says in words what fitted.

    source:    "auto" for the family's published weights, else a file of weights (safetensors or torch's own)
    inflation: how kernels of one axis less get the axis that they lack: "mean" or "centre"
    Raises PlanError where nothing fits or is published, ResourceError where it cannot be fetched, IntegrityError for
    a file that holds no weights or would run code.
    """
    return take_over(module, _found(name)[0], size, source, inflation)


def is_published(name: str) -> bool:
    """Whether somebody has published weights for the family, so that "auto" can be asked for."""
    return hasattr(_found(name)[0], "published")


def source(name: str) -> tuple[Path, str]:
    """The one file that a family is written in and the name of its `build` in it, for a copy beside a model."""
    module, function = _found(name)
    return Path(str(module.__file__)), function


def members() -> tuple[Member, ...]:
    """Every family in one, two and three axes, with what it can answer and how large it is."""
    found = [_member(name, axes) for name in names() for axes in REFERENCE]
    return tuple(one for one in found if one is not None)


def _member(name: str, axes: int) -> Member | None:
    patch = REFERENCE[axes]
    size, _, _ = size_for(name, patch, halvings(patch), "cpu")
    module, function = _found(name)
    own = f"PAPER{function.removeprefix('build').upper()}"
    return member(name, axes, size, build, getattr(module, own, getattr(module, "PAPER", "")))


def _found(name: str) -> tuple[ModuleType, str]:
    """The family's file and the name of its function."""
    targets = NETWORKS | {point.name: point.value for point in entry_points(group="isocenter.networks")}
    if not isinstance(name, str) or name not in targets:
        raise PlanError(f"there is no network {name!r}", "network.name", f"Choose one of {', '.join(names())}")
    module, _, function = targets[name].partition(":")
    return importlib.import_module(module), function


__all__ = [
    "NETWORKS",
    "Member",
    "build",
    "channels_last",
    "is_published",
    "members",
    "memory_order",
    "names",
    "ordered",
    "plain",
    "pretrained",
    "size_for",
    "sized",
    "source",
]
