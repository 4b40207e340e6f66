"""The device that computes, its memory and its cores."""

from __future__ import annotations

import os
from dataclasses import dataclass

from isocenter.runtime import available_memory, bf16_pays, gpu_memory

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
        return kind_of(self.device) == PROCESSOR

    @property
    def shares_memory(self) -> bool:
        """Whether it computes in the memory of everything else."""
        return self.device in WITHOUT_MEMORY


def kind_of(device: str) -> str:
    """The kind of device for rules: "cpu", or "gpu" for every other device."""
    return PROCESSOR if device == PROCESSOR else "gpu"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def this_machine(device: str, threads: int | None = None, device_memory: float | None = None) -> Machine:
    """This machine as it is now, with the memory that is free and the cores that this process may use.

    device_memory: GiB of a device that need not be here; it is believed to compute in bfloat16, as GPUs since 2020 do
    """
    memory = available_memory() / 2**30
    if device_memory is not None:
        return Machine(device, threads or cores(), round(memory, 1), device_memory, True)
    on_device = memory
    if device.startswith("cuda"):
        on_device = gpu_memory(device) / 2**30
    return Machine(device, threads or cores(), round(memory, 1), round(on_device, 1), bf16_pays(device))
