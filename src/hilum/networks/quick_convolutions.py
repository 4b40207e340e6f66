"""Quick convolutions on a processor: single volumes by oneDNN, as several are, and maps in the channels-last format.

On a processor torch 2.13 computes a convolution of one volume by an unfolding of its own unless channels times the
first two axes exceed 20480 (ATen's `ConvParams::use_mkldnn`); at the deeper levels of a network oneDNN takes a fifth of
that time (bench/findings/speed.md). So these are handed to it, and their gradients with tensors in its own format.

In the channels-last format convolutions are faster, but torch's instance normalisation would convert every feature map
back to the contiguous format; ours keeps the format, by batch normalisation of one sample at a time. Weights, their
names and results stay the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


# Channels times the first two axes, and cells along the last two axes of a kernel, above which torch takes oneDNN.
FEW_VALUES = 20480
SMALL_KERNEL = 3


def with_quick_single_volumes(module: Module) -> Module:
    """The module itself, whose convolutions of single volumes are oneDNN's on a processor."""
    for part in module.modules():
        theirs: Any = type(part)
        if theirs is torch.nn.Conv3d:
            part.__class__ = _quick(theirs)
    return module


def bypasses_onednn(part: Any, images: Tensor) -> bool:
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
            return cast("Tensor", torch.ops.aten.mkldnn_convolution(images, weight, bias, padding, stride, dilation, 1))

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
        if not bypasses_onednn(self, images):
            return cast("Tensor", theirs.forward(self, images))
        return cast(
            "Tensor", Convolution.apply(images, self.weight, self.bias, (self.stride, self.padding, self.dilation))
        )

    return type(theirs.__name__, (theirs,), {"forward": forward})


def _dense(gradient: Tensor | None) -> Tensor | None:
    return gradient.to_dense() if gradient is not None and gradient.is_mkldnn else gradient


def to_channels_last(module: Module) -> Module:
    """The same module, with the weights of its convolutions and its normalisations in the channels-last format."""
    if (memory_format := batch_memory_order(module)) is None:
        return module
    ndim, order = memory_format
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if parameter.ndim == ndim:
                parameter.data = parameter.data.contiguous(memory_format=order)
        if type(part) in _ours() and not part.track_running_stats:
            part.__class__ = _ours()[type(part)]
    return module


def to_contiguous(module: Module) -> Module:
    """The same module in the contiguous format."""
    torchs = {ours: theirs for theirs, ours in _ours().items()}
    for part in module.modules():
        part.__class__ = torchs.get(type(part), type(part))
        for parameter in part.parameters(recurse=False):
            parameter.data = parameter.data.contiguous()
    return module


def batch_memory_order(module: Module) -> tuple[int, Any] | None:
    """Axes of a batch of images and their memory format; None without a convolution in two or three dimensions."""
    for part in module.modules():
        if isinstance(part, torch.nn.Conv3d):
            return 5, torch.channels_last_3d
        if isinstance(part, torch.nn.Conv2d):
            return 4, torch.channels_last
    return None


@functools.cache
def _ours() -> Mapping[type, type]:
    """torch's classes of instance normalisation and their replacements; made on first use, because torch loads late."""

    class Normalisation(torch.autograd.Function):
        """Instance normalisation that keeps the channels-last format."""

        @staticmethod
        def forward(context: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
            """Return the normalised images."""
            normalised = torch.empty_like(images)
            exact = torch.promote_types(images.dtype, torch.float32)
            if weight is None:  # without weights in float32 torch would keep means in half precision
                weight, bias = (make(images.shape[1], dtype=exact) for make in (images.new_ones, images.new_zeros))
            mean, inverse = (images.new_empty(images.shape[:2], dtype=exact) for _ in range(2))
            for n, sample in enumerate(images.split(1)):
                into = {"out": normalised[n : n + 1], "save_mean": mean[n], "save_invstd": inverse[n]}
                torch.ops.aten.native_batch_norm.out(sample, weight, bias, None, None, True, 0.0, eps, **into)
            context.save_for_backward(images, weight, mean, inverse)
            context.eps = eps
            return normalised

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            """Return the gradients of images, weight and bias."""
            images, weight, mean, inverse = context.saved_tensors
            needed = list(context.needs_input_grad[:3])
            gradient = order_channels_last(gradient)
            gradients = [
                torch.ops.aten.native_batch_norm_backward(
                    upper, sample, weight, None, None, mean[n], inverse[n], True, context.eps, needed
                )
                for n, (upper, sample) in enumerate(zip(gradient.split(1), images.split(1), strict=True))
            ]
            of_images, of_weight, of_bias = zip(*gradients, strict=True)
            return (
                torch.cat(of_images) if needed[0] else None,
                torch.stack(of_weight).sum(dim=0) if needed[1] else None,
                torch.stack(of_bias).sum(dim=0) if needed[2] else None,
                None,
            )

    def forward(self: Any, images: Tensor) -> Tensor:
        """Return the normalised images, in the same format."""
        if images.device.type == "cpu" and images.ndim == self.ndim and not torch.compiler.is_compiling():
            return cast("Tensor", Normalisation.apply(order_channels_last(images), self.weight, self.bias, self.eps))
        return torch.nn.functional.instance_norm(images, weight=self.weight, bias=self.bias, eps=self.eps)

    theirs = {torch.nn.InstanceNorm2d: 4, torch.nn.InstanceNorm3d: 5}
    return {kind: type(kind.__name__, (kind,), {"forward": forward, "ndim": ndim}) for kind, ndim in theirs.items()}


def order_channels_last(images: Tensor) -> Tensor:
    """Images, (batch, channels, *spatial), in the channels-last format, explicitly so with a single channel."""
    order = {5: torch.channels_last_3d}.get(images.ndim, torch.channels_last)
    if images.shape[1] > 1:
        return images.contiguous(memory_format=order)
    spatial = images.shape[2:]
    images = images.contiguous()
    steps = [math.prod(spatial[axis + 1 :]) for axis in range(len(spatial))]
    return images.as_strided(images.shape, (math.prod(spatial), 1, *steps))
