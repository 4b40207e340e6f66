from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from dirty_memory import dirty_memory
from hilum.networks import quick_convolutions
from hilum.training.step import computation
from hilum.training.step.computation import Compute

TESTS = Path(__file__).parents[1]
METHODS = Compute(), Compute(half=True)
# Of a convolution whose gradients were seen to be wrong: axes of the image, kernel, stride, padding.
SEEN_WRONG = [
    ((2, 2, 2), 3, 1, 1),
    ((2, 8, 8), 3, 1, 1),
    ((2, 4, 4), (5, 1, 1), 1, (2, 0, 0)),
    ((4, 4, 4), 5, 2, 2),
    ((1, 1, 1), (1, 5, 5), 1, (0, 2, 2)),
    ((7, 7, 7), 7, 2, 3),  # the kernel would fit, and never stands where it does
    ((4, 16, 16), 7, 2, 3),
]


def gradients(module: nn.Module, images: torch.Tensor, compute: Compute) -> list[torch.Tensor]:
    """Of all weights and of the images, in memory that held what is no number."""
    images = images.clone().requires_grad_()
    dirty_memory(torch.nan)
    with compute.autocast("cpu"):
        answer = module(images)
    return list(torch.autograd.grad(answer.square().sum(), [*module.parameters(), images]))


def assert_exact(module: nn.Module, images: torch.Tensor) -> None:
    """Beside float64, which another kernel computes."""
    module.requires_grad_()
    exact = gradients(copy.deepcopy(module).double(), images.double(), Compute())
    for method in (*METHODS, *METHODS):
        for found, true in zip(gradients(computation.with_exact_gradients(module), images, method), exact, strict=True):
            assert (found - true).norm() < (0.03 if method.half else 1e-5) * true.norm()


@pytest.mark.parametrize(("axes", "kernel", "stride", "padding"), SEEN_WRONG)
def test_gradients_are_right_where_a_volume_is_thinner_than_the_kernel(axes, kernel, stride, padding):
    torch.manual_seed(0)
    assert_exact(nn.Conv3d(16, 16, kernel, stride, padding), torch.randn(1, 16, *axes))


@pytest.mark.parametrize(("axes", "kernel", "stride", "padding"), [((1, 1, 1), 3, 2, 1), ((2, 2, 2), 4, 2, 2)])
def test_so_are_those_of_transposed_convolutions(axes, kernel, stride, padding):
    torch.manual_seed(0)
    assert_exact(nn.ConvTranspose3d(16, 16, kernel, stride, padding), torch.randn(1, 16, *axes))


ENOUGH_TO_DIE = """
import torch
from sampled_convolutions import gradients
from hilum.networks import quick_convolutions
from hilum.training.step import computation
for channels in (4, 7):
    module = computation.with_exact_gradients(quick_convolutions.to_channels_last(torch.nn.Conv2d(channels, 8, 1, 2)))
    for _ in range(20):
        gradients(module, quick_convolutions.order_channels_last(torch.randn(8, channels, 16, 16)))
"""


def survives(*words: str) -> None:
    """Python with these words, in a process of its own: one that writes into foreign memory dies."""
    paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    given = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    ended = subprocess.run([sys.executable, *words], env=given, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-500:]}{ended.stderr}"


@pytest.mark.whole
def test_a_convolution_that_skips_pixels_writes_into_no_foreign_memory():
    survives("-c", ENOUGH_TO_DIE)  # as it did on processors with AVX2 alone


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.whole) for n in range(50, 1050, 50))])
def test_gradients_of_any_convolution_are_right_and_lie_in_their_own_memory(first):
    survives(str(TESTS / "sampled_convolutions.py"), str(first), str(first + 50))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("length", [1, 4, 5])
@pytest.mark.parametrize("groups", [1, 2])
def test_without_the_skipped_pixels_the_answer_is_the_same(axes, length, groups):
    theirs = (nn.Conv2d if axes == 2 else nn.Conv3d)(4, 6, 1, (2, 3, 1)[:axes], groups=groups)
    images = torch.randn(2, 4, *(length, 7, 3)[:axes])
    ours = computation.with_exact_gradients(copy.deepcopy(theirs))
    assert type(ours) is not type(theirs)
    assert torch.allclose(ours(images), theirs(images), atol=1e-6)


numbers = st.tuples(*[st.integers(1, 3)] * 3)


@given(
    axes=st.tuples(*[st.integers(1, 6)] * 3),
    kernel=st.tuples(*[st.integers(1, 5)] * 3),
    stride=numbers,
    dilation=numbers,
    padding=st.tuples(*[st.integers(0, 4)] * 3) | st.just("same"),
    transposed=st.booleans(),
)
def test_answers_are_those_of_torch_whatever_the_kernel(axes, kernel, stride, dilation, padding, transposed):
    if padding == "same":
        assume(not transposed and set(stride) == {1})
    shape = {"kernel_size": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    module = (nn.ConvTranspose3d if transposed else nn.Conv3d)(2, 3, **shape)
    images = torch.randn(2, 2, *axes)
    try:
        theirs = copy.deepcopy(module)(images)
    except RuntimeError:  # the kernel is longer than the image with all its zeros
        assume(False)
    assert torch.allclose(computation.with_exact_gradients(module)(images), theirs, atol=1e-5)


def test_a_kernel_that_lies_within_the_image_somewhere_is_not_too_long():
    for length, kernel, stride, padding, dilation, expected in (
        (3, 3, 1, 1, 1, False),
        (2, 3, 1, 1, 1, True),
        (4, 3, 2, 1, 1, False),
        (4, 3, 1, 2, 2, True),
        (5, 3, 1, 2, 2, False),
        (7, 7, 2, 3, 1, True),
        (8, 7, 2, 3, 1, False),
        (16, 16, 16, 0, 1, False),
    ):
        assert quick_convolutions.too_thin([length], [kernel], [stride], [padding], [dilation]) is expected


def test_a_convolution_is_changed_once_and_keeps_its_weights():
    module = nn.Conv3d(1, 1, 3)
    state = copy.deepcopy(module.state_dict())
    changed = computation.with_exact_gradients(computation.with_exact_gradients(module))
    assert changed is module and type(module).__mro__[1] is nn.Conv3d
    assert all(torch.equal(state[name], weight) for name, weight in module.state_dict().items())
