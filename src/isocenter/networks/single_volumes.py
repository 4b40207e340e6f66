"""Convolutions of a single volume in float32 by oneDNN, as those of several are.

On a processor torch 2.13 computes a convolution of one volume by an unfolding of its own unless channels times the
first two axes exceed 20480 (ATen's `ConvParams::use_mkldnn`); at the deeper levels of a network oneDNN takes a fifth of
that time (bench/single_volumes.py). So these are handed to it, and their gradients with tensors in its own format.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# Channels times the first two axes, and cells along the last two axes of a kernel, above which torch takes oneDNN.
FEW_VALUES, SMALL_KERNEL = 20480, 3


def with_quick_single_volumes(module: Module) -> Module:
    """The module itself, whose convolutions of single volumes are oneDNN's on a processor."""
    for part in module.modules():
        theirs: Any = type(part)
        if theirs is torch.nn.Conv3d:
            part.__class__ = _quick(theirs)
    return module


def passes_by(part: Any, images: Tensor) -> bool:
    """Whether torch would compute this convolution of one volume without oneDNN although oneDNN can."""
    return (
        images.device.type == "cpu"
        and images.dtype == part.weight.dtype == torch.float32
        and images.shape[0] == part.groups == 1
        and math.prod(images.shape[1:4]) <= FEW_VALUES
        and math.prod(part.kernel_size) > 1
        and min(part.kernel_size[1:]) <= SMALL_KERNEL
        and part.padding_mode == "zeros"
        and not isinstance(part.padding, str)
        and not too_thin(images.shape[2:], part.kernel_size, part.stride, part.padding, part.dilation)
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing())
    )


def too_thin(
    image: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Whether, along some axis, the kernel looks beyond the image wherever it stands."""
    for length, cells, step, before, gap in zip(image, kernel, stride, padding, dilation, strict=True):
        first = -(-before // step) * step - before  # of the windows that begin within the image
        if first + gap * (cells - 1) + 1 > length:
            return True
    return False


@functools.cache
def _quick(theirs: Any) -> Any:
    """torch's class with another way for single volumes; made on first use, because torch loads late."""

    class Convolution(torch.autograd.Function):
        """A convolution by oneDNN, there and back."""

        @staticmethod
        def forward(context: Any, images: Tensor, weight: Tensor, bias: Tensor | None, options: Any) -> Tensor:
            """Return the convolution."""
            context.save_for_backward(images, weight)
            context.options = options
            stride, padding, dilation = options
            return torch.ops.aten.mkldnn_convolution(images, weight, bias, padding, stride, dilation, 1)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            """Return the gradients of images, weight and bias."""
            images, weight = context.saved_tensors
            needed = context.needs_input_grad
            of_images, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient.to_mkldnn(), images.to_mkldnn(), weight, None, *context.options, False, [0] * 3, 1,
                [needed[0], needed[1], False],
            )  # fmt: skip
            of_bias = gradient.sum(dim=(0, 2, 3, 4)) if needed[2] else None
            return _dense(of_images), _dense(of_weight), of_bias, None

    def forward(self: Any, images: Tensor) -> Tensor:
        """Return the convolution."""
        if not passes_by(self, images):
            return theirs.forward(self, images)
        return Convolution.apply(images, self.weight, self.bias, (self.stride, self.padding, self.dilation))

    return type(theirs.__name__, (theirs,), {"forward": forward})


def _dense(gradient: Tensor | None) -> Tensor | None:
    return gradient.to_dense() if gradient is not None and gradient.is_mkldnn else gradient
