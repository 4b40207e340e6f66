"""The parity certificate, which compares each backend with torch, and the choice of a backend by it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import IntegrityError, ResourceError, UsageError
from hilum.runtime import hardware, record_files
from hilum.runtime.hardware import AUTO, CPU, WINDOWS
from hilum.runtime.model_schema import ModelRecord
from hilum.runtime.package import backends
from hilum.runtime.package.package_contents import PACKAGED
from hilum.values import Decision
from hilum.work_state import log

CERTIFICATE = "certificate.json"
FLOAT32, BFLOAT16, INT8, INT4 = "float32", "bfloat16", "int8", "int4"
# Their files are made by `compress`, and what they answer depends on the processor.
QUANTISED = frozenset({INT8, INT4})
SCHEMA = "hilum.certificate"


@dataclass(frozen=True)
class Tolerances:
    """The distances that a backend may have from torch; the figures here are those of one that computes in float32.

    largest, mean: of the probabilities, anywhere and on average; of a model that measures, of its numbers in
                   deviations of the training cases; None: not held. Sums in float32, in another order, differ by 1e-4
                   after a hundred layers; TensorFloat-32 on a GPU by a few 1e-3
    disagreeing:   share of voxels with another label; where two classes are alike any rounding decides
    dice:          of each label between the backends, over all images together
    otherwise:     share of images with another set or interval, or that one refuses and the other does not
    ends:          of the width of an interval, how far its ends may lie from those of torch
    """

    largest: float | None = 1e-2
    mean: float = 1e-4
    disagreeing: float = 1e-4
    dice: float = 0.999
    otherwise: float = 0.0
    ends: float = 0.01


# By the precision in which a backend computes: bfloat16 has eight bits, and its roundings do not all cancel.
TOLERANCES: Mapping[str, Tolerances] = {
    FLOAT32: Tolerances(),
    BFLOAT16: Tolerances(largest=0.2, mean=1e-3, disagreeing=5e-4, dice=0.998, otherwise=0.1),
    # How much is lost is measured on labelled cases besides: `BackendTrial.accuracy`.
    INT8: Tolerances(largest=None, mean=1e-2, disagreeing=2e-3, dice=0.98, otherwise=0.1, ends=0.1),
    INT4: Tolerances(largest=None, mean=2e-2, disagreeing=4e-3, dice=0.96, otherwise=0.2, ends=0.2),
}


@dataclass(frozen=True)
class Difference:
    """The distances of one backend from another on the same images.

    largest, mean: absolute, of the probabilities on the images' own grids, or of what stands for them
    voxels:        with a label; of models of whole images the images; 0 where none is labelled
    disagreeing:   those that have another label
    dice:          {label: between the two}, over all images together; without labels that neither has
    images:        compared, of which `otherwise` have another set or interval, or are refused by one of both alone
    """

    largest: float
    mean: float
    voxels: int
    disagreeing: int
    dice: Mapping[str, float] = field(default_factory=dict)
    images: int = 0
    otherwise: int = 0

    def beyond(self, tolerances: Tolerances) -> list[str]:
        """Reasons that are not within the tolerances, in words."""
        reasons = []
        single, many = ("a probability", "probabilities") if self.voxels else ("a number", "numbers")
        if tolerances.largest is not None and not self.largest <= tolerances.largest:
            reasons.append(f"{single} differs by {self.largest:.2g} (at most {tolerances.largest:g})")
        if not self.mean <= tolerances.mean:
            reasons.append(f"{many} differ by {self.mean:.2g} on average (at most {tolerances.mean:g})")
        if not self.disagreeing <= tolerances.disagreeing * self.voxels:
            reasons.append(f"{self.disagreeing} of {self.voxels} labels differ (at most {tolerances.disagreeing:g})")
        if not self.otherwise <= tolerances.otherwise * self.images:
            reasons.append(f"{self.otherwise} of {self.images} images: another set, interval or verdict of the gate")
        low = [f"{label} {value:.4f}" for label, value in self.dice.items() if not value >= tolerances.dice]
        if low:
            reasons.append(f"Dice between the two of {', '.join(low)} (at least {tolerances.dice:g})")
        return reasons


@dataclass(frozen=True)
class BackendTrial:
    """The outcome of one backend on one device, in a process of its own.

    passed:      whether it is within the tolerances of its precision; only then is it accepted
    because:     the verdict in words
    start:       s from a cold process to the first result
    seconds:     median s for an image once warm, from the image in memory to the result on its grid
    peak_memory: MiB of the process
    window:      median s of the networks for one window
    instructions: of the processor, as `hardware.processor_instructions` gives them
    accuracy:    of quantised networks, whether labelled cases showed that they lose little; None where nobody looked
    """

    backend: str
    device: str
    passed: bool
    because: str
    difference: Difference | None = None
    start: float | None = None
    seconds: float | None = None
    repeats: int = 0
    peak_memory: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    precision: str = FLOAT32
    window: float | None = None
    instructions: Sequence[str] = field(default_factory=list)
    accuracy: bool | None = None

    @property
    def reason_against(self) -> str:
        """Why a quantised network is not taken on this machine; empty where it is, and of all others."""
        here = hardware.processor_instructions() if self.precision in QUANTISED else []
        if self.precision not in QUANTISED or (self.accuracy and here and here == [*self.instructions]):
            return ""
        if not self.accuracy:
            return "was not shown to lose little on labelled cases"
        there = errors.list_phrase(list(self.instructions))
        return f"was certified on a processor with {there}, and this one has {errors.list_phrase(here) or 'others'}"

    @property
    def line(self) -> str:
        """One line for a terminal."""
        verdict = f"{self.backend} on {self.device}: {'accepted' if self.passed else 'not accepted'}, {self.because}"
        if self.start is None or self.seconds is None or self.peak_memory is None:
            return verdict
        figures = f"{self.start:.1f} s to the first result, {self.seconds:.2g} s each, {self.peak_memory:.0f} MiB"
        return f"{verdict}; {figures}"

    def cost(self, images: int) -> float:
        """s for so many images from a cold process; endless where it was not measured."""
        if self.start is None or self.seconds is None:
            return float("inf")
        return self.start + (images - 1) * self.seconds


@dataclass(frozen=True)
class Certificate:
    """Every backend that could be tried on the machine where a package was made.

    images:     which ones, in words
    opset:      of the ONNX file; None without one
    machine:    processor, cores and threads, for the times
    tolerances: {precision: what its backends were held to}
    """

    images: str
    machine: str
    opset: int | None
    trials: Sequence[BackendTrial]
    tolerances: Mapping[str, Tolerances] = field(default_factory=lambda: TOLERANCES)
    reference: str = "torch on cpu"

    def trial(self, backend: str, device: str) -> BackendTrial | None:
        """The trial of a backend on a device."""
        return next((one for one in self.on(device) if one.backend == backend), None)

    def on(self, device: str) -> list[BackendTrial]:
        """Trials of all backends on a device; GPUs of one machine are one kind."""
        kind = device.partition(":")[0]
        return [one for one in self.trials if one.device.partition(":")[0] == kind]

    @property
    def lines(self) -> list[str]:
        """The text for a terminal: each backend with its verdict and its times."""
        return [f"certificate, {self.images}, {self.machine}:", *(f"  {one.line}" for one in self.trials)]

    def write(self, folder: Path) -> None:
        """Into a package, which has to be sealed again."""
        record_files.write_json(folder / PACKAGED / CERTIFICATE, SCHEMA, asdict(self))


def read_certificate(folder: Path) -> Certificate | None:
    """The certificate of a package; None for one without. IntegrityError for a damaged one."""
    path = folder / PACKAGED / CERTIFICATE
    if not path.is_file():
        return None
    record = record_files.read_json(path, SCHEMA)
    try:
        trials = [_trial(one) for one in record["trials"]]
        tolerances = {precision: Tolerances(**one) for precision, one in record["tolerances"].items()}
        return Certificate(
            record["images"], record["machine"], record["opset"], tuple(trials), tolerances, record["reference"]
        )
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"is not a certificate ({error})", str(path), "Get the package again") from error


def _trial(record: Mapping[str, Any]) -> BackendTrial:
    difference = record["difference"]
    return BackendTrial(**{**record, "difference": None if difference is None else Difference(**difference)})


# What is said of a package without a certificate, or of one of several networks.
PLAIN = "torch"
# The fastest is the one that is soonest done with so many images, its start included.
TYPICAL_IMAGES = 10
# What makes the certificate of a quantised network hold here.
RECERTIFY = "hilum compress PACKAGE --methods recertify --data DATA --out NEW certifies it here"
# The kinds of GPU that torch knows.
GPUS = ("cuda:0", "mps")


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
    name: str, device: str, record: ModelRecord, certificate: Certificate | None, where: str
) -> Computing:
    """The backend of this name, or with "auto" the fastest that the certificate vouches for on the device.

    record: `hilum/model.json`
    Raises UsageError for an unknown one or one that failed its certificate, ResourceError where it cannot compute here.
    """
    if name == AUTO:
        return _fastest(device, certificate)
    backend = backends.find_backend(name)
    backend.files(record)  # refused before a device is looked for
    chosen = backend_device(backend, device)
    trial = certificate.trial(name, chosen.value) if certificate is not None else None
    if trial is not None and (not trial.passed or trial.accuracy is False):
        raise UsageError(f"{name} failed the package's certificate: {trial.because}", where, "Choose --backend auto")
    if trial is not None and (reason := trial.reason_against):
        log.warning("%s: %s %s: %s", where, name, reason, RECERTIFY)
    if trial is None and name != PLAIN:
        warning = "has no certificate for this package: nobody compared it with torch; package anew with --backends"
        log.warning("%s: %s on %s %s %s", where, name, chosen.value, warning, name)
    return Computing(backend, chosen.value, f"{name} was asked for" + (f"; {chosen.because}" if device == AUTO else ""))


def backend_device(backend: backends.Backend, device: str) -> Decision:
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
    return hardware.choose_device(name)


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
    plain = backends.find_backend(PLAIN)
    if certificate is None:
        return Computing(plain, chosen.value, f"{chosen.because}; without a certificate only torch is sure")
    passed = [trial for trial in certificate.on(chosen.value) if trial.passed]
    candidates = [trial for trial in passed if trial.backend in backends.backend_names()]
    # What was certified was another program where its versions were others.
    fitting = [
        trial
        for trial in candidates
        if trial.versions == hardware.package_versions(backends.find_backend(trial.backend).packages)
    ]
    for trial in candidates:
        if reason := trial.reason_against:
            log.info("%s %s: %s", trial.backend, reason, RECERTIFY)
        if trial not in fitting:
            now = ", ".join(
                " ".join(pair)
                for pair in hardware.package_versions(backends.find_backend(trial.backend).packages).items()
            )
            log.info("%s was certified with other versions than %s: package anew to use it", trial.backend, now)
    fitting = [trial for trial in fitting if not trial.reason_against]
    ranked = sorted(fitting, key=lambda trial: trial.cost(TYPICAL_IMAGES))
    # Asked one after the other: what some of them need is torch, which takes seconds to answer.
    best = next(
        (n for n, one in enumerate(ranked) if not backends.find_backend(one.backend).lacking(chosen.value)), None
    )
    if best is None:
        return Computing(plain, chosen.value, f"{chosen.because}; no backend is certified for {chosen.value}")
    first, others = ranked[best], [f"{trial.backend} {_seconds(trial)}" for trial in ranked[best + 1 :]]
    slower = f" ({', '.join(others)})" if others else ""
    figures = f"{_seconds(first)}{slower}, on {certificate.machine}"
    because = f"the fastest certified one for {TYPICAL_IMAGES} images: {figures}"
    return Computing(backends.find_backend(first.backend), chosen.value, because)


def _seconds(trial: BackendTrial) -> str:
    return f"{trial.start:.1f} s to a first result and {trial.seconds:.2g} s for each more"
