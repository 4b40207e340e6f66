"""The choice of a device with its reason, and the memory and versions of this machine, and what it frees."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from typing_extensions import TypedDict

from hilum.errors import ResourceError, UsageError
from hilum.lazy import torch
from hilum.values import Decision
from hilum.work_state import log

# Kinds of devices, and the choice among those that are here.
AUTO, CPU, CUDA, MPS = "auto", "cpu", "cuda", "mps"
GPU = re.compile(r"(cuda|mps)(?::(\d+))?", re.ASCII)
# What torch has code for, by its compute capability: of a kind of GPU, or as text that its driver compiles.
CODE = re.compile(r"(sm|compute)_(\d+)(\d)")
WINDOWS = sys.platform == "win32"
# Where a container sees the limits of its own control group, in version 2 and in version 1.
CONTROL_GROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"))
# What 8-bit arithmetic depends on, by the names of Linux; those that multiply 8-bit numbers into 32-bit sums.
# https://docs.openvino.ai/latest/pot_saturation_issue.html
INSTRUCTIONS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
DOT_PRODUCTS = frozenset(INSTRUCTIONS) - {"avx2"}
# What decides a result beside our own code.
RECORDED = (
    "hilum",
    "torch",
    "numpy",
    "scipy",
    "lightning-fabric",
    "nibabel",
    "pydicom",
    "highdicom",
    "safetensors",
)


def announce_computing(computing: Decision | None) -> None:
    """A device, or a backend on a device, and the reason."""
    if computing is not None:
        log.info("computing on %s: %s", computing.value, computing.because)


def choose_device(name: str = "auto") -> Decision:
    """ "cpu", "cuda:N" or "mps", and the reason.

    Raises UsageError for an unknown name, ResourceError for a device that this machine lacks.
    """
    if name == CPU:
        return Decision(CPU, because="asked for")
    if name == AUTO:
        if torch.cuda.is_available():
            if lacking := _without_code(0):
                return Decision(CPU, because=lacking)
            return Decision("cuda:0", because=f"a GPU is there: {torch.cuda.get_device_name(0)}")
        if torch.backends.mps.is_available():
            return Decision(MPS, because="an Apple GPU is there")
        return Decision(CPU, because="no GPU was found")
    if (named := GPU.fullmatch(name)) is None:
        raise UsageError(f"there is no device {name!r}", "--device", "Choose auto, cpu, cuda:0 or mps")
    kind, number = named[1], int(named[2] or 0)
    count = torch.cuda.device_count() if kind == CUDA else int(torch.backends.mps.is_available())
    if number >= count:
        raise ResourceError(f"{name} is not available ({count} found)", "--device", "Choose auto or cpu")
    if kind == CUDA and (lacking := _without_code(number)):
        raise ResourceError(lacking, "--device", "Choose cpu, or install a build of torch for this GPU")
    return Decision(MPS if kind == MPS else f"{CUDA}:{number}", because="asked for")


def _without_code(number: int) -> str:
    """Why torch cannot compute on a GPU that it sees: its build has no code for it. Empty where it can."""
    capability = torch.cuda.get_device_capability(number)
    flags = CODE.findall(" ".join(torch.cuda.get_arch_list()))
    built = [(kind, (int(major), int(minor))) for kind, major, minor in flags]
    runs = (known <= capability and (kind == "compute" or known[0] == capability[0]) for kind, known in built)
    if not built or any(runs):
        return ""
    name, version = torch.cuda.get_device_name(number), ".".join(map(str, capability))
    return f"this build of torch has no code for the GPU that is there: {name}, compute capability {version}"


def use_threads(count: int) -> None:
    """Let torch use so many cores of this process, from now on."""
    torch.set_num_threads(count)


def announced_device(name: str, threads: int | None = None, *, because: str = "") -> Decision:
    """The device and the reason, also in the log: a GPU that was not found should not go unnoticed.

    threads: cores to use; all if none is given
    because: the reason of a device that a plan names, in place of that it was asked for
    """
    if threads is not None:
        use_threads(threads)
    device = choose_device(name)
    if because:
        device = replace(device, because=because)
    announce_computing(device)
    return device


def computes_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 itself, rather than through float32."""
    if device.startswith(CUDA):
        if not torch.cuda.is_available():
            return False
        with torch.cuda.device(device):  # torch looks at the current one, and a machine may have GPUs of several years
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpu: Any = torch.cpu
    return device == "cpu" and bool(cpu._is_avx512_bf16_supported())


def processor_name() -> str:
    """The name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def processor_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Instructions of this machine's processor that decide what 8-bit sums come to; none where nobody can tell."""
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    lines = (line.partition(":") for line in text.splitlines())
    known = {word for name, _, words in lines if name.strip() in ("flags", "Features") for word in words.split()}
    return [one for one in INSTRUCTIONS if one in known]


def multiplies_bytes(instructions: Collection[str]) -> bool:
    """Whether a processor adds products of 8-bit numbers in 32 bits; with avx2 alone the sums of two saturate."""
    return not DOT_PRODUCTS.isdisjoint(instructions)


def compiler_path() -> str | None:
    """The path of the C++ compiler that torch takes; None where it is not installed."""
    return shutil.which(os.environ.get("CXX", "g++"))


def available_host_memory() -> float:
    """Bytes that this process may still take: of the machine, or less where its container is given less."""
    return min(float(psutil.virtual_memory().available), control_group_memory(*CONTROL_GROUPS))


def gpu_memory(device: str) -> float:
    """Bytes that this process may still take of a GPU: what is free there, and what torch holds and does not use.

    What an earlier training of the same process has freed stays torch's own, and is no longer free to others.
    """
    free, _ = torch.cuda.mem_get_info(device)
    return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def control_group_memory(*folders: Path) -> float:
    """Bytes that the control group in these folders may still take, the file cache not counted; endless without one.

    The limit is `memory.max` in version 2 of Linux' control groups, `memory.limit_in_bytes` in version 1.
    """
    left = [float("inf")]
    for folder in folders:
        for limit, usage, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                most, used = ((folder / name).read_text(encoding="ascii").strip() for name in (limit, usage))
                counted = dict(
                    line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                )
            except (OSError, ValueError):
                continue  # no such group, or none of this version
            if most.isdecimal():  # else "max"
                left.append(max(0.0, float(most) - float(used) + float(counted.get(cached, 0))))
    return min(left)


def peak_memory() -> float:
    """Bytes: the most that this process has held. Linux counts what started it into what `getrusage` says."""
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [one for one in status.read_text(errors="replace").splitlines() if one.startswith("VmHWM")]
        return float(line.split()[1]) * 1024
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


class MachineRecord(TypedDict):
    """Machine and versions of packages."""

    python: str
    system: str
    cores: int | None
    memory_gib: float
    versions: dict[str, str]


def machine_environment() -> MachineRecord:
    """Machine and versions, for the record of a run."""
    return MachineRecord(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        versions=package_versions(RECORDED),
    )


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """{package: its version, as it is installed here}."""
    return {name: _version_of(name) for name in packages}


@cache
def _version_of(package: str) -> str:
    """Looked up once: each takes 8 ms, and a run is recorded several times."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# Freed memory stays with this process while a network computes: the system need not clear the same pages again.
#
# The C library gives each large array back to the system as soon as it is freed, and asks for it anew at the next step;
# every page is then mapped and cleared once more. On two cores of a virtual machine that took a fifth of a training
# step in bfloat16 and two fifths of one in float32 (`bench/training_steps.py`).

# Of mallopt(3), by its numbers in <malloc.h>.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
NEVER = -1
MIB = 2**20
# What glibc comes to by itself after a large array was freed (`DEFAULT_MMAP_THRESHOLD_MAX`), and its other defaults.
USUAL = {MMAP_THRESHOLD: 32 * MIB, TRIM_THRESHOLD: 64 * MIB, TOP_PAD: 128 * 1024, MMAP_MAX: 65536}
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: NEVER, TOP_PAD: 64 * MIB}


@dataclass
class Holders:
    """The number of holders at this time; the first sets what the last takes back."""

    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_within = Holders()


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within, what is freed is kept for what comes next; at the end it goes back to the system.

    The most that is held at once grows: by a tenth in a training in bfloat16, by a quarter in float32, as freed pieces
    do not always fit what comes next. Does nothing where the C library is not glibc.
    """
    library = _glibc()
    if library is None:
        yield
        return
    with _within.lock:
        _within.count += 1
        if _within.count == 1:
            _set_options(library, KEPT)
    try:
        yield
    finally:
        with _within.lock:
            _within.count -= 1
            if _within.count == 0:
                _set_options(library, USUAL)
                library.malloc_trim(0)


def release_memory() -> None:
    """Let the system have what is freed, also where it lies between pieces that are still used."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set_options(library: Any, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)
