"""The choice of the backend that computes a package, and of its device, with the reason."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isocenter.errors import ResourceError, UsageError
from isocenter.runtime.device import AUTO, CPU, WINDOWS, choose_device, versions
from isocenter.runtime.package import backends
from isocenter.runtime.package.certificate import Certificate, Trial
from isocenter.values import Decision

# What is said of a package without a certificate, or of one of several networks.
PLAIN = "torch"
# The fastest is the one that is soonest done with so many images, its start included.
TYPICAL_IMAGES = 10
# The kinds of GPU that torch knows.
GPUS = ("cuda:0", "mps")

log = logging.getLogger("isocenter")


@dataclass(frozen=True)
class Computing:
    """The backend and the device with which a model computes."""

    backend: backends.Backend
    device: str
    because: str

    @property
    def decision(self) -> Decision:
        """The decision for the log and for records."""
        return Decision(f"{self.device} with {self.backend.name}", self.because)


def choose_backend(
    name: str, device: str, record: Mapping[str, Any], certificate: Certificate | None, where: str
) -> Computing:
    """The backend of this name, or with "auto" the fastest that the certificate vouches for on the device.

    record: `isocenter/model.json`
    Raises UsageError for an unknown one or one that failed its certificate, ResourceError where it cannot compute here.
    """
    if name == AUTO:
        return _fastest(device, certificate)
    backend = backends.backend(name)
    backend.files(record)  # refused before a device is looked for
    chosen = device_for(backend, device)
    trial = certificate.trial(name, chosen.value) if certificate is not None else None
    if trial is not None and not trial.passed:
        raise UsageError(f"{name} failed the package's certificate: {trial.because}", where, "Choose --backend auto")
    if trial is None and name != PLAIN:
        warning = "has no certificate for this package: nobody compared it with torch; package anew with --backends"
        log.warning("%s: %s on %s %s %s", where, name, chosen.value, warning, name)
    return Computing(backend, chosen.value, f"{name} was asked for" + (f"; {chosen.because}" if device == AUTO else ""))


def device_for(backend: backends.Backend, device: str) -> Decision:
    """The device on which a backend computes: as asked for, else on a GPU where it can, else on the CPU.

    torch is asked for GPUs only where there may be one that the backend can use: that takes seconds.
    Raises ResourceError where the backend cannot compute there.
    """
    if device == AUTO and all(backend.lacking(gpu) is not None for gpu in GPUS) and backend.lacking(CPU) is None:
        return Decision(CPU, because=f"{backend.name} cannot use a GPU here")
    chosen = _device(device)
    if (lacking := backend.lacking(chosen.value)) is None:
        return chosen
    if device == AUTO and chosen.value != CPU and backend.lacking(CPU) is None:
        return Decision(CPU, because=lacking.partition(":")[0])
    problem, _, remedy = lacking.partition(": ")
    raise ResourceError(
        problem, f"--backend {backend.name}", remedy[:1].upper() + remedy[1:] or f"Choose --backend {PLAIN}"
    )


def _device(name: str) -> Decision:
    if name == AUTO and not has_gpu_driver():
        return Decision(CPU, because="no GPU was found")
    return choose_device(name)


def has_gpu_driver() -> bool:
    """Whether there may be a GPU that torch computes on."""
    if sys.platform == "darwin" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if WINDOWS else "libcuda.so.1")
    except OSError:
        return False
    return True


def _fastest(device: str, certificate: Certificate | None) -> Computing:
    chosen = _device(device)
    plain = backends.backend(PLAIN)
    if certificate is None:
        return Computing(plain, chosen.value, f"{chosen.because}; without a certificate only torch is sure")
    passed = [trial for trial in certificate.on(chosen.value) if trial.passed]
    candidates = [trial for trial in passed if trial.backend in backends.names()]
    # What was certified was another program where its versions were others.
    fitting = [trial for trial in candidates if trial.versions == versions(backends.backend(trial.backend).packages)]
    for trial in candidates:
        if trial not in fitting:
            now = ", ".join(" ".join(pair) for pair in versions(backends.backend(trial.backend).packages).items())
            log.info("%s was certified with other versions than %s: package anew to use it", trial.backend, now)
    ranked = sorted(fitting, key=lambda trial: trial.cost(TYPICAL_IMAGES))
    # Asked one after the other: what some of them need is torch, which takes seconds to answer.
    best = next((n for n, one in enumerate(ranked) if not backends.backend(one.backend).lacking(chosen.value)), None)
    if best is None:
        return Computing(plain, chosen.value, f"{chosen.because}; no backend is certified for {chosen.value}")
    first, others = ranked[best], [f"{trial.backend} {_seconds(trial)}" for trial in ranked[best + 1 :]]
    slower = f" ({', '.join(others)})" if others else ""
    figures = f"{_seconds(first)}{slower}, on {certificate.machine}"
    because = f"the fastest certified one for {TYPICAL_IMAGES} images: {figures}"
    return Computing(backends.backend(first.backend), chosen.value, because)


def _seconds(trial: Trial) -> str:
    return f"{trial.start:.1f} s to a first result and {trial.seconds:.2g} s for each more"
