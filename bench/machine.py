"""What a figure was measured on, in words."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil
import torch


def described() -> str:
    """Processor, cores, memory, system, versions, GPU."""
    memory = psutil.virtual_memory().total / 2**30
    text = f"{_processor()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"
    text += f", Python {platform.python_version()}, torch {torch.__version__}"
    return text + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
