"""Convolutions of volumes thinner than their kernel, whose gradients processors do not compute right.

Where no position of the kernel lies wholly within the volume along some axis, oneDNN's kernels for AVX512 (seen in
`jit_bf16:avx512_core_bf16`, backward_weights, and with longer strides in float32 too, as torch 2.13.0 comes with them)
leave parts of the weights' gradient as the memory was that they were given: numbers that are none, or, unseen, any
others. Kernels much longer than the volume make them write past their memory's end, and the process dies. With the
zeros around the volume written out, the kernel lies within what it is given, and all is sound. Flat images and the
forward pass always are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def exact_where_thin(module: Module) -> Module:
    """The module itself; its convolutions of volumes write out the zeros around those that are too thin for them."""
    for part in module.modules():
        if isinstance(part, torch.nn.Conv3d | torch.nn.ConvTranspose3d) and not hasattr(part, "too_thin"):
            theirs: Any = type(part)
            part.__class__ = _exact(theirs)
    return module


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
def _exact(theirs: Any) -> Any:
    """A class of convolutions that differs in this alone."""

    def forward(self: Any, images: Tensor, *given: Any) -> Tensor:
        """The convolution; on a processor an image that is too thin is padded first."""
        spatial = images.shape[2:]
        if images.device.type != "cpu" or self.padding_mode != "zeros" or given or not self.too_thin(spatial):
            return theirs.forward(self, images, *given)
        outside = [n for before, after in reversed(self._outside()) for n in (before, after)]
        if not self.transposed:
            padded = torch.nn.functional.pad(images, outside)
            return torch.nn.functional.conv3d(
                padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
            )
        whole = torch.nn.functional.conv_transpose3d(
            images, self.weight, self.bias, self.stride, 0, self.output_padding, self.groups, self.dilation
        )
        return torch.nn.functional.pad(whole, [-n for n in outside])

    def of_image(self: Any, spatial: Sequence[int]) -> bool:
        padding = [before for before, _ in self._outside()]
        if self.transposed:  # its gradient is that of a convolution of what it makes
            each = zip(spatial, self.kernel_size, self.stride, padding, self.dilation, self.output_padding, strict=True)
            spatial = [(n - 1) * s - 2 * p + d * (k - 1) + 1 + more for n, k, s, p, d, more in each]
        return too_thin(spatial, self.kernel_size, self.stride, padding, self.dilation)

    def outside(self: Any) -> list[tuple[int, int]]:
        """Zeros before and after each axis."""
        if self.padding == "same":
            beyond = [gap * (cells - 1) for gap, cells in zip(self.dilation, self.kernel_size, strict=True)]
            return [(n // 2, n - n // 2) for n in beyond]
        return [(0, 0)] * 3 if self.padding == "valid" else [(n, n) for n in self.padding]

    return type(theirs.__name__, (theirs,), {"forward": forward, "too_thin": of_image, "_outside": outside})
