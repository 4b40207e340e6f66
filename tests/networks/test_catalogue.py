from __future__ import annotations

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hilum.errors import PlanError
from hilum.networks import ELSEWHERE, factory, member_catalogue
from hilum.networks.member_catalogue import HEADS, REFERENCE

torch.set_num_threads(1)


class One(torch.nn.Module):
    """A convolution without padding, the mean, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 5, 3)
        self.last = torch.nn.Linear(5, 2)

    def forward(self, images: torch.Tensor, context: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return {"vector": self.last(self.convolution(images).mean(dim=(2, 3)))}


def test_weights_and_multiplications_are_those_counted_by_hand():
    counted = member_catalogue.plan_member("one", 2, {}, lambda *_: One(), "a paper")
    assert counted.tasks == ("vector",)  # it was asked for a dense head too, and gave none
    assert counted.parameters == 5 * 9 + 5 + 5 * 2 + 2
    assert counted.multiply_adds == 254 * 254 * 5 * 9 + 5 * 2


COUNTED = {"unet": 3, "vit": 2, "se_resnet": 2}


@pytest.mark.parametrize(("name", "axes"), COUNTED.items())
def test_what_is_left_out_for_speed_multiplies_nothing(name: str, axes: int) -> None:
    [listed] = [one for one in factory.family_members([name]) if one.axes == axes]
    size, _, _ = factory.size_for(name, REFERENCE[axes], member_catalogue.plan_strides(REFERENCE[axes]), "cpu")
    with torch.device("meta"):
        network = factory.build(name, 1, axes, {"it": HEADS[listed.tasks[0]](axes)}, size).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 1, *REFERENCE[axes]))
    assert listed.multiply_adds == counter.get_total_flops() // 2


def test_a_network_that_takes_no_volume_is_not_listed_for_volumes():
    assert member_catalogue.plan_member("one", 3, {}, lambda *_: One(), "") is None


@pytest.mark.parametrize(
    "name", [one if one in COUNTED else pytest.param(one, marks=pytest.mark.whole) for one in factory.own_families()]
)
def test_a_family_is_as_large_as_the_release_states(name: str) -> None:
    stated = [one for one in member_catalogue.listed_members() if one.name == name]
    assert list(factory.family_members([name])) == stated, "write them anew: python bench/members.py"


def test_the_table_says_what_each_family_can_answer():
    members = member_catalogue.listed_members()
    found = {(one.name, one.axes): one.tasks for one in members}
    dense, whole, boxes = ("boxes", "dense", "objects"), ("vector",), ("boxes",)
    every = (*dense, "vector")
    assert found == {
        **{(name, axes): whole for name in ("densenet", "resnet") for axes in (1, 2, 3)},
        **{(f"clip_{time}", axes): whole for time in ("gru", "lstm", "resnet", "transformer") for axes in (1, 2, 3)},
        **{("inflated_resnet", axes): whole for axes in (1, 2, 3)},
        **{(name, axes): whole for name in ("cbam_resnet", "resnext", "se_resnet") for axes in (1, 2, 3)},
        **{(name, axes): whole for name in ("capsules", "coatnet") for axes in (1, 2, 3)},
        **{(name, axes): every for name in ("axial", "transunet") for axes in (1, 2, 3)},
        **{(name, axes): whole for name in ("alexnet", "inception", "lenet", "vgg") for axes in (1, 2, 3)},
        **{(name, axes): whole for name in ("convnext", "efficientnet", "mobilenet") for axes in (1, 2, 3)},
        **{("pseudo3d_resnet", axes): whole for axes in (2, 3)},
        **{(name, axes): dense for name in ("plain_conv_unet", "residual_encoder_unet") for axes in (1, 2, 3)},
        **{(name, axes): every for name in ("deeplab", "segresnet", "unet", "voxelmorph") for axes in (1, 2, 3)},
        **{(f"{name}_unet", axes): every for name in ("cbam", "grouped", "se", "separable") for axes in (1, 2, 3)},
        **{("multiscale_unet", axes): every for axes in (1, 2, 3)},
        **{(name, axes): every for name in ("fusion", "fusion_attention", "fusion_late") for axes in (1, 2, 3)},
        **{(name, axes): every for name in ("attention_unet", "unet_plus_plus", "unetr") for axes in (1, 2, 3)},
        **{(name, axes): every for name in ("mednext", "swin_unetr", "vnet") for axes in (2, 3)},
        **{(name, axes): boxes for name in ("pyramid", "yolox") for axes in (2, 3)},
        ("mask_rcnn", 2): ("objects",),
        **{(name, 2): boxes for name in ("faster_rcnn", "fcos", "retinanet")},
        ("retinanet", 3): boxes,
        ("timm", 2): whole,
        **{("vit", axes): whole for axes in (1, 2, 3)},
        ("resnet_slices", 3): whole,
        **{(name, 3): whole for name in ("mil_attention", "mil_top", "slide_windows")},
        **{("sam", axes): dense for axes in (2, 3)},
        ("unet_slices", 3): every,
        **{("diffusion_unet", axes): dense for axes in (2, 3)},
        ("unrolled", 2): dense,
    }
    assert all(one.paper.startswith(("arXiv:", "doi:")) for one in members)


def test_reference_images_are_halved_until_four_voxels_are_left_or_six_stages_made():
    assert member_catalogue.plan_strides((64, 64, 64)) == [[1, 1, 1], *[[2, 2, 2]] * 4]
    assert member_catalogue.plan_strides((256, 256)) == [[1, 1], *[[2, 2]] * 5]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_of_other_programs_is_answered_by_a_family_that_exists(name: str) -> None:
    assert name not in factory.family_names()
    with pytest.raises(PlanError, match=re.escape(f"there is no network {name!r}. Use {ELSEWHERE[name]}")):
        factory.family_of(name)
    assert re.match(r"\w+", ELSEWHERE[name])[0] in factory.family_names()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Vision-Transformer", "Use vit."),
        ("Vision Transformer", "Use vit."),
        ("ResNet", "Use resnet; there are alexnet, "),
        ("densenet121", "Use densenet; there are alexnet, "),
        ("abacus", "Use alexnet, attention_unet, "),
        (None, "Use alexnet, attention_unet, "),
    ],
)
def test_a_name_that_no_family_has_is_answered_by_the_nearest_or_by_all(name: object, remedy: str) -> None:
    with pytest.raises(PlanError, match=re.escape(f"there is no network {name!r}. {remedy}")):
        factory.refuse_unknown_family(name)
