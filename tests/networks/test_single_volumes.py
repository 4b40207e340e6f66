from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hilum.networks import factory, quick_convolutions
from hilum.networks.quick_convolutions import FEW_VALUES
from hilum.training.length import step_probe
from hilum.values import Dense

UNET = {"width": 4, "widest": 16, "strides": [[1, 1, 1], [2, 2, 2]], "deep_supervision": 0}
without_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def same_seed() -> None:
    torch.manual_seed(0)


@without_onednn
@given(
    channels=st.sampled_from([(1, 3), (3, 8), (16, 16)]),
    spatial=st.tuples(*[st.integers(4, 9)] * 3),
    kernel=st.tuples(*[st.sampled_from([1, 3])] * 3),
    stride=st.tuples(*[st.integers(1, 2)] * 3),
    order=st.sampled_from([quick_convolutions.to_contiguous, quick_convolutions.to_channels_last]),
    has_bias=st.booleans(),
)
@settings(max_examples=40)
def test_a_convolution_of_one_volume_and_its_gradients_are_those_of_float64(
    channels, spatial, kernel, stride, order, has_bias
):
    module = nn.Conv3d(*channels, kernel, stride, [side // 2 for side in kernel], bias=has_bias)
    images = torch.randn(1, channels[0], *spatial)
    exact = _there_and_back(copy.deepcopy(module).double(), images.double())
    quick = quick_convolutions.with_quick_single_volumes(order(module))
    assert max(kernel) == 1 or quick_convolutions.bypasses_onednn(quick, images)
    found = _there_and_back(
        quick,
        quick_convolutions.order_channels_last(images) if order is quick_convolutions.to_channels_last else images,
    )
    for one, true in zip(found, exact, strict=True):
        assert (one - true).norm() <= 1e-5 * true.norm()


@without_onednn
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv3d(2, 2, 3), (2, 2, 5, 5, 5)),
        (nn.Conv3d(2, 2, 1), (1, 2, 5, 5, 5)),
        (nn.Conv3d(2, 2, 3, groups=2), (1, 2, 5, 5, 5)),
        (nn.Conv3d(2, 2, 3, padding="same"), (1, 2, 5, 5, 5)),
        (nn.Conv3d(2, 2, 3, padding=1, padding_mode="replicate"), (1, 2, 5, 5, 5)),
        (nn.Conv3d(2, 2, 3, padding=1), (1, 2, 2, 5, 5)),  # thinner than the kernel
        (nn.Conv3d(FEW_VALUES // 25 + 1, 2, 3), (1, FEW_VALUES // 25 + 1, 5, 5, 5)),  # torch takes oneDNN itself
        (nn.Conv3d(2, 2, 3).double(), (1, 2, 5, 5, 5)),
    ],
)
def test_other_convolutions_stay_with_torch(module, shape):
    assert not quick_convolutions.bypasses_onednn(module, torch.zeros(shape, dtype=module.weight.dtype))
    assert (
        quick_convolutions.with_quick_single_volumes(module)(torch.zeros(shape, dtype=module.weight.dtype)).shape[0]
        == shape[0]
    )


def test_so_does_what_runs_in_half_precision_or_without_onednn():
    module, image = nn.Conv3d(2, 2, 3), torch.zeros(1, 2, 5, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert not quick_convolutions.bypasses_onednn(module, image)
        assert quick_convolutions.with_quick_single_volumes(module)(image).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert not quick_convolutions.bypasses_onednn(module, image)


def test_a_network_is_exported_and_traced_as_torch_wrote_it():
    network = factory.build("unet", 1, 3, {"mask": Dense(2)}, UNET).eval()
    images = torch.randn(1, 1, 8, 8, 8)
    before = {str(node.target) for node in torch.export.export(network, (images,)).graph.nodes}
    quick = quick_convolutions.with_quick_single_volumes(network)
    assert {str(node.target) for node in torch.export.export(quick, (images,)).graph.nodes} == before
    traced = torch.jit.trace(quick, (images,), strict=False)
    assert "mkldnn_convolution" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(images)["mask"], quick(images)["mask"], rtol=1e-4, atol=1e-5)


def test_the_operations_of_a_step_are_counted_alike():
    network, images = factory.build("unet", 1, 3, {"mask": Dense(2)}, UNET), torch.randn(1, 1, 8, 8, 8)

    def step(module: nn.Module) -> None:
        module(images)["mask"].square().mean().backward()

    before, shapes = step_probe.count_work(network, partial(step, network))
    quick = quick_convolutions.with_quick_single_volumes(network)
    assert step_probe.count_work(quick, partial(step, quick)) == (before, shapes)


def _there_and_back(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    answer = module(images)
    return [answer.detach(), *torch.autograd.grad(answer.square().sum(), [images, *module.parameters()])]
