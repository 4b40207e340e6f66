from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.values import Dense, Head, Vector
from matrices import thinned

torch.set_num_threads(1)

CLASS: dict[str, Head] = {"class": Vector(3)}
SMALL = {"width": 8, "dropout": 0.0, "strides": [[2, 2]] * 2 + [[1, 1]] * 3}


def slices(**size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build("resnet_slices", 1, 3, CLASS, {**SMALL, **size}).eval()


@pytest.mark.parametrize("axis", thinned(1, [0, 2]))
@pytest.mark.parametrize("pooling", thinned(1, ["attention", "mean"]))
def test_a_volume_of_equal_slices_gets_torchvisions_answer_for_one(axis, pooling, tmp_path):
    """Whose weights for colours see the same slice three times, as the slice and as its neighbours."""
    torch.manual_seed(0)
    theirs = resnet18(num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    size = {"axis": axis, "pooling": pooling}
    ours = factory.build("resnet_slices", 1, 3, CLASS, size).eval()
    said = factory.load_pretrained(ours, "resnet_slices", size, tmp_path / "resnet18.pth").words
    assert "adapted" not in said  # three slices of one channel are as many channels as there are colours
    ours.vectors["class"].load_state_dict(theirs.fc.state_dict())
    picture = torch.randn(2, 1, 32, 48)
    volume = picture.unsqueeze(axis + 2).repeat_interleave(4, dim=axis + 2)
    with torch.no_grad():
        torch.testing.assert_close(ours(volume)["class"], theirs(picture.expand(2, 3, 32, 48)), atol=1e-4, rtol=1e-4)


def test_without_neighbours_the_order_of_the_slices_does_not_matter_and_with_them_it_does():
    volume, order = torch.randn(2, 1, 12, 10, 5), [3, 0, 4, 1, 2]
    for neighbours, same in ((0, True), (1, False)):
        network = slices(neighbours=neighbours)
        one, other = network(volume)["class"], network(volume[..., order])["class"]
        assert torch.allclose(one, other, atol=1e-5) is same


def test_slices_are_weighed_by_what_is_found_in_them():
    network, volume = slices(neighbours=0), torch.randn(2, 1, 12, 10, 5)
    weights = network.attention(volume)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    found = torch.stack([network.encoder(volume[..., n])[-1].mean(dim=(2, 3)) for n in range(5)], dim=1)
    torch.testing.assert_close(weights, network.weigh.score(network.weigh.hidden(found))[..., 0].softmax(dim=1))
    pooled = torch.einsum("bn,bnf->bf", weights, found)
    torch.testing.assert_close(network(volume)["class"], network.vectors["class"](pooled))


def test_numbers_beside_a_volume_join_what_was_found_in_its_slices():
    network = slices(context=2)
    volume, told = torch.randn(2, 1, 12, 10, 5), torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    apart = network(volume, told)["class"] - network(volume, torch.zeros(2, 2))["class"]
    torch.testing.assert_close(apart, told @ network.vectors["class"].weight[:, -2:].T, atol=1e-5, rtol=1e-4)


def test_weights_that_have_learnt_nothing_are_the_mean():
    weighed, mean = slices(), slices(pooling="mean")
    torch.nn.init.zeros_(weighed.weigh.score.weight)
    mean.load_state_dict({name: value for name, value in weighed.state_dict().items() if "weigh." not in name})
    volume = torch.randn(1, 1, 12, 10, 5)
    torch.testing.assert_close(weighed(volume)["class"], mean(volume)["class"])


@pytest.mark.parametrize(
    ("shape", "strides", "axis"),
    [((64, 16, 64), [[1, 1, 1]], 1), ((32, 32, 32), [[1, 1, 1]], 2), ((16, 64, 64), [[1, 1, 1], [2, 1, 2]], 1)],
)
def test_the_cut_goes_along_the_longest_voxels_else_the_fewest_else_the_last_axis(shape, strides, axis):
    size, because, _ = factory.size_for("resnet_slices", shape, strides, "cpu")
    assert size["axis"] == axis
    assert f"cut along axis {axis}" in because


@pytest.mark.parametrize(
    ("axes", "heads", "size", "says"),
    [
        (2, CLASS, {}, "choose inflated_resnet"),
        (3, {"mask": Dense(2)}, {}, "Choose unet"),
        (3, CLASS, {"pooling": "most"}, "attention, mean"),
        (3, CLASS, {"axis": 3}, "axis 3"),
        (3, CLASS, {"neighbours": -1}, "neighbours -1"),
    ],
)
def test_what_is_no_such_network_is_refused(axes, heads, size, says):
    with pytest.raises(PlanError, match=says):
        factory.build("resnet_slices", 1, axes, heads, size)
