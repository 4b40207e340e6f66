from __future__ import annotations

import math

import onnxruntime
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.errors import PlanError
from hilum.networks import factory, transformer_blocks, vit
from hilum.values import Dense, Vector
from matrices import thinned

torch.set_num_threads(1)

SHAPES = {1: (20,), 2: (13, 9), 3: (9, 7, 11)}
SMALL = {"token": 4, "layers": 2, "width": 16, "heads": 2}


def small(axes: int, channels: int = 2, context: int = 0, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    wanted = {**SMALL, "image": SHAPES[axes], **size}
    return factory.build("vit", channels, axes, {"class": Vector(3)}, wanted, context).eval()


def images(axes: int, channels: int = 2) -> torch.Tensor:
    return torch.randn(2, channels, *SHAPES[axes], generator=torch.Generator().manual_seed(1))


def of_timm(name: str, **settings: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=0, **settings).eval()


@pytest.mark.parametrize(
    ("name", "width", "heads"), thinned(1, [("vit_tiny_patch16_224", 192, 3), ("vit_small_patch16_224", 384, 6)])
)
def test_with_the_weights_of_timm_the_features_are_those_of_timm(name, width, heads, tmp_path):
    theirs = of_timm(name, img_size=(48, 32))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    size = {"token": 16, "image": [48, 32], "layers": 12, "width": width, "heads": heads}
    ours = factory.build("vit", 3, 2, {"class": Vector(2)}, size).eval()
    said = factory.load_pretrained(ours, "vit", size, tmp_path / "weights.pt").words
    assert "fresh: vectors.class.weight, vectors.class.bias" in said
    ours.vectors = torch.nn.ModuleDict({"class": torch.nn.Identity()})
    pictures = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        assert_allclose(ours(pictures)["class"], theirs(pictures), atol=1e-5)


def test_the_attention_is_that_which_timm_computes(tmp_path):
    theirs = of_timm("vit_tiny_patch16_224", img_size=32, depth=2)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    size = {"token": 16, "image": [32, 32], "layers": 2, "width": 192, "heads": 3}
    ours = factory.build("vit", 3, 2, {"class": Vector(2)}, size).eval()
    factory.load_pretrained(ours, "vit", size, tmp_path / "weights.pt")
    found = []
    for block in theirs.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda layer, given, output: found.append(output))
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs(pictures)
    assert_allclose(ours.attention(pictures), torch.stack(found, dim=1), atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_positions_for_the_size_they_were_learnt_for_are_themselves(axes):
    learnt = torch.randn(1, math.prod(SHAPES[axes]), 5)
    assert vit.resize_positions(learnt, SHAPES[axes], SHAPES[axes]) is learnt


@settings(max_examples=25)
@given(st.integers(1, 3), st.data())
def test_positions_that_rise_linearly_rise_linearly_on_every_other_grid(axes, data):
    """At the centre of each cell, but for the outer half cell, beyond which nothing was learnt."""
    old = [data.draw(st.integers(2, 5)) for _ in range(axes)]
    new = [data.draw(st.integers(1, 9)) for _ in range(axes)]
    slope = [data.draw(st.floats(-2, 2)) for _ in range(axes)]

    def rising(grid: list[int], reach: list[float]) -> torch.Tensor:
        centres = [((torch.arange(n) + 0.5) / n).clamp(r, 1 - r) for n, r in zip(grid, reach, strict=True)]
        lattice = torch.meshgrid(*centres, indexing="ij")
        return sum(s * one for s, one in zip(slope, lattice, strict=True)).reshape(1, -1, 1)

    reach = [0.5 / n for n in old]
    assert_allclose(vit.resize_positions(rising(old, reach), old, new), rising(new, reach), atol=1e-5)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("size", [{}, {"scales": [1, 2], "channelwise": True}], ids=["plain", "scales and channels"])
def test_it_takes_images_of_another_size_than_it_was_built_for(axes, size):
    network = small(axes, **size)
    larger = torch.randn(2, 2, *[2 * n + 3 for n in SHAPES[axes]])
    with torch.no_grad():
        assert network(larger)["class"].shape == (2, 3)
        assert network(larger)["class"].isfinite().all()
        assert network.attention_rollout(larger).shape == (2, 1, *larger.shape[2:])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_an_image_is_padded_with_zeros_at_its_far_end(axes):
    network, given = small(axes), images(axes)
    whole = torch.zeros(2, 2, *[-(-n // 4) * 4 for n in SHAPES[axes]])
    whole[(..., *[slice(n) for n in SHAPES[axes]])] = given
    with torch.no_grad():
        assert torch.equal(network(given)["class"], network(whole)["class"])


def test_patches_that_overlap_see_half_of_their_neighbours_and_no_more():
    apart, overlapping = (
        factory.build("vit", 1, 1, {"class": Vector(2)}, {**SMALL, "image": [20], "overlap": one}).patches[0]
        for one in (False, True)
    )
    seen = []
    for patches in (apart, overlapping):
        series = torch.zeros(1, 1, 20, requires_grad=True)
        made = patches(series)
        assert made.shape == (1, 5, 16)
        made[0, 2].sum().backward()
        seen.append(series.grad[0, 0].nonzero().flatten().tolist())
    assert seen == [[8, 9, 10, 11], [5, 6, 7, 8, 9, 10, 11]]


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([1, 2, 3]), st.booleans(), st.booleans(), st.sampled_from([[1], [1, 2], [3, 1]]), st.integers(0, 2)
)
def test_attention_and_rollout_are_probabilities_over_the_tokens(axes, channelwise, overlap, scales, context):
    network = small(axes, channelwise=channelwise, overlap=overlap, scales=scales, context=context)
    given, told = images(axes), torch.randn(2, context) if context else None
    attention = network.attention(given, told)
    patches = sum(math.prod(-(-n // (4 * scale)) for n in SHAPES[axes]) for scale in scales)
    tokens = 1 + context + patches * (2 if channelwise else 1)
    assert attention.shape == (2, 2, 2, tokens, tokens)
    flow = vit.attention_rollout(attention)
    for shares in (attention, flow):
        assert (shares >= 0).all()
        assert_allclose(shares.sum(dim=-1), 1, atol=1e-5)
    rollout = network.attention_rollout(given, told)
    assert rollout.shape == (2, 1, *SHAPES[axes])
    from_elsewhere = flow[:, 0, : 1 + context].sum(dim=-1)
    assert (rollout.flatten(1).sum(dim=1) <= 1 - from_elsewhere + 1e-5).all()


def test_without_padding_a_map_holds_all_that_comes_from_patches_each_in_its_place():
    network, pictures = small(2, image=[8, 12]), torch.randn(2, 2, 8, 12)
    flow = vit.attention_rollout(network.attention(pictures))
    rollout = network.attention_rollout(pictures)
    expected = torch.kron(flow[:, 0, 1:].reshape(2, 2, 3), torch.full((4, 4), 1 / 16))
    assert_allclose(rollout[:, 0], expected, atol=1e-7)


def test_rollout_of_two_layers_is_that_worked_out_by_hand():
    """Two tokens: layers [[1, 0], [.5, .5]] and [[0, 1], [1, 0]], each averaged with what passes by it."""
    attention = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [1.0, 0.0]]])[None, :, None]
    first = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    expected = torch.tensor([[0.5, 0.5], [0.5, 0.5]]) @ first
    assert_allclose(vit.attention_rollout(attention)[0], expected)
    heads = torch.cat([attention, attention.flip(-1)], dim=2)  # their mean looks everywhere alike
    assert_allclose(vit.attention_rollout(heads)[0], torch.tensor([[0.625, 0.375], [0.375, 0.625]]))


def test_an_entry_of_the_context_is_a_token_along_its_direction_beside_its_embedding():
    network = small(2, context=3)
    given = images(2)
    with torch.no_grad():
        zeros = network._tokens(given, torch.zeros(2, 3))
        ones = network._tokens(given, torch.ones(2, 3))
        mixed = network._tokens(given, torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]]))
    assert_allclose(zeros[:, 1:4], network.of_entry.detach().expand(2, -1, -1))
    assert_allclose((ones - zeros)[:, 1:4], network.directions.detach().expand(2, -1, -1), atol=1e-7)
    assert_allclose(
        (mixed - zeros)[0, 1:4], torch.tensor([[2.0], [0.0], [-1.0]]) * network.directions.detach(), atol=1e-7
    )
    assert torch.equal(mixed[1], zeros[1])
    untouched = [0, *range(4, zeros.shape[1])]
    assert torch.equal(ones[:, untouched], zeros[:, untouched])


def test_every_weight_of_a_context_learns_and_what_it_is_told_matters():
    network, given = small(2, context=2), images(2)
    told = torch.randn(2, 2, requires_grad=True)
    network(given, told)["class"].square().mean().backward()
    assert network.directions.grad.any()
    assert network.of_entry.grad.any()
    assert told.grad.abs().min() > 0


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_all_that_it_can_have_goes_along_into_onnx_with_the_context_as_a_second_input(tmp_path):
    """Positions are interpolated there too: it was built for other images."""
    network = small(2, context=2, layers=1, image=[20, 12], scales=[1, 2], overlap=True, channelwise=True)
    torch.onnx.export(
        _Plain(network).eval(),
        (images(2), torch.zeros(2, 2)),
        tmp_path / "network.onnx",
        dynamo=False,  # a tenth of the time of the other way, and as exact
        input_names=["image", "context"],
        dynamic_axes={"image": {0: "batch"}, "context": {0: "batch"}},
    )
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    given, told = torch.randn(3, 2, *SHAPES[2]), torch.randn(3, 2)
    [found] = session.run(None, {"image": given.numpy(), "context": told.numpy()})
    with torch.no_grad():
        assert_allclose(found, network(given, told)["class"], atol=1e-5)


class _Plain(torch.nn.Module):
    """A network with one head as export takes it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return next(iter(self.network(images, context).values()))


def test_by_channel_fewer_channels_are_the_first_ones_and_say_what_they_said():
    """A token of a channel is the same beside another channel as alone."""
    network, given = small(3, channels=3, channelwise=True), images(3, channels=3)
    with torch.no_grad():
        all_three, two = network._tokens(given, None), network._tokens(given[:, :2], None)
        assert_allclose(all_three[:, : two.shape[1]], two, atol=1e-6)
        assert network(given[:, :1])["class"].shape == (2, 3)
    with pytest.raises(ValueError, match="4 channels, where 3 are known"):
        network(images(3, channels=4))


def test_by_channel_one_projection_serves_all_and_an_embedding_tells_them_apart():
    network = small(2, channels=2, channelwise=True)
    assert network.patches[0].projection.weight.shape == (16, 1, 4, 4)
    alike = images(2, channels=1).expand(-1, 2, -1, -1)
    with torch.no_grad():
        tokens = network._tokens(alike, None)[:, 1:]
    first, second = tokens.chunk(2, dim=1)
    assert_allclose(
        second - first, (network.of_channel[1] - network.of_channel[0]).detach().expand_as(first), atol=1e-6
    )


def test_each_scale_has_patches_of_its_own_size_and_an_embedding():
    network = small(2, image=[16, 24], scales=[1, 2])
    assert network.grids == [(4, 6), (2, 3)]
    assert [tuple(one.projection.kernel_size) for one in network.patches] == [(4, 4), (8, 8)]
    with torch.no_grad():
        before = network._tokens(torch.randn(1, 2, 16, 24), None)
        assert before.shape == (1, 1 + 24 + 6, 16)


def test_stochastic_depth_keeps_the_mean_and_sleeps_outside_of_training():
    torch.manual_seed(0)
    network = small(2, stochastic_depth=0.5)
    assert [block.skipped for block in network.blocks] == [0.0, 0.5]
    change = torch.ones(4000, 1, 1)
    assert transformer_blocks.drop_path(change, 0.5, training=False) is change
    kept = transformer_blocks.drop_path(change, 0.5, training=True)
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert abs(kept.mean() - 1) < 0.1


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("patch", [(28, 28), (512, 384), (28, 28, 28), (96, 96, 24), (4096, 4096), (100_000,)], ids=str)
def test_its_tokens_are_few_enough_and_as_small_as_that_allows(patch, device):
    strides = [[1] * len(patch), [2] * len(patch)]
    size, because, paper = factory.size_for("vit", patch, strides, device)
    most = vit.MOST_TOKENS["cpu" if device == "cpu" else "gpu"]
    [grid] = factory.build("vit", 1, len(patch), {"class": Vector(2)}, {**size, "layers": 1}).grids
    assert math.prod(grid) <= most
    if size["token"][0] > vit.SMALLEST_TOKEN:
        assert math.prod(-(-n // (side // 2)) for n, side in zip(patch, size["token"], strict=True)) > most
    assert str(patch) in because
    assert paper == "arXiv:2010.11929"
    assert size["image"] == list(patch)


def test_tokens_are_shorter_along_an_axis_whose_voxels_are_longer():
    size, _, _ = factory.size_for("vit", (96, 96, 24), [[1, 1, 1], [2, 2, 1], [2, 2, 2]], "cpu")
    assert size["token"] == [12, 12, 6]


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"token": 0}, r"a token of \[0, 0\]"),
        ({"token": [4, 4, 4]}, "one for each of 2 axes"),
        ({"image": [8]}, "one number from 1 for each of 2 axes"),
        ({"scales": []}, "different multiples"),
        ({"scales": [1, 1]}, "different multiples"),
        ({"width": 16, "heads": 3}, "3 heads cannot share a width of 16"),
        ({"layers": 0}, "0 layers"),
        ({"stochastic_depth": 1.0}, "a probability below 1"),
        ({"depth": 4}, "depth"),
    ],
    ids=str,
)
def test_a_transformer_that_cannot_be_is_refused(size, says):
    with pytest.raises(PlanError, match=says):
        factory.build("vit", 1, 2, {"class": Vector(2)}, size)


def test_it_has_no_output_for_every_voxel():
    with pytest.raises(PlanError, match="hoose unet"):
        factory.build("vit", 1, 2, {"mask": Dense(2)}, {})


@pytest.mark.parametrize(("context", "told"), [(2, None), (0, 2), (2, 3)])
def test_another_context_than_it_was_built_for_is_refused(context, told):
    network = small(2, context=context)
    with pytest.raises(ValueError, match=f"each image needs {context} covariates"):
        network(images(2), None if told is None else torch.zeros(2, told))
