from __future__ import annotations

import ast
import importlib.util
import math
import sys
from itertools import pairwise

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dirty_memory import dirty_memory
from hilum import networks
from hilum.errors import PlanError
from hilum.networks import factory, network_parts
from hilum.runtime.bundle.network import AfterLabels
from hilum.tasks.detection.question import Detection
from hilum.training.step import computation
from hilum.training.step.computation import Compute
from hilum.values import Dense, Head, Vector
from hilum.values.prediction import Boxes
from matrices import only, rarely

torch.set_num_threads(1)

STRIDES = {
    "one stage": [[1, 1]],
    "picture": [[1, 1], [2, 2], [2, 2]],
    "one axis late": [[1, 1], [2, 1], [2, 2]],
    "cube": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "thick slices": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "thicker slices": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]],
    "by three": [[1, 1, 1], [3, 1, 2]],
}


PICTURE, VOLUME, PLANE = STRIDES["picture"], STRIDES["thick slices"], STRIDES["picture"]
FEW_FEATURES = {"hidden": 24, "inner": 48, "heads": 3, "width": 8}
SMALL_STAGES = {
    axes: {
        "features": [8, 16, 16],
        "kernels": [[3] * axes] * 3,
        "strides": strides,
        "decoder_convolutions": [1, 1],
        "deep_supervision": 1,
    }
    for axes, strides in ((2, PICTURE), (3, VOLUME))
}
FEW_STRIDES = {axes: [[2] * axes] * 2 + [[1] * axes] * 3 for axes in (2, 3)}
SMALL_ALEXNET = {"widths": [4, 8, 8, 8, 8], "hidden": 16, "cells": 2, "stem_stride": 1, "dropout": 0.0}
SMALL_DEEPLAB = {"width": 8, "inside": 16, "rates": [1, 2], "dropout": 0.0}
SMALL_EFFICIENTNET = {"stages": [[1, 3, 8, 1, 1], [2, 5, 8, 2, 2]], "width": 0.25, "last": 64, "dropout": 0.0}
SMALL_MOBILENET = {"stages": [[1, 8, 1, 1], [2, 8, 2, 2]], "width": 0.25, "last": 16, "dropout": 0.0}
SMALL_COATNET = {"blocks": [1, 2], "convolved": 1, "width": 8, "stem": 8, "stem_stride": 1, "head": 8}
SMALL_CAPSULES = {"width": 8, "kernel": 3, "types": 4, "cells": 2, "pose": 4, "upper_pose": 6}
SMALL_TRANSUNET = {"width": 8, "layers": 1, "hidden": 16, "heads": 2}
SMALL_CLIP = {"blocks": [1, 1], "width": 8, "dropout": 0.0, "frames": 2}
VIT_WITH_ALL = {
    "token": 4,
    "scales": [1, 2],
    "overlap": True,
    "channelwise": True,
    "layers": 2,
    "width": 16,
    "heads": 2,
}
# The smallest member of each family in each number of axes: family, size, spatial shape.
SMALL_SAM = {
    **{"image": 32, "patch": 8, "width": 16, "depth": 2, "heads": 2, "window": 2, "global_blocks": [1]},
    **{"features": 32, "layers": 1, "feed_forward": 16},
}
SMALLEST = {
    "alexnet 2D": ("alexnet", SMALL_ALEXNET, (13, 9)),
    "alexnet 3D": ("alexnet", SMALL_ALEXNET, (9, 7, 11)),
    "axial 1D": ("axial", {"strides": [[1], [2]], "patch": [31], "width": 8, "heads": 2}, (31,)),
    "axial 2D": ("axial", {"strides": PICTURE, "patch": [24, 20], "width": 8, "heads": 2, "local": 2}, (15, 20)),
    "axial 3D": ("axial", {"strides": VOLUME, "patch": [8, 12, 20], "width": 8, "heads": 2}, (6, 13, 20)),
    "capsules 1D": ("capsules", SMALL_CAPSULES, (31,)),
    "capsules 2D": ("capsules", SMALL_CAPSULES, (13, 9)),
    "capsules 3D": ("capsules", SMALL_CAPSULES, (9, 7, 11)),
    "cbam_resnet 2D": ("cbam_resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (13, 9)),
    "cbam_resnet 3D": ("cbam_resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (9, 7, 11)),
    "attention_unet 2D": ("attention_unet", {"strides": PICTURE, "width": 4}, (12, 20)),
    "attention_unet 3D": ("attention_unet", {"strides": VOLUME, "width": 8}, (6, 13, 20)),
    "coatnet 1D": ("coatnet", {**SMALL_COATNET, "patch": [31]}, (31,)),
    "coatnet 2D": ("coatnet", {**SMALL_COATNET, "patch": [13, 9]}, (13, 9)),
    "coatnet 3D": ("coatnet", {**SMALL_COATNET, "patch": [9, 7, 11]}, (9, 7, 11)),
    "clip_resnet 1D": ("clip_resnet", SMALL_CLIP, (31,)),
    "clip_resnet 2D": ("clip_resnet", SMALL_CLIP, (13, 9)),
    "clip_resnet 3D": ("clip_resnet", SMALL_CLIP, (9, 7, 11)),
    "clip_gru 1D": ("clip_gru", SMALL_CLIP | {"hidden": 8}, (31,)),
    "clip_gru 2D": ("clip_gru", SMALL_CLIP | {"hidden": 8, "layers": 2}, (13, 9)),
    "clip_gru 3D": ("clip_gru", SMALL_CLIP | {"hidden": 8, "bidirectional": False}, (9, 7, 11)),
    "clip_lstm 2D": ("clip_lstm", SMALL_CLIP | {"hidden": 8, "within": 3}, (13, 9)),
    "clip_lstm 3D": ("clip_lstm", SMALL_CLIP | {"hidden": 8}, (9, 7, 11)),
    "clip_transformer 1D": ("clip_transformer", SMALL_CLIP | {"hidden": 8, "heads": 2}, (31,)),
    "clip_transformer 2D": ("clip_transformer", SMALL_CLIP | {"hidden": 8, "heads": 2}, (13, 9)),
    "clip_transformer 3D": ("clip_transformer", SMALL_CLIP | {"hidden": 8, "heads": 2}, (9, 7, 11)),
    "convnext 2D": ("convnext", {"blocks": [1, 1], "width": 8, "kernel": 3, "stem_stride": 2}, (13, 9)),
    "convnext 3D": ("convnext", {"blocks": [1, 1], "width": 8, "kernel": 3, "stem_stride": 2}, (9, 7, 11)),
    "deeplab 2D": ("deeplab", {**SMALL_DEEPLAB, "strides": [[1, 1], [1, 1], [2, 2], [2, 2], [2, 2]]}, (13, 9)),
    "deeplab 3D": (
        "deeplab",
        {**SMALL_DEEPLAB, "planar": 2, "strides": [[1, 1, 1], [1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]},
        (9, 7, 6),
    ),
    "densenet 2D": ("densenet", {"blocks": [2, 2], "growth": 4, "width": 8, "dropout": 0.0}, (13, 9)),
    "densenet 3D": ("densenet", {"blocks": [2, 2], "growth": 4, "width": 8, "dropout": 0.0}, (9, 7, 11)),
    "diffusion_unet 2D": ("diffusion_unet", {"width": 8, "levels": 2}, (12, 20)),
    "diffusion_unet 3D": ("diffusion_unet", {"width": 8, "levels": 2}, (6, 5, 8)),
    "efficientnet 2D": ("efficientnet", SMALL_EFFICIENTNET, (13, 9)),
    "efficientnet 3D": ("efficientnet", SMALL_EFFICIENTNET, (9, 7, 11)),
    "fusion 2D": ("fusion", {"strides": PICTURE, "width": 8, "deep_supervision": 1}, (12, 20)),
    "fusion 3D": ("fusion", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "fusion_attention 2D": ("fusion_attention", {"strides": PICTURE, "width": 4, "deep_supervision": 1}, (12, 20)),
    "fusion_attention 3D": ("fusion_attention", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "fusion_late 2D": ("fusion_late", {"strides": PICTURE, "width": 8, "deep_supervision": 1}, (12, 20)),
    "fusion_late 3D": ("fusion_late", {"strides": VOLUME, "width": 4, "deep_supervision": 1}, (6, 12, 20)),
    "inception 2D": ("inception", {"blocks": [1, 1, 1], "width": 8, "stem_stride": 1, "dropout": 0.0}, (13, 9)),
    "inception 3D": ("inception", {"blocks": [1, 1, 1], "width": 8, "stem_stride": 1, "dropout": 0.0}, (9, 7, 11)),
    "inflated_resnet 2D": ("inflated_resnet", {"width": 8, "dropout": 0.0, "strides": FEW_STRIDES[2]}, (13, 9)),
    "inflated_resnet 3D": (
        "inflated_resnet",
        {"width": 8, "dropout": 0.0, "planar": 2, "strides": FEW_STRIDES[3]},
        (9, 7, 11),
    ),
    "lenet 2D": ("lenet", {"maps": [2, 4], "hidden": [16, 8]}, (13, 9)),
    "lenet 3D": ("lenet", {"maps": [2, 4], "hidden": [16, 8]}, (9, 7, 11)),
    "mil_attention 3D": ("mil_attention", {"maps": 8, "dropout": 0.0}, (9, 7, 11)),
    "mil_top 3D": ("mil_top", {"maps": 8, "dropout": 0.0}, (9, 7, 11)),
    "mobilenet 2D": ("mobilenet", SMALL_MOBILENET, (13, 9)),
    "mobilenet 3D": ("mobilenet", SMALL_MOBILENET, (9, 7, 11)),
    "mednext 2D": ("mednext", {"halvings": 2, "width": 8, "deep_supervision": 1}, (12, 20)),
    "mednext 3D": ("mednext", {"halvings": 2, "width": 8, "deep_supervision": 1}, (8, 12, 20)),
    "multiscale_unet 2D": ("multiscale_unet", {"strides": PICTURE, "width": 8, "deep_supervision": 1}, (12, 20)),
    "multiscale_unet 3D": ("multiscale_unet", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "plain_conv_unet 2D": ("plain_conv_unet", {**SMALL_STAGES[2], "convolutions": [1, 2, 1]}, (12, 20)),
    "plain_conv_unet 3D": ("plain_conv_unet", {**SMALL_STAGES[3], "convolutions": [1, 2, 1]}, (6, 12, 20)),
    "pseudo3d_resnet 2D": ("pseudo3d_resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (13, 9)),
    "pseudo3d_resnet 3D": ("pseudo3d_resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (9, 7, 11)),
    "residual_encoder_unet 2D": ("residual_encoder_unet", {**SMALL_STAGES[2], "blocks": [1, 2, 1]}, (12, 20)),
    "residual_encoder_unet 3D": ("residual_encoder_unet", {**SMALL_STAGES[3], "blocks": [1, 2, 1]}, (6, 12, 20)),
    "resnet 2D": ("resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (13, 9)),
    "resnet 3D": ("resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (9, 7, 11)),
    "resnet_slices 3D": ("resnet_slices", {"width": 8, "dropout": 0.0, "strides": FEW_STRIDES[2]}, (9, 7, 4)),
    "resnext 2D": ("resnext", {"blocks": [1, 1], "width": 16, "groups": 4, "dropout": 0.0}, (13, 9)),
    "resnext 3D": ("resnext", {"blocks": [1, 1], "width": 16, "groups": 4, "dropout": 0.0}, (9, 7, 11)),
    "se_resnet 2D": ("se_resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (13, 9)),
    "se_resnet 3D": ("se_resnet", {"blocks": [1, 1], "width": 8, "dropout": 0.0}, (9, 7, 11)),
    "sam 2D": ("sam", SMALL_SAM, (15, 20)),
    "sam 3D": ("sam", {**SMALL_SAM, "axis": 0}, (3, 13, 20)),
    "segresnet 2D": ("segresnet", {"strides": PICTURE, "width": 8, "dropout": 0.0, "deep_supervision": 1}, (12, 20)),
    "segresnet 3D": ("segresnet", {"strides": VOLUME, "width": 8, "dropout": 0.0, "deep_supervision": 1}, (6, 12, 20)),
    "slide_windows 3D": ("slide_windows", {"maps": 8, "width": 16, "stages": 2, "dropout": 0.0}, (9, 7, 11)),
    "swin_unetr 2D": ("swin_unetr", {"width": 12, "window": 2}, (30, 40)),
    "timm 2D": ("timm", {"model": "resnet10t", "dropout": 0.0, "settings": {"zero_init_last": False}}, (64, 48)),
    "transunet 1D": ("transunet", {"strides": [[1], [2]], "patch": [31], **SMALL_TRANSUNET}, (31,)),
    "transunet 2D": ("transunet", {"strides": PICTURE, "patch": [24, 20], **SMALL_TRANSUNET}, (15, 20)),
    "transunet 3D": ("transunet", {"strides": VOLUME, "patch": [8, 12, 20], **SMALL_TRANSUNET}, (6, 13, 20)),
    "cbam_unet 3D": ("cbam_unet", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "grouped_unet 3D": ("grouped_unet", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "se_unet 2D": ("se_unet", {"strides": PICTURE, "width": 8, "deep_supervision": 1}, (12, 20)),
    "voxelmorph 3D": ("voxelmorph", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "separable_unet 3D": ("separable_unet", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "unet 2D": ("unet", {"strides": PICTURE, "width": 8, "deep_supervision": 1}, (12, 20)),
    "unet 3D": ("unet", {"strides": VOLUME, "width": 8, "deep_supervision": 1}, (6, 12, 20)),
    "unet_plus_plus 2D": ("unet_plus_plus", {"strides": PICTURE, "width": 8}, (12, 20)),
    "unet_plus_plus 3D": ("unet_plus_plus", {"strides": VOLUME, "width": 8}, (6, 13, 20)),
    "unet_slices 3D": ("unet_slices", {"strides": PLANE, "width": 8, "axis": 0, "deep_supervision": 1}, (5, 12, 20)),
    "unrolled 2D": ("unrolled", {"steps": 2, "width": 8}, (12, 20)),
    "vgg 2D": ("vgg", {"convolutions": [1, 1], "width": 8, "dropout": 0.0}, (13, 9)),
    "vgg 3D": ("vgg", {"convolutions": [1, 1], "width": 8, "dropout": 0.0}, (9, 7, 11)),
    "vit 1D": ("vit", {"token": 4, "image": [31], "layers": 1, "width": 16, "heads": 2}, (31,)),
    "vit 2D": ("vit", {"token": 4, "image": [13, 9], "layers": 1, "width": 16, "heads": 2}, (13, 9)),
    "vit 3D": ("vit", {"token": [4, 4, 2], "image": [9, 7, 11], "layers": 1, "width": 16, "heads": 2}, (9, 7, 11)),
    "vit with all 3D": ("vit", VIT_WITH_ALL, (9, 7, 11)),
    "unetr 2D": ("unetr", {"patch": [32, 48], **FEW_FEATURES}, (30, 40)),
    "unetr 3D": ("unetr", {"patch": [16, 32, 32], **FEW_FEATURES}, (16, 24, 30)),
    "vnet 2D": ("vnet", {"strides": PICTURE, "width": 4, "dropout": 0.0}, (12, 20)),
    "vnet 3D": ("vnet", {"strides": VOLUME, "width": 4, "dropout": 0.0}, (6, 13, 20)),
}
# One of each family: the first that stands there.
FIRST = {name: which for which, (name, _, _) in reversed(SMALLEST.items())}
# These have one map of outputs and nothing beside it.
ONE_MAP = ("diffusion_unet", "plain_conv_unet", "residual_encoder_unet", "sam", "unrolled")
# These have tests of their own, test_pyramid.py, test_detectors.py and test_mask_rcnn.py.
DETECTORS, OBJECTS = ("faster_rcnn", "fcos", "retinanet"), ("mask_rcnn",)
BOXES = ("pyramid", "yolox", *DETECTORS)
CLIPS = ("clip_gru", "clip_lstm", "clip_resnet", "clip_transformer")
OF_MONAI = ("attention_unet", "mednext", "swin_unetr", "unet_plus_plus", "unetr", "vnet")
# Encoder-decoders that continue images of any size.
OWN_SHAPE = ("axial", "transunet")
FUSION = ("fusion", "fusion_attention", "fusion_late")
# The libraries that a file needs beside torch; of ours it needs only files beside it.
WRAPPED = {
    **{key: {"timm"} for key in ("sam", "timm")},
    **{key: {"torchvision"} for key in (*DETECTORS, *OBJECTS)},
    **{key: {"monai"} for key in ("diffusion_unet", *OF_MONAI)},
    # One file, whose transformers need einops.
    **{
        key: {"monai", "einops"}
        for key in ("attention_unet", "mednext", "swin_unetr", "unet_plus_plus", "unetr", "vnet")
    },
}
# What a family is not made for, by number of axes.
PICTURES_ALONE, VOLUMES_ALONE = (
    ("timm", "fcos", "faster_rcnn", "mask_rcnn", "unrolled"),
    ("unet_slices", "resnet_slices", "mil_attention", "mil_top", "slide_windows"),
)
NONE_FOR = {*((name, 3) for name in PICTURES_ALONE), *((name, 2) for name in VOLUMES_ALONE)}
# What takes prompts has weights that only these move, masks of whole objects, and no export: test_sam.py.
PROMPTED = ("sam",)
# Its last layers begin at 0, so that its first weights learn from the second step on: test_flow.py.
STILL = ("diffusion_unet", *PROMPTED)
# torch's older exporter loses the number of maps among the windows; in test_of_monai.py the newer one takes it.
NEWER_EXPORT = ("swin_unetr",)
# These have coarser outputs beside the finest while they train.
OF_UNET = ("cbam_unet", "grouped_unet", "se_unet", "separable_unet", "unet", "unet_slices", "voxelmorph")
COARSER = (*FUSION, "mednext", "multiscale_unet", "plain_conv_unet", "residual_encoder_unet", "segresnet", *OF_UNET)
DENSE = (
    "deeplab",
    "diffusion_unet",
    "sam",
    "unrolled",
    *COARSER,
    *OWN_SHAPE,
    *(name for name in OF_MONAI if name not in COARSER),
)


def smallest(which: str, heads: dict[str, Head] | None = None) -> tuple[torch.nn.Module, torch.Tensor]:
    """The network and a batch of two images, each with two channels."""
    name, size, shape = SMALLEST[which]
    torch.manual_seed(0)
    wanted = heads or ({"mask": Dense(3)} if name in DENSE else {"class": Vector(3)})
    return factory.build(name, 2, len(shape), wanted, size), torch.randn(2, 2, *shape)


def unet(strides: list[list[int]], channels: int = 1, heads: dict | None = None, **size: int) -> torch.nn.Module:
    torch.manual_seed(0)
    wanted = {"mask": Dense(3)} if heads is None else heads
    return factory.build("unet", channels, len(strides[0]), wanted, {"strides": strides, "width": 4, **size})


def resnet(spatial_dims: int, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build("resnet", 2, spatial_dims, {"class": Vector(5)}, {"width": 4, "blocks": [1, 1, 1], **size})


def learns(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Every weight gets a finite gradient, and some of it is not 0."""
    sum(output.float().square().mean() for output in network(images).values()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    assert any(weight.grad.abs().max() > 0 for weight in network.parameters())


@pytest.mark.parametrize("strides", STRIDES.values(), ids=STRIDES)
@pytest.mark.parametrize("channels", only([3], [1, 3]))
def test_a_unet_answers_for_every_voxel_of_its_input_and_learns(strides, channels):
    shape = [2 * math.prod(stride) for stride in zip(*strides, strict=True)]
    images = torch.randn(2, channels, *shape)
    network = unet(strides, channels, {"mask": Dense(3), "edge": Dense(1), "class": Vector(4)})
    outputs = network(images)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "mask": (2, 3, *shape),
        "edge": (2, 1, *shape),
        "class": (2, 4),
    }
    learns(network, images)


@settings(max_examples=10)
@given(st.integers(2, 3), st.data())
def test_a_unet_keeps_the_shape_for_any_strides(ndim, data):
    later = data.draw(st.lists(st.tuples(*[st.sampled_from([1, 2])] * ndim), max_size=3))
    strides = [[1] * ndim, *map(list, later)]
    shape = [math.prod(axis) * data.draw(st.integers(1, 2)) for axis in zip(*strides, strict=True)]
    shape[0] *= 2  # instance normalisation needs more than one voxel
    assert unet(strides)(torch.randn(1, 1, *shape))["mask"].shape == (1, 3, *shape)


def test_no_convolution_goes_across_an_axis_while_its_voxels_are_too_long():
    network = unet(STRIDES["thicker slices"])
    kernels = [tuple(block.first.kernel_size) for block in network.encoder]
    assert kernels == [(1, 3, 3), (1, 3, 3), (1, 3, 3), (3, 3, 3)]
    slices = torch.randn(1, 1, 4, 8, 8)
    other = slices.clone()
    other[:, :, 2:] += 1
    convolution = network.encoder[0].first  # the normalisation after it sees all slices
    assert torch.equal(convolution(slices)[:, :, :2], convolution(other)[:, :, :2])


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("size", [{}, {"stem_stride": 2}, {"blocks": [2, 1], "dropout": 0.0}], ids=str)
def test_a_resnet_answers_once_for_the_whole_image_and_learns(spatial_dims, size):
    images = torch.randn(2, 2, *[13, 9, 11][:spatial_dims])
    network = resnet(spatial_dims, **size)
    assert network(images)["class"].shape == (2, 5)
    learns(network, images)


def test_each_stage_of_a_resnet_but_the_first_halves_the_resolution():
    network = resnet(2).eval()
    sizes = []
    for layer in network.body:
        layer.register_forward_hook(lambda layer, given, output: sizes.append(output.shape[-1]))
    network(torch.randn(1, 2, 32, 32))
    assert sizes[0] == 32
    assert sorted(set(sizes), reverse=True) == [32, 16, 8]


@pytest.mark.parametrize("make", [lambda: unet(STRIDES["thick slices"]), lambda: resnet(3)])
def test_weights_make_the_same_network_again(make):
    network, again = make().eval(), make().eval()
    with torch.no_grad():
        for weight in again.parameters():
            weight.add_(1)
    again.load_state_dict(network.state_dict())
    images = torch.randn(1, network.state_dict()[next(iter(network.state_dict()))].shape[1], 8, 16, 16)
    for ours, theirs in zip(network(images).values(), again(images).values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("make", [lambda: (unet(STRIDES["cube"]), 1), lambda: (resnet(3), 2)])
def test_half_the_bits_give_nearly_the_same_answer(make):
    network, channels = make()
    images = torch.randn(1, channels, 8, 8, 8)
    network.eval()
    with torch.no_grad():
        exact = next(iter(network(images).values()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = next(iter(network(images).values()))
    assert rough.dtype == torch.bfloat16
    assert_allclose(rough.float(), exact, atol=0.05 * exact.abs().max().item())


def test_the_number_of_weights_is_that_counted_by_hand():
    """One stage: 3 x 3 convolutions 1 -> 4 and 4 -> 4, a 1 x 1 shortcut, two norms, a head of 3."""
    counted = sum(weight.numel() for weight in unet(STRIDES["one stage"]).parameters())
    assert counted == 9 * 4 + 9 * 4 * 4 + 4 + 2 * (4 + 4) + (4 * 3 + 3)
    widths = [block.first.out_channels for block in unet([[1, 1]] + [[2, 2]] * 3, widest=10).encoder]
    assert widths == [4, 8, 10, 10]
    sizes = [sum(w.numel() for w in resnet(2, width=width).parameters()) for width in (4, 8, 16)]
    assert all(3 < large / small < 4.5 for small, large in pairwise(sizes))


@pytest.mark.parametrize("which", only(FIRST.values(), [one for one in SMALLEST if SMALLEST[one][0] not in STILL]))
def test_every_family_answers_in_the_shape_of_its_heads_and_every_weight_learns(which):
    name, _, shape = SMALLEST[which]
    heads: dict[str, Head] = {"class": Vector(4)}
    expected: dict[str, tuple[int, ...]] = {"class": (2, 4)}
    if name in DENSE:
        heads |= {"mask": Dense(3), "edge": Dense(1)}
        expected |= {"mask": (2, 3, *shape), "edge": (2, 1, *shape)}
    if name in ONE_MAP:
        heads, expected = {"mask": Dense(3)}, {"mask": (2, 3, *shape)}
    network, images = smallest(which, heads)
    outputs = network(images)
    assert {head: tuple(output.shape) for head, output in outputs.items() if "@" not in head} == expected
    sum(output.square().mean() for output in outputs.values()).backward()
    still = unmoved(network)
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    if still:  # the mean over a batch takes away what is added just before it: running means do not
        sum(output.square().mean() for output in network.eval()(images).values()).backward()
    assert still & unmoved(network) == set()


def unmoved(network: torch.nn.Module) -> set[str]:
    """The weights whose gradient is absent or nothing but 0."""
    return {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("which", [which for which in SMALLEST if len(SMALLEST[which][2]) == 3])
@pytest.mark.whole
def test_no_gradient_of_a_volume_depends_on_what_the_memory_held_before(which, channels_last):
    network, images = smallest(which)
    way = Compute(half=True, channels_last=channels_last)
    way.apply(computation.with_exact_gradients(network))
    found = []
    for held in (0.0, math.nan):
        torch.manual_seed(0)  # what is left out at random is the same
        network.zero_grad()
        dirty_memory(held)
        with way.autocast("cpu"):
            answer = next(iter(network(way.order_images(network, images)).values()))
        dirty_memory(held)
        answer.float().square().mean().backward()
        found.append({name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None})
    clean, dirty = found
    assert [name for name, gradient in clean.items() if not torch.equal(gradient, dirty[name])] == []


@pytest.mark.parametrize("which", only(FIRST.values(), [one for one in SMALLEST if SMALLEST[one][0] in COARSER]))
def test_coarser_outputs_are_given_while_training_only_and_change_no_other(which):
    network, images = smallest(which)
    assert list(network(images)) == ["mask", "mask@1"]
    coarse = network(images)["mask@1"].shape
    assert coarse[:2] == (2, 3)
    assert tuple(coarse[-2:]) == tuple(n // 2 for n in images.shape[-2:])
    name, size, shape = SMALLEST[which]
    plain = factory.build(name, 2, len(shape), {"mask": Dense(3)}, {**size, "deep_supervision": 0})
    plain.load_state_dict({key: network.state_dict()[key] for key in plain.state_dict()})
    assert list(network.eval()(images)) == ["mask"]
    assert torch.equal(network(images)["mask"], plain.eval()(images)["mask"])


# Of each member of a family that has two axes those, and of the others all, at every test.
EXPORTED = [
    which if which.endswith("2D") or f"{which[:-2]}2D" not in SMALLEST else pytest.param(which, marks=pytest.mark.whole)
    for which in SMALLEST
    if SMALLEST[which][0] not in (*NEWER_EXPORT, *PROMPTED, "unrolled")
]


@pytest.mark.parametrize("which", EXPORTED)
@pytest.mark.whole
def test_onnxruntime_gives_the_same_answer_for_another_batch(which, tmp_path):
    network, images = smallest(which)
    network(images)  # running means that are not those of a fresh network
    network.eval()
    path = tmp_path / "network.onnx"
    torch.onnx.export(
        _Plain(network).eval(),
        (images,),
        path,
        dynamo=False,  # a tenth of the time of the other way, and as exact
        input_names=["images"],
        dynamic_axes={"images": {0: "batch"}},
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    others = torch.randn(3, *images.shape[1:])
    [given] = session.run(None, {"images": others.numpy()})
    [expected] = [output.detach().numpy() for output in network(others).values()]
    assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


class _Plain(torch.nn.Module):
    """A network with one head as export takes it: a tensor in, a tensor out."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return next(iter(self.network(images).values()))


# One of each kind at every test; all of them take minutes, and `make matrix` teaches every family in every way.
BY_HEART = [
    which if which in ("fusion 2D", "resnet 2D", "unet 2D") else pytest.param(which, marks=pytest.mark.whole)
    for which in SMALLEST
    if SMALLEST[which][0] not in PROMPTED
]


@pytest.mark.parametrize("which", BY_HEART)
def test_every_family_learns_two_images_by_heart(which):
    network, images = smallest(which)
    target = torch.tensor([0, 2])
    if SMALLEST[which][0] == "voxelmorph":  # it answers on half the grid: there no voxel differs from its neighbour
        for axis in range(2, images.ndim):
            images = images.index_select(axis, torch.arange(0, images.shape[axis], 2)).repeat_interleave(2, axis)
    if SMALLEST[which][0] in DENSE:
        target = (images[:, 0] > 0).long() + (images[:, 1] > 0).long()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(next(iter(network(images).values())), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("which", SMALLEST)
@pytest.mark.whole
def test_a_plan_can_lead_every_family_over_its_patch_without_memory(which):
    with torch.device("meta"), torch.inference_mode():
        network, images = smallest(which)
        [output] = network.eval()(images).values()
    assert output.is_meta
    assert output.shape[:2] == (2, 3)


@pytest.mark.parametrize("which", only([FIRST[name] for name in ("fusion", "timm", "unet", "vnet")], SMALLEST))
def test_the_file_of_a_family_makes_the_same_network_alone(which, tmp_path, monkeypatch):
    """A copy of it travels with a model, to where hilum is not."""
    network, images = smallest(which)
    name, size, shape = SMALLEST[which]
    path, function = factory.builder_source(name)
    (tmp_path / "travelled.py").write_bytes(path.read_bytes())
    spec = importlib.util.spec_from_file_location("travelled", tmp_path / "travelled.py")
    travelled = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "travelled", travelled)
    spec.loader.exec_module(travelled)
    heads = factory.head_arguments(name, {"mask": Dense(3)} if name in DENSE else {"class": Vector(3)})
    again = getattr(travelled, function)(2, len(shape), **heads, **factory.family_settings(name, {}, size, 0))
    again.load_state_dict(network.state_dict())
    for ours, theirs in zip(network.eval()(images).values(), again.eval()(images).values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("every", [4, rarely(1)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.whole)])
@pytest.mark.parametrize(
    "patch",
    [(28, 28), *(pytest.param(one, marks=pytest.mark.whole) for one in ((512, 384), (28, 28, 28), (96, 96, 24)))],
    ids=str,
)
def test_the_size_that_a_family_chooses_fits_the_patch_it_was_chosen_for(patch, device, every):
    axes = len(patch)
    # 28 can be halved twice, and 24 slices of thick voxels are halved once.
    strides = [[1] * axes, *[[2] * axes] * 2] if max(patch) == 28 else [[1] * axes, [2] * axes, [2, 2, 1][:axes]]
    for name in list(factory.family_names())[::every]:
        size, because, _ = factory.size_for(name, patch, strides, device)
        head: Head = Dense(2) if name in DENSE else Vector(2)
        if (name, axes) in NONE_FOR:
            continue
        if name in BOXES:
            head = Dense(2 + 2 * axes, lengths=axes, offsets=axes)
        if name in OBJECTS:
            head = Dense(2, heights=1)
        with torch.device("meta"), torch.inference_mode():
            network = factory.build(name, 1, axes, {"head": head}, size).eval()
            output = network(torch.empty(1, 1, *patch))["head"]
        channels = head.size if isinstance(head, Vector) else head.channels
        assert tuple(output.shape) == (1, channels, *(patch if isinstance(head, Dense) else ()))
        assert str(patch[0]) in because


def test_two_networks_of_one_seed_are_equal_and_of_two_are_not():
    first, same = unet(STRIDES["picture"]), unet(STRIDES["picture"])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    other = factory.build("unet", 1, 2, {"mask": Dense(3)}, {"strides": STRIDES["picture"], "width": 4})
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "spatial_dims", "heads", "size", "says"),
    [
        (
            "perceptron",
            2,
            {"mask": Dense(2)},
            {},
            r"no network 'perceptron'\. Use inception; there are alexnet, .*densenet, ",
        ),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1]], "depth": 4}, "depth"),
        ("unet", 2, {"mask": Dense(2)}, {}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": []}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1, 1], [2, 2, 2]]}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[2, 2], [2, 2]]}, "strides"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1]], "width": -4}, "cannot be built"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": [[1, 1]], "width": "wide"}, "cannot be built"),
        ("unet", 4, {"mask": Dense(2)}, {"strides": [[1] * 4]}, "4 dimensions"),
        ("resnet", 0, {"class": Vector(2)}, {}, "0 dimensions"),
        ("resnet", 2, {"mask": Dense(2)}, {}, "hoose unet"),
        ("resnet", 2, {"class": Vector(2)}, {"strides": [[1, 1]]}, "strides"),
        ("resnet", 2, {"class": Vector(2)}, {"blocks": 3}, "cannot be built"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": PICTURE, "deep_supervision": 2}, "coarser outputs"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": PICTURE, "kernels": [[3, 3]]}, "kernels"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": PICTURE, "kernels": [[2, 2]] * 3}, "odd"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": PICTURE, "blocks": [1, 0, 1]}, "blocks"),
        ("unet", 2, {"mask": Dense(2)}, {"strides": PICTURE, "activation": "step"}, "leaky_relu"),
        ("unet_slices", 2, {"mask": Dense(2)}, {"strides": PICTURE, "axis": 0}, "hoose unet"),
        ("unet_slices", 3, {"mask": Dense(2)}, {"strides": PICTURE, "axis": 3}, "axis 3"),
        ("unet_slices", 3, {"mask": Dense(2)}, {"strides": PICTURE, "axis": 0, "neighbours": -1}, "neighbours"),
        ("unet_slices", 3, {"mask": Dense(2)}, {"strides": VOLUME, "axis": 0}, "strides"),
        ("plain_conv_unet", 2, {"mask": Dense(2)}, {**SMALL_STAGES[2], "convolutions": [1]}, "3 stages need"),
        ("plain_conv_unet", 2, {"mask": Dense(2)}, {**SMALL_STAGES[3], "convolutions": [1] * 3}, "2 numbers"),
        ("plain_conv_unet", 2, {"class": Vector(2)}, {**SMALL_STAGES[2], "convolutions": [1] * 3}, "nothing else"),
        ("residual_encoder_unet", 2, {"mask": Dense(2)}, {**SMALL_STAGES[2], "slicewise": True}, "slices"),
        ("residual_encoder_unet", 2, {"mask": Dense(2)}, {**SMALL_STAGES[2], "norm": "layer"}, "'layer'"),
        ("segresnet", 2, {"mask": Dense(2)}, {}, "strides"),
        ("segresnet", 2, {"mask": Dense(2)}, {"strides": VOLUME}, "strides"),
        ("segresnet", 2, {"mask": Dense(2)}, {"strides": PICTURE, "blocks": [1]}, "blocks"),
        ("segresnet", 2, {"mask": Dense(2)}, {"strides": PICTURE, "deep_supervision": 2}, "coarser outputs"),
        ("densenet", 2, {"mask": Dense(2)}, {}, "hoose unet"),
        ("densenet", 2, {"class": Vector(2)}, {"depth": 121}, "depth"),
        ("timm", 2, {"mask": Dense(2)}, {}, "hoose unet"),
        ("timm", 3, {"class": Vector(2)}, {}, "choose resnet"),
        ("timm", 2, {"class": Vector(2)}, {"model": "no_such_model"}, "no_such_model"),
        ("timm", 2, {"class": Vector(2)}, {"model": "hf_hub:timm/resnet18.a1_in1k"}, "hf_hub"),
        ("timm", 2, {"class": Vector(2)}, {"model": "resnet10t", "enlarge": 0}, "enlarge"),
        ("unet", 2, {"boxes": Boxes(2)}, {"strides": [[1, 1]]}, "'boxes'"),
    ],
)
def test_a_network_that_cannot_be_is_refused(name, spatial_dims, heads, size, says):
    with pytest.raises(PlanError, match=says):
        factory.build(name, 1, spatial_dims, heads, size)


def test_every_family_of_the_index_has_its_smallest_member_here():
    assert {name for name, _, _ in SMALLEST.values()} | {*BOXES, *OBJECTS} == set(networks.NETWORKS)


def test_the_file_of_a_family_needs_torch_and_the_library_it_wraps_alone():
    """A copy of it travels with a model; detectors bring what they share: how levels become a map."""
    for name in networks.NETWORKS:
        _needs_only_what_it_wraps(name)


def _needs_only_what_it_wraps(name: str) -> None:
    path, function = factory.builder_source(name)
    tree = ast.parse(path.read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    needed = {module.partition(".")[0] for module in imported} - set(sys.stdlib_module_names) - {"hilum"}
    assert needed == {"torch"} | WRAPPED.get(name, set()), name
    assert all(module.startswith("hilum.networks") for module in imported if module.startswith("hilum")), name
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_a_network_takes_a_window_of_zeros_without_a_number_being_lost():
    outputs = unet(STRIDES["cube"])(torch.zeros(1, 1, 8, 8, 8))["mask"]
    assert np.isfinite(outputs.detach().numpy()).all()


DETECTOR = {"inside": 32, "layers": [1, 2]}
OBJECT = {"inside": 16, "hidden": 32, "outline": [16], "anchor": 8.0, "proposals": 60, "objects": 20, "samples": 32}
LEVELS = {"strides": [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2]], "width": 8, "widest": 16, "inside": 8}
OF_BOXES = {
    "faster_rcnn": {**DETECTOR, "deep": 32, "samples": 64},
    "fcos": DETECTOR,
    "mask_rcnn": OBJECT,
    "pyramid": LEVELS,
    "retinanet": DETECTOR,
    "yolox": LEVELS,
}


def built(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """The smallest network of a family, and two images of two channels."""
    torch.manual_seed(0)
    if name in OF_BOXES:
        heads = {"objects": Dense(2, heights=1)} if name == "mask_rcnn" else Detection(("cell",), 2, 16.0).heads
        return factory.build(name, 2, 2, heads, OF_BOXES[name]).eval(), torch.randn(2, 2, 64, 64)
    _, size, shape = SMALLEST[FIRST[name]]
    heads = {"mask": Dense(3)} if name in (*DENSE, *ONE_MAP) else {"class": Vector(3)}
    return factory.build(name, 2, len(shape), heads, size).eval(), torch.randn(2, 2, *shape)


@pytest.mark.parametrize("name", only(["fusion", "resnet", "timm", "unet", "vit", "yolox"], factory.own_families()))
@torch.inference_mode()
def test_features_of_an_image_are_its_own_and_change_no_output(name):
    network, images = built(name)
    at = factory.family_of(name).features
    seen = network_parts.compute_features(network, images, at=at)
    for head, output in network(images).items():
        assert torch.equal(output, seen.outputs[head])
    assert seen.pooled.shape[0] == 2 and seen.pooled.isfinite().all()
    assert seen.pooled.shape[1] == seen.deepest.shape[1] and seen.deepest[0, 0].numel() <= images[0, 0].numel()
    alone = torch.cat([network_parts.compute_features(network, one, at=at).pooled for one in images.split(1)])
    assert_allclose(seen.pooled, alone, rtol=1e-4, atol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 0
    assert not any(part._forward_hooks for part in network.modules())


@torch.inference_mode()
def test_a_network_within_another_shows_its_features_and_the_inputs_of_its_last_layers():
    network, images = built("unet")
    wrapped, at = AfterLabels(network, 1), factory.family_of("unet").features
    assert torch.equal(
        network_parts.compute_features(wrapped, images, at=at).pooled,
        network_parts.compute_features(network, wrapped_input(images), at=at).pooled,
    )
    seen = network_parts.compute_features(network, images, at=at, last=True)
    assert torch.equal(network.dense["mask"](seen.inputs["mask"]), seen.outputs["mask"])


def wrapped_input(images: torch.Tensor) -> torch.Tensor:
    return torch.cat([images[:, :1], (images[:, 1:] == 1).to(images.dtype)], dim=1)
