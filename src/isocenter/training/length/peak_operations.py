"""The share of what the machine can do that a step reaches: its operations, against the machine's best convolution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from isocenter.lazy import flop_counter, torch
from isocenter.networks import memory_order

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# The convolutions that do most of the work are measured, each so often; the fastest run is the machine's best.
MOST_SHAPES, REPEATS = 4, 5
# Rows of a matrix product: more make none faster, and would take gigabytes.
MOST_ROWS = 16384


@dataclass(frozen=True)
class Shape:
    """One convolution of a network.

    images:  (batch, channels, *spatial) of its input; weight: (channels out, channels in / groups, *kernel)
    options: stride, padding, dilation and groups
    """

    images: tuple[int, ...]
    weight: tuple[int, ...]
    options: tuple[Any, ...]
    operations: float

    @property
    def words(self) -> str:
        """The convolution in words."""
        kernel, spatial = (" x ".join(str(n) for n in sizes[2:]) for sizes in (self.weight, self.images))
        return f"{self.weight[1]} to {self.weight[0]} channels, {kernel} over {spatial}"


@dataclass(frozen=True)
class Peak:
    """operations: a second, floating-point; what: which computation reached them"""

    operations: float
    what: str


def counted(module: Module, step: Callable[[], object]) -> tuple[float, list[Shape]]:
    """Floating-point operations of a step, there and back, and the network's convolutions, the heaviest first."""
    shapes: set[Shape] = set()
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)

    def seen(part: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        """Note the shapes of a convolution, as a forward hook."""
        options = (part.stride, part.padding, part.dilation, part.groups)
        work = 2.0 * output.numel() * math.prod(part.weight.shape[1:])
        shapes.add(Shape(tuple(given[0].shape), tuple(part.weight.shape), options, work))

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, kinds):
                stack.callback(part.register_forward_hook(seen).remove)
        singles = {torch.ops.aten.mkldnn_convolution: _of_single_volume}
        counter = stack.enter_context(flop_counter.FlopCounterMode(display=False, custom_mapping=singles))
        step()
    return float(counter.get_total_flops()), sorted(shapes, key=lambda shape: -shape.operations)


def _of_single_volume(images: list[int], weight: list[int], *_: object, out_shape: list[int]) -> int:
    """Operations of a convolution that torch's counter does not know: that of a single volume by oneDNN."""
    return int(flop_counter.conv_flop_count(images, weight, out_shape))


def measured_peak(module: Module, shapes: Sequence[Shape], *, half: bool, device: Any) -> Peak | None:
    """The most operations a second of the heaviest convolutions, plain and channels-last, and of such matrix products.

    None for a network without convolutions.
    """
    dtype, known = torch.bfloat16 if half else torch.float32, memory_order(module)
    if known is None:
        return None
    orders = {"plain": torch.contiguous_format, "channels-last": known[1]}
    reached: list[Peak] = []
    for shape, (name, order) in product(shapes[:MOST_SHAPES], orders.items()):
        images = torch.randn(shape.images, dtype=dtype, device=device).contiguous(memory_format=order)
        weight = torch.randn(shape.weight, dtype=dtype, device=device).contiguous(memory_format=order)
        convolve = {4: torch.conv2d, 5: torch.conv3d}[images.ndim]
        seconds = fastest(partial(convolve, images, weight, None, *shape.options), device)
        reached.append(Peak(shape.operations / seconds, f"a convolution of {shape.words}, {name}"))
    for shape in shapes[:MOST_SHAPES]:
        inside, outside = math.prod(shape.weight[1:]), shape.weight[0]
        rows = min(MOST_ROWS, round(shape.operations / (2 * inside * outside)))
        left = torch.randn(rows, inside, dtype=dtype, device=device)
        right = torch.randn(inside, outside, dtype=dtype, device=device)
        seconds = fastest(partial(torch.matmul, left, right), device)
        words = f"a matrix product of {rows} x {inside} by {inside} x {outside}"
        reached.append(Peak(2.0 * rows * inside * outside / seconds, words))
    return max(reached, key=attrgetter("operations"), default=None)


def fastest(call: Callable[[], object], device: Any) -> float:
    """s of the fastest of some calls."""
    times = []
    with torch.no_grad():
        for _ in range(REPEATS):
            settled(device)
            mark = time.perf_counter()
            call()
            settled(device)
            times.append(time.perf_counter() - mark)
    return min(times)


def settled(device: Any) -> None:
    """Wait until the device has done what it was given: only then does a clock tell the truth."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()
