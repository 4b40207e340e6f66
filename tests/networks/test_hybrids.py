"""Convolutions with attention, and capsules, beside other implementations and beside what is worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from timm.layers import RelPosBias
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from hilum.errors import PlanError
from hilum.networks import axial, capsules, coatnet, common_layers, factory, transformer_blocks, vit
from hilum.networks.unet import UNetBlock
from hilum.values import Dense, Vector
from matrices import thinned

torch.set_num_threads(1)

TWO = {1: [[1], [2]], 2: [[1, 1], [2, 2]], 3: [[1, 1, 1], [1, 2, 2]]}
SHAPES = {1: (20,), 2: (13, 9), 3: (5, 7, 11)}
SIZES = {
    "axial": {"width": 8, "heads": 2},
    "transunet": {"width": 4, "layers": 2, "hidden": 16, "heads": 2},
    "coatnet": {"blocks": [1, 2], "convolved": 1, "width": 8, "stem": 8, "stem_stride": 1, "head": 8},
    "capsules": {"width": 8, "kernel": 3, "types": 4, "cells": 2, "pose": 4, "upper_pose": 6},
}
SMALL_UNETR = {"hidden": 8, "inner": 16, "heads": 2, "width": 4}
DENSE = ("axial", "transunet")
ATTENDING = ("axial", "transunet", "coatnet")


def small(name: str, axes: int = 2, context: int = 0, **size: object) -> nn.Module:
    torch.manual_seed(0)
    own = {"strides": TWO[axes]} if name in DENSE else {}
    where = {"patch": SHAPES[axes]} if name in ATTENDING else {}
    heads = {"class": Vector(3), **({"mask": Dense(2)} if name in DENSE else {})}
    return factory.build(name, 2, axes, heads, {**SIZES[name], **own, **where, **size}, context).eval()


def images(axes: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(2, 2, *SHAPES[axes], generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 6), st.integers(1, 9))
def test_an_offset_that_counts_twice_the_distance_does_so_on_every_grid(old, new):
    """Between places that span the same image the farthest offset stays the farthest."""
    table = torch.arange(1 - old, old, dtype=torch.float32) * 2
    pairs = common_layers.offsets_to_pairs(table, 0, new)
    places = torch.arange(new, dtype=torch.float32) * ((old - 1) / max(new - 1, 1))
    assert_allclose(pairs, 2 * (places[:, None] - places[None, :]), atol=1e-5)


def test_a_table_for_its_own_grid_is_itself():
    table = torch.randn(2, 7, 3)
    assert common_layers.stretch_table(table, 1, 4) is table
    assert torch.equal(common_layers.offsets_to_pairs(table, 1, 4)[:, 3, 1], table[:, 5])  # offset 2 of -3 to 3


def attention(ndim: int, axis: int, length: int, maps: int = 6, gated: bool = True) -> axial.AxialAttention:
    torch.manual_seed(2)
    return axial.AxialAttention(ndim, maps, 3, axis, length, gated)


@pytest.mark.parametrize(("ndim", "axis"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_without_positions_attention_along_an_axis_is_plain_attention_on_each_line(ndim, axis):
    """torch's own attention, line by line; gates of zero take the positions away."""
    layer, given_ = attention(ndim, axis, SHAPES[ndim][axis]), torch.randn(2, 6, *SHAPES[ndim])
    with torch.no_grad():
        layer.gates.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        # (batch, maps, lines, voxels of a line)
        lines, found = (one.unsqueeze(2).movedim(3 + axis, -1).flatten(2, -2) for one in (given_, layer(given_)))
        weight = layer.qkv.weight.flatten(1)
        for n in range(lines.shape[2]):
            told = (weight @ lines[:, :, n]).transpose(1, 2)  # (batch, voxels, 3 maps)
            split = [one.unflatten(2, (3, 2)).transpose(1, 2) for one in told.chunk(3, dim=2)]
            plain = scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
            assert_allclose(found[:, :, n], plain.transpose(1, 2), atol=1e-5)


def test_gated_positions_count_as_the_paper_writes_them():
    """Equation 3 of arXiv:2102.10662, voxel by voxel, of one head of two maps on a line of three voxels."""
    torch.manual_seed(0)
    layer = axial.AxialAttention(1, 2, 1, 0, 3, gated=True)
    with torch.no_grad():
        layer.gates.copy_(torch.tensor([0.5, 2.0, 0.25, 3.0]))
    line = torch.randn(1, 2, 3)
    q, k, v = (layer.qkv.weight[..., 0].detach() @ line[0]).numpy().reshape(3, 2, 3)
    r, s, t = layer.positions.detach().numpy()
    expected = np.zeros((2, 3))
    for i in range(3):
        offset = [i - j + 2 for j in range(3)]
        said = [
            (q[:, i] @ k[:, j] + 0.5 * q[:, i] @ r[:, offset[j]] + 2.0 * k[:, j] @ s[:, offset[j]]) / math.sqrt(2)
            for j in range(3)
        ]
        shares = np.exp(said) / np.exp(said).sum()
        expected[:, i] = sum(shares[j] * (3.0 * v[:, j] + 0.25 * t[:, offset[j]]) for j in range(3))
    assert_allclose(layer(line)[0].detach(), expected, atol=1e-6)


def test_gates_of_one_are_no_gates():
    gated, plain, line = attention(1, 0, 5), attention(1, 0, 5, gated=False), torch.randn(1, 6, 5)
    with torch.no_grad():
        gated.gates.fill_(1.0)
        assert torch.equal(gated(line), plain(line))
        assert plain.gates is None


def test_without_positions_a_permuted_line_gives_permuted_answers_and_with_them_it_does_not():
    layer, line, order = attention(1, 0, 5), torch.randn(1, 6, 5), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        assert (layer(line)[..., order] - layer(line[..., order])).abs().max() > 1e-3
        layer.gates[:3] = 0.0
        assert_allclose(layer(line)[..., order], layer(line[..., order]), atol=1e-6)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_parts_put_together_are_the_image_and_each_part_is_a_corner_of_it(ndim, parts, side):
    whole = torch.arange(float(2 * (parts * side) ** ndim)).reshape(1, 2, *[parts * side] * ndim)
    cut = axial.split_parts(whole, parts)
    assert cut.shape == (parts**ndim, 2, *[side] * ndim)
    assert torch.equal(cut[-1], whole[0][(slice(None), *[slice(-side, None)] * ndim)])
    assert torch.equal(axial.join_parts(cut, parts), whole)


def test_the_local_branch_sees_each_part_alone():
    network = small("axial", local=2, patch=[16, 16])
    picture = torch.randn(1, 2, 16, 16, requires_grad=True)
    first = network.parts.decode(network.parts.encode(axial.split_parts(picture, 2)))[0]
    first.sum().backward()
    seen = picture.grad[0].abs().sum(dim=0) > 0
    assert seen[:8, :8].any()
    assert not seen[8:].any()
    assert not seen[:, 8:].any()


@pytest.mark.parametrize("axes", thinned(1, [1, 2, 3]))
@pytest.mark.parametrize("name", SIZES)
def test_images_of_another_size_than_was_planned_for_are_answered(name, axes):
    network, larger = small(name, axes), torch.randn(2, 2, *[2 * n + 3 for n in SHAPES[axes]])
    with torch.no_grad():
        said = network(larger)
    assert said["class"].shape == (2, 3)
    assert all(one.isfinite().all() for one in said.values())
    if name in DENSE:
        assert said["mask"].shape == (2, 2, *larger.shape[2:])


@pytest.mark.parametrize("name", SIZES)
def test_what_is_told_beside_the_image_changes_every_answer_and_its_weights_learn(name):
    network, picture = small(name, context=2), images()
    said = network(picture, torch.zeros(2, 2))
    told = network(picture, torch.ones(2, 2))
    assert all((said[head] - told[head]).abs().max() > 1e-4 for head in said)
    sum(one.square().mean() for one in told.values()).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters())


def test_the_tokens_of_transunet_go_through_the_layers_of_the_vision_transformer():
    """Its encoder and its first decoder taken out, what stays is that of `vit` without a class token."""
    network, deepest = small("transunet"), torch.randn(2, 8, 7, 5)
    assert network.grid == [7, 5]
    tokens = network.tokens(deepest.flatten(2).transpose(1, 2)) + network.positions
    for layer in network.layers:
        assert isinstance(layer, transformer_blocks.TransformerBlock)
        tokens = layer(tokens)
    assert torch.equal(network._transform(deepest, None), network.norm(tokens))


def test_transunet_joins_what_its_encoder_found_on_each_grid():
    network = small("transunet", strides=[[1, 1], [2, 2], [2, 1]], width=4)
    assert all(isinstance(one, UNetBlock) for one in (*network.encoder, *network.decoder))
    seen: list[tuple[int, ...]] = []
    for block in network.decoder:
        block.register_forward_hook(lambda block, given, output: seen.append(tuple(output.shape[1:])))
    network(torch.randn(1, 2, 16, 12))
    assert seen == [(8, 8, 6), (4, 16, 12)]


def test_without_attention_transunet_still_knows_where_a_voxel_lies():
    """Positions reach the answer: with those of two cells exchanged it is another."""
    network, picture = small("transunet"), images()
    with torch.no_grad():
        before = network(picture)["mask"]
        network.positions.copy_(network.positions.flip(1) * 10)
        assert (network(picture)["mask"] - before).abs().max() > 1e-4


def of_timm(size: int) -> nn.Module:
    """timm's CoAtNet of the paper's kind, two blocks a stage, with running means that are not those of a fresh one."""
    torch.manual_seed(0)
    theirs = timm.create_model("coatnet_0_224", pretrained=False, img_size=size, **SMALLER)
    for name, tensor in theirs.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(tensor)
    with torch.no_grad():
        for layer in theirs.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        theirs.train()(torch.randn(4, 3, size, size))
    return theirs.eval()


SMALLER = {"embed_dim": (32, 64, 64 * 2, 64 * 4), "depths": (2, 1, 2, 1), "stem_width": 16}


def carried(theirs: nn.Module, ours: nn.Module) -> None:
    """timm's tensors in the order of its layers, which is ours, but that our offsets come first in a block."""
    body = {name: one for name, one in theirs.state_dict().items() if name.startswith(("stem", "stages"))}
    offsets = [one for name, one in body.items() if name.endswith("bias_table")]
    others = [one for name, one in body.items() if not name.endswith("bias_table")]
    own = ours.body.state_dict()
    assert len(body) == len(own)
    for name, mine in own.items():
        mine.copy_((offsets.pop(0).T if name.endswith("offsets") else others.pop(0)).reshape(mine.shape))


@pytest.mark.parametrize("size", [64, 96])
def test_with_the_weights_of_timms_coatnet_the_features_are_those_of_timm(size):
    theirs, given_ = of_timm(size), torch.randn(2, 3, size, size)
    wanted = {"blocks": [2, 1, 2, 1], "width": 32, "stem": 16, "patch": [size, size]}
    ours = factory.build("coatnet", 3, 2, {"class": Vector(2)}, wanted).eval()
    carried(theirs, ours)
    with torch.no_grad():
        expected = theirs.forward_features(given_)
        assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()
        assert_allclose(ours.body(given_), expected, atol=1e-4 * float(expected.abs().max()))


def test_offsets_in_pictures_are_added_as_timm_adds_them():
    theirs = RelPosBias((3, 5), num_heads=2)
    nn.init.normal_(theirs.relative_position_bias_table)
    ours = coatnet.GridAttention(2, 4, 4, (3, 5), 2, halved=False, left_out=0.0)
    with torch.no_grad():
        ours.offsets.copy_(theirs.relative_position_bias_table.T.reshape(2, 5, 9))
        assert torch.equal(ours.bias((3, 5)), theirs.get_bias()[0])


def test_offsets_in_volumes_are_those_between_each_two_voxels():
    grid = (2, 3, 2)
    layer = coatnet.GridAttention(3, 4, 4, grid, 4, halved=False, left_out=0.0)
    bias = layer.bias(grid)
    voxels = list(np.ndindex(*grid))
    for m, first in enumerate(voxels):
        for n, second in enumerate(voxels):
            offset = tuple(a - b + size - 1 for a, b, size in zip(first, second, grid, strict=True))
            assert bias[0, m, n] == layer.offsets[(0, *offset)]


def test_a_block_that_is_left_out_adds_nothing_and_the_mean_stays():
    torch.manual_seed(0)
    found = transformer_blocks.drop_path(torch.ones(4000, 1, 2), 0.25, training=True)
    assert_allclose(found.unique(), [0, 4 / 3], rtol=1e-6)
    assert torch.equal(found[..., 0], found[..., 1])
    assert_allclose(found.mean(), 1, atol=0.05)
    assert torch.equal(transformer_blocks.drop_path(found, 0.25, training=False), found)


def routed_by_hand(votes: np.ndarray, rounds: int) -> np.ndarray:
    """Procedure 1 of arXiv:1710.09829, capsule by capsule; what its equation 1 is then given."""
    lower, upper, _ = votes.shape
    b = np.zeros((lower, upper))
    for _ in range(rounds):
        c = np.exp(b) / np.exp(b).sum(axis=1, keepdims=True)
        s = np.stack([sum(c[i, j] * votes[i, j] for i in range(lower)) for j in range(upper)])
        squared = (s**2).sum(axis=1, keepdims=True)
        v = squared / (1 + squared) * s / np.sqrt(squared)
        b = b + np.array([[votes[i, j] @ v[j] for j in range(upper)] for i in range(lower)])
    return s


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(0, 9))
def test_routing_is_that_of_the_procedure_gone_through_by_hand(rounds, lower, upper, seed):
    votes = np.random.default_rng(seed).normal(size=(lower, upper, 3))
    found = capsules.route_votes(torch.from_numpy(votes)[None], rounds)[0]
    assert_allclose(found, routed_by_hand(votes, rounds), atol=1e-6)


def test_routing_gives_to_the_answer_on_which_capsules_agree():
    """Two agree on the first answer and contradict each other on the second, which gets nothing at once."""
    votes = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]])[None]
    once, often = (capsules.route_votes(votes, rounds)[0].norm(dim=1) for rounds in (1, 6))
    assert once.tolist() == [1.0, 0.0]
    assert often[0] > 1.8  # nearly all of both
    assert often[1] < 0.01


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_a_squashed_capsule_has_its_direction_and_a_length_that_is_a_probability(pose):
    capsule = torch.tensor(pose, dtype=torch.float64)
    squared = float(capsule.square().sum())
    assert_allclose(capsules.squash(capsule).norm(), squared / (1 + squared), atol=1e-3 * min(1, squared) + 1e-7)
    assert_allclose(capsules.squash(capsule) * capsule.norm(), capsule * capsules.squash(capsule).norm(), atol=1e-9)


def test_the_sigmoid_of_an_answer_is_the_length_of_its_capsule():
    torch.manual_seed(0)
    layer, below = capsules.ClassCapsules(5, 3, 4, 6, rounds=3), torch.randn(2, 5, 4)
    above = capsules.squash(capsules.route_votes(torch.einsum("bip,ijqp->bijq", below, layer.foretell), 3))
    assert_allclose(layer(below).sigmoid().detach(), above.norm(dim=2).detach(), atol=1e-5)


def test_the_softmax_of_answers_is_what_holds_if_exactly_one_is_there():
    """Each is there or not by itself, with its length as probability: all eight cases counted."""
    logits = torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there = logits.sigmoid().tolist()
    alone = [math.prod(p if n == one else 1 - p for n, p in enumerate(there)) for one in range(3)]
    assert_allclose(logits.softmax(dim=0), np.array(alone) / sum(alone), rtol=1e-9)


def test_answers_do_not_depend_on_the_order_of_the_capsules_below():
    torch.manual_seed(0)
    layer, again = (capsules.ClassCapsules(6, 3, 4, 5, rounds=3) for _ in range(2))
    order, below = torch.randperm(6), torch.randn(2, 6, 4)
    with torch.no_grad():
        again.foretell.copy_(layer.foretell[order])
    assert_allclose(again(below[:, order]).detach(), layer(below).detach(), atol=1e-5)


def test_a_capsule_of_length_zero_has_a_gradient_that_is_a_number():
    """An image of nothing but zeros must not break a training."""
    network, black = small("capsules").train(), torch.zeros(2, 2, 13, 9)
    with torch.no_grad():
        network.body[-1].bias.zero_()
    nn.functional.cross_entropy(network(black)["class"], torch.tensor([0, 1])).backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


def test_the_capsules_of_the_paper_have_the_weights_counted_by_hand():
    """Figures 1 and 2: 256 kernels of 9 x 9, 32 types of 8 from 256 maps, 1152 capsules foretelling ten of 16."""
    network = factory.build("capsules", 1, 2, {"class": Vector(10)}, {})
    first, normalised = 256 * 81, 2 * 256
    primary = 256 * (256 * 81 + 1)
    assert sum(one.numel() for one in network.parameters()) == first + normalised + primary + 1152 * 10 * 16 * 8


@pytest.mark.parametrize(
    ("name", "patch", "device", "says"),
    [
        ("axial", (96, 96, 96), "cpu", "the first 2 of them convolutional"),
        ("axial", (96, 96, 96), "cuda:0", "5 stages;"),
        ("transunet", (512, 512), "cuda:0", "1024 tokens"),
        ("transunet", (512, 512), "cpu", "256 tokens"),
        ("coatnet", (224, 224), "cuda:0", "2 convolutional stages, then attention among 196 voxels"),
        ("coatnet", (1024, 1024), "cuda:0", "3 convolutional stages, then attention among 1024 voxels"),
        ("coatnet", (28, 28), "cpu", "1 convolutional stages, then attention among 49 voxels"),
        ("capsules", (28, 28), "cuda:0", "2 convolutions, 1152 capsules"),
        ("capsules", (224, 224), "cpu", "4 convolutions"),
    ],
)
def test_the_size_follows_from_the_patch_and_is_explained(name, patch, device, says):
    strides = [[1] * len(patch), *[[2] * len(patch)] * 5]
    _, because, paper = factory.size_for(name, patch, strides, device)
    assert says in because
    assert paper.startswith("arXiv:")


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("axial", {"convolved": 2}, "convolved 2"),
        ("axial", {"width": 9}, "2 heads cannot share a width of 9"),
        ("axial", {"patch": [8]}, "2 sizes"),
        ("axial", {"local": 0}, "local 0"),
        ("axial", {"strides": [[1, 1]]}, "two stages"),
        ("transunet", {"hidden": 15}, "2 heads cannot share 15"),
        ("transunet", {"layers": 0}, "0 layers"),
        ("transunet", {"patch": [8, 8, 8]}, "2 sizes"),
        ("coatnet", {"head": 7}, "a head of 7"),
        ("coatnet", {"convolved": 3}, "convolved 3"),
        ("coatnet", {"left_out": 1.0}, "left_out 1.0"),
        ("coatnet", {"patch": [8]}, "2 sizes"),
        ("capsules", {"kernel": 4}, "kernel 4"),
        ("capsules", {"strides": []}, "at least one"),
        ("capsules", {"rounds": 0}, "from 1"),
    ],
)
def test_a_network_that_cannot_be_is_refused(name, size, says):
    with pytest.raises(PlanError, match=says):
        small(name, **size)


@pytest.mark.parametrize("name", ["coatnet", "capsules"])
def test_those_for_whole_images_refuse_an_answer_for_every_voxel(name):
    with pytest.raises(PlanError, match="unet"):
        factory.build(name, 1, 2, {"mask": Dense(2)}, {})


@pytest.mark.parametrize(
    ("model", "size"), thinned(1, [("coatnet_nano_rw_224", [128, 96]), ("maxvit_rmlp_pico_rw_256", [128, 192])])
)
def test_a_model_of_timm_that_attends_takes_the_size_that_its_settings_say(model, size):
    with torch.device("meta"), torch.inference_mode():
        wanted = {"model": model, "settings": {"img_size": size}}
        network = factory.build("timm", 1, 2, {"class": Vector(2)}, wanted).eval()
        assert network(torch.empty(1, 1, *size))["class"].shape == (1, 2)


def test_a_model_of_timm_that_was_made_for_another_size_says_what_to_set():
    with torch.device("meta"), torch.inference_mode():
        network = factory.build("timm", 1, 2, {"class": Vector(2)}, {"model": "maxvit_rmlp_pico_rw_256"}).eval()
        with pytest.raises(RuntimeError, match=r"settings: {img_size: \[96, 128\]} in network.size"):
            network(torch.empty(1, 1, 96, 128))


@pytest.mark.parametrize("axes", thinned(1, SHAPES))
@torch.no_grad()
def test_the_attention_of_tokens_whose_mean_answers_is_that_of_each_patch_and_sums_to_one(axes):
    whole = {1: (32,), 2: (32, 48), 3: (32, 16, 16)}[axes]
    given = torch.randn(2, 2, *whole, generator=torch.Generator().manual_seed(1))
    unetr = factory.build("unetr", 2, axes, {"class": Vector(3)}, {**SMALL_UNETR, "patch": whole}).eval()
    for name, network in (("unetr", unetr), ("transunet", small("transunet", axes))):
        seen = transformer_blocks.compute_attention(network, given, at=factory.family_of(name).attention)
        assert_allclose(seen.outputs["class"], network(given)["class"], atol=1e-5)
        assert_allclose(torch.stack(list(seen.weights)).sum(dim=-1), 1, atol=1e-5)
        shares = seen.spread_rollout(vit.attention_rollout(torch.stack(list(seen.weights), dim=1)))
        assert shares.shape == (2, 1, *whole)
        assert_allclose(shares.flatten(1).sum(dim=1), 1, atol=1e-5)
        assert shares.std() > 0
        # Where every token attends to all alike, each patch has the same share.
        alike = torch.full_like(seen.weights[0], 1 / seen.weights[0].shape[-1])
        even = seen.spread_rollout(vit.attention_rollout(alike[:, None]))
        assert_allclose(even, torch.full_like(even, 1 / math.prod(whole)), rtol=1e-5)
