from __future__ import annotations

import pytest
import torch

from hilum.networks import factory
from hilum.values import Dense

STAGES = {"features": [4, 8], "kernels": [[3, 3], [3, 3]], "strides": [[1, 1], [2, 2]], "decoder_convolutions": [1]}
OWN = {"plain_conv_unet": {"convolutions": [2, 2]}, "residual_encoder_unet": {"blocks": [1, 2]}}


def built(name: str, axes: int = 2, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build(name, 1, axes, {"mask": Dense(2)}, {**STAGES, **OWN[name], **size}).eval()


def test_the_parameters_have_the_names_of_nnunet():
    """As in a checkpoint of nnU-Net 2.8.1, each once: what its modules hold twice is left out there."""
    layer = ("conv.bias", "conv.weight", "norm.bias", "norm.weight")
    plain = {f"encoder.stages.{stage}.0.convs.{n}.{one}" for stage in (0, 1) for n in (0, 1) for one in layer}
    decoder = {f"decoder.stages.0.convs.0.{one}" for one in layer} | {
        "decoder.transpconvs.0.weight",
        "decoder.transpconvs.0.bias",
        "decoder.seg_layers.0.weight",
        "decoder.seg_layers.0.bias",
    }
    assert set(built("plain_conv_unet").state_dict()) == plain | decoder
    residual = {f"encoder.stem.convs.0.{one}" for one in layer}
    blocks = ((0, 0), (1, 0), (1, 1))
    residual |= {f"encoder.stages.{s}.blocks.{b}.conv{n}.{one}" for s, b in blocks for n in (1, 2) for one in layer}
    # The second stage halves, by a mean, and widens: its shortcut has a pool and then a convolution without bias.
    residual |= {f"encoder.stages.1.blocks.0.skip.1.{one}" for one in layer if one != "conv.bias"}
    assert set(built("residual_encoder_unet").state_dict()) == residual | decoder


@pytest.mark.parametrize("name", OWN)
def test_slice_by_slice_is_each_slice_on_its_own(name):
    plane, volume = built(name), built(name, 3, slicewise=True)
    volume.load_state_dict(plane.state_dict())
    images = torch.randn(2, 1, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = volume(images)["mask"]
        apart = torch.stack([plane(images[:, :, n])["mask"] for n in range(3)], dim=2)
    assert torch.allclose(found, apart, atol=1e-5)


def test_the_normalisation_may_come_last():
    first, last = built("plain_conv_unet"), built("plain_conv_unet", norm_last=True)
    last.load_state_dict(first.state_dict())
    images = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    layer = last.encoder.stages[0][0].convs[0]
    expected = layer.norm(layer.nonlin(layer.conv(images)))
    assert torch.allclose(layer(images), expected)
    assert not torch.allclose(first(images)["mask"], last(images)["mask"])


def test_without_normalisation_there_are_no_parameters_of_one():
    assert not [name for name in built("residual_encoder_unet", norm=None).state_dict() if "norm" in name]
