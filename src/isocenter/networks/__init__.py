"""Families of network behind one factory. A new family is one file beside this one and its line in `NETWORKS`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from isocenter.added import added
from isocenter.errors import PlanError
from isocenter.networks.benchmark_ranks import Measured, measurements, standing
from isocenter.networks.catalogue import REFERENCE, Member, halvings, made_with, member
from isocenter.networks.layout_in_memory import channels_last, memory_order, ordered, plain
from isocenter.networks.weights import take_over
from isocenter.values import Dense, Head, Vector

if TYPE_CHECKING:
    from torch.nn import Module

NETWORKS = {
    "alexnet": "isocenter.networks.alexnet:build",
    "attention_unet": "isocenter.networks.attention_unet:build",
    "axial": "isocenter.networks.axial:build",
    "capsules": "isocenter.networks.capsules:build",
    "cbam_resnet": "isocenter.networks.resnet:build_cbam",
    "cbam_unet": "isocenter.networks.unet:build_cbam",
    "clip_gru": "isocenter.networks.clips:build_gru",
    "clip_lstm": "isocenter.networks.clips:build_lstm",
    "clip_resnet": "isocenter.networks.clips:build_resnet",
    "clip_transformer": "isocenter.networks.clips:build_transformer",
    "coatnet": "isocenter.networks.coatnet:build",
    "convnext": "isocenter.networks.convnext:build",
    "deeplab": "isocenter.networks.deeplab:build",
    "densenet": "isocenter.networks.densenet:build",
    "efficientnet": "isocenter.networks.efficientnet:build",
    "faster_rcnn": "isocenter.networks.faster_rcnn:build",
    "fcos": "isocenter.networks.fcos:build",
    "fusion": "isocenter.networks.fusion:build",
    "fusion_attention": "isocenter.networks.fusion:build_attention",
    "fusion_late": "isocenter.networks.fusion:build_late",
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
    "transunet": "isocenter.networks.transunet:build",
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
    return tuple(sorted(_targets()))


def build(
    name: str,
    channels: int,
    spatial_dims: int,
    heads: Mapping[str, Head],
    size: Mapping[str, Any],
    context: int = 0,
    told: Mapping[str, Any] | None = None,
) -> Module:
    """A network whose `forward(images, context=None)` gives `{head: tensor}`.

    images:  (batch, channels, *spatial)
    size:    the family's own settings (width, strides, blocks, ...)
    context: entries of a vector (batch, context) that it is given beside the images; 0 for none
    told:    how it is told them, for a family that has a choice: `way`, one of `ways(name)`, `narrow`, `sparsity`
    While it trains it may add to the loss of each sample what it gives as `+`, (batch,), beside its heads.
    A family that is defined by its loss has `loss(outputs, targets, heads)`, which then takes the place of the task's;
    while it trains its outputs may be whatever that needs. Where what it looks at next depends on what there is, as in
    a network of two stages, it says `sees_targets = True`, and `forward(images, context=None, targets=None)` is given
    them in training; without targets it does as much as a step with them, because memory is counted so.
    A file whose families answer with boxes says `BOXES = True`, one for objects told apart `OBJECTS = True`, and
    `TAKES_GAPS = True` one that is given frames that are not there as NaN, and leaves them out, and
    `IN_VOXELS = True` one that has to know how many voxels a length of 1 is long: that is then its setting `unit`.
    Raises PlanError for an unknown name, a head or a context that the family cannot have, a size that it does not know.
    """
    module, function = _found(name)
    way = (told or {}).get("way")
    if context and way is not None and way not in ways(name):
        problem = f"{name} cannot be told by {way!r}"
        raise PlanError(problem, "network.told", f"Choose {' or '.join(ways(name))}")
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
        return getattr(module, function)(
            channels, spatial_dims, dense, vectors, sized(name, heads, size, context, told)
        )
    except (TypeError, ValueError, RuntimeError) as error:  # torch refuses sizes with a RuntimeError
        if context and isinstance(error, TypeError) and "'context'" in str(error):
            remedy = "Choose a family that takes them, such as resnet, vit or unet, or leave the covariates out"
            raise PlanError(f"{name} sees images alone, no covariates", "network.context", remedy) from error
        remedy = "Correct network.size, or plan anew with another --set network.name"
        raise PlanError(f"{name} cannot be built: {error}", "network.size", remedy) from error


def sized(
    name: str,
    heads: Mapping[str, Head],
    size: Mapping[str, Any],
    context: int,
    told: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A family's settings with what the task adds: the `unit` of boxes in voxels, a `context`, and how it is `told`."""
    module, _ = _found(name)
    beside = {"context": context, **({"told": dict(told)} if told and hasattr(module, "TOLD") else {})}
    units = [head.unit for head in heads.values() if isinstance(head, Dense)]
    unit = {"unit": units[0]} if units and getattr(module, "IN_VOXELS", False) else {}
    return {**size, **unit, **(beside if context else {})}


def ways(name: str) -> tuple[str, ...]:
    """How the family can be told numbers beside an image, the usual way first; empty where its file does not say.

    PlanError for an unknown name.
    """
    return tuple(getattr(_found(name)[0], "TOLD", ()))


def rate(name: str, answers: str) -> tuple[float, str]:
    """What the usual learning rate is multiplied by for the family, and why; 1 where its file's `RATE` does not say.

    answers: "dense" or "vector". PlanError for an unknown name.
    """
    rates: Mapping[str, tuple[float, str]] = getattr(_found(name)[0], "RATE", {})
    return rates.get(answers, (1.0, ""))


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


def takes_gaps(name: str) -> bool:
    """Whether the family leaves out frames that are not there, which it is given as NaN: `TAKES_GAPS` in its file."""
    return bool(getattr(_found(name)[0], "TAKES_GAPS", False))


def source(name: str) -> tuple[Path, str]:
    """The one file that a family is written in and the name of its `build` in it, for a copy beside a model."""
    module, function = _found(name)
    return Path(str(module.__file__)), function


def ours() -> tuple[str, ...]:
    """The families whose files lie in this folder, and on which `made_with` therefore has its eye."""
    return tuple(name for name in names() if _targets()[name].startswith(f"{__name__}."))


def members(families: Iterable[str] | None = None) -> tuple[Member, ...]:
    """Every family, or those that are named, in one, two and three axes: what it can answer and how large it is."""
    found = [_member(name, axes) for name in families or names() for axes in REFERENCE]
    return tuple(one for one in found if one is not None)


def _member(name: str, axes: int) -> Member | None:
    patch = REFERENCE[axes]
    size, _, _ = size_for(name, patch, halvings(patch), "cpu")
    module, function = _found(name)
    own = f"PAPER{function.removeprefix('build').upper()}"
    return member(name, axes, size, build, getattr(module, own, getattr(module, "PAPER", "")))


def _found(name: str) -> tuple[ModuleType, str]:
    """The family's file and the name of its function."""
    if not isinstance(name, str) or name not in _targets():
        raise PlanError(f"there is no network {name!r}", "network.name", f"Choose one of {', '.join(names())}")
    module, _, function = _targets()[name].partition(":")
    return importlib.import_module(module), function


def _targets() -> Mapping[str, str]:
    """The file and the function of each family."""
    return NETWORKS | {name: point.value for name, point in added("isocenter.networks").items()}


__all__ = [
    "NETWORKS",
    "Measured",
    "Member",
    "build",
    "channels_last",
    "is_published",
    "made_with",
    "measurements",
    "members",
    "memory_order",
    "names",
    "ordered",
    "ours",
    "plain",
    "pretrained",
    "size_for",
    "sized",
    "source",
    "standing",
    "takes_gaps",
    "ways",
]
