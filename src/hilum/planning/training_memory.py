"""The device that computes, and the peak of memory that training will take on it, computed beforehand.

The network is led over a patch on torch's meta device, where tensors have sizes but no content, and what autograd
keeps for the way back is counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hilum.errors import PlanError, ResourceError
from hilum.lazy import torch
from hilum.runtime import Context, hardware, torch_networks
from hilum.runtime.model_schema import NetworkArguments
from hilum.tasks import Task
from hilum.values.plain_values import PlainValue

if TYPE_CHECKING:
    from torch import Tensor


GIB = 2**30
# What runs whatever is trained: Python, torch and the libraries beside it 0.88 GiB, what reading and preparing leave
# behind 0.1, and 0.15 that the kernels of a first step keep. Measured on Linux; bench/memory.py measures it again.
PROGRAM = 1.13 * GIB
# What backpropagation, the kernels and the allocator take for each byte that is kept: measured on a processor beside
# those 0.15 GiB, 1.5 to 1.8 for U-Nets and ResNets of two and of three dimensions.
WORKING = 1.6
# bfloat16 halves what is kept but for the outputs, on which the loss works in float32: counted 0.50 to 0.515.
HALF = 0.515
# Of each prepared case, whatever its size: book-keeping, measured over 5,000 cases at 10 to 24 KiB.
BYTES_OF_A_CASE = 20 * 2**10
# Weights, gradients, averaged weights and the copy that the probe puts back; the optimiser's own states beside them.
COPIES = {"adamw": 6, "sgd": 5}
# Of what is free the rest stays for the system, for reading cases and for what the prediction misses.
USABLE = 0.8
# Prepared cases are kept in memory while they take less than this share of what is free, and no more than so many
# bytes, else read from disk: patches of volumes come from there more quickly than they are learnt from.
CACHED_SHARE = 0.3
MOST_CACHED = 2 * GIB


@dataclass(frozen=True)
class MemoryPeak:
    """GiB that training takes, part by part.

    program: what runs, with its libraries; always in the machine's own memory
    cases:   prepared cases that are kept there, with what is held of each
    weights: with gradients, averages and the optimiser's states
    kept:    of a batch, for the way back through the network
    """

    program: float
    cases: float
    weights: float
    kept: float

    def on_device(self, machine: Machine) -> float:
        """The peak on the device that computes; the whole peak where it has no memory of its own."""
        computed = self.weights + self.kept
        return computed + self.program + self.cases if machine.shares_memory else computed

    def fits(self, machine: Machine) -> bool:
        """Whether it fits into what is free of the device, and of the machine."""
        cached = machine.shares_memory or self.program + self.cases <= USABLE * machine.memory
        return cached and self.on_device(machine) <= USABLE * machine.device_memory

    def because(self, machine: Machine) -> str:
        """The parts in words, and what is free."""
        parts = f"{self.kept:.2f} GiB for the forward and backward pass of a batch, {self.weights:.2f} GiB for weights"
        if machine.shares_memory:
            parts += f", {self.program:.2f} GiB for the program and {self.cases:.2f} GiB for prepared cases"
        return (
            f"it takes {parts}; {machine.device_memory:.1f} GiB of memory are free on the {machine.device}, of which "
            f"{100 * USABLE:.0f} % may be used"
        )


def predict_peak(
    task: Task,
    architecture: NetworkArguments,
    patch: tuple[int, ...],
    batch: int,
    machine: Machine,
    *,
    half: bool,
    optimiser: str = "adamw",
    cases: float = 0.0,
    count: int = 0,
    networks: int = 1,
) -> MemoryPeak:
    """The prediction for these settings.

    half:  arithmetic in bfloat16
    cases: bytes of all prepared cases together; where they are many they are read from disk, patch by patch
    count: of cases
    networks: that learn at once
    """
    outputs, weights = _count_bytes(task, architecture, patch)
    cached = cases if cases <= cached_memory(machine.memory * GIB) else 0.0
    cached += count * BYTES_OF_A_CASE
    return MemoryPeak(
        program=PROGRAM / GIB,
        cases=cached / GIB,
        weights=networks * weights * COPIES[optimiser] / GIB,
        kept=outputs * batch * WORKING * (HALF if half else 1.0) / GIB,
    )


def cached_memory(free: float) -> float:
    """The bytes up to which prepared cases are kept in memory, of those that are free."""
    return min(CACHED_SHARE * free, MOST_CACHED)


def takes_context(task: Task, architecture: NetworkArguments, context: Mapping[str, PlainValue]) -> bool:
    """Whether the family takes these covariates."""
    with torch.device("meta"):
        try:
            torch_networks.build_module(task, {**architecture, "context": context})
        except PlanError:
            return False
    return True


def refuse_too_large(needed: MemoryPeak, machine: Machine, name: str = "plan") -> None:
    """ResourceError where training would not fit, with what would."""
    if not needed.fits(machine):
        raise ResourceError(
            f"training would take {needed.on_device(machine):.1f} GiB, and {needed.because(machine)}",
            name,
            "Give a smaller training.patch, training.batch or network.size, free memory, or take a larger machine",
        )


def _count_bytes(task: Task, architecture: NetworkArguments, patch: tuple[int, ...]) -> tuple[float, float]:
    """Bytes that autograd keeps for one sample, and bytes of the weights."""
    with torch.device("meta"):
        network = torch_networks.build_module(task, architecture).train()
        images = torch.empty(SAMPLES, architecture["channels"], *patch)
        entries = len(Context.from_settings(architecture.get("context")))
        covariates = [torch.empty(SAMPLES, entries)] if entries else []
    keeping = _Kept(network)
    with keeping.hooks():
        try:
            outputs = network(images, *covariates)
        except RuntimeError as error:
            remedy = "Give sizes that the network's strides divide"
            raise PlanError(f"{patch} does not fit the network ({error})", "training.patch", remedy) from error
    # A loss in float32 looks at each output a few times: softmax, targets, gradient.
    answers = 4 * sum(output.numel() * 4 for output in outputs.values())
    weights = sum(one.numel() * one.element_size() for one in network.parameters())
    return (keeping.bytes + answers) / SAMPLES, weights


# Batch normalisation refuses a single sample.
SAMPLES = 2


class _Kept:
    """Counts the storage of tensors that are kept for the way back, each once and without the weights."""

    def __init__(self, network: Any) -> None:
        self.seen = {one.untyped_storage()._cdata for one in network.parameters()}
        self.held: list[Any] = []  # so that no storage's place is used again while we count

    @property
    def bytes(self) -> int:
        """Their sum."""
        return sum(storage.nbytes() for storage in self.held)

    def hooks(self) -> AbstractContextManager[None]:
        """The context in which tensors that are kept are counted."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            self.held.append(storage)
        return tensor


PROCESSOR = "cpu"
# Devices that compute in the memory of everything else: Apple's GPUs have none of their own.
WITHOUT_MEMORY = (PROCESSOR, "mps")


@dataclass(frozen=True)
class Machine:
    """The device and what it has.

    device: "cpu", "cuda:N" or "mps"
    memory, device_memory: GiB that are available, of the machine and of the device
    bf16:   whether the device computes in bfloat16 itself
    """

    device: str
    threads: int
    memory: float
    device_memory: float
    bf16: bool

    @property
    def is_processor(self) -> bool:
        """Whether it computes with its cores."""
        return device_kind(self.device) == PROCESSOR

    @property
    def shares_memory(self) -> bool:
        """Whether it computes in the memory of everything else."""
        return self.device in WITHOUT_MEMORY


def device_kind(device: str) -> str:
    """The kind of device for rules: "cpu", or "gpu" for every other device."""
    return PROCESSOR if device == PROCESSOR else "gpu"


def core_count() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def this_machine(device: str, threads: int | None = None, device_memory: float | None = None) -> Machine:
    """This machine as it is now, with the memory that is free and the cores that this process may use.

    device_memory: GiB of a device that need not be here; it is believed to compute in bfloat16, as GPUs since 2020 do
    """
    memory = hardware.available_host_memory() / 2**30
    if device_memory is not None:
        return Machine(device, threads or core_count(), round(memory, 1), device_memory, True)
    on_device = memory
    if device.startswith("cuda"):
        on_device = hardware.gpu_memory(device) / 2**30
    return Machine(
        device, threads or core_count(), round(memory, 1), round(on_device, 1), hardware.computes_bfloat16(device)
    )
