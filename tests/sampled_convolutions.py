"""Gradients of convolutions that are sampled by number, beside float64 by torch's own kernels.

    python tests/sampled_convolutions.py 0 50

A program of its own, because a kernel that writes into foreign memory ends the process.
"""

from __future__ import annotations

import copy
import random
import sys

import torch
from torch import Tensor, nn

from hilum.networks import quick_convolutions
from hilum.training.step import computation


def sample_convolution(number: int) -> tuple[nn.Module, Tensor, bool]:
    """A convolution, images for it, and whether both lie channels-last in memory."""
    pick = random.Random(number).choice  # noqa: S311 - no secret
    torch.manual_seed(number)
    axes, last = pick([2, 2, 3]), pick([True, True, False])
    kind = pick(["Conv", "Conv", "Conv", "ConvTranspose"]) + f"{axes}d"
    inputs, outputs = pick([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 32, 33]), pick([1, 3, 8, 20, 24, 33])
    side = [pick([4, 5, 7, 8, 12 if axes == 3 else 28]) for _ in range(axes)]
    kernel, stride, groups = min(pick([1, 1, 2, 3, 3, 5]), *side), pick([1, 2, 2, 3]), pick([1, 1, 1, 2, inputs])
    inputs, outputs = inputs + -inputs % groups, outputs + -outputs % groups
    module = getattr(nn, kind)(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return module, torch.randn(pick([1, 2, 8]), inputs, *side), last


def gradients(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Of the images and of all weights."""
    images = images.clone().requires_grad_()
    return list(torch.autograd.grad(module(images).square().sum(), [images, *module.parameters()]))


def main(first: int, last: int) -> None:
    torch.set_num_threads(1)
    for number in range(first, last):
        module, images, is_last = sample_convolution(number)
        with torch.backends.mkldnn.flags(enabled=False):
            exact = gradients(copy.deepcopy(module).double(), images.double())
        sys.stdout.write(f"{number} {module} {tuple(images.shape)} {is_last=}\n")
        sys.stdout.flush()  # the process may die
        ours = computation.with_exact_gradients(
            quick_convolutions.with_quick_single_volumes(
                (quick_convolutions.to_channels_last if is_last else quick_convolutions.to_contiguous)(module)
            )
        )
        for _ in range(4):
            found = gradients(ours, quick_convolutions.order_channels_last(images) if is_last else images)
        for one, true in zip(found, exact, strict=True):
            assert (one - true).norm() <= 1e-4 * true.norm()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
