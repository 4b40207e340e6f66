"""Channels that matter least are left out, and a narrower network of the family remains."""

import pytest
import torch
from torch.testing import assert_close

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.training import channel_pruning
from hilum.values import Dense

pytest.importorskip("torch_pruning")


def unet(width: int) -> torch.nn.Module:
    size = {"width": width, "widest": 2 * width, "strides": [[1, 1], [2, 2]]}
    return factory.build("unet", 1, 2, {"mask": Dense(3)}, size).eval()


def test_the_channels_with_the_largest_weights_remain_and_answer_as_before():
    whole, half = unet(8), unet(4)
    with torch.no_grad():  # half of the channels are silent in all layers
        for name, one in whole.named_parameters():
            if one.ndim > 1 and not name.startswith("dense"):
                if "up." in name:
                    one[:, one.shape[1] // 2 :] = 0
                else:
                    one[len(one) // 2 :] = 0
    kept = channel_pruning.prune_channels(whole, half, [torch.zeros(2, 1, 16, 16)], 0.5)
    half.load_state_dict(kept)
    image = torch.randn(1, 1, 16, 16)
    assert {name: one.shape for name, one in kept.items()} == {n: one.shape for n, one in half.state_dict().items()}
    with torch.no_grad():
        assert_close(half(image)["mask"], whole(image)["mask"], rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_the_narrower_network_is_refused():
    with pytest.raises(PlanError, match="do not fit the narrower network"):
        channel_pruning.prune_channels(unet(8), unet(4), [torch.zeros(2, 1, 16, 16)], 0.25)
