from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.networks.bag_pooling import TileBag
from hilum.networks.slide_windows import SlideWindows
from hilum.networks.tile_encoders import ColourShares
from hilum.values import Vector

torch.set_num_threads(1)

BAGS = ("mil_attention", "mil_top", "slide_windows")


def bag(name: str, **size: object) -> TileBag:
    torch.manual_seed(0)
    network = factory.build(name, 3, 3, {"class": Vector(2)}, {"encoder": ["colour"], **size})
    assert isinstance(network, TileBag)
    return network.eval()


def tiles_at(count: int, absent: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two bags of so many tiles on a grid with gaps, and so many places without a tile behind them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, count + absent, 9, 8, generator=generator)
    spots = torch.stack([torch.randperm(400, generator=generator)[:count] for _ in range(2)])
    places = torch.stack([spots // 20, spots % 20], dim=2)
    return images, torch.cat([places, torch.full((2, absent, 2), -1)], dim=1)


def features_of(network: TileBag, images: torch.Tensor) -> torch.Tensor:
    return network.encoded(images.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(images), -1))


@pytest.mark.parametrize("name", BAGS)
@torch.inference_mode()
def test_a_bag_is_its_tiles_by_themselves_and_then_together(name):
    network, (images, places) = bag(name), tiles_at(7, 2)
    apart = torch.stack([network.encoded(one.movedim(1, 0)) for one in images])
    torch.testing.assert_close(network(images, places)["class"], network.pooled(apart, places)["class"])


@pytest.mark.parametrize("name", BAGS)
@torch.inference_mode()
def test_attention_is_shared_among_the_tiles_that_are_there(name):
    network, (images, places) = bag(name), tiles_at(7, 2)
    shares = network.attention(features_of(network, images), places)
    assert_allclose(shares.sum(dim=1), 1, rtol=1e-6)
    assert (shares[:, 7:] == 0).all() and (shares >= 0).all()


@pytest.mark.parametrize("name", BAGS)
@torch.inference_mode()
def test_neither_the_order_of_the_tiles_nor_what_stands_where_none_is_changes_the_answer(name):
    network, (images, places) = bag(name), tiles_at(7, 2)
    expected = network(images, places)["class"]
    order = torch.tensor([3, 8, 0, 6, 1, 7, 5, 2, 4])
    assert_allclose(network(images[:, :, order], places[:, order])["class"], expected, atol=1e-6)
    assert_allclose(network(images[:, :, :7], places[:, :7])["class"], expected, atol=1e-6)
    images[:, :, 7:] = 0.9
    assert_allclose(network(images, places)["class"], expected, atol=1e-6)


class DenseWindows(torch.nn.Module):
    """The same blocks and mergings over a whole grid, as arrays of rows and columns."""

    def __init__(self, network: SlideWindows, grid: int) -> None:
        super().__init__()
        self.network, self.grid = network, grid

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        network, grid = self.network, self.grid
        maps, found = network.project(features).reshape(grid, grid, -1), 0
        for level, stage in enumerate(network.stages):
            if level:
                merge, side = network.merges[level - 1], len(maps) // 2
                cells = merge.norm(maps).reshape(side, 2, side, 2, -1).permute(0, 2, 1, 3, 4)
                weights = merge.reduce.weight.reshape(4, maps.shape[-1], -1)
                maps = torch.einsum("rcsi,soi->rco", cells.flatten(2, 3), weights)
            for block in stage:
                maps = maps + self.attended(block.attention, block.attention_norm(maps))
                maps = maps + block.feed_forward(block.feed_forward_norm(maps))
            repeated = network.norms[level](maps).repeat_interleave(2**level, 0).repeat_interleave(2**level, 1)
            found = found + repeated
        return found.flatten(0, 1)

    @staticmethod
    def attended(layer: torch.nn.Module, maps: torch.Tensor) -> torch.Tensor:
        """Pair by pair: those of one window, by features and by the bias of the rows and columns between."""
        side, width = len(maps), maps.shape[-1]
        rows, columns = (one.flatten() for one in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij"))
        of_window = (rows + layer.shift) // 8 * 100 + (columns + layer.shift) // 8
        together = of_window[:, None] == of_window
        queries, keys, values = (
            one.reshape(side * side, layer.heads, -1).transpose(0, 1) for one in layer.qkv(maps).chunk(3, dim=-1)
        )
        down, right = ((one[:, None] - one).clamp(-7, 7) + 7 for one in (rows, columns))
        scores = queries @ keys.transpose(1, 2) / (width // layer.heads) ** 0.5 + layer.bias[:, 15 * down + right]
        weights = scores.masked_fill(~together, -torch.inf).softmax(dim=-1)
        return layer.projection((weights @ values).transpose(0, 1).reshape(maps.shape))


@pytest.mark.parametrize("grid", [4, 20])
@torch.inference_mode()
def test_windows_of_a_full_grid_are_those_of_a_dense_computation_in_any_order(grid):
    network = bag("slide_windows", width=16, heads=2)
    for stage in network.stages:
        for block in stage:
            torch.nn.init.normal_(block.attention.bias)
            torch.nn.init.normal_(block.attention.qkv.weight, std=0.3)
    features = torch.rand(1, grid * grid, 216)
    places = torch.stack([torch.arange(grid * grid) // grid, torch.arange(grid * grid) % grid], dim=1)[None]
    order = torch.randperm(grid * grid)
    _, found = network._weigh(features[:, order], places[:, order])
    expected = DenseWindows(network, grid)(features[0])
    torch.testing.assert_close(found[0], expected[order], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_bags_of_unlike_numbers_of_tiles_keep_their_answers_beside_each_other():
    network, (images, places) = bag("slide_windows"), tiles_at(90)
    places[1, 30:] = -1
    alone = network(images[1:, :, :30], places[1:, :30])["class"]
    assert_allclose(network(images, places)["class"][1:], alone, atol=1e-5)


@torch.inference_mode()
def test_the_highest_tiles_answer_by_their_mean_and_one_tile_by_itself():
    network, (images, places) = bag("mil_top"), tiles_at(7)
    scores = network.vectors["class"](features_of(network, images)).numpy()
    highest = np.sort(scores, axis=1)[:, -2:].mean(axis=1)
    assert_allclose(network(images, places)["class"], highest, atol=1e-6)
    assert_allclose(network(images[:, :, :1], places[:, :1])["class"], scores[:, 0], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_shares_of_colours_are_numpys_histogram(channels):
    generator = np.random.default_rng(0)
    pixels = generator.choice([0, 42, 43, 84, 85, 127, 128, 170, 171, 255], (2, channels, 15, 11)).astype(np.uint8)
    shares = ColourShares(channels)(torch.from_numpy(pixels).float() / 255)
    for tile, found in zip(pixels, shares, strict=True):
        counts, _ = np.histogramdd(tile.reshape(channels, -1).T, bins=6, range=[(0, 255)] * channels)
        assert_allclose(found, counts.ravel() / tile[0].size, atol=1e-6)


@torch.inference_mode()
def test_normalised_images_have_the_colours_of_what_was_normalised():
    scales = [[0.7, 0.2], [0.5, 0.1], [0.6, 0.3]]
    network, plain = bag("mil_attention", scales=scales), bag("mil_attention")
    images, places = tiles_at(5)
    mean, deviation = torch.tensor(scales).T.reshape(2, 1, 3, 1, 1, 1)
    expected = plain(images, places)["class"]
    assert_allclose(network((images - mean) / deviation, places)["class"], expected, atol=1e-5)


def test_a_model_of_timm_stands_still_sees_a_tile_once_and_takes_its_published_file(tmp_path):
    torch.manual_seed(3)
    theirs = timm.create_model("test_resnet", pretrained=False, num_classes=2).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    size = {"encoder": ["frozen"], "model": "test_resnet", "dropout": 0.0}
    network = factory.build("mil_attention", 3, 3, {"class": Vector(2)}, size)
    factory.load_pretrained(network, "mil_attention", size, tmp_path / "model.safetensors", minimum=0.5)
    images, places = torch.rand(2, 3, 4, 32, 32), tiles_at(4)[1]
    tiles = images.transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features((tiles - 0.5) / 0.5), pre_logits=True)
    assert_allclose(network.eval().encoded(tiles), expected, atol=1e-5)
    before, seen = {name: one.clone() for name, one in network.state_dict().items()}, list[int]()
    network.encoder.frozen.body.register_forward_hook(lambda *given: seen.append(len(given[1][0])))
    optimiser = torch.optim.SGD([one for one in network.train().parameters() if one.requires_grad], lr=1.0)
    for _ in range(3):
        torch.nn.functional.cross_entropy(network(images, places)["class"], torch.tensor([0, 1])).backward()
        optimiser.step()
    assert seen == [8]
    moved = {name for name, one in network.state_dict().items() if not torch.equal(one, before[name])}
    assert moved and not any(name.startswith("encoder.") for name in moved)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"encoder": []}, "is no list of colour, trained, frozen"),
        ({"encoder": ["colour", "colour"]}, "each at most once"),
        ({"encoder": ["texture"]}, "texture"),
        ({"scales": [[0.0, 1.0]]}, "3"),
        ({"encoder": ["frozen"], "model": "hf_hub:timm/resnet18"}, "hf_hub"),
    ],
)
def test_encoders_that_cannot_be_are_refused(size, says):
    with pytest.raises(PlanError, match=says):
        factory.build("mil_attention", 3, 3, {"class": Vector(2)}, size)


def test_more_channels_than_a_colour_has_are_refused():
    with pytest.raises(PlanError, match="at most 3 channels, not 4"):
        factory.build("mil_attention", 4, 3, {"class": Vector(2)}, {})
