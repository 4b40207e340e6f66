from __future__ import annotations

import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.networks.multiscale_unet import AttentionGate, ImageMaps
from hilum.values import Dense

torch.set_num_threads(1)

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]


def multiscale(**size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build("multiscale_unet", 1, 3, {"mask": Dense(2)}, {"strides": STRIDES, "width": 4, **size})


def test_on_grids_of_one_size_a_gate_weighs_as_monais_does():
    """Whose normalisation, that has seen nothing, changes nothing."""
    torch.manual_seed(0)
    theirs, ours = AttentionBlock(2, f_int=4, f_g=6, f_l=8).eval(), AttentionGate(2, 8, 6, [1, 1])
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 0.0
    parts = (ours.of_coarser, theirs.W_g), (ours.of_finer, theirs.W_x), (ours.weigh, theirs.psi)
    for mine, sequence in parts:
        given = sequence[0].conv.state_dict()
        if mine.bias is None:
            torch.nn.init.zeros_(sequence[0].conv.bias)
            del given["bias"]
        mine.load_state_dict(given)
    finer, coarser = torch.randn(2, 8, 5, 7), torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(ours(finer, coarser), theirs(g=coarser, x=finer))


@pytest.mark.parametrize(("bias", "share"), [(0.0, 0.5), (40.0, 1.0), (-40.0, 0.0)])
def test_a_gate_that_sees_nothing_hands_on_the_share_that_its_bias_says(bias, share):
    gate, finer = AttentionGate(3, 4, 8, [1, 2, 2]), torch.randn(2, 4, 3, 6, 8)
    torch.nn.init.zeros_(gate.weigh.weight)
    torch.nn.init.constant_(gate.weigh.bias, bias)
    torch.testing.assert_close(gate(finer, torch.randn(2, 8, 3, 3, 4)), share * finer)


def test_each_stage_sees_the_mean_of_the_image_on_its_own_grid():
    network, seen = multiscale(), []
    for one in network.seeing:
        one.average.register_forward_hook(lambda layer, given, averaged: seen.append(averaged))
    images = torch.randn(1, 1, 8, 16, 16)
    network(images)
    assert [tuple(one.shape[2:]) for one in seen] == [(8, 8, 8), (4, 4, 4), (2, 2, 2)]
    torch.testing.assert_close(seen[1][0, 0, 0, 0, 1], images[0, 0, :2, :4, 4:8].mean())
    assert ImageMaps(3, 1, 4, [1, 3, 3], [1, 2, 2])(images).shape == (1, 4, 8, 8, 8)


def test_there_is_a_gate_a_scale_and_what_it_shuts_out_changes_nothing():
    network, images = multiscale().eval(), torch.randn(1, 1, 8, 16, 16)
    assert len(network.gates) == len(STRIDES) - 1
    seen = []
    network.decoder[-1].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
    torch.nn.init.constant_(network.gates[-1].weigh.bias, -1e4)
    network(images)
    assert not seen[0][:, :4].any()
    assert seen[0][:, 4:].any()


def test_each_scale_learns_and_the_reason_says_so():
    size, because, paper = factory.size_for("multiscale_unet", (32, 32, 32), STRIDES, "cpu")
    assert (size["deep_supervision"], paper) == (1, "arXiv:1810.07842")
    assert "gates at 3 scales" in because
    outputs = multiscale(deep_supervision=2)(torch.randn(1, 1, 8, 16, 16))
    assert {name: tuple(output.shape[2:]) for name, output in outputs.items()} == {
        "mask": (8, 16, 16),
        "mask@1": (8, 8, 8),
        "mask@2": (4, 4, 4),
    }


@pytest.mark.parametrize(
    ("size", "says"),
    [({"strides": []}, "strides"), ({"deep_supervision": 3}, "coarser outputs"), ({"kernels": [[2] * 3] * 4}, "odd")],
)
def test_what_is_no_such_network_is_refused(size, says):
    with pytest.raises(PlanError, match=says):
        multiscale(**size)
