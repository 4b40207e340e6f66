"""The computation of a step: precision, order in memory, compiled or not; the arithmetic stays the one asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch
from isocenter.networks import channels_last, memory_order, ordered, plain
from isocenter.planning import Training

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
    def of(cls, name: str, chosen: Training) -> Compute:
        """The computation that a plan names; the rest follows the plan's precision."""
        words = name.split()
        half = chosen.precision == "bf16" and "float32" not in words
        return cls(half, "channels-last" in words, "compiled" in words)

    def name(self, chosen: Training) -> str:
        """The name of the computation in a plan."""
        words = ["float32"] if chosen.precision == "bf16" and not self.half else []
        words += ["compiled"] * self.compiled + ["channels-last"] * self.channels_last
        return " ".join(words) or EAGER

    def applied(self, module: Module) -> Module:
        """The module itself, computing so from its next call on."""
        (channels_last if self.channels_last else plain)(module)
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

    def ordered(self, module: Any, images: Tensor) -> Tensor:
        """Images in the order in which the network's weights lie."""
        return ordered(images) if self.channels_last and memory_order(module) is not None else images
