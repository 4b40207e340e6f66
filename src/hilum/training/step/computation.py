"""The computation of a step: precision, order in memory, compiled or not; the arithmetic stays the one asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hilum.lazy import torch
from hilum.networks import quick_convolutions
from hilum.planning.plan_sections import TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


EAGER = "eager"


@dataclass(frozen=True)
class Compute:
    """A choice of how to compute a step.

    half:          convolutions and matrix products in bfloat16
    channels_last: the channels of a voxel lie side by side in memory
    compiled:      through torch.compile
    """

    half: bool = False
    channels_last: bool = False
    compiled: bool = False

    @classmethod
    def from_name(cls, name: str, chosen: TrainingSettings) -> Compute:
        """The computation that a plan names; the rest follows the plan's precision."""
        words = name.split()
        half = chosen.precision == "bf16" and "float32" not in words
        return cls(half, "channels-last" in words, "compiled" in words)

    def name(self, chosen: TrainingSettings) -> str:
        """The name of the computation in a plan."""
        words = ["float32"] if chosen.precision == "bf16" and not self.half else []
        words += ["compiled"] * self.compiled + ["channels-last"] * self.channels_last
        return " ".join(words) or EAGER

    def apply(self, module: Module) -> Module:
        """The module itself, computing so from its next call on."""
        (quick_convolutions.to_channels_last if self.channels_last else quick_convolutions.to_contiguous)(module)
        if self.compiled:
            # In this process: a worker of torch's compiler could die unseen, and each holds hundreds of MiB.
            torch._inductor.config.compile_threads = 1
            module.compile()  # torch remembers what it has compiled
        else:
            module._compiled_call_impl = None
        return module

    def autocast(self, device: Any) -> Any:
        """The precision, as a context around the network's call."""
        return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self.half)

    def order_images(self, module: Any, images: Tensor) -> Tensor:
        """Images in the order in which the network's weights lie."""
        if self.channels_last and quick_convolutions.batch_memory_order(module) is not None:
            return quick_convolutions.order_channels_last(images)
        return images


# Convolutions whose gradients processors do not compute right, rewritten so that they do.
#
# Volumes thinner than their kernel: where no position of the kernel lies wholly within the volume along some axis,
# oneDNN's kernels for AVX512 (seen in `jit_bf16:avx512_core_bf16`, backward_weights, and with longer strides in float32
# too, as torch 2.13.0 comes with them) leave parts of the weights' gradient as the memory was that they were given:
# numbers that are none, or, unseen, any others. Kernels much longer than the volume make them write past their memory's
# end, and the process dies. With the zeros around the volume written out, the kernel lies within what it is given, and
# all is sound. Flat images and the forward pass always are.
#
# Kernels of one pixel that skip pixels, as beside the body of a residual block: oneDNN's kernel for AVX2
# (`jit_1x1:avx2`, backward_weights, channels-last, seen with 2 to 7 channels) writes past its memory's end, and the
# process dies some time later. Without the skipped pixels there is nothing to skip; it takes no longer either.


def with_exact_gradients(module: Module) -> Module:
    """The module itself, whose convolutions compute on a processor what they are meant to."""
    for part in module.modules():
        theirs: Any = type(part)
        if hasattr(theirs, "is_exact"):
            continue
        if isinstance(part, torch.nn.Conv2d | torch.nn.Conv3d) and skips_pixels(part):
            part.__class__ = _without_skipped(theirs)
        elif isinstance(part, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            part.__class__ = _with_zeros_written_out(theirs)
    return module


def skips_pixels(part: Any) -> bool:
    """Whether a convolution looks at single pixels, and not at all of them."""
    is_pointwise = set(part.kernel_size) == {1} and part.padding in ("valid", (0,) * len(part.kernel_size))
    return is_pointwise and set(part.stride) != {1}


@functools.cache
def _without_skipped(theirs: Any) -> Any:
    """A class of convolutions that first take the pixels at which they look."""

    def forward(self: Any, images: Tensor) -> Tensor:
        """The convolution; on a processor of the pixels that it looks at alone."""
        if images.device.type != "cpu":
            return cast("Tensor", theirs.forward(self, images))
        form = torch.channels_last if len(self.stride) == 2 else torch.channels_last_3d
        steps: Any = [slice(None, None, step) for step in self.stride]
        taken = images[(slice(None), slice(None), *steps)]
        is_last = images.is_contiguous(memory_format=form)
        taken = quick_convolutions.order_channels_last(taken) if is_last else taken.contiguous()
        compute = torch.nn.functional.conv2d if len(self.stride) == 2 else torch.nn.functional.conv3d
        return compute(taken, self.weight, self.bias, groups=self.groups)

    return type(theirs.__name__, (theirs,), {"forward": forward, "is_exact": True})


@functools.cache
def _with_zeros_written_out(theirs: Any) -> Any:
    """A class of convolutions that write out the zeros around volumes that are too thin for them."""

    def forward(self: Any, images: Tensor, *batch: Any) -> Tensor:
        """The convolution; on a processor an image that is too thin is padded first."""
        spatial = images.shape[2:]
        if images.device.type != "cpu" or self.padding_mode != "zeros" or batch or not self.too_thin(spatial):
            return cast("Tensor", theirs.forward(self, images, *batch))
        outside = [n for before, after in reversed(self._outside()) for n in (before, after)]
        if not self.transposed:
            padded = torch.nn.functional.pad(images, outside)
            return torch.nn.functional.conv3d(
                padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
            )
        convolved = torch.nn.functional.conv_transpose3d(
            images, self.weight, self.bias, self.stride, 0, self.output_padding, self.groups, self.dilation
        )
        return torch.nn.functional.pad(convolved, [-n for n in outside])

    def of_image(self: Any, spatial: Sequence[int]) -> bool:
        padding = [before for before, _ in self._outside()]
        if self.transposed:  # its gradient is that of a convolution of what it makes
            along_axes = zip(
                spatial, self.kernel_size, self.stride, padding, self.dilation, self.output_padding, strict=True
            )
            spatial = [(n - 1) * s - 2 * p + d * (k - 1) + 1 + more for n, k, s, p, d, more in along_axes]
        return quick_convolutions.too_thin(spatial, self.kernel_size, self.stride, padding, self.dilation)

    def outside(self: Any) -> list[tuple[int, int]]:
        """Zeros before and after each axis."""
        if self.padding == "same":
            beyond = [gap * (cells - 1) for gap, cells in zip(self.dilation, self.kernel_size, strict=True)]
            return [(n // 2, n - n // 2) for n in beyond]
        return [(0, 0)] * 3 if self.padding == "valid" else [(n, n) for n in self.padding]

    return type(
        theirs.__name__, (theirs,), {"forward": forward, "too_thin": of_image, "_outside": outside, "is_exact": True}
    )
