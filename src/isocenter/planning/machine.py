"""What there is to compute with."""

from __future__ import annotations

import os
from dataclasses import dataclass

from isocenter.lazy import torch
from isocenter.runtime import available_memory, bf16_pays


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


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def this_machine(device: str, threads: int | None = None) -> Machine:
    """As it is now: memory is what is available, and cores are those this process may use."""
    memory = available_memory() / 2**30
    on_device = memory
    if device.startswith("cuda"):
        on_device = torch.cuda.mem_get_info(device)[0] / 2**30
    return Machine(device, threads or cores(), round(memory, 1), round(on_device, 1), bf16_pays(device))
